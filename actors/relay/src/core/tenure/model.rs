//! A network whose relayers hear of maps when they do, whose answers get lost and whose processes die, while what is stored
//! moves with the shards. Every other one has its log on a broker, which comes and goes.

use super::tests::{first, map, node};
use super::*;
use crate::core::channel::{About, channel_id};
use crate::core::moving::{Copied, Copying, Next, Piece, digest, shard_digest};
use pqcnet_log::{Base, ChannelId};
use pqcnet_messages::moving::{ChannelFacts, Mark, Run, ShardEntries, ShardSurvey, Stretch};
use pqcnet_messages::{Channel, ChannelName};
use proptest::prelude::*;

const NODES: u8 = 4;
const SHARDS: u16 = 3;
const CHANNELS: u8 = 3;
/// Channels in a page, and records in an answer: so few that every copy takes many steps.
const PAGE: usize = 2;
const ANSWER: usize = 3;

/// One channel on one disk.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Kept {
    entries: Vec<Bytes>,
    copied: Copied,
}

type Disk = BTreeMap<(ShardId, ChannelId), Kept>;

/// A relayer: its tenure and log are on its disk, all else dies with it.
struct Relayer {
    tenure: Tenure,
    disk: Disk,
    /// Shards whose streams are to be deleted, and nothing was yet; as on the disk. Only of logs on a broker.
    doomed: BTreeSet<ShardId>,
    /// A copy that it makes, and from whom.
    copying: BTreeMap<ShardId, (Copying, NodeId)>,
}

fn channel(which: u8) -> Channel {
    Channel {
        owner: node(100),
        name: ChannelName::new(&format!("c{which}")).unwrap(),
    }
}

fn of_shard(disk: &Disk, shard: ShardId) -> impl Iterator<Item = (ChannelId, &Kept)> {
    let all = (shard, ChannelId([0; 32]))..=(shard, ChannelId([0xff; 32]));
    disk.range(all).map(|((_, id), kept)| (*id, kept))
}

impl Relayer {
    fn new(me: u8) -> Relayer {
        Relayer {
            tenure: Tenure::new(node(me), first(), []).unwrap(),
            disk: Disk::new(),
            doomed: BTreeSet::new(),
            copying: BTreeMap::new(),
        }
    }

    fn on_broker(&self) -> bool {
        self.me().as_bytes()[0].is_multiple_of(2)
    }

    /// Removes everything of a shard, as the log does: at once, or on a broker when that is there.
    fn discard(&mut self, shard: ShardId, broker: bool) {
        if self.on_broker() {
            self.doomed.insert(shard);
            self.clear(shard, broker);
        } else {
            self.disk.retain(|(of, _), _| *of != shard);
        }
    }

    /// Goes on with that. Whether the shard may be opened.
    fn clear(&mut self, shard: ShardId, broker: bool) -> bool {
        if broker && self.doomed.remove(&shard) {
            self.disk.retain(|(of, _), _| *of != shard);
        }
        !self.doomed.contains(&shard)
    }

    fn me(&self) -> NodeId {
        self.tenure.me
    }

    fn has(&self, shard: ShardId) -> bool {
        self.tenure.place(shard, 0) == Place::Here
    }

    fn kill(&mut self) {
        let force = self.tenure.force.clone();
        let kept = self.tenure.to_keep();
        self.tenure = Tenure::new(self.tenure.me, self.tenure.first.clone(), kept).unwrap();
        self.tenure.enforce(force);
        self.copying.clear();
    }

    /// A producer whose epoch the channel has or not stores its next record.
    fn store(&mut self, shard: ShardId, which: u8, payload: u64) {
        let id = channel_id(&channel(which));
        let kept = self.disk.entry((shard, id)).or_default();
        let text = [0u64.to_be_bytes(), payload.to_be_bytes()].concat();
        kept.entries.push(text.into());
        let head = kept.entries.len() as u64;
        let about = About {
            channel: channel(which),
            readers: Vec::new(),
            groups: Vec::new(),
        };
        let epoch = u64::from(self.tenure.moves(shard)) + 1;
        let copied = &mut kept.copied;
        copied.about = Some(about);
        copied.base.head = head;
        match copied.marks.iter_mut().find(|mark| mark.epoch == epoch) {
            Some(mark) => (mark.sequence, mark.offset) = (mark.sequence + 1, head),
            None => {
                let sequence = 1;
                copied.marks.push(Mark {
                    epoch,
                    sequence,
                    offset: head,
                });
            }
        }
        // An epoch that is two moves old is dropped.
        copied.marks.retain(|mark| mark.epoch + 2 > epoch);
        copied.base.forgotten_epoch = epoch.saturating_sub(2);
    }

