//! Ids and bytes of every message, held against `pinned.txt`: a change there breaks every running node.

#![allow(clippy::unwrap_used, reason = "a test's helpers")]

use bytes::Bytes;
use pqcnet_crypto::{MlDsaSignature, NodeId, NodePublic, sha256};
use pqcnet_link::{Addressed, Wire};
use pqcnet_messages::control::{
    LinkStatus, PausedChannel, Ping, Plane, Pong, ShardStatus, ShardWork, Status, StatusReport,
};
use pqcnet_messages::edge::{
    Attach, Attached, Commit, Committed, Consumed, Countersign, DeadLetters, Deliver, FindOffset,
    Flow, JoinGroup, ListDeadLetters, Nack, OffsetFound, OpenProducer, ProducerOpened, Publish,
    Published, SetReaders, Subscribe, Subscribed, SubscriptionEnded, Unsubscribe,
};
use pqcnet_messages::moving::{
    ChannelFacts, FenceShard, Held, Mark, ReadShard, Run, ShardEntries, ShardHeld, ShardSurvey,
    Stretch, SurveyShard,
};
use pqcnet_messages::orders::{BackUp, BackUpState, Drain, DrainBegun};
use pqcnet_messages::relay::{
    CloseSession, OpenSession, RelayCommit, RelayConsumed, RelayCountersign, RelayDeliver,
    RelayFindOffset, RelayFlow, RelayJoinGroup, RelayListDeadLetters, RelayNack, RelayOpenProducer,
    RelayPublish, RelaySetReaders, RelaySubscribe, RelaySubscriptionEnded, RelayUnsubscribe,
    ReleaseShard, SessionOpened, ShardReleased,
};
use pqcnet_messages::{
    Channel, ChannelName, Countersigned, DeadLetter, Grant, GroupName, MemberId, Membership,
    PauseCause, Problem, Receipt, Record, Redirect, Refusal, Role, Series, Severity, ShardId,
    Statement,
};

fn node(byte: u8) -> NodeId {
    NodeId::from_bytes([byte; 32])
}

fn name() -> ChannelName {
    ChannelName::new("orders/eu").unwrap()
}

fn channel() -> Channel {
    let (owner, name) = (node(0xaa), name());
    Channel { owner, name }
}

fn grant() -> Grant {
    Grant {
        customer: NodePublic::from_bytes(&[0x11; NodePublic::LEN]).unwrap(),
        network_id: [0x22; 32],
        sentry: node(0x33),
        issued_at_ms: 1_700_000_000_000,
        lifetime_ms: 3_600_000,
        nonce: [0x44; 16],
        signature: MlDsaSignature::from_slice(&[0x55; 3309]).unwrap(),
    }
}

fn payloads() -> Vec<Bytes> {
    vec![Bytes::from_static(b"one"), Bytes::new()]
}

fn records() -> Vec<Record> {
    let record = |offset, payload| Record {
        offset,
        published_at_ms: 1_700_000_000_000,
        payload,
    };
    payloads()
        .into_iter()
        .zip(7..)
        .map(|(p, o)| record(o, p))
        .collect()
}

/// Fields 1,000 to 1,003 of a later version: a number, bytes, 32 and 64 bits.
const MORE: &[u8] = &[
    0xc0, 0x3e, 5, 0xca, 0x3e, 2, 1, 1, 0xd5, 0x3e, 1, 2, 3, 4, 0xd9, 0x3e, 1, 2, 3, 4, 5, 6, 7, 8,
];

/// A later version's message is read as this version knows it (docs/spec/link.md, section 12). Only what has no content at all stays so.
fn read_with_more<W: Wire + std::fmt::Debug>(value: &W) {
    if std::any::TypeId::of::<W>() == std::any::TypeId::of::<()>() {
        return;
    }
    let bytes = value.to_wire();
    let more = [&bytes[..], MORE, MORE].concat();
    let read = W::from_wire(more.into()).unwrap();
    assert_eq!(format!("{read:?}"), format!("{value:?}"));
    assert_eq!(read.to_wire(), bytes);
}

#[derive(Default)]
struct Table(String);

impl Table {
    fn message<M: Addressed + std::fmt::Debug>(&mut self, message: &M) {
        let name = std::any::type_name::<M>().rsplit("::").next().unwrap();
        let ids = format!("{} {:>2}", M::SERVICE.0, M::TYPE);
        self.row(&format!("{name} {ids}"), message);
    }

