//! What a client asks of its relayers: sent to whoever owns the channel's shard, within the customer's share of that
//! relayer's window, once a session is open there.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use pqcnet_actor::{AskError, Cx, Message, On, Promise, Ref, Reply, TraceCx};
use pqcnet_crypto::NodeId;
use pqcnet_messages::edge::{FindOffset, ListDeadLetters, OpenProducer, Publish, SetReaders};
use pqcnet_messages::relay::{
    RelayFindOffset, RelayListDeadLetters, RelayOpenProducer, RelayPublish, RelaySetReaders,
};
use pqcnet_messages::{Channel, Refusal, ShardId};

use super::{ASK_DEADLINE, ClientSession, SessionShared};
use crate::core::routes::Submitted;
use crate::core::shares;
use crate::ingress::OpenRelaySession;
use crate::uplink::answer;

/// Units of a window until the answer is in, or the session is gone.
struct Share {
    shared: Arc<SessionShared>,
    relayer: NodeId,
    customer: NodeId,
    units: u32,
}

impl Drop for Share {
    fn drop(&mut self) {
        let (customer, units) = (self.customer, self.units);
        let shares = &self.shared.shares;
        shares.of(self.relayer, |shares| shares.give(customer, units));
    }
}

/// The relayer's session that a request goes through, with its part of the window until the answer is in.
struct Path {
    relayer: NodeId,
    session: u64,
    #[expect(
        dead_code,
        reason = "held for its end, which gives the window's part back"
    )]
    share: Share,
}

/// When a publish came, and in which trace.
#[derive(Clone, Copy)]
pub(super) struct Came {
    at: Duration,
    trace: TraceCx,
}

/// A request that waits for its relayer session.
pub(super) enum Request {
    OpenProducer(OpenProducer, Promise<OpenProducer>),
    Publish(Publish, Promise<Publish>, Came),
    SetReaders(SetReaders, Promise<SetReaders>),
    FindOffset(FindOffset, Promise<FindOffset>),
    DeadLetters(ListDeadLetters, Promise<ListDeadLetters>),
    StartFeed(u32),
}

impl Request {
    pub(super) fn refuse(
        self,
        session: &mut ClientSession,
        refusal: Refusal,
        cx: &mut Cx<ClientSession>,
    ) {
        match self {
            Request::OpenProducer(_, promise) => promise.fulfil(Err(refusal)),
            Request::Publish(_, promise, _) => promise.fulfil(Err(refusal)),
            Request::SetReaders(_, promise) => promise.fulfil(Err(refusal)),
            Request::FindOffset(_, promise) => promise.fulfil(Err(refusal)),
            Request::DeadLetters(_, promise) => promise.fulfil(Err(refusal)),
            Request::StartFeed(subscription) => session.on_feed_lost(subscription, refusal, cx),
        }
    }
}

impl ClientSession {
    /// A request of an attached client for a channel of its own.
    fn own(&self, channel: &Channel) -> Result<(), Refusal> {
        if self.grant.is_none() {
            Err(Refusal::UnknownSession)
        } else if channel.owner != self.customer {
            Err(Refusal::NotAllowed)
        } else {
            Ok(())
        }
    }

    pub(super) fn submit(&mut self, channel: &Channel, request: Request, cx: &mut Cx<Self>) {
        let relayer = self.shared.map.owner_of(channel);
        match self.routes.submit(&relayer, request) {
            Submitted::Send(session, request) => self.send(relayer, session, request, cx),
            Submitted::Open(generation) => self.open_session(relayer, generation, cx),
            Submitted::Wait => {}
            Submitted::Unavailable(request) => request.refuse(self, Refusal::Unavailable, cx),
            Submitted::Busy(request) => request.refuse(self, Refusal::Busy, cx),
        }
    }

    fn open_session(&mut self, relayer: NodeId, generation: u64, cx: &mut Cx<Self>) {
        let (Some(uplink), Some(grant)) = (self.shared.uplinks.get(&relayer), &self.grant) else {
            return self.on_opened(relayer, generation, Err(Refusal::Unavailable), cx);
        };
        let open = OpenRelaySession {
            session: self.id,
            generation,
            grant: grant.clone(),
        };
        cx.ask(
            &uplink.open_session,
            open,
            ASK_DEADLINE,
            move |session, outcome, cx| {
                session.on_opened(relayer, generation, answer(outcome), cx);
                // Subscriptions that waited for it in vain are to begin again.
                session.drive(cx);
            },
        );
    }

