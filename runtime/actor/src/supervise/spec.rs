//! One child, as its tree is told of it.

use std::sync::Mutex;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use crate::addr::Addr;
use crate::cell::Factory;
use crate::env::Env;
use crate::mail::{Bounds, Mail};
use crate::message::Behaviour;
use crate::supervise::member::CellMember;
use crate::supervise::policy::Restart;

/// How long a child may take to stop unless its spec says otherwise: well inside the 30 s a process has.
pub(crate) const SHUTDOWN: Duration = Duration::from_secs(5);

/// What a supervisor needs to know to run an actor.
pub struct Spec<B: Behaviour> {
    name: String,
    factory: Factory<B>,
    bounds: Bounds,
    shutdown: Duration,
    restart: Option<Restart>,
    place: Option<u64>,
}

impl<B: Behaviour> Spec<B> {
    /// An actor called `name`, each incarnation built by `factory` on the thread it runs on.
    pub fn new(name: impl Into<String>, factory: impl FnMut(&Env) -> B + Send + 'static) -> Self {
        Spec {
            name: name.into(),
            factory: Box::new(factory),
            bounds: Bounds::default(),
            shutdown: SHUTDOWN,
            restart: None,
            place: None,
        }
    }

    /// How many messages may wait.
    pub fn mailbox(mut self, bounds: Bounds) -> Self {
        self.bounds = bounds;
        self
    }

    /// How long it may take to stop before it is cut off.
    pub fn shutdown(mut self, deadline: Duration) -> Self {
        self.shutdown = deadline;
        self
    }

    /// Which ends are followed by a restart: `Permanent` in a tree, `Temporary` in a nursery, unless set.
    pub fn restart(mut self, restart: Restart) -> Self {
        self.restart = Some(restart);
        self
    }

    /// Runs it on the arbiter that `key` selects; actors of one flow share a key. Without one: on the main arbiter.
    pub fn place(mut self, key: u64) -> Self {
        self.place = Some(key);
        self
    }

    pub(crate) fn into_member(
        self,
        default_restart: Restart,
        number: Option<u64>,
    ) -> (Addr<B>, CellMember<B>) {
        let name = match number {
            Some(number) => format!("{}#{number}", self.name),
            None => self.name,
        };
        let mail = Mail::new(&name, self.bounds);
        let restart = self.restart.unwrap_or(default_restart);
        let member = CellMember {
            name,
            mail: mail.clone(),
            factory: Mutex::new(Some(self.factory)),
            place: self.place,
            restart,
            once: number.is_some() && restart == Restart::Temporary,
            shutdown: self.shutdown,
            placed: AtomicBool::new(false),
        };
        (Addr::new(mail), member)
    }
}
