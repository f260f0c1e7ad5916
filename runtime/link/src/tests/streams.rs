//! Subscriptions, watches, sequenced tells and refusals between two pure ends.

use pqcnet_protos::link::v1::{self as pb, event, frame::Kind};
use prost::Message as _;

use super::*;
use crate::reliable::Outgoing;
use crate::{
    AckState, Backlog, BacklogLimits, DownReason, DroppedWhy, EndedWhy, Fate, Fault, MAX_COST,
    MAX_SUBSCRIPTIONS, MAX_WATCHES, Missed, Notice, Position, SendError, Stage, StreamNotice, To,
    frame,
};

const T: u32 = 9;

fn at(epoch: u64, number: u64) -> Position {
    Position { epoch, number }
}

fn item(epoch: u64, number: u64, payload: &'static [u8]) -> Notice {
    let (position, payload) = (at(epoch, number), Bytes::from_static(payload));
    Notice::Item { position, payload }
}

fn noticed(id: u64, notice: Notice, units: u32) -> Event {
    let notice = StreamNotice::Notice { notice, units };
    Event::Notice { id, notice }
}

fn ended(id: u64, why: EndedWhy) -> Event {
    let notice = StreamNotice::Ended {
        why,
        detail: String::new(),
    };
    Event::Notice { id, notice }
}

/// One subscribes, gets what is published, consumes, and has enough; the last word is the publisher's, and unheard.
#[test]
fn a_subscription() {
    let mut pair = Pair::open();
    let id = pair.a.subscribe(S, T, Some(at(5, 6)), MAX_COST).unwrap();
    pair.carry();
    let (service, type_id, after) = (S, T, Some(at(5, 6)));
    let subscribe = Event::Subscribe {
        id,
        service,
        type_id,
        after,
    };
    assert_eq!(events(&mut pair.b), [subscribe]);
    pair.b.begin_subscription(id, 5, 7);
    pair.b.send_notice(id, &item(5, 7, b"seven")).unwrap();
    let gap = Notice::Missed(Missed {
        epoch: 5,
        first: 8,
        last: Some(9),
    });
    pair.b.send_notice(id, &gap).unwrap();
    pair.b.send_notice(id, &item(5, 10, b"ten")).unwrap();
    pair.carry();
    let (epoch, next) = (5, 7);
    let begun = Event::Notice {
        id,
        notice: StreamNotice::Begun { epoch, next },
    };
    let expected = [
        begun,
        noticed(id, item(5, 7, b"seven"), 1),
        noticed(id, gap, 1),
        noticed(id, item(5, 10, b"ten"), 1),
    ];
    assert_eq!(events(&mut pair.a), expected);
    pair.a.unsubscribe(id);
    // It crosses: dropped.
    pair.b.send_notice(id, &item(5, 11, b"more")).unwrap();
    pair.carry();
    assert_eq!(events(&mut pair.b), [Event::Unsubscribed { id }]);
    assert_eq!(events(&mut pair.a), []);
    assert_eq!(
        pair.b.send_notice(id, &item(5, 12, b"")),
        Err(SendError::Closed)
    );
    assert_eq!(pair.a.subscribe(S, T, None, MAX_COST), Ok(2));
}

/// The window holds the publisher back; consuming opens it again. What does not fit a frame never will.
#[test]
fn a_window() {
    let mut pair = Pair::open();
    let id = pair.a.subscribe(S, T, None, MAX_COST).unwrap();
    pair.carry();
    pair.b.begin_subscription(id, 5, 1);
    let mut n = 0;
    let refused = loop {
        match pair.b.send_notice(id, &item(5, n + 1, b"x")) {
            Ok(()) => n += 1,
            Err(refused) => break refused,
        }
    };
    assert_eq!((n, refused), (u64::from(MAX_COST), SendError::NoCredit));
    pair.carry();
    assert_eq!(events(&mut pair.a).len() as u64, n + 1);
    pair.a.consumed(id, 1);
    pair.carry();
    pair.b.send_notice(id, &item(5, n + 1, b"x")).unwrap();
    let large = Notice::Item {
        position: at(5, n + 2),
        payload: Bytes::from(vec![0; crate::MAX_FRAME as usize]),
    };
    assert_eq!(pair.b.send_notice(id, &large), Err(SendError::TooLarge));
}

