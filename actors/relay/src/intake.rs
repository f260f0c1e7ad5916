//! One sentry's link: sessions, grants, and the way to the shards.
//!
//! Spec: docs/spec/relay.md §1. Started by: `roles::relayer`, one a link, with `Restart::Temporary`: its sessions are its
//! state, so when it ends the role closes the link. Talks to: [`ShardWorker`](crate::ShardWorker)s.
//! Mailbox: 1,024 Request; full => `Busy`. It ends with its link.

mod groups;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use pqcnet_actor::latest;
use pqcnet_actor::{
    Addr, AskError, Behaviour, Cx, Message, On, Promise, Ref, Reply, Stopping, TellError,
};
use pqcnet_crypto::NodeId;
use pqcnet_messages::edge::Subscribed;
use pqcnet_messages::metering::NoteGrant;
use pqcnet_messages::relay::{
    CloseSession, OpenSession, RelayConsumed, RelayCountersign, RelayDeliver, RelayFindOffset,
    RelayFlow, RelayOpenProducer, RelayPublish, RelaySetReaders, RelaySubscribe,
    RelaySubscriptionEnded, RelayUnsubscribe, SessionOpened,
};
use pqcnet_messages::relay_local::{
    Admit, Consume, Follow, IssueEpoch, Locate, Publisher, ReplaceReaders, Unfollow,
};
use pqcnet_messages::{Channel, Membership, Refusal, ShardId};

use crate::ShardWorker;
use crate::core::tenure::{Place, Tenure};

/// How long a worker may take to answer. A publish waits for a synced write; a disk that takes longer is as good as
/// down, and the sentry has given up before.
const ANSWER_WITHIN: Duration = Duration::from_secs(30);

/// Limits of one link.
#[derive(Debug, Clone, Copy)]
pub struct IntakeLimits {
    /// Sessions at once.
    pub sessions: usize,
    /// Grants being verified at once; each costs about 60 µs of a core.
    pub verifying: usize,
    /// Subscriptions at once.
    pub subscriptions: usize,
}

impl Default for IntakeLimits {
    fn default() -> Self {
        Self {
            sessions: 65_536,
            verifying: 64,
            subscriptions: 65_536,
        }
    }
}

/// Whether a customer may be one now.
pub type Admits = Arc<dyn Fn(NodeId) -> bool + Send + Sync>;

/// The relayer's own view of the network.
pub struct Domain {
    /// Which network grants must be for.
    pub network_id: [u8; 32],
    /// Whose grants and sessions hold; asked again with each request.
    pub admits: Admits,
    /// Which shards are here.
    pub tenure: latest::Receiver<Arc<Tenure>>,
    /// The workers of all shards.
    pub workers: BTreeMap<ShardId, Addr<ShardWorker>>,
    /// Where grants are kept that were verified, where there is a meter.
    pub grants: Option<Ref<NoteGrant>>,
}

/// What an intake is made of.
#[derive(Clone)]
pub struct IntakeConfig {
    /// The relayer's number of the link; never used twice in one process.
    pub link: u64,
    /// The sentry at its other end, as the channel authenticated it.
    pub sentry: NodeId,
    /// Shared by all intakes.
    pub domain: Arc<Domain>,
    /// Where records go. Its end is the link's end.
    pub deliver: Ref<RelayDeliver>,
    /// Where the end of a subscription is told.
    pub ended: Ref<RelaySubscriptionEnded>,
    /// Where receipts are asked for.
    pub countersign: Option<Ref<RelayCountersign>>,
    /// Where publishers are told to stop, and to go on.
    pub flow: Ref<RelayFlow>,
    /// Its limits.
    pub limits: IntakeLimits,
}

/// The serving end of one sentry's link.
pub struct Intake {
    config: IntakeConfig,
    sessions: BTreeMap<u64, NodeId>,
    sessions_opened: u64,
    verifying: usize,
    subscriptions: BTreeMap<u32, Subscription>,
    /// Shards whose worker's present incarnation is watched.
    watched: BTreeSet<ShardId>,
    /// Requests that a worker has not answered.
    asked: usize,
    draining: bool,
}

