//! Where the sentry's deliveries come in: straight into the inbox of their subscription, no task between.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use pqcnet_actor::latest;
use pqcnet_actor::{
    Carrier, Env, Letter, Message, Path, Posting, Ref, StepKind, TellError, Watch, Watcher,
};
use pqcnet_crypto::NodeKeys;
use pqcnet_messages::edge::{Countersign, Deliver, Flow, SubscriptionEnded};
use pqcnet_messages::{Channel, Countersigned, PauseCause, Refusal, Statement};
use tokio::sync::{Notify, Semaphore};

use crate::core::subscription::{Inbox, Misdelivery};
use crate::core::tally::{Answer, Mark, Tally};
use crate::error::SubscribeError;

/// Deliveries taken at once: what is buffered is bounded by the subscriptions' windows, which the sentry must keep.
const FREE: usize = 1024;

/// One subscription's state, shared between the link's tasks, its own task and the application.
pub(crate) struct Slot {
    state: Mutex<SlotState>,
    /// Something arrived, or the subscription ended.
    pub(crate) news: Notify,
    /// The sentry ended the present subscription.
    pub(crate) ended: Notify,
}

pub(crate) struct SlotState {
    pub(crate) inbox: Inbox,
    /// What it signed for.
    pub(crate) tally: Tally,
    channel: Channel,
    /// The number it has on the present link; what comes under an older one is for nobody.
    pub(crate) subscription: u32,
    /// The sentry's last word on the present subscription.
    pub(crate) ended: Option<SubscribeError>,
    /// No more will come.
    pub(crate) failed: Option<SubscribeError>,
}

impl Slot {
    pub(crate) fn new(channel: Channel, inbox: Inbox, tally: Tally) -> Slot {
        Slot {
            state: Mutex::new(SlotState {
                inbox,
                tally,
                channel,
                subscription: 0,
                ended: None,
                failed: None,
            }),
            news: Notify::new(),
            ended: Notify::new(),
        }
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, SlotState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn end(&self, subscription: u32, error: SubscribeError) {
        let mut state = self.lock();
        if state.subscription == subscription {
            state.ended = Some(error);
            self.ended.notify_one();
        }
    }

    /// Nothing more will come.
    pub(crate) fn fail(&self, error: SubscribeError) {
        self.lock().failed.get_or_insert(error);
        self.news.notify_one();
    }
}

/// The subscriptions of one client, by their number on the link.
#[derive(Default)]
pub(crate) struct Inboxes {
    slots: Mutex<BTreeMap<u32, Arc<Slot>>>,
    /// By channel: whether its producer is to stop, and why.
    flows: Mutex<BTreeMap<Channel, latest::Sender<Option<PauseCause>>>>,
    watchers: Mutex<Vec<Watcher>>,
}

impl Inboxes {
    pub(crate) fn insert(&self, subscription: u32, slot: Arc<Slot>) {
        self.slots().insert(subscription, slot);
    }

    pub(crate) fn remove(&self, subscription: u32) {
        self.slots().remove(&subscription);
    }

    /// Where a channel's producer hears that it is to stop, and to go on.
    pub(crate) fn publishes(&self, channel: Channel) -> latest::Receiver<Option<PauseCause>> {
        let (sender, receiver) = latest::channel(None);
        let mut flows = self.flows();
        // Of producers that are gone.
        flows.retain(|_, flow| !flow.is_closed());
        flows.insert(channel, sender);
        receiver
    }

    fn flows(&self) -> MutexGuard<'_, BTreeMap<Channel, latest::Sender<Option<PauseCause>>>> {
        self.flows.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn flow(&self, flow: Flow) {
        if let Some(sender) = self.flows().get(&flow.channel) {
            sender.send_replace(flow.paused);
        }
    }

    fn slots(&self) -> MutexGuard<'_, BTreeMap<u32, Arc<Slot>>> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn slot(&self, subscription: u32) -> Option<Arc<Slot>> {
        self.slots().get(&subscription).cloned()
    }

    /// Deliveries for a number that is not in use (any more) are for nobody.
    fn deliver(&self, deliver: Deliver) {
        let Some(slot) = self.slot(deliver.subscription) else {
            return;
        };
        let number = deliver.subscription;
        let mut state = slot.lock();
        if state.subscription != number {
            return;
        }
        let outcome = state.inbox.on_deliver(deliver.records);
        drop(state);
        match outcome {
            Ok(()) => slot.news.notify_one(),
            Err(Misdelivery::NotContiguous { expected, got }) => {
                slot.end(number, SubscribeError::NotContiguous { expected, got });
            }
            Err(Misdelivery::WindowExceeded) => slot.end(number, SubscribeError::WindowExceeded),
        }
    }

    fn watch(&self, path: &Path) -> Watch {
        let (watcher, watch) = Watch::pair(path.clone());
        let mut watchers = self.watchers.lock().unwrap_or_else(PoisonError::into_inner);
        watchers.retain(|watcher| !watcher.is_abandoned());
        watchers.push(watcher);
        watch
    }

    fn ended(&self, ended: SubscriptionEnded) {
        if let Some(slot) = self.slot(ended.subscription) {
            slot.end(ended.subscription, SubscribeError::Refused(ended.refusal));
        }
    }
}

/// Takes one kind of message into the [`Inboxes`].
struct Inlet<M: Message> {
    env: Env,
    inboxes: Arc<Inboxes>,
    take: fn(&Inboxes, M),
    path: Path,
}

impl<M: Message<Reply = ()>> Inlet<M> {
    fn take(&self, letter: Letter<M>) {
        // The last step of a traced message; the application takes it from its inbox when it likes.
        let step = self
            .env
            .step(letter.trace, M::NAME, StepKind::Consumer, &self.path);
        (self.take)(&self.inboxes, letter.msg);
        drop(step);
        if let Some(reply) = letter.reply {
            reply.send(Ok(()));
        }
    }
}