/// A backlog of three and a subscriber that takes nothing for a while: what arrives are the exact gap and the last three.
#[test]
fn gaps_over_a_link() {
    let mut pair = Pair::open();
    let limits = BacklogLimits {
        events: 3,
        bytes: 1000,
    };
    let mut backlog = Backlog::new(5, limits);
    let id = pair.a.subscribe(S, T, None, MAX_COST).unwrap();
    pair.carry();
    let mut cursor = backlog.subscribe(None).unwrap();
    pair.b.begin_subscription(id, 5, cursor.next_number());
    let total = 3 * u64::from(MAX_COST);
    let mut seen = 0;
    let mut missed = 0;
    for n in 1..=total {
        backlog.publish(Bytes::from_static(b"x"));
        if n == total {
            // Only now the subscriber consumes.
            pair.carry();
            pair.a.consumed(id, MAX_COST);
            pair.carry();
        }
        while let Some(notice) = cursor.peek(&backlog) {
            if pair.b.send_notice(id, &notice).is_err() {
                break;
            }
            cursor.advance(&notice);
        }
    }
    pair.carry();
    for event in events(&mut pair.a) {
        match event {
            Event::Notice {
                notice: StreamNotice::Notice { notice, .. },
                ..
            } => match notice {
                Notice::Item { position, .. } => {
                    assert_eq!(position.number, seen + missed + 1);
                    seen += 1;
                }
                Notice::Missed(gap) => {
                    assert_eq!(gap.first, seen + missed + 1);
                    missed += gap.last.unwrap() - gap.first + 1;
                }
            },
            other => assert!(matches!(
                other,
                Event::Subscribe { .. } | Event::Notice { .. }
            )),
        }
    }
    assert_eq!(seen + missed, total, "every number is an event or in a gap");
    assert_eq!(seen, u64::from(MAX_COST) + 3);
}

/// Not served here, one too many there, and a side that is closing: each ends with its reason.
#[test]
fn refused_subscriptions() {
    let mut pair = Pair::open();
    let none = SendError::NotServed(ServiceId::EDGE);
    assert_eq!(pair.a.subscribe(ServiceId::EDGE, T, None, 68), Err(none));
    for n in 1..=MAX_SUBSCRIPTIONS as u64 {
        assert_eq!(pair.a.subscribe(S, T, None, 68), Ok(n));
    }
    assert_eq!(pair.a.subscribe(S, T, None, 68), Err(SendError::TooMany));
    pair.carry();
    assert_eq!(events(&mut pair.b).len(), MAX_SUBSCRIPTIONS);
    pair.b.end_subscription(1, EndedWhy::Refused, "");
    pair.b.end_subscription(1, EndedWhy::Refused, "");
    pair.carry();
    assert_eq!(events(&mut pair.a), [ended(1, EndedWhy::Refused)]);
    pair.b.drain();
    let id = pair.a.subscribe(S, T, None, 68).unwrap();
    pair.carry();
    assert_eq!(events(&mut pair.a), [ended(id, EndedWhy::Draining)]);
}

/// The peer subscribes and watches beyond the limits of a link: ended, not watched; the link lives.
#[test]
fn beyond_the_limits() {
    let mut link = Pair::open().b;
    for id in 1..=MAX_SUBSCRIPTIONS as u64 + 1 {
        link.on_bytes(ms(6), &bytes(subscribe(id, 68)));
    }
    assert_eq!(events(&mut link).len(), MAX_SUBSCRIPTIONS);
    let mut sent = frame::Decoder::default();
    sent.feed(&drain(&mut link, ms(6)));
    let Ok(Some(Kind::Event(last))) = sent.next(4096) else {
        panic!("not ended")
    };
    let Some(event::Kind::Ended(ended)) = last.kind else {
        panic!("not ended")
    };
    assert_eq!(ended.why(), pb::EndedWhy::Limit);
    for id in 1..=MAX_WATCHES as u64 + 1 {
        link.on_bytes(ms(6), &bytes(watch(id)));
    }
    assert_eq!(events(&mut link).len(), MAX_WATCHES);
    let mut sent = frame::Decoder::default();
    sent.feed(&drain(&mut link, ms(6)));
    let Ok(Some(Kind::Fate(fate))) = sent.next(4096) else {
        panic!("no fate")
    };
    assert_eq!(fate.kind(), pb::FateKind::NotWatched);
}

