//! The mesh in a node: its actors, what is bound to links for them, gossip in and out.
//!
//! ```text
//!   mesh (a subtree, one-for-one: neither forgets what the other knows)
//!     herald      adverts, peer book, scores, whom to link with
//!     registrar   the root's directives
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::{BoxFuture, FutureExt as _};
use pqcnet_actor::latest;
use pqcnet_actor::{Env, Message, Ref, Spec, Strategy, Tree};
use pqcnet_crypto::{NodeId, NodeKeys};
use pqcnet_link::{DownReason, Fault, Wire};
use pqcnet_mesh::core::scores::Offence;
use pqcnet_mesh::core::standing::Standings;
use pqcnet_mesh::gossip::{
    ADVERTS, DIRECTIVES, DialFailed, JudgeAdvert, JudgeDirective, Judgement, Keep, Misbehaved,
    NotSent, PeerLinked, PeerUnlinked, Publish, Sighted, read,
};
use pqcnet_mesh::{
    Announce, Authority, Herald, HeraldConfig, Registrar, RegistrarConfig, Rulings, Shelf,
    ShelfError, View, Wanted, load_directives,
};
use pqcnet_messages::{Advert, PullAdverts, PullDirectives, Role, SignedAdvert, SubmitDirective};
use pqcnet_p2p::control::{ControlError, ControlPlane, Gossip, RecordCheck, Verdict};
use pqcnet_p2p::network::{Address, NetworkFile};
use pqcnet_p2p::typed::{Bindings, LinkHandle};

use crate::platform::Platform;

/// An actor that has not judged a message by then has ignored it.
const JUDGED_WITHIN: Duration = Duration::from_secs(3);

/// What the mesh has before its actors start.
pub(crate) struct Mesh {
    /// Who may be what.
    pub(crate) authority: Authority,
    /// What the mesh looks like from here.
    pub(crate) view: latest::Receiver<Arc<View>>,
    /// Whom to dial.
    pub(crate) wanted: Wanted,
    rulings: Rulings,
    show: latest::Sender<Arc<View>>,
    want: latest::Sender<Arc<BTreeSet<NodeId>>>,
    shelf: Shelf,
}

/// What others need of the mesh's actors.
#[derive(Clone, Debug)]
pub struct MeshRefs {
    submit: Ref<SubmitDirective>,
    directives: Ref<PullDirectives>,
    adverts: Ref<PullAdverts>,
    judge_directive: Ref<JudgeDirective>,
    judge_advert: Ref<JudgeAdvert>,
    linked: [Ref<PeerLinked>; 2],
    unlinked: [Ref<PeerUnlinked>; 2],
    misbehaved: Ref<Misbehaved>,
    failed: Ref<DialFailed>,
    sighted: Ref<Sighted>,
    announce: Ref<Announce>,
}

impl MeshRefs {
    /// Takes the root's directives.
    pub(crate) fn submit(&self) -> Ref<SubmitDirective> {
        self.submit.clone()
    }
}

impl Mesh {
    /// Reads what the root has ordered so far, so that nobody is let in who is revoked.
    pub(crate) async fn prepare(
        platform: &dyn Platform,
        network: &Arc<NetworkFile>,
    ) -> Result<Mesh, ShelfError> {
        let (env, shelf) = (platform.env(), platform.shelf());
        let (from, of) = (shelf.clone(), network.clone());
        let loaded = env.offload(move || load_directives(&from, &of)).await;
        // A pool that does not work keeps nothing from being read here.
        let table = loaded.unwrap_or_else(|_| load_directives(&shelf, network))?;
        let directives = table.iter().map(|signed| &signed.directive);
        let standings = Standings::new(network.clone(), directives);
        let (authority, rulings) = Authority::new(env, standings);
        let (show, view) = latest::channel(Arc::default());
        let (want, wanted) = latest::channel(Arc::default());
        Ok(Mesh {
            authority,
            view,
            wanted,
            rulings,
            show,
            want,
            shelf,
        })
    }

