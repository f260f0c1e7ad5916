//! Operations a second of every primitive of a handshake and a record, beside the same work done by aws-lc-rs alone.
//!
//! One thread, CPU time; ours and the peer's batches alternate, so that a change of clock speed or a neighbour hits both.

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::agreement::{self, PrivateKey, UnparsedPublicKey, X25519};
use aws_lc_rs::error::Unspecified;
use aws_lc_rs::kem::{DecapsulationKey, EncapsulationKey, ML_KEM_768};
use aws_lc_rs::signature::{
    ED25519, Ed25519KeyPair, KeyPair as _, ML_DSA_65, ML_DSA_65_SIGNING, PqdsaKeyPair,
    UnparsedPublicKey as VerifyKey,
};
use pqcnet_crypto::{
    AeadAlgorithm, KemSecret, MlDsaKeyPair, NodeKeys, OpenKey, SealKey, encapsulate,
};

use crate::Args;
use crate::cpu;
use crate::row::Row;

const GROUP: &str = "crypto";
const PEER: &str = "aws-lc-rs";
/// Batches of each side; the median counts.
const BATCHES: usize = 11;

/// Every row of the group.
pub fn run(args: &Args) -> anyhow::Result<Vec<Row>> {
    let batch_ms = if args.quick { 10.0 } else { 100.0 };
    let mut rows = key_exchange(batch_ms)?;
    rows.extend(signatures(batch_ms)?);
    for bytes in [1_350, 16 * 1024, 64 * 1024] {
        rows.extend(records(batch_ms, bytes)?);
    }
    Ok(rows)
}

fn key_exchange(batch_ms: f64) -> anyhow::Result<Vec<Row>> {
    let secret = KemSecret::generate();
    let (ciphertext, _) = encapsulate(secret.public())?;
    let theirs = TheirKeys::generate()?;
    let public = theirs.public()?;
    let their_ciphertext = encapsulate_by_peer(&public)?;
    Ok(vec![
        beside(
            "X-Wing key pair",
            batch_ms,
            || use_up(KemSecret::generate()),
            || {
                TheirKeys::generate()
                    .and_then(|keys| keys.public())
                    .map(use_up)
            },
        )?,
        beside(
            "X-Wing encapsulation",
            batch_ms,
            || use_up(encapsulate(secret.public())),
            || encapsulate_by_peer(&public).map(use_up),
        )?,
        beside(
            "X-Wing decapsulation",
            batch_ms,
            || use_up(secret.decapsulate(&ciphertext)),
            || theirs.decapsulate(&their_ciphertext),
        )?,
    ])
}

fn signatures(batch_ms: f64) -> anyhow::Result<Vec<Row>> {
    let message = [7u8; 64];
    let keys = NodeKeys::generate();
    let hybrid = keys.sign(&message);
    let ml_dsa = keys.sign_ml_dsa(&message);
    let public = keys.public();

    let their_ml_dsa = PqdsaKeyPair::generate(&ML_DSA_65_SIGNING)?;
    let mut their_signature = vec![0u8; ML_DSA_65_SIGNING.signature_len()];
    their_ml_dsa.sign(&message, &mut their_signature)?;
    let their_public = VerifyKey::new(&ML_DSA_65, their_ml_dsa.public_key().as_ref());
    let their_ed25519 = Ed25519KeyPair::generate()?;
    let their_ed25519_public = VerifyKey::new(&ED25519, their_ed25519.public_key().as_ref());
    let their_ed25519_signature = their_ed25519.sign(&message);
    let mut scratch = their_signature.clone();
    let mut scratch_too = their_signature.clone();

    Ok(vec![
        beside(
            "ML-DSA-65 key pair",
            batch_ms,
            || use_up(MlDsaKeyPair::generate()),
            || PqdsaKeyPair::generate(&ML_DSA_65_SIGNING).map(use_up),
        )?,
        beside(
            "ML-DSA-65 sign",
            batch_ms,
            || use_up(keys.sign_ml_dsa(&message)),
            || their_ml_dsa.sign(&message, &mut scratch).map(use_up),
        )?,
        beside(
            "ML-DSA-65 verify",
            batch_ms,
            || use_up(public.ml_dsa.verify(&message, &ml_dsa)),
            || their_public.verify(&message, &their_signature),
        )?,
        beside(
            "ML-DSA-65 and Ed25519 sign",
            batch_ms,
            || use_up(keys.sign(&message)),
            || {
                their_ml_dsa.sign(&message, &mut scratch_too)?;
                their_ed25519.try_sign(&message).map(use_up)
            },
        )?,
        beside(
            "ML-DSA-65 and Ed25519 verify",
            batch_ms,
            || use_up(public.verify(&message, &hybrid)),
            || {
                their_public.verify(&message, &their_signature)?;
                their_ed25519_public.verify(&message, their_ed25519_signature.as_ref())
            },
        )?,
    ])
}

