//! A window: the records of one stretch of time under one Merkle root and one signature. Each names the one before, so that
//! none can be left out or exchanged later.

use pqcnet_crypto::{MlDsaPublic, MlDsaSignature, NodeId, NodeKeys, sha256};

use super::bytes::{Malformed, Reader, put};
use super::merkle::{self, Hash};
use super::record::{RecordKey, VolumeRecord};

const CONTEXT: &[u8] = b"pqcnet/window/1";
/// Records of one window: with the longest names under 3 MiB, which the store takes as one value.
pub const MAX_RECORDS: usize = 8_192;

/// What is signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// The network.
    pub network_id: [u8; 32],
    /// Who metered.
    pub relayer: NodeId,
    /// From 1, without a hole.
    pub number: u64,
    /// Where the window before ended, milliseconds since the Unix epoch by the relayer's clock.
    pub start_ms: u64,
    /// When it was closed.
    pub end_ms: u64,
    /// How long of that the relayer ran, by its own word.
    pub up_ms: u64,
    /// How many records.
    pub records: u32,
    /// Over the records, in their order.
    pub root: Hash,
    /// [`Head::hash`] of the window before; zeros for the first.
    pub previous: Hash,
}

impl Head {
    /// `"pqcnet/window/1" ‖ network id 32 ‖ relayer 32 ‖ number ‖ start_ms ‖ end_ms ‖ up_ms ‖ records u32 ‖ root 32 ‖ previous 32`,
    /// the other numbers u64.
    pub fn canonical_bytes(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(CONTEXT.len() + 4 * 32 + 4 * 8 + 4);
        out.extend_from_slice(CONTEXT);
        out.extend_from_slice(&self.network_id);
        out.extend_from_slice(self.relayer.as_bytes());
        put(
            &mut out,
            [self.number, self.start_ms, self.end_ms, self.up_ms],
        );
        out.extend_from_slice(&self.records.to_be_bytes());
        out.extend_from_slice(&self.root);
        out.extend_from_slice(&self.previous);
        out
    }

    fn read(read: &mut Reader<'_>) -> Result<Head, Malformed> {
        read.expect("a window's context", CONTEXT)?;
        let what = "a window's head";
        Ok(Head {
            network_id: read.array(what)?,
            relayer: read.node(what)?,
            number: read.u64(what)?,
            start_ms: read.u64(what)?,
            end_ms: read.u64(what)?,
            up_ms: read.u64(what)?,
            records: read.u32(what)?,
            root: read.array(what)?,
            previous: read.array(what)?,
        })
    }

    /// What the next window names.
    pub fn hash(&self) -> Hash {
        sha256(&[&self.canonical_bytes()])
    }
}

/// A closed window.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Window {
    /// What is signed.
    pub head: Head,
    /// ML-DSA-65 over [`Head::canonical_bytes`].
    pub signature: MlDsaSignature,
    /// Sorted by key, each key once.
    pub records: Vec<VolumeRecord>,
}

/// Where a chain of windows stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Chain {
    /// Number of the last window; 0 before the first.
    pub number: u64,
    /// When it ended.
    pub end_ms: u64,
    /// Its hash.
    pub hash: Hash,
}

impl Chain {
    /// Before the first window, which begins then.
    pub fn new(start_ms: u64) -> Chain {
        Chain {
            number: 0,
            end_ms: start_ms,
            hash: [0; 32],
        }
    }

    /// Behind this window.
    pub fn behind(head: &Head) -> Chain {
        Chain {
            number: head.number,
            end_ms: head.end_ms,
            hash: head.hash(),
        }
    }
}

/// Why a window does not stand; the relayer, or whoever carried the report, erred.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum WindowFault {
    /// Another network's.
    #[error("it is of another network")]
    Network,
    /// Another relayer's.
    #[error("it is of another relayer")]
    Relayer,
    /// Not the next number.
    #[error("it is not the next window")]
    Number,
    /// It does not begin where the one before ended, ends before it begins, or names more uptime than time.
    #[error("its times do not fit")]
    Times,
    /// It names another window as the one before.
    #[error("it does not follow from the window before")]
    Previous,
    /// A record's numbers cannot be true, or it is of another window.
    #[error("record {0} is impossible")]
    Record(usize),
    /// A record is out of order, or there twice.
    #[error("record {0} is out of order")]
    Order(usize),
    /// Its head names another number of records.
    #[error("it has another number of records than its head says")]
    Count,
    /// The records do not make the root.
    #[error("its records do not make its root")]
    Root,
    /// Not signed by the relayer.
    #[error("its signature does not verify")]
    Signature,
}

