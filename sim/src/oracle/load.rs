//! What runs in a client node: a production client, and a task for each channel that it publishes or reads.

use std::sync::Arc;
use std::time::Duration;

use pqcnet_account::Broken;
use pqcnet_actor::Env;
use pqcnet_client::{Client, ClientConfig, PublishError};
use pqcnet_crypto::NodeId;
use pqcnet_link::Role;
use pqcnet_p2p::streams::Streams;

use super::Oracle;
use super::lane::Lane;
use super::times::{Leg, Times};
use crate::world::{Ledger, NodeNo, SimTime, World, WorldError};

/// Between attempts of an application that the client has sent away.
const AGAIN: Duration = Duration::from_secs(1);
/// Between looks at which sentry is used.
const LOOK: Duration = Duration::from_millis(250);

/// One start of a client node.
#[derive(Clone)]
struct App {
    env: Env,
    ledger: Arc<Ledger>,
    node: NodeNo,
    client: Client,
    times: Times,
}

impl Oracle {
    /// Puts a client node's part of the load on it.
    pub(super) fn put_on(&self, world: &mut World, node: NodeNo) -> Result<(), WorldError> {
        let Some(lanes) = self.of_client.get(&node).cloned() else {
            return Ok(());
        };
        let Some(env) = world.env(node) else {
            return Ok(());
        };
        let mut config = world.client_config(node)?;
        let given_up = self.victims.contains(&node);
        if !self.distrusted.is_empty() {
            let sentries = config.network.with_role(Role::Sentry).map(|entry| entry.id);
            let used = sentries.filter(|id| self.distrusted.contains(id) == given_up);
            config.sentries = used.collect();
        }
        let streams = world.streams(node);
        for lane in lanes.iter().filter(|lane| lane.spec.publisher == node) {
            lane.state().account.restarts();
        }
        let ledger = self.ledger.clone();
        let app = (node, lanes, self.times.clone());
        world.spawn(node, run(env, streams, config, ledger, app));
        Ok(())
    }
}

async fn run(
    env: Env,
    streams: Arc<dyn Streams>,
    config: ClientConfig,
    ledger: Arc<Ledger>,
    (node, lanes, times): (NodeNo, Vec<Arc<Lane>>, Times),
) {
    let client = loop {
        let attempt = Client::connect_over(env.clone(), streams.clone(), config.clone());
        match attempt.await {
            Ok(client) => break client,
            Err(error) => tracing::debug!(%error, "no connection"),
        }
        env.sleep(AGAIN).await;
    };
    let app = App {
        env: env.clone(),
        ledger,
        node,
        client,
        times,
    };
    for lane in &lanes {
        if lane.spec.publisher == node {
            env.spawn(app.clone().publish(lane.clone()));
        }
        if lane.spec.subscriber == node {
            env.spawn(app.clone().read(lane.clone()));
        }
    }
    app.watch(lanes).await;
}

impl App {
    fn judge(&self, lane: &Lane, found: Result<(), Broken>) {
        if let Err(broken) = found {
            self.stop(lane, || lane.told(&broken));
        }
    }

    fn stop(&self, lane: &Lane, why: impl FnOnce() -> String) {
        if lane.is_judged() {
            self.ledger.stop(why());
        }
    }

    fn took(&self, lane: &Lane, leg: Leg, since: SimTime) {
        if lane.is_judged() {
            self.times.took(leg, self.env.now().saturating_sub(since));
        }
    }

    /// Takes down which sentry is used, and since when.
    async fn watch(self, lanes: Vec<Arc<Lane>>) {
        loop {
            let (now, sentry) = (self.env.now(), self.client.sentry());
            for lane in &lanes {
                let mut state = lane.state();
                if lane.spec.publisher == self.node {
                    uses(&mut state.publishes_by, sentry, now);
                }
                if lane.spec.subscriber == self.node {
                    uses(&mut state.reads_by, sentry, now);
                }
            }
            self.env.sleep(LOOK).await;
        }
    }

    async fn publish(self, lane: Arc<Lane>) {
        let spec = &lane.spec;
        if spec.subscriber != spec.publisher {
            let readers = vec![lane.reader];
            let name = &lane.channel.name;
            while let Err(error) = self.client.set_readers(name, readers.clone()).await {
                tracing::debug!(%error, "readers");
                self.env.sleep(AGAIN).await;
            }
        }
        let publisher = loop {
            match self.client.publisher(&lane.channel.name) {
                Ok(publisher) => break publisher,
                Err(error) => tracing::debug!(%error, "publisher"),
            }
            self.env.sleep(AGAIN).await;
        };
        let wait = spec.start.saturating_sub(self.env.now());
        self.env.sleep(wait).await;
        while self.env.now() < spec.stop {
            let at = self.env.now();
            let message = {
                let mut state = lane.state();
                let message = state.account.send(at);
                state.sent_at.insert(message, at);
                message
            };
            let payload = lane.payload(message);
            match publisher.send(payload).await {
                Ok(receipt) => {
                    let (app, lane) = (self.clone(), lane.clone());
                    self.env.spawn(async move {
                        let outcome = receipt.await;
                        app.answered(&lane, (message, at), outcome.map(|done| done.offset));
                    });
                }
                Err(error) => self.answered(&lane, (message, at), Err(error)),
            }
            self.env.sleep(spec.every).await;
        }
    }

    fn answered(
        &self,
        lane: &Lane,
        (message, sent): (u64, SimTime),
        outcome: Result<Option<u64>, PublishError>,
    ) {
        let now = self.env.now();
        let found = {
            let state = &mut *lane.state();
            match outcome {
                Ok(offset) => {
                    self.took(lane, Leg::Acknowledged, sent);
                    state.account.acked(message, offset, now)
                }
                Err(PublishError::OutcomeUnknown | PublishError::Closed) => {
                    state.account.failed(message, false)
                }
                Err(error) => {
                    tracing::debug!(%error, "not published");
                    state.sent_at.remove(&message);
                    state.account.failed(message, true)
                }
            }
        };
        self.judge(lane, found);
    }

    /// Reads on from the last offset that was stored, however often it is sent away.
    async fn read(self, lane: Arc<Lane>) {
        loop {
            let presented = {
                let mut state = lane.state();
                let last = state.account.last();
                state.account.presents(last);
                state.resumed += 1;
                last
            };
            let mut records = match self.client.subscribe(&lane.channel, presented).await {
                Ok(records) => records,
                Err(error) => {
                    tracing::debug!(%error, "no subscription");
                    self.env.sleep(AGAIN).await;
                    continue;
                }
            };
            loop {
                match records.next().await {
                    Ok(record) => match lane.message(&record.payload) {
                        Some(message) => {
                            let (found, sent) = {
                                let state = &mut *lane.state();
                                let found = state.account.delivered(record.offset, message);
                                (found, state.sent_at.remove(&message))
                            };
                            if let Some(sent) = sent {
                                self.took(&lane, Leg::Delivered, sent);
                            }
                            self.judge(&lane, found);
                        }
                        None => self.stop(&lane, || {
                            let offset = record.offset;
                            format!("{lane}: the payload at offset {offset} changed on its way")
                        }),
                    },
                    Err(error) => {
                        tracing::debug!(%error, "the subscription ended");
                        break;
                    }
                }
            }
            self.env.sleep(AGAIN).await;
        }
    }
}

fn uses(known: &mut (Option<NodeId>, SimTime), sentry: Option<NodeId>, now: SimTime) {
    if known.0 != sentry {
        *known = (sentry, now);
    }
}
