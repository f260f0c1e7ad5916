//! A network of the test's own, and one node's mesh in it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt as _;
use pqcnet_actor::latest;
use pqcnet_actor::{Addr, Env, Running, Spec, Strategy, Tree};
use pqcnet_crypto::{MlDsaKeyPair, NodeId, NodeKeys};
use pqcnet_link::ServiceId;
use pqcnet_mesh::core::scores::Offence;
use pqcnet_mesh::gossip::{
    JudgeAdvert, JudgeDirective, Judgement, Misbehaved, NotSent, PeerLinked, Publish,
};
use pqcnet_mesh::{
    Authority, Herald, HeraldConfig, Registrar, RegistrarConfig, Shelf, Standings, View, Wanted,
};
use pqcnet_messages::{
    Advert, Directive, Order, PullAdverts, PullDirectives, Refusal, Role, SignedAdvert,
    SignedDirective, SubmitDirective, Submitted,
};
use pqcnet_p2p::network::{Admission, NetworkFile, NetworkParts, NodeEntry};

pub(crate) const SOON: Duration = Duration::from_secs(5);
pub(crate) const S: Duration = Duration::from_secs(1);

pub(crate) type Said = Arc<Mutex<Vec<(&'static str, Bytes)>>>;

/// A network of three sentries and a relayer, and its root.
pub(crate) struct World {
    pub(crate) root: MlDsaKeyPair,
    pub(crate) keys: Vec<Arc<NodeKeys>>,
    pub(crate) network: Arc<NetworkFile>,
    pub(crate) place: tempfile::TempDir,
}

impl World {
    pub(crate) fn new() -> World {
        let root = MlDsaKeyPair::generate();
        let keys: Vec<Arc<NodeKeys>> = (0..4).map(|_| Arc::new(NodeKeys::generate())).collect();
        let entry = |(at, keys): (usize, &Arc<NodeKeys>)| NodeEntry {
            id: keys.node_id(),
            roles: BTreeSet::from([if at == 3 { Role::Relayer } else { Role::Sentry }]),
            control: Vec::new(),
            data: Vec::new(),
        };
        let parts = NetworkParts {
            name: "mesh".to_owned(),
            root: root.public().clone(),
            shards: 1,
            admission: Admission::Any,
            nodes: keys.iter().enumerate().map(entry).collect(),
            bootstrap: Vec::new(),
        };
        World {
            network: Arc::new(NetworkFile::new(parts).unwrap()),
            root,
            keys,
            place: tempfile::tempdir().unwrap(),
        }
    }

    pub(crate) fn id(&self, at: usize) -> NodeId {
        self.keys[at].node_id()
    }

    pub(crate) fn shelf(&self, name: &str) -> Shelf {
        Shelf::at(self.place.path().join(name))
    }

    pub(crate) fn revoke(
        &self,
        node: NodeId,
        version: u64,
        root: &MlDsaKeyPair,
    ) -> SignedDirective {
        let directive = Directive {
            network_id: self.network.network_id().0,
            version,
            issued_at_ms: 1,
            lease_ms: 0,
            order: Order::Revoke {
                node,
                reason: "lost".to_owned(),
            },
        };
        directive.sign(root).unwrap()
    }

    pub(crate) fn advert(&self, at: usize) -> Advert {
        Advert {
            network_id: self.network.network_id().0,
            node: self.keys[at].public().clone(),
            roles: BTreeSet::from([Role::Sentry]),
            services: BTreeSet::from([ServiceId::CONTROL]),
            software: "test/1".to_owned(),
            software_hash: [0; 32],
            identity_version: 1,
            kem: None,
            control: vec![format!("127.0.0.1:{}", 7000 + at)],
            data: Vec::new(),
            issued_at_ms: 0,
            lease_ms: 0,
        }
    }

    pub(crate) fn signed(&self, at: usize, issued_at_ms: u64) -> SignedAdvert {
        let advert = Advert {
            issued_at_ms,
            lease_ms: 60_000,
            ..self.advert(at)
        };
        advert.sign(&self.keys[at])
    }
}

/// One node's mesh.
pub(crate) struct Mesh {
    pub(crate) env: Env,
    pub(crate) running: Running,
    pub(crate) authority: Authority,
    pub(crate) registrar: Addr<Registrar>,
    pub(crate) herald: Addr<Herald>,
    pub(crate) view: latest::Receiver<Arc<View>>,
    pub(crate) wanted: Wanted,
    pub(crate) said: Said,
    /// How many messages nobody takes.
    pub(crate) deaf: Arc<Mutex<u32>>,
}

pub(crate) fn start(world: &World, at: usize, name: &str) -> Mesh {
    let env = Env::simulated(at as u64, name);
    let standings = Standings::new(world.network.clone(), []);
    let (authority, rulings) = Authority::new(&env, standings);
    let (show, view) = latest::channel(Arc::default());
    let (want, wanted) = latest::channel(Arc::default());
    let (said, deaf) = (Said::default(), Arc::new(Mutex::new(0)));
    let (heard, not_now) = (said.clone(), deaf.clone());
    let publish: Publish = Arc::new(move |topic, bytes| {
        let mut deaf = not_now.lock().unwrap();
        let outcome = if *deaf > 0 {
            *deaf -= 1;
            Err(NotSent::Later("nobody".to_owned()))
        } else {
            heard.lock().unwrap().push((topic, bytes));
            Ok(())
        };
        std::future::ready(outcome).boxed()
    });
    let config = HeraldConfig {
        keys: world.keys[at].clone(),
        advert: world.advert(at),
        network: world.network.clone(),
        authority: authority.clone(),
        bans: rulings.bans,
        view: show,
        shelf: world.shelf(name),
        publish: publish.clone(),
        record: Arc::new(|_| std::future::ready(Ok(())).boxed()),
        wanted: want,
        bootstrap: Vec::new(),
    };
    let mut tree = Tree::new("mesh", Strategy::OneForOne);
    let herald = tree.child(Spec::new("herald", move |_| Herald::new(config.clone())));
    let config = RegistrarConfig {
        network: world.network.clone(),
        shelf: world.shelf(name),
        standings: rulings.standings,
        publish,
        scores: herald.of(),
    };
    let registrar = tree.child(Spec::new("registrar", move |_| {
        Registrar::new(config.clone())
    }));
    Mesh {
        running: tree.start(env.clone()),
        env,
        authority,
        registrar,
        herald,
        view,
        wanted,
        said,
        deaf,
    }
}

impl Mesh {
    pub(crate) async fn submit(&self, directive: SignedDirective) -> Result<Submitted, Refusal> {
        let submit = SubmitDirective { directive };
        let to = self.registrar.of::<SubmitDirective>();
        to.ask(submit, SOON).await.unwrap()
    }

    pub(crate) async fn judge(&self, directive: SignedDirective) -> Judgement {
        let to = self.registrar.of::<JudgeDirective>();
        to.ask(JudgeDirective { directive }, SOON).await.unwrap()
    }

    pub(crate) async fn judge_advert(&self, advert: SignedAdvert) -> Judgement {
        let to = self.herald.of::<JudgeAdvert>();
        to.ask(JudgeAdvert { advert }, SOON).await.unwrap()
    }

    /// As if a link to the other had opened.
    pub(crate) fn link(&self, other: &Mesh, peer: NodeId) {
        let linked = || PeerLinked {
            link: 1,
            peer,
            directives: other.registrar.of::<PullDirectives>(),
            adverts: other.herald.of::<PullAdverts>(),
        };
        self.registrar.of().try_tell(linked()).unwrap();
        self.herald.of().try_tell(linked()).unwrap();
    }

    pub(crate) fn said(&self, topic: &str) -> Vec<Bytes> {
        let said = self.said.lock().unwrap();
        let of_topic = said.iter().filter(|(of, _)| *of == topic);
        of_topic.map(|(_, bytes)| bytes.clone()).collect()
    }

    pub(crate) fn view(&self) -> View {
        (**self.view.borrow()).clone()
    }

    pub(crate) fn routes(&self) -> BTreeMap<NodeId, Vec<String>> {
        let view = self.view();
        let text = |(node, route): (&NodeId, &Arc<pqcnet_mesh::Route>)| {
            (
                *node,
                route.control.iter().map(ToString::to_string).collect(),
            )
        };
        view.routes.iter().map(text).collect()
    }

    /// As bad as it takes to be banned.
    pub(crate) async fn offend(&self, peer: NodeId) {
        let offence = Offence::BadBytes;
        for _ in 0..4 {
            let misbehaved = Misbehaved { peer, offence };
            self.herald.of().ask(misbehaved, SOON).await.unwrap();
        }
    }
}
