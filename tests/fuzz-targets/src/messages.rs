//! Messages of every service, grants, adverts, directives.

mod samples;

use bytes::Bytes;
use pqcnet_link::Wire;
use pqcnet_messages::control::*;
use pqcnet_messages::edge::*;
use pqcnet_messages::moving::*;
use pqcnet_messages::orders::*;
use pqcnet_messages::relay::*;
use pqcnet_messages::*;

use samples::{
    advert, channel, countersigned, directives, grant, membership, name, node, payloads, records,
    survey,
};

use crate::{Target, choose};

/// One message or reply: its name and what reads it.
pub struct Decoder {
    /// As in the code.
    pub name: &'static str,
    /// Reads it; whether it was one.
    pub reads: fn(Bytes) -> bool,
    /// Reads it, writes it, reads it again.
    settles: fn(Bytes),
}

fn reads<T: Wire>(bytes: Bytes) -> bool {
    T::from_wire(bytes).is_ok()
}

/// What was read is written in one form, which reads as the same.
fn settles<T: Wire>(bytes: Bytes) {
    if let Ok(value) = T::from_wire(bytes) {
        let written = value.to_wire();
        match T::from_wire(written.clone()) {
            Ok(again) => assert_eq!(again.to_wire(), written),
            Err(error) => panic!("what this side writes, it refuses: {error}"),
        }
    }
}

macro_rules! decoders {
    ($($list:ident: [$($ty:ty),* $(,)?])*) => {
        $(const $list: &[Decoder] = &[$(Decoder {
            name: stringify!($ty),
            reads: reads::<$ty>,
            settles: settles::<$ty>,
        }),*];)*

        /// Every message and reply that a peer can send.
        pub const DECODERS: &[&[Decoder]] = &[$($list),*];
    };
}

decoders! {
    EDGE_MESSAGES: [
        Attach, OpenProducer, Publish, SetReaders, Subscribe, Consumed, Unsubscribe, Deliver, SubscriptionEnded,
        Result<Attached, Refusal>, Result<ProducerOpened, Refusal>, Result<Published, Refusal>,
        Result<Subscribed, Refusal>, Result<(), Refusal>,
        FindOffset, Result<OffsetFound, Refusal>, Countersign, Result<Countersigned, Refusal>,
        Flow, JoinGroup, Commit, Result<Committed, Refusal>, Nack, ListDeadLetters, Result<DeadLetters, Refusal>,
    ]
    RELAY_MESSAGES: [
        OpenSession, CloseSession, RelayOpenProducer, RelayPublish, RelaySetReaders, RelaySubscribe, RelayConsumed,
        RelayUnsubscribe, RelayDeliver, RelaySubscriptionEnded, Result<SessionOpened, Refusal>,
        ReleaseShard, Result<ShardReleased, Refusal>, SurveyShard, Result<ShardSurvey, Refusal>, ReadShard,
        Result<ShardEntries, Refusal>, FenceShard, ShardHeld, Result<Held, Refusal>, RelayFindOffset,
        RelayCountersign, RelayFlow, RelayJoinGroup, RelayCommit, RelayNack, RelayListDeadLetters,
    ]
    CONTROL_MESSAGES: [
        Ping, Pong, Status, StatusReport, SubmitDirective, Submitted, Result<Submitted, Refusal>, PullDirectives,
        PullAdverts, PulledDirectives, PulledAdverts, SignedAdvert, SignedDirective, Refusal,
        Drain, Result<DrainBegun, Refusal>, BackUp, Result<BackUpState, Refusal>,
    ]
}

fn of(list: &[Decoder], data: &[u8]) {
    if let Some((which, rest)) = choose(data) {
        (list[which % list.len()].settles)(Bytes::copy_from_slice(rest));
    }
}

fn place<T: Wire>(list: &[Decoder], value: &T) -> Vec<u8> {
    let name = std::any::type_name::<T>().replace("alloc::vec::", "");
    let short = |name: &str| -> String {
        name.split(|c: char| !(c.is_alphanumeric() || c == '_' || c == ':'))
            .filter_map(|part| part.rsplit("::").next())
            .filter(|part| !part.is_empty())
            .collect::<Vec<_>>()
            .join(" ")
    };
    let at = list
        .iter()
        .position(|decoder| short(decoder.name) == short(&name));
    let at = at.unwrap_or_else(|| panic!("{name} is not listed"));
    let mut seed = vec![u8::try_from(at).unwrap_or(u8::MAX)];
    seed.extend_from_slice(&value.to_wire());
    seed
}

