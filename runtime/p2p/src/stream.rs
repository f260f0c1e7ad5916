//! A byte stream inside QSTP records.
//!
//! Writes collect in records of up to 64 KiB until one is full or flushed, so that a flood of small writes costs one
//! seal and one system call a record. Both buffers are borrowed from [`Buffers`] while bytes are moving and given back
//! when idle. The end of the stream is a record of its own: bytes that end without it were cut, and that is an error.

use std::io;
use std::ops::Range;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures::io::{AsyncBufRead, AsyncRead, AsyncWrite};
use pqcnet_actor::Env;
use pqcnet_qstp::record::{HEADER_LEN, OVERHEAD};
use pqcnet_qstp::{Kind, Opener, RecordError, Sealer, Session};

use crate::buffers::Buffers;

/// Size of the buffers that streams borrow: two of the longest records, and a Close behind them.
pub const BUFFER: usize = 2 * 65_536 + 64;

/// A byte stream inside QSTP records. Errors of the channel are [`RecordError`]s inside the [`io::Error`].
pub struct QstpStream<S> {
    io: S,
    env: Env,
    buffers: Buffers,
    tx: Tx,
    rx: Rx,
}

struct Tx {
    sealer: Sealer,
    buffer: Option<Vec<u8>>,
    /// Before it: sent. From it to `sealed`: ready to send.
    sent: usize,
    /// Where the open record begins.
    sealed: usize,
    /// Content of the open record.
    content: usize,
    /// The Close record is sealed; nothing may follow.
    closing: bool,
}

struct Rx {
    opener: Opener,
    buffer: Option<Vec<u8>>,
    /// Received and not yet opened.
    raw: Range<usize>,
    /// Opened and not yet read.
    plain: Range<usize>,
    failed: Option<RecordError>,
}

impl<S> QstpStream<S> {
    /// A stream over `io`, from which nothing after the handshake has been read. `buffers` are of [`BUFFER`] bytes.
    pub fn new(io: S, session: Session, env: Env, buffers: Buffers) -> QstpStream<S> {
        let (sealer, opener) = session.split();
        let tx = Tx {
            sealer,
            buffer: None,
            sent: 0,
            sealed: 0,
            content: 0,
            closing: false,
        };
        let rx = Rx {
            opener,
            buffer: None,
            raw: 0..0,
            plain: 0..0,
            failed: None,
        };
        QstpStream {
            io,
            env,
            buffers,
            tx,
            rx,
        }
    }

    /// Whether the peer has ended its direction by its own will.
    pub fn peer_closed(&self) -> bool {
        self.rx.opener.is_closed()
    }

    /// Keys used up so far, sending and receiving.
    pub fn epochs(&self) -> (u64, u64) {
        (self.tx.sealer.epoch(), self.rx.opener.epoch())
    }
}

impl<S> std::fmt::Debug for QstpStream<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("QstpStream")
            .field("epochs", &self.epochs())
            .finish_non_exhaustive()
    }
}

/// The channel's error inside an I/O error of a [`QstpStream`]; `None` when the transport itself failed.
pub fn record_error(error: &io::Error) -> Option<RecordError> {
    error.get_ref()?.downcast_ref::<RecordError>().copied()
}

fn channel(error: RecordError) -> io::Error {
    let kind = match error {
        RecordError::Truncated => io::ErrorKind::UnexpectedEof,
        RecordError::Rejected(_) => io::ErrorKind::ConnectionRefused,
        RecordError::Frame { .. }
        | RecordError::Length { .. }
        | RecordError::NotOpened
        | RecordError::UnknownKind { .. }
        | RecordError::Content { .. }
        | RecordError::EpochOverrun { .. }
        | RecordError::AfterClose
        | RecordError::Over => io::ErrorKind::InvalidData,
    };
    io::Error::new(kind, error)
}

impl Tx {
    /// Seals the open record, if it has content.
    fn seal(&mut self, env: &Env) -> io::Result<()> {
        match &mut self.buffer {
            Some(buffer) if self.content > 0 => {
                let end = self.sealed + OVERHEAD + self.content;
                self.sealer
                    .seal_in_place(env.now(), Kind::Data, &mut buffer[self.sealed..end])
                    .map_err(io::Error::other)?;
                self.sealed = end;
                self.content = 0;
            }
            Some(_) | None => {}
        }
        Ok(())
    }

