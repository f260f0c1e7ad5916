//! The start-up test: a node whose primitives do not give the published answers refuses to run.
//!
//! Every primitive is held against one pinned answer; seals and signatures must also refuse an altered input, and key
//! pairs made now must fit together. It takes a few milliseconds. The answers come from the RFCs and vectors named below;
//! the full vector sets run in this crate's tests.

use std::fmt;

use crate::ed25519::{Ed25519Pair, Ed25519Seed};
use crate::ml_dsa::MlDsaSeed;
use crate::{
    AeadAlgorithm, KemCiphertext, KemSecret, MlDsaKeyPair, MlDsaSignature, NodeKeys, OpenKey,
    SealKey, blake2b256, encapsulate, hash, hmac_sha256, kdf, random, sha256,
};

/// A primitive that this crate offers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names say it all")]
pub enum Primitive {
    Randomness,
    Sha256,
    Sha3,
    Blake2b256,
    HmacSha256,
    HkdfSha256,
    Aes256Gcm,
    ChaCha20Poly1305,
    Ed25519,
    MlDsa65,
    HybridSignature,
    XWing,
}

impl fmt::Display for Primitive {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Randomness => "the random generator",
            Self::Sha256 => "SHA-256",
            Self::Sha3 => "SHA3-256",
            Self::Blake2b256 => "BLAKE2b-256",
            Self::HmacSha256 => "HMAC-SHA256",
            Self::HkdfSha256 => "HKDF-SHA256",
            Self::Aes256Gcm => "AES-256-GCM",
            Self::ChaCha20Poly1305 => "ChaCha20-Poly1305",
            Self::Ed25519 => "Ed25519",
            Self::MlDsa65 => "ML-DSA-65",
            Self::HybridSignature => "the hybrid signature",
            Self::XWing => "X-Wing",
        })
    }
}

/// What a primitive did wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// The output is not the published one.
    #[error("does not give the published answer")]
    WrongAnswer,
    /// What one half made, the other half does not take.
    #[error("does not agree with itself")]
    Disagrees,
    /// An altered input was accepted.
    #[error("accepts an altered input")]
    AcceptsForgery,
}

/// The engine or the machine is broken; nothing must be sealed, signed or trusted here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("self-test: {primitive} {fault}; do not run on this machine or build")]
pub struct SelfTestError {
    /// The first primitive that failed.
    pub primitive: Primitive,
    /// What it did.
    pub fault: Fault,
}

/// Runs every check; the first failure ends it.
pub fn run() -> Result<(), SelfTestError> {
    CHECKS.iter().try_for_each(|&(primitive, check)| {
        check(&Answers::PINNED, Tamper::AS_MEANT)
            .map_err(|fault| SelfTestError { primitive, fault })
    })
}

type Check = fn(&Answers, Tamper) -> Result<(), Fault>;

const CHECKS: [(Primitive, Check); 12] = [
    (Primitive::Randomness, randomness),
    (Primitive::Sha256, sha2),
    (Primitive::Sha3, sha3),
    (Primitive::Blake2b256, blake2b),
    (Primitive::HmacSha256, hmac),
    (Primitive::HkdfSha256, hkdf),
    (Primitive::Aes256Gcm, aes_gcm),
    (Primitive::ChaCha20Poly1305, chacha20_poly1305),
    (Primitive::Ed25519, ed25519),
    (Primitive::MlDsa65, ml_dsa),
    (Primitive::HybridSignature, hybrid),
    (Primitive::XWing, x_wing),
];

/// Published outputs, in hexadecimal.
#[derive(Clone, Copy)]
struct Answers {
    /// FIPS 180-4, "abc".
    sha256: &'static str,
    /// FIPS 202, "abc".
    sha3_256: &'static str,
    /// BLAKE2b with 32 bytes of output, "abc" (RFC 7693's algorithm; value of the reference code).
    blake2b256: &'static str,
    /// RFC 4231, case 2.
    hmac: &'static str,
    /// RFC 5869, case 1.
    hkdf: &'static str,
    /// "The Galois/Counter Mode of Operation", case 14: text, then tag.
    aes_gcm: &'static str,
    /// RFC 8439, section 2.8.2: the first 16 bytes of text, then tag.
    chacha20_poly1305: &'static str,
    /// RFC 8032, section 7.1, test 1: public key, then signature.
    ed25519: &'static str,
    /// Wycheproof `mldsa_65_sign_seed`, case 1: SHA-256 of the public key (the signature is in the file beside).
    ml_dsa: &'static str,
    /// X-Wing's draft, first vector: SHA-256 of the public key, then shared secret (the ciphertext is beside).
    x_wing: &'static str,
}

