//! Frames of link version 2, made of the fuzzer's bytes instead of found among them: random bytes are hardly ever a whole
//! frame, and a frame that concerns a subscription, watch or stream that stands is rarer still. Four bytes choose a kind
//! and its fields, small enough to meet what is open at the link under test.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use pqcnet_link::{
    AckState, Class, Event, Fate, Link, LinkConfig, Missed, Notice, Position, Role, ServiceId,
    StreamNotice,
};
use pqcnet_protos::link::v1::{self as pb, event, frame::Kind};
use prost::Message as _;

use crate::Target;

const T0: Duration = Duration::from_secs(1);
/// More frames than this in one input tell nothing new.
const MAX_FRAMES: usize = 512;

/// A link of version 2 that follows two streams of events, watches two receivers and waits for two answers.
pub const STREAMS: Target = Target {
    name: "link_streams",
    body: |data| {
        let frames: Vec<Vec<u8>> = kinds(data).into_iter().map(bytes).collect();
        let whole = run(&[frames.concat()], false);
        let one_by_one = run(&frames, false);
        assert_eq!(whole, one_by_one, "pieces lead to something else");
        run(&frames, true);
    },
    seeds: || {
        // Each kind with fields of small, middle and large value; then the ordinary course of each conversation.
        let each =
            (0..16u8).flat_map(|kind| [0, 1, 2, 255].map(|value| vec![kind, value, value, value]));
        let talks: [&[[u8; 4]]; 5] = [
            &[
                [1, 1, 1, 1],
                [2, 1, 1, 4],
                [3, 1, 1, 2],
                [2, 1, 3, 4],
                [4, 1, 0, 0],
            ],
            &[[1, 2, 2, 1], [3, 2, 1, 4], [2, 2, 1, 9], [2, 2, 2, 9]],
            &[[0, 1, 0, 0], [5, 1, 3, 0], [6, 1, 0, 0]],
            &[[7, 1, 0, 0], [9, 1, 1, 7], [9, 1, 2, 7], [8, 1, 0, 0]],
            &[[10, 1, 0, 0], [10, 1, 1, 3], [11, 1, 1, 1], [12, 0, 1, 3]],
        ];
        let talks = talks.into_iter().map(|talk| talk.concat());
        each.chain(talks).collect()
    },
};

fn bytes(kind: Kind) -> Vec<u8> {
    let body = pb::Frame { kind: Some(kind) }.encode_to_vec();
    let mut frame = (body.len() as u32).to_be_bytes().to_vec();
    frame.extend(body);
    frame
}

/// A small number, or one at the end of its range.
fn number(byte: u8) -> u64 {
    match byte {
        0xf8.. => u64::MAX - u64::from(0xff - byte),
        small => u64::from(small % 16),
    }
}

fn kinds(data: &[u8]) -> Vec<Kind> {
    let quads = data.as_chunks::<4>().0;
    let kinds = quads.iter().take(MAX_FRAMES);
    kinds.map(|&[kind, a, b, c]| of(kind, a, b, c)).collect()
}

fn of(kind: u8, a: u8, b: u8, c: u8) -> Kind {
    let services = [
        ServiceId::RELAY.0,
        ServiceId::CONTROL.0,
        ServiceId::EDGE.0,
        4711,
    ];
    let service = services[usize::from(c % 4)];
    let r#type = u32::from(b % 4);
    let windows = [68, 0, 1, 67, 136, 4_096, 4_097, u32::MAX];
    let units = windows[usize::from(b % 8)];
    let class = i32::from(c % 5);
    let payload = Bytes::from(vec![c; usize::from(c) * usize::from(b % 3)]);
    let (id, next) = (number(a), number(b));
    let epoch = u64::from(c % 4);
    match kind % 16 {
        0 => Kind::Subscribe(pb::Subscribe {
            id,
            service,
            r#type,
            epoch,
            after: next,
            window: windows[usize::from(a % 8)],
        }),
        1 => told(id, event::Kind::Begun(pb::Begun { epoch, next })),
        2 => told(
            id,
            event::Kind::Item(pb::Item {
                number: next,
                payload,
            }),
        ),
        3 => {
            let last = number(c);
            let epoch = u64::from(a / 4 % 4);
            told(
                id,
                event::Kind::Gap(pb::Gap {
                    epoch,
                    first: next,
                    last,
                }),
            )
        }
        4 => {
            let detail = "x".repeat(usize::from(c));
            let why = i32::from(b % 9);
            told(id, event::Kind::Ended(pb::Ended { why, detail }))
        }
        5 => Kind::Consumed(pb::Consumed {
            subscription: id,
            units,
        }),
        6 => Kind::Unsubscribe(pb::Unsubscribe { subscription: id }),
        7 => Kind::Watch(pb::Watch {
            id,
            service,
            r#type,
        }),
        8 => Kind::Unwatch(pb::Unwatch { id }),
        9 => Kind::Fate(pb::Fate {
            id,
            kind: i32::from(b % 7),
            incarnation: number(c),
        }),
        10 => Kind::Sequenced(pb::Sequenced {
            stream: id,
            number: next,
            service,
            r#type,
            class,
            trace: None,
            payload,
            life: u64::from(b % 3),
        }),
        11 => Kind::Ack(pb::Ack {
            stream: id,
            state: i32::from(c % 6),
            number: next,
            detail: String::new(),
            life: u64::from(b % 3),
        }),
        12 => Kind::Dropped(pb::Dropped {
            service,
            r#type,
            why: i32::from(a % 5),
        }),
        13 => Kind::Tell(pb::Tell {
            service,
            r#type,
            class,
            trace: None,
            payload,
            incarnation: next,
        }),
        14 => Kind::Ask(pb::Ask {
            id,
            service,
            r#type,
            class,
            remaining_ms: u32::from(b),
            trace: None,
            payload,
            incarnation: next,
        }),
        _ => Kind::Reply(pb::Reply {
            id,
            status: i32::from(b % 14),
            detail: String::new(),
            payload,
            incarnation: number(c),
        }),
    }
}

