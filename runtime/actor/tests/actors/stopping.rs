//! Trees stop in reverse order, each actor within its deadline.

use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;

use pqcnet_actor::{
    AskError, Behaviour, Cx, Env, Exit, Life, Message, On, Reply, Spec, Stopping, Strategy,
    Threads, Tree, run_on, simulate,
};

use crate::{LONG, Log, ms};

struct Leaver {
    name: &'static str,
    /// `None`: stops at once.
    drains_for: Option<Duration>,
    log: Log,
}
impl Behaviour for Leaver {
    const NAME: &'static str = "Leaver";
    fn started(&mut self, _: &mut Cx<Self>) {
        self.log.push(format!("+{}", self.name));
    }
    fn stopping(&mut self, cx: &mut Cx<Self>) -> Stopping {
        self.log
            .push(format!("{} asked at {:?}", self.name, cx.now()));
        match self.drains_for {
            None => Stopping::Now,
            Some(time) => {
                cx.after(time, |_, cx| cx.stop());
                Stopping::Draining
            }
        }
    }
    fn describe(&self) -> String {
        format!("{} is here", self.name)
    }
}
impl Drop for Leaver {
    fn drop(&mut self) {
        self.log.push(format!("-{}", self.name));
    }
}
struct Ping;
impl Message for Ping {
    type Reply = &'static str;
    const NAME: &'static str = "Ping";
}
impl On<Ping> for Leaver {
    fn on(&mut self, _: Ping, _: &mut Cx<Self>) -> Reply<Ping> {
        Reply::Now(self.name)
    }
}

fn leaver(name: &'static str, drains_for: Option<Duration>, log: &Log) -> Spec<Leaver> {
    let log = log.clone();
    Spec::new(name, move |_| Leaver {
        name,
        drains_for,
        log: log.clone(),
    })
}

// Four children; `c` drains for 300 ms of its 500, `b` would drain for ever and is cut off after its 200 ms. They go
// in reverse, each asked only when the one after it is gone, at exact virtual times, and the exit names `b`.
#[test]
fn children_stop_in_reverse_within_their_deadlines() {
    let log = Log::default();
    let exit = simulate({
        let log = log.clone();
        || async move {
            let env = Env::simulated(1, "node");
            let mut tree = Tree::new("tree", Strategy::OneForOne);
            tree.child(leaver("a", None, &log));
            tree.child(leaver("b", Some(LONG), &log).shutdown(ms(200)));
            let c = tree.child(leaver("c", Some(ms(300)), &log).shutdown(ms(500)));
            tree.child(leaver("d", None, &log));
            let running = tree.start(env.clone());
            running.started().await.unwrap();
            let infos = running.inspect().await;
            let states: Vec<_> = infos
                .iter()
                .map(|info| info.state.clone().unwrap())
                .collect();
            assert!(states[1].starts_with("b is here"), "{states:?}");

            let stopping = env.task({
                let running = running.clone();
                async move { running.stop().await }
            });
            env.sleep(ms(100)).await;
            // While it drains it serves.
            assert_eq!(c.of::<Ping>().ask(Ping, LONG).await, Ok("c"));
            assert_eq!(running.inspect().await[2].life, Life::Draining);
            let exit = stopping.await.unwrap();
            assert_eq!(c.of::<Ping>().ask(Ping, LONG).await, Err(AskError::Closed));
            assert_eq!(env.counters().killed, 1);
            exit
        }
    });
    assert_eq!(
        log.lines(),
        [
            "+a",
            "+b",
            "+c",
            "+d",
            "d asked at 0ns",
            "-d",
            "c asked at 0ns",
            "-c",
            "b asked at 300ms",
            "-b",
            "a asked at 500ms",
            "-a"
        ]
    );
    let Exit::Overran { late } = &exit else {
        panic!("{exit}");
    };
    let late: Vec<_> = late.iter().map(pqcnet_actor::Path::as_str).collect();
    assert_eq!(late, ["tree/b"]);
    assert_eq!(exit.code(), 0);
}

