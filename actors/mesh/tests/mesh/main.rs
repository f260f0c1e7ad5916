//! Registrar and herald with real keys, a real shelf and a gossip of the test's own, in virtual time.
#![allow(clippy::unwrap_used, reason = "a test's helpers fail as the test does")]

mod world;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use pqcnet_actor::{Addr, Behaviour, Cx, Exit, On, Promise, Reply, Spec, Strategy, Tree, simulate};
use pqcnet_crypto::{MlDsaKeyPair, NodeKeys};
use pqcnet_link::Wire as _;
use pqcnet_mesh::gossip::{
    ADVERTS, DIRECTIVES, DialFailed, Judgement, PeerLinked, PeerUnlinked, Sighted, read,
};
use pqcnet_mesh::shelf::Kind;
use pqcnet_mesh::{Announce, Standing, load_directives};
use pqcnet_messages::{
    PullAdverts, PullDirectives, Pulled, Refusal, Role, SignedAdvert, SignedDirective, Submitted,
};
use world::{Mesh, S, SOON, World, start};

/// A peer that is asked for adverts: it answers at once with these, or never.
struct Peer {
    asked: Arc<Mutex<Vec<(Duration, usize)>>>,
    gives: Option<SignedAdvert>,
    unanswered: Vec<Promise<PullAdverts>>,
}

impl Behaviour for Peer {
    const NAME: &'static str = "Peer";
}

impl On<PullAdverts> for Peer {
    fn on(&mut self, msg: PullAdverts, cx: &mut Cx<Self>) -> Reply<PullAdverts> {
        self.asked.lock().unwrap().push((cx.now(), msg.have.len()));
        if let Some(gives) = &self.gives {
            let lacks = !msg.have.contains(&gives.fingerprint());
            let items = lacks.then(|| gives.clone()).into_iter().collect();
            return Reply::Now(Ok(Pulled { items, more: false }));
        }
        let (promise, reply) = Reply::later();
        self.unanswered.push(promise);
        reply
    }
}

/// Scenario: eight links come up at once. Peers that answer are asked one after the other, the second for what the first did
/// not have; peers that never answer keep nobody from being asked for longer than a quarter of a second each.
#[test]
fn peers_are_asked_in_turn() {
    simulate(|| async {
        let world = World::new();
        let mesh = start(&world, 0, "one");
        mesh.env.sleep(S).await;
        let asked: Arc<Mutex<Vec<(Duration, usize)>>> = Arc::default();
        let advert = world.signed(1, mesh.env.wall_ms());
        let mut tree = Tree::new("peers", Strategy::OneForOne);
        let peers: Vec<Addr<Peer>> = (0..8)
            .map(|n| {
                let (asked, gives) = (asked.clone(), (n < 4).then(|| advert.clone()));
                tree.child(Spec::new(format!("peer-{n}"), move |_| Peer {
                    asked: asked.clone(),
                    gives: gives.clone(),
                    unanswered: Vec::new(),
                }))
            })
            .collect();
        let running = tree.start(mesh.env.clone());
        running.started().await.unwrap();
        let begun = mesh.env.now();
        for (link, peer) in (1..).zip(&peers) {
            let linked = PeerLinked {
                link,
                peer: world.id(2),
                directives: mesh.registrar.of::<PullDirectives>(),
                adverts: peer.of::<PullAdverts>(),
            };
            mesh.herald.of().try_tell(linked).unwrap();
        }
        mesh.env.sleep(5 * S).await;
        let asked = asked.lock().unwrap().clone();
        let quarter = Duration::from_millis(250);
        let of_book: Vec<usize> = asked.iter().map(|(_, have)| *have).collect();
        assert_eq!(of_book, [0, 1, 1, 1, 1, 1, 1, 1]);
        let silent: Vec<Duration> = asked[4..].iter().map(|(at, _)| *at - begun).collect();
        assert!(silent[0] < quarter, "{silent:?}");
        for pair in silent.windows(2) {
            let apart = pair[1] - pair[0];
            assert!(apart >= quarter && apart < 2 * quarter, "{silent:?}");
        }
        assert_eq!(mesh.view().known, 1);
        running.stop().await;
        mesh.running.stop().await;
    });
}

