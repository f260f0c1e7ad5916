//! What one customer was served of one channel in one window.

use std::fmt;

use pqcnet_crypto::NodeId;
use pqcnet_messages::metering::Volume;
use pqcnet_messages::{Channel, ChannelName, Series};

use super::bytes::{Malformed, Reader, put};
use super::merkle::{self, Hash};

/// What was promised for the frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Qos {
    /// Published: acknowledged once durable, each once, in order. The customer is the publisher.
    Stored,
    /// Delivered in order, at least once, within the receiver's window. The customer is the receiver.
    Delivered,
}

impl Qos {
    /// Every one.
    pub const ALL: [Qos; 2] = [Qos::Stored, Qos::Delivered];

    /// Its number in canonical bytes.
    pub fn number(self) -> u8 {
        match self {
            Qos::Stored => 1,
            Qos::Delivered => 2,
        }
    }

    /// One word.
    pub fn name(self) -> &'static str {
        match self {
            Qos::Stored => "stored",
            Qos::Delivered => "delivered",
        }
    }
}

impl fmt::Display for Qos {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Names what is counted. Records of a window are sorted by it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct RecordKey {
    /// What was promised.
    pub qos: Qos,
    /// Who was served.
    pub customer: NodeId,
    /// Which channel.
    pub channel: Channel,
    /// The receiver's subscription; zeros for what was published, and of receivers that do not countersign.
    pub series: Series,
}

impl RecordKey {
    /// `qos u8 ‖ customer 32 ‖ channel's owner 32 ‖ name length u8 ‖ name ‖ series 16`.
    pub fn put(&self, out: &mut Vec<u8>) {
        let name = self.channel.name.as_str().as_bytes();
        out.push(self.qos.number());
        out.extend_from_slice(self.customer.as_bytes());
        out.extend_from_slice(self.channel.owner.as_bytes());
        // At most 128 bytes.
        out.push(name.len() as u8);
        out.extend_from_slice(name);
        out.extend_from_slice(&self.series.0);
    }

    /// The same on its own.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(82 + self.channel.name.as_str().len());
        self.put(&mut out);
        out
    }

    /// Reads [`RecordKey::put`].
    pub fn read(read: &mut Reader<'_>) -> Result<RecordKey, Malformed> {
        let at = read.at();
        let number = read.u8("a record's quality of service")?;
        let qos = Qos::ALL.into_iter().find(|qos| qos.number() == number);
        let qos = qos.ok_or(Malformed {
            what: "a record's quality of service",
            at,
        })?;
        let customer = read.node("a record's customer")?;
        let owner = read.node("a channel's owner")?;
        let what = "a channel's name";
        let at = read.at();
        let len = usize::from(read.u8(what)?);
        let name = std::str::from_utf8(read.slice(what, len)?);
        let name = name.ok().and_then(|name| ChannelName::new(name).ok());
        let name = name.ok_or(Malformed { what, at })?;
        let series = Series(read.array("a record's series")?);
        Ok(RecordKey {
            qos,
            customer,
            channel: Channel { owner, name },
            series,
        })
    }
}

impl fmt::Display for RecordKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (qos, customer, channel) = (self.qos, self.customer.short(), &self.channel);
        write!(
            f,
            "{qos} for {customer} of {}:{}",
            channel.owner.short(),
            channel.name
        )
    }
}

/// One record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VolumeRecord {
    /// Of what.
    pub key: RecordKey,
    /// The window that counts it.
    pub window: u64,
    /// In this window; at least one frame.
    pub volume: Volume,
    /// Up to its end, by this relayer, since it began with this key.
    pub total: Volume,
    /// The highest offset counted.
    pub last: u64,
}

impl VolumeRecord {
    /// The key, then window, frames, bytes, total frames, total bytes and last offset, u64 each.
    pub fn put(&self, out: &mut Vec<u8>) {
        self.key.put(out);
        let (volume, total) = (self.volume, self.total);
        put(
            out,
            [
                self.window,
                volume.frames,
                volume.bytes,
                total.frames,
                total.bytes,
                self.last,
            ],
        );
    }

    /// Reads [`VolumeRecord::put`].
    pub fn read(read: &mut Reader<'_>) -> Result<VolumeRecord, Malformed> {
        let key = RecordKey::read(read)?;
        let what = "a record's counts";
        Ok(VolumeRecord {
            key,
            window: read.u64(what)?,
            volume: Volume {
                frames: read.u64(what)?,
                bytes: read.u64(what)?,
            },
            total: Volume {
                frames: read.u64(what)?,
                bytes: read.u64(what)?,
            },
            last: read.u64(what)?,
        })
    }

    /// Its place in the window's tree.
    pub fn leaf(&self) -> Hash {
        let mut bytes = Vec::new();
        self.put(&mut bytes);
        merkle::leaf(&bytes)
    }

    /// What had been counted before this window.
    pub fn before(&self) -> Option<Volume> {
        Some(Volume {
            frames: self.total.frames.checked_sub(self.volume.frames)?,
            bytes: self.total.bytes.checked_sub(self.volume.bytes)?,
        })
    }

    /// Whether its numbers can be true: something was counted, the total holds it, and no more frames than offsets.
    pub fn is_possible(&self) -> bool {
        let own = match self.key.qos {
            Qos::Stored => {
                self.key.customer == self.key.channel.owner && self.key.series == Series::NONE
            }
            Qos::Delivered => true,
        };
        own && self.volume.frames > 0 && self.before().is_some() && self.total.frames <= self.last
    }
}
