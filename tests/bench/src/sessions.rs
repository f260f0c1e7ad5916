//! What a session costs with its actor, in a process of its own whose allocator counts: the keys of a QSTP session that an
//! idle actor holds, and the sentry's own session actor, attached, beside them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, ensure};
use pqcnet_actor::{Addr, Behaviour, Cx, Env, Message, Nursery, On, Reply, Spec, Strategy, Tree};
use pqcnet_crypto::{NodeId, NodeKeys};
use pqcnet_messages::edge::{Attach, Countersign, Deliver, Flow, SubscriptionEnded};
use pqcnet_messages::{Grant, Refusal, ShardMap};
use pqcnet_qstp::Session;
use pqcnet_sentry_actors::{ClientLink, ClientSession, Routing, SESSION_BOUNDS, SessionShared};

use crate::pair::Qstp;

/// What is counted; the argument of the child process.
pub const KINDS: [&str; 2] = ["held", "attached"];
/// What comes with the first few is no session's cost.
const WARM: usize = 16;
const SENTRY: NodeId = NodeId::from_bytes([1; 32]);
const NETWORK: [u8; 32] = [3; 32];
const SOON: Duration = Duration::from_secs(30);

/// Has a session and nothing to do.
#[derive(Default)]
struct Holder(Option<Box<Session>>);

struct Hold(Box<Session>);

impl Message for Hold {
    type Reply = ();
    const NAME: &'static str = "Hold";
}

impl Behaviour for Holder {
    const NAME: &'static str = "Holder";
}

impl On<Hold> for Holder {
    fn on(&mut self, msg: Hold, _: &mut Cx<Self>) -> Reply<Hold> {
        self.0 = Some(msg.0);
        Reply::Now(())
    }
}

/// The client's end, to which nothing is said.
struct Client;

impl Behaviour for Client {
    const NAME: &'static str = "Client";
}

impl On<Deliver> for Client {
    fn on(&mut self, _: Deliver, _: &mut Cx<Self>) -> Reply<Deliver> {
        Reply::Now(())
    }
}

impl On<SubscriptionEnded> for Client {
    fn on(&mut self, _: SubscriptionEnded, _: &mut Cx<Self>) -> Reply<SubscriptionEnded> {
        Reply::Now(())
    }
}

impl On<Flow> for Client {
    fn on(&mut self, _: Flow, _: &mut Cx<Self>) -> Reply<Flow> {
        Reply::Now(())
    }
}

impl On<Countersign> for Client {
    fn on(&mut self, _: Countersign, _: &mut Cx<Self>) -> Reply<Countersign> {
        Reply::Now(Err(Refusal::Unavailable))
    }
}

/// A session, and whoever has it.
enum Kept {
    Held {
        _actor: Addr<Holder>,
    },
    Attached {
        _actor: Addr<ClientSession>,
        _session: Box<Session>,
    },
}

struct World {
    env: Env,
    qstp: Qstp,
    nursery: Nursery,
    client: Addr<Client>,
    shared: Arc<SessionShared>,
}

impl World {
    async fn held(&self) -> Result<Kept> {
        let (session, _) = self.qstp.shake()?;
        let actor = self
            .nursery
            .spawn(Spec::new("session", |_| Holder::default()))?;
        actor.of().ask(Hold(session), SOON).await?;
        Ok(Kept::Held { _actor: actor })
    }

    /// As a sentry makes it: a mailbox of the same bounds, and a grant that it verified.
    async fn attached(&self, id: u64) -> Result<Kept> {
        let (session, _) = self.qstp.shake()?;
        let keys = NodeKeys::generate();
        let (customer, shared) = (keys.node_id(), self.shared.clone());
        let link = ClientLink {
            deliver: self.client.of(),
            ended: self.client.of(),
            countersign: self.client.of(),
            flow: self.client.of(),
            permit: Arc::new(|_| {}),
            close: Arc::new(|| {}),
        };
        let spec = Spec::new("session", move |_| {
            ClientSession::new(id, customer, link.clone(), shared.clone())
        });
        let actor = self.nursery.spawn(spec.mailbox(SESSION_BOUNDS).place(id))?;
        let hour = 3_600_000;
        let grant = Grant::issue(&keys, NETWORK, SENTRY, self.env.wall_ms(), hour, [9; 16]);
        let attached = actor.of::<Attach>().ask(Attach { grant }, SOON).await?;
        attached.map_err(|refusal| anyhow!("{refusal}"))?;
        Ok(Kept::Attached {
            _actor: actor,
            _session: session,
        })
    }
}

/// Resident and allocated bytes a session: counts so many in this process. `live` is what is allocated.
///
/// # Errors
/// An unknown kind, or something that did not start.
pub fn count(kind: &str, sessions: usize, live: fn() -> usize) -> Result<[f64; 2]> {
    ensure!(KINDS.contains(&kind), "no kind `{kind}`");
    actix_rt::System::new().block_on(async {
        let env = Env::production("bench");
        let mut tree = Tree::new("bench", Strategy::OneForOne);
        let client = tree.child(Spec::new("client", |_| Client));
        let nursery = tree.nursery("sessions", sessions + WARM);
        drop(tree.start(env.clone()));
        let map = ShardMap::from_relayers(4, [NodeId::from_bytes([2; 32])])?;
        let world = World {
            env,
            qstp: Qstp::new()?,
            nursery,
            client,
            shared: Arc::new(SessionShared {
                shares: Default::default(),
                sentry: SENTRY,
                network_id: NETWORK,
                map: Routing::fixed(map),
                uplinks: Arc::new(BTreeMap::new()),
            }),
        };
        let mut kept = Vec::with_capacity(sessions + WARM);
        let mut before = [0; 2];
        for n in 0..sessions + WARM {
            if n == WARM {
                settle().await;
                before = memory(live)?;
            }
            kept.push(match kind {
                "held" => world.held().await?,
                _ => world.attached(n as u64 + 1).await?,
            });
        }
        settle().await;
        let after = memory(live)?;
        ensure!(kept.len() == sessions + WARM);
        Ok([0, 1].map(|of| after[of].saturating_sub(before[of]) as f64 / sessions as f64))
    })
}

/// Until everything spawned has been polled and parked.
async fn settle() {
    for _ in 0..2 {
        tokio::time::sleep(Duration::from_millis(200)).await;
        for _ in 0..1_000 {
            tokio::task::yield_now().await;
        }
    }
}

fn memory(live: fn() -> usize) -> Result<[u64; 2]> {
    let statm = std::fs::read_to_string("/proc/self/statm")?;
    let pages = statm.split_whitespace().nth(1);
    let pages: u64 = pages
        .context("resident pages in /proc/self/statm")?
        .parse()?;
    // Every machine this runs on has pages of 4 KiB.
    Ok([pages * 4_096, live() as u64])
}
