//! AES-256-GCM and ChaCha20-Poly1305: AWS-LC and RustCrypto.

use aes_gcm::Aes256Gcm;
use aes_gcm::aead::{Aead as _, KeyInit as _, Payload};
use chacha20poly1305::ChaCha20Poly1305;
use proptest::prelude::*;

use super::{bytes, seed};
use crate::{AeadAlgorithm, AeadKey, OpenError};

const BOTH: [AeadAlgorithm; 2] = [AeadAlgorithm::Aes256Gcm, AeadAlgorithm::ChaCha20Poly1305];

/// Text lengths around the blocks of both ciphers, a packet, and the largest record with its neighbours.
const LENGTHS: &[usize] = &[
    0, 1, 15, 16, 17, 31, 32, 33, 63, 64, 65, 127, 128, 129, 255, 256, 257, 1_350, 16_384, 65_515,
    65_536,
];

fn first_seals(
    algorithm: AeadAlgorithm,
    key: &[u8; 32],
    nonce: &[u8; 12],
    aad: &[u8],
    text: &[u8],
) -> Vec<u8> {
    let mut sealed = text.to_vec();
    let tag = AeadKey::new(algorithm, key).seal_in_place(nonce, aad, &mut sealed);
    sealed.extend_from_slice(&tag);
    sealed
}

fn first_opens(
    algorithm: AeadAlgorithm,
    key: &[u8; 32],
    nonce: &[u8; 12],
    aad: &[u8],
    sealed: &[u8],
) -> Option<Vec<u8>> {
    let mut sealed = sealed.to_vec();
    match AeadKey::new(algorithm, key).open_in_place(nonce, aad, &mut sealed) {
        Ok(text) => Some(text.to_vec()),
        Err(OpenError::Forged | OpenError::TooShort { .. }) => None,
    }
}

fn second_seals(
    algorithm: AeadAlgorithm,
    key: &[u8; 32],
    nonce: &[u8; 12],
    aad: &[u8],
    msg: &[u8],
) -> Vec<u8> {
    let (nonce, payload) = (nonce.into(), Payload { msg, aad });
    match algorithm {
        AeadAlgorithm::Aes256Gcm => Aes256Gcm::new(key.into()).encrypt(nonce, payload),
        AeadAlgorithm::ChaCha20Poly1305 => {
            ChaCha20Poly1305::new(key.into()).encrypt(nonce, payload)
        }
    }
    .unwrap()
}

fn second_opens(
    algorithm: AeadAlgorithm,
    key: &[u8; 32],
    nonce: &[u8; 12],
    aad: &[u8],
    msg: &[u8],
) -> Option<Vec<u8>> {
    let (nonce, payload) = (nonce.into(), Payload { msg, aad });
    match algorithm {
        AeadAlgorithm::Aes256Gcm => Aes256Gcm::new(key.into()).decrypt(nonce, payload),
        AeadAlgorithm::ChaCha20Poly1305 => {
            ChaCha20Poly1305::new(key.into()).decrypt(nonce, payload)
        }
    }
    .ok()
}

/// Equal sealed texts, each opened by the other.
fn agree(algorithm: AeadAlgorithm, key: &[u8; 32], nonce: &[u8; 12], aad: &[u8], text: &[u8]) {
    let first = first_seals(algorithm, key, nonce, aad, text);
    let second = second_seals(algorithm, key, nonce, aad, text);
    assert!(first == second, "{algorithm:?}, {} bytes", text.len());
    let opened = second_opens(algorithm, key, nonce, aad, &first);
    assert!(opened.as_deref() == Some(text), "{algorithm:?}");
    let opened = first_opens(algorithm, key, nonce, aad, &second);
    assert!(opened.as_deref() == Some(text), "{algorithm:?}");
}

// Every length of the list, with edge keys, nonces and associated data.
#[test]
fn edge_lengths_keys_and_nonces() {
    for algorithm in BOTH {
        for &len in LENGTHS {
            let text: Vec<u8> = (0..len).map(|n| n as u8).collect();
            agree(algorithm, &[len as u8; 32], &[7; 12], b"\x10\0\0\0", &text);
        }
        for key in super::edges::<32>() {
            for nonce in super::edges::<12>() {
                for aad in [&b""[..], &[0; 16], &[0xff; 17]] {
                    agree(algorithm, &key, &nonce, aad, &[0; 33]);
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    // Random keys, nonces, associated data and texts; then one bit of any of them is flipped, or the end is cut off: neither
    // opens it.
    #[test]
    fn random_texts_and_damage(
        algorithm in proptest::sample::select(BOTH.to_vec()),
        key in seed::<32>(),
        nonce in bytes::<12>(),
        aad in proptest::collection::vec(any::<u8>(), 0..100),
        text in proptest::collection::vec(any::<u8>(), 0..1_500),
        flip in any::<(u8, proptest::sample::Index, u8)>(),
    ) {
        agree(algorithm, &key, &nonce, &aad, &text);
        let sealed = first_seals(algorithm, &key, &nonce, &aad, &text);
        let (mut key, mut nonce, mut aad, mut damaged) = (key, nonce, aad, sealed);
        let (which, at, bit) = flip;
        let bit = 1u8 << (bit % 8);
        match which % 5 {
            0 => key[at.index(32)] ^= bit,
            1 => nonce[at.index(12)] ^= bit,
            2 if !aad.is_empty() => { let at = at.index(aad.len()); aad[at] ^= bit; }
            3 => { let len = at.index(damaged.len()); damaged.truncate(len); }
            _ => { let at = at.index(damaged.len()); damaged[at] ^= bit; }
        }
        prop_assert_eq!(first_opens(algorithm, &key, &nonce, &aad, &damaged), None);
        prop_assert_eq!(second_opens(algorithm, &key, &nonce, &aad, &damaged), None);
    }
}
