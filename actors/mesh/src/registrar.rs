//! Keeps the root's directives: checks, applies, stores, and passes them on.
//!
//! Rules: [`crate::core::directives`], [`crate::core::standing`]. Spec: docs/spec/control.md, "Directives". Started by:
//! every role, before whoever lets anybody in. Hears from: peers and operators ([`SubmitDirective`], [`PullDirectives`]),
//! gossip ([`JudgeDirective`]), the steward (links). Sends to: gossip, and the node's [`Authority`](crate::Authority).
//!
//! ```text
//!   submitted, gossiped, pulled ─ signature (pool) ─ rank ─ standings ─ gossip
//!                                                     └──── file, synced ─ answer to whoever submitted
//! ```
//!
//! A directive holds from the moment it is checked; one that was submitted is answered for once it is on the disk.
//! Mailbox: usual bounds; full means `Busy`, and a pull or submission is tried again. A restart reads the file again; what
//! was ruled keeps holding meanwhile. A file that cannot be read ends the node: it would let in who is revoked.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use pqcnet_actor::latest;
use pqcnet_actor::{AskError, Behaviour, Cx, On, Promise, Ref, Reply};
use pqcnet_crypto::NodeId;
use pqcnet_link::Wire as _;
use pqcnet_messages::{
    MAX_HAVE, MAX_PULLED, PullDirectives, PulledDirectives, Refusal, SignedDirective,
    SubmitDirective, Submitted,
};
use pqcnet_p2p::network::NetworkFile;
use rand::Rng as _;

use crate::core::directives::{Directives, Full};
use crate::core::one_of;
use crate::core::scores::Offence;
use crate::core::standing::Standings;
use crate::gossip::{
    DIRECTIVES, JudgeDirective, Judgement, Misbehaved, NotSent, PeerLinked, PeerUnlinked, Publish,
};
use crate::shelf::{Kind, Shelf, ShelfError};

/// Between pulls from a neighbour at random: what gossip lost is had within this time.
const PULL_EVERY: Duration = Duration::from_secs(60);
/// A peer that has not answered a pull by then is asked again another time.
const PULL_DEADLINE: Duration = Duration::from_secs(10);
/// Pages of one pull: as many as hold a full table, and one.
const MAX_PAGES: usize = MAX_HAVE / MAX_PULLED + 1;
/// Between attempts to gossip what nobody took.
const SEND_AGAIN: Duration = Duration::from_secs(1);
/// Directives that wait to be gossiped; neighbours pull what is dropped here.
const MAX_UNSENT: usize = 64;
/// Submissions whose outcome is not on the disk yet.
const MAX_WAITING: usize = 64;
/// Between attempts to write the file.
const SAVE_AGAIN: Duration = Duration::from_secs(5);

/// What a registrar is started with.
#[derive(Clone)]
pub struct RegistrarConfig {
    /// The network: its id, its root's key, what its file grants.
    pub network: Arc<NetworkFile>,
    /// Where directives are kept.
    pub shelf: Shelf,
    /// Where rulings go.
    pub standings: latest::Sender<Arc<Standings>>,
    /// Gossip.
    pub publish: Publish,
    /// Who keeps the scores.
    pub scores: Ref<Misbehaved>,
}

/// Reads and checks the directives on a shelf. What does not verify is left out: the file may be of another network.
///
/// # Errors
/// The file cannot be used.
pub fn load_directives(shelf: &Shelf, network: &NetworkFile) -> Result<Directives, ShelfError> {
    let mut table = Directives::default();
    for item in shelf.load(Kind::Directives)? {
        let read = SignedDirective::from_wire(item).map_err(|error| error.to_string());
        let checked = read.and_then(|signed| {
            let verified = signed.verify(&network.network_id().0, network.root());
            verified.map(|()| signed).map_err(|error| error.to_string())
        });
        match checked.map(|signed| table.take(signed)) {
            Ok(Ok(_)) => {}
            Ok(Err(full)) => tracing::warn!(%full, "a stored directive is left out"),
            Err(error) => tracing::warn!(error, "a stored directive is left out"),
        }
    }
    Ok(table)
}

