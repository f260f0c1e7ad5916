//! One end of a simulated connection.

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf as _, Bytes};
use futures::io::{AsyncRead, AsyncWrite};

use super::conns::{End, Item, WINDOW};
use super::engine::Net;

/// Bytes that one write takes at most: what a socket takes of a long one.
const SEGMENT: usize = 64 * 1024;

/// An ordered, reliable stream of bytes between two nodes. Dropped, the other end reads what is under way, then the end.
pub struct SimStream {
    pub(super) net: Net,
    pub(super) conn: u64,
    pub(super) end: End,
}

impl SimStream {
    pub(super) fn new(net: Net, conn: u64, end: End) -> SimStream {
        SimStream { net, conn, end }
    }

    /// The connection's number.
    pub(crate) fn number(&self) -> u64 {
        self.conn
    }

    pub(super) fn listened(net: Net, conn: u64) -> SimStream {
        SimStream::new(net, conn, End::Listener)
    }
}

impl AsyncRead for SimStream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let mut state = self.net.lock();
        let Some(conn) = state.conns.get(self.conn) else {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        };
        let side = conn.side(self.end);
        if buf.is_empty() {
            return Poll::Ready(Ok(0));
        }
        let mut read = 0;
        while let Some(front) = side.inbox.front_mut() {
            let n = front.len().min(buf.len() - read);
            buf[read..read + n].copy_from_slice(&front[..n]);
            read += n;
            if n == front.len() {
                side.inbox.pop_front();
            } else {
                front.advance(n);
                break;
            }
        }
        if read > 0 {
            if side.inbox.is_empty() {
                // Most connections have nothing under way most of the time, and there are very many.
                side.inbox = VecDeque::new();
            }
            side.unread = side.unread.saturating_sub(read);
            let starves = std::mem::take(&mut side.starves);
            let waiting = match starves {
                true => conn.side(self.end.other()).writer.take(),
                false => None,
            };
            drop(state);
            if let Some(writer) = waiting {
                writer.wake();
            }
            return Poll::Ready(Ok(read));
        }
        if let Some(error) = side.error {
            return Poll::Ready(Err(error.into()));
        }
        if side.eof {
            return Poll::Ready(Ok(0));
        }
        match &mut side.reader {
            Some(reader) => reader.clone_from(cx.waker()),
            none => *none = Some(cx.waker().clone()),
        }
        Poll::Pending
    }
}

impl AsyncWrite for SimStream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let mut state = self.net.lock();
        let Some(conn) = state.conns.get(self.conn) else {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        };
        let side = conn.side(self.end);
        if let Some(error) = side.error {
            return Poll::Ready(Err(error.into()));
        }
        if side.fin_sent {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let peer = conn.side(self.end.other());
        let room = WINDOW.saturating_sub(peer.unread);
        if room == 0 {
            peer.starves = true;
            conn.side(self.end).writer = Some(cx.waker().clone());
            return Poll::Pending;
        }
        let n = buf.len().min(room).min(SEGMENT);
        peer.unread += n;
        let bytes = Bytes::copy_from_slice(&buf[..n]);
        state.transmit(self.net.now_ns(), self.conn, self.end, Item::Data(bytes));
        self.net.rearm(state);
        Poll::Ready(Ok(n))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut state = self.net.lock();
        let Some(conn) = state.conns.get(self.conn) else {
            return Poll::Ready(Ok(()));
        };
        let side = conn.side(self.end);
        if side.error.is_none() && !side.fin_sent {
            side.fin_sent = true;
            state.transmit(self.net.now_ns(), self.conn, self.end, Item::Fin);
            self.net.rearm(state);
        }
        Poll::Ready(Ok(()))
    }
}

impl Drop for SimStream {
    fn drop(&mut self) {
        self.net.let_go(self.conn, self.end);
    }
}

impl std::fmt::Debug for SimStream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SimStream({:x}, {:?})", self.conn, self.end)
    }
}
