//! The harness: two nodes, a fake clock, and every byte in the test's hands.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use pqcnet_crypto::{NodeKeys, NodePublic};

use crate::*;

pub(super) const NETWORK: [u8; 32] = [7; 32];
pub(super) const CARRIER: &[u8] = b"192.0.2.7:4711#1";
pub(super) const T0: Duration = Duration::from_secs(1_000);

/// Three nodes' keys, made once a process.
pub(super) fn keys(n: usize) -> Arc<NodeKeys> {
    static KEYS: OnceLock<[Arc<NodeKeys>; 3]> = OnceLock::new();
    KEYS.get_or_init(|| std::array::from_fn(|_| Arc::new(NodeKeys::generate())))[n].clone()
}

pub(super) const ALICE: usize = 0;
pub(super) const BOB: usize = 1;
pub(super) const EVE: usize = 2;

pub(super) fn config(who: usize) -> Config {
    Config::new(
        NETWORK,
        vec![Suite::Aes256Gcm, Suite::ChaCha20Poly1305],
        keys(who),
        Profile::Link,
    )
    .unwrap()
    .with_prologue(b"/pqcnet/qstp/1")
    .unwrap()
}

pub(super) const SUITES: [Suite; 2] = [Suite::Aes256Gcm, Suite::ChaCha20Poly1305];

/// A node that takes this suite alone, whatever it is offered.
pub(super) fn only(who: usize, suite: Suite) -> Config {
    let mut config = config(who);
    config.suites = vec![suite];
    config
}

pub(super) fn here(stage: Stage, reason: Reason) -> HandshakeError {
    HandshakeError {
        stage,
        found_by: FoundBy::Here,
        reason,
    }
}

pub(super) fn told(stage: Stage, reason: Reason, sealed: bool) -> HandshakeError {
    HandshakeError {
        stage,
        found_by: FoundBy::Peer { sealed },
        reason,
    }
}

/// One side of a handshake that is under way.
pub(super) struct Pair {
    pub(super) alice: Initiator,
    pub(super) bob: Responder,
    pub(super) retry: RetryKeys,
    pub(super) now: Duration,
}

impl Pair {
    pub(super) fn new(alice: Config, bob: Config) -> (Pair, Vec<u8>) {
        let expect = bob.keys().node_id();
        let (alice, m1) = Initiator::new(Arc::new(alice), expect).unwrap();
        let pair = Pair {
            alice,
            bob: Responder::new(Arc::new(bob)),
            retry: RetryKeys::new(T0),
            now: T0,
        };
        (pair, m1)
    }

    pub(super) fn bob_takes(
        &mut self,
        admission: Admission,
        message: &[u8],
    ) -> Result<ResponderStep, Failure> {
        self.bob
            .on_message(self.now, CARRIER, admission, &self.retry, message)
    }

    /// Bob finds a fault in `message`; what both sides then hold.
    pub(super) fn bob_refuses(&mut self, message: &[u8]) -> (HandshakeError, HandshakeError) {
        let bob = self.bob_takes(Admission::Accept, message).unwrap_err();
        let alice = self
            .alice
            .on_message(&bob.reject.expect("a reject"))
            .unwrap_err();
        assert_eq!(alice.reject, None, "a reject is not answered");
        (alice.error, bob.error)
    }

    /// Alice finds a fault in `message`; what both sides then hold.
    pub(super) fn alice_refuses(&mut self, message: &[u8]) -> (HandshakeError, HandshakeError) {
        let alice = self.alice.on_message(message).unwrap_err();
        let bob = self
            .bob_takes(Admission::Accept, &alice.reject.expect("a reject"))
            .unwrap_err();
        assert_eq!(bob.reject, None, "a reject is not answered");
        (alice.error, bob.error)
    }
}

pub(super) fn m2(step: ResponderStep) -> Vec<u8> {
    match step {
        ResponderStep::Reply(m2) => m2,
        other => panic!("not an M2: {other:?}"),
    }
}

pub(super) fn retry(step: ResponderStep) -> Vec<u8> {
    match step {
        ResponderStep::Retry(retry) => retry,
        other => panic!("not a Retry: {other:?}"),
    }
}

pub(super) fn resend(step: InitiatorStep) -> Vec<u8> {
    match step {
        InitiatorStep::Resend(m1) => m1,
        other => panic!("not an M1: {other:?}"),
    }
}

pub(super) fn m3(step: InitiatorStep) -> (Vec<u8>, Session, NodePublic) {
    match step {
        InitiatorStep::Done {
            send,
            session,
            peer,
        } => (send, *session, peer),
        other => panic!("not an M3: {other:?}"),
    }
}

pub(super) fn done(step: ResponderStep) -> (Session, NodePublic) {
    match step {
        ResponderStep::Done { session, peer } => (*session, peer),
        other => panic!("not done: {other:?}"),
    }
}

/// A whole handshake without a Retry.
pub(super) fn connect(alice: Config, bob: Config) -> (Session, Session) {
    let (mut pair, first) = Pair::new(alice, bob);
    let reply = m2(pair.bob_takes(Admission::Accept, &first).unwrap());
    let (last, alice, _) = m3(pair.alice.on_message(&reply).unwrap());
    let (bob, _) = done(pair.bob_takes(Admission::Accept, &last).unwrap());
    (alice, bob)
}

/// One sealed record of `content`.
pub(super) fn sealed(sealer: &mut Sealer, now: Duration, kind: Kind, content: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let start = sealer.begin(&mut out);
    out.extend_from_slice(content);
    sealer.seal(now, kind, &mut out, start).unwrap();
    out
}

/// Opens `record` and gives its content.
pub(super) fn opened(opener: &mut Opener, record: &[u8]) -> Result<(Kind, Vec<u8>), RecordError> {
    let mut record = record.to_vec();
    let opened = opener.open_in_place(&mut record)?;
    Ok((opened.kind, record[opened.content].to_vec()))
}
