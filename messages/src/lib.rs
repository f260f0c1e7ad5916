//! Typed messages, services and their ids, access rules' vocabulary, `ShardMap`, wire conversions.
//!
//! | service | between | module |
//! |---|---|---|
//! | `edge` | a client and its sentry | [`edge`] |
//! | `relay` | a sentry and a relayer | [`relay`] |
//! | `relay` | two relayers | [`moving`], [`relay::ReleaseShard`] |
//! | `control` | any two nodes, operators | [`control`] |
//! | none | actors of one process | [`mesh`], [`metering`] |
//!
//! A message is remote only where a node binds it to a link; its service and type id are fixed in `protos` and pinned by
//! `tests/pinned.rs`. Decoding checks every limit and shares the frame's memory: a payload is never copied.
//! Bytes that break a limit are the peer's fault and close the link, so senders check limits first.
//!
//! Offsets are per channel, contiguous, from 1. A producer epoch (unique per channel, issued by the shard's owner) and a
//! sequence (from 1, contiguous) identify a publish.

mod advert;
mod canonical;
mod channel;
mod codec;
pub mod control;
mod directive;
pub mod edge;
mod field;
mod flow;
mod grant;
mod group;
pub mod mesh;
pub mod metering;
pub mod moving;
pub mod orders;
mod problem;
mod receipt;
mod record;
mod refusal;
pub mod relay;
pub mod relay_local;
mod shard;

pub use advert::{
    ADVERT_SKEW_MS, Advert, AdvertError, KemAdvert, MAX_ADVERT_ADDRESSES, MAX_ADVERT_LEASE_MS,
    MAX_HAVE, MAX_PULLED, PullAdverts, PullDirectives, Pulled, PulledAdverts, PulledDirectives,
    SignedAdvert,
};
pub use channel::{Channel, ChannelName, ChannelNameError, MAX_CHANNEL_NAME};
pub use directive::{
    Directive, DirectiveError, MAX_MAP_OWNERS, MAX_MAP_SHARDS, MAX_REASON, Order, SignedDirective,
    Subject, SubmitDirective, Submitted,
};
pub use flow::PauseCause;
pub use grant::{GRANT_SKEW_MS, Grant, GrantError, MAX_GRANT_LIFETIME_MS};
pub use group::{
    DeadLetter, GroupName, GroupNameError, MAX_DEAD_LETTERS, MAX_GROUP_NAME, MemberId, Membership,
};
pub use pqcnet_link::Role;
pub use problem::{MAX_EXPLAINED, MAX_EXPLAINED_TEXT, Problem, Severity, UNNAMED};
pub use receipt::{Countersigned, Receipt, ReceiptError, Series, Statement};
pub use record::{
    MAX_BATCH_BYTES, MAX_BATCH_RECORDS, MAX_OUTSTANDING_RECORDS, MAX_PAYLOAD, Record,
};
pub use refusal::{MAX_DETAIL, Redirect, Refusal};
pub use shard::{ShardId, ShardMap, ShardMapError};
