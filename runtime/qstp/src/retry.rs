//! The stateless Retry: `token = HMAC(rotating key, carrier ‖ H(M1) ‖ time)`.
//!
//! A responder that answers with a Retry keeps nothing: the M1 that comes back carries the token, and the token carries
//! what the responder needs to know again. Times are offsets from the moment a key was made, so a token tells nothing
//! about the node's clocks or uptime.

use std::time::Duration;

use pqcnet_crypto::kdf::{hmac_sha256, same};
use pqcnet_crypto::random;
use zeroize::Zeroizing;

use crate::error::Reason;
use crate::wire::TOKEN_LEN;

/// A key issues tokens for so long. Long enough that the previous key always covers a token's whole life.
pub const ROTATE_AFTER: Duration = Duration::from_secs(60);
/// A token is good for so long: the hardest puzzle on a slow machine, and a slow network, several times over.
pub const TOKEN_LIFETIME: Duration = Duration::from_secs(30);

struct Key {
    id: u32,
    secret: Zeroizing<[u8; 32]>,
    made_at: Duration,
}

impl Key {
    fn new(id: u32, now: Duration) -> Key {
        let mut secret = Zeroizing::new([0; 32]);
        random::fill(&mut secret[..]);
        Key {
            id,
            secret,
            made_at: now,
        }
    }

    fn mac(&self, carrier: &[u8], m1_hash: &[u8; 32], clear: &[u8; 9]) -> [u8; 32] {
        hmac_sha256(
            &self.secret[..],
            &[
                b"QSTP/1 token",
                &(carrier.len() as u64).to_be_bytes(),
                carrier,
                m1_hash,
                clear,
            ],
        )
    }
}

/// The keys under which a node issues and checks tokens: the current one and the one before.
///
/// Make one a node, and call [`RetryKeys::rotate_if_due`] now and then (each accepted connection will do).
pub struct RetryKeys {
    current: Key,
    previous: Option<Key>,
}

impl RetryKeys {
    /// A first key; `now` is monotonic.
    pub fn new(now: Duration) -> RetryKeys {
        // A random first id, so that ids do not count a node's minutes. Zero marks "no token".
        let id = u32::from_be_bytes(random::bytes()) | 1;
        RetryKeys {
            current: Key::new(id, now),
            previous: None,
        }
    }

    /// Makes a new key when the current one is [`ROTATE_AFTER`] old; forgets the one before.
    pub fn rotate_if_due(&mut self, now: Duration) -> bool {
        let due = self.is_due(now);
        if due {
            let id = self.current.id.wrapping_add(1).max(1);
            let old = std::mem::replace(&mut self.current, Key::new(id, now));
            self.previous = Some(old);
        }
        due
    }

    /// Whether [`RetryKeys::rotate_if_due`] would do something: who shares the keys asks this first and need not lock
    /// out others for it.
    pub fn is_due(&self, now: Duration) -> bool {
        now.saturating_sub(self.current.made_at) >= ROTATE_AFTER
    }

    pub(crate) fn issue(
        &self,
        now: Duration,
        carrier: &[u8],
        m1_hash: &[u8; 32],
        bits: u8,
    ) -> [u8; TOKEN_LEN] {
        let key = &self.current;
        let age_ms = now.saturating_sub(key.made_at).as_millis();
        let age_ms = u32::try_from(age_ms).unwrap_or(u32::MAX);
        let mut clear = [0; 9];
        clear[..4].copy_from_slice(&key.id.to_be_bytes());
        clear[4..8].copy_from_slice(&age_ms.to_be_bytes());
        clear[8] = bits;
        let mut token = [0; TOKEN_LEN];
        token[..9].copy_from_slice(&clear);
        token[9..].copy_from_slice(&key.mac(carrier, m1_hash, &clear));
        token
    }

    /// The puzzle's bits, if the token was issued here, to this carrier, for this M1, not too long ago.
    pub(crate) fn check(
        &self,
        now: Duration,
        carrier: &[u8],
        m1_hash: &[u8; 32],
        token: &[u8; TOKEN_LEN],
    ) -> Result<u8, Reason> {
        let (clear, mac) = token.split_first_chunk::<9>().expect("41 bytes");
        let [i0, i1, i2, i3, a0, a1, a2, a3, bits] = *clear;
        let id = u32::from_be_bytes([i0, i1, i2, i3]);
        let age = Duration::from_millis(u64::from(u32::from_be_bytes([a0, a1, a2, a3])));
        let key = [Some(&self.current), self.previous.as_ref()]
            .into_iter()
            .flatten()
            .find(|key| key.id == id)
            .ok_or(Reason::BadToken)?;
        if !same(mac, &key.mac(carrier, m1_hash, clear)) {
            return Err(Reason::BadToken);
        }
        if now.saturating_sub(key.made_at + age) > TOKEN_LIFETIME {
            return Err(Reason::TokenExpired);
        }
        Ok(bits)
    }
}

/// The bits that a token asks for.
pub(crate) fn bits_of(token: &[u8; TOKEN_LEN]) -> u8 {
    token[8]
}

impl std::fmt::Debug for RetryKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("RetryKeys(redacted)")
    }
}
