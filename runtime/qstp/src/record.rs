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

use std::ops::Range;
use std::time::Duration;

use pqcnet_crypto::aead::TAG_LEN;
use pqcnet_crypto::{OpenKey, SealKey};

use crate::config::{Limits, Suite};
use crate::error::{FoundBy, HandshakeError, Reason};
use crate::frame::{FrameType, SEALED_REJECT_LEN, header};
use crate::reject;
use crate::schedule::{Chain, OneShot};

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

/// The sending direction.
pub struct Sealer {
    key: SealKey,
    at: Position,
    chain: Chain,
    suite: Suite,
    limits: Limits,
    epoch_began: Option<Duration>,
    closed: bool,
}

impl Sealer {
    pub(crate) fn new(mut chain: Chain, suite: Suite, limits: Limits) -> Sealer {
        let (key, iv) = chain.advance();
        Sealer {
            key: SealKey::new(suite.aead(), &key),
            at: Position { iv, number: 0 },
            chain,
            suite,
            limits,
            epoch_began: None,
            closed: false,
        }
    }

    /// The most content that one record may hold, bytes.
    pub fn max_content(&self) -> usize {
        self.limits.max_record as usize - OVERHEAD
    }

    /// The key in use: 0 at first, one more at each update.
    pub fn epoch(&self) -> u64 {
        self.chain.epoch() - 1
    }

    /// Appends room for a header and returns where the record begins. Append its content next.
    pub fn begin(&self, out: &mut Vec<u8>) -> usize {
        let start = out.len();
        out.extend_from_slice(&[0; HEADER_LEN]);
        start
    }

    /// Seals the record that begins at `start` and ends at the end of `out`; appends its [`TRAILER_LEN`] bytes (reserve them
    /// beforehand, or the buffer may move). `now` is monotonic and only has to be right within seconds: it ages the key.
    ///
    /// On an error `out` is as it was.
    pub fn seal(
        &mut self,
        now: Duration,
        kind: Kind,
        out: &mut Vec<u8>,
        start: usize,
    ) -> Result<(), SealError> {
        let content = out
            .len()
            .checked_sub(start.saturating_add(HEADER_LEN))
            .ok_or(SealError::NoHeader { start })?;
        self.check(kind, content)?;
        out.resize(out.len() + TRAILER_LEN, 0);
        self.seal_checked(now, kind, &mut out[start..]);
        Ok(())
    }

    /// As [`Sealer::seal`], on a slice of `HEADER_LEN` bytes, the content, and `TRAILER_LEN` bytes to be filled.
    pub fn seal_in_place(
        &mut self,
        now: Duration,
        kind: Kind,
        record: &mut [u8],
    ) -> Result<(), SealError> {
        let content = record
            .len()
            .checked_sub(OVERHEAD)
            .ok_or(SealError::NoHeader { start: 0 })?;
        self.check(kind, content)?;
        self.seal_checked(now, kind, record);
        Ok(())
    }

    fn check(&self, kind: Kind, content: usize) -> Result<(), SealError> {
        if self.closed {
            return Err(SealError::Closed);
        }
        let max = self.max_content();
        if content > max {
            return Err(SealError::TooLong { got: content, max });
        }
        match (kind, content) {
            (Kind::Data, 0) | (Kind::Close, 1..) => Err(SealError::Content { kind, got: content }),
            (Kind::Data, 1..) | (Kind::Close, 0) => Ok(()),
        }
    }

    fn seal_checked(&mut self, now: Duration, kind: Kind, record: &mut [u8]) {
        let began = *self.epoch_began.get_or_insert(now);
        let old =
            now.saturating_sub(began) >= Duration::from_millis(u64::from(self.limits.epoch_ms));
        let last = old || self.at.number + 1 >= self.limits.epoch_records;

        let head = header(FrameType::Record, record.len() - HEADER_LEN);
        let (front, body) = record.split_at_mut(HEADER_LEN);
        front.copy_from_slice(&head);
        let (text, tag) = body.split_at_mut(body.len() - TAG_LEN);
        if let Some(byte) = text.last_mut() {
            *byte = kind.number() | if last { LAST_OF_EPOCH } else { 0 };
        }
        tag.copy_from_slice(&self.key.seal_in_place(&self.at.nonce(), &head, text));

        self.at.number += 1;
        self.closed = kind == Kind::Close;
        if last {
            let (key, iv) = self.chain.advance();
            self.key = SealKey::new(self.suite.aead(), &key);
            self.at = Position { iv, number: 0 };
            self.epoch_began = Some(now);
        }
    }
}

/// An opened record: where its content lies in the buffer that was given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Opened {
    /// What it is.
    pub kind: Kind,
    /// Its content.
    pub content: Range<usize>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Direction {
    Open,
    Closed,
    Failed,
}

/// The receiving direction. The first error ends it.
pub struct Opener {
    key: OpenKey,
    at: Position,
    chain: Chain,
    suite: Suite,
    limits: Limits,
    direction: Direction,
    reject: Option<OneShot>,
}

impl Opener {
    pub(crate) fn new(
        mut chain: Chain,
        suite: Suite,
        limits: Limits,
        reject: Option<OneShot>,
    ) -> Opener {
        let (key, iv) = chain.advance();
        Opener {
            key: OpenKey::new(suite.aead(), &key),
            at: Position { iv, number: 0 },
            chain,
            suite,
            limits,
            direction: Direction::Open,
            reject,
        }
    }

    /// The key in use.
    pub fn epoch(&self) -> u64 {
        self.chain.epoch() - 1
    }

    /// The longest record that this channel takes, header included: the size of a receive buffer.
    pub fn max_record(&self) -> usize {
        self.limits.max_record as usize
    }

