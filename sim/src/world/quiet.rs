//! A control plane on which nobody is: for worlds that look at the data plane alone.

use std::sync::Arc;

use bytes::Bytes;
use futures::future::{BoxFuture, FutureExt as _, ready};
use pqcnet_crypto::NodeId;
use pqcnet_p2p::control::{
    ControlError, ControlEvents, ControlPlane, PeerCounters, RecordCheck, Validator, substreams,
};
use pqcnet_p2p::network::Address;
use pqcnet_p2p::streams::BoxStream;
use tokio::sync::mpsc;

/// Reaches nobody, and is reached by nobody.
pub(super) struct Quiet {
    /// The events' end comes when the plane's does.
    _events: mpsc::Sender<pqcnet_p2p::control::ControlEvent>,
}

impl Quiet {
    pub(super) fn start() -> (Quiet, ControlEvents) {
        let (sender, events) = mpsc::channel(1);
        let quiet = Quiet { _events: sender };
        (quiet, ControlEvents::new(events))
    }
}

type Answer<'a, T> = BoxFuture<'a, Result<T, ControlError>>;

impl ControlPlane for Quiet {
    fn listen<'a>(&'a self, at: &'a Address) -> Answer<'a, Address> {
        ready(Ok(at.clone())).boxed()
    }

    fn dial<'a>(&'a self, peer: NodeId, _: &'a [Address]) -> Answer<'a, ()> {
        let failures = Vec::new();
        ready(Err(ControlError::Dial { peer, failures })).boxed()
    }

    fn open(&self, _: NodeId) -> Answer<'_, BoxStream> {
        ready(Err(substreams::OpenError::NotConnected.into())).boxed()
    }

    fn disconnect(&self, _: NodeId) -> Answer<'_, ()> {
        ready(Ok(())).boxed()
    }

    fn subscribe<'a>(&'a self, _: &'a str, _: Arc<dyn Validator>) -> Answer<'a, ()> {
        ready(Ok(())).boxed()
    }

    fn publish<'a>(&'a self, _: &'a str, _: Bytes) -> Answer<'a, ()> {
        ready(Err(ControlError::NoPeers)).boxed()
    }

    fn counters(&self) -> Answer<'_, Vec<PeerCounters>> {
        ready(Ok(Vec::new())).boxed()
    }

    fn reserve<'a>(&'a self, _: NodeId, at: &'a Address) -> Answer<'a, ()> {
        let reason = "nobody is on this plane".to_owned();
        let at = at.clone();
        ready(Err(ControlError::Listen { at, reason })).boxed()
    }

    fn dial_through<'a>(&'a self, peer: NodeId, _: NodeId, _: &'a Address) -> Answer<'a, ()> {
        let failures = Vec::new();
        ready(Err(ControlError::Dial { peer, failures })).boxed()
    }

    fn seen_as(&self, _: Address) -> Answer<'_, ()> {
        ready(Ok(())).boxed()
    }

    fn learn<'a>(&'a self, _: NodeId, _: &'a [Address]) -> Answer<'a, ()> {
        ready(Ok(())).boxed()
    }

    fn keep_records(&self, _: Arc<dyn RecordCheck>) -> Answer<'_, ()> {
        ready(Ok(())).boxed()
    }

    fn announce(&self, _: Bytes) -> Answer<'_, ()> {
        let none = "nobody is on this plane".to_owned();
        ready(Err(ControlError::NotStored(none))).boxed()
    }

    fn lookup(&self, _: NodeId) -> Answer<'_, Option<Bytes>> {
        ready(Ok(None)).boxed()
    }
}
