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
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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

#[derive(Clone, Copy, Debug)]
struct Score {
    points: u32,
    at: Duration,
    bans: u32,
    banned_until: Duration,
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
                score.points < FULL || !score.forgiven(&config, now)
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
        let passed = now.saturating_sub(self.at);
        let back = passed.as_micros() / config.point_after.as_micros().max(1);
        let back = u32::try_from(back).unwrap_or(u32::MAX);
        if back == 0 {
            return;
        }
        self.points = self.points.saturating_add(back).min(FULL);
        self.at += config.point_after.saturating_mul(back);
        if self.points == FULL {
            self.at = self.at.max(now);
        }
        if self.forgiven(config, now) {
            self.bans = 0;
        }
    }

    /// Bans are remembered for as long as the longest one.
    fn forgiven(&self, config: &ScoreConfig, now: Duration) -> bool {
        self.banned_until + config.ban_max <= now || self.bans == 0
    }
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