/// Scenario: the root revokes a sentry at one node. It holds there at once, is on the disk when the answer comes, is gossiped
/// when somebody takes it, and a second node that links has it, applies it and passes it on. Both know it after a restart.
#[test]
fn one_order_reaches_every_node() {
    simulate(|| async {
        let world = World::new();
        let (one, other) = (start(&world, 0, "one"), start(&world, 1, "other"));
        one.env.sleep(S).await;
        let order = world.revoke(world.id(2), 1, &world.root);
        assert_eq!(one.authority.admit(world.id(2), Role::Sentry), Ok(()));
        *one.deaf.lock().unwrap() = 3;
        assert_eq!(one.submit(order.clone()).await, Ok(Submitted::Applied));
        let kept = world.shelf("one").load(Kind::Directives).unwrap();
        assert_eq!(kept, [order.to_wire()]);
        let revoked = Err(Standing::Revoked {
            node: world.id(2),
            reason: "lost".to_owned(),
        });
        assert_eq!(one.authority.admit(world.id(2), Role::Sentry), revoked);
        assert_eq!(one.authority.valid(world.id(2)), revoked);
        assert_eq!(one.submit(order.clone()).await, Ok(Submitted::Known));
        assert_eq!(one.said(DIRECTIVES), Vec::<Bytes>::new());
        one.env.sleep(5 * S).await;
        assert_eq!(one.said(DIRECTIVES), [order.to_wire()]);

        let mut following = other.authority.clone();
        other.link(&one, world.id(0));
        while other.authority.admit(world.id(2), Role::Sentry).is_ok() {
            following.changed().await;
        }
        assert_eq!(other.authority.admit(world.id(2), Role::Sentry), revoked);
        other.env.sleep(S).await;
        assert_eq!(other.said(DIRECTIVES), [order.to_wire()]);
        for mesh in [one, other] {
            mesh.running.stop().await;
        }
        for name in ["one", "other"] {
            let table = load_directives(&world.shelf(name), &world.network).unwrap();
            assert!(table.iter().eq([&order]));
        }
        let again = start(&world, 0, "one");
        again.env.sleep(S).await;
        assert_eq!(again.authority.admit(world.id(2), Role::Sentry), revoked);
        assert_eq!(again.said(DIRECTIVES), Vec::<Bytes>::new());
        again.running.stop().await;
    });
}

/// Scenario: what is not signed by the root, is for another network, or is outranked changes nothing, however it comes.
#[test]
fn only_the_highest_order_of_the_root_holds() {
    simulate(|| async {
        let world = World::new();
        let mesh = start(&world, 0, "one");
        mesh.env.sleep(S).await;
        let forged = world.revoke(world.id(2), 9, &MlDsaKeyPair::generate());
        assert_eq!(mesh.submit(forged.clone()).await, Err(Refusal::NotAllowed));
        assert_eq!(mesh.judge(forged).await, Judgement::Wrong);
        let second = world.revoke(world.id(2), 2, &world.root);
        assert_eq!(mesh.judge(second.clone()).await, Judgement::Forward);
        assert_eq!(mesh.judge(second.clone()).await, Judgement::Keep);
        let first = world.revoke(world.id(2), 1, &world.root);
        assert_eq!(mesh.judge(first.clone()).await, Judgement::Keep);
        assert_eq!(mesh.submit(first).await, Ok(Submitted::Superseded));
        let mut foreign = second.directive.clone();
        foreign.network_id = [9; 32];
        foreign.version = 7;
        let foreign = foreign.sign(&world.root).unwrap();
        let answer = mesh.submit(foreign.clone()).await;
        assert!(matches!(answer, Err(Refusal::Invalid(_))), "{answer:?}");
        assert_eq!(mesh.judge(foreign).await, Judgement::Wrong);
        // Gossip passes it on by itself.
        assert_eq!(mesh.said(DIRECTIVES), Vec::<Bytes>::new());
        let pull = PullDirectives { have: Vec::new() };
        let pulled = mesh.registrar.of::<PullDirectives>().ask(pull, SOON).await;
        assert_eq!(
            pulled.unwrap().unwrap().items,
            std::slice::from_ref(&second)
        );
        let pull = PullDirectives {
            have: vec![second.fingerprint()],
        };
        let pulled = mesh.registrar.of::<PullDirectives>().ask(pull, SOON).await;
        assert!(pulled.unwrap().unwrap().items.is_empty());
        mesh.running.stop().await;
    });
}