fn told(subscription: u64, kind: event::Kind) -> Kind {
    Kind::Event(pb::Event {
        subscription,
        kind: Some(kind),
    })
}

fn said(link: &mut Link) -> Vec<u8> {
    let mut out = Vec::new();
    while let Some(bytes) = link.poll_transmit(T0, 64 * 1024) {
        out.extend_from_slice(&bytes);
    }
    out
}

/// The link under test, open, its own requests sent.
fn link() -> Link {
    let services = [ServiceId::CONTROL, ServiceId::RELAY];
    let new = |role| Link::new(LinkConfig::new(role, services), T0);
    let (mut ours, mut theirs) = (new(Role::Sentry), new(Role::Relayer));
    for _ in 0..3 {
        let (a, b) = (said(&mut ours), said(&mut theirs));
        ours.on_bytes(T0, &b);
        theirs.on_bytes(T0, &a);
        for link in [&mut ours, &mut theirs] {
            while let Some(event) = link.poll_event() {
                if matches!(event, Event::Hello(_)) {
                    link.accept();
                }
            }
        }
    }
    assert!(ours.is_open());
    ours.open_window(ServiceId::RELAY, Class::Request, 68);
    let wait = Duration::from_secs(9);
    for after in [None, Some(HAD)] {
        ours.subscribe(ServiceId::RELAY, 1, after, 68)
            .expect("a subscription");
        ours.watch(ServiceId::RELAY, 1).expect("a watch");
        let (service, class) = (ServiceId::RELAY, Class::Request);
        ours.send_ask(T0, service, 1, class, None, wait, Bytes::new())
            .expect("an ask");
    }
    said(&mut ours);
    ours
}

/// The last event that the second subscription had.
const HAD: Position = Position {
    epoch: 1,
    number: 3,
};

/// What the link makes of these bytes. `answers`: somebody answers what is asked of it, and nobody reads that.
fn run(pieces: &[Vec<u8>], answers: bool) -> String {
    let mut link = link();
    let mut seen = Vec::new();
    let mut places = BTreeMap::new();
    for piece in pieces {
        link.on_bytes(T0, piece);
        while let Some(event) = link.poll_event() {
            assert!(!matches!(seen.last(), Some(Event::Down(_))), "{event:?}");
            if let Event::Notice { id, notice } = &event {
                in_order(&mut places, *id, notice);
            }
            if answers {
                answer(&mut link, &event);
            }
            seen.push(event);
        }
        // One window of answers, 256 KiB of what costs the peer nothing, and a last frame.
        assert!(link.outbound() <= 5 * 1024 * 1024, "{}", link.outbound());
        if link.is_down() {
            break;
        }
    }
    format!("{seen:?} {:?}", link.stage())
}

/// What comes of a subscription leaves out no number, and nothing comes after its end.
fn in_order(places: &mut BTreeMap<u64, Option<Position>>, id: u64, notice: &StreamNotice) {
    assert!(
        (1..=2).contains(&id),
        "of a subscription that was never made"
    );
    let had = (id == 2).then_some(HAD);
    match notice {
        StreamNotice::Begun { epoch, next } => {
            let place = Position {
                epoch: *epoch,
                number: *next,
            };
            assert!(!places.contains_key(&id), "begun twice");
            places.insert(id, Some(place));
            if let Some(had) = had.filter(|had| had.epoch == *epoch) {
                assert_eq!(*next, had.number + 1);
            }
        }
        StreamNotice::Notice { notice, .. } => {
            let place = places.get_mut(&id).and_then(Option::as_mut);
            let place = place.expect("begun, and not ended");
            match notice {
                Notice::Item { position, .. } => {
                    assert_eq!(position, place);
                    place.number = place.number.saturating_add(1);
                }
                Notice::Missed(Missed { epoch, first, last }) => match last {
                    Some(last) => {
                        assert_eq!((*epoch, *first), (place.epoch, place.number));
                        place.number = last.saturating_add(1);
                    }
                    None => assert_eq!(
                        Some((*epoch, first - 1)),
                        had.map(|had| (had.epoch, had.number))
                    ),
                },
            }
        }
        StreamNotice::Ended { .. } => {
            assert_ne!(places.insert(id, None), Some(None), "ended twice");
        }
    }
}

fn answer(link: &mut Link, event: &Event) {
    match event {
        Event::Subscribe { id, .. } => {
            link.begin_subscription(*id, 7, 1);
            let item = Notice::Item {
                position: Position {
                    epoch: 7,
                    number: 1,
                },
                payload: Bytes::from_static(b"one"),
            };
            // Without a window it waits, which here means that it is dropped.
            link.send_notice(*id, &item).unwrap_or_default();
        }
        Event::Watch { id, .. } => {
            link.send_fate(*id, Fate::Present(5));
            link.send_fate(*id, Fate::Stopped(5));
        }
        Event::Ask { id, .. } => link.send_reply(*id, pqcnet_link::Answer::Stale { present: 5 }),
        Event::Tell(message) => link.grant(message.service, message.class, message.units),
        Event::Sequenced {
            stream,
            number,
            message,
            ..
        } => {
            link.send_ack(*stream, AckState::Taken, *number, 3);
            link.grant(message.service, message.class, message.units);
        }
        Event::Notice { id, .. } => link.consumed(*id, 1),
        _ => {}
    }
}
