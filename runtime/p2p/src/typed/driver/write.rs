//! What leaves, how long it may take, and the last moments of a link.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf, Bytes};
use futures::{AsyncRead, AsyncWrite};

use super::{Driver, Phase, READ_CHUNK, READS_A_TURN, Turn, WRITE_CHUNK};

impl Driver {
    /// Writes until the link has nothing more, then flushes. Whether anything came of it.
    pub(super) fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<bool>> {
        let mut wrote = false;
        loop {
            if self.writing.is_empty() {
                let now = self.shared.env().now();
                match self
                    .shared
                    .inner
                    .lock()
                    .link
                    .poll_transmit(now, WRITE_CHUNK)
                {
                    Some(bytes) => self.writing = bytes,
                    None => break,
                }
                self.await_write(now);
                self.shared.space.notify_waiters();
            }
            match Pin::new(&mut self.io).poll_write(cx, &self.writing) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Poll::Ready(Ok(n)) => {
                    self.writing.advance(n);
                    self.unflushed = true;
                    wrote = true;
                    if self.writing.len() <= self.write_mark {
                        let now = self.shared.env().now();
                        self.await_write(now);
                    }
                }
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
            }
        }
        self.writing = Bytes::new();
        if !self.unflushed {
            self.write_deadline = None;
        }
        if self.unflushed {
            match Pin::new(&mut self.io).poll_flush(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(flushed) => flushed?,
            }
            self.write_deadline = None;
            self.unflushed = false;
        }
        if let Phase::Parting { until } = self.phase {
            match Pin::new(&mut self.io).poll_close(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(closed) => closed?,
            }
            self.phase = Phase::Lingering { until };
            wrote = true;
        }
        Poll::Ready(Ok(wrote))
    }

    /// The next 64 KiB have their own time: a peer that reads a byte now and then gets no more of it.
    fn await_write(&mut self, now: Duration) {
        self.write_deadline = Some(now + self.write_timeout);
        self.write_mark = self.writing.len().saturating_sub(WRITE_CHUNK);
    }

    /// Reads and throws away until the other side hangs up: closing with unread bytes would make TCP drop our Down.
    pub(super) fn poll_linger(&mut self, cx: &mut Context<'_>) -> Turn {
        let Phase::Lingering { until } = self.phase else {
            return Turn::Again;
        };
        if until <= self.shared.env().now() {
            return Turn::Done;
        }
        let mut chunk = [0u8; READ_CHUNK];
        for _ in 0..READS_A_TURN {
            match Pin::new(&mut self.io).poll_read(cx, &mut chunk) {
                Poll::Pending => return Turn::Wait,
                Poll::Ready(Ok(0) | Err(_)) => return Turn::Done,
                Poll::Ready(Ok(_)) => {}
            }
        }
        Turn::Again
    }
}