/// Scenario: the file of directives is damaged: the node gives up rather than let in who is revoked. A damaged peer book and
/// damaged scores are begun anew.
#[test]
fn a_damaged_shelf() {
    simulate(|| async {
        let world = World::new();
        for kind in [Kind::Directives, Kind::Adverts, Kind::Scores] {
            let path = world.shelf("one").path(kind).unwrap();
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, b"nonsense").unwrap();
        }
        assert!(load_directives(&world.shelf("one"), &world.network).is_err());
        let mesh = start(&world, 0, "one");
        assert!(matches!(mesh.running.wait().await, Exit::Escalated { .. }));
        let path = world.shelf("one").path(Kind::Directives).unwrap();
        std::fs::remove_file(path).unwrap();
        let mesh = start(&world, 0, "one");
        mesh.env.sleep(S).await;
        assert_eq!(mesh.view().known, 0);
        mesh.running.stop().await;
    });
}

/// Scenario: a node speaks at once and then every nine to ten minutes, sooner when it has something else to say.
#[test]
fn a_node_speaks() {
    simulate(|| async {
        let world = World::new();
        let mesh = start(&world, 0, "one");
        mesh.env.sleep(S).await;
        let spoken = |mesh: &Mesh| mesh.said(ADVERTS).len();
        assert_eq!(spoken(&mesh), 1);
        mesh.env.sleep(530 * S).await;
        assert_eq!(spoken(&mesh), 1);
        mesh.env.sleep(75 * S).await;
        assert_eq!(spoken(&mesh), 2);
        let mut advert = world.advert(0);
        let same = Announce {
            advert: advert.clone(),
        };
        mesh.herald.of().ask(same, SOON).await.unwrap();
        mesh.env.sleep(10 * S).await;
        assert_eq!(spoken(&mesh), 2);
        advert.data = vec!["127.0.0.1:9".to_owned()];
        mesh.herald
            .of()
            .ask(Announce { advert }, SOON)
            .await
            .unwrap();
        mesh.env.sleep(S).await;
        let said: Vec<SignedAdvert> = (mesh.said(ADVERTS).into_iter())
            .map(|bytes| read(bytes).unwrap())
            .collect();
        assert_eq!(said.len(), 3);
        assert_eq!(said[2].advert.data, ["127.0.0.1:9"]);
        let wall = mesh.env.wall_ms();
        for (said, next) in said.iter().zip(&said[1..]) {
            assert!(said.advert.issued_at_ms < next.advert.issued_at_ms);
        }
        assert_eq!(said[2].verify(&world.network.network_id().0, wall), Ok(()));
        mesh.running.stop().await;
    });
}

/// Two nodes without a link; gossip has brought the second the advert of a third.
async fn two_and_a_third(world: &World) -> (Mesh, Mesh, SignedAdvert) {
    let (one, other) = (start(world, 0, "one"), start(world, 1, "other"));
    one.env.sleep(S).await;
    let third = world.signed(2, other.env.wall_ms());
    assert_eq!(other.judge_advert(third.clone()).await, Judgement::Forward);
    (one, other, third)
}

