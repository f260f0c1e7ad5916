//! Neighbouring versions, and everything that a later one may send: docs/spec/link.md, section 12.

use bytes::BytesMut;
use pqcnet_protos::link::v1::{self as pb, frame::Kind};
use prost::Message as _;

use super::*;
use crate::{Answer, DownReason, Fault, Reason, SendError, Stage, To, frame};

fn framed(body: &[u8]) -> Vec<u8> {
    let mut bytes = (body.len() as u32).to_be_bytes().to_vec();
    bytes.extend(body);
    bytes
}

fn bytes(kind: Kind) -> Vec<u8> {
    framed(&frame::of(kind).encode_to_vec())
}

/// An open link to a peer that speaks up to this version.
fn open_to(version_max: u32) -> Link {
    let mut link = Link::new(config(Role::Relayer), ms(0));
    let Kind::Hello(hello) = frame::hello(&config(Role::Sentry)) else {
        unreachable!()
    };
    let hello = pb::Hello {
        version_max,
        ..hello
    };
    link.on_bytes(ms(1), &bytes(Kind::Hello(hello)));
    link.accept();
    link.on_bytes(ms(1), &bytes(Kind::Ready(pb::Ready {})));
    drain(&mut link, ms(1));
    let events = events(&mut link);
    let [Event::Hello(hello), Event::Open] = &events[..] else {
        panic!("{events:?}")
    };
    assert_eq!(hello.version, version_max.min(crate::LINK_VERSION));
    link
}

/// A peer of version 1: tells and asks work; what version 2 added is refused here, without a frame.
#[test]
fn to_version_1() {
    let mut link = open_to(1);
    let wait = ms(100);
    assert_eq!(
        link.send_ask(ms(2), S, 1, R, None, wait, Bytes::new()),
        Ok(1)
    );
    let there = drain(&mut link, ms(2));
    assert!(!there.is_empty());
    let unsupported = SendError::Unsupported;
    assert_eq!(link.subscribe(S, 1, None, 68), Err(unsupported));
    assert_eq!(link.watch(S, 1), Err(unsupported));
    let to = To {
        incarnation: 4,
        ..To::any(S, 1, R)
    };
    assert_eq!(link.send_tell_to(to, None, Bytes::new()), Err(unsupported));
    assert_eq!(
        link.send_ask_to(ms(2), to, None, wait, Bytes::new()),
        Err(unsupported)
    );
    let out = crate::reliable::Outgoing {
        stream: 1,
        number: 0,
        life: 0,
        payload: Bytes::new(),
    };
    assert_eq!(
        link.send_sequenced(out, To::any(S, 1, R), None),
        Err(unsupported)
    );
    link.send_dropped(S, 1, crate::DroppedWhy::Stale);
    assert_eq!(drain(&mut link, ms(2)), []);
}

/// A peer of version 3 that speaks 2 as well is spoken to in 2.
#[test]
fn to_version_3() {
    let mut link = open_to(3);
    assert_eq!(link.watch(S, 1), Ok(1));
}

fn expect_end(mut link: Link, wrong: &[u8], fault: Fault) {
    link.on_bytes(ms(2), wrong);
    let stage = Stage::Open;
    let reason = fault.reason();
    let down = DownReason::Misbehaved { stage, fault };
    assert_eq!(events(&mut link).pop(), Some(Event::Down(down)));
    let mut decoder = frame::Decoder::default();
    decoder.feed(&BytesMut::from(&drain(&mut link, ms(2))[..]));
    let Some(Kind::Down(down)) = decoder.next(4096).unwrap() else {
        panic!("no Down")
    };
    assert_eq!(
        Reason::from_proto(down.reason),
        reason,
        "the peer learns which kind it was"
    );
    assert!(down.detail.contains("link version"), "{}", down.detail);
}

/// A frame kind that the agreed version does not have ends the link, and its number is named on both sides.
#[test]
fn unknown_frame_kinds() {
    let (number, version) = (21, 2);
    // Field 21, and field 200 with some bytes.
    expect_end(
        open_to(2),
        &framed(&[0xaa, 1, 0]),
        Fault::UnknownFrame { number, version },
    );
    let number = 200;
    expect_end(
        open_to(9),
        &framed(&[0xc2, 0x0c, 2, 1, 1]),
        Fault::UnknownFrame { number, version },
    );
    // A kind of version 2 on a link of version 1.
    let watch = bytes(Kind::Watch(pb::Watch::default()));
    let (number, version) = (15, 1);
    expect_end(open_to(1), &watch, Fault::UnknownFrame { number, version });
}