impl Answers {
    const PINNED: Self = Self {
        sha256: "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
        sha3_256: "3a985da74fe225b2045c172d6bd390bd855f086e3e9d525b46bfe24511431532",
        blake2b256: "bddd813c634239723171ef3fee98579b94964e3bb1cb3e427262c8c068d52319",
        hmac: "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843",
        hkdf: "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865",
        aes_gcm: "cea7403d4d606b6e074ec5d3baf39d18d0d1c8a799996bf0265b98b5d48ab919",
        chacha20_poly1305: "d31a8d34648e60db7b86afbc53ef7ec21ae10b594f09e26a7e902ecbd0600691",
        ed25519: "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a\
                  e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555\
                  fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b",
        ml_dsa: "b7acce2ddb11f8cc1aa46e2bafac6eacfa2b732ef192bd636ad8d3a56d649c66",
        x_wing: "2e816deebcd76c5c80d0cd2d174478871658e8e2ff42bc9d4a6e486372e856bb\
                 d2df0522128f09dd8e2c92b1e905c793d8f57a54c3da25861f10bf4ca613e384",
    };
}

/// What is done to inputs on their way from one half of a primitive to the other, so that a test can make every check
/// fail.
#[derive(Clone, Copy)]
struct Tamper {
    /// XORed into what must be accepted.
    honest: u8,
    /// XORed into what must be refused.
    forged: u8,
}

impl Tamper {
    const AS_MEANT: Self = Self {
        honest: 0,
        forged: 1,
    };
}

fn expect(answer: &str, parts: &[&[u8]]) -> Result<(), Fault> {
    if hex::encode(parts.concat()) == answer {
        Ok(())
    } else {
        Err(Fault::WrongAnswer)
    }
}

fn agree(holds: bool) -> Result<(), Fault> {
    if holds { Ok(()) } else { Err(Fault::Disagrees) }
}

fn refuse(accepted: bool) -> Result<(), Fault> {
    if accepted {
        Err(Fault::AcceptsForgery)
    } else {
        Ok(())
    }
}

/// A stuck generator gives the same bytes twice. (`honest` makes the two draws compare as if they were one.)
fn randomness(_: &Answers, tamper: Tamper) -> Result<(), Fault> {
    let first = random::bytes::<32>();
    let second = if tamper.honest == 0 {
        random::bytes::<32>()
    } else {
        first
    };
    agree(first != second && first != [0; 32])
}

fn sha2(answers: &Answers, _: Tamper) -> Result<(), Fault> {
    expect(answers.sha256, &[&sha256(&[b"a", b"bc"])])
}

fn sha3(answers: &Answers, _: Tamper) -> Result<(), Fault> {
    expect(answers.sha3_256, &[&hash::sha3_256(&[b"a", b"bc"])])
}

fn blake2b(answers: &Answers, _: Tamper) -> Result<(), Fault> {
    expect(answers.blake2b256, &[&blake2b256(&[b"a", b"bc"])])
}

fn hmac(answers: &Answers, _: Tamper) -> Result<(), Fault> {
    expect(
        answers.hmac,
        &[&hmac_sha256(
            b"Jefe",
            &[b"what do ya want ", b"for nothing?"],
        )],
    )
}

fn hkdf(answers: &Answers, _: Tamper) -> Result<(), Fault> {
    let salt: [u8; 13] = std::array::from_fn(|i| i as u8);
    let info: [u8; 10] = std::array::from_fn(|i| 0xf0 + i as u8);
    let mut okm = [0u8; 42];
    kdf::extract(&salt, &[0x0b; 22]).expand(&[&info[..4], &info[4..]], &mut okm);
    expect(answers.hkdf, &[&okm])
}

fn aes_gcm(answers: &Answers, tamper: Tamper) -> Result<(), Fault> {
    let mut text = [0u8; 16];
    let tag =
        SealKey::new(AeadAlgorithm::Aes256Gcm, &[0; 32]).seal_in_place(&[0; 12], b"", &mut text);
    expect(answers.aes_gcm, &[&text, &tag])?;
    opens(
        AeadAlgorithm::Aes256Gcm,
        &[0; 32],
        &[0; 12],
        b"",
        &[&text[..], &tag].concat(),
        tamper,
    )
}

