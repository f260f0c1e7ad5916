//! The client crate for integrators: connect, publish, subscribe, ask.
//!
//! A [`Client`] is one identity's connection to a PQCNet network: a post-quantum channel to a sentry, kept up over lost
//! links, on plain multi-thread tokio. A message that was acknowledged is durable. A channel's messages come in order,
//! each once, to a subscriber that stores its offset together with what it did.
//!
//! ```no_run
//! use std::sync::Arc;
//! use pqcnet_client::{ChannelName, Client, ClientConfig, NetworkFile, NodeKeys};
//!
//! # async fn run() -> Result<(), Box<dyn std::error::Error>> {
//! let network = NetworkFile::load("network.toml".as_ref())?;
//! // Fresh keys do where the network admits any client; where it lists them, as `pqcnet up` does, open the keys of one
//! // that is listed with `pqcnet_crypto::keystore`, as the examples do: anyone else is `ConnectError::Rejected`.
//! let keys = Arc::new(NodeKeys::generate());
//! let client = Client::connect(ClientConfig::new(network, keys)).await?;
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
//! - Many messages: [`Client::publisher`] keeps several batches on their way; [`Publisher::send`] waits only for room.
//! - After a crash: present the last [`Record::offset`] you stored to [`Client::subscribe`]; you get the one after it.
//! - A lost acknowledgement is repeated under the same numbers and lands once. What cannot be decided is said:
//!   [`PublishError::OutcomeUnknown`].
//! - Every error says whether trying again makes sense (`is_retryable`).
//! - Others read your channel once you list them: [`Client::set_readers`].
//!
//! Runnable: `examples/publish.rs`, `examples/subscribe.rs`; beside `pqcnet up`, with `pqcnet-local/network.toml`,
//! `pqcnet-local/client.keys` and `pqcnet-local/unlock.key` as their first arguments.

mod client;
mod config;
mod connection;
mod core;
mod error;
mod inbound;
mod publisher;
mod subscription;

pub use client::{Client, MAX_PUBLISHERS};
pub use config::ClientConfig;
pub use error::{ConnectError, PublishError, RequestError, SubscribeError};
pub use pqcnet_crypto::{NodeId, NodeKeys};
pub use pqcnet_messages::{Channel, ChannelName, MAX_PAYLOAD, Record, Refusal};
pub use pqcnet_p2p::network::NetworkFile;
pub use publisher::{Published, Publisher, Receipt};
pub use subscription::Subscription;
