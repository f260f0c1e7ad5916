//! What the types promise to whoever uses this crate: secrets cannot be copied, shown or compared, nothing reads an input
//! into a panic, and both signatures count.

use std::fmt::{Debug, Display};

use pqcnet_crypto::keystore::{NodeSecrets, Passphrase, StorageMasterKey, WrappingKey};
use pqcnet_crypto::{
    AeadAlgorithm, AeadKey, Ed25519Public, HybridSignature, KemCiphertext, KemError, KemPublic,
    KemSecret, MlDsaKeyPair, MlDsaPublic, MlDsaSignature, NodeId, NodeKeys, NodePublic, OpenError,
    OpenKey, Prk, SealKey, SharedSecret, VerifyError, encapsulate, kdf, random,
};
use proptest::prelude::*;
use static_assertions::{assert_impl_all, assert_not_impl_any, assert_type_ne_all};

macro_rules! secret {
    ($($secret:ty),* $(,)?) => {
        $(
            assert_impl_all!($secret: Send, Sync, Debug);
            assert_not_impl_any!(
                $secret: Clone, Copy, Display, PartialEq, PartialOrd, std::hash::Hash,
                AsRef<[u8]>, std::ops::Deref, serde::Serialize, Default,
            );
        )*
    };
}

secret!(
    SharedSecret,
    KemSecret,
    Prk,
    AeadKey,
    SealKey,
    OpenKey,
    MlDsaKeyPair,
    NodeKeys,
    NodeSecrets,
    StorageMasterKey,
    WrappingKey,
    Passphrase,
);
assert_type_ne_all!(
    SharedSecret,
    Prk,
    StorageMasterKey,
    WrappingKey,
    SealKey,
    OpenKey,
    AeadKey
);
assert_not_impl_any!(SharedSecret: Into<Prk>, Into<StorageMasterKey>);
assert_not_impl_any!(Ed25519Public: Into<NodeId>);

// Every secret's Debug output is its name and perhaps public digits, never its bytes.
#[test]
fn secrets_do_not_show() {
    let secrets = NodeSecrets::generate();
    let kem = KemSecret::generate();
    let (_, shared) = encapsulate(kem.public()).unwrap();
    let prk = kdf::extract(b"", b"input");
    let shown = format!("{secrets:?} {kem:?} {shared:?} {prk:?}");
    for bytes in [
        secrets.storage.expose(),
        kem.expose_seed(),
        shared.expose(),
        prk.expose(),
    ] {
        assert!(!shown.contains(&hex::encode(&bytes[..4])), "{shown}");
        assert!(!shown.contains(&format!("{:?}", &bytes[..4])), "{shown}");
    }
    assert!(shown.contains("StorageMasterKey(redacted)"), "{shown}");
    let algorithm = AeadAlgorithm::Aes256Gcm;
    assert_eq!(
        format!("{:?}", SealKey::new(algorithm, &[0x2a; 32])),
        "SealKey(AeadKey(Aes256Gcm, redacted))"
    );
    let passphrase = Passphrase::new("correct horse".to_owned()).unwrap();
    assert_eq!(format!("{passphrase:?}"), "Passphrase(redacted)");
}

// Each half of a hybrid signature is exchanged for one over another message: the error names the half.
#[test]
fn both_halves_must_verify() {
    let keys = NodeKeys::generate();
    let (good, other) = (keys.sign(b"message"), keys.sign(b"another"));
    assert_eq!(keys.public().verify(b"message", &good), Ok(()));
    let spliced = |ed25519: &HybridSignature, ml_dsa: &HybridSignature| {
        let bytes = [&ed25519.to_bytes()[..64], &ml_dsa.to_bytes()[64..]].concat();
        HybridSignature::from_bytes(&bytes).unwrap()
    };
    let verdict = |signature| keys.public().verify(b"message", &signature);
    assert_eq!(verdict(spliced(&good, &good)), Ok(()));
    assert_eq!(verdict(spliced(&other, &good)), Err(VerifyError::Ed25519));
    assert_eq!(verdict(spliced(&good, &other)), Err(VerifyError::MlDsa));
    assert_eq!(
        NodeKeys::generate().public().verify(b"message", &good),
        Err(VerifyError::Ed25519)
    );
}

// A NodeId covers both keys: exchanging either for another node's changes it.
#[test]
fn a_node_id_covers_both_keys() {
    let (a, b) = (NodeKeys::generate(), NodeKeys::generate());
    let mixed = |ml_dsa: &NodeKeys, ed25519: &NodeKeys| NodePublic {
        ml_dsa: ml_dsa.public().ml_dsa.clone(),
        ed25519: ed25519.public().ed25519,
    };
    let ids = [(&a, &a), (&a, &b), (&b, &a), (&b, &b)].map(|(m, e)| mixed(m, e).node_id());
    assert_eq!((ids[0], ids[3]), (a.node_id(), b.node_id()));
    for (index, id) in ids.iter().enumerate() {
        assert_eq!(ids.iter().position(|other| other == id), Some(index));
    }
}

