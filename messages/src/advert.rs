//! What a node says of itself to the whole network, signed by itself.
//!
//! Bytes, rules and their reasons: docs/spec/control.md, "Adverts".

use std::collections::BTreeSet;

use bytes::Bytes;
use pqcnet_crypto::{KemPublic, MlDsaSignature, NodeId, NodeKeys, NodePublic};
use pqcnet_link::{Role, ServiceId, WireError};
use pqcnet_protos::control::v1::Type;
use pqcnet_protos::mesh::v1 as pb;

use crate::canonical::{Reader, count, put_roles, put_text};
use crate::codec::{invalid, message, wire};
use crate::directive::{SignedDirective, fingerprint};
use crate::refusal::Refusal;

const CONTEXT: &[u8] = b"pqcnet/advert/1";
/// Longest name and version of a software, in bytes; a longer one is cut.
pub const MAX_ADVERT_SOFTWARE: usize = 64;
/// Most services in an advert: as many as in a Hello.
pub const MAX_ADVERT_SERVICES: usize = 32;
/// Most addresses on each plane: as many as a network file takes.
pub const MAX_ADVERT_ADDRESSES: usize = 8;
/// Longest address as text: a DNS name of 253 bytes would still need its port.
pub const MAX_ADVERT_ADDRESS: usize = 255;
/// Longest lease of an advert: an hour, six times the interval at which one is renewed.
pub const MAX_ADVERT_LEASE_MS: u64 = 3600 * 1000;
/// How far a signer's clock may be ahead of the verifier's.
pub const ADVERT_SKEW_MS: u64 = 5 * 60 * 1000;
/// Most fingerprints in a pull, and so most directives and most adverts that a node keeps.
pub const MAX_HAVE: usize = 4096;
/// Most directives or adverts in one answer to a pull.
pub const MAX_PULLED: usize = 64;

/// What a node says of itself.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Advert {
    /// The network it belongs to.
    pub network_id: [u8; 32],
    /// Its keys, and by them its NodeId.
    pub node: NodePublic,
    /// What it works as.
    pub roles: BTreeSet<Role>,
    /// What it serves to peers.
    pub services: BTreeSet<ServiceId>,
    /// Name and version of its software; printable ASCII, at most [`MAX_ADVERT_SOFTWARE`].
    pub software: String,
    /// SHA-256 of the binary it runs.
    pub software_hash: [u8; 32],
    /// How often its identity has been succeeded; from 1.
    pub identity_version: u32,
    /// The key that tunnels to it are opened with, where it takes tunnels.
    pub kem: Option<KemAdvert>,
    /// Where its control plane listens, as `host:port`.
    pub control: Vec<String>,
    /// Where it takes direct streams, as `host:port`.
    pub data: Vec<String>,
    /// Its clock, milliseconds since the Unix epoch. Of two adverts the younger holds.
    pub issued_at_ms: u64,
    /// How long it holds; at most [`MAX_ADVERT_LEASE_MS`].
    pub lease_ms: u64,
}

/// One version of a node's KEM key.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct KemAdvert {
    /// Rises with each rotation.
    pub version: u32,
    /// X-Wing.
    pub key: KemPublic,
}

/// An advert and its node's signature: what travels and is stored.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SignedAdvert {
    /// What the node says.
    pub advert: Advert,
    /// ML-DSA-65 over [`Advert::canonical_bytes`], by the node's own key.
    pub signature: MlDsaSignature,
}

/// Why an advert does not hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AdvertError {
    /// For another network; whoever sent it erred.
    #[error("the advert is for another network")]
    WrongNetwork,
    /// Issued in the future, beyond [`ADVERT_SKEW_MS`]: somebody's clock is wrong.
    #[error("the advert is not valid yet")]
    NotYetValid,
    /// Over.
    #[error("the advert has expired")]
    Expired,
    /// Not signed by the node it names; whoever sent it erred.
    #[error("the advert's signature does not verify")]
    BadSignature,
}

impl Advert {
    /// Signs it with its node's keys. Texts and lists that are over a limit are cut first.
    pub fn sign(mut self, keys: &NodeKeys) -> SignedAdvert {
        self.node = keys.public().clone();
        self.lease_ms = self.lease_ms.min(MAX_ADVERT_LEASE_MS);
        self.software.retain(|c| matches!(c, ' '..='~'));
        self.software.truncate(MAX_ADVERT_SOFTWARE);
        while self.services.len() > MAX_ADVERT_SERVICES {
            self.services.pop_last();
        }
        for list in [&mut self.control, &mut self.data] {
            list.retain(|at| is_address(at));
            list.truncate(MAX_ADVERT_ADDRESSES);
        }
        let signature = keys.sign_ml_dsa(&self.canonical_bytes());
        SignedAdvert {
            advert: self,
            signature,
        }
    }

