//! The bytes of every frame, pinned: a change here breaks every running node.

use std::time::Duration;

use bytes::BytesMut;
use pqcnet_protos::link::v1::{self as pb, frame::Kind};

use super::*;
use crate::{Trace, frame};

fn pin(kind: Kind, expected: &str) {
    let mut out = BytesMut::new();
    let frame = frame::of(kind);
    let len = frame::len(&frame);
    frame::put(&mut out, &frame, len);
    assert_eq!(
        hex::encode(&out),
        expected,
        "{}",
        frame::name(frame.kind.as_ref().unwrap())
    );
    let mut decoder = frame::Decoder::default();
    decoder.feed(&out);
    assert_eq!(decoder.next(10_000), Ok(frame.kind));
}

#[test]
fn frames() {
    pin(
        frame::hello(&config(Role::Sentry)),
        "0000001e0a1c0801100218012206746573742f312a0202033080804438800240904e",
    );
    pin(Kind::Ready(pb::Ready {}), "000000021200");
    let trace = frame::trace_to_proto(Some(Trace {
        trace_id: 1 << 64 | 2,
        span_id: 3,
        sampled: true,
    }));
    let payload = Bytes::from_static(b"pay");
    let (service, class) = (2, 2);
    let tell = pb::Tell {
        service,
        r#type: 4,
        class,
        trace,
        payload: payload.clone(),
        incarnation: 0,
    };
    pin(
        Kind::Tell(tell),
        "0000002c1a2a080210041802221d09010000000000000011020000000000000019030000000000000020012a03706179",
    );
    let ask = pb::Ask {
        id: 300,
        service,
        r#type: 4,
        class,
        remaining_ms: 1500,
        trace: None,
        payload: payload.clone(),
        incarnation: 0,
    };
    pin(
        Kind::Ask(ask),
        "00000013221108ac0210021804200228dc0b3a03706179",
    );
    let reply = pb::Reply {
        id: 300,
        status: 1,
        detail: String::new(),
        payload,
        incarnation: 0,
    };
    pin(Kind::Reply(reply), "0000000c2a0a08ac0210012203706179");
    let (status, detail) = (7, "no".to_owned());
    pin(
        Kind::Reply(pb::Reply {
            id: 1,
            status,
            detail,
            payload: Bytes::new(),
            incarnation: 0,
        }),
        "0000000a2a08080110071a026e6f",
    );
    pin(Kind::Cancel(pb::Cancel { id: 300 }), "00000005320308ac02");
    pin(
        Kind::Credit(pb::Credit {
            service,
            class,
            units: 256,
        }),
        "000000093a0708021002188002",
    );
    pin(Kind::Ping(pb::Ping {}), "000000024200");
    let (stage, reason, detail) = (2, 1, "bye".to_owned());
    pin(
        Kind::Down(pb::Down {
            stage,
            reason,
            detail,
        }),
        "0000000b4a09080210011a03627965",
    );
}

/// The frames of version 2.
#[test]
fn frames_of_version_2() {
    let (id, service, class) = (3, 2, 2);
    let payload = Bytes::from_static(b"pay");
    pin(
        Kind::Subscribe(pb::Subscribe {
            id,
            service,
            r#type: 4,
            epoch: 5,
            after: 6,
            window: 68,
        }),
        "000000155a130803100218042105000000000000002806 3044"
            .replace(' ', "")
            .as_str(),
    );
    let event = |kind| {
        Kind::Event(pb::Event {
            subscription: id,
            kind: Some(kind),
        })
    };
    let begun = pb::Begun { epoch: 5, next: 7 };
    pin(
        event(pb::event::Kind::Begun(begun)),
        "00000011620f0803120b0905000000000000001007",
    );
    let item = pb::Item {
        number: 7,
        payload: payload.clone(),
    };
    pin(
        event(pb::event::Kind::Item(item)),
        "0000000d620b08031a0708071203706179",
    );
    let gap = pb::Gap {
        epoch: 5,
        first: 7,
        last: 9,
    };
    pin(
        event(pb::event::Kind::Gap(gap)),
        "0000001362110803220d09050000000000000010071809",
    );
    let ended = pb::Ended {
        why: 3,
        detail: "no".into(),
    };
    pin(
        event(pb::event::Kind::Ended(ended)),
        "0000000c620a08032a06080312026e6f",
    );
    let subscription = id;
    let consumed = pb::Consumed {
        subscription,
        units: 34,
    };
    pin(Kind::Consumed(consumed), "000000066a0408031022");
    pin(
        Kind::Unsubscribe(pb::Unsubscribe { subscription }),
        "0000000472020803",
    );
    let watch = pb::Watch {
        id,
        service,
        r#type: 4,
    };
    pin(Kind::Watch(watch), "000000087a06080310021804");
    pin(Kind::Unwatch(pb::Unwatch { id }), "000000058201020803");
    let fate = pb::Fate {
        id,
        kind: 3,
        incarnation: 1,
    };
    pin(
        Kind::Fate(fate),
        "000000108a010d080310031901000000000000 00"
            .replace(' ', "")
            .as_str(),
    );
    let sequenced = pb::Sequenced {
        stream: 1,
        number: 2,
        service,
        r#type: 4,
        class,
        trace: None,
        payload,
        life: 9,
    };
    pin(
        Kind::Sequenced(sequenced),
        "0000002292011f09010000000000000010021802200428023a03706179410900000000000000"
            .replace(' ', "")
            .as_str(),
    );
    let ack = pb::Ack {
        stream: 1,
        state: 1,
        number: 2,
        detail: String::new(),
        life: 9,
    };
    pin(
        Kind::Ack(ack),
        "000000199a011609010000000000000010011802290900000000000000",
    );
    let dropped = pb::Dropped {
        service,
        r#type: 4,
        why: 3,
    };
    pin(Kind::Dropped(dropped), "00000009a20106080210041803");
    // What version 2 added to frames of version 1.
    let ask = pb::Ask {
        id: 1,
        incarnation: 7,
        ..pb::Ask::default()
    };
    pin(Kind::Ask(ask), "0000000d220b0801410700000000000000");
    let reply = pb::Reply {
        id: 1,
        status: 12,
        incarnation: 8,
        ..pb::Reply::default()
    };
    pin(Kind::Reply(reply), "0000000f2a0d0801100c290800000000000000");
}

