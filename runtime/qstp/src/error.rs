//! Why a handshake failed, in the words that both sides use.

use pqcnet_crypto::{KemError, NodeId};

use crate::frame::FrameError;

/// The message whose making or reading failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Stage {
    /// The initiator's first message.
    M1,
    /// The Retry, or the first message repeated with its token.
    Retry,
    /// The responder's message.
    M2,
    /// The initiator's second message.
    M3,
}

impl Stage {
    pub(crate) const fn number(self) -> u8 {
        match self {
            Stage::M1 => 1,
            Stage::Retry => 2,
            Stage::M2 => 3,
            Stage::M3 => 4,
        }
    }

    pub(crate) const fn of_number(number: u8) -> Option<Stage> {
        match number {
            1 => Some(Stage::M1),
            2 => Some(Stage::Retry),
            3 => Some(Stage::M2),
            4 => Some(Stage::M3),
            _ => None,
        }
    }
}

/// Which side found the fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FoundBy {
    /// This side.
    Here,
    /// The peer, which said so in a Reject. A `sealed` one comes from whoever holds the handshake's keys; a clear one
    /// can be forged by anybody on the path, who could as well cut the connection.
    Peer {
        /// Whether the Reject was sealed.
        sealed: bool,
    },
}

/// A handshake that failed. Both sides hold the same stage and reason; the side that found it knows more details.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("handshake failed at {stage:?}: {reason}{}", match .found_by { FoundBy::Here => "", FoundBy::Peer { .. } => " (found by the peer)" })]
pub struct HandshakeError {
    /// Where.
    pub stage: Stage,
    /// By whom it was found.
    pub found_by: FoundBy,
    /// What.
    pub reason: Reason,
}

/// A failed handshake and the message that tells the peer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{error}")]
pub struct Failure {
    /// The outcome.
    #[source]
    pub error: HandshakeError,
    /// Send this, then close. `None` if the peer already knows, or nothing may be said.
    pub reject: Option<Vec<u8>>,
}

impl Failure {
    pub(crate) fn silent(stage: Stage, found_by: FoundBy, reason: Reason) -> Failure {
        Failure {
            error: HandshakeError {
                stage,
                found_by,
                reason,
            },
            reject: None,
        }
    }
}

/// What was wrong. Each variant names who erred.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Reason {
    /// The initiator speaks a version that the responder does not.
    #[error("version {offered} offered, {supported} supported")]
    Version {
        /// In M1.
        offered: u8,
        /// By the responder.
        supported: u8,
    },
    /// The initiator asked for a profile that the responder does not offer.
    #[error("profile {asked} is not available")]
    Profile {
        /// In M1.
        asked: u8,
    },
    /// The initiator belongs to another network.
    #[error("the other side belongs to another network")]
    WrongNetwork,
    /// No suite in common.
    #[error("no common suite: offered {offered:#06b}, supported {supported:#06b}")]
    NoCommonSuite {
        /// Bits in M1.
        offered: u16,
        /// The responder's bits.
        supported: u16,
    },
    /// The responder chose a suite that was not offered.
    #[error("suite {chosen} was chosen but not offered")]
    SuiteNotOffered {
        /// In M2.
        chosen: u16,
    },
    /// The initiator's ephemeral key fails the checks of FIPS 203 or is of low order.
    #[error("the ephemeral key is refused")]
    BadKey,
    /// The responder's ciphertext holds an X25519 value of low order.
    #[error("the ciphertext is refused")]
    BadCiphertext,
    /// The token was not issued here, for this carrier and M1, under a key still held.
    #[error("the token is not valid here")]
    BadToken,
    /// The token is too old.
    #[error("the token has expired")]
    TokenExpired,
    /// The solution does not solve the puzzle.
    #[error("the puzzle is not solved")]
    PuzzleUnsolved,
    /// The responder asks for more work than the initiator is willing to do.
    #[error("a puzzle of {bits} bits is refused")]
    PuzzleTooHard {
        /// In the Retry.
        bits: u8,
    },
    /// The initiator tried as many solutions as it may and found none.
    #[error("the puzzle found no solution within its bound")]
    PuzzleGaveUp,
    /// The responder takes no handshake now. Try later.
    #[error("the responder is busy")]
    Busy,
    /// The sealed part does not open: damaged, forged, or another transcript (prologue, offer, Retry) on the other side.
    #[error("the sealed part does not open")]
    NotOpened,
    /// The keys presented are not the node that was meant.
    #[error("another node than the one meant")]
    Identity {
        /// Whom the initiator meant; `None` where the peer found it, since a Reject names nobody.
        expected: Option<NodeId>,
        /// Who answered; `None` as above.
        got: Option<NodeId>,
    },
    /// Both sides are the same node.
    #[error("a node connected to itself")]
    SelfConnect,
    /// A signature does not verify.
    #[error("a signature does not verify")]
    BadSignature,
    /// The finished value is wrong.
    #[error("the finished value is wrong")]
    BadFinished,
    /// The responder stated limits outside the protocol's bounds.
    #[error("limits out of bounds")]
    BadLimits,
    /// Bytes that are not what their type and length say.
    #[error("malformed message")]
    Malformed,
    /// A message of a type that has no place here.
    #[error("a message of type {got:#04x} has no place here")]
    Unexpected {
        /// Its type.
        got: u8,
    },
    /// The engine refused a key of its own: a bug or a broken machine, local to the side that found it.
    #[error("the engine failed")]
    Engine,
    /// The handshake had already ended: a bug of the caller.
    #[error("the handshake is already over")]
    Over,
    /// A Reject with a reason that this version does not know.
    #[error("the peer refused with the unknown reason {code}")]
    Unknown {
        /// On the wire.
        code: u8,
    },
}