    /// What is signed: "pqcnet/advert/1" and every field in its order.
    pub fn canonical_bytes(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(4096);
        out.extend_from_slice(CONTEXT);
        out.extend_from_slice(&self.network_id);
        out.extend_from_slice(&self.node.to_bytes());
        put_roles(&mut out, &self.roles);
        out.push(count(self.services.len()));
        for service in &self.services {
            out.extend_from_slice(&service.0.to_be_bytes());
        }
        put_text(&mut out, &self.software);
        out.extend_from_slice(&self.software_hash);
        out.extend_from_slice(&self.identity_version.to_be_bytes());
        match &self.kem {
            None => out.push(0),
            Some(kem) => {
                out.push(1);
                out.extend_from_slice(&kem.version.to_be_bytes());
                out.extend_from_slice(kem.key.as_bytes());
            }
        }
        for list in [&self.control, &self.data] {
            out.push(count(list.len()));
            for at in list {
                put_text(&mut out, at);
            }
        }
        out.extend_from_slice(&self.issued_at_ms.to_be_bytes());
        out.extend_from_slice(&self.lease_ms.to_be_bytes());
        out
    }

    /// Reads canonical bytes.
    ///
    /// # Errors
    /// They are not the canonical bytes of any advert that this version knows.
    pub fn from_canonical(bytes: &[u8]) -> Result<Advert, WireError> {
        let mut from = Reader::after(CONTEXT, bytes)?;
        let advert = Advert {
            network_id: from.array()?,
            node: NodePublic::from_bytes(from.slice(NodePublic::LEN)?)
                .map_err(|_| WireError::Malformed)?,
            roles: from.roles()?,
            services: services(&mut from)?,
            software: from.text("software", MAX_ADVERT_SOFTWARE)?,
            software_hash: from.array()?,
            identity_version: from.u32()?,
            kem: kem(&mut from)?,
            control: addresses(&mut from)?,
            data: addresses(&mut from)?,
            issued_at_ms: from.u64()?,
            lease_ms: from.u64()?,
        };
        from.end()?;
        if advert.lease_ms > MAX_ADVERT_LEASE_MS {
            return Err(invalid("lease", "too long"));
        }
        Ok(advert)
    }

    /// Who says it.
    pub fn node_id(&self) -> NodeId {
        self.node.node_id()
    }

    /// When it stops holding, milliseconds since the Unix epoch.
    pub fn expires_at_ms(&self) -> u64 {
        self.issued_at_ms.saturating_add(self.lease_ms)
    }
}

fn services(from: &mut Reader<'_>) -> Result<BTreeSet<ServiceId>, WireError> {
    let count = usize::from(from.u8()?);
    if count > MAX_ADVERT_SERVICES {
        return Err(invalid("services", "too many"));
    }
    let read = (0..count).map(|_| from.u32().map(ServiceId));
    let list: Vec<ServiceId> = read.collect::<Result<_, _>>()?;
    if !list.is_sorted_by(|a, b| a < b) {
        return Err(invalid("services", "not ascending"));
    }
    Ok(list.into_iter().collect())
}

fn kem(from: &mut Reader<'_>) -> Result<Option<KemAdvert>, WireError> {
    match from.u8()? {
        0 => Ok(None),
        1 => Ok(Some(KemAdvert {
            version: from.u32()?,
            key: KemPublic::from_bytes(from.slice(KemPublic::LEN)?)
                .map_err(|_| invalid("kem key", "no X-Wing key"))?,
        })),
        _ => Err(invalid("kem key", "neither there nor not")),
    }
}

fn addresses(from: &mut Reader<'_>) -> Result<Vec<String>, WireError> {
    let count = usize::from(from.u8()?);
    if count > MAX_ADVERT_ADDRESSES {
        return Err(invalid("addresses", "too many"));
    }
    let read = (0..count).map(|_| match from.text("address", MAX_ADVERT_ADDRESS)? {
        at if is_address(&at) => Ok(at),
        _ => Err(invalid("address", "not host:port")),
    });
    read.collect()
}

/// The rough shape; whoever dials reads it exactly.
fn is_address(text: &str) -> bool {
    let plain = text.bytes().all(|byte| (b'!'..=b'~').contains(&byte));
    plain && text.len() <= MAX_ADVERT_ADDRESS && text.contains(':')
}

impl SignedAdvert {
    /// Checks everything but what the network lets the node be. Needs a signature verification (about 60 µs): call it off
    /// the actor's thread.
    ///
    /// # Errors
    /// The first check that failed; a failure means untrusted.
    pub fn verify(&self, network_id: &[u8; 32], wall_ms: u64) -> Result<(), AdvertError> {
        if self.advert.network_id != *network_id {
            return Err(AdvertError::WrongNetwork);
        }
        if self.advert.issued_at_ms > wall_ms.saturating_add(ADVERT_SKEW_MS) {
            return Err(AdvertError::NotYetValid);
        }
        if wall_ms >= self.advert.expires_at_ms() {
            return Err(AdvertError::Expired);
        }
        let bytes = self.advert.canonical_bytes();
        (self.advert.node.ml_dsa)
            .verify(&bytes, &self.signature)
            .map_err(|_| AdvertError::BadSignature)
    }

