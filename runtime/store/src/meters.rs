//! What the writer counts for a node's metrics.

use std::time::Duration;

use pqcnet_actor::{Counter, Env, Histogram};

use crate::queue::Queued;

/// Of all stores of a node together; a relayer has one.
pub(crate) struct Meters {
    env: Env,
    writes: Histogram,
    batches: Counter,
    bytes: Counter,
    failures: Counter,
}

impl Meters {
    pub(crate) fn new(env: &Env) -> Meters {
        Meters {
            env: env.clone(),
            writes: env.histogram(
                "store_write_seconds",
                "Synced writes to the store, each of all batches that waited",
                &[],
            ),
            batches: env.counter("store_batches", "Batches written to the store", &[]),
            bytes: env.counter(
                "store_written_bytes",
                "Bytes of keys and values written to the store",
                &[],
            ),
            failures: env.counter(
                "store_write_failures",
                "Synced writes to the store that failed or were refused for lack of room",
                &[],
            ),
        }
    }

    pub(crate) fn now(&self) -> Duration {
        self.env.now()
    }

    /// A group was written, or was not.
    pub(crate) fn wrote(&self, began: Duration, group: &[Queued], well: bool) {
        if !well {
            return self.failures.bump();
        }
        self.writes.observe(self.env.now().saturating_sub(began));
        self.batches.add(group.len() as u64);
        let bytes = group.iter().map(|queued| queued.batch.byte_len() as u64);
        self.bytes.add(bytes.sum());
    }
}
