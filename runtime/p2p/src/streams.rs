//! Byte streams under QSTP: what a platform brings. [`TcpStreams`] here, simulated ones in the simulator.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use futures::future::BoxFuture;
use futures::io::{AsyncRead, AsyncWrite};
use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::compat::{Compat, TokioAsyncReadCompatExt as _};

use crate::network::Address;
use crate::reserve;

/// An idle connection is probed after this long, so that a peer that vanished without a word is noticed within
/// about a minute and a half.
const KEEPALIVE_AFTER: Duration = Duration::from_secs(30);
/// Between probes; the system gives up after its own count of them, nine on Linux.
const KEEPALIVE_EVERY: Duration = Duration::from_secs(7);

/// A reliable, ordered byte stream.
pub trait ByteStream: AsyncRead + AsyncWrite + Send + Unpin + 'static {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin + 'static> ByteStream for S {}

/// Any byte stream. One call through it moves up to 64 KiB, so the indirection costs nothing that can be measured.
pub type BoxStream = Box<dyn ByteStream>;

/// A stream that came in.
pub struct Arrived {
    /// Its bytes.
    pub stream: BoxStream,
    /// From where, where the carrier knows.
    pub from: Option<SocketAddr>,
}

/// Dials and listens.
pub trait Streams: Send + Sync + 'static {
    /// Connects.
    fn dial<'a>(&'a self, to: &'a Address) -> BoxFuture<'a, io::Result<BoxStream>>;
    /// Binds. Port 0 lets the platform choose.
    fn listen<'a>(&'a self, at: &'a Address) -> BoxFuture<'a, io::Result<Box<dyn Listener>>>;
}

/// Takes streams in at one address.
pub trait Listener: Send + 'static {
    /// Where it listens.
    fn local(&self) -> Address;
    /// The next stream. Cancelling the future loses none. An error is the stream's, not the listener's.
    fn accept(&mut self) -> BoxFuture<'_, io::Result<Arrived>>;
}

/// TCP on the machine's own network.
#[derive(Clone, Copy, Debug, Default)]
pub struct TcpStreams;

impl Streams for TcpStreams {
    fn dial<'a>(&'a self, to: &'a Address) -> BoxFuture<'a, io::Result<BoxStream>> {
        Box::pin(async move {
            plain(to)?;
            let stream = match to.socket_addr() {
                Some(at) => TcpStream::connect(at).await?,
                None => TcpStream::connect((to.host(), to.port())).await?,
            };
            Ok(Box::new(tuned(stream)?) as BoxStream)
        })
    }

    fn listen<'a>(&'a self, at: &'a Address) -> BoxFuture<'a, io::Result<Box<dyn Listener>>> {
        Box::pin(async move {
            plain(at)?;
            // On Unix this sets SO_REUSEADDR: a restarted node gets its port back at once.
            let listener = TcpListener::bind((at.host(), at.port())).await?;
            let local = listener.local_addr()?.into();
            Ok(Box::new(TcpAccepts { listener, local }) as Box<dyn Listener>)
        })
    }
}

fn plain(at: &Address) -> io::Result<()> {
    if at.is_web_socket() {
        let what = "only the control plane has WebSockets";
        return Err(io::Error::new(io::ErrorKind::Unsupported, what));
    }
    Ok(())
}

struct TcpAccepts {
    listener: TcpListener,
    local: Address,
}

impl Listener for TcpAccepts {
    fn local(&self) -> Address {
        self.local.clone()
    }

    fn accept(&mut self) -> BoxFuture<'_, io::Result<Arrived>> {
        Box::pin(async move {
            let (stream, from) = self.listener.accept().await?;
            if reserve::took_the_last(&stream) {
                return Err(reserve::refused());
            }
            Ok(Arrived {
                stream: Box::new(tuned(stream)?),
                from: Some(from),
            })
        })
    }
}

/// No Nagle delay: records are already coalesced, and what is flushed is wanted.
fn tuned(stream: TcpStream) -> io::Result<Compat<TcpStream>> {
    stream.set_nodelay(true)?;
    let keepalive = TcpKeepalive::new()
        .with_time(KEEPALIVE_AFTER)
        .with_interval(KEEPALIVE_EVERY);
    SockRef::from(&stream).set_tcp_keepalive(&keepalive)?;
    Ok(stream.compat())
}