/// Scenario: two nodes link: one ask makes each known to the other; a third, known to the second only, is known to the first
/// as well, and the newcomer's word is passed on. The peer book is there after a restart, as addresses to try.
#[test]
fn one_link_makes_nodes_known() {
    simulate(|| async {
        let world = World::new();
        let (one, other, third) = two_and_a_third(&world).await;
        assert_eq!(other.judge_advert(third).await, Judgement::Keep);
        one.link(&other, world.id(1));
        one.env.sleep(2 * S).await;
        let (a, b, c) = (world.id(0), world.id(1), world.id(2));
        let at = |port: u16| vec![format!("127.0.0.1:{port}")];
        assert_eq!(one.routes(), BTreeMap::from([(b, at(7001)), (c, at(7002))]));
        assert_eq!(
            other.routes(),
            BTreeMap::from([(a, at(7000)), (c, at(7002))])
        );
        assert_eq!((one.view().heard, one.view().linked), (2, 1));
        assert_eq!(**one.wanted.borrow(), BTreeSet::from([c]));
        assert_eq!(**other.wanted.borrow(), BTreeSet::from([a, c]));
        assert_eq!(other.said(ADVERTS).len(), 2);
        one.herald
            .of()
            .try_tell(PeerUnlinked { link: 1, peer: b })
            .unwrap();
        one.env.sleep(2 * S).await;
        assert_eq!(one.view().linked, 0);
        assert_eq!(**one.wanted.borrow(), BTreeSet::from([b, c]));
        one.running.stop().await;
        let again = start(&world, 0, "one");
        again.env.sleep(2 * S).await;
        assert_eq!((again.view().known, again.view().heard), (2, 0));
        assert_eq!(**again.wanted.borrow(), BTreeSet::from([b, c]));
        again.running.stop().await;
        other.running.stop().await;
    });
}

/// Scenario: a pull brings a third node's advert before gossip does: the gossip goes on to others all the same, once. Gossip of the next
/// one passes this node by: within half a minute it has it of a neighbour.
#[test]
fn no_advert_is_missed_for_good() {
    simulate(|| async {
        let world = World::new();
        let (one, other, third) = two_and_a_third(&world).await;
        one.link(&other, world.id(1));
        one.env.sleep(2 * S).await;
        assert_eq!(one.view().heard, 2);
        assert_eq!(one.judge_advert(third.clone()).await, Judgement::Forward);
        assert_eq!(one.judge_advert(third).await, Judgement::Keep);

        let next = world.signed(3, other.env.wall_ms());
        assert_eq!(other.judge_advert(next.clone()).await, Judgement::Forward);
        one.env.sleep(S).await;
        assert_eq!(one.view().heard, 2);
        one.env.sleep(30 * S).await;
        assert_eq!(one.view().heard, 3);
        assert_eq!(one.judge_advert(next).await, Judgement::Forward);
        one.running.stop().await;
        other.running.stop().await;
    });
}

/// Scenario: adverts of a stranger, of a revoked node, with a broken signature, from the future, and this node's own with a
/// time ahead of its clock.
#[test]
fn whose_adverts_count() {
    simulate(|| async {
        let world = World::new();
        let mesh = start(&world, 0, "one");
        mesh.env.sleep(S).await;
        let now = mesh.env.wall_ms();
        let stranger = NodeKeys::generate();
        let mut advert = world.advert(1);
        advert.issued_at_ms = now;
        advert.lease_ms = 60_000;
        let unknown = advert.clone().sign(&stranger);
        assert_eq!(mesh.judge_advert(unknown).await, Judgement::Keep);
        let mut broken = world.signed(1, now);
        broken.advert.control.clear();
        assert_eq!(mesh.judge_advert(broken.clone()).await, Judgement::Wrong);
        let early = world.signed(1, now + 3_600_000);
        assert_eq!(mesh.judge_advert(early).await, Judgement::Keep);
        assert_eq!(mesh.view().known, 0);
        let order = world.revoke(world.id(1), 1, &world.root);
        assert_eq!(mesh.submit(order).await, Ok(Submitted::Applied));
        let revoked = world.signed(1, now);
        assert_eq!(mesh.judge_advert(revoked).await, Judgement::Keep);
        let own = world.signed(0, now + 60_000);
        assert_eq!(mesh.judge_advert(own.clone()).await, Judgement::Keep);
        mesh.env.sleep(S).await;
        let last: SignedAdvert = read(mesh.said(ADVERTS).pop().unwrap()).unwrap();
        assert!(last.advert.issued_at_ms > own.advert.issued_at_ms);
        mesh.running.stop().await;
    });
}

