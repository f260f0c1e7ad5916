//! Keys and values on disk, format 1. Integers are big-endian, so keys sort by shard, then channel, then number.
//!
//! | family | key | value |
//! |---|---|---|
//! | `log.generation` | shard u16, generation u32 | salt, 16 bytes |
//! | `log.entry` | shard u16, channel 32, offset u64 | the sealed entry |
//! | `log.head` | shard u16, channel 32 | head u64, highest forgotten epoch u64, bytes ever stored u64, newest entry's time in ms u64 |
//! | `log.first` | shard u16, channel 32 | lowest offset kept u64; absent: 1 |
//! | `log.mark` | shard u16, channel 32, epoch u64 | highest sequence u64, its offset u64 |
//! | `log.about` | shard u16, channel 32 | the writer's own, sealed by it |
//! | `log.segment` | shard u16, segment u64 | bytes of its entries u64, time of its first and of its last in ms u64, generation that noted this u64 |
//! | `log.segment` | shard u16, segment u64, channel 32 | the channel's last offset in it u64; only of segments that are closed |
//!
//! `log.segment` is there only once a store was opened with limits to what it keeps. A release that does not know the family does not open the
//! store from then on.

use pqcnet_store::Family;

use crate::{ChannelId, ShardNo};

/// Format of the families below.
pub const VERSION: u32 = 1;
/// Generations and their salts.
pub const GENERATION: Family = Family("log.generation");
/// Entries.
pub const ENTRY: Family = Family("log.entry");
/// Heads.
pub const HEAD: Family = Family("log.head");
/// First offsets after trims.
pub const FIRST: Family = Family("log.first");
/// Producers' high-water marks.
pub const MARK: Family = Family("log.mark");
/// What writers store about channels.
pub const ABOUT: Family = Family("log.about");

/// What is kept, by segments.
pub const SEGMENT: Family = Family("log.segment");

/// Every family of the log, for a store's schema.
pub const FAMILIES: [Family; 6] = [GENERATION, ENTRY, HEAD, FIRST, MARK, ABOUT];

/// Those in which nothing is replaced, for a store's configuration.
pub const GROWING: [Family; 1] = [ENTRY];

/// Key of a generation.
pub fn generation(shard: ShardNo, generation: u32) -> [u8; 6] {
    let mut key = [0; 6];
    key[..2].copy_from_slice(&shard.0.to_be_bytes());
    key[2..].copy_from_slice(&generation.to_be_bytes());
    key
}

/// Key of a channel.
pub fn channel(shard: ShardNo, channel: &ChannelId) -> [u8; 34] {
    let mut key = [0; 34];
    key[..2].copy_from_slice(&shard.0.to_be_bytes());
    key[2..].copy_from_slice(&channel.0);
    key
}

/// Key of a channel's entry (by offset) or mark (by epoch).
pub fn numbered(shard: ShardNo, channel: &ChannelId, number: u64) -> [u8; 42] {
    let mut key = [0; 42];
    key[..34].copy_from_slice(&self::channel(shard, channel));
    key[34..].copy_from_slice(&number.to_be_bytes());
    key
}

/// Key of a segment.
pub fn segment(shard: ShardNo, number: u64) -> [u8; 10] {
    let mut key = [0; 10];
    key[..2].copy_from_slice(&shard.0.to_be_bytes());
    key[2..].copy_from_slice(&number.to_be_bytes());
    key
}

/// Key of what a segment has of a channel.
pub fn in_segment(shard: ShardNo, number: u64, channel: &ChannelId) -> [u8; 42] {
    let mut key = [0; 42];
    key[..10].copy_from_slice(&segment(shard, number));
    key[10..].copy_from_slice(&channel.0);
    key
}

