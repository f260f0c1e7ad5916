//! Datagrams of one port.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::task::{Poll, Waker};

use bytes::Bytes;

use super::engine::Net;
use crate::world::NodeNo;

/// Datagrams that wait for their reader; more are lost, as in a socket's buffer.
pub(super) const WAITING: usize = 1_024;

/// A datagram.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Arrival {
    /// Who sent it.
    pub from: SocketAddr,
    /// What.
    pub bytes: Bytes,
}

/// What a port holds.
#[derive(Default)]
pub(super) struct Box {
    pub(super) queue: VecDeque<Arrival>,
    pub(super) reader: Option<Waker>,
    pub(super) closed: bool,
}

/// A node's port for datagrams. Dropped, the port is free again.
pub struct Mailbox {
    pub(super) net: Net,
    pub(super) node: NodeNo,
    pub(super) port: u16,
    pub(super) number: u64,
}

impl Mailbox {
    /// Where it receives.
    pub fn local(&self) -> SocketAddr {
        SocketAddr::new(self.net.ip(self.node), self.port)
    }

    /// Sends a datagram; whether it arrives nobody learns.
    pub fn send(&self, to: SocketAddr, bytes: Bytes) {
        self.net.send_datagram(self.node, self.port, to, bytes);
    }

    /// The next datagram; `None` once the node's machine is gone.
    pub async fn receive(&mut self) -> Option<Arrival> {
        poll_fn(|cx| {
            let mut state = self.net.lock();
            let Some(open) = state.mailboxes.get_mut(&self.number) else {
                return Poll::Ready(None);
            };
            match open.queue.pop_front() {
                Some(arrival) => Poll::Ready(Some(arrival)),
                None if open.closed => Poll::Ready(None),
                None => {
                    open.reader = Some(cx.waker().clone());
                    Poll::Pending
                }
            }
        })
        .await
    }
}

impl Drop for Mailbox {
    fn drop(&mut self) {
        let mut state = self.net.lock();
        state.mailboxes.remove(&self.number);
        state.free_mailbox(self.node, self.port, self.number);
    }
}
