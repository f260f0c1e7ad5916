//! The side that is dialled.
//!
//! ```text
//!   Listening ──M1, Accept──▶ Replied ──M3──▶ Over (Done: the session)
//!      │  ▲
//!      └──┘ M1, Challenge: a Retry, nothing kept but that one was sent
//!   any error ──▶ Over (Failure, with a Reject to send where the peer does not know yet)
//! ```
//!
//! Before M3 is verified the responder has said who it is to whoever made the ephemeral key, has sent no data, and holds
//! no more than [`Responder`] itself.

use std::sync::Arc;
use std::time::Duration;

use pqcnet_crypto::{KemPublic, NodePublic, encapsulate, random};
use zeroize::Zeroizing;

use crate::config::{Config, Profile, Suite};
use crate::error::{Failure, FoundBy, Reason, Stage};
use crate::frame::{FrameError, FrameType, HEADER_LEN, Header, framed, header};
use crate::retry::RetryKeys;
use crate::schedule::{HandshakeKeys, Side, handshake_secret};
use crate::sealed::{finish_sealed, verify_sealed};
use crate::session::Session;
use crate::transcript::Transcript;
use crate::wire::{M1, M2, Sealed, TOKEN_LEN};
use crate::{puzzle, reject};

/// What the node's guard says of a first message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admission {
    /// Answer it.
    Accept,
    /// Answer with a Retry, unless it already carries a token and a solution.
    Challenge {
        /// Leading zero bits; 0 asks only for the token back. At most [`Config::MAX_PUZZLE_BITS`], more counts as that.
        bits: u8,
    },
    /// Refuse it as [`Reason::Busy`].
    Refuse,
}

/// What a message led to.
#[derive(Debug)]
pub enum ResponderStep {
    /// Send this Retry; this responder, or any other that holds the same [`RetryKeys`], takes the answer.
    Retry(Vec<u8>),
    /// Send this M2.
    Reply(Vec<u8>),
    /// The initiator is known, and meant this node.
    Done {
        /// The channel.
        session: Box<Session>,
        /// Whose keys were verified.
        peer: NodePublic,
    },
}

/// The responder of one handshake.
pub struct Responder {
    config: Arc<Config>,
    state: State,
}

enum State {
    Listening { challenged: bool },
    Replied(Box<Replied>),
    Over,
}

/// M2 is out.
pub(crate) struct Replied {
    pub(crate) keys: HandshakeKeys,
    /// Up to and with M2.
    pub(crate) transcript: Transcript,
    pub(crate) suite: Suite,
}

impl Responder {
    /// Waits for M1.
    pub fn new(config: Arc<Config>) -> Responder {
        Responder {
            config,
            state: State::Listening { challenged: false },
        }
    }

    #[cfg(test)]
    pub(crate) fn replied(&self) -> &Replied {
        match &self.state {
            State::Replied(replied) => replied,
            State::Listening { .. } | State::Over => panic!("no M2 is out"),
        }
    }

    /// A responder that has sent its M2.
    #[cfg(test)]
    pub(crate) fn resumed(config: Arc<Config>, replied: Replied) -> Responder {
        Responder {
            config,
            state: State::Replied(Box::new(replied)),
        }
    }

    /// Takes one whole message. `admission`, `carrier`, `now` and `retry` count for M1 only.
    ///
    /// `carrier` names where the message came from, and a token works from nowhere else. On a stream it must name the one
    /// connection (address and a counter of the listener will do), or a solved puzzle could be replayed on many.
    pub fn on_message(
        &mut self,
        now: Duration,
        carrier: &[u8],
        admission: Admission,
        retry: &RetryKeys,
        message: &[u8],
    ) -> Result<ResponderStep, Failure> {
        let state = std::mem::replace(&mut self.state, State::Over);
        let stage = match &state {
            State::Listening { .. } => Stage::M1,
            State::Replied(_) => Stage::M3,
            State::Over => {
                return Err(Failure::silent(Stage::M3, FoundBy::Here, Reason::Over));
            }
        };
        let (header, body) = match Header::split(message) {
            Ok(split) => split,
            Err(error) => return Err(state.refuse(stage, Reason::of_frame(error))),
        };
        match (header.frame, &state) {
            (FrameType::M1, State::Listening { challenged }) => {
                let source = Source {
                    now,
                    carrier,
                    retry,
                };
                match on_m1(&self.config, &source, admission, *challenged, message)? {
                    FromM1::Retry(message) => {
                        self.state = State::Listening { challenged: true };
                        Ok(ResponderStep::Retry(message))
                    }
                    FromM1::Reply { message, replied } => {
                        self.state = State::Replied(replied);
                        Ok(ResponderStep::Reply(message))
                    }
                }
            }
            (FrameType::M3, State::Replied(replied)) => {
                let (session, peer) = replied.on_m3(&self.config, message)?;
                Ok(ResponderStep::Done {
                    session: Box::new(session),
                    peer,
                })
            }
            (FrameType::Reject, _) => Err(told(stage, reject::read_clear(body))),
            (FrameType::SealedReject, State::Replied(replied)) => {
                let key = replied.keys.reject(Side::Initiator);
                Err(told(stage, reject::read_sealed(body, &key)))
            }
            (frame, state) => Err(state.refuse(
                stage,
                Reason::Unexpected {
                    got: frame.number(),
                },
            )),
        }
    }

