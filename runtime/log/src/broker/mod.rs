//! The log on a RabbitMQ: one stream a shard holds the entries; the local store holds heads, places in the stream, and the
//! spill.
//!
//! ```text
//!   append ──▶ Keeper ──AMQP, confirms──▶ stream (RabbitMQ)
//!   (one a      │  core::owner says what                ▲
//!    shard)     ▼                                       │ by place
//!             local store: heads, marks, places, spill ─┴──▶ read
//! ```
//!
//! An append is durable when the broker confirmed all of it and its places are synced locally; while the broker is down or
//! behind, when it is synced in the spill. Rules: [`core`](crate::core). Spec: docs/spec/relay.md §6.

mod amqp;
mod bundle;
mod discard;
mod join;
mod keeper;
mod letters;
mod line;
pub mod local;
mod names;
mod read;
mod record;
pub mod transport;

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use futures::FutureExt as _;
use lapin::uri::{AMQPScheme, AMQPUri};
use parking_lot::Mutex;
use pqcnet_actor::Env;
use pqcnet_actor::latest;
use pqcnet_store::{Batch, Store};
use tokio::sync::{Semaphore, mpsc, oneshot};

use self::amqp::Amqp;
pub use self::bundle::{bundle, bundled, rebundled};
use self::join::{FIRST_PATIENCE, Joining};
use self::keeper::{Command, Keeper};
use self::line::{Line, keep_connected};
use self::local::{Life, put_trim, written};
pub use self::names::Naming;
use self::read::Parked;
use self::record::Record;
pub use self::record::{encoded, reencoded, stream_name};
use self::transport::{BrokerSettings, Transport};
use crate::embedded::off_thread;
use crate::embedded::read::{bounds, generations, heads};
use crate::embedded::write::{settled, submit};
use crate::fence::Fences;
use crate::keys::{self, GENERATION};
use crate::{
    AppendBatch, AppendError, ChannelHead, ChannelId, Entries, Letter, LetterKeys, LogError,
    Opened, Pending, ReadRequest, Salt, ShardLog, ShardNo,
};

/// Commands that may wait for one shard's keeper: one append is under way at a time, and opens are rare.
const COMMANDS: usize = 16;
/// Readers of streams at once, each with a channel of its own.
const READERS: usize = 16;

/// Where the broker is, and what is ours there.
#[derive(Clone)]
pub struct BrokerConfig {
    uri: AMQPUri,
    /// All but its address.
    pub settings: BrokerSettings,
}

/// Its words would hold a password.
impl fmt::Debug for BrokerConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BrokerConfig")
            .field("host", &self.uri.authority.host)
            .field("port", &self.uri.authority.port)
            .field("prefix", &self.settings.prefix)
            .finish_non_exhaustive()
    }
}

/// A broker's address that is not taken; the operator's to mend.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// Not an AMQP URI.
    #[error("not an address like amqp://user:password@127.0.0.1:5672/%2f: {0}")]
    Syntax(String),
    /// In clear text to another machine.
    #[error(
        "{host} is not this machine, and AMQP is spoken in clear: put a TLS tunnel on 127.0.0.1 and name that"
    )]
    NotLoopback {
        /// The host named.
        host: String,
    },
}

impl BrokerConfig {
    /// The broker at an `amqp://` URI, which must be on this machine.
    ///
    /// # Errors
    /// It is no such URI.
    pub fn new(uri: &str, prefix: impl Into<String>) -> Result<Self, AddressError> {
        let uri: AMQPUri = uri.parse().map_err(AddressError::Syntax)?;
        let host = uri.authority.host.clone();
        if uri.scheme != AMQPScheme::AMQP {
            return Err(AddressError::Syntax("amqps:// is not spoken".to_owned()));
        }
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        if bare.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback()) || bare == "localhost" {
            let settings = BrokerSettings::new(prefix);
            return Ok(Self { uri, settings });
        }
        Err(AddressError::NotLoopback { host })
    }
}

/// A [`ShardLog`] on a RabbitMQ, with a [`Store`] whose schema has [`local::FAMILIES`].
#[derive(Clone)]
pub struct BrokerLog(Arc<Inner>);

struct Inner {
    env: Env,
    settings: Arc<BrokerSettings>,
    store: Arc<dyn Store>,
    fences: Fences,
    publishing: latest::Receiver<Line>,
    reading: latest::Receiver<Line>,
    readers: Semaphore,
    keeps_letters: bool,
    parked: Mutex<VecDeque<Parked>>,
    shards: Mutex<BTreeMap<ShardNo, Shard>>,
}

#[derive(Default)]
struct Shard {
    keeper: Option<mpsc::Sender<Command>>,
    salt: Salt,
    /// Whoever opens or discards it.
    gate: Arc<tokio::sync::Mutex<()>>,
}

