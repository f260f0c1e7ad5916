//! Two relayers whose logs are on one broker, and a shard that goes from one to the other and back while the broker dies.

use super::*;
use bytes::Bytes;
use pqcnet_log::{AppendBatch, Base, Naming};

/// A relayer's log, by its name; with the shard from the first, or not.
struct Owner {
    config: BrokerConfig,
    dir: tempfile::TempDir,
    log: BrokerLog,
    store: Arc<RocksStore>,
}

impl Owner {
    fn new(uri: &str, name: &str, first: bool) -> Owner {
        let mut config = BrokerConfig::new(uri, "moved").unwrap();
        config.settings.naming = Some(Naming {
            owner: name.to_owned(),
            firsts: first.then_some(S).into_iter().collect(),
        });
        Owner::at(config, tempfile::tempdir().unwrap())
    }

    fn at(config: BrokerConfig, dir: tempfile::TempDir) -> Owner {
        let (log, store) = on_broker::with(config.clone(), dir.path());
        Owner {
            config,
            dir,
            log,
            store,
        }
    }

    /// As after a death of its process; on another disk, if its own is lost.
    async fn again(self, lost: bool) -> Owner {
        let Owner {
            config,
            dir,
            log,
            store,
        } = self;
        on_broker::over(log, store).await;
        let dir = if lost {
            tempfile::tempdir().unwrap()
        } else {
            dir
        };
        Owner::at(config, dir)
    }

    /// Goes on with a copy behind `head`, of which all is here afterwards.
    async fn copies(&self, generation: u32, head: u64, texts: &[&str]) {
        let mut copy = AppendBatch::new(S, generation);
        let base = Base {
            head,
            ..Base::default()
        };
        let slot = copy.channel(A, base);
        for text in texts {
            copy.push_copy(slot, 7, |_, out| out.extend_from_slice(text.as_bytes()));
        }
        soon(self.log.append(copy).unwrap()).await.unwrap();
    }

    async fn above(&self, floor: u32) -> u32 {
        soon(async {
            loop {
                if let Ok(opened) = self.log.open_above(S, [8; 16], floor).await {
                    return opened.generation;
                }
            }
        })
        .await
    }

    async fn discards(&self) {
        soon(async {
            while let Err(error) = self.log.discard(S).await {
                assert_eq!(error, LogError::Busy);
                tokio::task::yield_now().await;
            }
        })
        .await;
        assert_eq!(self.log.heads(S).await.unwrap(), []);
    }
}

/// Which of these queues the broker has.
async fn there(uri: &str, names: &[&'static str]) -> Vec<&'static str> {
    let options = ConnectionProperties::default();
    let connection = Connection::connect(uri, options).await.unwrap();
    let mut found = Vec::new();
    for name in names {
        let passive = QueueDeclareOptions {
            passive: true,
            ..QueueDeclareOptions::default()
        };
        let channel = connection.create_channel().await.unwrap();
        let declared = channel.queue_declare((*name).into(), passive, FieldTable::default());
        if declared.await.is_ok() {
            found.push(*name);
        }
    }
    found
}

/// Waits until the broker has these of all, and no others; one that starts does not serve what it has at once.
async fn has_only(uri: &str, names: &[&'static str]) {
    soon(async { while there(uri, &ALL).await != names {} }).await;
}

const OLDS: &str = "moved.shard-3";
const OLDS_LETTERS: &str = "moved.shard-3.letters";
const NEWS: &str = "moved.shard-3.new";
const ALL: [&str; 3] = [OLDS, OLDS_LETTERS, NEWS];

// The new owner copies while the old one writes on, and the broker dies in between: what was copied meanwhile is spilled. The old owner's discard meets a
// dead broker, then its own death, and goes through when the broker is back. Then the shard comes back to it, in a stream of the old name that has nothing of the
// old one, the new owner's goes, and a lost disk finds what there is.
pub async fn a_shard_goes_and_comes_back(broker: &mut Broker) {
    let old = Owner::new(&broker.uri(), "old", true);
    let new = Owner::new(&broker.uri(), "new", false);
    let first = opened(&old.log).await;
    append_each(&old.log, first, 0, &["a", "b", "c"]).await;
    drained(&old.store).await;
    kept(&old.log, 2).await;
    let mut second = new.above(first).await;
    assert!(second > first);
    new.copies(second, 0, &["a", "b"]).await;
    append_each(&old.log, first, 3, &["d"]).await;
    drained(&new.store).await;
    broker.remember_queue(OLDS_LETTERS);
    broker.kill();
    new.copies(second, 2, &["c"]).await;
    assert_eq!(waiting(&new.store), 1);
    // The copy's maker dies too, and goes on with what it has.
    let new = new.again(false).await;
    second = new.above(first).await;
    new.copies(second, 3, &["d"]).await;
    assert_eq!(old.log.discard(S).await, Err(LogError::Busy));
    assert_eq!(old.log.heads(S).await.unwrap()[0].head, 4);
    let old = old.again(false).await;
    broker.resume();
    has_only(&broker.uri(), &ALL).await;
    old.discards().await;
    drained(&new.store).await;
    has_only(&broker.uri(), &[NEWS]).await;
    assert_eq!(all_texts(&new.log).await, ["a", "b", "c", "d"]);
    let letter = Letter {
        channel: A,
        offset: 2,
        sealed: Bytes::from_static(b"sealed anew"),
    };
    soon(async {
        while new.log.bring_letter(S, letter.clone()).await.is_err() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let listed = LetterKeys::from([(A, 1), (A, 2)]);
    let has = soon(async {
        loop {
            if let Ok(has) = new.log.letters_there(S, listed.clone()).await {
                return has;
            }
        }
    })
    .await;
    assert_eq!(has, LetterKeys::from([(A, 2)]));
    let third = opened(&new.log).await;
    append_each(&new.log, third, 4, &["e"]).await;

    let back = old.above(third).await;
    assert!(back > third);
    assert_eq!(old.log.heads(S).await.unwrap(), []);
    old.copies(back, 0, &["a", "b", "c", "d", "e"]).await;
    append_each(&old.log, back, 5, &["f"]).await;
    drained(&old.store).await;
    new.discards().await;
    has_only(&broker.uri(), &[OLDS]).await;
    let old = old.again(true).await;
    let found = opened(&old.log).await;
    assert!(found > back);
    assert_eq!(all_texts(&old.log).await, ["a", "b", "c", "d", "e", "f"]);
}

// A stream that is to be deleted is deleted before the shard is opened again: its owner died in between, and the shard comes back.
pub async fn what_was_doomed_is_gone_before_it_comes_back(broker: &mut Broker) {
    let here = OnBroker::new(&broker.uri());
    let generation = opened(&here.log).await;
    append_each(&here.log, generation, 0, &["a", "b"]).await;
    drained(&here.store).await;
    broker.kill();
    assert_eq!(here.log.discard(S).await, Err(LogError::Busy));
    let here = here.restarted().await;
    let refused = soon(here.log.open(S, [0; 16])).await;
    assert_eq!(refused, Err(LogError::Busy));
    broker.resume();
    let again = opened(&here.log).await;
    assert_eq!(here.log.heads(S).await.unwrap(), []);
    append_each(&here.log, again, 0, &["c"]).await;
    assert_eq!(all_texts(&here.log).await, ["c"]);
}
