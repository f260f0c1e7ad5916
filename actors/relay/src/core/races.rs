//! Orders of events that are rare and matter: each test is one of them, step by step.

use std::time::Duration;

use pqcnet_crypto::NodeId;
use pqcnet_log::{AppendBatch, LogError, Opened, ShardNo};
use pqcnet_messages::{Channel, ChannelName, Refusal};

use super::seal::ShardKeys;
use super::shard::{Effect, NewRecords, Shard, ShardLimits};
use super::subscription::SubscriptionKey;

const NOW: Duration = Duration::from_secs(1);
const KEY: SubscriptionKey = SubscriptionKey {
    link: 1,
    subscription: 1,
};

fn owner() -> NodeId {
    NodeId::from_bytes([1; 32])
}

fn channel() -> Channel {
    Channel {
        owner: owner(),
        name: ChannelName::new("orders").unwrap(),
    }
}

/// A shard that is open, empty, in generation 1, and an epoch of its channel.
fn open() -> (Shard<u64>, u64) {
    let mut shard = Shard::new(
        ShardNo(1),
        ShardKeys::new(&[5; 32], ShardNo(1)),
        ShardLimits::default(),
    );
    assert!(matches!(shard.poll_effect(), Some(Effect::Open)));
    let salts = vec![(1, [1; 16])];
    let generation = 1;
    shard.on_opened(NOW, Ok((Opened { generation, salts }, Vec::new())));
    let epoch = shard.open_producer(owner(), &channel()).unwrap();
    (shard, epoch)
}

fn publish(shard: &mut Shard<u64>, epoch: u64, first_seq: u64) {
    let new = NewRecords {
        customer: owner(),
        channel: channel(),
        epoch,
        first_seq,
        payloads: vec![b"x".as_slice().into()],
    };
    shard.publish(7, new, first_seq);
}

fn appended(shard: &mut Shard<u64>) -> Option<AppendBatch> {
    std::iter::from_fn(|| shard.poll_effect()).find_map(|effect| match effect {
        Effect::Append(batch) => Some(batch),
        _ => None,
    })
}

fn subscribe(shard: &mut Shard<u64>, after: u64) -> Result<u64, Refusal> {
    shard.subscribe(KEY, owner(), &channel(), after, 100)
}

// Record 2 is synced, a subscriber that is catching up reads it from the log, loses its link and comes back with offset
// 2 before the shard has heard that the append is done: it is told to try again, and then let in. An offset that nobody
// can have had is refused for good.
#[test]
fn a_reader_ahead_of_the_shard_may_come_back() {
    let (mut shard, epoch) = open();
    publish(&mut shard, epoch, 1);
    assert!(appended(&mut shard).is_some());
    shard.on_appended(NOW, Ok(()));
    publish(&mut shard, epoch, 2);
    assert!(appended(&mut shard).is_some());
    assert_eq!(subscribe(&mut shard, 2), Err(Refusal::Unavailable));
    assert!(matches!(subscribe(&mut shard, 3), Err(Refusal::Invalid(_))));
    shard.on_appended(NOW, Ok(()));
    assert_eq!(subscribe(&mut shard, 2), Ok(2));
}

// The append fails though its bytes may be on disk, where a reader may find them before the shard reads its heads again.
#[test]
fn a_reader_ahead_of_a_failed_shard_may_come_back() {
    let (mut shard, epoch) = open();
    publish(&mut shard, epoch, 1);
    assert!(appended(&mut shard).is_some());
    let detail = "pulled".to_owned();
    shard.on_appended(NOW, Err(LogError::Storage { detail }));
    assert_eq!(subscribe(&mut shard, 1), Err(Refusal::Unavailable));
}