#[derive(Debug, Clone)]
struct Subscription {
    session: u64,
    shard: ShardId,
    /// The worker has answered, and the sentry knows.
    answered: bool,
    /// It ended before that: this is the answer then.
    ended: Option<Refusal>,
    /// Told apart from a later one of the same number.
    serial: u64,
}

impl Intake {
    /// An intake without sessions.
    pub fn new(config: IntakeConfig) -> Self {
        Self {
            config,
            sessions: BTreeMap::new(),
            sessions_opened: 0,
            verifying: 0,
            subscriptions: BTreeMap::new(),
            watched: BTreeSet::new(),
            asked: 0,
            draining: false,
        }
    }

    /// The session's customer and the worker of the channel's shard.
    fn route(
        &self,
        session: u64,
        channel: &Channel,
        wall_ms: u64,
    ) -> Result<(NodeId, ShardId, Addr<ShardWorker>), Refusal> {
        if self.draining {
            return Err(Refusal::Draining);
        }
        let customer = *self.sessions.get(&session).ok_or(Refusal::UnknownSession)?;
        let domain = &self.config.domain;
        if !(domain.admits)(customer) {
            return Err(Refusal::NotAllowed);
        }
        let tenure = domain.tenure.borrow();
        let shard = tenure.map().shard_of(channel);
        match tenure.place(shard, wall_ms) {
            Place::Here => {}
            Place::Leaving | Place::Lapsed => return Err(Refusal::Unavailable),
            Place::Elsewhere(redirect) => return Err(Refusal::NotOwner(Some(redirect))),
        }
        drop(tenure);
        let worker = domain.workers.get(&shard).ok_or(Refusal::Unavailable)?;
        Ok((customer, shard, worker.clone()))
    }

    /// Passes a request on, and its answer back.
    fn forward<M, W, T>(&mut self, to: &Ref<W>, request: W, cx: &mut Cx<Self>) -> Reply<M>
    where
        M: Message<Reply = Result<T, Refusal>>,
        W: Message<Reply = Result<T, Refusal>>,
        T: Send + 'static,
    {
        let (promise, reply) = Reply::later();
        self.asked += 1;
        cx.ask(to, request, ANSWER_WITHIN, move |intake, outcome, cx| {
            promise.fulfil(answer_of(outcome));
            intake.answered(cx);
        });
        reply
    }

    fn answered(&mut self, cx: &mut Cx<Self>) {
        self.asked -= 1;
        if self.draining && self.asked == 0 {
            cx.stop();
        }
    }

    fn verified(&mut self, customer: Option<NodeId>, promise: Promise<OpenSession>) {
        self.verifying -= 1;
        promise.fulfil(match customer {
            None => Err(Refusal::BadGrant),
            Some(_) if self.sessions.len() >= self.config.limits.sessions => Err(Refusal::Busy),
            Some(customer) => {
                self.sessions_opened += 1;
                let session = self.sessions_opened;
                self.sessions.insert(session, customer);
                Ok(SessionOpened { session })
            }
        });
    }

    /// The worker's subscriptions went with its incarnation: the sentry is told, and subscribes again.
    fn worker_down(&mut self, shard: ShardId, cx: &mut Cx<Self>) {
        self.watched.remove(&shard);
        self.end_subscriptions(shard, &Refusal::Unavailable, cx);
    }

    fn end_subscriptions(&mut self, shard: ShardId, refusal: &Refusal, cx: &mut Cx<Self>) {
        let gone = self.subscriptions.extract_if(.., |_, s| s.shard == shard);
        let gone: Vec<u32> = gone.map(|(subscription, _)| subscription).collect();
        for subscription in gone {
            // One that was asked for in between may live in the next incarnation.
            self.unfollow(subscription, shard, cx);
            let refusal = refusal.clone();
            let ended = RelaySubscriptionEnded {
                subscription,
                refusal,
            };
            deliver_sometime(&self.config.ended, ended, cx);
        }
    }

