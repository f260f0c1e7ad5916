//! Random use of one mailbox, one step at a time, checked against what must always hold.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};

use proptest::prelude::*;

use super::{Bounds, Envelope, Mail, Taken};
use crate::cx::Cx;
use crate::error::TellError;
use crate::message::{Behaviour, Class, Message, On};
use crate::refs::{Carrier, Letter, Posting};
use crate::reply::Reply;

struct Nobody;
impl Behaviour for Nobody {
    const NAME: &'static str = "Nobody";
}

/// Numbered; says so when it is begun, which here is when it is dropped.
struct Numbered(usize, Arc<Mutex<Vec<usize>>>);
impl Drop for Numbered {
    fn drop(&mut self) {
        self.1.lock().unwrap().push(self.0);
    }
}

macro_rules! messages {
    ($($name:ident $class:ident),*) => {$(
        struct $name(#[expect(dead_code, reason = "its drop is what counts")] Numbered);
        impl Message for $name {
            type Reply = ();
            const NAME: &'static str = stringify!($name);
            const CLASS: Class = Class::$class;
        }
        impl On<$name> for Nobody {
            fn on(&mut self, _: $name, _: &mut Cx<Self>) -> Reply<$name> {
                Reply::Now(())
            }
        }
    )*};
}
messages!(Ctl Control, Req Request, Blk Bulk);

#[derive(Default)]
struct Wakes(AtomicUsize);
impl Wake for Wakes {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

#[derive(Debug, Clone, Copy)]
enum Step {
    Post(Class),
    /// A sender that waits.
    Wait(Class),
    PollWaiter(usize),
    DropWaiter(usize),
    Take(usize),
    TakeControl,
    Begin,
}

fn class() -> impl Strategy<Value = Class> {
    prop::sample::select(Class::ALL.to_vec())
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => class().prop_map(Step::Post),
        3 => class().prop_map(Step::Wait),
        3 => any::<usize>().prop_map(Step::PollWaiter),
        1 => any::<usize>().prop_map(Step::DropWaiter),
        2 => (1_usize..10).prop_map(Step::Take),
        1 => Just(Step::TakeControl),
        4 => Just(Step::Begin),
    ]
}

/// Polls a waiting sender: whether its letter was taken.
type Polled<'a> = Box<dyn FnMut(&mut Context<'_>) -> Poll<bool> + 'a>;

struct Waiting<'a> {
    number: usize,
    class: Class,
    posting: Polled<'a>,
}

struct Model<'a> {
    mail: &'a Mail<Nobody>,
    begun: Arc<Mutex<Vec<usize>>>,
    /// Accepted and not begun, by lane, in order.
    accepted: [VecDeque<usize>; 3],
    waiting: Vec<Waiting<'a>>,
    batch: VecDeque<Envelope<Nobody>>,
    /// What the receiver was told when it last took.
    last: Taken,
    receiver: Arc<Wakes>,
    numbers: usize,
}

impl<'a> Model<'a> {
    fn next(&mut self) -> (usize, Numbered) {
        self.numbers += 1;
        let numbered = Numbered(self.numbers, Arc::clone(&self.begun));
        (self.numbers, numbered)
    }

    fn is_parked(&self) -> bool {
        self.mail.lock().parked
    }

    fn wakes(&self) -> usize {
        self.receiver.0.load(Ordering::Relaxed)
    }

    fn post(&mut self, class: Class) {
        let lane = class.index();
        let has_room = {
            let inner = self.mail.lock();
            self.mail.has_room(lane, &inner) && !inner.lanes[lane].has_queue()
        };
        let (parked, wakes) = (self.is_parked(), self.wakes());
        let (number, message) = self.next();
        let full = match class {
            Class::Control => is_full(self.mail.post(Letter::tell(Ctl(message)))),
            Class::Request => is_full(self.mail.post(Letter::tell(Req(message)))),
            // Dropped, and `Ok`.
            Class::Bulk => is_full(self.mail.post(Letter::tell(Blk(message)))) || !has_room,
        };
        assert_eq!(full, !has_room);
        if full {
            assert_eq!(self.begun.lock().unwrap().pop(), Some(number));
            return;
        }
        self.accepted[lane].push_back(number);
        // What enters a mailbox whose receiver is parked wakes it, once.
        assert_eq!(self.wakes(), wakes + usize::from(parked));
        assert!(!self.is_parked());
    }

    fn wait(&mut self, class: Class) {
        let (number, message) = self.next();
        let mail = self.mail;
        let posting = match class {
            Class::Control => polled(mail.post_when_free(Letter::tell(Ctl(message)))),
            Class::Request => polled(mail.post_when_free(Letter::tell(Req(message)))),
            Class::Bulk => polled(mail.post_when_free(Letter::tell(Blk(message)))),
        };
        self.waiting.push(Waiting {
            number,
            class,
            posting,
        });
        self.poll(self.waiting.len() - 1);
    }

    fn poll(&mut self, which: usize) {
        let waker = Waker::from(Arc::new(Wakes::default()));
        let waiting = &mut self.waiting[which];
        let (number, lane) = (waiting.number, waiting.class.index());
        if let Poll::Ready(entered) = (waiting.posting)(&mut Context::from_waker(&waker)) {
            assert!(entered);
            self.accepted[lane].push_back(number);
            self.waiting.remove(which);
        }
    }

