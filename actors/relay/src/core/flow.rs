//! When producers are asked to stop, and when to go on. Spec: docs/spec/relay.md §8.
//!
//! ```text
//!   level ──▶ at or above the high mark: pause ──▶ at or below the low mark: resume        nothing in between
//! ```
//!
//! A channel has a gate of its own (bytes on their way to the disk, lag of those that read it) and closes before the shard's
//! does (bytes of all channels, requests in the mailbox). While other channels are busy too, one that brings several times
//! what they bring crowds them out: it has no more than a share of each write, so what waits for a write waits behind little
//! of it.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use pqcnet_log::ChannelId;
use pqcnet_messages::PauseCause;

/// Two marks of one level.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Marks {
    /// From here on producers are asked to stop.
    pub high: u64,
    /// At or below they are told to go on.
    pub low: u64,
}

impl Marks {
    /// Never reached.
    pub const NEVER: Marks = Marks::new(u64::MAX, 0);

    /// `low` is below `high`.
    pub const fn new(high: u64, low: u64) -> Marks {
        Marks { high, low }
    }
}

/// All marks of a shard.
#[derive(Debug, Clone, Copy)]
pub struct FlowLimits {
    /// Payload bytes of one channel, admitted and not yet durable.
    pub channel_bytes: Marks,
    /// A channel that brought no more lately crowds out nobody.
    pub much_bytes: u64,
    /// In one write, of a channel that crowds out others; more where these bring much themselves.
    pub share_bytes: u64,
    /// After a write with such a share the channel rests for so many times as long as a write takes.
    pub rests: u32,
    /// Records that the furthest behind of those that kept up lacks.
    pub lag_records: Marks,
    /// Payload bytes of all channels.
    pub shard_bytes: Marks,
    /// Requests in the worker's mailbox.
    pub waiting: Marks,
}

impl Default for FlowLimits {
    fn default() -> Self {
        Self {
            // What one publisher of ours has on its way at most is less; twice as much leaves room for others.
            channel_bytes: Marks::new(3 << 20, 3 << 19),
            much_bytes: 32 << 10,
            // A fraction of what a synced write costs anyway, in bytes, and of what a batch costs the processors; a larger payload goes alone.
            share_bytes: 8 << 10,
            // What leaves others their p99, measured in docs/performance.md; none is what carries most.
            rests: 16,
            // Some seconds of the fastest channel: a reader that is merely jittery never gets there.
            lag_records: Marks::new(1 << 20, 1 << 19),
            // Below the bound where publishes are refused.
            shard_bytes: Marks::new(6 << 20, 3 << 20),
            // Of 1,024.
            waiting: Marks::new(768, 256),
        }
    }
}

/// For so long a channel's rivals are remembered, in two halves.
const RECENT: Duration = Duration::from_millis(500);
/// A channel is there for so many times as long as it usually takes from one publish to the next, at most for twice [`RECENT`].
const ABSENT: u32 = 8;
/// What it is believed to take at first, and publishes that come one after the other within less than so much are one.
const USUAL: (Duration, Duration) = (Duration::from_millis(50), Duration::from_millis(5));
/// Writes with a share in the time over which it is counted what channels bring, about.
const WRITES: u64 = 128;
/// A channel crowds others out when it brings more than so many times what they bring on average.
const CROWDS: u64 = 4;
/// One who publishes into a pause is told again after so long.
const TELL_AGAIN: Duration = Duration::from_secs(1);
/// Producers of a channel that are told; more are told when they publish again.
const LISTENERS: usize = 64;

/// One who publishes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Listener {
    /// The relayer's number of the link.
    pub link: u64,
    /// The session on it.
    pub session: u64,
}

/// What a listener is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Signal {
    /// Whom.
    pub to: Listener,
    /// About which channel.
    pub channel: ChannelId,
    /// Why to stop; `None`: go on.
    pub paused: Option<PauseCause>,
}

/// Closed by any of its levels, open when all are low.
#[derive(Debug, Default)]
struct Gate {
    lag: bool,
    memory: bool,
    mailbox: bool,
}

impl Gate {
    fn cause(&self) -> Option<PauseCause> {
        if self.memory {
            Some(PauseCause::Memory)
        } else if self.lag {
            Some(PauseCause::Lag)
        } else if self.mailbox {
            Some(PauseCause::Mailbox)
        } else {
            None
        }
    }
}

/// The state of one level, which stays as it is between the marks.
fn judge(shut: &mut bool, level: u64, marks: Marks) {
    if level >= marks.high {
        *shut = true;
    } else if level <= marks.low {
        *shut = false;
    }
}

