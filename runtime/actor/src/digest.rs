//! The digest of a message, for a simulated world's event hash. Nobody else asks for one.

use std::hash::Hasher;

/// What a message is digested into: a fast hash, the same on every machine of 64 bits; no defence against who looks for
/// collisions. Whatever is `Hash` goes in by it, numbers by their value and byte strings eight at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Digest(u64);

/// Before anything has gone in; not 0, or zeros would leave no trace.
const EMPTY: u64 = 0x9E37_79B9_7F4A_7C15;

/// One step of a [`Digest`], also for hashes over events.
#[inline]
pub fn fold(state: u64, word: u64) -> u64 {
    (state.rotate_left(23) ^ word).wrapping_mul(0xA076_1D64_78BD_642F)
}

/// Two rounds of a 64-bit finaliser (SplitMix64): every bit of what comes out depends on every bit of what goes in.
pub(crate) fn mix(mut x: u64) -> u64 {
    x = x.wrapping_add(0x9E37_79B9_7F4A_7C15);
    x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    x ^ (x >> 31)
}

impl Default for Digest {
    fn default() -> Digest {
        Digest(EMPTY)
    }
}

impl Digest {
    /// Of nothing yet.
    pub fn new() -> Digest {
        Digest::default()
    }
}

impl Hasher for Digest {
    fn write(&mut self, bytes: &[u8]) {
        let len = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        let mut state = fold(self.0, len);
        let mut words = bytes.chunks_exact(8);
        for word in &mut words {
            let mut bytes = [0; 8];
            bytes.copy_from_slice(word);
            state = fold(state, u64::from_le_bytes(bytes));
        }
        let mut last = [0; 8];
        let rest = words.remainder();
        last[..rest.len()].copy_from_slice(rest);
        self.0 = fold(state, u64::from_le_bytes(last));
    }

    fn write_u8(&mut self, number: u8) {
        self.write_u64(u64::from(number));
    }

    fn write_u16(&mut self, number: u16) {
        self.write_u64(u64::from(number));
    }

    fn write_u32(&mut self, number: u32) {
        self.write_u64(u64::from(number));
    }

    #[inline]
    fn write_u64(&mut self, number: u64) {
        self.0 = fold(self.0, number);
    }

    fn write_usize(&mut self, number: usize) {
        self.write_u64(u64::try_from(number).unwrap_or(u64::MAX));
    }

    fn write_i8(&mut self, number: i8) {
        self.write_i64(i64::from(number));
    }

    fn write_i16(&mut self, number: i16) {
        self.write_i64(i64::from(number));
    }

    fn write_i32(&mut self, number: i32) {
        self.write_i64(i64::from(number));
    }

    fn write_i64(&mut self, number: i64) {
        self.write_u64(number.cast_unsigned());
    }

    fn write_isize(&mut self, number: isize) {
        self.write_usize(number.cast_unsigned());
    }

    /// Of nothing it is 0.
    fn finish(&self) -> u64 {
        match self.0 {
            EMPTY => 0,
            state => mix(state),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::hash::Hash;

    use super::*;

    fn of(what: impl Hash) -> u64 {
        let mut digest = Digest::new();
        what.hash(&mut digest);
        digest.finish()
    }

    // Digests stand in event hashes, which runs of other machines are compared with: they are what they are. Every bit of a
    // value counts, and so does where one value ends and the next begins.
    #[test]
    fn known_digests() {
        assert_eq!(Digest::new().finish(), 0);
        assert_eq!(of(7u32), of(7u64));
        let mut others = vec![
            of(0u64),
            of(1u64),
            of(""),
            of("a"),
            of("ab"),
            of(("a", "b")),
        ];
        others.extend([
            of(vec![1u8, 2]),
            of([[1u8], [2]]),
            of(Some(1u8)),
            of((1u8, None::<u8>)),
        ]);
        let count = others.len();
        others.sort_unstable();
        others.dedup();
        assert_eq!(others.len(), count);
        assert_eq!(of(7u64), 0xA7C1_A532_E1CD_23A5);
        assert_eq!(of("0123456789"), 0x279C_AA84_EBEC_E459);
    }
}
