//! A network under attack, an honest client that must not notice, and the bytes that the attackers send.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use futures::future::BoxFuture;
use futures::{AsyncReadExt as _, AsyncWriteExt as _};
use pqcnet_actor::Env;
use pqcnet_client::Client;
use pqcnet_crypto::{NodeId, NodeKeys};
use pqcnet_link::{Addressed, LinkConfig, Role, ServiceId, Wire as _};
use pqcnet_messages::control::Ping;
use pqcnet_messages::{ChannelName, Grant, edge};
use pqcnet_p2p::endpoint::{Connected, Endpoint};
use pqcnet_p2p::handshake::{Security, SecurityConfig};
use pqcnet_p2p::network::{Address, Admission};
use pqcnet_p2p::stream::QstpStream;
use pqcnet_p2p::streams::{BoxStream, Listener, Streams, TcpStreams};
use pqcnet_p2p::typed::{Bindings, LinkHandle, establish};
use pqcnet_protos::link::v1::{self as pb, frame::Kind};
use pqcnet_tests::network::{Network, Node};
use prost::Message as _;
use tokio::net::{TcpSocket, TcpStream};
use tokio_util::compat::TokioAsyncReadCompatExt as _;

/// Nothing here takes so long unless something hangs.
pub const PATIENCE: Duration = Duration::from_secs(120);
pub const SOON: Duration = Duration::from_secs(30);
/// Hostile peers come from a prefix of their own, as they would.
pub const ELSEWHERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(127, 0, 9, 1));

/// TCP that leaves from [`ELSEWHERE`].
pub struct FromElsewhere;

impl Streams for FromElsewhere {
    fn dial<'a>(&'a self, to: &'a Address) -> BoxFuture<'a, io::Result<BoxStream>> {
        Box::pin(async move {
            let at = to.socket_addr().ok_or(io::ErrorKind::InvalidInput)?;
            Ok(Box::new(connect(at).await?.compat()) as BoxStream)
        })
    }

    fn listen<'a>(&'a self, at: &'a Address) -> BoxFuture<'a, io::Result<Box<dyn Listener>>> {
        TcpStreams.listen(at)
    }
}

pub async fn connect(at: SocketAddr) -> io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.bind((ELSEWHERE, 0).into())?;
    socket.connect(at).await
}

/// A network under attack, and the honest client that must not notice.
pub struct Siege {
    pub network: Network,
    pub env: Env,
    pub customer: Arc<NodeKeys>,
    pub honest: Client,
    pub published: u64,
}

pub fn channel() -> ChannelName {
    ChannelName::new("honest").expect("a channel's name")
}

impl Siege {
    pub async fn lay(sentries: usize) -> Result<Siege> {
        Siege::lay_with(sentries, "").await
    }

    /// The same with these lines in the relayer's configuration.
    pub async fn lay_with(sentries: usize, lines: &str) -> Result<Siege> {
        let network = Network::create(sentries, 1, Admission::Any)?;
        network.node(Role::Relayer, 1).configure(lines)?;
        network.start_all().await?;
        let customer = Arc::new(NodeKeys::generate());
        let honest = network.client(&customer).await?;
        let env = Env::plain();
        let mut siege = Siege {
            network,
            env,
            customer,
            honest,
            published: 0,
        };
        siege.still_serves("nothing").await?;
        Ok(siege)
    }

    pub fn sentry(&self) -> &Node {
        self.network.node(Role::Sentry, 1)
    }

    pub fn relayer(&self) -> &Node {
        self.network.node(Role::Relayer, 1)
    }

    /// Whoever was connected publishes and reads on, somebody new gets in, and no log tells of a panic.
    pub async fn still_serves(&mut self, after: &str) -> Result<()> {
        let work = async {
            let receipt = self.honest.publish(&channel(), "still here").await?;
            self.published += 1;
            ensure!(receipt.offset == Some(self.published), "{receipt:?}");
            let own = self.honest.channel(channel());
            let mut records = self.honest.subscribe(&own, self.published - 1).await?;
            ensure!(records.next().await?.offset == self.published);
            let newcomer = self.network.client(&Arc::new(NodeKeys::generate())).await?;
            newcomer.ask(Ping { nonce: 1 }, SOON).await?;
            anyhow::Ok(())
        };
        let served = tokio::time::timeout(PATIENCE, work).await;
        served.with_context(|| format!("after {after}: no service"))??;
        for node in &self.network.nodes {
            ensure!(
                !node.log().contains("panic"),
                "after {after}: {}",
                node.log()
            );
        }
        Ok(())
    }

    /// Every process is the one that was started, and ends as it should.
    pub async fn lift(self) -> Result<()> {
        drop(self.honest);
        self.network.stop().await
    }

    pub fn endpoint(&self, keys: &Arc<NodeKeys>) -> Result<Endpoint> {
        let config = SecurityConfig::new(keys.clone(), self.network.file.network_id());
        let security = Security::new(self.env.clone(), config)?;
        Ok(Endpoint::new(security, Arc::new(FromElsewhere)))
    }

