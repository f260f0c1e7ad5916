//! What a peer can get wrong: each fault by name, here and in the Down it is sent.

use std::io::ErrorKind;

use bytes::BytesMut;
use pqcnet_protos::link::v1::{self as pb, frame::Kind};

use super::*;
use crate::{DownReason, Fault, MAX_HELLO_FRAME, MAX_WINDOW, Reason, Stage, frame};

fn bytes(kind: Kind) -> Vec<u8> {
    let mut out = BytesMut::new();
    let frame = frame::of(kind);
    let len = frame::len(&frame);
    frame::put(&mut out, &frame, len);
    out.to_vec()
}

fn good_hello() -> pb::Hello {
    let Kind::Hello(hello) = frame::hello(&config(Role::Sentry)) else {
        unreachable!()
    };
    hello
}

/// Feeds bytes to an end; it must end with this fault, and tell the peer the matching reason, stage and words.
fn expect(mut link: Link, stage: Stage, wrong: &[u8], fault: Fault) {
    events(&mut link);
    drain(&mut link, ms(6));
    link.on_bytes(ms(6), wrong);
    let last = events(&mut link).pop();
    let down = DownReason::Misbehaved {
        stage,
        fault: fault.clone(),
    };
    assert_eq!(down.reason(), Some(fault.reason()));
    assert_eq!(last, Some(Event::Down(down)));
    let mut out = BytesMut::from(&drain(&mut link, ms(6))[..]);
    let mut decoder = frame::Decoder::default();
    decoder.feed(&out.split());
    let Some(Kind::Down(down)) = decoder.next(MAX_HELLO_FRAME).unwrap() else {
        panic!("no Down")
    };
    assert_eq!(down.reason, fault.reason().to_proto());
    assert_eq!(down.stage(), stage.to_proto());
    assert_eq!(down.detail, fault.to_string());
    // Nothing is heard after the end.
    link.on_bytes(ms(7), &bytes(Kind::Ping(pb::Ping {})));
    assert_eq!(events(&mut link), []);
}

fn expect_at_hello(wrong: &[u8], fault: Fault) {
    let link = Link::new(config(Role::Relayer), ms(0));
    expect(link, Stage::Hello, wrong, fault);
}

fn expect_open(kind: Kind, fault: Fault) {
    expect(Pair::open().b, Stage::Open, &bytes(kind), fault);
}

fn with(change: impl FnOnce(&mut pb::Hello)) -> Vec<u8> {
    let mut hello = good_hello();
    change(&mut hello);
    bytes(Kind::Hello(hello))
}

#[test]
fn hello_faults() {
    for (min, max) in [(3, 9), (0, 0), (2, 1)] {
        let fault = Fault::Version { min, max };
        let wrong = with(|hello| (hello.version_min, hello.version_max) = (min, max));
        expect_at_hello(&wrong, fault);
    }
    expect_at_hello(&with(|hello| hello.role = 0), Fault::UnknownRole(0));
    expect_at_hello(&with(|hello| hello.role = 8), Fault::UnknownRole(8));
    let limits = |field| Fault::Limits { field };
    let wrong = with(|hello| hello.software = "x".repeat(65));
    expect_at_hello(&wrong, limits("software"));
    let wrong = with(|hello| hello.services = vec![1; 33]);
    expect_at_hello(&wrong, limits("services"));
    let wrong = with(|hello| hello.services = vec![2, 1]);
    expect_at_hello(&wrong, limits("services"));
    for max_frame in [0, crate::MIN_MAX_FRAME - 1, crate::MAX_FRAME + 1] {
        let wrong = with(|hello| hello.max_frame = max_frame);
        expect_at_hello(&wrong, limits("max_frame"));
    }
    for ask_window in [crate::MAX_COST - 1, MAX_WINDOW + 1] {
        let wrong = with(|hello| hello.ask_window = ask_window);
        expect_at_hello(&wrong, limits("ask_window"));
    }
    for keepalive_ms in [0, 600_001] {
        let wrong = with(|hello| hello.keepalive_ms = keepalive_ms);
        expect_at_hello(&wrong, limits("keepalive_ms"));
    }
    let (frame, stage) = ("Ask", Stage::Hello);
    let wrong = bytes(Kind::Ask(pb::Ask::default()));
    expect_at_hello(&wrong, Fault::UnexpectedFrame { frame, stage });
}