    /// Adds the actors.
    pub(crate) fn plant(
        &self,
        tree: &mut Tree,
        keys: Arc<NodeKeys>,
        network: &Arc<NetworkFile>,
        advert: Advert,
        control: &Arc<dyn ControlPlane>,
        bootstrap: Vec<NodeId>,
    ) -> MeshRefs {
        let (publish, record) = (publish(control.clone()), keep(control.clone()));
        let mut mesh = Tree::new("mesh", Strategy::OneForOne);
        let config = HeraldConfig {
            keys,
            advert,
            network: network.clone(),
            authority: self.authority.clone(),
            bans: self.rulings.bans.clone(),
            view: self.show.clone(),
            shelf: self.shelf.clone(),
            publish: publish.clone(),
            record,
            wanted: self.want.clone(),
            bootstrap,
        };
        let herald = mesh.child(Spec::new("herald", move |_| Herald::new(config.clone())));
        let config = RegistrarConfig {
            network: network.clone(),
            shelf: self.shelf.clone(),
            standings: self.rulings.standings.clone(),
            publish,
            scores: herald.of(),
        };
        let registrar = mesh.child(Spec::new("registrar", move |_| {
            Registrar::new(config.clone())
        }));
        tree.subtree(mesh);
        MeshRefs {
            submit: registrar.of(),
            directives: registrar.of(),
            adverts: herald.of(),
            judge_directive: registrar.of(),
            judge_advert: herald.of(),
            linked: [registrar.of(), herald.of()],
            unlinked: [registrar.of(), herald.of()],
            misbehaved: herald.of(),
            failed: herald.of(),
            sighted: herald.of(),
            announce: herald.of(),
        }
    }
}

impl MeshRefs {
    /// The mesh's part of the `control` service.
    pub fn bind(&self, bindings: Bindings) -> Bindings {
        bindings
            .serve(self.submit.clone())
            .serve(self.directives.clone())
            .serve(self.adverts.clone())
    }

    /// Says something else of this node.
    pub(crate) fn announce(&self) -> Ref<Announce> {
        self.announce.clone()
    }

    /// Hears of dials that failed.
    pub(crate) fn failures(&self) -> Ref<DialFailed> {
        self.failed.clone()
    }

    /// A link on the control plane opened. Clients and operators have nothing to say of the network.
    pub(crate) fn opened(&self, link: u64, handle: &LinkHandle) {
        let peer = handle.peer();
        if matches!(peer.role, Role::Client | Role::Operator) {
            return;
        }
        for to in &self.linked {
            let linked = PeerLinked {
                link,
                peer: peer.node_id,
                directives: handle.remote(),
                adverts: handle.remote(),
            };
            tell(to, linked);
        }
    }

    /// It closed.
    pub(crate) fn closed(&self, link: u64, peer: NodeId) {
        for to in &self.unlinked {
            tell(to, PeerUnlinked { link, peer });
        }
    }

    /// A link ended, or did not come about: whether that is held against the peer.
    pub(crate) fn ended(&self, peer: NodeId, why: &DownReason) {
        if let Some(offence) = offence(why) {
            self.blame(peer, offence);
        }
    }

    /// Notes an offence.
    pub(crate) fn blame(&self, peer: NodeId, offence: Offence) {
        tell(&self.misbehaved, Misbehaved { peer, offence });
    }

    /// Somebody was seen on the LAN.
    pub(crate) fn sighted(&self, peer: NodeId, at: Address) {
        tell(&self.sighted, Sighted { peer, at });
    }

    /// A lookup found an advert, checked by [`record_check`].
    pub(crate) fn found(&self, advert: SignedAdvert) {
        if let Err(error) = self.judge_advert.try_tell(JudgeAdvert { advert }) {
            tracing::debug!(%error, "an advert that was found is not kept");
        }
    }

    /// Begins to take part in gossip.
    pub(crate) async fn gossip(&self, control: &dyn ControlPlane) -> Result<(), ControlError> {
        let (judge, scores) = (self.judge_directive.clone(), self.misbehaved.clone());
        let directives = move |heard: Gossip| -> BoxFuture<'static, Verdict> {
            let (judge, scores) = (judge.clone(), scores.clone());
            judged(heard, judge, scores, |directive| JudgeDirective {
                directive,
            })
        };
        control.subscribe(DIRECTIVES, Arc::new(directives)).await?;
        let (judge, scores) = (self.judge_advert.clone(), self.misbehaved.clone());
        let adverts = move |heard: Gossip| -> BoxFuture<'static, Verdict> {
            let (judge, scores) = (judge.clone(), scores.clone());
            judged(heard, judge, scores, |advert| JudgeAdvert { advert })
        };
        control.subscribe(ADVERTS, Arc::new(adverts)).await
    }
}

fn tell<M: Message<Reply = ()>>(to: &Ref<M>, msg: M) {
    if let Err(error) = to.try_tell(msg) {
        tracing::warn!(message = M::NAME, %error, "the mesh did not hear");
    }
}

