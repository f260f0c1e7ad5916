//! What goes right: hellos, tells under credit, asks, deadlines, cancels, closing.

use super::*;
use crate::{
    Answer, DownReason, DroppedWhy, Limits, MAX_COST, Reason, SendError, Stage, Trace, UNIT,
};

/// Both sides learn who the other claims to be, and the limits it declared.
#[test]
fn hello_both_ways() {
    let (at_a, at_b) = Pair::new().greet();
    let expected = PeerHello {
        version: 2,
        role: Role::Relayer,
        software: "test/1".into(),
        services: vec![ServiceId::RELAY, ServiceId::CONTROL],
        max_frame: crate::MAX_FRAME,
        ask_window: 256,
        keepalive: ms(10_000),
    };
    assert_eq!(at_a, expected);
    assert_eq!(at_b.role, Role::Sentry);
}

/// Ready that arrives before this side has accepted opens the link at accept; nothing is sent before.
#[test]
fn late_accept() {
    let mut pair = Pair::new();
    pair.carry();
    events(&mut pair.a);
    events(&mut pair.b);
    pair.a.accept();
    pair.carry();
    assert_eq!(events(&mut pair.b), []);
    let told = pair.b.send_tell(S, 1, R, None, Bytes::new());
    assert_eq!(told, Err(SendError::Closed));
    pair.b.accept();
    assert_eq!(events(&mut pair.b), [Event::Open]);
    pair.carry();
    assert_eq!(events(&mut pair.a), [Event::Open]);
}

/// A refused role ends the link at stage Hello on both sides, with the same reason and words.
#[test]
fn role_refused_on_both_sides() {
    let mut pair = Pair::new();
    pair.carry();
    events(&mut pair.a);
    events(&mut pair.b);
    pair.a.accept();
    pair.b.reject(Reason::Role, "not a sentry here");
    pair.carry();
    let detail = "not a sentry here".to_owned();
    let (stage, reason) = (Stage::Hello, Reason::Role);
    assert_eq!(
        events(&mut pair.b),
        [Event::Down(DownReason::Local {
            stage,
            reason,
            detail: detail.clone()
        })]
    );
    assert_eq!(
        events(&mut pair.a),
        [Event::Down(DownReason::Peer {
            stage,
            reason,
            detail
        })]
    );
}

/// Tells arrive in order with their trace; without credit nothing leaves; credit comes back in halves of the window.
#[test]
fn tells_spend_credit() {
    let mut pair = Pair::open();
    let told = pair.a.send_tell(S, 1, R, None, Bytes::new());
    assert_eq!(told, Err(SendError::NoCredit));
    pair.b.open_window(S, R, 100);
    pair.carry();
    assert_eq!(
        events(&mut pair.a),
        [Event::Credit {
            service: S,
            class: R,
            units: 100
        }]
    );
    let trace = Some(Trace {
        trace_id: 1 << 100 | 7,
        span_id: 9,
        sampled: true,
    });
    for n in 0..100u8 {
        let payload = Bytes::copy_from_slice(&[n]);
        pair.a.send_tell(S, 3, R, trace, payload).unwrap();
    }
    let told = pair.a.send_tell(S, 3, R, None, Bytes::new());
    assert_eq!(told, Err(SendError::NoCredit));
    // Another class of the same service has credit of its own, and here none.
    let told = pair.a.send_tell(S, 3, Class::Bulk, None, Bytes::new());
    assert_eq!(told, Err(SendError::NoCredit));
    pair.carry();
    let seen = events(&mut pair.b);
    assert_eq!(seen.len(), 100);
    for (n, event) in seen.iter().enumerate() {
        let Event::Tell(message) = event else {
            panic!("{event:?}")
        };
        assert_eq!(message.payload[..], [n as u8]);
        assert_eq!((message.trace, message.units), (trace, 1));
    }
    // The peer is out of credit, so the first unit goes back at once; later ones wait for a worthwhile grant.
    pair.b.grant(S, R, 1);
    pair.carry();
    assert_eq!(pair.a.credit(S, R), 1);
    pair.b.grant(S, R, 99);
    pair.carry();
    assert_eq!(pair.a.credit(S, R), 100);
    pair.a.send_tell(S, 3, R, None, Bytes::new()).unwrap();
    pair.carry();
    pair.b.grant(S, R, 1);
    pair.carry();
    assert_eq!(pair.a.credit(S, R), 99, "one unit is not worth a frame");
}

