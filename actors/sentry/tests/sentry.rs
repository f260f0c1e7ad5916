//! Sessions and uplinks with a relayer and a client at their ends, all real actors in virtual time.
#![allow(clippy::unwrap_used, reason = "a test's helpers fail as the test does")]

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use pqcnet_actor::{
    Addr, AskError, Behaviour, Cx, Env, Message, On, Promise, Reply, Running, Spec, Strategy, Tree,
    simulate,
};
use pqcnet_crypto::{NodeId, NodeKeys};
use pqcnet_messages::edge::{
    Attach, Attached, Consumed, Deliver, OpenProducer, ProducerOpened, Publish, Published,
    SetReaders, Subscribe, Subscribed, SubscriptionEnded, Unsubscribe,
};
use pqcnet_messages::mesh::{LinkDown, LinkUp};
use pqcnet_messages::relay::{
    CloseSession, OpenSession, RelayConsumed, RelayDeliver, RelayOpenProducer, RelayPublish,
    RelaySetReaders, RelaySubscribe, RelaySubscriptionEnded, RelayUnsubscribe, SessionOpened,
};
use pqcnet_messages::{Channel, ChannelName, Grant, Record, Refusal, ShardMap};
use pqcnet_sentry_actors::{
    ClientLink, ClientSession, MAX_WINDOW, MAX_WINDOWS, RelayLink, SESSION_BOUNDS, SessionShared,
    UPLINK_BOUNDS, Uplink, UplinkRefs,
};

const DEADLINE: Duration = Duration::from_secs(30);
const SENTRY: NodeId = NodeId::from_bytes([1; 32]);
const RELAYER: NodeId = NodeId::from_bytes([2; 32]);
const NETWORK: [u8; 32] = [3; 32];

/// What reached the relayer, as text; what it does with publishes is set by the test.
#[derive(Default)]
struct Heard {
    lines: Vec<String>,
    publish: VecDeque<PublishAnswer>,
    subscribe: VecDeque<Result<u64, Refusal>>,
}

enum PublishAnswer {
    Refuse(Refusal),
    /// Kept, never answered: the link goes with it.
    Hold,
}

type Log = Arc<Mutex<Heard>>;

/// A relayer's end of the relay service.
struct Relayer {
    log: Log,
    sessions: u64,
    held: Vec<Promise<RelayPublish>>,
}

impl Relayer {
    fn note(&self, line: String) {
        self.log.lock().unwrap().lines.push(line);
    }
}

impl Behaviour for Relayer {
    const NAME: &'static str = "Relayer";
}

impl On<OpenSession> for Relayer {
    fn on(&mut self, _: OpenSession, _: &mut Cx<Self>) -> Reply<OpenSession> {
        self.sessions += 1;
        let session = self.sessions;
        self.note(format!("open session {session}"));
        Reply::Now(Ok(SessionOpened { session }))
    }
}

impl On<CloseSession> for Relayer {
    fn on(&mut self, msg: CloseSession, _: &mut Cx<Self>) -> Reply<CloseSession> {
        self.note(format!("close session {}", msg.session));
        Reply::Now(())
    }
}

impl On<RelayOpenProducer> for Relayer {
    fn on(&mut self, msg: RelayOpenProducer, _: &mut Cx<Self>) -> Reply<RelayOpenProducer> {
        self.note(format!("open producer, session {}", msg.session));
        Reply::Now(Ok(ProducerOpened { epoch: 9 }))
    }
}

impl On<RelayPublish> for Relayer {
    fn on(&mut self, msg: RelayPublish, _: &mut Cx<Self>) -> Reply<RelayPublish> {
        let last_seq = msg.first_seq + msg.payloads.len() as u64 - 1;
        self.note(format!(
            "publish {}..={last_seq}, session {}",
            msg.first_seq, msg.session
        ));
        let answer = self.log.lock().unwrap().publish.pop_front();
        match answer {
            None => Reply::Now(Ok(Published {
                last_seq,
                last_offset: 100 + last_seq,
            })),
            Some(PublishAnswer::Refuse(refusal)) => Reply::Now(Err(refusal)),
            Some(PublishAnswer::Hold) => {
                let (promise, later) = Reply::later();
                self.held.push(promise);
                later
            }
        }
    }
}