    fn reply<T: Wire + std::fmt::Debug>(&mut self, name: &str, reply: T) {
        read_with_more(&reply);
        let reply: Result<T, Refusal> = Ok(reply);
        self.row(name, &reply);
    }

    fn row<W: Wire + std::fmt::Debug>(&mut self, name: &str, value: &W) {
        let bytes = value.to_wire();
        let back = W::from_wire(bytes.clone()).unwrap();
        assert_eq!(format!("{back:?}"), format!("{value:?}"));
        assert_eq!(back.to_wire(), bytes);
        read_with_more(value);
        let shown = if bytes.is_empty() {
            "empty".to_owned()
        } else if bytes.len() < 400 {
            hex::encode(&bytes)
        } else {
            let hash = hex::encode(sha256(&[&bytes]));
            format!("{} bytes, sha256 {hash}", bytes.len())
        };
        self.0 += &format!("{name} {shown}\n");
    }
}

/// Every message and reply with every field set: service, type id, bytes.
#[test]
fn every_message() {
    let (session, subscription, epoch, first_seq) = (5, 9, 3, 300);
    let (after, window_bytes, offset) = (6, 1 << 20, 8);
    let readers = || vec![node(1), node(2)];
    let refusal = || Refusal::Gap { expected: 301 };
    let grant = grant();
    let mut table = Table::default();
    let signed = grant.canonical_bytes();
    let hash = hex::encode(sha256(&[&signed]));
    table.0 = format!(
        "Grant's-canonical-bytes {} bytes, sha256 {hash}\n",
        signed.len()
    );

    table.message(&Attach {
        grant: grant.clone(),
    });
    table.message(&OpenProducer {
        channel: channel(),
        supersedes: None,
    });
    table.message(&Publish {
        channel: channel(),
        epoch,
        first_seq,
        payloads: payloads(),
    });
    table.message(&SetReaders {
        channel: name(),
        readers: readers(),
    });
    table.message(&Subscribe {
        subscription,
        channel: channel(),
        after,
        window_bytes,
        series: Series::NONE,
    });
    table.message(&Consumed {
        subscription,
        offset,
    });
    table.message(&Unsubscribe { subscription });
    table.message(&Deliver {
        subscription,
        records: records(),
    });
    table.message(&SubscriptionEnded {
        subscription,
        refusal: refusal(),
    });
    table.reply("Attached", Attached { shards: 64 });
    table.reply("ProducerOpened", ProducerOpened { epoch });
    table.reply(
        "Published",
        Published {
            last_seq: 301,
            last_offset: 8,
        },
    );
    table.reply("SetReaders'", ());
    table.reply("Subscribed", Subscribed { head: 12 });
    table.message(&FindOffset {
        channel: channel(),
        at_ms: 1_700_000_000_000,
    });
    table.reply("OffsetFound", OffsetFound { after: 6, head: 12 });
    table.message(&Countersign {
        subscription,
        relayer: node(2),
        window: 14,
    });
    let signature = MlDsaSignature::from_slice(&[0x66; 3309]).unwrap();
    let statement = Statement {
        network_id: [0x22; 32],
        receiver: node(1),
        relayer: node(2),
        channel: channel(),
        series: Series([0x77; 16]),
        window: 14,
        after: 3,
        last: 7,
        frames: 4,
        bytes: 400,
        signed_at_ms: 1_700_000_000_000,
    };
    let receipt = Receipt {
        statement,
        signature,
    };
    table.reply("Countersigned", Countersigned { receipt });

    table.message(&OpenSession { grant });
    table.message(&CloseSession { session });
    table.message(&RelayOpenProducer {
        session,
        channel: channel(),
        supersedes: None,
    });
    table.message(&RelayPublish {
        session,
        channel: channel(),
        epoch,
        first_seq,
        payloads: payloads(),
    });
    table.message(&RelaySetReaders {
        session,
        channel: name(),
        readers: readers(),
    });
    table.message(&RelaySubscribe {
        session,
        subscription,
        channel: channel(),
        after,
        window_bytes,
        series: Series::NONE,
    });
    table.message(&RelayConsumed {
        session,
        subscription,
        offset,
    });
    table.message(&RelayUnsubscribe {
        session,
        subscription,
    });
    table.message(&RelayDeliver {
        subscription,
        records: records(),
    });
    table.message(&RelaySubscriptionEnded {
        subscription,
        refusal: refusal(),
    });
    table.reply("SessionOpened", SessionOpened { session });
    table.message(&RelayFindOffset {
        session,
        channel: channel(),
        at_ms: 1_700_000_000_000,
    });
    table.message(&RelayCountersign {
        subscription,
        window: 14,
    });

    table.message(&Ping { nonce: 77 });
    table.message(&Status {});
    let (role, software) = (Role::Relayer, "pqcnet/0.1".to_owned());
    let pong = Pong {
        nonce: 77,
        role,
        software: software.clone(),
        uptime_ms: 1234,
    };
    table.row("Pong", &pong);
    let link = LinkStatus {
        peer: node(4),
        role: Role::Sentry,
        plane: Plane::Data,
    };
    let shard = ShardStatus {
        id: 3,
        channels: 4,
        records: 5,
        bytes: 6,
        subscriptions: 7,
        lag_records: 8,
        unwritten_bytes: 9,
        work: None,
    };
    let report = StatusReport {
        node_id: node(6),
        role,
        software,
        uptime_ms: 1234,
        links: vec![
            link.clone(),
            LinkStatus {
                plane: Plane::Control,
                ..link
            },
        ],
        shards: vec![shard.clone()],
        counters: vec![("publishes".into(), 10)],
        problems: vec![Problem {
            code: "disk-low".into(),
            severity: Severity::Warning,
            what: "disk nearly full".into(),
            cause: "why".into(),
            fix: "make room".into(),
            about: Some(node(5)),
            explains: vec!["a".into(), "b".into()],
        }],
    };
    table.row("StatusReport", &report);
    let work = ShardWork {
        paused_channels: 10,
        paused: Some(PausedChannel {
            channel: channel(),
            cause: PauseCause::Memory,
        }),
        group_members: 11,
        dead_letters: 12,
    };
    let working = ShardStatus {
        id: 4,
        work: work.noted(),
        ..shard
    };
    let report = StatusReport {
        shards: vec![working],
        ..report
    };
    table.row("StatusReport", &report);
    table.message(&OpenProducer {
        channel: channel(),
        supersedes: Some(epoch),
    });
    table.message(&RelayOpenProducer {
        session,
        channel: channel(),
        supersedes: Some(epoch),
    });
    table.message(&Drain {});
    table.reply("DrainBegun", DrainBegun { within_ms: 30_000 });
    table.message(&BackUp {
        name: "daily-1".to_owned(),
    });
    table.reply("BackUpState", BackUpState::UnderWay);
    let (path, files, bytes) = ("/b/daily-1".to_owned(), 9, 1 << 20);
    table.reply("BackUpState", BackUpState::Done { path, files, bytes });
    let detail = "why".to_owned();
    table.reply("BackUpState", BackUpState::Failed { detail });

    table.message(&ReleaseShard {
        shard: ShardId(9),
        map_version: 5,
        copied: None,
    });
    table.reply("ShardReleased", ShardReleased { moves: 2 });
    moving(&mut table);
    groups(&mut table);
    for refusal in refusals() {
        table.row(&format!("{refusal:?}").replace(' ', ""), &refusal);
    }
    let pinned = include_str!("pinned.txt");
    assert_eq!(table.0, pinned, "the table is now:\n{}", table.0);
}

