//! A value whose latest state many look at and wait for.
//!
//! What tokio's `watch` is, with one difference: whoever waits is woken in the order of waiting. `watch` spreads its waiters
//! over eight lists by dice of its own, so two runs of one seed would part there.

use std::fmt;
use std::ops::Deref;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use tokio::sync::Notify;

/// No sender is left: the value will not change any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no sender is left")]
pub struct Ended;

struct State<T> {
    value: T,
    /// How often it was changed.
    version: u64,
    senders: usize,
    receivers: usize,
}

/// Nobody looks; the value comes back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("nobody looks at this value any more")]
pub struct Unseen<T>(pub T);

struct Shared<T> {
    state: RwLock<State<T>>,
    news: Notify,
}

impl<T> Shared<T> {
    fn read(&self) -> RwLockReadGuard<'_, State<T>> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, State<T>> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The value, locked against changes while this lives: keep it short, and never over an `await`.
pub struct Ref<'a, T>(RwLockReadGuard<'a, State<T>>);

impl<T> Deref for Ref<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0.value
    }
}

/// Changes the value.
pub struct Sender<T>(Arc<Shared<T>>);

/// Looks at the value and waits for changes.
pub struct Receiver<T> {
    shared: Arc<Shared<T>>,
    seen: u64,
}

/// Both ends of a value.
pub fn channel<T>(value: T) -> (Sender<T>, Receiver<T>) {
    let sender = Sender::new(value);
    let receiver = sender.subscribe();
    (sender, receiver)
}

impl<T> Sender<T> {
    /// A value that nobody looks at yet.
    pub fn new(value: T) -> Sender<T> {
        let state = State {
            value,
            version: 0,
            senders: 1,
            receivers: 0,
        };
        Sender(Arc::new(Shared {
            state: RwLock::new(state),
            news: Notify::new(),
        }))
    }

    /// Sets the value and tells everybody.
    ///
    /// # Errors
    /// Nobody looks: the value stays as it was.
    pub fn send(&self, value: T) -> Result<(), Unseen<T>> {
        if self.is_closed() {
            return Err(Unseen(value));
        }
        self.send_replace(value);
        Ok(())
    }

    /// Whether nobody looks.
    pub fn is_closed(&self) -> bool {
        self.0.read().receivers == 0
    }

    /// Waits until nobody looks.
    pub async fn closed(&self) {
        loop {
            // Made first: who goes from now on reaches it.
            let news = self.0.news.notified();
            if self.is_closed() {
                return;
            }
            news.await;
        }
    }

    /// Sets the value and tells everybody; the value before.
    pub fn send_replace(&self, value: T) -> T {
        let mut state = self.0.write();
        let before = std::mem::replace(&mut state.value, value);
        state.version += 1;
        drop(state);
        self.0.news.notify_waiters();
        before
    }

    /// Lets `change` work on the value, and tells everybody.
    pub fn send_modify(&self, change: impl FnOnce(&mut T)) {
        self.send_if_modified(|value| {
            change(value);
            true
        });
    }

    /// Lets `change` work on the value, and tells everybody if it says that it changed something; what it said.
    pub fn send_if_modified(&self, change: impl FnOnce(&mut T) -> bool) -> bool {
        let mut state = self.0.write();
        let changed = change(&mut state.value);
        state.version += u64::from(changed);
        drop(state);
        if changed {
            self.0.news.notify_waiters();
        }
        changed
    }

    /// Somebody more who looks; the present value counts as seen.
    pub fn subscribe(&self) -> Receiver<T> {
        let mut state = self.0.write();
        state.receivers += 1;
        Receiver {
            shared: self.0.clone(),
            seen: state.version,
        }
    }

    /// The value.
    pub fn borrow(&self) -> Ref<'_, T> {
        Ref(self.0.read())
    }
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Self {
        self.0.write().senders += 1;
        Sender(self.0.clone())
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        let mut state = self.0.write();
        state.senders -= 1;
        let last = state.senders == 0;
        drop(state);
        if last {
            self.0.news.notify_waiters();
        }
    }
}

