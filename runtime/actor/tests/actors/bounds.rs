//! Mailbox bounds are exact, whoever sends from wherever.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::SeqCst};

use pqcnet_actor::{
    AskError, Backoff, Behaviour, Bounds, Class, Cx, Env, Exit, Message, On, Reply, Spec, Strategy,
    TellError, Threads, Tree, run_on, simulate,
};

use crate::{LONG, ms};

const SENDERS: u64 = 1_000;
const EACH: u64 = 30;
const BOUND: u32 = 100;

const THREADS: Threads = Threads {
    workers: 4,
    arbiters: 2,
};

struct Item {
    sender: u64,
    n: u64,
}
impl Message for Item {
    type Reply = ();
    const NAME: &'static str = "Item";
}

/// Checks the order of each sender and how many are on their way.
struct Sink {
    next: Vec<u64>,
    tally: Tally,
}
impl Behaviour for Sink {
    const NAME: &'static str = "Sink";
}
impl On<Item> for Sink {
    fn on(&mut self, item: Item, _: &mut Cx<Self>) -> Reply<Item> {
        self.tally.under_way.fetch_sub(1, SeqCst);
        self.tally.handled.fetch_add(1, SeqCst);
        let next = &mut self.next[usize::try_from(item.sender).unwrap()];
        assert_eq!(item.n, *next, "order of sender {}", item.sender);
        *next += 1;
        Reply::Now(())
    }
}

#[derive(Clone, Default)]
struct Tally {
    /// Accepted and not begun.
    under_way: Arc<AtomicI64>,
    most: Arc<AtomicI64>,
    handled: Arc<AtomicU64>,
}

fn sink(tally: &Tally) -> Spec<Sink> {
    let tally = tally.clone();
    let spec = Spec::new("sink", move |_| Sink {
        next: vec![0; usize::try_from(SENDERS).unwrap()],
        tally: tally.clone(),
    });
    spec.mailbox(Bounds::request(BOUND)).place(1)
}

// 1,000 senders on four threads tell an actor that does not run yet: exactly 100 messages are taken and 900 given
// back. An ask is `Busy`.
#[test]
fn a_thousand_senders_fill_a_mailbox_exactly() {
    let taken = run_on(THREADS, "bounds", |env| async move {
        let mut tree = Tree::new("tree", Strategy::OneForOne);
        let item = tree.child(sink(&Tally::default())).of::<Item>();
        let senders: Vec<_> = (0..SENDERS)
            .map(|sender| {
                let item = item.clone();
                env.task(async move { item.try_tell(Item { sender, n: 0 }).is_ok() })
            })
            .collect();
        let mut taken = 0;
        for sender in senders {
            taken += u32::from(sender.await.unwrap());
        }
        assert_eq!(item.free(), 0);
        let more = || Item { sender: 0, n: 0 };
        assert!(matches!(item.try_tell(more()), Err(TellError::Full(_))));
        assert_eq!(item.ask(more(), LONG).await, Err(AskError::Busy));
        taken
    });
    assert_eq!(taken.unwrap(), BOUND);
}

// 1,000 senders on four threads tell a running actor 30 messages each, some trying again, most waiting for room. At no
// moment are more than 100 accepted and not begun, besides the one just beginning; none is lost, and each sender's
// come in order.
#[test]
fn bounds_are_exact_with_a_thousand_senders() {
    let tally = Tally::default();
    run_on(THREADS, "bounds", {
        let tally = tally.clone();
        |env| async move {
            let mut tree = Tree::new("tree", Strategy::OneForOne);
            let item = tree.child(sink(&tally)).of::<Item>();
            let senders: Vec<_> = (0..SENDERS)
                .map(|sender| {
                    let (item, tally) = (item.clone(), tally.clone());
                    env.task(async move {
                        for n in 0..EACH {
                            if n % 3 == 0 {
                                while item.try_tell(Item { sender, n }).is_err() {
                                    tokio::task::yield_now().await;
                                }
                            } else {
                                item.tell(Item { sender, n }).await.unwrap();
                            }
                            // Counted after it was taken: late, so a count too high is a bound broken.
                            let under_way = tally.under_way.fetch_add(1, SeqCst) + 1;
                            tally.most.fetch_max(under_way, SeqCst);
                        }
                    })
                })
                .collect();
            let running = tree.start(env);
            for sender in senders {
                sender.await.unwrap();
            }
            while tally.handled.load(SeqCst) < SENDERS * EACH {
                tokio::task::yield_now().await;
            }
            assert_eq!(item.free(), usize::try_from(BOUND).unwrap());
            assert_eq!(running.stop().await, Exit::Stopped);
        }
    })
    .unwrap();
    let most = tally.most.load(SeqCst);
    assert!(most > 0 && most <= i64::from(BOUND) + 1, "{most} under way");
    assert_eq!(tally.handled.load(SeqCst), SENDERS * EACH);
    assert_eq!(tally.under_way.load(SeqCst), 0);
}

