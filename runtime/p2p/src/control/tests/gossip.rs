use futures::FutureExt as _;
use futures::future::BoxFuture;
use tokio::sync::{mpsc, oneshot};

use super::*;

/// A validator that hands each message to the test and waits for its verdict.
struct Bench(mpsc::Sender<(Gossip, oneshot::Sender<Verdict>)>);

type Cases = mpsc::Receiver<(Gossip, oneshot::Sender<Verdict>)>;

impl Bench {
    fn new() -> (Arc<Bench>, Cases) {
        let (cases, judge) = mpsc::channel(64);
        (Arc::new(Bench(cases)), judge)
    }
}

impl Validator for Bench {
    fn judge(&self, message: Gossip) -> BoxFuture<'static, Verdict> {
        let cases = self.0.clone();
        async move {
            let (answer, verdict) = oneshot::channel();
            cases.send((message, answer)).await.unwrap();
            verdict.await.unwrap_or(Verdict::Ignore)
        }
        .boxed()
    }
}

fn quick() -> GossipConfig {
    GossipConfig {
        heartbeat: Duration::from_millis(50),
        ..GossipConfig::default()
    }
}

/// A node that takes part in "adverts", and what it is asked to judge.
async fn member() -> (Node, Cases) {
    let node = Node::start(config(), Some(quick())).await;
    let (validator, cases) = Bench::new();
    node.plane.subscribe("adverts", validator).await.unwrap();
    (node, cases)
}

async fn connect(from: &mut Node, to: &mut Node) {
    from.dial(to).await.unwrap();
    from.peer_up().await;
    to.peer_up().await;
}

/// Publishes at one node and judges at the next.
async fn pass(from: &Node, cases: &mut Cases, message: &[u8], verdict: Verdict) {
    publish(from, message).await;
    let (heard, answer) = cases.recv().await.unwrap();
    assert_eq!((&heard.data[..], heard.from), (message, from.id()));
    answer.send(verdict).unwrap();
}

/// Until the other's subscription has arrived, there is nobody to send it to.
async fn publish(from: &Node, message: &[u8]) {
    let message = Bytes::copy_from_slice(message);
    loop {
        match from.plane.publish("adverts", message.clone()).await {
            Ok(()) => return,
            Err(ControlError::NoPeers) => tokio::task::yield_now().await,
            Err(other) => panic!("{other}"),
        }
    }
}

/// Along a line of three nodes a message reaches the far end only if the node in between has accepted it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn waits_for_the_verdict() {
    let (mut a, _) = member().await;
    let (mut b, mut at_b) = member().await;
    let (mut c, mut at_c) = member().await;
    connect(&mut a, &mut b).await;
    connect(&mut b, &mut c).await;

    // Meshes form at heartbeats: a message each round, until one has come through.
    let mut round = 0u32;
    let (first, answer) = loop {
        round += 1;
        pass(&a, &mut at_b, &round.to_be_bytes(), Verdict::Accept).await;
        tokio::select! {
            biased;
            case = at_c.recv() => break case.unwrap(),
            () = tokio::task::yield_now() => {}
        }
    };
    answer.send(Verdict::Ignore).unwrap();
    assert_eq!((first.topic.as_str(), first.from), ("adverts", b.id()));
    for (message, verdict) in [
        ("ignored", Verdict::Ignore),
        ("rejected", Verdict::Reject),
        ("last", Verdict::Accept),
    ] {
        pass(&a, &mut at_b, message.as_bytes(), verdict).await;
    }
    loop {
        let (heard, _) = at_c.recv().await.unwrap();
        assert!(
            !heard.data.ends_with(b"ed"),
            "{heard:?} was not to be forwarded"
        );
        if &heard.data[..] == b"last" {
            break;
        }
    }
    // Verdicts are counted as they come in, in any order.
    let of_a = loop {
        let counters = b.plane.counters().await.unwrap();
        let of_a = *counters.iter().find(|of| of.peer == a.id()).unwrap();
        if of_a.accepted + of_a.ignored + of_a.rejected == u64::from(round) + 3 {
            break of_a;
        }
        tokio::task::yield_now().await;
    };
    assert_eq!((of_a.ignored, of_a.rejected), (1, 1));
    assert_eq!(of_a.accepted, u64::from(round) + 1);
    assert!(
        of_a.rpcs >= of_a.accepted + 2 && of_a.throttled == 0,
        "{of_a:?}"
    );
}

