use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use pqcnet_p2p::control::{GossipConfig, Offence, Verdict};
use proptest::prelude::*;

use super::swarm::{Draws, Swarm, random_graph};
use super::*;

const TOPIC: Topic = Topic(0);

fn rules() -> Arc<Rules> {
    Rules::of(&GossipConfig::default()).unwrap()
}

fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

fn message(n: u32) -> Arc<Message> {
    Message::new(&rules(), TOPIC, Bytes::copy_from_slice(&n.to_be_bytes()))
}

/// One router, and what it sends.
struct Bench {
    router: Router,
    draws: Draws,
    now: Duration,
}

impl Bench {
    /// Takes part in the first topic; `peers` nodes do too, and were dialled by it or not.
    fn new(rules: &Arc<Rules>, peers: u32, outbound: bool) -> Bench {
        let mut bench = Bench {
            router: Router::new(rules.clone()),
            draws: Draws(7),
            now: Duration::ZERO,
        };
        bench.subscribe();
        for peer in 0..peers {
            bench.join(peer, outbound);
        }
        bench.sent();
        bench
    }

    fn subscribe(&mut self) {
        let draws = &mut self.draws;
        self.router.subscribe(self.now, TOPIC, &mut || draws.draw());
    }

    fn join(&mut self, peer: u32, outbound: bool) {
        self.router.connect(self.now, Peer(peer), outbound);
        self.receive(peer, Rpc::Subscribe(TOPIC.bit()));
    }

    fn receive(&mut self, from: u32, rpc: Rpc) {
        self.receive_frame(from, Frame::Rpc(rpc));
    }

    fn receive_frame(&mut self, from: u32, frame: Frame) {
        let draws = &mut self.draws;
        (self.router).receive(self.now, Peer(from), frame, &mut || draws.draw());
    }

    fn beat(&mut self, at: Duration) {
        self.now = at;
        let draws = &mut self.draws;
        self.router.heartbeat(self.now, &mut || draws.draw());
    }

    fn publish(&mut self, n: u32) -> Result<(), PublishError> {
        let draws = &mut self.draws;
        (self.router).publish(self.now, message(n), &mut || draws.draw())
    }

    fn sent(&mut self) -> Vec<(u32, Rpc)> {
        let mut all = Vec::new();
        while let Some((to, frame)) = self.router.poll_transmit(self.now) {
            if let Frame::Rpc(rpc) = frame {
                all.push((to.0, rpc));
            }
        }
        all
    }

    /// To whom messages go, in order.
    fn published(&mut self) -> Vec<u32> {
        let sent = self.sent();
        let to = sent
            .iter()
            .filter(|(_, rpc)| matches!(rpc, Rpc::Publish(_)));
        let mut to: Vec<u32> = to.map(|(to, _)| *to).collect();
        to.sort_unstable();
        to
    }

    fn mesh(&self) -> Vec<u32> {
        self.router.mesh(TOPIC).iter().map(|peer| peer.0).collect()
    }
}

