//! Directives and adverts: their pinned bytes, what a reader refuses, whose signature counts.

#![allow(clippy::unwrap_used, reason = "a test's helpers")]

use std::collections::BTreeSet;

use bytes::Bytes;
use pqcnet_crypto::{
    KemPublic, MlDsaKeyPair, MlDsaSignature, NodeId, NodeKeys, NodePublic, sha256,
};
use pqcnet_link::{Addressed, ServiceId, Wire, WireError};
use pqcnet_messages::{
    ADVERT_SKEW_MS, Advert, AdvertError, Directive, DirectiveError, KemAdvert,
    MAX_ADVERT_ADDRESSES, MAX_ADVERT_LEASE_MS, MAX_HAVE, MAX_MAP_OWNERS, MAX_MAP_SHARDS,
    MAX_PULLED, MAX_REASON, Order, PullAdverts, PullDirectives, Pulled, Role, ShardMap,
    SignedAdvert, SignedDirective, Subject, SubmitDirective, Submitted,
};
use pqcnet_protos::mesh::v1 as pb;
use proptest::prelude::*;

const NETWORK: [u8; 32] = [0x22; 32];

fn node(byte: u8) -> NodeId {
    NodeId::from_bytes([byte; 32])
}

fn public(byte: u8) -> NodePublic {
    NodePublic::from_bytes(&[byte; NodePublic::LEN]).unwrap()
}

fn signature() -> MlDsaSignature {
    MlDsaSignature::from_slice(&[0x55; 3309]).unwrap()
}

fn revoke() -> Order {
    Order::Revoke {
        node: node(1),
        reason: "lost".to_owned(),
    }
}

/// One of each order.
fn orders() -> Vec<Order> {
    let roles = BTreeSet::from([Role::Relayer, Role::Sentry]);
    let map = ShardMap::new(7, vec![node(9), node(3), node(9)]).unwrap();
    vec![
        revoke(),
        Order::Succeed {
            old: node(1),
            new: public(2),
            overlap_until_ms: 1_700_000_000_000,
        },
        Order::GrantRole {
            node: node(1),
            roles,
        },
        Order::ShardMap(map),
    ]
}

fn directive(order: Order) -> Directive {
    let lease_ms = match order {
        Order::Revoke { .. } => 0,
        _ => 60_000,
    };
    Directive {
        network_id: NETWORK,
        version: 5,
        issued_at_ms: 1_700_000_000_000,
        lease_ms,
        order,
    }
}

fn advert() -> Advert {
    Advert {
        network_id: NETWORK,
        node: public(0x11),
        roles: BTreeSet::from([Role::Sentry]),
        services: BTreeSet::from([ServiceId::EDGE, ServiceId::CONTROL]),
        software: "pqcnet/0.1".to_owned(),
        software_hash: [0x33; 32],
        identity_version: 2,
        kem: Some(KemAdvert {
            version: 3,
            key: KemPublic::from_bytes(&[0x11; KemPublic::LEN]).unwrap(),
        }),
        control: vec!["127.0.0.1:7001".to_owned(), "[::1]:7001".to_owned()],
        data: vec!["node.example:7002".to_owned()],
        issued_at_ms: 1_700_000_000_000,
        lease_ms: 1_800_000,
    }
}

fn shown(bytes: &[u8]) -> String {
    let hash = hex::encode(sha256(&[bytes]));
    format!("{} bytes, sha256 {}", bytes.len(), &hash[..16])
}

/// What is signed is pinned: a change would make every signed directive and advert worthless.
#[test]
fn canonical_bytes_are_pinned() {
    let head = "7071636e65742f6469726563746976652f31".to_owned()
        + &"22".repeat(32)
        + "00000000000000050000018bcfe56800";
    let of = |order| hex::encode(directive(order).canonical_bytes());
    let orders = orders();
    let expected = head.clone() + "0000000000000000" + "01" + &"01".repeat(32) + "046c6f7374";
    assert_eq!(of(orders[0].clone()), expected);
    let expected = head.clone() + "000000000000ea60" + "03" + &"01".repeat(32) + "020102";
    assert_eq!(of(orders[2].clone()), expected);
    let expected = head
        + "000000000000ea60"
        + "040000000000000007"
        + "0002"
        + &"03".repeat(32)
        + &"09".repeat(32)
        + "0003000100000001";
    assert_eq!(of(orders[3].clone()), expected);
    let all: Vec<String> = (orders.into_iter())
        .map(|order| shown(&directive(order).canonical_bytes()))
        .chain([shown(&advert().canonical_bytes())])
        .collect();
    assert_eq!(all, PINNED, "now: {all:#?}");
}

