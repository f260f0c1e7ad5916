//! What a link's task shares with the handles and remote refs of the link.

use std::collections::{BTreeMap, VecDeque};
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Wake, Waker};

use futures::task::AtomicWaker;
use parking_lot::Mutex;
use pqcnet_actor::latest;
use pqcnet_actor::{
    AskError, DownReason as ActorDown, Env, Incarnation, Message, Path, Ref, ReplyTo, Watch,
    Watcher,
};
use pqcnet_link::{
    AckState, Addressed, Answer, Class, DownReason, Fate, Fault, Link, Position, Reason, SendError,
    ServiceId, Stats, StreamNotice, Wire,
};
use tokio::sync::{Notify, Semaphore};

use super::PeerInfo;
use super::events::{EventsEnded, Subscription};
use super::places::Place;
use super::remote::{RemoteCarrier, RemoteFeed};

/// Most watchers of one link; actors that hold refs of it, not messages.
const MAX_WATCHERS: usize = 1024;

/// Somebody who waits for an ask's answer.
pub(super) trait Sink: Send {
    /// Passes the answer on; a payload that does not decode is the peer's fault.
    fn answer(self: Box<Self>, answer: Answer) -> Result<(), Fault>;
    /// Tells that no answer will come.
    fn lost(self: Box<Self>, reason: &DownReason);
    /// Whether the asker has left; wakes `waker` when it does.
    fn poll_left(&mut self, waker: &Waker) -> bool;
}

/// The asker, and the one incarnation that it asked, if only one.
pub(super) struct AskSink<M: Message>(pub(super) ReplyTo<M>, pub(super) Option<Incarnation>);

impl<M> Sink for AskSink<M>
where
    M: Message,
    M::Reply: Wire,
{
    fn answer(self: Box<Self>, answer: Answer) -> Result<(), Fault> {
        let outcome = match answer {
            Answer::Ok(payload) => match M::Reply::from_wire(payload) {
                Ok(reply) => Ok(reply),
                Err(problem) => {
                    let message = M::NAME;
                    let words = format!("the reply to {message} is malformed");
                    self.0.send(Err(AskError::Remote(words)));
                    return Err(Fault::BadPayload { message, problem });
                }
            },
            Answer::Busy => Err(AskError::Busy),
            Answer::Timeout | Answer::Cancelled => Err(AskError::Timeout),
            Answer::Closed | Answer::Draining => Err(AskError::Closed),
            Answer::Panicked => Err(AskError::Panicked),
            Answer::Abandoned => Err(AskError::Abandoned),
            Answer::Refused(why) => Err(AskError::Refused(why)),
            // The carrier knows which one it asked for.
            Answer::Stale { present } => Err(AskError::Stale {
                held: match self.1 {
                    Some(held) => held,
                    None => return Err(Fault::UnaskedStale),
                },
                present: Incarnation::from_number(present),
            }),
            Answer::UnknownType => Err(AskError::Refused(format!("{} is not served", M::NAME))),
            Answer::ReplyTooLarge => Err(AskError::Remote("the reply is too large".to_owned())),
        };
        self.0.send(outcome);
        Ok(())
    }

    fn lost(self: Box<Self>, reason: &DownReason) {
        self.0.send(Err(AskError::Remote(reason.to_string())));
    }

    fn poll_left(&mut self, waker: &Waker) -> bool {
        let left = pin!(self.0.abandoned());
        left.poll(&mut Context::from_waker(waker)).is_ready()
    }
}

pub(super) struct Inner {
    pub(super) link: Link,
    pub(super) sinks: BTreeMap<u64, Box<dyn Sink>>,
    /// The credit held, again, as something that can be waited for in turn. Never more than the link's own count.
    credit: BTreeMap<(ServiceId, Class), Arc<Semaphore>>,
    watchers: Vec<Watcher>,
    /// Watches of the peer's actors.
    fates: BTreeMap<u64, Watcher>,
    /// Subscriptions at the peer.
    pub(super) followed: BTreeMap<u64, Queue>,
    /// Reliable senders that use this link, by stream.
    pub(super) senders: BTreeMap<u64, Arc<dyn Acked>>,
    /// Free again when the link is down.
    place: Option<Place>,
    pub(super) closing: Option<(Reason, String)>,
    pub(super) down: Option<DownReason>,
}

