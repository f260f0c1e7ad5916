//! Why a producer is asked to stop for a while.

use std::fmt;

use pqcnet_protos::common::v1::Pause as Code;

/// Why a producer is asked to stop for a while.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PauseCause {
    /// A subscriber that keeps up falls behind.
    Lag,
    /// Too many bytes wait for the disk.
    Memory,
    /// Too many requests wait for the shard's owner.
    Mailbox,
    /// A cause of a later version.
    Other(u32),
}

impl PauseCause {
    /// 0 means: not paused.
    pub(crate) fn to_proto(paused: Option<PauseCause>) -> u32 {
        match paused {
            None => Code::Unspecified as u32,
            Some(PauseCause::Lag) => Code::Lag as u32,
            Some(PauseCause::Memory) => Code::Memory as u32,
            Some(PauseCause::Mailbox) => Code::Mailbox as u32,
            Some(PauseCause::Other(code)) => code,
        }
    }

    pub(crate) fn from_proto(code: u32) -> Option<PauseCause> {
        match i32::try_from(code).map(Code::try_from) {
            Ok(Ok(Code::Unspecified)) => None,
            Ok(Ok(Code::Lag)) => Some(PauseCause::Lag),
            Ok(Ok(Code::Memory)) => Some(PauseCause::Memory),
            Ok(Ok(Code::Mailbox)) => Some(PauseCause::Mailbox),
            Ok(Err(_)) | Err(_) => Some(PauseCause::Other(code)),
        }
    }
}

impl fmt::Display for PauseCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PauseCause::Lag => f.write_str("lag"),
            PauseCause::Memory => f.write_str("memory"),
            PauseCause::Mailbox => f.write_str("mailbox"),
            PauseCause::Other(code) => write!(f, "cause {code}"),
        }
    }
}
