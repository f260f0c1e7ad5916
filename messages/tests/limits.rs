//! What decoding refuses, each by name; random input; grants.

#![allow(clippy::unwrap_used, reason = "a test's helpers")]

use bytes::Bytes;
use pqcnet_crypto::{NodeId, NodeKeys};
use pqcnet_link::{Wire, WireError};
use pqcnet_messages::control::{Pong, StatusReport};
use pqcnet_messages::edge::{
    Attach, Consumed, Deliver, MAX_READERS, Publish, SetReaders, Subscribe, SubscriptionEnded,
};
use pqcnet_messages::relay::{OpenSession, RelayDeliver, RelayPublish, RelaySetReaders};
use pqcnet_messages::{
    Channel, ChannelName, GRANT_SKEW_MS, Grant, GrantError, MAX_BATCH_BYTES, MAX_BATCH_RECORDS,
    MAX_GRANT_LIFETIME_MS, MAX_PAYLOAD, Record, Refusal,
};
use pqcnet_protos::{common::v1 as common, control::v1 as control, edge::v1 as edge};
use proptest::collection::vec;
use proptest::prelude::*;
use prost::Message as _;

fn invalid(field: &'static str, problem: &'static str) -> WireError {
    WireError::Invalid { field, problem }
}

fn decode<W: Wire + std::fmt::Debug>(proto: &impl prost::Message) -> Result<String, WireError> {
    W::from_wire(proto.encode_to_vec().into()).map(|value| format!("{value:?}"))
}

fn channel() -> common::Channel {
    common::Channel {
        owner: Bytes::from_static(&[7; 32]),
        name: "a".into(),
    }
}

fn publish(payloads: Vec<Bytes>) -> edge::Publish {
    edge::Publish {
        channel: Some(channel()),
        epoch: 1,
        first_seq: 1,
        payloads,
    }
}

/// A publish at each limit is read, one beyond it is refused.
#[test]
fn batches() {
    let of = |n, size| publish(vec![Bytes::from(vec![0; size]); n]);
    let read = |publish: &edge::Publish| decode::<Publish>(publish).map(drop);
    assert_eq!(read(&of(MAX_BATCH_RECORDS, 1)), Ok(()));
    assert_eq!(read(&of(16, MAX_PAYLOAD)), Ok(()));
    assert_eq!(16 * MAX_PAYLOAD, MAX_BATCH_BYTES);
    let (field, limit) = ("payloads", MAX_BATCH_RECORDS);
    let too_many = WireError::TooMany { field, limit };
    assert_eq!(read(&of(MAX_BATCH_RECORDS + 1, 0)), Err(too_many));
    let error = invalid("payload", "larger than 64 KiB");
    assert_eq!(read(&of(1, MAX_PAYLOAD + 1)), Err(error));
    let error = invalid("batch", "larger than 1 MiB");
    assert_eq!(read(&of(17, MAX_PAYLOAD)), Err(error));
    assert_eq!(read(&of(0, 0)), Err(invalid("batch", "empty")));
    for first_seq in [0, u64::MAX] {
        let publish = edge::Publish {
            first_seq,
            ..of(1, 1)
        };
        assert_eq!(read(&publish), Err(invalid("first_seq", "out of range")));
    }
    let channel = None;
    let publish = edge::Publish {
        channel,
        ..of(1, 1)
    };
    assert_eq!(read(&publish), Err(invalid("channel", "missing")));
}

/// Names and ids that are none.
#[test]
fn channels() {
    let subscribe = |owner: &[u8], name: &str| {
        let owner = Bytes::copy_from_slice(owner);
        let name = name.to_owned();
        decode::<Subscribe>(&edge::Subscribe {
            channel: Some(common::Channel { owner, name }),
            ..Default::default()
        })
        .map(drop)
    };
    assert_eq!(subscribe(&[1; 32], "a"), Ok(()));
    assert_eq!(
        subscribe(&[1; 31], "a"),
        Err(invalid("channel owner", "wrong length"))
    );
    assert_eq!(
        subscribe(&[1; 32], ""),
        Err(invalid("channel name", "empty"))
    );
    assert_eq!(
        subscribe(&[1; 32], "A"),
        Err(invalid("channel name", "bad character"))
    );
    let long = "a".repeat(129);
    assert_eq!(
        subscribe(&[1; 32], &long),
        Err(invalid("channel name", "too long"))
    );
}

