//! Faults by dice: every kind, anywhere, overlapping. Each begins and ends within its window, so that what comes after it is
//! fair weather.

use std::time::Duration;

use pqcnet_actor::StreamRng;
use pqcnet_link::Role;
use rand_core::Rng;

use super::{Act, Script};
use crate::net::Cut;
use crate::world::{CrashKind, NodeNo, SimTime, World};

/// Actors that may be told to panic: by role, the beginning of a path. Those that hold what is acknowledged come first.
const FRAGILE: [(Role, &str); 6] = [
    (Role::Relayer, "relayer/shards/"),
    (Role::Relayer, "relayer/intakes/"),
    (Role::Relayer, "relayer/steward"),
    (Role::Sentry, "sentry/uplinks/"),
    (Role::Sentry, "sentry/sessions/"),
    (Role::Sentry, "sentry/gate"),
];

/// How faults are drawn.
#[derive(Clone, Debug)]
pub struct Dice {
    /// When they may begin, and when all are over.
    pub window: (SimTime, SimTime),
    /// How many.
    pub faults: usize,
    /// No fault lasts longer.
    pub longest: Duration,
}

/// One draw.
struct Draw<'a> {
    rng: &'a mut StreamRng,
    members: Vec<NodeNo>,
    relayers: Vec<NodeNo>,
    all: Vec<NodeNo>,
}

impl Script {
    /// Adds faults of every kind, by these dice.
    pub fn draw(&mut self, world: &World, dice: &Dice, rng: &mut StreamRng) {
        let of = |role: Role| -> Vec<NodeNo> {
            let nodes = world.nodes();
            nodes.filter(|n| world.spec(*n).role == role).collect()
        };
        let relayers = of(Role::Relayer);
        let mut members = relayers.clone();
        members.extend(of(Role::Sentry));
        let mut draw = Draw {
            rng,
            members,
            relayers,
            all: world.nodes().collect(),
        };
        let (first, last) = dice.window;
        let longest = dice.longest.min(last.saturating_sub(first));
        for _ in 0..dice.faults {
            let lasts = draw.time(Duration::from_millis(50), longest);
            let room = last.saturating_sub(first).saturating_sub(lasts);
            let from = first + draw.time(Duration::ZERO, room);
            self.draw_one(world, &mut draw, from, from + lasts);
        }
    }

    fn draw_one(&mut self, world: &World, draw: &mut Draw<'_>, from: SimTime, until: SimTime) {
        let member = draw.one_of(|d| &d.members);
        let relayer = draw.one_of(|d| &d.relayers);
        let anyone = draw.one_of(|d| &d.all);
        match draw.below(15) {
            0 | 1 => {
                self.add(from, Act::Crash(relayer, CrashKind::Machine));
                self.add(until, Act::Start(relayer));
            }
            2 => {
                self.add(from, Act::Crash(anyone, CrashKind::Process));
                self.add(until, Act::Start(anyone));
            }
            3 => {
                self.add(from, Act::Stop(member));
                self.add(until, Act::Start(member));
            }
            4 => {
                let (group, rest) = draw.split();
                let number = self.pair();
                self.add(from, Act::Cut(number, Cut::Groups(vec![group, rest])));
                self.add(until, Act::Heal(number));
            }
            5 => {
                let rest = world.nodes().filter(|node| *node != member).collect();
                let cut = match draw.below(2) {
                    0 => Cut::OneWay {
                        from: vec![member],
                        to: rest,
                    },
                    _ => Cut::OneWay {
                        from: rest,
                        to: vec![member],
                    },
                };
                let number = self.pair();
                self.add(from, Act::Cut(number, cut));
                self.add(until, Act::Heal(number));
            }
            6 | 7 => {
                let number = self.pair();
                let times = [2.0, 5.0, 20.0][draw.below(3)];
                let loss = [0.0, 0.02, 0.2][draw.below(3)];
                let act = Act::Worsen {
                    number,
                    node: member,
                    times,
                    loss,
                };
                self.add(from, act);
                self.add(until, Act::Mend(number));
            }
            8 => {
                let times = [5.0, 20.0, 100.0][draw.below(3)];
                self.add(from, Act::Slow(member, times));
                self.add(until, Act::Fast(member));
            }
            9 => {
                // Grants hold for hours, and say when they were issued: a minute either way is within what is allowed.
                let by = [-60_000, -1_000, 1_000, 60_000][draw.below(4)];
                self.add(from, Act::Clock(anyone, by, 500));
                self.add(until, Act::Clock(anyone, -by, 0));
            }
            10 | 11 => {
                let (role, actor) = FRAGILE[draw.below(FRAGILE.len())];
                let of_role = |n: &&NodeNo| world.spec(**n).role == role;
                let nodes: Vec<NodeNo> = draw.all.iter().filter(of_role).copied().collect();
                let Some(node) = nodes.get(draw.below(nodes.len())).copied() else {
                    return;
                };
                let after = u32::try_from(draw.below(20)).unwrap_or(0);
                let act = Act::Panic(node, actor.to_owned(), None, after);
                self.add(from, act);
            }
            12 => {
                self.add(from, Act::DiskFull(relayer, true));
                self.add(until, Act::DiskFull(relayer, false));
            }
            13 => {
                let times = [10, 100, 1_000][draw.below(3)];
                self.add(from, Act::DiskSlow(relayer, times));
                self.add(until, Act::DiskSlow(relayer, 1));
            }
            _ => {
                self.add(from, Act::DiskFails(relayer, 1));
                self.add(from, Act::DiskStalled(relayer, true));
                self.add(until, Act::DiskStalled(relayer, false));
            }
        }
    }
}

impl Draw<'_> {
    fn below(&mut self, bound: usize) -> usize {
        let bound = u64::try_from(bound).unwrap_or(1).max(1);
        usize::try_from(self.rng.next_u64() % bound).unwrap_or(0)
    }

    fn one_of(&mut self, of: fn(&Self) -> &Vec<NodeNo>) -> NodeNo {
        let index = self.below(of(self).len());
        of(self).get(index).copied().unwrap_or_default()
    }

    fn time(&mut self, least: Duration, most: Duration) -> Duration {
        let span = most.saturating_sub(least).as_millis();
        let span = u64::try_from(span).unwrap_or(u64::MAX).saturating_add(1);
        least + Duration::from_millis(self.rng.next_u64() % span)
    }

    /// Everybody, in two groups.
    fn split(&mut self) -> (Vec<NodeNo>, Vec<NodeNo>) {
        let mut groups = (Vec::new(), Vec::new());
        for node in self.all.clone() {
            match self.below(3) {
                0 => groups.0.push(node),
                _ => groups.1.push(node),
            }
        }
        groups
    }
}
