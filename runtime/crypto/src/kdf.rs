//! HKDF-SHA256 ([RFC 5869]) and HMAC-SHA256.
//!
//! The two HKDF steps are written out over the engine's HMAC: aws-lc-rs's own `hkdf::Prk` does not erase its key.
//!
//! [RFC 5869]: https://www.rfc-editor.org/rfc/rfc5869

use aws_lc_rs::hmac;
use zeroize::Zeroizing;

use crate::secret::secret_bytes;

secret_bytes! {
    /// A pseudo-random key: the result of an extraction, the root of expansions.
    pub struct Prk(32)
}

/// More output than HKDF-SHA256 can give from one key; a bug of the caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("HKDF-SHA256 gives at most {max} bytes, {asked} asked for")]
pub struct OutputTooLong {
    /// Bytes asked for.
    pub asked: usize,
    /// The most there can be: 255 blocks.
    pub max: usize,
}

/// HKDF-Extract. An empty `salt` means 32 zero bytes, as in the RFC.
pub fn extract(salt: &[u8], ikm: &[u8]) -> Prk {
    let mut prk = Prk::zeroed();
    mac_into(salt, ikm, prk.expose_mut());
    prk
}

impl Prk {
    /// The longest output of one expansion, bytes.
    pub const MAX_OUTPUT: usize = 255 * 32;

    /// HKDF-Expand with the info parts one after another (callers fix or prefix lengths).
    ///
    /// # Panics
    /// If `out` is longer than [`Prk::MAX_OUTPUT`]; every length in the protocol is a constant far below it. Where the
    /// length is somebody's input, use [`Prk::try_expand`].
    pub fn expand(&self, info: &[&[u8]], out: &mut [u8]) {
        self.try_expand(info, out)
            .expect("the output is within HKDF's bound");
    }

    /// As [`Prk::expand`], for lengths that come from outside.
    pub fn try_expand(&self, info: &[&[u8]], out: &mut [u8]) -> Result<(), OutputTooLong> {
        if out.len() > Self::MAX_OUTPUT {
            return Err(OutputTooLong {
                asked: out.len(),
                max: Self::MAX_OUTPUT,
            });
        }
        let key = hmac::Key::new(hmac::HMAC_SHA256, self.expose());
        // T(i) = HMAC(PRK, T(i-1) || info || i)
        let mut message = Zeroizing::new(Vec::with_capacity(
            32 + info.iter().map(|part| part.len()).sum::<usize>() + 1,
        ));
        let mut block = Zeroizing::new([0u8; 32]);
        for (index, chunk) in out.chunks_mut(32).enumerate() {
            message.clear();
            if index > 0 {
                message.extend_from_slice(&block[..]);
            }
            for part in info {
                message.extend_from_slice(part);
            }
            message.push(index as u8 + 1); // at most 255, by the bound above
            sign_into(&key, &message, &mut block);
            chunk.copy_from_slice(&block[..chunk.len()]);
        }
        Ok(())
    }

    /// Expands to another key of the schedule.
    pub fn derive(&self, info: &[&[u8]]) -> Prk {
        let mut next = Prk::zeroed();
        self.expand(info, next.expose_mut());
        next
    }
}

/// HMAC-SHA256 over the parts one after another.
pub fn hmac_sha256(key: &[u8], parts: &[&[u8]]) -> [u8; 32] {
    let mut context = hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA256, key));
    for part in parts {
        context.update(part);
    }
    let mut tag = [0u8; 32];
    tag.copy_from_slice(context.sign().as_ref());
    tag
}

/// Compares two equally long byte strings in constant time; different lengths are unequal at once.
pub fn same(a: &[u8], b: &[u8]) -> bool {
    use subtle::ConstantTimeEq as _;
    a.ct_eq(b).into()
}

fn mac_into(key: &[u8], message: &[u8], out: &mut [u8; 32]) {
    sign_into(&hmac::Key::new(hmac::HMAC_SHA256, key), message, out);
}

fn sign_into(key: &hmac::Key, message: &[u8], out: &mut [u8; 32]) {
    hmac::sign_to_buffer(key, message, out).expect("HMAC-SHA256 fills 32 bytes");
}
