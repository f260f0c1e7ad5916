use std::sync::Mutex;

use futures::FutureExt as _;

use super::*;

/// Records here: a version, then the node they are about. Good is what names its node and is no older than what is held.
fn record(node: &NodeId, version: u8) -> Bytes {
    [&[version], &node.as_bytes()[..]].concat().into()
}

fn check() -> Arc<dyn RecordCheck> {
    Arc::new(|node: NodeId, record: Bytes, held: Option<Bytes>| {
        let names = record.get(1..) == Some(&node.as_bytes()[..]);
        let newer = held.is_none_or(|held| held[0] <= record[0]);
        async move { names && newer }.boxed()
    })
}

async fn member() -> Node {
    let security = security(config());
    let config = ControlConfig {
        lookup: Some(LookupConfig::default()),
        ..ControlConfig::new(security.clone(), 32)
    };
    let (plane, events) = Libp2pControl::start(&Env::plain(), config).unwrap();
    let at = plane.listen(&loopback()).await.unwrap();
    plane.keep_records(check()).await.unwrap();
    Node {
        plane,
        events,
        security,
        at,
    }
}

async fn learns(node: &Node, other: &Node) {
    let at = std::slice::from_ref(&other.at);
    node.plane.learn(other.id(), at).await.unwrap();
}

/// Six nodes, each of which knows the first and is known by it.
async fn star() -> Vec<Node> {
    let mut nodes = Vec::new();
    for _ in 0..6 {
        nodes.push(member().await);
    }
    for node in &nodes[1..] {
        learns(node, &nodes[0]).await;
        learns(&nodes[0], node).await;
    }
    nodes
}

/// A node finds this record of another one. An announcement is over when one node has answered; that one may still be checking the
/// record, and others may have an older one until theirs comes: a lookup asks again.
async fn finds(node: &Node, wanted: &Node, record: &Bytes) {
    while node.plane.lookup(wanted.id()).await.unwrap().as_ref() != Some(record) {
        tokio::task::yield_now().await;
    }
}

/// A node finds another one's record without having met it, through the one that both know; the newest is found.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn finds_a_stranger() {
    let nodes = star().await;
    let wanted = &nodes[5];
    for version in [1, 2] {
        let record = record(&wanted.id(), version);
        wanted.plane.announce(record.clone()).await.unwrap();
        finds(&nodes[1], wanted, &record).await;
    }
    let nobody = NodeKeys::generate().node_id();
    assert_eq!(nodes[2].plane.lookup(nobody).await.unwrap(), None);
}

/// What a query dialled is closed when it is over; what somebody uses is not.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leaves_nothing_behind() {
    let (mut a, b, c) = (member().await, member().await, member().await);
    learns(&b, &c).await;
    learns(&a, &b).await;
    a.dial(&b).await.unwrap();
    assert_eq!(a.peer_up().await.node_id(), b.id());
    c.plane
        .learn(b.id(), std::slice::from_ref(&b.at))
        .await
        .unwrap();
    c.plane.announce(record(&c.id(), 1)).await.unwrap();
    finds(&a, &c, &record(&c.id(), 1)).await;
    // If the query went to the node itself as well, the connection to it is closed again.
    while let Some(event) = a.events.next().now_or_never() {
        match event.unwrap() {
            ControlEvent::PeerUp { peer } => {
                assert_eq!(peer.node_id(), c.id());
                match a.events.next().await.unwrap() {
                    ControlEvent::PeerDown { peer, .. } => assert_eq!(peer, c.id()),
                    other => panic!("{other:?}"),
                }
            }
            other => panic!("{other:?}"),
        }
    }
    a.plane.open(b.id()).await.unwrap();
}

