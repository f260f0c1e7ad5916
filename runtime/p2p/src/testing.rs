//! What several test modules here build on.

pub(crate) use pqcnet_heap::process as heap;

use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::future::BoxFuture;
use futures::io::{AsyncRead, AsyncWrite};
use pqcnet_actor::Env;
use pqcnet_crypto::NodeKeys;
use pqcnet_qstp::{
    Admission, Config, Initiator, InitiatorStep, Limits, Profile, Responder, ResponderStep,
    RetryKeys, Session, Suite,
};
use tokio::io::DuplexStream;
use tokio_util::compat::{Compat, TokioAsyncReadCompatExt as _};

use crate::endpoint::Endpoint;
use crate::guard::GuardConfig;
use crate::handshake::{Security, SecurityConfig};
use crate::network::{Address, NetworkId};
use crate::streams::{BoxStream, Listener, Streams, TcpStreams};

pub(crate) const NETWORK: NetworkId = NetworkId([7; 32]);

/// Limits that no test meets unless it sets them.
pub(crate) fn config() -> SecurityConfig {
    let mut config = SecurityConfig::new(Arc::new(NodeKeys::generate()), NETWORK);
    config.guard = GuardConfig {
        starts_burst: 10_000,
        ..GuardConfig::default()
    };
    config.guard.cpu_burst = Duration::from_secs(1000);
    config.deadline = Duration::from_secs(60);
    config
}

pub(crate) fn security(config: SecurityConfig) -> Arc<Security> {
    Security::new(Env::plain(), config).unwrap()
}

pub(crate) fn endpoint(config: SecurityConfig) -> Endpoint {
    Endpoint::new(security(config), Arc::new(TcpStreams))
}

pub(crate) fn loopback() -> Address {
    "127.0.0.1:0".parse().unwrap()
}

/// Two ends of a pipe that holds `room` bytes each way.
pub(crate) fn pipe(room: usize) -> (Compat<DuplexStream>, Compat<DuplexStream>) {
    let (a, b) = tokio::io::duplex(room);
    (a.compat(), b.compat())
}

/// Both sides of a finished handshake.
pub(crate) fn sessions(limits: Limits) -> (Session, Session) {
    let side = || {
        let keys = Arc::new(NodeKeys::generate());
        let config = Config::new(NETWORK.0, vec![Suite::Aes256Gcm], keys, Profile::Link).unwrap();
        Arc::new(config.with_limits(limits).unwrap())
    };
    let (a, b) = (side(), side());
    let retry = RetryKeys::new(Duration::ZERO);
    let (mut initiator, m1) = Initiator::new(a, b.keys().node_id()).unwrap();
    let mut responder = Responder::new(b);
    let mut hear = |message: &[u8]| {
        responder
            .on_message(Duration::ZERO, b"", Admission::Accept, &retry, message)
            .unwrap()
    };
    let ResponderStep::Reply(m2) = hear(&m1) else {
        panic!("no M2")
    };
    let InitiatorStep::Done {
        send,
        session: ours,
        ..
    } = initiator.on_message(&m2).unwrap()
    else {
        panic!("no M3")
    };
    let ResponderStep::Done {
        session: theirs, ..
    } = hear(&send)
    else {
        panic!("not done")
    };
    (*ours, *theirs)
}

/// TCP that leaves by this address, or with one byte of what is sent changed.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct OddStreams {
    pub(crate) from: Option<IpAddr>,
    /// Position and what its byte is XORed with.
    pub(crate) forge: Option<(usize, u8)>,
}

impl Streams for OddStreams {
    fn dial<'a>(&'a self, to: &'a Address) -> BoxFuture<'a, io::Result<BoxStream>> {
        Box::pin(async move {
            let socket = tokio::net::TcpSocket::new_v4()?;
            if let Some(from) = self.from {
                socket.bind((from, 0).into())?;
            }
            let stream = socket.connect(to.socket_addr().unwrap()).await?;
            let io = stream.compat();
            Ok(Box::new(Forging {
                io,
                sent: 0,
                forge: self.forge,
            }) as BoxStream)
        })
    }

    fn listen<'a>(&'a self, at: &'a Address) -> BoxFuture<'a, io::Result<Box<dyn Listener>>> {
        TcpStreams.listen(at)
    }
}

/// Changes one byte of what is sent.
pub(crate) struct Forging<S> {
    pub(crate) io: S,
    pub(crate) sent: usize,
    pub(crate) forge: Option<(usize, u8)>,
}

impl<S: AsyncRead + Unpin> AsyncRead for Forging<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_read(cx, into)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Forging<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let mut bytes = bytes.to_vec();
        if let Some((at, value)) = self.forge
            && let Some(byte) = at.checked_sub(self.sent).and_then(|at| bytes.get_mut(at))
        {
            *byte ^= value;
        }
        let result = Pin::new(&mut self.io).poll_write(cx, &bytes);
        if let Poll::Ready(Ok(n)) = result {
            self.sent += n;
        }
        result
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_close(cx)
    }
}
