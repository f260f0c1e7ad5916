//! Which shards this relayer has. The root's map says whose a shard is to be; who *has* it is told by tenure, which passes from
//! hand to hand and is nobody's twice: that is what keeps two owners from ever writing the same shard.
//!
//! ```text
//!   at first: whoever the network file's map names
//!        has it ──asked by whom a newer map names──▶ leaving ──rested, without records, on the disk──▶ given
//!   given to this one, on the disk ──▶ has it
//! ```
//!
//! A relayer that has not heard of a map goes on; one that has heard and is not asked goes on; one that was asked stores
//! nothing more before it answers, and what it answers is on its disk. Whoever is named and has not been given the shard stores nothing,
//! whatever the map says. A shard with records is not given away: records do not move yet. A map whose lease is over entitles
//! nobody to store: then all that have shards wait for the next one.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use pqcnet_crypto::NodeId;
use pqcnet_messages::{Redirect, Refusal, ShardId, ShardMap};

/// Moves of a shard that producers' epochs can be numbered by.
pub const MAX_MOVES: u8 = u8::MAX;

/// The map that holds now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MapInForce {
    /// Who is to have what.
    pub map: ShardMap,
    /// The end of its lease by the wall clock, where it has one.
    pub until_ms: Option<u64>,
}

/// What is on the disk of one shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entry {
    /// It was given to this relayer.
    Held {
        /// Under this map.
        version: u64,
        /// Its number of moves.
        moves: u8,
    },
    /// It was given away.
    Given {
        /// To whom.
        to: NodeId,
        /// Under this map.
        version: u64,
        /// Its number of moves, that one included.
        moves: u8,
    },
}

/// Where a shard is, for whoever asks here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// Here, and it may be written.
    Here,
    /// Here, on its way to somebody else.
    Leaving,
    /// Here, but the map's lease is over.
    Lapsed,
    /// There, as far as is known.
    Elsewhere(Redirect),
}

/// What is to be done about a request to release a shard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Asked {
    /// The asker has it already: its answer was lost.
    Done {
        /// Moves.
        moves: u8,
    },
    /// Let it rest, then [`Tenure::give`].
    Begin,
    /// No.
    Refuse(Refusal),
}

/// The tenure of one relayer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tenure {
    me: NodeId,
    first: ShardMap,
    force: MapInForce,
    /// What differs from the first map; as on the disk.
    entries: BTreeMap<ShardId, Entry>,
    leaving: BTreeSet<ShardId>,
    /// Whom others named as having what this one is to have.
    told: BTreeMap<ShardId, NodeId>,
    /// What others are to have and ask this one for: it may have been given here by an answer that was lost.
    chased: BTreeSet<ShardId>,
}

