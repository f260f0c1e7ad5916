//! How many bytes a frame is on a connection, without encoding it: protobuf as the library writes it, yamux, QSTP.

use pqcnet_p2p::control::gossip::budget::Load;

use super::{Frame, Message, Rpc, Rules, Topic};

/// What yamux and QSTP add: a frame header of 12 bytes, and a record's header, kind and tag of 21.
pub const ENVELOPE: usize = 12 + 21;
/// A whole id, as it travels.
const ID: usize = 32;

/// A protobuf varint.
fn varint(value: usize) -> usize {
    let bits = usize::BITS - (value | 1).leading_zeros();
    usize::try_from(bits.div_ceil(7)).unwrap_or(10)
}

/// A field of so many bytes, with its tag and length.
fn field(len: usize) -> usize {
    1 + varint(len) + len
}

impl Rules {
    fn topic_field(&self, topic: Topic) -> usize {
        field(self.name(topic).len())
    }

    /// A message by itself; what the library weighs against the IDONTWANT threshold.
    pub(super) fn message(&self, message: &Message) -> usize {
        field(message.data().len()) + self.topic_field(message.topic())
    }

    fn subscription(&self, topic: Topic) -> usize {
        // `subscribe` is a bool: a tag and a byte.
        field(2 + self.topic_field(topic))
    }

    /// An RPC as one yamux payload: its length, then itself.
    pub(super) fn rpc(&self, rpc: &Rpc) -> usize {
        // Control messages are inside one more field; of these there is one an RPC.
        let control = |inner: usize| field(field(inner));
        let body = match rpc {
            Rpc::Extensions => control(0),
            Rpc::Subscribe(topics) => (topics_of(*topics))
                .map(|topic| self.subscription(topic))
                .sum(),
            Rpc::Unsubscribe(topic) => self.subscription(*topic),
            Rpc::Graft(topic) => control(self.topic_field(*topic)),
            Rpc::Prune { topic, backoff } => {
                let backoff = usize::try_from(*backoff).unwrap_or(usize::MAX);
                control(self.topic_field(*topic) + 1 + varint(backoff))
            }
            Rpc::IHave { topic, keys } => {
                control(self.topic_field(*topic) + keys.len() * field(ID))
            }
            Rpc::IWant(keys) => control(keys.len() * field(ID)),
            Rpc::Publish(message) => field(self.message(message)),
        };
        varint(body) + body
    }

    /// A frame on the connection.
    pub fn size(&self, frame: &Frame) -> usize {
        match frame {
            Frame::Rpc(rpc) => self.rpc(rpc) + ENVELOPE,
            Frame::Window(_) => ENVELOPE,
        }
    }
}

impl Frame {
    /// What it is, for logs.
    pub fn name(&self) -> &'static str {
        match self {
            Frame::Window(_) => "window",
            Frame::Rpc(rpc) => match rpc {
                Rpc::Extensions => "extensions",
                Rpc::Subscribe(_) => "subscribe",
                Rpc::Unsubscribe(_) => "unsubscribe",
                Rpc::Graft(_) => "graft",
                Rpc::Prune { .. } => "prune",
                Rpc::IHave { .. } => "ihave",
                Rpc::IWant(_) => "iwant",
                Rpc::Publish(_) => "publish",
            },
        }
    }

    /// A number that is another for another content.
    pub fn digest(&self) -> u64 {
        let fold = |keys: &[super::Key]| {
            let fold = |sum: u64, key: &super::Key| sum.rotate_left(7) ^ key.0;
            keys.iter().fold(keys.len() as u64, fold)
        };
        match self {
            Frame::Window(bytes) => u64::from(*bytes),
            Frame::Rpc(rpc) => match rpc {
                Rpc::Extensions => 0,
                Rpc::Subscribe(topics) => u64::from(*topics),
                Rpc::Unsubscribe(topic) | Rpc::Graft(topic) => u64::from(topic.0),
                Rpc::Prune { topic, backoff } => u64::from(topic.0) << 32 ^ backoff,
                Rpc::IHave { topic, keys } => fold(keys) ^ u64::from(topic.0),
                Rpc::IWant(keys) => fold(keys),
                Rpc::Publish(message) => message.key().0,
            },
        }
    }
}

/// Topics whose bits are set.
pub(super) fn topics_of(bits: u16) -> impl Iterator<Item = Topic> {
    (0..16)
        .map(Topic)
        .filter(move |topic| bits & topic.bit() != 0)
}

impl Rpc {
    /// What it costs of its sender's budget.
    pub(super) fn load(&self) -> Load {
        let one = Load {
            elements: 1,
            ..Load::default()
        };
        match self {
            Rpc::Extensions => Load::default(),
            Rpc::Subscribe(topics) => Load {
                elements: topics.count_ones(),
                ..one
            },
            Rpc::Graft(_) => Load { grafts: 1, ..one },
            Rpc::Publish(message) => Load {
                bytes: message.data().len() as u64,
                ..one
            },
            Rpc::Unsubscribe(_) | Rpc::Prune { .. } | Rpc::IHave { .. } | Rpc::IWant(_) => one,
        }
    }
}