/// Watched: present, then panicked. Given up: unheard. Of a service that is not there: not watched.
#[test]
fn watches() {
    let mut pair = Pair::open();
    let id = pair.a.watch(S, T).unwrap();
    let second = pair.a.watch(S, T).unwrap();
    pair.carry();
    let (service, type_id) = (S, T);
    let watched = |id| Event::Watch {
        id,
        service,
        type_id,
    };
    assert_eq!(events(&mut pair.b), [watched(id), watched(second)]);
    pair.b.send_fate(id, Fate::Present(77));
    pair.b.send_fate(second, Fate::Present(77));
    pair.carry();
    let fate = |id, fate| Event::Fate { id, fate };
    let present = Fate::Present(77);
    assert_eq!(
        events(&mut pair.a),
        [fate(id, present), fate(second, present)]
    );
    pair.a.unwatch(second);
    pair.b.send_fate(second, Fate::Stopped(77));
    pair.b.send_fate(id, Fate::Panicked(77));
    pair.b.send_fate(id, Fate::Panicked(77));
    pair.carry();
    assert_eq!(events(&mut pair.a), [fate(id, Fate::Panicked(77))]);
    assert_eq!(events(&mut pair.b), [], "it had ended already");
    // The peer offers no such service, so none is asked for; a rogue asks anyway.
    let mut link = Pair::open().b;
    let wrong = pb::Watch {
        id: 1,
        service: 77,
        r#type: 1,
    };
    link.on_bytes(ms(6), &bytes(Kind::Watch(wrong)));
    assert_eq!(events(&mut link), []);
    assert!(!drain(&mut link, ms(6)).is_empty());
}

/// A sequenced tell costs credit as any, and is acknowledged; of several acknowledgements only the last is sent.
#[test]
fn sequenced() {
    let mut pair = Pair::open();
    pair.b.open_window(S, R, 68);
    pair.carry();
    events(&mut pair.a);
    let out = Outgoing {
        stream: 8,
        number: 1,
        life: 3,
        payload: Bytes::from_static(b"pay"),
    };
    pair.a.send_sequenced(out, To::any(S, T, R), None).unwrap();
    assert_eq!(pair.a.credit(S, R), 67);
    pair.carry();
    let (stream, number, life) = (8, 1, 3);
    let message = inbound(T, R, b"pay");
    let sequenced = Event::Sequenced {
        stream,
        number,
        life,
        message,
    };
    assert_eq!(events(&mut pair.b), [sequenced]);
    pair.b.send_ack(8, AckState::Repeat, 0, 3);
    pair.b.send_ack(8, AckState::Taken, 1, 3);
    pair.b.send_ack(9, AckState::Refused("no".into()), 0, 3);
    pair.carry();
    let ack = |stream, state, number| Event::Ack {
        stream,
        state,
        number,
        life: 3,
    };
    let refused = AckState::Refused("no".into());
    let expected = [ack(8, AckState::Taken, 1), ack(9, refused, 0)];
    assert_eq!(events(&mut pair.a), expected);
}

/// A tell of a type that is not known is said to be dropped, and its credit comes back.
#[test]
fn a_dropped_tell() {
    let mut pair = Pair::open();
    pair.b.open_window(S, R, 68);
    pair.carry();
    events(&mut pair.a);
    pair.a.send_tell(S, T, R, None, Bytes::new()).unwrap();
    pair.carry();
    let [Event::Tell(message)] = &events(&mut pair.b)[..] else {
        panic!("no tell")
    };
    pair.b.drop_unknown(message);
    pair.carry();
    let (service, type_id, why) = (S, T, DroppedWhy::UnknownType);
    let dropped = Event::Dropped {
        service,
        type_id,
        why,
    };
    assert_eq!(events(&mut pair.a)[0], dropped);
    assert_eq!(pair.a.stats().dropped_by_peer, 1);
    assert_eq!(pair.b.stats().unknown_tells, 1);
}

