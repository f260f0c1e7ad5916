//! The sealed part that M2 and M3 share: made and checked the same way on both sides.

use pqcnet_crypto::{HybridSignature, NodePublic, kdf};

use crate::config::Config;
use crate::error::Reason;
use crate::schedule::{HandshakeKeys, Side, signed};
use crate::transcript::Transcript;
use crate::wire::Sealed;

/// Checks finished and both signatures of a sealed plaintext; absorbs all of it. Finished first: it is cheap.
pub(crate) fn verify_sealed<const N: usize>(
    transcript: &mut Transcript,
    keys: &HandshakeKeys,
    side: Side,
    plain: &[u8],
    sealed: &Sealed<'_, N>,
    public: &NodePublic,
) -> Result<(), Reason> {
    let (first, rest) = plain.split_at(Sealed::<N>::SIGNED_LEN);
    let (signatures, finished) = rest.split_at(HybridSignature::LEN);
    transcript.absorb(first);
    let th_signed = transcript.th();
    transcript.absorb(signatures);
    if !kdf::same(sealed.finished, &keys.finished(side, &transcript.th())) {
        return Err(Reason::BadFinished);
    }
    transcript.absorb(finished);
    let signature =
        HybridSignature::from_bytes(sealed.signatures).map_err(|_| Reason::Malformed)?;
    public
        .verify(&signed(side, &th_signed), &signature)
        .map_err(|_| Reason::BadSignature)
}

/// Appends signatures and finished to what `plain` holds from `start` on, seals it, and absorbs it all. `aad` is the
/// transcript before the sealed part.
pub(crate) fn finish_sealed(
    transcript: &mut Transcript,
    keys: &HandshakeKeys,
    side: Side,
    config: &Config,
    message: &mut Vec<u8>,
    start: usize,
) {
    let aad = transcript.th();
    transcript.absorb(&message[start..]);
    let signature = config.keys.sign(&signed(side, &transcript.th()));
    let signatures = signature.to_bytes();
    message.extend_from_slice(&signatures);
    transcript.absorb(&signatures);
    let finished = keys.finished(side, &transcript.th());
    message.extend_from_slice(&finished);
    transcript.absorb(&finished);
    let tag = keys.seal(side).seal(&aad, &mut message[start..]);
    message.extend_from_slice(&tag);
    transcript.absorb(&message[start..]);
}
