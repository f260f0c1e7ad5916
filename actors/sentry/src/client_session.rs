//! One client's link: what the client may do, where its requests go, and its subscriptions across relayers that come
//! and go.
//!
//! Rules: [`crate::core::routes`], [`crate::core::feed`]. Started by: `roles::sentry`'s gate, one per client link, in a
//! nursery with a bound. Sends to: the client, relayers (requests, straight over their links), uplinks (subscriptions).
//!
//! Nothing is served before [`Attach`]: the grant must name the link's own peer and this sentry, and its signature is
//! verified off the actor's thread. It opens the rule that the link's other messages are bound with, until its end; a
//! session ends with its grant, unless the client attaches again with a later one. A relayer session is opened with the
//! grant when a channel of that relayer is first used. A request is answered by whoever owns the channel's shard; when
//! its link is down or goes away the answer is the retryable `Unavailable`, and a publish that got it may still have
//! been stored: the client repeats it under the same numbers.
//!
//! Mailbox: [`BOUNDS`]. It is not restarted: a client whose session ends reconnects, and presents its offsets.

mod requests;
mod subscriptions;

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use pqcnet_actor::{
    Alarm, Behaviour, Bounds, Counter, Cx, Env, Histogram, Message as _, On, Reply,
};
use pqcnet_crypto::NodeId;
use pqcnet_messages::edge::{Attach, Attached, Publish, Subscribe, SubscriptionEnded};
use pqcnet_messages::{Grant, Refusal};

use crate::core::routes::Routes;
use crate::core::shares::Shares;
use crate::ingress::{Join, ShowGrant, UplinkChanged};
use crate::link::{ClientLink, RelayLink};
use crate::routing::Routing;
use crate::uplink::Uplinks;
use requests::Request;
use subscriptions::{Phase, Subscription};

/// A client's asks are bounded by its link's window; beside them come one parcel an uplink and link facts.
pub const BOUNDS: Bounds = Bounds {
    control: 256,
    request: 256,
    bulk: 1,
};

/// Subscriptions of one client.
pub const MAX_SUBSCRIPTIONS: usize = 256;
/// Largest window a client may ask for.
pub const MAX_WINDOW: usize = 8 * 1024 * 1024;
/// All windows of one client together: what a session holds for one that reads nothing. 64 subscriptions of the usual size.
pub const MAX_WINDOWS: usize = 128 * 1024 * 1024;
/// Requests that wait while a relayer session is being opened.
const WAITING_MAX: usize = 64;
/// Longest wait for a relayer: a synced write takes milliseconds, a loaded disk a second.
const ASK_DEADLINE: Duration = Duration::from_secs(10);

/// A session ends so long before its grant: what the client sends meanwhile is answered, and not refused.
const LAST_CALL: Duration = Duration::from_secs(1);

/// What all sessions of a sentry share.
#[derive(Debug)]
pub struct SessionShared {
    /// This sentry.
    pub sentry: NodeId,
    /// Its network.
    pub network_id: [u8; 32],
    /// Who owns which shard.
    pub map: Routing,
    /// Every relayer's uplink.
    pub uplinks: Uplinks,
    /// What each customer has of the relayers' ask windows, over all its links.
    pub shares: WindowShares,
}

/// The shares of every relayer's ask window.
#[derive(Debug, Default)]
pub struct WindowShares(Mutex<BTreeMap<NodeId, Shares>>);

impl WindowShares {
    fn of<T>(&self, relayer: NodeId, with: impl FnOnce(&mut Shares) -> T) -> T {
        let mut shares = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        with(shares.entry(relayer).or_default())
    }
}

/// One for all sessions of the node. Whoever lives from the node's start on makes it, so that it is there at zero.
pub(crate) fn acks(env: &Env) -> Histogram {
    env.histogram(
        "edge_ack_seconds",
        "From a client's publish at its sentry until the relayer's acknowledgement",
        &[],
    )
}

