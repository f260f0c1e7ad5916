//! How a world's cryptography is done, and what each operation costs the node that does it.
//!
//! Costs are constants of a calibration run on the reference machine ([`Costs::default`]), or those that a scenario says
//! (`pqcnet-sim calibrate` measures this machine's), not measured when a world starts: the event hash must not depend on the
//! machine.

mod calibrate;

use std::cell::Cell;
use std::time::Duration;

use pqcnet_actor::hosted;
pub use pqcnet_crypto::simulation::Op;
use pqcnet_crypto::simulation::{self, Mode, Simulation};

pub use calibrate::calibrate;

use crate::world::entropy;

/// How cryptography is done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Crypto {
    /// Every operation, really.
    Real,
    /// Really, but each unique verification once in the process; its cost is charged to every node.
    #[default]
    Memo,
    /// Sizes and costs.
    Modelled,
}

impl Crypto {
    /// Every way.
    pub const ALL: [Crypto; 3] = [Crypto::Real, Crypto::Memo, Crypto::Modelled];

    /// Its word in scenarios and reports.
    pub fn name(self) -> &'static str {
        match self {
            Crypto::Real => "real",
            Crypto::Memo => "memo",
            Crypto::Modelled => "modelled",
        }
    }

    /// The way of this word.
    pub fn named(word: &str) -> Option<Crypto> {
        Crypto::ALL.into_iter().find(|way| way.name() == word)
    }
}

/// How many operations there are.
const OPS: usize = Op::ALL.len();

fn at(op: Op) -> usize {
    op as usize
}

/// What operations cost: picoseconds each, and for each byte that they are about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Costs {
    each_ps: [u64; OPS],
    byte_ps: [u64; OPS],
}

impl Default for Costs {
    /// The reference machine's, rounded: the table of primitives in docs/performance.md (Ed25519 is the difference between one
    /// and both signatures).
    fn default() -> Costs {
        let us = |us: u64| us * 1_000_000;
        let mut costs = Costs {
            each_ps: [0; OPS],
            byte_ps: [0; OPS],
        };
        for (op, each_ps, byte_ps) in [
            (Op::MlDsaSign, us(93), 0),
            (Op::MlDsaVerify, us(35), 0),
            (Op::Ed25519Sign, us(5), 0),
            (Op::Ed25519Verify, us(25), 0),
            (Op::KemKeys, us(18), 0),
            (Op::Encapsulate, us(36), 0),
            (Op::Decapsulate, us(35), 0),
            (Op::AeadKey, us(1), 0),
            (Op::Seal, 120_000, 54),
            (Op::Open, 120_000, 54),
        ] {
            costs.set(op, each_ps, byte_ps);
        }
        costs
    }
}

impl Costs {
    /// Operations by their words in scenarios, and the word for each byte where that costs something.
    pub const WORDS: [(&'static str, Option<&'static str>, Op); OPS] = [
        ("ml_dsa_sign", None, Op::MlDsaSign),
        ("ml_dsa_verify", None, Op::MlDsaVerify),
        ("ed25519_sign", None, Op::Ed25519Sign),
        ("ed25519_verify", None, Op::Ed25519Verify),
        ("kem_keys", None, Op::KemKeys),
        ("encapsulate", None, Op::Encapsulate),
        ("decapsulate", None, Op::Decapsulate),
        ("aead_key", None, Op::AeadKey),
        ("seal", Some("seal_byte"), Op::Seal),
        ("open", Some("open_byte"), Op::Open),
    ];

    /// Picoseconds of an operation: each, and for each byte.
    pub fn get(&self, op: Op) -> (u64, u64) {
        (self.each_ps[at(op)], self.byte_ps[at(op)])
    }

    /// As a scenario has them.
    pub fn to_toml(&self) -> String {
        let mut text = "[costs]  # microseconds; of a byte, nanoseconds\n".to_owned();
        for (word, byte_word, op) in Costs::WORDS {
            let (each, byte) = self.get(op);
            text += &format!("{word} = {:.3}\n", each as f64 / 1e6);
            if let Some(word) = byte_word {
                text += &format!("{word} = {:.3}\n", byte as f64 / 1e3);
            }
        }
        text
    }

    /// Sets what an operation costs: picoseconds each, and for each byte.
    pub fn set(&mut self, op: Op, each_ps: u64, byte_ps: u64) {
        self.each_ps[at(op)] = each_ps;
        self.byte_ps[at(op)] = byte_ps;
    }

    /// What an operation about so many bytes costs.
    pub fn of(&self, op: Op, bytes: usize) -> Duration {
        let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
        let ps = self.each_ps[at(op)].saturating_add(self.byte_ps[at(op)].saturating_mul(bytes));
        Duration::from_nanos(ps / 1_000)
    }
}

/// What cryptography has done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CryptoCounts {
    /// Operations charged, by [`Op`].
    done: [u64; OPS],
    /// Verifications that were remembered.
    pub remembered: u64,
}

impl CryptoCounts {
    /// How often an operation was charged.
    pub fn of(&self, op: Op) -> u64 {
        self.done[at(op)]
    }
}

thread_local! {
    static COSTS: Cell<Option<Costs>> = const { Cell::new(None) };
    static DONE: Cell<[u64; OPS]> = const { Cell::new([0; OPS]) };
}

fn charge(op: Op, bytes: usize) {
    let mut done = DONE.get();
    done[at(op)] += 1;
    DONE.set(done);
    if let Some(costs) = COSTS.get() {
        // Outside of nodes, keys are made that nobody is charged for.
        hosted::charge(costs.of(op, bytes));
    }
}

/// While it lives, cryptography on this thread is a world's.
pub(crate) struct Installed {
    _simulation: simulation::Installed,
}

impl Drop for Installed {
    fn drop(&mut self) {
        COSTS.set(None);
    }
}

pub(crate) fn install(crypto: Crypto, costs: Costs) -> Installed {
    COSTS.set(Some(costs));
    DONE.set([0; OPS]);
    let mode = match crypto {
        Crypto::Real => Mode::Real,
        Crypto::Memo => Mode::Memo,
        Crypto::Modelled => Mode::Modelled,
    };
    Installed {
        _simulation: simulation::install(Simulation {
            mode,
            entropy,
            charge,
        }),
    }
}

pub(crate) fn counts() -> CryptoCounts {
    CryptoCounts {
        done: DONE.get(),
        remembered: simulation::remembered(),
    }
}
