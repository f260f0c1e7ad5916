//! Restart limits, what a supervisor does to siblings, and how a tree gives up.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use pqcnet_actor::{
    AskError, Backoff, Behaviour, Cx, Env, Exit, Intensity, Message, On, Reply, Restart, Running,
    Spec, Strategy, Tree, simulate,
};

use crate::{LONG, Log, in_own_process, is_own_process, ms};

struct Poke(Act);
#[derive(Clone, Copy)]
enum Act {
    Answer,
    Panic,
    Stop,
}
impl Message for Poke {
    type Reply = ();
    const NAME: &'static str = "Poke";
}

struct Worker {
    name: &'static str,
    log: Log,
}
impl Behaviour for Worker {
    const NAME: &'static str = "Worker";
    fn started(&mut self, _: &mut Cx<Self>) {
        self.log.push(format!("+{}", self.name));
    }
}
impl On<Poke> for Worker {
    fn on(&mut self, poke: Poke, cx: &mut Cx<Self>) -> Reply<Poke> {
        match poke.0 {
            Act::Answer => {}
            Act::Panic => panic!("poked {}", self.name),
            Act::Stop => cx.stop(),
        }
        Reply::Now(())
    }
}
impl Drop for Worker {
    fn drop(&mut self) {
        self.log.push(format!("-{}", self.name));
    }
}

fn worker(name: &'static str, log: &Log) -> Spec<Worker> {
    let log = log.clone();
    Spec::new(name, move |_| Worker {
        name,
        log: log.clone(),
    })
}

const THREE_IN_TEN_SECONDS: Intensity = Intensity {
    restarts: 3,
    within: Duration::from_secs(10),
};

// Three panics within the window are survived, the fourth is one too many: the tree stops its other children and
// ends `Escalated`, whose code is not zero; what is asked afterwards is `Closed`.
#[test]
fn the_limit_trips_and_escalates() {
    let log = Log::default();
    let exit = simulate({
        let log = log.clone();
        || async move {
            let mut tree = Tree::new("tree", Strategy::OneForOne).intensity(THREE_IN_TEN_SECONDS);
            tree.child(worker("a", &log));
            let b = tree.child(worker("b", &log)).of::<Poke>();
            let running = tree.start(Env::simulated(1, "node"));
            for _ in 0..4 {
                assert_eq!(b.ask(Poke(Act::Panic), LONG).await, Err(AskError::Panicked));
            }
            let exit = running.wait().await;
            assert_eq!(b.ask(Poke(Act::Answer), LONG).await, Err(AskError::Closed));
            exit
        }
    });
    let Exit::Escalated { at, cause } = &exit else {
        panic!("{exit}");
    };
    assert_eq!((at.as_str(), cause.as_str()), ("tree", "poked b"));
    assert_eq!(exit.code(), 1);
    assert_eq!(
        log.lines(),
        ["+a", "+b", "-b", "+b", "-b", "+b", "-b", "+b", "-b", "-a"]
    );
}

// The same four panics, spread so that never more than three fall within the window: nothing escalates.
#[test]
fn old_failures_are_forgotten() {
    simulate(|| async {
        let env = Env::simulated(1, "node");
        let mut tree = Tree::new("tree", Strategy::OneForOne).intensity(THREE_IN_TEN_SECONDS);
        let a = tree.child(worker("a", &Log::default())).of::<Poke>();
        let running = tree.start(env.clone());
        for _ in 0..12 {
            assert_eq!(a.ask(Poke(Act::Panic), LONG).await, Err(AskError::Panicked));
            env.sleep(ms(3_500)).await;
        }
        assert_eq!(a.ask(Poke(Act::Answer), LONG).await, Ok(()));
        assert_eq!(running.stop().await, Exit::Stopped);
    });
}

