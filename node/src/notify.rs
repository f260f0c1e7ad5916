//! What a node tells the service manager that started it, if one did: systemd's protocol, one datagram a word.
//!
//! Without `NOTIFY_SOCKET` nothing is told. The watchdog is fed by the steward's answers: a node whose steward does not
//! answer is as good as gone, and is killed and started anew.

use std::time::Duration;

use pqcnet_actor::{Env, Ref};
use pqcnet_roles::steward::Account;
use sd_notify::NotifyState;

/// Tells it, and goes on if nobody listens.
pub fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::debug!(%error, "the service manager does not hear");
    }
}

/// It serves.
pub fn ready() {
    tell(&[NotifyState::Ready, NotifyState::Status("serving")]);
}

/// It reads its configuration again; [`ready`] ends that.
pub fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => tell(&[NotifyState::Reloading, now]),
        Err(error) => tracing::debug!(%error, "no monotonic clock"),
    }
}

/// It drains.
pub fn stopping() {
    tell(&[NotifyState::Stopping, NotifyState::Status("draining")]);
}

/// Feeds the watchdog three times in its time, for as long as the steward answers.
pub fn feed_watchdog(env: &Env, steward: Ref<Account>) {
    let Some(within) = sd_notify::watchdog_enabled() else {
        return;
    };
    let every = (within / 3).max(Duration::from_millis(100));
    let clock = env.clone();
    env.spawn(async move {
        loop {
            if steward.ask(Account, every).await.is_ok() {
                tell(&[NotifyState::Watchdog]);
            }
            clock.sleep(every).await;
        }
    });
}