/// Whatever a peer may not send is counted; one more than is borne ends the link.
#[test]
fn refusals_end_a_link() {
    let mut config = config(Role::Relayer);
    config.limits.max_refusals = 2;
    let mut pair = Pair::with(super::config(Role::Sentry), config);
    pair.greet();
    for _ in 0..2 {
        pair.b.penalise();
    }
    assert_eq!((pair.b.stats().refused, pair.b.is_down()), (2, false));
    pair.b.penalise();
    let (stage, fault) = (Stage::Open, Fault::TooManyRefused { limit: 2 });
    let down = DownReason::Misbehaved { stage, fault };
    assert_eq!(events(&mut pair.b), [Event::Down(down)]);
}

fn bytes(kind: Kind) -> Vec<u8> {
    let body = frame::of(kind).encode_to_vec();
    let mut bytes = (body.len() as u32).to_be_bytes().to_vec();
    bytes.extend(body);
    bytes
}

fn subscribe(id: u64, window: u32) -> Kind {
    Kind::Subscribe(pb::Subscribe {
        id,
        service: S.0,
        r#type: T,
        epoch: 0,
        after: 0,
        window,
    })
}

fn watch(id: u64) -> Kind {
    Kind::Watch(pb::Watch {
        id,
        service: S.0,
        r#type: T,
    })
}

fn expect(mut link: Link, wrong: Vec<Kind>, what: &'static str, id: u64, problem: &'static str) {
    for kind in wrong {
        link.on_bytes(ms(6), &bytes(kind));
    }
    let stage = Stage::Open;
    let fault = Fault::BadStream { what, id, problem };
    let down = DownReason::Misbehaved { stage, fault };
    assert_eq!(events(&mut link).pop(), Some(Event::Down(down)));
}

/// What a peer can get wrong with its own subscriptions and watches.
#[test]
fn wrong_requests() {
    let b = || Pair::open().b;
    let rise = "has a number that did not rise";
    expect(
        b(),
        vec![subscribe(1, 68), subscribe(1, 68)],
        "subscription",
        1,
        rise,
    );
    expect(
        b(),
        vec![subscribe(1, 67)],
        "subscription",
        1,
        "has an unusable window",
    );
    expect(b(), vec![watch(2), watch(1)], "watch", 1, rise);
    let consumed = Kind::Consumed(pb::Consumed {
        subscription: 1,
        units: 1,
    });
    expect(b(), vec![consumed], "subscription", 1, "is not open");
    let unsubscribe = Kind::Unsubscribe(pb::Unsubscribe { subscription: 1 });
    expect(b(), vec![unsubscribe], "subscription", 1, "is not open");
    let unwatch = Kind::Unwatch(pb::Unwatch { id: 1 });
    expect(b(), vec![unwatch], "watch", 1, "was never begun");
    let mut link = b();
    let flood = pb::Consumed {
        subscription: 1,
        units: crate::MAX_WINDOW,
    };
    link.on_bytes(ms(6), &bytes(subscribe(1, 68)));
    link.on_bytes(ms(6), &bytes(Kind::Consumed(flood)));
    let limit = crate::MAX_WINDOW;
    let (stage, fault) = (Stage::Open, Fault::CreditOverflow { limit });
    let down = DownReason::Misbehaved { stage, fault };
    assert_eq!(events(&mut link).pop(), Some(Event::Down(down)));
}

fn told(kind: event::Kind) -> Kind {
    Kind::Event(pb::Event {
        subscription: 1,
        kind: Some(kind),
    })
}

