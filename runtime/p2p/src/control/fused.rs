//! A substream that is left alone once a read of it failed.
//!
//! multistream-select agrees on the protocol while the first bytes are read. Where that fails it gives the substream up, and panics at whatever is
//! asked of it from then on: without this, a peer could end an actor by resetting a substream at the right moment.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures::io::{AsyncRead, AsyncWrite};

/// `None` once a read failed.
pub(super) struct Fused<S>(Option<S>);

impl<S> Fused<S> {
    pub(super) fn new(stream: S) -> Fused<S> {
        Fused(Some(stream))
    }
}

fn gone<T>() -> Poll<io::Result<T>> {
    Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()))
}

impl<S: AsyncRead + Unpin> AsyncRead for Fused<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let Some(stream) = &mut self.0 else {
            return gone();
        };
        let read = ready!(Pin::new(stream).poll_read(cx, buf));
        if read.is_err() {
            self.0 = None;
        }
        Poll::Ready(read)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Fused<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        match &mut self.0 {
            Some(stream) => Pin::new(stream).poll_write(cx, buf),
            None => gone(),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.0 {
            Some(stream) => Pin::new(stream).poll_flush(cx),
            None => gone(),
        }
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.0 {
            Some(stream) => Pin::new(stream).poll_close(cx),
            None => gone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::executor::block_on;
    use futures::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use libp2p::core::upgrade::Version;
    use multistream_select::dialer_select_proto;

    use super::*;

    /// The peer answers with something that is no negotiation, or hangs up.
    struct Peer(&'static [u8]);

    impl AsyncRead for Peer {
        fn poll_read(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
            buf: &mut [u8],
        ) -> Poll<io::Result<usize>> {
            Pin::new(&mut self.0).poll_read(cx, buf)
        }
    }

    impl AsyncWrite for Peer {
        fn poll_write(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
            buf: &[u8],
        ) -> Poll<io::Result<usize>> {
            Poll::Ready(Ok(buf.len()))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    // The library's own negotiation as libp2p begins it, with a peer that says what it must not, or nothing: the read fails, and what a link does
    // to part is refused without a panic.
    #[test]
    fn whoever_breaks_a_negotiation_ends_a_substream_and_no_more() {
        for peer in [&b"\x05junk\n"[..], b""] {
            let negotiated = dialer_select_proto(Peer(peer), vec!["/a"], Version::V1Lazy);
            let (_, stream) = block_on(negotiated).unwrap();
            let mut stream = Fused::new(stream);
            let mut byte = [0];
            let read = block_on(stream.read(&mut byte));
            assert!(read.is_err(), "{read:?}");
            let broken = |done: io::Result<()>| done.unwrap_err().kind();
            let kind = io::ErrorKind::BrokenPipe;
            assert_eq!(broken(block_on(stream.write_all(b"down"))), kind);
            assert_eq!(broken(block_on(stream.flush())), kind);
            assert_eq!(broken(block_on(stream.close())), kind);
            assert_eq!(broken(block_on(stream.read(&mut byte)).map(|_| ())), kind);
        }
    }
}
