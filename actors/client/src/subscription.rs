//! Reading a channel from an offset on, over as many links as it takes.

use std::sync::Arc;
use std::time::Duration;

use pqcnet_actor::{AskError, Pause, TellError};
use pqcnet_messages::edge::{Consumed, JoinGroup, Subscribe, Unsubscribe};
use pqcnet_messages::{Channel, Membership, Record, Refusal, Series};
use rand::Rng;
use tokio::sync::oneshot;

use crate::client::{Client, Shared};
use crate::connection::Live;
use crate::core::subscription::Inbox;
use crate::core::tally::Tally;
use crate::error::SubscribeError;
use crate::inbound::Slot;

/// The records of one channel, each once, in order, without holes.
///
/// Lost links are no business of the application: the subscription resumes after the last record it handed out. To go
/// on after a crash of its own, the application stores [`Record::offset`] together with what it did with the record, and
/// presents the last one stored.
pub struct Subscription {
    client: Client,
    slot: Arc<Slot>,
    current: Arc<Current>,
    /// Dropped with the subscription; its task ends then.
    _open: oneshot::Sender<()>,
}

/// Where the subscription is served just now.
type Current = std::sync::Mutex<Option<(u32, Live)>>;

impl Subscription {
    /// The number that it has on the present link, and that link.
    pub(crate) fn served(&self) -> Option<(u32, Live)> {
        lock(&self.current).clone()
    }

    pub(crate) fn client(&self) -> &Client {
        &self.client
    }
}

impl Subscription {
    /// Waits for the next record.
    ///
    /// # Errors
    /// The subscription has ended; what had arrived before is handed out first.
    pub async fn next(&mut self) -> Result<Record, SubscribeError> {
        loop {
            if let Some(record) = self.take() {
                return Ok(record);
            }
            if let Some(error) = self.slot.lock().failed.clone() {
                return Err(error);
            }
            // News since the look above left a permit.
            self.slot.news.notified().await;
        }
    }

    /// The next record if it has arrived.
    pub fn try_next(&mut self) -> Option<Record> {
        self.take()
    }

    /// The offset of the last record handed out, or the one presented.
    pub fn offset(&self) -> u64 {
        self.slot.lock().inbox.taken()
    }

    /// How many offsets were passed over because the network no longer kept them when this subscription came to them. Only
    /// where its operators limit how long records are kept.
    pub fn skipped(&self) -> u64 {
        self.slot.lock().inbox.skipped()
    }

    fn take(&mut self) -> Option<Record> {
        let mut state = self.slot.lock();
        let record = state.inbox.take()?;
        let report = state.inbox.report();
        drop(state);
        if let Some(offset) = report {
            self.report(offset);
        }
        Some(record)
    }

    /// Opens the window. Reports are cumulative, so one that is overtaken or lost with its link does no harm.
    fn report(&self, offset: u64) {
        let current = self.current.lock();
        let current = current.unwrap_or_else(std::sync::PoisonError::into_inner);
        let Some((subscription, live)) = &*current else {
            return;
        };
        let subscription = *subscription;
        let report = Consumed {
            subscription,
            offset,
        };
        if let Err(TellError::Full(report)) = live.edge.consumed.try_tell(report) {
            let consumed = live.edge.consumed.clone();
            self.client.shared().env.spawn(async move {
                if consumed.tell(report).await.is_err() {
                    tracing::trace!("the link went before its window was opened");
                }
            });
        }
    }
}

impl std::fmt::Debug for Subscription {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Subscription")
            .field("offset", &self.offset())
            .finish_non_exhaustive()
    }
}

/// Starts a subscription; returns once the network serves it. Of a group's member: once it stands by.
pub(crate) async fn start(
    client: Client,
    channel: Channel,
    after: u64,
    membership: Option<Membership>,
) -> Result<Subscription, SubscribeError> {
    let shared = client.shared().clone();
    let timeout = shared.config.connect_timeout;
    let window = shared.config.subscription_window_bytes;
    let mut series = Series::NONE;
    shared.env.rng("series").fill_bytes(&mut series.0);
    let (inbox, tally) = match membership {
        // Where its group is, it is not told before its first turn.
        Some(_) => (Inbox::floating(window), Tally::new(series, 0)),
        None => (Inbox::new(after, window), Tally::new(series, after)),
    };
    let slot = Slot::new(channel.clone(), inbox, tally);
    let slot = Arc::new(slot);
    let current = Arc::new(Current::default());
    let (open, closed) = oneshot::channel();
    let (started, starting) = oneshot::channel();
    let task = Task {
        shared: shared.clone(),
        channel,
        after,
        membership,
        slot: slot.clone(),
        current: current.clone(),
        started: Some(started),
    };
    shared.env.spawn(task.run(closed));
    let first = tokio::time::timeout(timeout, starting).await;
    match first {
        Ok(Ok(Ok(()))) => Ok(Subscription {
            client,
            slot,
            current,
            _open: open,
        }),
        Ok(Ok(Err(error))) => Err(error),
        Ok(Err(_)) => Err(SubscribeError::Closed),
        Err(_) => Err(SubscribeError::TimedOut(timeout)),
    }
}

/// Keeps the subscription served.
struct Task {
    shared: Arc<Shared>,
    channel: Channel,
    /// Where it began.
    after: u64,
    membership: Option<Membership>,
    slot: Arc<Slot>,
    current: Arc<Current>,
    started: Option<oneshot::Sender<Result<(), SubscribeError>>>,
}

/// How one stretch of being served ended.
enum Stretch {
    /// The link went: go on over the next one.
    LinkLost,
    /// Refused, but worth another try.
    Again,
    /// For good.
    Over(SubscribeError),
}