impl BrokerLog {
    /// A log on this broker. It connects by itself and again whenever the connection is lost, until it is dropped.
    pub fn new(env: &Env, store: Arc<dyn Store>, config: BrokerConfig) -> Self {
        let BrokerConfig { uri, settings } = config;
        let prefix = settings.prefix.clone();
        Self::over(env, store, Arc::new(Amqp { uri, prefix }), settings)
    }

    /// A log on the broker that this transport leads to.
    pub fn over(
        env: &Env,
        store: Arc<dyn Store>,
        transport: Arc<dyn Transport>,
        settings: BrokerSettings,
    ) -> Self {
        let settings = Arc::new(settings);
        let keeps_letters = transport.keeps_letters();
        let line = |purpose| {
            let (line, lines) = latest::channel(Line::default());
            let transport = transport.clone();
            env.spawn(keep_connected(env.clone(), transport, purpose, line));
            lines
        };
        let (publishing, reading) = (line("publishing"), line("reading"));
        Self(Arc::new(Inner {
            env: env.clone(),
            settings,
            store,
            fences: Fences::default(),
            publishing,
            reading,
            readers: Semaphore::new(READERS),
            keeps_letters,
            parked: Mutex::default(),
            shards: Mutex::default(),
        }))
    }

    /// The shard's keeper; a new one if it has none, or that is over.
    fn keeper(&self, shard: ShardNo) -> Result<mpsc::Sender<Command>, LogError> {
        let inner = &*self.0;
        let mut shards = inner.shards.lock();
        let slot = &mut shards.entry(shard).or_default().keeper;
        if let Some(keeper) = slot.as_ref().filter(|keeper| !keeper.is_closed()) {
            return Ok(keeper.clone());
        }
        let joining = Joining {
            env: inner.env.clone(),
            settings: inner.settings.clone(),
            store: inner.store.clone(),
            shard,
            named: inner.settings.named(shard),
            above: 0,
            patience: FIRST_PATIENCE,
            publishing: inner.publishing.clone(),
            reading: inner.reading.clone(),
        };
        let keeper = Keeper::new(joining, inner.settings.owner_limits())?;
        let (commands, waiting) = mpsc::channel(COMMANDS);
        inner.env.spawn(keeper.run(waiting));
        *slot = Some(commands.clone());
        Ok(commands)
    }

    async fn ready(&self, shard: ShardNo) -> Result<(), LogError> {
        let over = || LogError::Storage {
            detail: "the shard's writer is over".to_owned(),
        };
        let (done, ready) = oneshot::channel();
        let keeper = self.keeper(shard)?;
        let asked = keeper.send(Command::Ready { done }).await;
        asked.map_err(|_| over())?;
        ready.await.map_err(|_| over())?
    }

    /// The stream of a shard; as it is, or as it is to be where there is none.
    fn stream_of(&self, shard: ShardNo) -> Result<String, LogError> {
        let settings = &self.0.settings;
        Ok(match written(&*self.0.store, shard)? {
            Some(found) if found.life != Life::Vacant => settings.stream_as(shard, found.named),
            Some(_) | None => settings.stream(shard),
        })
    }

    fn off_thread<T: Send + 'static>(
        &self,
        work: impl FnOnce(&dyn Store) -> Result<T, LogError> + Send + 'static,
    ) -> Pending<T> {
        off_thread(&self.0.env, &self.0.store, work)
    }
}

impl ShardLog for BrokerLog {
    fn open_above(&self, shard: ShardNo, salt: Salt, floor: u32) -> Pending<Opened> {
        let call = self.0.fences.shut(shard);
        let log = self.clone();
        let gate = self.gate(shard);
        async move {
            let _alone = gate.lock().await;
            // A stream that is to be deleted is gone before there is another of its name.
            log.cleared(shard).await?;
            // Whatever an earlier generation had under way is in the stream or the spill after this, or has failed.
            log.ready(shard).await?;
            let mut salts = log.off_thread(move |s| generations(s, shard)).await?;
            let newest = salts.last().map_or(0, |(generation, _)| *generation);
            let newest = newest.max(floor);
            let generation = log.0.fences.number(shard, call, newest)?;
            let mut batch = Batch::new();
            batch.put(GENERATION, &keys::generation(shard, generation), &salt);
            settled(submit(&*log.0.store, batch)?).await?;
            let heads = log.heads(shard).await?;
            log.0.shards.lock().entry(shard).or_default().salt = salt;
            log.0.fences.admit_from(shard, call, &heads)?;
            salts.push((generation, salt));
            Ok(Opened { generation, salts })
        }
        .boxed()
    }

