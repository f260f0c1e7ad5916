//! gossipsub's connection handler, read no faster than the peer's budget allows.

use std::fmt::{self, Write as _};
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use futures::FutureExt as _;
use futures::future::BoxFuture;
use libp2p::swarm::handler::ConnectionEvent;
use libp2p::swarm::{ConnectionHandler, ConnectionHandlerEvent, SubstreamProtocol};
use parking_lot::Mutex;
use pqcnet_actor::Env;

use super::super::Offence;
use super::budget::{Budget, Charge, Load};
use super::{InnerHandler, InnerOut};

/// What a connection brought.
#[derive(Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "nearly all are gossip, and each is moved on at once"
)]
pub enum Heard {
    /// For gossipsub.
    Gossip(InnerOut),
    /// The peer is over its budget and waits on another connection already: close this one.
    Surplus,
    /// Close them all.
    Offence(Offence),
}

/// See the module.
pub struct Metered {
    inner: InnerHandler,
    env: Env,
    budget: Arc<Mutex<Budget>>,
    /// Tells this connection from the peer's others.
    number: u64,
    waiting: Option<BoxFuture<'static, ()>>,
    /// It is being closed, and is not read any more.
    done: bool,
}

impl Metered {
    pub(super) fn new(
        env: Env,
        number: u64,
        inner: InnerHandler,
        budget: Arc<Mutex<Budget>>,
    ) -> Metered {
        Metered {
            inner,
            env,
            budget,
            number,
            waiting: None,
            done: false,
        }
    }

    fn meter(&mut self, event: InnerOut) -> Heard {
        let Some(load) = load(&event) else {
            return Heard::Gossip(event);
        };
        let charge = self.budget.lock().charge(self.env.now(), self.number, load);
        match charge {
            Charge::Free => Heard::Gossip(event),
            Charge::Wait(wait) => {
                self.waiting = Some(Box::pin(self.env.sleep(wait)));
                Heard::Gossip(event)
            }
            Charge::Surplus => {
                self.done = true;
                Heard::Surplus
            }
            Charge::Offence(offence) => {
                self.done = true;
                Heard::Offence(offence)
            }
        }
    }
}

impl ConnectionHandler for Metered {
    type FromBehaviour = <InnerHandler as ConnectionHandler>::FromBehaviour;
    type ToBehaviour = Heard;
    type InboundProtocol = <InnerHandler as ConnectionHandler>::InboundProtocol;
    type OutboundProtocol = <InnerHandler as ConnectionHandler>::OutboundProtocol;
    type InboundOpenInfo = ();
    type OutboundOpenInfo = ();

    fn listen_protocol(&self) -> SubstreamProtocol<Self::InboundProtocol> {
        self.inner.listen_protocol()
    }

    fn poll(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<ConnectionHandlerEvent<Self::OutboundProtocol, (), Heard>> {
        if self.done {
            return Poll::Pending;
        }
        if let Some(sleep) = &mut self.waiting {
            ready!(sleep.poll_unpin(cx));
            self.waiting = None;
        }
        let event = ready!(self.inner.poll(cx));
        Poll::Ready(event.map_custom(|event| self.meter(event)))
    }

    fn on_behaviour_event(&mut self, event: Self::FromBehaviour) {
        self.inner.on_behaviour_event(event);
    }

    fn on_connection_event(
        &mut self,
        event: ConnectionEvent<'_, Self::InboundProtocol, Self::OutboundProtocol>,
    ) {
        self.inner.on_connection_event(event);
    }
}

/// What an RPC costs; `None` for an event that is none.
fn load(event: &InnerOut) -> Option<Load> {
    let InnerOut::Message {
        rpc,
        invalid_messages,
    } = event
    else {
        return None;
    };
    let mut load = Load::default();
    let messages = rpc.messages.iter();
    for message in messages.chain(invalid_messages.iter().map(|(message, _)| message)) {
        load.bytes += message.data.len() as u64;
        load.elements += 1;
    }
    load.elements += u32::try_from(rpc.subscriptions.len()).unwrap_or(u32::MAX);
    for action in &rpc.control_msgs {
        let kind = Kind::of(action);
        load.grafts += u32::from(kind.is(b"Graft("));
        load.foreign |= kind.is(b"IDontW");
        // The decoder adds an empty one of these to every RPC.
        load.elements += u32::from(!kind.is(b"Extens"));
    }
    Some(load)
}

/// The first letters of a control message's variant, which its library does not export; no allocation.
#[derive(Default)]
struct Kind {
    letters: [u8; 6],
    len: usize,
}

impl Kind {
    fn of(action: &impl fmt::Debug) -> Kind {
        let mut kind = Kind::default();
        // An error means that there were more letters.
        if write!(kind, "{action:?}").is_ok() {
            tracing::trace!("a short variant");
        }
        kind
    }

    fn is(&self, letters: &[u8; 6]) -> bool {
        self.letters.starts_with(letters)
    }
}

impl fmt::Write for Kind {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes() {
            let slot = self.letters.get_mut(self.len).ok_or(fmt::Error)?;
            *slot = byte;
            self.len += 1;
        }
        Ok(())
    }
}
