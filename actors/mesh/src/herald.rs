//! Says what this node is, hears what others are, keeps the peer book and the scores, and chooses whom to link with.
//!
//! Rules: [`crate::core::announcer`], [`book`](crate::core::book), [`scores`](crate::core::scores),
//! [`circle`](crate::core::circle). Spec: docs/spec/control.md. Started by: every role, before whoever lets anybody in.
//! Hears from: peers ([`PullAdverts`]), gossip ([`JudgeAdvert`]), the steward (links, offences), the dialler (failures),
//! the registrar (offences). Sends to: gossip, the dialler (whom to dial), the node's [`Authority`] (bans), and
//! whoever watches its [`View`]: diallers for addresses, the steward for reports.
//!
//! Mailbox: usual bounds; full means `Busy`, and a pull is tried again. A restart reads the peer book and the
//! scores again, forgets who is linked, and asks nobody to link anew: links that stand are told again when they change.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::Hash as _;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use pqcnet_actor::latest;
use pqcnet_actor::{Alarm, Behaviour, Cx, Digest, Message, On, Ref, Reply};
use pqcnet_crypto::{NodeId, NodeKeys};
use pqcnet_link::Wire as _;
use pqcnet_messages::{Advert, AdvertError, MAX_HAVE, MAX_PULLED, PullAdverts, SignedAdvert};
use pqcnet_p2p::network::{Address, NetworkFile};
use rand::Rng as _;

use crate::authority::{Authority, Bans};
use crate::core::announcer::{Announcer, LEASE_MS};
use crate::core::book::{Book, Heard, Routes};
use crate::core::circle::Circle;
use crate::core::one_of;
use crate::core::scores::{MAX_SCORED, Offence, ScoreConfig, Scores};
use crate::core::standing::Standings;
use crate::gossip::{
    ADVERTS, DialFailed, JudgeAdvert, Judgement, Keep, Misbehaved, NotSent, PeerLinked,
    PeerUnlinked, Publish, Sighted,
};
use crate::shelf::{Kind, Shelf, ShelfError};

mod inbox;
mod memory;
mod pulls;

use memory::{Disk, load};
use pulls::Pulls;

/// Changes within this time are looked at together.
const SETTLE: Duration = Duration::from_millis(50);
/// The book is swept, bans and addresses are looked through, this often.
const SWEEP: Duration = Duration::from_secs(30);
/// Between attempts to gossip what nobody took, and after a link came up: a new neighbour's mesh needs a heartbeat.
const SEND_AGAIN: Duration = Duration::from_secs(1);
/// Nodes that were seen on the LAN; a LAN has fewer.
const MAX_SIGHTED: usize = 256;

/// What the mesh looks like from here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct View {
    /// Where nodes are; of those that were heard of.
    pub routes: Arc<Routes>,
    /// Nodes in the peer book.
    pub known: usize,
    /// Of these, heard of since this node started.
    pub heard: usize,
    /// Peers with an open link on the control plane.
    pub linked: usize,
    /// Peers that are banned.
    pub banned: usize,
    /// This node may be cut off: it has fewer links than this number.
    pub short_of: Option<usize>,
    /// Adverts of its own that it has sent.
    pub announced: u64,
}

/// Asks a herald to say something else of its node from now on.
#[derive(Clone, Debug, Hash)]
pub struct Announce {
    /// Keys, network, time of issue and lease are filled in.
    pub advert: Advert,
}

impl Message for Announce {
    type Reply = ();
    const NAME: &'static str = "mesh.Announce";

    fn digest(&self, into: &mut Digest) {
        self.hash(into);
    }
}

/// What a herald is started with.
#[derive(Clone)]
pub struct HeraldConfig {
    /// The node's identity.
    pub keys: Arc<NodeKeys>,
    /// What it says of itself; keys, network, time of issue and lease are filled in.
    pub advert: Advert,
    /// The network.
    pub network: Arc<NetworkFile>,
    /// Who may advertise.
    pub authority: Authority,
    /// Where bans go.
    pub bans: latest::Sender<Arc<Bans>>,
    /// Where the view goes.
    pub view: latest::Sender<Arc<View>>,
    /// Where the peer book and the scores are kept.
    pub shelf: Shelf,
    /// Gossip.
    pub publish: Publish,
    /// Puts this node's advert where lookups find it.
    pub record: Keep,
    /// Where it goes whom to dial.
    pub wanted: latest::Sender<Arc<BTreeSet<NodeId>>>,
    /// Nodes that are dialled always.
    pub bootstrap: Vec<NodeId>,
}

