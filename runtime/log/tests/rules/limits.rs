//! What every [`ShardLog`] that is limited must do, by size and by age: the log in a store when it is asked to look, the log on a RabbitMQ
//! when its stream's segment is full.
#![allow(unused_macros, reason = "each test binary runs its rules")]

use std::time::Duration;

use pqcnet_actor::Env;
use pqcnet_log::{AppendBatch, Base, ChannelId, LogError, ReadRequest, Retention, ShardLog};

use super::{Fixture, S};
use crate::support::{A, B, head};

/// Hands the name of every rule to a macro.
macro_rules! every_limit {
    ($with:ident) => {
        $with! {
            the_oldest_bytes_go,
            the_oldest_entries_go,
        }
    };
}

const ENTRY: usize = 4 << 10;

/// A shard that is filled.
struct Filling {
    generation: u32,
    heads: [u64; 2],
    /// When each entry of the first channel was appended.
    times: Vec<u64>,
}

impl Filling {
    async fn of(log: &dyn ShardLog) -> Filling {
        let generation = log.open(S, [0; 16]).await.unwrap().generation;
        Filling {
            generation,
            heads: [0; 2],
            times: Vec::new(),
        }
    }

    /// So many entries for the one channel and one for the other, and a look at what is over.
    async fn append(&mut self, log: &dyn ShardLog, entries: u64) {
        let now_ms = Env::plain().wall_ms();
        let mut batch = AppendBatch::new(S, self.generation);
        for (channel, at, count) in [(A, 0, entries), (B, 1, 1)] {
            let base = Base {
                head: self.heads[at],
                bytes: self.heads[at] * ENTRY as u64,
                ..Base::default()
            };
            let slot = batch.channel(channel, base);
            for _ in 0..count {
                self.heads[at] += 1;
                let sequence = self.heads[at];
                batch.push(slot, (1, sequence), now_ms, |offset, out| {
                    out.extend_from_slice(&offset.to_be_bytes());
                    out.resize(out.len() + ENTRY - 8, 0x5a);
                });
            }
        }
        self.times.resize(self.heads[0] as usize, now_ms);
        log.append(batch).unwrap().await.unwrap();
        self.look(log).await;
    }

    async fn look(&self, log: &dyn ShardLog) {
        if let Some(retaining) = log.retain(S, self.generation, Env::plain().wall_ms()) {
            retaining.await.unwrap();
        }
    }
}

/// The first entry that a reader from the beginning is given.
async fn front(log: &dyn ShardLog, channel: ChannelId) -> u64 {
    first_after(log, channel, 0).await.unwrap()
}

async fn first_after(log: &dyn ShardLog, channel: ChannelId, after: u64) -> Option<u64> {
    let request = ReadRequest {
        shard: S,
        channel,
        after,
        max_records: 1,
        max_bytes: 1,
    };
    let found = found(log, request).await;
    found.first().map(|(offset, _)| *offset)
}

/// Made again while the log says that it is busy.
async fn found(log: &dyn ShardLog, request: ReadRequest) -> Vec<(u64, Vec<u8>)> {
    loop {
        match log.read(request).await {
            Err(LogError::Busy) => tokio::task::yield_now().await,
            found => {
                let found = found.unwrap();
                let entries = (0..found.items.len()).filter_map(|at| found.get(at));
                return entries.map(|(at, bytes)| (at, bytes.to_vec())).collect();
            }
        }
    }
}

/// Everything from the front on is there, once, in order, up to the head. A front may go on while it is read, and then by what is that old.
async fn is_whole(log: &dyn ShardLog, channel: ChannelId, head: u64) -> Vec<u64> {
    let first = front(log, channel).await;
    if first > 2 && log.is_limited() {
        // Whoever asks for what is gone is given the front, and sees that it is not what came next.
        assert_eq!(first_after(log, channel, first - 2).await, Some(first));
    }
    let (mut next, mut jumps) = (first, Vec::new());
    while next <= head {
        let request = ReadRequest {
            shard: S,
            channel,
            after: next - 1,
            max_records: 64,
            max_bytes: 1 << 20,
        };
        let entries = found(log, request).await;
        let Some((first, _)) = entries.first() else {
            break;
        };
        if *first != next {
            jumps.push(*first);
            next = *first;
        }
        for (offset, bytes) in entries {
            assert_eq!((offset, bytes.len()), (next, ENTRY));
            assert_eq!(bytes[..8], next.to_be_bytes());
            next += 1;
        }
    }
    assert_eq!(first_after(log, channel, head).await, None);
    jumps
}

