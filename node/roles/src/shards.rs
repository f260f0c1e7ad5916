//! The shard map in a node: which one holds, and in a relayer whose shards are whose.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use futures::future::FutureExt as _;
use pqcnet_actor::latest;
use pqcnet_actor::{Addr, Behaviour, Cx, Env, On, Ref, Reply, Spec, Tree};
use pqcnet_crypto::NodeId;
use pqcnet_link::{Reason, ServiceId};
use pqcnet_mesh::shelf::Kind;
use pqcnet_mesh::{Authority, Shelf, ShelfError};
use pqcnet_messages::relay::ReleaseShard;
use pqcnet_messages::{Refusal, Role, ShardId, ShardMap};
use pqcnet_relay::{AskShard, Holder, HolderConfig, MapInForce, Release, ShardWorker, Tenure};

use crate::ground::StartError;
use crate::outward::Outward;
use crate::problem::{Code, Problem};

/// A relayer answers once what it admitted is stored and it has said so on its disk.
const RELEASED_WITHIN: Duration = Duration::from_secs(20);

/// The map that holds by these standings; the network file's own where the root's cannot be used.
fn in_force(authority: &Authority) -> Result<MapInForce, StartError> {
    let standings = authority.standings();
    let (map, until_ms) = match standings.map_in_force() {
        Ok(found) => found,
        Err(unusable) => {
            tracing::error!(%unusable, "the root's shard map is not followed");
            let first = standings.first_map();
            (
                first.map_err(|error| StartError::Shards(error.to_string()))?,
                None,
            )
        }
    };
    Ok(MapInForce { map, until_ms })
}

/// The map that holds, as it changes. It ends with the node.
pub(crate) fn map(
    env: &Env,
    authority: &Authority,
) -> Result<latest::Receiver<MapInForce>, StartError> {
    let (now, following) = latest::channel(in_force(authority)?);
    let mut authority = authority.clone();
    env.spawn(async move {
        loop {
            authority.changed().await;
            let Ok(force) = in_force(&authority) else {
                return;
            };
            now.send_if_modified(|held| {
                let changed = *held != force;
                *held = force;
                changed
            });
            if now.is_closed() {
                return;
            }
        }
    });
    Ok(following)
}

/// The same for those who ask nothing but where a shard is to be.
pub(crate) fn owners(
    env: &Env,
    mut map: latest::Receiver<MapInForce>,
) -> latest::Receiver<Arc<ShardMap>> {
    let shown = Arc::new(map.borrow_and_update().map.clone());
    let (show, owners) = latest::channel(shown);
    env.spawn(async move {
        while map.changed().await.is_ok() {
            let shown = Arc::new(map.borrow_and_update().map.clone());
            if show.send(shown).is_err() {
                return;
            }
        }
    });
    owners
}

/// What a relayer has before its actors start.
pub(crate) struct Tenancy {
    seat: NodeId,
    shelf: Shelf,
    map: latest::Receiver<MapInForce>,
    show: latest::Sender<Arc<Tenure>>,
}

impl Tenancy {
    /// Reads which shards are here.
    pub(crate) async fn prepare(
        env: &Env,
        authority: &Authority,
        shelf: Shelf,
        seat: NodeId,
    ) -> Result<Tenancy, StartError> {
        let map = map(env, authority)?;
        let first = authority.standings().first_map();
        let first = first.map_err(|error| StartError::Shards(error.to_string()))?;
        let (from, begins) = (shelf.clone(), first.clone());
        let loaded = env.offload(move || load(&from, seat, begins)).await;
        let loaded = loaded.unwrap_or_else(|_| load(&shelf, seat, first));
        let mut tenure = loaded.map_err(StartError::Shards)?;
        tenure.enforce(map.borrow().clone());
        let (show, _) = latest::channel(Arc::new(tenure));
        Ok(Tenancy {
            seat,
            shelf,
            map,
            show,
        })
    }

    /// Which shards are here, as it changes.
    pub(crate) fn tenure(&self) -> latest::Receiver<Arc<Tenure>> {
        self.show.subscribe()
    }