/// Records that do not pass our check are neither stored nor handed out, whoever brings them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn forged_records() {
    let (honest, asker, liar) = (member().await, member().await, member().await);
    let victim = NodeKeys::generate().node_id();
    let asked: Arc<Mutex<Vec<Bytes>>> = Arc::default();
    let seen = asked.clone();
    let watching = move |node, record: Bytes, held| {
        seen.lock().unwrap().push(record.clone());
        check().check(node, record, held)
    };
    honest.plane.keep_records(Arc::new(watching)).await.unwrap();
    learns(&liar, &honest).await;
    learns(&asker, &honest).await;
    learns(&asker, &liar).await;
    // The liar's own record names another node: the honest node checks it, and does not keep it.
    let forged = record(&victim, 9);
    liar.plane.announce(forged.clone()).await.unwrap();
    while asked.lock().unwrap().is_empty() {
        tokio::task::yield_now().await;
    }
    assert_eq!(*asked.lock().unwrap(), [forged]);
    // The liar still has it, and hands it to whoever asks: it is not believed.
    assert_eq!(asker.plane.lookup(liar.id()).await.unwrap(), None);
}

/// What cannot be looked up or announced says why.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fails_by_name() {
    let without = Node::start(config(), None).await;
    let refused = without.plane.lookup(without.id()).await;
    assert!(
        matches!(refused, Err(ControlError::NoLookup)),
        "{refused:?}"
    );
    let refused = without.plane.keep_records(check()).await;
    assert!(
        matches!(refused, Err(ControlError::NoLookup)),
        "{refused:?}"
    );

    let alone = member().await;
    let large = vec![0; LookupConfig::default().max_record + 1];
    let refused = alone.plane.announce(large.into()).await;
    assert!(
        matches!(refused, Err(ControlError::TooLarge { .. })),
        "{refused:?}"
    );
    let nowhere = alone.plane.announce(record(&alone.id(), 1)).await;
    assert!(
        matches!(nowhere, Err(ControlError::NotStored(_))),
        "{nowhere:?}"
    );
    let own = alone.plane.lookup(alone.id()).await.unwrap();
    assert_eq!(own, Some(record(&alone.id(), 1)));

    let mut busy = Vec::new();
    learns(&alone, &without).await;
    for _ in 0..200 {
        let node = NodeKeys::generate().node_id();
        busy.push(alone.plane.lookup(node));
    }
    let outcomes = futures::future::join_all(busy).await;
    let refused = outcomes
        .iter()
        .filter(|outcome| matches!(outcome, Err(ControlError::LookupsBusy)));
    assert!(refused.count() > 0);
}

/// What a behaviour wants of the swarm until it has nothing more to say.
fn wants<B: libp2p::swarm::NetworkBehaviour>(behaviour: &mut B) -> usize {
    use std::task::{Context, Poll, Waker};
    let mut dials = 0;
    let mut cx = Context::from_waker(Waker::noop());
    while let Poll::Ready(action) = behaviour.poll(&mut cx) {
        dials += usize::from(matches!(action, libp2p::swarm::ToSwarm::Dial { .. }));
    }
    dials
}

/// Kademlia walks through all nodes that it is told of, half a second after it was told (begun here by hand): nobody is dialled
/// for that, and the walk ends. A lookup that somebody asked for dials, also while a walk is begun.
#[test]
fn dials_nobody_unasked() {
    use crate::control::chosen::Chosen;
    use crate::control::lookup::{behaviour, end_walks, key, learn, may_dial};
    let node = || NodeKeys::generate().node_id();
    let own = peer_id_of(&node());
    let at: libp2p::Multiaddr = "/ip4/127.0.0.1/tcp/9".parse().unwrap();
    let everybody: GossipsWith = Arc::new(|_| true);
    for told in [false, true] {
        let kademlia = behaviour(own, LookupConfig::default());
        let mut lookups = Chosen::new(kademlia, everybody.clone());
        if told {
            lookups = lookups.dialling(may_dial).tended(end_walks);
        }
        for _ in 0..24 {
            learn(lookups.inner(), &peer_id_of(&node()), vec![at.clone()]);
        }
        lookups.inner().bootstrap().unwrap();
        let dials = wants(&mut lookups);
        assert_eq!(dials == 0, told, "{dials} dials");
        let left = lookups.inner().iter_queries().count();
        assert_eq!(left == 0, told, "{left} walks");
        if told {
            lookups.inner().bootstrap().unwrap();
            lookups.inner().get_record(key(&node()));
            assert!(wants(&mut lookups) > 0);
        }
    }
}

