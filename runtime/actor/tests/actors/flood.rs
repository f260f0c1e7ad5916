//! Timers of an actor whose mailbox never empties.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use pqcnet_actor::{
    Alarm, Behaviour, Bounds, Class, Cx, Env, Message, On, Reply, Spec, Strategy, Tree, simulate,
};

use crate::ms;

const TIMERS: usize = 5;
const PERIOD: Duration = Duration::from_millis(10);
/// Polls of the actor, one a virtual millisecond, while it is flooded.
const ROUNDS: u64 = 400;
/// The adapter's drain budget.
const A_POLL: u64 = 64;

/// When each timer fired: the virtual time, and the messages handled by then.
type Firings = Arc<Mutex<Vec<Vec<(Duration, u64)>>>>;

struct Flooded {
    handled: u64,
    firings: Firings,
    alarm: Alarm<Flooded>,
    beat: u32,
}

impl Flooded {
    fn note(&mut self, timer: usize, cx: &Cx<Self>) {
        let now = (cx.now(), self.handled);
        self.firings.lock().unwrap()[timer].push(now);
    }

    fn on_alarm(&mut self, cx: &mut Cx<Self>) {
        self.note(TIMERS, cx);
        self.beat += 1;
        self.alarm.set(cx, Some(PERIOD * self.beat));
    }
}

struct Work;
impl Message for Work {
    type Reply = ();
    const NAME: &'static str = "Work";
}

impl Behaviour for Flooded {
    const NAME: &'static str = "Flooded";
    fn started(&mut self, cx: &mut Cx<Self>) {
        for timer in 0..TIMERS {
            cx.every(PERIOD, move |this: &mut Flooded, cx| this.note(timer, cx));
        }
        self.alarm.set(cx, Some(PERIOD * self.beat));
    }
}

impl On<Work> for Flooded {
    fn on(&mut self, _: Work, cx: &mut Cx<Self>) -> Reply<Work> {
        self.handled += 1;
        if self.handled < A_POLL * ROUNDS {
            // One leaves, one enters: the mailbox is never empty, not even within a poll.
            cx.me().of::<Work>().try_tell(Work).unwrap();
        }
        Reply::Now(())
    }
}

// The actor tells itself each message again, so its mailbox holds 100 at any moment, and virtual time moves by a
// millisecond a poll. Five intervals of 10 ms and an alarm that re-arms itself all fire at every 10 ms, at
// most one poll late, and never more than twelve polls of messages apart.
#[test]
fn five_timers_of_a_flooded_actor_fire_on_time() {
    let firings: Firings = Arc::new(Mutex::new(vec![Vec::new(); TIMERS + 1]));
    simulate({
        let firings = firings.clone();
        || async move {
            let env = Env::simulated(1, "node");
            let mut tree = Tree::new("tree", Strategy::OneForOne);
            let spec = Spec::new("flooded", move |_| Flooded {
                handled: 0,
                firings: firings.clone(),
                alarm: Alarm::new(Flooded::on_alarm),
                beat: 1,
            });
            let work = tree.child(spec.mailbox(Bounds::request(100))).of::<Work>();
            let running = tree.start(env);
            running.started().await.unwrap();
            for _ in 0..100 {
                work.try_tell(Work).unwrap();
            }
            assert_eq!(work.free(), 0);
            for _ in 0..ROUNDS {
                tokio::time::advance(ms(1)).await;
            }
            running.stop().await;
        }
    });
    for (timer, fired) in firings.lock().unwrap().iter().enumerate() {
        assert!(
            fired.len() >= 35,
            "timer {timer} fired {} times",
            fired.len()
        );
        for (n, (at, _)) in (1..).zip(fired) {
            let late = at.checked_sub(PERIOD * n);
            assert!(
                late.is_some_and(|late| late <= ms(1)),
                "timer {timer} fired at {at:?}"
            );
        }
        for pair in fired.windows(2) {
            let messages = pair[1].1 - pair[0].1;
            assert!(
                messages <= 12 * A_POLL,
                "timer {timer}: {messages} messages between"
            );
        }
    }
}

struct Order(Vec<&'static str>);
impl Behaviour for Order {
    const NAME: &'static str = "Order";
}
struct Urgent;
impl Message for Urgent {
    type Reply = ();
    const NAME: &'static str = "Urgent";
    const CLASS: Class = Class::Control;
}
struct Lossy(bool);
impl Message for Lossy {
    type Reply = ();
    const NAME: &'static str = "Lossy";
    const CLASS: Class = Class::Bulk;
}
struct Tell;
impl Message for Tell {
    type Reply = Vec<&'static str>;
    const NAME: &'static str = "Tell";
}
impl On<Urgent> for Order {
    fn on(&mut self, _: Urgent, _: &mut Cx<Self>) -> Reply<Urgent> {
        self.0.push("urgent");
        Reply::Now(())
    }
}
impl On<Work> for Order {
    fn on(&mut self, _: Work, cx: &mut Cx<Self>) -> Reply<Work> {
        self.0.push("work");
        if self.0.len() == 4 {
            // In the middle of a batch: it goes before the rest of that batch.
            cx.me().of::<Urgent>().try_tell(Urgent).unwrap();
        }
        Reply::Now(())
    }
}
impl On<Lossy> for Order {
    fn on(&mut self, lossy: Lossy, _: &mut Cx<Self>) -> Reply<Lossy> {
        self.0.push(if lossy.0 { "first bulk" } else { "bulk" });
        Reply::Now(())
    }
}
impl On<Tell> for Order {
    fn on(&mut self, _: Tell, _: &mut Cx<Self>) -> Reply<Tell> {
        Reply::Now(self.0.clone())
    }
}

// Bulk and Request wait in numbers when two Control messages come, and a third comes while a batch is being handled:
// Control goes first each time, Request before Bulk, and Bulk still gets its share of the first 64.
#[test]
fn control_goes_first() {
    let order = simulate(|| async {
        let mut tree = Tree::new("tree", Strategy::OneForOne);
        let addr = tree.child(Spec::new("order", |_| Order(Vec::new())));
        for first in [true, false, false] {
            addr.of::<Lossy>().try_tell(Lossy(first)).unwrap();
        }
        for _ in 0..100 {
            addr.of::<Work>().try_tell(Work).unwrap();
        }
        addr.of::<Urgent>().try_tell(Urgent).unwrap();
        addr.of::<Urgent>().try_tell(Urgent).unwrap();
        let running = tree.start(Env::simulated(1, "node"));
        let order = addr.of::<Tell>().ask(Tell, crate::LONG).await.unwrap();
        running.stop().await;
        order
    });
    assert_eq!(order[..5], ["urgent", "urgent", "work", "work", "urgent"]);
    let first_bulk = order.iter().position(|line| *line == "first bulk");
    assert!(first_bulk.is_some_and(|at| at < 64), "{first_bulk:?}");
    assert_eq!(order.iter().filter(|line| **line == "work").count(), 100);
}
