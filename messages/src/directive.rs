//! What the root of a network orders: who is revoked, who succeeds whom, who may be what, who owns which shard.
//!
//! Bytes, rules and their reasons: docs/spec/control.md, "Directives".

use std::collections::BTreeSet;
use std::fmt;

use bytes::Bytes;
use pqcnet_crypto::{MlDsaKeyPair, MlDsaPublic, MlDsaSignature, NodeId, NodePublic, sha256};
use pqcnet_link::{Role, WireError};
use pqcnet_protos::control::v1::Type;
use pqcnet_protos::mesh::v1 as pb;

use crate::canonical::{Reader, put_roles, put_text};
use crate::codec::{invalid, message, required, wire};
use crate::refusal::Refusal;
use crate::shard::ShardMap;

const CONTEXT: &[u8] = b"pqcnet/directive/1";
/// Longest reason, in bytes of printable ASCII.
pub const MAX_REASON: usize = 128;
/// Most shards of a map in a directive: as many as a network file takes.
pub const MAX_MAP_SHARDS: usize = 4096;
/// Most owners of such a map, so that the directive fits a gossip message of 64 KiB.
pub const MAX_MAP_OWNERS: usize = 1024;

/// One order of the root. Of two about the same [`Subject`] the one with the higher version holds.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Directive {
    /// The network it holds in.
    pub network_id: [u8; 32],
    /// Rises with each order about a subject; the root's clock in milliseconds will do.
    pub version: u64,
    /// The root's clock, milliseconds since the Unix epoch.
    pub issued_at_ms: u64,
    /// How long what it gives is given; 0 is without end. A revocation takes away and has no end.
    pub lease_ms: u64,
    /// What it orders.
    pub order: Order,
}

/// What a directive orders.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Order {
    /// The node is nobody any more: no role, no link, no grant.
    Revoke {
        /// Whose key it is.
        node: NodeId,
        /// For people; at most [`MAX_REASON`] bytes of printable ASCII.
        reason: String,
    },
    /// The new identity inherits the old one's roles. Both hold until the overlap ends, then the old one is refused.
    Succeed {
        /// The old identity.
        old: NodeId,
        /// The new identity's public keys.
        new: NodePublic,
        /// Milliseconds since the Unix epoch.
        overlap_until_ms: u64,
    },
    /// From now on the node has these roles and no others, whatever the network file says. None at all takes them away.
    GrantRole {
        /// Who gets them.
        node: NodeId,
        /// What it may be.
        roles: BTreeSet<Role>,
    },
    /// Who owns which shard.
    ShardMap(ShardMap),
}

/// What an order is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Subject {
    /// What a node may be: revocations and grants of roles.
    Node(NodeId),
    /// Who succeeds a node.
    Succession(NodeId),
    /// The shard map.
    Shards,
}

/// A directive and the root's signature: what travels and is stored.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SignedDirective {
    /// What the root ordered.
    pub directive: Directive,
    /// ML-DSA-65 over [`Directive::canonical_bytes`].
    pub signature: MlDsaSignature,
}

/// Why a directive is none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DirectiveError {
    /// It is for another network; whoever sent it erred.
    #[error("the directive is for another network")]
    WrongNetwork,
    /// The network's root did not sign it; whoever sent it erred.
    #[error("the directive is not signed by the network's root")]
    BadSignature,
    /// Nobody could read it back, so it is not signed; the signer erred.
    #[error("no such directive can be written: {0}")]
    Unwritable(WireError),
}

impl Directive {
    /// Signs it with the root's key.
    ///
    /// # Errors
    /// [`DirectiveError::Unwritable`] when it is over a limit.
    pub fn sign(self, root: &MlDsaKeyPair) -> Result<SignedDirective, DirectiveError> {
        let bytes = self.canonical_bytes();
        let read = Directive::from_canonical(&bytes).map_err(DirectiveError::Unwritable)?;
        if read != self {
            let problem = invalid("directive", "over a limit");
            return Err(DirectiveError::Unwritable(problem));
        }
        Ok(SignedDirective {
            directive: self,
            signature: root.sign(&bytes),
        })
    }

    /// What is signed: `"pqcnet/directive/1" ‖ network id ‖ version ‖ issued_at_ms ‖ lease_ms ‖ order`.
    pub fn canonical_bytes(&self) -> Vec<u8> {
        let mut out = CONTEXT.to_vec();
        out.extend_from_slice(&self.network_id);
        for number in [self.version, self.issued_at_ms, self.lease_ms] {
            out.extend_from_slice(&number.to_be_bytes());
        }
        self.order.put(&mut out);
        out
    }