impl Reason {
    /// What the engine said of the peer's key or ciphertext; `peer` is the reason that blames the peer.
    pub(crate) fn of_kem(error: KemError, peer: Reason) -> Reason {
        match error {
            KemError::WrongLength(_) | KemError::UnreducedKey | KemError::LowOrder => peer,
            KemError::Engine => Reason::Engine,
        }
    }

    pub(crate) fn of_frame(error: FrameError) -> Reason {
        match error {
            FrameError::Type { got } => Reason::Unexpected { got },
            FrameError::Length { .. } => Reason::Malformed,
        }
    }

    /// Code and detail on the wire.
    pub(crate) fn encode(self) -> (u8, u32) {
        let pair = |a: u16, b: u16| u32::from(a) << 16 | u32::from(b);
        match self {
            Reason::Version { offered, supported } => {
                (1, pair(u16::from(offered), u16::from(supported)))
            }
            Reason::Profile { asked } => (2, u32::from(asked)),
            Reason::WrongNetwork => (3, 0),
            Reason::NoCommonSuite { offered, supported } => (4, pair(offered, supported)),
            Reason::SuiteNotOffered { chosen } => (5, u32::from(chosen)),
            Reason::BadKey => (6, 0),
            Reason::BadCiphertext => (7, 0),
            Reason::BadToken => (8, 0),
            Reason::TokenExpired => (9, 0),
            Reason::PuzzleUnsolved => (10, 0),
            Reason::PuzzleTooHard { bits } => (11, u32::from(bits)),
            Reason::PuzzleGaveUp => (12, 0),
            Reason::Busy => (13, 0),
            Reason::NotOpened => (14, 0),
            Reason::Identity { .. } => (15, 0),
            Reason::SelfConnect => (16, 0),
            Reason::BadSignature => (17, 0),
            Reason::BadFinished => (18, 0),
            Reason::BadLimits => (19, 0),
            Reason::Malformed => (20, 0),
            Reason::Unexpected { got } => (21, u32::from(got)),
            Reason::Engine => (22, 0),
            Reason::Over => (23, 0),
            Reason::Unknown { code } => (code, 0),
        }
    }

    /// The reason of a code; its detail is cut to the width that the reason has.
    pub(crate) fn decode(code: u8, detail: u32) -> Reason {
        let high = (detail >> 16) as u16;
        let low = detail as u16;
        match code {
            1 => Reason::Version {
                offered: high as u8,
                supported: low as u8,
            },
            2 => Reason::Profile { asked: low as u8 },
            3 => Reason::WrongNetwork,
            4 => Reason::NoCommonSuite {
                offered: high,
                supported: low,
            },
            5 => Reason::SuiteNotOffered { chosen: low },
            6 => Reason::BadKey,
            7 => Reason::BadCiphertext,
            8 => Reason::BadToken,
            9 => Reason::TokenExpired,
            10 => Reason::PuzzleUnsolved,
            11 => Reason::PuzzleTooHard { bits: low as u8 },
            12 => Reason::PuzzleGaveUp,
            13 => Reason::Busy,
            14 => Reason::NotOpened,
            15 => Reason::Identity {
                expected: None,
                got: None,
            },
            16 => Reason::SelfConnect,
            17 => Reason::BadSignature,
            18 => Reason::BadFinished,
            19 => Reason::BadLimits,
            20 => Reason::Malformed,
            21 => Reason::Unexpected { got: low as u8 },
            22 => Reason::Engine,
            23 => Reason::Over,
            code => Reason::Unknown { code },
        }
    }
}