/// A Ready before Hello, and an Ask between Hello and Ready.
#[test]
fn frames_out_of_turn_at_hello() {
    let stage = Stage::Hello;
    let frame = "Ready";
    let wrong = bytes(Kind::Ready(pb::Ready {}));
    expect_at_hello(&wrong, Fault::UnexpectedFrame { frame, stage });
    let mut wrong = with(|_| ());
    wrong.extend(bytes(Kind::Ask(pb::Ask::default())));
    let frame = "Ask";
    expect_at_hello(&wrong, Fault::UnexpectedFrame { frame, stage });
}

/// No Hello, or no Ready, by the deadline.
#[test]
fn hello_timeout() {
    for heard in [Vec::new(), with(|_| ())] {
        let mut link = Link::new(config(Role::Relayer), ms(0));
        link.on_bytes(ms(1), &heard);
        link.accept();
        assert_eq!(link.next_deadline(), Some(ms(10_000)));
        link.on_deadline(ms(9_999));
        assert!(!link.is_down());
        link.on_deadline(ms(10_000));
        let (stage, fault) = (Stage::Hello, Fault::HelloTimeout);
        let down = DownReason::Misbehaved { stage, fault };
        assert_eq!(events(&mut link).pop(), Some(Event::Down(down)));
    }
}

/// A length over the limit is refused by its four bytes alone, before anything is allocated for it.
#[test]
fn oversize() {
    let limit = MAX_HELLO_FRAME;
    let len = limit + 1;
    expect_at_hello(&len.to_be_bytes(), Fault::FrameTooLarge { len, limit });
    let (len, limit) = (u32::MAX, crate::MAX_FRAME);
    let fault = Fault::FrameTooLarge { len, limit };
    expect(Pair::open().b, Stage::Open, &len.to_be_bytes(), fault);
}

#[test]
fn malformed() {
    for body in [&[0xff][..], &[0x1a, 5, 1], b""] {
        let mut wrong = (body.len() as u32).to_be_bytes().to_vec();
        wrong.extend_from_slice(body);
        expect_at_hello(&wrong, Fault::Malformed);
    }
    // Numbers that are no class.
    let service = S.0;
    let tell = pb::Tell {
        service,
        ..Default::default()
    };
    expect_open(Kind::Tell(tell), Fault::Malformed);
    let ask = pb::Ask {
        id: 1,
        service,
        class: 4,
        ..Default::default()
    };
    expect_open(Kind::Ask(ask), Fault::Malformed);
    let credit = pb::Credit {
        service,
        class: 0,
        units: 1,
    };
    expect_open(Kind::Credit(credit), Fault::Malformed);
    // Credit for a service that the granter does not serve.
    let credit = pb::Credit {
        service: 1,
        class: 2,
        units: 1,
    };
    expect_open(Kind::Credit(credit), Fault::Malformed);
}

#[test]
fn open_faults() {
    let (service, class) = (S.0, 2);
    let tell = pb::Tell {
        service,
        class,
        ..Default::default()
    };
    let fault = Fault::CreditExceeded {
        service: S,
        class: R,
    };
    expect_open(Kind::Tell(tell), fault);
    let ask = pb::Ask {
        id: 0,
        service,
        class,
        ..Default::default()
    };
    expect_open(Kind::Ask(ask), Fault::BadAskId { id: 0, last: 0 });
    let units = MAX_WINDOW + 1;
    let credit = pb::Credit {
        service,
        class,
        units,
    };
    expect_open(
        Kind::Credit(credit),
        Fault::CreditOverflow { limit: MAX_WINDOW },
    );
    let reply = pb::Reply {
        id: 1,
        ..Default::default()
    };
    expect_open(Kind::Reply(reply), Fault::UnknownReply { id: 1 });
    let stage = Stage::Open;
    for (kind, frame) in [
        (Kind::Hello(good_hello()), "Hello"),
        (Kind::Ready(pb::Ready {}), "Ready"),
    ] {
        expect_open(kind, Fault::UnexpectedFrame { frame, stage });
    }
}

