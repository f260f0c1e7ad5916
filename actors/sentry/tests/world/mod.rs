//! A sentry's uplink and session between a relayer and a client that note what they are told.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use pqcnet_actor::{
    Addr, Behaviour, Cx, Env, Message, On, Promise, Reply, Running, Spec, Strategy, Tree,
};
use pqcnet_crypto::{NodeId, NodeKeys};
use pqcnet_messages::edge::{
    Attach, Attached, Committed, Countersign, DeadLetters, Deliver, Flow, OffsetFound,
    ProducerOpened, Publish, Published, Subscribe, Subscribed, SubscriptionEnded,
};
use pqcnet_messages::mesh::{LinkDown, LinkUp};
use pqcnet_messages::relay::{
    CloseSession, OpenSession, RelayCommit, RelayConsumed, RelayDeliver, RelayFindOffset,
    RelayJoinGroup, RelayListDeadLetters, RelayNack, RelayOpenProducer, RelayPublish,
    RelaySetReaders, RelaySubscribe, RelayUnsubscribe, SessionOpened,
};
use pqcnet_messages::{
    Channel, ChannelName, Countersigned, Grant, Record, Refusal, Series, ShardMap, Statement,
};
use pqcnet_sentry_actors::{
    ClientLink, ClientSession, RelayLink, Routing, SESSION_BOUNDS, SessionShared, UPLINK_BOUNDS,
    Uplink, UplinkRefs,
};

pub const DEADLINE: Duration = Duration::from_secs(30);
pub const SENTRY: NodeId = NodeId::from_bytes([1; 32]);
pub const RELAYER: NodeId = NodeId::from_bytes([2; 32]);
pub const NETWORK: [u8; 32] = [3; 32];

/// What reached the relayer, as text; what it does with publishes is set by the test.
#[derive(Default)]
pub struct Heard {
    pub lines: Vec<String>,
    pub publish: VecDeque<PublishAnswer>,
    pub subscribe: VecDeque<Result<u64, Refusal>>,
    /// So many openings of sessions are kept and not answered.
    pub silent: usize,
}

pub enum PublishAnswer {
    Refuse(Refusal),
    /// Kept, never answered: the link goes with it.
    Hold,
}

pub type Log = Arc<Mutex<Heard>>;

