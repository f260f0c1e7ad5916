//! The client crate for integrators: connect, publish, subscribe, ask.
//!
//! A [`Client`] is one identity's connection to a PQCNet network: a post-quantum channel to a sentry, kept up over lost
//! links, on plain multi-thread tokio. A message that was acknowledged is durable. A channel's messages come in order,
//! each once, to a subscriber that stores its offset together with what it did.
//!
//! ```no_run
//! use pqcnet_client::{ChannelName, Client, ClientConfig};
//!
//! # async fn run() -> Result<(), Box<dyn std::error::Error>> {
//! let config = ClientConfig::from_files("network.toml", "client.keys", "unlock.key")?;
//! let client = Client::connect(config).await?;
//! let channel = ChannelName::new("orders/eu")?;
//!
//! client.publish(&channel, "one apple").await?; // durable when this returns
//!
//! let mut orders = client.subscribe(&client.channel(channel), 0).await?;
//! let order = orders.next().await?;
//! println!("{}: {:?}", order.offset, order.payload);
//! # Ok(())
//! # }
//! ```
//!
//! `pqcnet up` writes all three files. Fresh keys ([`NodeKeys::generate`] and [`ClientConfig::new`]) do where the network
//! admits any client; where it lists them, anyone else is [`ConnectError::Rejected`].
//!
//! - Many messages: [`Client::publisher`] keeps several batches on their way; [`Publisher::send`] waits only for room.
//! - Back-pressure: [`Publisher::room`] shows it, [`Publisher::try_send`] refuses where `send` would wait.
//! - After a crash: present the last [`Record::offset`] you stored to [`Client::subscribe`]; you get the one after it.
//! - A lost acknowledgement is repeated under the same numbers and lands once. What cannot be decided is said:
//!   [`PublishError::OutcomeUnknown`].
//! - Retries are the client's own: jittered pauses ([`ClientConfig::pause`]), bounded by a deadline for each thing
//!   ([`ClientConfig::connect_timeout`], [`ClientConfig::request_timeout`], [`ClientConfig::publish_timeout`]). Every
//!   error says whether yours make sense (`is_retryable`).
//! - Several readers share the work: [`Client::join`] makes one a member of a consumer group, which goes on from its last
//!   [`Member::commit`] whoever dies. What nobody can deal with is put aside ([`Member::refuse`], [`Client::dead_letters`]).
//! - Others read your channel once you list them: [`Client::set_readers`].
//!
//! Runnable, with `pqcnet-local/network.toml`, `pqcnet-local/client.keys` and `pqcnet-local/unlock.key` of a running
//! `pqcnet up` as their first arguments; `tests/tests/examples.rs` runs each:
//!
//! | example | shows |
//! |---|---|
//! | `publish` | many messages on their way, each acknowledged once durable |
//! | `subscribe` | reading a channel from an offset |
//! | `resume` | each message's effect exactly once over crashes: offset and effect stored together |
//! | `share` | letting another identity read a channel |
//! | `shed` | back-pressure: dropping readings instead of waiting |
//! | `ask` | a typed question with a deadline, retried only where that makes sense |

mod client;
mod config;
mod connection;
mod core;
mod error;
mod inbound;
mod member;
mod publisher;
mod subscription;

pub use client::{Client, MAX_PUBLISHERS};
pub use config::ClientConfig;
pub use error::{ConfigError, ConnectError, PublishError, RequestError, SubscribeError};
pub use member::Member;
pub use pqcnet_actor::{TRACE_TARGET, TraceCx};
pub use pqcnet_crypto::{NodeId, NodeKeys};
pub use pqcnet_messages::edge::DeadLetters;
pub use pqcnet_messages::{
    Channel, ChannelName, DeadLetter, GroupName, MAX_PAYLOAD, PauseCause, Record, Refusal,
};
pub use pqcnet_p2p::network::NetworkFile;
pub use publisher::{Published, Publisher, Receipt};
pub use subscription::Subscription;
