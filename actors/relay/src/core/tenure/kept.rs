//! How a relayer's tenure is kept: an item a shard that is not where the network file has it.

use bytes::Bytes;
use pqcnet_crypto::NodeId;
use pqcnet_messages::ShardId;

use super::Entry;

/// Shard 2, 1 held or 2 given, moves 1, map version 8, to whom 32 (zeros when held); big-endian.
pub(super) fn write(shard: ShardId, entry: &Entry) -> Bytes {
    let (state, moves, version, to) = match entry {
        Entry::Held { version, moves } => (1, *moves, *version, [0; 32]),
        Entry::Given { to, version, moves } => (2, *moves, *version, *to.as_bytes()),
    };
    let mut item = Vec::with_capacity(44);
    item.extend_from_slice(&shard.0.to_be_bytes());
    item.extend_from_slice(&[state, moves]);
    item.extend_from_slice(&version.to_be_bytes());
    item.extend_from_slice(&to);
    item.into()
}

pub(super) fn read(item: &[u8]) -> Option<(ShardId, Entry)> {
    let (shard, rest) = item.split_first_chunk()?;
    let ([state, moves], rest) = rest.split_first_chunk()?;
    let (version, to) = rest.split_first_chunk()?;
    let to: [u8; 32] = to.try_into().ok()?;
    let (version, moves) = (u64::from_be_bytes(*version), *moves);
    let entry = match state {
        1 if to == [0; 32] => Entry::Held { version, moves },
        2 => Entry::Given {
            to: NodeId::from_bytes(to),
            version,
            moves,
        },
        _ => return None,
    };
    Some((ShardId(u16::from_be_bytes(*shard)), entry))
}
