//! What is stored of a channel's groups: behind what is stored about the channel, sealed with it.
//!
//! ```text
//!   groups = number u8 ‖ group …
//!   group  = customer 32 ‖ name length u8 ‖ name ‖ committed u64 ‖ generation u32 ‖ attempts u32 ‖ letters u8 ‖ letter …
//!   letter = offset u64 ‖ at_ms u64 ‖ attempts u32 ‖ refused u8                                      integers big-endian
//! ```

use pqcnet_crypto::NodeId;
use pqcnet_messages::{DeadLetter, GroupName, MAX_DEAD_LETTERS};

/// Most groups of one channel, of all customers: what is stored about it stays below 64 KiB.
pub const MAX_GROUPS: usize = 32;

/// A group as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredGroup {
    /// Whose.
    pub customer: NodeId,
    /// What that one calls it.
    pub name: GroupName,
    /// Everything up to here is done.
    pub committed: u64,
    /// How often the channel was given to a member.
    pub generation: u32,
    /// How often the next record was given to a member that went without getting past it.
    pub attempts: u32,
    /// Put aside, ascending by offset.
    pub letters: Vec<DeadLetter>,
}

/// The stored form; empty when there are none.
pub fn encode(groups: &[StoredGroup]) -> Vec<u8> {
    let mut out = Vec::new();
    if groups.is_empty() {
        return out;
    }
    // At most MAX_GROUPS groups, 64 bytes of a name, MAX_DEAD_LETTERS letters.
    out.push(groups.len() as u8);
    for group in groups {
        let name = group.name.as_str().as_bytes();
        out.extend_from_slice(group.customer.as_bytes());
        out.push(name.len() as u8);
        out.extend_from_slice(name);
        out.extend_from_slice(&group.committed.to_be_bytes());
        out.extend_from_slice(&group.generation.to_be_bytes());
        out.extend_from_slice(&group.attempts.to_be_bytes());
        out.push(group.letters.len() as u8);
        for letter in &group.letters {
            out.extend_from_slice(&letter.offset.to_be_bytes());
            out.extend_from_slice(&letter.at_ms.to_be_bytes());
            out.extend_from_slice(&letter.attempts.to_be_bytes());
            out.push(letter.refused.into());
        }
    }
    out
}

/// Reads the stored form back; `None` when it is not one.
pub fn decode(bytes: &[u8]) -> Option<Vec<StoredGroup>> {
    let Some((&count, mut rest)) = bytes.split_first() else {
        return Some(Vec::new());
    };
    let count = usize::from(count);
    if count == 0 || count > MAX_GROUPS {
        return None;
    }
    let mut groups: Vec<StoredGroup> = Vec::with_capacity(count);
    for _ in 0..count {
        let group = group(&mut rest)?;
        let key = |group: &StoredGroup| (group.customer, group.name.clone());
        if groups.last().is_some_and(|last| key(last) >= key(&group)) {
            return None;
        }
        groups.push(group);
    }
    rest.is_empty().then_some(groups)
}

fn group(rest: &mut &[u8]) -> Option<StoredGroup> {
    let customer = NodeId::from_bytes(take(rest)?);
    let [length] = take(rest)?;
    let (name, after) = rest.split_at_checked(usize::from(length))?;
    *rest = after;
    let name = GroupName::new(std::str::from_utf8(name).ok()?).ok()?;
    let committed = u64::from_be_bytes(take(rest)?);
    let generation = u32::from_be_bytes(take(rest)?);
    let attempts = u32::from_be_bytes(take(rest)?);
    let [count] = take(rest)?;
    if usize::from(count) > MAX_DEAD_LETTERS {
        return None;
    }
    let mut letters: Vec<DeadLetter> = Vec::with_capacity(count.into());
    for _ in 0..count {
        let letter = DeadLetter {
            offset: u64::from_be_bytes(take(rest)?),
            at_ms: u64::from_be_bytes(take(rest)?),
            attempts: u32::from_be_bytes(take(rest)?),
            refused: match take(rest)? {
                [0] => false,
                [1] => true,
                _ => return None,
            },
        };
        if letters
            .last()
            .is_some_and(|last| last.offset >= letter.offset)
        {
            return None;
        }
        letters.push(letter);
    }
    Some(StoredGroup {
        customer,
        name,
        committed,
        generation,
        attempts,
        letters,
    })
}

fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (head, after) = rest.split_first_chunk::<N>()?;
    *rest = after;
    Some(*head)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn groups() -> Vec<StoredGroup> {
        let group = |customer, name: &str, letters| StoredGroup {
            customer: NodeId::from_bytes([customer; 32]),
            name: GroupName::new(name).unwrap(),
            committed: 0x0102,
            generation: 3,
            attempts: 1,
            letters,
        };
        let letter = DeadLetter {
            offset: 0x0101,
            at_ms: 9,
            attempts: 2,
            refused: true,
        };
        vec![group(1, "a", vec![letter]), group(1, "b", Vec::new())]
    }

    // The disk format: pinned.
    #[test]
    fn bytes_are_pinned() {
        let mut wanted = vec![2];
        wanted.extend([1; 32]);
        wanted.extend([1, b'a', 0, 0, 0, 0, 0, 0, 1, 2, 0, 0, 0, 3, 0, 0, 0, 1, 1]);
        wanted.extend([
            0, 0, 0, 0, 0, 0, 1, 1, 0, 0, 0, 0, 0, 0, 0, 9, 0, 0, 0, 2, 1,
        ]);
        wanted.extend([1; 32]);
        wanted.extend([1, b'b', 0, 0, 0, 0, 0, 0, 1, 2, 0, 0, 0, 3, 0, 0, 0, 1, 0]);
        assert_eq!(encode(&groups()), wanted);
        assert_eq!(encode(&[]), [0u8; 0]);
    }

    // What was written reads back; cut, longer, out of order, or with a bad flag it does not.
    #[test]
    fn round_trip() {
        let bytes = encode(&groups());
        assert_eq!(decode(&bytes), Some(groups()));
        assert_eq!(decode(&[]), Some(Vec::new()));
        for cut in 1..bytes.len() {
            assert_eq!(decode(&bytes[..cut]), None);
        }
        assert_eq!(decode(&[&bytes[..], &[0]].concat()), None);
        let mut swapped = groups();
        swapped.reverse();
        assert_eq!(decode(&encode(&swapped)), None);
        let mut flag = bytes;
        flag[72] = 2;
        assert_eq!(decode(&flag), None);
        assert_eq!(decode(&[0]), None);
    }
}