fn swarm(nodes: u32, dials: u32, seed: u64) -> Swarm {
    let edges = random_graph(nodes, dials, seed);
    let latency =
        |from: Peer, to: Peer| Duration::from_millis(u64::from(20 + (from.0 ^ to.0) % 40));
    Swarm::new(
        &rules(),
        nodes,
        (&edges, Duration::from_millis(3)),
        latency,
        Duration::from_millis(2),
        seed,
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 8, ..ProptestConfig::default() })]

    // Scenario: nodes of a random graph take part in both topics for half a minute. Meshes are made of connected peers and
    // mutual, nobody is left alone, and all together they are nearly as full as limits and connections allow: in a sparse graph
    // a node may find all its peers' meshes full.
    #[test]
    fn meshes_settle(nodes in 12u32..40, dials in 3u32..9, seed: u64) {
        let mut swarm = swarm(nodes, dials, seed);
        swarm.run_until(secs(30));
        let p = rules().parameters.clone();
        let (mut held, mut due) = (0, 0);
        for node in (0..nodes).map(Peer) {
            let router = swarm.router(node).unwrap();
            for topic in [Topic(0), Topic(1)] {
                let mesh = router.mesh(topic);
                prop_assert!(!mesh.is_empty() || router.peers() == 0);
                held += mesh.len().min(p.mesh_n_low);
                due += p.mesh_n_low.min(router.peers());
                prop_assert!(mesh.len() < p.mesh_n_high + p.mesh_outbound_min);
                for peer in mesh {
                    let other = swarm.router(*peer).unwrap().mesh(topic);
                    prop_assert!(other.contains(&node), "{node:?} and {peer:?}");
                }
            }
        }
        prop_assert!(held * 10 >= due * 9, "{held} of {due}");
    }

    // Scenario: ten messages of ten nodes in a settled network. Every other node judges each of them, and once; nobody is
    // reached over more hops than a mesh of that size needs.
    #[test]
    fn everybody_hears_once(nodes in 12u32..40, dials in 3u32..9, seed: u64) {
        let mut swarm = swarm(nodes, dials, seed);
        swarm.run_until(secs(10));
        for n in 0..10u32 {
            swarm.publish(Peer(n), TOPIC, Bytes::copy_from_slice(&n.to_be_bytes())).unwrap();
            swarm.run_until(secs(11 + u64::from(n)));
        }
        swarm.run_until(secs(30));
        prop_assert_eq!(swarm.tally().fresh, 10 * u64::from(nodes - 1));
        prop_assert_eq!(swarm.deliveries().count() as u64, 10 * u64::from(nodes));
        for (_, _, delivery) in swarm.deliveries() {
            prop_assert!(delivery.hops <= 8, "{delivery:?}");
        }
    }

    // Scenario: peers come and go and send whatever they like. What a router holds and sends stays within its bounds, and
    // its meshes are made of connected peers that take part.
    #[test]
    fn bounded_whatever_comes(steps in prop::collection::vec((0u32..20, 0u8..9, any::<u64>()), 1..300)) {
        let rules = rules();
        let p = &rules.parameters;
        let mut bench = Bench::new(&rules, 0, false);
        let (mut connected, mut asked) = (BTreeSet::new(), 0);
        for (peer, what, number) in steps {
            bench.now += Duration::from_millis(number % 50);
            let key = Key(number);
            match what {
                0 => {
                    connected.insert(Peer(peer));
                    bench.join(peer, number % 2 == 0);
                }
                1 => {
                    connected.remove(&Peer(peer));
                    bench.router.disconnect(Peer(peer));
                }
                2 => bench.receive(peer, Rpc::Graft(Topic((number % 2) as u8))),
                3 => bench.receive(peer, Rpc::Prune { topic: TOPIC, backoff: number }),
                4 => {
                    let keys = (0..100).map(|n| Key(number.wrapping_add(n))).collect();
                    bench.receive(peer, Rpc::IHave { topic: TOPIC, keys });
                }
                5 => bench.receive(peer, Rpc::IWant([key].into())),
                6 => bench.receive(peer, Rpc::Publish(message(peer))),
                7 => bench.receive(peer, Rpc::Unsubscribe(TOPIC)),
                _ => {
                    let now = bench.now;
                    bench.beat(now);
                    asked = 0;
                }
            }
            for (_, rpc) in bench.sent() {
                match rpc {
                    Rpc::IWant(keys) => asked += keys.len(),
                    Rpc::IHave { keys, .. } => prop_assert!(keys.len() <= p.max_ids),
                    _ => {}
                }
            }
            prop_assert!(asked <= p.max_ids * 20);
            for peer in bench.router.mesh(TOPIC) {
                prop_assert!(connected.contains(peer));
                prop_assert!(bench.router.find(*peer).unwrap().takes_part(TOPIC));
            }
            prop_assert!(bench.router.peers() == connected.len());
        }
    }
}

// Scenario: the same seed twice, then another one. The first two runs are one to the last delivery.
#[test]
fn same_seed_same_run() {
    let run = |seed| {
        let mut swarm = swarm(30, 6, seed);
        swarm.run_until(secs(8));
        swarm
            .publish(Peer(3), TOPIC, Bytes::from_static(b"hello"))
            .unwrap();
        swarm.run_until(secs(12));
        let all: Vec<_> = swarm.deliveries().collect();
        (swarm.tally().clone(), all)
    };
    let (first, second, other) = (run(1), run(1), run(2));
    assert_eq!(first, second);
    assert_ne!(first, other);
}