impl On<RelaySetReaders> for Relayer {
    fn on(&mut self, msg: RelaySetReaders, _: &mut Cx<Self>) -> Reply<RelaySetReaders> {
        self.note(format!(
            "readers of {}: {}",
            msg.channel.as_str(),
            msg.readers.len()
        ));
        Reply::Now(Ok(()))
    }
}

impl On<RelaySubscribe> for Relayer {
    fn on(&mut self, msg: RelaySubscribe, _: &mut Cx<Self>) -> Reply<RelaySubscribe> {
        self.note(format!(
            "subscribe {} after {}",
            msg.subscription, msg.after
        ));
        let answer = self
            .log
            .lock()
            .unwrap()
            .subscribe
            .pop_front()
            .unwrap_or(Ok(50));
        Reply::Now(answer.map(|head| Subscribed { head }))
    }
}

impl On<RelayConsumed> for Relayer {
    fn on(&mut self, msg: RelayConsumed, _: &mut Cx<Self>) -> Reply<RelayConsumed> {
        self.note(format!("consumed {} to {}", msg.subscription, msg.offset));
        Reply::Now(())
    }
}

impl On<RelayUnsubscribe> for Relayer {
    fn on(&mut self, msg: RelayUnsubscribe, _: &mut Cx<Self>) -> Reply<RelayUnsubscribe> {
        self.note(format!("unsubscribe {}", msg.subscription));
        Reply::Now(())
    }
}

/// A client's end of the edge service.
struct Client {
    seen: Arc<Mutex<Vec<String>>>,
}

impl Behaviour for Client {
    const NAME: &'static str = "Client";
}

impl On<Deliver> for Client {
    fn on(&mut self, msg: Deliver, _: &mut Cx<Self>) -> Reply<Deliver> {
        let offsets = msg.records.iter().map(|record| record.offset.to_string());
        let offsets: Vec<String> = offsets.collect();
        let line = format!("{}: {}", msg.subscription, offsets.join(" "));
        self.seen.lock().unwrap().push(line);
        Reply::Now(())
    }
}

impl On<SubscriptionEnded> for Client {
    fn on(&mut self, msg: SubscriptionEnded, _: &mut Cx<Self>) -> Reply<SubscriptionEnded> {
        let line = format!("{} ended: {}", msg.subscription, msg.refusal);
        self.seen.lock().unwrap().push(line);
        Reply::Now(())
    }
}

struct World {
    env: Env,
    keys: NodeKeys,
    uplink: Addr<Uplink>,
    session: Addr<ClientSession>,
    log: Log,
    seen: Arc<Mutex<Vec<String>>>,
    closed: Arc<Mutex<u32>>,
    relayers: RefCell<Vec<Running>>,
    client: Running,
    running: Running,
}

/// One uplink, one session.
fn start() -> World {
    let env = Env::simulated(1, "sentry");
    let keys = NodeKeys::generate();
    let customer = keys.node_id();
    let (seen, closed) = (
        Arc::<Mutex<Vec<String>>>::default(),
        Arc::<Mutex<u32>>::default(),
    );
    let mut tree = Tree::new("sentry", Strategy::RestForOne);
    let uplink = tree.child(Spec::new("uplink", |_| Uplink::new(RELAYER)).mailbox(UPLINK_BOUNDS));
    let saw = seen.clone();
    let spec = Spec::new("client", move |_| Client { seen: saw.clone() });
    let mut client_tree = Tree::new("client", Strategy::OneForOne);
    let client = client_tree.child(spec);
    let refs = UplinkRefs {
        join: uplink.of(),
        open_session: uplink.of(),
        start_feed: uplink.of(),
        consumed: uplink.of(),
        stop_feed: uplink.of(),
    };
    let shared = Arc::new(SessionShared {
        shares: Default::default(),
        sentry: SENTRY,
        network_id: NETWORK,
        map: ShardMap::from_relayers(4, [RELAYER]).unwrap(),
        uplinks: Arc::new(BTreeMap::from([(RELAYER, refs)])),
    });
    let counted = closed.clone();
    let link = ClientLink {
        deliver: client.of(),
        ended: client.of(),
        close: Arc::new(move || *counted.lock().unwrap() += 1),
    };
    let spec = Spec::new("session", move |_| {
        ClientSession::new(7, customer, link.clone(), shared.clone())
    });
    let spec = spec.restart(pqcnet_actor::Restart::Temporary);
    let session = tree.child(spec.mailbox(SESSION_BOUNDS));
    let client = client_tree.start(env.clone());
    let running = tree.start(env.clone());
    World {
        env,
        keys,
        uplink,
        session,
        log: Log::default(),
        seen,
        closed,
        relayers: RefCell::default(),
        client,
        running,
    }
}

