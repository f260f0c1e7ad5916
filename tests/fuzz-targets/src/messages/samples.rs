//! What the seeds of the messages' targets are made of: the same bytes every time.

use bytes::Bytes;
use pqcnet_crypto::{KemSecret, MlDsaKeyPair, NodeId, NodeKeys, seeded};
use pqcnet_link::ServiceId;
use pqcnet_messages::moving::*;
use pqcnet_messages::*;

pub(super) fn node(byte: u8) -> NodeId {
    NodeId::from_bytes([byte; 32])
}

pub(super) fn name() -> ChannelName {
    ChannelName::new("orders/eu").unwrap_or_else(|error| panic!("{error}"))
}

pub(super) fn channel() -> Channel {
    Channel {
        owner: node(0xaa),
        name: name(),
    }
}

pub(super) fn membership() -> Membership {
    Membership {
        group: GroupName::new("billing").unwrap_or_else(|error| panic!("{error}")),
        member: MemberId([4; 16]),
    }
}

pub(super) fn payloads() -> Vec<Bytes> {
    vec![Bytes::from_static(b"one"), Bytes::new()]
}

pub(super) fn records() -> Vec<Record> {
    (7..)
        .zip(payloads())
        .map(|(offset, payload)| Record {
            offset,
            published_at_ms: 1_700_000_000_000,
            payload,
        })
        .collect()
}

pub(super) fn grant() -> Grant {
    let _same = seeded::from_seed(b"grant");
    let keys = NodeKeys::generate();
    let at = 1_700_000_000_000;
    Grant::issue(&keys, [7; 32], node(1), at, 3_600_000, [9; 16])
}

pub(super) fn survey() -> ShardSurvey {
    ShardSurvey {
        generation: 5,
        channels: vec![ChannelFacts {
            channel: channel(),
            readers: vec![node(1), node(2)],
            head: 9,
            bytes: 100,
            newest_ms: 7,
            forgotten_epoch: 1,
            marks: vec![Mark {
                epoch: 2,
                sequence: 4,
                offset: 9,
            }],
            groups: Bytes::from_static(b"groups"),
        }],
        more: true,
    }
}

pub(super) fn countersigned() -> Countersigned {
    let _same = seeded::from_seed(b"receipt");
    let keys = NodeKeys::generate();
    let statement = Statement {
        network_id: [7; 32],
        receiver: keys.node_id(),
        relayer: node(2),
        channel: channel(),
        series: Series([8; 16]),
        window: 12,
        after: 6,
        last: 8,
        frames: 2,
        bytes: 20,
        signed_at_ms: 1_700_000_000_001,
    };
    let receipt = statement.sign(&keys);
    Countersigned { receipt }
}

fn directive(order: Order) -> SignedDirective {
    let _same = seeded::from_seed(b"root");
    let root = MlDsaKeyPair::generate();
    let directive = Directive {
        network_id: [7; 32],
        version: 3,
        issued_at_ms: 1_700_000_000_000,
        lease_ms: 0,
        order,
    };
    directive
        .sign(&root)
        .unwrap_or_else(|error| panic!("{error}"))
}

pub(super) fn directives() -> Vec<SignedDirective> {
    let new = {
        let _same = seeded::from_seed(b"new");
        NodeKeys::generate().public().clone()
    };
    let map = ShardMap::new(4, vec![node(1), node(2), node(1)]);
    vec![
        directive(Order::Revoke {
            node: node(1),
            reason: "its disk was stolen".to_owned(),
        }),
        directive(Order::Succeed {
            old: node(1),
            new,
            overlap_until_ms: 1_800_000_000_000,
        }),
        directive(Order::GrantRole {
            node: node(1),
            roles: [Role::Sentry, Role::Relayer].into(),
        }),
        directive(Order::ShardMap(
            map.unwrap_or_else(|error| panic!("{error}")),
        )),
    ]
}

pub(super) fn advert() -> SignedAdvert {
    let _same = seeded::from_seed(b"advert");
    let keys = NodeKeys::generate();
    let advert = Advert {
        network_id: [7; 32],
        node: keys.public().clone(),
        roles: [Role::Relayer].into(),
        services: [ServiceId::CONTROL, ServiceId::RELAY].into(),
        software: "pqcnet/0.1.0".to_owned(),
        software_hash: [5; 32],
        identity_version: 2,
        kem: Some(KemAdvert {
            version: 3,
            key: KemSecret::generate().public().clone(),
        }),
        control: vec!["127.0.0.1:7410".to_owned()],
        data: vec!["[::1]:7411".to_owned()],
        issued_at_ms: 1_700_000_000_000,
        lease_ms: 1_800_000,
    };
    advert.sign(&keys)
}
