//! What sets a restored copy of a meter apart from the meter it was copied from.
//!
//! The original may have closed windows after the backup, and shown them to somebody. If the copy counted on from its own, it would
//! close windows of the same numbers with other heads, and whoever has both would take the relayer for a liar. So a copy goes on
//! with higher numbers than the original can have reached; the windows that it has are reported for themselves.

use pqcnet_store::{Batch, Store};

use crate::core::window::Chain;
use crate::disk::{self, DiskError, on_snapshot};

/// Windows closed in the time that one took before: more than one a length is closed only when there is too much for one.
const A_LENGTH: u64 = 2;
/// And so many more.
const MARGIN: u64 = 1_000;
/// A window is a second at least.
const SHORTEST_MS: u64 = 1_000;

/// Sets a freshly restored meter ahead of the original, durably; returns the number of the window that comes next, if there was one
/// before. Blocks, on a thread that runs no tasks.
///
/// # Errors
/// The store can not be read or written.
pub fn set_ahead(store: &dyn Store, now_ms: u64) -> Result<Option<u64>, DiskError> {
    let standing = disk::standing(store)?;
    let Some(chain) = standing.chain else {
        return Ok(None);
    };
    let last = on_snapshot(store, |view| disk::window(view, chain.number))?;
    let length_ms = last.map_or(0, |last| {
        last.head.end_ms.saturating_sub(last.head.start_ms)
    });
    let ahead = Chain {
        number: ahead_of(&chain, length_ms, now_ms),
        ..chain
    };
    let mut batch = Batch::new();
    disk::put_standing(&mut batch, &ahead, standing.oldest, &standing.sums);
    let failed = |error: &dyn std::fmt::Display| DiskError::Read(error.to_string());
    let commit = store.submit(batch).map_err(|error| failed(&error))?;
    commit.wait().map_err(|error| failed(&error))?;
    Ok(Some(ahead.number + 1))
}

/// The number behind which an original that went on until `now_ms` can not be.
fn ahead_of(chain: &Chain, length_ms: u64, now_ms: u64) -> u64 {
    let since = now_ms.saturating_sub(chain.end_ms);
    let windows = since / length_ms.max(SHORTEST_MS) * A_LENGTH + MARGIN;
    chain.number.saturating_add(windows)
}

#[cfg(test)]
mod tests {
    // Scenario: a copy that is two days old, of windows of a minute, and one whose last window was cut short or whose clock is ahead.
    use super::*;

    #[test]
    fn the_original_is_behind() {
        let chain = Chain {
            number: 500,
            end_ms: 1_000_000,
            hash: [0; 32],
        };
        let two_days = 2 * 24 * 3600 * 1000;
        let ahead = ahead_of(&chain, 60_000, chain.end_ms + two_days);
        assert_eq!(ahead, 500 + 2 * 2 * 24 * 60 + 1_000);
        let short = ahead_of(&chain, 3, chain.end_ms + two_days);
        assert_eq!(short, 500 + 2 * 2 * 24 * 3600 + 1_000);
        assert_eq!(ahead_of(&chain, 60_000, 5), 1_500);
    }
}
