//! Records of the link profile: sealed and opened in the caller's buffer, nothing copied, nothing allocated.
//!
//! ```text
//!   0x10 │ length u24 │ content … │ kind u8 │ tag 16 bytes │
//!   └── clear, authenticated ──┘ └──── sealed ─────┘
//! ```
//!
//! The record number is implicit: both ends count. So a dropped, repeated or reordered record does not open, and any
//! record that does not open ends the channel. The top bit of the kind marks the last record of an epoch: what follows is
//! sealed under the next key, which both ends derive from the chain and which erases the one before.
//!
//! # Coalescing writes without a copy
//! ```
//! # use pqcnet_qstp::{Sealer, Kind, SealError};
//! # fn send(sealer: &mut Sealer, now: std::time::Duration, writes: &[&[u8]]) -> Result<Vec<u8>, SealError> {
//! let mut out = Vec::with_capacity(65_536);
//! let start = sealer.begin(&mut out);       // room for a header
//! for write in writes {
//!     out.extend_from_slice(write);          // at most sealer.max_content() bytes in all
//! }
//! sealer.seal(now, Kind::Data, &mut out, start)?; // sealed where it lies; further records may follow in `out`
//! # Ok(out)
//! # }
//! ```

use pqcnet_crypto::aead::TAG_LEN;

use crate::error::HandshakeError;

mod opener;
mod sealer;

pub use opener::{Opened, Opener};
pub use sealer::Sealer;

/// Bytes in front of the content.
pub const HEADER_LEN: usize = crate::frame::HEADER_LEN;
/// Bytes behind the content: kind and tag.
pub const TRAILER_LEN: usize = 1 + TAG_LEN;
/// Bytes that a record is longer than its content.
pub const OVERHEAD: usize = HEADER_LEN + TRAILER_LEN;

const LAST_OF_EPOCH: u8 = 0x80;

/// What a record holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Bytes of the stream; at least one.
    Data,
    /// The end of this direction, by its sender's will; empty.
    Close,
}

impl Kind {
    const fn number(self) -> u8 {
        match self {
            Kind::Data => 1,
            Kind::Close => 2,
        }
    }
}

/// A record that cannot be sealed: a bug of the caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// This direction was closed before.
    #[error("this direction is closed")]
    Closed,
    /// More content than a record may hold.
    #[error("a record holds at most {max} bytes, got {got}")]
    TooLong {
        /// Bytes of content.
        got: usize,
        /// The most there may be.
        max: usize,
    },
    /// A Data record without data, or a Close with some.
    #[error("a {kind:?} record cannot hold {got} bytes")]
    Content {
        /// Its kind.
        kind: Kind,
        /// Bytes of content.
        got: usize,
    },
    /// The buffer has no room for a header at `start`.
    #[error("no room for a header at {start}")]
    NoHeader {
        /// Where the record was said to begin.
        start: usize,
    },
}

/// Why the receiving direction ended. Everything but [`RecordError::Over`] is the peer's doing, or the path's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// Not a record.
    #[error("a frame of type {got:#04x} among records")]
    Frame {
        /// Its type.
        got: u8,
    },
    /// A length that no record has, or other than the bytes given.
    #[error("a record cannot have a body of {got} bytes")]
    Length {
        /// Body bytes announced, or present.
        got: usize,
    },
    /// It does not open: damaged, forged, out of order, repeated, or after a lost one.
    #[error("a record does not open")]
    NotOpened,
    /// A kind that does not exist.
    #[error("a record of unknown kind {got:#04x}")]
    UnknownKind {
        /// Kind byte without the epoch mark.
        got: u8,
    },
    /// Data without data, or a Close with some.
    #[error("a {kind:?} record with {got} bytes")]
    Content {
        /// Its kind.
        kind: Kind,
        /// Bytes of content.
        got: usize,
    },
    /// The peer used a key for more records than agreed.
    #[error("a key was used for more than {limit} records")]
    EpochOverrun {
        /// As agreed in the handshake.
        limit: u32,
    },
    /// A record after the peer's Close.
    #[error("a record after the end of the stream")]
    AfterClose,
    /// The bytes ended without the peer's Close: somebody cut the stream.
    #[error("the stream was cut")]
    Truncated,
    /// The responder refused M3: there never was a channel.
    #[error(transparent)]
    Rejected(HandshakeError),
    /// Used after an earlier error: a bug of the caller.
    #[error("the channel has already failed")]
    Over,
}

/// Key and IV of one epoch and the place in it.
struct Position {
    iv: [u8; 12],
    number: u32,
}

impl Position {
    fn nonce(&self) -> [u8; 12] {
        let mut nonce = self.iv;
        for (byte, n) in nonce[4..]
            .iter_mut()
            .zip(u64::from(self.number).to_be_bytes())
        {
            *byte ^= n;
        }
        nonce
    }
}