/// One channel's.
#[derive(Debug, Default)]
struct Tap {
    gate: Gate,
    bytes: u64,
    /// Admitted since it was shut.
    over: u64,
    since: Duration,
    /// Brought in this window and the one before.
    brought: [u64; 2],
    /// When it last brought something, and how long that usually takes, on a moving average of eight.
    last: Duration,
    usual: Duration,
    /// Who was asked to stop, and when.
    told: BTreeMap<Listener, Duration>,
}

impl Tap {
    fn shut(&mut self, now: Duration) {
        self.over = 0;
        self.since = now;
    }

    fn recent(&self) -> u64 {
        self.brought[0] + self.brought[1]
    }

    fn brings(&mut self, now: Duration, bytes: u64) {
        let (first, one) = USUAL;
        let since = now.saturating_sub(self.last);
        if self.recent() == 0 {
            self.usual = first;
        } else if since >= one {
            self.usual = (self.usual * 7 + since) / 8;
        }
        self.last = now;
        self.brought[0] += bytes;
    }

    fn is_present(&self, now: Duration) -> bool {
        self.recent() > 0 && now <= self.last + (self.usual * ABSENT).min(RECENT * 2)
    }

    fn is_idle(&self) -> bool {
        self.bytes == 0 && self.recent() == 0 && self.gate.cause().is_none() && self.told.is_empty()
    }
}

/// The valves of one shard.
#[derive(Debug)]
pub struct Flow {
    limits: FlowLimits,
    taps: BTreeMap<ChannelId, Tap>,
    shard: Gate,
    /// On their way to the disk, of all channels.
    bytes: u64,
    /// Waiting for their channel's share; they shut no gate but its own.
    waiting: u64,
    window_end: Duration,
    /// Of all channels, in this window and the one before.
    brought: [u64; 2],
    /// Channels that brought something in either.
    busy: u64,
    /// Channels whose lag keeps them shut.
    lagging: usize,
    pauses: u64,
    out: VecDeque<Signal>,
}

impl Flow {
    /// All open.
    pub fn new(limits: FlowLimits) -> Flow {
        Flow {
            limits,
            taps: BTreeMap::new(),
            shard: Gate::default(),
            bytes: 0,
            waiting: 0,
            window_end: Duration::ZERO,
            brought: [0; 2],
            busy: 0,
            lagging: 0,
            pauses: 0,
            out: VecDeque::new(),
        }
    }

    /// Whether so many bytes more may be taken: not when the channel was asked to stop, and what came since is more than can
    /// have been on its way then.
    pub fn check(&self, channel: &ChannelId, bytes: u64) -> Result<(), PauseCause> {
        match self.taps.get(channel) {
            Some(tap) if tap.over + bytes > self.limits.channel_bytes.high => {
                tap.gate.cause().map_or(Ok(()), Err)
            }
            Some(_) | None => Ok(()),
        }
    }

    /// So many bytes were taken.
    pub fn charge(&mut self, now: Duration, channel: ChannelId, bytes: u64) {
        self.brought(now, channel, bytes);
        self.hold(now, channel, bytes);
    }

    /// So many bytes were taken that wait for their channel's share.
    pub fn charge_waiting(&mut self, now: Duration, channel: ChannelId, bytes: u64) {
        self.brought(now, channel, bytes);
        self.waiting += bytes;
        self.fill(now, channel, bytes);
    }

    fn brought(&mut self, now: Duration, channel: ChannelId, bytes: u64) {
        self.turn(now);
        let tap = self.taps.entry(channel).or_default();
        if tap.gate.cause().is_some() {
            tap.over += bytes;
        }
        if tap.recent() == 0 && bytes > 0 {
            self.busy += 1;
        }
        tap.brings(now, bytes);
        self.brought[0] += bytes;
    }

    /// So many bytes are on their way that were counted as brought before.
    pub fn hold(&mut self, now: Duration, channel: ChannelId, bytes: u64) {
        self.fill(now, channel, bytes);
        self.bytes += bytes;
        judge(&mut self.shard.memory, self.bytes, self.limits.shard_bytes);
    }

    fn fill(&mut self, now: Duration, channel: ChannelId, bytes: u64) {
        let tap = self.taps.entry(channel).or_default();
        tap.bytes += bytes;
        let open = tap.gate.cause().is_none();
        judge(&mut tap.gate.memory, tap.bytes, self.limits.channel_bytes);
        if open && tap.gate.cause().is_some() {
            tap.shut(now);
            self.pauses += 1;
        }
    }

    /// Whether a channel that brings so much more leaves others too little.
    pub fn crowds(&mut self, now: Duration, channel: &ChannelId, more: u64) -> bool {
        self.turn(now);
        let brings = self.has(channel) + more;
        let theirs = self.others_have(channel);
        theirs.is_some_and(|theirs| brings > self.limits.much_bytes && brings > CROWDS * theirs)
            && self.others_are_there(now, channel)
    }

