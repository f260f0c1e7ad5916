//! Canonical bytes: integers big-endian, lists behind their length, one encoding for each value.

use pqcnet_crypto::NodeId;

/// The bytes do not read as what they should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{what} at byte {at} does not read")]
pub struct Malformed {
    /// Which part.
    pub what: &'static str,
    /// Where it begins.
    pub at: usize,
}

/// Reads in order, and knows where it stands.
pub struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    /// From the beginning.
    pub fn new(bytes: &'a [u8]) -> Reader<'a> {
        Reader { bytes, at: 0 }
    }

    /// How much is read.
    pub fn at(&self) -> usize {
        self.at
    }

    /// What is read so far.
    pub fn read(&self) -> &'a [u8] {
        &self.bytes[..self.at]
    }

    /// So many bytes.
    pub fn slice(&mut self, what: &'static str, len: usize) -> Result<&'a [u8], Malformed> {
        let rest = &self.bytes[self.at..];
        let taken = rest.get(..len).ok_or(Malformed { what, at: self.at })?;
        self.at += len;
        Ok(taken)
    }

    /// A fixed number of bytes.
    pub fn array<const N: usize>(&mut self, what: &'static str) -> Result<[u8; N], Malformed> {
        let mut out = [0; N];
        out.copy_from_slice(self.slice(what, N)?);
        Ok(out)
    }

    /// These very bytes.
    pub fn expect(&mut self, what: &'static str, wanted: &[u8]) -> Result<(), Malformed> {
        let at = self.at;
        if self.slice(what, wanted.len())? == wanted {
            Ok(())
        } else {
            Err(Malformed { what, at })
        }
    }

    /// One byte.
    pub fn u8(&mut self, what: &'static str) -> Result<u8, Malformed> {
        Ok(u8::from_be_bytes(self.array(what)?))
    }

    /// Four bytes.
    pub fn u32(&mut self, what: &'static str) -> Result<u32, Malformed> {
        Ok(u32::from_be_bytes(self.array(what)?))
    }

    /// Eight bytes.
    pub fn u64(&mut self, what: &'static str) -> Result<u64, Malformed> {
        Ok(u64::from_be_bytes(self.array(what)?))
    }

    /// An id.
    pub fn node(&mut self, what: &'static str) -> Result<NodeId, Malformed> {
        Ok(NodeId::from_bytes(self.array(what)?))
    }

    /// A list's length, at most `max`.
    pub fn count(&mut self, what: &'static str, max: usize) -> Result<usize, Malformed> {
        let at = self.at;
        let count = usize::try_from(self.u32(what)?).unwrap_or(usize::MAX);
        if count > max {
            return Err(Malformed { what, at });
        }
        Ok(count)
    }

    /// Nothing may be left.
    pub fn end(self, what: &'static str) -> Result<(), Malformed> {
        if self.at == self.bytes.len() {
            Ok(())
        } else {
            Err(Malformed { what, at: self.at })
        }
    }
}

/// Writes numbers one after another.
pub fn put(out: &mut Vec<u8>, numbers: impl IntoIterator<Item = u64>) {
    for number in numbers {
        out.extend_from_slice(&number.to_be_bytes());
    }
}

/// Writes a list's length. Lists have at most 2^32 - 1 items; what is longer is refused before it is written.
pub fn put_count(out: &mut Vec<u8>, len: usize) {
    let len = u32::try_from(len).unwrap_or(u32::MAX);
    out.extend_from_slice(&len.to_be_bytes());
}