    /// The length of the whole record, header included, that begins with `head`. An error ends the channel.
    pub fn record_len(&mut self, head: &[u8; HEADER_LEN]) -> Result<usize, RecordError> {
        let len = self.begin().and_then(|()| self.len_of(head));
        self.noted(len)
    }

    /// Opens one whole record where it lies. An error ends the channel, and leaves rubbish in `record`.
    pub fn open_in_place(&mut self, record: &mut [u8]) -> Result<Opened, RecordError> {
        let opened = self.open(record);
        self.noted(opened)
    }

    /// Tells the opener that the transport ended; says whether the peer had closed the stream.
    pub fn end_of_input(&mut self) -> Result<(), RecordError> {
        let end = match self.direction {
            Direction::Closed => Ok(()),
            Direction::Open => Err(RecordError::Truncated),
            Direction::Failed => Err(RecordError::Over),
        };
        self.noted(end)
    }

    /// True once the peer's Close was opened.
    pub fn is_closed(&self) -> bool {
        self.direction == Direction::Closed
    }

    fn noted<T>(&mut self, result: Result<T, RecordError>) -> Result<T, RecordError> {
        if result.is_err() {
            self.direction = Direction::Failed;
        }
        result
    }

    fn begin(&self) -> Result<(), RecordError> {
        match self.direction {
            Direction::Open => Ok(()),
            Direction::Closed => Err(RecordError::AfterClose),
            Direction::Failed => Err(RecordError::Over),
        }
    }

    fn len_of(&self, head: &[u8; HEADER_LEN]) -> Result<usize, RecordError> {
        let [number, a, b, c] = *head;
        let body = usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c);
        let fits = if number == FrameType::Record.number() {
            (TRAILER_LEN..=self.max_record() - HEADER_LEN).contains(&body)
        } else if number == FrameType::SealedReject.number() && self.reject.is_some() {
            body == SEALED_REJECT_LEN
        } else {
            return Err(RecordError::Frame { got: number });
        };
        if fits {
            Ok(HEADER_LEN + body)
        } else {
            Err(RecordError::Length { got: body })
        }
    }

    fn open(&mut self, record: &mut [u8]) -> Result<Opened, RecordError> {
        self.begin()?;
        let got = record.len();
        let Some((head, body)) = record.split_first_chunk_mut::<HEADER_LEN>() else {
            return Err(RecordError::Length { got });
        };
        if self.len_of(head)? != got {
            return Err(RecordError::Length { got: body.len() });
        }
        if head[0] == FrameType::SealedReject.number() {
            return Err(self.rejected(body));
        }
        if self.at.number >= self.limits.epoch_records {
            return Err(RecordError::EpochOverrun {
                limit: self.limits.epoch_records,
            });
        }
        let plain = self
            .key
            .open_in_place(&self.at.nonce(), head, body)
            .map_err(|_| RecordError::NotOpened)?;
        self.reject = None; // a record that opens proves that M3 was taken
        self.at.number += 1;
        let Some((&mut mark, content)) = plain.split_last_mut() else {
            return Err(RecordError::Length { got: 0 });
        };
        let len = content.len();
        let kind = match mark & !LAST_OF_EPOCH {
            1 => Kind::Data,
            2 => Kind::Close,
            got => return Err(RecordError::UnknownKind { got }),
        };
        match (kind, len) {
            (Kind::Data, 0) | (Kind::Close, 1..) => {
                return Err(RecordError::Content { kind, got: len });
            }
            (Kind::Data, 1..) => {}
            (Kind::Close, 0) => self.direction = Direction::Closed,
        }
        if mark & LAST_OF_EPOCH != 0 {
            let (key, iv) = self.chain.advance();
            self.key = OpenKey::new(self.suite.aead(), &key);
            self.at = Position { iv, number: 0 };
        }
        Ok(Opened {
            kind,
            content: HEADER_LEN..HEADER_LEN + len,
        })
    }

    fn rejected(&self, body: &[u8]) -> RecordError {
        let Some(key) = &self.reject else {
            return RecordError::NotOpened;
        };
        match reject::read_sealed(body, key) {
            Ok(error) => RecordError::Rejected(error),
            Err(Reason::NotOpened) => RecordError::NotOpened,
            Err(reason) => RecordError::Rejected(HandshakeError {
                stage: crate::Stage::M3,
                found_by: FoundBy::Here,
                reason,
            }),
        }
    }
}

/// What an honest sender never does, and places that take too long to reach.
#[cfg(test)]
impl Sealer {
    pub(crate) fn skip_to(&mut self, number: u32) {
        self.at.number = number;
    }

    pub(crate) fn forget_limits(&mut self) {
        self.limits = Limits::default();
    }

    /// A record of exactly this plaintext, kind byte included.
    pub(crate) fn seal_text(&mut self, text: &[u8]) -> Vec<u8> {
        let mut record = header(FrameType::Record, text.len() + TAG_LEN).to_vec();
        let head = record.clone();
        record.extend_from_slice(text);
        let tag = self
            .key
            .seal_in_place(&self.at.nonce(), &head, &mut record[HEADER_LEN..]);
        record.extend_from_slice(&tag);
        self.at.number += 1;
        record
    }
}

#[cfg(test)]
impl Opener {
    pub(crate) fn skip_to(&mut self, number: u32) {
        self.at.number = number;
    }

    /// Undoes a failure: a record that did not open leaves keys and counters as they were.
    pub(crate) fn revive(&mut self) {
        self.direction = Direction::Open;
    }
}

impl std::fmt::Debug for Sealer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Sealer(epoch {}, keys redacted)", self.epoch())
    }
}

impl std::fmt::Debug for Opener {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Opener(epoch {}, keys redacted)", self.epoch())
    }
}