    /// Whether anybody else of those who brought something lately is to be expected still.
    fn others_are_there(&self, now: Duration, channel: &ChannelId) -> bool {
        let mut others = self.taps.iter().filter(|(other, _)| *other != channel);
        others.any(|(_, tap)| tap.is_present(now))
    }

    /// What each of the others has on average, taken as [`has`](Self::has) takes it of all of them together; `None` where nobody else brought anything lately.
    fn others_have(&self, channel: &ChannelId) -> Option<u64> {
        let tap = self.taps.get(channel);
        let (own, held) = tap.map_or((0, 0), |tap| (tap.recent(), tap.bytes));
        let brought = (self.brought[0] + self.brought[1]).saturating_sub(own);
        let held = (self.bytes + self.waiting).saturating_sub(held);
        let others = self.busy - u64::from(own > 0);
        brought.max(held).checked_div(others)
    }

    /// Whether a channel that brings so much more brings much.
    pub fn is_much(&mut self, now: Duration, channel: &ChannelId, more: u64) -> bool {
        self.turn(now);
        self.has(channel) + more > self.limits.much_bytes
    }

    /// What a channel brought lately, or what of it is not durable yet where that is more: one that is asked to stop brings nothing for a while, and is
    /// no less of a flood.
    fn has(&self, channel: &ChannelId) -> u64 {
        let tap = self.taps.get(channel);
        tap.map_or(0, |tap| tap.recent().max(tap.bytes))
    }

    /// Whether a channel brought something of late.
    pub fn is_busy(&self, channel: &ChannelId) -> bool {
        self.taps.get(channel).is_some_and(|tap| tap.recent() > 0)
    }

    /// Channels that brought something of late.
    pub fn busy(&self) -> u64 {
        self.busy
    }

    /// Most bytes of a crowding channel in one write: where others bring much themselves it is held to what would make it crowd them out, and
    /// not to less.
    pub fn share(&self, channel: &ChannelId) -> u64 {
        let theirs = self.others_have(channel).unwrap_or(0);
        let least = self.limits.share_bytes;
        (CROWDS * theirs / WRITES).clamp(least, least.max(self.limits.much_bytes))
    }

    /// Most bytes in one write of a channel that had to wait and crowds out nobody any more: it would by what has gathered, all in one. With no more than
    /// others have it is one of them.
    pub fn piece(&self, now: Duration, channel: &ChannelId) -> u64 {
        let more = self
            .others_have(channel)
            .is_some_and(|theirs| self.has(channel) > theirs);
        match more && self.others_are_there(now, channel) {
            true => self.limits.much_bytes.max(self.limits.share_bytes),
            false => u64::MAX,
        }
    }

    /// Somebody published, or tried to: one who has to stop is told.
    pub fn heard(&mut self, now: Duration, channel: ChannelId, from: Listener) {
        let Some(cause) = self.cause(&channel) else {
            return;
        };
        let tap = self.taps.entry(channel).or_default();
        match tap.told.get(&from) {
            Some(at) if now < *at + TELL_AGAIN => return,
            None if tap.told.len() >= LISTENERS => return,
            Some(_) | None => tap.told.insert(from, now),
        };
        self.out.push_back(Signal {
            to: from,
            channel,
            paused: Some(cause),
        });
    }

    /// It could not be told, and will be when it publishes again.
    pub fn untold(&mut self, channel: &ChannelId, to: Listener) {
        if let Some(tap) = self.taps.get_mut(channel) {
            tap.told.remove(&to);
        }
    }

    /// So many bytes that waited for their channel's share wait no more, whatever becomes of them.
    pub fn taken(&mut self, channel: ChannelId, bytes: u64) {
        self.waiting = self.waiting.saturating_sub(bytes);
        self.drain(channel, bytes);
        self.release(Some(channel));
    }

    fn drain(&mut self, channel: ChannelId, bytes: u64) {
        if let Some(tap) = self.taps.get_mut(&channel) {
            tap.bytes = tap.bytes.saturating_sub(bytes);
            judge(&mut tap.gate.memory, tap.bytes, self.limits.channel_bytes);
        }
    }

    /// So many bytes of a channel are durable.
    pub fn settled(&mut self, channel: ChannelId, bytes: u64) {
        self.bytes = self.bytes.saturating_sub(bytes);
        let shut = self.shard.cause().is_some();
        judge(&mut self.shard.memory, self.bytes, self.limits.shard_bytes);
        self.drain(channel, bytes);
        self.release((!shut).then_some(channel));
    }

