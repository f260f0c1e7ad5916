//! A sender and an inbox over a link that loses, repeats and swaps frames, breaks and comes back.

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

const LIMITS: SenderLimits = SenderLimits {
    messages: 8,
    bytes: 1000,
    resend_after: Duration::from_secs(5),
};
const PEER: u8 = 7;

fn s(n: u64) -> Duration {
    Duration::from_secs(n)
}

fn number(n: u64) -> Bytes {
    Bytes::copy_from_slice(&n.to_be_bytes())
}

/// What the inbox says to one frame; a message to be taken is taken at once and kept.
fn deliver(
    inbox: &mut Inbox<u8>,
    link: u64,
    out: &Outgoing,
    got: &mut Vec<Bytes>,
) -> (AckState, u64) {
    match inbox.arrived(link, PEER, out.stream, out.number, out.life) {
        Verdict::Take => {
            got.push(out.payload.clone());
            inbox.taken(link, PEER, out.stream, out.number);
            (AckState::Taken, out.number)
        }
        Verdict::Say(state, number) => (state, number),
    }
}

fn next(sender: &mut Sender, now: Duration) -> Option<Outgoing> {
    let out = sender.next()?;
    sender.on_sent(now);
    Some(out)
}

/// Three messages; the link breaks after the second was taken and before its acknowledgement came. The next link learns
/// so, and only the third is sent.
#[test]
fn over_a_broken_link() {
    let (mut sender, mut inbox) = (Sender::new(5, LIMITS), Inbox::new(9, 4, 4));
    let mut got = Vec::new();
    for n in 1..=3 {
        assert_eq!(sender.offer(number(n)), Ok(n));
    }
    assert_eq!(sender.next(), None, "no link");
    sender.on_up();
    let first = next(&mut sender, s(0)).unwrap();
    assert_eq!((first.number, first.life), (0, 0));
    assert_eq!(sender.next(), None, "it waits for the answer");
    let (state, taken) = deliver(&mut inbox, 1, &first, &mut got);
    assert_eq!(sender.on_ack(s(0), state, taken, 9), Heard::Taken(0));
    for n in 1..=2 {
        let out = next(&mut sender, s(0)).unwrap();
        assert_eq!((out.number, out.life), (n, 9));
        deliver(&mut inbox, 1, &out, &mut got);
    }
    sender.on_down();
    assert_eq!((sender.next(), sender.next_deadline()), (None, None));
    sender.on_up();
    let again = next(&mut sender, s(1)).unwrap();
    assert_eq!((again.number, again.life), (0, 9));
    let (state, taken) = deliver(&mut inbox, 2, &again, &mut got);
    assert_eq!(sender.on_ack(s(1), state, taken, 9), Heard::Taken(2));
    assert_eq!(sender.unacknowledged(), 1);
    let third = next(&mut sender, s(1)).unwrap();
    assert_eq!(third.number, 3);
    deliver(&mut inbox, 2, &third, &mut got);
    assert_eq!(got, [number(1), number(2), number(3)]);
}

/// The bounds: messages, bytes, and one message that is larger than all of them.
#[test]
fn bounded() {
    let mut sender = Sender::new(5, LIMITS);
    for n in 1..=8 {
        assert_eq!(sender.room(), 9 - n as usize);
        assert_eq!(sender.offer(number(n)), Ok(n));
    }
    assert_eq!((sender.offer(number(9)), sender.room()), (Err(Full), 0));
    let mut sender = Sender::new(5, LIMITS);
    assert_eq!(sender.offer(Bytes::from(vec![0; 5000])), Ok(1));
    assert_eq!((sender.offer(Bytes::new()), sender.room()), (Err(Full), 0));
}

/// No answer: the same is sent again after 5 s, then after 10 s more; an answer makes the time short again.
#[test]
fn resends() {
    let mut sender = Sender::new(5, LIMITS);
    sender.offer(number(1)).unwrap();
    sender.on_up();
    next(&mut sender, s(0)).unwrap();
    assert_eq!(sender.next_deadline(), Some(s(5)));
    sender.on_deadline(s(4));
    assert_eq!(sender.next(), None);
    sender.on_deadline(s(5));
    assert_eq!(next(&mut sender, s(5)).unwrap().number, 0);
    assert_eq!(sender.next_deadline(), Some(s(15)));
    sender.on_ack(s(6), AckState::Taken, 0, 9);
    assert_eq!(next(&mut sender, s(6)).unwrap().number, 1);
    assert_eq!(sender.next_deadline(), Some(s(16)), "nothing was taken yet");
    sender.on_deadline(s(16));
    assert_eq!(next(&mut sender, s(16)).unwrap().number, 1);
    assert_eq!(sender.on_ack(s(17), AckState::Taken, 1, 9), Heard::Taken(1));
    assert_eq!(sender.next_deadline(), None);
}