impl World {
    /// A relayer appears, and its link is up.
    async fn relayer_up(&self) -> Addr<Relayer> {
        let log = self.log.clone();
        let mut tree = Tree::new("relayer", Strategy::OneForOne);
        let relayer = tree.child(Spec::new("relayer", move |_| Relayer {
            log: log.clone(),
            sessions: 0,
            held: Vec::new(),
        }));
        self.relayers
            .borrow_mut()
            .push(tree.start(self.env.clone()));
        let link = RelayLink {
            open_session: relayer.of(),
            close_session: relayer.of(),
            open_producer: relayer.of(),
            publish: relayer.of(),
            set_readers: relayer.of(),
            subscribe: relayer.of(),
            consumed: relayer.of(),
            unsubscribe: relayer.of(),
            close: Arc::new(|| {}),
        };
        let up = LinkUp {
            peer: RELAYER,
            link,
        };
        self.uplink.of().tell(up).await.unwrap();
        self.settle().await;
        relayer
    }

    /// The relayer dies, and the link with it.
    async fn relayer_down(&self) {
        let running = self.relayers.borrow_mut().pop().unwrap();
        running.stop().await;
        let down = LinkDown { peer: RELAYER };
        self.uplink.of().tell(down).await.unwrap();
        self.settle().await;
    }

    /// Lets everything happen that is due within a while of virtual time.
    async fn settle(&self) {
        self.env.sleep(Duration::from_secs(3)).await;
    }

    async fn ask<M: Message>(&self, msg: M) -> M::Reply
    where
        ClientSession: On<M>,
    {
        self.session.of::<M>().ask(msg, DEADLINE).await.unwrap()
    }

    fn grant(&self, keys: &NodeKeys, sentry: NodeId) -> Grant {
        Grant::issue(
            keys,
            NETWORK,
            sentry,
            self.env.wall_ms(),
            3_600_000,
            [9; 16],
        )
    }

    async fn attach(&self) {
        let grant = self.grant(&self.keys, SENTRY);
        let attached = self.ask(Attach { grant }).await;
        assert_eq!(attached, Ok(Attached { shards: 4 }));
    }

    fn own(&self) -> Channel {
        Channel {
            owner: self.keys.node_id(),
            name: ChannelName::new("own").unwrap(),
        }
    }

    fn publish(&self, first_seq: u64) -> Publish {
        let payloads = vec![Bytes::from_static(b"x")];
        Publish {
            channel: self.own(),
            epoch: 9,
            first_seq,
            payloads,
        }
    }

    fn subscribe(&self, subscription: u32, after: u64) -> Subscribe {
        let channel = self.own();
        Subscribe {
            subscription,
            channel,
            after,
            window_bytes: 1 << 20,
        }
    }

    async fn deliver(&self, subscription: u32, offsets: std::ops::RangeInclusive<u64>, len: usize) {
        let record = |offset| Record {
            offset,
            published_at_ms: 1,
            payload: vec![0; len].into(),
        };
        let records = offsets.map(record).collect();
        let deliver = RelayDeliver {
            subscription,
            records,
        };
        self.uplink.of().tell(deliver).await.unwrap();
        self.settle().await;
    }

    fn heard(&self) -> Vec<String> {
        std::mem::take(&mut self.log.lock().unwrap().lines)
    }

    fn seen(&self) -> Vec<String> {
        std::mem::take(&mut self.seen.lock().unwrap())
    }

    async fn stop(&self) {
        self.running.stop().await;
    }
}

