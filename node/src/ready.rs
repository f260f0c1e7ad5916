//! The one line a node prints on standard output once it serves: for service managers, `pqcnet up` and tests.

use std::net::SocketAddr;

use pqcnet_crypto::NodeId;
use serde::{Deserialize, Serialize};

/// Where a node that is ready can be reached.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ready {
    /// `sentry`, `relayer`.
    pub role: String,
    /// Who it is.
    pub node_id: NodeId,
    /// Its control plane.
    pub control: String,
    /// Its data plane.
    pub data: String,
    /// Its admin pages.
    pub admin: SocketAddr,
    /// Its process.
    pub pid: u32,
}
