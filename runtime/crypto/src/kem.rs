//! X-Wing: X25519 and ML-KEM-768 as one KEM ([draft-connolly-cfrg-xwing-kem]).
//!
//! A secret key is its 32-byte seed; SHAKE256 expands it to the ML-KEM seeds and the X25519 scalar. The shared secret is
//! `SHA3-256(ss_M ‖ ss_X ‖ ct_X ‖ pk_X ‖ label)`. Beyond the draft, an all-zero X25519 result is refused.
//!
//! [draft-connolly-cfrg-xwing-kem]: https://datatracker.ietf.org/doc/draft-connolly-cfrg-xwing-kem/

use std::fmt;

use aws_lc_rs::agreement::{self, UnparsedPublicKey, X25519};
use shake::{ExtendableOutput as _, Shake256, Update as _, XofReader as _};
use zeroize::Zeroizing;

use crate::engine::{self, ML_KEM_CIPHERTEXT, ML_KEM_PUBLIC, ML_KEM_SEED};
use crate::secret::secret_bytes;
use crate::{WrongLength, fixed, hash};

/// The draft's XWingLabel, `\.//^\`.
const LABEL: &[u8; 6] = br"\.//^\";
/// ML-KEM's modulus.
const Q: u16 = 3329;
/// Bytes of a public key that hold 12-bit coefficients: three polynomials of 256.
const COEFFICIENT_BYTES: usize = 3 * 256 * 12 / 8;

secret_bytes! {
    /// The 32 bytes both sides share after an encapsulation; input of the key schedule.
    pub struct SharedSecret(32)
}

secret_bytes! {
    struct Seed(32)
}

secret_bytes! {
    struct MlKemSecret(2400)
}

/// Why an encapsulation or decapsulation was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KemError {
    /// The peer's value has the wrong size.
    #[error(transparent)]
    WrongLength(#[from] WrongLength),
    /// The peer's ML-KEM key has a coefficient of 3,329 or more (the modulus check of FIPS 203, section 7.2).
    #[error("the ML-KEM encapsulation key fails the modulus check of FIPS 203")]
    UnreducedKey,
    /// The peer's X25519 value leads to an all-zero secret, so it contributes nothing.
    #[error("the X25519 value is of low order")]
    LowOrder,
    /// The engine refused a key that was generated here: a bug or a broken machine.
    #[error("the engine refuses a key of this node")]
    Engine,
}

/// A public key: ML-KEM-768 encapsulation key, then X25519 public key. Its coefficients are reduced.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct KemPublic(Box<[u8; KemPublic::LEN]>);

/// A ciphertext: ML-KEM-768 ciphertext, then ephemeral X25519 public key.
#[derive(Clone, PartialEq, Eq)]
pub struct KemCiphertext(Box<[u8; KemCiphertext::LEN]>);

/// A secret key, expanded once.
pub struct KemSecret {
    seed: Seed,
    ml_kem: MlKemSecret,
    x25519: X25519Half,
    public: KemPublic,
}

enum X25519Half {
    Real(agreement::PrivateKey),
    #[cfg(feature = "simulation")]
    Modelled,
}

impl KemPublic {
    /// Bytes of a public key.
    pub const LEN: usize = ML_KEM_PUBLIC + 32;

    /// Reads a peer's key: its length and the modulus check of FIPS 203. Whether the X25519 part is of low order shows at
    /// encapsulation.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, KemError> {
        let bytes: [u8; Self::LEN] = fixed("an X-Wing public key", bytes)?;
        if !coefficients_reduced(&bytes[..COEFFICIENT_BYTES]) {
            return Err(KemError::UnreducedKey);
        }
        Ok(Self(Box::new(bytes)))
    }

    /// The key as in the draft.
    pub fn as_bytes(&self) -> &[u8; Self::LEN] {
        &self.0
    }

    fn parts(&self) -> (&[u8; ML_KEM_PUBLIC], &[u8; 32]) {
        parts(&self.0[..])
    }
}

impl KemCiphertext {
    /// Bytes of a ciphertext.
    pub const LEN: usize = ML_KEM_CIPHERTEXT + 32;

    /// Reads a peer's ciphertext; every string of this length is one (implicit rejection).
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, KemError> {
        Ok(Self(Box::new(fixed("an X-Wing ciphertext", bytes)?)))
    }

