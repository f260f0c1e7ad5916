//! Orders of events that are rare and matter: each test is one of them, step by step.

use std::time::Duration;

use pqcnet_crypto::NodeId;
use pqcnet_log::{AppendBatch, ChannelHead, LogError, Opened, ShardNo};
use pqcnet_messages::{Channel, ChannelName, Refusal, Series};

use super::channel::{About, channel_id, sealed_about};
use super::delivery::Delivered;
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
    let epoch = shard.open_producer(owner(), &channel(), None).unwrap();
    (shard, epoch)
}

fn publish(shard: &mut Shard<u64>, epoch: u64, first_seq: u64) {
    let new = NewRecords {
        customer: owner(),
        channel: channel(),
        epoch,
        first_seq,
        payloads: vec![b"x".as_slice().into()],
        from: None,
    };
    shard.publish((NOW, 7), new, first_seq);
}

fn appended(shard: &mut Shard<u64>) -> Option<AppendBatch> {
    std::iter::from_fn(|| shard.poll_effect()).find_map(|effect| match effect {
        Effect::Append(batch) => Some(batch),
        _ => None,
    })
}

fn subscribe(shard: &mut Shard<u64>, after: u64) -> Result<u64, Refusal> {
    shard.subscribe(KEY, owner(), &channel(), after, 100, Series::NONE)
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

/// The effects that are due.
fn effects(shard: &mut Shard<u64>) -> Vec<Effect<u64>> {
    std::iter::from_fn(|| shard.poll_effect()).collect()
}

fn refused(shard: &mut Shard<u64>) -> Option<Refusal> {
    let mut due = effects(shard).into_iter();
    due.find_map(|effect| match effect {
        Effect::Reply { result, .. } => result.err(),
        _ => None,
    })
}

// The disk has no room: nothing is admitted and nobody gets an epoch, by type, while a subscriber is served on. What was on
// its way before is acknowledged. With room again, all is as it was.
#[test]
fn without_room_reading_goes_on() {
    let (mut shard, epoch) = open();
    publish(&mut shard, epoch, 1);
    assert!(appended(&mut shard).is_some());
    shard.set_room(false);
    shard.on_appended(NOW, Ok(()));
    assert!(matches!(
        effects(&mut shard)[..],
        [Effect::Reply {
            to: 1,
            result: Ok(_)
        }]
    ));
    publish(&mut shard, epoch, 2);
    assert_eq!(refused(&mut shard), Some(Refusal::NoRoom));
    let producer = shard.open_producer(owner(), &channel(), None);
    assert_eq!(producer, Err(Refusal::NoRoom));
    shard.set_readers(NOW, &channel(), Vec::new(), 9);
    assert_eq!(refused(&mut shard), Some(Refusal::NoRoom));
    assert_eq!(subscribe(&mut shard, 0), Ok(1));
    let delivered = effects(&mut shard);
    assert!(matches!(
        delivered[..],
        [Effect::Deliver(Delivered::Records { .. })]
    ));
    shard.set_room(true);
    publish(&mut shard, epoch, 2);
    assert!(appended(&mut shard).is_some());
}

// The store itself meets a full disk in mid-append: who waits learns that the outcome is unknown, who comes later that
// there is no room, until the log is open again.
#[test]
fn a_full_disk_is_told_by_type() {
    let (mut shard, epoch) = open();
    publish(&mut shard, epoch, 1);
    assert!(appended(&mut shard).is_some());
    let detail = "0 bytes".to_owned();
    shard.on_appended(NOW, Err(LogError::Full { detail }));
    assert_eq!(refused(&mut shard), Some(Refusal::Storage));
    publish(&mut shard, epoch, 1);
    assert_eq!(refused(&mut shard), Some(Refusal::NoRoom));
    let salts = vec![(1, [1; 16]), (2, [2; 16])];
    let generation = 2;
    shard.on_opened(NOW, Ok((Opened { generation, salts }, Vec::new())));
    publish(&mut shard, epoch, 1);
    assert!(appended(&mut shard).is_some());
}

// The node's pool has no place for a read: the subscription stays, and the read is made again a little later.
#[test]
fn a_read_without_a_place_is_made_again() {
    let (mut shard, epoch) = open();
    publish(&mut shard, epoch, 1);
    assert!(appended(&mut shard).is_some());
    let head = ChannelHead {
        channel: channel_id(&channel()),
        first: 1,
        head: 1,
        forgotten_epoch: 0,
        bytes: 1,
        newest_ms: 7,
        producers: Vec::new(),
        about: None,
    };
    let detail = "pulled".to_owned();
    shard.on_appended(NOW, Err(LogError::Storage { detail }));
    effects(&mut shard);
    // It is open again, and its memory of recent records is not what it serves from.
    let mut keys = ShardKeys::new(&[5; 32], ShardNo(1));
    keys.begin(1, &[(1, [1; 16])]);
    let about = About {
        channel: channel(),
        readers: Vec::new(),
        groups: Vec::new(),
    };
    let head = ChannelHead {
        about: Some(sealed_about(&mut keys, &head.channel, &about)),
        ..head
    };
    let salts = vec![(1, [1; 16]), (2, [2; 16])];
    let generation = 2;
    shard.on_opened(NOW, Ok((Opened { generation, salts }, vec![head])));
    assert_eq!(subscribe(&mut shard, 0), Ok(1));
    let read = |shard: &mut Shard<u64>| match &effects(shard)[..] {
        [Effect::Deliver(Delivered::Read { serial, .. })] => Some(*serial),
        [] => None,
        other => panic!("{other:?}"),
    };
    let serial = read(&mut shard).unwrap();
    shard.on_read(NOW, serial, Err(LogError::Busy));
    assert_eq!(read(&mut shard), None);
    let later = shard.next_deadline().unwrap();
    assert!(later > NOW);
    shard.on_tick((later, 7));
    assert_eq!(read(&mut shard), Some(serial));
    assert_eq!(shard.next_deadline(), None);
}

// A producer whose outcome was unknown comes back with a new epoch, which supersedes the old: what then still arrives under
// the old one is refused, and can not land behind what the new one publishes.
#[test]
fn a_superseded_epoch_can_not_land_late() {
    let (mut shard, old) = open();
    publish(&mut shard, old, 1);
    assert!(appended(&mut shard).is_some());
    let new = shard.open_producer(owner(), &channel(), Some(old)).unwrap();
    publish(&mut shard, old, 2);
    assert_eq!(refused(&mut shard), Some(Refusal::StaleEpoch));
    publish(&mut shard, new, 1);
    shard.on_appended(NOW, Ok(()));
    assert!(appended(&mut shard).is_some());
}

// A customer has as many channels as it may: one more is refused by type, its own go on, another customer is not touched.
#[test]
fn a_customer_has_a_quota_of_channels() {
    let limits = ShardLimits {
        customer_channels: 2,
        ..ShardLimits::default()
    };
    let mut shard: Shard<u64> =
        Shard::new(ShardNo(1), ShardKeys::new(&[5; 32], ShardNo(1)), limits);
    let salts = vec![(1, [1; 16])];
    let generation = 1;
    shard.on_opened(NOW, Ok((Opened { generation, salts }, Vec::new())));
    effects(&mut shard);
    let mut store = |customer: u8, name: &str| {
        let customer = NodeId::from_bytes([customer; 32]);
        let name = ChannelName::new(name).unwrap();
        let channel = Channel {
            owner: customer,
            name,
        };
        let epoch = shard.open_producer(customer, &channel, None).unwrap();
        let new = NewRecords {
            customer,
            channel: channel.clone(),
            epoch,
            first_seq: 1,
            payloads: vec![b"x".as_slice().into()],
            from: None,
        };
        shard.publish((NOW, 7), new, 1);
        let published = refused(&mut shard);
        shard.on_appended(NOW, Ok(()));
        shard.set_readers(NOW, &channel, Vec::new(), 2);
        let read = refused(&mut shard);
        shard.on_appended(NOW, Ok(()));
        (published, read)
    };
    for name in ["a", "b", "a"] {
        assert_eq!(store(1, name), (None, None), "{name}");
    }
    assert_eq!(store(1, "c"), (Some(Refusal::Quota), Some(Refusal::Quota)));
    assert_eq!(store(2, "c"), (None, None));
}