// A tree of trees stops depth first, in reverse.
#[test]
fn subtrees_stop_in_their_place() {
    let log = Log::default();
    simulate({
        let log = log.clone();
        || async move {
            let mut inner = Tree::new("inner", Strategy::OneForAll);
            inner.child(leaver("b", None, &log));
            inner.child(leaver("c", None, &log));
            let mut tree = Tree::new("tree", Strategy::RestForOne);
            tree.child(leaver("a", None, &log));
            tree.subtree(inner);
            tree.child(leaver("d", None, &log));
            let running = tree.start(Env::simulated(1, "node"));
            running.started().await.unwrap();
            assert_eq!(running.stop().await, Exit::Stopped);
        }
    });
    let lines: Vec<_> = log
        .lines()
        .into_iter()
        .filter(|line| !line.contains("asked"))
        .collect();
    assert_eq!(lines, ["+a", "+b", "+c", "+d", "-d", "-c", "-b", "-a"]);
}

// A stop that comes before the tree is up: what was started is stopped, the rest never starts.
#[test]
fn a_stop_during_the_start_is_obeyed() {
    let log = Log::default();
    let exit = simulate({
        let log = log.clone();
        || async move {
            let mut tree = Tree::new("tree", Strategy::OneForOne);
            for _ in 0..3 {
                tree.child(leaver("a", None, &log));
            }
            let running = tree.start(Env::simulated(1, "node"));
            running.stop().await
        }
    });
    assert_eq!(exit, Exit::Stopped);
    let started = log
        .lines()
        .iter()
        .filter(|line| line.starts_with('+'))
        .count();
    let dropped = log
        .lines()
        .iter()
        .filter(|line| line.starts_with('-'))
        .count();
    assert_eq!(started, dropped);
}

struct Blocked {
    entered: SyncSender<()>,
    held: Receiver<()>,
}
impl Behaviour for Blocked {
    const NAME: &'static str = "Blocked";
}
impl On<Ping> for Blocked {
    fn on(&mut self, _: Ping, _: &mut Cx<Self>) -> Reply<Ping> {
        self.entered.send(()).unwrap();
        self.held.recv().unwrap();
        Reply::Now("released")
    }
}

// On real threads: one actor's handler blocks its arbiter and cannot be reached. The stop gives up on it, names it,
// and still stops the others.
#[test]
fn a_blocked_handler_does_not_hold_up_the_stop() {
    let log = Log::default();
    let threads = Threads {
        workers: 1,
        arbiters: 2,
    };
    let exit = run_on(threads, "blocked", {
        let log = log.clone();
        |env| async move {
            let (release, held) = sync_channel(1);
            let (entered, inside) = sync_channel(1);
            let mut ends = Some((entered, held));
            let mut tree = Tree::new("tree", Strategy::OneForOne);
            tree.child(leaver("a", None, &log));
            let blocked = Spec::new("blocked", move |_| {
                let (entered, held) = ends.take().unwrap();
                Blocked { entered, held }
            });
            let ping = tree.child(blocked.shutdown(ms(20)).place(1)).of::<Ping>();
            let running = tree.start(env);
            running.started().await.unwrap();
            let answer = ping.try_ask(Ping, LONG).unwrap();
            while inside.try_recv().is_err() {
                tokio::task::yield_now().await;
            }
            let exit = running.stop().await;
            // Its answer still comes, and its arbiter can end.
            release.send(()).unwrap();
            assert_eq!(answer.await, Ok("released"));
            exit
        }
    })
    .unwrap();
    assert!(
        matches!(&exit, Exit::Overran { late } if late[0].as_str() == "tree/blocked"),
        "{exit}"
    );
    assert_eq!(log.lines().last().map(String::as_str), Some("-a"));
}