    /// The ciphertext as in the draft.
    pub fn as_bytes(&self) -> &[u8; Self::LEN] {
        &self.0
    }

    fn parts(&self) -> (&[u8; ML_KEM_CIPHERTEXT], &[u8; 32]) {
        parts(&self.0[..])
    }
}

/// Encapsulates to `public`: a ciphertext for its holder and the secret now shared with it.
pub fn encapsulate(public: &KemPublic) -> Result<(KemCiphertext, SharedSecret), KemError> {
    #[cfg(feature = "simulation")]
    if crate::simulation::models(crate::simulation::Op::Encapsulate) {
        let mut ciphertext = KemCiphertext(Box::new([0u8; KemCiphertext::LEN]));
        crate::random::fill(&mut ciphertext.0[..32]);
        let shared = modelled_secret(public, &ciphertext);
        return Ok((ciphertext, shared));
    }
    let (ml_kem_public, x25519_public) = public.parts();
    let mut ciphertext = KemCiphertext(Box::new([0u8; KemCiphertext::LEN]));
    let (ct_m, ct_x) = parts_mut::<ML_KEM_CIPHERTEXT>(&mut ciphertext.0[..]);

    let mut ss_m = Zeroizing::new([0u8; 32]);
    engine::ml_kem_encapsulate(ml_kem_public, ct_m, &mut ss_m)
        .map_err(|engine::Refused| KemError::UnreducedKey)?;

    let mut scalar = Zeroizing::new([0u8; 32]);
    crate::random::fill(&mut scalar[..]);
    let ephemeral = x25519_key(&scalar)?;
    *ct_x = x25519_public_of(&ephemeral)?;
    let ss_x = x25519(&ephemeral, x25519_public)?;

    let shared = combine(&ss_m, &ss_x, ct_x, x25519_public);
    Ok((ciphertext, shared))
}

impl KemSecret {
    /// A new key pair from the operating system's randomness.
    pub fn generate() -> Self {
        let mut seed = Seed::zeroed();
        crate::random::fill(seed.expose_mut());
        Self::expand(seed)
    }

    /// The key pair of a stored seed.
    pub fn from_seed(seed: &[u8; 32]) -> Self {
        Self::expand(Seed::copied_from(seed))
    }

    fn expand(seed: Seed) -> Self {
        #[cfg(feature = "simulation")]
        if crate::simulation::models(crate::simulation::Op::KemKeys) {
            let mut public = KemPublic(Box::new([0u8; KemPublic::LEN]));
            // In the X25519 part, since not every 32 bytes are reduced coefficients.
            let name = hash::sha256(&[b"modelled X-Wing", seed.expose()]);
            public.0[ML_KEM_PUBLIC..].copy_from_slice(&name);
            return Self {
                seed,
                ml_kem: MlKemSecret::zeroed(),
                x25519: X25519Half::Modelled,
                public,
            };
        }
        let mut expanded = Zeroizing::new([0u8; ML_KEM_SEED + 32]);
        let mut shake = Shake256::default();
        shake.update(seed.expose());
        shake.finalize_xof().read(&mut expanded[..]);
        let (ml_kem_seed, scalar) = parts::<ML_KEM_SEED>(&expanded[..]);

        let mut ml_kem = MlKemSecret::zeroed();
        let mut public = KemPublic(Box::new([0u8; KemPublic::LEN]));
        let (pk_m, pk_x) = parts_mut::<ML_KEM_PUBLIC>(&mut public.0[..]);
        engine::ml_kem_keypair(ml_kem_seed, pk_m, ml_kem.expose_mut())
            .expect("any 64 bytes are an ML-KEM seed");
        let x25519 = x25519_key(scalar).expect("any 32 bytes are an X25519 scalar");
        *pk_x = x25519_public_of(&x25519).expect("a fresh key has a public half");
        Self {
            seed,
            ml_kem,
            x25519: X25519Half::Real(x25519),
            public,
        }
    }

    /// The 32-byte seed, to store it sealed.
    pub fn expose_seed(&self) -> &[u8; 32] {
        self.seed.expose()
    }

    /// The public half.
    pub fn public(&self) -> &KemPublic {
        &self.public
    }

