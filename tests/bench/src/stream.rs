//! One stream over loopback TCP, both ends in this process on two worker threads.
//!
//! Data plane: a direct QSTP stream beside rustls. Control plane: libp2p with QSTP and yamux beside libp2p-tls and
//! libp2p-noise with yamux. Contenders take turns, several rounds each, and the median counts: the machine is shared.
//! Throughput is disturbed by whoever else works on the machine, CPU time per GiB (both ends) much less.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use futures::future::BoxFuture;
use futures::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, BufWriter};
use futures::{FutureExt as _, StreamExt as _};
use libp2p::swarm::SwarmEvent;
use libp2p::{Multiaddr, StreamProtocol, SwarmBuilder};
use pqcnet_actor::Env;
use pqcnet_crypto::{AeadAlgorithm, NodeKeys, OpenKey, SealKey};
use pqcnet_p2p::control::{
    ControlConfig, ControlEvent, ControlEvents, ControlPlane as _, Libp2pControl,
};
use pqcnet_p2p::endpoint::Endpoint;
use pqcnet_p2p::handshake::{Security, SecurityConfig};
use pqcnet_p2p::network::{Address, NetworkId};
use pqcnet_p2p::streams::TcpStreams;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::compat::TokioAsyncReadCompatExt as _;

use crate::Args;
use crate::cpu::{self, Wall, median};
use crate::row::Row;
use crate::tls::{self, Tls};

/// Bytes of a write: a full TLS record, and what fits an Ethernet frame.
const WRITES: [usize; 2] = [16 * 1024, 1350];
const GIB: f64 = (1u64 << 30) as f64;

trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}
type Boxed = Box<dyn Duplex>;
/// Both ends of a stream, and what has to live as long as they do.
type Pair = (Boxed, Boxed, Vec<Box<dyn std::any::Any + Send>>);

struct Contender {
    name: &'static str,
    connect: fn(Env, Arc<Tls>) -> BoxFuture<'static, anyhow::Result<Pair>>,
    samples: Vec<Sample>,
}

#[derive(Clone, Copy)]
struct Sample {
    gib_per_s: f64,
    cpu_s_per_gib: f64,
}

/// Measures both planes.
pub fn run(args: &Args) -> anyhow::Result<Vec<Row>> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    let (rounds, total) = if args.quick {
        (2, 32 << 20)
    } else {
        (9, 256 << 20)
    };
    let mut rows = Vec::new();
    let aead = aead_cost(if args.quick { 16 } else { 256 })?;
    rows.push(Row::new(
        "stream",
        "AES-256-GCM seal and open, 16 KiB, CPU",
        aead,
        "s/GiB",
    ));
    for write in WRITES {
        let data = [
            Contender::new("QSTP", |env, _| qstp(env).boxed()),
            Contender::new("rustls", |_, tls| rustls(tls, false).boxed()),
            Contender::new("rustls + BufWriter", |_, tls| rustls(tls, true).boxed()),
            Contender::new("plain TCP", |_, _| plain().boxed()),
        ];
        let data = runtime.block_on(race(data.into(), write, rounds, total))?;
        report(&mut rows, "data plane", write, &data);
        let cost = data[0].cost();
        let share = Row::new(
            "stream",
            format!("data plane, {write} B: AEAD's share of CPU"),
            aead / cost,
            "",
        );
        rows.push(share);

        let control = [
            Contender::new("libp2p QSTP", |env, _| libp2p_qstp(env).boxed()),
            Contender::new("libp2p-tls", |_, _| libp2p_peer(Upgrade::Tls).boxed()),
            Contender::new("libp2p-noise", |_, _| libp2p_peer(Upgrade::Noise).boxed()),
        ];
        let control = runtime.block_on(race(control.into(), write, rounds, total / 2))?;
        report(&mut rows, "control plane", write, &control);
    }
    Ok(rows)
}

impl Contender {
    fn new(
        name: &'static str,
        connect: fn(Env, Arc<Tls>) -> BoxFuture<'static, anyhow::Result<Pair>>,
    ) -> Contender {
        Contender {
            name,
            connect,
            samples: Vec::new(),
        }
    }

    fn speed(&self) -> f64 {
        median(&mut self.samples.iter().map(|s| s.gib_per_s).collect::<Vec<_>>())
    }

    fn cost(&self) -> f64 {
        median(
            &mut self
                .samples
                .iter()
                .map(|s| s.cpu_s_per_gib)
                .collect::<Vec<_>>(),
        )
    }
}

fn report(rows: &mut Vec<Row>, plane: &str, write: usize, contenders: &[Contender]) {
    let Some((ours, peers)) = contenders.split_first() else {
        return;
    };
    for peer in peers {
        let what = format!("{plane}, {write} B writes");
        rows.push(Row::new("stream", what, ours.speed(), "GiB/s").beside(peer.name, peer.speed()));
        let what = format!("{plane}, {write} B writes, CPU of both ends");
        rows.push(Row::new("stream", what, ours.cost(), "s/GiB").beside(peer.name, peer.cost()));
    }
}