/// Scenario: a peer misbehaves until it is banned, is not wanted meanwhile, and is welcome again a minute later. One that
/// cannot prove who it is at its address is held to it, one that does not answer is not.
#[test]
fn misbehaviour_bans_for_a_while() {
    simulate(|| async {
        let world = World::new();
        let mesh = start(&world, 0, "one");
        mesh.env.sleep(S).await;
        let (bad, at) = (world.id(1), "10.0.0.1:7".parse().unwrap());
        mesh.herald
            .of()
            .try_tell(Sighted { peer: bad, at })
            .unwrap();
        mesh.env.sleep(2 * S).await;
        assert_eq!(**mesh.wanted.borrow(), BTreeSet::from([bad]));
        let failed = |handshake| DialFailed {
            peer: bad,
            handshake,
        };
        for _ in 0..100 {
            mesh.herald.of().ask(failed(false), SOON).await.unwrap();
        }
        assert_eq!(mesh.authority.admit(bad, Role::Sentry), Ok(()));
        mesh.herald.of().ask(failed(true), SOON).await.unwrap();
        let mut following = mesh.authority.clone();
        mesh.offend(bad).await;
        following.changed().await;
        let refused = mesh.authority.admit(bad, Role::Sentry);
        assert!(
            matches!(refused, Err(Standing::Banned { left_s: 1..=61, .. })),
            "{refused:?}"
        );
        assert!(!mesh.authority.is_member(bad));
        mesh.env.sleep(S).await;
        assert_eq!(mesh.view().banned, 1);
        assert!(mesh.wanted.borrow().is_empty());
        mesh.env.sleep(60 * S).await;
        assert_eq!(mesh.authority.admit(bad, Role::Sentry), Ok(()));
        mesh.env.sleep(31 * S).await;
        assert_eq!(mesh.view().banned, 0);
        mesh.running.stop().await;
    });
}

/// Scenario: a node is killed in the middle of a ban that it gave. Started again it keeps to what is left of the ban, and
/// the next one is as long as it would have been.
#[test]
fn a_ban_outlives_the_process() {
    simulate(|| async {
        let world = World::new();
        let mesh = start(&world, 0, "one");
        mesh.env.sleep(S).await;
        let bad = world.id(1);
        mesh.offend(bad).await;
        mesh.env.sleep(30 * S).await;
        mesh.running.stop().await;
        let again = start(&world, 0, "one");
        again.env.sleep(S).await;
        let refused = again.authority.admit(bad, Role::Sentry);
        assert!(
            matches!(
                refused,
                Err(Standing::Banned {
                    left_s: 28..=31,
                    ..
                })
            ),
            "{refused:?}"
        );
        assert_eq!(again.view().banned, 1);
        again.env.sleep(31 * S).await;
        assert_eq!(again.authority.admit(bad, Role::Sentry), Ok(()));
        again.offend(bad).await;
        let refused = again.authority.admit(bad, Role::Sentry);
        assert!(
            matches!(
                refused,
                Err(Standing::Banned {
                    left_s: 119..=121,
                    ..
                })
            ),
            "{refused:?}"
        );
        again.running.stop().await;
    });
}

/// What a younger version may say is kept and nobody is blamed; nonsense is wrong.
#[test]
fn gossip_is_read() {
    let world = World::new();
    let good = world.signed(0, 1);
    assert_eq!(read(good.to_wire()), Ok(good.clone()));
    assert_eq!(
        read::<SignedDirective>(good.to_wire()),
        Err(Judgement::Keep)
    );
    assert_eq!(
        read::<SignedAdvert>(Bytes::from_static(b"\x0a\xff")),
        Err(Judgement::Wrong)
    );
    let cut = good.to_wire().slice(..100);
    assert_eq!(read::<SignedAdvert>(cut), Err(Judgement::Wrong));
}
