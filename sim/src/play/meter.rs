//! What a run measures every simulated second.

use std::collections::BTreeMap;
use std::time::Duration;

use pqcnet_link::Role;

use super::PlayError;
use crate::net::NetCounts;
use crate::oracle::{Leg, Times, Totals};
use crate::report::{Record, resident};
use crate::world::{EventKind, NodeState, World};

/// Counts at the last sample.
#[derive(Default)]
pub(super) struct Meter {
    at: Duration,
    elapsed: Duration,
    kinds: BTreeMap<&'static str, u64>,
    net: NetCounts,
    totals: Totals,
}

const KINDS: [(&str, EventKind); 3] = [
    ("handled", EventKind::Handled),
    ("passed", EventKind::Passed),
    ("network", EventKind::Network),
];

const ROLES: [(&str, Role); 3] = [
    ("relayer", Role::Relayer),
    ("sentry", Role::Sentry),
    ("client", Role::Client),
];

impl Meter {
    /// Writes what changed since the last sample. `elapsed` is the machine's time.
    pub(super) fn sample(
        &mut self,
        world: &World,
        (totals, times): (&Totals, &Times),
        at: Duration,
        elapsed: Duration,
        record: &mut Record,
    ) -> Result<(), PlayError> {
        let seconds = at.saturating_sub(self.at).as_secs_f64();
        if seconds <= 0.0 {
            return Ok(());
        }
        for (name, kind) in KINDS {
            let now = world.ledger().events_of(kind);
            let before = self.kinds.insert(name, now).unwrap_or_default();
            let rate = now.saturating_sub(before) as f64 / seconds;
            record.sample(at, &format!("events/{name}"), rate)?;
        }
        let net = world.net().counts();
        for (name, now, before) in [
            ("bytes/streams", net.stream_bytes, self.net.stream_bytes),
            ("packets/datagrams", net.datagrams, self.net.datagrams),
            ("packets/lost datagrams", net.lost, self.net.lost),
            ("packets/held up", net.held_up, self.net.held_up),
        ] {
            record.sample(at, name, now.saturating_sub(before) as f64 / seconds)?;
        }
        record.sample(
            at,
            "waiting/deliveries under way",
            world.net().under_way() as f64,
        )?;
        record.sample(at, "connections/all", net.connections as f64)?;
        for (name, role) in ROLES {
            let of_role = world.nodes().filter(|node| world.spec(*node).role == role);
            let up = of_role.filter(|node| world.state(*node) == NodeState::Up);
            record.sample(at, &format!("up/{name}"), up.count() as f64)?;
        }
        let before = &self.totals;
        for (name, now, before) in [
            ("rate/sent", totals.sent, before.sent),
            ("rate/acknowledged", totals.acked, before.acked),
            ("rate/delivered", totals.delivered, before.delivered),
        ] {
            record.sample(at, name, now.saturating_sub(before) as f64 / seconds)?;
        }
        let unanswered = totals.sent.saturating_sub(totals.acked + totals.unknown);
        record.sample(at, "waiting/unacknowledged", unanswered as f64)?;
        let undelivered = totals.acked.saturating_sub(totals.delivered);
        record.sample(
            at,
            "waiting/acknowledged, not delivered",
            undelivered as f64,
        )?;
        for leg in Leg::ALL {
            if let Some(lately) = times.lately(leg) {
                let words = leg.words();
                record.sample(at, &format!("latency/{words}, p50"), lately.p50_ms)?;
                record.sample(at, &format!("latency/{words}, p99"), lately.p99_ms)?;
            }
        }
        let (rss, _) = resident();
        record.sample(at, "rss/process", rss as f64 / 1_048_576.0)?;
        let took = elapsed.saturating_sub(self.elapsed).as_secs_f64();
        record.sample(at, "speed/simulated", seconds / took.max(0.000_001))?;
        self.at = at;
        self.elapsed = elapsed;
        self.net = net;
        self.totals = *totals;
        Ok(())
    }
}