/// The same of records that a subscription missed while it had no feed, and got when it began again.
pub(crate) fn replayed(env: &Env) -> Counter {
    env.counter(
        "feed_replayed_records",
        "Records that subscriptions missed while they had no relayer or sentry, and got when they began again",
        &[],
    )
}

/// The actor.
pub struct ClientSession {
    id: u64,
    customer: NodeId,
    shared: Arc<SessionShared>,
    client: ClientLink,
    grant: Option<Grant>,
    /// A grant is being verified; no other is until that is done, so that one client has one place in the node's pool.
    attaching: bool,
    links: BTreeMap<NodeId, RelayLink>,
    routes: Routes<Request>,
    subscriptions: BTreeMap<u32, Subscription>,
    by_feed: BTreeMap<u64, u32>,
    last_feed: u64,
    ended: VecDeque<SubscriptionEnded>,
    /// Where the next round over the subscriptions starts.
    turn: u32,
    /// A message waits for the client link's credit.
    blocked: bool,
    /// The subscription whose records are being handed over now, in the trace that runs now.
    forwarding: Option<u32>,
    acks: Histogram,
    replayed: Counter,
    alarm: Alarm<Self>,
    /// Goes off shortly before the grant's end.
    grant_end: Alarm<Self>,
}

impl ClientSession {
    /// A session for the peer of a link. `id` is unique in the process.
    pub fn new(
        id: u64,
        customer: NodeId,
        client: ClientLink,
        shared: Arc<SessionShared>,
    ) -> ClientSession {
        ClientSession {
            id,
            customer,
            shared,
            client,
            grant: None,
            attaching: false,
            links: BTreeMap::new(),
            routes: Routes::new(WAITING_MAX),
            subscriptions: BTreeMap::new(),
            by_feed: BTreeMap::new(),
            last_feed: 0,
            ended: VecDeque::new(),
            turn: 0,
            blocked: false,
            forwarding: None,
            acks: Histogram::default(),
            replayed: Counter::default(),
            alarm: Alarm::new(Self::drive),
            grant_end: Alarm::new(Self::on_grant_end),
        }
    }

    /// The grant holds: its client's requests are let through until its end, and the session lives as long.
    fn attach(&mut self, grant: Grant, cx: &mut Cx<Self>) {
        let left = grant.expires_at_ms().saturating_sub(cx.wall_ms());
        let until = cx.now().saturating_add(Duration::from_millis(left));
        (self.client.permit)(until);
        self.grant_end
            .set(cx, Some(until.saturating_sub(LAST_CALL)));
        let shown = grant.clone();
        if self.grant.replace(grant).is_some() {
            tracing::info!(customer = %self.customer, left_s = left / 1000, "attached anew");
            self.show(&shown);
        }
    }

    /// Relayers where the customer has a session learn of its later grant; one that does not hears of it with the next session.
    fn show(&self, grant: &Grant) {
        for (relayer, generation) in self.routes.open() {
            let show = ShowGrant {
                generation,
                grant: grant.clone(),
            };
            if let Some(uplink) = self.shared.uplinks.get(&relayer)
                && let Err(error) = uplink.show_grant.try_tell(show)
            {
                tracing::warn!(%relayer, %error, "a later grant was not shown");
            }
        }
    }

    fn on_grant_end(&mut self, cx: &mut Cx<Self>) {
        tracing::info!(customer = %self.customer, "the grant ends, and the session with it");
        cx.stop();
    }

    fn on_link_down(&mut self, relayer: NodeId, cx: &mut Cx<Self>) {
        self.links.remove(&relayer);
        for request in self.routes.down(&relayer) {
            request.refuse(self, Refusal::Unavailable, cx);
        }
        let of_relayer = |state: &Subscription| {
            state.relayer == relayer && matches!(state.phase, Phase::Running | Phase::Pausing(_))
        };
        let mut left = Vec::new();
        for (subscription, state) in &mut self.subscriptions {
            if of_relayer(state) {
                self.by_feed.remove(&state.tag.feed);
                state.phase = Phase::Unlinked;
                left.extend(state.membership.is_some().then_some(*subscription));
            }
        }
        // Another member may have the channel by now: the client asks anew.
        for subscription in left {
            self.on_feed_lost(subscription, Refusal::Unavailable, cx);
        }
    }
}

