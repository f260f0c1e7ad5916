//! liboqs, called directly: the one place with `unsafe`.
//!
//! The functions of one parameter set are called by name, so no `OQS_KEM` or `OQS_SIG` object is allocated, no length
//! is looked up, and secrets go straight into memory that this crate erases (the `oqs` crate's secret types print
//! themselves and do not zeroise). Array references fix every length that the C side assumes.
#![expect(
    unsafe_code,
    reason = "liboqs is C; lengths are fixed by the array types of the arguments"
)]

use oqs_sys::common::OQS_STATUS;
use oqs_sys::{kem, sig};

pub(crate) const ML_KEM_PUBLIC: usize = 1184;
pub(crate) const ML_KEM_SECRET: usize = 2400;
pub(crate) const ML_KEM_CIPHERTEXT: usize = 1088;
pub(crate) const ML_KEM_SEED: usize = 64;
pub(crate) const ML_DSA_PUBLIC: usize = 1952;
pub(crate) const ML_DSA_SECRET: usize = 4032;
pub(crate) const ML_DSA_SIGNATURE: usize = 3309;

const _: () = {
    assert!(ML_KEM_PUBLIC == kem::OQS_KEM_ml_kem_768_length_public_key as usize);
    assert!(ML_KEM_SECRET == kem::OQS_KEM_ml_kem_768_length_secret_key as usize);
    assert!(ML_KEM_CIPHERTEXT == kem::OQS_KEM_ml_kem_768_length_ciphertext as usize);
    assert!(ML_KEM_SEED == kem::OQS_KEM_ml_kem_768_length_keypair_seed as usize);
    assert!(kem::OQS_KEM_ml_kem_768_length_shared_secret == 32);
    assert!(ML_DSA_PUBLIC == sig::OQS_SIG_ml_dsa_65_length_public_key as usize);
    assert!(ML_DSA_SECRET == sig::OQS_SIG_ml_dsa_65_length_secret_key as usize);
    assert!(ML_DSA_SIGNATURE == sig::OQS_SIG_ml_dsa_65_length_signature as usize);
};

/// liboqs refused its input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Refused;

fn done(status: OQS_STATUS) -> Result<(), Refused> {
    match status {
        OQS_STATUS::OQS_SUCCESS => Ok(()),
        OQS_STATUS::OQS_ERROR | OQS_STATUS::OQS_EXTERNAL_LIB_ERROR_OPENSSL => Err(Refused),
    }
}

/// ML-KEM.KeyGen_internal(d, z) with `seed = d ‖ z` (FIPS 203, algorithm 16).
pub(crate) fn ml_kem_keypair(
    seed: &[u8; ML_KEM_SEED],
    public: &mut [u8; ML_KEM_PUBLIC],
    secret: &mut [u8; ML_KEM_SECRET],
) -> Result<(), Refused> {
    oqs::init();
    // SAFETY: the three arrays have the lengths of ML-KEM-768, checked above against liboqs's own constants.
    done(unsafe {
        kem::OQS_KEM_ml_kem_768_keypair_derand(
            public.as_mut_ptr(),
            secret.as_mut_ptr(),
            seed.as_ptr(),
        )
    })
}

/// ML-KEM.Encaps (FIPS 203, algorithm 20) with its modulus check; draws 32 random bytes.
pub(crate) fn ml_kem_encapsulate(
    public: &[u8; ML_KEM_PUBLIC],
    ciphertext: &mut [u8; ML_KEM_CIPHERTEXT],
    shared: &mut [u8; 32],
) -> Result<(), Refused> {
    oqs::init();
    // SAFETY: as above.
    done(unsafe {
        kem::OQS_KEM_ml_kem_768_encaps(
            ciphertext.as_mut_ptr(),
            shared.as_mut_ptr(),
            public.as_ptr(),
        )
    })
}

/// ML-KEM.Decaps (FIPS 203, algorithm 21) with its hash check of the decapsulation key; implicit rejection.
pub(crate) fn ml_kem_decapsulate(
    secret: &[u8; ML_KEM_SECRET],
    ciphertext: &[u8; ML_KEM_CIPHERTEXT],
    shared: &mut [u8; 32],
) -> Result<(), Refused> {
    oqs::init();
    // SAFETY: as above.
    done(unsafe {
        kem::OQS_KEM_ml_kem_768_decaps(shared.as_mut_ptr(), ciphertext.as_ptr(), secret.as_ptr())
    })
}

/// ML-DSA.Sign (FIPS 204, algorithm 2), hedged: draws 32 random bytes. `context` has at most 255 bytes.
pub(crate) fn ml_dsa_sign(
    secret: &[u8; ML_DSA_SECRET],
    message: &[u8],
    context: &[u8],
    signature: &mut [u8; ML_DSA_SIGNATURE],
) -> Result<(), Refused> {
    oqs::init();
    let mut length = 0usize;
    // SAFETY: the key and signature arrays have the lengths of ML-DSA-65; message and context are given with theirs.
    done(unsafe {
        sig::OQS_SIG_ml_dsa_65_sign_with_ctx_str(
            signature.as_mut_ptr(),
            &mut length,
            message.as_ptr(),
            message.len(),
            context.as_ptr(),
            context.len(),
            secret.as_ptr(),
        )
    })?;
    if length == ML_DSA_SIGNATURE {
        Ok(())
    } else {
        Err(Refused)
    }
}

/// ML-DSA.KeyGen (FIPS 204, algorithm 1); draws the 32-byte seed itself.
#[cfg(test)]
pub(crate) fn ml_dsa_keypair(public: &mut [u8; ML_DSA_PUBLIC], secret: &mut [u8; ML_DSA_SECRET]) {
    oqs::init();
    // SAFETY: as above.
    done(unsafe { sig::OQS_SIG_ml_dsa_65_keypair(public.as_mut_ptr(), secret.as_mut_ptr()) })
        .expect("key generation takes no input that could be refused");
}

/// Sends every random draw of liboqs, in the whole process, to `source`.
#[cfg(any(test, feature = "seeded"))]
pub(crate) fn replace_randomness(source: fn(&mut [u8])) {
    use std::sync::OnceLock;
    static SOURCE: OnceLock<fn(&mut [u8])> = OnceLock::new();
    unsafe extern "C" fn hook(out: *mut u8, len: usize) {
        if len == 0 {
            return;
        }
        // SAFETY: liboqs gives a buffer of `len` bytes that it wants filled.
        let out = unsafe { std::slice::from_raw_parts_mut(out, len) };
        if let Some(source) = SOURCE.get() {
            source(out);
        }
    }
    SOURCE.get_or_init(|| {
        oqs::init();
        // SAFETY: `hook` has the asked-for signature and lives as long as the process.
        unsafe { oqs_sys::rand::OQS_randombytes_custom_algorithm(Some(hook)) };
        source
    });
}
