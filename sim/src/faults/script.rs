//! Steps in order of time, and what each does to the world.

use std::collections::BTreeMap;
use std::time::Duration;

use pqcnet_crypto::NodeId;
use pqcnet_messages::{Order, ShardMap, SubmitDirective};

use super::byzantine::flood;
use super::{Conduct, Conducts, Panics, Weather};
use crate::net::{Cut, Link};
use crate::world::{CrashKind, NodeNo, NodeState, SimTime, Stopped, World, WorldError};

/// One thing that is done to the world. `number`s pair a beginning with its end.
#[derive(Clone, Debug, PartialEq)]
pub enum Act {
    /// A node ends without a word.
    Crash(NodeNo, CrashKind),
    /// A node closes its links and stops.
    Stop(NodeNo),
    /// A node starts with the disk it has, once it is down.
    Start(NodeNo),
    /// A node whose program has ended by itself starts again.
    Revive(NodeNo),
    /// Nothing passes there.
    Cut(u64, Cut),
    /// It passes again.
    Heal(u64),
    /// Links of a node take so many times as long and lose so much more.
    Worsen {
        /// Pairs it with its end.
        number: u64,
        /// Whose links.
        node: NodeNo,
        /// Latency and jitter times this.
        times: f64,
        /// Packets lost beside those that were lost before, as a share.
        loss: f64,
    },
    /// Links are as they were.
    Mend(u64),
    /// A node's processor is so many times slower than measured.
    Slow(NodeNo, f64),
    /// It is as fast as it was made.
    Fast(NodeNo),
    /// A node's wall clock jumps by so many milliseconds, and runs fast by so many millionths.
    Clock(NodeNo, i64, i32),
    /// An actor panics at a message: its path's beginning, the message's name or any, and how many it handles before.
    Panic(NodeNo, String, Option<String>, u32),
    /// A disk has no room, or has it again.
    DiskFull(NodeNo, bool),
    /// A disk is so many times slower.
    DiskSlow(NodeNo, u32),
    /// A disk begins no write, or does again.
    DiskStalled(NodeNo, bool),
    /// The next so many writes fail.
    DiskFails(NodeNo, u32),
    /// A disk says that it synced and does not.
    DiskLies(NodeNo, bool),
    /// A broker does not know any more that it has streams, or is told so.
    BrokerForgets(NodeNo, bool),
    /// The root signs a map of this version, which gives the shards to these in turn; an operator hands it to the first of them that is
    /// up, again and again until it is taken.
    Map(u64, Vec<NodeNo>),
    /// A node stops keeping the rules.
    Falls(NodeNo, Conduct),
    /// It keeps them again.
    Repents(NodeNo),
}

/// Whoever has to do something when a node has been started, such as a load on its clients.
pub trait Restarts {
    /// This node has just been started again.
    fn started(&mut self, world: &mut World, node: NodeNo);

    /// From now on any of these may have any shard, beside those that might before.
    fn ordered(&mut self, _: &World, _: &[NodeNo]) {}
}

impl Restarts for () {
    fn started(&mut self, _: &mut World, _: NodeNo) {}
}

/// What has begun and is to end.
enum Undo {
    Cut(u64, Vec<NodeNo>),
    Links(Worse),
}

/// Links of a node that are worse than they were made, by one step.
#[derive(Clone, Copy)]
struct Worse {
    node: NodeNo,
    times: f64,
    loss: f64,
}

/// A node judges a directive and keeps it.
const ORDERED_WITHIN: Duration = Duration::from_secs(10);
/// Between looks at a node that has not stopped yet and is to start.
const LOOK: Duration = Duration::from_millis(100);
/// `RestartSec` of the units in deploy/systemd.
const REVIVED_AFTER: Duration = Duration::from_secs(1);