/// Deliveries skip nothing and do not start at 0.
#[test]
fn offsets() {
    let deliver = |offsets: &[u64]| {
        let record = |offset: &u64| common::Record {
            offset: *offset,
            ..Default::default()
        };
        let records = offsets.iter().map(record).collect();
        decode::<Deliver>(&edge::Deliver {
            subscription: 1,
            records,
        })
        .map(drop)
    };
    assert_eq!(deliver(&[4, 5, 6]), Ok(()));
    for wrong in [&[0][..], &[4, 4], &[4, 6], &[5, 4]] {
        assert_eq!(
            deliver(wrong),
            Err(invalid("offset", "not contiguous from 1"))
        );
    }
    assert_eq!(deliver(&[u64::MAX]), Err(invalid("offset", "overflow")));
    assert_eq!(deliver(&[]), Err(invalid("batch", "empty")));
}

/// Lists and numbers of the other messages.
#[test]
fn the_rest() {
    let readers = vec![Bytes::from_static(&[1; 32]); MAX_READERS + 1];
    let set = edge::SetReaders {
        channel: "a".into(),
        readers,
    };
    let (field, limit) = ("readers", MAX_READERS);
    assert_eq!(
        decode::<SetReaders>(&set),
        Err(WireError::TooMany { field, limit })
    );
    let set = edge::SetReaders {
        channel: "a".into(),
        readers: vec![Bytes::new()],
    };
    assert_eq!(
        decode::<SetReaders>(&set),
        Err(invalid("reader", "wrong length"))
    );
    let pong = control::Pong {
        role: 9,
        ..Default::default()
    };
    assert_eq!(decode::<Pong>(&pong), Err(invalid("role", "unknown")));
    let link = control::LinkStatus {
        peer: Bytes::from_static(&[1; 32]),
        role: 1,
        plane: 3,
    };
    let report = control::StatusReport {
        node_id: Bytes::from_static(&[1; 32]),
        role: 1,
        links: vec![link],
        ..Default::default()
    };
    assert_eq!(
        decode::<StatusReport>(&report),
        Err(invalid("plane", "unknown"))
    );
    let ended = edge::SubscriptionEnded::default();
    assert_eq!(
        decode::<SubscriptionEnded>(&ended),
        Err(invalid("refusal", "missing"))
    );
    assert_eq!(
        decode::<Attach>(&edge::Attach::default()),
        Err(invalid("grant", "missing"))
    );
    let cut = Bytes::from_static(&[0x0a, 5, 1]);
    assert_eq!(Attach::from_wire(cut).map(drop), Err(WireError::Malformed));
}

