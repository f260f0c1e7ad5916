//! The heartbeat: meshes are mended, others told of recent messages, old ones forgotten.

use std::sync::Arc;
use std::time::Duration;

use super::router::{Random, choose, insert, remove};
use super::wire::topics_of;
use super::{Event, Key, Peer, Router, Rpc, Topic};

impl Router {
    /// To be called every [`super::Parameters::heartbeat`], the first time at `first_heartbeat` after the start.
    pub fn heartbeat(&mut self, now: Duration, random: Random<'_>) {
        self.backoffs.beat(now);
        for known in &mut self.neighbours {
            known.ihaves = 0;
            known.asked = 0;
        }
        self.promised.retain(|_, until| *until >= now);
        let (mut grafts, mut prunes) = (Vec::new(), Vec::new());
        for topic in topics_of(self.joined) {
            self.mend(topic, &mut grafts, &mut prunes, random);
        }
        self.mend_fanouts(now, random);
        self.tell(now, random);
        for (peer, topic) in grafts {
            self.send(now, peer, Rpc::Graft(topic), false);
        }
        let backoff = self.rules.parameters.prune_backoff;
        for (peer, topic) in prunes {
            self.prune(now, topic, peer, backoff);
        }
        self.cache.shift();
        for known in &mut self.neighbours {
            let messages = std::mem::take(&mut known.unread);
            if messages > 0 {
                let peer = known.peer;
                self.events.push_back(Event::Unread { peer, messages });
            }
        }
    }

    fn mend(
        &mut self,
        topic: Topic,
        grafts: &mut Vec<(Peer, Topic)>,
        prunes: &mut Vec<(Peer, Topic)>,
        random: Random<'_>,
    ) {
        let p = &self.rules.parameters;
        let (wanted, low, high) = (p.mesh_n, p.mesh_n_low, p.mesh_n_high);
        let outbound_min = p.mesh_outbound_min;
        let mut mesh = (self.meshes.get_mut(topic.at())).map_or_else(Vec::new, std::mem::take);
        let mut fill = |mesh: &mut Vec<Peer>, n: usize, dialled: bool, random: Random<'_>| {
            let others = self.candidates(topic, |known| {
                (known.outbound || !dialled)
                    && mesh.binary_search(&known.peer).is_err()
                    && !self.backoffs.holds(topic, known.peer)
            });
            for peer in choose(others, n, random) {
                insert(mesh, peer);
                grafts.push((peer, topic));
            }
        };
        if mesh.len() < low {
            let missing = wanted - mesh.len();
            fill(&mut mesh, missing, false, random);
        }
        let dialled = |peer: &Peer| self.find(*peer).is_some_and(|known| known.outbound);
        if mesh.len() >= high {
            let mut outbound = mesh.iter().filter(|peer| dialled(peer)).count();
            let mut excess = mesh.len() - wanted;
            for peer in shuffled(mesh.clone(), random) {
                if excess == 0 {
                    break;
                }
                if dialled(&peer) {
                    if outbound <= outbound_min {
                        continue;
                    }
                    outbound -= 1;
                }
                remove(&mut mesh, peer);
                prunes.push((peer, topic));
                excess -= 1;
            }
        }
        if mesh.len() >= low {
            let outbound = mesh.iter().filter(|peer| dialled(peer)).count();
            if outbound < outbound_min {
                fill(&mut mesh, outbound_min - outbound, true, random);
            }
        }
        if let Some(place) = self.meshes.get_mut(topic.at()) {
            *place = mesh;
        }
    }

    fn mend_fanouts(&mut self, now: Duration, random: Random<'_>) {
        let (ttl, wanted) = {
            let p = &self.rules.parameters;
            (p.fanout_ttl, p.mesh_n)
        };
        for at in 0..self.fanouts.len() {
            let topic = Topic(u8::try_from(at).unwrap_or(u8::MAX));
            let Some(mut fanout) = self.fanouts.get_mut(at).and_then(Option::take) else {
                continue;
            };
            if now.saturating_sub(fanout.last) > ttl {
                continue;
            }
            let takes_part = |peer: &Peer| self.find(*peer).is_some_and(|k| k.takes_part(topic));
            fanout.peers.retain(takes_part);
            if fanout.peers.len() < wanted {
                let others = self.candidates(topic, |known| {
                    fanout.peers.binary_search(&known.peer).is_err()
                });
                for peer in choose(others, wanted - fanout.peers.len(), random) {
                    insert(&mut fanout.peers, peer);
                }
            }
            if let Some(place) = self.fanouts.get_mut(at) {
                *place = Some(fanout);
            }
        }
    }

    /// Tells some of those outside the mesh which messages this node has.
    fn tell(&mut self, now: Duration, random: Random<'_>) {
        let p = &self.rules.parameters;
        let (lazy, factor, most) = (p.gossip_lazy, p.gossip_factor, p.max_ids);
        for at in 0..self.rules.topics.len() {
            let topic = Topic(u8::try_from(at).unwrap_or(u8::MAX));
            let inside: Vec<Peer> = match self.fanouts.get(at).and_then(Option::as_ref) {
                _ if self.takes_part(topic) => self.mesh(topic).to_vec(),
                Some(fanout) => fanout.peers.clone(),
                None => continue,
            };
            let recent = self.cache.recent(topic);
            if recent.is_empty() {
                continue;
            }
            let others = self.candidates(topic, |known| inside.binary_search(&known.peer).is_err());
            let n = lazy.max(part(factor, others.len()));
            let all: Option<Arc<[Key]>> = (recent.len() <= most).then(|| recent.clone().into());
            for peer in choose(others, n, random) {
                // Each hears of others, so that between them they hear of all.
                let keys = match &all {
                    Some(all) => all.clone(),
                    None => choose(recent.clone(), most, random).into(),
                };
                self.send(now, peer, Rpc::IHave { topic, keys }, false);
            }
        }
    }
}

/// That part of a number, rounded down as the library does.
fn part(factor: f64, of: usize) -> usize {
    (factor * of as f64) as usize
}

fn shuffled(mut all: Vec<Peer>, random: Random<'_>) -> Vec<Peer> {
    for at in (1..all.len()).rev() {
        all.swap(at, super::router::below(at + 1, random));
    }
    all
}
