//! `th`: SHA-256 of everything sent so far exactly as on the wire, and of the sealed plaintexts.

use pqcnet_crypto::Sha256;

/// The running hash. What goes in, and in which order, is docs/spec/qstp.md §5.
#[derive(Debug, Clone)]
pub(crate) struct Transcript(Sha256);

impl Transcript {
    /// Begins with the protocol's name and the length-prefixed prologue.
    pub(crate) fn new(prologue: &[u8]) -> Transcript {
        let mut hash = Sha256::new();
        hash.update(b"QSTP/1 transcript");
        hash.update(&(prologue.len() as u16).to_be_bytes());
        hash.update(prologue);
        Transcript(hash)
    }

    pub(crate) fn absorb(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    pub(crate) fn th(&self) -> [u8; 32] {
        self.0.current()
    }
}
