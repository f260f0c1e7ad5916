use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt as _;
use futures::io::{AsyncReadExt as _, AsyncWriteExt as _};
use parking_lot::Mutex;
use pqcnet_crypto::NodeId;
use pqcnet_link::Role;
use pqcnet_p2p::control::{
    ControlConfig, ControlError, ControlEvent, ControlPlane as _, DialFailure, Gossip,
    GossipConfig, LookupConfig, Offence, UpgradeError, Verdict,
};
use pqcnet_p2p::handshake::{Security, SecurityConfig};
use pqcnet_p2p::network::Address;

use super::SimControl;
use crate::crypto::Crypto;
use crate::net::Cut;
use crate::world::{NodeNo, NodeSpec, World, WorldConfig};

const ADVERTS: &str = "adverts";
const PORT: u16 = 4001;

/// What the planes of a network have seen.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<(u32, String)>>>);

impl Log {
    fn note(&self, node: NodeNo, what: impl Into<String>) {
        self.0.lock().push((node.0, what.into()));
    }

    fn of(&self, node: u32) -> Vec<String> {
        let all = self.0.lock();
        all.iter()
            .filter(|(at, _)| *at == node)
            .map(|(_, what)| what.clone())
            .collect()
    }

    fn count(&self, what: &str) -> usize {
        self.0
            .lock()
            .iter()
            .filter(|(_, noted)| noted == what)
            .count()
    }
}

/// Machines with a control plane each and nothing else on them.
struct Net {
    world: World,
    log: Log,
    planes: Arc<Mutex<BTreeMap<u32, SimControl>>>,
}

impl Net {
    /// Planes that listen, gossip with everybody, accept what begins with `good`, and reject the rest.
    fn new(nodes: u32) -> Net {
        let config = WorldConfig {
            crypto: Crypto::Modelled,
            ..WorldConfig::new(11)
        };
        let mut world = World::new(config);
        world
            .add(NodeSpec::new("a-relayer", Role::Relayer))
            .unwrap();
        let network = {
            for n in 0..nodes {
                world
                    .add(NodeSpec::new(format!("n{n}"), Role::Client))
                    .unwrap();
            }
            world.network().unwrap().network_id()
        };
        let (log, planes) = (Log::default(), Arc::new(Mutex::new(BTreeMap::new())));
        for n in 1..=nodes {
            let node = NodeNo(n);
            world.start(node).unwrap();
            let env = world.env(node).unwrap();
            let (keys, net) = (world.keys(node), world.net().clone());
            let (log, planes) = (log.clone(), planes.clone());
            world.spawn(node, async move {
                let security =
                    Security::new(env.clone(), SecurityConfig::new(keys, network)).unwrap();
                let mut config = ControlConfig::new(security, 64);
                config.gossip = Some(GossipConfig::default());
                config.lookup = Some(LookupConfig::default());
                let (plane, mut events) = SimControl::start(&env, net, node, config).unwrap();
                plane.listen(&at(node)).await.unwrap();
                let judge = log.clone();
                let validator = move |heard: Gossip| {
                    judge.note(node, String::from_utf8_lossy(&heard.data).into_owned());
                    let good = heard.data.starts_with(b"good");
                    async move {
                        if good {
                            Verdict::Accept
                        } else {
                            Verdict::Reject
                        }
                    }
                    .boxed()
                };
                plane.subscribe(ADVERTS, Arc::new(validator)).await.unwrap();
                let check = |_: NodeId, record: Bytes, _| {
                    async move { record.starts_with(b"good") }.boxed()
                };
                plane.keep_records(Arc::new(check)).await.unwrap();
                planes.lock().insert(n, plane);
                while let Some(event) = events.next().await {
                    match event {
                        ControlEvent::PeerUp { .. } => log.note(node, "up"),
                        ControlEvent::PeerDown { .. } => log.note(node, "down"),
                        ControlEvent::Misbehaved { offence, .. } => {
                            log.note(node, offence.to_string())
                        }
                        ControlEvent::InboundFailed { .. } => log.note(node, "failed"),
                        ControlEvent::Substream(mut substream) => {
                            let log = log.clone();
                            env.spawn(async move {
                                let mut word = [0; 5];
                                let read = substream.stream.read_exact(&mut word).await;
                                log.note(node, format!("{:?} {:?}", read.is_ok(), &word));
                                substream.stream.write_all(b"back").await.unwrap();
                                let end = substream.stream.read(&mut word).await;
                                log.note(node, format!("end {}", end.is_err()));
                            });
                        }
                        other => log.note(node, format!("{other:?}")),
                    }
                }
            });
        }
        let mut net = Net { world, log, planes };
        net.pass(1);
        net
    }