impl Task {
    async fn run(mut self, mut closed: oneshot::Receiver<()>) {
        let shared = self.shared.clone();
        let mut stopped = shared.stopped();
        let over = tokio::select! {
            biased;
            _ = &mut closed => None,
            _ = stopped.wait_for(|stopped| *stopped) => Some(SubscribeError::Closed),
            error = self.serve() => Some(error),
        };
        self.leave();
        if let Some(error) = over {
            if let Some(started) = self.started.take() {
                if started.send(Err(error)).is_err() {
                    tracing::trace!("nobody waits for this subscription");
                }
            } else {
                self.slot.fail(error);
            }
        }
    }

    async fn serve(&mut self) -> SubscribeError {
        let mut live = self.shared.live();
        let mut rng = self.shared.env.rng("subscription");
        let mut pause = Pause::new(self.shared.config.pause.0, self.shared.config.pause.1);
        loop {
            let link = match live.wait_for(Option::is_some).await {
                Ok(link) => link.clone(),
                Err(_) => return SubscribeError::Closed,
            };
            let Some(link) = link else { continue };
            let generation = link.generation;
            let stretch = self.stretch(link, &mut live, &mut pause).await;
            self.leave();
            match stretch {
                Stretch::LinkLost => {}
                Stretch::Over(error) => return error,
                Stretch::Again => {
                    tracing::debug!(generation, "subscription interrupted");
                    let wait = pause.next(rng.next_u64());
                    self.shared.env.sleep(wait).await;
                }
            }
        }
    }

    async fn stretch(
        &mut self,
        link: Live,
        live: &mut pqcnet_actor::latest::Receiver<Option<Live>>,
        pause: &mut Pause,
    ) -> Stretch {
        let subscription = self.shared.next_subscription();
        let (after, series) = {
            let mut state = self.slot.lock();
            state.ended = None;
            state.subscription = subscription;
            (state.inbox.restart(), state.tally.series)
        };
        self.shared.inboxes.insert(subscription, self.slot.clone());
        *lock(&self.current) = Some((subscription, link.clone()));
        let timeout: Duration = self.shared.config.request_timeout;
        // Clamped to 8 MiB.
        let window_bytes = self.shared.config.subscription_window_bytes as u32;
        let channel = self.channel.clone();
        let answer = match self.membership.clone() {
            None => {
                let subscribe = Subscribe {
                    subscription,
                    channel,
                    after,
                    window_bytes,
                    series,
                };
                link.edge.subscribe.ask(subscribe, timeout).await
            }
            Some(membership) => {
                let join = JoinGroup {
                    subscription,
                    channel,
                    after: self.after,
                    window_bytes,
                    series,
                    membership,
                };
                link.edge.join_group.ask(join, timeout).await
            }
        };
        match answer {
            Ok(Ok(_)) => {}
            Ok(Err(refusal)) => return self.refused(refusal),
            // A sentry of an earlier release: no other try will help.
            Err(AskError::Refused(words)) if self.membership.is_some() => {
                return Stretch::Over(SubscribeError::Refused(Refusal::Invalid(words)));
            }
            Err(_) => return Stretch::Again,
        }
        pause.reset();
        if let Some(started) = self.started.take()
            && started.send(Ok(())).is_err()
        {
            return Stretch::Over(SubscribeError::Closed);
        }
        let same = |now: &Option<Live>| {
            let now = now.as_ref().map(|live| live.generation);
            now == Some(link.generation)
        };
        loop {
            tokio::select! {
                biased;
                gone = live.wait_for(|now| !same(now)) => {
                    return match gone {
                        Ok(_) => Stretch::LinkLost,
                        Err(_) => Stretch::Over(SubscribeError::Closed),
                    };
                }
                () = self.slot.ended.notified() => {
                    // What follows locks the slot again.
                    let ended = self.slot.lock().ended.take();
                    match ended {
                        Some(SubscribeError::Refused(refusal)) => return self.refused(refusal),
                        Some(error) => return Stretch::Over(error),
                        None => {}
                    }
                }
            }
        }
    }

    fn refused(&mut self, refusal: Refusal) -> Stretch {
        match refusal {
            // A group that nobody heard of yet begins at what is kept; any other goes on where it is.
            Refusal::FrontGone { first } if self.membership.is_some() => {
                self.after = self.after.max(first.saturating_sub(1));
                Stretch::Again
            }
            // Another has the channel, or it is given to this one again.
            Refusal::Reassigned if self.membership.is_some() => Stretch::Again,
            Refusal::FrontGone { first } => {
                self.slot.lock().inbox.skip_through(first.saturating_sub(1));
                Stretch::Again
            }
            refusal if refusal.is_retryable() => Stretch::Again,
            refusal => Stretch::Over(SubscribeError::Refused(refusal)),
        }
    }

    /// Ends the present stretch at the sentry; a link that is gone needs no message.
    fn leave(&mut self) {
        let Some((subscription, live)) = lock(&self.current).take() else {
            return;
        };
        self.shared.inboxes.remove(subscription);
        let message = Unsubscribe { subscription };
        if let Err(TellError::Full(message)) = live.edge.unsubscribe.try_tell(message) {
            let unsubscribe = live.edge.unsubscribe;
            self.shared.env.spawn(async move {
                if unsubscribe.tell(message).await.is_err() {
                    tracing::trace!("the link went before the subscription was ended");
                }
            });
        }
    }
}

fn lock(current: &Current) -> std::sync::MutexGuard<'_, Option<(u32, Live)>> {
    current
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}
