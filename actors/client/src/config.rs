//! What a client is started with.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use pqcnet_crypto::keystore::{self, NodeSecrets, Unlock, WrappingKey};
use pqcnet_crypto::{NodeId, NodeKeys};
use pqcnet_messages::{MAX_BATCH_BYTES, MAX_BATCH_RECORDS, MAX_GRANT_LIFETIME_MS, MAX_PAYLOAD};
use pqcnet_p2p::network::NetworkFile;

use crate::error::ConfigError;

/// What a client is started with. [`ClientConfig::new`] fills in the usual values.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ClientConfig {
    /// The network: its id, and where its sentries are.
    pub network: Arc<NetworkFile>,
    /// Who this client is. Channels belong to this identity.
    pub keys: Arc<NodeKeys>,
    /// The sentries to use; empty means every sentry of the network file.
    pub sentries: Vec<NodeId>,
    /// How long [`crate::Client::connect`] tries.
    pub connect_timeout: Duration,
    /// How long one attempt at one address may take, handshake and session included.
    pub attempt_timeout: Duration,
    /// How long one request to the sentry waits for its answer before it is taken for lost.
    pub request_timeout: Duration,
    /// How long a message is tried, over lost links and busy relayers, before it fails.
    pub publish_timeout: Duration,
    /// How long a grant holds that the client gives its sentry. It is renewed when half of that is over; what a stolen one
    /// is good for ends with it. A day at most.
    pub grant_lifetime: Duration,
    /// Payload bytes a publisher takes before [`crate::Publisher::send`] waits.
    pub publish_window_bytes: usize,
    /// Messages in one batch.
    pub batch_records: usize,
    /// Batches of one publisher on their way at once.
    pub batches_in_flight: usize,
    /// Payload bytes that a subscription buffers.
    pub subscription_window_bytes: usize,
    /// First and longest pause between attempts.
    pub pause: (Duration, Duration),
    /// Of the messages published outside any trace so many begin one: 0 none, 1 all. What is recorded are `tracing` spans
    /// under the target [`crate::TRACE_TARGET`]; the application brings the subscriber that exports them.
    pub trace_ratio: f64,
}

/// Smallest window of a subscription: four of the largest messages, so that three quarters always fit one.
const MIN_WINDOW: usize = 4 * MAX_PAYLOAD;
/// Shortest life of a grant: renewed at half of it, it still leaves a busy sentry time to answer.
const MIN_GRANT: Duration = Duration::from_secs(10);
/// Largest window, the most a sentry takes.
const MAX_WINDOW: usize = 8 * 1024 * 1024;

impl ClientConfig {
    /// The usual values: 15 s to connect, 10 s an attempt, 15 s a request, 60 s a message; grants of 12 hours; 8 MiB of
    /// messages waiting to be published, full batches, 4 in flight; 2 MiB a subscription; pauses from 50 ms to 2 s; no
    /// traces.
    pub fn new(network: impl Into<Arc<NetworkFile>>, keys: Arc<NodeKeys>) -> ClientConfig {
        ClientConfig {
            network: network.into(),
            keys,
            sentries: Vec::new(),
            connect_timeout: Duration::from_secs(15),
            attempt_timeout: Duration::from_secs(10),
            request_timeout: Duration::from_secs(15),
            publish_timeout: Duration::from_secs(60),
            grant_lifetime: Duration::from_secs(12 * 3600),
            publish_window_bytes: 8 * 1024 * 1024,
            batch_records: MAX_BATCH_RECORDS,
            batches_in_flight: 4,
            subscription_window_bytes: 2 * 1024 * 1024,
            pause: (Duration::from_millis(50), Duration::from_secs(2)),
            trace_ratio: 0.0,
        }
    }

    /// The usual values, with the network file, the identity's key file and the file that unlocks it, as `pqcnet up` and
    /// `pqcnet keys init` write them. Keys under a passphrase: [`pqcnet_crypto::keystore::open`], then
    /// [`ClientConfig::new`].
    ///
    /// # Errors
    /// [`ConfigError`] names the file and what is wrong with it.
    pub fn from_files(
        network: impl AsRef<Path>,
        keys: impl AsRef<Path>,
        unlock: impl AsRef<Path>,
    ) -> Result<ClientConfig, ConfigError> {
        let unlock = WrappingKey::open(unlock.as_ref())?;
        let secrets: NodeSecrets = keystore::open(keys.as_ref(), Unlock::KeyFile(&unlock))?;
        let network = NetworkFile::load(network.as_ref())?;
        Ok(ClientConfig::new(network, Arc::new(secrets.keys)))
    }

    /// The same values, each moved into its allowed range.
    pub(crate) fn clamped(mut self) -> ClientConfig {
        self.publish_window_bytes = self
            .publish_window_bytes
            .clamp(MAX_BATCH_BYTES, u32::MAX as usize / 2);
        let longest = Duration::from_millis(MAX_GRANT_LIFETIME_MS);
        self.grant_lifetime = self.grant_lifetime.clamp(MIN_GRANT, longest);
        self.batch_records = self.batch_records.clamp(1, MAX_BATCH_RECORDS);
        self.batches_in_flight = self.batches_in_flight.clamp(1, 64);
        self.subscription_window_bytes =
            self.subscription_window_bytes.clamp(MIN_WINDOW, MAX_WINDOW);
        self
    }
}