pub(super) struct Shared {
    env: Env,
    peer: PeerInfo,
    path: Path,
    pub(super) inner: Mutex<Inner>,
    /// Units left of the peer's ask window.
    pub(super) ask_units: Semaphore,
    /// Notified when bytes have left for the socket.
    pub(super) space: Notify,
    task: Arc<Task>,
    /// Wakes the task because some asker has left.
    leaver: Waker,
    closed: latest::Sender<Option<DownReason>>,
}

/// The link's task, to be woken.
#[derive(Default)]
struct Task {
    waker: AtomicWaker,
    somebody_left: AtomicBool,
    /// Of those whom the peer watches.
    somebody_changed: AtomicBool,
}

impl Wake for Task {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.somebody_left.store(true, Ordering::Release);
        self.waker.wake();
    }
}

/// Wakes the link's task because somebody whom the peer watches has changed.
struct Changed(Arc<Task>);

impl Wake for Changed {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.0.somebody_changed.store(true, Ordering::Release);
        self.0.waker.wake();
    }
}

impl Shared {
    pub(super) fn new(env: Env, link: Link, peer: PeerInfo, ask_window: u32) -> Arc<Shared> {
        let task = Arc::new(Task::default());
        Arc::new(Shared {
            path: Path::root("link").join(&peer.node_id.short()),
            env,
            peer,
            inner: Mutex::new(Inner {
                link,
                sinks: BTreeMap::new(),
                credit: BTreeMap::new(),
                watchers: Vec::new(),
                fates: BTreeMap::new(),
                followed: BTreeMap::new(),
                senders: BTreeMap::new(),
                place: None,
                closing: None,
                down: None,
            }),
            ask_units: Semaphore::new(ask_window as usize),
            space: Notify::new(),
            leaver: Waker::from(Arc::clone(&task)),
            task,
            closed: latest::Sender::new(None),
        })
    }

    pub(super) fn env(&self) -> &Env {
        &self.env
    }

    pub(super) fn peer(&self) -> &PeerInfo {
        &self.peer
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn leaver(&self) -> &Waker {
        &self.leaver
    }

    /// The link's task has something to do.
    pub(super) fn wake(&self) {
        self.task.waker.wake();
    }

    pub(super) fn register(&self, waker: &Waker) {
        self.task.waker.register(waker);
    }

    pub(super) fn take_somebody_left(&self) -> bool {
        self.task.somebody_left.swap(false, Ordering::AcqRel)
    }

    /// A waker for what the peer watches.
    pub(super) fn changed(&self) -> Waker {
        Waker::from(Arc::new(Changed(Arc::clone(&self.task))))
    }

    pub(super) fn take_somebody_changed(&self) -> bool {
        self.task.somebody_changed.swap(false, Ordering::AcqRel)
    }

    pub(super) fn credit(&self, service: ServiceId, class: Class) -> Arc<Semaphore> {
        self.inner.lock().credit(service, class)
    }

    /// Keeps the place until the link is down.
    pub(super) fn hold(&self, place: Place) {
        self.inner.lock().place = Some(place);
    }

    /// Watches whoever serves this message at the peer, and the link with it.
    pub(super) fn watch_peer(&self, (service, type_id): (ServiceId, u32), path: &Path) -> Watch {
        let (watcher, watch) = Watch::pair(path.clone());
        let mut inner = self.inner.lock();
        if let Some(reason) = &inner.down {
            watcher.down(ActorDown::LinkLost(reason.to_string()));
            return watch;
        }
        inner.sweep_fates();
        match inner.link.watch(service, type_id) {
            Ok(id) => {
                inner.fates.insert(id, watcher);
                drop(inner);
                self.wake();
            }
            // No more can be said than that the link is gone.
            Err(SendError::Unsupported | SendError::NotServed(_) | SendError::Closed) => {
                inner.watch_link(watcher);
            }
            Err(_) => watcher.down(ActorDown::NotWatched),
        }
        watch
    }

    fn close(&self, reason: Reason, detail: &str) {
        let mut inner = self.inner.lock();
        if inner.closing.is_none() {
            inner.closing = Some((reason, detail.to_owned()));
        }
        drop(inner);
        self.wake();
    }

    /// The link is over: everybody who waits for something of it is told. Only the first call counts.
    pub(super) fn go_down(&self, reason: DownReason) {
        let mut inner = self.inner.lock();
        if inner.down.is_some() {
            return;
        }
        inner.down = Some(reason.clone());
        self.ask_units.close();
        for semaphore in inner.credit.values() {
            semaphore.close();
        }
        let sinks = std::mem::take(&mut inner.sinks);
        let watchers = std::mem::take(&mut inner.watchers);
        let fates = std::mem::take(&mut inner.fates);
        let place = inner.place.take();
        let readers = inner.followed.values_mut();
        let readers: Vec<Waker> = readers.filter_map(|queue| queue.reader.take()).collect();
        // Their tasks see the end through `closed`.
        let senders = std::mem::take(&mut inner.senders);
        drop(inner);
        drop((place, senders));
        readers.into_iter().for_each(Waker::wake);
        self.space.notify_waiters();
        for sink in sinks.into_values() {
            sink.lost(&reason);
        }
        for watcher in watchers.into_iter().chain(fates.into_values()) {
            watcher.down(ActorDown::LinkLost(reason.to_string()));
        }
        self.closed.send_replace(Some(reason));
    }
}

impl Inner {
    fn watch_link(&mut self, watcher: Watcher) {
        if self.watchers.len() >= MAX_WATCHERS {
            self.watchers.retain(|watcher| !watcher.is_abandoned());
        }
        if self.watchers.len() < MAX_WATCHERS {
            self.watchers.push(watcher);
        }
    }

