//! A remote `ask` beside tonic over rustls: the same small question, over loopback TCP, both ends in this process; one
//! question at a time, and as many at once as a link's window takes without waiting.

use std::convert::Infallible;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow};
use futures::future::{BoxFuture, join_all};
use hdrhistogram::Histogram;
use http::uri::PathAndQuery;
use hyper_util::rt::TokioIo;
use pqcnet_actor::{Behaviour, Bounds, Cx, Env, On, Reply, Spec, Strategy, Threads, Tree, run_on};
use pqcnet_crypto::NodeKeys;
use pqcnet_link::{LinkConfig, Role, ServiceId};
use pqcnet_messages::control::{Ping, Pong};
use pqcnet_p2p::endpoint::Endpoint;
use pqcnet_p2p::handshake::{Security, SecurityConfig};
use pqcnet_p2p::network::{Address, NetworkId};
use pqcnet_p2p::streams::TcpStreams;
use pqcnet_p2p::typed::{Bindings, LinkHandle, establish};
use pqcnet_protos::control::v1 as pb;
use tokio::net::{TcpListener, TcpStream};
use tonic::body::Body;
use tonic::server::{NamedService, UnaryService};
use tonic::transport::server::{Connected, TcpConnectInfo};
use tonic_prost::ProstCodec;

use crate::Args;
use crate::cpu::{self, Wall, median};
use crate::row::Row;
use crate::tls::{NAME, Tls};

const GROUP: &str = "ask";
const AT_ONCE: [usize; 2] = [1, 64];
const DEADLINE: Duration = Duration::from_secs(30);
const SOFTWARE: &str = "pqcnet-bench";

/// Every row of the group.
pub fn run(args: &Args) -> Result<Vec<Row>> {
    let (rounds, asks) = if args.quick { (2, 2_000) } else { (7, 20_000) };
    let threads = Threads {
        workers: 2,
        arbiters: 1,
    };
    run_on(threads, "bench", |env| async move {
        let tls = Tls::mutual(&rcgen::PKCS_ED25519)?;
        let (link, _far) = link(&env).await?;
        let channel = tonic(&tls).await?;
        let mut rows = Vec::new();
        for at_once in AT_ONCE {
            let (mut ours, mut theirs) = (Samples::default(), Samples::default());
            for _ in 0..rounds {
                ours.push(measure(at_once, asks, || ask(link.clone())).await?);
                theirs.push(measure(at_once, asks, || call(channel.clone())).await?);
            }
            rows.extend(beside(at_once, ours, theirs));
        }
        Ok(rows)
    })?
}

struct Sample {
    per_s: f64,
    p99_us: f64,
    cpu_us: f64,
}

#[derive(Default)]
struct Samples {
    per_s: Vec<f64>,
    p99_us: Vec<f64>,
    cpu_us: Vec<f64>,
}

impl Samples {
    fn push(&mut self, sample: Sample) {
        self.per_s.push(sample.per_s);
        self.p99_us.push(sample.p99_us);
        self.cpu_us.push(sample.cpu_us);
    }
}

fn beside(at_once: usize, mut ours: Samples, mut theirs: Samples) -> Vec<Row> {
    let row = |what: &str, unit, ours: &mut Vec<f64>, theirs: &mut Vec<f64>| {
        let what = format!("{at_once} at once: {what}");
        Row::new(GROUP, what, median(ours), unit).beside("tonic over rustls", median(theirs))
    };
    vec![
        row("round trips", "1/s", &mut ours.per_s, &mut theirs.per_s),
        row("p99", "us", &mut ours.p99_us, &mut theirs.p99_us),
        row(
            "CPU of both ends",
            "us",
            &mut ours.cpu_us,
            &mut theirs.cpu_us,
        ),
    ]
}

async fn measure<F>(at_once: usize, asks: usize, one: impl Fn() -> F) -> Result<Sample>
where
    F: Future<Output = Result<()>>,
{
    let each = asks / at_once;
    let wall = Wall::start();
    let cpu = cpu::process()?;
    let one = &one;
    let lanes = (0..at_once).map(|_| async move {
        let mut histogram = Histogram::<u64>::new(3)?;
        for _ in 0..each {
            let wall = Wall::start();
            one().await?;
            histogram.record(u64::try_from(wall.elapsed().as_nanos())?)?;
        }
        anyhow::Ok(histogram)
    });
    let mut all = Histogram::<u64>::new(3)?;
    for lane in join_all(lanes).await {
        all.add(lane?)?;
    }
    let count = (each * at_once) as f64;
    Ok(Sample {
        per_s: count / wall.elapsed().as_secs_f64(),
        p99_us: all.value_at_quantile(0.99) as f64 / 1e3,
        cpu_us: (cpu::process()? - cpu).as_secs_f64() * 1e6 / count,
    })
}

/// Answers pings.
struct Answerer;

impl Behaviour for Answerer {
    const NAME: &'static str = "Answerer";
}

impl On<Ping> for Answerer {
    fn on(&mut self, ping: Ping, _: &mut Cx<Self>) -> Reply<Ping> {
        Reply::Now(Pong {
            nonce: ping.nonce,
            role: Role::Sentry,
            software: SOFTWARE.to_owned(),
            uptime_ms: 1,
        })
    }
}

