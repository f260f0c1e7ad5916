//! Says who asks: one a link of another relayer, which may ask for shards and for nothing else.
//!
//! Spec: docs/spec/relay.md, "Owners". Started by: `roles::relayer`, in the nursery of the intakes; it ends with its link. Sends to:
//! the [`Holder`]. Mailbox: usual bounds; full means `Busy`.

use std::hash::Hash as _;
use std::time::Duration;

use pqcnet_actor::{Addr, Behaviour, Cx, Digest, Message, On, Ref, Reply};
use pqcnet_crypto::NodeId;
use pqcnet_messages::Refusal;
use pqcnet_messages::control::Ping;
use pqcnet_messages::moving::{FenceShard, ReadShard, ShardHeld, SurveyShard};
use pqcnet_messages::relay::ReleaseShard;

use crate::Holder;

/// What it asks of the holder may wait for the disk.
const ANSWERED_WITHIN: Duration = Duration::from_secs(20);

/// A request of a peer whose keys are known.
#[derive(Debug)]
pub struct By<M> {
    /// Whose.
    pub peer: NodeId,
    /// What.
    pub request: M,
}

impl<M: Message> Message for By<M> {
    type Reply = M::Reply;
    const NAME: &'static str = M::NAME;
    const CLASS: pqcnet_actor::Class = M::CLASS;

    fn digest(&self, into: &mut Digest) {
        self.peer.hash(into);
        self.request.digest(into);
    }
}

/// The serving end of another relayer's link.
pub struct Envoy {
    peer: NodeId,
    holder: Addr<Holder>,
    link: Option<Ref<Ping>>,
}

impl Envoy {
    /// For a peer, as its channel proved it; it ends with `link`, where there is one.
    pub fn new(peer: NodeId, holder: Addr<Holder>, link: Option<Ref<Ping>>) -> Envoy {
        Envoy { peer, holder, link }
    }

    fn pass<M, T>(&mut self, request: M, cx: &mut Cx<Self>) -> Reply<M>
    where
        M: Message<Reply = Result<T, Refusal>>,
        T: Send + 'static,
        Holder: On<By<M>>,
    {
        let (promise, reply) = Reply::later();
        let peer = self.peer;
        let to = self.holder.of::<By<M>>();
        cx.ask(
            &to,
            By { peer, request },
            ANSWERED_WITHIN,
            move |_, answer, _| {
                promise.fulfil(answer.unwrap_or_else(|error| {
                    Err(match error {
                        pqcnet_actor::AskError::Busy => Refusal::Busy,
                        _ => Refusal::Unavailable,
                    })
                }));
            },
        );
        reply
    }
}

impl Behaviour for Envoy {
    const NAME: &'static str = "Envoy";

    fn started(&mut self, cx: &mut Cx<Self>) {
        if let Some(link) = self.link.clone() {
            cx.watch(&link, |_, _, cx| cx.stop());
        }
    }
}

impl On<ReleaseShard> for Envoy {
    fn on(&mut self, request: ReleaseShard, cx: &mut Cx<Self>) -> Reply<ReleaseShard> {
        self.pass(request, cx)
    }
}

impl On<SurveyShard> for Envoy {
    fn on(&mut self, request: SurveyShard, cx: &mut Cx<Self>) -> Reply<SurveyShard> {
        self.pass(request, cx)
    }
}

impl On<ReadShard> for Envoy {
    fn on(&mut self, request: ReadShard, cx: &mut Cx<Self>) -> Reply<ReadShard> {
        self.pass(request, cx)
    }
}

impl On<FenceShard> for Envoy {
    fn on(&mut self, request: FenceShard, cx: &mut Cx<Self>) -> Reply<FenceShard> {
        self.pass(request, cx)
    }
}

impl On<ShardHeld> for Envoy {
    fn on(&mut self, request: ShardHeld, cx: &mut Cx<Self>) -> Reply<ShardHeld> {
        self.pass(request, cx)
    }
}
