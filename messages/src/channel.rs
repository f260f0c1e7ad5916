//! What a channel is called.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use pqcnet_crypto::NodeId;
use pqcnet_link::WireError;
use pqcnet_protos::common::v1 as pb;

use crate::codec::{invalid, node_bytes, node_id};

/// Longest channel name, in bytes.
pub const MAX_CHANNEL_NAME: usize = 128;

/// A channel's name among its owner's: 1 to [`MAX_CHANNEL_NAME`] bytes of `[a-z0-9._/-]`. Cheap to clone.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ChannelName(Arc<str>);

/// A text that is no channel name; whoever wrote it erred.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChannelNameError {
    /// No characters at all.
    #[error("a channel name has at least one character")]
    Empty,
    /// More than [`MAX_CHANNEL_NAME`] bytes.
    #[error("a channel name has at most {MAX_CHANNEL_NAME} bytes, this one has {0}")]
    TooLong(usize),
    /// A character outside `[a-z0-9._/-]`.
    #[error("a channel name holds only a-z, 0-9 and . _ / -, not {0:?}")]
    BadCharacter(char),
}

impl ChannelName {
    /// Checks and keeps a name.
    ///
    /// # Errors
    /// What is wrong with the text.
    pub fn new(text: &str) -> Result<Self, ChannelNameError> {
        if text.is_empty() {
            return Err(ChannelNameError::Empty);
        }
        if text.len() > MAX_CHANNEL_NAME {
            return Err(ChannelNameError::TooLong(text.len()));
        }
        let allowed = |c: char| matches!(c, 'a'..='z' | '0'..='9' | '.' | '_' | '/' | '-');
        match text.chars().find(|c| !allowed(*c)) {
            Some(bad) => Err(ChannelNameError::BadCharacter(bad)),
            None => Ok(ChannelName(text.into())),
        }
    }

    /// The name's text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    pub(crate) fn from_proto(text: &str) -> Result<Self, WireError> {
        ChannelName::new(text).map_err(|error| {
            let problem = match error {
                ChannelNameError::Empty => "empty",
                ChannelNameError::TooLong(_) => "too long",
                ChannelNameError::BadCharacter(_) => "bad character",
            };
            invalid("channel name", problem)
        })
    }
}

impl FromStr for ChannelName {
    type Err = ChannelNameError;

    fn from_str(text: &str) -> Result<Self, ChannelNameError> {
        ChannelName::new(text)
    }
}

impl fmt::Display for ChannelName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for ChannelName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", &*self.0)
    }
}

/// A channel of the whole network: a customer and a name of theirs. Order is kept per channel.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Channel {
    /// The customer.
    pub owner: NodeId,
    /// The customer's name for it.
    pub name: ChannelName,
}

impl fmt::Display for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.owner, self.name)
    }
}

impl From<&Channel> for pb::Channel {
    fn from(channel: &Channel) -> Self {
        Self {
            owner: node_bytes(&channel.owner),
            name: channel.name.as_str().to_owned(),
        }
    }
}

impl TryFrom<pb::Channel> for Channel {
    type Error = WireError;

    fn try_from(channel: pb::Channel) -> Result<Self, WireError> {
        Ok(Channel {
            owner: node_id("channel owner", &channel.owner)?,
            name: ChannelName::from_proto(&channel.name)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The bounds of a name, on both sides of each.
    #[test]
    fn names() {
        assert_eq!("a".parse::<ChannelName>().unwrap().as_str(), "a");
        let longest = "z".repeat(MAX_CHANNEL_NAME);
        assert_eq!(ChannelName::new(&longest).unwrap().as_str(), longest);
        assert_eq!(ChannelName::new(""), Err(ChannelNameError::Empty));
        assert_eq!(
            ChannelName::new(&"z".repeat(129)),
            Err(ChannelNameError::TooLong(129))
        );
        assert_eq!(
            ChannelName::new("src/Lib.rs"),
            Err(ChannelNameError::BadCharacter('L'))
        );
        assert_eq!(
            ChannelName::new("a b"),
            Err(ChannelNameError::BadCharacter(' '))
        );
        assert!(ChannelName::new("src/lib_2.rs-x").is_ok());
    }
}