/// Sealing and opening one record in place; the share of the raw engine that our wrapper leaves.
fn records(batch_ms: f64, bytes: usize) -> anyhow::Result<Vec<Row>> {
    let (key, nonce, aad) = ([1u8; 32], [2u8; 12], [3u8; 4]);
    let seal = SealKey::new(AeadAlgorithm::Aes256Gcm, &key);
    let open = OpenKey::new(AeadAlgorithm::Aes256Gcm, &key);
    let raw = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &key)?);
    let mut sealed = vec![0u8; bytes];
    let tag = seal.seal_in_place(&nonce, &aad, &mut sealed);
    sealed.extend_from_slice(&tag);
    let mut texts = [vec![0u8; bytes], vec![0u8; bytes]];
    let [ours, theirs] = &mut texts;
    let gib = bytes as f64 / (1u64 << 30) as f64;

    let sealing = rates(
        batch_ms,
        || {
            use_up(seal.seal_in_place(&nonce, &aad, ours));
        },
        || {
            let nonce = Nonce::assume_unique_for_key(nonce);
            raw.seal_in_place_separate_tag(nonce, Aad::from(&aad), theirs)
                .map(use_up)
        },
    )?;
    // Opening destroys its input, so both sides pay the same copy first.
    let mut copies = [sealed.clone(), sealed.clone()];
    let [ours, theirs] = &mut copies;
    let opening = rates(
        batch_ms,
        || {
            ours.copy_from_slice(&sealed);
            use_up(open.open_in_place(&nonce, &aad, ours).is_ok());
        },
        || {
            theirs.copy_from_slice(&sealed);
            let nonce = Nonce::assume_unique_for_key(nonce);
            raw.open_in_place(nonce, Aad::from(&aad), theirs)
                .map(|_| ())
        },
    )?;
    let row = |what: &str, (ours, theirs): (f64, f64)| {
        Row::new(
            GROUP,
            format!("AES-256-GCM {what}, {bytes} B"),
            ours * gib,
            "GiB/s",
        )
        .beside("the raw engine", theirs * gib)
    };
    Ok(vec![
        row("seal", sealing),
        row("open (and a copy)", opening),
    ])
}

/// Keeps the optimiser from dropping what nobody reads.
fn use_up<T>(value: T) {
    std::hint::black_box(value);
}

fn beside(
    what: &str,
    batch_ms: f64,
    ours: impl FnMut(),
    theirs: impl FnMut() -> Result<(), Unspecified>,
) -> anyhow::Result<Row> {
    let (ours, theirs) = rates(batch_ms, ours, theirs)?;
    Ok(Row::new(GROUP, what, ours, "/s").beside(PEER, theirs))
}