// Scenario: a message arrives, a second peer brings it too, and only then comes the verdict. Until then nobody hears of it;
// afterwards the mesh gets it, but for the two that had it. What is rejected or ignored goes nowhere, and is not told of.
#[test]
fn nothing_before_a_verdict() {
    let mut bench = Bench::new(&rules(), 5, false);
    assert_eq!(bench.mesh(), [0, 1, 2, 3, 4]);
    for (n, verdict) in [Verdict::Accept, Verdict::Reject, Verdict::Ignore]
        .into_iter()
        .enumerate()
    {
        let it = message(n as u32);
        bench.receive(0, Rpc::Publish(it.clone()));
        bench.receive(3, Rpc::Publish(it.clone()));
        let Some(Event::Judge { from, message }) = bench.router.poll_event() else {
            panic!("it is to be judged");
        };
        assert_eq!((from, message.key()), (Peer(0), it.key()));
        assert!(bench.router.poll_event().is_none());
        assert!(bench.sent().is_empty());
        bench.router.verdict(bench.now, it.key(), from, verdict);
        let expected: &[u32] = if verdict == Verdict::Accept {
            &[1, 2, 4]
        } else {
            &[]
        };
        assert_eq!(bench.published(), expected);
    }
    bench.join(9, false);
    bench.sent();
    bench.beat(secs(1));
    let told = bench.sent();
    let told: Vec<_> = told
        .iter()
        .filter(|(_, rpc)| matches!(rpc, Rpc::IHave { .. }))
        .collect();
    let [(9, Rpc::IHave { keys, .. })] = told.as_slice() else {
        panic!("{told:?}");
    };
    assert_eq!(**keys, [message(0).key()]);
}

// Scenario: a peer prunes us. It is not grafted for a minute and one heartbeat, and a GRAFT of its own before the minute is
// over is answered with a PRUNE; after it, it is taken.
#[test]
fn backoff() {
    let mut bench = Bench::new(&rules(), 5, false);
    bench.receive(
        2,
        Rpc::Prune {
            topic: TOPIC,
            backoff: 60,
        },
    );
    assert_eq!(bench.mesh(), [0, 1, 3, 4]);
    let mut grafted = Vec::new();
    for beat in 1..70 {
        bench.beat(secs(beat));
        let sent = bench.sent();
        grafted.extend(
            sent.iter()
                .filter(|(_, rpc)| matches!(rpc, Rpc::Graft(_)))
                .map(|(to, _)| (beat, *to)),
        );
    }
    assert_eq!(grafted, [(62, 2)]);

    let mut bench = Bench::new(&rules(), 5, false);
    bench.receive(
        2,
        Rpc::Prune {
            topic: TOPIC,
            backoff: 60,
        },
    );
    bench.now = secs(59);
    bench.receive(2, Rpc::Graft(TOPIC));
    let sent = bench.sent();
    assert!(
        matches!(sent.as_slice(), [(2, Rpc::Prune { backoff: 60, .. })]),
        "{sent:?}"
    );
    bench.now = secs(59 + 60);
    bench.receive(2, Rpc::Graft(TOPIC));
    assert!(bench.sent().is_empty());
    assert_eq!(bench.mesh(), [0, 1, 2, 3, 4]);
}

// Scenario: a mesh with many GRAFTs. It takes them to its upper limit, one it dialled even then; the next heartbeat cuts it
// down to six and keeps two that this node dialled.
#[test]
fn mesh_limits() {
    let mut bench = Bench::new(&rules(), 30, false);
    assert_eq!(bench.mesh().len(), 5);
    bench.join(40, true);
    bench.join(41, true);
    for peer in 0..30 {
        bench.receive(peer, Rpc::Graft(TOPIC));
    }
    assert_eq!(bench.mesh().len(), 12);
    let refused = bench.sent();
    assert_eq!(
        refused
            .iter()
            .filter(|(_, rpc)| matches!(rpc, Rpc::Prune { .. }))
            .count(),
        18
    );
    bench.receive(40, Rpc::Graft(TOPIC));
    bench.receive(41, Rpc::Graft(TOPIC));
    assert_eq!(bench.mesh().len(), 14);
    bench.beat(secs(1));
    let mesh = bench.mesh();
    assert_eq!(mesh.len(), 6);
    assert!(mesh.contains(&40) && mesh.contains(&41), "{mesh:?}");
}

