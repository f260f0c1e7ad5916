//! No key and nonce twice: a ledger of every seal of many sessions.
//!
//! The ledger does not ask the sealer what it used. A record whose content begins with zeros shows the first block of its
//! keystream, a function of key and nonce alone in both ciphers; so two equal blocks are one pair used twice, whoever
//! kept the count. The other way round, two different pairs share 64 bits once in some 10^5 runs of 10^7 seals.

use std::time::Duration;

use super::net::*;
use crate::record::{HEADER_LEN, OVERHEAD};
use crate::schedule::{Chain, HandshakeKeys, Side};
use crate::*;

/// Zeros at the front of each content: as many as the ledger keeps.
const SHOWN: usize = 8;

/// A set of 64-bit blocks: open addressing in one allocation, so that 10^7 entries cost 256 MiB and seconds in a test
/// build.
struct Ledger {
    slots: Vec<u64>,
    entries: usize,
    repeats: usize,
}

impl Ledger {
    fn new(room: usize) -> Ledger {
        Ledger {
            slots: vec![0; (2 * room).next_power_of_two()],
            entries: 0,
            repeats: 0,
        }
    }

    fn enter(&mut self, block: u64) {
        assert_ne!(block, 0, "once in 2^64: zero marks a free slot");
        let mask = self.slots.len() - 1;
        let mut at = block as usize & mask;
        while self.slots[at] != 0 {
            if self.slots[at] == block {
                self.repeats += 1;
                return;
            }
            at = (at + 1) & mask;
        }
        self.slots[at] = block;
        self.entries += 1;
    }

    /// Seals one record of zeros and enters the block it shows.
    fn seal(&mut self, sealer: &mut Sealer, now: Duration, kind: Kind) {
        let mut record = [0; OVERHEAD + SHOWN];
        sealer.seal_in_place(now, kind, &mut record).unwrap();
        self.enter_record(&record);
    }

    fn enter_record(&mut self, record: &[u8]) {
        let shown = record[HEADER_LEN..][..SHOWN].try_into().unwrap();
        self.enter(u64::from_be_bytes(shown));
    }

    /// The block of a handshake's own one-message key.
    fn enter_one_shot(&mut self, key: &schedule::OneShot) {
        let mut text = [0; SHOWN];
        let _tag = key.seal(b"", &mut text);
        self.enter(u64::from_be_bytes(text));
    }
}

/// A small generator for schedules: splitmix64.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, below: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % below
    }
}

/// Both sealers of a new session between the same two nodes, and the handshake's own four keys in the ledger.
fn session(ledger: &mut Ledger, suite: Suite, limits: Limits) -> [Sealer; 2] {
    let bob = only(BOB, suite).with_limits(limits).unwrap();
    let (mut pair, first) = Pair::new(config(ALICE), bob);
    let reply = m2(pair.bob_takes(Admission::Accept, &first).unwrap());
    let replied = pair.bob.replied();
    for side in [Side::Initiator, Side::Responder] {
        ledger.enter_one_shot(&replied.keys.seal(side));
        ledger.enter_one_shot(&replied.keys.reject(side));
    }
    let (last, alice, _) = m3(pair.alice.on_message(&reply).unwrap());
    let (bob, _) = done(pair.bob_takes(Admission::Accept, &last).unwrap());
    [alice.split().0, bob.split().0]
}

/// `seals` records over eight sessions at a time, both suites, both directions, in bursts; keys change after 1, 2, 3, 1,000,
/// 65,536 or 2^23 records and as the clock jumps past their age; one burst in 4,096 ends a session and a new one of the
/// same two nodes takes its place.
fn many(seed: u64, seals: usize) -> (Ledger, u64, usize) {
    let mut ledger = Ledger::new(seals + seals / 64 + 4_096);
    let mut dice = Dice(seed);
    let mut now = T0;
    let mut opened = 0;
    let mut epochs = 0;
    let mut new = |ledger: &mut Ledger, dice: &mut Dice| {
        opened += 1;
        let limits = Limits {
            epoch_records: [1, 2, 3, 1_000, 65_536, 1 << 23][dice.roll(6) as usize],
            epoch_ms: [1_000, 60_000, 3_600_000][dice.roll(3) as usize],
            ..Limits::default()
        };
        session(ledger, SUITES[dice.roll(2) as usize], limits)
    };
    let mut sessions: Vec<[Sealer; 2]> = (0..8).map(|_| new(&mut ledger, &mut dice)).collect();
    let mut left = seals;
    while left > 0 {
        let at = dice.roll(8) as usize;
        let sealer = &mut sessions[at][dice.roll(2) as usize];
        let burst = (1 + dice.roll(512) as usize).min(left);
        for _ in 0..burst {
            ledger.seal(sealer, now, Kind::Data);
        }
        left -= burst;
        now += Duration::from_millis(dice.roll(200));
        if dice.roll(4_096) == 0 {
            epochs += sessions[at].iter().map(Sealer::epoch).sum::<u64>();
            sessions[at] = new(&mut ledger, &mut dice);
        }
    }
    epochs += sessions.iter().flatten().map(Sealer::epoch).sum::<u64>();
    (ledger, epochs, opened)
}

fn no_repeat_in(seals: usize) {
    let (ledger, epochs, sessions) = many(seals as u64, seals);
    assert_eq!(ledger.repeats, 0, "a key and a nonce were used twice");
    assert_eq!(ledger.entries, seals + 4 * sessions, "every seal is in");
    println!("{seals} seals, {sessions} sessions, {epochs} key updates, no repeat");
    assert!(epochs as usize > seals / 64, "{epochs} key updates");
}