/// What two relayers say of a shard with records.
fn moving(table: &mut Table) {
    let (shard, map_version) = (ShardId(9), 5);
    table.message(&ReleaseShard {
        shard,
        map_version,
        copied: Some([4; 32]),
    });
    let after = Some([7; 32]);
    table.message(&SurveyShard {
        shard,
        map_version,
        after,
    });
    let facts = ChannelFacts {
        channel: channel(),
        readers: vec![NodeId::from_bytes([3; 32])],
        head: 4,
        bytes: 500,
        newest_ms: 9,
        forgotten_epoch: 1,
        marks: vec![Mark {
            epoch: 2,
            sequence: 3,
            offset: 4,
        }],
        groups: Bytes::new(),
    };
    let survey = |facts| ShardSurvey {
        generation: 6,
        channels: vec![facts],
        more: true,
    };
    table.reply("ShardSurvey", survey(facts.clone()));
    let groups = Bytes::from_static(b"groups");
    table.reply("ShardSurvey", survey(ChannelFacts { groups, ..facts }));
    let stretch = Stretch {
        channel: [7; 32],
        after: 1,
        up_to: 4,
    };
    table.message(&ReadShard {
        shard,
        map_version,
        stretches: vec![stretch],
        letters: false,
    });
    let run = Run {
        first: 2,
        texts: vec![Bytes::from_static(b"12345678a")],
    };
    let entries = ShardEntries {
        runs: vec![run],
        digest: [8; 32],
    };
    table.reply("ShardEntries", entries);
    table.message(&FenceShard { shard, map_version });
    table.message(&ShardHeld { shard, moves: 2 });
    table.reply("Held", Held(true));
}