    /// Reads canonical bytes.
    ///
    /// # Errors
    /// They are not the canonical bytes of any directive that this version knows.
    pub fn from_canonical(bytes: &[u8]) -> Result<Directive, WireError> {
        let mut from = Reader::after(CONTEXT, bytes)?;
        let directive = Directive {
            network_id: from.array()?,
            version: from.u64()?,
            issued_at_ms: from.u64()?,
            lease_ms: from.u64()?,
            order: Order::read(&mut from)?,
        };
        from.end()?;
        if directive.lease_ms != 0 && matches!(directive.order, Order::Revoke { .. }) {
            return Err(invalid("lease", "a revocation has no end"));
        }
        Ok(directive)
    }

    /// What it is about.
    pub fn subject(&self) -> Subject {
        match &self.order {
            Order::Revoke { node, .. } | Order::GrantRole { node, .. } => Subject::Node(*node),
            Order::Succeed { old, .. } => Subject::Succession(*old),
            Order::ShardMap(_) => Subject::Shards,
        }
    }

    /// When what it gives ends, milliseconds since the Unix epoch; `None` is never.
    pub fn expires_at_ms(&self) -> Option<u64> {
        (self.lease_ms != 0).then(|| self.issued_at_ms.saturating_add(self.lease_ms))
    }

    /// Whether its lease is over.
    pub fn is_over(&self, wall_ms: u64) -> bool {
        self.expires_at_ms().is_some_and(|end| end <= wall_ms)
    }
}

impl Order {
    fn put(&self, out: &mut Vec<u8>) {
        match self {
            Order::Revoke { node, reason } => {
                out.push(1);
                out.extend_from_slice(node.as_bytes());
                put_text(out, reason);
            }
            Order::Succeed {
                old,
                new,
                overlap_until_ms,
            } => {
                out.push(2);
                out.extend_from_slice(old.as_bytes());
                out.extend_from_slice(&new.to_bytes());
                out.extend_from_slice(&overlap_until_ms.to_be_bytes());
            }
            Order::GrantRole { node, roles } => {
                out.push(3);
                out.extend_from_slice(node.as_bytes());
                put_roles(out, roles);
            }
            Order::ShardMap(map) => {
                out.push(4);
                put_map(out, map);
            }
        }
    }

    fn read(from: &mut Reader<'_>) -> Result<Order, WireError> {
        Ok(match from.u8()? {
            1 => Order::Revoke {
                node: from.node()?,
                reason: from.text("reason", MAX_REASON)?,
            },
            2 => Order::Succeed {
                old: from.node()?,
                new: NodePublic::from_bytes(from.slice(NodePublic::LEN)?)
                    .map_err(|_| WireError::Malformed)?,
                overlap_until_ms: from.u64()?,
            },
            3 => Order::GrantRole {
                node: from.node()?,
                roles: from.roles()?,
            },
            4 => Order::ShardMap(read_map(from)?),
            _ => return Err(invalid("order", "unknown")),
        })
    }
}

/// The map's version, its owners ascending, and for each shard the place of its owner among them.
fn put_map(out: &mut Vec<u8>, map: &ShardMap) {
    let owners: BTreeSet<NodeId> = map.owners().iter().copied().collect();
    let owners: Vec<NodeId> = owners.into_iter().collect();
    out.extend_from_slice(&map.version().to_be_bytes());
    put_count(out, owners.len());
    for owner in &owners {
        out.extend_from_slice(owner.as_bytes());
    }
    put_count(out, map.owners().len());
    for owner in map.owners() {
        put_count(out, owners.partition_point(|other| other < owner));
    }
}

fn put_count(out: &mut Vec<u8>, len: usize) {
    out.extend_from_slice(&u16::try_from(len).unwrap_or(u16::MAX).to_be_bytes());
}

fn read_map(from: &mut Reader<'_>) -> Result<ShardMap, WireError> {
    let version = from.u64()?;
    let count = usize::from(from.u16()?);
    if count > MAX_MAP_OWNERS {
        return Err(invalid("owners", "too many"));
    }
    let owners: Vec<NodeId> = (0..count).map(|_| from.node()).collect::<Result<_, _>>()?;
    if !owners.is_sorted_by(|a, b| a < b) {
        return Err(invalid("owners", "not ascending"));
    }
    let shards = usize::from(from.u16()?);
    if shards > MAX_MAP_SHARDS {
        return Err(invalid("shards", "too many"));
    }
    let mut named = BTreeSet::new();
    let mut map = Vec::with_capacity(shards);
    for _ in 0..shards {
        let place = usize::from(from.u16()?);
        let owner = owners.get(place);
        map.push(*owner.ok_or_else(|| invalid("shards", "an owner that is not listed"))?);
        named.insert(place);
    }
    if named.len() != owners.len() {
        return Err(invalid("owners", "one that owns nothing"));
    }
    ShardMap::new(version, map).map_err(|_| invalid("shards", "none"))
}