/// Operations a second of CPU time: ours, the peer's.
fn rates(
    batch_ms: f64,
    mut ours: impl FnMut(),
    mut theirs: impl FnMut() -> Result<(), Unspecified>,
) -> anyhow::Result<(f64, f64)> {
    let mut ours = || -> anyhow::Result<()> {
        ours();
        Ok(())
    };
    let mut theirs = || -> anyhow::Result<()> { Ok(theirs()?) };
    let our_count = batch_size(batch_ms, &mut ours)?;
    let their_count = batch_size(batch_ms, &mut theirs)?;
    let (mut our_rates, mut their_rates) = (Vec::new(), Vec::new());
    for _ in 0..BATCHES {
        our_rates.push(rate(our_count, &mut ours)?);
        their_rates.push(rate(their_count, &mut theirs)?);
    }
    Ok((cpu::median(&mut our_rates), cpu::median(&mut their_rates)))
}

/// How many operations take `batch_ms`: found by doubling, since the kernel may count CPU time in ticks of 4 ms.
fn batch_size(batch_ms: f64, once: &mut dyn FnMut() -> anyhow::Result<()>) -> anyhow::Result<u32> {
    let mut count = 16;
    loop {
        let batches_a_second = rate(count, once)? / f64::from(count);
        if batches_a_second <= 1000.0 / batch_ms || count >= 1 << 24 {
            return Ok(count);
        }
        count *= 2;
    }
}

fn rate(count: u32, once: &mut dyn FnMut() -> anyhow::Result<()>) -> anyhow::Result<f64> {
    let before = cpu::thread()?;
    for _ in 0..count {
        once()?;
    }
    let spent = cpu::thread()?.saturating_sub(before).as_secs_f64();
    Ok(f64::from(count) / spent.max(1e-6))
}

/// The same key exchange, X25519 and ML-KEM-768, without a combiner, as TLS concatenates it.
struct TheirKeys {
    ml_kem: DecapsulationKey,
    x25519: PrivateKey,
}

struct TheirPublic {
    ml_kem: Vec<u8>,
    x25519: Vec<u8>,
}

struct TheirCiphertext {
    ml_kem: Vec<u8>,
    x25519: Vec<u8>,
}

impl TheirKeys {
    fn generate() -> Result<Self, Unspecified> {
        Ok(Self {
            ml_kem: DecapsulationKey::generate(&ML_KEM_768)?,
            x25519: PrivateKey::generate(&X25519)?,
        })
    }

    fn public(&self) -> Result<TheirPublic, Unspecified> {
        Ok(TheirPublic {
            ml_kem: self
                .ml_kem
                .encapsulation_key()?
                .key_bytes()?
                .as_ref()
                .to_vec(),
            x25519: self.x25519.compute_public_key()?.as_ref().to_vec(),
        })
    }

    fn decapsulate(&self, ciphertext: &TheirCiphertext) -> Result<(), Unspecified> {
        let shared = self
            .ml_kem
            .decapsulate(ciphertext.ml_kem.as_slice().into())?;
        use_up(shared.as_ref());
        agree(&self.x25519, &ciphertext.x25519)
    }
}

fn encapsulate_by_peer(public: &TheirPublic) -> Result<TheirCiphertext, Unspecified> {
    let key = EncapsulationKey::new(&ML_KEM_768, &public.ml_kem).map_err(|_| Unspecified)?;
    let (ciphertext, shared) = key.encapsulate()?;
    use_up(shared.as_ref());
    let ephemeral = PrivateKey::generate(&X25519)?;
    agree(&ephemeral, &public.x25519)?;
    Ok(TheirCiphertext {
        ml_kem: ciphertext.as_ref().to_vec(),
        x25519: ephemeral.compute_public_key()?.as_ref().to_vec(),
    })
}

fn agree(key: &PrivateKey, peer: &[u8]) -> Result<(), Unspecified> {
    agreement::agree(
        key,
        UnparsedPublicKey::new(&X25519, peer),
        Unspecified,
        |shared| {
            use_up(shared);
            Ok(())
        },
    )
}