impl Window {
    /// Closes the window behind `chain`: sorts its records, which must have different keys, and signs (about 150 µs).
    pub fn close(
        keys: &NodeKeys,
        network_id: [u8; 32],
        chain: &Chain,
        (end_ms, up_ms): (u64, u64),
        mut records: Vec<VolumeRecord>,
    ) -> Window {
        records.sort_unstable_by(|a, b| a.key.cmp(&b.key));
        let number = chain.number + 1;
        for record in &mut records {
            record.window = number;
        }
        let leaves: Vec<Hash> = records.iter().map(VolumeRecord::leaf).collect();
        // A clock that was set back makes an empty window, not one that ends before it begins.
        let end_ms = end_ms.max(chain.end_ms);
        let head = Head {
            network_id,
            relayer: keys.node_id(),
            number,
            start_ms: chain.end_ms,
            end_ms,
            up_ms: up_ms.min(end_ms - chain.end_ms),
            // At most MAX_RECORDS.
            records: records.len() as u32,
            root: merkle::root(&leaves),
            previous: chain.hash,
        };
        let signature = keys.sign_ml_dsa(&head.canonical_bytes());
        Window {
            head,
            signature,
            records,
        }
    }

    /// The head, the signature, the records.
    pub fn put(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.head.canonical_bytes());
        out.extend_from_slice(self.signature.as_bytes());
        for record in &self.records {
            record.put(out);
        }
    }

    /// Reads [`Window::put`]. What it says is not judged.
    pub fn read(read: &mut Reader<'_>) -> Result<Window, Malformed> {
        let at = read.at();
        let head = Head::read(read)?;
        let what = "a window's signature";
        let signature = read.slice(what, MlDsaSignature::LEN)?;
        let signature =
            MlDsaSignature::from_slice(signature).map_err(|_| Malformed { what, at })?;
        let count = usize::try_from(head.records).unwrap_or(usize::MAX);
        if count > MAX_RECORDS {
            let what = "a window's number of records";
            return Err(Malformed { what, at });
        }
        // A count is believed as far as there are bytes for it.
        let mut records = Vec::new();
        for _ in 0..count {
            records.push(VolumeRecord::read(read)?);
        }
        Ok(Window {
            head,
            signature,
            records,
        })
    }

    /// Checks it against the window before and its relayer's key; costs a signature verification (about 60 µs).
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn check(
        &self,
        network_id: &[u8; 32],
        (relayer, key): (&NodeId, &MlDsaPublic),
        chain: &Chain,
    ) -> Result<(), WindowFault> {
        let head = &self.head;
        if head.network_id != *network_id {
            return Err(WindowFault::Network);
        }
        if head.relayer != *relayer {
            return Err(WindowFault::Relayer);
        }
        if chain.number.checked_add(1) != Some(head.number) {
            return Err(WindowFault::Number);
        }
        let took = head.end_ms.checked_sub(head.start_ms);
        if head.start_ms != chain.end_ms || took.is_none_or(|took| head.up_ms > took) {
            return Err(WindowFault::Times);
        }
        if head.previous != chain.hash {
            return Err(WindowFault::Previous);
        }
        if self.records.len() != usize::try_from(head.records).unwrap_or(usize::MAX) {
            return Err(WindowFault::Count);
        }
        self.check_records()?;
        let leaves: Vec<Hash> = self.records.iter().map(VolumeRecord::leaf).collect();
        if merkle::root(&leaves) != head.root {
            return Err(WindowFault::Root);
        }
        key.verify(&head.canonical_bytes(), &self.signature)
            .map_err(|_| WindowFault::Signature)
    }

    fn check_records(&self) -> Result<(), WindowFault> {
        let mut before: Option<&RecordKey> = None;
        for (index, record) in self.records.iter().enumerate() {
            if !record.is_possible() || record.window != self.head.number {
                return Err(WindowFault::Record(index));
            }
            if before.is_some_and(|before| *before >= record.key) {
                return Err(WindowFault::Order(index));
            }
            before = Some(&record.key);
        }
        Ok(())
    }
}
