//! Random input and random schedules.

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::{Answer, DownReason};

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    /// Random bytes, cut anywhere, at either stage: an orderly end or nothing, never a panic.
    #[test]
    fn random_bytes_never_panic(chunks in vec(vec(any::<u8>(), 0..60), 0..20), open: bool) {
        let mut link = if open { Pair::open().b } else { Link::new(config(Role::Relayer), ms(0)) };
        for chunk in chunks {
            link.on_bytes(ms(6), &chunk);
            for event in events(&mut link) {
                let expected = matches!(event, Event::Down(DownReason::Misbehaved { .. } | DownReason::Peer { .. }));
                prop_assert!(expected || open);
            }
        }
    }

    /// Framed random bodies get past the length prefix and still never panic.
    #[test]
    fn random_frames_never_panic(bodies in vec(vec(any::<u8>(), 0..40), 0..20)) {
        let mut link = Pair::open().b;
        link.open_window(S, R, 256);
        for body in bodies {
            let mut bytes = (body.len() as u32).to_be_bytes().to_vec();
            bytes.extend(body);
            link.on_bytes(ms(6), &bytes);
            for event in events(&mut link) {
                if let Event::Ask { id, .. } = event {
                    link.send_reply(id, Answer::Busy);
                }
            }
        }
    }

    /// Every byte of a conversation flipped in turn: the receiver ends in order or reads something else; no panic.
    #[test]
    fn flipped_bits_never_panic(at in any::<prop::sample::Index>(), bit in 0..8) {
        let mut pair = Pair::open();
        pair.b.open_window(S, R, 256);
        pair.carry();
        pair.a.send_tell(S, 1, R, None, Bytes::from_static(b"hello")).unwrap();
        pair.a.send_ask(pair.now, S, 1, R, None, ms(9), Bytes::from_static(b"hello")).unwrap();
        let mut bytes = drain(&mut pair.a, pair.now);
        let at = at.index(bytes.len());
        bytes[at] ^= 1u8 << bit;
        pair.b.on_bytes(pair.now, &bytes);
        prop_assert!(events(&mut pair.b).len() <= 3);
    }

    /// However the bytes are cut and in whatever pieces they are taken, every tell arrives once, in order, byte for byte,
    /// and the sender never exceeds its credit.
    #[test]
    fn tells_arrive_in_order(sizes in vec(0usize..40_000, 1..40), cut in 1usize..5000, hold in 0usize..5) {
        let mut pair = Pair::open();
        pair.b.open_window(S, R, crate::MAX_COST);
        pair.carry();
        let messages: Vec<Bytes> = sizes.iter().enumerate().map(|(n, size)| Bytes::from(vec![n as u8; *size])).collect();
        let mut waiting = messages.iter();
        let mut next = waiting.next();
        let mut seen = Vec::new();
        let mut held = std::collections::VecDeque::new();
        for _ in 0..10_000 {
            while let Some(message) = next {
                if pair.a.send_tell(S, 1, R, None, message.clone()).is_err() {
                    break;
                }
                next = waiting.next();
            }
            if let Some(bytes) = pair.a.poll_transmit(pair.now, cut) {
                for piece in bytes.chunks(cut) {
                    pair.b.on_bytes(pair.now, piece);
                }
            }
            for event in events(&mut pair.b) {
                match event {
                    Event::Tell(message) => held.push_back(message),
                    other => prop_assert!(false, "{other:?}"),
                }
            }
            // A slow consumer keeps some back while more can come.
            while held.len() > if next.is_some() { hold } else { 0 } {
                let Some(message) = held.pop_front() else { break };
                pair.b.grant(S, R, message.units);
                seen.push(message.payload);
            }
            let back = drain(&mut pair.b, pair.now);
            pair.a.on_bytes(pair.now, &back);
            if seen.len() == messages.len() {
                break;
            }
            // Held messages may be all that the credit allows.
            if let Some(message) = held.pop_front() {
                pair.b.grant(S, R, message.units);
                seen.push(message.payload);
            }
        }
        prop_assert_eq!(seen, messages);
    }
}