// Scenario: two peers say that they have a message. It is asked of the first alone; a peer that asks gets it three times and
// no more.
#[test]
fn asking() {
    let mut bench = Bench::new(&rules(), 8, false);
    let keys: Arc<[Key]> = [message(1).key()].into();
    bench.receive(
        6,
        Rpc::IHave {
            topic: TOPIC,
            keys: keys.clone(),
        },
    );
    let sent = bench.sent();
    assert!(
        matches!(sent.as_slice(), [(6, Rpc::IWant(asked))] if *asked == keys),
        "{sent:?}"
    );
    for beat in 1..=3 {
        bench.beat(secs(beat));
        bench.receive(
            7,
            Rpc::IHave {
                topic: TOPIC,
                keys: keys.clone(),
            },
        );
        assert!(
            bench
                .sent()
                .iter()
                .all(|(_, rpc)| !matches!(rpc, Rpc::IWant(_)))
        );
    }
    bench.publish(2).unwrap();
    assert_eq!(bench.published().len(), 8);
    let mut answers = 0;
    for _ in 0..5 {
        bench.receive(6, Rpc::IWant([message(2).key()].into()));
        answers += bench.published().len();
    }
    assert_eq!(answers, 3);
}

// Scenario: a peer that does not read. Its window takes 256 KiB, its queue sixteen messages more, the rest is dropped and told
// of at the heartbeat; what waits longer than its time is dropped too; when the peer reads again, it gets what is left.
#[test]
fn who_does_not_read() {
    let rules = rules();
    let mut bench = Bench::new(&rules, 1, false);
    let big = |n: u32| {
        let mut data = vec![0; 16 * 1024];
        data[..4].copy_from_slice(&n.to_be_bytes());
        Message::new(&rules, TOPIC, data.into())
    };
    let mut draws = Draws(1);
    let mut sent = 0;
    for n in 0..40 {
        let published = bench
            .router
            .publish(bench.now, big(n), &mut || draws.draw());
        assert_eq!(published.is_ok(), n < 32, "{n}");
        sent += bench.published().len();
    }
    assert_eq!(sent, 16);
    bench.beat(secs(1));
    let event = bench.router.poll_event();
    assert!(
        matches!(
            event,
            Some(Event::Unread {
                peer: Peer(0),
                messages: 8
            })
        ),
        "{event:?}"
    );
    bench.now = secs(6);
    bench.receive_frame(0, Frame::Window(256 * 1024));
    assert!(bench.published().is_empty());
    bench.publish(1).unwrap();
    assert_eq!(bench.published(), [0]);
}

// Scenario: a peer sends a burst. What its budget does not cover waits, in order, and is read as the budget refills; the
// sender hears of room only as it is read.
#[test]
fn who_sends_too_much() {
    let mut bench = Bench::new(&rules(), 1, false);
    for n in 0..400 {
        bench.receive(0, Rpc::Publish(message(n)));
    }
    let judged = |bench: &mut Bench| {
        let mut all = Vec::new();
        while let Some(Event::Judge { message, .. }) = bench.router.poll_event() {
            all.push(message.data().clone());
        }
        all
    };
    // 256 and the one that overdrew, less the subscription.
    let first = judged(&mut bench).len();
    assert_eq!(first, 256);
    let mut rest = Vec::new();
    while let Some(at) = bench.router.next_deadline() {
        bench.now = at;
        let draws = &mut bench.draws;
        bench.router.wake(at, &mut || draws.draw());
        rest.extend(judged(&mut bench));
    }
    let expected: Vec<Bytes> = (256..400).map(|n| message(n).data().clone()).collect();
    assert_eq!(rest, expected);
    // 32 a second.
    assert_eq!(bench.now.as_secs(), 400 / 32 - 8);
    assert_eq!(bench.router.sent(Peer(0)).throttled, 145);
    // Its budget full again, it sends more GRAFTs than a mesh needs.
    bench.now += secs(10);
    for _ in 0..65 {
        bench.receive(0, Rpc::Graft(TOPIC));
    }
    let mut told = None;
    while let Some(event) = bench.router.poll_event() {
        told = Some(event);
    }
    assert!(
        matches!(
            told,
            Some(Event::Misbehaved {
                peer: Peer(0),
                offence: Offence::Grafts
            })
        ),
        "{told:?}"
    );
}

