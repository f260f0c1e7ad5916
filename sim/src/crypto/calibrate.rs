//! A calibration run: what each operation costs the machine that runs it, on one core.

use std::hint::black_box;
use std::time::Duration;

use pqcnet_actor::Stopwatch;
use pqcnet_crypto::{AeadAlgorithm, AeadKey, KemError, KemSecret, NodeKeys, encapsulate};

use super::{Costs, Op};

/// Times that an operation is done in one batch.
const TIMES: u32 = 200;
/// Batches; the median counts, so that what else the machine does now and then does not.
const BATCHES: usize = 11;
/// Lengths between which the cost of a byte is measured: a small frame, and the largest record's quarter.
const SHORT: usize = 64;
const LONG: usize = 16_384;

/// Nanoseconds that `work` takes, the median of some batches.
fn each(mut work: impl FnMut()) -> f64 {
    let mut took: Vec<Duration> = (0..BATCHES)
        .map(|_| {
            let watch = Stopwatch::start();
            (0..TIMES).for_each(|_| work());
            watch.elapsed()
        })
        .collect();
    took.sort_unstable();
    let median = took.get(BATCHES / 2).copied().unwrap_or_default();
    median.as_nanos() as f64 / f64::from(TIMES)
}

fn ps(ns: f64) -> u64 {
    (ns.max(0.0) * 1_000.0) as u64
}

/// A cost of each and a cost of a byte, from what two lengths take.
fn line(short: f64, long: f64) -> (u64, u64) {
    let byte = ((long - short) / (LONG - SHORT) as f64).max(0.0);
    (ps(short - byte * SHORT as f64), ps(byte))
}

/// Measures all operations. Some seconds; on a busy machine what it says is too much.
///
/// # Errors
/// A key that was just made is refused: a fault of the library.
pub fn calibrate() -> Result<Costs, KemError> {
    let mut costs = Costs::default();
    let keys = NodeKeys::generate();
    let message = [1; 200];
    let (both, alone) = (keys.sign(&message), keys.sign_ml_dsa(&message));
    let public = keys.public();
    let sign = each(|| drop(black_box(keys.sign_ml_dsa(&message))));
    let sign_both = each(|| drop(black_box(keys.sign(&message))));
    let verify = each(|| {
        black_box(public.ml_dsa.verify(&message, &alone).is_ok());
    });
    let verify_both = each(|| {
        black_box(public.verify(&message, &both).is_ok());
    });
    let secret = KemSecret::generate();
    let (ciphertext, _) = encapsulate(secret.public())?;
    let kem_keys = each(|| drop(black_box(KemSecret::generate())));
    let encapsulated = each(|| {
        black_box(encapsulate(secret.public()).is_ok());
    });
    let decapsulated = each(|| {
        black_box(secret.decapsulate(&ciphertext).is_ok());
    });
    let new = || AeadKey::new(AeadAlgorithm::Aes256Gcm, &[1; 32]);
    let aead_key = each(|| drop(black_box(new())));
    for (op, ns) in [
        (Op::MlDsaSign, sign),
        (Op::MlDsaVerify, verify),
        (Op::Ed25519Sign, sign_both - sign),
        (Op::Ed25519Verify, verify_both - verify),
        (Op::KemKeys, kem_keys),
        (Op::Encapsulate, encapsulated),
        (Op::Decapsulate, decapsulated),
        (Op::AeadKey, aead_key),
    ] {
        costs.set(op, ps(ns), 0);
    }
    let key = new();
    let [short, long] = [SHORT, LONG].map(|len| {
        let mut text = vec![0; len];
        let sealed = each(|| {
            black_box(key.seal_in_place(&[0; 12], b"head", &mut text));
        });
        let tag = key.seal_in_place(&[0; 12], b"head", &mut text);
        text.extend_from_slice(&tag);
        let mut room = text.clone();
        let copied = each(|| black_box(&mut room).copy_from_slice(black_box(&text)));
        let opened = each(|| {
            room.copy_from_slice(&text);
            black_box(key.open_in_place(&[0; 12], b"head", &mut room).is_ok());
        });
        (sealed, opened - copied)
    });
    let (each_ps, byte_ps) = line(short.0, long.0);
    costs.set(Op::Seal, each_ps, byte_ps);
    let (each_ps, byte_ps) = line(short.1, long.1);
    costs.set(Op::Open, each_ps, byte_ps);
    Ok(costs)
}

#[cfg(test)]
mod tests {
    use super::*;

    // Two lengths give the line through both; a machine that is quicker with the longer one gives no negative cost.
    #[test]
    fn costs_of_two_lengths() {
        assert_eq!(line(100.0, 16_420.0), (36_000, 1_000));
        assert_eq!(line(100.0, 90.0), (100_000, 0));
    }
}
