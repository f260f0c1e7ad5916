//! Typed links: frames from a peer that has said nothing yet, and from one whose link is open.

use std::time::Duration;

use pqcnet_link::{Class, Event, Link, LinkConfig, Role, ServiceId, Stage};

use crate::Target;

const T0: Duration = Duration::from_secs(1);
/// More than a poll hands out at once.
const WRITE: usize = 64 * 1024;

fn link(role: Role) -> Link {
    let services = [ServiceId::CONTROL, ServiceId::RELAY];
    Link::new(LinkConfig::new(role, services), T0)
}

/// Everything the link wants to say.
fn said(link: &mut Link) -> Vec<u8> {
    let mut out = Vec::new();
    while let Some(bytes) = link.poll_transmit(T0, WRITE) {
        out.extend_from_slice(&bytes);
    }
    out
}

/// Takes every event and answers a Hello; nothing comes after the end.
fn events(link: &mut Link) -> Vec<Event> {
    let mut seen = Vec::new();
    while let Some(event) = link.poll_event() {
        assert!(!matches!(seen.last(), Some(Event::Down(_))), "{event:?}");
        if matches!(event, Event::Hello(_)) {
            link.accept();
        }
        seen.push(event);
    }
    seen
}

fn open_pair() -> (Link, Link) {
    let (mut ours, mut theirs) = (link(Role::Sentry), link(Role::Relayer));
    for _ in 0..3 {
        let (a, b) = (said(&mut ours), said(&mut theirs));
        ours.on_bytes(T0, &b);
        theirs.on_bytes(T0, &a);
        events(&mut ours);
        events(&mut theirs);
    }
    assert!(ours.is_open() && theirs.is_open());
    said(&mut ours);
    said(&mut theirs);
    (ours, theirs)
}

/// The bytes in one piece lead to an end or to none. On an open link the same bytes in pieces lead to the same events;
/// before that the answer to a Hello lies between two pieces, so what follows may be judged sooner or later.
fn feed(mut make: impl FnMut() -> Link, data: &[u8]) {
    // What it says may lie in another order: words not yet sent are dropped when the link ends.
    let outcome = |mut link: Link, piece: usize| {
        let mut seen = Vec::new();
        for piece in data.chunks(piece) {
            link.on_bytes(T0, piece);
            seen.extend(events(&mut link));
            said(&mut link);
            if link.is_down() {
                break;
            }
        }
        let stage: Stage = link.stage();
        format!("{seen:?} {stage:?}")
    };
    let whole = outcome(make(), data.len().max(1));
    if data.len() <= 256 {
        let in_pieces = outcome(make(), 1);
        assert!(
            !make().is_open() || in_pieces == whole,
            "{in_pieces}\n{whole}"
        );
    }
}

/// Before the Hello.
pub const LINK: Target = Target {
    name: "link_hello",
    body: |data| feed(|| link(Role::Sentry), data),
    seeds: || {
        let hello = said(&mut link(Role::Relayer));
        let (mut ours, mut theirs) = (link(Role::Sentry), link(Role::Relayer));
        ours.on_bytes(T0, &said(&mut theirs));
        events(&mut ours);
        theirs.on_bytes(T0, &said(&mut ours));
        events(&mut theirs);
        let ready = [&hello[..], &said(&mut theirs)].concat();
        vec![hello, ready]
    },
};

/// On an open link.
pub const LINK_OPEN: Target = Target {
    name: "link_frames",
    body: |data| feed(|| open_pair().0, data),
    seeds: || {
        let mut seeds = Vec::new();
        let mut with = |act: &dyn Fn(&mut Link)| {
            let (_, mut theirs) = open_pair();
            act(&mut theirs);
            let words = said(&mut theirs);
            if !words.is_empty() {
                seeds.push(words);
            }
        };
        with(&|link| link.grant(ServiceId::RELAY, Class::Request, 16));
        with(&|link| link.reject(pqcnet_link::Reason::Role, "why"));
        for frame in super::links::hand_made() {
            seeds.push(frame);
        }
        seeds
    },
};

/// Frames as docs/spec/link.md has them: length u32, then the kind's field and a body.
pub fn hand_made() -> Vec<Vec<u8>> {
    (1u8..=24)
        .flat_map(|kind| {
            [
                &[][..],
                &[0x08, 1],
                &[0x08, 1, 0x10, 2, 0x18, 1, 0x22, 1, b'x'],
            ]
            .map(|body| {
                // One field of the envelope, length-delimited.
                let mut frame = Vec::new();
                let key = u32::from(kind) << 3 | 2;
                if key < 128 {
                    frame.push(key as u8);
                } else {
                    frame.extend_from_slice(&[(key & 0x7f) as u8 | 0x80, (key >> 7) as u8]);
                }
                frame.push(body.len() as u8);
                frame.extend_from_slice(body);
                let len = (frame.len() as u32).to_be_bytes();
                [&len[..], &frame].concat()
            })
        })
        .collect()
}
