//! From the shared secret to every key of a channel: docs/spec/qstp.md §6.

use pqcnet_crypto::kdf::{self, Prk, hmac_sha256};
use pqcnet_crypto::{AeadAlgorithm, OpenError, OpenKey, SealKey, SharedSecret};
use zeroize::Zeroizing;

use crate::Profile;
use crate::config::Suite;

/// The side of a channel; also the role byte under a signature.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    Initiator,
    Responder,
}

impl Side {
    pub(crate) const fn byte(self) -> u8 {
        match self {
            Side::Initiator => b'I',
            Side::Responder => b'R',
        }
    }
}

/// `HS = Extract(Extract(0, ss_ephemeral), ss_static or 0)`; on the link profile there is no static secret.
pub(crate) fn handshake_secret(ephemeral: &SharedSecret) -> Prk {
    let first = kdf::extract(&[0; 32], ephemeral.expose());
    kdf::extract(first.expose(), &[0; 32])
}

/// A key that seals one message: its nonce is derived with it and never counts.
pub(crate) struct OneShot {
    bytes: Zeroizing<[u8; 44]>,
    algorithm: AeadAlgorithm,
}

impl OneShot {
    fn new(hs: &Prk, suite: Suite, label: &[u8], side: Side, th: &[u8; 32]) -> OneShot {
        let mut bytes = Zeroizing::new([0; 44]);
        hs.expand(&[label, &[side.byte()], th], &mut bytes[..]);
        OneShot {
            bytes,
            algorithm: suite.aead(),
        }
    }

    fn parts(&self) -> (&[u8; 32], &[u8; 12]) {
        let (key, iv) = self.bytes.split_first_chunk::<32>().expect("44 bytes");
        (key, iv.try_into().expect("12 bytes"))
    }

    #[cfg(test)]
    pub(crate) fn expose(&self) -> &[u8] {
        &self.bytes[..]
    }

    pub(crate) fn seal(&self, aad: &[u8], text: &mut [u8]) -> [u8; 16] {
        let (key, iv) = self.parts();
        SealKey::new(self.algorithm, key).seal_in_place(iv, aad, text)
    }

    pub(crate) fn open<'a>(
        &self,
        aad: &[u8],
        sealed: &'a mut [u8],
    ) -> Result<&'a mut [u8], OpenError> {
        let (key, iv) = self.parts();
        OpenKey::new(self.algorithm, key).open_in_place(iv, aad, sealed)
    }
}

/// The handshake's keys: from `HS` and `th` after the clear part of M2.
pub(crate) struct HandshakeKeys {
    pub(crate) hs: Prk,
    th: [u8; 32],
    suite: Suite,
}

impl HandshakeKeys {
    pub(crate) fn new(hs: Prk, suite: Suite, th: [u8; 32]) -> HandshakeKeys {
        HandshakeKeys { hs, th, suite }
    }

    #[cfg(test)]
    pub(crate) fn suite(&self) -> Suite {
        self.suite
    }

    #[cfg(test)]
    pub(crate) fn th(&self) -> &[u8; 32] {
        &self.th
    }

    /// For the sealed part of `side`'s message.
    pub(crate) fn seal(&self, side: Side) -> OneShot {
        OneShot::new(&self.hs, self.suite, b"QSTP/1 handshake ", side, &self.th)
    }

    /// For a Reject that `side` sends.
    pub(crate) fn reject(&self, side: Side) -> OneShot {
        OneShot::new(&self.hs, self.suite, b"QSTP/1 reject ", side, &self.th)
    }

    /// `side`'s finished value over the transcript `th_now`.
    pub(crate) fn finished(&self, side: Side, th_now: &[u8; 32]) -> [u8; 32] {
        let key = self
            .hs
            .derive(&[b"QSTP/1 finished ", &[side.byte()], &self.th]);
        hmac_sha256(key.expose(), &[th_now])
    }

    /// The master secret, bound to `th` after M3.
    pub(crate) fn master(&self, th_final: &[u8; 32]) -> Prk {
        kdf::extract(th_final, self.hs.derive(&[b"QSTP/1 master"]).expose())
    }
}

/// What both signatures of a side cover: `"QSTP/1 " ‖ role ‖ profile ‖ th`.
pub(crate) fn signed(side: Side, th: &[u8; 32]) -> [u8; 41] {
    let mut out = [0; 41];
    out[..7].copy_from_slice(b"QSTP/1 ");
    out[7] = side.byte();
    out[8] = Profile::Link.number();
    out[9..].copy_from_slice(th);
    out
}

/// One direction's chain at one epoch: a key, an IV, and the secret of the next epoch. Going on erases this one.
pub(crate) struct Chain {
    secret: Prk,
    epoch: u64,
    binding: [u8; 32],
}

impl Chain {
    pub(crate) fn first(master: &Prk, from: Side, binding: [u8; 32]) -> Chain {
        Chain {
            secret: master.derive(&[b"QSTP/1 chain ", &[from.byte()]]),
            epoch: 0,
            binding,
        }
    }

    pub(crate) fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Key and IV of this epoch; the chain moves to the next.
    pub(crate) fn advance(&mut self) -> (Zeroizing<[u8; 32]>, [u8; 12]) {
        let mut salt = [0; 40];
        salt[..32].copy_from_slice(&self.binding);
        salt[32..].copy_from_slice(&self.epoch.to_be_bytes());
        let prk = kdf::extract(&salt, self.secret.expose());
        let mut key = Zeroizing::new([0; 32]);
        prk.expand(&[b"QSTP/1 key"], &mut key[..]);
        let mut iv = [0; 12];
        prk.expand(&[b"QSTP/1 iv"], &mut iv);
        self.secret = prk.derive(&[b"QSTP/1 next"]);
        self.epoch += 1;
        (key, iv)
    }
}
