//! Reads and writes canonical bytes: what a signature covers, the same for every reader.
//!
//! Integers are big-endian, texts and short lists carry their length, and for each value there is one encoding: a reader
//! refuses every other one.

use std::collections::BTreeSet;

use pqcnet_crypto::NodeId;
use pqcnet_link::{Role, WireError};

use crate::codec::invalid;

/// The bytes not yet read.
pub(crate) struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    /// Behind the `context` that the bytes begin with.
    pub(crate) fn after(context: &[u8], bytes: &'a [u8]) -> Result<Reader<'a>, WireError> {
        let rest = bytes.strip_prefix(context);
        rest.map(Reader)
            .ok_or_else(|| invalid("context", "of another kind or version"))
    }

    pub(crate) fn slice(&mut self, len: usize) -> Result<&'a [u8], WireError> {
        let (taken, rest) = self.0.split_at_checked(len).ok_or(WireError::Malformed)?;
        self.0 = rest;
        Ok(taken)
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N], WireError> {
        let mut out = [0; N];
        out.copy_from_slice(self.slice(N)?);
        Ok(out)
    }

    pub(crate) fn u8(&mut self) -> Result<u8, WireError> {
        Ok(u8::from_be_bytes(self.array()?))
    }

    pub(crate) fn u16(&mut self) -> Result<u16, WireError> {
        Ok(u16::from_be_bytes(self.array()?))
    }

    pub(crate) fn u32(&mut self) -> Result<u32, WireError> {
        Ok(u32::from_be_bytes(self.array()?))
    }

    pub(crate) fn u64(&mut self) -> Result<u64, WireError> {
        Ok(u64::from_be_bytes(self.array()?))
    }

    pub(crate) fn node(&mut self) -> Result<NodeId, WireError> {
        Ok(NodeId::from_bytes(self.array()?))
    }

    /// A byte of length and so many bytes of printable ASCII.
    pub(crate) fn text(&mut self, field: &'static str, max: usize) -> Result<String, WireError> {
        let len = usize::from(self.u8()?);
        if len > max {
            return Err(invalid(field, "too long"));
        }
        let text = self.slice(len)?;
        if !text.iter().all(|byte| (b' '..=b'~').contains(byte)) {
            return Err(invalid(field, "not printable ASCII"));
        }
        String::from_utf8(text.to_vec()).map_err(|_| invalid(field, "not printable ASCII"))
    }

    /// A byte of number and a byte each, ascending.
    pub(crate) fn roles(&mut self) -> Result<BTreeSet<Role>, WireError> {
        let count = usize::from(self.u8()?);
        let numbers = self.slice(count)?;
        if !numbers.is_sorted_by(|a, b| a < b) {
            return Err(invalid("roles", "not ascending"));
        }
        let role = |number: &u8| {
            Role::from_number(i32::from(*number)).ok_or_else(|| invalid("roles", "unknown"))
        };
        numbers.iter().map(role).collect()
    }

    /// Nothing may be left.
    pub(crate) fn end(self) -> Result<(), WireError> {
        if self.0.is_empty() {
            Ok(())
        } else {
            Err(WireError::Trailing)
        }
    }
}

pub(crate) fn put_text(out: &mut Vec<u8>, text: &str) {
    out.push(count(text.len()));
    out.extend_from_slice(text.as_bytes());
}

pub(crate) fn put_roles(out: &mut Vec<u8>, roles: &BTreeSet<Role>) {
    out.push(count(roles.len()));
    out.extend(roles.iter().map(|role| role.number()));
}

/// A length in one byte. Every list and text written here has a limit below 256, checked when the bytes are read back.
pub(crate) fn count(len: usize) -> u8 {
    u8::try_from(len).unwrap_or(u8::MAX)
}
