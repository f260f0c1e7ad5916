//! A panic anywhere in an actor restarts it; what is queued survives; whoever waits learns `Panicked`.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use pqcnet_actor::{
    AskError, Behaviour, Cx, Down, DownReason, Env, Message, On, Promise, Reply, Spec, Strategy,
    Tree, simulate,
};

use crate::{LONG, Log, ms};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Site {
    Handler,
    Timer,
    Interval,
    Started,
    Factory,
    Spawned,
    Callback,
}

struct Fragile {
    site: Site,
    generation: u32,
    log: Log,
    held: Vec<Promise<Hold>>,
}

impl Fragile {
    fn falls_at(&self, site: Site) -> bool {
        self.generation == 1 && self.site == site
    }
}

struct Note(u32);
impl Message for Note {
    type Reply = u32;
    const NAME: &'static str = "Note";
}

/// Answered never: the promise stays with the actor.
struct Hold;
impl Message for Hold {
    type Reply = ();
    const NAME: &'static str = "Hold";
}

impl Behaviour for Fragile {
    const NAME: &'static str = "Fragile";

    fn started(&mut self, cx: &mut Cx<Self>) {
        self.log.push(format!("started {}", self.generation));
        assert!(!self.falls_at(Site::Started), "in started");
        if self.falls_at(Site::Timer) {
            cx.after(ms(5), |_, _| panic!("in a timer"));
        }
        if self.falls_at(Site::Interval) {
            cx.every(ms(5), |_, _| panic!("in an interval"));
        }
        if self.falls_at(Site::Spawned) {
            let sleep = cx.env().sleep(ms(5));
            let future = async {
                sleep.await;
                panic!("in a spawned future")
            };
            cx.spawn(future, |_, (), _| ());
        }
        if self.falls_at(Site::Callback) {
            let sleep = cx.env().sleep(ms(5));
            cx.spawn(sleep, |_, (), _| panic!("in a task's callback"));
        }
        if self.generation == 1 {
            // Must not outlive the incarnation.
            let log = self.log.clone();
            cx.after(ms(2_000), move |_, _| log.push("stale timer"));
        }
    }
}

impl On<Note> for Fragile {
    fn on(&mut self, note: Note, _: &mut Cx<Self>) -> Reply<Note> {
        assert!(
            !(note.0 == 2 && self.falls_at(Site::Handler)),
            "in a handler"
        );
        self.log.push(format!("{} by {}", note.0, self.generation));
        Reply::Now(note.0)
    }
}

impl On<Hold> for Fragile {
    fn on(&mut self, _: Hold, _: &mut Cx<Self>) -> Reply<Hold> {
        let (promise, reply) = Reply::later();
        self.held.push(promise);
        reply
    }
}

impl Drop for Fragile {
    fn drop(&mut self) {
        self.log.push(format!("dropped {}", self.generation));
    }
}

fn fragile(site: Site, log: &Log) -> Spec<Fragile> {
    let (log, made) = (log.clone(), Arc::new(AtomicU32::new(0)));
    Spec::new("fragile", move |_| {
        let generation = made.fetch_add(1, Ordering::Relaxed) + 1;
        assert!(
            !(site == Site::Factory && generation == 1),
            "in the factory"
        );
        Fragile {
            site,
            generation,
            log: log.clone(),
            held: Vec::new(),
        }
    })
}

// Five asks are queued before the start; the actor falls in its handler, in `started`, or in the factory. The ask
// it fell over learns `Panicked`, every other is answered, in order, by the next incarnation.
#[test]
fn what_is_queued_survives_a_panic() {
    for site in [Site::Handler, Site::Started, Site::Factory] {
        let log = Log::default();
        let (answers, counters, infos) = simulate({
            let log = log.clone();
            || async move {
                let env = Env::simulated(1, "node");
                let mut tree = Tree::new("tree", Strategy::OneForOne);
                let note = tree.child(fragile(site, &log)).of::<Note>();
                let asks: Vec<_> = (1..=5)
                    .map(|n| note.try_ask(Note(n), LONG).unwrap())
                    .collect();
                let running = tree.start(env.clone());
                let answers = futures::future::join_all(asks).await;
                let infos = running.inspect().await;
                running.stop().await;
                (answers, env.counters(), infos)
            }
        });
        let mut expected: Vec<Result<u32, AskError>> = (1..=5).map(Ok).collect();
        let mut lines = vec![
            "started 2",
            "1 by 2",
            "2 by 2",
            "3 by 2",
            "4 by 2",
            "5 by 2",
            "dropped 2",
        ];
        match site {
            Site::Handler => {
                expected[1] = Err(AskError::Panicked);
                lines = vec![
                    "started 1",
                    "1 by 1",
                    "dropped 1",
                    "started 2",
                    "3 by 2",
                    "4 by 2",
                    "5 by 2",
                    "dropped 2",
                ];
            }
            Site::Started => lines
                .splice(0..0, ["started 1", "dropped 1"])
                .for_each(drop),
            _ => {}
        }
        assert_eq!(answers, expected, "{site:?}");
        assert_eq!(log.lines(), lines, "{site:?}");
        assert_eq!(
            (counters.panics, counters.restarts, counters.dead_letters),
            (1, 1, 0)
        );
        assert_eq!(infos[0].restarts, 1);
        assert_eq!(infos[0].path.as_str(), "tree/fragile");
    }
}

