//! Parcels: values that travel on a connection, in order with its bytes, as if they were the bytes they stand for.
//!
//! The control plane's frames go this way: they are weighed, delayed, held up and lost with their connection, and neither
//! encoded nor copied. Another connection between the same two nodes can be opened beside one that stands
//! ([`SimStream::branch`]), as a multiplexer opens a substream: without a handshake or a wait.

use std::any::Any;
use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use parking_lot::Mutex;

use super::conns::{Conn, End, Item, Side};
use super::engine::Net;
use super::stream::SimStream;
use crate::world::NodeNo;

/// A value on its way.
pub struct Parcel {
    /// Bytes that it stands for.
    pub bytes: usize,
    /// What it is, for the event hash.
    pub what: &'static str,
    /// Its content, for the event hash.
    pub digest: u64,
    /// It.
    pub body: Box<dyn Any + Send>,
}

impl std::fmt::Debug for Parcel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Parcel({}, {} bytes)", self.what, self.bytes)
    }
}

/// What came on one of an inbox's connections.
pub enum Came {
    /// A parcel.
    Parcel(Box<dyn Any + Send>),
    /// Nothing will come any more; the reason, when it was no orderly end.
    Closed(Option<io::ErrorKind>),
}

#[derive(Default)]
struct Waiting {
    queue: VecDeque<(u64, Came)>,
    reader: Option<Waker>,
}

/// Where the parcels of many connections come together, each with its connection's number. Bounded by what the senders may
/// have under way.
#[derive(Default)]
pub struct Inbox(Mutex<Waiting>);

impl Inbox {
    /// The next one.
    pub fn poll_next(&self, cx: &mut Context<'_>) -> Poll<(u64, Came)> {
        let mut waiting = self.0.lock();
        match waiting.queue.pop_front() {
            Some(came) => Poll::Ready(came),
            None => {
                waiting.reader = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }

    /// The next one, if one has come.
    pub fn try_next(&self) -> Option<(u64, Came)> {
        self.0.lock().queue.pop_front()
    }

    /// Puts one in; whom to wake for it.
    pub(super) fn push(&self, conn: u64, came: Came) -> Option<Waker> {
        let mut waiting = self.0.lock();
        waiting.queue.push_back((conn, came));
        waiting.reader.take()
    }
}

/// An end's inbox, under the connection's number; what came before there was one.
#[derive(Default)]
pub(super) enum Taker {
    /// Nobody has taken parcels yet, and none came.
    #[default]
    None,
    /// These came.
    Early(VecDeque<Box<dyn Any + Send>>),
    /// They go there.
    Inbox(u64, Arc<Inbox>),
}

impl Taker {
    pub(super) fn take(&mut self, body: Box<dyn Any + Send>) -> Option<Waker> {
        match self {
            Taker::None => *self = Taker::Early(VecDeque::from([body])),
            Taker::Early(early) => early.push_back(body),
            Taker::Inbox(conn, inbox) => return inbox.push(*conn, Came::Parcel(body)),
        }
        None
    }

    /// The end has heard its last.
    pub(super) fn closed(&self, error: Option<io::ErrorKind>) -> Option<Waker> {
        match self {
            Taker::Inbox(conn, inbox) => inbox.push(*conn, Came::Closed(error)),
            Taker::None | Taker::Early(_) => None,
        }
    }
}

impl std::fmt::Debug for Taker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Taker")
    }
}

impl SimStream {
    /// The node at the other end.
    pub fn peer(&self) -> Option<NodeNo> {
        let mut state = self.net.lock();
        let conn = state.conns.get(self.conn)?;
        Some(conn.side(self.end.other()).node)
    }

    /// From now on parcels that come here go into this inbox, those that came before first; so does the news of the end.
    pub fn attach(&self, inbox: &Arc<Inbox>) {
        let mut state = self.net.lock();
        let Some(conn) = state.conns.get(self.conn) else {
            drop(state);
            let woken = inbox.push(self.conn, Came::Closed(None));
            return woken.into_iter().for_each(Waker::wake);
        };
        let side = conn.side(self.end);
        let taker = Taker::Inbox(self.conn, inbox.clone());
        let mut woken = None;
        if let Taker::Early(early) = std::mem::replace(&mut side.taker, taker) {
            for body in early {
                woken = side.taker.take(body).or(woken);
            }
        }
        if side.eof || side.error.is_some() {
            woken = side.taker.closed(side.error).or(woken);
        }
        drop(state);
        woken.into_iter().for_each(Waker::wake);
    }

    /// Sends a parcel. It takes no part of the stream's window: whoever sends parcels keeps a measure of its own.
    pub fn post(&self, parcel: Parcel) {
        let mut state = self.net.lock();
        let Some(conn) = state.conns.get(self.conn) else {
            return;
        };
        let side = conn.side(self.end);
        if side.error.is_some() || side.fin_sent {
            return;
        }
        state.transmit(self.net.now_ns(), self.conn, self.end, Item::Parcel(parcel));
        self.net.rearm(state);
    }

    /// A further connection to the same node, beside this one; the other end gets its own by [`Net::claim`].
    ///
    /// # Errors
    /// This connection is gone.
    pub fn branch(&self) -> io::Result<SimStream> {
        let mut state = self.net.lock();
        let gone = || io::Error::from(io::ErrorKind::ConnectionReset);
        let conn = state.conns.get(self.conn).ok_or_else(gone)?;
        let here = conn.side(self.end);
        if here.error.is_some() || here.fin_sent {
            return Err(gone());
        }
        let (node, port) = (here.node, here.port);
        let there = conn.side(self.end.other());
        let (other, other_port) = (there.node, there.port);
        let mut branch = Conn {
            dialler: Side::new(node, port),
            listener: Side::new(other, other_port),
        };
        branch.dialler.held = true;
        branch.dialler.open = true;
        branch.listener.open = true;
        branch.listener.awaited = true;
        // Bytes that come before it is claimed wait for it.
        branch.listener.held = true;
        let number = state.conns.add(branch);
        for end in [node, other] {
            state.hosts[end.index()].conns.insert(number);
        }
        Ok(SimStream::new(self.net.clone(), number, End::Dialler))
    }
}

impl Net {
    /// The other end of a [`SimStream::branch`], once; `None` if it is gone or was claimed.
    pub fn claim(&self, number: u64) -> Option<SimStream> {
        let mut state = self.lock();
        let side = state.conns.get(number)?.side(End::Listener);
        if !std::mem::replace(&mut side.awaited, false) || side.error.is_some() {
            return None;
        }
        drop(state);
        Some(SimStream::new(self.clone(), number, End::Listener))
    }

    /// Whether a connection is still somebody's.
    pub(crate) fn stands(&self, number: u64) -> bool {
        self.lock().conns.get(number).is_some()
    }

    /// Ends a connection as a node sees it whose end it is: what it carried is gone with it.
    pub fn sever(&self, node: NodeNo, number: u64) {
        let mut state = self.lock();
        let Some(conn) = state.conns.get(number) else {
            return;
        };
        let mut woken = Vec::new();
        for end in [End::Dialler, End::Listener] {
            let side = conn.side(end);
            if side.node != node {
                continue;
            }
            if std::mem::replace(&mut side.awaited, false) {
                side.held = false;
            }
            side.open = false;
            side.fail(io::ErrorKind::ConnectionReset, &mut woken);
        }
        state.sweep(number);
        state.woken.append(&mut woken);
        self.rearm(state);
    }
}
