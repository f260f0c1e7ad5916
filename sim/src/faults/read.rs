//! The steps of a scenario's faults.

use std::time::Duration;

use super::{Act, Conduct, Script};
use crate::net::Cut;
use crate::scenario::Loaded;
use crate::scenario::churn::Churn;
use crate::scenario::spec::{Behaviour, ChurnModel, Fault, FaultKind};
use crate::world::{CrashKind, NodeNo, SimTime, World};

/// How long a crashed or restarted node is away where the scenario does not say.
const AWAY: Duration = Duration::from_secs(2);

impl Script {
    /// What the scenario has go wrong in a world of its nodes, whose run begins at `begin`. Nodes that are not in the world
    /// are left out: a scenario is checked before.
    pub fn of(loaded: &Loaded, world: &World, begin: SimTime) -> Script {
        let mut script = Script::new();
        let mut traces = loaded.files.traces.iter();
        for (index, fault) in loaded.scenario.faults.iter().enumerate() {
            let named = fault.targets.nodes.iter();
            let nodes: Vec<NodeNo> = named.filter_map(|name| world.find(name)).collect();
            let trace = match &fault.kind {
                FaultKind::Churn {
                    model: ChurnModel::Trace { .. },
                    ..
                } => traces.next(),
                _ => None,
            };
            let end = begin + loaded.scenario.duration;
            match (&fault.kind, trace) {
                (FaultKind::Churn { model, away }, trace) => {
                    let model = match (model, trace) {
                        (ChurnModel::Plain(model), _) => model.clone(),
                        (ChurnModel::Trace { .. }, Some(trace)) => {
                            crate::scenario::churn::Model::Trace(trace.clone())
                        }
                        (ChurnModel::Trace { .. }, None) => continue,
                    };
                    let from = begin + fault.at;
                    let until = fault.lasts.map_or(end, |lasts| from + lasts);
                    let purpose = format!("churn {index}");
                    let streams = nodes.iter().map(|node| world.rng(*node, "", &purpose));
                    let churn = Churn::new(&model, *away, until.saturating_sub(from), streams);
                    script.churn(from, until, &nodes, churn);
                }
                (kind, _) => script.one(fault, kind, &nodes, begin, world),
            }
        }
        for (version, order) in (2..).zip(&loaded.scenario.maps) {
            let named = order.owners.nodes.iter();
            let owners: Vec<NodeNo> = named.filter_map(|name| world.find(name)).collect();
            if !owners.is_empty() {
                script.add(begin + order.at, Act::Map(version, owners));
            }
        }
        for byzantine in &loaded.scenario.byzantine {
            let conduct = match byzantine.behaviour {
                Behaviour::Drop(share) => Conduct::Loses(share),
                Behaviour::Delay(back) => Conduct::Keeps(back),
                Behaviour::Flood(a_second) => Conduct::Floods(a_second),
                Behaviour::Replay(share) => Conduct::Repeats(share),
                Behaviour::NeverForward => Conduct::Selfish,
                Behaviour::Lie(share) => Conduct::Alters(share),
            };
            let named = byzantine.targets.nodes.iter();
            for node in named.filter_map(|name| world.find(name)) {
                script.add(begin + byzantine.from, Act::Falls(node, conduct));
                script.add(begin + byzantine.until, Act::Repents(node));
            }
        }
        script
    }

    /// Nodes leave without a word and come back with their disks; those that are away at the end come back then.
    pub fn churn(
        &mut self,
        from: SimTime,
        until: SimTime,
        nodes: &[NodeNo],
        churn: Churn<impl rand_core::Rng>,
    ) {
        let mut away = vec![false; nodes.len()];
        for node in churn.absent() {
            away[node] = true;
            self.add(from, Act::Crash(nodes[node], CrashKind::Process));
        }
        for change in churn {
            let Some(node) = nodes.get(change.node).copied() else {
                continue;
            };
            away[change.node] = !change.up;
            let act = match change.up {
                true => Act::Start(node),
                false => Act::Crash(node, CrashKind::Process),
            };
            self.add(from + change.at, act);
        }
        for (node, away) in nodes.iter().zip(away) {
            if away {
                self.add(until, Act::Start(*node));
            }
        }
    }

