//! Snapshots as a stream of server-sent events: all of it once, then what changed.
//!
//! ```text
//!   join ─▶ fresh ─ next sample: `snapshot` ─▶ following ─ every sample: `change` ─▶ … ─▶ gone: left, or too slow
//! ```
//!
//! One task samples for all, and only while somebody listens: at [`EVERY`], and soon after somebody joined. A subscriber
//! whose queue is full has not read for [`QUEUE`] samples; it is hung up on and may come again.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures::Stream;
use futures::future::BoxFuture;
use pqcnet_actor::Env;
use serde_json::{Value, json};
use tokio::sync::{Notify, mpsc};

use super::changes;

/// Subscribers at once: a few operators with a few windows each.
pub const MAX_SUBSCRIBERS: usize = 16;
/// Between samples; a change is with every subscriber within a second.
pub const EVERY: Duration = Duration::from_millis(500);
/// Between samples when somebody joins: whoever comes and goes quickly costs no more than this.
const SOON: Duration = Duration::from_millis(100);
/// Events that wait for a subscriber.
pub const QUEUE: usize = 8;

/// Takes a sample, or says why there is none.
pub type Take = Arc<dyn Fn() -> BoxFuture<'static, Result<Value, String>> + Send + Sync>;

/// There are as many subscribers as there may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{MAX_SUBSCRIBERS} subscribers listen already: close a page that shows this node")]
pub struct TooMany;

/// The subscribers and the task that serves them. Clones share it.
#[derive(Clone)]
pub struct Events {
    inner: Arc<Inner>,
}

struct Inner {
    env: Env,
    take: Take,
    state: Mutex<State>,
    joined: Notify,
}

#[derive(Default)]
struct State {
    subscribers: BTreeMap<u64, Subscriber>,
    /// Feeds that live, the hung-up ones included: what they hold is bounded too.
    feeds: usize,
    last_id: u64,
    sampling: bool,
}

struct Subscriber {
    to: mpsc::Sender<Bytes>,
    fresh: bool,
    hang_up: Box<dyn FnOnce() + Send>,
}

impl Events {
    /// Nobody listens yet.
    pub fn new(env: &Env, take: Take) -> Events {
        let inner = Inner {
            env: env.clone(),
            take,
            state: Mutex::default(),
            joined: Notify::new(),
        };
        Events {
            inner: Arc::new(inner),
        }
    }

    /// A new subscriber. `hang_up` ends its connection, in case it reads too slowly to be told in any other way.
    ///
    /// # Errors
    /// There are too many already.
    pub fn join(&self, hang_up: impl FnOnce() + Send + 'static) -> Result<Feed, TooMany> {
        let mut state = self.inner.state();
        if state.feeds >= MAX_SUBSCRIBERS {
            return Err(TooMany);
        }
        state.feeds += 1;
        state.last_id += 1;
        let id = state.last_id;
        let (to, from) = mpsc::channel(QUEUE);
        let subscriber = Subscriber {
            to,
            fresh: true,
            hang_up: Box::new(hang_up),
        };
        state.subscribers.insert(id, subscriber);
        if !std::mem::replace(&mut state.sampling, true) {
            let inner = self.inner.clone();
            self.inner.env.spawn(async move { inner.sample().await });
        }
        drop(state);
        self.inner.joined.notify_one();
        let inner = self.inner.clone();
        Ok(Feed { id, from, inner })
    }

    /// Feeds that live.
    pub fn feeds(&self) -> usize {
        self.inner.state().feeds
    }
}

impl Inner {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn sample(&self) {
        let (mut last, mut number) = (Value::Null, 0);
        loop {
            let taken = (self.take)().await;
            number += 1;
            if !self.send(number, &mut last, taken) {
                return;
            }
            self.env.sleep(SOON).await;
            tokio::select! {
                biased;
                () = self.joined.notified() => {}
                () = self.env.sleep(EVERY - SOON) => {}
            }
        }
    }

    /// Gives every subscriber its event; false when nobody is left, and then sampling has ended.
    fn send(&self, number: u64, last: &mut Value, taken: Result<Value, String>) -> bool {
        let mut slow = Vec::new();
        let mut state = self.state();
        match taken {
            Ok(new) => {
                let change = changes::between(last, &new).unwrap_or_else(|| json!({}));
                let (mut whole, mut part) = (None, None);
                state.deliver(&mut slow, |subscriber| {
                    let event = if std::mem::take(&mut subscriber.fresh) {
                        whole.get_or_insert_with(|| event("snapshot", number, &new))
                    } else {
                        part.get_or_insert_with(|| event("change", number, &change))
                    };
                    event.clone()
                });
                *last = new;
            }
            Err(why) => {
                // Nobody missed a change: the next one is against what all of them have.
                let trouble = event("trouble", number, &json!({ "what": why }));
                state.deliver(&mut slow, |_| trouble.clone());
            }
        }
        state.sampling = !state.subscribers.is_empty();
        let goes_on = state.sampling;
        drop(state);
        for subscriber in slow {
            tracing::info!("a subscriber of the page's events read too slowly and was hung up on");
            (subscriber.hang_up)();
        }
        goes_on
    }
}