/// A large message costs a unit for every 16 KiB begun.
#[test]
fn large_messages_cost_more() {
    let costs = [0, 1, UNIT, UNIT + 1, crate::MAX_FRAME as usize].map(crate::cost);
    assert_eq!(costs, [1, 1, 1, 2, MAX_COST]);
    let mut pair = Pair::open();
    pair.b.open_window(S, R, MAX_COST);
    pair.carry();
    events(&mut pair.a);
    let big = Bytes::from(vec![7; 1024 * 1024]);
    pair.a.send_tell(S, 1, R, None, big.clone()).unwrap();
    assert_eq!(pair.a.credit(S, R), 4);
    let two = Bytes::from(vec![7; 5 * UNIT]);
    let told = pair.a.send_tell(S, 1, R, None, two);
    assert_eq!(told, Err(SendError::NoCredit));
    pair.carry();
    let [Event::Tell(message)] = &events(&mut pair.b)[..] else {
        panic!("no tell")
    };
    assert_eq!((&message.payload, message.units), (&big, 64));
}

/// More urgent classes overtake; within a class the order stays; a Down comes last.
#[test]
fn classes_overtake() {
    let mut pair = Pair::open();
    for class in Class::ALL {
        pair.b.open_window(S, class, 256);
    }
    pair.carry();
    events(&mut pair.a);
    for (n, class) in [Class::Bulk, R, R, Class::Control].into_iter().enumerate() {
        let told = pair.a.send_tell(S, n as u32, class, None, Bytes::new());
        told.unwrap();
    }
    pair.a.finish(Reason::Closed, "");
    pair.carry();
    let down = DownReason::Peer {
        stage: Stage::Open,
        reason: Reason::Closed,
        detail: String::new(),
    };
    assert!(down.is_ordinary());
    assert_eq!(
        events(&mut pair.b),
        [
            Event::Tell(inbound(3, Class::Control, b"")),
            Event::Tell(inbound(1, R, b"")),
            Event::Tell(inbound(2, R, b"")),
            Event::Tell(inbound(0, Class::Bulk, b"")),
            Event::Down(down)
        ]
    );
    assert!(pair.b.is_down());
}

/// An ask travels with what is left of its deadline; each answer there is comes back as itself.
#[test]
fn asks_and_every_answer() {
    let answers = [
        Answer::Ok(Bytes::from_static(b"yes")),
        Answer::Busy,
        Answer::Timeout,
        Answer::Closed,
        Answer::Panicked,
        Answer::Abandoned,
        Answer::Refused("no".into()),
        Answer::UnknownType,
        Answer::Cancelled,
        Answer::Draining,
        Answer::ReplyTooLarge,
    ];
    let mut pair = Pair::open();
    for (n, answer) in answers.into_iter().enumerate() {
        let id = pair
            .a
            .send_ask(pair.now, S, 4, R, None, ms(1500), Bytes::from_static(b"?"));
        assert_eq!(id, Ok(n as u64 + 1));
        let id = n as u64 + 1;
        pair.carry();
        let remaining = ms(1500);
        let message = inbound(4, R, b"?");
        assert_eq!(
            events(&mut pair.b),
            [Event::Ask {
                id,
                remaining,
                message
            }]
        );
        pair.b.send_reply(id, answer.clone());
        pair.b.send_reply(id, Answer::Busy); // a second answer is nothing
        pair.carry();
        assert_eq!(
            events(&mut pair.a),
            [Event::AskUnits(1), Event::Answer { id, answer }]
        );
        assert_eq!((pair.a.open_asks(), pair.b.unanswered()), (0, 0));
    }
}

