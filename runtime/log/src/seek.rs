//! Where a time lies in a channel. The log knows no entry's time; whoever can open entries does, and times never go back
//! within a channel, so a handful of reads find the place.

use crate::{ChannelId, LogError, ReadRequest, ShardLog, ShardNo};

/// A channel, and the offsets it has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    /// Shard.
    pub shard: ShardNo,
    /// Channel.
    pub channel: ChannelId,
    /// Lowest offset stored.
    pub first: u64,
    /// Highest offset stored.
    pub head: u64,
}

/// The offset after which everything was written at `at_ms` or later, and up to which nothing was; `head` when all is older.
/// `stamp` opens an entry and says when it was written.
///
/// # Errors
/// The log cannot be read, or `stamp` cannot open an entry: that is damage.
pub async fn before(
    log: &dyn ShardLog,
    extent: Extent,
    at_ms: u64,
    mut stamp: impl FnMut(u64, &mut [u8]) -> Option<u64>,
) -> Result<u64, LogError> {
    let Extent { shard, channel, .. } = extent;
    // Everything up to `older` is older; everything from `younger` on is not.
    let mut older = extent.first.saturating_sub(1);
    let mut younger = extent.head.max(older) + 1;
    while older + 1 < younger {
        let middle = older + (younger - older) / 2;
        let mut found = log
            .read(ReadRequest {
                shard,
                channel,
                after: middle - 1,
                max_records: 1,
                max_bytes: 1,
            })
            .await?;
        let Some((offset, range)) = found.items.pop() else {
            // Trimmed to its end meanwhile.
            return Ok(younger - 1);
        };
        let at = stamp(offset, &mut found.buffer[range]).ok_or(LogError::Damaged {
            shard,
            channel,
            offset,
            detail: "the entry does not open".to_owned(),
        })?;
        if at < at_ms {
            older = offset;
        } else {
            younger = middle;
        }
    }
    Ok(older)
}