/// Messages of the client's edge.
pub const EDGE: Target = Target {
    name: "edge",
    body: |data| of(EDGE_MESSAGES, data),
    seeds: || {
        let list = EDGE_MESSAGES;
        let (subscription, window_bytes) = (9, 1 << 20);
        let refusal = Refusal::Gap { expected: 301 };
        vec![
            place(list, &Attach { grant: grant() }),
            place(
                list,
                &OpenProducer {
                    channel: channel(),
                    supersedes: Some(7),
                },
            ),
            place(
                list,
                &Publish {
                    channel: channel(),
                    epoch: 3,
                    first_seq: 300,
                    payloads: payloads(),
                },
            ),
            place(
                list,
                &SetReaders {
                    channel: name(),
                    readers: vec![node(1), node(2)],
                },
            ),
            place(
                list,
                &Subscribe {
                    subscription,
                    channel: channel(),
                    after: 6,
                    window_bytes,
                    series: Series([8; 16]),
                },
            ),
            place(
                list,
                &Consumed {
                    subscription,
                    offset: 8,
                },
            ),
            place(list, &Unsubscribe { subscription }),
            place(
                list,
                &Deliver {
                    subscription,
                    records: records(),
                },
            ),
            place(
                list,
                &SubscriptionEnded {
                    subscription,
                    refusal: refusal.clone(),
                },
            ),
            place(list, &Err::<(), Refusal>(refusal)),
            place(
                list,
                &Ok::<Published, Refusal>(Published {
                    last_seq: 301,
                    last_offset: 8,
                }),
            ),
            place(
                list,
                &Countersign {
                    subscription,
                    relayer: node(2),
                    window: 12,
                },
            ),
            place(list, &Ok::<Countersigned, Refusal>(countersigned())),
            place(
                list,
                &Flow {
                    channel: channel(),
                    paused: Some(PauseCause::Lag),
                },
            ),
            place(
                list,
                &JoinGroup {
                    subscription,
                    channel: channel(),
                    after: 6,
                    window_bytes,
                    series: Series([8; 16]),
                    membership: membership(),
                },
            ),
            place(
                list,
                &ListDeadLetters {
                    channel: channel(),
                    group: membership().group,
                    discard: 3,
                    remove: false,
                },
            ),
            place(
                list,
                &Ok::<DeadLetters, Refusal>(DeadLetters {
                    committed: 9,
                    letters: vec![DeadLetter {
                        offset: 8,
                        at_ms: 7,
                        attempts: 5,
                        refused: true,
                    }],
                    kept: Vec::new(),
                    removed: false,
                }),
            ),
        ]
    },
};

