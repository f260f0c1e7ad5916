//! Service `control`: what an operator orders a node to do. Nobody else is served these.

use pqcnet_link::WireError;
use pqcnet_protos::control::v1::{self as pb, Type, back_up_state::State};

use crate::codec::{clip, fields, invalid, message, wire};
use crate::control::MAX_REPORT_TEXT;
use crate::refusal::Refusal;

/// Longest name of a backup.
pub const MAX_BACKUP_NAME: usize = 64;

/// Stop in order: take nobody more, finish what is in flight, close every link, end.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Drain {}

/// It is draining.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DrainBegun {
    /// Its process is gone by then, or has failed to drain.
    pub within_ms: u64,
}

/// Copy the store, while it is in use, to a new folder of this name among the node's backups. Asked again with the same
/// name it tells how that goes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct BackUp {
    /// Lower-case letters, digits and `-`, at most [`MAX_BACKUP_NAME`]: no path of the asker's choosing.
    pub name: String,
}

/// How a backup goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BackUpState {
    /// Being made.
    UnderWay,
    /// Complete, synced and summed.
    Done {
        /// Where, on the node's machine.
        path: String,
        /// Files of the database.
        files: u64,
        /// Their bytes.
        bytes: u64,
    },
    /// Not made.
    Failed {
        /// Why.
        detail: String,
    },
}

/// Whether a backup may have this name.
pub fn is_backup_name(name: &str) -> bool {
    let letter = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    !name.is_empty() && name.len() <= MAX_BACKUP_NAME && name.bytes().all(letter)
}

message!(Drain, "control.Drain", CONTROL Type::Drain, Control => Result<DrainBegun, Refusal>);
message!(BackUp, "control.BackUp", CONTROL Type::BackUp, Control => Result<BackUpState, Refusal>);

wire!(Drain => pb::Drain);
fields!(DrainBegun => pb::DrainBegun { within_ms });
wire!(BackUp => pb::BackUp);
wire!(BackUpState => pb::BackUpState);

impl From<&Drain> for pb::Drain {
    fn from(_: &Drain) -> Self {
        Self {}
    }
}

impl TryFrom<pb::Drain> for Drain {
    type Error = WireError;

    fn try_from(_: pb::Drain) -> Result<Self, WireError> {
        Ok(Drain {})
    }
}

impl From<&BackUp> for pb::BackUp {
    fn from(order: &BackUp) -> Self {
        Self {
            name: order.name.clone(),
        }
    }
}

impl TryFrom<pb::BackUp> for BackUp {
    type Error = WireError;

    fn try_from(order: pb::BackUp) -> Result<Self, WireError> {
        if !is_backup_name(&order.name) {
            return Err(invalid("name", "not lower-case letters, digits and dashes"));
        }
        Ok(BackUp { name: order.name })
    }
}

impl From<&BackUpState> for pb::BackUpState {
    fn from(state: &BackUpState) -> Self {
        let mut out = Self::default();
        match state {
            BackUpState::UnderWay => out.set_state(State::UnderWay),
            BackUpState::Done { path, files, bytes } => {
                out.set_state(State::Done);
                out.path = clip(path, MAX_REPORT_TEXT);
                (out.files, out.bytes) = (*files, *bytes);
            }
            BackUpState::Failed { detail } => {
                out.set_state(State::Failed);
                out.detail = clip(detail, MAX_REPORT_TEXT);
            }
        }
        out
    }
}

impl TryFrom<pb::BackUpState> for BackUpState {
    type Error = WireError;

    fn try_from(state: pb::BackUpState) -> Result<Self, WireError> {
        Ok(match state.state() {
            State::UnderWay => BackUpState::UnderWay,
            State::Done => BackUpState::Done {
                path: clip(&state.path, MAX_REPORT_TEXT),
                files: state.files,
                bytes: state.bytes,
            },
            State::Failed => BackUpState::Failed {
                detail: clip(&state.detail, MAX_REPORT_TEXT),
            },
            State::Unspecified => return Err(invalid("state", "unknown")),
        })
    }
}