// A child whose `started` always panics: the tree never comes up, and says so instead of waiting for ever.
#[test]
fn a_child_that_cannot_start_escalates() {
    struct Hopeless;
    impl Behaviour for Hopeless {
        const NAME: &'static str = "Hopeless";
        fn started(&mut self, _: &mut Cx<Self>) {
            panic!("no way");
        }
    }
    let log = Log::default();
    let exit = simulate({
        let log = log.clone();
        || async move {
            let mut tree = Tree::new("tree", Strategy::OneForOne).intensity(THREE_IN_TEN_SECONDS);
            tree.child(worker("before", &log));
            tree.child(Spec::new("hopeless", |_| Hopeless));
            tree.child(worker("after", &log));
            let running = tree.start(Env::simulated(1, "node"));
            running.started().await.unwrap_err()
        }
    });
    assert!(
        matches!(&exit, Exit::Escalated { cause, .. } if cause == "no way"),
        "{exit}"
    );
    // What comes after it in order was never started.
    assert_eq!(log.lines(), ["+before", "-before"]);
}

// A subtree gives up three times; each time the tree above starts all of it again, and at the fourth gives up too,
// naming the failure at the bottom.
#[test]
fn a_subtree_escalates_upwards() {
    let log = Log::default();
    let exit = simulate({
        let log = log.clone();
        || async move {
            let once = Intensity {
                restarts: 1,
                within: Duration::from_secs(60),
            };
            let mut inner = Tree::new("inner", Strategy::OneForOne).intensity(once);
            inner.child(worker("a", &log));
            let b = inner.child(worker("b", &log)).of::<Poke>();
            let mut outer = Tree::new("outer", Strategy::OneForOne).intensity(THREE_IN_TEN_SECONDS);
            outer.subtree(inner);
            let running = outer.start(Env::simulated(1, "node"));
            running.started().await.unwrap();
            assert_eq!(b.path().as_str(), "outer/inner/b");
            for _ in 0..8 {
                assert_eq!(b.ask(Poke(Act::Panic), LONG).await, Err(AskError::Panicked));
            }
            running.wait().await
        }
    });
    let Exit::Escalated { at, cause } = &exit else {
        panic!("{exit}");
    };
    assert_eq!(at.as_str(), "outer");
    assert_eq!(cause, "outer/inner gave up: poked b");
    let round = ["+a", "+b", "-b", "+b", "-b", "-a"];
    assert_eq!(log.lines(), round.repeat(4));
}

async fn three(strategy: Strategy, log: &Log) -> (Running, pqcnet_actor::Ref<Poke>) {
    let mut tree = Tree::new("tree", strategy);
    tree.child(worker("a", log));
    let b = tree.child(worker("b", log)).of::<Poke>();
    tree.child(worker("c", log));
    let running = tree.start(Env::simulated(1, "node"));
    running.started().await.unwrap();
    (running, b)
}

// The middle one of three fails: alone it restarts alone, else with those after it, else with all; others stop in
// reverse and start in order. The message behind the poisonous one is handled after the restart.
#[test]
fn strategies_decide_about_siblings() {
    let cases: [(Strategy, &[&str]); 3] = [
        (Strategy::OneForOne, &["-b", "+b"]),
        (Strategy::RestForOne, &["-b", "-c", "+b", "+c"]),
        (Strategy::OneForAll, &["-b", "-c", "-a", "+a", "+b", "+c"]),
    ];
    for (strategy, expected) in cases {
        let log = Log::default();
        simulate({
            let log = log.clone();
            || async move {
                let (running, b) = three(strategy, &log).await;
                let poison = b.try_ask(Poke(Act::Panic), LONG).unwrap();
                let after = b.try_ask(Poke(Act::Answer), LONG).unwrap();
                assert_eq!(poison.await, Err(AskError::Panicked));
                assert_eq!(after.await, Ok(()));
                // Long enough for the last sibling to be back.
                running.stop().await;
            }
        });
        let lines = log.lines();
        assert_eq!(lines[..3], ["+a", "+b", "+c"]);
        assert_eq!(&lines[3..3 + expected.len()], expected, "{strategy:?}");
        assert_eq!(lines[lines.len() - 3..], ["-c", "-b", "-a"], "{strategy:?}");
    }
}