    fn heads(&self, shard: ShardNo) -> Pending<Vec<ChannelHead>> {
        self.off_thread(move |store| heads(store, shard))
    }

    fn append(&self, batch: AppendBatch) -> Result<Pending<()>, AppendError> {
        self.0.fences.admit(&batch)?;
        let shard = batch.shard;
        let place = {
            let shards = self.0.shards.lock();
            let found = shards.get(&shard);
            found.and_then(|s| Some((s.keeper.clone()?.try_reserve_owned(), s.salt)))
        };
        let (permit, salt) = match place {
            Some((Ok(permit), salt)) => (permit, salt),
            Some((Err(mpsc::error::TrySendError::Full(_)), _)) => {
                self.0.fences.release(shard);
                return Err(AppendError::Busy(batch));
            }
            // The keeper is over, and the generation with it.
            Some((Err(mpsc::error::TrySendError::Closed(_)), _)) | None => {
                drop(self.0.fences.under_way(&batch));
                let generation = batch.generation;
                return Err(AppendError::Fenced { shard, generation });
            }
        };
        let under_way = self.0.fences.under_way(&batch);
        let (done, durable) = oneshot::channel();
        let record = Record::new(batch, salt);
        permit.send(Command::Append { record, done });
        Ok(async move {
            let result = durable.await.unwrap_or_else(|_| {
                Err(LogError::Storage {
                    detail: "the shard's writer ended".to_owned(),
                })
            });
            under_way.settle(result.is_ok());
            result
        }
        .boxed())
    }

    fn read(&self, request: ReadRequest) -> Pending<Entries> {
        let log = self.clone();
        async move { log.read_entries(request).await }.boxed()
    }

    fn trim(&self, shard: ShardNo, channel: ChannelId, up_to: u64) -> Pending<()> {
        let store = self.0.store.clone();
        let bounds = self.off_thread(move |store| bounds(store, shard, channel));
        async move {
            let (first, head) = bounds.await?;
            let up_to = up_to.min(head);
            if up_to < first {
                return Ok(());
            }
            let mut batch = Batch::new();
            put_trim(&mut batch, shard, &channel, first, up_to);
            settled(submit(&*store, batch)?).await
        }
        .boxed()
    }

    fn discard(&self, shard: ShardNo) -> Pending<()> {
        self.0.fences.shut(shard);
        let (log, gate) = (self.clone(), self.gate(shard));
        async move {
            let _alone = gate.lock().await;
            log.discarded(shard).await
        }
        .boxed()
    }

    fn keeps_letters(&self) -> bool {
        self.0.keeps_letters
    }

    fn keep_letter(&self, shard: ShardNo, channel: ChannelId, offset: u64) -> Pending<()> {
        let log = self.clone();
        async move { log.copy_letter(shard, channel, offset).await }.boxed()
    }

    fn sift_letters(
        &self,
        shard: ShardNo,
        listed: LetterKeys,
        wanted: LetterKeys,
    ) -> Pending<Vec<Letter>> {
        let log = self.clone();
        async move { Ok(log.sifted(shard, listed, wanted).await?.found) }.boxed()
    }

    fn letters_there(&self, shard: ShardNo, listed: LetterKeys) -> Pending<LetterKeys> {
        let log = self.clone();
        let wanted = LetterKeys::new();
        async move { Ok(log.sifted(shard, listed, wanted).await?.there) }.boxed()
    }

    fn bring_letter(&self, shard: ShardNo, letter: Letter) -> Pending<()> {
        let log = self.clone();
        async move { log.put_letter(shard, letter).await }.boxed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Clear text stays on the machine; the password is not shown.
    #[test]
    fn addresses_are_of_this_machine() {
        for good in [
            "amqp://guest:guest@127.0.0.1:5672/%2f",
            "amqp://localhost",
            "amqp://[::1]:5672/%2f",
        ] {
            assert!(BrokerConfig::new(good, "x").is_ok(), "{good}");
        }
        let config = BrokerConfig::new("amqp://me:secret@127.0.0.1:9", "net").unwrap();
        let shown = format!("{config:?}");
        assert!(
            !shown.contains("secret") && shown.contains("net"),
            "{shown}"
        );
        assert_eq!(
            BrokerConfig::new("amqp://10.0.0.1:5672/%2f", "x").unwrap_err(),
            AddressError::NotLoopback {
                host: "10.0.0.1".to_owned()
            }
        );
        for bad in ["amqps://127.0.0.1", "http://127.0.0.1", "127.0.0.1"] {
            let refused = BrokerConfig::new(bad, "x").unwrap_err();
            assert!(
                matches!(refused, AddressError::Syntax(_)),
                "{bad}: {refused}"
            );
        }
    }
}