impl State {
    fn deliver(
        &mut self,
        slow: &mut Vec<Subscriber>,
        mut event: impl FnMut(&mut Subscriber) -> Bytes,
    ) {
        let mut over = Vec::new();
        for (id, subscriber) in &mut self.subscribers {
            let event = event(subscriber);
            if subscriber.to.try_send(event).is_err() {
                over.push(*id);
            }
        }
        slow.extend(over.iter().filter_map(|id| self.subscribers.remove(id)));
    }
}

fn event(name: &str, number: u64, data: &Value) -> Bytes {
    Bytes::from(format!("event: {name}\nid: {number}\ndata: {data}\n\n"))
}

/// One subscriber's events, as the bytes of a response. It ends when the subscriber was too slow.
pub struct Feed {
    id: u64,
    from: mpsc::Receiver<Bytes>,
    inner: Arc<Inner>,
}

impl Stream for Feed {
    type Item = Result<Bytes, Infallible>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.from.poll_recv(cx).map(|event| event.map(Ok))
    }
}

impl Drop for Feed {
    fn drop(&mut self) {
        let mut state = self.inner.state();
        state.feeds -= 1;
        state.subscribers.remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    // Time is paused: what sleeps wakes in order, at once.
    use super::*;
    use futures::{FutureExt as _, StreamExt as _};
    use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

    /// Counts samples; every third has no answer.
    fn counting(env: &Env) -> (Events, Arc<AtomicU64>) {
        let taken = Arc::new(AtomicU64::new(0));
        let count = taken.clone();
        let take: Take = Arc::new(move || {
            let number = count.fetch_add(1, Ordering::SeqCst) + 1;
            let sample = match number % 3 {
                0 => Err("the steward does not answer".to_owned()),
                _ => Ok(json!({ "fixed": "text", "number": number })),
            };
            async move { sample }.boxed()
        });
        (Events::new(env, take), taken)
    }

    async fn next(feed: &mut Feed) -> String {
        let event = feed.next().await.expect("an event").unwrap();
        String::from_utf8(event.to_vec()).unwrap()
    }

    /// Two join one after the other: each gets the whole first and then only what changed; a sample that fails is told and
    /// costs nobody a change.
    #[tokio::test(start_paused = true)]
    async fn all_of_it_then_changes() {
        let env = Env::plain();
        let (events, _) = counting(&env);
        let mut first = events.join(|| {}).unwrap();
        let whole = "event: snapshot\nid: 1\ndata: {\"fixed\":\"text\",\"number\":1}\n\n";
        assert_eq!(next(&mut first).await, whole);
        let mut second = events.join(|| {}).unwrap();
        assert_eq!(
            next(&mut first).await,
            "event: change\nid: 2\ndata: {\"number\":2}\n\n"
        );
        let whole = "event: snapshot\nid: 2\ndata: {\"fixed\":\"text\",\"number\":2}\n\n";
        assert_eq!(next(&mut second).await, whole);
        let trouble = "event: trouble\nid: 3\ndata: {\"what\":\"the steward does not answer\"}\n\n";
        for feed in [&mut first, &mut second] {
            assert_eq!(next(feed).await, trouble);
            assert_eq!(
                next(feed).await,
                "event: change\nid: 4\ndata: {\"number\":4}\n\n"
            );
        }
    }

    /// The last one leaves: sampling ends, and begins anew with the next one.
    #[tokio::test(start_paused = true)]
    async fn nobody_listens_nothing_is_taken() {
        let env = Env::plain();
        let (events, taken) = counting(&env);
        let mut feed = events.join(|| {}).unwrap();
        next(&mut feed).await;
        drop(feed);
        env.sleep(EVERY * 10).await;
        let before = taken.load(Ordering::SeqCst);
        env.sleep(EVERY * 10).await;
        assert_eq!(taken.load(Ordering::SeqCst), before);
        assert!(before <= 2, "{before} samples for nobody");
        let mut feed = events.join(|| {}).unwrap();
        let event = next(&mut feed).await;
        assert!(
            event.starts_with("event: ") && event.contains("\nid: 1\n"),
            "{event}"
        );
    }

    /// One never reads: it is hung up on when its queue is full, the other goes on. Its place is free once its response is.
    #[tokio::test(start_paused = true)]
    async fn a_slow_one_is_hung_up_on() {
        let env = Env::plain();
        let (events, _) = counting(&env);
        let hung_up = Arc::new(AtomicBool::new(false));
        let told = hung_up.clone();
        let mut slow = events
            .join(move || told.store(true, Ordering::SeqCst))
            .unwrap();
        let mut quick = events.join(|| {}).unwrap();
        for _ in 0..QUEUE {
            next(&mut quick).await;
            assert!(!hung_up.load(Ordering::SeqCst));
        }
        next(&mut quick).await;
        assert!(hung_up.load(Ordering::SeqCst));
        let mut held = 0;
        while slow.next().await.is_some() {
            held += 1;
        }
        assert_eq!((held, events.feeds()), (QUEUE, 2));
        drop(slow);
        assert_eq!(events.feeds(), 1);
        next(&mut quick).await;
    }

    /// As many as there may be, and one more.
    #[tokio::test(start_paused = true)]
    async fn places_are_bounded() {
        let env = Env::plain();
        let (events, _) = counting(&env);
        let mut feeds: Vec<Feed> = (0..MAX_SUBSCRIBERS)
            .map(|_| events.join(|| {}).unwrap())
            .collect();
        assert_eq!(events.join(|| {}).map(drop), Err(TooMany));
        feeds.pop();
        assert!(events.join(|| {}).is_ok());
    }
}
