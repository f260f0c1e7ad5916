//! A batch of changes as data: one flat buffer and an index into it, so a record costs no allocation of its own.

use std::fmt;
use std::ops::Range;
use std::time::Duration;

/// A column family, named by the room that owns its keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Family(pub &'static str);

/// One change of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Op<'a> {
    /// Sets `key` to `value`.
    Put {
        /// Where.
        family: Family,
        /// Full key.
        key: &'a [u8],
        /// Full value.
        value: &'a [u8],
    },
    /// Removes `key`; absent is fine.
    Delete {
        /// Where.
        family: Family,
        /// Full key.
        key: &'a [u8],
    },
    /// Removes every key in `from..to`.
    DeleteRange {
        /// Where.
        family: Family,
        /// First key removed.
        from: &'a [u8],
        /// First key kept.
        to: &'a [u8],
    },
}

#[derive(Debug, Clone, Copy)]
enum Kind {
    Put,
    Delete,
    DeleteRange,
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    kind: Kind,
    // Index into `families`.
    family: u8,
    // End of the key and of the value in `bytes`; the start is the previous entry's end.
    key_end: usize,
    value_end: usize,
}

/// Changes that reach the disk together or not at all, in the order they were added.
#[derive(Default)]
pub struct Batch {
    bytes: Vec<u8>,
    entries: Vec<Entry>,
    families: Vec<Family>,
    patience: Duration,
}

/// Its size and never its bytes: a refused batch may end up in somebody's error text.
impl fmt::Debug for Batch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Batch")
            .field("changes", &self.entries.len())
            .field("bytes", &self.bytes.len())
            .finish_non_exhaustive()
    }
}

impl Batch {
    /// An empty batch.
    pub fn new() -> Self {
        Self::default()
    }

    /// An empty batch with room for `entries` changes of `bytes` bytes in all.
    pub fn with_capacity(entries: usize, bytes: usize) -> Self {
        Self {
            bytes: Vec::with_capacity(bytes),
            entries: Vec::with_capacity(entries),
            ..Self::default()
        }
    }

    /// It may wait for so long for another batch to be written with, since one more synced write costs everybody else more than a longer
    /// one does. A store may write it at once all the same.
    pub fn may_wait(&mut self, patience: Duration) {
        self.patience = patience;
    }

    /// How long it may wait for another batch; zero: not at all.
    pub fn patience(&self) -> Duration {
        self.patience
    }

    /// Sets a key.
    pub fn put(&mut self, family: Family, key: &[u8], value: &[u8]) {
        self.push(Kind::Put, family, key, value);
    }

    /// Removes a key.
    pub fn delete(&mut self, family: Family, key: &[u8]) {
        self.push(Kind::Delete, family, key, &[]);
    }

    /// Removes the keys in `from..to`.
    pub fn delete_range(&mut self, family: Family, from: &[u8], to: &[u8]) {
        self.push(Kind::DeleteRange, family, from, to);
    }

    fn push(&mut self, kind: Kind, family: Family, key: &[u8], value: &[u8]) {
        let family = self.index_of(family);
        self.bytes.extend_from_slice(key);
        let key_end = self.bytes.len();
        self.bytes.extend_from_slice(value);
        self.entries.push(Entry {
            kind,
            family,
            key_end,
            value_end: self.bytes.len(),
        });
    }

    /// # Panics
    /// A batch that names more than 256 families, which no schema has.
    fn index_of(&mut self, family: Family) -> u8 {
        let known = self.families.iter().position(|f| *f == family);
        let index = known.unwrap_or_else(|| {
            self.families.push(family);
            self.families.len() - 1
        });
        u8::try_from(index).expect("a schema has a handful of families")
    }

    /// The families named, each once.
    pub fn families(&self) -> &[Family] {
        &self.families
    }

    /// Number of changes.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// True when nothing was added.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Bytes of keys and values.
    pub fn byte_len(&self) -> usize {
        self.bytes.len()
    }

    /// The changes, oldest first.
    pub fn ops(&self) -> impl Iterator<Item = Op<'_>> {
        let mut start = 0;
        self.entries.iter().map(move |e| {
            let key = self.slice(start..e.key_end);
            let value = self.slice(e.key_end..e.value_end);
            start = e.value_end;
            let family = self.families[usize::from(e.family)];
            match e.kind {
                Kind::Put => Op::Put { family, key, value },
                Kind::Delete => Op::Delete { family, key },
                Kind::DeleteRange => Op::DeleteRange {
                    family,
                    from: key,
                    to: value,
                },
            }
        })
    }

    fn slice(&self, range: Range<usize>) -> &[u8] {
        &self.bytes[range]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Every kind of change, with empty keys and values between them: what comes out is what went in, in order.
    #[test]
    fn ops_come_back_in_order() {
        let (a, b) = (Family("a"), Family("b"));
        let mut batch = Batch::new();
        assert!(batch.is_empty());
        batch.put(a, b"k1", b"v1");
        batch.put(b, b"k2", b"");
        batch.delete(a, b"k3");
        batch.delete_range(b, b"k4", b"k9");
        batch.put(a, b"k1", b"v2");
        let ops: Vec<_> = batch.ops().collect();
        assert_eq!(
            ops,
            vec![
                Op::Put {
                    family: a,
                    key: b"k1",
                    value: b"v1"
                },
                Op::Put {
                    family: b,
                    key: b"k2",
                    value: b""
                },
                Op::Delete {
                    family: a,
                    key: b"k3"
                },
                Op::DeleteRange {
                    family: b,
                    from: b"k4",
                    to: b"k9"
                },
                Op::Put {
                    family: a,
                    key: b"k1",
                    value: b"v2"
                },
            ]
        );
        assert_eq!((batch.len(), batch.byte_len()), (5, 16));
        assert_eq!(batch.families(), [a, b]);
        assert_eq!(format!("{batch:?}"), "Batch { changes: 5, bytes: 16, .. }");
    }
}
