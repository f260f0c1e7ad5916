//! When what is sent arrives, and what else the state of a network says of itself.

use std::cmp::Reverse;
use std::time::Duration;

use super::{LinkNo, LinkState, State, ns, tick_of};
use crate::net::deliver::{Event, What};
use crate::net::host::Nat;
use crate::net::link::Link;
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

    /// The link from one node to another, made when they first need it.
    pub(in crate::net) fn link_number(&mut self, from: NodeNo, to: NodeNo) -> LinkNo {
        if let Some(number) = self.link_numbers[from.index()].get(&to) {
            return *number;
        }
        let link = self.modelled(from, to);
        let number = LinkNo(u32::try_from(self.links.len()).expect("fewer links than numbers"));
        self.links.push(LinkState {
            link,
            rng: None,
            busy_until: 0,
        });
        self.link_numbers[from.index()].insert(to, number);
        number
    }

    pub(in crate::net) fn link(&mut self, from: NodeNo, to: NodeNo) -> &mut LinkState {
        let number = self.link_number(from, to);
        &mut self.links[number.0 as usize]
    }

    /// When the last of so many bytes has left over their node's own line and the link; `None` where more waits than may and
    /// it `drops` then.
    fn depart(
        &mut self,
        now: u64,
        (from, to): (NodeNo, NodeNo),
        link: LinkNo,
        bytes: usize,
        drops: bool,
    ) -> Option<(u64, &mut LinkState)> {
        let mut ready = now;
        if let Some(line) = &mut self.hosts[from.index()].access {
            let (passed, waits) = line.bandwidth.pass(line.up, now, bytes);
            if drops && waits > line.bandwidth.queue_bytes {
                return None;
            }
            line.up = passed;
            ready = passed;
        }
        let state = &mut self.links[link.0 as usize];
        if state.rng.is_none() && state.link.is_random() {
            let (a, b) = (&self.sites[from.index()].name, &self.sites[to.index()].name);
            state.rng = Some(stream_of(self.seed, a, "net", b.as_str()));
        }
        let Some(bandwidth) = state.link.bandwidth else {
            return Some((ready, state));
        };
        let (leaves, waits) = bandwidth.pass(state.busy_until, ready, bytes);
        if drops && waits > bandwidth.queue_bytes {
            return None;
        }
        state.busy_until = leaves;
        Some((leaves, state))
    }

    /// When the last of so many bytes has come in over a node's own line, at whose far end they are at `at`; `None` where more
    /// waits there than may and it `drops` then.
    pub(in crate::net) fn come_in(
        &mut self,
        at: u64,
        node: NodeNo,
        bytes: usize,
        drops: bool,
    ) -> Option<u64> {
        let Some(line) = &mut self.hosts[node.index()].access else {
            return Some(at);
        };
        let (passed, waits) = line.bandwidth.pass(line.down, at, bytes);
        if drops && waits > line.bandwidth.queue_bytes {
            return None;
        }
        line.down = passed;
        Some(passed)
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
        let link = self.link_number(from, to);
        self.segment_over(now, (from, to), link, bytes)
    }

    /// The same over a link that has been looked up.
    pub(in crate::net) fn segment_over(
        &mut self,
        now: u64,
        (from, to): (NodeNo, NodeNo),
        link: LinkNo,
        bytes: usize,
    ) -> u64 {
        let slower = self.slower(from, to);
        let Some((leaves, state)) = self.depart(now, (from, to), link, bytes, false) else {
            // Streams wait.
            return u64::MAX;
        };
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
        let link = self.link_number(from, to);
        let Some((leaves, state)) = self.depart(now, (from, to), link, bytes, true) else {
            return [None, None];
        };
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