    fn facts(&self, shard: ShardId) -> impl Iterator<Item = (ChannelId, ChannelFacts)> + '_ {
        of_shard(&self.disk, shard).map(|(id, kept)| (id, kept.copied.facts().unwrap()))
    }

    fn digest(&self, shard: ShardId) -> [u8; 32] {
        let facts: Vec<_> = self.facts(shard).collect();
        shard_digest(facts.iter().map(|(id, facts)| (id, facts.clone())))
    }

    fn survey(&self, shard: ShardId, after: Option<[u8; 32]>) -> ShardSurvey {
        let above = self
            .facts(shard)
            .filter(|(id, _)| after.is_none_or(|after| id.0 > after));
        let mut channels: Vec<_> = above.map(|(_, facts)| facts).collect();
        let more = channels.len() > PAGE;
        channels.truncate(PAGE);
        ShardSurvey {
            generation: 1,
            channels,
            more,
        }
    }

    fn read(&self, shard: ShardId, stretches: &[Stretch]) -> ShardEntries {
        let mut room = ANSWER;
        let mut runs = Vec::new();
        for stretch in stretches {
            let kept = &self.disk[&(shard, ChannelId(stretch.channel))];
            let (after, up_to) = (stretch.after as usize, stretch.up_to as usize);
            let taken = (up_to - after).min(room);
            room -= taken;
            runs.push(Run {
                first: stretch.after + 1,
                texts: kept.entries[after..after + taken].to_vec(),
            });
            if room == 0 {
                break;
            }
        }
        let digest = digest(stretches, &runs);
        ShardEntries { runs, digest }
    }

    /// One synced append.
    fn append(&mut self, shard: ShardId, pieces: &[Piece]) {
        for piece in pieces {
            let kept = self.disk.entry((shard, piece.channel)).or_default();
            assert_eq!(
                piece.base.head,
                kept.entries.len() as u64,
                "offsets are contiguous"
            );
            assert!(!piece.skips, "nothing was trimmed");
            kept.entries.extend(piece.texts.iter().cloned());
            let copied = &mut kept.copied;
            copied.base.head = kept.entries.len() as u64;
            copied.about = piece.about.clone().or(copied.about.take());
            if let Some(settled) = &piece.settles {
                copied
                    .marks
                    .retain(|mark| !piece.drops.contains(&mark.epoch));
                for mark in &settled.marks {
                    copied.marks.retain(|known| known.epoch != mark.epoch);
                    copied.marks.push(*mark);
                }
                copied.marks.sort_by_key(|mark| mark.epoch);
                assert_eq!(settled.base.head, copied.base.head);
                copied.base = Base {
                    bytes: 0,
                    newest_ms: 0,
                    ..settled.base
                };
                assert_eq!(copied.marks, settled.marks);
            } else {
                copied.base.bytes = 0;
            }
        }
    }
}

/// One step of it.
#[derive(Clone, Debug)]
enum Step {
    /// The root signs another map.
    Sign([u8; 3]),
    /// A node hears of the map that was signed as the so-manyth.
    Hear(u8, usize),
    /// A node asks for what it wants; the answer to it is lost if so.
    Ask(u8, bool),
    /// A node takes so many steps of the copies that it makes.
    Copy(u8, u8),
    /// A node that let nothing more be stored waited long enough.
    Unfence(u8),
    /// A node asks whether what it gave away is on the other's disk; the answer is lost if so.
    Sweep(u8, bool),
    /// The broker is there from now on, or not.
    Broker(bool),
    /// A node is killed between two synced writes and starts again.
    Kill(u8),
    /// Records are stored in a channel of a shard, wherever it is.
    Store(u16, u8, u8),
}

fn step() -> impl Strategy<Value = Step> {
    let who = 0..NODES;
    prop_oneof![
        1 => [who.clone(), who.clone(), who.clone()].prop_map(Step::Sign),
        3 => (who.clone(), any::<usize>()).prop_map(|(who, which)| Step::Hear(who, which)),
        3 => (who.clone(), any::<bool>()).prop_map(|(who, lost)| Step::Ask(who, lost)),
        4 => (who.clone(), 1..40u8).prop_map(|(who, steps)| Step::Copy(who, steps)),
        1 => who.clone().prop_map(Step::Unfence),
        1 => (who.clone(), any::<bool>()).prop_map(|(who, lost)| Step::Sweep(who, lost)),
        1 => any::<bool>().prop_map(Step::Broker),
        1 => who.prop_map(Step::Kill),
        3 => (0..SHARDS, 0..CHANNELS, 1..6u8).prop_map(|(shard, which, count)| Step::Store(shard, which, count)),
    ]
}

