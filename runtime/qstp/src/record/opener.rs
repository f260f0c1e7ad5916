//! The receiving direction.

use std::ops::Range;

use pqcnet_crypto::OpenKey;

use super::{HEADER_LEN, Kind, LAST_OF_EPOCH, Position, RecordError, TRAILER_LEN};
use crate::config::{Limits, Suite};
use crate::error::{FoundBy, HandshakeError, Reason, Stage};
use crate::frame::{FrameType, SEALED_REJECT_LEN};
use crate::reject;
use crate::schedule::{Chain, OneShot};

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
                stage: Stage::M3,
                found_by: FoundBy::Here,
                reason,
            }),
        }
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

impl std::fmt::Debug for Opener {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Opener(epoch {}, keys redacted)", self.epoch())
    }
}