/// The actor.
pub struct Registrar {
    config: RegistrarConfig,
    /// `None` while the file is read.
    table: Option<Directives>,
    links: BTreeMap<u64, (NodeId, Ref<PullDirectives>)>,
    disk: Disk,
    unsent: VecDeque<Bytes>,
    sending: bool,
}

/// The file against the table.
#[derive(Default)]
struct Disk {
    saving: bool,
    behind: bool,
    /// Answered when the next write that begins is done.
    waiting: Vec<Promise<SubmitDirective>>,
}

impl Registrar {
    /// Reads its file first.
    pub fn new(config: RegistrarConfig) -> Registrar {
        Registrar {
            config,
            table: None,
            links: BTreeMap::new(),
            disk: Disk::default(),
            unsent: VecDeque::new(),
            sending: false,
        }
    }

    fn on_loaded(&mut self, loaded: Result<Directives, ShelfError>, cx: &mut Cx<Self>) {
        match loaded {
            Ok(table) => {
                tracing::info!(directives = table.len(), "directives read");
                self.table = Some(table);
                self.enforce();
                let links: Vec<u64> = self.links.keys().copied().collect();
                for link in links {
                    self.pull(link, 0, cx);
                }
            }
            Err(error) => {
                tracing::error!(%error, "this node does not know who is revoked");
                cx.stop();
            }
        }
    }

    /// Tells everybody who lets others in.
    fn enforce(&self) {
        if let Some(table) = &self.table {
            let directives = table.iter().map(|signed| &signed.directive);
            let standings = Standings::new(self.config.network.clone(), directives);
            self.config.standings.send_replace(Arc::new(standings));
        }
    }

    /// Checks signatures off this thread; what does not verify comes back as `None`.
    fn check(
        &self,
        directives: Vec<SignedDirective>,
        cx: &mut Cx<Self>,
        then: impl FnOnce(&mut Self, Vec<Option<SignedDirective>>, &mut Cx<Self>) + 'static,
    ) {
        let network = self.config.network.clone();
        let checking = move || {
            let checked = directives.into_iter().map(|signed| {
                let verified = signed.verify(&network.network_id().0, network.root());
                verified.ok().map(|()| signed)
            });
            checked.collect::<Vec<_>>()
        };
        cx.offload(checking, move |registrar, checked, cx| match checked {
            Ok(checked) => then(registrar, checked, cx),
            Err(error) => tracing::error!(%error, "directives were not checked"),
        });
    }

    /// Takes what has been checked. Whatever is new holds from here on.
    fn take(&mut self, signed: SignedDirective) -> Result<Submitted, Refusal> {
        let Some(table) = &mut self.table else {
            return Err(Refusal::Unavailable);
        };
        let told = signed.directive.to_string();
        match table.take(signed) {
            Ok(Submitted::Applied) => {
                tracing::warn!(directive = told, "the root has ordered");
                self.enforce();
                self.disk.behind = true;
                Ok(Submitted::Applied)
            }
            Ok(other) => Ok(other),
            Err(full @ Full) => {
                tracing::error!(%full, directive = told, "the root has ordered too much");
                Err(Refusal::TooLarge)
            }
        }
    }

    /// Takes what did not come by gossip, and gossips it if it is new.
    fn take_on(
        &mut self,
        signed: SignedDirective,
        cx: &mut Cx<Self>,
    ) -> Result<Submitted, Refusal> {
        let bytes = signed.to_wire();
        let taken = self.take(signed)?;
        if taken == Submitted::Applied {
            if self.unsent.len() >= MAX_UNSENT {
                self.unsent.pop_front();
            }
            self.unsent.push_back(bytes);
            self.send(cx);
        }
        Ok(taken)
    }

    // ---- disk ----