/// Numbers of later versions where an enum is expected: a role and a class are refused by name, a status is a refusal, a
/// reason is kept as its number.
#[test]
fn unknown_enum_values() {
    let mut link = open_to(2);
    link.send_ask(ms(2), S, 1, R, None, ms(100), Bytes::new())
        .unwrap();
    let reply = pb::Reply {
        id: 1,
        status: 99,
        ..pb::Reply::default()
    };
    link.on_bytes(ms(3), &bytes(Kind::Reply(reply)));
    let refused = Answer::Refused("status 99".into());
    let answered = Event::Answer {
        id: 1,
        answer: refused,
    };
    assert_eq!(events(&mut link), [Event::AskUnits(1), answered]);
    let dropped = pb::Dropped {
        why: 99,
        ..pb::Dropped::default()
    };
    link.on_bytes(ms(3), &bytes(Kind::Dropped(dropped)));
    let why = crate::DroppedWhy::Unrecognised(99);
    let (service, type_id) = (ServiceId(0), 0);
    assert_eq!(
        events(&mut link),
        [Event::Dropped {
            service,
            type_id,
            why
        }]
    );
    let down = pb::Down {
        stage: 9,
        reason: 99,
        detail: String::new(),
    };
    link.on_bytes(ms(4), &bytes(Kind::Down(down)));
    let down = DownReason::Peer {
        stage: Stage::Hello,
        reason: Reason::Unrecognised(99),
        detail: String::new(),
    };
    assert_eq!(events(&mut link), [Event::Down(down)]);
    assert_eq!(Reason::Unrecognised(99).to_proto(), 99);
}

/// Every frame of a later version with a field more, inside and beside: read as if it were absent, and what this side sends
/// back round is the frame as this version knows it.
#[test]
fn unknown_fields_in_every_frame() {
    let payload = Bytes::from_static(b"pay");
    let kinds = [
        frame::hello(&config(Role::Sentry)),
        Kind::Ready(pb::Ready {}),
        Kind::Tell(pb::Tell {
            payload: payload.clone(),
            ..pb::Tell::default()
        }),
        Kind::Ask(pb::Ask {
            id: 1,
            payload: payload.clone(),
            ..pb::Ask::default()
        }),
        Kind::Reply(pb::Reply {
            id: 1,
            payload: payload.clone(),
            ..pb::Reply::default()
        }),
        Kind::Cancel(pb::Cancel { id: 1 }),
        Kind::Credit(pb::Credit::default()),
        Kind::Ping(pb::Ping {}),
        Kind::Down(pb::Down::default()),
        Kind::Subscribe(pb::Subscribe {
            id: 1,
            ..pb::Subscribe::default()
        }),
        Kind::Event(pb::Event {
            subscription: 1,
            kind: Some(pb::event::Kind::Item(pb::Item { number: 1, payload })),
        }),
        Kind::Consumed(pb::Consumed::default()),
        Kind::Unsubscribe(pb::Unsubscribe::default()),
        Kind::Watch(pb::Watch::default()),
        Kind::Unwatch(pb::Unwatch::default()),
        Kind::Fate(pb::Fate::default()),
        Kind::Sequenced(pb::Sequenced::default()),
        Kind::Ack(pb::Ack::default()),
        Kind::Dropped(pb::Dropped::default()),
    ];
    // Fields 1,000 to 1,003: a number, bytes, 32 and 64 bits.
    let more: &[u8] = &[
        0xc0, 0x3e, 5, 0xca, 0x3e, 2, 1, 1, 0xd5, 0x3e, 1, 2, 3, 4, 0xd9, 0x3e, 1, 2, 3, 4, 5, 6,
        7, 8,
    ];
    for kind in kinds {
        let plain = frame::of(kind.clone()).encode_to_vec();
        // The frame is one key and one length, then the kind's own fields.
        let mut rest = &plain[..];
        let (tag, wire_type) = prost::encoding::decode_key(&mut rest).unwrap();
        let len = prost::encoding::decode_varint(&mut rest).unwrap() as usize;
        let mut later = Vec::new();
        prost::encoding::encode_key(tag, wire_type, &mut later);
        prost::encoding::encode_varint((len + more.len()) as u64, &mut later);
        later.extend_from_slice(rest);
        later.extend_from_slice(more);
        later.extend_from_slice(more);
        let mut decoder = frame::Decoder::default();
        decoder.feed(&framed(&later));
        let read = decoder.next(10_000).unwrap();
        assert_eq!(read.as_ref(), Some(&kind), "{}", frame::name(&kind));
        assert_eq!(frame::of(read.unwrap()).encode_to_vec(), plain);
    }
}
