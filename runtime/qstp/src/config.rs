//! What a node brings to a handshake.

use std::sync::Arc;

use pqcnet_crypto::{AeadAlgorithm, NodeKeys};

/// A complete choice of algorithms. All suites share X-Wing, HKDF-SHA256 and Ed25519 with ML-DSA-65.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Suite {
    /// Suite 1: AES-256-GCM.
    Aes256Gcm,
    /// Suite 2: ChaCha20-Poly1305.
    ChaCha20Poly1305,
}

impl Suite {
    /// The number on the wire.
    pub const fn number(self) -> u16 {
        match self {
            Suite::Aes256Gcm => 1,
            Suite::ChaCha20Poly1305 => 2,
        }
    }

    /// The suite of a number.
    pub const fn of_number(number: u16) -> Option<Suite> {
        match number {
            1 => Some(Suite::Aes256Gcm),
            2 => Some(Suite::ChaCha20Poly1305),
            _ => None,
        }
    }

    /// The suite's bit in an offer: bit `number - 1`.
    pub const fn bit(self) -> u16 {
        1 << (self.number() - 1)
    }

    /// The record and handshake cipher.
    pub const fn aead(self) -> AeadAlgorithm {
        match self {
            Suite::Aes256Gcm => AeadAlgorithm::Aes256Gcm,
            Suite::ChaCha20Poly1305 => AeadAlgorithm::ChaCha20Poly1305,
        }
    }

    /// Every suite's label, best first where a processor has AES instructions.
    pub const LABELS: [&'static str; 2] = ["aes-256-gcm", "chacha20-poly1305"];

    /// The cipher that sets the suite apart, as a configuration names it.
    pub const fn label(self) -> &'static str {
        match self {
            Suite::Aes256Gcm => Self::LABELS[0],
            Suite::ChaCha20Poly1305 => Self::LABELS[1],
        }
    }

    /// The suite of a label.
    pub fn of_label(label: &str) -> Option<Suite> {
        [Suite::Aes256Gcm, Suite::ChaCha20Poly1305]
            .into_iter()
            .find(|suite| suite.label() == label)
    }

    /// A name for people.
    pub const fn name(self) -> &'static str {
        match self {
            Suite::Aes256Gcm => "X25519+ML-KEM-768, Ed25519+ML-DSA-65, AES-256-GCM, SHA-256",
            Suite::ChaCha20Poly1305 => {
                "X25519+ML-KEM-768, Ed25519+ML-DSA-65, ChaCha20-Poly1305, SHA-256"
            }
        }
    }
}

/// Between whom a channel runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Profile {
    /// One connection between two nodes.
    Link,
    /// End to end across relayers. Its place on the wire is fixed; this crate refuses it.
    Tunnel,
}

impl Profile {
    /// The number on the wire.
    pub const fn number(self) -> u8 {
        match self {
            Profile::Link => 1,
            Profile::Tunnel => 2,
        }
    }
}

/// Limits of a channel. The responder states them in M2 and they hold for both directions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// The largest record, header and tag included, bytes.
    pub max_record: u32,
    /// Records sealed under one key before the sender moves to the next.
    pub epoch_records: u32,
    /// Age of a key after which the sender moves on at its next record, milliseconds.
    pub epoch_ms: u32,
}

impl Limits {
    /// Bounds of [`Limits::max_record`]: less makes small progress dear, more would not fit the one buffer per direction.
    pub const MAX_RECORD: std::ops::RangeInclusive<u32> = 4_096..=65_536;
    /// Bounds of [`Limits::epoch_records`]: 2^23 records of 64 KiB are 2^35 AES blocks under a key, which leaves an
    /// attacker's advantage against GCM near 2^-58.
    pub const EPOCH_RECORDS: std::ops::RangeInclusive<u32> = 1..=1 << 23;
    /// Bounds of [`Limits::epoch_ms`]: one second to one day.
    pub const EPOCH_MS: std::ops::RangeInclusive<u32> = 1_000..=86_400_000;

    /// True if every limit is within its bounds.
    pub fn in_bounds(&self) -> bool {
        Self::MAX_RECORD.contains(&self.max_record)
            && Self::EPOCH_RECORDS.contains(&self.epoch_records)
            && Self::EPOCH_MS.contains(&self.epoch_ms)
    }
}

impl Default for Limits {
    /// Records of 64 KiB; a new key each 2^23 records or each hour.
    fn default() -> Self {
        Limits {
            max_record: *Self::MAX_RECORD.end(),
            epoch_records: *Self::EPOCH_RECORDS.end(),
            epoch_ms: 3_600_000,
        }
    }
}