    fn on_opened(
        &mut self,
        relayer: NodeId,
        generation: u64,
        opened: Result<u64, Refusal>,
        cx: &mut Cx<Self>,
    ) {
        let session = opened.as_ref().ok().copied();
        for request in self.routes.opened(&relayer, generation, session) {
            match &opened {
                Ok(session) => self.send(relayer, *session, request, cx),
                Err(refusal) => request.refuse(self, refusal.clone(), cx),
            }
        }
    }

    /// A part of the relayer's window for a request, unless this customer has its share already.
    fn share(&self, relayer: NodeId, bytes: usize) -> Option<Share> {
        let (customer, units) = (self.customer, shares::units(bytes));
        let taken = self
            .shared
            .shares
            .of(relayer, |shares| shares.take(customer, units));
        taken.then(|| Share {
            shared: self.shared.clone(),
            relayer,
            customer,
            units,
        })
    }

    fn send(&mut self, relayer: NodeId, session: u64, request: Request, cx: &mut Cx<Self>) {
        let Some(link) = self.links.get(&relayer) else {
            return request.refuse(self, Refusal::Unavailable, cx);
        };
        let bytes = match &request {
            Request::Publish(publish, ..) => publish.payloads.iter().map(Bytes::len).sum(),
            Request::SetReaders(set, _) => set.readers.len() * 32,
            Request::OpenProducer(..) | Request::FindOffset(..) | Request::DeadLetters(..) => 0,
            // Subscriptions go by way of the uplink, few and small.
            Request::StartFeed(subscription) => {
                return self.start_feed(relayer, session, *subscription, cx);
            }
        };
        let Some(share) = self.share(relayer, bytes) else {
            return request.refuse(self, Refusal::Busy, cx);
        };
        let path = Path {
            relayer,
            session,
            share,
        };
        match request {
            Request::OpenProducer(open, promise) => {
                let shard = self.shared.map.shard_of(&open.channel);
                let message = RelayOpenProducer {
                    session,
                    channel: open.channel,
                    supersedes: open.supersedes,
                };
                let to = link.open_producer.clone();
                self.pass_on(&to, message, path, shard, promise, cx);
            }
            Request::Publish(publish, promise, came) => {
                let shard = self.shared.map.shard_of(&publish.channel);
                let message = RelayPublish {
                    session,
                    channel: publish.channel,
                    epoch: publish.epoch,
                    first_seq: publish.first_seq,
                    payloads: publish.payloads,
                };
                let to = link.publish.clone();
                // It may have waited for its session, and goes on in its own trace all the same.
                came.trace.scope(|| {
                    cx.ask(&to, message, ASK_DEADLINE, move |this, outcome, cx| {
                        let outcome = this.outcome(path.relayer, path.session, shard, outcome);
                        if outcome.is_ok() {
                            this.acks.observe(cx.now().saturating_sub(came.at));
                        }
                        drop(path);
                        promise.fulfil(outcome);
                    });
                });
            }
            Request::SetReaders(set, promise) => {
                let channel = Channel {
                    owner: self.customer,
                    name: set.channel.clone(),
                };
                let shard = self.shared.map.shard_of(&channel);
                let message = RelaySetReaders {
                    session,
                    channel: set.channel,
                    readers: set.readers,
                };
                let to = link.set_readers.clone();
                self.pass_on(&to, message, path, shard, promise, cx);
            }
            Request::FindOffset(find, promise) => {
                let shard = self.shared.map.shard_of(&find.channel);
                let message = RelayFindOffset {
                    session,
                    channel: find.channel,
                    at_ms: find.at_ms,
                };
                let to = link.find_offset.clone();
                self.pass_on(&to, message, path, shard, promise, cx);
            }
            Request::DeadLetters(list, promise) => {
                let shard = self.shared.map.shard_of(&list.channel);
                let message = RelayListDeadLetters {
                    session,
                    channel: list.channel,
                    group: list.group,
                    discard: list.discard,
                    remove: list.remove,
                };
                let to = link.dead_letters.clone();
                self.pass_on(&to, message, path, shard, promise, cx);
            }
            Request::StartFeed(_) => drop(path),
        }
    }