    /// Gives up watches that nobody waits for, whenever their number is a power of two.
    fn sweep_fates(&mut self) {
        if self.fates.len() < 32 || !self.fates.len().is_power_of_two() {
            return;
        }
        let abandoned = self
            .fates
            .extract_if(.., |_, watcher| watcher.is_abandoned());
        let abandoned: Vec<u64> = abandoned.map(|(id, _)| id).collect();
        for id in abandoned {
            self.link.unwatch(id);
        }
    }

    pub(super) fn on_fate(&mut self, id: u64, fate: Fate) {
        let present = match fate {
            Fate::Present(n) | Fate::Stopped(n) | Fate::Panicked(n) | Fate::Killed(n) => n,
            Fate::NotWatched => 0,
        };
        if let (Some(present), Some(watcher)) =
            (Incarnation::from_number(present), self.fates.get_mut(&id))
        {
            watcher.present(present);
        }
        let reason = match fate {
            Fate::Present(_) => return,
            Fate::Stopped(_) => ActorDown::Stopped,
            Fate::Panicked(_) => ActorDown::Panicked,
            Fate::Killed(_) => ActorDown::Killed,
            // The peer serves no such thing, or not to this node: no more can be said than that the link is gone.
            Fate::NotWatched => {
                if let Some(watcher) = self.fates.remove(&id) {
                    self.watch_link(watcher);
                }
                return;
            }
        };
        if let Some(watcher) = self.fates.remove(&id) {
            watcher.down(reason);
        }
    }

    pub(super) fn on_notice(&mut self, id: u64, notice: StreamNotice) {
        if let Some(queue) = self.followed.get_mut(&id) {
            queue.notices.push_back(notice);
            if let Some(reader) = queue.reader.take() {
                reader.wake();
            }
        }
    }

