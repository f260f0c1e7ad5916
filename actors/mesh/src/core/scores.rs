//! How peers behaved, and who is not wanted for a while.
//!
//! Each offence costs points; points come back with time. Who has lost all of them is banned, longer each time. A peer
//! without an offence has no entry.

use std::collections::BTreeMap;
use std::time::Duration;

use pqcnet_crypto::NodeId;

/// Points of a peer that has done nothing wrong.
pub const FULL: u32 = 100;
/// Peers with an entry; more than a network has nodes, so that strangers push nobody out.
pub const MAX_SCORED: usize = 8192;
/// A full table is searched for the forgiven this often: a flood of strangers must not make each of them cost a search.
const SWEEP: Duration = Duration::from_secs(1);

/// What a peer did wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Offence {
    /// Bytes on a link that break its rules.
    BadBytes,
    /// It forwarded gossip that it had to know to be wrong.
    InvalidGossip,
    /// At an address that it advertises, the handshake failed: somebody else answers there, or it does not know its keys.
    FailedHandshake,
}

impl Offence {
    /// What it costs. Four broken links or five wrong messages in a row are no accident; a handshake may fail because
    /// the peer moved, and ten do not.
    fn points(self) -> u32 {
        match self {
            Offence::BadBytes => 25,
            Offence::InvalidGossip => 20,
            Offence::FailedHandshake => 10,
        }
    }

    /// The word in logs.
    pub fn name(self) -> &'static str {
        match self {
            Offence::BadBytes => "bad bytes",
            Offence::InvalidGossip => "invalid gossip",
            Offence::FailedHandshake => "failed handshake",
        }
    }
}

/// How long things take.
#[derive(Clone, Copy, Debug)]
pub struct ScoreConfig {
    /// A point comes back in this time.
    pub point_after: Duration,
    /// The first ban.
    pub ban_min: Duration,
    /// The longest ban; each is twice the one before.
    pub ban_max: Duration,
}

impl Default for ScoreConfig {
    /// All points are back after ten minutes. A minute lets a peer that was restarted with a mended binary back soon; an
    /// hour is as good as for ever to one that floods.
    fn default() -> ScoreConfig {
        ScoreConfig {
            point_after: Duration::from_secs(6),
            ban_min: Duration::from_secs(60),
            ban_max: Duration::from_secs(3600),
        }
    }
}

impl ScoreConfig {
    /// Points that come back in this time.
    fn back(&self, passed: Duration) -> u32 {
        let back = passed.as_micros() / self.point_after.as_micros().max(1);
        u32::try_from(back).unwrap_or(u32::MAX)
    }
}

#[derive(Clone, Copy, Debug)]
struct Score {
    points: u32,
    at: Duration,
    bans: u32,
    banned_until: Duration,
    /// Until then the next ban is longer than the first.
    remembered_until: Duration,
}

/// A peer's score as it outlives the process, in times of the wall clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kept {
    /// Who.
    pub peer: NodeId,
    /// Points left then.
    pub points: u8,
    /// When that was, milliseconds since 1970.
    pub at_ms: u64,
    /// Bans that are remembered.
    pub bans: u32,
    /// When the last of them ends or ended.
    pub banned_until_ms: u64,
}

impl Kept {
    /// Bytes of one: NodeId, points, at, bans, end of the last ban; integers are big-endian.
    pub const LEN: usize = 32 + 1 + 8 + 4 + 8;

    /// As it is written.
    pub fn to_bytes(&self) -> [u8; Kept::LEN] {
        let mut bytes = [0; Kept::LEN];
        bytes[..32].copy_from_slice(self.peer.as_bytes());
        bytes[32] = self.points;
        bytes[33..41].copy_from_slice(&self.at_ms.to_be_bytes());
        bytes[41..45].copy_from_slice(&self.bans.to_be_bytes());
        bytes[45..].copy_from_slice(&self.banned_until_ms.to_be_bytes());
        bytes
    }

    /// As it was written; `None` when it was not.
    pub fn from_bytes(bytes: &[u8]) -> Option<Kept> {
        let (peer, rest) = bytes.split_first_chunk::<32>()?;
        let (points, rest) = rest.split_first()?;
        let (at_ms, rest) = rest.split_first_chunk()?;
        let (bans, rest) = rest.split_first_chunk()?;
        let banned_until_ms = rest.try_into().ok()?;
        Some(Kept {
            peer: NodeId::from_bytes(*peer),
            points: (*points).min(FULL as u8),
            at_ms: u64::from_be_bytes(*at_ms),
            bans: u32::from_be_bytes(*bans),
            banned_until_ms: u64::from_be_bytes(banned_until_ms),
        })
    }
}

