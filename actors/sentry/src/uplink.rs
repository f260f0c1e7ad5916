//! One relayer's link, shared by every client session: opens sessions and subscriptions there, and brings deliveries
//! to the session they belong to.
//!
//! Started by: `roles::sentry`, one per relayer. Hears of its link from: the mesh's `Dialler`. Sends to: the relayer, and
//! the sessions that joined. Publishes do not pass through here: a session holds the link's refs itself.
//!
//! ```text
//!   relayer ══ RelayDeliver ══► Uplink ── Forward (one at a time, asked) ──► ClientSession ══ Deliver ══► client
//!                                 │ outbox per session, bounded by its windows
//! ```
//!
//! Mailbox: [`BOUNDS`]. A restart loses which sessions joined, so the sessions are restarted behind it (rest-for-one),
//! their clients reconnect and resume. When the link goes, sessions hear of it and start their feeds anew on the next.

mod feeds;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use pqcnet_actor::{Alarm, AskError, Behaviour, Bounds, Cx, Env, On, Ref, Reply, TellError};
use pqcnet_crypto::NodeId;
use pqcnet_messages::Refusal;
use pqcnet_messages::edge::Flow;
use pqcnet_messages::mesh::{LinkDown, LinkUp};
use pqcnet_messages::relay::{CloseSession, OpenSession, RelayFlow};

use crate::core::outbox::{Outbox, Parcel};
use crate::ingress::{
    FeedCommit, FeedConsumed, FeedCountersign, FeedTag, Forward, Join, OpenRelaySession, ShowGrant,
    StartFeed, StopFeed, UplinkChanged,
};
use crate::link::RelayLink;

/// Deliveries and the sessions' requests share the Request lane; joins and link facts are Control. 4,096 joins may
/// meet when a sentry's listener fills its nursery.
pub const BOUNDS: Bounds = Bounds {
    control: 4096,
    request: 2048,
    bulk: 1,
};

/// How soon what a session's full mailbox refused is tried again.
const RETRY: Duration = Duration::from_millis(5);
/// A session that takes nothing for so long is given up; its client has been silent just as long.
const TAKE_DEADLINE: Duration = Duration::from_secs(60);
/// Far more subscriptions than an incarnation makes while something of the one before is still on its way.
const NUMBERS_AN_INCARNATION: u32 = 1 << 24;
/// Longest wait for the relayer's answer to an opening or a subscription.
const ASK_DEADLINE: Duration = Duration::from_secs(10);
/// A client signs in a fraction of a millisecond; the relayer goes on without the receipt soon after.
pub(crate) const COUNTERSIGN_WITHIN: Duration = Duration::from_secs(5);

struct Member {
    changed: Ref<UplinkChanged>,
    forward: Ref<Forward>,
    countersign: Ref<FeedCountersign>,
    flow: Ref<Flow>,
    outbox: Outbox,
    /// It has not heard of the latest link.
    stale: bool,
    /// Its session at the relayer, on the present link.
    relay_session: Option<u64>,
}

struct Feed {
    tag: FeedTag,
    relay_session: u64,
    window: usize,
}

/// The actor.
pub struct Uplink {
    relayer: NodeId,
    link: Option<(u64, RelayLink)>,
    generation: u64,
    last_subscription: u32,
    members: BTreeMap<u64, Member>,
    feeds: BTreeMap<u32, Feed>,
    by_tag: BTreeMap<FeedTag, u32>,
    alarm: Alarm<Self>,
}

impl Uplink {
    /// No link yet.
    pub fn new(relayer: NodeId) -> Uplink {
        Uplink {
            relayer,
            link: None,
            generation: 0,
            last_subscription: 0,
            members: BTreeMap::new(),
            feeds: BTreeMap::new(),
            by_tag: BTreeMap::new(),
            alarm: Alarm::new(Self::retry),
        }
    }