const PINNED: [&str; 5] = [
    "112 bytes, sha256 1f1e3a2f341df076",
    "2099 bytes, sha256 7844a0c0c9d4be88",
    "110 bytes, sha256 919d9d4005a5732f",
    "157 bytes, sha256 68a05b85aeafd3d0",
    "3372 bytes, sha256 58d6f4d8a0a1f3e2",
];

/// Types of the service `control` and what they carry on the wire, and back.
#[test]
fn messages_travel() {
    assert_eq!(
        (SubmitDirective::SERVICE, SubmitDirective::TYPE),
        (ServiceId::CONTROL, 3)
    );
    assert_eq!((PullDirectives::TYPE, PullAdverts::TYPE), (4, 5));
    let signed = SignedDirective {
        directive: directive(revoke()),
        signature: signature(),
    };
    let said = SignedAdvert {
        advert: advert(),
        signature: signature(),
    };
    travels(&SubmitDirective {
        directive: signed.clone(),
    });
    for outcome in [Submitted::Applied, Submitted::Known, Submitted::Superseded] {
        travels(&outcome);
    }
    travels(&PullDirectives {
        have: vec![signed.fingerprint(), [9; 8]],
    });
    travels(&PullAdverts {
        have: vec![said.fingerprint()],
        mine: Some(said.clone()),
    });
    travels(&PullAdverts {
        have: Vec::new(),
        mine: None,
    });
    travels(&Pulled {
        items: vec![signed],
        more: true,
    });
    travels(&Pulled {
        items: vec![said],
        more: false,
    });
    assert_eq!(hex::encode(Submitted::Superseded.to_wire()), "0803");
}

fn travels<W: Wire + PartialEq + std::fmt::Debug>(value: &W) {
    let bytes = value.to_wire();
    assert_eq!(W::from_wire(bytes).as_ref(), Ok(value));
}

/// What an order is about, what outranks what, and when a lease is over.
#[test]
fn subjects_ranks_and_leases() {
    let subjects: Vec<Subject> = orders()
        .into_iter()
        .map(|o| directive(o).subject())
        .collect();
    let of_node = Subject::Node(node(1));
    assert_eq!(
        subjects,
        [
            of_node,
            Subject::Succession(node(1)),
            of_node,
            Subject::Shards
        ]
    );
    let signed = |directive: Directive| SignedDirective {
        directive,
        signature: signature(),
    };
    let one = signed(directive(revoke()));
    let younger = signed(Directive {
        version: 6,
        ..directive(revoke())
    });
    let other = signed(Directive {
        issued_at_ms: 0,
        ..directive(revoke())
    });
    assert!(younger.rank() > one.rank() && younger.rank() > other.rank());
    assert_ne!(one.rank(), other.rank());
    assert!(!one.directive.is_over(u64::MAX));
    let leased = directive(orders().remove(2));
    assert_eq!(leased.expires_at_ms(), Some(1_700_000_060_000));
    assert!(leased.is_over(1_700_000_060_000) && !leased.is_over(1_700_000_059_999));
    let told: Vec<String> = orders()
        .into_iter()
        .map(|o| directive(o).to_string())
        .collect();
    assert_eq!(told[0], "revoke 01010101: lost (version 5)");
    assert_eq!(told[2], "01010101 is sentry and relayer (version 5)");
    assert_eq!(told[3], "shard map 7 (version 5)");
}

fn read(change: impl FnOnce(&mut Vec<u8>)) -> Result<Directive, WireError> {
    let mut bytes = directive(orders().remove(2)).canonical_bytes();
    change(&mut bytes);
    Directive::from_canonical(&bytes)
}

fn invalid<T>(field: &'static str, problem: &'static str) -> Result<T, WireError> {
    Err(WireError::Invalid { field, problem })
}

