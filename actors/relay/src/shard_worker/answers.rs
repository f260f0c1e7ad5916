//! Callers that wait for the disk, and what they are told.

use std::time::Duration;

use pqcnet_actor::{Counter, Env, Histogram, Promise, Step};
use pqcnet_log::ChannelId;
use pqcnet_messages::Refusal;
use pqcnet_messages::edge::{Committed, Published};
use pqcnet_messages::relay_local::{Admit, CommitOffset, DescribeDead, PutAside, ReplaceReaders};

use super::ShardWorker;
use crate::core::pending::Stored;

/// A caller that waits for the disk.
pub(super) enum Waiting {
    Publish(Publishing),
    Readers(Promise<ReplaceReaders>),
    Commit(Promise<CommitOffset>),
    Aside(Promise<PutAside>),
    /// In which channel, and whether some were to be forgotten.
    Dead((ChannelId, bool), Promise<DescribeDead>),
}

pub(super) struct Publishing {
    pub(super) to: Promise<Admit>,
    pub(super) since: Duration,
    /// Only where traces are recorded.
    pub(super) traced: Option<Box<Traced>>,
}

/// The step of a trace in which a publish becomes durable.
pub(super) struct Traced {
    pub(super) step: Step,
    pub(super) channel: ChannelId,
    pub(super) records: u64,
}

#[derive(Default)]
pub(super) struct Meters {
    pub(super) ack: Histogram,
    pub(super) delivery: Histogram,
    pub(super) pauses: Counter,
}

impl Meters {
    pub(super) fn of(env: &Env) -> Meters {
        Meters {
            ack: env.histogram(
                "relay_ack_seconds",
                "From a publish at its shard until it is durable",
                &[],
            ),
            delivery: env.histogram(
                "delivery_seconds",
                "From a publish at its shard until it is on its way to a subscriber that keeps up",
                &[],
            ),
            pauses: env.counter(
                "relay_pauses",
                "How often a publisher was asked to stop for a while",
                &[],
            ),
        }
    }
}

impl ShardWorker {
    pub(super) fn answer(&mut self, to: Waiting, result: Result<Stored, Refusal>, now: Duration) {
        match (to, result) {
            (Waiting::Publish(publishing), Ok(Stored::Published(published))) => {
                self.stored(&publishing, &published, now);
                publishing.to.fulfil(Ok(published));
            }
            (Waiting::Publish(Publishing { to, traced, .. }), Err(refusal)) => {
                if let Some(traced) = traced {
                    traced.step.fail(&refusal);
                }
                to.fulfil(Err(refusal));
            }
            (Waiting::Readers(to), Ok(Stored::Readers)) => to.fulfil(Ok(())),
            (Waiting::Readers(to), Err(refusal)) => to.fulfil(Err(refusal)),
            (Waiting::Commit(to), Ok(Stored::Committed(offset))) => {
                to.fulfil(Ok(Committed { offset }));
            }
            (Waiting::Commit(to), Err(refusal)) => to.fulfil(Err(refusal)),
            (Waiting::Aside(to), Ok(Stored::Committed(offset))) => {
                to.fulfil(Ok(Committed { offset }));
            }
            (Waiting::Aside(to), Err(refusal)) => to.fulfil(Err(refusal)),
            (Waiting::Dead(of, to), Ok(Stored::Dead(letters))) => {
                self.describe_dead(of, letters, to);
            }
            (Waiting::Dead(_, to), Err(refusal)) => to.fulfil(Err(refusal)),
            // Each waits for its own kind; dropped, the caller learns that it was abandoned.
            (waiting, Ok(_)) => drop(waiting),
        }
    }

    pub(super) fn stored(&mut self, publishing: &Publishing, published: &Published, now: Duration) {
        self.meters
            .ack
            .observe(now.saturating_sub(publishing.since));
        if let Some(traced) = &publishing.traced {
            let last = published.last_offset;
            let first = last.saturating_sub(traced.records.saturating_sub(1));
            self.traces
                .remember(traced.channel, first..=last, traced.step.cx());
        }
    }
}