    /// Makes one uplink an incarnation. Each counts its subscriptions from a number of its own: what the link of an
    /// earlier one still delivers, into the same mailbox, must not pass for one of the new subscriptions.
    pub fn incarnations(relayer: NodeId) -> impl FnMut(&Env) -> Uplink + Send + 'static {
        let mut last_subscription = 0u32;
        move |_| {
            let uplink = Uplink {
                last_subscription,
                ..Uplink::new(relayer)
            };
            last_subscription = last_subscription.wrapping_add(NUMBERS_AN_INCARNATION);
            uplink
        }
    }

    fn set_link(&mut self, link: Option<RelayLink>, cx: &mut Cx<Self>) {
        self.generation += 1;
        if let Some((_, old)) = self.link.take() {
            (old.close)();
        }
        self.link = link.map(|link| (self.generation, link));
        self.feeds.clear();
        self.by_tag.clear();
        for member in self.members.values_mut() {
            member.outbox.clear();
            member.stale = true;
            member.relay_session = None;
        }
        self.retry(cx);
    }

    /// Tells every session what it has not heard, and hands over what waits.
    fn retry(&mut self, cx: &mut Cx<Self>) {
        let sessions: Vec<u64> = self.members.keys().copied().collect();
        for session in sessions {
            self.announce(session, cx);
            self.pump(session, cx);
        }
    }

    fn announce(&mut self, session: u64, cx: &mut Cx<Self>) {
        let Some(member) = self.members.get_mut(&session) else {
            return;
        };
        if !member.stale {
            return;
        }
        let relayer = self.relayer;
        let link = self.link.clone();
        match member.changed.try_tell(UplinkChanged { relayer, link }) {
            Ok(()) => member.stale = false,
            Err(TellError::Full(_)) => self.alarm.set(cx, Some(cx.now() + RETRY)),
            Err(TellError::Closed(_)) => self.remove(session, cx),
        }
    }

    /// Hands the next parcel to a session, unless it still holds one.
    fn pump(&mut self, session: u64, cx: &mut Cx<Self>) {
        let Some(member) = self.members.get_mut(&session) else {
            return;
        };
        while let Some(parcel) = member.outbox.next() {
            let Some(feed) = self.feeds.get(&parcel.subscription) else {
                member.outbox.on_taken();
                continue;
            };
            let subscription = parcel.subscription;
            let last = parcel.ended.is_some();
            let forward = Forward {
                tag: feed.tag,
                records: parcel.records,
                ended: parcel.ended,
            };
            let trace = parcel.trace;
            match trace.scope(|| member.forward.try_ask(forward, TAKE_DEADLINE)) {
                Ok(taken) => {
                    cx.spawn(taken, move |uplink, outcome, cx| {
                        uplink.on_taken(session, outcome, cx);
                    });
                    if last {
                        return self.forget_feed(subscription);
                    }
                }
                Err(TellError::Full(forward)) => {
                    member.outbox.put_back(Parcel {
                        subscription,
                        records: forward.records,
                        ended: forward.ended,
                        trace,
                    });
                    self.alarm.set(cx, Some(cx.now() + RETRY));
                    return;
                }
                Err(TellError::Closed(_)) => return self.remove(session, cx),
            }
        }
    }

    fn on_taken(&mut self, session: u64, outcome: Result<(), AskError>, cx: &mut Cx<Self>) {
        if let Err(error) = outcome {
            tracing::warn!(session, %error, "a client session takes no deliveries");
            return self.remove(session, cx);
        }
        if let Some(member) = self.members.get_mut(&session) {
            member.outbox.on_taken();
        }
        self.pump(session, cx);
    }

    /// A session is gone: so is what it had at the relayer.
    fn remove(&mut self, session: u64, cx: &mut Cx<Self>) {
        let Some(member) = self.members.remove(&session) else {
            return;
        };
        let of_session = FeedTag { session, feed: 0 }..=FeedTag {
            session,
            feed: u64::MAX,
        };
        let tags: Vec<FeedTag> = self.by_tag.range(of_session).map(|(tag, _)| *tag).collect();
        for tag in tags {
            self.stop_feed(tag, cx);
        }
        if let (Some((_, link)), Some(session)) = (&self.link, member.relay_session) {
            send_when_free(&link.close_session, CloseSession { session }, cx);
        }
    }

    /// A relayer session is open; if whoever wanted it is gone, it is closed again.
    fn on_opened(&mut self, session: u64, generation: u64, opened: u64, cx: &mut Cx<Self>) {
        let Some(link) = current(&self.link, generation) else {
            return;
        };
        match self.members.get_mut(&session) {
            Some(member) => member.relay_session = Some(opened),
            None => {
                let message = CloseSession { session: opened };
                send_when_free(&link.close_session, message, cx);
            }
        }
    }
}

