//! yamux with a bound on what a peer may have us buffer.
//!
//! libp2p's own wrapper lets the receive windows of one connection grow to a GiB and cannot be told otherwise. Here each
//! of at most [`STREAMS`] substreams has yamux's fixed 256 KiB and no more; and what a node has sent and nobody has read yet,
//! on all its substreams and connections together, is counted ([`Unread`]). At [`HELD`] its connections are not read until
//! something of it is: a substream that nobody reads is dropped by whoever does not, and the peer meanwhile waits.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};

use futures::io::{AsyncRead, AsyncWrite};
use libp2p::core::muxing::{StreamMuxer, StreamMuxerEvent};
use parking_lot::Mutex;
use yamux::{Connection, ConnectionError, DEFAULT_CREDIT, Mode};

/// Substreams of one connection, both sides' together: the links of two nodes, gossip and lookups. One more from the peer
/// ends the connection.
pub(super) const STREAMS: usize = 96;
/// Substreams that arrived while the connection's handlers did not take any; more are reset.
const ARRIVED: usize = 32;
/// Unread bytes of one node at which it has to wait. Two full windows, so that one substream whose reader is slow does not
/// hold up the others; with the frame that goes over it, below the MiB that one peer may cost.
pub(super) const HELD: usize = 2 * DEFAULT_CREDIT as usize;

/// A yamux frame's header.
const HEADER: usize = 12;

/// What one node has sent and nobody has read: shared by its connections.
#[derive(Clone, Debug)]
pub(super) struct Unread {
    held: Arc<Mutex<Held>>,
    limit: usize,
}

#[derive(Debug, Default)]
struct Held {
    bytes: usize,
    /// By connection and substream.
    streams: BTreeMap<(u64, u32), usize>,
    /// Connections that wait until something is read.
    waiting: BTreeMap<u64, Waker>,
    connections: u64,
}

impl Unread {
    /// Nothing yet, and at most about `limit`.
    pub(super) fn new(limit: usize) -> Unread {
        Unread {
            held: Arc::default(),
            limit,
        }
    }

    #[cfg(test)]
    pub(super) fn bytes(&self) -> usize {
        self.held.lock().bytes
    }

    fn connection(&self) -> u64 {
        let mut held = self.held.lock();
        held.connections += 1;
        held.connections
    }

    /// Whether a connection may be read on; if not, it is woken when it may.
    fn poll_room(&self, connection: u64, cx: &Context<'_>) -> Poll<()> {
        let mut held = self.held.lock();
        if held.bytes < self.limit {
            return Poll::Ready(());
        }
        held.waiting.insert(connection, cx.waker().clone());
        Poll::Pending
    }

    fn begin(&self, connection: u64, stream: u32) {
        (self.held.lock().streams)
            .entry((connection, stream))
            .or_default();
    }

    /// Bytes for a substream that lives; what comes for another one is thrown away by yamux.
    fn receive(&self, connection: u64, stream: u32, bytes: usize) {
        let held = &mut *self.held.lock();
        if let Some(unread) = held.streams.get_mut(&(connection, stream)) {
            *unread += bytes;
            held.bytes += bytes;
        }
    }

    fn read(&self, connection: u64, stream: u32, bytes: usize) {
        let held = &mut *self.held.lock();
        if let Some(unread) = held.streams.get_mut(&(connection, stream)) {
            let read = bytes.min(*unread);
            *unread -= read;
            held.release(read, self.limit);
        }
    }

    fn end(&self, connection: u64, stream: u32) {
        let held = &mut *self.held.lock();
        if let Some(unread) = held.streams.remove(&(connection, stream)) {
            held.release(unread, self.limit);
        }
    }

    fn end_connection(&self, connection: u64) {
        let held = &mut *self.held.lock();
        held.waiting.remove(&connection);
        let gone = (held.streams).extract_if((connection, 0)..=(connection, u32::MAX), |_, _| true);
        let unread = gone.map(|(_, unread)| unread).sum();
        held.release(unread, self.limit);
    }
}

impl Held {
    fn release(&mut self, bytes: usize, limit: usize) {
        self.bytes = self.bytes.saturating_sub(bytes);
        if self.bytes < limit {
            for waker in std::mem::take(&mut self.waiting).into_values() {
                waker.wake();
            }
        }
    }
}

/// The connection below yamux: reads the headers that pass, and is not read on while too much is unread.
struct Metered<C> {
    socket: C,
    unread: Unread,
    connection: u64,
    header: [u8; HEADER],
    /// Bytes of the header that have passed.
    passed: usize,
    /// Bytes of the frame's body that have not.
    body: usize,
}

impl<C> Metered<C> {
    fn is_between_frames(&self) -> bool {
        self.passed == 0 && self.body == 0
    }