/// The scores.
#[derive(Clone, Debug)]
pub struct Scores {
    config: ScoreConfig,
    swept_at: Duration,
    peers: BTreeMap<NodeId, Score>,
}

impl Scores {
    /// Nobody has done anything wrong.
    pub fn new(config: ScoreConfig) -> Scores {
        Scores {
            config,
            swept_at: Duration::ZERO,
            peers: BTreeMap::new(),
        }
    }

    /// A peer did something wrong. Says until when it is banned, if that is what follows.
    pub fn blame(&mut self, peer: NodeId, offence: Offence, now: Duration) -> Option<Duration> {
        if !self.make_room(peer, now) {
            return None;
        }
        let fresh = Score {
            points: FULL,
            at: now,
            bans: 0,
            banned_until: Duration::ZERO,
            remembered_until: Duration::ZERO,
        };
        let config = self.config;
        let score = self.peers.entry(peer).or_insert(fresh);
        score.refill(&config, now);
        if score.banned_until > now {
            // What was on its way when the ban began.
            return None;
        }
        score.points = score.points.saturating_sub(offence.points());
        if score.points > 0 {
            return None;
        }
        let ban = config.ban_min.saturating_mul(1 << score.bans.min(16));
        score.bans = score.bans.saturating_add(1);
        score.points = FULL;
        score.banned_until = now + ban.min(config.ban_max);
        score.remembered_until = score.banned_until + config.ban_max;
        // Points that come back while it is banned forgive nothing.
        score.at = score.banned_until;
        Some(score.banned_until)
    }

    /// What a peer has left of [`FULL`].
    pub fn points(&self, peer: &NodeId, now: Duration) -> u32 {
        self.peers.get(peer).map_or(FULL, |score| {
            let mut score = *score;
            score.refill(&self.config, now);
            if score.banned_until > now {
                0
            } else {
                score.points
            }
        })
    }

    /// Who is banned, and until when.
    pub fn bans(&self, now: Duration) -> BTreeMap<NodeId, Duration> {
        let banned = self.peers.iter();
        banned
            .filter(|(_, score)| score.banned_until > now)
            .map(|(peer, score)| (*peer, score.banned_until))
            .collect()
    }

    /// What is to outlive the process: everybody who is not forgiven.
    pub fn keep(&self, now: Duration, wall_ms: u64) -> impl Iterator<Item = Kept> + '_ {
        let wall = move |at: Duration| {
            let (ahead, behind) = (at.saturating_sub(now), now.saturating_sub(at));
            wall_ms
                .saturating_add(millis(ahead))
                .saturating_sub(millis(behind))
        };
        self.peers.iter().filter_map(move |(peer, score)| {
            let mut score = *score;
            score.refill(&self.config, now);
            let forgiven = score.points == FULL && score.forgiven(now);
            (!forgiven).then(|| Kept {
                peer: *peer,
                points: u8::try_from(score.points).unwrap_or(u8::MAX),
                at_ms: wall(score.at),
                bans: score.bans,
                banned_until_ms: match score.bans {
                    0 => 0,
                    _ => wall(score.banned_until),
                },
            })
        })
    }

    /// Takes over what was kept, less what time has forgiven meanwhile. A clock that was set back lengthens no ban beyond
    /// the longest. What was seen since the start is not made better.
    pub fn recall(&mut self, kept: Kept, now: Duration, wall_ms: u64) {
        let config = self.config;
        let until = |at_ms: u64| Duration::from_millis(at_ms.saturating_sub(wall_ms));
        let banned = until(kept.banned_until_ms).min(config.ban_max);
        let remembered_ms = (kept.banned_until_ms).saturating_add(millis(config.ban_max));
        let remembered = until(remembered_ms).min(banned + config.ban_max);
        let mut score = Score {
            points: FULL,
            at: now + banned,
            bans: if remembered.is_zero() { 0 } else { kept.bans },
            banned_until: now + banned,
            remembered_until: now + remembered,
        };
        if banned.is_zero() {
            let passed = Duration::from_millis(wall_ms.saturating_sub(kept.at_ms));
            score.points = config
                .back(passed)
                .saturating_add(kept.points.into())
                .min(FULL);
            score.banned_until = Duration::ZERO;
        }
        if score.points == FULL && score.forgiven(now) {
            return;
        }
        if !self.make_room(kept.peer, now) {
            return;
        }
        let known = self.peers.entry(kept.peer).or_insert(score);
        known.refill(&config, now);
        known.points = known.points.min(score.points);
        known.bans = known.bans.max(score.bans);
        known.banned_until = known.banned_until.max(score.banned_until);
        known.remembered_until = known.remembered_until.max(score.remembered_until);
        known.at = known.at.max(known.banned_until);
    }

    /// When the next ban ends.
    pub fn next_end(&self, now: Duration) -> Option<Duration> {
        self.bans(now).into_values().min()
    }

    /// Everybody with an entry.
    pub fn len(&self) -> usize {
        self.peers.len()
    }

    /// Whether nobody has one.
    pub fn is_empty(&self) -> bool {
        self.peers.is_empty()
    }

    /// Makes room for a newcomer in a full table: first of all that is forgiven, once in [`SWEEP`], else of anybody who is
    /// not banned. Says whether there is room.
    fn make_room(&mut self, newcomer: NodeId, now: Duration) -> bool {
        if self.peers.len() < MAX_SCORED || self.peers.contains_key(&newcomer) {
            return true;
        }
        if now >= self.swept_at + SWEEP {
            self.swept_at = now;
            let config = self.config;
            self.peers.retain(|_, score| {
                score.refill(&config, now);
                score.points < FULL || !score.forgiven(now)
            });
        }
        if self.peers.len() >= MAX_SCORED {
            let mut scores = self.peers.iter();
            let unbanned = scores.find(|(_, score)| score.banned_until <= now);
            let Some(peer) = unbanned.map(|(peer, _)| *peer) else {
                return false;
            };
            self.peers.remove(&peer);
        }
        true
    }
}