/// The actor.
pub struct Herald {
    config: HeraldConfig,
    announcer: Announcer,
    own: Option<SignedAdvert>,
    announced: u64,
    sending: bool,
    /// The own advert is where lookups find it.
    recorded: bool,
    /// Members that were seen on the LAN, by whom: nobody's word but the LAN's.
    sighted: BTreeMap<NodeId, Address>,
    book: Book,
    known: Known,
    scores: Scores,
    circle: Circle,
    links: BTreeMap<u64, (NodeId, Ref<PullAdverts>)>,
    pulls: Pulls,
    disk: Disk,
    scores_disk: Disk,
    look: Alarm<Self>,
    look_due: Option<Duration>,
    speak: Alarm<Self>,
}

/// What follows from the book, the LAN and the standings, and is made anew when one of them has changed only.
#[derive(Default)]
struct Known {
    /// Whom this node may link with.
    candidates: BTreeSet<NodeId>,
    /// Where nodes are.
    routes: Arc<Routes>,
    /// What the candidates follow from, unless a lease or a ban may have begun or ended since.
    standings: Option<Arc<Standings>>,
    /// Changes of the book and on the LAN that are in all this.
    as_of: Option<(u64, u64)>,
    /// Changes on the LAN.
    sightings: u64,
}

impl Herald {
    /// Reads its files first.
    pub fn new(config: HeraldConfig) -> Herald {
        let me = config.keys.node_id();
        Herald {
            announcer: Announcer::new(Duration::ZERO),
            own: None,
            announced: 0,
            sending: false,
            recorded: false,
            sighted: BTreeMap::new(),
            book: Book::new(me),
            known: Known::default(),
            scores: Scores::new(ScoreConfig::default()),
            circle: Circle::new(me, config.bootstrap.iter().copied()),
            links: BTreeMap::new(),
            pulls: Pulls::default(),
            disk: Disk::default(),
            scores_disk: Disk::default(),
            look: Alarm::new(Self::look),
            look_due: None,
            speak: Alarm::new(Self::speak),
            config,
        }
    }

    // ---- own adverts ----

    fn speak(&mut self, cx: &mut Cx<Self>) {
        let random = cx.rng().next_u64();
        if let Some(issued_at_ms) = self.announcer.poll(cx.now(), cx.wall_ms(), random) {
            let mut advert = self.config.advert.clone();
            advert.network_id = self.config.network.network_id().0;
            advert.issued_at_ms = issued_at_ms;
            advert.lease_ms = LEASE_MS;
            let keys = self.config.keys.clone();
            cx.offload(
                move || advert.sign(&keys),
                |herald, signed, cx| match signed {
                    Ok(signed) => {
                        herald.own = Some(signed);
                        herald.recorded = false;
                        herald.send(cx);
                        herald.introduce(cx);
                    }
                    Err(error) => tracing::error!(%error, "no advert"),
                },
            );
        }
        self.speak.set(cx, Some(self.announcer.due()));
    }

    /// Gossips the own advert until somebody takes it.
    fn send(&mut self, cx: &mut Cx<Self>) {
        let Some(own) = self.own.as_ref().filter(|_| !self.sending) else {
            return;
        };
        self.sending = true;
        let fingerprint = own.fingerprint();
        let published = (self.config.publish)(ADVERTS, own.to_wire());
        cx.spawn(published, move |herald, outcome, cx| {
            let newer = (herald.own.as_ref()).is_some_and(|own| own.fingerprint() != fingerprint);
            match outcome {
                Ok(()) => {
                    herald.announced += 1;
                    herald.sending = false;
                    if newer {
                        herald.send(cx);
                    }
                }
                Err(NotSent::Never(reason)) => {
                    tracing::error!(reason, "this node's advert cannot be gossiped");
                    herald.sending = false;
                }
                Err(NotSent::Later(reason)) => {
                    tracing::trace!(reason, "an advert waits for somebody to gossip with");
                    cx.after(SEND_AGAIN, |herald, cx| {
                        herald.sending = false;
                        herald.send(cx);
                    });
                }
            }
        });
    }

    /// Puts the own advert where lookups find it. Sweeps do, so not at once: gossip is sooner with whoever listens, and a
    /// network that starts has better to do than thirty times to ask everybody for everybody.
    fn keep_record(&mut self, cx: &mut Cx<Self>) {
        let Some(own) = self.own.as_ref().filter(|_| !self.recorded) else {
            return;
        };
        let fingerprint = own.fingerprint();
        let kept = (self.config.record)(own.to_wire());
        cx.spawn(kept, move |herald, outcome, _| match outcome {
            Ok(()) => {
                let own = herald.own.as_ref();
                herald.recorded = own.is_some_and(|own| own.fingerprint() == fingerprint);
            }
            Err(reason) => tracing::debug!(reason, "no lookup will find this node yet"),
        });
    }

