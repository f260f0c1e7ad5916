//! Random streams by name.

use std::convert::Infallible;

use blake2::{Blake2b256, Digest};
use rand_chacha::ChaCha20Rng;
use rand_core::{Rng, SeedableRng, TryCryptoRng, TryRng};

/// A ChaCha20 stream. Under the simulator it depends on the seed and the names alone; in production its seed holds
/// 32 bytes of the operating system's randomness.
pub struct StreamRng(Box<ChaCha20Rng>);

impl StreamRng {
    /// The stream of these names under a simulated world's seed.
    #[cfg(any(test, feature = "simulation"))]
    pub fn named(seed: u64, names: &[&str]) -> StreamRng {
        let mut labels: Vec<&[u8]> = vec![b"named"];
        labels.extend(names.iter().map(|name| name.as_bytes()));
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&seed.to_be_bytes());
        StreamRng::derive(&bytes, &labels)
    }

    /// The stream of `(seed, labels)`; labels are length-prefixed, so no two lists of them meet.
    pub(crate) fn derive(seed: &[u8; 32], labels: &[&[u8]]) -> Self {
        let mut hash = Blake2b256::new();
        hash.update(b"pqcnet/random stream/1");
        hash.update(seed);
        for label in labels {
            hash.update((label.len() as u64).to_be_bytes());
            hash.update(label);
        }
        StreamRng(Box::new(ChaCha20Rng::from_seed(hash.finalize().into())))
    }
}

impl TryRng for StreamRng {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        Ok(self.0.next_u32())
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        Ok(self.0.next_u64())
    }

    fn try_fill_bytes(&mut self, dst: &mut [u8]) -> Result<(), Infallible> {
        self.0.fill_bytes(dst);
        Ok(())
    }
}

impl TryCryptoRng for StreamRng {}

impl std::fmt::Debug for StreamRng {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("StreamRng(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // The derivation is part of what makes a seed reproduce a run: its first bytes are pinned, and moving a byte
    // from one label to the next gives another stream.
    #[test]
    fn streams_are_pinned_and_apart() {
        let seed = [7; 32];
        let mut a = StreamRng::derive(&seed, &[b"node", b"path"]);
        let mut b = StreamRng::derive(&seed, &[b"nodep", b"ath"]);
        let first = a.next_u64();
        assert_eq!(
            first,
            StreamRng::derive(&seed, &[b"node", b"path"]).next_u64()
        );
        assert_ne!(first, b.next_u64());
        assert_eq!(first, PINNED);
    }

    const PINNED: u64 = 1_394_929_892_563_952_688;
}