    fn pass(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            if self.body > 0 {
                let part = self.body.min(bytes.len());
                self.body -= part;
                bytes = &bytes[part..];
                continue;
            }
            let part = (HEADER - self.passed).min(bytes.len());
            self.header[self.passed..self.passed + part].copy_from_slice(&bytes[..part]);
            self.passed += part;
            bytes = &bytes[part..];
            if self.passed == HEADER {
                self.passed = 0;
                self.on_header()?;
            }
        }
        Ok(())
    }

    /// Version, type, flags (2), substream (4), length (4). Only frames of type 0 have a body.
    fn on_header(&mut self) -> io::Result<()> {
        let [_, kind, _, flags, s0, s1, s2, s3, l0, l1, l2, l3] = self.header;
        let stream = u32::from_be_bytes([s0, s1, s2, s3]);
        let syn = flags & 1 == 1;
        if syn && kind <= 1 {
            self.unread.begin(self.connection, stream);
        }
        if kind != 0 {
            return Ok(());
        }
        let length = u32::from_be_bytes([l0, l1, l2, l3]);
        // yamux takes room for a whole frame before it looks whether the window allows it.
        if length > DEFAULT_CREDIT {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "a frame larger than a window",
            ));
        }
        self.body = length as usize;
        self.unread
            .receive(self.connection, stream, length as usize);
        Ok(())
    }
}

impl<C: AsyncRead + Unpin> AsyncRead for Metered<C> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        if self.is_between_frames() {
            ready!(self.unread.poll_room(self.connection, cx));
        }
        let len = ready!(Pin::new(&mut self.socket).poll_read(cx, buf))?;
        self.pass(&buf[..len])?;
        Poll::Ready(Ok(len))
    }
}

impl<C: AsyncWrite + Unpin> AsyncWrite for Metered<C> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_close(cx)
    }
}

/// One substream.
#[derive(Debug)]
pub(super) struct Substream {
    stream: yamux::Stream,
    unread: Unread,
    connection: u64,
    id: u32,
}

impl Drop for Substream {
    fn drop(&mut self) {
        self.unread.end(self.connection, self.id);
    }
}

impl AsyncRead for Substream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let len = ready!(Pin::new(&mut self.stream).poll_read(cx, buf))?;
        self.unread.read(self.connection, self.id, len);
        Poll::Ready(Ok(len))
    }
}

impl AsyncWrite for Substream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_close(cx)
    }
}

/// A connection's substreams.
pub(super) struct Muxer<C> {
    connection: Connection<Metered<C>>,
    arrived: VecDeque<Substream>,
    taker: Option<Waker>,
    unread: Unread,
    number: u64,
}

impl<C: AsyncRead + AsyncWrite + Unpin> Muxer<C> {
    /// Over a connection of the node whose unread bytes those are.
    pub(super) fn new(socket: C, mode: Mode, unread: Unread) -> Muxer<C> {
        let mut config = yamux::Config::default();
        config.set_max_num_streams(STREAMS);
        config.set_max_connection_receive_window(Some(STREAMS * DEFAULT_CREDIT as usize));
        let number = unread.connection();
        let metered = Metered {
            socket,
            unread: unread.clone(),
            connection: number,
            header: [0; HEADER],
            passed: 0,
            body: 0,
        };
        Muxer {
            connection: Connection::new(metered, config, mode),
            arrived: VecDeque::new(),
            taker: None,
            unread,
            number,
        }
    }

    fn substream(&self, stream: yamux::Stream) -> Substream {
        let id = stream.id().val();
        self.unread.begin(self.number, id);
        Substream {
            stream,
            unread: self.unread.clone(),
            connection: self.number,
            id,
        }
    }

    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Substream>> {
        let next = ready!(self.connection.poll_next_inbound(cx));
        Poll::Ready(
            next.unwrap_or(Err(ConnectionError::Closed))
                .map(|stream| self.substream(stream))
                .map_err(into_io),
        )
    }
}

impl<C> Drop for Muxer<C> {
    fn drop(&mut self) {
        self.unread.end_connection(self.number);
    }
}

fn into_io(error: ConnectionError) -> io::Error {
    match error {
        ConnectionError::Io(error) => error,
        other => io::Error::other(other),
    }
}

impl<C: AsyncRead + AsyncWrite + Unpin> StreamMuxer for Muxer<C> {
    type Substream = Substream;
    type Error = io::Error;

