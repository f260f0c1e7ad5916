//! The mesh's rules, pure: no actors, no sockets, no clock.

use std::collections::BTreeMap;

pub mod announcer;
pub mod book;
pub mod circle;
pub mod directives;
pub mod peers;
pub mod scores;
pub mod standing;
#[cfg(test)]
pub(crate) mod testing;

/// Any one of these, by 64 uniform bits; they are asked for only if there is one.
pub(crate) fn one_of<K: Copy, V>(of: &BTreeMap<K, V>, random: impl FnOnce() -> u64) -> Option<K> {
    if of.is_empty() {
        return None;
    }
    let at = random() % of.len() as u64;
    of.keys().nth(usize::try_from(at).unwrap_or(0)).copied()
}
