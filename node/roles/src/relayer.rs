//! The relayer's tree.
//!
//! ```text
//!   relayer (one-for-one)
//!     store       fails with the store's writer, which fails the role
//!     shards      a subtree: one ShardWorker a shard of the network; those of shards that are elsewhere rest
//!     meter       counts what the shards store and deliver, and has receivers sign for it
//!     holder      takes over and gives away shards, by the root's map
//!     intakes     a nursery: one Intake a sentry's link, one Envoy another relayer's
//!     steward     the node's account; closes links on the way down
//!     neighbours  the Dialler of the control plane
//!     gate        lets sentries in
//!     watchman    looks at disk and descriptors; `caretaker`, beside the steward, does what operators order
//! ```
//!
//! One-for-one: a worker that restarts reads its shard's heads again, and the intakes watch for that. The workers stop last,
//! when nobody can ask them any more.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use futures::future::{BoxFuture, FutureExt as _, join_all};
use pqcnet_actor::{Addr, Env, Nursery, Spec, Strategy, Tree};
use pqcnet_crypto::{NodeId, StorageMasterKey};
use pqcnet_link::ServiceId;
use pqcnet_log::ShardNo;
use pqcnet_mesh::Authority;
use pqcnet_messages::control::Plane;
use pqcnet_messages::relay_local::DescribeShard;
use pqcnet_messages::{Role, ShardId};
use pqcnet_messages::{moving, relay};
use pqcnet_meter::{Identity, Meter, MeterConfig};
use pqcnet_p2p::typed::{Bindings, LinkHandle, PeerInfo};
use pqcnet_relay::core::flow::{FlowLimits, Marks};
use pqcnet_relay::core::shard::ShardLimits;
use pqcnet_relay::{
    Admits, CopyPlace, Domain, Envoy, Holder, Intake, IntakeConfig, IntakeLimits, ShardWorker,
    ShardWorkerConfig,
};

use crate::gate::{Reception, TurnedAway, close_with_actor, no_room};
use crate::ground::{Ground, MeterRefs, Setup, StartError, Started, Watched};
use crate::keeper::StoreKeeper;
use crate::platform::{Platform, Storage, naming};
use crate::problem::{Code, Problem};
use crate::shards::{Tenancy, problems, reach};
use crate::steward::{Accounts, Collected};
use crate::watchman::FreeBytes;

/// Sentries of one relayer at once, dying links included.
pub const MAX_SENTRIES: usize = 1024;
/// A worker that does not describe itself within this is reported.
const DESCRIBE_DEADLINE: Duration = Duration::from_secs(1);
/// The workers' last batches are on disk by then; the steward before them has taken up to 15 of the 30 seconds.
const WORKER_SHUTDOWN: Duration = Duration::from_secs(10);
/// The last window needs the workers' readings, a signature and a synced write.
const METER_SHUTDOWN: Duration = Duration::from_secs(8);