// A million seals: no key and nonce twice, across key updates, directions, suites and sessions.
#[test]
fn a_million_seals_repeat_nothing() {
    no_repeat_in(1_000_000);
}

// Ten million. `make soak` runs it in a release build; in a debug build it takes most of a minute.
#[test]
#[ignore = "ten million seals: `make soak`"]
fn ten_million_seals_repeat_nothing() {
    no_repeat_in(10_000_000);
}

/// What a ledger says of a sealer after a record sealed by each of `steps`.
fn repeats(sealer: &mut Sealer, steps: &[fn(&mut Sealer)]) -> usize {
    let mut ledger = Ledger::new(64);
    for step in steps {
        step(sealer);
        ledger.seal(sealer, T0, Kind::Data);
    }
    ledger.repeats
}

// The ledger can fail: sealers that lose count, forget to change the key, or were copied are all found, in both suites.
#[test]
fn broken_sealers_are_caught() {
    const ON: fn(&mut Sealer) = |_| {};
    for suite in SUITES {
        let limits = |epoch_records| Limits {
            epoch_records,
            ..Limits::default()
        };
        let sealer = |limits| {
            let [out, _] = session(&mut Ledger::new(8), suite, limits);
            out
        };
        // An honest one, over key updates.
        assert_eq!(repeats(&mut sealer(limits(2)), &[ON; 9]), 0);
        // Counts a record number twice.
        let stutters: &[fn(&mut Sealer)] = &[ON, ON, |out| out.skip_to(1)];
        assert_eq!(repeats(&mut sealer(limits(1_000)), stutters), 1);
        // Begins a new epoch's numbers under the old key.
        let forgets: &[fn(&mut Sealer)] = &[ON, ON, ON, |out| out.skip_to(0), ON, ON];
        assert_eq!(repeats(&mut sealer(limits(1_000)), forgets), 3);
    }
}

// The same secret in two processes, as after a restored snapshot, or a chain that begins again: the second sealer repeats
// the first, record for record and epoch for epoch. The other direction's chain, and another session's, repeat nothing.
#[test]
fn copied_sessions_are_caught() {
    for suite in SUITES {
        let keys = |byte| {
            let hs = pqcnet_crypto::kdf::extract(&[byte], b"secret");
            HandshakeKeys::new(hs, suite, [byte; 32])
        };
        let sealer = |byte, side| {
            let chain = Chain::first(&keys(byte).master(&[1; 32]), side, [1; 32]);
            let limits = Limits {
                epoch_records: 3,
                ..Limits::default()
            };
            Sealer::new(chain, suite, limits)
        };
        let after = |sealers: [Sealer; 2]| {
            let mut ledger = Ledger::new(64);
            for mut sealer in sealers {
                for _ in 0..10 {
                    ledger.seal(&mut sealer, T0, Kind::Data);
                }
            }
            ledger.repeats
        };
        let first = || sealer(1, Side::Initiator);
        assert_eq!(after([first(), first()]), 10);
        assert_eq!(after([first(), sealer(1, Side::Responder)]), 0);
        assert_eq!(after([first(), sealer(2, Side::Initiator)]), 0);
    }
}

// What the ledger reads off a record is the keystream of its key and nonce: the same under another kind and associated
// data, another with another nonce.
#[test]
fn the_ledger_sees_key_and_nonce_alone() {
    use pqcnet_crypto::SealKey;
    for suite in SUITES {
        let key = SealKey::new(suite.aead(), &[7; 32]);
        let shown = |nonce: u8, aad: &[u8], tail: &[u8]| {
            let mut text = [&[0; SHOWN][..], tail].concat();
            let _tag = key.seal_in_place(&[nonce; 12], aad, &mut text);
            text[..SHOWN].to_vec()
        };
        assert_eq!(shown(1, b"a", b""), shown(1, b"b", b"\x81"));
        assert_ne!(shown(1, b"a", b""), shown(2, b"a", b""));
    }
    // And every record of a channel takes its own, also the one that closes it.
    let mut ledger = Ledger::new(8);
    let [mut out, _] = session(&mut ledger, Suite::Aes256Gcm, Limits::default());
    ledger.seal(&mut out, T0, Kind::Data);
    let close = sealed(&mut out, T0, Kind::Close, b"");
    assert_eq!(close.len(), OVERHEAD);
    assert_eq!(
        out.seal_in_place(T0, Kind::Data, &mut [0; OVERHEAD + 1]),
        Err(SealError::Closed),
        "nothing is sealed after the end"
    );
    assert_eq!(ledger.repeats, 0);
}

// Nodes that meet again with the same keys share no secret with their earlier sessions: eight handshakes, 64 records each.
#[test]
fn sessions_of_the_same_two_nodes() {
    let mut ledger = Ledger::new(4_096);
    let limits = Limits {
        epoch_records: 5,
        ..Limits::default()
    };
    for n in 0..8 {
        for mut sealer in session(&mut ledger, SUITES[n % 2], limits) {
            for _ in 0..64 {
                ledger.seal(&mut sealer, T0, Kind::Data);
            }
        }
    }
    assert_eq!((ledger.entries, ledger.repeats), (8 * (2 * 64 + 4), 0));
}