    /// Shows every neighbour the own advert, and asks each what it has.
    fn introduce(&mut self, cx: &mut Cx<Self>) {
        let links: Vec<u64> = self.links.keys().copied().collect();
        for link in links {
            self.pull_in_turn(link, cx);
        }
    }

    // ---- others' adverts ----

    /// Whether an advert is worth checking its signature.
    fn considers(&self, signed: &SignedAdvert) -> bool {
        !self.book.is_known(signed) && self.config.authority.is_member(signed.advert.node_id())
    }

    /// Checks signatures off this thread. What is only too old or too early is left out; of the rest it is said whether
    /// all were right.
    fn check(
        &self,
        adverts: Vec<SignedAdvert>,
        cx: &mut Cx<Self>,
        then: impl FnOnce(&mut Self, (Vec<SignedAdvert>, bool), &mut Cx<Self>) + 'static,
    ) {
        let (network, wall_ms) = (self.config.network.network_id().0, cx.wall_ms());
        let checking = move || {
            let (mut right, mut all) = (Vec::new(), true);
            for signed in adverts {
                match signed.verify(&network, wall_ms) {
                    Ok(()) => right.push(signed),
                    Err(AdvertError::NotYetValid | AdvertError::Expired) => {}
                    Err(AdvertError::WrongNetwork | AdvertError::BadSignature) => all = false,
                }
            }
            (right, all)
        };
        cx.offload(checking, move |herald, checked, cx| {
            let checked = checked.unwrap_or_else(|error| {
                tracing::error!(%error, "adverts were not checked");
                (Vec::new(), true)
            });
            then(herald, checked, cx);
        });
    }

    /// Takes what has been checked. Says whether it was new.
    fn hear(&mut self, signed: SignedAdvert, cx: &mut Cx<Self>) -> bool {
        let (node, issued_at_ms) = (signed.advert.node_id(), signed.advert.issued_at_ms);
        let heard = self.book.hear(signed);
        match heard {
            Heard::New => tracing::info!(peer = %node, known = self.book.len(), "found"),
            Heard::Own => self.announcer.surpass(issued_at_ms, cx.now()),
            Heard::Full => tracing::warn!(peer = %node, "the peer book is full"),
            Heard::Moved | Heard::Revived | Heard::Younger | Heard::Known => {}
        }
        match heard {
            Heard::New | Heard::Moved => self.disk.behind = true,
            Heard::Revived | Heard::Younger => self.disk.on_refreshed(self.book.len()),
            Heard::Known | Heard::Full | Heard::Own => return false,
        }
        // Most adverts say the same as the one before: nobody need look for that.
        if heard != Heard::Younger || self.disk.behind {
            self.look_soon(cx);
        }
        true
    }

    // ---- scores ----

    fn blame(&mut self, peer: NodeId, offence: Offence, cx: &mut Cx<Self>) {
        let banned = self.scores.blame(peer, offence, cx.now());
        self.scores_disk.behind = true;
        self.save_scores(cx);
        tracing::info!(%peer, offence = offence.name(), points = self.scores.points(&peer, cx.now()), "misbehaved");
        if let Some(until) = banned {
            let minutes = until.saturating_sub(cx.now()).as_secs().div_ceil(60);
            tracing::warn!(%peer, minutes, "banned");
            self.known.standings = None;
            self.tell_bans(cx);
            self.look_soon(cx);
        }
    }

    fn tell_bans(&self, cx: &Cx<Self>) {
        let bans = Arc::new(self.scores.bans(cx.now()));
        self.config.bans.send_if_modified(|told| {
            let changed = *told != bans;
            *told = bans;
            changed
        });
    }

    // ---- whom to link with ----

    fn look_soon(&mut self, cx: &mut Cx<Self>) {
        self.look_at(cx.now() + SETTLE, cx);
    }

    fn look_at(&mut self, at: Duration, cx: &mut Cx<Self>) {
        let due = self.look_due.map_or(at, |due| due.min(at));
        self.look_due = Some(due);
        self.look.set(cx, Some(due));
    }