/// At its deadline an ask ends here as Timeout, the peer learns Cancel, and the slot is free once its reply came.
#[test]
fn deadline_cancels() {
    let mut pair = Pair::open();
    let timeout = ms(20);
    let ask = |pair: &mut Pair| {
        let now = pair.now;
        pair.a.send_ask(now, S, 4, R, None, timeout, Bytes::new())
    };
    assert_eq!(ask(&mut pair), Ok(1));
    assert_eq!(pair.a.next_deadline(), Some(ms(25)));
    pair.carry();
    events(&mut pair.b);
    pair.tick(ms(24));
    assert_eq!(events(&mut pair.a), []);
    pair.tick(ms(25));
    let answer = Answer::Timeout;
    assert_eq!(events(&mut pair.a), [Event::Answer { id: 1, answer }]);
    assert_eq!(pair.a.open_asks(), 1);
    pair.carry();
    assert_eq!(events(&mut pair.b), [Event::Cancelled { id: 1 }]);
    assert_eq!(events(&mut pair.a), [Event::AskUnits(1)]);
    assert_eq!((pair.a.open_asks(), pair.b.unanswered()), (0, 0));

    // A reply that crosses the Cancel closes the ask all the same.
    assert_eq!(ask(&mut pair), Ok(2));
    pair.carry();
    events(&mut pair.b);
    pair.b.send_reply(2, Answer::Ok(Bytes::new()));
    pair.a.cancel(2);
    pair.a.cancel(2);
    pair.carry();
    assert_eq!(events(&mut pair.a), [Event::AskUnits(1)]);
    assert_eq!(events(&mut pair.b), []);
}

/// The ask window counts units, and the asker keeps within it by itself.
#[test]
fn ask_window() {
    let mut pair = Pair::open();
    let now = pair.now;
    let send = |pair: &mut Pair, bytes: usize| {
        let payload = Bytes::from(vec![0; bytes]);
        pair.a.send_ask(now, S, 4, R, None, ms(1000), payload)
    };
    for n in 1..=4 {
        assert_eq!(send(&mut pair, 63 * UNIT), Ok(n));
    }
    for n in 5..=8 {
        assert_eq!(send(&mut pair, 0), Ok(n));
    }
    // 3.9 MiB wait for the socket, under the 4 MiB limit; the window of 256 units is full.
    assert_eq!(send(&mut pair, 0), Err(SendError::AsksFull));
    pair.carry();
    assert_eq!(events(&mut pair.b).len(), 8);
    pair.b.send_reply(1, Answer::Busy);
    pair.carry();
    let answer = Answer::Busy;
    let expected = [Event::AskUnits(63), Event::Answer { id: 1, answer }];
    assert_eq!(events(&mut pair.a), expected);
    assert_eq!(send(&mut pair, 0), Ok(9));
}

/// Each way a send is refused locally.
#[test]
fn every_send_error() {
    let mut small = config(Role::Relayer);
    small.limits.max_frame = 5000;
    let mut sender = config(Role::Sentry);
    sender.limits.max_outbound = 3000;
    let mut pair = Pair::with(sender, small);
    let at = pair.now;
    let told = pair.a.send_tell(S, 1, R, None, Bytes::new());
    assert_eq!(told, Err(SendError::Closed));
    pair.greet();
    pair.b.open_window(S, R, 256);
    pair.carry();
    events(&mut pair.a);
    let edge = ServiceId::EDGE;
    let told = pair.a.send_tell(edge, 1, R, None, Bytes::new());
    assert_eq!(told, Err(SendError::NotServed(edge)));
    let big = Bytes::from(vec![0; 5000]);
    let told = pair.a.send_tell(S, 1, R, None, big.clone());
    assert_eq!(told, Err(SendError::TooLarge));
    let asked = pair.a.send_ask(at, S, 1, R, None, ms(1), big);
    assert_eq!(asked, Err(SendError::TooLarge));
    let half = Bytes::from(vec![0; 3000]);
    pair.a.send_tell(S, 1, R, None, half.clone()).unwrap();
    let told = pair.a.send_tell(S, 1, R, None, half.clone());
    assert_eq!(told, Err(SendError::OutboundFull));
    let asked = pair.a.send_ask(at, S, 1, R, None, ms(1), half);
    assert_eq!(asked, Err(SendError::OutboundFull));
}