// A shard that keeps half a MiB takes four times that and more, in two channels: what is over goes from the front until no more than
// about the limit is left, never so much that less than half of it would be; offsets, heads and marks stay, also over a restart.
pub async fn the_oldest_bytes_go<F: Fixture>(make: impl FnOnce(Retention) -> F) {
    const LIMIT: u64 = 512 << 10;
    let limits = Retention {
        bytes: Some(LIMIT),
        age: None,
    };
    let fixture = make(limits);
    let log = fixture.log();
    let mut filling = Filling::of(&*log).await;
    loop {
        filling.append(&*log, 16).await;
        let fronts = [front(&*log, A).await, front(&*log, B).await];
        let kept = |at: usize| (filling.heads[at] + 1 - fronts[at]) * ENTRY as u64;
        let (kept, all) = (
            kept(0) + kept(1),
            (filling.heads[0] + filling.heads[1]) * ENTRY as u64,
        );
        if fronts[0] > 1 {
            assert!(kept >= LIMIT / 2, "{kept} bytes are left");
        }
        if fronts[0] > 1 && all >= 4 * LIMIT && kept <= LIMIT + LIMIT / 2 {
            break;
        }
    }
    for (channel, head) in [A, B].into_iter().zip(filling.heads) {
        let jumps = is_whole(&*log, channel, head).await;
        // A log that is not asked to look lets nothing go.
        assert!(jumps.is_empty() || !log.is_limited(), "{jumps:?}");
    }
    drop(log);
    let fixture = fixture.restarted().await;
    let log = fixture.log();
    let a = head(&*log, S, A).await.unwrap();
    assert_eq!(a.head, filling.heads[0]);
    let mark = (a.producers[0].sequence, a.producers[0].offset);
    assert_eq!(mark, (a.head, a.head));
    filling.generation = log.open(S, [0; 16]).await.unwrap().generation;
    filling.append(&*log, 1).await;
    is_whole(&*log, A, filling.heads[0]).await;
}

// A shard that keeps a second: what is older goes once a later segment begins, and nothing goes that is younger.
pub async fn the_oldest_entries_go<F: Fixture>(make: impl FnOnce(Retention) -> F) {
    const AGE: Duration = Duration::from_secs(1);
    let limits = Retention {
        bytes: Some(16 << 20),
        age: Some(AGE),
    };
    let fixture = make(limits);
    let log = fixture.log();
    let mut filling = Filling::of(&*log).await;
    // More than a segment, an eighth of the bytes.
    for _ in 0..10 {
        filling.append(&*log, 63).await;
    }
    let old = Env::plain().wall_ms() + AGE.as_millis() as u64;
    while Env::plain().wall_ms() <= old {
        tokio::task::yield_now().await;
    }
    for _ in 0..10 {
        filling.append(&*log, 63).await;
    }
    let first = loop {
        let first = first_after(&*log, A, 0).await;
        let now_ms = Env::plain().wall_ms();
        match first {
            Some(1) => filling.look(&*log).await,
            first => break first.map(|first| (first, now_ms)),
        }
    };
    // On a machine that stood still for a second all of it may be old by now.
    if let Some((first, now_ms)) = first {
        let gone = filling.times[first as usize - 2];
        let age = now_ms.saturating_sub(gone);
        assert!(u128::from(age) >= AGE.as_millis(), "gone after {age} ms");
        for first in is_whole(&*log, A, filling.heads[0]).await {
            let gone = filling.times[first as usize - 2];
            let age = Env::plain().wall_ms().saturating_sub(gone);
            assert!(u128::from(age) >= AGE.as_millis(), "gone after {age} ms");
        }
    }
    assert_eq!(head(&*log, S, A).await.unwrap().head, filling.heads[0]);
}
