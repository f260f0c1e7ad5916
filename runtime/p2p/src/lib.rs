//! QSTP over sockets: direct endpoints, typed links' driver, and libp2p with QSTP as its security upgrade.

pub mod guard;
pub mod network;