struct Lossy;
impl Message for Lossy {
    type Reply = ();
    const NAME: &'static str = "Lossy";
    const CLASS: Class = Class::Bulk;
}
struct Urgent;
impl Message for Urgent {
    type Reply = ();
    const NAME: &'static str = "Urgent";
    const CLASS: Class = Class::Control;
}
struct Count;
impl Message for Count {
    type Reply = [u32; 2];
    const NAME: &'static str = "Count";
}
struct Counter([u32; 2]);
impl Behaviour for Counter {
    const NAME: &'static str = "Counter";
}
impl On<Lossy> for Counter {
    fn on(&mut self, _: Lossy, _: &mut Cx<Self>) -> Reply<Lossy> {
        self.0[0] += 1;
        Reply::Now(())
    }
}
impl On<Urgent> for Counter {
    fn on(&mut self, _: Urgent, _: &mut Cx<Self>) -> Reply<Urgent> {
        self.0[1] += 1;
        Reply::Now(())
    }
}
impl On<Count> for Counter {
    fn on(&mut self, _: Count, _: &mut Cx<Self>) -> Reply<Count> {
        Reply::Now(self.0)
    }
}

// Bounds of 3 Control, 1 Request, 5 Bulk. Ten Bulk messages: all `Ok`, five dropped and counted. Ten Control: three
// taken, seven given back. A Bulk ask that finds no room is told so, and a Bulk `tell` waits instead of being lost.
#[test]
fn each_class_has_its_own_bound() {
    simulate(|| async {
        let env = Env::simulated(1, "node");
        let mut tree = Tree::new("tree", Strategy::OneForOne);
        let addr = tree.child(Spec::new("counter", |_| Counter([0; 2])).mailbox(Bounds {
            control: 3,
            request: 1,
            bulk: 5,
        }));
        let running = tree.start(env.clone());
        for _ in 0..10 {
            addr.of::<Lossy>().try_tell(Lossy).unwrap();
        }
        let taken = (0..10).filter(|_| addr.of::<Urgent>().try_tell(Urgent).is_ok());
        assert_eq!(taken.count(), 3);
        assert_eq!(
            addr.of::<Lossy>().ask(Lossy, LONG).await,
            Err(AskError::Busy)
        );
        assert_eq!(
            (env.counters().bulk_dropped, env.counters().refused),
            (5, 8)
        );
        addr.of::<Lossy>().tell(Lossy).await.unwrap();
        // Requests would pass it.
        env.sleep(ms(1)).await;
        assert_eq!(addr.of::<Count>().ask(Count, LONG).await, Ok([6, 3]));
        let infos = running.inspect().await;
        assert_eq!(infos[0].depth, [0; 3]);
        assert_eq!(infos[0].handled, 10);
        running.stop().await;
        assert!(matches!(
            addr.of::<Lossy>().try_tell(Lossy),
            Err(TellError::Closed(_))
        ));
        assert_eq!(addr.of::<Lossy>().free(), 0);
    });
}

// Senders wait for room in an actor that is stopped for good: each gets its message back. Those queued are counted
// as dead letters.
#[test]
fn waiting_senders_learn_of_the_end() {
    simulate(|| async {
        let env = Env::simulated(1, "node");
        let mut tree = Tree::new("tree", Strategy::OneForOne).backoff(Backoff {
            min: LONG,
            max: LONG,
        });
        let never = tree.child(Spec::new("never", |_| Stuck).mailbox(Bounds::request(2)));
        let running = tree.start(env.clone());
        running.started().await.unwrap();
        let count = never.of::<Count>();
        let waiting: Vec<_> = (0..5)
            .map(|_| {
                let count = count.clone();
                env.task(
                    async move { matches!(count.tell(Count).await, Err(TellError::Closed(_))) },
                )
            })
            .collect();
        env.sleep(ms(1)).await;
        assert_eq!(count.free(), 0);
        running.stop().await;
        let mut closed = 0;
        for task in waiting {
            closed += u32::from(task.await.unwrap());
        }
        // One was handled, and its actor backs off since; two were queued, two waited.
        assert_eq!(closed, 2);
        env.sleep(ms(1)).await;
        assert_eq!(env.counters().dead_letters, 4);
    });
}

/// Ends itself at every message.
struct Stuck;
impl Behaviour for Stuck {
    const NAME: &'static str = "Stuck";
}
impl On<Count> for Stuck {
    fn on(&mut self, _: Count, cx: &mut Cx<Self>) -> Reply<Count> {
        cx.stop();
        Reply::Now([0; 2])
    }
}
