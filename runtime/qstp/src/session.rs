//! What a finished handshake gives.

use pqcnet_crypto::kdf::{OutputTooLong, Prk};
use pqcnet_crypto::sha256;

use crate::config::{Limits, Suite};
use crate::record::{Opener, Sealer};
use crate::schedule::{Chain, HandshakeKeys, OneShot, Side};

/// An established channel.
pub struct Session {
    sealer: Sealer,
    opener: Opener,
    exporter: Prk,
    th: [u8; 32],
    suite: Suite,
    limits: Limits,
}

impl Session {
    /// `reject`: the key of the one sealed Reject that may still come instead of the first record.
    pub(crate) fn new(
        keys: &HandshakeKeys,
        suite: Suite,
        limits: Limits,
        side: Side,
        th: [u8; 32],
        reject: Option<OneShot>,
    ) -> Session {
        let master = keys.master(&th);
        let chain = |from| Chain::first(&master, from, th);
        let (out, back) = match side {
            Side::Initiator => (Side::Initiator, Side::Responder),
            Side::Responder => (Side::Responder, Side::Initiator),
        };
        Session {
            sealer: Sealer::new(chain(out), suite, limits),
            opener: Opener::new(chain(back), suite, limits, reject),
            exporter: master.derive(&[b"QSTP/1 exporter"]),
            th,
            suite,
            limits,
        }
    }

    /// The two directions. Take exports before.
    pub fn split(self) -> (Sealer, Opener) {
        (self.sealer, self.opener)
    }

    /// The hash of the whole handshake: the same on both sides, and on no other channel. Not a secret.
    pub fn transcript_hash(&self) -> &[u8; 32] {
        &self.th
    }

    /// The suite in use.
    pub fn suite(&self) -> Suite {
        self.suite
    }

    /// The limits in force.
    pub fn limits(&self) -> Limits {
        self.limits
    }

    /// Secret bytes that both ends, and nobody else, can compute: `Expand(exporter, "QSTP/1 export" ‖ len(label) u32 ‖ label ‖
    /// SHA-256(context))`.
    pub fn export(
        &self,
        label: &[u8],
        context: &[u8],
        out: &mut [u8],
    ) -> Result<(), OutputTooLong> {
        let len = (label.len() as u32).to_be_bytes();
        let context = sha256(&[context]);
        self.exporter
            .try_expand(&[b"QSTP/1 export", &len, label, &context], out)
    }
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Session({:?}, keys redacted)", self.suite)
    }
}