fn chacha20_poly1305(answers: &Answers, tamper: Tamper) -> Result<(), Fault> {
    let key: [u8; 32] = std::array::from_fn(|i| 0x80 + i as u8);
    let nonce = [7, 0, 0, 0, 0x40, 0x41, 0x42, 0x43, 0x44, 0x45, 0x46, 0x47];
    let aad = [
        0x50, 0x51, 0x52, 0x53, 0xc0, 0xc1, 0xc2, 0xc3, 0xc4, 0xc5, 0xc6, 0xc7,
    ];
    let mut text = *b"Ladies and Gentlemen of the class of '99: If I could offer you \
        only one tip for the future, sunscreen would be it.";
    let algorithm = AeadAlgorithm::ChaCha20Poly1305;
    let tag = SealKey::new(algorithm, &key).seal_in_place(&nonce, &aad, &mut text);
    expect(answers.chacha20_poly1305, &[&text[..16], &tag])?;
    opens(
        algorithm,
        &key,
        &nonce,
        &aad,
        &[&text[..], &tag].concat(),
        tamper,
    )
}

fn opens(
    algorithm: AeadAlgorithm,
    key: &[u8; 32],
    nonce: &[u8; 12],
    aad: &[u8],
    sealed: &[u8],
    tamper: Tamper,
) -> Result<(), Fault> {
    let key = OpenKey::new(algorithm, key);
    let accepts = |altered_by: u8| {
        let mut sealed = sealed.to_vec();
        sealed[0] ^= altered_by;
        key.open_in_place(nonce, aad, &mut sealed).is_ok()
    };
    agree(accepts(tamper.honest))?;
    refuse(accepts(tamper.forged))
}

fn ed25519(answers: &Answers, tamper: Tamper) -> Result<(), Fault> {
    const SEED: &str = "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60";
    let pair = Ed25519Pair::from_seed(Ed25519Seed::copied_from(&hex32(SEED)));
    let signature = pair.sign(b"");
    expect(answers.ed25519, &[pair.public().as_bytes(), &signature])?;
    let accepts = |altered_by: u8| {
        let mut signature = signature;
        signature[0] ^= altered_by;
        pair.public().verify(b"", &signature).is_ok()
    };
    agree(accepts(tamper.honest))?;
    refuse(accepts(tamper.forged))
}

fn ml_dsa(answers: &Answers, tamper: Tamper) -> Result<(), Fault> {
    let pair = MlDsaKeyPair::from_seed(MlDsaSeed::copied_from(&[0x2a; 32]));
    expect(answers.ml_dsa, &[&sha256(&[pair.public().as_bytes()])])?;
    let published = include_bytes!("ml-dsa-signature.bin");
    let accepts = |signature: &[u8; MlDsaSignature::LEN], altered_by: u8| {
        let mut signature = *signature;
        signature[0] ^= altered_by;
        MlDsaSignature::from_slice(&signature)
            .is_ok_and(|signature| pair.public().verify(b"Hello world", &signature).is_ok())
    };
    agree(accepts(published, tamper.honest))?;
    agree(accepts(pair.sign(b"Hello world").as_bytes(), tamper.honest))?;
    refuse(accepts(published, tamper.forged))
}

fn hybrid(_: &Answers, tamper: Tamper) -> Result<(), Fault> {
    let keys = NodeKeys::generate();
    let signature = keys.sign(&[0]);
    agree(keys.public().verify(&[tamper.honest], &signature).is_ok())?;
    refuse(keys.public().verify(&[tamper.forged], &signature).is_ok())
}

fn x_wing(answers: &Answers, tamper: Tamper) -> Result<(), Fault> {
    const SEED: &str = "7f9c2ba4e88f827d616045507605853ed73b8093f6efbc88eb1a6eacfa66ef26";
    let secret = KemSecret::from_seed(&hex32(SEED));
    let ciphertext = KemCiphertext::from_bytes(include_bytes!("x-wing-ciphertext.bin"));
    let shared = ciphertext.and_then(|ciphertext| secret.decapsulate(&ciphertext));
    let shared = shared.map_err(|_| Fault::WrongAnswer)?;
    expect(
        answers.x_wing,
        &[&sha256(&[secret.public().as_bytes()]), shared.expose()],
    )?;

    let secret = KemSecret::generate();
    let (ciphertext, ours) = encapsulate(secret.public()).map_err(|_| Fault::Disagrees)?;
    let same = |altered_by: u8| {
        let mut bytes = *ciphertext.as_bytes();
        bytes[0] ^= altered_by;
        KemCiphertext::from_bytes(&bytes)
            .and_then(|ciphertext| secret.decapsulate(&ciphertext))
            .is_ok_and(|theirs| kdf::same(ours.expose(), theirs.expose()))
    };
    agree(same(tamper.honest))?;
    refuse(same(tamper.forged))
}