/// Steps to come, and what has begun and not ended.
pub struct Script {
    steps: BTreeMap<(SimTime, u64), Act>,
    last: u64,
    begun: BTreeMap<u64, Undo>,
    /// Links that are worse now, as they were made.
    made: BTreeMap<(NodeNo, NodeNo), Link>,
    /// Nodes that were slowed down by a step, and disks that are in trouble: each counts once.
    slowed: BTreeMap<(NodeNo, &'static str), ()>,
    down: BTreeMap<NodeNo, ()>,
    weather: Weather,
    panics: Panics,
    conducts: Conducts,
    done: u64,
    revived: u64,
}

impl Default for Script {
    fn default() -> Script {
        Script::new()
    }
}

impl Script {
    /// No steps.
    pub fn new() -> Script {
        let weather = Weather::new();
        Script {
            steps: BTreeMap::new(),
            last: 0,
            begun: BTreeMap::new(),
            made: BTreeMap::new(),
            slowed: BTreeMap::new(),
            down: BTreeMap::new(),
            panics: Panics::new(weather.clone()),
            weather,
            conducts: Conducts::new(),
            done: 0,
            revived: 0,
        }
    }

    /// A step at this time of the world.
    pub fn add(&mut self, at: SimTime, act: Act) {
        self.last += 1;
        self.steps.insert((at, self.last), act);
    }

    /// A number that pairs a beginning with its end.
    pub fn pair(&mut self) -> u64 {
        self.last += 1;
        self.last
    }

    /// When the next step is due.
    pub fn next(&self) -> Option<SimTime> {
        self.steps.keys().next().map(|(at, _)| *at)
    }

    /// Steps done so far.
    pub fn done(&self) -> u64 {
        self.done
    }

    /// Programs that have ended by themselves and were started again.
    pub fn revived(&self) -> u64 {
        self.revived
    }

    /// Steps to come, in order.
    pub fn steps(&self) -> impl Iterator<Item = (SimTime, &Act)> {
        self.steps.iter().map(|((at, _), act)| (*at, act))
    }

    /// Who is in trouble by this script.
    pub fn weather(&self) -> &Weather {
        &self.weather
    }

    /// What the world has to observe for panics to happen.
    pub fn panics(&self) -> &Panics {
        &self.panics
    }

    /// Who keeps the rules and who does not; the world has to observe it.
    pub fn conducts(&self) -> &Conducts {
        &self.conducts
    }

    /// Has the world observe what happens by this script at messages.
    pub fn watch(&self, world: &World) {
        world.observe(self.panics.clone());
        world.observe(self.conducts.clone());
    }

    /// Lets the world run until then, and does what is due on the way.
    ///
    /// # Errors
    /// The world stopped.
    pub fn drive(
        &mut self,
        world: &mut World,
        until: SimTime,
        restarts: &mut dyn Restarts,
    ) -> Result<(), Stopped> {
        while let Some(at) = self.next().filter(|at| *at <= until) {
            world.run_until(at)?;
            self.perform(world, restarts);
        }
        world.run_until(until)?;
        self.tend(world);
        Ok(())
    }

    /// What a service manager does: has each program that has ended by itself start again.
    fn tend(&mut self, world: &World) {
        for node in world.nodes() {
            if world.state(node) == NodeState::Failed && !self.down.contains_key(&node) {
                self.is_down(node);
                self.add(world.now() + REVIVED_AFTER, Act::Revive(node));
            }
        }
    }

    /// Does every step that is due now.
    pub fn perform(&mut self, world: &mut World, restarts: &mut dyn Restarts) {
        let now = world.now();
        while let Some(entry) = self.steps.first_entry() {
            if entry.key().0 > now {
                return;
            }
            let act = entry.remove();
            self.done += 1;
            self.act(world, act, restarts);
        }
    }

