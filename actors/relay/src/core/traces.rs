//! Which stored records belong to a recorded trace, so that their deliveries go on with it.
//!
//! Empty, and so free, unless traces are recorded. A delivery of records of several traces goes on with the first.

use std::collections::VecDeque;
use std::ops::RangeInclusive;

use pqcnet_actor::TraceCx;
use pqcnet_log::ChannelId;

/// Publishes remembered: those of one batch of the log, and of the one before it that is still being delivered.
const REMEMBERED: usize = 256;

/// The last traced publishes of a shard.
#[derive(Debug, Default)]
pub struct Traces {
    last: VecDeque<(ChannelId, RangeInclusive<u64>, TraceCx)>,
}

impl Traces {
    /// These records were published under `trace`.
    pub fn remember(&mut self, channel: ChannelId, offsets: RangeInclusive<u64>, trace: TraceCx) {
        if self.last.len() >= REMEMBERED {
            self.last.pop_front();
        }
        self.last.push_back((channel, offsets, trace));
    }

    /// The trace of a delivery of these records.
    pub fn of(&self, channel: &ChannelId, offsets: RangeInclusive<u64>) -> TraceCx {
        let meets = |traced: &RangeInclusive<u64>| {
            traced.start() <= offsets.end() && offsets.start() <= traced.end()
        };
        let mut found = self.last.iter();
        found
            .find(|(of, traced, _)| of == channel && meets(traced))
            .map_or(TraceCx::NONE, |(_, _, trace)| *trace)
    }
}

#[cfg(test)]
mod tests {
    // Scenario: deliveries find the first traced publish among their records, of their own channel only; the oldest is
    // forgotten for the newest.
    use super::*;

    fn trace(trace_id: u128) -> TraceCx {
        TraceCx {
            trace_id,
            span_id: 1,
            sampled: true,
        }
    }

    #[test]
    fn deliveries_find_their_trace() {
        let (a, b) = (ChannelId([1; 32]), ChannelId([2; 32]));
        let mut traces = Traces::default();
        assert_eq!(traces.of(&a, 1..=9), TraceCx::NONE);
        traces.remember(a, 3..=4, trace(1));
        traces.remember(a, 7..=7, trace(2));
        traces.remember(b, 5..=5, trace(3));
        for (channel, offsets, found) in [
            (a, 1..=2, TraceCx::NONE),
            (a, 1..=3, trace(1)),
            (a, 4..=9, trace(1)),
            (a, 5..=6, TraceCx::NONE),
            (a, 5..=7, trace(2)),
            (b, 1..=9, trace(3)),
        ] {
            assert_eq!(traces.of(&channel, offsets.clone()), found, "{offsets:?}");
        }
        for n in 0..REMEMBERED as u64 {
            traces.remember(b, 100 + n..=100 + n, trace(9));
        }
        assert_eq!(traces.of(&a, 1..=9), TraceCx::NONE);
        assert_eq!(traces.last.len(), REMEMBERED);
    }
}