impl<M: Message<Reply = ()>> Carrier<M> for Inlet<M> {
    fn post(&self, letter: Letter<M>) -> Result<(), TellError<Letter<M>>> {
        self.take(letter);
        Ok(())
    }

    fn post_when_free(&self, letter: Letter<M>) -> Posting<'_, M> {
        self.take(letter);
        Box::pin(std::future::ready(Ok(())))
    }

    fn free(&self) -> usize {
        FREE
    }

    fn path(&self) -> &Path {
        &self.path
    }

    /// Holds as long as the client does.
    fn watch(&self) -> Watch {
        self.inboxes.watch(&self.path)
    }
}

/// Signatures under way at once: one a subscription would let a sentry take the application's cores.
const SIGNING: usize = 4;

/// Signs for what was taken, when a relayer asks.
struct Signer {
    env: Env,
    inboxes: Arc<Inboxes>,
    keys: Arc<NodeKeys>,
    network_id: [u8; 32],
    signing: Arc<Semaphore>,
    path: Path,
}

impl Signer {
    /// What is said to a relayer that asks; a statement is yet to be signed.
    fn look(&self, ask: &Countersign) -> Result<Result<Countersigned, Statement>, Refusal> {
        let slot = self.inboxes.slot(ask.subscription);
        let slot = slot.ok_or(Refusal::Unavailable)?;
        let mut state = slot.lock();
        if state.subscription != ask.subscription {
            return Err(Refusal::Unavailable);
        }
        let taken = Mark {
            offset: state.inbox.reached(),
            counts: state.inbox.counts(),
        };
        match state.tally.ask(ask.relayer, taken) {
            Answer::Nothing => Err(Refusal::Unavailable),
            Answer::Same(receipt) => Ok(Ok(Countersigned { receipt: *receipt })),
            Answer::Sign(due) => Ok(Err(Statement {
                network_id: self.network_id,
                receiver: self.keys.node_id(),
                relayer: ask.relayer,
                channel: state.channel.clone(),
                series: state.tally.series,
                window: ask.window,
                after: due.after,
                last: due.last,
                frames: due.counts.frames,
                bytes: due.counts.bytes,
                signed_at_ms: self.env.wall_ms(),
            })),
        }
    }

    fn take(&self, letter: Letter<Countersign>) {
        let Some(reply) = letter.reply else { return };
        let Ok(place) = self.signing.clone().try_acquire_owned() else {
            return reply.send(Ok(Err(Refusal::Busy)));
        };
        let statement = match self.look(&letter.msg) {
            Ok(Ok(signed)) => return reply.send(Ok(Ok(signed))),
            Ok(Err(statement)) => statement,
            Err(refusal) => return reply.send(Ok(Err(refusal))),
        };
        let (keys, inboxes) = (self.keys.clone(), self.inboxes.clone());
        let signing = self.env.offload(move || statement.sign(&keys));
        let subscription = letter.msg.subscription;
        self.env.spawn(async move {
            let signed = signing.await.map_err(|_| Refusal::Busy);
            drop(place);
            if let (Ok(receipt), Some(slot)) = (&signed, inboxes.slot(subscription)) {
                slot.lock().tally.signed(receipt.clone());
            }
            reply.send(Ok(signed.map(|receipt| Countersigned { receipt })));
        });
    }
}

impl Carrier<Countersign> for Signer {
    fn post(&self, letter: Letter<Countersign>) -> Result<(), TellError<Letter<Countersign>>> {
        self.take(letter);
        Ok(())
    }

    fn post_when_free(&self, letter: Letter<Countersign>) -> Posting<'_, Countersign> {
        self.take(letter);
        Box::pin(std::future::ready(Ok(())))
    }

    fn free(&self) -> usize {
        FREE
    }

    fn path(&self) -> &Path {
        &self.path
    }

    /// Holds as long as the client does.
    fn watch(&self) -> Watch {
        self.inboxes.watch(&self.path)
    }
}

/// The ref that a link is bound to for receipts.
pub(crate) fn signer(
    env: &Env,
    inboxes: &Arc<Inboxes>,
    keys: Arc<NodeKeys>,
    network_id: [u8; 32],
) -> Ref<Countersign> {
    Ref::from_carrier(Arc::new(Signer {
        env: env.clone(),
        inboxes: inboxes.clone(),
        keys,
        network_id,
        signing: Arc::new(Semaphore::new(SIGNING)),
        path: Path::root("client").join("signer"),
    }))
}

/// The ref that a link is bound to for producers.
pub(crate) fn flow(env: &Env, inboxes: &Arc<Inboxes>) -> Ref<Flow> {
    let flow = Inlet {
        env: env.clone(),
        inboxes: inboxes.clone(),
        take: Inboxes::flow,
        path: Path::root("client").join("flow"),
    };
    Ref::from_carrier(Arc::new(flow))
}

/// The refs that a link is bound to.
pub(crate) fn refs(env: &Env, inboxes: &Arc<Inboxes>) -> (Ref<Deliver>, Ref<SubscriptionEnded>) {
    let deliver = Inlet {
        env: env.clone(),
        inboxes: inboxes.clone(),
        take: Inboxes::deliver,
        path: Path::root("client").join("deliver"),
    };
    let ended = Inlet {
        env: env.clone(),
        inboxes: inboxes.clone(),
        take: Inboxes::ended,
        path: Path::root("client").join("ended"),
    };
    (
        Ref::from_carrier(Arc::new(deliver)),
        Ref::from_carrier(Arc::new(ended)),
    )
}