/// Starts a relayer that keeps its shards on the platform's log, sealed under `storage`.
///
/// # Errors
/// The network does not grant the role, or something cannot be bound or opened.
pub async fn relayer(
    platform: &dyn Platform,
    setup: Setup,
    storage: StorageMasterKey,
) -> Result<Started, StartError> {
    let ground = Ground::prepare(platform, setup, Role::Relayer).await?;
    // The place in the shard map is the listed identity's, whoever succeeded it.
    let seat = ground.authority().standings().seat(ground.node_id);
    let tenancy = Tenancy::prepare(&ground.env, ground.authority(), platform.shelf(), seat).await?;
    let tenure = tenancy.tenure();
    let first = ground.authority().standings().first_map();
    let first = first.map_err(|error| StartError::Shards(error.to_string()))?;
    let Storage {
        log,
        store,
        meter,
        meter_disk,
    } = platform.storage(naming(&first, seat))?;
    let metered = meter.zip(ground.care.metering);
    let limits = ShardLimits {
        customer_channels: ground.care.customer_channels,
        flow: FlowLimits {
            lag_records: match ground.care.lag_records {
                0 => Marks::NEVER,
                high => Marks::new(high, high / 2),
            },
            rests: ground.care.flood_rests,
            ..FlowLimits::default()
        },
        ..ShardLimits::default()
    };

    let mut tree = Tree::new("relayer", Strategy::OneForOne);
    if let Some(store) = store.clone() {
        tree.child(Spec::new("store", move |_| StoreKeeper::new(store.clone())));
    }
    let mut shards = Tree::new("shards", Strategy::OneForOne);
    let storage = Arc::new(storage);
    let workers: BTreeMap<ShardId, Addr<ShardWorker>> = (0..ground.network.shards())
        .map(|shard| {
            let shard = ShardId(shard);
            let config = ShardWorkerConfig {
                shard: ShardNo(shard.0),
                log: log.clone(),
                storage_key: storage.clone(),
                limits,
                tenure: tenure.clone(),
                metered: metered.is_some(),
            };
            let name = format!("shard-{}", shard.0);
            let spec = Spec::new(name, move |_| ShardWorker::new(&config));
            (
                shard,
                shards.child(spec.place(u64::from(shard.0)).shutdown(WORKER_SHUTDOWN)),
            )
        })
        .collect();
    tree.subtree(shards);
    let meter = metered.map(|(store, metering)| {
        let config = MeterConfig {
            identity: Identity {
                keys: ground.keys().clone(),
                network_id: ground.network.network_id().0,
                keep: metering.keep,
            },
            window: metering.window,
            store,
            workers: workers
                .iter()
                .map(|(id, worker)| (*id, worker.of()))
                .collect(),
        };
        let spec = Spec::new("meter", move |_| Meter::new(config.clone()));
        tree.child(spec.mailbox(pqcnet_meter::BOUNDS).shutdown(METER_SHUTDOWN))
    });
    let watched = Watched {
        disk: store.clone().map(|store| {
            let path = store.path().to_owned();
            let measure: FreeBytes = Arc::new(move || store.free_bytes());
            (path, measure)
        }),
        workers: workers.values().map(Addr::of).collect(),
    };
    let intakes = tree.nursery("intakes", MAX_SENTRIES);
    let dials = Arc::new(OnceLock::new());
    let place = CopyPlace {
        log,
        storage_key: storage,
    };
    let reach = reach(dials.clone());
    let holder = tenancy.plant(&mut tree, ground.authority(), &workers, place, reach);
    let domain = Domain {
        admits: admits(ground.authority()),
        network_id: ground.network.network_id().0,
        tenure,
        workers,
        grants: meter.as_ref().map(Addr::of),
    };
    let reception = Arc::new(Sentries {
        env: ground.env.clone(),
        nursery: intakes,
        last: AtomicU64::new(0),
        domain: Arc::new(domain),
        authority: ground.authority().clone(),
        holder,
    });
    let (steward, steward_refs) = {
        let copied = store.map(|store| (store, meter_disk));
        ground.steward(&mut tree, Vec::new(), reception.clone(), copied)
    };
    let outward = ground.outward(steward_refs);
    dials.get_or_init(|| outward.clone());
    ground.doors(&mut tree, &steward, &outward, reception, watched);
    let mesh = outward.steward.mesh.clone();
    let started = ground.start(tree, steward, mesh).await?;
    let meter = meter.map(|meter| MeterRefs {
        close: meter.of(),
        report: meter.of(),
        totals: meter.of(),
    });
    Ok(Started { meter, ..started })
}

/// Whose grants and sessions hold: those of customers that may be clients now.
fn admits(authority: &Authority) -> Admits {
    let authority = authority.clone();
    Arc::new(move |customer| authority.admit(customer, Role::Client).is_ok())
}

/// Starts an intake for each sentry.
struct Sentries {
    env: Env,
    nursery: Nursery,
    /// The last link's number; never used twice in a process.
    last: AtomicU64,
    domain: Arc<Domain>,
    authority: Authority,
    /// Gives shards to other relayers.
    holder: Addr<Holder>,
}

impl Sentries {
    fn intake(&self, sentry: NodeId, link: &LinkHandle) -> IntakeConfig {
        IntakeConfig {
            link: self.last.fetch_add(1, Ordering::Relaxed) + 1,
            sentry,
            domain: self.domain.clone(),
            deliver: link.remote(),
            ended: link.remote(),
            countersign: Some(link.remote()),
            flow: link.remote(),
            limits: IntakeLimits::default(),
        }
    }
}

impl Sentries {
    /// Another relayer may ask for shards, and for nothing else.
    fn envoy(
        &self,
        asker: NodeId,
        link: &LinkHandle,
        bindings: Bindings,
    ) -> Result<Bindings, TurnedAway> {
        let (holder, remote) = (self.holder.clone(), link.remote());
        let spec = Spec::new("envoy", move |_| {
            Envoy::new(asker, holder.clone(), Some(remote.clone()))
        });
        let envoy = (self.nursery.spawn(spec)).map_err(|full| no_room(&full))?;
        close_with_actor(&self.env, &envoy.of::<relay::ReleaseShard>(), link);
        Ok(bindings
            .serve::<relay::ReleaseShard>(envoy.of())
            .serve::<moving::SurveyShard>(envoy.of())
            .serve::<moving::ReadShard>(envoy.of())
            .serve::<moving::FenceShard>(envoy.of())
            .serve::<moving::ShardHeld>(envoy.of()))
    }
}

