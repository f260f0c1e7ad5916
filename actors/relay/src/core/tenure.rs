//! Which shards this relayer has. The root's map says whose a shard is to be; who *has* it is told by tenure, which passes from
//! hand to hand and is nobody's twice: that is what keeps two owners from ever writing the same shard.
//!
//! ```text
//!   at first: whoever the network file's map names
//!        has it ──asked by whom a newer map names──▶ leaving ──rested, nothing left that the asker has not, on the disk──▶ given
//!   given to this one, on the disk ──▶ has it ──told to the former owner──▶ that one discards its copy
//! ```
//!
//! A relayer that has not heard of a map goes on; one that has heard and is not asked goes on; one that was asked stores
//! nothing more before it answers, and what it answers is on its disk. Whoever is named and has not been given the shard stores nothing,
//! whatever the map says. A shard with records is given only to whoever shows that it has copied them ([`moving`](super::moving)), and
//! stays on the giver's disk until the taker's says that it has it. A map whose lease is over entitles nobody to store: then all that
//! have shards wait for the next one.

mod kept;

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use pqcnet_crypto::NodeId;
use pqcnet_messages::{Redirect, Refusal, ShardId, ShardMap};

use self::kept::{read, write};

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
    /// It may be copied; let it rest, then [`Tenure::give`].
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
    /// And to whom.
    leaving: BTreeMap<ShardId, NodeId>,
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
            leaving: BTreeMap::new(),
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
        self.holds(shard) && !self.leaving.contains_key(&shard)
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
        match (self.leaving.contains_key(&shard), self.lapsed(wall_ms)) {
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
        match self.leaving.get(&shard) {
            Some(to) if *to != asker => Asked::Refuse(Refusal::Busy),
            Some(_) | None => Asked::Begin,
        }
    }

    /// From here on nothing more is stored in a shard, unless it is to [`stay`](Self::stay) after all.
    pub fn leave(&mut self, shard: ShardId, to: NodeId) {
        self.leaving.insert(shard, to);
    }

    /// Shards that were given away, to whom, and how often they had moved then.
    pub fn given(&self) -> impl Iterator<Item = (ShardId, NodeId, u8)> + '_ {
        self.entries
            .iter()
            .filter_map(|(shard, entry)| match entry {
                Entry::Given { to, moves, .. } => Some((*shard, *to, *moves)),
                Entry::Held { .. } => None,
            })
    }

    /// Whether a shard was here after it had moved so often: then a former owner's copy is of no use any more.
    pub fn has_had(&self, shard: ShardId, moves: u8) -> bool {
        match self.entries.get(&shard) {
            Some(Entry::Held { moves: now, .. }) => *now >= moves,
            Some(Entry::Given { moves: now, .. }) => *now > moves,
            None => false,
        }
    }

    /// It stays after all.
    pub fn stay(&mut self, shard: ShardId) {
        self.leaving.remove(&shard);
    }

    /// It rests, without records that the other has not, and is somebody else's. Good only once it is on the disk.
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

#[cfg(test)]
mod model;
#[cfg(test)]
mod tests;
