//! Two nodes of one network and their handshake in memory.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{anyhow, bail};
use pqcnet_crypto::NodeKeys;
use pqcnet_qstp::{
    Admission, Config, Initiator, InitiatorStep, Profile, Responder, ResponderStep, RetryKeys,
    Session, Suite,
};

/// Two nodes of one network.
pub struct Qstp {
    initiator: Arc<Config>,
    responder: Arc<Config>,
    retry: RetryKeys,
}

impl Qstp {
    /// With new keys.
    pub fn new() -> anyhow::Result<Qstp> {
        let node = || {
            let keys = Arc::new(NodeKeys::generate());
            Config::new([7; 32], vec![Suite::Aes256Gcm], keys, Profile::Link).map(Arc::new)
        };
        Ok(Qstp {
            initiator: node()?,
            responder: node()?,
            retry: RetryKeys::new(Duration::ZERO),
        })
    }

    /// One handshake, both sides: the responder's end, and how many bytes went over the wire.
    pub fn shake(&self) -> anyhow::Result<(Box<Session>, usize)> {
        let expect = self.responder.keys().node_id();
        let failed = |failure: pqcnet_qstp::Failure| anyhow!("QSTP: {}", failure.error);
        let (mut initiator, m1) =
            Initiator::new(self.initiator.clone(), expect).map_err(|error| anyhow!("{error}"))?;
        let mut responder = Responder::new(self.responder.clone());
        let mut respond = |message: &[u8]| {
            responder.on_message(
                Duration::ZERO,
                b"bench",
                Admission::Accept,
                &self.retry,
                message,
            )
        };
        let ResponderStep::Reply(m2) = respond(&m1).map_err(failed)? else {
            bail!("no M2");
        };
        let InitiatorStep::Done { send: m3, .. } = initiator.on_message(&m2).map_err(failed)?
        else {
            bail!("no M3");
        };
        let ResponderStep::Done { session, .. } = respond(&m3).map_err(failed)? else {
            bail!("not done");
        };
        Ok((session, m1.len() + m2.len() + m3.len()))
    }
}