    /// Looks at everything that has changed: whom to link with, what to show, what to write.
    fn look(&mut self, cx: &mut Cx<Self>) {
        self.look_due = None;
        self.note_known();
        let now = cx.now();
        let candidates = &self.known.candidates;
        let peers = self.circle.choose(candidates, now, || cx.rng().next_u64());
        self.config.wanted.send_if_modified(|wanted| {
            let changed = **wanted != peers;
            *wanted = Arc::new(peers);
            changed
        });
        if let Some(next) = self.circle.next_look(now) {
            self.look_at(next, cx);
        }
        self.show(cx);
        self.save(cx);
    }

    /// Finds out anew what of others has changed; what has not costs nothing, however many they are.
    fn note_known(&mut self) {
        let standings = self.config.authority.standings();
        let as_of = Some((self.book.moves(), self.known.sightings));
        let moved = self.known.as_of != as_of;
        let held = self.known.standings.as_ref();
        if moved || held.is_none_or(|held| !Arc::ptr_eq(held, &standings)) {
            self.known.candidates = self.candidates(&standings);
            self.known.standings = Some(standings);
        }
        if moved {
            self.known.routes = Arc::new(self.routes());
            self.known.as_of = as_of;
        }
    }

    /// Members with an address that are not banned.
    fn candidates(&self, standings: &Standings) -> BTreeSet<NodeId> {
        let me = self.config.keys.node_id();
        let listed = self.config.network.nodes().iter();
        let listed = listed.filter(|entry| !entry.control.is_empty());
        let booked = self.book.routes();
        let booked = booked.filter(|(_, route)| !route.control.is_empty());
        // Whoever this node succeeded is nobody to link with: it is the same node.
        (listed.map(|entry| entry.id))
            .chain(booked.map(|(node, _)| node))
            .chain(self.sighted.keys().copied())
            .filter(|node| standings.successor(*node) != me)
            .filter(|node| self.config.authority.is_member(*node))
            .collect()
    }

    fn routes(&self) -> Routes {
        let booked = self.book.routes();
        let mut routes: Routes = booked
            .map(|(node, route)| (node, Arc::clone(route)))
            .collect();
        for (node, at) in &self.sighted {
            let route = routes.entry(*node).or_default();
            if !route.control.contains(at) {
                Arc::make_mut(route).control.push(at.clone());
            }
        }
        routes
    }

    fn show(&self, cx: &Cx<Self>) {
        let view = Arc::new(View {
            routes: Arc::clone(&self.known.routes),
            known: self.book.len(),
            heard: self.book.heard(cx.wall_ms()),
            linked: self.circle.linked(),
            banned: self.scores.bans(cx.now()).len(),
            short_of: self.circle.short_of(self.known.candidates.len()),
            announced: self.announced,
        });
        self.config.view.send_if_modified(|shown| {
            let changed = *shown != view;
            *shown = view;
            changed
        });
    }

    fn sweep(&mut self, cx: &mut Cx<Self>) {
        let authority = self.config.authority.clone();
        let swept = (self.book).sweep(cx.wall_ms(), |node| authority.is_member(node));
        self.disk.behind |= swept;
        let sighted = self.sighted.len();
        self.sighted.retain(|node, _| authority.is_member(*node));
        self.known.sightings += u64::from(self.sighted.len() != sighted);
        // Leases and bans end by themselves.
        self.known.standings = None;
        self.keep_record(cx);
        self.tell_bans(cx);
        self.look_soon(cx);
        self.compare(cx);
    }

    /// Asks one neighbour, any, for what gossip did not bring: gossip is forwarded once, to whoever is there then.
    fn compare(&mut self, cx: &mut Cx<Self>) {
        if let Some(link) = one_of(&self.links, || cx.rng().next_u64()) {
            self.pull_in_turn(link, cx);
        }
    }
}

impl Behaviour for Herald {
    const NAME: &'static str = "Herald";

    fn started(&mut self, cx: &mut Cx<Self>) {
        let shelf = self.config.shelf.clone();
        let network_id = self.config.network.network_id().0;
        cx.offload(
            move || load(&shelf, &network_id),
            |herald, loaded, cx| match loaded {
                Ok(loaded) => herald.on_loaded(loaded, cx),
                Err(error) => tracing::error!(%error, "the peer book was not read"),
            },
        );
        cx.every(SWEEP, Self::sweep);
        self.announcer = Announcer::new(cx.now());
        self.speak(cx);
    }

    fn describe(&self) -> String {
        let (known, linked) = (self.book.len(), self.circle.linked());
        format!("{known} peers known, {linked} linked")
    }
}