    /// Ends the handshake because the peer's bytes were no message.
    pub fn on_bad_frame(&mut self, error: FrameError) -> Failure {
        let state = std::mem::replace(&mut self.state, State::Over);
        match &state {
            State::Listening { .. } => state.refuse(Stage::M1, Reason::of_frame(error)),
            State::Replied(_) => state.refuse(Stage::M3, Reason::of_frame(error)),
            State::Over => Failure::silent(Stage::M3, FoundBy::Here, Reason::Over),
        }
    }
}

impl State {
    /// A failure found here; sealed once M2 is out, since its reader holds the keys.
    fn refuse(&self, stage: Stage, reason: Reason) -> Failure {
        match self {
            State::Replied(replied) => replied.refuse(reason),
            State::Listening { .. } | State::Over => refuse_clear(stage, reason),
        }
    }
}

fn refuse_clear(stage: Stage, reason: Reason) -> Failure {
    Failure {
        reject: Some(reject::clear(stage, reason)),
        ..Failure::silent(stage, FoundBy::Here, reason)
    }
}

/// The peer refused; or its refusal cannot be read, and then nothing is answered.
fn told(stage: Stage, read: Result<crate::HandshakeError, Reason>) -> Failure {
    match read {
        Ok(error) => Failure {
            error,
            reject: None,
        },
        Err(reason) => Failure::silent(stage, FoundBy::Here, reason),
    }
}

/// Where and when an M1 came in.
pub(crate) struct Source<'a> {
    pub(crate) now: Duration,
    pub(crate) carrier: &'a [u8],
    pub(crate) retry: &'a RetryKeys,
}

pub(crate) enum FromM1 {
    Retry(Vec<u8>),
    Reply {
        message: Vec<u8>,
        replied: Box<Replied>,
    },
}

/// Cheap checks first: nothing is computed for a stranger of another network, version or suite.
pub(crate) fn on_m1(
    config: &Config,
    source: &Source<'_>,
    admission: Admission,
    challenged: bool,
    message: &[u8],
) -> Result<FromM1, Failure> {
    let fail = |reason| refuse_clear(Stage::M1, reason);
    let body = &message[HEADER_LEN..];
    let offered = body.first().copied().unwrap_or(0);
    if offered != config.version {
        return Err(fail(Reason::Version {
            offered,
            supported: config.version,
        }));
    }
    if let Some(&asked) = body.get(1)
        && asked != Profile::Link.number()
    {
        return Err(fail(Reason::Profile { asked })); // before the length, which depends on it
    }
    let m1 = M1::decode(body).ok_or_else(|| fail(Reason::Malformed))?;
    if m1.network_id != &config.network_id {
        return Err(fail(Reason::WrongNetwork));
    }
    let suite = config.choose(m1.suites).ok_or_else(|| {
        fail(Reason::NoCommonSuite {
            offered: m1.suites,
            supported: config.offer(),
        })
    })?;
    if admission == Admission::Refuse {
        return Err(fail(Reason::Busy));
    }

    let mut transcript = Transcript::new(&config.prologue);
    if m1.token == &[0; TOKEN_LEN] {
        if m1.solution != 0 {
            return Err(fail(Reason::Malformed));
        }
        if let Admission::Challenge { bits } = admission {
            if challenged {
                return Err(fail(Reason::Unexpected {
                    got: FrameType::M1.number(),
                })); // it was told to come back with a token
            }
            let bits = bits.min(Config::MAX_PUZZLE_BITS);
            let hash = M1::hash(message);
            let token = source.retry.issue(source.now, source.carrier, &hash, bits);
            return Ok(FromM1::Retry(framed(FrameType::Retry, &token)));
        }
    } else {
        let fail = |reason| refuse_clear(Stage::Retry, reason);
        let first = M1::with_token(message, &[0; TOKEN_LEN], 0);
        let hash = M1::hash(&first);
        let bits = source
            .retry
            .check(source.now, source.carrier, &hash, m1.token)
            .map_err(fail)?;
        if !puzzle::verify(&hash, m1.token, bits, m1.solution) {
            return Err(fail(Reason::PuzzleUnsolved));
        }
        // What was sent before follows from this message: the first M1, and the Retry that was its token.
        transcript.absorb(&first);
        transcript.absorb(&framed(FrameType::Retry, m1.token));
    }
    transcript.absorb(message);
    let key = KemPublic::from_bytes(m1.key)
        .map_err(|error| fail(Reason::of_kem(error, Reason::BadKey)))?;
    reply(config, suite, &key, transcript).map_err(fail)
}