/// The inbox lost its memory: what was sent and not acknowledged is unknown and said to be so, what was not sent goes on.
#[test]
fn forgotten() {
    let mut sender = Sender::new(5, LIMITS);
    sender.on_up();
    for n in 1..=4 {
        sender.offer(number(n)).unwrap();
    }
    next(&mut sender, s(0)).unwrap();
    sender.on_ack(s(0), AckState::Taken, 0, 9);
    for _ in 1..=3 {
        next(&mut sender, s(0)).unwrap();
    }
    sender.on_ack(s(0), AckState::Taken, 1, 9);
    sender.on_down();
    sender.on_up();
    let again = next(&mut sender, s(1)).unwrap();
    let mut inbox = Inbox::new(10, 4, 4);
    let mut got = Vec::new();
    let (state, taken) = deliver(&mut inbox, 1, &again, &mut got);
    assert_eq!(state, AckState::Forgotten);
    assert_eq!(sender.on_ack(s(1), state, taken, 10), Heard::Forgotten);
    assert_eq!(sender.renew(6), Some(2..=3));
    for _ in 0..2 {
        let out = next(&mut sender, s(1)).unwrap();
        assert_eq!(out.stream, 6);
        let (state, taken) = deliver(&mut inbox, 1, &out, &mut got);
        sender.on_ack(s(1), state, taken, 10);
    }
    assert_eq!(got, [number(4)]);
    assert_eq!(sender.unacknowledged(), 0);
    // An inbox that answers for a stream it cannot know.
    assert_eq!(
        sender.on_ack(s(1), AckState::Taken, 1, 11),
        Heard::Forgotten
    );
    assert_eq!(sender.renew(7), None);
}

/// A peer that acknowledges what was never sent, and one that refuses.
#[test]
fn a_wrong_peer() {
    let mut sender = Sender::new(5, LIMITS);
    sender.on_up();
    sender.offer(number(1)).unwrap();
    next(&mut sender, s(0)).unwrap();
    assert_eq!(
        sender.on_ack(s(0), AckState::Taken, 1, 9),
        Heard::Misbehaved
    );
    let no = "not for you".to_owned();
    let heard = sender.on_ack(s(0), AckState::Refused(no.clone()), 0, 9);
    assert_eq!(heard, Heard::Refused(no));
}

/// Two links with one stream: the later one has it; what the earlier one still brings is not taken. A hole is asked for.
#[test]
fn the_later_link_has_it() {
    let mut inbox = Inbox::new(9, 4, 4);
    let say = |state, number| Verdict::Say(state, number);
    assert_eq!(inbox.arrived(1, PEER, 5, 0, 0), say(AckState::Taken, 0));
    assert_eq!(inbox.arrived(1, PEER, 5, 1, 9), Verdict::Take);
    assert!(inbox.has(1, PEER, 5));
    assert_eq!(inbox.arrived(2, PEER, 5, 0, 9), say(AckState::Taken, 0));
    assert!(!inbox.has(1, PEER, 5), "it waits for a mailbox no more");
    inbox.taken(1, PEER, 5, 1);
    assert_eq!(inbox.arrived(1, PEER, 5, 2, 9), say(AckState::Taken, 0));
    assert_eq!(inbox.arrived(2, PEER, 5, 2, 9), say(AckState::Repeat, 0));
    assert_eq!(inbox.arrived(2, PEER, 5, 1, 9), Verdict::Take);
    inbox.taken(2, PEER, 5, 1);
    assert_eq!(inbox.arrived(2, PEER, 5, 1, 9), say(AckState::Taken, 1));
}

/// A peer beyond its share loses its own oldest stream; with all places taken, the oldest of all goes.
#[test]
fn the_inbox_is_bounded() {
    let mut inbox = Inbox::new(9, 3, 2);
    for (peer, stream) in [(1, 10), (1, 11), (1, 12), (2, 20)] {
        inbox.arrived(1, peer, stream, 0, 0);
    }
    assert_eq!(inbox.len(), 3);
    assert!(!inbox.has(1, 1, 10) && inbox.has(1, 1, 11));
    inbox.arrived(1, 3, 30, 0, 0);
    assert!(!inbox.has(1, 1, 11) && inbox.has(1, 2, 20) && inbox.has(1, 3, 30));
    let forgotten = Verdict::Say(AckState::Forgotten, 0);
    assert_eq!(inbox.arrived(2, 1, 11, 0, 9), forgotten);
    assert_eq!(inbox.arrived(2, 1, 11, 4, 0), forgotten);
    assert_eq!((inbox.is_empty(), inbox.life()), (false, 9));
}