// The text form goes both ways; every other text is refused with what is wrong about it.
#[test]
fn node_ids_as_text() {
    let id = NodeId::from_bytes(std::array::from_fn(|i| i as u8));
    let text = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";
    assert_eq!((id.to_string().as_str(), text.parse()), (text, Ok(id)));
    assert_eq!(
        (id.short().as_str(), format!("{id:?}").as_str()),
        ("00010203", "NodeId(00010203)")
    );
    assert_eq!(serde_json::to_string(&id).unwrap(), format!("\"{text}\""));
    assert_eq!(
        serde_json::from_str::<NodeId>(&format!("\"{text}\"")).unwrap(),
        id
    );
    assert_eq!(
        text.to_uppercase()
            .parse::<NodeId>()
            .unwrap_err()
            .to_string(),
        "a node id has only the digits 0-9 and a-f, this has 'A' at position 21"
    );
    for text in ["", "00", &text[1..], &format!("{text}00")] {
        assert_eq!(
            text.parse::<NodeId>().unwrap_err().to_string(),
            format!(
                "a node id has 64 hexadecimal digits, this has {} characters",
                text.len()
            )
        );
    }
}

// X25519 values of low order (RFC 7748's zero result) are refused in both directions; the other half does not matter.
#[test]
fn low_order_points_are_refused() {
    let secret = KemSecret::generate();
    let (ciphertext, _) = encapsulate(secret.public()).unwrap();
    let mut points = vec![[0u8; 32], [0u8; 32]];
    points[1][0] = 1;
    for point in points {
        let mut key = *secret.public().as_bytes();
        key[1184..].copy_from_slice(&point);
        let key = KemPublic::from_bytes(&key).unwrap();
        assert_eq!(encapsulate(&key).unwrap_err(), KemError::LowOrder);

        let mut altered = *ciphertext.as_bytes();
        altered[1088..].copy_from_slice(&point);
        let altered = KemCiphertext::from_bytes(&altered).unwrap();
        assert_eq!(
            secret.decapsulate(&altered).unwrap_err(),
            KemError::LowOrder
        );
    }
}

// The modulus check at its edge: 3,328 is the largest coefficient, in either half of a byte triple.
#[test]
fn unreduced_keys_are_refused() {
    let good = *KemSecret::generate().public().as_bytes();
    let with = |low: u16, high: u16| {
        let mut key = good;
        key[300] = low as u8;
        key[301] = (low >> 8) as u8 | ((high & 0xf) << 4) as u8;
        key[302] = (high >> 4) as u8;
        KemPublic::from_bytes(&key).map(|_| ())
    };
    assert_eq!(with(3328, 3328), Ok(()));
    assert_eq!(with(3329, 0), Err(KemError::UnreducedKey));
    assert_eq!(with(0, 3329), Err(KemError::UnreducedKey));
    assert_eq!(with(4095, 4095), Err(KemError::UnreducedKey));
}