    fn act(&mut self, world: &mut World, act: Act, restarts: &mut dyn Restarts) {
        let now = world.now();
        match act {
            Act::Crash(node, kind) => {
                if world.crash(node, kind).is_some() {
                    self.is_down(node);
                }
            }
            Act::Stop(node) => {
                if matches!(world.state(node), NodeState::Up | NodeState::Starting) {
                    world.stop(node);
                    self.is_down(node);
                }
            }
            Act::Start(node) => self.start(world, node, restarts),
            Act::Revive(node) => {
                if world.state(node) == NodeState::Failed {
                    self.revived += 1;
                    self.start(world, node, restarts);
                }
            }
            Act::Cut(number, cut) => {
                let all: Vec<NodeNo> = world.nodes().collect();
                let hit = crossed(&cut, &all);
                hit.iter().for_each(|node| self.weather.begins(*node));
                let cut = world.net().cut(cut);
                self.begun.insert(number, Undo::Cut(cut, hit));
            }
            Act::Worsen {
                number,
                node,
                times,
                loss,
            } => {
                let worse = Worse { node, times, loss };
                self.begun.insert(number, Undo::Links(worse));
                self.reweigh(world, node);
                self.weather.begins(node);
            }
            Act::Heal(number) | Act::Mend(number) => match self.begun.remove(&number) {
                Some(Undo::Cut(cut, hit)) => {
                    world.net().heal(cut);
                    hit.iter().for_each(|node| self.weather.ends(*node, now));
                }
                Some(Undo::Links(Worse { node, .. })) => {
                    self.reweigh(world, node);
                    self.weather.ends(node, now);
                }
                None => {}
            },
            Act::Slow(node, times) => {
                let made = world.spec(node).cpu.slowness;
                world.set_slowness(node, made * times);
                self.troubled(node, "cpu", true, now);
            }
            Act::Fast(node) => {
                let made = world.spec(node).cpu.slowness;
                world.set_slowness(node, made);
                self.troubled(node, "cpu", false, now);
            }
            Act::Clock(node, jump_ms, ppm) => world.move_clock(node, jump_ms, ppm),
            Act::Panic(node, actor, message, after) => {
                self.panics.want(node, &actor, message.as_deref(), after);
            }
            Act::DiskFull(node, full) => {
                world.disk(node).set_full(full);
                self.troubled(node, "full", full, now);
            }
            Act::DiskSlow(node, times) => {
                world.disk(node).set_slowdown(times);
                self.troubled(node, "slow", times > 1, now);
            }
            Act::DiskStalled(node, stalled) => {
                world.disk(node).set_stalled(stalled);
                self.troubled(node, "stalled", stalled, now);
            }
            Act::DiskFails(node, writes) => {
                world.disk(node).fail_writes(writes);
                self.weather.begins(node);
                self.weather.ends(node, now);
            }
            Act::DiskLies(node, lies) => world.disk(node).set_lying(lies),
            Act::BrokerForgets(node, forgets) => {
                if let Some(shelf) = world.shelf(node) {
                    shelf.lock().set_forgetful(forgets);
                }
                self.troubled(node, "forgets", forgets, now);
            }
            Act::Map(version, owners) => self.order(world, version, &owners, restarts),
            Act::Falls(node, conduct) => {
                let rng = world.rng(node, "", "conduct");
                self.conducts.set(node, conduct, rng);
                match conduct {
                    Conduct::Keeps(back) => world.net().slow_down(node, back),
                    Conduct::Selfish => world.ledger().set_selfish(node, true),
                    Conduct::Floods(a_second) => {
                        if let Err(error) = flood(world, node, a_second, &self.conducts) {
                            world
                                .ledger()
                                .stop(format!("a flood has no network: {error}"));
                        }
                    }
                    Conduct::Loses(_) | Conduct::Repeats(_) | Conduct::Alters(_) => {}
                }
            }
            Act::Repents(node) => match self.conducts.clear(node) {
                Some(Conduct::Keeps(_)) => world.net().slow_down(node, Duration::ZERO),
                Some(Conduct::Selfish) => world.ledger().set_selfish(node, false),
                Some(_) | None => {}
            },
        }
    }