/// A grant's fields have fixed lengths.
#[test]
fn grant_lengths() {
    let good = common::Grant {
        customer: vec![1; 1984].into(),
        network_id: vec![1; 32].into(),
        sentry: vec![1; 32].into(),
        nonce: vec![1; 16].into(),
        signature: vec![1; 3309].into(),
        ..Default::default()
    };
    let open = |grant: common::Grant| {
        let grant = Some(grant);
        decode::<Attach>(&edge::Attach { grant }).map(drop)
    };
    assert_eq!(open(good.clone()), Ok(()));
    type Break = fn(&mut common::Grant);
    let breaks: [(&'static str, Break); 5] = [
        ("customer", |grant| grant.customer.truncate(1983)),
        ("network id", |grant| grant.network_id.truncate(31)),
        ("sentry", |grant| grant.sentry.truncate(31)),
        ("nonce", |grant| grant.nonce.truncate(15)),
        ("signature", |grant| grant.signature.truncate(3308)),
    ];
    for (field, change) in breaks {
        let mut grant = good.clone();
        change(&mut grant);
        assert_eq!(open(grant), Err(invalid(field, "wrong length")));
    }
}

/// A grant holds for its network, sentry and time, and only as it was signed.
#[test]
fn grants() {
    let keys = NodeKeys::generate();
    let (network, sentry) = ([1; 32], NodeId::from_bytes([2; 32]));
    let start = 1_000_000_000;
    let issue = |lifetime| Grant::issue(&keys, network, sentry, start, lifetime, [3; 16]);
    let grant = issue(1000);
    let verify = |grant: &Grant, wall_ms| grant.verify(&network, &sentry, wall_ms);
    assert_eq!(verify(&grant, start), Ok(keys.node_id()));
    assert_eq!(verify(&grant, start + 999), Ok(keys.node_id()));
    assert_eq!(verify(&grant, start + 1000), Err(GrantError::Expired));
    assert_eq!(verify(&grant, start - GRANT_SKEW_MS), Ok(keys.node_id()));
    let early = start - GRANT_SKEW_MS - 1;
    assert_eq!(verify(&grant, early), Err(GrantError::NotYetValid));
    let long = issue(MAX_GRANT_LIFETIME_MS + 1);
    assert_eq!(verify(&long, start), Err(GrantError::LifetimeTooLong));
    let other = [9; 32];
    assert_eq!(
        grant.verify(&other, &sentry, start),
        Err(GrantError::WrongNetwork)
    );
    let elsewhere = NodeId::from_bytes(other);
    assert_eq!(
        grant.verify(&network, &elsewhere, start),
        Err(GrantError::WrongSentry)
    );
    let mut changed = grant.clone();
    changed.lifetime_ms += 1;
    assert_eq!(verify(&changed, start), Err(GrantError::BadSignature));
    let mut changed = grant.clone();
    changed.customer = NodeKeys::generate().public().clone();
    assert_eq!(verify(&changed, start), Err(GrantError::BadSignature));
    // Over the wire it is the same grant.
    let back = OpenSession::from_wire(OpenSession { grant }.to_wire()).unwrap();
    assert_eq!(verify(&back.grant, start), Ok(keys.node_id()));
}

/// A long detail is cut at a character, a long report keeps its first entries.
#[test]
fn long_texts_are_cut() {
    let long = Refusal::Invalid("ü".repeat(300));
    assert_eq!(
        Refusal::from_wire(long.to_wire()),
        Ok(Refusal::Invalid("ü".repeat(128)))
    );
}

/// A decoded payload is a slice of the frame it came in.
#[test]
fn payloads_are_not_copied() {
    let bytes: Bytes = publish(vec![Bytes::from(vec![1; 1000]); 3])
        .encode_to_vec()
        .into();
    let inside = bytes.as_ptr_range();
    let publish = Publish::from_wire(bytes.clone()).unwrap();
    for payload in &publish.payloads {
        assert!(inside.contains(&payload.as_ptr()));
    }
}

fn channels_any() -> impl Strategy<Value = Channel> {
    ("[a-z0-9._/-]{1,128}", any::<[u8; 32]>()).prop_map(|(name, owner)| Channel {
        owner: NodeId::from_bytes(owner),
        name: ChannelName::new(&name).unwrap(),
    })
}

proptest! {
    /// What is published and delivered comes out as it went in.
    #[test]
    fn round_trips(
        channel in channels_any(),
        epoch: u64,
        first in 1u64..u64::MAX - 10,
        payloads in vec(vec(any::<u8>(), 0..300), 1..10),
        session: u64,
        subscription: u32,
    ) {
        let payloads: Vec<Bytes> = payloads.into_iter().map(Bytes::from).collect();
        let record = |(n, payload): (usize, &Bytes)| Record {
            offset: first + n as u64,
            published_at_ms: epoch,
            payload: payload.clone(),
        };
        let records: Vec<Record> = payloads.iter().enumerate().map(record).collect();
        let publish = RelayPublish { session, channel, epoch, first_seq: first, payloads };
        prop_assert_eq!(RelayPublish::from_wire(publish.to_wire()), Ok(publish));
        let deliver = RelayDeliver { subscription, records };
        prop_assert_eq!(RelayDeliver::from_wire(deliver.to_wire()), Ok(deliver));
    }

    /// Random bytes are read or refused, never a panic; what is read encodes to something that reads the same.
    #[test]
    fn random_bytes_never_panic(bytes in vec(any::<u8>(), 0..300)) {
        let bytes = Bytes::from(bytes);
        fn twice<W: Wire + std::fmt::Debug>(bytes: &Bytes) {
            if let Ok(value) = W::from_wire(bytes.clone()) {
                let again = W::from_wire(value.to_wire()).unwrap();
                assert_eq!(format!("{again:?}"), format!("{value:?}"));
            }
        }
        twice::<Attach>(&bytes);
        twice::<Publish>(&bytes);
        twice::<Subscribe>(&bytes);
        twice::<SetReaders>(&bytes);
        twice::<RelaySetReaders>(&bytes);
        twice::<Deliver>(&bytes);
        twice::<Consumed>(&bytes);
        twice::<SubscriptionEnded>(&bytes);
        twice::<Pong>(&bytes);
        twice::<StatusReport>(&bytes);
        twice::<Result<StatusReport, Refusal>>(&bytes);
    }
}