impl Tenure {
    /// As the network file has it, and what was kept since; an item that is none is an error.
    pub fn new(
        me: NodeId,
        first: ShardMap,
        kept: impl IntoIterator<Item = Bytes>,
    ) -> Result<Tenure, &'static str> {
        let entries = kept.into_iter().map(|item| read(&item));
        let entries: Option<BTreeMap<_, _>> = entries.collect();
        let force = MapInForce {
            map: first.clone(),
            until_ms: None,
        };
        Ok(Tenure {
            me,
            force,
            first,
            entries: entries.ok_or("an entry of a shard that is none")?,
            leaving: BTreeSet::new(),
            told: BTreeMap::new(),
            chased: BTreeSet::new(),
        })
    }

    /// What is to be on the disk.
    pub fn to_keep(&self) -> Vec<Bytes> {
        let entries = self.entries.iter();
        entries.map(|(shard, entry)| write(*shard, entry)).collect()
    }

    /// Another map holds from now on.
    pub fn enforce(&mut self, force: MapInForce) {
        self.force = force;
        self.told.clear();
        self.chased.clear();
    }

    /// The map that holds.
    pub fn map(&self) -> &ShardMap {
        &self.force.map
    }

    fn holds(&self, shard: ShardId) -> bool {
        match self.entries.get(&shard) {
            Some(Entry::Held { .. }) => true,
            Some(Entry::Given { .. }) => false,
            None => self.first.owner_of(shard) == Some(self.me),
        }
    }

    /// The map's version under which this relayer got a shard that it has, and how often that had moved.
    fn since(&self, shard: ShardId) -> (u64, u8) {
        match self.entries.get(&shard) {
            Some(Entry::Held { version, moves } | Entry::Given { version, moves, .. }) => {
                (*version, *moves)
            }
            None => (self.first.version(), 0),
        }
    }

    /// Whether the shard's worker is to work: it is here and not leaving.
    pub fn works(&self, shard: ShardId) -> bool {
        self.holds(shard) && !self.leaving.contains(&shard)
    }

    /// How often a shard had moved when it came here.
    pub fn moves(&self, shard: ShardId) -> u8 {
        self.since(shard).1
    }

    /// Shards that are here, ascending.
    pub fn held(&self) -> impl Iterator<Item = ShardId> + '_ {
        let shards = (0..self.first.shards()).filter_map(|shard| u16::try_from(shard).ok());
        shards.map(ShardId).filter(|shard| self.holds(*shard))
    }

    /// Whether the map's lease is over.
    pub fn lapsed(&self, wall_ms: u64) -> bool {
        self.force.until_ms.is_some_and(|until| wall_ms >= until)
    }

    /// Where a shard is.
    pub fn place(&self, shard: ShardId, wall_ms: u64) -> Place {
        if !self.holds(shard) {
            return Place::Elsewhere(self.redirect(shard));
        }
        match (self.leaving.contains(&shard), self.lapsed(wall_ms)) {
            (true, _) => Place::Leaving,
            (false, true) => Place::Lapsed,
            (false, false) => Place::Here,
        }
    }

    fn redirect(&self, shard: ShardId) -> Redirect {
        Redirect {
            owner: self.elsewhere(shard),
            map_version: self.force.map.version(),
        }
    }

    /// Who has a shard that is not here: whoever this one gave it to, whoever was named, whoever the map names, whoever
    /// had it first.
    fn elsewhere(&self, shard: ShardId) -> NodeId {
        let named = self.force.map.owner_of(shard);
        self.believed(shard, named)
    }

    fn believed(&self, shard: ShardId, named: Option<NodeId>) -> NodeId {
        let given = match self.entries.get(&shard) {
            Some(Entry::Given { to, .. }) => Some(*to),
            Some(Entry::Held { .. }) | None => None,
        };
        let told = self.told.get(&shard).copied();
        let first = self.first.owner_of(shard);
        let mut known = [told, given, named, first].into_iter().flatten();
        known.find(|node| *node != self.me).unwrap_or(self.me)
    }

    /// Shards that the map gives to this relayer and that are not here, and those that somebody thinks are; and whom to ask
    /// for each.
    pub fn wanted(&self, wall_ms: u64) -> Vec<(ShardId, NodeId)> {
        if self.lapsed(wall_ms) {
            return Vec::new();
        }
        let mine = self.force.map.owned_by(self.me);
        mine.chain(self.chased.iter().copied())
            .filter(|shard| !self.holds(*shard))
            .map(|shard| (shard, self.believed(shard, None)))
            .collect()
    }

    /// Shards that are here and that the map gives to others.
    pub fn overdue(&self) -> impl Iterator<Item = (ShardId, NodeId)> + '_ {
        self.held().filter_map(|shard| {
            let owner = self.force.map.owner_of(shard)?;
            (owner != self.me).then_some((shard, owner))
        })
    }

    /// Somebody asks for a shard, under a map of this version.
    pub fn asked(&mut self, shard: ShardId, asker: NodeId, version: u64) -> Asked {
        match self.entries.get(&shard) {
            Some(Entry::Given { to, moves, .. }) if *to == asker => {
                return Asked::Done { moves: *moves };
            }
            _ if !self.holds(shard) => {
                if self.force.map.owner_of(shard) == Some(asker) {
                    self.chased.insert(shard);
                }
                let redirect = self.redirect(shard);
                let known = (redirect.owner != asker).then_some(redirect);
                return Asked::Refuse(Refusal::NotOwner(known));
            }
            _ => {}
        }
        let now = self.force.map.version();
        let (since, moves) = self.since(shard);
        if version > now {
            // Its map has not come here yet.
            return Asked::Refuse(Refusal::Unavailable);
        }
        if self.force.map.owner_of(shard) != Some(asker) || now < since {
            return Asked::Refuse(Refusal::NotAllowed);
        }
        if moves == MAX_MOVES {
            return Asked::Refuse(Refusal::Quota);
        }
        if self.leaving.contains(&shard) {
            return Asked::Refuse(Refusal::Busy);
        }
        Asked::Begin
    }

    /// From here on nothing more is stored in a shard.
    pub fn leave(&mut self, shard: ShardId) {
        self.leaving.insert(shard);
    }

    /// It stays after all.
    pub fn stay(&mut self, shard: ShardId) {
        self.leaving.remove(&shard);
    }

    /// It rests, without records, and is somebody else's. Good only once it is on the disk.
    pub fn give(&mut self, shard: ShardId, to: NodeId) -> u8 {
        let moves = self.moves(shard).saturating_add(1);
        let version = self.force.map.version();
        self.leaving.remove(&shard);
        self.entries
            .insert(shard, Entry::Given { to, version, moves });
        moves
    }

    /// It was released to this relayer. Good only once it is on the disk.
    pub fn take(&mut self, shard: ShardId, moves: u8) {
        let version = self.force.map.version();
        self.told.remove(&shard);
        self.chased.remove(&shard);
        self.entries.insert(shard, Entry::Held { version, moves });
    }

    /// Whoever was asked has it, and does not give it.
    pub fn refused(&mut self, shard: ShardId) {
        self.chased.remove(&shard);
    }

    /// Whoever was asked says who has it. Word that this one has it is of no use: then its first owner is asked anew.
    pub fn told(&mut self, shard: ShardId, owner: Option<NodeId>) {
        match owner {
            Some(owner) if owner != self.me => self.told.insert(shard, owner),
            Some(_) | None => self.told.remove(&shard),
        };
    }
}

