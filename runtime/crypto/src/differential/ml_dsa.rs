//! ML-DSA-65: liboqs signs and AWS-LC verifies here; `ml-dsa` does both on the other side.

use ml_dsa::{B32, MlDsa65, Signature, SigningKey, VerifyingKey};
use proptest::prelude::*;

use super::{bytes, seed};
use crate::ml_dsa::MlDsaSeed;
use crate::{MlDsaKeyPair, MlDsaPublic, MlDsaSignature, seeded};

/// FIPS 204's message representative for the pure variant and the empty context: 0 ‖ 0 ‖ M.
const PREFIX: &[u8] = &[0, 0];

fn pair(seed: &[u8; 32]) -> MlDsaKeyPair {
    MlDsaKeyPair::from_seed(MlDsaSeed::copied_from(seed))
}

/// What the second implementation thinks of a signature; one that it cannot decode does not verify.
fn second_takes(public: &[u8; MlDsaPublic::LEN], message: &[u8], signature: &[u8]) -> bool {
    let key = VerifyingKey::<MlDsa65>::decode(&(*public).into());
    Signature::try_from(signature)
        .is_ok_and(|signature| key.verify_with_context(message, b"", &signature))
}

fn first_takes(public: &[u8; MlDsaPublic::LEN], message: &[u8], signature: &[u8]) -> bool {
    let public = MlDsaPublic::from_slice(public).unwrap();
    let signature = MlDsaSignature::from_slice(signature).unwrap();
    public.verify(message, &signature).is_ok()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    // One seed gives both the same key pair, expanded secret included; one randomness the same signature; each takes the
    // other's, hedged and deterministic; and of a signature with a flipped bit both think the same: it is none.
    #[test]
    fn keys_and_signatures(
        seed in seed::<32>(),
        randomness in seed::<32>(),
        message in proptest::collection::vec(any::<u8>(), 0..300),
        bit in 0..MlDsaSignature::LEN * 8,
    ) {
        let first = pair(&seed);
        let second = SigningKey::<MlDsa65>::from_seed(&seed.into());
        let expanded = second.expanded_key();
        let public = first.public().as_bytes();
        prop_assert_eq!(&public[..], &expanded.verifying_key().encode()[..]);
        #[expect(deprecated, reason = "the expanded form is what liboqs signs with")]
        let secret = expanded.to_expanded();
        prop_assert_eq!(&first.expanded_secret()[..], &secret[..]);

        let ours = {
            let _exactly = seeded::from_bytes(&randomness);
            first.sign(&message)
        };
        let theirs = expanded.sign_internal(&[PREFIX, &message], &B32::from(randomness)).encode();
        prop_assert!(ours.as_bytes()[..] == theirs[..], "two signatures of one randomness");
        let hedged = first.sign(&message);
        let fixed = expanded.sign_deterministic(&message, b"").unwrap().encode();
        for signature in [&ours.as_bytes()[..], &hedged.as_bytes()[..], &fixed[..]] {
            prop_assert!(first_takes(public, &message, signature));
            prop_assert!(second_takes(public, &message, signature));
        }

        let mut damaged = ours.as_bytes().to_vec();
        damaged[bit / 8] ^= 1 << (bit % 8);
        prop_assert!(!first_takes(public, &message, &damaged), "bit {}", bit);
        prop_assert!(!second_takes(public, &message, &damaged), "bit {}", bit);
        let other = [&message[..], b"!"].concat();
        prop_assert!(!first_takes(public, &other, &theirs) && !second_takes(public, &other, &theirs));
    }

    // A key that nobody made, a signature that nobody made.
    #[test]
    fn any_key_and_signature(public in bytes::<{ MlDsaPublic::LEN }>(), signature in bytes::<{ MlDsaSignature::LEN }>()) {
        let honest = pair(&[1; 32]);
        let signed = honest.sign(b"message");
        for (public, signature) in [
            (&public, &signature),
            (&public, signed.as_bytes()),
            (honest.public().as_bytes(), &signature),
        ] {
            prop_assert!(!first_takes(public, b"message", signature));
            prop_assert!(!second_takes(public, b"message", signature));
        }
    }
}

// The hint's encoding has many wrong forms: each of its 61 bytes set to each of some values, in a signature that is right
// otherwise. Both verifiers take the untouched one and refuse the same others.
#[test]
fn every_byte_of_the_hint() {
    let first = pair(&[2; 32]);
    let public = first.public().as_bytes();
    let good = first.sign(b"message");
    let at = MlDsaSignature::LEN - 61;
    let mut refused = 0;
    for place in at..MlDsaSignature::LEN {
        for value in [0, 1, 54, 55, 56, 127, 254, 255] {
            let mut signature = *good.as_bytes();
            signature[place] = value;
            let ours = first_takes(public, b"message", &signature);
            assert_eq!(
                ours,
                second_takes(public, b"message", &signature),
                "{value} at {place}"
            );
            assert_eq!(ours, signature == *good.as_bytes(), "{value} at {place}");
            refused += usize::from(!ours);
        }
    }
    assert!(refused > 400, "{refused}");
}
