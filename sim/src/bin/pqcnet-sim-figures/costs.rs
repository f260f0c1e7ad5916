//! What cryptography costs this machine.

use std::hint::black_box;

use anyhow::Result;
use pqcnet_actor::Stopwatch;
use pqcnet_crypto::{AeadAlgorithm, AeadKey, KemSecret, NodeKeys, encapsulate};

use crate::tell;

/// What each operation costs this machine: the constants of `pqcnet_sim::crypto::Costs` are such a run's.
pub(crate) fn costs() -> Result<()> {
    const TIMES: u32 = 2_000;
    let each = |name: &str, work: &mut dyn FnMut()| {
        work();
        let watch = Stopwatch::start();
        for _ in 0..TIMES {
            work();
        }
        let took = watch.elapsed() / TIMES;
        tell(&format!("{name:<20}{:>10.2} us", took.as_secs_f64() * 1e6));
    };
    let keys = NodeKeys::generate();
    let message = [1; 200];
    let hybrid = keys.sign(&message);
    let alone = keys.sign_ml_dsa(&message);
    let public = keys.public();
    each("ML-DSA sign", &mut || {
        drop(black_box(keys.sign_ml_dsa(&message)))
    });
    each("both sign", &mut || drop(black_box(keys.sign(&message))));
    each("ML-DSA verify", &mut || {
        black_box(public.ml_dsa.verify(&message, &alone).is_ok());
    });
    each("both verify", &mut || {
        black_box(public.verify(&message, &hybrid).is_ok());
    });
    let secret = KemSecret::generate();
    let (ciphertext, _) = encapsulate(secret.public())?;
    each("X-Wing keys", &mut || {
        drop(black_box(KemSecret::generate()))
    });
    each("X-Wing encapsulate", &mut || {
        black_box(encapsulate(secret.public()).is_ok());
    });
    each("X-Wing decapsulate", &mut || {
        black_box(secret.decapsulate(&ciphertext).is_ok());
    });
    let new = || AeadKey::new(AeadAlgorithm::Aes256Gcm, &[1; 32]);
    each("AES key", &mut || drop(black_box(new())));
    let key = new();
    for len in [64, 16_384, 65_536] {
        let mut text = vec![0; len];
        each(&format!("seal {len}"), &mut || {
            black_box(key.seal_in_place(&[0; 12], b"head", &mut text));
        });
    }
    Ok(())
}
