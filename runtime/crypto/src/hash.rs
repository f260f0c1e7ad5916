//! SHA-256, in one call or as a running transcript, and BLAKE2b-256.

use aws_lc_rs::digest;
use blake2::Digest as _;

/// A running SHA-256; cloning forks the transcript.
#[derive(Clone)]
pub struct Sha256(digest::Context);

impl Sha256 {
    /// An empty transcript.
    pub fn new() -> Self {
        Self(digest::Context::new(&digest::SHA256))
    }

    /// Appends `bytes`; boundaries between calls do not count.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The hash of everything so far; the transcript goes on.
    pub fn current(&self) -> [u8; 32] {
        self.clone().finish()
    }

    /// The hash of everything.
    pub fn finish(self) -> [u8; 32] {
        let mut out = [0u8; 32];
        out.copy_from_slice(self.0.finish().as_ref());
        out
    }
}

impl Default for Sha256 {
    fn default() -> Self {
        Self::new()
    }
}

impl std::fmt::Debug for Sha256 {
    // A transcript may have absorbed secrets, so its state is not shown.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Sha256(..)")
    }
}

/// SHA-256 of the parts one after another (no separator: callers fix or prefix lengths).
pub fn sha256(parts: &[&[u8]]) -> [u8; 32] {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update(part);
    }
    hash.finish()
}

/// BLAKE2b with a 32-byte output of the parts one after another.
pub fn blake2b256(parts: &[&[u8]]) -> [u8; 32] {
    let mut hash = blake2::Blake2b::<blake2::digest::consts::U32>::new();
    for part in parts {
        hash.update(part);
    }
    hash.finalize().into()
}

/// SHA3-256 of the parts one after another; X-Wing's combiner.
pub(crate) fn sha3_256(parts: &[&[u8]]) -> [u8; 32] {
    let mut hash = digest::Context::new(&digest::SHA3_256);
    for part in parts {
        hash.update(part);
    }
    let mut out = [0u8; 32];
    out.copy_from_slice(hash.finish().as_ref());
    out
}
