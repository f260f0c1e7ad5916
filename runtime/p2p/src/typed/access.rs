//! Who may send what: the rule that a message, a stream of events or a watch is bound with.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use pqcnet_link::Role;

/// A rule. The peer's node id was proved and its role checked when the link was accepted; this says what of the link's services it gets.
#[derive(Clone, Debug)]
pub struct Access {
    /// One bit a role, by its number.
    roles: u16,
    pass: Option<Pass>,
}

impl Access {
    /// Whoever has a link.
    pub fn anyone() -> Access {
        Access::roles(Role::ALL)
    }

    /// Peers with one of these roles.
    pub fn roles(roles: impl IntoIterator<Item = Role>) -> Access {
        let bits = roles.into_iter().fold(0, |bits, role| bits | bit(role));
        Access {
            roles: bits,
            pass: None,
        }
    }

    /// And only while this pass is open: what a grant, once verified, opens.
    #[must_use]
    pub fn with(mut self, pass: &Pass) -> Access {
        self.pass = Some(pass.clone());
        self
    }

    /// # Errors
    /// In words for the peer.
    #[inline]
    pub(super) fn permits(&self, role: Role, now: impl FnOnce() -> Duration) -> Result<(), Denied> {
        if self.roles & bit(role) == 0 {
            return Err(Denied::Role(role));
        }
        match &self.pass {
            Some(pass) if !pass.is_open(now()) => Err(Denied::NoGrant),
            _ => Ok(()),
        }
    }
}

fn bit(role: Role) -> u16 {
    1 << role.number()
}

/// Why a message is refused; the peer's fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    /// Its role may not send this.
    #[error("not for a {0}")]
    Role(Role),
    /// There is no grant for it, or not any more.
    #[error("no valid grant")]
    NoGrant,
}

/// Opened by whoever verified a grant, until the grant's end. Shared by the rules of one link.
#[derive(Clone, Debug, Default)]
pub struct Pass {
    /// Milliseconds of the node's clock; 0 is closed.
    until_ms: Arc<AtomicU64>,
}

impl Pass {
    /// Closed.
    pub fn new() -> Pass {
        Pass::default()
    }

    /// Opens it until then, by the node's clock ([`pqcnet_actor::Env::now`]).
    pub fn open_until(&self, until: Duration) {
        let ms = u64::try_from(until.as_millis()).unwrap_or(u64::MAX);
        self.until_ms.store(ms, Ordering::Release);
    }

    /// Closes it.
    pub fn close(&self) {
        self.until_ms.store(0, Ordering::Release);
    }

    fn is_open(&self, now: Duration) -> bool {
        now.as_millis() < u128::from(self.until_ms.load(Ordering::Acquire))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A role that may and one that may not; a pass before it is opened, while it is open, at its end, and closed early.
    #[test]
    fn rules() {
        let s = Duration::from_secs;
        let access = Access::roles([Role::Sentry, Role::Operator]);
        assert_eq!(access.permits(Role::Operator, || s(1)), Ok(()));
        let denied = Err(Denied::Role(Role::Client));
        assert_eq!(access.permits(Role::Client, || s(1)), denied);
        for role in Role::ALL {
            assert_eq!(Access::anyone().permits(role, || s(1)), Ok(()));
        }
        let pass = Pass::new();
        let access = Access::roles([Role::Client]).with(&pass);
        assert_eq!(access.permits(Role::Client, || s(1)), Err(Denied::NoGrant));
        pass.open_until(s(10));
        assert_eq!(access.permits(Role::Client, || s(9)), Ok(()));
        assert_eq!(access.permits(Role::Client, || s(10)), Err(Denied::NoGrant));
        pass.close();
        assert_eq!(access.permits(Role::Client, || s(9)), Err(Denied::NoGrant));
        assert_eq!(Denied::NoGrant.to_string(), "no valid grant");
        assert_eq!(Denied::Role(Role::Client).to_string(), "not for a client");
    }
}
