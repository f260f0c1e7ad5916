//! A stored message and the limits of a batch.

use bytes::Bytes;
use pqcnet_link::WireError;
use pqcnet_protos::common::v1 as pb;

use crate::codec::invalid;

/// Largest payload of one message, in bytes: 16 units of credit, so that one message cannot fill a window.
pub const MAX_PAYLOAD: usize = 64 * 1024;
/// Most messages in one publish or delivery.
pub const MAX_BATCH_RECORDS: usize = 512;
/// Most payload bytes in one publish or delivery; with its envelope it fits a link's largest frame.
pub const MAX_BATCH_BYTES: usize = 1024 * 1024;

/// Most records of a subscription delivered and not consumed, whatever their size: empty payloads cost a window
/// nothing, but memory they do.
pub const MAX_OUTSTANDING_RECORDS: usize = 16_384;

/// One message as a channel keeps it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Record {
    /// Place in the channel, contiguous from 1.
    pub offset: u64,
    /// When the shard's owner stored it, in milliseconds since the Unix epoch; never goes back within a channel.
    pub published_at_ms: u64,
    /// The publisher's bytes.
    pub payload: Bytes,
}

impl From<&Record> for pb::Record {
    fn from(record: &Record) -> Self {
        Self {
            offset: record.offset,
            published_at_ms: record.published_at_ms,
            payload: record.payload.clone(),
        }
    }
}

pub(crate) fn records_to_proto(records: &[Record]) -> Vec<pb::Record> {
    records.iter().map(Into::into).collect()
}

/// The records of a delivery: contiguous offsets from 1, each payload and the batch within its limit.
pub(crate) fn records_from_proto(records: Vec<pb::Record>) -> Result<Vec<Record>, WireError> {
    check_payloads(records.iter().map(|record| &record.payload))?;
    let mut next = records.first().map_or(0, |record| record.offset);
    let mut out = Vec::with_capacity(records.len());
    for record in records {
        if record.offset != next || record.offset == 0 {
            return Err(invalid("offset", "not contiguous from 1"));
        }
        next = next
            .checked_add(1)
            .ok_or_else(|| invalid("offset", "overflow"))?;
        out.push(Record {
            offset: record.offset,
            published_at_ms: record.published_at_ms,
            payload: record.payload,
        });
    }
    Ok(out)
}

/// Records of any offsets, ascending; none, or as [`check_payloads`] asks.
pub(crate) fn kept_from_proto(records: Vec<pb::Record>) -> Result<Vec<Record>, WireError> {
    if !records.is_empty() {
        check_payloads(records.iter().map(|record| &record.payload))?;
    }
    if !records.is_sorted_by(|a, b| a.offset < b.offset) {
        return Err(invalid("offset", "not ascending"));
    }
    let kept = records.into_iter().map(|record| Record {
        offset: record.offset,
        published_at_ms: record.published_at_ms,
        payload: record.payload,
    });
    Ok(kept.collect())
}

/// Between 1 and [`MAX_BATCH_RECORDS`] payloads, within [`MAX_PAYLOAD`] each and [`MAX_BATCH_BYTES`] together.
pub(crate) fn check_payloads<'a>(
    payloads: impl ExactSizeIterator<Item = &'a Bytes>,
) -> Result<(), WireError> {
    if payloads.len() == 0 {
        return Err(invalid("batch", "empty"));
    }
    let mut total = 0;
    for payload in payloads {
        if payload.len() > MAX_PAYLOAD {
            return Err(invalid("payload", "larger than 64 KiB"));
        }
        total += payload.len();
    }
    if total > MAX_BATCH_BYTES {
        return Err(invalid("batch", "larger than 1 MiB"));
    }
    Ok(())
}