    /// What was on its way is not any more, whatever became of it.
    pub fn lost(&mut self) {
        (self.bytes, self.waiting) = (0, 0);
        self.shard.memory = false;
        for tap in self.taps.values_mut() {
            tap.bytes = 0;
            tap.gate.memory = false;
        }
        self.release(None);
    }

    /// How far the furthest behind is, of those subscribers of a channel that kept up.
    pub fn lag(&mut self, now: Duration, channel: ChannelId, records: u64) {
        let marks = self.limits.lag_records;
        if records < marks.high && !self.taps.contains_key(&channel) {
            return;
        }
        let tap = self.taps.entry(channel).or_default();
        let open = tap.gate.cause().is_none();
        let lagged = tap.gate.lag;
        judge(&mut tap.gate.lag, records, marks);
        match (lagged, tap.gate.lag) {
            (false, true) => self.lagging += 1,
            (true, false) => self.lagging -= 1,
            (true, true) | (false, false) => {}
        }
        if open && tap.gate.cause().is_some() {
            tap.shut(now);
            self.pauses += 1;
        }
        self.release(Some(channel));
    }

    /// So many requests wait for the shard's worker.
    pub fn waiting(&mut self, requests: u64) {
        let before = self.shard.mailbox;
        judge(&mut self.shard.mailbox, requests, self.limits.waiting);
        if before && !self.shard.mailbox {
            self.release(None);
        }
    }

    /// The link is gone, with all who publish over it.
    pub fn drop_link(&mut self, link: u64) {
        for tap in self.taps.values_mut() {
            tap.told.retain(|listener, _| listener.link != link);
        }
    }

    /// Whether there are any such as [`lagging`](Self::lagging) lists.
    pub fn any_lagging(&self) -> bool {
        self.lagging > 0
    }

    /// Channels whose lag keeps them shut: nothing but a look at their subscribers opens them.
    pub fn lagging(&self) -> Vec<ChannelId> {
        let lagging = self.taps.iter().filter(|(_, tap)| tap.gate.lag);
        lagging.map(|(channel, _)| *channel).collect()
    }

    /// Why a channel's producers are to stop, if they are.
    pub fn cause(&self, channel: &ChannelId) -> Option<PauseCause> {
        let own = self.taps.get(channel).and_then(|tap| tap.gate.cause());
        own.or_else(|| self.shard.cause())
    }

    /// Channels whose producers are asked to stop, and the one that has waited longest.
    pub fn paused(&self) -> (u64, Option<(ChannelId, PauseCause)>) {
        let whole = self.shard.cause();
        let shut = self.taps.iter().filter_map(|(channel, tap)| {
            let cause = tap
                .gate
                .cause()
                .or(whole.filter(|_| !tap.told.is_empty()))?;
            Some((tap.since, *channel, cause))
        });
        let mut count = 0;
        let mut longest: Option<(Duration, ChannelId, PauseCause)> = None;
        for (since, channel, cause) in shut {
            count += 1;
            if longest.is_none_or(|(at, ..)| since < at) {
                longest = Some((since, channel, cause));
            }
        }
        (count, longest.map(|(_, channel, cause)| (channel, cause)))
    }

    /// How often a channel was shut, in all.
    pub fn pauses(&self) -> u64 {
        self.pauses
    }

    /// The next signal.
    pub fn poll(&mut self) -> Option<Signal> {
        self.out.pop_front()
    }

    /// Tells everyone to go on who may: of one channel, or of all when the shard itself may have opened.
    fn release(&mut self, channel: Option<ChannelId>) {
        if self.shard.cause().is_some() {
            return;
        }
        let mut open = |channel: ChannelId, tap: &mut Tap| {
            if tap.gate.cause().is_none() {
                for (to, _) in std::mem::take(&mut tap.told) {
                    let paused = None;
                    self.out.push_back(Signal {
                        to,
                        channel,
                        paused,
                    });
                }
            }
        };
        match channel {
            Some(channel) => {
                if let Some(tap) = self.taps.get_mut(&channel) {
                    open(channel, tap);
                }
            }
            None => {
                for (channel, tap) in &mut self.taps {
                    open(*channel, tap);
                }
            }
        }
    }

    /// Begins a new window when it is time.
    fn turn(&mut self, now: Duration) {
        if now < self.window_end {
            return;
        }
        let long_ago = now >= self.window_end + RECENT;
        self.window_end = now + RECENT;
        let before = |brought: [u64; 2]| [0, if long_ago { 0 } else { brought[0] }];
        self.brought = before(self.brought);
        self.busy = 0;
        for tap in self.taps.values_mut() {
            tap.brought = before(tap.brought);
            self.busy += u64::from(tap.recent() > 0);
        }
        self.taps.retain(|_, tap| !tap.is_idle());
    }
}

#[cfg(test)]
mod tests;