/// A walk whose nearest nodes do not answer asks the next ones, each once, and of all that are known no more than the twenty
/// nearest: a handshake each, where somebody answers. Here nobody does, and the walk ends. Kademlia's own, which begins at the
/// same time, adds no dial.
#[test]
fn dials_the_nearest_once_each() {
    use std::collections::BTreeSet;
    use std::task::{Context, Poll, Waker};

    use libp2p::kad::K_VALUE;
    use libp2p::swarm::{DialError, DialFailure, FromSwarm, NetworkBehaviour as _, ToSwarm};

    use crate::control::chosen::Chosen;
    use crate::control::lookup::{behaviour, end_walks, key, learn, may_dial};

    let node = |n: u8| NodeId::from_bytes(pqcnet_crypto::sha256(&[&[n]]));
    let everybody: GossipsWith = Arc::new(|_| true);
    let kademlia = behaviour(peer_id_of(&node(0)), LookupConfig::default());
    let mut lookups = Chosen::new(kademlia, everybody)
        .dialling(may_dial)
        .tended(end_walks);
    let at: libp2p::Multiaddr = "/ip4/127.0.0.1/tcp/9".parse().unwrap();
    for n in 1..=2 * u8::try_from(K_VALUE.get()).unwrap() {
        learn(lookups.inner(), &peer_id_of(&node(n)), vec![at.clone()]);
    }
    // Begun by hand, the walk of all that is known does not begin by itself in the midst of this; none of its steps dials.
    lookups.inner().bootstrap().unwrap();
    lookups.inner().get_record(key(&node(255)));
    let mut dialled = BTreeSet::new();
    let mut cx = Context::from_waker(Waker::noop());
    while let Poll::Ready(action) = lookups.poll(&mut cx) {
        let ToSwarm::Dial { opts } = action else {
            continue;
        };
        assert!(dialled.insert(opts.get_peer_id().unwrap()), "dialled twice");
        lookups.on_swarm_event(FromSwarm::DialFailure(DialFailure {
            peer_id: opts.get_peer_id(),
            error: &DialError::Aborted,
            connection_id: opts.connection_id(),
        }));
    }
    assert!(dialled.len() <= K_VALUE.get(), "{} dials", dialled.len());
    assert!(dialled.len() > crate::control::lookup::REPLICAS.get());
    assert_eq!(lookups.inner().iter_queries().count(), 0);
}

/// The one node that is known takes the connection and says nothing, for longer than anybody waits: a lookup and an
/// announcement end all the same, since the driver keeps the time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ends_without_an_answer() {
    let mute = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at: Address = mute.local_addr().unwrap().into();
    let mut patient = config();
    patient.deadline = Duration::from_secs(24 * 60 * 60);
    let config = ControlConfig {
        lookup: Some(LookupConfig::default()),
        ..ControlConfig::new(security(patient), 32)
    };
    let (plane, _events) = Libp2pControl::start(&Env::plain(), config).unwrap();
    plane.keep_records(check()).await.unwrap();
    let node = NodeKeys::generate().node_id();
    plane
        .learn(NodeKeys::generate().node_id(), std::slice::from_ref(&at))
        .await
        .unwrap();
    let (found, announced) = futures::join!(plane.lookup(node), plane.announce(record(&node, 1)));
    assert_eq!(found.unwrap(), None);
    let late = matches!(announced, Err(ControlError::NotStored(_)));
    assert!(late, "{announced:?}");
}
