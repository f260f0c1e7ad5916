//! [`Addr`]: an actor by its behaviour, from which a [`Ref`] to any message it handles is made.

use std::fmt;
use std::sync::Arc;

use crate::mail::Mail;
use crate::message::{Behaviour, Message, On};
use crate::path::Path;
use crate::refs::{Carrier, Ref};
use crate::watch::{Watch, Watchable};

/// An actor's address. It stays valid over restarts, and holding it does not keep the actor alive.
pub struct Addr<B: Behaviour> {
    mail: Arc<Mail<B>>,
}

impl<B: Behaviour> Clone for Addr<B> {
    fn clone(&self) -> Self {
        Addr {
            mail: Arc::clone(&self.mail),
        }
    }
}

impl<B: Behaviour> fmt::Debug for Addr<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Addr<{}>({})", B::NAME, self.path())
    }
}

impl<B: Behaviour> Addr<B> {
    pub(crate) fn new(mail: Arc<Mail<B>>) -> Self {
        Addr { mail }
    }

    /// The handle for one message.
    pub fn of<M: Message>(&self) -> Ref<M>
    where
        B: On<M>,
    {
        let carrier: Arc<dyn Carrier<M>> = Arc::clone(&self.mail) as _;
        Ref::from_carrier(carrier)
    }

    /// Where the actor stands.
    pub fn path(&self) -> &Path {
        self.mail.path()
    }
}

impl<B: Behaviour> Watchable for Addr<B> {
    fn watch(&self) -> Watch {
        self.mail.watch_incarnation()
    }
}
