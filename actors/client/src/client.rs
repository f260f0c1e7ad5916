//! The handle.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use pqcnet_actor::latest;
use pqcnet_actor::{Env, Message, Pause, Ref};
use pqcnet_crypto::NodeId;
use pqcnet_link::{Addressed, Role, Wire};
use pqcnet_messages::edge::{DeadLetters, FindOffset, ListDeadLetters, SetReaders};
use pqcnet_messages::{Channel, ChannelName, GroupName, MemberId, Membership, Refusal};
use pqcnet_p2p::endpoint::Endpoint;
use pqcnet_p2p::handshake::{Security, SecurityConfig};
use pqcnet_p2p::network::Address;
use pqcnet_p2p::streams::{Streams, TcpStreams};
use rand::Rng as _;

use crate::config::ClientConfig;
use crate::connection::{Connector, Edge, Live};
use crate::error::{ConnectError, PublishError, RequestError, SubscribeError};
use crate::inbound::Inboxes;
use crate::member::Member;
use crate::publisher::{self, Intake, Published, Publisher};
use crate::subscription::{self, Subscription};

/// Channels that one client publishes to at once; those with nothing on their way make room for others.
pub const MAX_PUBLISHERS: usize = 1024;

/// Who does not know of it answers as if nothing but the letters had been asked for.
const NO_REMOVAL: &str = "the sentry or the relayer is of a release that removes no groups";

/// What the client's tasks share.
pub(crate) struct Shared {
    pub(crate) env: Env,
    pub(crate) config: ClientConfig,
    pub(crate) inboxes: Arc<Inboxes>,
    node_id: NodeId,
    live: latest::Receiver<Option<Live>>,
    stop: latest::Sender<bool>,
    last_subscription: AtomicU32,
    intakes: Mutex<BTreeMap<ChannelName, Arc<Intake>>>,
}

impl Shared {
    pub(crate) fn live(&self) -> latest::Receiver<Option<Live>> {
        self.live.clone()
    }

    pub(crate) fn stopped(&self) -> latest::Receiver<bool> {
        self.stop.subscribe()
    }

    /// A number no subscription of this client has; it comes round after four billion.
    pub(crate) fn next_subscription(&self) -> u32 {
        self.last_subscription.fetch_add(1, Ordering::Relaxed)
    }

    /// Every address of every sentry to use.
    pub(crate) fn targets(&self) -> Vec<(NodeId, Address)> {
        let wanted =
            |id: &NodeId| self.config.sentries.is_empty() || self.config.sentries.contains(id);
        let sentries = self.config.network.with_role(Role::Sentry);
        let addresses = sentries.filter(|node| wanted(&node.id)).flat_map(|node| {
            let data = node.data.iter().cloned();
            data.map(|address| (node.id, address))
        });
        addresses.collect()
    }
}

/// Ends the client's tasks when the last handle is gone.
struct Alive {
    shared: Arc<Shared>,
}

impl Drop for Alive {
    fn drop(&mut self) {
        self.shared.stop.send_replace(true);
    }
}

/// A connection to the network under one identity, kept up over lost links. Cheap to clone; usable from any task of the
/// multi-thread tokio runtime it was made on. It closes when the last clone, [`Publisher`] and [`Subscription`] are gone.
#[derive(Clone)]
pub struct Client {
    alive: Arc<Alive>,
}

impl Client {
    /// Connects to a sentry and opens a session there.
    ///
    /// # Errors
    /// A refusal for good at once, if no other sentry takes the client in; [`ConnectError::TimedOut`] after
    /// [`ClientConfig::connect_timeout`].
    pub async fn connect(config: ClientConfig) -> Result<Client, ConnectError> {
        Client::connect_over(Env::plain(), Arc::new(TcpStreams), config).await
    }

    /// The same on another clock and other streams than the machine's: for the simulator.
    ///
    /// # Errors
    /// Those of [`Client::connect`].
    #[doc(hidden)]
    pub async fn connect_over(
        env: Env,
        streams: Arc<dyn Streams>,
        config: ClientConfig,
    ) -> Result<Client, ConnectError> {
        let config = config.clamped();
        env.set_sampling(config.trace_ratio);
        let node_id = config.keys.node_id();
        let identity = SecurityConfig::new(config.keys.clone(), config.network.network_id());
        let security = Security::new(env.clone(), identity);
        let security = security.map_err(|error| ConnectError::Unusable(error.to_string()))?;
        let endpoint = Endpoint::new(security, streams);
        let (live, mut connected) = latest::channel(None);
        let (failed, mut failure) = latest::channel(None);
        let (stop, _) = latest::channel(false);
        let within = config.connect_timeout;
        let shared = Arc::new(Shared {
            env: env.clone(),
            config,
            inboxes: Arc::default(),
            node_id,
            live: connected.clone(),
            stop,
            last_subscription: AtomicU32::new(1),
            intakes: Mutex::default(),
        });
        if shared.targets().is_empty() {
            return Err(ConnectError::NoSentry);
        }
        let alive = Arc::new(Alive {
            shared: shared.clone(),
        });
        let connector = Connector {
            shared,
            endpoint,
            live,
            failed,
        };
        env.spawn(connector.run());
        let for_good = |error: &Option<ConnectError>| {
            error.as_ref().is_some_and(|error| !error.is_retryable())
        };
        let mut last = failure.clone();
        tokio::select! {
            biased;
            up = connected.wait_for(Option::is_some) => match up {
                Ok(_) => {}
                Err(_) => return Err(ConnectError::NoSentry),
            },
            refused = failure.wait_for(for_good) => {
                if let Ok(refused) = refused && let Some(error) = refused.clone() {
                    return Err(error);
                }
            }
            () = env.sleep(within) => {
                let last = last.borrow_and_update().clone();
                let last = Box::new(last.unwrap_or(ConnectError::NoSentry));
                return Err(ConnectError::TimedOut { after: within, last });
            }
        }
        Ok(Client { alive })
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.alive.shared
    }