fn find(nodes: &[Relayer], node: NodeId) -> Option<usize> {
    nodes.iter().position(|relayer| relayer.me() == node)
}

/// Asks for a shard, as the actor does; the digest is that of a copy that is whole.
fn release(
    nodes: &mut [Relayer],
    who: usize,
    whom: usize,
    shard: ShardId,
    copied: Option<[u8; 32]>,
    (lost, broker): (bool, bool),
) {
    let (me, version) = (nodes[who].me(), nodes[who].tenure.map().version());
    let from = &mut nodes[whom];
    let answer = match from.tenure.asked(shard, me, version) {
        Asked::Done { moves } => Ok(moves),
        Asked::Begin if of_shard(&from.disk, shard).next().is_none() => {
            Ok(from.tenure.give(shard, me))
        }
        Asked::Begin if copied == Some(from.digest(shard)) => Ok(from.tenure.give(shard, me)),
        Asked::Begin => {
            if copied.is_some() {
                from.tenure.stay(shard);
            }
            Err(Refusal::HoldsRecords)
        }
        Asked::Refuse(refusal) => Err(refusal),
    };
    let owner = from.me();
    let to = &mut nodes[who];
    match answer {
        _ if lost => {}
        Ok(moves) => {
            to.copying.remove(&shard);
            to.tenure.take(shard, moves);
        }
        // A log that can not be opened takes no copy.
        Err(Refusal::HoldsRecords) if !to.clear(shard, broker) => {}
        Err(Refusal::HoldsRecords) => {
            let own = of_shard(&to.disk, shard).map(|(id, kept)| (id, kept.copied.clone()));
            let copy = Copying::new(own.collect(), 2);
            to.copying.insert(shard, (copy, owner));
        }
        Err(Refusal::NotOwner(redirect)) => to
            .tenure
            .told(shard, redirect.map(|redirect| redirect.owner)),
        Err(_) => to.tenure.refused(shard),
    }
}

/// One node asks for all that it wants and does not copy yet.
fn ask(nodes: &mut [Relayer], who: usize, (lost, broker): (bool, bool)) {
    for (shard, whom) in nodes[who].tenure.wanted(0) {
        if let Some(whom) = find(nodes, whom)
            && !nodes[who].copying.contains_key(&shard)
        {
            release(nodes, who, whom, shard, None, (lost, broker));
        }
    }
}

/// One step of each copy that a node makes. A copy that the owner refuses or can not be gone on with ends.
fn copy(nodes: &mut [Relayer], who: usize) {
    let shards: Vec<ShardId> = nodes[who].copying.keys().copied().collect();
    for shard in shards {
        let (mut copy, owner) = nodes[who].copying.remove(&shard).unwrap();
        let (me, version) = (nodes[who].me(), nodes[who].tenure.map().version());
        let whom = find(nodes, owner).unwrap();
        if nodes[whom].tenure.asked(shard, me, version) != Asked::Begin {
            continue;
        }
        match copy.turn() {
            Next::Survey(after) => copy.surveyed(nodes[whom].survey(shard, after)).unwrap(),
            Next::Read(stretches) => {
                let pieces = copy.entries(nodes[whom].read(shard, &stretches)).unwrap();
                nodes[who].append(shard, &pieces);
                copy.stored(pieces);
            }
            Next::Store(pieces) => {
                nodes[who].append(shard, &pieces);
                copy.stored(pieces);
            }
            Next::Fence => {
                nodes[whom].tenure.leave(shard, me);
                copy.fenced();
            }
            Next::Done => {
                let copied = nodes[who].digest(shard);
                release(nodes, who, whom, shard, Some(copied), (false, true));
                continue;
            }
        }
        nodes[who].copying.insert(shard, (copy, owner));
    }
}

/// A former owner discards what the present one has.
fn sweep(nodes: &mut [Relayer], who: usize, (lost, broker): (bool, bool)) {
    let given: Vec<_> = nodes[who].tenure.given().collect();
    for (shard, to, moves) in given {
        let Some(to) = find(nodes, to) else { continue };
        if nodes[to].tenure.has_had(shard, moves)
            && !lost
            && !nodes[who].copying.contains_key(&shard)
        {
            nodes[who].discard(shard, broker);
        }
    }
}