async fn race(
    mut contenders: Vec<Contender>,
    write: usize,
    rounds: usize,
    total: u64,
) -> anyhow::Result<Vec<Contender>> {
    let tls = Arc::new(Tls::mutual(&rcgen::PKCS_ED25519)?);
    for _ in 0..rounds {
        for contender in &mut contenders {
            let (tx, rx, _alive) = (contender.connect)(Env::plain(), tls.clone())
                .await
                .with_context(|| contender.name)?;
            contender.samples.push(pump(tx, rx, write, total).await?);
        }
    }
    Ok(contenders)
}

/// A sixteenth of the bytes warms the stream up; then the clocks run until the reader has seen the end.
async fn pump(mut tx: Boxed, mut rx: Boxed, write: usize, total: u64) -> anyhow::Result<Sample> {
    let warm = total / 16;
    let reader = tokio::spawn(async move {
        let mut buffer = vec![0u8; 64 * 1024];
        let mut seen = 0u64;
        loop {
            let n = rx.read(&mut buffer).await?;
            if n == 0 {
                return std::io::Result::Ok(seen);
            }
            seen += n as u64;
        }
    });
    let writer = tokio::spawn(async move {
        let chunk = vec![0x5a_u8; write];
        let mut sent = 0u64;
        while sent < warm {
            tx.write_all(&chunk).await?;
            sent += write as u64;
        }
        let (wall, cpu) = (Wall::start(), cpu::process()?);
        let warm_bytes = sent;
        while sent < warm_bytes + total {
            tx.write_all(&chunk).await?;
            sent += write as u64;
        }
        tx.flush().await?;
        tx.close().await?;
        anyhow::Ok((wall, cpu, warm_bytes, sent))
    });
    let (wall, cpu, warm_bytes, sent) = writer.await??;
    let seen = reader.await??;
    let (elapsed, burnt) = (wall.elapsed(), cpu::process()? - cpu);
    if seen != sent {
        return Err(anyhow!("sent {sent} bytes, {seen} arrived"));
    }
    let gib = (sent - warm_bytes) as f64 / GIB;
    Ok(Sample {
        gib_per_s: gib / elapsed.as_secs_f64(),
        cpu_s_per_gib: burnt.as_secs_f64() / gib,
    })
}

async fn sockets() -> anyhow::Result<(TcpStream, TcpStream)> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let dial = TcpStream::connect(listener.local_addr()?);
    let (a, b) = tokio::join!(dial, listener.accept());
    let (a, (b, _)) = (a?, b?);
    a.set_nodelay(true)?;
    b.set_nodelay(true)?;
    Ok((a, b))
}

async fn plain() -> anyhow::Result<Pair> {
    let (a, b) = sockets().await?;
    Ok((Box::new(a.compat()), Box::new(b.compat()), Vec::new()))
}

async fn rustls(peer: Arc<Tls>, buffered: bool) -> anyhow::Result<Pair> {
    let (a, b) = sockets().await?;
    let connect = tokio_rustls::TlsConnector::from(peer.client.clone()).connect(tls::name()?, a);
    let accept = tokio_rustls::TlsAcceptor::from(peer.server.clone()).accept(b);
    let (a, b) = tokio::join!(connect, accept);
    let (a, b) = (a?.compat(), b?.compat());
    let a: Boxed = if buffered {
        Box::new(BufWriter::with_capacity(64 * 1024, a))
    } else {
        Box::new(a)
    };
    Ok((a, Box::new(b), Vec::new()))
}

fn security(env: &Env) -> anyhow::Result<Arc<Security>> {
    let keys = Arc::new(NodeKeys::generate());
    Ok(Security::new(
        env.clone(),
        SecurityConfig::new(keys, NetworkId([7; 32])),
    )?)
}

fn loopback() -> anyhow::Result<Address> {
    Ok("127.0.0.1:0".parse()?)
}

async fn qstp(env: Env) -> anyhow::Result<Pair> {
    let (dialler, server) = (security(&env)?, security(&env)?);
    let expect = server.node_id();
    let server = Endpoint::new(server, Arc::new(TcpStreams));
    let dialler = Endpoint::new(dialler, Arc::new(TcpStreams));
    let mut incoming = server.listen(&loopback()?).await?;
    let at = incoming.local().clone();
    let (a, b) = tokio::join!(dialler.dial(&at, expect), incoming.next());
    let b = b.context("the listener stopped")??;
    Ok((
        Box::new(a?.stream),
        Box::new(b.stream),
        vec![Box::new(incoming)],
    ))
}

async fn control(env: &Env) -> anyhow::Result<(Libp2pControl, ControlEvents, Arc<Security>)> {
    let security = security(env)?;
    let config = ControlConfig::new(security.clone(), 8);
    let (plane, events) = Libp2pControl::start(env, config).map_err(|error| anyhow!(error))?;
    Ok((plane, events, security))
}

