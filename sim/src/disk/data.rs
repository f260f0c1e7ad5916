//! What lies on a disk: families of sorted keys.

use std::collections::BTreeMap;
use std::ops::Bound;

use smallvec::SmallVec;

use pqcnet_store::{Batch, Family, Op, ReadError, Scan, View, Visit};

/// Beside its key and value an entry takes so many bytes of a disk, by this model.
const ENTRY: u64 = 32;

/// A relay's longest keys are of 42 bytes; in place, a search need not look elsewhere for each that it compares.
type Key = SmallVec<[u8; 48]>;
type Entries = BTreeMap<Key, Box<[u8]>>;

/// Keys and values by family.
#[derive(Clone, Default)]
pub(super) struct Data {
    families: BTreeMap<Family, Entries>,
    bytes: u64,
}

impl Data {
    /// Makes room for these families; those that are there keep what they hold.
    pub(super) fn create(&mut self, families: &[Family]) {
        for family in families {
            self.families.entry(*family).or_default();
        }
    }

    pub(super) fn has(&self, family: &Family) -> bool {
        self.families.contains_key(family)
    }

    /// Bytes in use.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Applies a whole batch. Families that are not there were refused before.
    pub(super) fn apply(&mut self, batch: &Batch) {
        for op in batch.ops() {
            let (Op::Put { family, .. }
            | Op::Delete { family, .. }
            | Op::DeleteRange { family, .. }) = op;
            let Some(entries) = self.families.get_mut(&family) else {
                continue;
            };
            let bytes = &mut self.bytes;
            match op {
                Op::Put { key, value, .. } => {
                    *bytes += size(key, value);
                    if let Some(former) = entries.insert(Key::from_slice(key), value.into()) {
                        *bytes -= size(key, &former);
                    }
                }
                Op::Delete { key, .. } => {
                    if let Some(former) = entries.remove(key) {
                        *bytes -= size(key, &former);
                    }
                }
                Op::DeleteRange { from, to, .. } => {
                    // Keys above `from` leave in one piece, and those from `to` on come back.
                    if from >= to {
                        continue;
                    }
                    let mut gone = entries.split_off(from);
                    let mut kept = gone.split_off(to);
                    entries.append(&mut kept);
                    *bytes -= gone.iter().map(|(k, v)| size(k, v)).sum::<u64>();
                }
            }
        }
    }
}

fn size(key: &[u8], value: &[u8]) -> u64 {
    (key.len() + value.len()) as u64 + ENTRY
}

impl View for Data {
    fn get(&self, family: Family, key: &[u8]) -> Result<Option<Vec<u8>>, ReadError> {
        let entries = self.entries(family)?;
        Ok(entries.get(key).map(|value| value.to_vec()))
    }

    fn scan(
        &self,
        family: Family,
        range: Scan<'_>,
        visit: &mut Visit<'_>,
    ) -> Result<(), ReadError> {
        let entries = self.entries(family)?;
        if range.from >= range.to {
            return Ok(());
        }
        let range = (Bound::Included(range.from), Bound::Excluded(range.to));
        for (key, value) in entries.range::<[u8], _>(range) {
            if visit(key, value).is_break() {
                break;
            }
        }
        Ok(())
    }
}

impl Data {
    fn entries(&self, family: Family) -> Result<&Entries, ReadError> {
        let entries = self.families.get(&family);
        entries.ok_or(ReadError::UnknownFamily(family.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const F: Family = Family("f");

    // Puts, a put over another, deletes, a range and an empty range: what is used is what is there, to the byte.
    #[test]
    fn bytes_in_use_are_exact() {
        let mut data = Data::default();
        data.create(&[F]);
        let mut batch = Batch::new();
        for key in [b"a", b"b", b"c", b"d"] {
            batch.put(F, key, b"1234");
        }
        data.apply(&batch);
        assert_eq!(data.bytes(), 4 * (5 + ENTRY));
        let mut batch = Batch::new();
        batch.put(F, b"a", b"");
        batch.delete(F, b"d");
        batch.delete(F, b"never");
        batch.delete_range(F, b"c", b"b");
        data.apply(&batch);
        assert_eq!(data.bytes(), 1 + 5 + 5 + 3 * ENTRY);
        let mut batch = Batch::new();
        batch.delete_range(F, b"b", b"c");
        data.apply(&batch);
        assert_eq!(data.bytes(), 1 + 5 + 2 * ENTRY);
        assert_eq!(data.get(F, b"b"), Ok(None));
        assert_eq!(data.get(F, b"c"), Ok(Some(b"1234".to_vec())));
    }
}
