//! yamux with a bound on what a peer may have us buffer.
//!
//! libp2p's own wrapper lets the receive windows of one connection grow to a GiB and cannot be told otherwise. Here each
//! of at most [`STREAMS`] substreams has yamux's fixed 256 KiB and no more.

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};

use futures::io::{AsyncRead, AsyncWrite};
use libp2p::core::muxing::{StreamMuxer, StreamMuxerEvent};
use yamux::{Connection, ConnectionError, DEFAULT_CREDIT, Mode, Stream};

/// Substreams of one connection, both sides' together: the links of two nodes, gossip and lookups. One more from the peer
/// ends the connection.
pub(super) const STREAMS: usize = 96;
/// Substreams that arrived while the connection's handlers did not take any; more are reset.
const ARRIVED: usize = 32;

/// A connection's substreams.
pub(super) struct Muxer<C> {
    connection: Connection<C>,
    arrived: VecDeque<Stream>,
    taker: Option<Waker>,
}

impl<C: AsyncRead + AsyncWrite + Unpin> Muxer<C> {
    pub(super) fn new(socket: C, mode: Mode) -> Muxer<C> {
        let mut config = yamux::Config::default();
        config.set_max_num_streams(STREAMS);
        config.set_max_connection_receive_window(Some(STREAMS * DEFAULT_CREDIT as usize));
        Muxer {
            connection: Connection::new(socket, config, mode),
            arrived: VecDeque::new(),
            taker: None,
        }
    }

    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Stream>> {
        let next = ready!(self.connection.poll_next_inbound(cx));
        Poll::Ready(
            next.unwrap_or(Err(ConnectionError::Closed))
                .map_err(into_io),
        )
    }
}

fn into_io(error: ConnectionError) -> io::Error {
    match error {
        ConnectionError::Io(error) => error,
        other => io::Error::other(other),
    }
}

impl<C: AsyncRead + AsyncWrite + Unpin> StreamMuxer for Muxer<C> {
    type Substream = Stream;
    type Error = io::Error;

    fn poll_inbound(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Stream, io::Error>> {
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
    ) -> Poll<Result<Stream, io::Error>> {
        self.connection.poll_new_outbound(cx).map_err(into_io)
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
