//! The same seed gives the same run, event for event.

use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use pqcnet_actor::{
    Alarm, Behaviour, Class, Cx, Env, Message, On, Ref, Reply, Running, Spec, Strategy, Tree,
    simulate,
};
use rand_core::Rng;

use crate::{in_own_process, is_own_process, ms};

const NODES: usize = 50;
const ACTORS: usize = 8;
const RUN_FOR: Duration = Duration::from_secs(5);

/// FNV-1a over every event in the order it happened.
#[derive(Clone)]
struct Events(Arc<Mutex<(u64, u64)>>);

impl Events {
    fn add(&self, what: &[u64]) {
        let (hash, count) = &mut *self.0.lock().unwrap();
        *count += 1;
        for byte in what.iter().flat_map(|word| word.to_be_bytes()) {
            *hash = (*hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01B3);
        }
    }
}

struct Gossip {
    hops: u32,
    value: u64,
}
impl Message for Gossip {
    type Reply = ();
    const NAME: &'static str = "Gossip";
    const CLASS: Class = Class::Bulk;
}
struct Question(u64);
impl Message for Question {
    type Reply = u64;
    const NAME: &'static str = "Question";
}

type Everyone = Arc<OnceLock<Vec<(Ref<Gossip>, Ref<Question>)>>>;

struct Peer {
    id: u64,
    everyone: Everyone,
    events: Events,
    alarm: Alarm<Peer>,
}

impl Peer {
    fn log(&self, kind: u64, value: u64, cx: &Cx<Self>) {
        let now = u64::try_from(cx.now().as_nanos()).unwrap();
        self.events.add(&[kind, self.id, now, value]);
    }

    fn anyone(&self, cx: &mut Cx<Self>) -> (Ref<Gossip>, Ref<Question>) {
        let everyone = self.everyone.get().unwrap();
        let n = u64::try_from(everyone.len()).unwrap();
        let index = usize::try_from(cx.rng().next_u64() % n).unwrap();
        everyone[index].clone()
    }

    fn tick(&mut self, cx: &mut Cx<Self>) {
        let value = cx.rng().next_u64();
        self.log(0, value, cx);
        // One tick in 512 is fatal: restarts are part of the run.
        assert_ne!(value % 512, 0, "the dice said so");
        let (gossip, question) = self.anyone(cx);
        drop(gossip.try_tell(Gossip { hops: 6, value }));
        cx.ask(
            &question,
            Question(value),
            ms(40),
            |peer: &mut Peer, answer, cx| {
                peer.log(1, answer.unwrap_or(0), cx);
            },
        );
        cx.offload(
            move || value.rotate_left(7),
            |peer: &mut Peer, result, cx| {
                peer.log(2, result.unwrap(), cx);
            },
        );
        let next = cx.now() + Duration::from_micros(50_000 + value % 400_000);
        self.alarm.set(cx, Some(next));
    }
}

impl Behaviour for Peer {
    const NAME: &'static str = "Peer";
    fn started(&mut self, cx: &mut Cx<Self>) {
        self.log(3, 0, cx);
        let first = cx.now() + Duration::from_micros(cx.rng().next_u64() % 100_000);
        self.alarm.set(cx, Some(first));
        cx.every(ms(997), |peer: &mut Peer, cx| peer.log(4, 0, cx));
    }
}
impl On<Gossip> for Peer {
    fn on(&mut self, gossip: Gossip, cx: &mut Cx<Self>) -> Reply<Gossip> {
        self.log(5, gossip.value, cx);
        if gossip.hops > 0 {
            let (next, _) = self.anyone(cx);
            let value = gossip.value ^ cx.rng().next_u64();
            let latency = cx
                .env()
                .sleep(Duration::from_micros(1_000 + value % 80_000));
            let hops = gossip.hops - 1;
            cx.spawn(latency, move |_, (), _| {
                drop(next.try_tell(Gossip { hops, value }));
            });
        }
        Reply::Now(())
    }
}
impl On<Question> for Peer {
    fn on(&mut self, question: Question, cx: &mut Cx<Self>) -> Reply<Question> {
        self.log(6, question.0, cx);
        let (promise, reply) = Reply::later();
        let delay = Duration::from_micros(question.0 % 60_000);
        cx.after(delay, move |_, _| promise.fulfil(question.0 ^ 1));
        reply
    }
}

fn run(seed: u64) -> (u64, u64) {
    simulate(|| async move {
        let events = Events(Arc::new(Mutex::new((0xCBF2_9CE4_8422_2325, 0))));
        let everyone = Everyone::default();
        let mut refs = Vec::new();
        let mut trees = Vec::new();
        for node in 0..NODES {
            let mut tree =
                Tree::new("node", Strategy::OneForOne).intensity(pqcnet_actor::Intensity {
                    restarts: 1_000,
                    within: RUN_FOR,
                });
            for actor in 0..ACTORS {
                let id = u64::try_from(node * ACTORS + actor).unwrap();
                let (everyone, events) = (everyone.clone(), events.clone());
                let addr = tree.child(Spec::new(format!("peer{actor}"), move |_| Peer {
                    id,
                    everyone: everyone.clone(),
                    events: events.clone(),
                    alarm: Alarm::new(Peer::tick),
                }));
                refs.push((addr.of::<Gossip>(), addr.of::<Question>()));
            }
            trees.push((node, tree));
        }
        assert!(everyone.set(refs).is_ok());
        let running: Vec<Running> = trees
            .into_iter()
            .map(|(node, tree)| tree.start(Env::simulated(seed, &format!("node{node}"))))
            .collect();
        tokio::time::sleep(RUN_FOR).await;
        for node in running {
            node.stop().await;
        }
        *events.0.lock().unwrap()
    })
}

// 50 nodes of 8 actors gossip, ask, offload, set timers and now and then fall, for five virtual seconds: twice in this
// process and once in another the hash over all events is the same; another seed gives another.
#[test]
fn fifty_nodes_repeat_exactly() {
    let (hash, events) = run(42);
    if is_own_process() {
        println!("hash {hash:016x} of {events} events");
        return;
    }
    assert!(events > 50_000, "only {events} events");
    assert_eq!(run(42), (hash, events));
    assert_ne!(run(43).0, hash);
    let (code, output) = in_own_process("determinism::fifty_nodes_repeat_exactly");
    assert_eq!(code, Some(0));
    assert!(
        output.contains(&format!("hash {hash:016x} of {events} events")),
        "{output}"
    );
}