    /// Who this client is; its channels belong to it.
    pub fn node_id(&self) -> NodeId {
        self.shared().node_id
    }

    /// The sentry in use, while there is a link.
    pub fn sentry(&self) -> Option<NodeId> {
        let live = self.shared().live.borrow();
        live.as_ref().map(|live| live.sentry)
    }

    /// A channel of this client's own.
    pub fn channel(&self, name: ChannelName) -> Channel {
        let owner = self.node_id();
        Channel { owner, name }
    }

    /// The publisher of a channel of this client's own. Every call for the same channel shares one producer.
    ///
    /// # Errors
    /// [`PublishError::TooManyChannels`] when [`MAX_PUBLISHERS`] channels have messages on their way.
    pub fn publisher(&self, channel: &ChannelName) -> Result<Publisher, PublishError> {
        let mut intakes = self.intakes();
        let intake = match intakes.get(channel) {
            Some(intake) => intake.clone(),
            None => {
                if intakes.len() >= MAX_PUBLISHERS {
                    intakes.retain(|_, intake| !intake.is_idle());
                }
                if intakes.len() >= MAX_PUBLISHERS {
                    return Err(PublishError::TooManyChannels(MAX_PUBLISHERS));
                }
                let intake = publisher::start(self.shared(), self.channel(channel.clone()));
                intakes.insert(channel.clone(), intake.clone());
                intake
            }
        };
        drop(intakes);
        Ok(Publisher::new(self.clone(), intake))
    }