impl Score {
    fn refill(&mut self, config: &ScoreConfig, now: Duration) {
        let back = config.back(now.saturating_sub(self.at));
        if back == 0 {
            return;
        }
        self.points = self.points.saturating_add(back).min(FULL);
        self.at += config.point_after.saturating_mul(back);
        if self.points == FULL {
            self.at = self.at.max(now);
        }
        if self.forgiven(now) {
            self.bans = 0;
        }
    }

    /// Bans are remembered for as long as the longest one.
    fn forgiven(&self, now: Duration) -> bool {
        self.remembered_until <= now || self.bans == 0
    }
}

fn millis(of: Duration) -> u64 {
    u64::try_from(of.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::testing::node;
    use proptest::prelude::*;

    const S: Duration = Duration::from_secs(1);

    fn scores() -> Scores {
        Scores::new(ScoreConfig::default())
    }

    /// Scenario: four times bad bytes at once: the fourth bans for a minute, and what was on its way costs nothing more.
    #[test]
    fn four_broken_links_ban() {
        let mut scores = scores();
        for left in [75, 50, 25] {
            assert_eq!(scores.blame(node(1), Offence::BadBytes, S), None);
            assert_eq!(scores.points(&node(1), S), left);
        }
        let end = 61 * S;
        assert_eq!(scores.blame(node(1), Offence::BadBytes, S), Some(end));
        assert_eq!(scores.points(&node(1), S), 0);
        assert_eq!(scores.bans(S), BTreeMap::from([(node(1), end)]));
        assert_eq!(scores.next_end(S), Some(end));
        assert_eq!(scores.blame(node(1), Offence::BadBytes, 2 * S), None);
        assert_eq!(scores.bans(end), BTreeMap::new());
        assert_eq!(scores.points(&node(1), end), FULL);
        assert_eq!((scores.len(), scores.is_empty()), (1, false));
    }

    /// Scenario: each ban is twice the one before, up to an hour; after a good hour the first is a minute again.
    #[test]
    fn bans_double_and_are_forgiven() {
        let mut scores = scores();
        let mut now = S;
        for expected in [60, 120, 240, 480, 960, 1920, 3600, 3600] {
            let end = (0..5).find_map(|_| scores.blame(node(1), Offence::InvalidGossip, now));
            assert_eq!(end, Some(now + expected * S));
            now += expected * S;
        }
        now += 3601 * S;
        let end = (0..5).find_map(|_| scores.blame(node(1), Offence::InvalidGossip, now));
        assert_eq!(end, Some(now + 60 * S));
    }

    /// Scenario: a peer whose handshake fails once a minute is never banned; points come back one in six seconds.
    #[test]
    fn rare_failures_are_forgiven() {
        let mut scores = scores();
        for minute in 0..1000 {
            let now = minute * 60 * S;
            assert_eq!(scores.blame(node(1), Offence::FailedHandshake, now), None);
        }
        let now = 999 * 60 * S;
        assert_eq!(scores.points(&node(1), now), 90);
        assert_eq!(scores.points(&node(1), now + 6 * S), 91);
        assert_eq!(scores.points(&node(2), now), FULL);
        assert_eq!(Offence::FailedHandshake.name(), "failed handshake");
    }

    /// Scenario: more strangers than the table holds misbehave once each. A banned peer keeps its ban.
    #[test]
    fn bounded() {
        let mut scores = scores();
        while scores.blame(node(1), Offence::BadBytes, S).is_none() {}
        for number in 0..(2 * MAX_SCORED as u64) {
            let mut id = [9; 32];
            id[..8].copy_from_slice(&number.to_be_bytes());
            scores.blame(NodeId::from_bytes(id), Offence::BadBytes, 2 * S);
        }
        assert_eq!(scores.len(), MAX_SCORED);
        assert!(scores.bans(2 * S).contains_key(&node(1)));
        // Once they have behaved for long enough, the table empties at the next newcomer.
        scores.blame(node(8), Offence::BadBytes, 7300 * S);
        assert_eq!(scores.len(), 1);
    }

    const WALL: u64 = 1_700_000_000_000;

    /// The scores of a process that starts when `passed` is over, its clock at zero again.
    fn restarted(scores: &Scores, now: Duration, passed: Duration) -> Scores {
        let mut again = Scores::new(ScoreConfig::default());
        let later = WALL + millis(passed);
        for kept in scores.keep(now, WALL) {
            let read = Kept::from_bytes(&kept.to_bytes()).unwrap();
            assert_eq!(read, kept);
            again.recall(read, Duration::ZERO, later);
        }
        again
    }

    /// Scenario: one peer is banned for the second time, one has lost points, and the process is started again at once, in
    /// the middle of the ban, after it, and when all is forgiven. Time that passed in between counts, and nothing else.
    #[test]
    fn a_restart_forgives_nothing() {
        let mut scores = scores();
        let (banned, clumsy) = (node(1), node(2));
        for second in [0, 60] {
            let now = S * second;
            while scores.blame(banned, Offence::BadBytes, now).is_none() {}
        }
        scores.blame(clumsy, Offence::BadBytes, 60 * S);
        // Banned until 180 s.
        let now = 61 * S;
        for (passed, ban_left, points) in [(0, 119, 75), (59, 60, 85), (119, 0, 95), (600, 0, 100)]
        {
            let mut again = restarted(&scores, now, passed * S);
            let bans = again.bans(Duration::ZERO);
            let left = bans.get(&banned).copied().unwrap_or_default();
            assert_eq!(left, ban_left * S, "after {passed} s");
            assert_eq!(
                again.points(&clumsy, Duration::ZERO),
                points,
                "after {passed} s"
            );
            // The next ban is the third one, and as long.
            let after = ban_left * S;
            let end = (0..5).find_map(|_| again.blame(banned, Offence::BadBytes, after));
            assert_eq!(end, Some(after + 240 * S));
        }
        let again = restarted(&scores, now, (119 + 3600) * S);
        assert!(again.is_empty());
        // A clock that was set back a year lengthens no ban beyond the longest.
        let mut back = Scores::new(ScoreConfig::default());
        for kept in scores.keep(now, WALL) {
            back.recall(kept, S, WALL - 365 * 24 * 3600 * 1000);
        }
        assert_eq!(back.bans(S), BTreeMap::from([(banned, 3601 * S)]));
    }

    /// Scenario: what is on the disk was cut, or is not a score at all; what came in before the file was read stays as bad.
    #[test]
    fn recalled_with_care() {
        assert_eq!(Kept::from_bytes(&[0; Kept::LEN - 1]), None);
        assert_eq!(Kept::from_bytes(&[0; Kept::LEN + 1]), None);
        assert_eq!(
            Kept::from_bytes(&[255; Kept::LEN]).map(|kept| kept.points),
            Some(100)
        );
        let mut scores = scores();
        scores.blame(node(1), Offence::BadBytes, S);
        let kept = Kept {
            peer: node(1),
            points: 90,
            at_ms: WALL,
            bans: 0,
            banned_until_ms: 0,
        };
        scores.recall(kept, S, WALL);
        assert_eq!(scores.points(&node(1), S), 75);
        scores.recall(Kept { points: 40, ..kept }, S, WALL);
        assert_eq!(scores.points(&node(1), S), 40);
    }

    proptest! {
        /// Whatever is done in whatever order, points stay in range and a ban only ever follows an offence.
        #[test]
        fn points_stay_in_range(steps in proptest::collection::vec((0u8..3, 0u8..3, 0u64..400), 0..200)) {
            let mut scores = scores();
            let mut now = S;
            for (who, what, passed) in steps {
                now += Duration::from_secs(passed);
                let offence = [Offence::BadBytes, Offence::InvalidGossip, Offence::FailedHandshake];
                let before = scores.points(&node(who), now);
                let banned = scores.blame(node(who), offence[usize::from(what)], now);
                let after = scores.points(&node(who), now);
                prop_assert!(after <= before && before <= FULL);
                prop_assert_eq!(banned.is_some(), before > 0 && after == 0);
                if let Some(end) = banned {
                    prop_assert!(end > now && end <= now + 3600 * S);
                }
            }
        }
    }
}
