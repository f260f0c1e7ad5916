//! The sending direction.

use std::time::Duration;

use pqcnet_crypto::SealKey;
use pqcnet_crypto::aead::TAG_LEN;

use super::{HEADER_LEN, Kind, LAST_OF_EPOCH, OVERHEAD, Position, SealError, TRAILER_LEN};
use crate::config::{Limits, Suite};
use crate::frame::{FrameType, header};
use crate::schedule::Chain;

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

impl std::fmt::Debug for Sealer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Sealer(epoch {}, keys redacted)", self.epoch())
    }
}