/// What a publisher can get wrong: it may leave nothing out without saying so.
#[test]
fn wrong_events() {
    let begun = |epoch, next| told(event::Kind::Begun(pb::Begun { epoch, next }));
    let item = |number| {
        let payload = Bytes::new();
        told(event::Kind::Item(pb::Item { number, payload }))
    };
    let gap = |epoch, first, last| told(event::Kind::Gap(pb::Gap { epoch, first, last }));
    let fresh = || {
        let mut link = Pair::open().a;
        link.subscribe(S, T, None, 68).unwrap();
        link
    };
    let resumed = || {
        let mut link = Pair::open().a;
        link.subscribe(S, T, Some(at(5, 6)), 68).unwrap();
        link
    };
    let say = |link, wrong, problem| expect(link, wrong, "subscription", 1, problem);
    say(Pair::open().a, vec![begun(5, 1)], "is not open");
    say(fresh(), vec![begun(0, 1)], "begins wrongly");
    say(fresh(), vec![begun(5, 1), begun(5, 1)], "begins wrongly");
    say(resumed(), vec![begun(5, 8)], "resumes at another place");
    say(
        resumed(),
        vec![begun(6, 2)],
        "begins an epoch in its middle",
    );
    let silent = "leaves events out without a word";
    say(fresh(), vec![item(1)], silent);
    say(fresh(), vec![begun(5, 3), item(4)], silent);
    say(resumed(), vec![begun(6, 1), item(1)], silent);
    let none = "names a gap that is none";
    say(fresh(), vec![gap(5, 1, 2)], none);
    say(fresh(), vec![begun(5, 3), gap(5, 4, 9)], none);
    say(fresh(), vec![begun(5, 3), gap(5, 3, 2)], none);
    say(fresh(), vec![begun(5, 3), gap(5, 3, 0)], none);
    say(resumed(), vec![begun(6, 1), gap(5, 8, 0)], none);
    let mut many = vec![begun(5, 1)];
    many.extend((1..=69).map(item));
    say(fresh(), many, "sends beyond its window");
    // The right words for a source that was restarted.
    let mut link = resumed();
    for kind in [begun(6, 1), gap(5, 7, 0), item(1)] {
        link.on_bytes(ms(6), &bytes(kind));
    }
    assert!(!link.is_down());
    let unheard = Kind::Fate(pb::Fate {
        id: 1,
        ..pb::Fate::default()
    });
    expect(Pair::open().a, vec![unheard], "watch", 1, "was never begun");
}

/// A peer that subscribes to what is not there again and again and reads none of the answers.
#[test]
fn unpaid_answers_are_bounded() {
    let mut link = Pair::open().b;
    let mut id = 0;
    while !link.is_down() {
        id += 1;
        let wrong = pb::Watch {
            id,
            service: 77,
            r#type: 1,
        };
        link.on_bytes(ms(6), &bytes(Kind::Watch(wrong)));
        assert!(link.outbound() < 300 * 1024);
    }
    let (stage, fault) = (Stage::Open, Fault::NotReading);
    let down = DownReason::Misbehaved { stage, fault };
    assert_eq!(events(&mut link), [Event::Down(down)]);
}

/// A dribbler: a byte of a frame each five seconds. It is cut off when the frame's time is over, though it was never silent;
/// one whose frames are each finished in time lives on.
#[test]
fn a_dribbler() {
    let mut link = Pair::open().b;
    let ask = bytes(Kind::Ask(pb::Ask {
        id: 1,
        payload: Bytes::from(vec![0; 500]),
        ..pb::Ask::default()
    }));
    let began = ms(10_000);
    for (n, byte) in ask.iter().enumerate() {
        let now = began + ms(5000) * n as u32;
        if now > began + ms(30_000) {
            break;
        }
        link.on_deadline(now);
        assert_eq!(link.is_down(), n == 6, "{now:?}");
        link.on_bytes(now, std::slice::from_ref(byte));
        if n < 6 {
            let due = began + ms(30_000);
            assert!(link.next_deadline().unwrap() <= due);
        }
    }
    let (stage, fault) = (Stage::Open, Fault::SlowFrame);
    let down = DownReason::Misbehaved { stage, fault };
    assert_eq!(events(&mut link), [Event::Down(down)]);
    let mut link = Pair::open().b;
    let ping = bytes(Kind::Ping(pb::Ping {}));
    for n in 0..100 {
        let now = began + ms(5000) * n;
        link.on_deadline(now);
        link.on_bytes(now, &[ping[n as usize % ping.len()]]);
        drain(&mut link, now);
    }
    assert!(!link.is_down(), "each ping took thirty seconds");
}
