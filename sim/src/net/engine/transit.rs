//! When what is sent arrives, and what else the state of a network says of itself.

use std::cmp::Reverse;
use std::time::Duration;

use super::{LinkState, State, ns, tick_of};
use crate::net::deliver::{Event, What};
use crate::net::host::Nat;
use crate::net::link::{Link, on_wire};
use crate::net::streams::BACKLOG;
use crate::world::{NodeNo, stream_of};

impl State {
    pub(super) fn number(&mut self) -> u64 {
        self.last_number += 1;
        self.last_number
    }

    pub(super) fn next_tick(&self) -> u64 {
        let next = self.heap.peek();
        next.map_or(u64::MAX, |Reverse(event)| tick_of(event.at))
    }

    pub(in crate::net) fn push(&mut self, at: u64, what: What) {
        self.last_event += 1;
        let number = self.last_event;
        self.heap.push(Reverse(Event { at, number, what }));
    }

    pub(super) fn modelled(&mut self, from: NodeNo, to: NodeNo) -> Link {
        self.model
            .link(&self.sites[from.index()], &self.sites[to.index()])
    }

    pub(in crate::net) fn link(&mut self, from: NodeNo, to: NodeNo) -> &mut LinkState {
        if !self.links[from.index()].contains_key(&to) {
            let link = self.modelled(from, to);
            let fresh = LinkState {
                link,
                rng: None,
                busy_until: 0,
            };
            self.links[from.index()].insert(to, fresh);
        }
        let (seed, sites) = (self.seed, &self.sites);
        let links = &mut self.links[from.index()];
        let state = links.entry(to).or_insert_with(|| LinkState {
            link: Link::default(),
            rng: None,
            busy_until: 0,
        });
        if state.rng.is_none() && state.link.is_random() {
            let (a, b) = (&sites[from.index()].name, &sites[to.index()].name);
            state.rng = Some(stream_of(seed, a, "net", b.as_str()));
        }
        state
    }

    /// When the last of so many bytes has left for a link, and how many waited before them.
    pub(super) fn depart(state: &mut LinkState, now: u64, bytes: usize) -> (u64, u64) {
        let Some(bandwidth) = state.link.bandwidth else {
            return (now, 0);
        };
        let rate = u128::from(bandwidth.bytes_per_second.max(1));
        let begins = state.busy_until.max(now);
        let waits = u128::from(begins - now) * rate / 1_000_000_000;
        let takes = u128::from(on_wire(bytes)) * 1_000_000_000 / rate;
        let leaves = begins.saturating_add(u64::try_from(takes).unwrap_or(u64::MAX));
        (leaves, u64::try_from(waits).unwrap_or(u64::MAX))
    }

    pub(super) fn slower(&self, from: NodeNo, to: NodeNo) -> u64 {
        let (a, b) = (&self.hosts[from.index()], &self.hosts[to.index()]);
        ns(a.slower + b.slower)
    }

    /// When a stream's segment arrives.
    pub(in crate::net) fn segment(
        &mut self,
        now: u64,
        from: NodeNo,
        to: NodeNo,
        bytes: usize,
    ) -> u64 {
        let slower = self.slower(from, to);
        let state = self.link(from, to);
        let (leaves, _) = State::depart(state, now, bytes);
        state.busy_until = leaves;
        let delay = match &mut state.rng {
            Some(rng) => state.link.stream_delay(bytes, rng),
            None => state.link.latency,
        };
        leaves.saturating_add(ns(delay)).saturating_add(slower)
    }

    /// When a datagram arrives: never, once or twice.
    pub(super) fn datagram(
        &mut self,
        now: u64,
        from: NodeNo,
        to: NodeNo,
        bytes: usize,
    ) -> [Option<u64>; 2] {
        let slower = self.slower(from, to);
        let state = self.link(from, to);
        let (leaves, waits) = State::depart(state, now, bytes);
        let full = state.link.bandwidth;
        if full.is_some_and(|bandwidth| waits > bandwidth.queue_bytes) {
            return [None, None];
        }
        state.busy_until = leaves;
        let delays = match &mut state.rng {
            Some(rng) => state.link.datagram_delays(rng),
            None => [Some(state.link.latency), None],
        };
        delays.map(|delay| Some(leaves.saturating_add(ns(delay?)).saturating_add(slower)))
    }

    /// A NAT in front of the sender lets answers in.
    pub(in crate::net) fn note_sent(&mut self, now: u64, from: NodeNo, to: NodeNo) {
        let host = &mut self.hosts[from.index()];
        if host.nat != Nat::None {
            host.sent.insert(to, Duration::from_nanos(now));
        }
    }

    pub(in crate::net) fn free_mailbox(&mut self, node: NodeNo, port: u16, number: u64) {
        let host = &mut self.hosts[node.index()];
        if host.mailboxes.get(&port) == Some(&number) {
            host.mailboxes.remove(&port);
        }
    }

    pub(in crate::net) fn backlog_full(&self, listener: u64) -> bool {
        self.listeners
            .get(&listener)
            .is_none_or(|listening| listening.queue.len() >= BACKLOG)
    }
}