    /// The first 8 bytes of SHA-256 over its canonical bytes: what a node says to name one that it has.
    pub fn fingerprint(&self) -> [u8; 8] {
        fingerprint(&self.advert.canonical_bytes())
    }
}

wire!(SignedAdvert => pb::Signed);

impl From<&SignedAdvert> for pb::Signed {
    fn from(signed: &SignedAdvert) -> Self {
        Self {
            body: signed.advert.canonical_bytes().into(),
            signature: Bytes::copy_from_slice(signed.signature.as_bytes()),
        }
    }
}

impl TryFrom<pb::Signed> for SignedAdvert {
    type Error = WireError;

    fn try_from(signed: pb::Signed) -> Result<Self, WireError> {
        Ok(SignedAdvert {
            advert: Advert::from_canonical(&signed.body)?,
            signature: MlDsaSignature::from_slice(&signed.signature)
                .map_err(|_| invalid("signature", "wrong length"))?,
        })
    }
}

/// Asks a peer for the directives that the asker lacks.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PullDirectives {
    /// Fingerprints of those it has; at most [`MAX_HAVE`].
    pub have: Vec<[u8; 8]>,
}

/// Asks a peer for the adverts that the asker lacks.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PullAdverts {
    /// Fingerprints of those it has; at most [`MAX_HAVE`].
    pub have: Vec<[u8; 8]>,
    /// The asker's own, so that both know each other after one ask.
    pub mine: Option<SignedAdvert>,
}

/// Some of what the asker lacks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pulled<T> {
    /// At most [`MAX_PULLED`].
    pub items: Vec<T>,
    /// There are more: ask again, having these.
    pub more: bool,
}

/// An answer to [`PullDirectives`].
pub type PulledDirectives = Result<Pulled<SignedDirective>, Refusal>;
/// An answer to [`PullAdverts`].
pub type PulledAdverts = Result<Pulled<SignedAdvert>, Refusal>;

message!(PullDirectives, "control.PullDirectives", CONTROL Type::PullDirectives, Request => PulledDirectives);
message!(PullAdverts, "control.PullAdverts", CONTROL Type::PullAdverts, Request => PulledAdverts);

wire!(PullDirectives => pb::PullDirectives);
wire!(PullAdverts => pb::PullAdverts);
wire!(Pulled<SignedDirective> => pb::Pulled, bound "items" = 1 at MAX_PULLED);
wire!(Pulled<SignedAdvert> => pb::Pulled, bound "items" = 1 at MAX_PULLED);

fn put_have(have: &[[u8; 8]]) -> Bytes {
    let first = have.iter().take(MAX_HAVE);
    first.copied().flatten().collect::<Vec<u8>>().into()
}

fn read_have(bytes: &Bytes) -> Result<Vec<[u8; 8]>, WireError> {
    if bytes.len() > MAX_HAVE * 8 {
        return Err(WireError::TooMany {
            field: "have",
            limit: MAX_HAVE,
        });
    }
    let (whole, rest) = bytes.as_chunks::<8>();
    if rest.is_empty() {
        Ok(whole.to_vec())
    } else {
        Err(invalid("have", "part of a fingerprint"))
    }
}

impl From<&PullDirectives> for pb::PullDirectives {
    fn from(pull: &PullDirectives) -> Self {
        let have = put_have(&pull.have);
        Self { have }
    }
}

impl TryFrom<pb::PullDirectives> for PullDirectives {
    type Error = WireError;

    fn try_from(pull: pb::PullDirectives) -> Result<Self, WireError> {
        let have = read_have(&pull.have)?;
        Ok(PullDirectives { have })
    }
}

impl From<&PullAdverts> for pb::PullAdverts {
    fn from(pull: &PullAdverts) -> Self {
        Self {
            have: put_have(&pull.have),
            mine: pull.mine.as_ref().map(Into::into),
        }
    }
}

impl TryFrom<pb::PullAdverts> for PullAdverts {
    type Error = WireError;

    fn try_from(pull: pb::PullAdverts) -> Result<Self, WireError> {
        Ok(PullAdverts {
            have: read_have(&pull.have)?,
            mine: pull.mine.map(TryInto::try_into).transpose()?,
        })
    }
}

impl<T> From<&Pulled<T>> for pb::Pulled
where
    pb::Signed: for<'a> From<&'a T>,
{
    fn from(pulled: &Pulled<T>) -> Self {
        Self {
            items: pulled.items.iter().map(Into::into).collect(),
            more: pulled.more,
        }
    }
}

impl<T: TryFrom<pb::Signed, Error = WireError>> TryFrom<pb::Pulled> for Pulled<T> {
    type Error = WireError;

    fn try_from(pulled: pb::Pulled) -> Result<Self, WireError> {
        Ok(Pulled {
            items: (pulled.items.into_iter().map(TryInto::try_into)).collect::<Result<_, _>>()?,
            more: pulled.more,
        })
    }
}