    fn pass(&mut self, secs: u64) {
        let until = self.world.now() + Duration::from_secs(secs);
        self.world.run_until(until).unwrap();
    }

    fn id(&self, n: u32) -> NodeId {
        self.world.id(NodeNo(n))
    }

    /// Does something with a plane, on its node; what came of it, a few seconds later.
    fn ask<T, F>(&mut self, n: u32, work: impl FnOnce(SimControl) -> F) -> T
    where
        T: Send + 'static,
        F: Future<Output = T> + Send + 'static,
    {
        let plane = self.planes.lock()[&n].clone();
        let (found, done) = (Arc::new(Mutex::new(None)), work(plane));
        let out = found.clone();
        self.world.spawn(NodeNo(n), async move {
            let done = done.await;
            *out.lock() = Some(done);
        });
        self.pass(20);
        found.lock().take().expect("an outcome within 20 s")
    }

    fn dial(&mut self, from: u32, to: u32) -> Result<(), ControlError> {
        let (id, to) = (self.id(to), at(NodeNo(to)));
        self.ask(
            from,
            move |plane| async move { plane.dial(id, &[to]).await },
        )
    }
}

fn at(node: NodeNo) -> Address {
    let [_, b, c, d] = node.0.to_be_bytes();
    format!("{}.{c}.{d}.1:{PORT}", 11 + b).parse().unwrap()
}

// Scenario: a node dials another and opens a substream; bytes go both ways. It closes the connection: the other side hears of
// it, and the substream ends with it. What cannot be reached, or is somebody else, fails and says why.
#[test]
fn connections_and_substreams() {
    let mut net = Net::new(3);
    net.dial(1, 2).unwrap();
    assert_eq!(
        (net.log.of(1), net.log.of(2)),
        (vec!["up".into()], vec!["up".to_owned()])
    );
    net.dial(1, 2).unwrap();
    let two = net.id(2);
    let back = net.ask(1, move |plane| async move {
        let mut stream = plane.open(two).await.unwrap();
        stream.write_all(b"hello").await.unwrap();
        let mut back = [0; 4];
        stream.read_exact(&mut back).await.unwrap();
        plane.disconnect(two).await.unwrap();
        let gone = stream.write_all(b"more").await.is_err();
        (back, gone)
    });
    assert_eq!(back, (*b"back", true));
    assert_eq!(net.log.of(1), ["up", "down"]);
    let heard = net.log.of(2);
    assert_eq!(heard.iter().filter(|what| *what == "down").count(), 1);
    assert!(heard.contains(&format!("true {:?}", b"hello")), "{heard:?}");
    assert!(heard.contains(&"end true".to_owned()), "{heard:?}");

    let (three, elsewhere) = (net.id(3), at(NodeNo(2)));
    let wrong = net.ask(1, move |plane| async move {
        plane.dial(three, &[elsewhere]).await
    });
    let Err(ControlError::Dial { failures, .. }) = wrong else {
        panic!("{wrong:?}");
    };
    assert!(failures[0].1.handshake().is_some(), "{failures:?}");
    let nowhere: Address = "11.0.3.1:9".parse().unwrap();
    let refused = net.ask(1, move |plane| async move {
        plane.dial(three, &[nowhere]).await
    });
    let Err(ControlError::Dial { failures, .. }) = refused else {
        panic!("{refused:?}");
    };
    assert!(
        matches!(&failures[0].1, DialFailure::Upgrade(UpgradeError::Io(error)) if error.kind() == std::io::ErrorKind::ConnectionRefused),
        "{failures:?}"
    );
}