/// Sends now, or from a task as soon as the link has credit; a link that is gone needs no message.
fn send_when_free<B, M>(to: &Ref<M>, message: M, cx: &mut Cx<B>)
where
    B: Behaviour,
    M: pqcnet_actor::Message,
{
    if let Err(TellError::Full(message)) = to.try_tell(message) {
        let to = to.clone();
        cx.spawn(async move { to.tell(message).await.is_ok() }, |_, _, _| {});
    }
}

impl Behaviour for Uplink {
    const NAME: &'static str = "Uplink";

    fn started(&mut self, cx: &mut Cx<Self>) {
        drop(crate::client_session::acks(cx.env()));
        drop(crate::client_session::replayed(cx.env()));
    }

    fn describe(&self) -> String {
        let link = if self.link.is_some() { "up" } else { "down" };
        format!(
            "relayer {} {link}; {} sessions, {} subscriptions",
            self.relayer,
            self.members.len(),
            self.feeds.len()
        )
    }
}

impl On<LinkUp<RelayLink>> for Uplink {
    fn on(&mut self, msg: LinkUp<RelayLink>, cx: &mut Cx<Self>) -> Reply<LinkUp<RelayLink>> {
        self.set_link(Some(msg.link), cx);
        Reply::Now(())
    }
}

impl On<LinkDown> for Uplink {
    fn on(&mut self, _: LinkDown, cx: &mut Cx<Self>) -> Reply<LinkDown> {
        self.set_link(None, cx);
        Reply::Now(())
    }
}

impl On<Join> for Uplink {
    fn on(&mut self, msg: Join, cx: &mut Cx<Self>) -> Reply<Join> {
        let session = msg.session;
        cx.watch(&msg.forward, move |uplink, _, cx| {
            uplink.remove(session, cx)
        });
        let member = Member {
            changed: msg.link,
            forward: msg.forward,
            countersign: msg.countersign,
            flow: msg.flow,
            outbox: Outbox::new(0),
            stale: self.link.is_some(),
            relay_session: None,
        };
        self.members.insert(session, member);
        self.announce(session, cx);
        Reply::Now(())
    }
}

impl On<OpenRelaySession> for Uplink {
    fn on(&mut self, msg: OpenRelaySession, cx: &mut Cx<Self>) -> Reply<OpenRelaySession> {
        let Some(link) = current(&self.link, msg.generation) else {
            return Reply::Now(Err(Refusal::Unavailable));
        };
        let (promise, later) = Reply::later();
        let OpenRelaySession {
            session,
            generation,
            grant,
        } = msg;
        let open = OpenSession { grant };
        cx.ask(
            &link.open_session,
            open,
            ASK_DEADLINE,
            move |uplink, outcome, cx| {
                let outcome = answer(outcome).map(|opened| opened.session);
                if let Ok(opened) = outcome {
                    uplink.on_opened(session, generation, opened, cx);
                }
                promise.fulfil(outcome);
            },
        );
        later
    }
}