impl<T> Receiver<T> {
    /// The value; it does not count as seen.
    pub fn borrow(&self) -> Ref<'_, T> {
        Ref(self.shared.read())
    }

    /// The value, which counts as seen from now on.
    pub fn borrow_and_update(&mut self) -> Ref<'_, T> {
        let state = self.shared.read();
        self.seen = state.version;
        Ref(state)
    }

    /// Waits until there is a value that was not seen, which then counts as seen. Cancelling it loses nothing.
    ///
    /// # Errors
    /// No sender is left, and the last value was seen.
    pub async fn changed(&mut self) -> Result<(), Ended> {
        loop {
            // Made first: what is told from now on reaches it.
            let news = self.shared.news.notified();
            {
                let state = self.shared.read();
                if state.version != self.seen {
                    self.seen = state.version;
                    return Ok(());
                }
                if state.senders == 0 {
                    return Err(Ended);
                }
            }
            news.await;
        }
    }

    /// Waits for a value of which `wanted` is true, the present one included. It counts as seen.
    ///
    /// # Errors
    /// No sender is left, and the last value is not wanted.
    pub async fn wait_for(
        &mut self,
        mut wanted: impl FnMut(&T) -> bool,
    ) -> Result<Ref<'_, T>, Ended> {
        loop {
            let news = self.shared.news.notified();
            {
                let state = self.shared.read();
                self.seen = state.version;
                if wanted(&state.value) {
                    return Ok(Ref(state));
                }
                if state.senders == 0 {
                    return Err(Ended);
                }
            }
            news.await;
        }
    }
}

impl<T> Clone for Receiver<T> {
    fn clone(&self) -> Self {
        self.shared.write().receivers += 1;
        Receiver {
            shared: self.shared.clone(),
            seen: self.seen,
        }
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        let mut state = self.shared.write();
        state.receivers -= 1;
        let last = state.receivers == 0;
        drop(state);
        if last {
            self.shared.news.notify_waiters();
        }
    }
}

impl<T: fmt::Debug> fmt::Debug for Sender<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Sender").field(&self.0.read().value).finish()
    }
}

impl<T: fmt::Debug> fmt::Debug for Receiver<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.shared.read();
        f.debug_tuple("Receiver").field(&state.value).finish()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;
    use crate::Env;

    // Scenario: thirty tasks wait for one change; they run in the order in which they began to wait.
    #[test]
    fn waiters_wake_in_order() {
        let woken: Arc<Mutex<Vec<usize>>> = Arc::default();
        let seen = woken.clone();
        crate::simulate(move || async move {
            let env = Env::simulated(1, "n");
            let sender = Sender::new(0);
            for n in 0..30 {
                let (mut receiver, woken) = (sender.subscribe(), woken.clone());
                env.spawn(async move {
                    receiver.changed().await.expect("a sender");
                    woken.lock().expect("a lock").push(n);
                });
            }
            env.sleep(std::time::Duration::from_millis(1)).await;
            sender.send_replace(1);
            env.sleep(std::time::Duration::from_millis(1)).await;
        });
        let woken = seen.lock().expect("a lock");
        assert_eq!(*woken, (0..30).collect::<Vec<_>>());
    }

    // Scenario: a sender waits until nobody looks: two look, one goes, a value changes, the other goes.
    #[test]
    fn the_last_to_look_is_told() {
        crate::simulate(|| async {
            let env = Env::simulated(1, "n");
            let (sender, first) = channel(0);
            let second = first.clone();
            let seen = sender.clone();
            let (over, is_over) = channel(false);
            env.spawn(async move {
                sender.closed().await;
                over.send_replace(true);
            });
            let pause = || env.sleep(std::time::Duration::from_millis(1));
            pause().await;
            drop(first);
            seen.send_replace(1);
            pause().await;
            assert!(!*is_over.borrow());
            drop(second);
            pause().await;
            assert!(*is_over.borrow());
        });
    }

    // Scenario: what was sent before the first look, during a wait and before the last sender went is seen; after that it is
    // over.
    #[test]
    fn nothing_is_missed_and_the_end_is_told() {
        crate::simulate(|| async {
            let (sender, mut receiver) = channel(1);
            assert_eq!(
                (Sender::new(5).send(6), sender.send(1)),
                (Err(Unseen(6)), Ok(()))
            );
            let other = sender.clone();
            sender.send_replace(2);
            assert_eq!(receiver.changed().await, Ok(()));
            assert_eq!(*receiver.borrow(), 2);
            assert!(!sender.send_if_modified(|_| false));
            assert!(sender.send_if_modified(|value| {
                *value = 3;
                true
            }));
            drop(sender);
            assert_eq!(
                receiver.wait_for(|value| *value == 3).await.as_deref(),
                Ok(&3)
            );
            other.send_replace(4);
            let mut late = receiver.clone();
            drop(other);
            assert_eq!(late.changed().await, Ok(()));
            assert_eq!(*late.borrow_and_update(), 4);
            assert_eq!(late.changed().await, Err(Ended));
            assert_eq!(late.wait_for(|value| *value == 5).await.err(), Some(Ended));
            assert_eq!(
                receiver.wait_for(|value| *value == 4).await.as_deref(),
                Ok(&4)
            );
        });
    }
}