    /// The secret that `ciphertext` carries. A ciphertext for another key gives a secret that nobody shares.
    pub fn decapsulate(&self, ciphertext: &KemCiphertext) -> Result<SharedSecret, KemError> {
        #[cfg(feature = "simulation")]
        if crate::simulation::models(crate::simulation::Op::Decapsulate) {
            return Ok(modelled_secret(&self.public, ciphertext));
        }
        #[allow(
            clippy::infallible_destructuring_match,
            reason = "a simulation has other engines"
        )]
        let x25519_key = match &self.x25519 {
            X25519Half::Real(key) => key,
            // Made in another mode than it is used in.
            #[cfg(feature = "simulation")]
            X25519Half::Modelled => return Err(KemError::Engine),
        };
        let (ct_m, ct_x) = ciphertext.parts();
        let mut ss_m = Zeroizing::new([0u8; 32]);
        engine::ml_kem_decapsulate(self.ml_kem.expose(), ct_m, &mut ss_m)
            .map_err(|engine::Refused| KemError::Engine)?;
        let ss_x = x25519(x25519_key, ct_x)?;
        let (_, pk_x) = self.public.parts();
        Ok(combine(&ss_m, &ss_x, ct_x, pk_x))
    }
}

impl fmt::Debug for KemSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KemSecret({:?}, secret redacted)", self.public)
    }
}

impl fmt::Debug for KemPublic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KemPublic({}..)", hex::encode(&self.0[..4]))
    }
}

impl fmt::Debug for KemCiphertext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KemCiphertext({}..)", hex::encode(&self.0[..4]))
    }
}

#[cfg(feature = "simulation")]
fn modelled_secret(public: &KemPublic, ciphertext: &KemCiphertext) -> SharedSecret {
    let (_, name) = public.parts();
    let mut shared = SharedSecret::zeroed();
    let digest = hash::sha256(&[b"modelled secret", name, &ciphertext.0[..32]]);
    shared.expose_mut().copy_from_slice(&digest);
    shared
}

fn combine(ss_m: &[u8; 32], ss_x: &[u8; 32], ct_x: &[u8; 32], pk_x: &[u8; 32]) -> SharedSecret {
    let mut shared = SharedSecret::zeroed();
    let digest = Zeroizing::new(hash::sha3_256(&[ss_m, ss_x, ct_x, pk_x, LABEL]));
    shared.expose_mut().copy_from_slice(&digest[..]);
    shared
}

pub(crate) fn x25519_key(scalar: &[u8; 32]) -> Result<agreement::PrivateKey, KemError> {
    agreement::PrivateKey::from_private_key(&X25519, scalar).map_err(|_| KemError::Engine)
}

fn x25519_public_of(key: &agreement::PrivateKey) -> Result<[u8; 32], KemError> {
    let public = key.compute_public_key().map_err(|_| KemError::Engine)?;
    public.as_ref().try_into().map_err(|_| KemError::Engine)
}

/// The engine refuses an all-zero result (RFC 7748, section 6.1), which is the only way a 32-byte value can fail here.
pub(crate) fn x25519(
    key: &agreement::PrivateKey,
    peer: &[u8; 32],
) -> Result<Zeroizing<[u8; 32]>, KemError> {
    let peer = UnparsedPublicKey::new(&X25519, peer);
    let shared = agreement::agree(key, peer, KemError::LowOrder, |shared| {
        let mut copy = Zeroizing::new([0u8; 32]);
        copy.copy_from_slice(shared);
        Ok(copy)
    })?;
    if crate::kdf::same(&shared[..], &[0u8; 32]) {
        Err(KemError::LowOrder)
    } else {
        Ok(shared)
    }
}

fn coefficients_reduced(packed: &[u8]) -> bool {
    packed.chunks_exact(3).all(|triple| {
        let low = u16::from(triple[0]) | (u16::from(triple[1] & 0x0f) << 8);
        let high = u16::from(triple[1] >> 4) | (u16::from(triple[2]) << 4);
        low < Q && high < Q
    })
}

fn parts<const A: usize>(bytes: &[u8]) -> (&[u8; A], &[u8; 32]) {
    let (first, rest) = bytes.split_first_chunk::<A>().expect("a fixed-size value");
    (first, rest.try_into().expect("a fixed-size value"))
}

fn parts_mut<const A: usize>(bytes: &mut [u8]) -> (&mut [u8; A], &mut [u8; 32]) {
    let (first, rest) = bytes
        .split_first_chunk_mut::<A>()
        .expect("a fixed-size value");
    (first, rest.try_into().expect("a fixed-size value"))
}