fn reply(
    config: &Config,
    suite: Suite,
    key: &KemPublic,
    mut transcript: Transcript,
) -> Result<FromM1, Reason> {
    let (ciphertext, shared) =
        encapsulate(key).map_err(|error| Reason::of_kem(error, Reason::BadKey))?;
    let mut message = Vec::with_capacity(HEADER_LEN + M2::LEN);
    message.extend_from_slice(&header(FrameType::M2, M2::LEN));
    message.extend_from_slice(&suite.number().to_be_bytes());
    message.extend_from_slice(&random::bytes::<32>());
    message.extend_from_slice(ciphertext.as_bytes());
    transcript.absorb(&message);
    let keys = HandshakeKeys::new(handshake_secret(&shared), suite, transcript.th());
    let start = message.len();
    message.extend_from_slice(&config.keys.public().to_bytes());
    message.extend_from_slice(&config.limits.encode());
    finish_sealed(
        &mut transcript,
        &keys,
        Side::Responder,
        config,
        &mut message,
        start,
    );
    Ok(FromM1::Reply {
        message,
        replied: Box::new(Replied {
            keys,
            transcript,
            suite,
        }),
    })
}

impl Replied {
    fn refuse(&self, reason: Reason) -> Failure {
        let key = self.keys.reject(Side::Responder);
        Failure {
            reject: Some(reject::sealed(Stage::M3, reason, &key)),
            ..Failure::silent(Stage::M3, FoundBy::Here, reason)
        }
    }

    /// Verifies M3 (a whole message of its length) without changing anything.
    pub(crate) fn on_m3(
        &self,
        config: &Config,
        message: &[u8],
    ) -> Result<(Session, NodePublic), Failure> {
        let fail = |reason| self.refuse(reason);
        let (head, sealed) = message.split_at(HEADER_LEN);
        let mut transcript = self.transcript.clone();
        transcript.absorb(head);
        let mut plain = Zeroizing::new(sealed.to_vec());
        let plain: &[u8] = self
            .keys
            .seal(Side::Initiator)
            .open(&transcript.th(), &mut plain)
            .map_err(|_| fail(Reason::NotOpened))?;
        let m3 = Sealed::<32>::decode(plain);
        let public = NodePublic::from_bytes(m3.public).map_err(|_| fail(Reason::Malformed))?;
        let me = config.keys.node_id();
        if m3.extra != me.as_bytes() {
            return Err(fail(Reason::Identity {
                expected: Some((*m3.extra).into()),
                got: Some(me),
            }));
        }
        if public.node_id() == me {
            return Err(fail(Reason::SelfConnect));
        }
        verify_sealed(
            &mut transcript,
            &self.keys,
            Side::Initiator,
            plain,
            &m3,
            &public,
        )
        .map_err(fail)?;
        transcript.absorb(sealed);
        let session = Session::new(
            &self.keys,
            self.suite,
            config.limits,
            Side::Responder,
            transcript.th(),
            None,
        );
        Ok((session, public))
    }
}

impl std::fmt::Debug for Responder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let state = match &self.state {
            State::Listening { .. } => "listening",
            State::Replied(_) => "replied",
            State::Over => "over",
        };
        write!(f, "Responder({state})")
    }
}