    /// Asks a relayer, and answers the client with what it says.
    fn pass_on<M, P, T>(
        &self,
        to: &Ref<M>,
        message: M,
        path: Path,
        shard: ShardId,
        promise: Promise<P>,
        cx: &mut Cx<Self>,
    ) where
        M: Message<Reply = Result<T, Refusal>>,
        P: Message<Reply = Result<T, Refusal>>,
        T: Send + 'static,
    {
        cx.ask(to, message, ASK_DEADLINE, move |this, outcome, _| {
            let outcome = this.outcome(path.relayer, path.session, shard, outcome);
            drop(path);
            promise.fulfil(outcome);
        });
    }

    /// What an answer means to the client. A relayer that lost the session gets a new one with the next request.
    pub(super) fn outcome<T>(
        &mut self,
        relayer: NodeId,
        session: u64,
        shard: ShardId,
        outcome: Result<Result<T, Refusal>, AskError>,
    ) -> Result<T, Refusal> {
        match answer(outcome) {
            // The client tries again, and is served by whoever has the shard.
            Err(Refusal::NotOwner(Some(redirect))) => {
                self.shared.map.redirected(shard, redirect);
                Err(Refusal::NotOwner(Some(redirect)))
            }
            Err(Refusal::UnknownSession) => {
                self.routes.lost(&relayer, session);
                Err(Refusal::Unavailable)
            }
            answer => answer,
        }
    }
}

impl On<OpenProducer> for ClientSession {
    fn on(&mut self, msg: OpenProducer, cx: &mut Cx<Self>) -> Reply<OpenProducer> {
        if let Err(refusal) = self.own(&msg.channel) {
            return Reply::Now(Err(refusal));
        }
        let (promise, later) = Reply::later();
        let channel = msg.channel.clone();
        self.submit(&channel, Request::OpenProducer(msg, promise), cx);
        later
    }
}

impl On<Publish> for ClientSession {
    fn on(&mut self, msg: Publish, cx: &mut Cx<Self>) -> Reply<Publish> {
        if let Err(refusal) = self.own(&msg.channel) {
            return Reply::Now(Err(refusal));
        }
        let (promise, later) = Reply::later();
        let channel = msg.channel.clone();
        let came = Came {
            at: cx.now(),
            trace: cx.trace(),
        };
        self.submit(&channel, Request::Publish(msg, promise, came), cx);
        later
    }
}

impl On<FindOffset> for ClientSession {
    fn on(&mut self, msg: FindOffset, cx: &mut Cx<Self>) -> Reply<FindOffset> {
        if self.grant.is_none() {
            return Reply::Now(Err(Refusal::UnknownSession));
        }
        let (promise, later) = Reply::later();
        let channel = msg.channel.clone();
        self.submit(&channel, Request::FindOffset(msg, promise), cx);
        later
    }
}

impl On<ListDeadLetters> for ClientSession {
    fn on(&mut self, msg: ListDeadLetters, cx: &mut Cx<Self>) -> Reply<ListDeadLetters> {
        if self.grant.is_none() {
            return Reply::Now(Err(Refusal::UnknownSession));
        }
        let (promise, later) = Reply::later();
        let channel = msg.channel.clone();
        self.submit(&channel, Request::DeadLetters(msg, promise), cx);
        later
    }
}

impl On<SetReaders> for ClientSession {
    fn on(&mut self, msg: SetReaders, cx: &mut Cx<Self>) -> Reply<SetReaders> {
        let channel = Channel {
            owner: self.customer,
            name: msg.channel.clone(),
        };
        if let Err(refusal) = self.own(&channel) {
            return Reply::Now(Err(refusal));
        }
        let (promise, later) = Reply::later();
        self.submit(&channel, Request::SetReaders(msg, promise), cx);
        later
    }
}
