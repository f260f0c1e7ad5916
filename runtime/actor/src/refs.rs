//! [`Ref`]: the one way to reach whoever handles a message, here or on another node.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use crate::error::{AskError, TellError};
use crate::message::Message;
use crate::path::Path;
use crate::reply::{Pending, ReplyTo};
use crate::trace::TraceCx;
use crate::watch::{Incarnation, Watch, Watchable};

/// A message under way, with the trace it belongs to and where its answer goes.
pub struct Letter<M: Message> {
    /// The message.
    pub msg: M,
    /// The trace of the handler that sent it.
    pub trace: TraceCx,
    /// Where the answer goes; `None` for a tell.
    pub reply: Option<ReplyTo<M>>,
    /// The one incarnation of the receiver that it is for; `None` for any.
    pub only: Option<Incarnation>,
}

impl<M: Message> Letter<M> {
    /// A tell under the current trace.
    #[inline]
    pub fn tell(msg: M) -> Self {
        Letter::to(msg, None, None)
    }

    /// An ask under the current trace.
    #[inline]
    pub fn ask(msg: M, timeout: Duration) -> (Self, Pending<M::Reply>) {
        let (reply, pending) = ReplyTo::pair(timeout);
        (Letter::to(msg, Some(reply), None), pending)
    }

    /// Made whole at once: a letter is moved as it is, and the fewer moves the better.
    #[inline]
    fn to(msg: M, reply: Option<ReplyTo<M>>, only: Option<Incarnation>) -> Self {
        Letter {
            msg,
            trace: TraceCx::current(),
            reply,
            only,
        }
    }

    /// The message alone; a caller that waits for it learns nothing from this.
    fn into_msg(mut self) -> M {
        if let Some(reply) = self.reply.take() {
            reply.send(Err(AskError::Abandoned));
        }
        self.msg
    }
}

/// The future of [`Carrier::post_when_free`]: `Err` gives the letter back because the receiver is gone.
pub type Posting<'a, M> = Pin<Box<dyn Future<Output = Result<(), Letter<M>>> + Send + 'a>>;

/// Takes letters to one receiver. An actor's mailbox is one; a link to another node makes others.
pub trait Carrier<M: Message>: Send + Sync + 'static {
    /// Takes the letter now, or gives it back. A Bulk letter that finds its lane full is dropped, counted, and `Ok`.
    fn post(&self, letter: Letter<M>) -> Result<(), TellError<Letter<M>>>;

    /// Takes the letter as soon as its lane has room, in the order of waiting.
    fn post_when_free(&self, letter: Letter<M>) -> Posting<'_, M>;

    /// How many letters of this class would be taken now.
    fn free(&self) -> usize;

    /// Who gets them.
    fn path(&self) -> &Path;

    /// Watches the receiver.
    fn watch(&self) -> Watch;

    /// The incarnation that receives now. `None`: there was none yet, or only a watch can tell, as on another node.
    fn incarnation(&self) -> Option<Incarnation> {
        None
    }
}

/// A handle to whoever handles `M`. Cheap to clone; holding one does not keep the actor alive.
pub struct Ref<M: Message> {
    carrier: Arc<dyn Carrier<M>>,
    only: Option<Incarnation>,
}

impl<M: Message> Clone for Ref<M> {
    fn clone(&self) -> Self {
        Ref {
            carrier: Arc::clone(&self.carrier),
            only: self.only,
        }
    }
}

impl<M: Message> std::fmt::Debug for Ref<M> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Ref<{}>({})", M::NAME, self.path())
    }
}

/// By its target's path, for digests of messages that carry it.
impl<M: Message> std::hash::Hash for Ref<M> {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.path().as_str().hash(state);
    }
}

impl<M: Message> Ref<M> {
    /// A ref over any carrier.
    pub fn from_carrier(carrier: Arc<dyn Carrier<M>>) -> Self {
        Ref {
            carrier,
            only: None,
        }
    }

    /// The same receiver, this incarnation of it only: once that is over, asks get [`AskError::Stale`] and tells `Closed`, whoever has
    /// come in its place. [`Watch::incarnation`] tells the present one.
    #[must_use]
    pub fn only(&self, incarnation: Incarnation) -> Self {
        Ref {
            carrier: Arc::clone(&self.carrier),
            only: Some(incarnation),
        }
    }

    /// The incarnation that receives now, where that is known at once; [`Watch::incarnation`] tells it everywhere.
    pub fn incarnation(&self) -> Option<Incarnation> {
        self.carrier.incarnation()
    }

    /// A letter made elsewhere, narrowed to the incarnation that this ref is for.
    fn aimed(&self, mut letter: Letter<M>) -> Letter<M> {
        if self.only.is_some() {
            letter.only = self.only;
        }
        letter
    }

    /// Sends without waiting. The only way to send from a handler.
    #[inline]
    pub fn try_tell(&self, msg: M) -> Result<(), TellError<M>> {
        self.carrier
            .post(Letter::to(msg, None, self.only))
            .map_err(|error| error.map(|letter| letter.msg))
    }

    /// Sends as soon as the receiver has room, fair among those who wait. For tasks outside actors.
    /// The only error is `Closed`.
    pub async fn tell(&self, msg: M) -> Result<(), TellError<M>> {
        self.carrier
            .post_when_free(Letter::to(msg, None, self.only))
            .await
            .map_err(|letter| TellError::Closed(letter.msg))
    }

    /// Asks without waiting for room; the answer arrives through the [`Pending`].
    #[inline]
    pub fn try_ask(&self, msg: M, timeout: Duration) -> Result<Pending<M::Reply>, TellError<M>> {
        let (reply, pending) = ReplyTo::pair(timeout);
        match self.carrier.post(Letter::to(msg, Some(reply), self.only)) {
            Ok(()) => Ok(pending),
            Err(error) => Err(error.map(Letter::into_msg)),
        }
    }

    /// Asks and waits for the answer. A full mailbox answers `Busy` at once. For tasks outside actors;
    /// an actor uses [`crate::Cx::ask`].
    pub async fn ask(&self, msg: M, timeout: Duration) -> Result<M::Reply, AskError> {
        match self.try_ask(msg, timeout) {
            Ok(pending) => pending.await,
            Err(TellError::Full(_)) => Err(AskError::Busy),
            Err(TellError::Closed(_)) => Err(AskError::Closed),
        }
    }

    /// Hands over a letter made elsewhere, with its trace and its reply: what a link does with what it received.
    pub fn post(&self, letter: Letter<M>) -> Result<(), TellError<Letter<M>>> {
        self.carrier.post(self.aimed(letter))
    }

    /// As [`Ref::post`], waiting for room; `Err` gives the letter back because the receiver is gone.
    pub async fn post_when_free(&self, letter: Letter<M>) -> Result<(), Letter<M>> {
        self.carrier.post_when_free(self.aimed(letter)).await
    }

    /// How many more messages of this class the receiver would take now.
    pub fn free(&self) -> usize {
        self.carrier.free()
    }

    /// Who receives.
    pub fn path(&self) -> &Path {
        self.carrier.path()
    }
}

impl<M: Message> Watchable for Ref<M> {
    fn watch(&self) -> Watch {
        self.carrier.watch()
    }
}