/// Nothing is served before the grant; a grant of somebody else, or for another sentry, opens nothing; afterwards only
/// channels of the client's own can be written.
#[test]
fn nothing_without_a_grant() {
    simulate(|| async {
        let world = start();
        world.relayer_up().await;
        assert_eq!(
            world.ask(world.publish(1)).await,
            Err(Refusal::UnknownSession)
        );
        assert_eq!(
            world.ask(world.subscribe(1, 0)).await,
            Err(Refusal::UnknownSession)
        );
        let other = NodeKeys::generate();
        let grant = world.grant(&other, SENTRY);
        assert_eq!(world.ask(Attach { grant }).await, Err(Refusal::BadGrant));
        let grant = world.grant(&world.keys, RELAYER);
        assert_eq!(world.ask(Attach { grant }).await, Err(Refusal::BadGrant));
        assert_eq!(world.heard(), Vec::<String>::new());

        world.attach().await;
        let channel = Channel {
            owner: other.node_id(),
            ..world.own()
        };
        let open = OpenProducer {
            channel: channel.clone(),
            supersedes: None,
        };
        assert_eq!(world.ask(open).await, Err(Refusal::NotAllowed));
        let publish = Publish {
            channel,
            ..world.publish(1)
        };
        assert_eq!(world.ask(publish).await, Err(Refusal::NotAllowed));
        assert_eq!(world.heard(), Vec::<String>::new());
        world.stop().await;
    });
}

/// A client that attaches again while its grant is being verified waits its turn: it has one place in the node's pool.
#[test]
fn one_grant_at_a_time() {
    simulate(|| async {
        let world = start();
        let attach = world.session.of::<Attach>();
        let asked: Vec<_> = (0..3)
            .map(|_| {
                let grant = world.grant(&world.keys, SENTRY);
                attach.try_ask(Attach { grant }, DEADLINE).unwrap()
            })
            .collect();
        let mut answers = Vec::new();
        for pending in asked {
            answers.push(pending.await.unwrap());
        }
        let busy = Err(Refusal::Busy);
        assert_eq!(answers, [Ok(Attached { shards: 4 }), busy.clone(), busy]);
        world.attach().await;
        world.stop().await;
    });
}

/// The relayer's session is opened once, by the first request; requests keep their order; answers come back as they are.
#[test]
fn requests_go_to_the_owner() {
    simulate(|| async {
        let world = start();
        world.attach().await;
        assert_eq!(world.ask(world.publish(1)).await, Err(Refusal::Unavailable));
        world.relayer_up().await;
        let open = world.session.of().try_ask(
            OpenProducer {
                channel: world.own(),
                supersedes: None,
            },
            DEADLINE,
        );
        let publish = world.session.of().try_ask(world.publish(1), DEADLINE);
        assert_eq!(
            open.unwrap().await.unwrap(),
            Ok(ProducerOpened { epoch: 9 })
        );
        let published = Ok(Published {
            last_seq: 1,
            last_offset: 101,
        });
        assert_eq!(publish.unwrap().await.unwrap(), published);
        let readers = vec![SENTRY];
        let set = SetReaders {
            channel: world.own().name,
            readers,
        };
        assert_eq!(world.ask(set).await, Ok(()));
        let expected = [
            "open session 1",
            "open producer, session 1",
            "publish 1..=1, session 1",
            "readers of own: 1",
        ];
        assert_eq!(world.heard(), expected);
        world.stop().await;
    });
}

/// The relayer forgot the session: the client gets a retryable answer, and its repetition opens another session. A busy
/// relayer's answer passes as it is.
#[test]
fn a_forgotten_session_is_opened_again() {
    simulate(|| async {
        let world = start();
        world.relayer_up().await;
        world.attach().await;
        let answers = [Refusal::Busy, Refusal::UnknownSession].map(PublishAnswer::Refuse);
        world.log.lock().unwrap().publish.extend(answers);
        assert_eq!(world.ask(world.publish(1)).await, Err(Refusal::Busy));
        assert_eq!(world.ask(world.publish(1)).await, Err(Refusal::Unavailable));
        assert!(world.ask(world.publish(1)).await.is_ok());
        let expected = [
            "open session 1",
            "publish 1..=1, session 1",
            "publish 1..=1, session 1",
            "open session 2",
            "publish 1..=1, session 2",
        ];
        assert_eq!(world.heard(), expected);
        world.stop().await;
    });
}

