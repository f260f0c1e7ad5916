//! The one timer of a link's task.
//!
//! A link's next deadline moves with every ask, answer and write, and is nearly never reached. A timer that stood at the deadline
//! would be taken off and put back each time; one left where it is goes off for nothing, and a link that rests is looked at again
//! only because of it. This one is moved when less than half of its span is left, so it goes off early at most once after the last
//! time its link was looked at.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use pqcnet_actor::Env;
use tokio::time::Sleep;

#[derive(Default)]
pub(super) struct Alarm(Option<Set>);

struct Set {
    sleep: Pin<Box<Sleep>>,
    /// When it goes off; never later than the deadline that was last given.
    at: Duration,
    /// From when the deadline was set to the deadline.
    span: Duration,
}

impl Alarm {
    pub(super) fn clear(&mut self) {
        self.0 = None;
    }

    /// Ready at `deadline`; else the task is woken then, or before to set it again.
    pub(super) fn poll(&mut self, env: &Env, deadline: Duration, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            let now = env.now();
            if deadline <= now {
                return Poll::Ready(());
            }
            let set = match &mut self.0 {
                Some(set) => {
                    set.fit(env, now, deadline);
                    set
                }
                none => none.insert(Set {
                    sleep: Box::pin(env.sleep(deadline - now)),
                    at: deadline,
                    span: deadline - now,
                }),
            };
            if set.sleep.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
        }
    }
}

impl Set {
    /// Moves it, if `deadline`, which is later than now, asks for that.
    fn fit(&mut self, env: &Env, now: Duration, deadline: Duration) {
        let left = self.at.saturating_sub(now);
        if deadline < self.at || left.is_zero() {
            self.span = deadline - now;
            self.at = deadline;
        } else if deadline > self.at && left < self.span / 2 {
            // Not further than it was set before: the next deadline of its kind is no earlier than that, and a timer moves to a
            // later time for nothing, to an earlier one at the cost of a new one.
            self.at = deadline.min(now + self.span);
        } else {
            return;
        }
        env.reset(self.sleep.as_mut(), self.at);
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use futures::task::noop_waker;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn in_time<T>(test: impl AsyncFnOnce(Env) -> T) -> T {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build();
        runtime
            .expect("a runtime")
            .block_on(async { test(Env::plain()).await })
    }

    /// How long from now until it goes off.
    async fn goes_off(alarm: &mut Alarm, env: &Env, deadline: Duration) -> Duration {
        let from = env.now();
        poll_fn(|cx| alarm.poll(env, deadline, cx)).await;
        env.now() - from
    }

    fn looks(alarm: &mut Alarm, env: &Env, deadline: Duration) {
        let waker = noop_waker();
        let polled = alarm.poll(env, deadline, &mut Context::from_waker(&waker));
        assert!(polled.is_pending());
    }

    #[test]
    fn it_goes_off_at_its_deadline() {
        in_time(async |env| {
            let mut alarm = Alarm::default();
            let deadline = env.now() + 5 * SECOND;
            assert_eq!(goes_off(&mut alarm, &env, deadline).await, 5 * SECOND);
            // Gone off, it is set anew; and to an earlier deadline at once.
            looks(&mut alarm, &env, env.now() + 9 * SECOND);
            let deadline = env.now() + 2 * SECOND;
            assert_eq!(goes_off(&mut alarm, &env, deadline).await, 2 * SECOND);
        });
    }

    /// An ask of five seconds every two, answered at once: in between the deadline is ten seconds away.
    #[test]
    fn a_link_in_use_is_not_woken_for_nothing() {
        in_time(async |env| {
            let mut alarm = Alarm::default();
            for _ in 0..50 {
                looks(&mut alarm, &env, env.now() + 5 * SECOND);
                tokio::time::sleep(SECOND / 20).await;
                looks(&mut alarm, &env, env.now() + 10 * SECOND);
                let rest = tokio::time::sleep(2 * SECOND);
                tokio::pin!(rest);
                let mut woken = false;
                poll_fn(|cx| {
                    if let Some(set) = &mut alarm.0 {
                        woken |= set.sleep.as_mut().poll(cx).is_ready();
                    }
                    rest.as_mut().poll(cx)
                })
                .await;
                assert!(!woken);
            }
        });
    }

    #[test]
    fn a_link_at_rest_is_woken_once_before_its_deadline() {
        in_time(async |env| {
            let mut alarm = Alarm::default();
            looks(&mut alarm, &env, env.now() + 5 * SECOND);
            let deadline = env.now() + 10 * SECOND;
            let mut woken = 0;
            poll_fn(|cx| {
                woken += 1;
                alarm.poll(&env, deadline, cx)
            })
            .await;
            assert_eq!(env.now(), deadline);
            // At first, after five seconds, and then.
            assert_eq!(woken, 3);
        });
    }
}
