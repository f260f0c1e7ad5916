//! QSTP over sockets: direct endpoints, typed links' driver, and libp2p with QSTP as its security upgrade.
//!
//! | module | what |
//! |---|---|
//! | [`network`] | `network.toml`: who is in a network and what each may do |
//! | [`handshake`] | the async driver of QSTP's handshake; [`handshake::Security`] is a node's identity and limits |
//! | [`guard`] | what a stranger may cost before its handshake is done (pure) |
//! | [`stream`] | the byte stream inside QSTP records |
//! | [`streams`] | byte streams under QSTP: TCP here, simulated ones in the simulator |
//! | [`endpoint`] | data plane: direct QSTP streams |
//! | [`typed`] | typed links over any of these streams |
//! | `control` (feature `libp2p`) | control plane: libp2p over TCP, QSTP as the security upgrade, yamux, gossip |
//!
//! Bulk data never shares a connection with control traffic: yamux costs more than a second of CPU a GiB, and one
//! window would hold both up.

pub mod buffers;
#[cfg(feature = "libp2p")]
pub mod control;
pub mod endpoint;
pub mod guard;
pub mod handshake;
pub mod network;
mod reserve;
pub mod stream;
pub mod streams;
#[cfg(test)]
mod testing;
pub mod typed;
