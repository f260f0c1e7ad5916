//! The side that dials.
//!
//! ```text
//!   new() ──▶ Sent ──Retry──▶ Sent (at most once) ──M2──▶ Over (Done: M3 and the session)
//!               └──────────────────M2──────────────────────▲
//!   any error ──▶ Over (Failure, with a Reject to send where the peer does not know yet)
//! ```

use std::sync::Arc;

use pqcnet_crypto::{KemCiphertext, KemSecret, NodeId, NodePublic, random};
use zeroize::Zeroizing;

use crate::config::{Config, Limits, Profile, Suite};
use crate::error::{Failure, FoundBy, HandshakeError, Reason, Stage};
use crate::frame::{FrameError, FrameType, HEADER_LEN, Header, header};
use crate::schedule::{HandshakeKeys, Side, handshake_secret};
use crate::sealed::{finish_sealed, verify_sealed};
use crate::session::Session;
use crate::transcript::Transcript;
use crate::wire::{M1, M2, M3, Sealed, TOKEN_LEN};
use crate::{puzzle, reject, retry};

/// What a message led to.
#[derive(Debug)]
pub enum InitiatorStep {
    /// Send this, the first message again with token and solution, and wait for the next answer.
    Resend(Vec<u8>),
    /// The responder is who was meant. Send `send`; records may follow at once.
    Done {
        /// M3.
        send: Vec<u8>,
        /// The channel. The responder may still refuse M3: then the first thing that the opener sees is
        /// [`RecordError::Rejected`](crate::RecordError::Rejected).
        session: Box<Session>,
        /// Whose keys were verified.
        peer: NodePublic,
    },
}

/// The initiator of one handshake.
pub struct Initiator {
    config: Arc<Config>,
    expect: NodeId,
    state: State,
}

enum State {
    Sent(Box<Sent>),
    Over,
}

/// M1 is out.
pub(crate) struct Sent {
    pub(crate) kem: KemSecret,
    /// The first M1, to be sent again after a Retry.
    pub(crate) m1: Vec<u8>,
    /// Up to and with the last M1 sent.
    pub(crate) transcript: Transcript,
    pub(crate) retried: bool,
}

impl Initiator {
    /// Begins a handshake with the node `expect`; gives M1 to send.
    pub fn new(
        config: Arc<Config>,
        expect: NodeId,
    ) -> Result<(Initiator, Vec<u8>), HandshakeError> {
        if config.keys.node_id() == expect {
            return Err(HandshakeError {
                stage: Stage::M1,
                found_by: FoundBy::Here,
                reason: Reason::SelfConnect,
            });
        }
        let kem = KemSecret::generate();
        let m1 = M1::encode(
            config.version,
            Profile::Link.number(),
            config.offer(),
            &config.network_id,
            &random::bytes(),
            kem.public(),
        );
        let mut transcript = Transcript::new(&config.prologue);
        transcript.absorb(&m1);
        let sent = Sent {
            kem,
            m1: m1.clone(),
            transcript,
            retried: false,
        };
        let initiator = Initiator {
            config,
            expect,
            state: State::Sent(Box::new(sent)),
        };
        Ok((initiator, m1))
    }

    #[cfg(test)]
    pub(crate) fn sent(&self) -> &Sent {
        match &self.state {
            State::Sent(sent) => sent,
            State::Over => panic!("the handshake is over"),
        }
    }

    /// Sets the state back to after M1.
    #[cfg(test)]
    pub(crate) fn put(&mut self, sent: Sent) {
        self.state = State::Sent(Box::new(sent));
    }

    /// Whom this handshake is meant for.
    pub fn expect(&self) -> NodeId {
        self.expect
    }

    /// Takes one whole message. After [`InitiatorStep::Done`] or a [`Failure`] the handshake is over and its ephemeral
    /// keys are erased.
    pub fn on_message(&mut self, message: &[u8]) -> Result<InitiatorStep, Failure> {
        let State::Sent(mut sent) = std::mem::replace(&mut self.state, State::Over) else {
            return Err(Failure::silent(Stage::M2, FoundBy::Here, Reason::Over));
        };
        let (header, body) = match Header::split(message) {
            Ok(split) => split,
            Err(error) => return Err(refuse(Stage::M2, Reason::of_frame(error))),
        };
        match header.frame {
            FrameType::Retry => {
                let m1 = sent.on_retry(&self.config, message, body)?;
                self.state = State::Sent(sent);
                Ok(InitiatorStep::Resend(m1))
            }
            FrameType::M2 => {
                let accepted = sent.on_m2(&self.config, self.expect, message)?;
                Ok(accepted.m3(&self.config))
            }
            FrameType::Reject => Err(match reject::read_clear(body) {
                Ok(error) => Failure {
                    error,
                    reject: None,
                },
                Err(reason) => Failure::silent(Stage::M2, FoundBy::Here, reason),
            }),
            FrameType::M1 | FrameType::M3 | FrameType::SealedReject | FrameType::Record => {
                Err(refuse(
                    Stage::M2,
                    Reason::Unexpected {
                        got: header.frame.number(),
                    },
                ))
            }
        }
    }

    /// Ends the handshake because the peer's bytes were no message.
    pub fn on_bad_frame(&mut self, error: FrameError) -> Failure {
        match std::mem::replace(&mut self.state, State::Over) {
            State::Sent(_) => refuse(Stage::M2, Reason::of_frame(error)),
            State::Over => Failure::silent(Stage::M2, FoundBy::Here, Reason::Over),
        }
    }
}