/// Each way in which a directive's bytes can be wrong.
#[test]
fn directives_are_read_strictly() {
    assert!(read(|_| {}).is_ok());
    assert_eq!(read(|b| b.push(0)), Err(WireError::Trailing));
    assert_eq!(read(|b| b.truncate(100)), Err(WireError::Malformed));
    assert_eq!(
        read(|b| b[17] = b'2'),
        invalid("context", "of another kind or version")
    );
    assert_eq!(read(|b| b[74] = 9), invalid("order", "unknown"));
    let last = |b: &mut Vec<u8>, roles: [u8; 2]| {
        let at = b.len() - 2;
        b[at..].copy_from_slice(&roles);
    };
    assert_eq!(read(|b| last(b, [2, 1])), invalid("roles", "not ascending"));
    assert_eq!(read(|b| last(b, [1, 1])), invalid("roles", "not ascending"));
    assert_eq!(read(|b| last(b, [1, 200])), invalid("roles", "unknown"));
    let mut leased = directive(revoke());
    leased.lease_ms = 1;
    assert_eq!(
        Directive::from_canonical(&leased.canonical_bytes()),
        invalid("lease", "a revocation has no end")
    );
    let mut spoken = directive(revoke()).canonical_bytes();
    *spoken.last_mut().unwrap() = 7;
    assert_eq!(
        Directive::from_canonical(&spoken),
        invalid("reason", "not printable ASCII")
    );
    let map = directive(orders().remove(3)).canonical_bytes();
    let changed = |at: usize, to: u8| {
        let mut map = map.clone();
        let at = map.len() - at;
        map[at] = to;
        Directive::from_canonical(&map)
    };
    assert_eq!(
        changed(1, 2),
        invalid("shards", "an owner that is not listed")
    );
    assert_eq!(changed(3, 1), invalid("owners", "one that owns nothing"));
    assert_eq!(changed(40, 2), invalid("owners", "not ascending"));
    assert_eq!(changed(8, 0xff), invalid("shards", "too many"));
    assert_eq!(changed(74, 0xff), invalid("owners", "too many"));
}

/// Only what others can read back is signed; only the root's signature for this network counts.
#[test]
fn the_root_signs() {
    let (root, other) = (MlDsaKeyPair::generate(), MlDsaKeyPair::generate());
    let signed = directive(revoke()).sign(&root).unwrap();
    assert_eq!(signed.verify(&NETWORK, root.public()), Ok(()));
    assert_eq!(
        signed.verify(&[0; 32], root.public()),
        Err(DirectiveError::WrongNetwork)
    );
    assert_eq!(
        signed.verify(&NETWORK, other.public()),
        Err(DirectiveError::BadSignature)
    );
    let mut changed = signed;
    changed.directive.version += 1;
    assert_eq!(
        changed.verify(&NETWORK, root.public()),
        Err(DirectiveError::BadSignature)
    );
    let long = |reason: String| {
        let node = node(1);
        directive(Order::Revoke { node, reason }).sign(&root)
    };
    assert!(long("x".repeat(MAX_REASON)).is_ok());
    for reason in ["x".repeat(MAX_REASON + 1), "x".repeat(300), "é".to_owned()] {
        let refused = long(reason);
        assert!(
            matches!(refused, Err(DirectiveError::Unwritable(_))),
            "{refused:?}"
        );
    }
    let owner = |n: usize| {
        let mut id = [0; 32];
        id[..8].copy_from_slice(&(n as u64).to_be_bytes());
        NodeId::from_bytes(id)
    };
    let map = |owners: usize, shards: usize| {
        let owners = (0..shards).map(|shard| owner(shard % owners)).collect();
        directive(Order::ShardMap(ShardMap::new(1, owners).unwrap())).sign(&root)
    };
    let largest = map(MAX_MAP_OWNERS, MAX_MAP_SHARDS).unwrap();
    travels(&largest);
    assert!(map(MAX_MAP_OWNERS + 1, MAX_MAP_SHARDS).is_err());
    assert!(map(3, MAX_MAP_SHARDS + 1).is_err());
}

/// An advert holds from a little before its time to the end of its lease, in its network, under its node's signature. What
/// is over a limit is cut before it is signed.
#[test]
fn nodes_sign_adverts() {
    let keys = NodeKeys::generate();
    let signed = advert().sign(&keys);
    let now = signed.advert.issued_at_ms;
    assert_eq!(signed.advert.node_id(), keys.node_id());
    assert_eq!(signed.verify(&NETWORK, now), Ok(()));
    assert_eq!(signed.verify(&NETWORK, now - ADVERT_SKEW_MS), Ok(()));
    assert_eq!(
        signed.verify(&NETWORK, now - ADVERT_SKEW_MS - 1),
        Err(AdvertError::NotYetValid)
    );
    assert_eq!(
        signed.verify(&NETWORK, now + 1_800_000),
        Err(AdvertError::Expired)
    );
    assert_eq!(signed.verify(&[0; 32], now), Err(AdvertError::WrongNetwork));
    let mut changed = signed.clone();
    changed.advert.data.clear();
    assert_eq!(
        changed.verify(&NETWORK, now),
        Err(AdvertError::BadSignature)
    );
    let mut large = advert();
    large.software = "x\n".repeat(1000);
    large.lease_ms = u64::MAX;
    large.control = vec!["no address".to_owned(); 3];
    large.data = vec!["a:1".to_owned(); 100];
    large.services = (0..100).map(ServiceId).collect();
    let cut = large.sign(&keys);
    assert_eq!(cut.advert.software, "x".repeat(64));
    assert_eq!(cut.advert.lease_ms, MAX_ADVERT_LEASE_MS);
    assert_eq!(
        (cut.advert.control.len(), cut.advert.data.len()),
        (0, MAX_ADVERT_ADDRESSES)
    );
    assert_eq!(cut.advert.services.len(), 32);
    assert_eq!(cut.verify(&NETWORK, now), Ok(()));
    travels(&cut);
}

