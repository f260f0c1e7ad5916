//! A relayer and its disk: panics around an append, no room, what lies there, what was changed there.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::SeqCst};

use pqcnet_actor::Env;
use pqcnet_crypto::NodeKeys;
use pqcnet_log::{
    AppendBatch, AppendError, ChannelHead, ChannelId, Entries, Opened, Pending, ReadRequest, Salt,
    ShardLog, ShardNo, keys,
};
use pqcnet_messages::edge::OffsetFound;
use pqcnet_messages::relay::RelayFindOffset;
use pqcnet_messages::relay_local::{Admit, DescribeShard};
use pqcnet_messages::{Channel, ChannelName, Refusal};
use pqcnet_relay::core::channel::channel_id;
use pqcnet_store::{Batch, Store};

use crate::support::{Relayer, SHARD, WITHIN, embedded, store_config, with_env};
use crate::texts;

/// The real log, in whose append the worker panics when its turn has come: before the batch is handed over, or after.
struct Trapped {
    log: Arc<dyn ShardLog>,
    /// Appends until the trap springs.
    fuse: AtomicI64,
    after: bool,
}

impl ShardLog for Trapped {
    fn open_above(&self, shard: ShardNo, salt: Salt, floor: u32) -> Pending<Opened> {
        self.log.open_above(shard, salt, floor)
    }

    fn heads(&self, shard: ShardNo) -> Pending<Vec<ChannelHead>> {
        self.log.heads(shard)
    }

    fn append(&self, batch: AppendBatch) -> Result<Pending<()>, AppendError> {
        let springs = self.fuse.fetch_sub(1, SeqCst) == 0;
        assert!(!springs || self.after, "the trap springs before the append");
        let appending = self.log.append(batch);
        assert!(!springs, "the trap springs with the append under way");
        appending
    }

    fn read(&self, request: ReadRequest) -> Pending<Entries> {
        self.log.read(request)
    }

    fn trim(&self, shard: ShardNo, channel: ChannelId, up_to: u64) -> Pending<()> {
        self.log.trim(shard, channel, up_to)
    }

    fn discard(&self, shard: ShardNo) -> Pending<()> {
        self.log.discard(shard)
    }
}

// The worker panics in mid-flow, once with its batch not yet handed over and once with it on its way to the disk. The
// client repeats under the same sequences. Nothing acknowledged is missing, nothing is there twice, and the subscriber
// is told to subscribe again, from where it was.
#[test]
fn a_panic_of_the_worker_loses_nothing_acknowledged() {
    for after in [false, true] {
        with_env(|env| async move {
            let dir = tempfile::tempdir().unwrap();
            let (_store, log) = embedded(&env, store_config(dir.path())).await;
            let fuse = AtomicI64::new(5);
            let log = Arc::new(Trapped { log, fuse, after });
            let mut relayer = Relayer::start(&env, log, 100);
            let session = relayer.session().await;
            let channel = relayer.channel(0);
            let epoch = relayer.producer(session, &channel).await;
            relayer.subscribe(session, 1, &channel, 0).await.unwrap();
            for sequence in 1..=20u64 {
                let text = sequence.to_string();
                let published = relayer
                    .publish_retrying(session, &channel, epoch, sequence, &[&text])
                    .await;
                assert!(published.last_seq >= sequence);
            }
            let before = relayer.records(5).await;
            let last = before.last().unwrap().1;
            assert_eq!(relayer.ended().await, (1, Refusal::Unavailable));
            relayer.subscribe(session, 2, &channel, last).await.unwrap();
            let rest = relayer.records(20 - before.len()).await;
            let all: Vec<_> = before
                .iter()
                .chain(&rest)
                .map(|(_, o, t)| (*o, t.clone()))
                .collect();
            let wanted: Vec<_> = (1..=20u64).map(|i| (i, i.to_string())).collect();
            assert_eq!(all, wanted);
            relayer.running.stop().await;
        });
    }
}