/// A frame of a later version with fields that this one does not know is read as if they were absent.
#[test]
fn unknown_fields_are_ignored() {
    let mut decoder = frame::Decoder::default();
    // Cancel { id: 1 } with field 15 inside it and field 21 beside it.
    decoder.feed(&[0, 0, 0, 10, 0x32, 5, 0x08, 1, 0x7a, 1, 0xff, 0xa8, 1, 5]);
    assert_eq!(
        decoder.next(100),
        Ok(Some(Kind::Cancel(pb::Cancel { id: 1 })))
    );
}

/// A payload shares the memory its frame arrived in.
#[test]
fn payloads_are_not_copied() {
    let mut pair = Pair::open();
    pair.b.open_window(S, R, 256);
    pair.carry();
    let payload = Bytes::from(vec![1; 4000]);
    pair.a.send_tell(S, 1, R, None, payload.clone()).unwrap();
    pair.a.send_tell(S, 1, R, None, payload).unwrap();
    let bytes = drain(&mut pair.a, pair.now);
    pair.b.on_bytes(pair.now, &bytes);
    let [Event::Tell(first), Event::Tell(second)] = &events(&mut pair.b)[..] else {
        panic!("no tells")
    };
    let gap = second.payload.as_ptr() as usize - first.payload.as_ptr() as usize;
    assert_eq!(gap, bytes.len() / 2, "both lie where they arrived");
}

/// A decoder holds at most twice what has arrived of an incomplete frame, and nothing while idle.
#[test]
fn decoder_memory() {
    let mut decoder = frame::Decoder::default();
    let len = 1_000_000u32;
    decoder.feed(&len.to_be_bytes());
    assert_eq!(decoder.next(len), Ok(None));
    assert!(decoder.capacity() < 100, "a prefix alone allocates nothing");
    let mut fed = 4;
    while fed < 900_000 {
        decoder.feed(&[0; 10_000]);
        fed += 10_000;
        assert_eq!(decoder.next(len), Ok(None));
        assert!(
            decoder.capacity() <= 2 * fed,
            "{} for {fed}",
            decoder.capacity()
        );
    }
    let mut decoder = frame::Decoder::default();
    decoder.feed(&[0, 0, 0, 2, 0x42, 0]);
    assert!(decoder.next(10).unwrap().is_some());
    assert_eq!(decoder.next(10), Ok(None));
    assert_eq!(decoder.capacity(), 0);
}

/// A deadline beyond the limit is cut, also when a peer sends one.
#[test]
fn ask_time_is_cut() {
    let mut pair = Pair::open();
    let day = Duration::from_secs(86_400);
    pair.a
        .send_ask(pair.now, S, 1, R, None, day, Bytes::new())
        .unwrap();
    pair.carry();
    let [Event::Ask { remaining, .. }] = &events(&mut pair.b)[..] else {
        panic!("no ask")
    };
    assert_eq!(*remaining, crate::MAX_ASK_TIME);
}

/// Frames larger than what is taken at once leave one by one; the empty lane holds no memory of theirs, so it is freed when
/// the last is sent.
#[test]
fn an_empty_lane_holds_nothing() {
    let mut lane = BytesMut::new();
    let frame = |len: usize| {
        frame::of(Kind::Down(pb::Down {
            detail: "x".repeat(len),
            ..Default::default()
        }))
    };
    for len in [200_000, 100_000] {
        let down = frame(len);
        frame::put(&mut lane, &down, frame::len(&down));
    }
    let first = frame::take(&mut lane, 65_536);
    assert!(first.len() > 200_000 && lane.len() > 100_000);
    let last = frame::take(&mut lane, 65_536);
    assert_eq!((lane.len(), lane.capacity()), (0, 0));
    drop(first);
    assert!(last.is_unique(), "the lane still holds the buffer");
}
