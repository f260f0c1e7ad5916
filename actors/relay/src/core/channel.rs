//! What a shard knows of one channel, and how that is stored.

use bytes::Bytes;
use pqcnet_crypto::{NodeId, sha256};
use pqcnet_log::{Base, ChannelHead, ChannelId};
use pqcnet_messages::metering::Volume;
use pqcnet_messages::{Channel, ChannelName};

use super::groups::{self, StoredGroup};
use super::producers::Producers;
use super::seal::OVERHEAD;

/// Bytes of an entry beside its payload: the seal, and the time it was published.
const ENTRY_OVERHEAD: u64 = OVERHEAD as u64 + 8;

/// The log's name of a channel: SHA-256("pqcnet/channel/1" ‖ owner 32 ‖ name).
pub fn channel_id(channel: &Channel) -> ChannelId {
    let owner = channel.owner.as_bytes();
    let name = channel.name.as_str().as_bytes();
    ChannelId(sha256(&[b"pqcnet/channel/1", owner, name]))
}

/// One channel of the shard.
#[derive(Debug)]
pub struct ChannelState {
    /// Owner and name; `None` when what is stored about it did not open, so nobody may touch it.
    pub about: Option<About>,
    /// What is stored, as of the last durable batch.
    pub durable: Base,
    /// As `durable`, with what is on its way.
    pub admitted: Base,
    /// Who may append what next.
    pub producers: Producers,
    /// Marks of dropped producers, to be removed from the disk with the next batch.
    pub drop_marks: Vec<u64>,
    /// Whether `about` is on disk or on its way there.
    pub about_stored: bool,
    /// Whether it is on disk.
    pub on_disk: bool,
    /// Records that are durable and the bytes of their payloads, since the first.
    pub volume: Volume,
    /// The same when the shard was opened here.
    pub at_open: Volume,
}

/// Whose it is and who may read it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct About {
    /// Owner and name.
    pub channel: Channel,
    /// Who may subscribe besides the owner, ascending.
    pub readers: Vec<NodeId>,
    /// Its consumer groups, as they were stored; what they are now is in [`groups::Groups`].
    pub groups: Vec<StoredGroup>,
}

impl ChannelState {
    /// A channel that nothing is stored of.
    pub fn new(channel: Channel) -> Self {
        Self {
            about: Some(About {
                channel,
                readers: Vec::new(),
                groups: Vec::new(),
            }),
            durable: Base::default(),
            admitted: Base::default(),
            producers: Producers::restored(&[], 0),
            drop_marks: Vec::new(),
            about_stored: false,
            on_disk: false,
            volume: Volume::default(),
            at_open: Volume::default(),
        }
    }

    /// A channel as stored.
    pub fn restored(head: &ChannelHead, about: Option<About>) -> Self {
        let base = Base {
            head: head.head,
            bytes: head.bytes,
            forgotten_epoch: head.forgotten_epoch,
            newest_ms: head.newest_ms,
        };
        // Each entry is its payload, its time and its seal; offsets have no holes.
        let volume = Volume {
            frames: head.head,
            bytes: head.bytes.saturating_sub(head.head * ENTRY_OVERHEAD),
        };
        Self {
            about,
            durable: base,
            admitted: base,
            producers: Producers::restored(&head.producers, head.forgotten_epoch),
            drop_marks: Vec::new(),
            about_stored: true,
            on_disk: true,
            volume,
            at_open: volume,
        }
    }

    /// Whether `customer` may read it.
    pub fn may_read(&self, customer: &NodeId) -> bool {
        self.about.as_ref().is_some_and(|about| {
            about.channel.owner == *customer || about.readers.binary_search(customer).is_ok()
        })
    }

    /// Whether `customer` owns it.
    pub fn is_owner(&self, customer: &NodeId) -> bool {
        self.about
            .as_ref()
            .is_some_and(|about| about.channel.owner == *customer)
    }
}

/// ```text
///   about = 1 ‖ owner 32 ‖ name length u8 ‖ name ‖ readers u16 ‖ reader 32 …
///         = 2 ‖ the same                                                  ‖ groups     where there are any
/// ```
impl About {
    const VERSION: u8 = 1;
    /// With groups behind it; the release before does not read it.
    const GROUPED: u8 = 2;