/// What a node brings to a handshake; share it as `Arc<Config>`.
#[derive(Debug, Clone)]
pub struct Config {
    pub(crate) network_id: [u8; 32],
    pub(crate) suites: Vec<Suite>,
    pub(crate) keys: Arc<NodeKeys>,
    pub(crate) prologue: Vec<u8>,
    pub(crate) limits: Limits,
    pub(crate) max_puzzle_bits: u8,
    pub(crate) puzzle_attempts: u64,
    // Tests alone speak other versions.
    pub(crate) version: u8,
}

/// A configuration that cannot work; the operator or the caller erred.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// No suite, so nobody could ever agree.
    #[error("no suite is configured")]
    NoSuite,
    /// One suite twice in the order of preference.
    #[error("suite {} stands in the list twice", .0.label())]
    SuiteTwice(Suite),
    /// The tunnel profile is specified but not built.
    #[error("the tunnel profile is not available, only the link profile")]
    TunnelProfile,
    /// A prologue longer than [`Config::MAX_PROLOGUE`].
    #[error("a prologue has at most {} bytes, got {got}", Config::MAX_PROLOGUE)]
    PrologueTooLong {
        /// Bytes offered.
        got: usize,
    },
    /// Limits outside the protocol's bounds.
    #[error("limits out of bounds: {0:?}")]
    Limits(Limits),
    /// More puzzle bits than [`Config::MAX_PUZZLE_BITS`].
    #[error(
        "a puzzle has at most {} bits, {got} asked for",
        Config::MAX_PUZZLE_BITS
    )]
    PuzzleBits {
        /// Bits offered.
        got: u8,
    },
}

impl Config {
    /// The longest prologue, bytes.
    pub const MAX_PROLOGUE: usize = 255;
    /// No puzzle is ever harder: some 2^20 hashes, a few hundred milliseconds.
    pub const MAX_PUZZLE_BITS: u8 = 20;

    /// A configuration with an empty prologue and default limits; `suites` in order of preference.
    pub fn new(
        network_id: [u8; 32],
        suites: Vec<Suite>,
        keys: Arc<NodeKeys>,
        profile: Profile,
    ) -> Result<Config, ConfigError> {
        if suites.is_empty() {
            return Err(ConfigError::NoSuite);
        }
        if let Some((_, suite)) =
            (suites.iter().enumerate()).find(|(at, suite)| suites[..*at].contains(suite))
        {
            return Err(ConfigError::SuiteTwice(*suite));
        }
        match profile {
            Profile::Link => {}
            Profile::Tunnel => return Err(ConfigError::TunnelProfile),
        }
        Ok(Config {
            network_id,
            suites,
            keys,
            prologue: Vec::new(),
            limits: Limits::default(),
            max_puzzle_bits: Self::MAX_PUZZLE_BITS,
            // 32 times the expected work of the hardest puzzle: an honest one goes unsolved once in e^32.
            puzzle_attempts: 1 << (Self::MAX_PUZZLE_BITS + 5),
            version: crate::VERSION,
        })
    }

    /// Binds what was agreed in clear before the handshake (a protocol's name): both sides must bring the same bytes.
    pub fn with_prologue(mut self, prologue: &[u8]) -> Result<Config, ConfigError> {
        if prologue.len() > Self::MAX_PROLOGUE {
            return Err(ConfigError::PrologueTooLong {
                got: prologue.len(),
            });
        }
        self.prologue = prologue.to_vec();
        Ok(self)
    }

    /// The limits that this node states as a responder.
    pub fn with_limits(mut self, limits: Limits) -> Result<Config, ConfigError> {
        if !limits.in_bounds() {
            return Err(ConfigError::Limits(limits));
        }
        self.limits = limits;
        Ok(self)
    }

    /// What this node is willing to compute as an initiator: the hardest puzzle, and hashes tried before giving up.
    pub fn with_puzzle(mut self, max_bits: u8, attempts: u64) -> Result<Config, ConfigError> {
        if max_bits > Self::MAX_PUZZLE_BITS {
            return Err(ConfigError::PuzzleBits { got: max_bits });
        }
        self.max_puzzle_bits = max_bits;
        self.puzzle_attempts = attempts;
        Ok(self)
    }

    /// This node's keys.
    pub fn keys(&self) -> &Arc<NodeKeys> {
        &self.keys
    }

    /// The network this node belongs to.
    pub fn network_id(&self) -> &[u8; 32] {
        &self.network_id
    }

    pub(crate) fn offer(&self) -> u16 {
        self.suites.iter().fold(0, |bits, s| bits | s.bit())
    }

    /// The responder's preference among what both have.
    pub(crate) fn choose(&self, offered: u16) -> Option<Suite> {
        self.suites.iter().copied().find(|s| offered & s.bit() != 0)
    }
}