/// A failure found here, before the responder could read anything sealed.
fn refuse(stage: Stage, reason: Reason) -> Failure {
    Failure {
        reject: Some(reject::clear(stage, reason)),
        ..Failure::silent(stage, FoundBy::Here, reason)
    }
}

impl Sent {
    fn on_retry(
        &mut self,
        config: &Config,
        message: &[u8],
        body: &[u8],
    ) -> Result<Vec<u8>, Failure> {
        let fail = |reason| refuse(Stage::Retry, reason);
        if self.retried {
            return Err(fail(Reason::Unexpected {
                got: FrameType::Retry.number(),
            }));
        }
        let token: &[u8; TOKEN_LEN] = body.try_into().map_err(|_| fail(Reason::Malformed))?;
        let bits = retry::bits_of(token);
        if bits > config.max_puzzle_bits {
            return Err(fail(Reason::PuzzleTooHard { bits }));
        }
        let solution = puzzle::solve(&M1::hash(&self.m1), token, bits, config.puzzle_attempts)
            .ok_or_else(|| fail(Reason::PuzzleGaveUp))?;
        let again = M1::with_token(&self.m1, token, solution);
        self.transcript.absorb(message);
        self.transcript.absorb(&again);
        self.retried = true;
        Ok(again)
    }

    /// Verifies M2 (a whole message of its length) without changing anything.
    pub(crate) fn on_m2(
        &self,
        config: &Config,
        expect: NodeId,
        message: &[u8],
    ) -> Result<Accepted, Failure> {
        let fail = |reason| refuse(Stage::M2, reason);
        let (clear, sealed) = message[HEADER_LEN..].split_at(M2::CLEAR_LEN);
        let (number, ciphertext) = M2::clear(clear);
        let suite = Suite::of_number(number)
            .filter(|suite| config.suites.contains(suite))
            .ok_or_else(|| fail(Reason::SuiteNotOffered { chosen: number }))?;
        let shared = KemCiphertext::from_bytes(ciphertext)
            .and_then(|ciphertext| self.kem.decapsulate(&ciphertext))
            .map_err(|error| fail(Reason::of_kem(error, Reason::BadCiphertext)))?;

        let mut transcript = self.transcript.clone();
        transcript.absorb(&message[..HEADER_LEN + M2::CLEAR_LEN]);
        let th = transcript.th();
        let keys = HandshakeKeys::new(handshake_secret(&shared), suite, th);
        let mut plain = Zeroizing::new(sealed.to_vec());
        let plain: &[u8] = keys
            .seal(Side::Responder)
            .open(&th, &mut plain)
            .map_err(|_| fail(Reason::NotOpened))?;

        // From here on both sides hold the same keys: the Reject goes sealed.
        let fail = |reason| Failure {
            reject: Some(reject::sealed(
                Stage::M2,
                reason,
                &keys.reject(Side::Initiator),
            )),
            ..Failure::silent(Stage::M2, FoundBy::Here, reason)
        };
        let m2 = Sealed::<12>::decode(plain);
        let public = NodePublic::from_bytes(m2.public).map_err(|_| fail(Reason::Malformed))?;
        let got = public.node_id();
        if got == config.keys.node_id() {
            return Err(fail(Reason::SelfConnect));
        }
        if got != expect {
            return Err(fail(Reason::Identity {
                expected: Some(expect),
                got: Some(got),
            }));
        }
        let limits = Limits::decode(m2.extra).ok_or_else(|| fail(Reason::BadLimits))?;
        verify_sealed(&mut transcript, &keys, Side::Responder, plain, &m2, &public)
            .map_err(fail)?;
        transcript.absorb(sealed);
        Ok(Accepted {
            keys,
            transcript,
            suite,
            limits,
            peer: public,
            expect,
        })
    }
}

/// M2 verified: what M3 is made from.
pub(crate) struct Accepted {
    pub(crate) keys: HandshakeKeys,
    pub(crate) transcript: Transcript,
    pub(crate) suite: Suite,
    pub(crate) limits: Limits,
    pub(crate) peer: NodePublic,
    pub(crate) expect: NodeId,
}

impl Accepted {
    pub(crate) fn m3(mut self, config: &Config) -> InitiatorStep {
        let mut message = Vec::with_capacity(HEADER_LEN + M3::LEN);
        message.extend_from_slice(&header(FrameType::M3, M3::LEN));
        self.transcript.absorb(&message);
        message.extend_from_slice(&config.keys.public().to_bytes());
        message.extend_from_slice(self.expect.as_bytes());
        finish_sealed(
            &mut self.transcript,
            &self.keys,
            Side::Initiator,
            config,
            &mut message,
            HEADER_LEN,
        );
        let session = Session::new(
            &self.keys,
            self.suite,
            self.limits,
            Side::Initiator,
            self.transcript.th(),
            Some(self.keys.reject(Side::Responder)),
        );
        InitiatorStep::Done {
            send: message,
            session: Box::new(session),
            peer: self.peer,
        }
    }
}

impl std::fmt::Debug for Initiator {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let state = match &self.state {
            State::Sent(sent) if sent.retried => "retried",
            State::Sent(_) => "sent",
            State::Over => "over",
        };
        write!(f, "Initiator(to {:?}, {state})", self.expect)
    }
}