    /// Adds the actor that changes it.
    pub(crate) fn plant(
        &self,
        tree: &mut Tree,
        authority: &Authority,
        workers: &BTreeMap<ShardId, Addr<ShardWorker>>,
        ask: AskShard,
    ) -> Ref<Release> {
        let (seat, shelf) = (self.seat, self.shelf.clone());
        let (reading, keeping) = (authority.clone(), shelf.clone());
        let load = move || {
            let first = reading.standings().first_map();
            load(&shelf, seat, first.map_err(|error| error.to_string())?)
        };
        let keep = move |items: Vec<bytes::Bytes>| {
            let kept = keeping.save(Kind::Shards, &items);
            kept.map_err(|error| error.to_string())
        };
        let asking = authority.clone();
        let config = HolderConfig {
            load: Arc::new(load),
            keep: Arc::new(keep),
            map: self.map.clone(),
            show: self.show.clone(),
            workers: (workers.iter())
                .map(|(shard, worker)| (*shard, (worker.of(), worker.of())))
                .collect(),
            ask,
            seat: Arc::new(move |node| asking.standings().seat(node)),
        };
        let holder = tree.child(Spec::new("holder", move |_| Holder::new(config.clone())));
        holder.of()
    }
}

fn load(shelf: &Shelf, seat: NodeId, first: ShardMap) -> Result<Tenure, String> {
    let kept = shelf.load(Kind::Shards).map_err(|error| match error {
        ShelfError::Damaged { path, problem } => {
            let path = path.display();
            format!(
                "{path}: {problem}; restore it from a backup: without it this relayer may store in shards that it gave away"
            )
        }
        io @ ShelfError::Io { .. } => io.to_string(),
    })?;
    Tenure::new(seat, first, kept).map_err(str::to_owned)
}

/// Asks other relayers over a data link of its own, which ends with the answer. Whoever dials is there once the tree is whole.
pub(crate) fn asking(outward: Arc<OnceLock<Outward>>) -> AskShard {
    Arc::new(move |whom: NodeId, request: ReleaseShard| {
        let outward = outward.get().cloned();
        async move {
            let outward = outward.ok_or("this node is starting")?;
            let services = vec![ServiceId::RELAY];
            let made = outward.data(whom, Role::Relayer, services, |_, bindings| bindings);
            let link = made.await.map_err(|failed| failed.reason)?;
            let to = link.remote::<ReleaseShard>();
            let answer = to.ask(request, RELEASED_WITHIN).await;
            let answer = answer.map_err(|error| error.to_string());
            link.close(Reason::Closed);
            answer
        }
        .boxed()
    })
}

/// Says who asks: one a relayer's link. Started by the gate's reception, in the nursery of the intakes; ends with its link.
pub(crate) struct Envoy {
    /// The peer, as its channel proved it.
    pub(crate) asker: NodeId,
    /// Whom it asks.
    pub(crate) holder: Ref<Release>,
    /// Ends with the link.
    pub(crate) link: Ref<pqcnet_messages::control::Ping>,
}

impl Behaviour for Envoy {
    const NAME: &'static str = "Envoy";

    fn started(&mut self, cx: &mut Cx<Self>) {
        let link = self.link.clone();
        cx.watch(&link, |_, _, cx| cx.stop());
    }
}

impl On<ReleaseShard> for Envoy {
    fn on(&mut self, request: ReleaseShard, cx: &mut Cx<Self>) -> Reply<ReleaseShard> {
        let (promise, reply) = Reply::later();
        let asker = self.asker;
        let release = Release { asker, request };
        let to = self.holder.clone();
        cx.ask(&to, release, RELEASED_WITHIN, move |_, answer, _| {
            promise.fulfil(answer.unwrap_or(Err(Refusal::Unavailable)));
        });
        reply
    }
}

/// What is wrong with the map, or with where shards are.
pub(crate) fn problems(authority: &Authority, tenure: &Tenure) -> Vec<Problem> {
    let mut problems = Vec::new();
    if let Err(unusable) = authority.standings().map_in_force() {
        problems.push(
            Code::ShardMapUnusable
                .problem("the root's shard map is not followed")
                .because(unusable.to_string()),
        );
    }
    let overdue: Vec<String> = (tenure.overdue())
        .map(|(shard, owner)| format!("shard {shard} is to be at {} and is here", owner.short()))
        .collect();
    if !overdue.is_empty() {
        let (count, version) = (overdue.len(), tenure.map().version());
        problems.push(
            Code::ShardNotMoved
                .problem(format!("{count} shards that map {version} gives to others are still here"))
                .because("they have records, which do not move yet, or the new owner has not asked; they are served here")
                .explaining(overdue),
        );
    }
    problems
}
