//! What a worker sends over a link whose mailboxes are full stays in order, whichever of them has room first.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[allow(dead_code, reason = "each test binary uses its part")]
mod support;

use std::sync::{Arc, Mutex};

use pqcnet_actor::{Carrier, Letter, Message, Path, Posting, Ref, TellError, Watch, Watcher};
use pqcnet_crypto::NodeId;
use pqcnet_messages::Series;
use pqcnet_messages::relay::{RelayDeliver, RelaySubscriptionEnded};
use pqcnet_messages::relay_local::{Admit, Follow, ReplaceReaders};
use tokio::sync::{Notify, Semaphore, mpsc};

use support::{Relayer, WITHIN, embedded, store_config, with_env};

/// A receiver under the test's thumb: whether it takes a message now, and when it takes one that waits.
struct Valve<M> {
    open: Mutex<bool>,
    waits: Notify,
    pass: Semaphore,
    taken: mpsc::Sender<M>,
    path: Path,
    watchers: Mutex<Vec<Watcher>>,
}

impl<M: Message> Valve<M> {
    fn shut() -> (Arc<Valve<M>>, mpsc::Receiver<M>) {
        let (taken, receiver) = mpsc::channel(100);
        let valve = Valve {
            open: Mutex::new(false),
            waits: Notify::new(),
            pass: Semaphore::new(0),
            taken,
            path: Path::root("valve"),
            watchers: Mutex::default(),
        };
        (Arc::new(valve), receiver)
    }
}

impl<M: Message> Carrier<M> for Valve<M> {
    fn post(&self, letter: Letter<M>) -> Result<(), TellError<Letter<M>>> {
        if *self.open.lock().unwrap() {
            self.taken.try_send(letter.msg).ok().unwrap();
            Ok(())
        } else {
            Err(TellError::Full(letter))
        }
    }

    fn post_when_free(&self, letter: Letter<M>) -> Posting<'_, M> {
        Box::pin(async move {
            self.waits.notify_one();
            self.pass.acquire().await.unwrap().forget();
            self.taken.try_send(letter.msg).ok().unwrap();
            Ok(())
        })
    }

    fn free(&self) -> usize {
        usize::from(*self.open.lock().unwrap())
    }

    fn path(&self) -> &Path {
        &self.path
    }

    fn watch(&self) -> Watch {
        let (watcher, watch) = Watch::pair(self.path.clone());
        self.watchers.lock().unwrap().push(watcher);
        watch
    }
}

// Record 1 waits for the link, and the end of somebody else's subscription waits for the intake. The intake has room
// first, and by now the link would take a message too: record 2, published then, still comes after record 1.
#[test]
fn the_end_of_one_subscription_lets_nothing_of_another_overtake() {
    with_env(|env| async move {
        let dir = tempfile::tempdir().unwrap();
        let (_store, log) = embedded(&env, store_config(dir.path())).await;
        let relayer = Relayer::start(&env, log, 100);
        let session = relayer.session().await;
        let channel = relayer.channel(0);
        let epoch = relayer.producer(session, &channel).await;
        let (deliver, mut records) = Valve::<RelayDeliver>::shut();
        let (ended, mut ends) = Valve::<RelaySubscriptionEnded>::shut();
        let stranger = NodeId::from_bytes([9; 32]);
        let worker = &relayer.worker;
        let readers = async |readers: Vec<NodeId>| {
            let channel = channel.clone();
            let replace = ReplaceReaders { channel, readers };
            worker.of().ask(replace, WITHIN).await.unwrap().unwrap();
        };
        let publish = async |first_seq: u64| {
            let admit = Admit {
                customer: channel.owner,
                channel: channel.clone(),
                epoch,
                first_seq,
                payloads: vec![b"x".as_slice().into()],
                publisher: None,
            };
            worker.of().ask(admit, WITHIN).await.unwrap().unwrap();
        };
        let follow = async |subscription, customer| {
            let follow = Follow {
                link: 7,
                subscription,
                customer,
                channel: channel.clone(),
                after: 0,
                window_bytes: 1000,
                deliver: Ref::from_carrier(deliver.clone()),
                ended: Ref::from_carrier(ended.clone()),
                series: Series::NONE,
                countersign: None,
                membership: None,
            };
            worker.of().ask(follow, WITHIN).await.unwrap().unwrap();
        };
        readers(vec![stranger]).await;
        follow(1, channel.owner).await;
        follow(2, stranger).await;
        publish(1).await;
        deliver.waits.notified().await;
        readers(vec![]).await;
        ended.waits.notified().await;
        ended.pass.add_permits(1);
        assert_eq!(ends.recv().await.unwrap().subscription, 2);
        *deliver.open.lock().unwrap() = true;
        publish(2).await;
        deliver.pass.add_permits(1);
        let mut offsets = Vec::new();
        while offsets.len() < 2 {
            let delivered = records.recv().await.unwrap();
            assert_eq!(delivered.subscription, 1);
            offsets.extend(delivered.records.iter().map(|record| record.offset));
        }
        assert_eq!(offsets, [1, 2]);
        relayer.running.stop().await;
    });
}
