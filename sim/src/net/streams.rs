//! The platform's byte streams of one node.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::task::{Poll, Waker};

use futures::future::BoxFuture;
use pqcnet_p2p::network::Address;
use pqcnet_p2p::streams::{Arrived, BoxStream, Listener, Streams};

use super::engine::Net;
use super::stream::SimStream;
use crate::world::NodeNo;

/// Connections that wait to be accepted; more are not answered, as by a full backlog.
pub(super) const BACKLOG: usize = 1_024;

/// What came to a listener, and who waits for it.
#[derive(Default)]
pub(super) struct Listening {
    pub(super) queue: VecDeque<(u64, SocketAddr)>,
    pub(super) waiting: Option<Waker>,
}

/// Dials and listens as one node.
#[derive(Clone)]
pub struct SimStreams {
    net: Net,
    node: NodeNo,
}

impl SimStreams {
    /// The streams of a node of this network.
    pub fn new(net: Net, node: NodeNo) -> SimStreams {
        SimStreams { net, node }
    }
}

impl Streams for SimStreams {
    fn dial<'a>(&'a self, to: &'a Address) -> BoxFuture<'a, io::Result<BoxStream>> {
        Box::pin(async move {
            let stream = self.net.dial(self.node, to).await?;
            Ok(Box::new(stream) as BoxStream)
        })
    }

    fn listen<'a>(&'a self, at: &'a Address) -> BoxFuture<'a, io::Result<Box<dyn Listener>>> {
        Box::pin(async move {
            let listener = self.net.listen(self.node, at.port())?;
            Ok(Box::new(listener) as Box<dyn Listener>)
        })
    }
}

/// Takes connections in at one port of a node. Dropped, it takes no more.
pub(crate) struct SimListener {
    pub(super) net: Net,
    pub(super) node: NodeNo,
    pub(super) port: u16,
    pub(super) number: u64,
}

impl SimListener {
    /// Where it listens.
    pub(crate) fn address(&self) -> Address {
        SocketAddr::new(self.net.ip(self.node), self.port).into()
    }

    /// The next connection, and from where.
    pub(crate) async fn next(&mut self) -> (SimStream, SocketAddr) {
        poll_fn(|cx| {
            let mut state = self.net.lock();
            let Some(listening) = state.listeners.get_mut(&self.number) else {
                // Its machine is gone, and this task with it.
                return Poll::Pending;
            };
            match listening.queue.pop_front() {
                Some((conn, from)) => {
                    drop(state);
                    Poll::Ready((SimStream::listened(self.net.clone(), conn), from))
                }
                None => {
                    listening.waiting = Some(cx.waker().clone());
                    Poll::Pending
                }
            }
        })
        .await
    }
}

impl Listener for SimListener {
    fn local(&self) -> Address {
        self.address()
    }

    fn accept(&mut self) -> BoxFuture<'_, io::Result<Arrived>> {
        Box::pin(async move {
            let (stream, from) = self.next().await;
            Ok(Arrived {
                stream: Box::new(stream),
                from: Some(from),
            })
        })
    }
}

impl Drop for SimListener {
    fn drop(&mut self) {
        self.net.stop_listening(self.node, self.port, self.number);
    }
}