/// Each way in which an advert's bytes can be wrong that a directive's cannot.
#[test]
fn adverts_are_read_strictly() {
    let of = |change: fn(&mut Advert)| {
        let mut advert = advert();
        change(&mut advert);
        Advert::from_canonical(&advert.canonical_bytes())
    };
    assert!(of(|_| {}).is_ok());
    assert_eq!(of(|a| a.lease_ms = u64::MAX), invalid("lease", "too long"));
    assert_eq!(
        of(|a| a.software = "x".repeat(65)),
        invalid("software", "too long")
    );
    assert_eq!(
        of(|a| a.control = vec!["a:1".to_owned(); 9]),
        invalid("addresses", "too many")
    );
    assert_eq!(
        of(|a| a.data = vec!["nowhere".to_owned()]),
        invalid("address", "not host:port")
    );
    assert_eq!(
        of(|a| a.services = (0..33).map(ServiceId).collect()),
        invalid("services", "too many")
    );
    let kem = 15 + 32 + NodePublic::LEN + 2 + 9 + 11 + 32 + 4;
    let changed = |at: usize, to: u8| {
        let mut bytes = advert().canonical_bytes();
        bytes[at] = to;
        Advert::from_canonical(&bytes)
    };
    assert_eq!(changed(kem, 2), invalid("kem key", "neither there nor not"));
    assert_eq!(changed(kem + 6, 0xff), invalid("kem key", "no X-Wing key"));
    let services = 15 + 32 + NodePublic::LEN + 2 + 1;
    assert_eq!(
        changed(services + 3, 3),
        invalid("services", "not ascending")
    );
}

/// Lists in messages have their limits, and half a fingerprint is none.
#[test]
fn pulls_are_bounded() {
    let have = |bytes: usize| {
        let have = Bytes::from(vec![0; bytes]);
        let mine = None;
        PullAdverts::from_wire(pqcnet_link::wire::encode(&pb::PullAdverts { have, mine }))
    };
    assert!(have(MAX_HAVE * 8).is_ok());
    assert_eq!(
        have(MAX_HAVE * 8 + 8),
        Err(WireError::TooMany {
            field: "have",
            limit: MAX_HAVE
        })
    );
    assert_eq!(have(12), invalid("have", "part of a fingerprint"));
    let items = vec![pb::Signed::default(); MAX_PULLED + 1];
    let many = pqcnet_link::wire::encode(&pb::Pulled { items, more: false });
    assert_eq!(
        Pulled::<SignedAdvert>::from_wire(many),
        Err(WireError::TooMany {
            field: "items",
            limit: MAX_PULLED
        })
    );
    let nothing = pqcnet_link::wire::encode(&pb::SubmitDirective::default());
    assert_eq!(
        SubmitDirective::from_wire(nothing),
        invalid("directive", "missing")
    );
    let unknown = pqcnet_link::wire::encode(&pb::Submitted { outcome: 9 });
    assert_eq!(Submitted::from_wire(unknown), invalid("outcome", "unknown"));
    let unsigned = pqcnet_link::wire::encode(&pb::Signed {
        body: directive(revoke()).canonical_bytes().into(),
        signature: Bytes::new(),
    });
    assert_eq!(
        SignedDirective::from_wire(unsigned),
        invalid("signature", "wrong length")
    );
}

proptest! {
    /// Whatever bytes are read as a directive or advert are its only encoding.
    #[test]
    fn one_encoding_each(which in 0usize..5, at in any::<prop::sample::Index>(), to in any::<u8>(), cut in any::<bool>()) {
        let mut bytes = match orders().into_iter().nth(which) {
            Some(order) => directive(order).canonical_bytes(),
            None => advert().canonical_bytes(),
        };
        let at = at.index(bytes.len());
        bytes[at] = to;
        if cut {
            bytes.truncate(at);
        }
        if let Ok(directive) = Directive::from_canonical(&bytes) {
            prop_assert_eq!(directive.canonical_bytes(), bytes);
        } else if let Ok(advert) = Advert::from_canonical(&bytes) {
            prop_assert_eq!(advert.canonical_bytes(), bytes);
        }
    }
}