    pub(super) fn credit(&mut self, service: ServiceId, class: Class) -> Arc<Semaphore> {
        let down = self.down.is_some();
        let semaphore = self.credit.entry((service, class)).or_insert_with(|| {
            let semaphore = Semaphore::new(0);
            if down {
                semaphore.close();
            }
            Arc::new(semaphore)
        });
        Arc::clone(semaphore)
    }
}

/// What came of one subscription and was not taken yet; the window given to the peer bounds it.
#[derive(Default)]
pub(super) struct Queue {
    pub(super) notices: VecDeque<StreamNotice>,
    pub(super) reader: Option<Waker>,
}

/// A reliable sender, to be told what the peer has.
pub(super) trait Acked: Send + Sync {
    /// A peer that acknowledges what it never got has erred.
    fn on_ack(&self, state: AckState, number: u64, life: u64) -> Result<(), Fault>;
}

/// Counts of a link since it began, and what it holds now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LinkStats {
    /// Frames and bytes.
    pub counts: Stats,
    /// Bytes that wait for the socket.
    pub outbound: usize,
    /// Asks of ours that the peer has not answered.
    pub open_asks: usize,
    /// Asks of the peer's that are not answered here.
    pub unanswered: usize,
    /// Smallest credit held, in units: at 0 the peer takes nothing more of a kind for now. `None` before any was granted.
    pub credit: Option<u32>,
}

/// Holds a link open; dropping the last one, remote refs included, closes it in order. Cheap to clone.
#[derive(Clone)]
pub struct LinkHandle {
    held: Arc<Held>,
}

struct Held {
    shared: Arc<Shared>,
}

impl Drop for Held {
    fn drop(&mut self) {
        self.shared.close(Reason::Closed, "");
    }
}

impl std::fmt::Debug for LinkHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "LinkHandle({})", self.shared().path)
    }
}

impl LinkHandle {
    pub(super) fn new(shared: Arc<Shared>) -> LinkHandle {
        let held = Arc::new(Held { shared });
        LinkHandle { held }
    }

    pub(super) fn shared(&self) -> &Arc<Shared> {
        &self.held.shared
    }

    /// A ref whose messages go to the peer. It works as a local one does: `Full` is "no credit", `Closed` is "the link is
    /// down", `watch` watches the actor there, and tells when it ends or the link does.
    pub fn remote<M>(&self) -> Ref<M>
    where
        M: Message + Addressed,
        M::Reply: Wire,
    {
        Ref::from_carrier(Arc::new(RemoteCarrier::<M>::new(self.clone())))
    }

    /// Subscribes to the events `E` of the peer: what came after `after`, or comes from now on.
    ///
    /// # Errors
    /// Nothing was asked of the peer. What the peer refuses, [`Subscription::next`] tells.
    pub fn subscribe<E: Addressed>(
        &self,
        after: Option<Position>,
    ) -> Result<Subscription<E>, EventsEnded> {
        let feed = RemoteFeed::open::<E>(self.clone(), after)?;
        Ok(Subscription::new(Box::new(feed)))
    }

    /// Who is at the other end.
    pub fn peer(&self) -> &PeerInfo {
        self.shared().peer()
    }

    /// Ends the link in order: no new asks in either direction, what the peer still waits for is answered (for at most the
    /// configured time), everything queued is sent, then a Down with this reason. [`LinkHandle::closed`] tells when.
    pub fn close(&self, reason: Reason) {
        self.shared().close(reason, "");
    }

    /// As [`LinkHandle::close`], with words for the peer.
    pub fn close_with(&self, reason: Reason, detail: &str) {
        self.shared().close(reason, detail);
    }

    /// Why the link is down, once it is. Holding the future does not hold the link open.
    pub fn closed(&self) -> impl Future<Output = DownReason> + Send + use<> {
        let mut closed = self.shared().closed.subscribe();
        let shared = Arc::downgrade(self.shared());
        async move {
            let reason = closed.wait_for(Option::is_some).await;
            let reason = reason.map(|reason| reason.clone()).ok().flatten();
            // The sender lives in `shared`, whose task says why before it drops it.
            reason
                .or_else(|| shared.upgrade()?.inner.lock().down.clone())
                .unwrap_or(super::DROPPED)
        }
    }

    /// Why the link is down, if it is.
    pub fn down_reason(&self) -> Option<DownReason> {
        self.shared().inner.lock().down.clone()
    }

    /// Counts and what the link holds.
    pub fn stats(&self) -> LinkStats {
        let inner = self.shared().inner.lock();
        LinkStats {
            counts: inner.link.stats(),
            outbound: inner.link.outbound(),
            open_asks: inner.link.open_asks(),
            unanswered: inner.link.unanswered(),
            credit: inner.link.least_credit(),
        }
    }
}