    fn intakes(&self) -> std::sync::MutexGuard<'_, BTreeMap<ChannelName, Arc<Intake>>> {
        let intakes = self.shared().intakes.lock();
        intakes.unwrap_or_else(PoisonError::into_inner)
    }

    /// Publishes one message to a channel of this client's own and waits until it is durable. For many messages keep the
    /// [`Client::publisher`] and let several be on their way.
    ///
    /// # Errors
    /// See [`PublishError`].
    pub async fn publish(
        &self,
        channel: &ChannelName,
        payload: impl Into<Bytes>,
    ) -> Result<Published, PublishError> {
        self.publisher(channel)?.publish(payload).await
    }

    /// Reads a channel, one of this client's own or one whose owner lists it as a reader, from the record after `after` on;
    /// 0 for everything.
    ///
    /// # Errors
    /// A refusal for good, or [`SubscribeError::TimedOut`] after [`ClientConfig::connect_timeout`].
    pub async fn subscribe(
        &self,
        channel: &Channel,
        after: u64,
    ) -> Result<Subscription, SubscribeError> {
        subscription::start(self.clone(), channel.clone(), after, None).await
    }

    /// Reads a channel as one member of a consumer group of this client's identity. A group that never committed begins after
    /// `after`. Returns once this member stands by; records come when the channel is its.
    ///
    /// # Errors
    /// As of [`Client::subscribe`].
    pub async fn join(
        &self,
        channel: &Channel,
        group: &GroupName,
        after: u64,
    ) -> Result<Member, SubscribeError> {
        let mut member = [0; 16];
        self.shared().env.rng("member").fill_bytes(&mut member);
        let membership = Membership {
            group: group.clone(),
            member: MemberId(member),
        };
        let started =
            subscription::start(self.clone(), channel.clone(), after, Some(membership)).await;
        started.map(Member::new)
    }

    /// What a group of this client's identity put aside in a channel, and how far it is. Those up to `discard` are forgotten
    /// first; 0 for none. The records themselves are in the channel.
    ///
    /// # Errors
    /// See [`RequestError`]: of the last attempt.
    pub async fn dead_letters(
        &self,
        channel: &Channel,
        group: &GroupName,
        discard: u64,
    ) -> Result<DeadLetters, RequestError> {
        let list = ListDeadLetters {
            channel: channel.clone(),
            group: group.clone(),
            discard,
            remove: false,
        };
        self.repeat("dead_letters", list, |edge| edge.dead_letters.clone())
            .await
    }

    /// Forgets a group of this client's identity in a channel, durably: its commit and what it put aside. One that joins under the same name
    /// later begins as the first did. Removing one that is not there changes nothing.
    ///
    /// # Errors
    /// See [`RequestError`]: of the last attempt. [`Refusal::Invalid`] while a member is there; so is the answer of a relayer or sentry of a release that
    /// removes no groups.
    pub async fn remove_group(
        &self,
        channel: &Channel,
        group: &GroupName,
    ) -> Result<(), RequestError> {
        let remove = ListDeadLetters {
            channel: channel.clone(),
            group: group.clone(),
            discard: 0,
            remove: true,
        };
        let dead = self.repeat("remove_group", remove, |edge| edge.dead_letters.clone());
        match dead.await?.removed {
            true => Ok(()),
            false => Err(RequestError::Refused(Refusal::Invalid(
                NO_REMOVAL.to_owned(),
            ))),
        }
    }

    /// The offset to present to [`Client::subscribe`] to get what was stored at `at_ms` (milliseconds since the Unix epoch, by
    /// the relayers' clocks) or later, and nothing else. Tried again, with jittered pauses, while that makes sense and
    /// [`ClientConfig::request_timeout`] allows.
    ///
    /// # Errors
    /// See [`RequestError`]: of the last attempt.
    pub async fn find_offset(&self, channel: &Channel, at_ms: u64) -> Result<u64, RequestError> {
        let find = FindOffset {
            channel: channel.clone(),
            at_ms,
        };
        let found = self.repeat("find_offset", find, |edge| edge.find_offset.clone());
        found.await.map(|found| found.after)
    }

    /// Replaces the list of those who may read a channel of this client's own beside itself. Tried again, with jittered
    /// pauses, while that makes sense and [`ClientConfig::request_timeout`] allows: the same list may be set twice.
    ///
    /// # Errors
    /// See [`RequestError`]: of the last attempt.
    pub async fn set_readers(
        &self,
        channel: &ChannelName,
        readers: Vec<NodeId>,
    ) -> Result<(), RequestError> {
        let set = SetReaders {
            channel: channel.clone(),
            readers,
        };
        self.repeat("set_readers", set, |edge| edge.set_readers.clone())
            .await
    }

    /// Asks the sentry until it does what it is asked, refuses for good, or the time for a request is over.
    async fn repeat<M, T>(
        &self,
        purpose: &str,
        message: M,
        to: fn(&Edge) -> Ref<M>,
    ) -> Result<T, RequestError>
    where
        M: Message<Reply = Result<T, Refusal>> + Clone,
    {
        let Shared { env, config, .. } = &**self.shared();
        let mut rng = env.rng(purpose);
        let mut pause = Pause::new(config.pause.0, config.pause.1);
        let until = env.now() + config.request_timeout;
        loop {
            let left = until.saturating_sub(env.now());
            let error = match self.try_once(message.clone(), to, left).await {
                Ok(done) => return Ok(done),
                Err(error) => error,
            };
            let next = pause.until(env.now(), rng.next_u64());
            if !error.is_retryable() || next >= until {
                return Err(error);
            }
            env.sleep(next.saturating_sub(env.now())).await;
        }
    }

    async fn try_once<M, T>(
        &self,
        message: M,
        to: fn(&Edge) -> Ref<M>,
        within: Duration,
    ) -> Result<T, RequestError>
    where
        M: Message<Reply = Result<T, Refusal>>,
    {
        let live = self.connected(within).await?;
        let answer = to(&live.edge).ask(message, within).await;
        answer
            .map_err(RequestError::Unanswered)?
            .map_err(RequestError::Refused)
    }

    /// Asks the sentry anything it serves, such as `pqcnet_messages::control::Ping`.
    ///
    /// # Errors
    /// See [`RequestError`].
    pub async fn ask<M>(&self, message: M, deadline: Duration) -> Result<M::Reply, RequestError>
    where
        M: Message + Addressed,
        M::Reply: Wire,
    {
        let live = self.connected(deadline).await?;
        let answer = live.link.remote::<M>().ask(message, deadline).await;
        answer.map_err(RequestError::Unanswered)
    }

    async fn connected(&self, within: Duration) -> Result<Live, RequestError> {
        let mut live = self.shared().live();
        let waited = tokio::time::timeout(within, live.wait_for(Option::is_some)).await;
        match waited {
            Ok(Ok(live)) => live.clone().ok_or(RequestError::NotConnected),
            Ok(Err(_)) | Err(_) => Err(RequestError::NotConnected),
        }
    }
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client")
            .field("node_id", &self.node_id())
            .field("sentry", &self.sentry())
            .finish_non_exhaustive()
    }
}