    /// Whenever a shard has gone elsewhere, its subscribers are sent after it.
    fn follow_tenure(&mut self, mut tenure: latest::Receiver<Arc<Tenure>>, cx: &mut Cx<Self>) {
        let now = tenure.borrow_and_update().clone();
        let shards: BTreeSet<ShardId> = self.subscriptions.values().map(|s| s.shard).collect();
        for shard in shards {
            if let Place::Elsewhere(redirect) = now.place(shard, cx.wall_ms()) {
                self.end_subscriptions(shard, &Refusal::NotOwner(Some(redirect)), cx);
            }
        }
        let changed = async move { tenure.changed().await.map(|()| tenure) };
        cx.spawn(changed, |intake, tenure, cx| {
            if let Ok(tenure) = tenure {
                intake.follow_tenure(tenure, cx);
            }
        });
    }

    fn unfollow(&mut self, subscription: u32, shard: ShardId, cx: &mut Cx<Self>) {
        let link = self.config.link;
        if let Some(worker) = self.config.domain.workers.get(&shard) {
            deliver_sometime(&worker.of(), Unfollow { link, subscription }, cx);
        }
    }
}

/// Tells now, or as soon as there is room. A receiver that is gone needs no telling.
fn deliver_sometime<M: Message>(to: &Ref<M>, message: M, cx: &mut Cx<Intake>) {
    if let Err(TellError::Full(message)) = to.try_tell(message) {
        let to = to.clone();
        cx.spawn(async move { to.tell(message).await.ok() }, |_, _, _| {});
    }
}

fn answer_of<T>(outcome: Result<Result<T, Refusal>, AskError>) -> Result<T, Refusal> {
    match outcome {
        Ok(answer) => answer,
        Err(AskError::Busy) => Err(Refusal::Busy),
        // Whether it took effect is unknown; under its sequence it may be tried again.
        Err(_) => Err(Refusal::Unavailable),
    }
}

impl Behaviour for Intake {
    const NAME: &'static str = "Intake";

    fn started(&mut self, cx: &mut Cx<Self>) {
        let link = self.config.deliver.clone();
        cx.watch(&link, |_, _, cx| cx.stop());
        self.follow_tenure(self.config.domain.tenure.clone(), cx);
    }

    /// Answers what it was asked, then goes.
    fn stopping(&mut self, _cx: &mut Cx<Self>) -> Stopping {
        self.draining = true;
        if self.asked == 0 {
            Stopping::Now
        } else {
            Stopping::Draining
        }
    }

    fn describe(&self) -> String {
        format!(
            "sentry {}: {} sessions, {} subscriptions",
            self.config.sentry,
            self.sessions.len(),
            self.subscriptions.len()
        )
    }
}

impl On<OpenSession> for Intake {
    fn on(&mut self, msg: OpenSession, cx: &mut Cx<Self>) -> Reply<OpenSession> {
        let limits = self.config.limits;
        if self.draining {
            return Reply::Now(Err(Refusal::Draining));
        }
        if self.verifying >= limits.verifying || self.sessions.len() >= limits.sessions {
            return Reply::Now(Err(Refusal::Busy));
        }
        self.verifying += 1;
        let (promise, reply) = Reply::later();
        let (network_id, sentry) = (self.config.domain.network_id, self.config.sentry);
        let wall_ms = cx.wall_ms();
        let verify = move || {
            let verdict = msg.grant.verify(&network_id, &sentry, wall_ms);
            verdict.map(|customer| (customer, msg.grant))
        };
        cx.offload(verify, move |intake, verdict, cx| match verdict {
            Ok(Ok((customer, _))) if !(intake.config.domain.admits)(customer) => {
                tracing::warn!(%sentry, %customer, "a customer is not admitted");
                intake.verified(None, promise);
            }
            Ok(Ok((customer, grant))) => {
                if let Some(grants) = intake.config.domain.grants.clone() {
                    deliver_sometime(&grants, NoteGrant { grant }, cx);
                }
                intake.verified(Some(customer), promise);
            }
            Ok(Err(error)) => {
                tracing::warn!(%sentry, %error, "a grant was refused");
                intake.verified(None, promise);
            }
            // Not verified is not bad: the pool was busy.
            Err(_) => {
                intake.verifying -= 1;
                promise.fulfil(Err(Refusal::Busy));
            }
        });
        reply
    }
}

