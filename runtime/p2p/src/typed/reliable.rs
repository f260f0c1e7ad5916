//! Reliable tells: kept until the receiver has them, over as many links as it takes.
//!
//! ```text
//!   Reliable<M> ── Ref<M> ──▶ Sending: Mutex<Sender core>, bounded
//!        │ attach(link)             ▲ acks          ╲
//!        └──────────────────────── task ── credit ── LinkHandle ══▶ Bindings::serve_reliably
//! ```
//!
//! One task a sender; it lives until the last handle and ref of it is dropped, and what is unacknowledged then is dropped with it
//! ([`Reliable::settled`] waits before that). Rules: [`pqcnet_link::reliable`].

use std::marker::PhantomData;
use std::ops::RangeInclusive;
use std::sync::Arc;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use parking_lot::Mutex;
use pqcnet_actor::latest;
use pqcnet_actor::{
    AskError, Carrier, DownReason, Env, Letter, Message, Path, Posting, Ref, TellError, TraceCx,
    Watch,
};
use pqcnet_link::reliable::{Heard, Outgoing, Sender, SenderLimits};
use pqcnet_link::{AckState, Addressed, Fault, SendError, To, cost};
use rand_core::Rng as _;
use std::collections::VecDeque;
use tokio::sync::Notify;

use super::bindings::{link_class, link_trace};
use super::shared::{Acked, LinkHandle};

/// What a reliable sender has to tell its owner.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lost {
    /// The receiving node lost its memory: these messages, counted from 1 since the last such loss, may or may not have been taken. Those after
    /// them are on their way.
    Unknown(RangeInclusive<u64>),
    /// The peer will not have them, in these words. Nothing is taken any more.
    Refused(String),
}

struct State {
    core: Sender,
    /// The traces of what the core holds.
    traces: VecDeque<TraceCx>,
    link: Option<LinkHandle>,
    refused: Option<String>,
}

struct Sending {
    env: Env,
    to: To,
    name: &'static str,
    path: Path,
    state: Mutex<State>,
    /// There may be something to send.
    news: Notify,
    /// The link is another.
    relinked: Notify,
    /// There is room, or nothing will ever be taken.
    room: Notify,
    unacknowledged: latest::Sender<usize>,
    lost: Box<dyn Fn(Lost) + Send + Sync>,
}

/// Sends `M` reliably to one peer, whichever links there are to it. Cheap to clone.
pub struct Reliable<M> {
    held: Arc<Held>,
    of: PhantomData<fn(M)>,
}

impl<M> Clone for Reliable<M> {
    fn clone(&self) -> Self {
        Reliable {
            held: Arc::clone(&self.held),
            of: PhantomData,
        }
    }
}

struct Held {
    sending: Arc<Sending>,
    over: latest::Sender<bool>,
}

impl Drop for Held {
    fn drop(&mut self) {
        self.over.send_replace(true);
        self.sending.detach();
    }
}

impl<M: Message<Reply = ()> + Addressed> Reliable<M> {
    /// Without a link yet. `lost` hears of what cannot be known or will not be taken; it must not block.
    pub fn new(
        env: &Env,
        limits: SenderLimits,
        lost: impl Fn(Lost) + Send + Sync + 'static,
    ) -> Reliable<M> {
        let stream = env.rng("reliable").next_u64();
        let sending = Arc::new(Sending {
            env: env.clone(),
            to: To::any(M::SERVICE, M::TYPE, link_class(M::CLASS)),
            name: M::NAME,
            path: Path::root("reliable").join(M::NAME),
            state: Mutex::new(State {
                core: Sender::new(stream, limits),
                traces: VecDeque::new(),
                link: None,
                refused: None,
            }),
            news: Notify::new(),
            relinked: Notify::new(),
            room: Notify::new(),
            unacknowledged: latest::Sender::new(0),
            lost: Box::new(lost),
        });
        let (over, ended) = latest::channel(false);
        env.spawn(run(Arc::clone(&sending), ended));
        Reliable {
            held: Arc::new(Held { sending, over }),
            of: PhantomData,
        }
    }

    /// From now on this link carries them; what it does not finish, the next one will. It holds the link open as a ref does.
    pub fn attach(&self, link: &LinkHandle) {
        let sending = &self.held.sending;
        sending.detach();
        let mut state = sending.state.lock();
        state.core.on_up();
        let stream = state.core.stream();
        state.link = Some(link.clone());
        drop(state);
        link.shared()
            .inner
            .lock()
            .senders
            .insert(stream, Arc::clone(sending) as Arc<dyn Acked>);
        sending.relinked.notify_one();
        sending.news.notify_one();
    }