/// A relayer's end of the relay service.
pub struct Relayer {
    log: Log,
    sessions: u64,
    held: Vec<Promise<RelayPublish>>,
    unopened: Vec<Promise<OpenSession>>,
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
        let mut log = self.log.lock().unwrap();
        if log.silent > 0 {
            log.silent -= 1;
            let (promise, later) = Reply::later();
            self.unopened.push(promise);
            return later;
        }
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

impl On<RelayFindOffset> for Relayer {
    fn on(&mut self, msg: RelayFindOffset, _: &mut Cx<Self>) -> Reply<RelayFindOffset> {
        self.note(format!(
            "find {} in {}",
            msg.at_ms,
            msg.channel.name.as_str()
        ));
        Reply::Now(Ok(OffsetFound { after: 6, head: 9 }))
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

impl On<RelayJoinGroup> for Relayer {
    fn on(&mut self, msg: RelayJoinGroup, _: &mut Cx<Self>) -> Reply<RelayJoinGroup> {
        self.note(format!(
            "join {} as {} after {}",
            msg.membership.group, msg.subscription, msg.after
        ));
        Reply::Now(Ok(Subscribed { head: 50 }))
    }
}

impl On<RelayCommit> for Relayer {
    fn on(&mut self, msg: RelayCommit, _: &mut Cx<Self>) -> Reply<RelayCommit> {
        let offset = msg.offset;
        self.note(format!("commit {} to {offset}", msg.subscription));
        Reply::Now(Ok(Committed { offset }))
    }
}

impl On<RelayNack> for Relayer {
    fn on(&mut self, msg: RelayNack, _: &mut Cx<Self>) -> Reply<RelayNack> {
        let offset = msg.offset;
        self.note(format!("aside {} of {}", offset, msg.subscription));
        Reply::Now(Ok(Committed { offset: 1 }))
    }
}

impl On<RelayListDeadLetters> for Relayer {
    fn on(&mut self, msg: RelayListDeadLetters, _: &mut Cx<Self>) -> Reply<RelayListDeadLetters> {
        self.note(format!("dead letters of {}", msg.group));
        let letters = Vec::new();
        let committed = 1;
        Reply::Now(Ok(DeadLetters {
            committed,
            letters,
            kept: Vec::new(),
            removed: msg.remove,
        }))
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
pub struct Client {
    seen: Arc<Mutex<Vec<String>>>,
    keys: Arc<NodeKeys>,
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

impl On<Flow> for Client {
    fn on(&mut self, msg: Flow, _: &mut Cx<Self>) -> Reply<Flow> {
        let line = format!("{}: {:?}", msg.channel.name, msg.paused);
        self.seen.lock().unwrap().push(line);
        Reply::Now(())
    }
}

impl On<Countersign> for Client {
    fn on(&mut self, msg: Countersign, _: &mut Cx<Self>) -> Reply<Countersign> {
        let statement = Statement {
            network_id: NETWORK,
            receiver: self.keys.node_id(),
            relayer: msg.relayer,
            channel: Channel {
                owner: self.keys.node_id(),
                name: ChannelName::new("own").unwrap(),
            },
            series: Series([5; 16]),
            window: msg.window,
            after: 0,
            last: 2,
            frames: 2,
            bytes: 2,
            signed_at_ms: 1,
        };
        let line = format!("countersign {} window {}", msg.subscription, msg.window);
        self.seen.lock().unwrap().push(line);
        let receipt = statement.sign(&self.keys);
        Reply::Now(Ok(Countersigned { receipt }))
    }
}

impl On<SubscriptionEnded> for Client {
    fn on(&mut self, msg: SubscriptionEnded, _: &mut Cx<Self>) -> Reply<SubscriptionEnded> {
        let line = format!("{} ended: {}", msg.subscription, msg.refusal);
        self.seen.lock().unwrap().push(line);
        Reply::Now(())
    }
}

pub struct World {
    pub env: Env,
    pub keys: Arc<NodeKeys>,
    pub uplink: Addr<Uplink>,
    pub session: Addr<ClientSession>,
    pub log: Log,
    pub seen: Arc<Mutex<Vec<String>>>,
    pub closed: Arc<Mutex<u32>>,
    /// Until when requests were let through, each time that was said.
    pub permitted: Arc<Mutex<Vec<Duration>>>,
    pub relayers: RefCell<Vec<Running>>,
    pub client: Running,
    pub running: Running,
}

/// One uplink, one session.
pub fn start() -> World {
    let env = Env::simulated(1, "sentry");
    let keys = Arc::new(NodeKeys::generate());
    let customer = keys.node_id();
    let (seen, closed) = (
        Arc::<Mutex<Vec<String>>>::default(),
        Arc::<Mutex<u32>>::default(),
    );
    let permitted = Arc::<Mutex<Vec<Duration>>>::default();
    let mut tree = Tree::new("sentry", Strategy::RestForOne);
    let uplink = tree.child(Spec::new("uplink", |_| Uplink::new(RELAYER)).mailbox(UPLINK_BOUNDS));
    let (saw, signs) = (seen.clone(), keys.clone());
    let spec = Spec::new("client", move |_| Client {
        seen: saw.clone(),
        keys: signs.clone(),
    });
    let mut client_tree = Tree::new("client", Strategy::OneForOne);
    let client = client_tree.child(spec);
    let refs = UplinkRefs {
        join: uplink.of(),
        open_session: uplink.of(),
        start_feed: uplink.of(),
        consumed: uplink.of(),
        commit: uplink.of(),
        stop_feed: uplink.of(),
        show_grant: uplink.of(),
    };
    let shared = Arc::new(SessionShared {
        shares: Default::default(),
        sentry: SENTRY,
        network_id: NETWORK,
        map: Routing::fixed(ShardMap::from_relayers(4, [RELAYER]).unwrap()),
        uplinks: Arc::new(BTreeMap::from([(RELAYER, refs)])),
    });
    let (counted, let_through) = (closed.clone(), permitted.clone());
    let link = ClientLink {
        deliver: client.of(),
        ended: client.of(),
        countersign: client.of(),
        flow: client.of(),
        permit: Arc::new(move |until| let_through.lock().unwrap().push(until)),
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
        permitted,
        relayers: RefCell::default(),
        client,
        running,
    }
}

impl World {
    /// A relayer appears, and its link is up.
    pub async fn relayer_up(&self) -> Addr<Relayer> {
        let log = self.log.clone();
        let mut tree = Tree::new("relayer", Strategy::OneForOne);
        let relayer = tree.child(Spec::new("relayer", move |_| Relayer {
            log: log.clone(),
            sessions: 0,
            held: Vec::new(),
            unopened: Vec::new(),
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
            find_offset: relayer.of(),
            subscribe: relayer.of(),
            join_group: relayer.of(),
            commit: relayer.of(),
            nack: relayer.of(),
            dead_letters: relayer.of(),
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
    pub async fn relayer_down(&self) {
        let running = self.relayers.borrow_mut().pop().unwrap();
        running.stop().await;
        let down = LinkDown { peer: RELAYER };
        self.uplink.of().tell(down).await.unwrap();
        self.settle().await;
    }

    /// Lets everything happen that is due within a while of virtual time.
    pub async fn settle(&self) {
        self.env.sleep(Duration::from_secs(3)).await;
    }

    pub async fn ask<M: Message>(&self, msg: M) -> M::Reply
    where
        ClientSession: On<M>,
    {
        self.session.of::<M>().ask(msg, DEADLINE).await.unwrap()
    }

    pub fn grant(&self, keys: &NodeKeys, sentry: NodeId) -> Grant {
        Grant::issue(
            keys,
            NETWORK,
            sentry,
            self.env.wall_ms(),
            3_600_000,
            [9; 16],
        )
    }

    pub async fn attach(&self) {
        let grant = self.grant(&self.keys, SENTRY);
        let attached = self.ask(Attach { grant }).await;
        assert_eq!(attached, Ok(Attached { shards: 4 }));
    }

    pub fn own(&self) -> Channel {
        Channel {
            owner: self.keys.node_id(),
            name: ChannelName::new("own").unwrap(),
        }
    }

    pub fn publish(&self, first_seq: u64) -> Publish {
        let payloads = vec![Bytes::from_static(b"x")];
        Publish {
            channel: self.own(),
            epoch: 9,
            first_seq,
            payloads,
        }
    }

    pub fn subscribe(&self, subscription: u32, after: u64) -> Subscribe {
        let channel = self.own();
        Subscribe {
            subscription,
            channel,
            after,
            window_bytes: 1 << 20,
            series: Series([5; 16]),
        }
    }

    pub async fn deliver(
        &self,
        subscription: u32,
        offsets: std::ops::RangeInclusive<u64>,
        len: usize,
    ) {
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

    pub fn heard(&self) -> Vec<String> {
        std::mem::take(&mut self.log.lock().unwrap().lines)
    }

    pub fn seen(&self) -> Vec<String> {
        std::mem::take(&mut self.seen.lock().unwrap())
    }

    pub async fn stop(&self) {
        self.running.stop().await;
    }
}
