//! Keeps one link to each wanted peer and says when it is up and when it is gone.
//!
//! Rules: [`crate::core::peers`]. Started by: `roles::sentry`. Sends to: whoever was named for a peer ([`Users`]).
//! How a peer is dialled, and what of a link its user needs, is the role's ([`Dial`]); a link is up only after its
//! handshake and Hello. Where it is the herald that chooses, it follows [`Wanted`] and tells the herald of failures.
//! Mailbox: nothing is sent to it. A restart forgets the links it made: it dials again, and the new link replaces the old
//! one at its user.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use pqcnet_actor::latest;
use pqcnet_actor::{Alarm, Behaviour, Cx, Pause, Ref, TellError};
use pqcnet_crypto::NodeId;
use pqcnet_messages::mesh::{LinkDown, LinkUp};
use rand::Rng;

use crate::core::peers::{Peers, State};
use crate::gossip::DialFailed;

/// How soon a fact that a user's full mailbox refused is told again.
const RETELL: Duration = Duration::from_millis(50);

/// A link that was made.
pub struct Linked<L> {
    /// What its user needs of it.
    pub link: L,
    /// Ends when the link is gone, with the reason.
    pub closed: BoxFuture<'static, String>,
}

/// Why there is no link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotLinked {
    /// For the log.
    pub reason: String,
    /// Somebody answered at the peer's address and could not prove to be the peer.
    pub handshake: bool,
}

impl<S: Into<String>> From<S> for NotLinked {
    fn from(reason: S) -> NotLinked {
        NotLinked {
            reason: reason.into(),
            handshake: false,
        }
    }
}

/// Dials a peer: connection, handshake, Hello.
pub type Dial<L> =
    Arc<dyn Fn(NodeId) -> BoxFuture<'static, Result<Linked<L>, NotLinked>> + Send + Sync + 'static>;

/// Whom a dialler is to keep links to, by whoever chooses. A link to another one that is open stays until it ends.
pub type Wanted = latest::Receiver<Arc<BTreeSet<NodeId>>>;

/// Who is told about the link to one peer.
pub struct User<L: Send + 'static> {
    /// Hears that it is up.
    pub up: Ref<LinkUp<L>>,
    /// Hears that it is gone.
    pub down: Ref<LinkDown>,
}

impl<L: Send + 'static> Clone for User<L> {
    fn clone(&self) -> Self {
        User {
            up: self.up.clone(),
            down: self.down.clone(),
        }
    }
}

/// What a dialler is started with.
pub struct DiallerConfig<L: Send + 'static> {
    /// How to dial.
    pub dial: Dial<L>,
    /// The peers wanted from the start and who uses each.
    pub users: BTreeMap<NodeId, User<L>>,
    /// Whom to dial from now on, where that changes; `users` alone else.
    pub wanted: Option<Wanted>,
    /// Who uses links to peers that are not among `users`.
    pub others: Option<User<L>>,
    /// Who hears of dials that failed.
    pub failures: Option<Ref<DialFailed>>,
    /// First pause after a failure.
    pub pause_min: Duration,
    /// Longest pause.
    pub pause_max: Duration,
    /// A link that held this long starts its pauses anew.
    pub settled_after: Duration,
}

impl<L: Send + 'static> DiallerConfig<L> {
    /// Pauses from 100 ms, since a restarted neighbour should be back in use soon, to 2 s, since a dial costs both
    /// sides a handshake; a link is settled after 5 s.
    pub fn new(dial: Dial<L>, users: BTreeMap<NodeId, User<L>>) -> DiallerConfig<L> {
        DiallerConfig {
            dial,
            users,
            wanted: None,
            others: None,
            failures: None,
            pause_min: Duration::from_millis(100),
            pause_max: Duration::from_secs(2),
            settled_after: Duration::from_secs(5),
        }
    }
}

impl<L: Send + 'static> Clone for DiallerConfig<L> {
    fn clone(&self) -> Self {
        DiallerConfig {
            dial: self.dial.clone(),
            users: self.users.clone(),
            wanted: self.wanted.clone(),
            others: self.others.clone(),
            failures: self.failures.clone(),
            ..*self
        }
    }
}

impl<L: Send + 'static> fmt::Debug for DiallerConfig<L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DiallerConfig")
            .field("peers", &self.users.keys())
            .finish_non_exhaustive()
    }
}

/// The actor.
pub struct Dialler<L: Send + 'static> {
    config: DiallerConfig<L>,
    peers: Peers,
    alarm: Alarm<Self>,
}