/// An unknown service or type refuses an ask and drops a tell with a count; the tell's credit comes back.
#[test]
fn unknown_types() {
    let mut pair = Pair::open();
    pair.b.open_window(S, R, 256);
    pair.carry();
    events(&mut pair.a);
    let ask = pair
        .a
        .send_ask(pair.now, S, 99, R, None, ms(9), Bytes::new());
    ask.unwrap();
    pair.a.send_tell(S, 99, R, None, Bytes::new()).unwrap();
    pair.carry();
    let seen = events(&mut pair.b);
    assert_eq!(seen.len(), 2);
    pair.b.refuse_unknown(1);
    let Event::Tell(message) = &seen[1] else {
        panic!("{seen:?}")
    };
    pair.b.drop_unknown(message);
    pair.carry();
    let answer = Answer::UnknownType;
    let (service, type_id, why) = (S, 99, DroppedWhy::UnknownType);
    let dropped = Event::Dropped {
        service,
        type_id,
        why,
    };
    let answered = Event::Answer { id: 1, answer };
    assert_eq!(events(&mut pair.a), [dropped, Event::AskUnits(1), answered]);
    let stats = pair.b.stats();
    assert_eq!((stats.unknown_asks, stats.unknown_tells), (1, 1));
}

/// A draining end takes no new asks or sends, still answers the open ones, then says Down.
#[test]
fn drain_then_down() {
    let mut pair = Pair::open();
    let now = pair.now;
    let ask = |pair: &mut Pair| pair.a.send_ask(now, S, 1, R, None, ms(99), Bytes::new());
    ask(&mut pair).unwrap();
    pair.carry();
    events(&mut pair.b);
    pair.b.drain();
    ask(&mut pair).unwrap();
    pair.carry();
    let answer = Answer::Draining;
    let expected = [Event::AskUnits(1), Event::Answer { id: 2, answer }];
    assert_eq!(events(&mut pair.a), expected);
    let told = pair.b.send_tell(S, 1, R, None, Bytes::new());
    assert_eq!(told, Err(SendError::Closed));
    pair.b.send_reply(1, Answer::Ok(Bytes::new()));
    assert_eq!(pair.b.unanswered(), 0);
    pair.b.finish(Reason::Draining, "restart");
    pair.carry();
    let (stage, reason, detail) = (Stage::Open, Reason::Draining, "restart".to_owned());
    let answer = Answer::Ok(Bytes::new());
    let down = DownReason::Peer {
        stage,
        reason,
        detail,
    };
    let expected = [
        Event::AskUnits(1),
        Event::Answer { id: 1, answer },
        Event::Down(down),
    ];
    assert_eq!(events(&mut pair.a), expected);
}

/// Idle ends ping each other and stay up; one that hears nothing for the limit calls the peer silent.
#[test]
fn keepalive() {
    let mut pair = Pair::open();
    for second in 1..=60 {
        pair.tick(ms(5 + second * 1000));
        pair.carry();
    }
    assert_eq!(events(&mut pair.a), []);
    assert_eq!(pair.a.stats().frames_out, 2 + 6, "a ping each 10 s");
    let last = pair.now;
    pair.a.on_deadline(last + ms(29_999));
    assert_eq!(events(&mut pair.a), []);
    pair.a.on_deadline(last + ms(30_000));
    let stage = Stage::Open;
    let fault = crate::Fault::Silent;
    let down = Event::Down(DownReason::Misbehaved { stage, fault });
    assert_eq!(events(&mut pair.a), [down]);
    assert_eq!(pair.a.next_deadline(), None);
}