impl On<CloseSession> for Intake {
    fn on(&mut self, msg: CloseSession, cx: &mut Cx<Self>) -> Reply<CloseSession> {
        self.sessions.remove(&msg.session);
        let gone = self
            .subscriptions
            .extract_if(.., |_, s| s.session == msg.session);
        let gone: Vec<_> = gone
            .map(|(subscription, s)| (subscription, s.shard))
            .collect();
        for (subscription, shard) in gone {
            self.unfollow(subscription, shard, cx);
        }
        Reply::Now(())
    }
}

impl On<RelayOpenProducer> for Intake {
    fn on(&mut self, msg: RelayOpenProducer, cx: &mut Cx<Self>) -> Reply<RelayOpenProducer> {
        let (channel, supersedes) = (msg.channel, msg.supersedes);
        match self.route(msg.session, &channel, cx.wall_ms()) {
            Ok((customer, _, worker)) => {
                let issue = IssueEpoch {
                    customer,
                    channel,
                    supersedes,
                };
                self.forward(&worker.of(), issue, cx)
            }
            Err(refusal) => Reply::Now(Err(refusal)),
        }
    }
}

impl On<RelayPublish> for Intake {
    fn on(&mut self, msg: RelayPublish, cx: &mut Cx<Self>) -> Reply<RelayPublish> {
        match self.route(msg.session, &msg.channel, cx.wall_ms()) {
            Ok((customer, _, worker)) => {
                let admit = Admit {
                    customer,
                    channel: msg.channel,
                    epoch: msg.epoch,
                    first_seq: msg.first_seq,
                    payloads: msg.payloads,
                    publisher: Some(Publisher {
                        link: self.config.link,
                        session: msg.session,
                        flow: self.config.flow.clone(),
                    }),
                };
                self.forward(&worker.of(), admit, cx)
            }
            Err(refusal) => Reply::Now(Err(refusal)),
        }
    }
}

impl On<RelaySetReaders> for Intake {
    fn on(&mut self, msg: RelaySetReaders, cx: &mut Cx<Self>) -> Reply<RelaySetReaders> {
        let Some(&owner) = self.sessions.get(&msg.session) else {
            return Reply::Now(Err(Refusal::UnknownSession));
        };
        // The message names no owner: a customer sets readers of its own channels only.
        let channel = Channel {
            owner,
            name: msg.channel,
        };
        match self.route(msg.session, &channel, cx.wall_ms()) {
            Ok((_, _, worker)) => {
                let readers = msg.readers;
                self.forward(&worker.of(), ReplaceReaders { channel, readers }, cx)
            }
            Err(refusal) => Reply::Now(Err(refusal)),
        }
    }
}

impl On<RelayFindOffset> for Intake {
    fn on(&mut self, msg: RelayFindOffset, cx: &mut Cx<Self>) -> Reply<RelayFindOffset> {
        let RelayFindOffset {
            session,
            channel,
            at_ms,
        } = msg;
        match self.route(session, &channel, cx.wall_ms()) {
            Ok((customer, _, worker)) => {
                let locate = Locate {
                    customer,
                    channel,
                    at_ms,
                };
                self.forward(&worker.of(), locate, cx)
            }
            Err(refusal) => Reply::Now(Err(refusal)),
        }
    }
}

impl On<RelaySubscribe> for Intake {
    fn on(&mut self, msg: RelaySubscribe, cx: &mut Cx<Self>) -> Reply<RelaySubscribe> {
        self.follow(msg, None, cx)
    }
}

