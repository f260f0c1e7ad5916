//! Consumer groups: what they and their members are called, and what they put aside.

use std::fmt;
use std::str::FromStr;

use bytes::Bytes;
use pqcnet_link::WireError;
use pqcnet_protos::common::v1 as pb;

use crate::channel::{ChannelName, ChannelNameError};
use crate::codec::{array, invalid};

/// Longest name of a group, in bytes.
pub const MAX_GROUP_NAME: usize = 64;
/// Most records that one group of one channel may have put aside: they are stored with its offset, again at each commit.
pub const MAX_DEAD_LETTERS: usize = 64;

/// What a customer calls one of its groups: 1 to [`MAX_GROUP_NAME`] bytes of `[a-z0-9._/-]`. Cheap to clone.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct GroupName(ChannelName);

/// A text that is no name of a group; whoever wrote it erred.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GroupNameError {
    /// No characters at all.
    #[error("a group's name has at least one character")]
    Empty,
    /// More than [`MAX_GROUP_NAME`] bytes.
    #[error("a group's name has at most {MAX_GROUP_NAME} bytes, this one has {0}")]
    TooLong(usize),
    /// A character outside `[a-z0-9._/-]`.
    #[error("a group's name holds only a-z, 0-9 and . _ / -, not {0:?}")]
    BadCharacter(char),
}

impl GroupName {
    /// Checks and keeps a name.
    ///
    /// # Errors
    /// What is wrong with the text.
    pub fn new(text: &str) -> Result<Self, GroupNameError> {
        if text.len() > MAX_GROUP_NAME {
            return Err(GroupNameError::TooLong(text.len()));
        }
        let name = ChannelName::new(text).map_err(|error| match error {
            ChannelNameError::Empty => GroupNameError::Empty,
            ChannelNameError::TooLong(bytes) => GroupNameError::TooLong(bytes),
            ChannelNameError::BadCharacter(bad) => GroupNameError::BadCharacter(bad),
        })?;
        Ok(GroupName(name))
    }

    /// The name's text.
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }

    pub(crate) fn from_proto(text: &str) -> Result<Self, WireError> {
        GroupName::new(text).map_err(|_| invalid("group", "no name of a group"))
    }
}

impl FromStr for GroupName {
    type Err = GroupNameError;

    fn from_str(text: &str) -> Result<Self, GroupNameError> {
        GroupName::new(text)
    }
}

impl fmt::Display for GroupName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for GroupName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

/// 16 random bytes that name a member of a group over all its links.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MemberId(pub [u8; 16]);

impl MemberId {
    pub(crate) fn to_proto(self) -> Bytes {
        Bytes::copy_from_slice(&self.0)
    }

    pub(crate) fn from_proto(bytes: &Bytes) -> Result<MemberId, WireError> {
        Ok(MemberId(array("member", bytes)?))
    }
}

/// A subscriber that shares channels with the others of its group.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Membership {
    /// Which group of the customer's.
    pub group: GroupName,
    /// Which member.
    pub member: MemberId,
}

/// A record that a group put aside.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct DeadLetter {
    /// Its offset.
    pub offset: u64,
    /// When it was put aside, in milliseconds since the Unix epoch.
    pub at_ms: u64,
    /// How often it was given to a member that did not get past it.
    pub attempts: u32,
    /// A member said that it can not deal with it; else its deliveries were used up.
    pub refused: bool,
}

impl From<&DeadLetter> for pb::DeadLetter {
    fn from(letter: &DeadLetter) -> Self {
        Self {
            offset: letter.offset,
            at_ms: letter.at_ms,
            attempts: letter.attempts,
            refused: letter.refused,
        }
    }
}

impl From<pb::DeadLetter> for DeadLetter {
    fn from(letter: pb::DeadLetter) -> Self {
        Self {
            offset: letter.offset,
            at_ms: letter.at_ms,
            attempts: letter.attempts,
            refused: letter.refused,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // A group's name is refused in words about groups, and one byte too many is counted against its own limit.
    #[test]
    fn names_of_groups() {
        for name in ["a", "billing/eu-1", &"g".repeat(MAX_GROUP_NAME)] {
            assert_eq!(
                GroupName::new(name).map(|name| name.to_string()),
                Ok(name.to_owned())
            );
        }
        for (name, wrong) in [
            ("", GroupNameError::Empty),
            (&*"g".repeat(65), GroupNameError::TooLong(65)),
            ("Billing", GroupNameError::BadCharacter('B')),
        ] {
            assert_eq!(GroupName::new(name), Err(wrong.clone()));
            assert!(wrong.to_string().starts_with("a group's name "));
        }
    }
}