    fn poll_inbound(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Substream, io::Error>> {
        if let Some(stream) = self.arrived.pop_front() {
            return Poll::Ready(Ok(stream));
        }
        if let Poll::Ready(next) = self.poll_next(cx) {
            return Poll::Ready(next);
        }
        self.taker = Some(cx.waker().clone());
        Poll::Pending
    }

    fn poll_outbound(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Substream, io::Error>> {
        let opened = ready!(self.connection.poll_new_outbound(cx));
        Poll::Ready(opened.map(|stream| self.substream(stream)).map_err(into_io))
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), io::Error>> {
        self.connection.poll_close(cx).map_err(into_io)
    }

    /// Only asking yamux for the next substream moves the others: what arrives meanwhile is kept.
    fn poll(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<StreamMuxerEvent, io::Error>> {
        let stream = ready!(self.poll_next(cx))?;
        if self.arrived.len() < ARRIVED {
            self.arrived.push_back(stream);
            if let Some(taker) = self.taker.take() {
                taker.wake();
            }
        } else {
            tracing::debug!("a substream too many at once, reset");
        }
        // There may be more; other tasks come first.
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use futures::FutureExt as _;
    use futures::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio_util::compat::{Compat, TokioAsyncReadCompatExt as _};

    use super::*;

    type Pipe = Compat<tokio::io::DuplexStream>;
    const FRAME: usize = DEFAULT_CREDIT as usize;

    /// Two ends; the client's takes whatever comes, the server's is bounded as in a node.
    fn pair() -> (Muxer<Pipe>, Muxer<Pipe>, Unread) {
        let (near, far) = tokio::io::duplex(64 * 1024);
        let unread = Unread::new(HELD);
        (
            Muxer::new(near.compat(), Mode::Client, Unread::new(usize::MAX)),
            Muxer::new(far.compat(), Mode::Server, unread.clone()),
            unread,
        )
    }

    /// Moves both ends until neither has anything more to do.
    fn settle(client: &mut Muxer<Pipe>, server: &mut Muxer<Pipe>) -> Vec<Substream> {
        let mut came = Vec::new();
        let mut idle = 0;
        while idle < 4 {
            idle += 1;
            for end in [&mut *client, &mut *server] {
                let polled = poll_fn(|cx| Pin::new(&mut *end).poll(cx)).now_or_never();
                assert!(polled.is_none_or(|polled| polled.is_ok()));
            }
            while let Some(stream) = server.arrived.pop_front() {
                came.push(stream);
                idle = 0;
            }
        }
        came
    }

    /// A peer opens as many substreams as it may and fills the window of each; nobody reads. It is held up after two windows
    /// and a frame. When those that nobody reads are dropped, what it still had comes through, whole.
    #[test]
    fn unread_bytes_of_all_substreams_are_bounded() {
        let (mut client, mut server, unread) = pair();
        let mut opened = Vec::new();
        let mut came = Vec::new();
        for number in 0..STREAMS as u8 {
            let polled = poll_fn(|cx| Pin::new(&mut client).poll_outbound(cx)).now_or_never();
            let mut stream = polled.unwrap().unwrap();
            let mut left: &[u8] = &[&[number][..], &vec![7; FRAME - 1]].concat();
            for _ in 0..64 {
                if let Some(written) = stream.write(left).now_or_never() {
                    left = &left[written.unwrap()..];
                }
                came.extend(settle(&mut client, &mut server));
                assert!(unread.bytes() < HELD + FRAME, "{}", unread.bytes());
                if left.is_empty() {
                    break;
                }
            }
            opened.push(stream);
        }
        assert!(
            unread.bytes() >= HELD && came.len() < STREAMS,
            "{}",
            came.len()
        );
        // The first is read, and comes whole; the others are dropped unread.
        let mut first = came.remove(0);
        drop(came);
        let mut whole = vec![0; FRAME];
        first
            .read_exact(&mut whole)
            .now_or_never()
            .unwrap()
            .unwrap();
        assert_eq!((whole[0], whole[FRAME - 1]), (0, 7));
        assert!(unread.bytes() < HELD);
        // Others come in their place, until it is too much again.
        assert!(!settle(&mut client, &mut server).is_empty());
        drop((server, first));
        assert_eq!(unread.bytes(), 0);
    }

    /// A frame that no window allows is refused at its header, before there is room for it.
    #[test]
    fn a_frame_too_large() {
        let mut metered = Metered {
            socket: (),
            unread: Unread::new(HELD),
            connection: 1,
            header: [0; HEADER],
            passed: 0,
            body: 0,
        };
        let header = |length: u32| [&[0, 0, 0, 1, 0, 0, 0, 1][..], &length.to_be_bytes()].concat();
        let window = header(DEFAULT_CREDIT);
        metered.pass(&window[..5]).unwrap();
        metered.pass(&window[5..]).unwrap();
        assert_eq!(metered.unread.bytes(), FRAME);
        metered.pass(&vec![0; FRAME]).unwrap();
        let refused = metered.pass(&header(DEFAULT_CREDIT + 1)).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::InvalidData);
    }
}