impl Intake {
    fn follow<M>(
        &mut self,
        msg: RelaySubscribe,
        membership: Option<Membership>,
        cx: &mut Cx<Self>,
    ) -> Reply<M>
    where
        M: Message<Reply = Result<Subscribed, Refusal>>,
    {
        let (customer, shard, worker) = match self.route(msg.session, &msg.channel, cx.wall_ms()) {
            Ok(route) => route,
            Err(refusal) => return Reply::Now(Err(refusal)),
        };
        let subscription = msg.subscription;
        if self.subscriptions.contains_key(&subscription) {
            let detail = "subscription number in use".to_owned();
            return Reply::Now(Err(Refusal::Invalid(detail)));
        }
        if self.subscriptions.len() >= self.config.limits.subscriptions {
            return Reply::Now(Err(Refusal::Busy));
        }
        // Watched before it is asked: whichever incarnation takes the request, its end is noticed.
        if self.watched.insert(shard) {
            cx.watch(&worker, move |intake, _, cx| intake.worker_down(shard, cx));
        }
        self.sessions_opened += 1;
        let serial = self.sessions_opened;
        let session = msg.session;
        self.subscriptions.insert(
            subscription,
            Subscription {
                session,
                shard,
                answered: false,
                ended: None,
                serial,
            },
        );
        let follow = Follow {
            link: self.config.link,
            subscription,
            customer,
            channel: msg.channel,
            after: msg.after,
            window_bytes: msg.window_bytes,
            deliver: self.config.deliver.clone(),
            ended: cx.me().of(),
            series: msg.series,
            countersign: self.config.countersign.clone(),
            membership,
        };
        let (promise, reply) = Reply::later();
        self.asked += 1;
        cx.ask(
            &worker.of(),
            follow,
            ANSWER_WITHIN,
            move |intake, outcome, cx| {
                if outcome.is_err() {
                    // Not answered is not refused: the worker may have it all the same, or get to it yet.
                    intake.unfollow(subscription, shard, cx);
                }
                let answer = answer_of(outcome);
                promise.fulfil(intake.followed(subscription, serial, shard, answer, cx));
                intake.answered(cx);
            },
        );
        reply
    }
}

impl Intake {
    /// The worker's answer, unless the subscription ended meanwhile.
    fn followed(
        &mut self,
        subscription: u32,
        serial: u64,
        shard: ShardId,
        answer: Result<Subscribed, Refusal>,
        cx: &mut Cx<Self>,
    ) -> Result<Subscribed, Refusal> {
        let current = self.subscriptions.get_mut(&subscription);
        let current = current.filter(|s| s.serial == serial);
        let is_current = current.is_some();
        if let Some(current) = current {
            current.answered = true;
            if let Some(refusal) = current.ended.take() {
                self.subscriptions.remove(&subscription);
                return Err(refusal);
            }
        }
        match (is_current, answer) {
            (true, Err(refusal)) => {
                self.subscriptions.remove(&subscription);
                Err(refusal)
            }
            (false, Ok(_)) => {
                self.unfollow(subscription, shard, cx);
                Err(Refusal::Unavailable)
            }
            (_, answer) => answer,
        }
    }
}

/// From a worker, on its way to the sentry.
impl On<RelaySubscriptionEnded> for Intake {
    fn on(
        &mut self,
        msg: RelaySubscriptionEnded,
        cx: &mut Cx<Self>,
    ) -> Reply<RelaySubscriptionEnded> {
        match self.subscriptions.get_mut(&msg.subscription) {
            Some(current) if !current.answered => current.ended = Some(msg.refusal),
            Some(_) | None => {
                self.subscriptions.remove(&msg.subscription);
                deliver_sometime(&self.config.ended, msg, cx);
            }
        }
        Reply::Now(())
    }
}

impl On<RelayConsumed> for Intake {
    fn on(&mut self, msg: RelayConsumed, cx: &mut Cx<Self>) -> Reply<RelayConsumed> {
        let current = self.subscriptions.get(&msg.subscription);
        if let Some(found) = current.filter(|s| s.session == msg.session)
            && let Some(worker) = self.config.domain.workers.get(&found.shard)
        {
            let consume = Consume {
                link: self.config.link,
                subscription: msg.subscription,
                offset: msg.offset,
            };
            deliver_sometime(&worker.of(), consume, cx);
        }
        Reply::Now(())
    }
}

impl On<RelayUnsubscribe> for Intake {
    fn on(&mut self, msg: RelayUnsubscribe, cx: &mut Cx<Self>) -> Reply<RelayUnsubscribe> {
        let current = self.subscriptions.get(&msg.subscription);
        if let Some(found) = current.filter(|s| s.session == msg.session) {
            let shard = found.shard;
            self.subscriptions.remove(&msg.subscription);
            self.unfollow(msg.subscription, shard, cx);
        }
        Reply::Now(())
    }
}