fn hex32(text: &str) -> [u8; 32] {
    let mut bytes = [0u8; 32];
    hex::decode_to_slice(text, &mut bytes).expect("a constant of 64 hexadecimal digits");
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    // A sound build passes.
    #[test]
    fn passes_as_pinned() {
        assert_eq!(run(), Ok(()));
    }

    // One digit of one published answer is changed at a time: exactly that primitive reports a wrong answer.
    #[test]
    fn a_corrupted_expectation_names_its_primitive() {
        type Corrupt = fn(&mut Answers);
        let corruptions: [(Primitive, Corrupt); 10] = [
            (Primitive::Sha256, |a| a.sha256 = flipped(a.sha256)),
            (Primitive::Sha3, |a| a.sha3_256 = flipped(a.sha3_256)),
            (Primitive::Blake2b256, |a| {
                a.blake2b256 = flipped(a.blake2b256)
            }),
            (Primitive::HmacSha256, |a| a.hmac = flipped(a.hmac)),
            (Primitive::HkdfSha256, |a| a.hkdf = flipped(a.hkdf)),
            (Primitive::Aes256Gcm, |a| a.aes_gcm = flipped(a.aes_gcm)),
            (Primitive::ChaCha20Poly1305, |a| {
                a.chacha20_poly1305 = flipped(a.chacha20_poly1305);
            }),
            (Primitive::Ed25519, |a| a.ed25519 = flipped(a.ed25519)),
            (Primitive::MlDsa65, |a| a.ml_dsa = flipped(a.ml_dsa)),
            (Primitive::XWing, |a| a.x_wing = flipped(a.x_wing)),
        ];
        for (corrupted, corrupt) in corruptions {
            let mut answers = Answers::PINNED;
            corrupt(&mut answers);
            for (primitive, check) in CHECKS {
                let expected = if primitive == corrupted {
                    Err(Fault::WrongAnswer)
                } else {
                    Ok(())
                };
                assert_eq!(check(&answers, Tamper::AS_MEANT), expected, "{primitive}");
            }
        }
    }

    // Honest inputs are altered between the halves: every primitive with two halves reports that it disagrees.
    #[test]
    fn altered_honest_inputs_are_noticed() {
        let tamper = Tamper {
            honest: 1,
            forged: 1,
        };
        assert_eq!(
            failing(tamper),
            two_halves(Fault::Disagrees, Some(Primitive::Randomness))
        );
    }

    // The "forgery" is not altered at all: every primitive that must refuse one reports that it accepts it.
    #[test]
    fn an_accepted_forgery_is_noticed() {
        let tamper = Tamper {
            honest: 0,
            forged: 0,
        };
        assert_eq!(failing(tamper), two_halves(Fault::AcceptsForgery, None));
    }

    fn failing(tamper: Tamper) -> Vec<(Primitive, Fault)> {
        let failed = |(primitive, check): &(Primitive, Check)| {
            check(&Answers::PINNED, tamper)
                .err()
                .map(|fault| (*primitive, fault))
        };
        CHECKS.iter().filter_map(failed).collect()
    }

    fn two_halves(fault: Fault, first: Option<Primitive>) -> Vec<(Primitive, Fault)> {
        let sealing_and_signing = [
            Primitive::Aes256Gcm,
            Primitive::ChaCha20Poly1305,
            Primitive::Ed25519,
            Primitive::MlDsa65,
            Primitive::HybridSignature,
            Primitive::XWing,
        ];
        first
            .into_iter()
            .chain(sealing_and_signing)
            .map(|primitive| (primitive, fault))
            .collect()
    }

    fn flipped(hex: &'static str) -> &'static str {
        let (digits, last) = hex.split_at(hex.len() - 1);
        let last = if last == "0" { "1" } else { "0" };
        Box::leak(format!("{digits}{last}").into_boxed_str())
    }
}