impl Behaviour for ClientSession {
    const NAME: &'static str = "ClientSession";

    const BEGINS_TRACES: &'static [&'static str] = &[Publish::NAME, Subscribe::NAME];

    fn started(&mut self, cx: &mut Cx<Self>) {
        self.acks = acks(cx.env());
        self.replayed = replayed(cx.env());
        let me = cx.me();
        for uplink in self.shared.uplinks.values() {
            let join = Join {
                session: self.id,
                link: me.of(),
                forward: me.of(),
                countersign: me.of(),
                flow: me.of(),
            };
            if uplink.join.try_tell(join).is_err() {
                tracing::warn!(session = self.id, "an uplink takes no more sessions");
                return cx.stop();
            }
        }
        let closed = pqcnet_actor::Watchable::watch(&self.client.deliver);
        cx.spawn(closed, |_, _, cx| cx.stop());
    }

    fn describe(&self) -> String {
        let attached = if self.grant.is_some() {
            "attached"
        } else {
            "new"
        };
        format!(
            "{attached} client {}; {} subscriptions",
            self.customer,
            self.subscriptions.len()
        )
    }
}

impl Drop for ClientSession {
    /// However a session ends, its client must notice, or it would wait for nothing.
    fn drop(&mut self) {
        (self.client.close)();
    }
}

impl On<UplinkChanged> for ClientSession {
    fn on(&mut self, msg: UplinkChanged, cx: &mut Cx<Self>) -> Reply<UplinkChanged> {
        let relayer = msg.relayer;
        let known = self.routes.generation(&relayer);
        match msg.link {
            Some((generation, _)) if known == Some(generation) => {}
            Some((generation, link)) => {
                self.on_link_down(relayer, cx);
                self.links.insert(relayer, link);
                self.routes.up(relayer, generation);
                let waiting: Vec<u32> = self
                    .subscriptions
                    .iter()
                    .filter(|(_, s)| s.relayer == relayer && s.phase == Phase::Unlinked)
                    .map(|(subscription, _)| *subscription)
                    .collect();
                for subscription in waiting {
                    self.begin(subscription, cx);
                }
            }
            None => self.on_link_down(relayer, cx),
        }
        self.drive(cx);
        Reply::Now(())
    }
}

impl On<Attach> for ClientSession {
    fn on(&mut self, msg: Attach, cx: &mut Cx<Self>) -> Reply<Attach> {
        if msg.grant.customer.node_id() != self.customer {
            return Reply::Now(Err(Refusal::BadGrant));
        }
        if self.attaching {
            return Reply::Now(Err(Refusal::Busy));
        }
        self.attaching = true;
        let (promise, later) = Reply::later();
        let shared = self.shared.clone();
        let wall_ms = cx.wall_ms();
        let verify = move || {
            let verdict = msg
                .grant
                .verify(&shared.network_id, &shared.sentry, wall_ms);
            verdict.map(|_| msg.grant)
        };
        cx.offload(verify, move |this, verdict, cx| {
            this.attaching = false;
            match verdict {
                Ok(Ok(grant)) => {
                    this.attach(grant, cx);
                    let shards = this.shared.map.map().shards() as u32;
                    promise.fulfil(Ok(Attached { shards }));
                }
                Ok(Err(error)) => {
                    tracing::warn!(customer = %this.customer, %error, "grant refused");
                    promise.fulfil(Err(Refusal::BadGrant));
                }
                Err(_) => promise.fulfil(Err(Refusal::Busy)),
            }
        });
        later
    }
}