    fn one(
        &mut self,
        fault: &Fault,
        kind: &FaultKind,
        nodes: &[NodeNo],
        begin: SimTime,
        world: &World,
    ) {
        let from = begin + fault.at;
        let until = fault.lasts.map(|lasts| from + lasts);
        let away = from + fault.lasts.unwrap_or(AWAY);
        match kind {
            FaultKind::Churn { .. } => {}
            FaultKind::Crash { torn } => {
                let kind = match torn {
                    true => CrashKind::Machine,
                    false => CrashKind::Process,
                };
                for node in nodes {
                    self.add(from, Act::Crash(*node, kind));
                    self.add(away, Act::Start(*node));
                }
            }
            FaultKind::Restart => {
                for node in nodes {
                    self.add(from, Act::Stop(*node));
                    self.add(away, Act::Start(*node));
                }
            }
            FaultKind::Partition { one_way } => {
                let rest = world.nodes().filter(|node| !nodes.contains(node));
                let rest: Vec<NodeNo> = rest.collect();
                let cut = match one_way {
                    true => Cut::OneWay {
                        from: nodes.to_vec(),
                        to: rest,
                    },
                    false => Cut::Groups(vec![nodes.to_vec(), rest]),
                };
                let number = self.pair();
                self.add(from, Act::Cut(number, cut));
                self.ends(until, Act::Heal(number));
            }
            FaultKind::Latency(times) => self.worsen(from, until, nodes, *times, 0.0),
            FaultKind::Loss(share) => self.worsen(from, until, nodes, 1.0, *share),
            FaultKind::Slow(times) => {
                for node in nodes {
                    self.add(from, Act::Slow(*node, *times));
                    self.ends(until, Act::Fast(*node));
                }
            }
            FaultKind::Skew(ppm) => {
                #[expect(
                    clippy::cast_possible_truncation,
                    reason = "a scenario's is within 100,000"
                )]
                let ppm = *ppm as i32;
                for node in nodes {
                    self.add(from, Act::Clock(*node, 0, ppm));
                    self.ends(until, Act::Clock(*node, 0, 0));
                }
            }
            FaultKind::Jump { by, back } => {
                let by = i64::try_from(by.as_millis()).unwrap_or(i64::MAX);
                for node in nodes {
                    self.add(from, Act::Clock(*node, if *back { -by } else { by }, 0));
                }
            }
            FaultKind::Panic { actor, message } => {
                for node in nodes {
                    let act = Act::Panic(*node, actor.clone(), message.clone(), 0);
                    self.add(from, act);
                }
            }
            FaultKind::DiskFull => {
                for node in nodes {
                    self.add(from, Act::DiskFull(*node, true));
                    self.ends(until, Act::DiskFull(*node, false));
                }
            }
            FaultKind::DiskSlow(times) => {
                for node in nodes {
                    self.add(from, Act::DiskSlow(*node, *times));
                    self.ends(until, Act::DiskSlow(*node, 1));
                }
            }
            FaultKind::DiskStalled => {
                for node in nodes {
                    self.add(from, Act::DiskStalled(*node, true));
                    self.ends(until, Act::DiskStalled(*node, false));
                }
            }
            FaultKind::DiskFails(writes) => {
                for node in nodes {
                    self.add(from, Act::DiskFails(*node, *writes));
                }
            }
            FaultKind::BrokerForgets => {
                for node in nodes {
                    self.add(from, Act::BrokerForgets(*node, true));
                    self.ends(until, Act::BrokerForgets(*node, false));
                }
            }
            FaultKind::DiskLies => {
                for node in nodes {
                    self.add(from, Act::DiskLies(*node, true));
                    self.ends(until, Act::DiskLies(*node, false));
                }
            }
        }
    }

    fn worsen(
        &mut self,
        from: SimTime,
        until: Option<SimTime>,
        nodes: &[NodeNo],
        times: f64,
        loss: f64,
    ) {
        for node in nodes {
            let number = self.pair();
            let node = *node;
            let act = Act::Worsen {
                number,
                node,
                times,
                loss,
            };
            self.add(from, act);
            self.ends(until, Act::Mend(number));
        }
    }

    fn ends(&mut self, until: Option<SimTime>, act: Act) {
        if let Some(until) = until {
            self.add(until, act);
        }
    }
}