// The actor owes an answer when it falls in a timer, an interval, a spawned future or that future's callback: the
// caller learns `Panicked`, a watcher learns `Down`, asks that arrive during the backoff are answered afterwards,
// and no timer of the old incarnation fires.
#[test]
fn whoever_waits_learns_of_a_panic() {
    for site in [Site::Timer, Site::Interval, Site::Spawned, Site::Callback] {
        let log = Log::default();
        let (held, down, late) = simulate({
            let log = log.clone();
            || async move {
                let env = Env::simulated(1, "node");
                let mut tree = Tree::new("tree", Strategy::OneForOne);
                let addr = tree.child(fragile(site, &log));
                let held = addr.of::<Hold>().try_ask(Hold, LONG).unwrap();
                let running = tree.start(env.clone());
                running.started().await.unwrap();
                let watch = pqcnet_actor::Watchable::watch(&addr);
                let held = held.await;
                let note = addr.of::<Note>();
                let late: Vec<_> = (1..=3)
                    .map(|n| note.try_ask(Note(n), LONG).unwrap())
                    .collect();
                let late = futures::future::join_all(late).await;
                env.sleep(ms(5_000)).await;
                running.stop().await;
                (held, watch.await, late)
            }
        });
        assert_eq!(held, Err(AskError::Panicked), "{site:?}");
        assert_eq!(late, [Ok(1), Ok(2), Ok(3)], "{site:?}");
        let Down { path, reason, .. } = down;
        assert_eq!(
            (path.as_str(), reason),
            ("tree/fragile", DownReason::Panicked)
        );
        let lines = [
            "started 1",
            "dropped 1",
            "started 2",
            "1 by 2",
            "2 by 2",
            "3 by 2",
            "dropped 2",
        ];
        assert_eq!(log.lines(), lines, "{site:?}");
    }
}

struct Clumsy;
impl Behaviour for Clumsy {
    const NAME: &'static str = "Clumsy";
}
impl On<Note> for Clumsy {
    fn on(&mut self, note: Note, _: &mut Cx<Self>) -> Reply<Note> {
        assert_ne!(note.0, 0, "in a handler");
        Reply::Now(note.0)
    }
}
impl Drop for Clumsy {
    fn drop(&mut self) {
        // A second panic while the first unwinds would abort the process; the cell drops after unwinding.
        assert!(!std::thread::panicking());
        panic!("while dropped");
    }
}

// An actor panics in a handler and again while it is dropped: it comes back all the same.
#[test]
fn a_panic_while_dropped_is_survived() {
    let (first, second) = simulate(|| async {
        let mut tree = Tree::new("tree", Strategy::OneForOne);
        let note = tree.child(Spec::new("clumsy", |_| Clumsy)).of::<Note>();
        let running = tree.start(Env::simulated(1, "node"));
        let first = note.ask(Note(0), LONG).await;
        let second = note.ask(Note(7), LONG).await;
        running.stop().await;
        (first, second)
    });
    assert_eq!(first, Err(AskError::Panicked));
    assert_eq!(second, Ok(7));
}

struct Forgetful;
impl Behaviour for Forgetful {
    const NAME: &'static str = "Forgetful";
}
impl On<Hold> for Forgetful {
    fn on(&mut self, _: Hold, _: &mut Cx<Self>) -> Reply<Hold> {
        let (promise, reply) = Reply::later();
        drop(promise);
        reply
    }
}
impl On<Note> for Forgetful {
    fn on(&mut self, note: Note, cx: &mut Cx<Self>) -> Reply<Note> {
        let (promise, reply) = Reply::later();
        let n = note.0;
        cx.offload(
            move || if n == 0 { panic!("offloaded") } else { n * 2 },
            |_, result, _| {
                promise.fulfil(result.unwrap_or(99));
            },
        );
        reply
    }
}

// An actor drops its promise: `Abandoned`. It answers from offloaded work: later, also when that work panics. Nobody
// answers in time: `Timeout`, after exactly the time given.
#[test]
fn promises_are_kept_broken_or_late() {
    simulate(|| async {
        let env = Env::simulated(1, "node");
        let mut tree = Tree::new("tree", Strategy::OneForOne);
        let addr = tree.child(Spec::new("forgetful", |_| Forgetful));
        let never = tree
            .child(fragile(Site::Handler, &Log::default()))
            .of::<Hold>();
        let running = tree.start(env.clone());
        assert_eq!(
            addr.of::<Hold>().ask(Hold, LONG).await,
            Err(AskError::Abandoned)
        );
        assert_eq!(addr.of::<Note>().ask(Note(21), LONG).await, Ok(42));
        assert_eq!(addr.of::<Note>().ask(Note(0), LONG).await, Ok(99));
        let before = env.now();
        assert_eq!(never.ask(Hold, ms(250)).await, Err(AskError::Timeout));
        assert_eq!(env.now() - before, ms(250));
        running.stop().await;
        assert_eq!(
            addr.of::<Note>().ask(Note(1), LONG).await,
            Err(AskError::Closed)
        );
        assert_eq!(env.counters().dead_letters, 1);
    });
}
