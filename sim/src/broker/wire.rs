//! What a log and its broker say to each other in the simulator: frames of a length and a protobuf message.

use std::io;

use bytes::Bytes;
use futures::io::{AsyncRead, AsyncReadExt as _};
use pqcnet_log::ChannelId;
use pqcnet_log::broker::transport::{EntryHead, Message, Outgoing};
use pqcnet_log::core::fold::Stamp;
use prost::Message as _;

/// Larger than any message: a record's facts are the largest.
const MAX_FRAME: usize = 64 << 20;

#[derive(Clone, PartialEq, prost::Message)]
struct Frame {
    /// None: a sign of life.
    #[prost(oneof = "Body", tags = "1, 2, 3, 4, 5, 6, 7")]
    body: Option<Body>,
}

/// One frame. `id`s are the client's: of a question, and of the channel that came of it.
#[derive(Clone, PartialEq, prost::Oneof)]
pub(super) enum Body {
    #[prost(message, tag = "1")]
    Ask(Ask),
    #[prost(message, tag = "2")]
    Publish(Publish),
    #[prost(message, tag = "3")]
    Credit(Credit),
    /// Either side: the channel is over.
    #[prost(uint64, tag = "4")]
    Close(u64),
    #[prost(message, tag = "5")]
    Reply(Reply),
    #[prost(message, tag = "6")]
    Confirm(Confirm),
    #[prost(message, tag = "7")]
    Deliver(Deliver),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub(super) enum What {
    Has = 0,
    Write = 1,
    Read = 2,
    Delete = 3,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Ask {
    #[prost(uint64, tag = "1")]
    pub id: u64,
    #[prost(enumeration = "What", tag = "2")]
    pub what: i32,
    #[prost(string, tag = "3")]
    pub stream: String,
    /// Of a writer: makes the stream if there is none.
    #[prost(bool, tag = "4")]
    pub make: bool,
    /// Of a reader: the place to start at.
    #[prost(uint64, tag = "5")]
    pub from: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub(super) enum Outcome {
    Yes = 0,
    No = 1,
    Locked = 2,
    Asleep = 3,
}

#[derive(Clone, Copy, PartialEq, prost::Message)]
pub(super) struct Reply {
    #[prost(uint64, tag = "1")]
    pub id: u64,
    #[prost(enumeration = "Outcome", tag = "2")]
    pub outcome: i32,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Publish {
    #[prost(uint64, tag = "1")]
    pub id: u64,
    #[prost(uint64, tag = "2")]
    pub tag: u64,
    #[prost(message, required, tag = "3")]
    pub content: Content,
}

#[derive(Clone, Copy, PartialEq, prost::Message)]
pub(super) struct Confirm {
    #[prost(uint64, tag = "1")]
    pub id: u64,
    #[prost(uint64, tag = "2")]
    pub tag: u64,
}

#[derive(Clone, Copy, PartialEq, prost::Message)]
pub(super) struct Credit {
    #[prost(uint64, tag = "1")]
    pub id: u64,
    #[prost(uint64, tag = "2")]
    pub more: u64,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Deliver {
    #[prost(uint64, tag = "1")]
    pub id: u64,
    #[prost(uint64, tag = "2")]
    pub position: u64,
    #[prost(message, required, tag = "3")]
    pub content: Content,
}

/// A message of a stream.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Content {
    #[prost(uint64, tag = "1")]
    epoch: u64,
    #[prost(uint64, tag = "2")]
    sequence: u64,
    #[prost(uint64, tag = "3")]
    record: u64,
    #[prost(bool, tag = "4")]
    last: bool,
    #[prost(message, optional, tag = "5")]
    entry: Option<Entry>,
    #[prost(bytes = "bytes", tag = "6")]
    body: Bytes,
    #[prost(uint32, tag = "7")]
    bundled: u32,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Entry {
    #[prost(bytes = "vec", tag = "1")]
    channel: Vec<u8>,
    #[prost(uint64, tag = "2")]
    offset: u64,
    #[prost(uint64, tag = "3")]
    epoch: u64,
    #[prost(uint64, tag = "4")]
    sequence: u64,
}

impl Content {
    pub(super) fn of(message: Outgoing) -> Content {
        let Outgoing {
            stamp,
            entry,
            bundled,
            body,
        } = message;
        Content {
            epoch: stamp.epoch,
            sequence: stamp.sequence,
            record: stamp.record,
            last: stamp.last,
            entry: entry.map(|entry| Entry {
                channel: entry.channel.0.to_vec(),
                offset: entry.offset,
                epoch: entry.epoch,
                sequence: entry.sequence,
            }),
            body,
            bundled,
        }
    }

    /// The message at this place; `None` if its channel is none.
    pub(super) fn at(&self, position: u64) -> Option<Message> {
        let entry = match &self.entry {
            Some(entry) => Some(EntryHead {
                channel: ChannelId(entry.channel.as_slice().try_into().ok()?),
                offset: entry.offset,
                epoch: entry.epoch,
                sequence: entry.sequence,
            }),
            None => None,
        };
        Some(Message {
            position,
            stamp: Stamp {
                epoch: self.epoch,
                sequence: self.sequence,
                record: self.record,
                last: self.last,
            },
            entry,
            bundled: self.bundled,
            body: self.body.clone(),
        })
    }
}

/// Puts a frame behind what is to be written; `None` is a sign of life.
pub(super) fn put(out: &mut Vec<u8>, body: Option<Body>) {
    let bytes = Frame { body }.encode_to_vec();
    let len = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
    out.extend_from_slice(&len.to_be_bytes());
    out.extend_from_slice(&bytes);
}

/// The next frame.
pub(super) async fn next(from: &mut (impl AsyncRead + Unpin)) -> io::Result<Option<Body>> {
    let mut len = [0; 4];
    from.read_exact(&mut len).await?;
    let len = u32::from_be_bytes(len) as usize;
    if len > MAX_FRAME {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut bytes = vec![0; len];
    from.read_exact(&mut bytes).await?;
    let frame = Frame::decode(Bytes::from(bytes));
    frame
        .map(|frame| frame.body)
        .map_err(|_| io::ErrorKind::InvalidData.into())
}
