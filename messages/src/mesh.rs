//! Facts about links that the mesh keeps up. Local to a process: they carry handles, not bytes.

use std::hash::Hash as _;

use pqcnet_actor::{Class, Digest, Message};
use pqcnet_crypto::NodeId;

/// A link to a wanted peer is up. `L` is what its users need of it.
#[derive(Clone, Debug)]
pub struct LinkUp<L> {
    /// The peer.
    pub peer: NodeId,
    /// The link.
    pub link: L,
}

/// The link to a wanted peer is gone; the mesh dials again.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct LinkDown {
    /// The peer.
    pub peer: NodeId,
}

impl<L: Send + 'static> Message for LinkUp<L> {
    type Reply = ();
    const NAME: &'static str = "mesh.LinkUp";
    const CLASS: Class = Class::Control;

    fn digest(&self, into: &mut Digest) {
        self.peer.hash(into);
    }
}

impl Message for LinkDown {
    type Reply = ();
    const NAME: &'static str = "mesh.LinkDown";
    const CLASS: Class = Class::Control;

    fn digest(&self, into: &mut Digest) {
        self.hash(into);
    }
}
