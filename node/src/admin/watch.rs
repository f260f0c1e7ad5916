//! Takes snapshots of a running node.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use pqcnet_actor::{Env, Inspector, Ref};
use pqcnet_p2p::network::NetworkFile;
use pqcnet_roles::Started;
use pqcnet_roles::snapshot::{KeyFacts, Parts, Snapshot};
use pqcnet_roles::steward::Look;

use super::ACCOUNT_DEADLINE;

/// What does not change while a node runs, for its snapshots.
#[derive(Clone, Debug)]
pub struct Constants {
    /// Who is in the network.
    pub network: Arc<NetworkFile>,
    /// The node's keys.
    pub keys: Vec<KeyFacts>,
    /// Suites it offers.
    pub suites: Vec<&'static str>,
}

/// A running node, to be looked at. Clones look at the same one.
#[derive(Clone)]
pub struct Watch {
    look: Ref<Look>,
    inspector: Inspector,
    env: Env,
    draining: Arc<AtomicBool>,
    constants: Arc<Constants>,
}

impl Watch {
    /// Looks at a started node.
    pub fn new(
        started: &Started,
        env: &Env,
        draining: Arc<AtomicBool>,
        constants: Constants,
    ) -> Watch {
        Watch {
            look: started.steward.of(),
            inspector: started.running.inspector(),
            env: env.clone(),
            draining,
            constants: Arc::new(constants),
        }
    }

    /// What the node is like now, or why it cannot say.
    pub async fn snapshot(&self) -> Result<Snapshot, String> {
        let seen = self.look.ask(Look, ACCOUNT_DEADLINE).await;
        let seen = seen.map_err(|error| format!("the steward does not answer: {error}"))?;
        // After it, or this very question would be seen waiting in a mailbox.
        let actors = self.inspector.inspect().await;
        Ok(Snapshot::take(Parts {
            now_ms: self.env.wall_ms(),
            draining: self.draining.load(Ordering::Acquire),
            seen,
            actors,
            counts: self.env.counters(),
            network: &self.constants.network,
            keys: &self.constants.keys,
            suites: &self.constants.suites,
        }))
    }
}