/// Messages between a sentry and a relayer.
pub const RELAY: Target = Target {
    name: "relay",
    body: |data| of(RELAY_MESSAGES, data),
    seeds: || {
        let list = RELAY_MESSAGES;
        let (session, subscription) = (5, 9);
        vec![
            place(list, &OpenSession { grant: grant() }),
            place(list, &CloseSession { session }),
            place(
                list,
                &RelayOpenProducer {
                    session,
                    channel: channel(),
                    supersedes: Some(7),
                },
            ),
            place(
                list,
                &RelayPublish {
                    session,
                    channel: channel(),
                    epoch: 3,
                    first_seq: 300,
                    payloads: payloads(),
                },
            ),
            place(
                list,
                &RelaySetReaders {
                    session,
                    channel: name(),
                    readers: vec![node(1)],
                },
            ),
            place(
                list,
                &RelaySubscribe {
                    session,
                    subscription,
                    channel: channel(),
                    after: 6,
                    window_bytes: 1 << 20,
                    series: Series([8; 16]),
                },
            ),
            place(
                list,
                &RelayDeliver {
                    subscription,
                    records: records(),
                },
            ),
            place(
                list,
                &RelaySubscriptionEnded {
                    subscription,
                    refusal: Refusal::Storage,
                },
            ),
            place(
                list,
                &ReleaseShard {
                    shard: ShardId(3),
                    map_version: 4,
                    copied: Some([5; 32]),
                },
            ),
            place(
                list,
                &Ok::<ShardReleased, Refusal>(ShardReleased { moves: 1 }),
            ),
            place(
                list,
                &SurveyShard {
                    shard: ShardId(3),
                    map_version: 4,
                    after: Some([7; 32]),
                },
            ),
            place(list, &Ok::<ShardSurvey, Refusal>(survey())),
            place(
                list,
                &ReadShard {
                    shard: ShardId(3),
                    map_version: 4,
                    stretches: vec![Stretch {
                        channel: [7; 32],
                        after: 2,
                        up_to: 4,
                    }],
                    letters: false,
                },
            ),
            place(
                list,
                &Ok::<ShardEntries, Refusal>(ShardEntries {
                    runs: vec![Run {
                        first: 3,
                        texts: vec![Bytes::from_static(b"12345678text"); 2],
                    }],
                    digest: [9; 32],
                }),
            ),
            place(
                list,
                &FenceShard {
                    shard: ShardId(3),
                    map_version: 4,
                },
            ),
            place(
                list,
                &ShardHeld {
                    shard: ShardId(3),
                    moves: 1,
                },
            ),
            place(list, &Ok::<Held, Refusal>(Held(true))),
            place(
                list,
                &Err::<ShardReleased, Refusal>(Refusal::NotOwner(Some(Redirect {
                    owner: node(2),
                    map_version: 4,
                }))),
            ),
            place(
                list,
                &RelayCountersign {
                    subscription,
                    window: 12,
                },
            ),
        ]
    },
};

/// Messages between any two nodes, and what gossip carries.
pub const CONTROL: Target = Target {
    name: "control",
    body: |data| of(CONTROL_MESSAGES, data),
    seeds: || {
        let list = CONTROL_MESSAGES;
        let directive = directives().swap_remove(0);
        vec![
            place(list, &Ping { nonce: 7 }),
            place(
                list,
                &Pong {
                    nonce: 7,
                    role: Role::Relayer,
                    software: "pqcnet/0.1.0".to_owned(),
                    uptime_ms: 12,
                },
            ),
            place(list, &Status {}),
            place(
                list,
                &SubmitDirective {
                    directive: directive.clone(),
                },
            ),
            place(list, &directive),
            place(list, &advert()),
            place(
                list,
                &PullDirectives {
                    have: vec![[1; 8], [2; 8]],
                },
            ),
            place(
                list,
                &PullAdverts {
                    have: vec![[1; 8]],
                    mine: Some(advert()),
                },
            ),
            place(list, &Refusal::Invalid("why".to_owned())),
            place(list, &Drain {}),
            place(
                list,
                &BackUp {
                    name: "daily-1".to_owned(),
                },
            ),
        ]
    },
};

/// Grants: read, and checked against a network and a sentry.
pub const GRANT: Target = Target {
    name: "grant",
    body: |data| {
        if let Ok(Attach { grant }) = Attach::from_wire(Bytes::copy_from_slice(data)) {
            // Everything but the signature decides first, so the expensive check is reached by an honest one alone.
            let outcome = grant.verify(&[7; 32], &node(1), 1_700_000_000_001);
            let before = grant.canonical_bytes();
            assert!(
                outcome.is_err() || before.len() == 2_094,
                "{}",
                before.len()
            );
        }
    },
    seeds: || vec![Attach { grant: grant() }.to_wire().to_vec()],
};

/// Adverts in their canonical bytes, which have one form each.
pub const ADVERT: Target = Target {
    name: "advert",
    body: |data| {
        if let Ok(advert) = Advert::from_canonical(data) {
            assert_eq!(advert.canonical_bytes(), data);
        }
    },
    seeds: || vec![advert().advert.canonical_bytes()],
};

/// Directives in their canonical bytes, which have one form each.
pub const DIRECTIVE: Target = Target {
    name: "directive",
    body: |data| {
        if let Ok(directive) = Directive::from_canonical(data) {
            assert_eq!(directive.canonical_bytes(), data);
            let _subject = directive.subject();
            assert!(!directive.to_string().is_empty());
        }
    },
    seeds: || {
        let bytes = |signed: SignedDirective| signed.directive.canonical_bytes();
        directives().into_iter().map(bytes).collect()
    },
};