    fn save(&mut self, cx: &mut Cx<Self>) {
        let Some(table) = &self.table else {
            return;
        };
        if self.disk.saving || !self.disk.behind {
            return;
        }
        self.disk.saving = true;
        self.disk.behind = false;
        let items: Vec<Bytes> = table.iter().map(|signed| signed.to_wire()).collect();
        let shelf = self.config.shelf.clone();
        let waiting = std::mem::take(&mut self.disk.waiting);
        cx.offload(
            move || shelf.save(Kind::Directives, &items),
            move |registrar, saved, cx| {
                registrar.disk.saving = false;
                let saved = saved.map_err(|error| error.to_string());
                match saved.and_then(|saved| saved.map_err(|error| error.to_string())) {
                    Ok(()) => {
                        for promise in waiting {
                            promise.fulfil(Ok(Submitted::Applied));
                        }
                        registrar.save(cx);
                    }
                    Err(error) => {
                        tracing::error!(error, "directives are not on the disk");
                        for promise in waiting {
                            promise.fulfil(Err(Refusal::Storage));
                        }
                        registrar.disk.behind = true;
                        cx.after(SAVE_AGAIN, Self::save);
                    }
                }
            },
        );
    }

    // ---- gossip ----

    fn send(&mut self, cx: &mut Cx<Self>) {
        if self.sending {
            return;
        }
        let Some(bytes) = self.unsent.pop_front() else {
            return;
        };
        self.sending = true;
        let published = (self.config.publish)(DIRECTIVES, bytes.clone());
        cx.spawn(published, |registrar, outcome, cx| match outcome {
            Ok(()) => {
                registrar.sending = false;
                registrar.send(cx);
            }
            Err(NotSent::Never(reason)) => {
                tracing::info!(reason, "a directive is not gossiped; neighbours pull it");
                registrar.sending = false;
                registrar.send(cx);
            }
            Err(NotSent::Later(reason)) => {
                tracing::debug!(reason, "a directive waits for somebody to gossip with");
                registrar.unsent.push_front(bytes);
                cx.after(SEND_AGAIN, |registrar, cx| {
                    registrar.sending = false;
                    registrar.send(cx);
                });
            }
        });
    }

    // ---- pulls ----

    fn pull(&mut self, link: u64, page: usize, cx: &mut Cx<Self>) {
        let (Some(table), Some((peer, to))) = (&self.table, self.links.get(&link)) else {
            return;
        };
        if page >= MAX_PAGES {
            return;
        }
        let (peer, to, have) = (*peer, to.clone(), table.have());
        let ask = PullDirectives { have };
        cx.ask(&to, ask, PULL_DEADLINE, move |registrar, answer, cx| {
            registrar.on_pulled((link, peer, page), answer, cx);
        });
    }

    fn on_pulled(
        &mut self,
        (link, peer, page): (u64, NodeId, usize),
        answer: Result<PulledDirectives, AskError>,
        cx: &mut Cx<Self>,
    ) {
        let pulled = match answer {
            Ok(Ok(pulled)) => pulled,
            Ok(Err(refusal)) => return tracing::debug!(%peer, %refusal, "no directives from it"),
            Err(error) => return tracing::debug!(%peer, %error, "no directives from it"),
        };
        let more = pulled.more && !pulled.items.is_empty();
        self.check(pulled.items, cx, move |registrar, checked, cx| {
            if checked.iter().any(Option::is_none) {
                registrar.blame(peer, Offence::BadBytes);
            }
            for signed in checked.into_iter().flatten() {
                if let Err(refusal) = registrar.take_on(signed, cx) {
                    tracing::debug!(%refusal, "a pulled directive was not taken");
                }
            }
            registrar.save(cx);
            if more {
                registrar.pull(link, page + 1, cx);
            }
        });
    }

    fn pull_from_somebody(&mut self, cx: &mut Cx<Self>) {
        if let Some(link) = one_of(&self.links, || cx.rng().next_u64()) {
            self.pull(link, 0, cx);
        }
    }