    fn drop_waiter(&mut self, which: usize) {
        let waiting = self.waiting.remove(which);
        let number = waiting.number;
        drop(waiting);
        assert_eq!(self.begun.lock().unwrap().pop(), Some(number));
    }

    fn take(&mut self, room: usize) {
        if !self.batch.is_empty() {
            return;
        }
        let total: usize = self.accepted.iter().map(VecDeque::len).sum();
        let controls = self.accepted[0].len();
        self.last = self.mail.take(&mut self.batch, room);
        assert_eq!(self.batch.len(), total.min(room));
        assert_eq!(self.last == Taken::Parked, total == 0);
        // Parked only when nothing is left behind.
        assert!(self.last != Taken::Last || total <= room);
        let taken_controls = self.mail.taken[0].load(Ordering::Relaxed) as usize;
        assert_eq!(taken_controls, controls.min(room));
    }

    fn begin(&mut self) {
        if let Some(envelope) = self.batch.pop_front() {
            let mut taken = self.mail.taken.iter();
            let lane = taken.position(|n| n.load(Ordering::Relaxed) > 0).unwrap();
            self.mail.begin();
            drop(envelope);
            let number = self.begun.lock().unwrap().pop();
            assert_eq!(number, self.accepted[lane].pop_front());
        }
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Post(class) => self.post(class),
            Step::Wait(class) => self.wait(class),
            Step::PollWaiter(n) if !self.waiting.is_empty() => self.poll(n % self.waiting.len()),
            Step::DropWaiter(n) if !self.waiting.is_empty() => {
                self.drop_waiter(n % self.waiting.len());
            }
            Step::PollWaiter(_) | Step::DropWaiter(_) => {}
            Step::Take(room) => self.take(room),
            Step::TakeControl => {
                if !self.batch.is_empty() && self.mail.control_waits() {
                    self.mail.take_control(&mut self.batch, 4);
                }
            }
            Step::Begin => self.begin(),
        }
        self.check();
    }

    fn check(&self) {
        let inner = self.mail.lock();
        for class in Class::ALL {
            let lane = class.index();
            let bound = self.mail.bounds.of(lane);
            // Counted here, not by the mailbox's own sum.
            let taken = self.mail.taken[lane].load(Ordering::Relaxed) as usize;
            let queued = inner.lanes[lane].queue.len();
            assert_eq!(queued + taken, self.accepted[lane].len());
            let waiters = inner.lanes[lane].waiters.iter();
            let grants: Vec<bool> = waiters.map(|waiter| waiter.granted).collect();
            let granted = grants.iter().filter(|granted| **granted).count();
            assert!(grants.is_sorted_by(|a, b| a >= b), "grants are in order");
            assert_eq!(granted, inner.lanes[lane].granted);
            assert!(queued + taken + granted <= bound);
            // A receiver that sleeps, having done all it took, leaves nobody waiting beside free room.
            if inner.parked && self.batch.is_empty() && granted < grants.len() {
                assert_eq!(queued + taken + granted, bound, "{class:?} waits for ever");
            }
        }
    }
}

fn is_full<T>(outcome: Result<(), TellError<T>>) -> bool {
    matches!(outcome, Err(TellError::Full(_)))
}

fn polled<M: Message>(mut posting: Posting<'_, M>) -> Polled<'_> {
    Box::new(move |cx| posting.as_mut().poll(cx).map(|outcome| outcome.is_ok()))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    // Senders of all classes post, wait, are polled and dropped in any order, while the receiver takes batches of any
    // size and begins them: bounds hold exactly, each lane keeps its order, Control goes first, no wake-up and no
    // grant is lost, and in the end everybody who still waits gets through, the receiver looking only when woken.
    #[test]
    fn a_mailbox_keeps_its_promises(
        control in 1_u32..4, request in 1_u32..6, bulk in 1_u32..4,
        steps in prop::collection::vec(step(), 1..120),
    ) {
        let mail = Mail::<Nobody>::new("nobody", Bounds { control, request, bulk });
        let receiver = Arc::new(Wakes::default());
        mail.register(&Waker::from(Arc::clone(&receiver)));
        let mut model = Model {
            mail: &mail,
            begun: Arc::default(),
            accepted: Default::default(),
            waiting: Vec::new(),
            batch: VecDeque::new(),
            last: Taken::Some,
            receiver,
            numbers: 0,
        };
        for step in steps {
            model.step(step);
        }
        let mut rounds = 0;
        while !model.waiting.is_empty() || !model.batch.is_empty() || !model.is_parked() {
            model.step(Step::Begin);
            if !model.is_parked() {
                model.step(Step::Take(3));
            }
            for which in (0..model.waiting.len()).rev() {
                model.step(Step::PollWaiter(which));
            }
            rounds += 1;
            prop_assert!(rounds < 1_000, "somebody waits for ever");
        }
        prop_assert!(model.accepted.iter().all(VecDeque::is_empty));
        let all_free = Class::ALL.map(|class| mail.free(class));
        prop_assert_eq!(all_free, [control, request, bulk].map(|n| n as usize));
    }
}
