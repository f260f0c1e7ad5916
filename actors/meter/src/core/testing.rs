//! Names and keys that the core's tests share.

use std::collections::BTreeSet;

use pqcnet_crypto::{NodeId, NodeKeys};
use pqcnet_messages::metering::Volume;
use pqcnet_messages::{Channel, ChannelName, Grant, Role, Series, Statement};

use super::verify::Trust;

pub const NETWORK: [u8; 32] = [9; 32];

pub fn node(byte: u8) -> NodeId {
    NodeId::from_bytes([byte; 32])
}

pub fn channel_of(owner: NodeId) -> Channel {
    Channel {
        owner,
        name: ChannelName::new("orders/eu").unwrap(),
    }
}

pub fn channel() -> Channel {
    channel_of(node(1))
}

/// Records of ten bytes.
pub fn volume(frames: u64) -> Volume {
    Volume {
        frames,
        bytes: frames * 10,
    }
}

pub fn statement(keys: &NodeKeys, after: u64, last: u64, frames: u64) -> Statement {
    Statement {
        network_id: NETWORK,
        receiver: keys.node_id(),
        relayer: node(3),
        channel: channel(),
        series: Series([1; 16]),
        window: 1,
        after,
        last,
        frames,
        bytes: frames * 10,
        signed_at_ms: 7,
    }
}

pub fn grant(keys: &NodeKeys, sentry: NodeId, issued_at_ms: u64) -> Grant {
    Grant::issue(
        keys,
        NETWORK,
        sentry,
        issued_at_ms,
        60_000,
        [issued_at_ms as u8; 16],
    )
}

/// Who is what.
pub struct Listed(pub BTreeSet<(NodeId, Role)>);

impl Trust for Listed {
    fn network_id(&self) -> [u8; 32] {
        NETWORK
    }

    fn is(&self, node: &NodeId, role: Role) -> bool {
        self.0.contains(&(*node, role))
    }
}