    fn blame(&self, peer: NodeId, offence: Offence) {
        if let Err(error) = self.config.scores.try_tell(Misbehaved { peer, offence }) {
            tracing::debug!(%peer, %error, "an offence was not noted");
        }
    }
}

impl Behaviour for Registrar {
    const NAME: &'static str = "Registrar";

    fn started(&mut self, cx: &mut Cx<Self>) {
        let (shelf, network) = (self.config.shelf.clone(), self.config.network.clone());
        cx.offload(
            move || load_directives(&shelf, &network),
            |registrar, loaded, cx| match loaded {
                Ok(loaded) => registrar.on_loaded(loaded, cx),
                Err(error) => {
                    tracing::error!(%error, "directives were not read");
                    cx.stop();
                }
            },
        );
        cx.every(PULL_EVERY, Self::pull_from_somebody);
    }

    fn describe(&self) -> String {
        let held = self.table.as_ref().map_or(0, Directives::len);
        format!("{held} directives, {} neighbours", self.links.len())
    }
}

impl On<SubmitDirective> for Registrar {
    fn on(&mut self, msg: SubmitDirective, cx: &mut Cx<Self>) -> Reply<SubmitDirective> {
        let Some(table) = &mut self.table else {
            return Reply::Now(Err(Refusal::Unavailable));
        };
        if table.outranks(&msg.directive) {
            let outcome = table.take(msg.directive);
            return Reply::Now(outcome.map_err(|Full| Refusal::TooLarge));
        }
        if self.disk.waiting.len() >= MAX_WAITING {
            return Reply::Now(Err(Refusal::Busy));
        }
        if msg.directive.directive.network_id != self.config.network.network_id().0 {
            let told = "the directive is for another network".to_owned();
            return Reply::Now(Err(Refusal::Invalid(told)));
        }
        let (promise, reply) = Reply::later();
        self.check(vec![msg.directive], cx, |registrar, mut checked, cx| {
            let outcome = match checked.pop().flatten() {
                Some(signed) => registrar.take_on(signed, cx),
                None => Err(Refusal::NotAllowed),
            };
            match outcome {
                Ok(Submitted::Applied) => {
                    registrar.disk.waiting.push(promise);
                    registrar.save(cx);
                }
                other => promise.fulfil(other),
            }
        });
        reply
    }
}

impl On<JudgeDirective> for Registrar {
    fn on(&mut self, msg: JudgeDirective, cx: &mut Cx<Self>) -> Reply<JudgeDirective> {
        let known = (self.table.as_ref()).is_none_or(|table| table.outranks(&msg.directive));
        if known {
            return Reply::Now(Judgement::Keep);
        }
        let (promise, reply) = Reply::later();
        self.check(vec![msg.directive], cx, |registrar, mut checked, cx| {
            let judgement = match checked.pop().flatten() {
                None => Judgement::Wrong,
                Some(signed) => match registrar.take(signed) {
                    Ok(Submitted::Applied) => Judgement::Forward,
                    Ok(Submitted::Known | Submitted::Superseded) | Err(_) => Judgement::Keep,
                },
            };
            promise.fulfil(judgement);
            registrar.save(cx);
        });
        reply
    }
}

impl On<PullDirectives> for Registrar {
    fn on(&mut self, msg: PullDirectives, _: &mut Cx<Self>) -> Reply<PullDirectives> {
        Reply::Now(match &self.table {
            Some(table) => Ok(table.lacking(&msg.have)),
            None => Err(Refusal::Unavailable),
        })
    }
}

impl On<PeerLinked> for Registrar {
    fn on(&mut self, msg: PeerLinked, cx: &mut Cx<Self>) -> Reply<PeerLinked> {
        self.links.insert(msg.link, (msg.peer, msg.directives));
        self.pull(msg.link, 0, cx);
        Reply::Now(())
    }
}

impl On<PeerUnlinked> for Registrar {
    fn on(&mut self, msg: PeerUnlinked, _: &mut Cx<Self>) -> Reply<PeerUnlinked> {
        self.links.remove(&msg.link);
        Reply::Now(())
    }
}
