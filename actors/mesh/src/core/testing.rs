//! Made-up nodes and directives for the cores' tests. Signatures are not real: cores take what has been verified.

use std::collections::BTreeSet;
use std::sync::Arc;

use pqcnet_crypto::{MlDsaPublic, MlDsaSignature, NodeId, NodePublic};
use pqcnet_messages::{Advert, Directive, Order, Role, SignedAdvert, SignedDirective};
use pqcnet_p2p::network::{Admission, NetworkFile, NetworkParts, NodeEntry};

pub(crate) fn node(byte: u8) -> NodeId {
    NodeId::from_bytes([byte; 32])
}

pub(crate) fn public(byte: u8) -> NodePublic {
    NodePublic::from_bytes(&[byte; NodePublic::LEN]).unwrap()
}

fn signature() -> MlDsaSignature {
    MlDsaSignature::from_slice(&[7; MlDsaSignature::LEN]).unwrap()
}

pub(crate) fn directive(version: u64, order: Order) -> Directive {
    Directive {
        network_id: [1; 32],
        version,
        issued_at_ms: 0,
        lease_ms: 0,
        order,
    }
}

pub(crate) fn revoke(who: u8, version: u64) -> SignedDirective {
    let order = Order::Revoke {
        node: node(who),
        reason: "lost".to_owned(),
    };
    SignedDirective {
        directive: directive(version, order),
        signature: signature(),
    }
}

/// Node 1 is a sentry, node 2 a relayer, node 3 a client.
pub(crate) fn network(admission: Admission) -> Arc<NetworkFile> {
    let entry = |byte, role| NodeEntry {
        id: node(byte),
        roles: BTreeSet::from([role]),
        control: Vec::new(),
        data: Vec::new(),
    };
    let parts = NetworkParts {
        name: "mesh".to_owned(),
        root: MlDsaPublic::from_slice(&[3; MlDsaPublic::LEN]).unwrap(),
        shards: 4,
        admission,
        nodes: vec![
            entry(1, Role::Sentry),
            entry(2, Role::Relayer),
            entry(3, Role::Client),
        ],
        bootstrap: Vec::new(),
    };
    Arc::new(NetworkFile::new(parts).unwrap())
}

/// An advert of the node with these keys.
pub(crate) fn advert(byte: u8, issued_at_ms: u64, lease_ms: u64) -> SignedAdvert {
    SignedAdvert {
        advert: Advert {
            network_id: [1; 32],
            node: public(byte),
            roles: BTreeSet::from([Role::Sentry]),
            services: BTreeSet::new(),
            software: "pqcnet/test".to_owned(),
            software_hash: [0; 32],
            identity_version: 1,
            kem: None,
            control: vec![format!("127.0.0.1:{byte}")],
            data: vec![format!("127.0.0.2:{byte}")],
            issued_at_ms,
            lease_ms,
        },
        signature: signature(),
    }
}