proptest! {
    /// Whatever maps are signed and heard in whatever order, whatever answers are lost and processes killed, at any step of a copy: no
    /// shard is ever at two places; wherever one is, there is all that was ever stored in it, in its order, once, with its producers'
    /// marks; and once all know the last map and answers arrive, every shard is where it is to be, and nowhere else is any of it.
    #[test]
    fn never_two_owners(steps in proptest::collection::vec(step(), 0..90)) {
        let mut nodes: Vec<Relayer> = (0..NODES).map(Relayer::new).collect();
        let mut signed = vec![map(1, [0, 1, 2])];
        let mut truth = Disk::new();
        let (mut stored, mut broker) = (0, true);
        let mut moved: BTreeMap<ShardId, u8> = BTreeMap::new();
        for step in steps {
            match step {
                Step::Sign(owners) => signed.push(map(signed.len() as u64 + 1, owners)),
                Step::Hear(who, which) => {
                    let heard = signed[which % signed.len()].clone();
                    let tenure = &mut nodes[usize::from(who)].tenure;
                    // Directives are ranked: none is followed by an older one.
                    if heard.map.version() > tenure.map().version() {
                        tenure.enforce(heard);
                    }
                }
                Step::Ask(who, lost) => ask(&mut nodes, who.into(), (lost, broker)),
                Step::Copy(who, steps) => (0..steps).for_each(|_| copy(&mut nodes, who.into())),
                Step::Unfence(who) => {
                    let tenure = &mut nodes[usize::from(who)].tenure;
                    (0..SHARDS).for_each(|shard| tenure.stay(ShardId(shard)));
                }
                Step::Sweep(who, lost) => sweep(&mut nodes, who.into(), (lost, broker)),
                Step::Broker(there) => broker = there,
                Step::Kill(who) => nodes[usize::from(who)].kill(),
                Step::Store(shard, which, count) => {
                    let shard = ShardId(shard);
                    if let Some(owner) = nodes.iter_mut().find(|relayer| relayer.has(shard)) {
                        for _ in 0..count {
                            stored += 1;
                            owner.store(shard, which, stored);
                        }
                        truth.retain(|(of, _), _| *of != shard);
                        let all = of_shard(&owner.disk, shard);
                        truth.extend(all.map(|(id, kept)| ((shard, id), kept.clone())));
                    }
                }
            }
            for shard in (0..SHARDS).map(ShardId) {
                let mut having = nodes.iter().filter(|relayer| relayer.has(shard));
                let (one, another) = (having.next(), having.next());
                prop_assert!(another.is_none(), "{shard} is at two places");
                if let Some(owner) = one {
                    prop_assert!(!owner.doomed.contains(&shard), "{shard} is to be deleted where it is");
                    prop_assert!(of_shard(&owner.disk, shard).eq(of_shard(&truth, shard)), "{shard} is not whole");
                    let moves = owner.tenure.moves(shard);
                    let before = moved.insert(shard, moves).unwrap_or(0);
                    prop_assert!(moves >= before);
                }
            }
        }
        let last = signed.last().unwrap().clone();
        for relayer in &mut nodes {
            relayer.tenure.enforce(last.clone());
            // Copies of before are refused or go on; who waits for one that never comes is done with waiting.
            relayer.copying.clear();
            (0..SHARDS).for_each(|shard| relayer.tenure.stay(ShardId(shard)));
        }
        for _ in 0..4 * usize::from(NODES) {
            for who in 0..nodes.len() {
                ask(&mut nodes, who, (false, true));
                (0..400).for_each(|_| copy(&mut nodes, who));
            }
        }
        for shard in (0..SHARDS).map(ShardId) {
            let owner = last.map.owner_of(shard).unwrap();
            let having: Vec<NodeId> = nodes.iter().filter(|relayer| relayer.has(shard)).map(Relayer::me).collect();
            prop_assert_eq!(having, [owner]);
            let owner = find(&nodes, owner).unwrap();
            prop_assert!(of_shard(&nodes[owner].disk, shard).eq(of_shard(&truth, shard)));
        }
        for who in 0..nodes.len() {
            sweep(&mut nodes, who, (false, true));
        }
        // What a copy of another time left behind at somebody who never got the shard is nobody's, and of no harm.
        for relayer in &nodes {
            for (shard, _, _) in relayer.tenure.given() {
                prop_assert_eq!(of_shard(&relayer.disk, shard).count(), 0);
            }
        }
    }
}