/// A peer with a longer keepalive than our limit is given three times its own interval.
#[test]
fn keepalive_follows_the_peers_promise() {
    let mut slow = config(Role::Relayer);
    slow.limits.keepalive = ms(60_000);
    let mut pair = Pair::with(config(Role::Sentry), slow);
    pair.greet();
    pair.a.on_deadline(ms(5) + ms(179_999));
    assert!(!pair.a.is_down());
    pair.a.on_deadline(ms(5) + ms(180_000));
    assert!(pair.a.is_down());
}

/// An ended connection is Lost, at the stage it had; limits out of range are moved into it.
#[test]
fn lost_and_clamped() {
    let mut pair = Pair::open();
    pair.a.on_lost(std::io::ErrorKind::UnexpectedEof);
    let down = DownReason::Lost {
        stage: Stage::Open,
        kind: std::io::ErrorKind::UnexpectedEof,
    };
    assert_eq!((down.stage(), down.reason()), (Stage::Open, None));
    assert_eq!(events(&mut pair.a), [Event::Down(down)]);
    assert_eq!(drain(&mut pair.a, pair.now), Vec::<u8>::new());
    let limits = Limits {
        max_frame: 1,
        ask_window: 0,
        tell_window: u32::MAX,
        keepalive: Duration::ZERO,
        ..Limits::default()
    };
    let link = Link::new(
        LinkConfig {
            limits,
            ..config(Role::Sentry)
        },
        ms(0),
    );
    let limits = &link.config().limits;
    let got = (limits.max_frame, limits.ask_window, limits.tell_window);
    assert_eq!(got, (crate::MIN_MAX_FRAME, MAX_COST, crate::MAX_WINDOW));
    assert_eq!(limits.keepalive, ms(1));
}

/// A reply over the asker's largest frame becomes the refusal that says so.
#[test]
fn reply_too_large() {
    let mut small = config(Role::Sentry);
    small.limits.max_frame = crate::MIN_MAX_FRAME;
    let mut pair = Pair::with(small, config(Role::Relayer));
    pair.greet();
    let ask = pair
        .a
        .send_ask(pair.now, S, 1, R, None, ms(9), Bytes::new());
    ask.unwrap();
    pair.carry();
    let large = Bytes::from(vec![1; 5000]);
    pair.b.send_reply(1, Answer::Ok(large));
    pair.carry();
    let answer = Answer::ReplyTooLarge;
    let expected = [Event::AskUnits(1), Event::Answer { id: 1, answer }];
    assert_eq!(events(&mut pair.a), expected);
}

/// A peer that asks without reading its replies is answered Busy once they pile up.
#[test]
fn unread_replies_make_busy() {
    let mut hoarder = config(Role::Relayer);
    hoarder.limits.max_outbound = 100;
    let mut pair = Pair::with(config(Role::Sentry), hoarder);
    pair.greet();
    let ask = |pair: &mut Pair| {
        let asked = pair
            .a
            .send_ask(pair.now, S, 1, R, None, ms(9), Bytes::new());
        asked.unwrap();
        let bytes = drain(&mut pair.a, pair.now);
        pair.b.on_bytes(pair.now, &bytes);
    };
    ask(&mut pair);
    pair.b.send_reply(1, Answer::Ok(Bytes::from(vec![1; 200])));
    events(&mut pair.b);
    ask(&mut pair);
    assert_eq!(events(&mut pair.b), [], "the second ask went no further");
    pair.carry();
    let answers = events(&mut pair.a);
    let answer = Answer::Busy;
    assert_eq!(answers[3], Event::Answer { id: 2, answer });
}

/// A request waits for the socket, and a control ask that comes later overtakes it: the peer takes both, the later id first.
#[test]
fn an_urgent_ask_overtakes() {
    let mut pair = Pair::open();
    for (class, id) in [(R, 1), (Class::Control, 2)] {
        let asked = (pair.a).send_ask(pair.now, S, 4, class, None, ms(1500), Bytes::new());
        assert_eq!(asked, Ok(id));
    }
    pair.carry();
    let came = events(&mut pair.b).into_iter().map(|event| match event {
        Event::Ask { id, .. } => id,
        other => panic!("{other:?}"),
    });
    assert_eq!(came.collect::<Vec<u64>>(), [2, 1]);
}