impl SignedDirective {
    /// Checks that it is for this network and that its root signed it. Needs a signature verification (about 60 µs): call
    /// it off the actor's thread.
    ///
    /// # Errors
    /// Which of both is not so.
    pub fn verify(&self, network_id: &[u8; 32], root: &MlDsaPublic) -> Result<(), DirectiveError> {
        if self.directive.network_id != *network_id {
            return Err(DirectiveError::WrongNetwork);
        }
        root.verify(&self.directive.canonical_bytes(), &self.signature)
            .map_err(|_| DirectiveError::BadSignature)
    }

    /// What it is about.
    pub fn subject(&self) -> Subject {
        self.directive.subject()
    }

    /// Its place among the directives of its subject: the higher one holds. Two of one version are told apart by their
    /// bytes, so that all nodes keep the same one.
    pub fn rank(&self) -> (u64, [u8; 32]) {
        let bytes = self.directive.canonical_bytes();
        (self.directive.version, sha256(&[&bytes]))
    }

    /// The first 8 bytes of SHA-256 over its canonical bytes: what a node says to name one that it has.
    pub fn fingerprint(&self) -> [u8; 8] {
        fingerprint(&self.directive.canonical_bytes())
    }
}

pub(crate) fn fingerprint(bytes: &[u8]) -> [u8; 8] {
    let mut first = [0; 8];
    first.copy_from_slice(&sha256(&[bytes])[..8]);
    first
}

impl fmt::Display for Directive {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.order {
            Order::Revoke { node, reason } => write!(f, "revoke {}: {reason}", node.short())?,
            Order::Succeed { old, new, .. } => {
                let new = new.node_id();
                write!(f, "{} succeeds {}", new.short(), old.short())?;
            }
            Order::GrantRole { node, roles } if roles.is_empty() => {
                write!(f, "{} has no role", node.short())?;
            }
            Order::GrantRole { node, roles } => {
                let roles: Vec<&str> = roles.iter().map(|role| role.name()).collect();
                write!(f, "{} is {}", node.short(), roles.join(" and "))?;
            }
            Order::ShardMap(map) => write!(f, "shard map {}", map.version())?,
        }
        write!(f, " (version {})", self.version)
    }
}

wire!(SignedDirective => pb::Signed);

impl From<&SignedDirective> for pb::Signed {
    fn from(signed: &SignedDirective) -> Self {
        Self {
            body: signed.directive.canonical_bytes().into(),
            signature: Bytes::copy_from_slice(signed.signature.as_bytes()),
        }
    }
}

impl TryFrom<pb::Signed> for SignedDirective {
    type Error = WireError;

    fn try_from(signed: pb::Signed) -> Result<Self, WireError> {
        Ok(SignedDirective {
            directive: Directive::from_canonical(&signed.body)?,
            signature: MlDsaSignature::from_slice(&signed.signature)
                .map_err(|_| invalid("signature", "wrong length"))?,
        })
    }
}

/// Hands a directive to a node, which keeps it and passes it on; any peer but a client may. Answered with what became of
/// it, or `NotAllowed` when the network's root did not sign it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SubmitDirective {
    /// The directive.
    pub directive: SignedDirective,
}

/// What became of a directive that was handed in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Submitted {
    /// It is on this node's disk, it holds here, and it is on its way to the others.
    Applied,
    /// The node had it.
    Known,
    /// The node has one of a higher version about the same subject.
    Superseded,
}

message!(SubmitDirective, "control.SubmitDirective", CONTROL Type::SubmitDirective, Request => Result<Submitted, Refusal>);

wire!(SubmitDirective => pb::SubmitDirective);
wire!(Submitted => pb::Submitted);

impl From<&SubmitDirective> for pb::SubmitDirective {
    fn from(submit: &SubmitDirective) -> Self {
        let directive = Some((&submit.directive).into());
        Self { directive }
    }
}

impl TryFrom<pb::SubmitDirective> for SubmitDirective {
    type Error = WireError;

    fn try_from(submit: pb::SubmitDirective) -> Result<Self, WireError> {
        let directive = required("directive", submit.directive)?.try_into()?;
        Ok(SubmitDirective { directive })
    }
}

impl From<&Submitted> for pb::Submitted {
    fn from(submitted: &Submitted) -> Self {
        let outcome = match submitted {
            Submitted::Applied => pb::Outcome::Applied,
            Submitted::Known => pb::Outcome::Known,
            Submitted::Superseded => pb::Outcome::Superseded,
        };
        let outcome = outcome.into();
        Self { outcome }
    }
}

impl TryFrom<pb::Submitted> for Submitted {
    type Error = WireError;

    fn try_from(submitted: pb::Submitted) -> Result<Self, WireError> {
        Ok(match submitted.outcome() {
            pb::Outcome::Applied => Submitted::Applied,
            pb::Outcome::Known => Submitted::Known,
            pb::Outcome::Superseded => Submitted::Superseded,
            pb::Outcome::Unspecified => return Err(invalid("outcome", "unknown")),
        })
    }
}
