//! The dialler with users and links at its ends, in virtual time.
#![allow(clippy::unwrap_used, reason = "a test's helpers fail as the test does")]

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::FutureExt as _;
use futures::channel::oneshot;
use pqcnet_actor::{
    Carrier, Env, Letter, Message, Path, Posting, Ref, Running, Spec, Strategy, TellError, Tree,
    Watch, simulate,
};
use pqcnet_crypto::NodeId;
use pqcnet_mesh::{Dialler, DiallerConfig, Linked, User};
use pqcnet_messages::mesh::{LinkDown, LinkUp};

const PEER: NodeId = NodeId::from_bytes([1; 32]);

/// A link of the test: its number.
type Link = u32;

#[derive(Default)]
struct Script {
    /// What the next dials meet; after these every dial succeeds.
    failures: VecDeque<&'static str>,
    /// How often the user's mailbox is full before it takes the next fact.
    full: u32,
    dials: Vec<Duration>,
    facts: Vec<String>,
    open: Vec<oneshot::Sender<String>>,
}

type Shared = Arc<Mutex<Script>>;

/// A user whose mailbox can be full.
struct Ear<M> {
    script: Shared,
    tell: fn(&M) -> String,
    path: Path,
}

impl<M: Message<Reply = ()>> Carrier<M> for Ear<M>
where
    Ear<M>: Send + Sync,
{
    fn post(&self, letter: Letter<M>) -> Result<(), TellError<Letter<M>>> {
        let mut script = self.script.lock().unwrap();
        if script.full > 0 {
            script.full -= 1;
            return Err(TellError::Full(letter));
        }
        let fact = (self.tell)(&letter.msg);
        script.facts.push(fact);
        Ok(())
    }

    fn post_when_free(&self, _: Letter<M>) -> Posting<'_, M> {
        unreachable!("an actor never waits")
    }

    fn free(&self) -> usize {
        1
    }

    fn path(&self) -> &Path {
        &self.path
    }

    fn watch(&self) -> Watch {
        Watch::pair(self.path.clone()).1
    }
}

fn ear<M: Message<Reply = ()> + Sync>(script: &Shared, tell: fn(&M) -> String) -> Ref<M> {
    Ref::from_carrier(Arc::new(Ear {
        script: script.clone(),
        tell,
        path: Path::root("user"),
    }))
}

fn start(script: &Shared) -> (Env, Running) {
    let env = Env::simulated(1, "node");
    let (dialled, clock) = (script.clone(), env.clone());
    let dial = Arc::new(move |peer: NodeId| {
        assert_eq!(peer, PEER);
        let mut script = dialled.lock().unwrap();
        script.dials.push(clock.now());
        let outcome = match script.failures.pop_front() {
            Some(reason) => Err(reason.into()),
            None => {
                let (open, closed) = oneshot::channel();
                script.open.push(open);
                let closed = closed.map(|reason| reason.unwrap_or_default()).boxed();
                let link = script.open.len() as Link;
                Ok(Linked { link, closed })
            }
        };
        std::future::ready(outcome).boxed()
    });
    let user = User {
        up: ear(script, |up: &LinkUp<Link>| format!("up {}", up.link)),
        down: ear(script, |_: &LinkDown| "down".to_owned()),
    };
    let config = DiallerConfig::new(dial, BTreeMap::from([(PEER, user)]));
    let mut tree = Tree::new("node", Strategy::OneForOne);
    tree.child(Spec::new("dialler", move |_| Dialler::new(config.clone())));
    let running = tree.start(env.clone());
    (env, running)
}

fn close(script: &Shared) {
    let open = script.lock().unwrap().open.pop().unwrap();
    open.send("gone".to_owned()).unwrap();
}

/// Two dials fail, the third makes the link; pauses lie between the floor and the doubled ceiling. The link goes: its user
/// hears it, and then of the next one.
#[test]
fn keeps_a_link() {
    simulate(|| async {
        let script = Shared::default();
        script.lock().unwrap().failures = VecDeque::from(["refused", "wrong identity"]);
        let (env, running) = start(&script);
        env.sleep(Duration::from_secs(2)).await;
        {
            let script = script.lock().unwrap();
            assert_eq!(script.facts, ["up 1"]);
            let pauses: Vec<u128> = script
                .dials
                .windows(2)
                .map(|pair| (pair[1] - pair[0]).as_millis())
                .collect();
            assert_eq!(pauses.len(), 2);
            assert!((100..=101).contains(&pauses[0]), "{pauses:?}");
            assert!((100..=201).contains(&pauses[1]), "{pauses:?}");
        }
        close(&script);
        env.sleep(Duration::from_secs(2)).await;
        assert_eq!(script.lock().unwrap().facts, ["up 1", "down", "up 1"]);
        running.stop().await;
    });
}

/// The user's mailbox is full when the link comes, and again when it goes: each fact is told once there is room, and
/// nothing is dialled before the user knows that the old link is gone.
#[test]
fn facts_wait_for_room() {
    simulate(|| async {
        let script = Shared::default();
        script.lock().unwrap().full = 3;
        let (env, running) = start(&script);
        env.sleep(Duration::from_millis(100)).await;
        assert_eq!(script.lock().unwrap().facts, Vec::<String>::new());
        env.sleep(Duration::from_millis(100)).await;
        assert_eq!(script.lock().unwrap().facts, ["up 1"]);
        script.lock().unwrap().full = 100;
        close(&script);
        env.sleep(Duration::from_secs(4)).await;
        assert_eq!(script.lock().unwrap().dials.len(), 1);
        env.sleep(Duration::from_secs(4)).await;
        assert_eq!(script.lock().unwrap().facts, ["up 1", "down", "up 1"]);
        running.stop().await;
    });
}