// Scenario: eight nodes in a ring with chords. A message reaches everybody once; a wrong one goes no further than the
// neighbours; who keeps bringing wrong ones is cut off.
#[test]
fn gossip() {
    let mut net = Net::new(8);
    for n in 1..=8 {
        net.dial(n, n % 8 + 1).unwrap();
        net.dial(n, (n + 2) % 8 + 1).unwrap();
    }
    net.ask(3, |plane| async move {
        plane.publish(ADVERTS, "good news".into()).await
    })
    .unwrap();
    assert_eq!(net.log.count("good news"), 7);
    let again = net.ask(3, |plane| async move {
        plane.publish(ADVERTS, "good news".into()).await
    });
    assert!(matches!(again, Err(ControlError::Duplicate)), "{again:?}");
    let weather = net.ask(3, |plane| async move {
        plane.publish("weather", "sun".into()).await
    });
    assert!(matches!(weather, Err(ControlError::NoPeers)), "{weather:?}");

    for n in 0..16 {
        net.ask(3, move |plane| async move {
            plane.publish(ADVERTS, format!("bad {n}").into()).await
        })
        .unwrap();
    }
    // Three is connected with 4, 6, 2 and 8.
    assert_eq!(net.log.count("bad 0"), 4);
    let counters = net.ask(2, |plane| async move { plane.counters().await.unwrap() });
    let three = net.id(3);
    let of_three = counters.iter().find(|counters| counters.peer == three);
    assert_eq!(of_three.map(|counters| counters.rejected), Some(16));
    // One was forgiven while we looked.
    for luck in ["bad luck", "bad luck again"] {
        net.ask(3, move |plane| async move {
            plane.publish(ADVERTS, luck.into()).await
        })
        .unwrap();
    }
    assert_eq!(net.log.count(&Offence::Rejected.to_string()), 4);
    let lonely = net.ask(3, |plane| async move {
        plane.publish(ADVERTS, "good".into()).await
    });
    assert!(matches!(lonely, Err(ControlError::NoPeers)), "{lonely:?}");
}

// Scenario: a network in two halves that do not hear each other for a while. What was published meanwhile comes over once the
// cut is healed.
#[test]
fn a_cut_heals() {
    let mut net = Net::new(4);
    for (from, to) in [(1, 2), (3, 4), (2, 3)] {
        net.dial(from, to).unwrap();
    }
    let halves = vec![vec![NodeNo(1), NodeNo(2)], vec![NodeNo(3), NodeNo(4)]];
    let cut = net.world.net().cut(Cut::Groups(halves));
    net.ask(1, |plane| async move {
        plane.publish(ADVERTS, "good tidings".into()).await
    })
    .unwrap();
    assert_eq!(net.log.count("good tidings"), 1);
    assert!(net.world.net().heal(cut));
    net.pass(60);
    assert_eq!(net.log.count("good tidings"), 3);
}

// Scenario: nodes that know of each other by address alone. One announces its record; others find it without having been
// connected, and what was dialled for it is closed again. A record that nobody has, and one that fails the check, is none.
#[test]
fn records() {
    let mut net = Net::new(5);
    let all: Vec<(NodeId, Address)> = (1..=5).map(|n| (net.id(n), at(NodeNo(n)))).collect();
    for n in 1..=5u32 {
        let others = all.clone();
        let own = net.id(n);
        net.ask(n, move |plane| async move {
            for (node, at) in others.into_iter().filter(|(node, _)| *node != own) {
                plane.learn(node, &[at]).await.unwrap();
            }
        });
    }
    net.ask(1, |plane| async move {
        plane.announce("good record".into()).await
    })
    .unwrap();
    net.ask(
        2,
        |plane| async move { plane.announce("forged".into()).await },
    )
    .unwrap();
    let [one, two, three] = [1, 2, 3].map(|n| net.id(n));
    let found = net.ask(
        5,
        move |plane| async move { plane.lookup(one).await.unwrap() },
    );
    assert_eq!(found.as_deref(), Some(b"good record".as_slice()));
    for nobody in [two, three] {
        let found = net.ask(5, move |plane| async move {
            plane.lookup(nobody).await.unwrap()
        });
        assert_eq!(found, None);
    }
    for n in 1..=5 {
        let counters = net.ask(n, |plane| async move { plane.counters().await.unwrap() });
        assert!(counters.is_empty(), "{counters:?}");
    }
    let big = Bytes::from(vec![0; 16 * 1024 + 1]);
    let refused = net.ask(1, move |plane| async move { plane.announce(big).await });
    assert!(
        matches!(refused, Err(ControlError::TooLarge { .. })),
        "{refused:?}"
    );
}

// Scenario: what is not simulated says so.
#[test]
fn circuits_are_refused() {
    let mut net = Net::new(2);
    let two = net.id(2);
    let reserved = net.ask(1, move |plane| async move {
        plane.reserve(two, &at(NodeNo(2))).await
    });
    assert!(
        matches!(&reserved, Err(ControlError::Listen { reason, .. }) if reason.contains("not simulated")),
        "{reserved:?}"
    );
    let through = net.ask(1, move |plane| async move {
        plane.dial_through(two, two, &at(NodeNo(2))).await
    });
    assert!(
        matches!(through, Err(ControlError::Dial { .. })),
        "{through:?}"
    );
}
