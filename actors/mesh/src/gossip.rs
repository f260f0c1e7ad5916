//! What the mesh's actors need of gossip, and what peers' links bring them.

use std::hash::Hash as _;
use std::sync::Arc;

use bytes::Bytes;
use futures::future::BoxFuture;
use pqcnet_actor::{Class, Digest, Message, Ref};
use pqcnet_crypto::NodeId;
use pqcnet_link::{Wire, WireError};
use pqcnet_messages::{PullAdverts, PullDirectives, SignedAdvert, SignedDirective};

use pqcnet_p2p::network::Address;

use crate::core::scores::Offence;

/// The topic of adverts.
pub const ADVERTS: &str = "adverts";
/// The topic of directives.
pub const DIRECTIVES: &str = "directives";

/// Sends to everybody in a topic. What was sent before counts as sent.
pub type Publish =
    Arc<dyn Fn(&'static str, Bytes) -> BoxFuture<'static, Result<(), NotSent>> + Send + Sync>;

/// Puts this node's own record where lookups find it. An error is a reason for the log.
pub type Keep = Arc<dyn Fn(Bytes) -> BoxFuture<'static, Result<(), String>> + Send + Sync>;

/// Why something was not gossiped; the words are for the log.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotSent {
    /// Nobody took it now.
    #[error("not now: {0}")]
    Later(String),
    /// Nobody ever will.
    #[error("never: {0}")]
    Never(String),
}

/// What is to become of a message that was gossiped to this node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Judgement {
    /// New and right: it goes on to others.
    Forward,
    /// Known, old, or from software that knows more than this: it stays here, and nobody is blamed.
    Keep,
    /// Whoever forwarded it had to know better.
    Wrong,
}

/// Reads a gossip message. What a younger version may have written is nobody's fault.
///
/// # Errors
/// What is to become of it instead.
pub fn read<T: Wire>(bytes: Bytes) -> Result<T, Judgement> {
    T::from_wire(bytes).map_err(|error| match error {
        WireError::Invalid {
            problem: "unknown" | "of another kind or version",
            ..
        } => Judgement::Keep,
        _ => Judgement::Wrong,
    })
}

/// Asks what is to become of a directive.
#[derive(Clone, Debug, Hash)]
pub struct JudgeDirective {
    /// As it came.
    pub directive: SignedDirective,
}

/// Asks what is to become of an advert.
#[derive(Clone, Debug, Hash)]
pub struct JudgeAdvert {
    /// As it came.
    pub advert: SignedAdvert,
}

/// A link on the control plane opened, dialled by whomever. Told to registrar and herald.
#[derive(Clone, Debug, Hash)]
pub struct PeerLinked {
    /// The link's number in this process.
    pub link: u64,
    /// Who.
    pub peer: NodeId,
    /// Gives the directives that this node lacks.
    pub directives: Ref<PullDirectives>,
    /// Gives the adverts that this node lacks.
    pub adverts: Ref<PullAdverts>,
}

/// Such a link closed.
#[derive(Clone, Debug, Hash)]
pub struct PeerUnlinked {
    /// The link's number.
    pub link: u64,
    /// Who.
    pub peer: NodeId,
}

/// A peer did something wrong, on whatever plane.
#[derive(Clone, Debug, Hash)]
pub struct Misbehaved {
    /// Who.
    pub peer: NodeId,
    /// What.
    pub offence: Offence,
}

/// A peer that the mesh wanted could not be dialled.
#[derive(Clone, Debug, Hash)]
pub struct DialFailed {
    /// Who.
    pub peer: NodeId,
    /// Somebody answered, and could not prove to be this peer.
    pub handshake: bool,
}

/// Somebody on the LAN says that a node listens there.
#[derive(Clone, Debug, Hash)]
pub struct Sighted {
    /// Who.
    pub peer: NodeId,
    /// Where.
    pub at: Address,
}

macro_rules! local {
    ($($ty:ty, $name:literal, $class:ident => $reply:ty;)*) => {
        $(impl Message for $ty {
            type Reply = $reply;
            const NAME: &'static str = $name;
            const CLASS: Class = Class::$class;

            fn digest(&self, into: &mut Digest) {
                self.hash(into);
            }
        })*
    };
}

local! {
    JudgeDirective, "mesh.JudgeDirective", Request => Judgement;
    JudgeAdvert, "mesh.JudgeAdvert", Request => Judgement;
    PeerLinked, "mesh.PeerLinked", Control => ();
    PeerUnlinked, "mesh.PeerUnlinked", Control => ();
    Misbehaved, "mesh.Misbehaved", Control => ();
    DialFailed, "mesh.DialFailed", Control => ();
    Sighted, "mesh.Sighted", Control => ();
}