impl Reception for Sentries {
    fn services(&self, plane: Plane) -> Vec<ServiceId> {
        match plane {
            Plane::Data => vec![ServiceId::RELAY],
            Plane::Control => Vec::new(),
        }
    }

    fn admits(&self, plane: Plane, role: Role) -> bool {
        match plane {
            Plane::Data => matches!(role, Role::Sentry | Role::Relayer | Role::Operator),
            Plane::Control => role != Role::Client,
        }
    }

    fn receive(
        &self,
        plane: Plane,
        peer: &PeerInfo,
        link: &LinkHandle,
        bindings: Bindings,
    ) -> Result<Bindings, TurnedAway> {
        match (plane, peer.role) {
            (Plane::Data, Role::Sentry) => {}
            (Plane::Data, Role::Relayer) => return self.envoy(peer.node_id, link, bindings),
            _ => return Ok(bindings),
        }
        let config = self.intake(peer.node_id, link);
        let number = config.link;
        let spec = Spec::new("intake", move |_| Intake::new(config.clone()));
        let intake = self
            .nursery
            .spawn(spec.place(number))
            .map_err(|full| no_room(&full))?;
        close_with_actor(&self.env, &intake.of::<relay::OpenSession>(), link);
        Ok(bindings
            .serve::<relay::OpenSession>(intake.of())
            .serve::<relay::CloseSession>(intake.of())
            .serve::<relay::RelayOpenProducer>(intake.of())
            .serve::<relay::RelayPublish>(intake.of())
            .serve::<relay::RelaySetReaders>(intake.of())
            .serve::<relay::RelaySubscribe>(intake.of())
            .serve::<relay::RelayFindOffset>(intake.of())
            .serve::<relay::RelayJoinGroup>(intake.of())
            .serve::<relay::RelayCommit>(intake.of())
            .serve::<relay::RelayNack>(intake.of())
            .serve::<relay::RelayListDeadLetters>(intake.of())
            .serve::<relay::RelayConsumed>(intake.of())
            .serve::<relay::RelayUnsubscribe>(intake.of()))
    }
}

impl Accounts for Sentries {
    fn collect(&self) -> BoxFuture<'static, Collected> {
        let sentries = u64::try_from(self.nursery.len()).unwrap_or(u64::MAX);
        let tenure = self.domain.tenure.borrow().clone();
        let told = problems(&self.authority, &tenure);
        let workers = self
            .domain
            .workers
            .iter()
            .filter(|(shard, _)| tenure.works(**shard))
            .map(|(shard, worker)| (shard.0, worker.of()));
        let asked = workers.map(|(shard, worker)| async move {
            (shard, worker.ask(DescribeShard, DESCRIBE_DEADLINE).await)
        });
        let asked: Vec<_> = asked.collect();
        async move {
            let mut collected = Collected {
                problems: told,
                ..Collected::default()
            };
            let mut subscriptions = 0;
            let (mut waiting, mut stuck) = (Vec::new(), Vec::new());
            for (shard, answer) in join_all(asked).await {
                match answer {
                    Ok(account) => {
                        subscriptions += account.subscriptions;
                        if !account.ready {
                            waiting.push(format!("shard {shard} is {}", account.phase));
                        }
                        collected.shards.push(account.status);
                    }
                    Err(error) => stuck.push(format!("shard {shard}: {error}")),
                }
            }
            let owned = stuck.len() + collected.shards.len();
            let cause = "their records are still being read from the disk, or the disk fails";
            collected
                .problems
                .extend(of_shards(Code::ShardNotReady, waiting, owned, cause));
            let cause = "their workers hang, wait for the disk, or were stopped";
            collected
                .problems
                .extend(of_shards(Code::ShardStuck, stuck, owned, cause));
            let version = tenure.map().version();
            collected
                .counters
                .push(("shard_map_version".to_owned(), version));
            collected.counters.push(("sentries".to_owned(), sentries));
            collected
                .counters
                .push(("subscriptions".to_owned(), subscriptions));
            collected
        }
        .boxed()
    }
}

/// What several shards have in common is one problem that names them.
fn of_shards(code: Code, shards: Vec<String>, owned: usize, cause: &str) -> Option<Problem> {
    let what = match shards.as_slice() {
        [] => return None,
        [only] => return Some(code.problem(only).because(cause)),
        several => format!("{} of {owned} shards do not work", several.len()),
    };
    Some(code.problem(what).because(cause).explaining(shards))
}