impl<L: Send + 'static> Dialler<L> {
    /// Not started yet.
    pub fn new(config: DiallerConfig<L>) -> Dialler<L> {
        let pause = Pause::new(config.pause_min, config.pause_max);
        let wanted = config.users.keys().copied();
        let peers = Peers::new(wanted, pause, config.settled_after, Duration::ZERO);
        Dialler {
            config,
            peers,
            alarm: Alarm::new(Self::drive),
        }
    }

    fn drive(&mut self, cx: &mut Cx<Self>) {
        while let Some(peer) = self.peers.next_dial(cx.now()) {
            let dialled = (self.config.dial)(peer);
            cx.spawn(dialled, move |dialler, outcome, cx| {
                dialler.on_dialled(peer, outcome, cx);
            });
        }
        self.alarm.set(cx, self.peers.next_deadline());
    }

    /// Takes over what is wanted now, and again whenever that changes.
    fn follow(&mut self, mut wanted: Wanted, cx: &mut Cx<Self>) {
        let peers = wanted.borrow_and_update().clone();
        if !peers.is_empty() {
            self.peers.want(&peers, cx.now());
        }
        let changed = async move { wanted.changed().await.map(|()| wanted) };
        cx.spawn(changed, |dialler, wanted, cx| {
            // Without a sender, what was wanted last is wanted for ever.
            if let Ok(wanted) = wanted {
                dialler.follow(wanted, cx);
                dialler.drive(cx);
            }
        });
    }

    fn on_dialled(
        &mut self,
        peer: NodeId,
        outcome: Result<Linked<L>, NotLinked>,
        cx: &mut Cx<Self>,
    ) {
        match outcome {
            Ok(Linked { link, closed }) => self.announce(peer, link, closed, cx),
            Err(NotLinked { reason, handshake }) => {
                let failed = DialFailed { peer, handshake };
                if let Some(failures) = &self.config.failures
                    && let Err(error) = failures.try_tell(failed)
                {
                    tracing::debug!(%peer, %error, "a failed dial was not noted");
                }
                self.on_lost(peer, &reason, cx);
            }
        }
    }

    fn user(&self, peer: &NodeId) -> Option<&User<L>> {
        self.config.users.get(peer).or(self.config.others.as_ref())
    }

    fn announce(
        &mut self,
        peer: NodeId,
        link: L,
        closed: BoxFuture<'static, String>,
        cx: &mut Cx<Self>,
    ) {
        let Some(user) = self.user(&peer) else {
            return;
        };
        match user.up.try_tell(LinkUp { peer, link }) {
            Ok(()) => {
                tracing::info!(%peer, "link up");
                self.peers.on_linked(&peer, cx.now());
                cx.spawn(closed, move |dialler, reason, cx| {
                    dialler.on_closed(peer, reason, cx);
                });
            }
            Err(TellError::Full(LinkUp { link, .. })) => {
                cx.after(RETELL, move |dialler, cx| {
                    dialler.announce(peer, link, closed, cx);
                });
            }
            Err(TellError::Closed(_)) => self.on_lost(peer, "its user is gone", cx),
        }
    }

    /// The next dial waits until the user knows that the link is gone.
    fn on_closed(&mut self, peer: NodeId, reason: String, cx: &mut Cx<Self>) {
        let Some(user) = self.user(&peer) else {
            return;
        };
        match user.down.try_tell(LinkDown { peer }) {
            Ok(()) | Err(TellError::Closed(_)) => self.on_lost(peer, &reason, cx),
            Err(TellError::Full(_)) => {
                cx.after(RETELL, move |dialler, cx| {
                    dialler.on_closed(peer, reason, cx)
                });
            }
        }
    }

    fn on_lost(&mut self, peer: NodeId, reason: &str, cx: &mut Cx<Self>) {
        let random = cx.rng().next_u64();
        match self.peers.on_lost(&peer, cx.now(), random) {
            Some(pause) => tracing::warn!(%peer, reason, ?pause, "no link"),
            None => tracing::info!(%peer, reason, "no link, and none wanted"),
        }
        self.drive(cx);
    }
}

impl<L: Send + 'static> Behaviour for Dialler<L> {
    const NAME: &'static str = "Dialler";

    fn started(&mut self, cx: &mut Cx<Self>) {
        if let Some(wanted) = self.config.wanted.clone() {
            self.follow(wanted, cx);
        }
        self.drive(cx);
    }

    fn describe(&self) -> String {
        let states = self.peers.states().map(|(_, state)| state);
        let up = states.filter(|state| matches!(state, State::Up(_))).count();
        format!("{up} of {} links up", self.peers.states().count())
    }
}
