//! The shard map in a node: which one holds, and in a relayer whose shards are whose.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use futures::future::FutureExt as _;
use pqcnet_actor::latest;
use pqcnet_actor::{Addr, Env, Spec, Tree};
use pqcnet_crypto::NodeId;
use pqcnet_link::{Reason, ServiceId};
use pqcnet_mesh::shelf::Kind;
use pqcnet_mesh::{Authority, Shelf, ShelfError};
use pqcnet_messages::{Role, ShardId, ShardMap};
use pqcnet_p2p::typed::LinkHandle;
use pqcnet_relay::{
    CopyPlace, Counterpart, Holder, HolderConfig, MapInForce, Reach, ShardWorker, Tenure,
};

use crate::ground::StartError;
use crate::outward::Outward;
use crate::problem::{Code, Problem};

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
        place: CopyPlace,
        reach: Reach,
    ) -> Addr<Holder> {
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
            workers: workers.clone(),
            place,
            reach,
            seat: Arc::new(move |node| asking.standings().seat(node)),
        };
        tree.child(Spec::new("holder", move |_| Holder::new(config.clone())))
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

/// Reaches other relayers, each time over a data link of its own. Whoever dials is there once the tree is whole.
pub(crate) fn reach(outward: Arc<OnceLock<Outward>>) -> Reach {
    Arc::new(move |whom: NodeId| {
        let outward = outward.get().cloned();
        async move {
            let outward = outward.ok_or("this node is starting")?;
            let services = vec![ServiceId::RELAY];
            let made = outward.data(whom, Role::Relayer, services, |_, bindings| bindings);
            let link = made.await.map_err(|failed| failed.reason)?;
            Ok(Counterpart {
                release: link.remote(),
                survey: link.remote(),
                read: link.remote(),
                fence: link.remote(),
                held: link.remote(),
                link: Box::new(Closes(link)),
            })
        }
        .boxed()
    })
}

/// Closes a link with whoever used it.
struct Closes(LinkHandle);

impl Drop for Closes {
    fn drop(&mut self) {
        self.0.close(Reason::Closed);
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
                .because("their records are being copied, or their new owner has not asked; they are served here")
                .explaining(overdue),
        );
    }
    problems
}