// The disk runs full: publishes are refused as a storage failure, a new subscriber still reads everything, and once there
// is room the same publish lands, without anyone touching the relayer.
#[test]
fn a_full_disk_refuses_serves_and_recovers() {
    with_env(|env| async move {
        let dir = tempfile::tempdir().unwrap();
        let free = Arc::new(AtomicU64::new(u64::MAX));
        let mut config = store_config(dir.path());
        config.reserve_bytes = 1;
        let probe = free.clone();
        config.free_space = Arc::new(move |_| Some(probe.load(SeqCst)));
        let (_store, log) = embedded(&env, config).await;
        let mut relayer = Relayer::start(&env, log, 100);
        let session = relayer.session().await;
        let channel = relayer.channel(0);
        let epoch = relayer.producer(session, &channel).await;
        relayer
            .publish(session, &channel, epoch, 1, &["a", "b"])
            .await
            .unwrap();
        free.store(0, SeqCst);
        // The first meets the full disk itself; from then on it is known.
        for told in [Refusal::Storage, Refusal::NoRoom, Refusal::NoRoom] {
            let refused = relayer.publish(session, &channel, epoch, 3, &["c"]).await;
            assert_eq!(refused, Err(told));
        }
        relayer.subscribe(session, 1, &channel, 0).await.unwrap();
        assert_eq!(texts(&relayer.records(2).await), [(1, "a"), (2, "b")]);
        let account = relayer
            .worker
            .of()
            .ask(DescribeShard, WITHIN)
            .await
            .unwrap();
        assert!(!account.ready);
        free.store(u64::MAX, SeqCst);
        relayer
            .publish_retrying(session, &channel, epoch, 3, &["c"])
            .await;
        assert_eq!(texts(&relayer.records(1).await), [(3, "c")]);
        relayer.running.stop().await;
    });
}

fn files(folder: &Path, found: &mut Vec<Vec<u8>>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files(&path, found);
        } else {
            found.push(std::fs::read(path).unwrap());
        }
    }
}

// A payload, a channel's name and a customer's id leave no trace in any file, in the write-ahead log or in an SST.
#[test]
fn nothing_readable_reaches_the_disk() {
    with_env(|env| async move {
        let dir = tempfile::tempdir().unwrap();
        let (store, log) = embedded(&env, store_config(dir.path())).await;
        let relayer = Relayer::start(&env, log, 100);
        let session = relayer.session().await;
        let channel = relayer.channel(0);
        let epoch = relayer.producer(session, &channel).await;
        let secret = "the quick brown fox jumps over the lazy dog";
        relayer
            .publish(session, &channel, epoch, 1, &[secret, secret])
            .await
            .unwrap();
        for flushed in [false, true] {
            if flushed {
                store.flush().unwrap();
            }
            let mut found = Vec::new();
            files(dir.path(), &mut found);
            assert!(found.iter().map(Vec::len).sum::<usize>() > 2 * secret.len());
            let owner = channel.owner.as_bytes();
            for text in [
                &secret.as_bytes()[4..15],
                channel.name.as_str().as_bytes(),
                owner,
            ] {
                let seen = found
                    .iter()
                    .any(|f| f.windows(text.len()).any(|w| w == text));
                assert!(
                    !seen,
                    "flushed {flushed}: {}",
                    String::from_utf8_lossy(text)
                );
            }
        }
        relayer.running.stop().await;
    });
}

/// A relayer that stored four messages on one channel and stopped; the channel, and the customer it is of.
async fn four_stored(env: &Env, dir: &Path) -> (Channel, NodeKeys) {
    let (_store, log) = embedded(env, store_config(dir)).await;
    let relayer = Relayer::start(env, log, 100);
    let session = relayer.session().await;
    let channel = relayer.channel(0);
    let epoch = relayer.producer(session, &channel).await;
    relayer
        .publish(session, &channel, epoch, 1, &["a", "b", "c", "d"])
        .await
        .unwrap();
    relayer.running.stop().await;
    (channel, relayer.into_customer())
}

// One bit of stored entry 3 flips. A subscriber from the start gets 1 and 2, then the end of its subscription: 3 is never
// served. One that starts after it gets the rest.
#[test]
fn a_flipped_bit_is_never_served() {
    with_env(|env| async move {
        let dir = tempfile::tempdir().unwrap();
        let (channel, customer) = four_stored(&env, dir.path()).await;
        let (store, log) = embedded(&env, store_config(dir.path())).await;
        let key = keys::numbered(SHARD, &channel_id(&channel), 3);
        let mut value = Vec::new();
        store
            .view(&mut |view| {
                value = view.get(keys::ENTRY, &key)?.unwrap();
                Ok(())
            })
            .unwrap();
        value[25] ^= 1;
        let mut batch = Batch::new();
        batch.put(keys::ENTRY, &key, &value);
        store.submit(batch).unwrap().await.unwrap();
        let mut relayer = Relayer::start(&env, log, 100);
        relayer.customer = customer;
        let session = relayer.session().await;
        relayer.producer(session, &channel).await;
        let answer = relayer.subscribe(session, 1, &channel, 0).await;
        assert_eq!(texts(&relayer.records(2).await), [(1, "a"), (2, "b")]);
        // Told as the answer, or right after it.
        match answer {
            Ok(_) => assert_eq!(relayer.ended().await, (1, Refusal::Storage)),
            Err(refusal) => assert_eq!(refusal, Refusal::Storage),
        }
        relayer.subscribe(session, 2, &channel, 3).await.unwrap();
        assert_eq!(texts(&relayer.records(1).await), [(4, "d")]);
        relayer.running.stop().await;
    });
}