/// Both ends of a typed link over a QSTP stream, with an actor at the far one.
async fn link(env: &Env) -> Result<(LinkHandle, LinkHandle)> {
    let endpoint = || -> Result<(Endpoint, Arc<NodeKeys>)> {
        let keys = Arc::new(NodeKeys::generate());
        let config = SecurityConfig::new(keys.clone(), NetworkId([7; 32]));
        let security = Security::new(env.clone(), config)?;
        Ok((Endpoint::new(security, Arc::new(TcpStreams)), keys))
    };
    let ((near, near_keys), (far, far_keys)) = (endpoint()?, endpoint()?);
    let loopback: Address = "127.0.0.1:0".parse()?;
    let mut incoming = far.listen(&loopback).await?;
    let at = incoming.local().clone();
    let (dialled, accepted) = futures::join!(near.dial(&at, far_keys.node_id()), incoming.next());
    let dialled = dialled.map_err(|error| anyhow!("{error}"))?;
    let accepted = accepted
        .context("nobody came")?
        .map_err(|error| anyhow!("{}", error.failed))?;
    let config = |role| LinkConfig::new(role, [ServiceId::CONTROL]);
    let (near, far) = futures::join!(
        establish(
            env,
            dialled.stream,
            far_keys.node_id(),
            config(Role::Client),
            |_, _| Ok(())
        ),
        establish(
            env,
            accepted.stream,
            near_keys.node_id(),
            config(Role::Sentry),
            |_, _| Ok(())
        ),
    );
    let mut tree = Tree::new("bench", Strategy::OneForOne);
    let spec = Spec::new("answerer", |_| Answerer);
    let answerer = tree.child(spec.mailbox(Bounds::request(1024)));
    // Runs on without its handle, as the listener does not.
    drop(tree.start(env.clone()));
    // A link ends with its last handle.
    let far = far?.start(Bindings::new().serve::<Ping>(answerer.of()));
    Ok((near?.start(Bindings::new()), far))
}

async fn ask(link: LinkHandle) -> Result<()> {
    let pong = link.remote::<Ping>().ask(Ping { nonce: 7 }, DEADLINE).await;
    let pong = pong.map_err(|error| anyhow!("{error}"))?;
    anyhow::ensure!(pong.nonce == 7);
    Ok(())
}

/// The same answers, by tonic.
#[derive(Clone)]
struct Pings;

impl NamedService for Pings {
    const NAME: &'static str = "bench.Pings";
}

const PATH: &str = "/bench.Pings/Ping";

impl UnaryService<pb::Ping> for Pings {
    type Response = pb::Pong;
    type Future = BoxFuture<'static, Result<tonic::Response<pb::Pong>, tonic::Status>>;

    fn call(&mut self, request: tonic::Request<pb::Ping>) -> Self::Future {
        let nonce = request.into_inner().nonce;
        Box::pin(async move {
            Ok(tonic::Response::new(pb::Pong {
                nonce,
                role: 1,
                software: SOFTWARE.to_owned(),
                uptime_ms: 1,
            }))
        })
    }
}

impl tower::Service<http::Request<Body>> for Pings {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<http::Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        Box::pin(async move {
            let codec = ProstCodec::<pb::Pong, pb::Ping>::default();
            Ok(tonic::server::Grpc::new(codec).unary(Pings, request).await)
        })
    }
}

/// Reads and writes of rustls's server side, as tonic wants them.
struct Accepted(tokio_rustls::server::TlsStream<TcpStream>);

impl Connected for Accepted {
    type ConnectInfo = TcpConnectInfo;

    fn connect_info(&self) -> TcpConnectInfo {
        self.0.get_ref().0.connect_info()
    }
}

impl tokio::io::AsyncRead for Accepted {
    fn poll_read(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut tokio::io::ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        std::pin::Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl tokio::io::AsyncWrite for Accepted {
    fn poll_write(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        std::pin::Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_flush(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<std::io::Result<()>> {
        std::pin::Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<std::io::Result<()>> {
        std::pin::Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

async fn tonic(tls: &Tls) -> Result<tonic::transport::Channel> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let at = listener.local_addr()?;
    let acceptor = tokio_rustls::TlsAcceptor::from(tls.server.clone());
    let connector = tokio_rustls::TlsConnector::from(tls.client.clone());
    tokio::spawn(async move {
        let one = async {
            let (socket, _) = listener.accept().await?;
            socket.set_nodelay(true)?;
            Ok::<_, std::io::Error>(Accepted(acceptor.accept(socket).await?))
        };
        // One connection and no end: at the end of its incoming, the server would close it.
        let incoming =
            futures::StreamExt::chain(futures::stream::once(one), futures::stream::pending());
        let mut server = tonic::transport::Server::builder();
        if let Err(error) = server
            .add_service(Pings)
            .serve_with_incoming(incoming)
            .await
        {
            eprintln!("tonic: {error}");
        }
    });
    let connect = tower::service_fn(move |_: http::Uri| {
        let connector = connector.clone();
        async move {
            let socket = TcpStream::connect(at).await?;
            socket.set_nodelay(true)?;
            let name =
                rustls::pki_types::ServerName::try_from(NAME).map_err(std::io::Error::other)?;
            Ok::<_, std::io::Error>(TokioIo::new(connector.connect(name, socket).await?))
        }
    });
    let endpoint = tonic::transport::Endpoint::from_static("http://pqcnet.invalid");
    Ok(endpoint.connect_with_connector(connect).await?)
}

async fn call(channel: tonic::transport::Channel) -> Result<()> {
    let mut client = tonic::client::Grpc::new(channel);
    client.ready().await?;
    let mut request = tonic::Request::new(pb::Ping { nonce: 7 });
    // As an ask has one.
    request.set_timeout(DEADLINE);
    let codec = ProstCodec::<pb::Ping, pb::Pong>::default();
    let path = PathAndQuery::from_static(PATH);
    let pong = client.unary(request, path, codec).await?.into_inner();
    anyhow::ensure!(pong.nonce == 7);
    Ok(())
}
