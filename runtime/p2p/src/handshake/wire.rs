//! Whole handshake messages over a byte stream.

use std::io;
use std::pin::pin;
use std::time::Duration;

use futures::future::{Either, select};
use futures::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use pqcnet_actor::Env;
use pqcnet_qstp::frame::{FrameError, HEADER_LEN, Header};
use pqcnet_qstp::{Failure, Stage};

use super::HandshakeFailed;

/// After a Reject the stream is read until the peer closes it, at most so long: closing a TCP socket with unread bytes
/// resets it, and the Reject could be lost.
const LINGER: Duration = Duration::from_millis(500);
/// And at most so many bytes.
const LINGER_BYTES: usize = 64 * 1024;

/// Whole messages over a stream, counted.
pub(super) struct Wire<S> {
    pub(super) io: S,
    pub(super) sent: usize,
    pub(super) received: usize,
}

impl<S> Wire<S> {
    pub(super) fn new(io: S) -> Wire<S> {
        Wire {
            io,
            sent: 0,
            received: 0,
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Wire<S> {
    pub(super) async fn send(
        &mut self,
        stage: Stage,
        message: &[u8],
    ) -> Result<(), HandshakeFailed> {
        let io = |source| HandshakeFailed::Io { stage, source };
        self.io.write_all(message).await.map_err(io)?;
        self.io.flush().await.map_err(io)?;
        self.sent += message.len();
        Ok(())
    }

    /// One message; nothing is allocated for a header that lies, and nothing behind the message is read.
    pub(super) async fn receive(
        &mut self,
        stage: Stage,
    ) -> Result<Result<Vec<u8>, FrameError>, HandshakeFailed> {
        let io = |source| HandshakeFailed::Io { stage, source };
        let mut head = [0; HEADER_LEN];
        self.io.read_exact(&mut head).await.map_err(io)?;
        let header = match Header::parse(&head) {
            Ok(header) => header,
            Err(error) => return Ok(Err(error)),
        };
        let mut message = vec![0; HEADER_LEN + header.body];
        let (front, body) = message.split_at_mut(HEADER_LEN);
        front.copy_from_slice(&head);
        self.io.read_exact(body).await.map_err(io)?;
        self.received += message.len();
        Ok(Ok(message))
    }

    /// Tells the peer, if there is something to tell, and waits until it has heard.
    pub(super) async fn give_up(mut self, env: &Env, failure: Failure) -> HandshakeFailed {
        if let Some(reject) = failure.reject {
            let told = async {
                self.io.write_all(&reject).await?;
                self.io.close().await?;
                let mut rest = [0; 1024];
                let mut seen = 0;
                while seen < LINGER_BYTES {
                    match self.io.read(&mut rest).await? {
                        0 => break,
                        n => seen += n,
                    }
                }
                io::Result::Ok(())
            };
            // The failure is the outcome, whether or not the peer could be told.
            if let Either::Left((Err(error), _)) = select(pin!(told), pin!(env.sleep(LINGER))).await
            {
                tracing::trace!(%error, "telling the peer why");
            }
        }
        HandshakeFailed::Protocol(failure.error)
    }
}