// A channel of four is trimmed up to 2. A subscriber from the start is told where the channel begins now and gets nothing; from
// there on it gets the rest. A time before everything is found in front of it, one after everything behind it.
#[test]
fn a_trimmed_front_is_told_and_a_time_is_found() {
    with_env(|env| async move {
        let dir = tempfile::tempdir().unwrap();
        let (channel, customer) = four_stored(&env, dir.path()).await;
        let (_store, log) = embedded(&env, store_config(dir.path())).await;
        log.trim(SHARD, channel_id(&channel), 2).await.unwrap();
        let mut relayer = Relayer::start(&env, log, 100);
        relayer.customer = customer;
        let session = relayer.session().await;
        relayer.producer(session, &channel).await;
        // Told as the answer, or right after it.
        let gone = Refusal::FrontGone { first: 3 };
        match relayer.subscribe(session, 1, &channel, 0).await {
            Ok(subscribed) => {
                assert_eq!(subscribed.head, 4);
                assert_eq!(relayer.ended().await, (1, gone));
            }
            Err(refusal) => assert_eq!(refusal, gone),
        }
        relayer.subscribe(session, 2, &channel, 2).await.unwrap();
        assert_eq!(texts(&relayer.records(2).await), [(3, "c"), (4, "d")]);
        let find = async |channel: Channel, at_ms| {
            let find = RelayFindOffset {
                session,
                channel,
                at_ms,
            };
            let intake = relayer.intake.of::<RelayFindOffset>();
            intake.ask(find, WITHIN).await.unwrap()
        };
        let found = |after, head| Ok(OffsetFound { after, head });
        assert_eq!(find(channel.clone(), 0).await, found(0, 4));
        assert_eq!(find(channel.clone(), u64::MAX).await, found(4, 4));
        relayer.running.stop().await;
    });
}

// What is stored about a channel is tampered with: nobody may touch the channel, other channels are served.
#[test]
fn a_forged_readers_list_opens_nothing() {
    with_env(|env| async move {
        let dir = tempfile::tempdir().unwrap();
        let (store, log) = embedded(&env, store_config(dir.path())).await;
        let relayer = Relayer::start(&env, log, 100);
        let session = relayer.session().await;
        let channel = relayer.channel(0);
        let epoch = relayer.producer(session, &channel).await;
        relayer
            .publish(session, &channel, epoch, 1, &["a"])
            .await
            .unwrap();
        relayer.running.stop().await;
        let customer = relayer.into_customer();
        drop(store);
        let (store, log) = embedded(&env, store_config(dir.path())).await;
        let mut batch = Batch::new();
        batch.put(
            keys::ABOUT,
            &keys::channel(SHARD, &channel_id(&channel)),
            &[1; 80],
        );
        store.submit(batch).unwrap().await.unwrap();
        let mut relayer = Relayer::start(&env, log, 100);
        relayer.customer = customer;
        let session = relayer.session().await;
        let other = Channel {
            name: ChannelName::new(&format!("{}x", channel.name)).unwrap(),
            owner: channel.owner,
        };
        let admit = |channel: &Channel| Admit {
            customer: channel.owner,
            channel: channel.clone(),
            epoch,
            first_seq: 2,
            payloads: vec!["b".into()],
            publisher: None,
        };
        // Until it is open it says unavailable.
        let answer = loop {
            let answer = relayer
                .worker
                .of()
                .ask(admit(&other), WITHIN)
                .await
                .unwrap();
            if answer != Err(Refusal::Unavailable) {
                break answer;
            }
        };
        assert_eq!(answer, Err(Refusal::UnknownProducer));
        let answer = relayer
            .worker
            .of()
            .ask(admit(&channel), WITHIN)
            .await
            .unwrap();
        assert_eq!(answer, Err(Refusal::Storage));
        let refused = relayer.subscribe(session, 1, &channel, 0).await;
        assert_eq!(refused.unwrap_err(), Refusal::Storage);
        relayer.running.stop().await;
    });
}
