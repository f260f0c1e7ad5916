//! Why a service said no.

use bytes::Bytes;
use pqcnet_crypto::NodeId;
use pqcnet_link::WireError;
use pqcnet_protos::common::v1::{self as pb, RefusalCode as Code};

use crate::codec::{clip, node_bytes, node_id, wire};

/// Longest detail of [`Refusal::Invalid`] on the wire, in bytes; a longer one is cut.
pub const MAX_DETAIL: usize = 256;

/// Where a shard is instead.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Redirect {
    /// The relayer that has it, as far as the refuser knows.
    pub owner: NodeId,
    /// The version of the refuser's shard map.
    pub map_version: u64,
}

/// A service's answer when it did not do what was asked.
#[derive(Clone, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// Nobody can serve this right now; a later try may find someone.
    #[error("unavailable")]
    Unavailable,
    /// Too much to do; nothing was done.
    #[error("busy")]
    Busy,
    /// The shard lives elsewhere: there, if it is known.
    #[error("not the owner of the shard")]
    NotOwner(Option<Redirect>),
    /// No such producer epoch on this channel; open a producer.
    #[error("unknown producer")]
    UnknownProducer,
    /// A sequence was skipped.
    #[error("gap: expected sequence {expected}")]
    Gap {
        /// The sequence that must come next.
        expected: u64,
    },
    /// A younger epoch of the same producer has taken over.
    #[error("stale producer epoch")]
    StaleEpoch,
    /// Over a limit of size or number.
    #[error("too large")]
    TooLarge,
    /// The access list says no.
    #[error("not allowed")]
    NotAllowed,
    /// No such channel.
    #[error("unknown channel")]
    UnknownChannel,
    /// The grant does not hold.
    #[error("bad grant")]
    BadGrant,
    /// The log failed; nothing was acknowledged.
    #[error("storage failed")]
    Storage,
    /// The node is going down.
    #[error("draining")]
    Draining,
    /// The request makes no sense.
    #[error("invalid: {0}")]
    Invalid(String),
    /// The session is not open here; open it again.
    #[error("unknown session")]
    UnknownSession,
    /// The disk is as good as full: nothing was stored. Writing resumes by itself when there is room.
    #[error("no room on the disk")]
    NoRoom,
    /// The customer has as many of these as it may have.
    #[error("the customer's quota is used up")]
    Quota,
    /// The shard has records that the asker has no copy of: it stays where it is until it has.
    #[error("the shard has records and stays here until they are copied")]
    HoldsRecords,
    /// Records above the offset that the subscriber presented are no longer kept: go on from `first`.
    #[error("the channel is kept from offset {first} on")]
    FrontGone {
        /// The lowest offset kept.
        first: u64,
    },
    /// Another member of the group has the channel now: what this one had and did not commit goes there.
    #[error("another member of the group has the channel now")]
    Reassigned,
    /// A code of a later version.
    #[error("refused with unknown code {0}")]
    Unrecognised(u32),
}

impl Refusal {
    /// Whether the same request can succeed later, or after reopening a session or producer or re-reading the map.
    pub fn is_retryable(&self) -> bool {
        match self {
            Refusal::Unavailable
            | Refusal::Busy
            | Refusal::NotOwner(_)
            | Refusal::Storage
            | Refusal::Draining
            | Refusal::UnknownSession
            | Refusal::NoRoom => true,
            Refusal::UnknownProducer
            | Refusal::Gap { .. }
            | Refusal::StaleEpoch
            | Refusal::TooLarge
            | Refusal::NotAllowed
            | Refusal::UnknownChannel
            | Refusal::BadGrant
            | Refusal::Invalid(_)
            | Refusal::Quota
            | Refusal::HoldsRecords
            | Refusal::FrontGone { .. }
            | Refusal::Reassigned
            | Refusal::Unrecognised(_) => false,
        }
    }

    fn code(&self) -> i32 {
        let code = match self {
            Refusal::Unavailable => Code::Unavailable,
            Refusal::Busy => Code::Busy,
            Refusal::NotOwner(_) => Code::NotOwner,
            Refusal::UnknownProducer => Code::UnknownProducer,
            Refusal::Gap { .. } => Code::Gap,
            Refusal::StaleEpoch => Code::StaleEpoch,
            Refusal::TooLarge => Code::TooLarge,
            Refusal::NotAllowed => Code::NotAllowed,
            Refusal::UnknownChannel => Code::UnknownChannel,
            Refusal::BadGrant => Code::BadGrant,
            Refusal::Storage => Code::Storage,
            Refusal::Draining => Code::Draining,
            Refusal::Invalid(_) => Code::Invalid,
            Refusal::UnknownSession => Code::UnknownSession,
            Refusal::NoRoom => Code::NoRoom,
            Refusal::Quota => Code::Quota,
            Refusal::HoldsRecords => Code::HoldsRecords,
            Refusal::FrontGone { .. } => Code::FrontGone,
            Refusal::Reassigned => Code::Reassigned,
            Refusal::Unrecognised(code) => return i32::try_from(*code).unwrap_or(i32::MAX),
        };
        code as i32
    }
}

impl From<&Refusal> for pb::Refusal {
    fn from(refusal: &Refusal) -> Self {
        let (expected, detail) = match refusal {
            Refusal::Gap { expected } => (*expected, String::new()),
            Refusal::FrontGone { first } => (*first, String::new()),
            Refusal::Invalid(detail) => (0, clip(detail, MAX_DETAIL)),
            _ => (0, String::new()),
        };
        let (owner, map_version) = match refusal {
            Refusal::NotOwner(Some(redirect)) => {
                (node_bytes(&redirect.owner), redirect.map_version)
            }
            _ => (Bytes::new(), 0),
        };
        Self {
            code: refusal.code(),
            expected,
            detail,
            owner,
            map_version,
        }
    }
}

impl TryFrom<pb::Refusal> for Refusal {
    type Error = WireError;

    fn try_from(refusal: pb::Refusal) -> Result<Self, WireError> {
        let Ok(code) = Code::try_from(refusal.code) else {
            return Ok(Refusal::Unrecognised(refusal.code.unsigned_abs()));
        };
        Ok(match code {
            Code::Unspecified => Refusal::Unrecognised(0),
            Code::Unavailable => Refusal::Unavailable,
            Code::Busy => Refusal::Busy,
            Code::NotOwner if refusal.owner.is_empty() => Refusal::NotOwner(None),
            Code::NotOwner => Refusal::NotOwner(Some(Redirect {
                owner: node_id("owner", &refusal.owner)?,
                map_version: refusal.map_version,
            })),
            Code::UnknownProducer => Refusal::UnknownProducer,
            Code::Gap => Refusal::Gap {
                expected: refusal.expected,
            },
            Code::StaleEpoch => Refusal::StaleEpoch,
            Code::TooLarge => Refusal::TooLarge,
            Code::NotAllowed => Refusal::NotAllowed,
            Code::UnknownChannel => Refusal::UnknownChannel,
            Code::BadGrant => Refusal::BadGrant,
            Code::Storage => Refusal::Storage,
            Code::Draining => Refusal::Draining,
            Code::Invalid => Refusal::Invalid(clip(&refusal.detail, MAX_DETAIL)),
            Code::UnknownSession => Refusal::UnknownSession,
            Code::NoRoom => Refusal::NoRoom,
            Code::Quota => Refusal::Quota,
            Code::HoldsRecords => Refusal::HoldsRecords,
            Code::Reassigned => Refusal::Reassigned,
            Code::FrontGone => Refusal::FrontGone {
                first: refusal.expected,
            },
        })
    }
}

wire!(Refusal => pb::Refusal);
