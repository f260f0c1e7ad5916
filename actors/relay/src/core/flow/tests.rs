use proptest::prelude::*;

use super::*;

const A: ChannelId = ChannelId([1; 32]);
const B: ChannelId = ChannelId([2; 32]);

fn limits() -> FlowLimits {
    FlowLimits {
        channel_bytes: Marks::new(100, 40),
        much_bytes: 30,
        share_bytes: 30,
        rests: 1,
        lag_records: Marks::new(50, 20),
        shard_bytes: Marks::new(160, 60),
        waiting: Marks::new(10, 3),
    }
}

fn at(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn listener(session: u64) -> Listener {
    Listener { link: 1, session }
}

fn signals(flow: &mut Flow) -> Vec<(u64, ChannelId, Option<PauseCause>)> {
    std::iter::from_fn(|| flow.poll())
        .map(|signal| (signal.to.session, signal.channel, signal.paused))
        .collect()
}

// A channel reaches its high mark: its publisher is told once, and to go on only at the low mark. What was on its way is
// taken, what is far beyond is refused. The other channel is never asked to stop.
#[test]
fn a_channel_is_paused_alone() {
    let mut flow = Flow::new(limits());
    flow.charge(at(0), A, 99);
    flow.heard(at(0), A, listener(1));
    assert_eq!(signals(&mut flow), []);
    flow.charge(at(0), A, 1);
    flow.heard(at(0), A, listener(1));
    flow.heard(at(1), A, listener(1));
    let paused = Some(PauseCause::Memory);
    assert_eq!(signals(&mut flow), [(1, A, paused)]);
    assert_eq!(flow.paused(), (1, Some((A, PauseCause::Memory))));
    assert_eq!((flow.cause(&A), flow.cause(&B)), (paused, None));
    assert_eq!(flow.check(&A, 100), Ok(()));
    assert_eq!(flow.check(&A, 101), Err(PauseCause::Memory));
    flow.settled(A, 59);
    assert_eq!(signals(&mut flow), [], "41 is between the marks");
    flow.settled(A, 1);
    assert_eq!(signals(&mut flow), [(1, A, None)]);
    assert_eq!(flow.paused(), (0, None));
    assert_eq!(flow.pauses(), 1);
}

// Two channels below their own marks fill the shard: whoever publishes is told, on either, and all go on together.
#[test]
fn a_shard_is_paused_as_a_whole() {
    let mut flow = Flow::new(limits());
    for (channel, session) in [(A, 1), (B, 2)] {
        flow.charge(at(0), channel, 80);
        flow.heard(at(0), channel, listener(session));
    }
    // The first one had published before.
    let memory = Some(PauseCause::Memory);
    assert_eq!(signals(&mut flow), [(2, B, memory)]);
    flow.heard(at(1), A, listener(1));
    assert_eq!(signals(&mut flow), [(1, A, memory)]);
    flow.settled(A, 80);
    assert_eq!(signals(&mut flow), []);
    flow.settled(B, 20);
    assert_eq!(signals(&mut flow), [(1, A, None), (2, B, None)]);
    flow.waiting(10);
    flow.heard(at(2), B, listener(2));
    let mailbox = Some(PauseCause::Mailbox);
    assert_eq!(signals(&mut flow), [(2, B, mailbox)]);
    flow.waiting(4);
    assert_eq!(signals(&mut flow), []);
    flow.waiting(3);
    assert_eq!(signals(&mut flow), [(2, B, None)]);
}

// A reader that kept up falls behind; it goes, and with it the reason. One who publishes into the pause is told again after
// a second, one whose link is gone is not told to go on.
#[test]
fn lag_pauses_until_it_is_made_up() {
    let mut flow = Flow::new(limits());
    flow.lag(at(0), A, 49);
    assert_eq!(flow.lagging(), []);
    flow.lag(at(0), A, 50);
    assert_eq!(flow.lagging(), [A]);
    let lag = Some(PauseCause::Lag);
    for ms in [0, 999, 1000] {
        flow.heard(at(ms), A, listener(1));
    }
    flow.heard(
        at(0),
        A,
        Listener {
            link: 2,
            session: 7,
        },
    );
    assert_eq!(signals(&mut flow), [(1, A, lag), (1, A, lag), (7, A, lag)]);
    flow.drop_link(2);
    flow.lag(at(3), A, 21);
    assert_eq!(signals(&mut flow), []);
    flow.lag(at(3), A, 0);
    assert_eq!(signals(&mut flow), [(1, A, None)]);
}

// What was on its way is lost with the log: nobody waits for it to become durable.
#[test]
fn a_lost_batch_opens_all() {
    let mut flow = Flow::new(limits());
    flow.charge(at(0), A, 200);
    flow.heard(at(0), A, listener(1));
    flow.lost();
    let memory = Some(PauseCause::Memory);
    assert_eq!(signals(&mut flow), [(1, A, memory), (1, A, None)]);
    assert_eq!(flow.check(&A, 1000), Ok(()));
}

// One channel brings much: alone it crowds nobody out; beside one that brings a little it does, beside its equals it does
// not; and a second after the other's last it has the shard to itself again.
#[test]
fn who_crowds() {
    let mut flow = Flow::new(limits());
    flow.charge(at(0), A, 90);
    assert!(!flow.crowds(at(0), &A, 90));
    flow.charge(at(10), B, 1);
    assert!(flow.crowds(at(10), &A, 0));
    assert!(!flow.crowds(at(10), &B, 10), "within a share");
    flow.charge(at(20), B, 60);
    assert!(!flow.crowds(at(20), &A, 0), "its equal");
    for ms in [600, 1200] {
        flow.charge(at(ms), A, 90);
    }
    assert!(!flow.crowds(at(1200), &A, 90));
}

// A flood is asked to stop and brings nothing for two seconds, while another brings a little: what waits of it is a flood's as long as it is more
// than a share.
#[test]
fn what_waits_crowds_too() {
    let mut flow = Flow::new(limits());
    flow.charge(at(0), A, 90);
    for ms in (0..2000).step_by(200) {
        flow.charge(at(ms), B, 1);
        flow.settled(B, 1);
        assert!(flow.crowds(at(ms), &A, 0) && flow.is_much(at(ms), &A, 0));
    }
    flow.settled(A, 59);
    assert!(flow.crowds(at(2000), &A, 0));
    flow.settled(A, 1);
    assert!(!flow.crowds(at(2000), &A, 0) && !flow.is_much(at(2000), &A, 0));
}

// Two equals bring much at once and then nothing for a while, since the disk stalls: neither is a flood when it brings a little more, whatever of
// it waits, and what waits goes in one piece. Beside one that brought little it is a flood's, in pieces.
#[test]
fn equals_are_no_floods() {
    let mut flow = Flow::new(limits());
    flow.charge_waiting(at(0), A, 90);
    flow.charge(at(0), B, 90);
    flow.charge_waiting(at(1100), A, 1);
    assert!(!flow.crowds(at(1100), &B, 1));
    flow.charge(at(1100), B, 1);
    assert!(!flow.crowds(at(1100), &A, 0));
    assert_eq!(flow.piece(at(1100), &A), u64::MAX);
    flow.settled(B, 91);
    assert!(flow.crowds(at(1100), &A, 0));
    assert_eq!(flow.piece(at(1100), &A), 30);
}

// What waits for its channel's share shuts that channel's gate, and never the shard's.
#[test]
fn what_waits_stops_nobody_else() {
    let mut flow = Flow::new(limits());
    flow.charge_waiting(at(0), A, 190);
    let memory = Some(PauseCause::Memory);
    assert_eq!((flow.cause(&A), flow.cause(&B)), (memory, None));
    flow.taken(A, 150);
    flow.hold(at(0), A, 150);
    assert_eq!((flow.cause(&A), flow.cause(&B)), (memory, None));
    flow.hold(at(0), A, 10);
    assert_eq!(flow.cause(&B), memory);
    flow.settled(A, 160);
    flow.taken(A, 40);
    assert_eq!((flow.cause(&A), flow.cause(&B)), (None, None));
}

// B brings something each 10 ms, in bursts of three, and leaves off: 80 ms later and not before A has the shard to itself. One that came once is waited
// for 400 ms long.
#[test]
fn who_has_gone_is_not_crowded() {
    for (every, lasts) in [(10, 80), (20, 160)] {
        let mut flow = Flow::new(limits());
        for ms in (0..2000).step_by(every) {
            for _ in 0..3 {
                flow.charge(at(ms), B, 1);
                flow.settled(B, 1);
            }
            flow.charge(at(ms), A, 90);
            flow.settled(A, 90);
        }
        let last = 2000 - every as u64;
        assert!(flow.crowds(at(last + lasts), &A, 90));
        assert_eq!(flow.piece(at(last + lasts), &A), 30);
        assert!(!flow.crowds(at(last + lasts + 2), &A, 90));
        assert_eq!(flow.piece(at(last + lasts + 2), &A), u64::MAX);
    }
    let mut flow = Flow::new(limits());
    flow.charge(at(0), B, 1);
    assert!(flow.crowds(at(400), &A, 90) && !flow.crowds(at(401), &A, 90));
}

#[derive(Debug, Clone)]
enum Step {
    Publish(u8, u64, u64),
    Settle,
    Lag(u8, u64),
    Waiting(u64),
    Pass(u64),
    Lose,
    DropLink(u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (1..4u8, 1..70u64, 0..6u64).prop_map(|(c, bytes, who)| Step::Publish(c, bytes, who)),
        4 => Just(Step::Settle),
        2 => (1..4u8, 0..70u64).prop_map(|(c, lag)| Step::Lag(c, lag)),
        2 => (0..14u64).prop_map(Step::Waiting),
        1 => (1..1500u64).prop_map(Step::Pass),
        1 => Just(Step::Lose),
        1 => (0..2u64).prop_map(Step::DropLink),
    ]
}

/// What the valve is believed to hold.
#[derive(Default)]
struct Believed {
    bytes: BTreeMap<ChannelId, u64>,
    lag: BTreeMap<ChannelId, u64>,
    waiting: u64,
    on_way: VecDeque<(ChannelId, u64)>,
}

impl Believed {
    fn total(&self) -> u64 {
        self.bytes.values().sum()
    }
}

proptest! {
    // Publishes, writes, readers, a mailbox and links in any order. A channel is shut only when a level is at its high mark,
    // and opened only when none is above its low mark: within the band nothing changes. Nobody hears twice to go on, nobody
    // is told to stop twice within a second, and when everything has settled everybody who was told to stop was told to go on
    // and anything is taken. What is held is bounded whoever ignores the signals.
    #[test]
    fn no_flapping_no_starvation(steps in prop::collection::vec(step(), 1..200)) {
        let limits = limits();
        let mut flow = Flow::new(limits);
        let mut now = Duration::ZERO;
        let mut known = Believed::default();
        let mut told: BTreeMap<(Listener, ChannelId), (Duration, Option<PauseCause>)> = BTreeMap::new();
        let channels: Vec<ChannelId> = (1..4).map(|c| ChannelId([c; 32])).collect();
        let mut shut: BTreeMap<ChannelId, bool> = channels.iter().map(|c| (*c, false)).collect();
        for step in steps {
            let mut dropped = None;
            match step {
                Step::Publish(c, bytes, who) => {
                    let channel = ChannelId([c; 32]);
                    if flow.check(&channel, bytes).is_ok() {
                        flow.charge(now, channel, bytes);
                        *known.bytes.entry(channel).or_default() += bytes;
                        known.on_way.push_back((channel, bytes));
                    }
                    flow.heard(now, channel, Listener { link: who % 2, session: who });
                    prop_assert!(known.bytes.get(&channel).copied().unwrap_or(0) <= 2 * limits.channel_bytes.high + 70);
                }
                Step::Settle => {
                    if let Some((channel, bytes)) = known.on_way.pop_front() {
                        *known.bytes.entry(channel).or_default() -= bytes;
                        flow.settled(channel, bytes);
                    }
                }
                Step::Lag(c, lag) => {
                    let channel = ChannelId([c; 32]);
                    known.lag.insert(channel, lag);
                    flow.lag(now, channel, lag);
                }
                Step::Waiting(waiting) => {
                    known.waiting = waiting;
                    flow.waiting(waiting);
                }
                Step::Pass(ms) => now += at(ms),
                Step::Lose => {
                    known.bytes.clear();
                    known.on_way.clear();
                    flow.lost();
                }
                Step::DropLink(link) => {
                    flow.drop_link(link);
                    dropped = Some(link);
                }
            }
            while let Some(signal) = flow.poll() {
                let key = (signal.to, signal.channel);
                match (told.get(&key), signal.paused) {
                    (Some((_, None)) | None, None) => prop_assert!(false, "to go on, unasked"),
                    (Some((since, Some(_))), Some(_)) => prop_assert!(now >= *since + TELL_AGAIN),
                    (Some((_, Some(_))), None) | (Some((_, None)) | None, Some(_)) => {}
                }
                told.insert(key, (now, signal.paused));
            }
            if let Some(link) = dropped {
                told.retain(|(listener, _), _| listener.link != link);
            }
            for channel in &channels {
                let bytes = known.bytes.get(channel).copied().unwrap_or(0);
                let lag = known.lag.get(channel).copied().unwrap_or(0);
                let levels = [
                    (bytes, limits.channel_bytes),
                    (lag, limits.lag_records),
                    (known.total(), limits.shard_bytes),
                    (known.waiting, limits.waiting),
                ];
                let is_shut = flow.cause(channel).is_some();
                let was_shut = shut.insert(*channel, is_shut) == Some(true);
                if is_shut && !was_shut {
                    prop_assert!(levels.iter().any(|(level, marks)| *level >= marks.high));
                }
                if levels.iter().any(|(level, marks)| *level >= marks.high) {
                    prop_assert!(is_shut);
                }
                if levels.iter().all(|(level, marks)| *level <= marks.low) {
                    prop_assert!(!is_shut);
                }
                if was_shut && !is_shut {
                    prop_assert!(levels.iter().all(|(level, marks)| *level < marks.high));
                }
            }
        }
        while let Some((channel, bytes)) = known.on_way.pop_front() {
            flow.settled(channel, bytes);
        }
        for channel in &channels {
            flow.lag(now, *channel, 0);
        }
        flow.waiting(0);
        while let Some(signal) = flow.poll() {
            told.insert((signal.to, signal.channel), (now, signal.paused));
        }
        for (key, (_, paused)) in &told {
            prop_assert_eq!(*paused, None, "{:?} still waits", key);
        }
        for channel in &channels {
            prop_assert_eq!(flow.check(channel, 1_000_000), Ok(()));
        }
        prop_assert_eq!(flow.paused(), (0, None));
    }
}