// Scenario: a network whose configuration does not flood. A node outside a topic keeps the same six peers for its messages,
// replaces one that leaves, and forgets them a minute after the last message.
#[test]
fn fanout() {
    let mut changed = (*rules()).clone();
    changed.parameters.flood_publish = false;
    let rules = Arc::new(changed);
    let mut bench = Bench::new(&rules, 20, false);
    bench.router.unsubscribe(bench.now, TOPIC);
    bench.sent();
    bench.publish(1).unwrap();
    let first = bench.published();
    assert_eq!(first.len(), 6);
    bench.publish(2).unwrap();
    assert_eq!(bench.published(), first);
    bench.router.disconnect(Peer(first[0]));
    bench.beat(secs(1));
    bench.sent();
    bench.publish(3).unwrap();
    let second = bench.published();
    assert_eq!(second.len(), 6);
    assert!(second.iter().filter(|peer| first.contains(peer)).count() == 5);
    bench.beat(secs(1 + 61));
    assert!(bench.router.fanouts.iter().all(Option::is_none));
}

// Scenario: the sizes of frames are what the bytes on a connection would be: protobuf's, computed by hand from its fields.
#[test]
fn sizes() {
    let rules = rules();
    let size = |rpc: Rpc| rules.size(&Frame::Rpc(rpc)) - ENVELOPE;
    // length 1 · publish (1 + 1) · data (1 + 1 + 4) · topic "adverts" (1 + 1 + 7)
    assert_eq!(size(Rpc::Publish(message(1))), 18);
    // length 1 · subscription (1 + 1) · subscribe (1 + 1) · topic (1 + 1 + 7)
    assert_eq!(size(Rpc::Subscribe(TOPIC.bit())), 14);
    // length 1 · control (1 + 1) · graft (1 + 1) · topic (1 + 1 + 7)
    assert_eq!(size(Rpc::Graft(TOPIC)), 14);
    // … and backoff 60 (1 + 1)
    assert_eq!(
        size(Rpc::Prune {
            topic: TOPIC,
            backoff: 60
        }),
        16
    );
    // length 2 · control (1 + 2) · iwant (1 + 2) · 32 ids (1 + 1 + 32)
    assert_eq!(
        size(Rpc::IWant(vec![Key(1); 32].into())),
        2 + 3 + 3 + 32 * 34
    );
    let big = Message::new(&rules, TOPIC, vec![0; 16 * 1024].into());
    // length 3 · publish (1 + 3) · data (1 + 3 + 16384) · topic (1 + 1 + 7)
    assert_eq!(size(Rpc::Publish(big)), 3 + 4 + 4 + 16_384 + 9);
}

// Scenario: a peer tells of a message, is asked for it and is silent. Another that tells of it meanwhile is not asked, not even
// at the very end of the followup time; from the first heartbeat after it on, it is. What then comes is asked of nobody.
#[test]
fn an_unanswered_iwant_is_repeated_elsewhere() {
    let asked = |bench: &mut Bench| -> Vec<u32> {
        let sent = bench.sent();
        let wants = sent.iter().filter(|(_, rpc)| matches!(rpc, Rpc::IWant(_)));
        wants.map(|(to, _)| *to).collect()
    };
    let mut bench = Bench::new(&rules(), 3, false);
    let told = |bench: &mut Bench, from: u32| {
        let keys = Arc::from([message(1).key()]);
        bench.receive(from, Rpc::IHave { topic: TOPIC, keys });
    };
    told(&mut bench, 0);
    assert_eq!(asked(&mut bench), [0]);
    for beat in 1..=3 {
        bench.beat(secs(beat));
        told(&mut bench, 1);
        assert_eq!(asked(&mut bench), [0; 0], "after {beat} s");
    }
    bench.beat(secs(4));
    told(&mut bench, 1);
    told(&mut bench, 2);
    assert_eq!(asked(&mut bench), [1]);
    bench.receive(1, Rpc::Publish(message(1)));
    bench.beat(secs(9));
    told(&mut bench, 2);
    assert_eq!(asked(&mut bench), [0; 0]);
}