async fn libp2p_qstp(env: Env) -> anyhow::Result<Pair> {
    let (a, a_events, _) = control(&env).await?;
    let (b, mut b_events, b_security) = control(&env).await?;
    let at = b.listen(&loopback()?).await?;
    a.dial(b_security.node_id(), &[at]).await?;
    let mut out = a.open(b_security.node_id()).await?;
    // Negotiation is lazy: the other side learns of the substream with the first bytes.
    out.write_all(b"x").await?;
    out.flush().await?;
    let mut incoming = loop {
        match b_events.next().await.context("the control plane stopped")? {
            ControlEvent::Substream(substream) => break substream.stream,
            ControlEvent::PeerUp { .. } => {}
            other => return Err(anyhow!("{other:?}")),
        }
    };
    incoming.read_exact(&mut [0u8; 1]).await?;
    Ok((
        Box::new(out),
        Box::new(incoming),
        vec![Box::new((a, b, a_events, b_events))],
    ))
}

enum Upgrade {
    Tls,
    Noise,
}

/// The same swarm with a security upgrade of libp2p's own.
fn peer_swarm(upgrade: &Upgrade) -> anyhow::Result<libp2p::Swarm<libp2p_stream::Behaviour>> {
    let builder = SwarmBuilder::with_new_identity().with_tokio();
    let tcp = libp2p::tcp::Config::default().nodelay(true);
    let idle = Duration::from_secs(1 << 30);
    macro_rules! finish {
        ($security:expr) => {
            builder
                .with_tcp(tcp, $security, libp2p::yamux::Config::default)?
                .with_behaviour(|_| libp2p_stream::Behaviour::new())?
                .with_swarm_config(|config| config.with_idle_connection_timeout(idle))
                .build()
        };
    }
    Ok(match upgrade {
        Upgrade::Tls => finish!(libp2p::tls::Config::new),
        Upgrade::Noise => finish!(libp2p::noise::Config::new),
    })
}

struct Abort(tokio::task::JoinHandle<()>);
impl Drop for Abort {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn libp2p_peer(upgrade: Upgrade) -> anyhow::Result<Pair> {
    const BULK: StreamProtocol = StreamProtocol::new("/bulk/1");
    let (mut a, mut b) = (peer_swarm(&upgrade)?, peer_swarm(&upgrade)?);
    b.listen_on("/ip4/127.0.0.1/tcp/0".parse::<Multiaddr>()?)?;
    let at = loop {
        if let SwarmEvent::NewListenAddr { address, .. } = b.select_next_some().await {
            break address;
        }
    };
    let b_peer = *b.local_peer_id();
    let mut control = a.behaviour().new_control();
    let mut incoming = b.behaviour().new_control().accept(BULK)?;
    a.dial(at)?;
    let (up, is_up) = tokio::sync::oneshot::channel();
    let mut up = Some(up);
    let a_task = tokio::spawn(async move {
        loop {
            let event = a.select_next_some().await;
            if let (SwarmEvent::ConnectionEstablished { .. }, Some(up)) = (event, up.take()) {
                up.send(()).unwrap_or(());
            }
        }
    });
    let b_task = tokio::spawn(async move {
        loop {
            b.select_next_some().await;
        }
    });
    let alive: Vec<Box<dyn std::any::Any + Send>> =
        vec![Box::new(Abort(a_task)), Box::new(Abort(b_task))];
    is_up.await?;
    let mut out = control.open_stream(b_peer, BULK).await?;
    out.write_all(b"x").await?;
    out.flush().await?;
    let (_, mut stream) = incoming.next().await.context("no incoming stream")?;
    stream.read_exact(&mut [0u8; 1]).await?;
    Ok((Box::new(out), Box::new(stream), alive))
}

/// Seconds of CPU that sealing and opening a GiB takes, without a network: the floor.
fn aead_cost(mib: usize) -> anyhow::Result<f64> {
    const RECORD: usize = 16 * 1024;
    let seal = SealKey::new(AeadAlgorithm::Aes256Gcm, &[1; 32]);
    let open = OpenKey::new(AeadAlgorithm::Aes256Gcm, &[1; 32]);
    let mut buffer = vec![0u8; RECORD + 16];
    let records = mib * 64;
    let mut samples = Vec::new();
    for round in 0..5u8 {
        let start = cpu::thread()?;
        for n in 0..records {
            let mut nonce = [round; 12];
            nonce[..8].copy_from_slice(&(n as u64).to_be_bytes());
            let tag = seal.seal_in_place(&nonce, &[], &mut buffer[..RECORD]);
            buffer[RECORD..].copy_from_slice(&tag);
            open.open_in_place(&nonce, &[], &mut buffer)
                .map_err(|_| anyhow!("AEAD"))?;
        }
        let gib = (records * RECORD) as f64 / GIB;
        samples.push((cpu::thread()? - start).as_secs_f64() / gib);
    }
    Ok(median(&mut samples))
}