// Whatever is altered of a sealed text, its associated data, nonce or key: refused; and short ones by length.
#[test]
fn sealed_texts_are_bound_to_everything() {
    for algorithm in [AeadAlgorithm::Aes256Gcm, AeadAlgorithm::ChaCha20Poly1305] {
        let (seal, open) = (
            SealKey::new(algorithm, &[1; 32]),
            OpenKey::new(algorithm, &[1; 32]),
        );
        let mut sealed = b"plain text".to_vec();
        let tag = seal.seal_in_place(&[2; 12], b"aad", &mut sealed);
        sealed.extend_from_slice(&tag);
        let opens = |key: &OpenKey, nonce: u8, aad: &[u8], sealed: &[u8]| {
            let mut sealed = sealed.to_vec();
            key.open_in_place(&[nonce; 12], aad, &mut sealed)
                .map(|text| text.to_vec())
        };
        assert_eq!(opens(&open, 2, b"aad", &sealed), Ok(b"plain text".to_vec()));
        let forged = Err(OpenError::Forged);
        assert_eq!(opens(&open, 3, b"aad", &sealed), forged);
        assert_eq!(opens(&open, 2, b"add", &sealed), forged);
        assert_eq!(
            opens(&OpenKey::new(algorithm, &[9; 32]), 2, b"aad", &sealed),
            forged
        );
        for bit in 0..sealed.len() * 8 {
            let mut altered = sealed.clone();
            altered[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(opens(&open, 2, b"aad", &altered), forged, "bit {bit}");
        }
        for length in 0..16 {
            let too_short = Err(OpenError::TooShort { got: length });
            assert_eq!(opens(&open, 2, b"aad", &sealed[..length]), too_short);
        }
    }
}

// HKDF's parts are concatenated, derived keys differ by label, and no more than 255 blocks come out.
#[test]
fn key_schedule() {
    let prk = kdf::extract(b"salt", b"input");
    let expand = |info: &[&[u8]]| {
        let mut out = [0u8; 40];
        prk.expand(info, &mut out);
        out
    };
    assert_eq!(expand(&[b"a", b"bc"]), expand(&[b"abc"]));
    assert_ne!(expand(&[b"abc"]), expand(&[b"abd"]));
    assert_eq!(prk.derive(&[b"abc"]).expose()[..], expand(&[b"abc"])[..32]);
    let mut long = vec![0u8; Prk::MAX_OUTPUT];
    assert_eq!(prk.try_expand(&[], &mut long), Ok(()));
    long.push(0);
    let asked = long.len();
    let max = Prk::MAX_OUTPUT;
    assert_eq!(
        prk.try_expand(&[], &mut long),
        Err(kdf::OutputTooLong { asked, max })
    );
}

fn near(length: usize) -> impl Strategy<Value = Vec<u8>> {
    let any_length = proptest::collection::vec(any::<u8>(), 0..64);
    let right_length = proptest::collection::vec(any::<u8>(), length..=length);
    prop_oneof![any_length, right_length]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    // Any bytes read as any public value: accepted exactly if the length is right (and the modulus check holds), what was
    // read is written back unchanged, and using it gives a typed verdict.
    #[test]
    fn no_input_panics(
        public in near(NodePublic::LEN),
        signature in near(HybridSignature::LEN),
        kem_public in near(KemPublic::LEN),
        ciphertext in near(KemCiphertext::LEN),
        ml_dsa in near(MlDsaPublic::LEN),
        ml_dsa_signature in near(MlDsaSignature::LEN),
        short in proptest::collection::vec(any::<u8>(), 0..80),
        text in ".{0,70}",
    ) {
        let keys = NodeKeys::generate();
        let secret = KemSecret::generate();
        let node = NodePublic::from_bytes(&public);
        prop_assert_eq!(node.is_ok(), public.len() == NodePublic::LEN);
        let hybrid = HybridSignature::from_bytes(&signature);
        prop_assert_eq!(hybrid.is_ok(), signature.len() == HybridSignature::LEN);
        if let Ok(hybrid) = &hybrid {
            prop_assert_eq!(&hybrid.to_bytes()[..], &signature[..]);
            prop_assert!(keys.public().verify(&short, hybrid).is_err());
        }
        if let Ok(node) = &node {
            prop_assert_eq!(&node.to_bytes()[..], &public[..]);
            prop_assert!(node.verify(&short, &keys.sign(&short)).is_err());
        }
        if let Ok(key) = KemPublic::from_bytes(&kem_public) {
            prop_assert_eq!(&key.as_bytes()[..], &kem_public[..]);
            prop_assert!(encapsulate(&key).is_ok());
        }
        if let Ok(ciphertext) = KemCiphertext::from_bytes(&ciphertext) {
            prop_assert!(secret.decapsulate(&ciphertext).is_ok());
        }
        let ml_dsa = MlDsaPublic::from_slice(&ml_dsa);
        let ml_dsa_signature = MlDsaSignature::from_slice(&ml_dsa_signature);
        if let (Ok(key), Ok(signature)) = (ml_dsa, ml_dsa_signature) {
            prop_assert_eq!(key.verify(&short, &signature), Err(VerifyError::MlDsa));
        }
        prop_assert_eq!(Ed25519Public::from_slice(&short).is_ok(), short.len() == 32);
        prop_assert_eq!(NodeId::from_slice(&short).is_ok(), short.len() == 32);
        let id = text.parse::<NodeId>();
        prop_assert_eq!(id.is_ok(), text.len() == 64 && text.bytes().all(
            |b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)));
    }

    // Seal and open agree for any key, nonce, associated data and text.
    #[test]
    fn seal_then_open(
        key in any::<[u8; 32]>(),
        nonce in any::<[u8; 12]>(),
        aad in proptest::collection::vec(any::<u8>(), 0..64),
        text in proptest::collection::vec(any::<u8>(), 0..2000),
    ) {
        for algorithm in [AeadAlgorithm::Aes256Gcm, AeadAlgorithm::ChaCha20Poly1305] {
            let mut sealed = text.clone();
            let tag = SealKey::new(algorithm, &key).seal_in_place(&nonce, &aad, &mut sealed);
            sealed.extend_from_slice(&tag);
            let open = OpenKey::new(algorithm, &key);
            prop_assert_eq!(&*open.open_in_place(&nonce, &aad, &mut sealed).unwrap(), &text[..]);
        }
    }
}

// Two draws differ; a nonce helper gives the asked-for length.
#[test]
fn randomness_moves_on() {
    assert_ne!(random::bytes::<16>(), random::bytes::<16>());
}
