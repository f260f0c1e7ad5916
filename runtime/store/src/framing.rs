//! RocksDB's framing of write-ahead logs and manifests, walked without the engine: it checks the same sums, and can say
//! in which file they fail, which the engine does not.
//!
//! ```text
//!   file   = blocks of 32 KiB; a record never crosses one, a payload may go on in the next
//!   record = masked crc32c u32 ‖ length u16 ‖ type u8 ‖ [log number u32, types 5 to 8] ‖ payload      little-endian
//! ```
//!
//! Source: RocksDB 7.8, `db/log_format.h`, `db/log_reader.cc`.

use std::io::{self, Read};

const BLOCK: usize = 32 << 10;
const HEADER: usize = 7;
const RECYCLABLE_HEADER: usize = 11;

/// What a walk found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Walked {
    /// Every record checks out. A torn last one is what a power cut leaves of a write that was never acknowledged.
    Sound {
        /// Records.
        records: u64,
        /// Bytes behind the last whole one.
        torn: u64,
    },
    /// A record does not check out.
    Damaged {
        /// Where it starts in the file.
        at: u64,
        /// What is wrong with it.
        what: &'static str,
    },
}

/// Walks a file to its end or to the first damage.
pub(crate) fn walk(mut file: impl Read) -> io::Result<Walked> {
    let mut block = vec![0; BLOCK];
    let (mut start, mut records, mut torn) = (0, 0, 0);
    loop {
        let len = fill(&mut file, &mut block)?;
        let last = len < BLOCK;
        let mut rest = &block[..len];
        while rest.len() >= HEADER {
            let at = start + (len - rest.len()) as u64;
            let length = usize::from(u16::from_le_bytes([rest[4], rest[5]]));
            let kind = rest[6];
            if kind == 0 && length == 0 {
                break; // room that was set aside and not written
            }
            let header = match kind {
                5..=8 => RECYCLABLE_HEADER,
                _ => HEADER,
            };
            let Some(record) = rest.get(..header + length) else {
                if last {
                    torn = rest.len() as u64;
                    break;
                }
                let what = "a record is longer than its block";
                return Ok(Walked::Damaged { at, what });
            };
            let stored = u32::from_le_bytes([record[0], record[1], record[2], record[3]]);
            if masked(crc32c::crc32c(&record[6..])) != stored {
                let what = "a record does not match its checksum";
                return Ok(Walked::Damaged { at, what });
            }
            records += 1;
            rest = &rest[header + length..];
        }
        if last {
            if rest.len() < HEADER {
                torn = rest.len() as u64;
            }
            return Ok(Walked::Sound { records, torn });
        }
        start += len as u64;
    }
}

/// Fills the block as far as the file goes.
fn fill(file: &mut impl Read, block: &mut [u8]) -> io::Result<usize> {
    let mut len = 0;
    while len < block.len() {
        match file.read(&mut block[len..]) {
            Ok(0) => break,
            Ok(read) => len += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(len)
}

/// A checksum of data that may hold checksums is stored turned and shifted.
fn masked(crc: u32) -> u32 {
    crc.rotate_right(15).wrapping_add(0xa282_ead8)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(kind: u8, payload: &[u8]) -> Vec<u8> {
        let mut tail = vec![kind];
        tail.extend_from_slice(payload);
        let mut out = masked(crc32c::crc32c(&tail)).to_le_bytes().to_vec();
        out.extend_from_slice(&(payload.len() as u16).to_le_bytes());
        out.extend(tail);
        out
    }

    // Two records, the second torn at every length; then one byte of the first flipped: torn is sound, flipped is not.
    #[test]
    fn torn_is_sound_and_flipped_is_not() {
        let first = record(1, b"first");
        let whole = [first.clone(), record(1, b"second")].concat();
        let sound = |records, torn| Walked::Sound { records, torn };
        assert_eq!(walk(&whole[..]).unwrap(), sound(2, 0));
        for cut in first.len()..whole.len() {
            let torn = (cut - first.len()) as u64;
            assert_eq!(walk(&whole[..cut]).unwrap(), sound(1, torn));
        }
        for at in 0..whole.len() {
            let mut flipped = whole.clone();
            flipped[at] ^= 0x40;
            let found = walk(&flipped[..]).unwrap();
            // A length that reaches beyond the end looks torn; everything else is damage.
            let lengths = [4, 5, first.len() + 4, first.len() + 5];
            let torn = matches!(
                found,
                Walked::Sound {
                    records: 0 | 1,
                    torn: 1..
                }
            );
            assert_eq!(torn, lengths.contains(&at), "{at}: {found:?}");
            assert!(
                torn || matches!(found, Walked::Damaged { .. }),
                "{at}: {found:?}"
            );
        }
    }

    // A payload that fills its block and goes on in the next; then the length of its first part is made too long.
    #[test]
    fn records_do_not_cross_blocks() {
        let first = record(2, &vec![7; BLOCK - HEADER]);
        let whole = [first, record(4, b"rest"), vec![0; 100]].concat();
        let sound = Walked::Sound {
            records: 2,
            torn: 0,
        };
        assert_eq!(walk(&whole[..]).unwrap(), sound);
        let mut longer = whole;
        longer[4] = longer[4].wrapping_add(1);
        let found = walk(&longer[..]).unwrap();
        let what = "a record is longer than its block";
        assert_eq!(found, Walked::Damaged { at: 0, what });
    }

    // The known answer of RFC 3720, masked as RocksDB does it (util/crc32c_test.cc).
    #[test]
    fn the_sum_is_rocksdbs() {
        assert_eq!(crc32c::crc32c(&[0; 32]), 0x8a91_36aa);
        assert_eq!(masked(0), 0xa282_ead8);
        assert_ne!(masked(0x8a91_36aa), 0x8a91_36aa);
    }
}
