//! Two pure ends and a fake clock.

mod faults;
mod flow;
mod fuzz;
mod pinned;
mod streams;
mod versions;

use std::time::Duration;

use bytes::Bytes;

use crate::{Class, Event, Inbound, Link, LinkConfig, PeerHello, Role, ServiceId};

const S: ServiceId = ServiceId::RELAY;
const R: Class = Class::Request;

fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

fn config(role: Role) -> LinkConfig {
    LinkConfig {
        software: "test/1".into(),
        ..LinkConfig::new(role, [ServiceId::RELAY, ServiceId::CONTROL])
    }
}

/// A sentry and a relayer, joined by nothing but [`Pair::carry`].
struct Pair {
    now: Duration,
    a: Link,
    b: Link,
}

impl Pair {
    fn new() -> Pair {
        Pair::with(config(Role::Sentry), config(Role::Relayer))
    }

    fn with(a: LinkConfig, b: LinkConfig) -> Pair {
        let now = ms(5);
        let (a, b) = (Link::new(a, now), Link::new(b, now));
        Pair { now, a, b }
    }

    /// Hello and Ready both ways.
    fn open() -> Pair {
        let mut pair = Pair::new();
        pair.greet();
        pair
    }

    fn greet(&mut self) -> (PeerHello, PeerHello) {
        self.carry();
        let of = |link: &mut Link| match events(link).as_slice() {
            [Event::Hello(hello)] => hello.clone(),
            other => panic!("{other:?}"),
        };
        let hellos = (of(&mut self.a), of(&mut self.b));
        self.a.accept();
        self.b.accept();
        self.carry();
        assert_eq!(events(&mut self.a), [Event::Open]);
        assert_eq!(events(&mut self.b), [Event::Open]);
        hellos
    }

    /// Moves every byte until neither side has any.
    fn carry(&mut self) {
        loop {
            let there = drain(&mut self.a, self.now);
            let back = drain(&mut self.b, self.now);
            if there.is_empty() && back.is_empty() {
                return;
            }
            self.b.on_bytes(self.now, &there);
            self.a.on_bytes(self.now, &back);
        }
    }

    /// Lets time pass to `now` on both sides.
    fn tick(&mut self, now: Duration) {
        self.now = now;
        self.a.on_deadline(now);
        self.b.on_deadline(now);
    }
}

fn drain(link: &mut Link, now: Duration) -> Vec<u8> {
    let mut out = Vec::new();
    while let Some(bytes) = link.poll_transmit(now, 1000) {
        out.extend_from_slice(&bytes);
    }
    out
}

fn events(link: &mut Link) -> Vec<Event> {
    std::iter::from_fn(|| link.poll_event()).collect()
}

fn inbound(type_id: u32, class: Class, payload: &'static [u8]) -> Inbound {
    Inbound {
        service: S,
        type_id,
        class,
        trace: None,
        incarnation: 0,
        payload: Bytes::from_static(payload),
        units: 1,
    }
}