/// One unit beyond an open window, one ask beyond the ask window.
#[test]
fn windows_are_exact() {
    let (service, class) = (S.0, 2);
    let mut pair = Pair::open();
    pair.b.open_window(S, R, 100);
    pair.carry();
    let tell = bytes(Kind::Tell(pb::Tell {
        service,
        class,
        ..Default::default()
    }));
    pair.b.on_bytes(pair.now, &tell.repeat(100));
    assert_eq!(events(&mut pair.b).len(), 100);
    let fault = Fault::CreditExceeded {
        service: S,
        class: R,
    };
    expect(pair.b, Stage::Open, &tell, fault);

    let mut pair = Pair::open();
    let ask = |id| {
        bytes(Kind::Ask(pb::Ask {
            id,
            service,
            class,
            ..Default::default()
        }))
    };
    for id in 1..=256 {
        pair.b.on_bytes(pair.now, &ask(id));
    }
    assert_eq!(events(&mut pair.b).len(), 256);
    expect(
        pair.b,
        Stage::Open,
        &ask(257),
        Fault::AsksExceeded { window: 256 },
    );

    let mut pair = Pair::open();
    pair.b.on_bytes(pair.now, &ask(9));
    expect(
        pair.b,
        Stage::Open,
        &ask(9),
        Fault::BadAskId { id: 9, last: 9 },
    );
}

/// A peer that asks and never reads: each ask is refused at once (unknown, cancelled), and still no more replies wait for
/// it than its window has units. What it does read makes room again.
#[test]
fn asking_without_reading() {
    let ask = |id, service| {
        bytes(Kind::Ask(pb::Ask {
            id,
            service,
            class: 2,
            ..Default::default()
        }))
    };
    let unknown = 4711;
    for (service, cancelled) in [(unknown, false), (S.0, true)] {
        let mut link = Pair::open().b;
        for id in 1..=256 {
            link.on_bytes(ms(6), &ask(id, service));
            if cancelled {
                link.on_bytes(ms(6), &bytes(Kind::Cancel(pb::Cancel { id })));
            }
        }
        assert_eq!(link.unanswered(), 0);
        assert!(!link.is_down());
        // It reads what has been sent so far: as many again.
        drain(&mut link, ms(6));
        for id in 257..=512 {
            link.on_bytes(ms(6), &ask(id, unknown));
        }
        assert!(!link.is_down());
        let waiting = link.outbound();
        events(&mut link);
        link.on_bytes(ms(6), &ask(513, unknown));
        let (stage, fault) = (Stage::Open, Fault::AsksExceeded { window: 256 });
        let down = DownReason::Misbehaved { stage, fault };
        assert_eq!(events(&mut link), [Event::Down(down)]);
        assert!(link.outbound() < waiting);
    }
}

/// A payload that the driver could not decode ends the link by name.
#[test]
fn bad_payload() {
    let mut link = Pair::open().b;
    let fault = Fault::BadPayload {
        message: "relay.Publish",
        problem: crate::WireError::Malformed,
    };
    link.fail(fault.clone());
    link.fail(Fault::Malformed);
    let stage = Stage::Open;
    let down = DownReason::Misbehaved { stage, fault };
    let words =
        "the peer erred at stage open: it sent a bad payload for relay.Publish: malformed encoding";
    assert_eq!(down.to_string(), words);
    assert_eq!(events(&mut link), [Event::Down(down)]);
}

/// Words and numbers of every way to end survive the wire; a later version's number is kept.
#[test]
fn reasons() {
    for number in 1..=17 {
        let reason = Reason::from_proto(number);
        assert_eq!(reason.to_proto(), number);
        assert!(!matches!(reason, Reason::Unrecognised(_)), "{number}");
        assert!(!reason.to_string().is_empty());
    }
    assert_eq!(Reason::from_proto(99), Reason::Unrecognised(99));
    assert_eq!(Reason::from_proto(99).to_proto(), 99);
    let (stage, kind) = (Stage::Hello, ErrorKind::ConnectionReset);
    let lost = DownReason::Lost { stage, kind };
    assert_eq!(
        lost.to_string(),
        "connection lost at stage hello: connection reset"
    );
    let (reason, detail) = (Reason::Role, "x".to_owned());
    let peer = DownReason::Peer {
        stage,
        reason,
        detail,
    };
    assert_eq!(
        peer.to_string(),
        "closed by the peer at stage hello: role refused (x)"
    );
}