/// Pauses of producers, and what members of consumer groups say.
fn groups(table: &mut Table) {
    let (session, subscription, offset, after) = (5, 9, 8, 6);
    let (window_bytes, series) = (1 << 20, Series([0x77; 16]));
    let group = GroupName::new("billing").unwrap();
    let membership = || Membership {
        group: group.clone(),
        member: MemberId([0x88; 16]),
    };
    for paused in [None, Some(PauseCause::Lag), Some(PauseCause::Mailbox)] {
        let channel = channel();
        table.message(&Flow { channel, paused });
    }
    let (paused, at) = (Some(PauseCause::Other(99)), channel());
    table.message(&RelayFlow {
        session,
        channel: at,
        paused,
    });
    table.message(&JoinGroup {
        subscription,
        channel: channel(),
        after,
        window_bytes,
        series,
        membership: membership(),
    });
    table.message(&RelayJoinGroup {
        session,
        subscription,
        channel: channel(),
        after,
        window_bytes,
        series,
        membership: membership(),
    });
    table.message(&Commit {
        subscription,
        offset,
    });
    table.message(&Nack {
        subscription,
        offset,
    });
    table.message(&RelayCommit {
        session,
        subscription,
        offset,
    });
    table.message(&RelayNack {
        session,
        subscription,
        offset,
    });
    table.reply("Committed", Committed { offset });
    let discard = 7;
    table.message(&ListDeadLetters {
        channel: channel(),
        group: group.clone(),
        discard,
        remove: false,
    });
    table.message(&RelayListDeadLetters {
        session,
        channel: channel(),
        group,
        discard,
        remove: false,
    });
    let letter = |offset, refused| DeadLetter {
        offset,
        at_ms: 1_700_000_000_000,
        attempts: 3,
        refused,
    };
    let letters = vec![letter(8, true), letter(11, false)];
    let committed = 12;
    let dead = DeadLetters {
        committed,
        letters,
        kept: Vec::new(),
        removed: false,
    };
    table.reply("DeadLetters", dead);
}

fn refusals() -> Vec<Refusal> {
    vec![
        Refusal::Unavailable,
        Refusal::Busy,
        Refusal::NotOwner(None),
        Refusal::NotOwner(Some(Redirect {
            owner: NodeId::from_bytes([3; 32]),
            map_version: 5,
        })),
        Refusal::UnknownProducer,
        Refusal::Gap { expected: 9 },
        Refusal::StaleEpoch,
        Refusal::TooLarge,
        Refusal::NotAllowed,
        Refusal::UnknownChannel,
        Refusal::BadGrant,
        Refusal::Storage,
        Refusal::Draining,
        Refusal::Invalid("why".into()),
        Refusal::UnknownSession,
        Refusal::NoRoom,
        Refusal::Quota,
        Refusal::HoldsRecords,
        Refusal::FrontGone { first: 41 },
        Refusal::Unrecognised(99),
        Refusal::Reassigned,
    ]
}

/// What may be tried again is pinned too: clients build their retries on it.
#[test]
fn retryable_refusals() {
    let retryable: Vec<Refusal> = refusals()
        .into_iter()
        .filter(Refusal::is_retryable)
        .collect();
    let expected = [
        Refusal::Unavailable,
        Refusal::Busy,
        Refusal::NotOwner(None),
        Refusal::NotOwner(Some(Redirect {
            owner: NodeId::from_bytes([3; 32]),
            map_version: 5,
        })),
        Refusal::Storage,
        Refusal::Draining,
        Refusal::UnknownSession,
        Refusal::NoRoom,
    ];
    assert_eq!(retryable, expected);
}

/// A backup's name is a name: nothing that leads out of the node's folder, nothing empty, nothing long.
#[test]
fn names_of_backups() {
    let read = |name: &str| {
        let name = name.to_owned();
        BackUp::from_wire(BackUp { name }.to_wire()).is_ok()
    };
    assert!(read("daily-2026-11-21") && read(&"x".repeat(64)));
    for bad in [
        "",
        ".",
        "..",
        "../x",
        "a/b",
        "A",
        "a b",
        "\0",
        &"x".repeat(65),
    ] {
        assert!(!read(bad), "{bad:?}");
    }
}