/// The name of a message is a hash of topic and data: pinned.
#[test]
fn names_are_content() {
    let id = hex::encode(crate::control::gossip::message_id("adverts", b"data"));
    let whole = pqcnet_crypto::sha256(&[b"pqcnet/gossip/1adverts\0data"]);
    assert_eq!(id, hex::encode(whole));
}

/// What cannot be published or subscribed to says why.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fails_by_name() {
    let (mut a, _) = member().await;
    let publish_at_a = |bytes: Vec<u8>| a.plane.publish("adverts", Bytes::from(bytes));
    let alone = publish_at_a(vec![1]).await.unwrap_err();
    assert!(matches!(alone, ControlError::NoPeers), "{alone}");
    let max = quick().max_message;
    let large = publish_at_a(vec![0; max + 1]).await.unwrap_err();
    assert!(
        matches!(large, ControlError::TooLarge { size, max: limit } if size == max + 1 && limit == max),
        "{large}"
    );
    let (validator, _cases) = Bench::new();
    let strange = a.plane.subscribe("weather", validator.clone()).await;
    assert!(matches!(strange, Err(ControlError::NoTopic(topic)) if topic == "weather"));

    let (mut b, mut at_b) = member().await;
    connect(&mut a, &mut b).await;
    // The largest there may be.
    let largest = vec![7; max];
    pass(&a, &mut at_b, &largest, Verdict::Accept).await;
    let again = a.plane.publish("adverts", Bytes::from(largest)).await;
    assert!(matches!(again, Err(ControlError::Duplicate)), "{again:?}");

    let mute = Node::start(config(), None).await;
    let refused = mute.plane.subscribe("adverts", validator).await;
    assert!(matches!(refused, Err(ControlError::NoGossip)));
    let refused = mute.plane.publish("adverts", Bytes::new()).await;
    assert!(matches!(refused, Err(ControlError::NoGossip)));
}

/// A node that forwards message after message that is not validly signed is disconnected, and the role hears why.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn forger_is_disconnected() {
    let (mut a, _) = member().await;
    let mut b = Node::start(config(), Some(quick())).await;
    let reject = |_: Gossip| async { Verdict::Reject }.boxed();
    b.plane
        .subscribe("adverts", Arc::new(reject))
        .await
        .unwrap();
    connect(&mut a, &mut b).await;
    let mut n = 0u32;
    let offence = loop {
        n += 1;
        let message = Bytes::copy_from_slice(&n.to_be_bytes());
        let _sent = a.plane.publish("adverts", message).await;
        tokio::select! {
            biased;
            event = b.events.next() => break event.unwrap(),
            () = tokio::task::yield_now() => {}
        }
    };
    let expected = (a.id(), Offence::Rejected);
    match offence {
        ControlEvent::Misbehaved { peer, offence } => assert_eq!((peer, offence), expected),
        other => panic!("{other:?}"),
    }
    let down = a.events.next().await.unwrap();
    assert!(matches!(down, ControlEvent::PeerDown { .. }), "{down:?}");
}

/// With a node that it has no business gossiping with, no gossip substream is opened, while links work.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_with_some() {
    let (mut a, _) = member().await;
    let security = security(config());
    let config = ControlConfig {
        gossip: Some(quick()),
        gossips_with: Arc::new(|_| false),
        ..ControlConfig::new(security.clone(), 4)
    };
    let (plane, events) = Libp2pControl::start(&Env::plain(), config).unwrap();
    let at = plane.listen(&loopback()).await.unwrap();
    let mut b = Node {
        plane,
        events,
        security,
        at,
    };
    let (validator, _cases) = Bench::new();
    b.plane.subscribe("adverts", validator).await.unwrap();
    connect(&mut a, &mut b).await;
    let mut stream = a.plane.open(b.id()).await.unwrap();
    stream.write_all(b"x").await.unwrap();
    stream.flush().await.unwrap();
    b.substream().await;
    let nobody = a.plane.publish("adverts", Bytes::from_static(b"x")).await;
    assert!(matches!(nobody, Err(ControlError::NoPeers)), "{nobody:?}");
    let counters = b.plane.counters().await.unwrap();
    assert_eq!((counters.len(), counters[0].rpcs), (1, 0));
}