/// The relayer keeps what it is shown; the session that comes with it is not needed.
impl On<ShowGrant> for Uplink {
    fn on(&mut self, msg: ShowGrant, cx: &mut Cx<Self>) -> Reply<ShowGrant> {
        let generation = msg.generation;
        if let Some(link) = current(&self.link, generation) {
            let open = OpenSession { grant: msg.grant };
            cx.ask(
                &link.open_session,
                open,
                ASK_DEADLINE,
                move |uplink, outcome, cx| match (
                    answer(outcome),
                    current(&uplink.link, generation),
                ) {
                    (Ok(opened), Some(link)) => {
                        let session = opened.session;
                        send_when_free(&link.close_session, CloseSession { session }, cx);
                    }
                    (Ok(_), None) => {}
                    (Err(refusal), _) => {
                        let relayer = uplink.relayer;
                        tracing::debug!(%relayer, %refusal, "a later grant was not taken");
                    }
                },
            );
        }
        Reply::Now(())
    }
}

/// On to the session that publishes, as far as it takes it: one that misses it goes on by itself, or is told again.
impl On<RelayFlow> for Uplink {
    fn on(&mut self, msg: RelayFlow, _cx: &mut Cx<Self>) -> Reply<RelayFlow> {
        let RelayFlow {
            session,
            channel,
            paused,
        } = msg;
        let mut members = self.members.values();
        if let Some(member) = members.find(|member| member.relay_session == Some(session)) {
            let told = member.flow.try_tell(Flow { channel, paused });
            if let Err(error) = told {
                tracing::debug!(%error, "a session was not told of a pause");
            }
        }
        Reply::Now(())
    }
}

fn current(link: &Option<(u64, RelayLink)>, generation: u64) -> Option<RelayLink> {
    match link {
        Some((current, link)) if *current == generation => Some(link.clone()),
        Some(_) | None => None,
    }
}

/// What a relayer's answer means to whoever asked. No answer is "unavailable": worth another try, outcome unknown.
pub(crate) fn answer<T>(outcome: Result<Result<T, Refusal>, AskError>) -> Result<T, Refusal> {
    match outcome {
        Ok(answer) => answer,
        Err(AskError::Busy) => Err(Refusal::Busy),
        Err(_) => Err(Refusal::Unavailable),
    }
}

/// A ref to this uplink for each message a session sends it.
#[derive(Clone, Debug)]
pub struct UplinkRefs {
    /// Joins.
    pub join: Ref<Join>,
    /// Opens sessions.
    pub open_session: Ref<OpenRelaySession>,
    /// Starts feeds.
    pub start_feed: Ref<StartFeed>,
    /// Opens windows.
    pub consumed: Ref<FeedConsumed>,
    /// Commits, or puts aside.
    pub commit: Ref<FeedCommit>,
    /// Ends feeds.
    pub stop_feed: Ref<StopFeed>,
    /// Shows later grants.
    pub show_grant: Ref<ShowGrant>,
}

/// Every uplink of the sentry, by relayer.
pub type Uplinks = Arc<BTreeMap<NodeId, UplinkRefs>>;

#[cfg(test)]
mod tests {
    use super::*;
    use pqcnet_actor::simulate;

    // An uplink restarts while its old link still delivers: no number of its own is one that the old link knows.
    #[test]
    fn incarnations_count_apart() {
        simulate(|| async {
            let env = Env::simulated(1, "sentry");
            let mut make = Uplink::incarnations(NodeId::from_bytes([1; 32]));
            let (mut first, mut second) = (make(&env), make(&env));
            let numbers = |uplink: &mut Uplink| -> Vec<u32> {
                (0..100).map(|_| uplink.next_subscription()).collect()
            };
            let (old, new) = (numbers(&mut first), numbers(&mut second));
            assert_eq!(old[0], 1);
            assert!(new.iter().all(|number| !old.contains(number)));
        });
    }
}