    /// A ref whose tells are kept until they are taken: `Full` is "as many are unacknowledged as may be". Asks are refused.
    pub fn to_ref(&self) -> Ref<M> {
        Ref::from_carrier(Arc::new(self.clone()))
    }

    /// Messages that are not acknowledged.
    pub fn unacknowledged(&self) -> usize {
        self.held.sending.state.lock().core.unacknowledged()
    }

    /// Waits until everything told so far and since is acknowledged, or nothing will ever be.
    pub async fn settled(&self) {
        let mut unacknowledged = self.held.sending.unacknowledged.subscribe();
        // The sender lives as long as this handle.
        drop(unacknowledged.wait_for(|count| *count == 0).await);
    }
}

impl Sending {
    fn detach(&self) {
        let mut state = self.state.lock();
        state.core.on_down();
        let stream = state.core.stream();
        let Some(link) = state.link.take() else {
            return;
        };
        drop(state);
        link.shared().inner.lock().senders.remove(&stream);
    }

    /// After the core changed: who waits for room, or for the end, is told.
    fn changed(&self, state: &mut State) {
        let held = state.core.unacknowledged();
        let acknowledged = state.traces.len().saturating_sub(held);
        state.traces.drain(..acknowledged);
        let waiting = if state.refused.is_some() { 0 } else { held };
        self.unacknowledged
            .send_if_modified(|count| std::mem::replace(count, waiting) != waiting);
        self.room.notify_waiters();
        self.news.notify_one();
    }

    fn refuse(&self, why: String) {
        let mut state = self.state.lock();
        if state.refused.is_none() {
            state.refused = Some(why.clone());
            self.changed(&mut state);
            drop(state);
            self.detach();
            (self.lost)(Lost::Refused(why));
        }
    }

    fn renew(&self) {
        let stream = self.env.rng("reliable").next_u64();
        let mut state = self.state.lock();
        let old = state.core.stream();
        let unknown = state.core.renew(stream);
        let link = state.link.clone();
        self.changed(&mut state);
        drop(state);
        if let Some(link) = link {
            let senders = &mut link.shared().inner.lock().senders;
            if let Some(own) = senders.remove(&old) {
                senders.insert(stream, own);
            }
        }
        if let Some(unknown) = unknown {
            (self.lost)(Lost::Unknown(unknown));
        }
    }

    fn next(&self) -> Option<(Outgoing, TraceCx, LinkHandle)> {
        let state = self.state.lock();
        if state.refused.is_some() {
            return None;
        }
        let link = state.link.clone()?;
        let out = state.core.next()?;
        let index = state.core.index_of(out.number);
        let trace = index.and_then(|index| state.traces.get(index).copied());
        Some((out, trace.unwrap_or(TraceCx::NONE), link))
    }
}

impl Acked for Sending {
    fn on_ack(&self, ack: AckState, number: u64, life: u64) -> Result<(), Fault> {
        let mut state = self.state.lock();
        let stream = state.core.stream();
        let heard = state.core.on_ack(self.env.now(), ack, number, life);
        match heard {
            Heard::Taken(_) => {
                self.changed(&mut state);
                Ok(())
            }
            Heard::Forgotten => {
                drop(state);
                self.renew();
                Ok(())
            }
            Heard::Refused(why) => {
                drop(state);
                self.refuse(why);
                Ok(())
            }
            Heard::Misbehaved => Err(Fault::BadStream {
                what: "sequence",
                id: stream,
                problem: "is acknowledged further than it was sent",
            }),
        }
    }
}

/// What ended a wait.
enum Woken {
    Anew,
    LinkDown,
    Over,
}

async fn run(sending: Arc<Sending>, mut ended: latest::Receiver<bool>) {
    let mut closed: BoxFuture<'static, ()> = futures::future::pending().boxed();
    loop {
        // A link that came since the last look.
        if sending.relinked.notified().now_or_never().is_some() {
            let link = sending.state.lock().link.clone();
            closed = match link {
                Some(link) => link.closed().map(drop).boxed(),
                None => futures::future::pending().boxed(),
            };
        }
        let deadline = sending.state.lock().core.next_deadline();
        let now = sending.env.now();
        if deadline.is_some_and(|at| at <= now) {
            sending.state.lock().core.on_deadline(now);
            continue;
        }
        let next = sending.next();
        let step = async {
            match next {
                Some((out, trace, link)) => send(&sending, out, trace, &link).await,
                None => sending.news.notified().await,
            }
        };
        let timer = async {
            match deadline {
                Some(at) => sending.env.sleep(at.saturating_sub(now)).await,
                None => std::future::pending().await,
            }
        };
        let woken = tokio::select! {
            biased;
            _ = ended.wait_for(|over| *over) => Woken::Over,
            () = sending.relinked.notified() => {
                sending.relinked.notify_one();
                Woken::Anew
            }
            () = &mut closed => Woken::LinkDown,
            () = step => Woken::Anew,
            () = timer => Woken::Anew,
        };
        match woken {
            Woken::Over => return,
            Woken::Anew => {}
            Woken::LinkDown => {
                closed = futures::future::pending().boxed();
                sending.detach();
            }
        }
    }
}