/// The relayer dies while it holds a publish: the client gets `Unavailable`, which it takes for "may be stored".
#[test]
fn a_pending_publish_is_answered_when_the_relayer_goes() {
    simulate(|| async {
        let world = start();
        world.relayer_up().await;
        world.attach().await;
        world
            .log
            .lock()
            .unwrap()
            .publish
            .push_back(PublishAnswer::Hold);
        let pending = world
            .session
            .of()
            .try_ask(world.publish(1), DEADLINE)
            .unwrap();
        world.settle().await;
        world.relayer_down().await;
        assert_eq!(pending.await.unwrap(), Err(Refusal::Unavailable));
        world.stop().await;
    });
}

/// The relayer goes away and another incarnation takes its place: the subscription is taken up after the last record sent
/// on, the client notices nothing, and what the old one still sends is for nobody.
#[test]
fn a_subscription_outlives_its_relayer() {
    simulate(|| async {
        let world = start();
        world.relayer_up().await;
        world.attach().await;
        assert_eq!(
            world.ask(world.subscribe(4, 10)).await,
            Ok(Subscribed { head: 50 })
        );
        world.deliver(1, 11..=13, 1).await;
        world.relayer_down().await;
        world.deliver(1, 14..=14, 1).await;
        world.relayer_up().await;
        world.deliver(1, 14..=14, 1).await;
        world.deliver(2, 14..=15, 1).await;
        assert_eq!(world.seen(), ["4: 11 12 13", "4: 14 15"]);
        let consumed = Consumed {
            subscription: 4,
            offset: 15,
        };
        world.session.of().tell(consumed).await.unwrap();
        world.settle().await;
        let expected = [
            "open session 1",
            "subscribe 1 after 10",
            "open session 1",
            "subscribe 2 after 13",
            "consumed 2 to 15",
        ];
        assert_eq!(world.heard(), expected);
        world.stop().await;
    });
}

/// A relayer's retryable end of a subscription is the sentry's business; a final one is the client's.
#[test]
fn ends_of_subscriptions() {
    simulate(|| async {
        let world = start();
        world.relayer_up().await;
        world.attach().await;
        assert_eq!(
            world.ask(world.subscribe(4, 0)).await,
            Ok(Subscribed { head: 50 })
        );
        world
            .log
            .lock()
            .unwrap()
            .subscribe
            .push_back(Err(Refusal::Busy));
        let ended = |subscription, refusal| RelaySubscriptionEnded {
            subscription,
            refusal,
        };
        world
            .uplink
            .of()
            .tell(ended(1, Refusal::Draining))
            .await
            .unwrap();
        world.settle().await;
        assert_eq!(world.seen(), Vec::<String>::new());
        world.deliver(3, 1..=2, 1).await;
        world
            .uplink
            .of()
            .tell(ended(3, Refusal::NotAllowed))
            .await
            .unwrap();
        world.settle().await;
        assert_eq!(world.seen(), ["4: 1 2", "4 ended: not allowed"]);
        let subscribes = world
            .heard()
            .into_iter()
            .filter(|line| line.starts_with("subscribe"));
        let expected = [
            "subscribe 1 after 0",
            "subscribe 2 after 0",
            "subscribe 3 after 0",
        ];
        assert_eq!(subscribes.collect::<Vec<_>>(), expected);
        world.stop().await;
    });
}

/// A first refusal goes to the client, whatever it is; so does a window or a number that cannot be.
#[test]
fn refused_subscriptions() {
    simulate(|| async {
        let world = start();
        world.attach().await;
        assert_eq!(
            world.ask(world.subscribe(1, 0)).await,
            Err(Refusal::Unavailable)
        );
        world.relayer_up().await;
        let refusals = [Err(Refusal::NotAllowed), Err(Refusal::Busy)];
        world.log.lock().unwrap().subscribe.extend(refusals);
        assert_eq!(
            world.ask(world.subscribe(1, 0)).await,
            Err(Refusal::NotAllowed)
        );
        assert_eq!(world.ask(world.subscribe(1, 0)).await, Err(Refusal::Busy));
        assert!(world.ask(world.subscribe(1, 0)).await.is_ok());
        let twice = Refusal::Invalid("the subscription number is in use".to_owned());
        assert_eq!(world.ask(world.subscribe(1, 0)).await, Err(twice));
        let window_bytes = MAX_WINDOW as u32 + 1;
        let wide = Subscribe {
            window_bytes,
            ..world.subscribe(2, 0)
        };
        assert_eq!(world.ask(wide).await, Err(Refusal::TooLarge));
        world.stop().await;
    });
}

