//! Does what an operator orders: stops the node in order, copies its store.
//!
//! Started by: every role. Served to operators alone ([`crate::gate::StewardRefs::bindings_for`]); who is an operator,
//! `network.toml` says. Sends to: the process, which waits for [`Drain`] ([`Live::drain_ordered`]).
//! Mailbox: the usual one. A restart forgets how the last backup went; what is on the disk is whole all the same.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use pqcnet_actor::latest;
use pqcnet_actor::{Behaviour, Cx, On, Ref, Reply};
use pqcnet_messages::Refusal;
use pqcnet_messages::orders::{BackUp, BackUpState, Drain, DrainBegun};
use pqcnet_p2p::guard::GuardConfig;
use pqcnet_relay::core::flow::FlowLimits;
use pqcnet_relay::core::shard::ShardLimits;
use pqcnet_store::RocksStore;
use tokio::sync::Notify;

use crate::copies;
use crate::watchman::Limits;

/// Ends the name of the fact when the current key of a purpose was made, milliseconds since the Unix epoch:
/// `storage_made_at_ms`.
pub const MADE_AT_MS: &str = "_made_at_ms";

/// What an operator decides about a node's upkeep.
#[derive(Clone, Debug)]
pub struct Care {
    /// When something runs low. May change while the node runs.
    pub limits: Limits,
    /// The longest a drain may take. May change while the node runs.
    pub drain_within: Duration,
    /// Where backups go.
    pub backups: PathBuf,
    /// Channels that one customer may have in a shard.
    pub customer_channels: usize,
    /// Records that a subscriber may fall behind before its channel's publishers are asked to wait; 0: they never are.
    pub lag_records: u64,
    /// How many times as long as its write took a channel rests that crowds others out.
    pub flood_rests: u32,
    /// Strangers that may wait for a handshake at once, at both planes together.
    pub strangers: usize,
    /// How a relayer meters; `None`: not at all.
    pub metering: Option<Metering>,
    /// What the node's account tells besides and does not change while it runs, by name ([`MADE_AT_MS`]).
    pub facts: Vec<(String, u64)>,
}

/// How a relayer meters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Metering {
    /// How long a window is.
    pub window: Duration,
    /// How many are kept.
    pub keep: u64,
}

impl Default for Metering {
    /// A week of windows of a minute.
    fn default() -> Metering {
        Metering {
            window: Duration::from_secs(60),
            keep: 7 * 24 * 60,
        }
    }
}

impl Default for Care {
    fn default() -> Care {
        Care {
            limits: Limits::default(),
            drain_within: Duration::from_secs(30),
            backups: PathBuf::from("backups"),
            customer_channels: ShardLimits::default().customer_channels,
            lag_records: FlowLimits::default().lag_records.high,
            flood_rests: FlowLimits::default().rests,
            strangers: GuardConfig::default().waiting,
            metering: Some(Metering::default()),
            facts: Vec::new(),
        }
    }
}

/// What may change while the node runs, and what it may be ordered.
#[derive(Clone)]
pub struct Live {
    limits: Arc<latest::Sender<Limits>>,
    drain_within: Arc<latest::Sender<Duration>>,
    drain: Arc<Notify>,
}

impl Live {
    pub(crate) fn new(care: &Care) -> Live {
        Live {
            limits: Arc::new(latest::Sender::new(care.limits)),
            drain_within: Arc::new(latest::Sender::new(care.drain_within)),
            drain: Arc::default(),
        }
    }

    /// From now on these hold.
    pub fn change(&self, limits: Limits, drain_within: Duration) {
        self.limits.send_replace(limits);
        self.drain_within.send_replace(drain_within);
    }

    /// Resolves when an operator has ordered a drain.
    pub async fn drain_ordered(&self) {
        self.drain.notified().await;
    }

    /// The longest a drain may take, as it is now.
    pub fn drain_within(&self) -> Duration {
        *self.drain_within.borrow()
    }

    pub(crate) fn limits(&self) -> latest::Receiver<Limits> {
        self.limits.subscribe()
    }
}

/// What a backup is made of.
#[derive(Clone)]
pub struct Stores {
    /// The log's.
    pub log: Arc<RocksStore>,
    /// The meter's, where there is one.
    pub meter: Option<Arc<RocksStore>>,
    /// Where backups go.
    pub backups: PathBuf,
}

/// What a caretaker is started with.
#[derive(Clone)]
pub struct CaretakerConfig {
    /// What is copied, where the role keeps anything.
    pub stores: Option<Stores>,
    /// Whom a drain is told, and how long it may take.
    pub live: Live,
}

/// What an operator's link is served.
#[derive(Clone, Debug)]
pub struct Orders {
    /// Stops the node.
    pub drain: Ref<Drain>,
    /// Copies its store.
    pub back_up: Ref<BackUp>,
}

/// The actor.
pub struct Caretaker {
    config: CaretakerConfig,
    /// The last backup, by name.
    backup: Option<(String, BackUpState)>,
}

impl Caretaker {
    /// With nothing to do.
    pub fn new(config: CaretakerConfig) -> Caretaker {
        let backup = None;
        Caretaker { config, backup }
    }

    fn back_up(&mut self, name: String, cx: &mut Cx<Self>) -> Result<BackUpState, Refusal> {
        match &self.backup {
            Some((last, state)) if *last == name => {
                let state = state.clone();
                // How it ended is told once; ordered again, it is made again, or refused for what is there.
                if !matches!(state, BackUpState::UnderWay) {
                    self.backup = None;
                }
                return Ok(state);
            }
            Some((_, BackUpState::UnderWay)) => return Err(Refusal::Busy),
            Some(_) | None => {}
        }
        let Some(stores) = self.config.stores.clone() else {
            return Err(Refusal::Invalid("this node has no store".to_owned()));
        };
        tracing::info!(name, "a backup was ordered");
        let path = stores.backups.join(&name);
        self.backup = Some((name.clone(), BackUpState::UnderWay));
        let shown = path.display().to_string();
        cx.offload(
            move || copies::back_up(&stores.log, stores.meter.as_deref(), &path),
            move |caretaker, made, _| {
                let state = match made {
                    Ok(Ok(made)) => BackUpState::Done {
                        path: shown,
                        files: made.files as u64,
                        bytes: made.bytes,
                    },
                    Ok(Err(error)) => BackUpState::Failed {
                        detail: error.to_string(),
                    },
                    Err(error) => BackUpState::Failed {
                        detail: error.to_string(),
                    },
                };
                tracing::info!(name, ?state, "backup");
                caretaker.backup = Some((name, state));
            },
        );
        Ok(BackUpState::UnderWay)
    }
}

impl Behaviour for Caretaker {
    const NAME: &'static str = "Caretaker";

    fn describe(&self) -> String {
        match &self.backup {
            Some((name, state)) => format!("backup {name}: {state:?}"),
            None => "no backup since its start".to_owned(),
        }
    }
}

impl On<Drain> for Caretaker {
    fn on(&mut self, _: Drain, _: &mut Cx<Self>) -> Reply<Drain> {
        tracing::info!("a drain was ordered");
        self.config.live.drain.notify_one();
        let within = self.config.live.drain_within().as_millis();
        let within_ms = u64::try_from(within).unwrap_or(u64::MAX);
        Reply::Now(Ok(DrainBegun { within_ms }))
    }
}

impl On<BackUp> for Caretaker {
    fn on(&mut self, order: BackUp, cx: &mut Cx<Self>) -> Reply<BackUp> {
        Reply::Now(self.back_up(order.name, cx))
    }
}
