//! The puzzle of a Retry: find `solution` so that `SHA-256("QSTP/1 puzzle" ‖ H(M1) ‖ token ‖ solution)` begins with so many
//! zero bits. Solving costs 2^bits hashes on average, checking one.

use pqcnet_crypto::Sha256;

fn base(m1_hash: &[u8; 32], token: &[u8]) -> Sha256 {
    let mut hash = Sha256::new();
    hash.update(b"QSTP/1 puzzle");
    hash.update(m1_hash);
    hash.update(token);
    hash
}

fn zero_bits(base: &Sha256, solution: u64) -> u32 {
    let mut hash = base.clone();
    hash.update(&solution.to_be_bytes());
    let digest = hash.finish();
    let mut first = [0; 8];
    first.copy_from_slice(&digest[..8]);
    u64::from_be_bytes(first).leading_zeros() // up to 64; no puzzle asks for more than 20
}

/// The first solution among at most `attempts`, tried from zero up.
pub fn solve(m1_hash: &[u8; 32], token: &[u8], bits: u8, attempts: u64) -> Option<u64> {
    let base = base(m1_hash, token);
    (0..attempts).find(|&solution| zero_bits(&base, solution) >= u32::from(bits))
}

/// Whether `solution` solves it.
pub fn verify(m1_hash: &[u8; 32], token: &[u8], bits: u8, solution: u64) -> bool {
    zero_bits(&base(m1_hash, token), solution) >= u32::from(bits)
}