/// All windows of a client together are bounded; what it gives up it may use again.
#[test]
fn a_client_cannot_hold_a_sentrys_memory() {
    simulate(|| async {
        let world = start();
        world.relayer_up().await;
        world.attach().await;
        let widest = |subscription| Subscribe {
            window_bytes: MAX_WINDOW as u32,
            ..world.subscribe(subscription, 0)
        };
        let most = (MAX_WINDOWS / MAX_WINDOW) as u32;
        for subscription in 0..most {
            assert!(world.ask(widest(subscription)).await.is_ok());
        }
        assert_eq!(world.ask(widest(most)).await, Err(Refusal::TooLarge));
        world.ask(Unsubscribe { subscription: 0 }).await;
        assert!(world.ask(widest(most)).await.is_ok());
        world.stop().await;
    });
}

/// A relayer that repeats or skips an offset is not believed: the feed is started again after the last good record.
#[test]
fn a_faulty_delivery_is_dropped() {
    simulate(|| async {
        let world = start();
        world.relayer_up().await;
        world.attach().await;
        assert!(world.ask(world.subscribe(4, 0)).await.is_ok());
        world.deliver(1, 1..=2, 1).await;
        world.deliver(1, 2..=3, 1).await;
        world.deliver(2, 3..=3, 1).await;
        assert_eq!(world.seen(), ["4: 1 2", "4: 3"]);
        let expected = [
            "open session 1",
            "subscribe 1 after 0",
            "unsubscribe 1",
            "subscribe 2 after 2",
        ];
        assert_eq!(world.heard(), expected);
        world.stop().await;
    });
}

/// The client's window is closed by 1 MiB: the rest waits at the sentry and goes out as the client consumes.
#[test]
fn a_slow_client_holds_its_window_only() {
    simulate(|| async {
        let world = start();
        world.relayer_up().await;
        world.attach().await;
        let narrow = Subscribe {
            window_bytes: 100,
            ..world.subscribe(4, 0)
        };
        assert!(world.ask(narrow).await.is_ok());
        world.deliver(1, 1..=3, 60).await;
        assert_eq!(world.seen(), ["4: 1"]);
        for offset in [1, 2] {
            let consumed = Consumed {
                subscription: 4,
                offset,
            };
            world.session.of().tell(consumed).await.unwrap();
            world.settle().await;
        }
        assert_eq!(world.seen(), ["4: 2", "4: 3"]);
        world.stop().await;
    });
}

/// The client leaves: its subscriptions and its session at the relayer are given up. An unsubscription ends one alone.
#[test]
fn a_leaving_client_leaves_nothing() {
    simulate(|| async {
        let world = start();
        world.relayer_up().await;
        world.attach().await;
        for subscription in [4, 5] {
            assert!(world.ask(world.subscribe(subscription, 0)).await.is_ok());
        }
        let unsubscribe = Unsubscribe { subscription: 4 };
        world.session.of().tell(unsubscribe).await.unwrap();
        world.settle().await;
        world.heard();
        world.deliver(1, 1..=1, 1).await;
        assert_eq!(world.seen(), Vec::<String>::new());
        assert_eq!(*world.closed.lock().unwrap(), 0);
        world.client.stop().await;
        world.settle().await;
        assert_eq!(*world.closed.lock().unwrap(), 1);
        assert_eq!(world.heard(), ["unsubscribe 2", "close session 1"]);
        let gone = world.session.of().ask(world.publish(1), DEADLINE).await;
        assert_eq!(gone, Err(AskError::Closed));
        world.stop().await;
    });
}