/// The first key of `shard` and the first after it, in every family.
pub fn shard_range(shard: ShardNo) -> (Vec<u8>, Vec<u8>) {
    let after = u32::from(shard.0) + 1;
    let to = match u16::try_from(after) {
        Ok(next) => next.to_be_bytes().to_vec(),
        // Beyond the last shard: longer than any key's first two bytes can reach.
        Err(_) => vec![0xff; 64],
    };
    (shard.0.to_be_bytes().to_vec(), to)
}

/// A value of whole u64s; `None` when its length is another.
pub(crate) fn numbers<const N: usize>(bytes: &[u8]) -> Option<[u64; N]> {
    let (words, rest) = bytes.as_chunks::<8>();
    if !rest.is_empty() {
        return None;
    }
    let words: [[u8; 8]; N] = words.try_into().ok()?;
    Some(words.map(u64::from_be_bytes))
}

pub(crate) fn value<const N: usize>(numbers: [u64; N]) -> Vec<u8> {
    numbers.iter().flat_map(|n| n.to_be_bytes()).collect()
}

/// The channel and number at the end of a key; `None` when it is not one of ours.
pub fn split(key: &[u8]) -> Option<(ChannelId, Option<u64>)> {
    let channel = ChannelId(key.get(2..34)?.try_into().ok()?);
    match &key[34..] {
        [] => Some((channel, None)),
        number => Some((channel, Some(u64::from_be_bytes(number.try_into().ok()?)))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // The disk format: a change of any of these bytes needs a new VERSION.
    #[test]
    fn keys_and_values_are_pinned() {
        let c = ChannelId([0xab; 32]);
        assert_eq!(generation(ShardNo(0x0102), 0x0304_0506), [1, 2, 3, 4, 5, 6]);
        let mut wanted = vec![0x01, 0x02];
        wanted.extend([0xab; 32]);
        assert_eq!(channel(ShardNo(0x0102), &c).to_vec(), wanted);
        wanted.extend([0, 0, 0, 0, 0, 0, 0x10, 0x01]);
        assert_eq!(numbered(ShardNo(0x0102), &c, 0x1001).to_vec(), wanted);
        let mut wanted = vec![1, 2, 0, 0, 0, 0, 0, 0, 0x10, 0x01];
        assert_eq!(segment(ShardNo(0x0102), 0x1001).to_vec(), wanted);
        wanted.extend([0xab; 32]);
        assert_eq!(in_segment(ShardNo(0x0102), 0x1001, &c).to_vec(), wanted);
        assert_eq!(
            value([1, 0x0200]),
            [0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 2, 0]
        );
        assert_eq!(numbers::<2>(&value([7, 8])), Some([7, 8]));
        assert_eq!(numbers::<2>(&[0; 17]), None);
        assert_eq!(numbers::<2>(&[0; 8]), None);
        assert_eq!(
            FAMILIES.map(|f| f.0),
            [
                "log.generation",
                "log.entry",
                "log.head",
                "log.first",
                "log.mark",
                "log.about"
            ]
        );
    }

    // A shard's range holds its own keys and none of its neighbours', the last shard included.
    #[test]
    fn ranges_do_not_overlap() {
        for shard in [0, 1, 0x00ff, 0xfffe, 0xffff] {
            let (from, to) = shard_range(ShardNo(shard));
            let low = numbered(ShardNo(shard), &ChannelId([0; 32]), 0);
            let high = numbered(ShardNo(shard), &ChannelId([0xff; 32]), u64::MAX);
            assert!(from.as_slice() <= low.as_slice() && high.as_slice() < to.as_slice());
            if let Some(next) = shard.checked_add(1) {
                assert!(generation(ShardNo(next), 0).as_slice() >= to.as_slice());
            }
        }
    }

    #[test]
    fn keys_split_into_their_parts() {
        let c = ChannelId([9; 32]);
        assert_eq!(split(&channel(ShardNo(1), &c)), Some((c, None)));
        assert_eq!(split(&numbered(ShardNo(1), &c, 5)), Some((c, Some(5))));
        assert_eq!(split(&[0; 33]), None);
        assert_eq!(split(&[0; 40]), None);
    }
}