/// Bytes that no honest peer sends. Slowness and silence are no offence, nor is another version.
fn offence(why: &DownReason) -> Option<Offence> {
    let DownReason::Misbehaved { fault, .. } = why else {
        return None;
    };
    match fault {
        Fault::Version { .. }
        | Fault::UnknownRole(_)
        | Fault::Limits { .. }
        | Fault::HelloTimeout
        | Fault::Silent => None,
        _ => Some(Offence::BadBytes),
    }
}

/// Bytes, then the actor that knows.
fn judged<T: Wire, M: Message<Reply = Judgement>>(
    heard: Gossip,
    judge: Ref<M>,
    scores: Ref<Misbehaved>,
    ask: impl FnOnce(T) -> M + Send + 'static,
) -> BoxFuture<'static, Verdict> {
    async move {
        let judgement = match read(heard.data) {
            Ok(item) => {
                let answer = judge.ask(ask(item), JUDGED_WITHIN).await;
                answer.unwrap_or(Judgement::Keep)
            }
            Err(judgement) => judgement,
        };
        match judgement {
            Judgement::Forward => Verdict::Accept,
            Judgement::Keep => Verdict::Ignore,
            Judgement::Wrong => {
                let (peer, offence) = (heard.from, Offence::InvalidGossip);
                tell(&scores, Misbehaved { peer, offence });
                Verdict::Reject
            }
        }
    }
    .boxed()
}

fn keep(control: Arc<dyn ControlPlane>) -> Keep {
    Arc::new(move |record: Bytes| {
        let control = control.clone();
        async move {
            let announced = control.announce(record).await;
            announced.map_err(|error| error.to_string())
        }
        .boxed()
    })
}

/// Whose records this node holds for lookups, and which it believes: adverts of members, signed, and the youngest.
pub(crate) fn record_check(
    env: &Env,
    network: &NetworkFile,
    authority: &Authority,
) -> Arc<dyn RecordCheck> {
    let (env, network_id, authority) = (env.clone(), network.network_id().0, authority.clone());
    let check =
        move |node: NodeId, record: Bytes, held: Option<Bytes>| -> BoxFuture<'static, bool> {
            let (env, authority) = (env.clone(), authority.clone());
            async move {
                let Ok(signed) = read::<SignedAdvert>(record) else {
                    return false;
                };
                let held = held.and_then(|held| read::<SignedAdvert>(held).ok());
                let stale =
                    held.is_some_and(|held| held.advert.issued_at_ms > signed.advert.issued_at_ms);
                if stale || signed.advert.node_id() != node || !authority.is_member(node) {
                    return false;
                }
                let wall_ms = env.wall_ms();
                let verified = env.offload(move || signed.verify(&network_id, wall_ms).is_ok());
                verified.await.unwrap_or(false)
            }
            .boxed()
        };
    Arc::new(check)
}

/// Tells lookups where nodes are, and again whenever that changes. Ends with the herald.
pub(crate) async fn teach(control: Arc<dyn ControlPlane>, mut view: latest::Receiver<Arc<View>>) {
    let mut taught: BTreeMap<NodeId, Vec<Address>> = BTreeMap::new();
    loop {
        let routes = view.borrow_and_update().routes.clone();
        let gone: Vec<NodeId> = (taught.keys().copied())
            .filter(|node| !routes.contains_key(node))
            .collect();
        let forgotten = gone.into_iter().map(|node| (node, Vec::new()));
        let known = routes.iter();
        let known = known.map(|(node, route)| (*node, route.control.clone()));
        for (node, at) in forgotten.chain(known) {
            if taught.get(&node) == Some(&at) {
                continue;
            }
            if let Err(error) = control.learn(node, &at).await {
                tracing::debug!(%node, %error, "lookups do not know of it");
            }
            match at.is_empty() {
                true => taught.remove(&node),
                false => taught.insert(node, at),
            };
        }
        // Most views differ in something else.
        while Arc::ptr_eq(&view.borrow_and_update().routes, &routes) {
            if view.changed().await.is_err() {
                return;
            }
        }
    }
}

fn publish(control: Arc<dyn ControlPlane>) -> Publish {
    Arc::new(move |topic, message: Bytes| {
        let control = control.clone();
        async move {
            match control.publish(topic, message).await {
                Ok(()) | Err(ControlError::Duplicate) => Ok(()),
                Err(error @ (ControlError::NoPeers | ControlError::Publish(_))) => {
                    Err(NotSent::Later(error.to_string()))
                }
                Err(error) => Err(NotSent::Never(error.to_string())),
            }
        }
        .boxed()
    })
}