    /// A proven stream to a node: whatever is sent on it is ours to choose.
    pub async fn stream(&self, keys: &Arc<NodeKeys>, node: &Node) -> Result<Raw> {
        let Connected { stream, .. } = self
            .endpoint(keys)?
            .dial(&node.data.into(), node.id)
            .await?;
        Ok(Raw { stream })
    }

    /// The same with Hello and Ready behind it, as a client of the sentry.
    pub async fn open(&self) -> Result<Raw> {
        self.open_as(&Arc::new(NodeKeys::generate())).await
    }

    async fn open_as(&self, keys: &Arc<NodeKeys>) -> Result<Raw> {
        let mut raw = self.stream(keys, self.sentry()).await?;
        raw.greet().await?;
        Ok(raw)
    }

    /// The same with a grant that holds, presented as ask 1: nothing is refused for want of one.
    pub async fn attached(&self) -> Result<Raw> {
        let keys = Arc::new(NodeKeys::generate());
        let mut raw = self.open_as(&keys).await?;
        let grant = self.grant(&keys, self.sentry().id, 0);
        let mut attach = ask(1, ServiceId::EDGE.0);
        attach.r#type = <edge::Attach as Addressed>::TYPE;
        attach.payload = edge::Attach { grant }.to_wire();
        raw.send(&frame(Kind::Ask(attach))).await?;
        while !matches!(raw.read().await?, Kind::Reply(pb::Reply { id: 1, .. })) {}
        Ok(raw)
    }

    /// A typed link.
    pub async fn link(&self, keys: &Arc<NodeKeys>, role: Role, node: &Node) -> Result<LinkHandle> {
        self.link_with(keys, role, node, Bindings::new()).await
    }

    /// One on which the node's messages are answered, too.
    pub async fn link_with(
        &self,
        keys: &Arc<NodeKeys>,
        role: Role,
        node: &Node,
        bindings: Bindings,
    ) -> Result<LinkHandle> {
        let Raw { stream } = self.stream(keys, node).await?;
        let config = LinkConfig::new(
            role,
            [ServiceId::EDGE, ServiceId::RELAY, ServiceId::CONTROL],
        );
        let accepted = establish(&self.env, stream, node.id, config, |_, _| Ok(())).await?;
        Ok(accepted.start(bindings))
    }

    pub fn grant(&self, keys: &NodeKeys, sentry: NodeId, age_ms: u64) -> Grant {
        let issued = self.env.wall_ms() - age_ms;
        let network = self.network.file.network_id().0;
        Grant::issue(keys, network, sentry, issued, 60_000, [7; 16])
    }
}

/// The bytes inside one channel.
pub struct Raw {
    pub stream: QstpStream<BoxStream>,
}

pub fn frame(kind: Kind) -> Vec<u8> {
    let body = pb::Frame { kind: Some(kind) }.encode_to_vec();
    let mut bytes = (body.len() as u32).to_be_bytes().to_vec();
    bytes.extend(body);
    bytes
}

pub fn hello() -> pb::Hello {
    pb::Hello {
        version_min: 1,
        version_max: 1,
        role: i32::from(Role::Client.number()),
        software: "hostile/1".to_owned(),
        services: vec![ServiceId::CONTROL.0],
        max_frame: 1024 * 1024,
        ask_window: 256,
        keepalive_ms: 10_000,
    }
}

pub fn ask(id: u64, service: u32) -> pb::Ask {
    pb::Ask {
        id,
        service,
        r#type: 4711,
        class: 2,
        remaining_ms: 10_000,
        ..Default::default()
    }
}

impl Raw {
    pub async fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes).await?;
        self.stream.flush().await
    }

    pub async fn read(&mut self) -> Result<Kind> {
        let mut len = [0; 4];
        self.stream.read_exact(&mut len).await?;
        let mut body = vec![0; u32::from_be_bytes(len) as usize];
        self.stream.read_exact(&mut body).await?;
        pb::Frame::decode(&body[..])?.kind.context("a frame")
    }

    pub async fn greet(&mut self) -> Result<()> {
        self.send(&frame(Kind::Hello(hello()))).await?;
        self.send(&frame(Kind::Ready(pb::Ready {}))).await?;
        while !matches!(self.read().await?, Kind::Ready(_)) {}
        Ok(())
    }

    /// Reads until it is told why the link ends, and then that it has ended.
    pub async fn down(&mut self) -> Result<pb::Down> {
        let told = async {
            let down = loop {
                if let Kind::Down(down) = self.read().await? {
                    break down;
                }
            };
            let mut rest = Vec::new();
            // Whether in order or cut, it is over.
            self.stream.read_to_end(&mut rest).await.unwrap_or_default();
            ensure!(rest.is_empty(), "more after the Down");
            Ok(down)
        };
        tokio::time::timeout(PATIENCE, told)
            .await
            .context("not told")?
    }
}