// An actor stops by itself: a permanent one comes back, a transient or temporary one is gone for good; a panic
// brings back the transient one and not the temporary one.
#[test]
fn restart_policies_differ() {
    let cases = [
        (Restart::Permanent, Act::Stop, Ok(())),
        (Restart::Transient, Act::Stop, Err(AskError::Closed)),
        (Restart::Temporary, Act::Stop, Err(AskError::Closed)),
        (Restart::Transient, Act::Panic, Ok(())),
        (Restart::Temporary, Act::Panic, Err(AskError::Closed)),
    ];
    for (restart, act, expected) in cases {
        simulate(|| async {
            let mut tree = Tree::new("tree", Strategy::OneForOne);
            let a = tree
                .child(worker("a", &Log::default()).restart(restart))
                .of::<Poke>();
            let running = tree.start(Env::simulated(1, "node"));
            drop(a.ask(Poke(act), LONG).await);
            assert_eq!(
                a.ask(Poke(Act::Answer), LONG).await,
                expected,
                "{restart:?}"
            );
            assert_eq!(running.stop().await, Exit::Stopped);
        });
    }
}

// Backoff: with 100 ms doubled to at most 300 ms, the waits of four restarts in virtual time lie between half and
// whole of 100, 200, 300 and 300 ms.
#[test]
fn restarts_back_off() {
    let waits = simulate(|| async {
        let env = Env::simulated(1, "node");
        let mut tree = Tree::new("tree", Strategy::OneForOne).backoff(Backoff {
            min: ms(100),
            max: ms(300),
        });
        let a = tree.child(worker("a", &Log::default())).of::<Poke>();
        let running = tree.start(env.clone());
        let mut waits = Vec::new();
        for _ in 0..4 {
            assert_eq!(a.ask(Poke(Act::Panic), LONG).await, Err(AskError::Panicked));
            let fell = env.now();
            assert_eq!(a.ask(Poke(Act::Answer), LONG).await, Ok(()));
            waits.push(env.now() - fell);
        }
        running.stop().await;
        waits
    });
    for (wait, whole) in waits.iter().zip([100, 200, 300, 300]) {
        // A millisecond more: that is the grain of tokio's timers.
        assert!(
            *wait >= ms(whole / 2) && *wait <= ms(whole + 1),
            "{wait:?} of {whole} ms"
        );
    }
}

// A whole process on real threads: its root gives up, and it ends with a code that is not zero.
#[test]
fn an_escalated_process_ends_non_zero() {
    if is_own_process() {
        let exit = pqcnet_actor::run("doomed", |env| async {
            let none = Intensity {
                restarts: 0,
                within: Duration::from_secs(1),
            };
            let mut tree = Tree::new("tree", Strategy::OneForOne).intensity(none);
            let a = tree.child(worker("a", &Log::default())).of::<Poke>();
            let running = tree.start(env);
            drop(a.ask(Poke(Act::Panic), LONG).await);
            running.wait().await
        });
        std::process::exit(i32::from(exit.unwrap().code()));
    }
    let (code, output) = in_own_process("escalation::an_escalated_process_ends_non_zero");
    assert_eq!(code, Some(1), "{output}");
}

// An actor in a plain environment, which has no arbiters: the tree says so instead of hanging.
#[tokio::test]
async fn a_plain_environment_runs_no_actors() {
    let made = Arc::new(AtomicU32::new(0));
    let mut tree = Tree::new("tree", Strategy::OneForOne).intensity(Intensity {
        restarts: 0,
        within: Duration::from_secs(1),
    });
    let counted = Arc::clone(&made);
    tree.child(Spec::new("a", move |_| {
        counted.fetch_add(1, Ordering::Relaxed);
        Worker {
            name: "a",
            log: Log::default(),
        }
    }));
    let exit = tree.start(Env::plain()).wait().await;
    assert!(
        matches!(&exit, Exit::Escalated { cause, .. } if cause == "no arbiter to run on"),
        "{exit}"
    );
    assert_eq!(made.load(Ordering::Relaxed), 0);
}
