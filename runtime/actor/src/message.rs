//! The vocabulary of a behaviour: messages, their classes, handlers, and how an actor ends.

use crate::cx::Cx;
use crate::digest::Digest;
use crate::reply::Reply;

/// How a message queues when its receiver is behind. Each class has its own bound in every mailbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Class {
    /// Served before everything else and never dropped; a full lane hands the message back to its sender.
    Control,
    /// Anything on an acknowledged path. A full lane hands the message back (`Full`, and `Busy` to an ask).
    Request,
    /// What may be lost: when the lane is full, `try_tell` drops the newest message and counts it.
    Bulk,
}

impl Class {
    /// Every class in serving order.
    pub const ALL: [Class; 3] = [Class::Control, Class::Request, Class::Bulk];

    pub(crate) const fn index(self) -> usize {
        match self {
            Class::Control => 0,
            Class::Request => 1,
            Class::Bulk => 2,
        }
    }
}

/// A message: a request in the imperative (`Dial`), or a fact in the past tense (`FrameArrived`).
pub trait Message: Send + 'static {
    /// What the receiver answers.
    type Reply: Send + 'static;
    /// The name in traces, dead letters and metrics.
    const NAME: &'static str;
    /// The lane it queues in.
    const CLASS: Class = Class::Request;

    /// Digests its content, for a simulated world's event hash: whatever the receiver goes by. Asked for there alone.
    fn digest(&self, _into: &mut Digest) {}
}

/// What an actor says when its supervisor asks it to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stopping {
    /// Stop at once; what is still queued becomes dead letters (or waits for a restart).
    Now,
    /// Keep serving; the actor calls [`Cx::stop`] when it is done. The shutdown deadline still holds.
    Draining,
}

/// An actor's state and lifecycle. Handlers are separate, one [`On`] a message.
///
/// A behaviour is built by its factory on the thread it runs on, so it need not be `Send`. A panic anywhere in it
/// drops it, and the supervisor decides whether its factory builds another.
pub trait Behaviour: Sized + 'static {
    /// The name in traces and introspection.
    const NAME: &'static str;

    /// Names of the messages that begin a trace when they come without one, as often as the node samples: requests at the
    /// edge of the network, of those who trace nothing themselves.
    const BEGINS_TRACES: &'static [&'static str] = &[];

    /// Runs once an incarnation, before any message. The next sibling starts when it has returned.
    fn started(&mut self, _cx: &mut Cx<Self>) {}

    /// The supervisor wants this actor gone.
    fn stopping(&mut self, _cx: &mut Cx<Self>) -> Stopping {
        Stopping::Now
    }

    /// A line on the actor's state for an operator. No secrets.
    fn describe(&self) -> String {
        String::new()
    }
}

/// Handles one kind of message. A handler never waits: it answers, or keeps a [`crate::Promise`].
pub trait On<M: Message>: Behaviour {
    /// Handles `msg`.
    fn on(&mut self, msg: M, cx: &mut Cx<Self>) -> Reply<M>;
}
