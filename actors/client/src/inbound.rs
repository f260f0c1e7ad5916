//! Where the sentry's deliveries come in: straight into the inbox of their subscription, no task between.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use pqcnet_actor::{
    Carrier, Env, Letter, Message, Path, Posting, Ref, StepKind, TellError, Watch, Watcher,
};
use pqcnet_messages::edge::{Deliver, SubscriptionEnded};
use tokio::sync::Notify;

use crate::core::subscription::{Inbox, Misdelivery};
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
    /// The number it has on the present link; what comes under an older one is for nobody.
    pub(crate) subscription: u32,
    /// The sentry's last word on the present subscription.
    pub(crate) ended: Option<SubscribeError>,
    /// No more will come.
    pub(crate) failed: Option<SubscribeError>,
}

impl Slot {
    pub(crate) fn new(inbox: Inbox) -> Slot {
        Slot {
            state: Mutex::new(SlotState {
                inbox,
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
    watchers: Mutex<Vec<Watcher>>,
}

impl Inboxes {
    pub(crate) fn insert(&self, subscription: u32, slot: Arc<Slot>) {
        self.slots().insert(subscription, slot);
    }

    pub(crate) fn remove(&self, subscription: u32) {
        self.slots().remove(&subscription);
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
        let (watcher, watch) = Watch::pair(self.path.clone());
        let mut watchers = self
            .inboxes
            .watchers
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        watchers.retain(|watcher| !watcher.is_abandoned());
        watchers.push(watcher);
        watch
    }
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