/// What happens to the link next.
#[derive(Clone, Debug)]
enum Step {
    Offer,
    /// The sender sends its next frame.
    Send,
    /// The frame at this place of the queue arrives; the others wait.
    Arrive(prop::sample::Index),
    Lose(prop::sample::Index),
    Repeat(prop::sample::Index),
    /// The same for acknowledgements.
    Answer(prop::sample::Index),
    LoseAnswer(prop::sample::Index),
    /// The link breaks with all that is under way, and another comes.
    Break,
    Wait,
}

fn step() -> impl Strategy<Value = Step> {
    let at = any::<prop::sample::Index>;
    prop_oneof![
        4 => Just(Step::Offer),
        6 => Just(Step::Send),
        6 => at().prop_map(Step::Arrive),
        1 => at().prop_map(Step::Lose),
        1 => at().prop_map(Step::Repeat),
        6 => at().prop_map(Step::Answer),
        1 => at().prop_map(Step::LoseAnswer),
        1 => Just(Step::Break),
        1 => Just(Step::Wait),
    ]
}

struct World {
    now: Duration,
    link: u64,
    sender: Sender,
    inbox: Inbox<u8>,
    there: Vec<Outgoing>,
    back: Vec<(AckState, u64)>,
    got: Vec<Bytes>,
    offered: u64,
}

impl World {
    fn arrive(&mut self, out: &Outgoing) {
        let answer = deliver(&mut self.inbox, self.link, out, &mut self.got);
        self.back.push(answer);
    }

    fn answer(&mut self, (state, number): (AckState, u64)) {
        let heard = self.sender.on_ack(self.now, state, number, 9);
        assert!(matches!(heard, Heard::Taken(_)), "{heard:?}");
    }

    fn take(&mut self, step: Step) {
        match step {
            Step::Offer => {
                if self.sender.offer(number(self.offered + 1)).is_ok() {
                    self.offered += 1;
                }
            }
            Step::Send => self.there.extend(next(&mut self.sender, self.now)),
            Step::Arrive(at) if !self.there.is_empty() => {
                let out = self.there.remove(at.index(self.there.len()));
                self.arrive(&out);
            }
            Step::Lose(at) if !self.there.is_empty() => {
                self.there.remove(at.index(self.there.len()));
            }
            Step::Repeat(at) if !self.there.is_empty() => {
                let out = self.there[at.index(self.there.len())].clone();
                self.arrive(&out);
            }
            Step::Answer(at) if !self.back.is_empty() => {
                let answer = self.back.remove(at.index(self.back.len()));
                self.answer(answer);
            }
            Step::LoseAnswer(at) if !self.back.is_empty() => {
                self.back.remove(at.index(self.back.len()));
            }
            Step::Break => {
                self.there.clear();
                self.back.clear();
                self.sender.on_down();
                self.sender.on_up();
                self.link += 1;
            }
            Step::Wait => {
                self.now += s(1000);
                self.sender.on_deadline(self.now);
            }
            Step::Arrive(_) | Step::Lose(_) | Step::Repeat(_) => {}
            Step::Answer(_) | Step::LoseAnswer(_) => {}
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    /// Whatever the link loses, repeats, swaps and breaks: at any time what was taken is a prefix of what was offered, each
    /// once; what is kept stays within its bounds; and once the link behaves, everything arrives and is acknowledged.
    #[test]
    fn each_once_and_in_order(steps in vec(step(), 0..300)) {
        let mut world = World {
            now: s(0),
            link: 1,
            sender: Sender::new(5, LIMITS),
            inbox: Inbox::new(9, 4, 4),
            there: Vec::new(),
            back: Vec::new(),
            got: Vec::new(),
            offered: 0,
        };
        world.sender.on_up();
        for step in steps {
            world.take(step);
            prop_assert!(world.sender.unacknowledged() <= LIMITS.messages);
            let expected: Vec<Bytes> = (1..=world.got.len() as u64).map(number).collect();
            prop_assert_eq!(&world.got, &expected);
        }
        for _ in 0..100 {
            world.now += s(1000);
            world.sender.on_deadline(world.now);
            while let Some(out) = next(&mut world.sender, world.now) {
                world.there.push(out);
            }
            for out in std::mem::take(&mut world.there) {
                world.arrive(&out);
            }
            for answer in std::mem::take(&mut world.back) {
                world.answer(answer);
            }
        }
        prop_assert_eq!(world.got.len() as u64, world.offered);
        prop_assert_eq!(world.sender.unacknowledged(), 0);
    }
}
