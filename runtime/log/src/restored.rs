//! What sets a restored copy of a log apart from the log it was copied from.
//!
//! The original may have gone on after the backup, in generations that the copy does not know of. If the copy counted on
//! from its own, it would issue producer epochs a second time, and a client that holds one of the lost future would have
//! its messages taken for repeats. So a copy starts far ahead. Sealing keys do not depend on this: each generation has 16
//! random bytes of salt of its own (docs/spec/relay.md §5), in the copy as in the original.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use pqcnet_store::{Batch, Store, SubmitError};

use crate::check::{EVERYTHING, generation_of};
use crate::keys::{self, GENERATION};
use crate::{LogError, Salt, ShardNo};

/// How far ahead: more starts than an original can have made since its backup, and few enough for four thousand
/// restorations in a row.
pub const AHEAD: u32 = 1 << 20;

/// Sets every shard of a freshly restored store ahead of the original, durably; returns each shard's generation.
/// Blocks, on a thread that runs no tasks. `salt` gives fresh random bytes each time.
///
/// # Errors
/// The store cannot be read or written, or a shard has no generations left.
pub fn set_ahead(
    store: &dyn Store,
    mut salt: impl FnMut() -> Salt,
) -> Result<BTreeMap<ShardNo, u32>, LogError> {
    let mut newest = BTreeMap::new();
    let storage = |detail: String| LogError::Storage { detail };
    let read = store.view(&mut |view| {
        view.scan(GENERATION, EVERYTHING, &mut |key, _| {
            if let Some((shard, number)) = generation_of(key) {
                newest.insert(shard, number);
            }
            ControlFlow::Continue(())
        })
    });
    read.map_err(|error| storage(error.to_string()))?;
    let mut batch = Batch::new();
    for (shard, number) in &mut newest {
        let ahead = number.checked_add(AHEAD);
        *number =
            ahead.ok_or_else(|| storage(format!("shard {} was restored too often", shard.0)))?;
        batch.put(GENERATION, &keys::generation(*shard, *number), &salt());
    }
    if batch.is_empty() {
        return Ok(newest);
    }
    let commit = store.submit(batch).map_err(|refused| match refused {
        SubmitError::Busy(_) => LogError::Busy,
        SubmitError::TooLarge(_) | SubmitError::Closed(_) => LogError::Closed,
    })?;
    commit.wait().map_err(|error| storage(error.to_string()))?;
    Ok(newest)
}