/// Sends one message once there is credit for it, unless it is not the next one any more by then.
async fn send(sending: &Sending, out: Outgoing, trace: TraceCx, link: &LinkHandle) {
    let shared = link.shared();
    let able = shared.inner.lock().link.may_sequence(sending.to.service);
    match able {
        Ok(()) => {}
        // A peer of the release before: its next one will.
        Err(SendError::Unsupported | SendError::Closed) => return sending.news.notified().await,
        Err(error) => return sending.refuse(error.to_string()),
    }
    let units = shared.credit(sending.to.service, sending.to.class);
    let Ok(permit) = units.acquire_many(cost(out.payload.len())).await else {
        // Down; `closed` says so.
        return sending.news.notified().await;
    };
    let space = shared.space.notified();
    let mut space = std::pin::pin!(space);
    space.as_mut().enable();
    let sent = {
        let mut state = sending.state.lock();
        if state.core.next().as_ref() != Some(&out) {
            return;
        }
        let trace = link_trace(trace);
        let mut inner = shared.inner.lock();
        let sent = inner.link.send_sequenced(out, sending.to, trace);
        drop(inner);
        if sent.is_ok() {
            permit.forget();
            state.core.on_sent(sending.env.now());
        }
        sent
    };
    match sent {
        Ok(()) => shared.wake(),
        Err(SendError::OutboundFull | SendError::NoCredit | SendError::AsksFull) => space.await,
        // Closing; `closed` says when it is over.
        Err(SendError::Closed | SendError::Unsupported) => sending.news.notified().await,
        Err(error @ (SendError::TooLarge | SendError::NotServed(_) | SendError::TooMany)) => {
            tracing::debug!(message = sending.name, %error, "not sent");
            sending.refuse(error.to_string());
        }
    }
}

impl<M: Message<Reply = ()> + Addressed> Carrier<M> for Reliable<M> {
    fn post(&self, mut letter: Letter<M>) -> Result<(), TellError<Letter<M>>> {
        if let Some(reply) = letter.reply.take() {
            let why = "asks are not carried reliably".to_owned();
            reply.send(Err(AskError::Refused(why)));
            return Ok(());
        }
        let sending = &self.held.sending;
        let mut state = sending.state.lock();
        // Which incarnation has it is not this carrier's business: it outlives them all.
        if state.refused.is_some() || letter.only.is_some() {
            return Err(TellError::Closed(letter));
        }
        if state.core.room() == 0 {
            return Err(TellError::Full(letter));
        }
        match state.core.offer(letter.msg.to_wire()) {
            Ok(_) => {
                state.traces.push_back(letter.trace);
                let held = state.core.unacknowledged();
                sending.unacknowledged.send_replace(held);
                drop(state);
                sending.news.notify_one();
                Ok(())
            }
            Err(pqcnet_link::reliable::Full) => Err(TellError::Full(letter)),
        }
    }

    fn post_when_free(&self, mut letter: Letter<M>) -> Posting<'_, M> {
        Box::pin(async move {
            loop {
                let room = self.held.sending.room.notified();
                let mut room = std::pin::pin!(room);
                room.as_mut().enable();
                match self.post(letter) {
                    Ok(()) => return Ok(()),
                    Err(TellError::Closed(back)) => return Err(back),
                    Err(TellError::Full(back)) => letter = back,
                }
                room.await;
            }
        })
    }

    fn free(&self) -> usize {
        self.held.sending.state.lock().core.room()
    }

    fn path(&self) -> &Path {
        &self.held.sending.path
    }

    /// It ends only when nothing is taken any more, which `lost` tells; so there is nothing to watch.
    fn watch(&self) -> Watch {
        let (watcher, watch) = Watch::pair_of(self.path().clone(), None);
        watcher.down(DownReason::NotWatched);
        watch
    }
}