/// Shard 2, 1 held or 2 given, moves 1, map version 8, to whom 32 (zeros when held); big-endian.
fn write(shard: ShardId, entry: &Entry) -> Bytes {
    let (state, moves, version, to) = match entry {
        Entry::Held { version, moves } => (1, *moves, *version, [0; 32]),
        Entry::Given { to, version, moves } => (2, *moves, *version, *to.as_bytes()),
    };
    let mut item = Vec::with_capacity(44);
    item.extend_from_slice(&shard.0.to_be_bytes());
    item.extend_from_slice(&[state, moves]);
    item.extend_from_slice(&version.to_be_bytes());
    item.extend_from_slice(&to);
    item.into()
}

fn read(item: &[u8]) -> Option<(ShardId, Entry)> {
    let (shard, rest) = item.split_first_chunk()?;
    let ([state, moves], rest) = rest.split_first_chunk()?;
    let (version, to) = rest.split_first_chunk()?;
    let to: [u8; 32] = to.try_into().ok()?;
    let (version, moves) = (u64::from_be_bytes(*version), *moves);
    let entry = match state {
        1 if to == [0; 32] => Entry::Held { version, moves },
        2 => Entry::Given {
            to: NodeId::from_bytes(to),
            version,
            moves,
        },
        _ => return None,
    };
    Some((ShardId(u16::from_be_bytes(*shard)), entry))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const NODES: u8 = 4;
    const SHARDS: u16 = 3;

    fn node(byte: u8) -> NodeId {
        NodeId::from_bytes([byte; 32])
    }

    fn map(version: u64, owners: [u8; 3]) -> MapInForce {
        MapInForce {
            map: ShardMap::new(version, owners.map(node).to_vec()).unwrap(),
            until_ms: None,
        }
    }

    fn first() -> ShardMap {
        map(1, [0, 1, 2]).map
    }

    fn tenure(me: u8) -> Tenure {
        Tenure::new(node(me), first(), []).unwrap()
    }

    fn restarted(tenure: &Tenure) -> Tenure {
        let mut again = Tenure::new(tenure.me, tenure.first.clone(), tenure.to_keep()).unwrap();
        again.enforce(tenure.force.clone());
        again
    }

    const SHARD: ShardId = ShardId(0);

    fn elsewhere(owner: u8, map_version: u64) -> Place {
        Place::Elsewhere(Redirect {
            owner: node(owner),
            map_version,
        })
    }

    /// Scenario: a shard moves from 0 to 3, whose answer is lost and comes again; then back. Each step holds after a restart.
    /// Whoever asks the wrong one is sent to the right one.
    #[test]
    fn a_shard_moves_and_comes_back() {
        let (mut old, mut new) = (tenure(0), tenure(3));
        assert_eq!(old.place(SHARD, 0), Place::Here);
        assert_eq!(new.place(SHARD, 0), elsewhere(0, 1));
        let second = map(2, [3, 1, 2]);
        new.enforce(second.clone());
        assert_eq!(new.wanted(0), [(SHARD, node(0))]);
        let early = old.asked(SHARD, node(3), 2);
        assert_eq!(early, Asked::Refuse(Refusal::Unavailable));
        old.enforce(second);
        assert_eq!(old.place(SHARD, 0), Place::Here);
        assert_eq!(old.overdue().collect::<Vec<_>>(), [(SHARD, node(3))]);
        assert_eq!(old.asked(SHARD, node(3), 2), Asked::Begin);
        old.leave(SHARD);
        assert_eq!(
            (old.place(SHARD, 0), old.works(SHARD)),
            (Place::Leaving, false)
        );
        assert_eq!(old.asked(SHARD, node(3), 2), Asked::Refuse(Refusal::Busy));
        assert_eq!(old.give(SHARD, node(3)), 1);
        let mut old = restarted(&old);
        assert_eq!(old.place(SHARD, 0), elsewhere(3, 2));
        assert_eq!(old.asked(SHARD, node(3), 2), Asked::Done { moves: 1 });
        assert_eq!(new.place(SHARD, 0), elsewhere(0, 2));
        new.take(SHARD, 1);
        let mut new = restarted(&new);
        assert_eq!((new.place(SHARD, 0), new.moves(SHARD)), (Place::Here, 1));
        assert_eq!(new.held().collect::<Vec<_>>(), [SHARD]);

        let third = map(3, [0, 1, 2]);
        new.enforce(third.clone());
        old.enforce(third);
        assert_eq!(old.wanted(0), [(SHARD, node(3))]);
        assert_eq!(new.asked(SHARD, node(0), 3), Asked::Begin);
        assert_eq!(new.give(SHARD, node(0)), 2);
        old.take(SHARD, 2);
        assert_eq!(
            (old.place(SHARD, 0), new.place(SHARD, 0)),
            (Place::Here, elsewhere(0, 3))
        );
        // What was true two maps ago moves nothing.
        assert_eq!(
            old.asked(SHARD, node(3), 2),
            Asked::Refuse(Refusal::NotAllowed)
        );
    }

    /// Scenario: the map goes back to a lower version than the one a shard came under, names somebody else, or has moved the shard
    /// as often as can be counted: the shard stays. Someone who never had it says who does.
    #[test]
    fn what_moves_nothing() {
        let mut holder = Tenure::new(
            node(3),
            first(),
            [write(
                SHARD,
                &Entry::Held {
                    version: 5,
                    moves: 255,
                },
            )],
        )
        .unwrap();
        holder.enforce(map(4, [1, 1, 2]));
        assert_eq!(
            holder.asked(SHARD, node(1), 4),
            Asked::Refuse(Refusal::NotAllowed)
        );
        holder.enforce(map(6, [1, 1, 2]));
        assert_eq!(
            holder.asked(SHARD, node(2), 6),
            Asked::Refuse(Refusal::NotAllowed)
        );
        assert_eq!(
            holder.asked(SHARD, node(1), 6),
            Asked::Refuse(Refusal::Quota)
        );
        let mut other = tenure(1);
        let redirect = Redirect {
            owner: node(0),
            map_version: 1,
        };
        assert_eq!(
            other.asked(SHARD, node(2), 1),
            Asked::Refuse(Refusal::NotOwner(Some(redirect)))
        );
        assert_eq!(
            other.asked(SHARD, node(0), 1),
            Asked::Refuse(Refusal::NotOwner(None))
        );
        other.enforce(map(6, [1, 1, 2]));
        other.told(SHARD, Some(node(3)));
        assert_eq!(other.wanted(0), [(SHARD, node(3))]);
        other.told(SHARD, Some(node(1)));
        assert_eq!(other.wanted(0), [(SHARD, node(0))]);
        holder.leave(SHARD);
        holder.stay(SHARD);
        assert_eq!(holder.place(SHARD, 0), Place::Here);
    }

    /// Scenario: the lease of the map ends: nobody may store, nobody asks for anything.
    #[test]
    fn a_lease_ends() {
        let mut tenure = tenure(0);
        let leased = MapInForce {
            until_ms: Some(1000),
            ..map(2, [0, 0, 2])
        };
        tenure.enforce(leased);
        assert_eq!(
            (tenure.place(SHARD, 999), tenure.place(SHARD, 1000)),
            (Place::Here, Place::Lapsed)
        );
        assert_eq!(
            (tenure.wanted(999).len(), tenure.wanted(1000).len()),
            (1, 0)
        );
    }

    /// What is kept is pinned, and read back as it was; anything else is refused.
    #[test]
    fn kept() {
        let held = Entry::Held {
            version: 2,
            moves: 1,
        };
        let given = Entry::Given {
            to: node(9),
            version: 3,
            moves: 2,
        };
        let pinned = [&[0, 7, 1, 1, 0, 0, 0, 0, 0, 0, 0, 2][..], &[0; 32]].concat();
        assert_eq!(write(ShardId(7), &held), pinned);
        let pinned = [&[1, 0, 2, 2, 0, 0, 0, 0, 0, 0, 0, 3][..], &[9; 32]].concat();
        assert_eq!(write(ShardId(256), &given), pinned);
        for entry in [held, given] {
            assert_eq!(read(&write(SHARD, &entry)), Some((SHARD, entry)));
        }
        let mut bad = pinned.clone();
        bad[2] = 3;
        for bad in [
            bad,
            pinned[..43].to_vec(),
            [&pinned[..], &[0]].concat(),
            Vec::new(),
        ] {
            assert!(Tenure::new(node(0), first(), [bad.into()]).is_err());
        }
    }

    /// One step of a network whose nodes hear of maps when they do, whose answers get lost and whose processes die.
    #[derive(Clone, Debug)]
    enum Step {
        /// The root signs another map.
        Sign([u8; 3]),
        /// A node hears of the map that was signed as the so-manyth.
        Hear(u8, usize),
        /// A node asks for what it wants; the answer to it is lost if so.
        Ask(u8, bool),
        /// A node is killed between two synced writes and starts again.
        Kill(u8),
        /// Something is stored in a shard, wherever it is.
        Store(u16),
    }

    fn step() -> impl Strategy<Value = Step> {
        let who = 0..NODES;
        prop_oneof![
            [who.clone(), who.clone(), who.clone()].prop_map(Step::Sign),
            (who.clone(), any::<usize>()).prop_map(|(who, which)| Step::Hear(who, which)),
            (who.clone(), any::<bool>()).prop_map(|(who, lost)| Step::Ask(who, lost)),
            (who.clone(), any::<bool>()).prop_map(|(who, lost)| Step::Ask(who, lost)),
            who.prop_map(Step::Kill),
            (0..SHARDS).prop_map(Step::Store),
        ]
    }

    fn have(nodes: &[Tenure], shard: ShardId) -> Vec<NodeId> {
        let having = nodes
            .iter()
            .filter(|tenure| tenure.place(shard, 0) == Place::Here);
        having.map(|tenure| tenure.me).collect()
    }

    /// One node asks for all that it wants, as the actor does.
    fn ask(nodes: &mut [Tenure], who: usize, lost: bool, stored: &BTreeSet<ShardId>) {
        let version = nodes[who].map().version();
        for (shard, whom) in nodes[who].wanted(0) {
            let me = nodes[who].me;
            let Some(asked) = nodes.iter().position(|tenure| tenure.me == whom) else {
                continue;
            };
            let answer = match nodes[asked].asked(shard, me, version) {
                Asked::Done { moves } => Ok(moves),
                Asked::Begin if stored.contains(&shard) => Err(Refusal::HoldsRecords),
                Asked::Begin => {
                    nodes[asked].leave(shard);
                    Ok(nodes[asked].give(shard, me))
                }
                Asked::Refuse(refusal) => Err(refusal),
            };
            match answer {
                _ if lost => {}
                Ok(moves) => nodes[who].take(shard, moves),
                Err(Refusal::NotOwner(redirect)) => {
                    nodes[who].told(shard, redirect.map(|redirect| redirect.owner));
                }
                Err(_) => nodes[who].refused(shard),
            }
        }
    }

    proptest! {
        /// Whatever maps are signed and heard in whatever order, whatever answers are lost and processes killed: no shard is ever
        /// at two places, one with records stays where they are, and once all know the last map and answers arrive, all that is
        /// empty is where it is to be.
        #[test]
        fn never_two_owners(steps in proptest::collection::vec(step(), 0..60)) {
            let mut nodes: Vec<Tenure> = (0..NODES).map(tenure).collect();
            let mut signed = vec![map(1, [0, 1, 2])];
            let mut stored: BTreeSet<ShardId> = BTreeSet::new();
            let mut at: BTreeMap<ShardId, NodeId> = BTreeMap::new();
            let mut moved: BTreeMap<ShardId, u8> = BTreeMap::new();
            for step in steps {
                match step {
                    Step::Sign(owners) => signed.push(map(signed.len() as u64 + 1, owners)),
                    Step::Hear(who, which) => {
                        let heard = signed[which % signed.len()].clone();
                        let node = &mut nodes[usize::from(who)];
                        // Directives are ranked: none is followed by an older one.
                        if heard.map.version() > node.map().version() {
                            node.enforce(heard);
                        }
                    }
                    Step::Ask(who, lost) => ask(&mut nodes, who.into(), lost, &stored),
                    Step::Kill(who) => nodes[usize::from(who)] = restarted(&nodes[usize::from(who)]),
                    Step::Store(shard) => {
                        if let [one] = have(&nodes, ShardId(shard))[..] {
                            stored.insert(ShardId(shard));
                            at.entry(ShardId(shard)).or_insert(one);
                        }
                    }
                }
                for shard in (0..SHARDS).map(ShardId) {
                    let having = have(&nodes, shard);
                    prop_assert!(having.len() <= 1, "{shard} is at {having:?}");
                    if let (Some(then), [now]) = (at.get(&shard), &having[..]) {
                        prop_assert_eq!(then, now);
                    }
                    if let [now] = having[..] {
                        let moves = nodes.iter().find(|tenure| tenure.me == now).unwrap().moves(shard);
                        let before = moved.insert(shard, moves).unwrap_or(0);
                        prop_assert!(moves >= before);
                    }
                }
            }
            let last = signed.last().unwrap().clone();
            for node in &mut nodes {
                node.enforce(last.clone());
            }
            for _ in 0..4 * usize::from(NODES) {
                for who in 0..nodes.len() {
                    ask(&mut nodes, who, false, &stored);
                }
            }
            for shard in (0..SHARDS).map(ShardId) {
                let owner = last.map.owner_of(shard).unwrap();
                let expected = at.get(&shard).copied().unwrap_or(owner);
                prop_assert_eq!(have(&nodes, shard), [expected]);
            }
        }
    }
}