    fn order(
        &mut self,
        world: &mut World,
        version: u64,
        owners: &[NodeNo],
        restarts: &mut dyn Restarts,
    ) {
        let up = owners
            .iter()
            .find(|node| world.state(**node) == NodeState::Up);
        let (Some(node), Ok(network)) = (up, world.network()) else {
            let later = world.now() + LOOK;
            return self.add(later, Act::Map(version, owners.to_vec()));
        };
        let ids: Vec<NodeId> = owners.iter().map(|node| world.id(*node)).collect();
        let shards = (0..usize::from(network.shards())).map(|shard| ids[shard % ids.len()]);
        let map = ShardMap::new(version, shards.collect());
        let signed = map
            .ok()
            .and_then(|map| world.signed(version, Order::ShardMap(map)));
        if let (Some(directive), Some(started)) = (signed, world.started(*node)) {
            let env = world.env(*node);
            world.spawn(*node, async move {
                let submit = || SubmitDirective {
                    directive: directive.clone(),
                };
                let Some(env) = env else { return };
                while !matches!(
                    started.directives.ask(submit(), ORDERED_WITHIN).await,
                    Ok(Ok(_))
                ) {
                    env.sleep(LOOK).await;
                }
            });
        }
        restarts.ordered(world, owners);
    }

    fn is_down(&mut self, node: NodeNo) {
        if self.down.insert(node, ()).is_none() {
            self.weather.begins(node);
        }
    }

    fn start(&mut self, world: &mut World, node: NodeNo, restarts: &mut dyn Restarts) {
        match world.start(node) {
            Ok(()) => {
                if self.down.remove(&node).is_some() {
                    self.weather.ends(node, world.now());
                }
                restarts.started(world, node);
            }
            // It closes its links still.
            Err(WorldError::Running(_)) if world.state(node) == NodeState::Stopping => {
                let later = world.now() + LOOK;
                self.add(later, Act::Start(node));
            }
            Err(_) => {}
        }
    }

    /// Links of a node are as they were made, times everything that makes one of their ends' worse now, whichever began first.
    fn reweigh(&mut self, world: &World, node: NodeNo) {
        let worse = self.begun.values().filter_map(|undo| match undo {
            Undo::Links(worse) => Some(*worse),
            Undo::Cut(..) => None,
        });
        let worse: Vec<Worse> = worse.collect();
        for other in world.nodes().filter(|other| *other != node) {
            for (from, to) in [(node, other), (other, node)] {
                let made = self.made.entry((from, to));
                let made = *made.or_insert_with(|| world.net().link(from, to));
                let mut link = made;
                let here = worse.iter().filter(|w| w.node == from || w.node == to);
                let mut any = false;
                for Worse { times, loss, .. } in here {
                    any = true;
                    link.latency = times_as_long(link.latency, *times);
                    link.jitter = times_as_long(link.jitter, *times);
                    link.loss = (link.loss + loss).min(1.0);
                }
                world.net().set_link(from, to, Some(link));
                if !any {
                    self.made.remove(&(from, to));
                }
            }
        }
    }

    fn troubled(&mut self, node: NodeNo, how: &'static str, on: bool, now: SimTime) {
        let known = self.slowed.contains_key(&(node, how));
        if on && !known {
            self.slowed.insert((node, how), ());
            self.weather.begins(node);
        } else if !on && known {
            self.slowed.remove(&(node, how));
            self.weather.ends(node, now);
        }
    }
}

fn times_as_long(time: Duration, times: f64) -> Duration {
    let nanos = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "latencies are far below 2^53 ns, and factors are not negative"
    )]
    Duration::from_nanos((nanos as f64 * times.max(0.0)) as u64)
}

/// Nodes with a path that a cut closes. A one-way cut hits its smaller side: what the others miss is its.
fn crossed(cut: &Cut, all: &[NodeNo]) -> Vec<NodeNo> {
    match cut {
        Cut::OneWay { from, to } if from.len() <= to.len() => from.clone(),
        Cut::OneWay { to, .. } => to.clone(),
        Cut::Groups(groups) => {
            // All but the largest group.
            let largest = groups.iter().map(Vec::len).max().unwrap_or(0);
            let mut spared = false;
            let mut hit = Vec::new();
            for group in groups {
                if group.len() == largest && !spared {
                    spared = true;
                    continue;
                }
                hit.extend(group.iter().filter(|node| all.contains(node)));
            }
            hit
        }
    }
}
