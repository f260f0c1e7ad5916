//! Keeps one link to each wanted peer and says when it is up and when it is gone.
//!
//! Rules: [`crate::core::peers`]. Started by: `roles::sentry`. Sends to: whoever was named for a peer ([`Users`]).
//! How a peer is dialled, and what of a link its user needs, is the role's ([`Dial`]); a link is up only after its
//! handshake and Hello. Mailbox: nothing is sent to it. A restart forgets the links it made: it dials again, and the new
//! link replaces the old one at its user.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use pqcnet_actor::{Alarm, Behaviour, Cx, Pause, Ref, TellError};
use pqcnet_crypto::NodeId;
use pqcnet_messages::mesh::{LinkDown, LinkUp};
use rand::Rng;

use crate::core::peers::{Peers, State};

/// How soon a fact that a user's full mailbox refused is told again.
const RETELL: Duration = Duration::from_millis(50);

/// A link that was made.
pub struct Linked<L> {
    /// What its user needs of it.
    pub link: L,
    /// Ends when the link is gone, with the reason.
    pub closed: BoxFuture<'static, String>,
}

/// Dials a peer: connection, handshake, Hello. An error is a reason for the log.
pub type Dial<L> =
    Arc<dyn Fn(NodeId) -> BoxFuture<'static, Result<Linked<L>, String>> + Send + Sync + 'static>;

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
    /// The wanted peers and who uses each.
    pub users: BTreeMap<NodeId, User<L>>,
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

    fn on_dialled(&mut self, peer: NodeId, outcome: Result<Linked<L>, String>, cx: &mut Cx<Self>) {
        match outcome {
            Ok(Linked { link, closed }) => self.announce(peer, link, closed, cx),
            Err(reason) => self.on_lost(peer, &reason, cx),
        }
    }

    fn announce(
        &mut self,
        peer: NodeId,
        link: L,
        closed: BoxFuture<'static, String>,
        cx: &mut Cx<Self>,
    ) {
        let Some(user) = self.config.users.get(&peer) else {
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
        let Some(user) = self.config.users.get(&peer) else {
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
        let pause = self.peers.on_lost(&peer, cx.now(), random);
        tracing::warn!(%peer, reason, ?pause, "no link");
        self.drive(cx);
    }
}

impl<L: Send + 'static> Behaviour for Dialler<L> {
    const NAME: &'static str = "Dialler";

    fn started(&mut self, cx: &mut Cx<Self>) {
        self.drive(cx);
    }

    fn describe(&self) -> String {
        let states = self.peers.states().map(|(_, state)| state);
        let up = states.filter(|state| matches!(state, State::Up(_))).count();
        format!("{up} of {} links up", self.config.users.len())
    }
}
