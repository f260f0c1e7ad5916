//! libp2p's memory transport with a latency for each pair of nodes, and no security: both sides say who they are.

use std::collections::VecDeque;
use std::io;
use std::iter;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::future::BoxFuture;
use futures::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use libp2p::core::muxing::StreamMuxerBox;
use libp2p::core::transport::{Boxed, MemoryTransport};
use libp2p::core::upgrade::{
    InboundConnectionUpgrade, OutboundConnectionUpgrade, UpgradeInfo, Version,
};
use libp2p::{PeerId, Transport as _, yamux};
use pqcnet_actor::Env;
use pqcnet_sim::gossip::Peer;
use tokio::time::Sleep;

use super::real::{number_of, peer_id};

/// A node's transport.
pub fn transport(env: &Env, own: Peer) -> Boxed<(PeerId, StreamMuxerBox)> {
    MemoryTransport::new()
        .upgrade(Version::V1Lazy)
        .authenticate(Introduce {
            env: env.clone(),
            own,
        })
        .multiplex(yamux::Config::default())
        .boxed()
}

/// Says who this is and hears who that is; from then on everything that comes takes the pair's latency.
#[derive(Clone)]
struct Introduce {
    env: Env,
    own: Peer,
}

impl UpgradeInfo for Introduce {
    type Info = &'static str;
    type InfoIter = iter::Once<&'static str>;

    fn protocol_info(&self) -> Self::InfoIter {
        iter::once("/test/introduce/1")
    }
}

impl Introduce {
    async fn meet<S>(self, mut socket: S) -> io::Result<(PeerId, Delayed<S>)>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        socket.write_all(&peer_id(self.own).to_bytes()).await?;
        socket.flush().await?;
        let mut bytes = [0; 34];
        socket.read_exact(&mut bytes).await?;
        let peer = PeerId::from_bytes(&bytes).map_err(io::Error::other)?;
        let latency = super::latency(self.own, number_of(&peer));
        Ok((peer, Delayed::new(socket, self.env, latency)))
    }
}

impl<S> InboundConnectionUpgrade<S> for Introduce
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    type Output = (PeerId, Delayed<S>);
    type Error = io::Error;
    type Future = BoxFuture<'static, io::Result<Self::Output>>;

    fn upgrade_inbound(self, socket: S, _: Self::Info) -> Self::Future {
        Box::pin(self.meet(socket))
    }
}

impl<S> OutboundConnectionUpgrade<S> for Introduce
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    type Output = (PeerId, Delayed<S>);
    type Error = io::Error;
    type Future = BoxFuture<'static, io::Result<Self::Output>>;

    fn upgrade_outbound(self, socket: S, _: Self::Info) -> Self::Future {
        Box::pin(self.meet(socket))
    }
}

/// Gives what is read so much later than it came.
pub struct Delayed<S> {
    inner: S,
    env: Env,
    latency: Duration,
    waiting: VecDeque<(Duration, VecDeque<u8>)>,
    sleep: Option<Pin<Box<Sleep>>>,
    ended: Option<io::Result<()>>,
}

impl<S> Delayed<S> {
    fn new(inner: S, env: Env, latency: Duration) -> Delayed<S> {
        Delayed {
            inner,
            env,
            latency,
            waiting: VecDeque::new(),
            sleep: None,
            ended: None,
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Delayed<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let mut chunk = [0; 4096];
        while this.ended.is_none() {
            match Pin::new(&mut this.inner).poll_read(cx, &mut chunk) {
                Poll::Ready(Ok(0)) => this.ended = Some(Ok(())),
                Poll::Ready(Ok(read)) => {
                    let due = this.env.now() + this.latency;
                    this.waiting
                        .push_back((due, chunk[..read].iter().copied().collect()));
                }
                Poll::Ready(Err(error)) => this.ended = Some(Err(error)),
                Poll::Pending => break,
            }
        }
        loop {
            let Some((due, bytes)) = this.waiting.front_mut() else {
                return match &mut this.ended {
                    None => Poll::Pending,
                    Some(ended) => Poll::Ready(std::mem::replace(ended, Ok(())).map(|()| 0)),
                };
            };
            let now = this.env.now();
            if *due <= now {
                let read = bytes.len().min(buf.len());
                for (to, from) in buf.iter_mut().zip(bytes.drain(..read)) {
                    *to = from;
                }
                if bytes.is_empty() {
                    this.waiting.pop_front();
                }
                this.sleep = None;
                return Poll::Ready(Ok(read));
            }
            let left = due.saturating_sub(now);
            let sleep = this
                .sleep
                .get_or_insert_with(|| Box::pin(this.env.sleep(left)));
            match Future::poll(sleep.as_mut(), cx) {
                Poll::Ready(()) => this.sleep = None,
                Poll::Pending => return Poll::Pending,
            }
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Delayed<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().inner).poll_write(cx, buf)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_flush(cx)
    }

    fn poll_close(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_close(cx)
    }
}