    /// The stored form, before sealing.
    pub fn encode(&self) -> Vec<u8> {
        let name = self.channel.name.as_str().as_bytes();
        let mut out = Vec::with_capacity(36 + name.len() + self.readers.len() * 32);
        let grouped = !self.groups.is_empty();
        out.push(if grouped {
            Self::GROUPED
        } else {
            Self::VERSION
        });
        out.extend_from_slice(self.channel.owner.as_bytes());
        // A name has at most 128 bytes and a list at most 1,024 readers.
        out.push(name.len() as u8);
        out.extend_from_slice(name);
        out.extend_from_slice(&(self.readers.len() as u16).to_be_bytes());
        for reader in &self.readers {
            out.extend_from_slice(reader.as_bytes());
        }
        out.extend_from_slice(&groups::encode(&self.groups));
        out
    }

    /// Reads the stored form back; `None` when it is not one.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let (&version, rest) = bytes.split_first()?;
        if version != Self::VERSION && version != Self::GROUPED {
            return None;
        }
        let (owner, rest) = rest.split_first_chunk::<32>()?;
        let (&name_len, rest) = rest.split_first()?;
        let (name, rest) = rest.split_at_checked(usize::from(name_len))?;
        let (count, rest) = rest.split_first_chunk::<2>()?;
        let readers = usize::from(u16::from_be_bytes(*count)) * 32;
        let (readers, rest) = rest.split_at_checked(readers)?;
        let (readers, _) = readers.as_chunks::<32>();
        let groups = groups::decode(rest)?;
        if groups.is_empty() != (version == Self::VERSION) {
            return None;
        }
        Some(Self {
            channel: Channel {
                owner: NodeId::from_bytes(*owner),
                name: ChannelName::new(std::str::from_utf8(name).ok()?).ok()?,
            },
            readers: readers.iter().map(|r| NodeId::from_bytes(*r)).collect(),
            groups,
        })
    }
}

/// What becomes of a readers list that a batch carries.
#[derive(Debug)]
pub struct NewReaders {
    /// Whose.
    pub channel: ChannelId,
    /// The list, ascending.
    pub readers: Vec<NodeId>,
}

/// An about record, sealed, as the log takes it.
pub fn sealed_about(
    keys: &mut super::seal::ShardKeys,
    channel: &ChannelId,
    about: &About,
) -> Bytes {
    let mut out = Vec::new();
    // Offset 0 is no entry's, so an about record never passes for one.
    keys.seal(channel, 0, [&about.encode(), &[]], &mut out);
    out.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn about() -> About {
        About {
            channel: Channel {
                owner: NodeId::from_bytes([1; 32]),
                name: ChannelName::new("orders/eu").unwrap(),
            },
            readers: vec![NodeId::from_bytes([2; 32])],
            groups: Vec::new(),
        }
    }

    // The disk format: pinned.
    #[test]
    fn about_bytes_and_channel_ids_are_pinned() {
        let mut wanted = vec![1];
        wanted.extend([1; 32]);
        wanted.push(9);
        wanted.extend(b"orders/eu");
        wanted.extend([0, 1]);
        wanted.extend([2; 32]);
        assert_eq!(about().encode(), wanted);
        let id = channel_id(&about().channel).to_string();
        assert_eq!(&id[..16], "2ff8b28fd0acdbc1");
    }

    // What was written reads back; a byte less or more, another version, or a bad name does not.
    #[test]
    fn about_round_trip() {
        let bytes = about().encode();
        assert_eq!(About::decode(&bytes), Some(about()));
        for cut in 0..bytes.len() {
            assert_eq!(About::decode(&bytes[..cut]), None);
        }
        let longer = [&bytes[..], &[0]].concat();
        assert_eq!(About::decode(&longer), None);
        let mut other = bytes.clone();
        other[0] = 3;
        assert_eq!(About::decode(&other), None);
        other[0] = 2;
        assert_eq!(
            About::decode(&other),
            None,
            "without groups it is version 1"
        );
        let mut other = bytes;
        other[34] = b'!';
        assert_eq!(About::decode(&other), None);
    }

    // With groups it is version 2, which reads back whole or not at all.
    #[test]
    fn about_with_groups() {
        let mut about = about();
        about.groups.push(StoredGroup {
            customer: NodeId::from_bytes([4; 32]),
            name: pqcnet_messages::GroupName::new("g").unwrap(),
            committed: 7,
            generation: 1,
            attempts: 0,
            letters: Vec::new(),
        });
        let bytes = about.encode();
        assert_eq!(bytes[0], 2);
        assert_eq!(About::decode(&bytes), Some(about));
        for cut in 0..bytes.len() {
            assert_eq!(About::decode(&bytes[..cut]), None);
        }
    }
}