    /// Sends what is sealed. Once all is sent the next record begins at the buffer's start.
    fn drain<S: AsyncWrite + Unpin>(
        &mut self,
        io: &mut S,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        let Some(buffer) = &self.buffer else {
            return Poll::Ready(Ok(()));
        };
        while self.sent < self.sealed {
            let ready = &buffer[self.sent..self.sealed];
            match ready!(Pin::new(&mut *io).poll_write(cx, ready))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                n => self.sent += n,
            }
        }
        if self.content == 0 {
            (self.sent, self.sealed) = (0, 0);
        }
        Poll::Ready(Ok(()))
    }

    /// Seals the end of the stream behind what is already sealed. There is room for it.
    fn seal_close(&mut self, env: &Env, buffers: &Buffers) -> io::Result<()> {
        let buffer = self.buffer.get_or_insert_with(|| buffers.take());
        let end = self.sealed + OVERHEAD;
        self.sealer
            .seal_in_place(env.now(), Kind::Close, &mut buffer[self.sealed..end])
            .map_err(io::Error::other)?;
        self.sealed = end;
        self.closing = true;
        Ok(())
    }

    fn give_back(&mut self, buffers: &Buffers) {
        if let Some(buffer) = self.buffer.take() {
            buffers.give(buffer);
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for QstpStream<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.tx.closing {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        if bytes.is_empty() {
            return Poll::Ready(Ok(0));
        }
        let max = this.tx.sealer.max_content();
        // A new record needs room for a whole one, and the Close record must always fit behind it.
        if this.tx.content == 0 && this.tx.sealed + OVERHEAD + max + OVERHEAD > BUFFER {
            ready!(this.tx.drain(&mut this.io, cx))?;
        }
        let buffer = this.tx.buffer.get_or_insert_with(|| this.buffers.take());
        let at = this.tx.sealed + HEADER_LEN + this.tx.content;
        let n = bytes.len().min(max - this.tx.content);
        buffer[at..at + n].copy_from_slice(&bytes[..n]);
        this.tx.content += n;
        if this.tx.content == max {
            this.tx.seal(&this.env)?;
            // Whatever does not leave now leaves with the next write or flush.
            if let Poll::Ready(Err(error)) = this.tx.drain(&mut this.io, cx) {
                return Poll::Ready(Err(error));
            }
        }
        Poll::Ready(Ok(n))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.tx.seal(&this.env)?;
        ready!(this.tx.drain(&mut this.io, cx))?;
        this.tx.give_back(&this.buffers);
        Pin::new(&mut this.io).poll_flush(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if !this.tx.closing {
            this.tx.seal(&this.env)?;
            this.tx.seal_close(&this.env, &this.buffers)?;
        }
        ready!(self.as_mut().poll_flush(cx))?;
        Pin::new(&mut self.get_mut().io).poll_close(cx)
    }
}

impl Rx {
    /// Opens the next record that has arrived whole. False: more bytes are needed. A Close leaves nothing to read.
    fn open_next(&mut self) -> Result<bool, RecordError> {
        let Some(buffer) = &mut self.buffer else {
            return Ok(false);
        };
        let raw = &mut buffer[self.raw.clone()];
        let Some(head) = raw.first_chunk::<HEADER_LEN>() else {
            return Ok(false);
        };
        let len = self.opener.record_len(head)?;
        let Some(record) = raw.get_mut(..len) else {
            return Ok(false);
        };
        let opened = self.opener.open_in_place(record)?;
        let at = self.raw.start;
        self.plain = at + opened.content.start..at + opened.content.end;
        self.raw.start += len;
        Ok(true)
    }

    /// Makes room for a good read behind what is there; half a record is moved to the front for it.
    fn make_room(&mut self, buffers: &Buffers) -> &mut [u8] {
        let buffer = self.buffer.get_or_insert_with(|| buffers.take());
        if self.raw.is_empty() {
            self.raw = 0..0;
        } else if self.raw.start > 0 && buffer.len() - self.raw.end < buffer.len() / 4 {
            buffer.copy_within(self.raw.clone(), 0);
            self.raw = 0..self.raw.len();
        }
        &mut buffer[self.raw.end..]
    }

    fn give_back(&mut self, buffers: &Buffers) {
        if self.raw.is_empty() && self.plain.is_empty() {
            self.raw = 0..0;
            self.plain = 0..0;
            if let Some(buffer) = self.buffer.take() {
                buffers.give(buffer);
            }
        }
    }
}

impl<S: AsyncRead + Unpin> QstpStream<S> {
    /// Waits for plaintext; none is left at the stream's end.
    fn poll_plain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.rx.plain.is_empty() {
            if let Some(error) = self.rx.failed {
                return Poll::Ready(Err(channel(error)));
            }
            if self.rx.opener.is_closed() {
                // What a peer sends after its Close is not looked at.
                self.rx.raw = 0..0;
                self.rx.give_back(&self.buffers);
                return Poll::Ready(Ok(()));
            }
            match self.rx.open_next() {
                Ok(true) => continue,
                Ok(false) => {}
                Err(error) => return Poll::Ready(Err(self.fail(error))),
            }
            let room = self.rx.make_room(&self.buffers);
            match Pin::new(&mut self.io).poll_read(cx, room) {
                Poll::Pending => {
                    self.rx.give_back(&self.buffers);
                    return Poll::Pending;
                }
                Poll::Ready(Ok(0)) => {
                    let cut = self.rx.opener.end_of_input().err();
                    return Poll::Ready(Err(self.fail(cut.unwrap_or(RecordError::Over))));
                }
                Poll::Ready(Ok(n)) => self.rx.raw.end += n,
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
            }
        }
        Poll::Ready(Ok(()))
    }

    fn fail(&mut self, error: RecordError) -> io::Error {
        self.rx.failed = Some(error);
        self.rx.raw = 0..0;
        // A record that does not open ends both directions: nothing more is sealed.
        self.tx.content = 0;
        self.tx.closing = true;
        self.rx.give_back(&self.buffers);
        channel(error)
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for QstpStream<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        ready!(this.poll_plain(cx))?;
        let n = into.len().min(this.rx.plain.len());
        if let Some(buffer) = &this.rx.buffer {
            let at = this.rx.plain.start;
            into[..n].copy_from_slice(&buffer[at..at + n]);
            this.rx.plain.start += n;
        }
        Poll::Ready(Ok(n))
    }
}

impl<S: AsyncRead + Unpin> AsyncBufRead for QstpStream<S> {
    fn poll_fill_buf(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<&[u8]>> {
        let this = self.get_mut();
        ready!(this.poll_plain(cx))?;
        let plain = this.rx.plain.clone();
        Poll::Ready(Ok(this
            .rx
            .buffer
            .as_ref()
            .map_or(&[], |buffer| &buffer[plain])))
    }

    fn consume(self: Pin<&mut Self>, n: usize) {
        let this = self.get_mut();
        this.rx.plain.start = this.rx.plain.end.min(this.rx.plain.start + n);
    }
}

#[cfg(test)]
mod tests;
