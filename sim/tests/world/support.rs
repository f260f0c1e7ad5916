//! Small networks with a load.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use pqcnet_client::Client;
use pqcnet_messages::{ChannelName, Role};
use pqcnet_sim::world::{Hash, NodeNo, NodeSpec, NodeState, Stopped, Trace, World, WorldConfig};

/// What a load has come to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Done {
    /// Messages acknowledged, by channel: their offsets in the order of sending.
    pub acked: Vec<(String, u64)>,
    /// What failed.
    pub failed: Vec<String>,
}

/// A network and its load.
pub struct Town {
    pub world: World,
    pub members: Vec<NodeNo>,
    pub clients: Vec<NodeNo>,
    pub done: Arc<Mutex<Done>>,
}

impl Town {
    /// So many nodes of each role; none runs yet.
    pub fn new(config: WorldConfig, relayers: usize, sentries: usize, clients: usize) -> Town {
        let mut world = World::new(config);
        let mut add = |count: usize, name: &str, role: Role| -> Vec<NodeNo> {
            let names = (0..count).map(|n| format!("{name}-{n}"));
            let specs = names.map(|name| NodeSpec::new(name, role));
            let added = specs.map(|mut spec| {
                spec.bootstrap = spec.name.as_str() == "relayer-0";
                world.add(spec).unwrap()
            });
            added.collect()
        };
        let mut members = add(relayers, "relayer", Role::Relayer);
        members.extend(add(sentries, "sentry", Role::Sentry));
        let clients = add(clients, "client", Role::Client);
        Town {
            world,
            members,
            clients,
            done: Arc::default(),
        }
    }

    /// Starts every member and waits until all are up.
    pub fn boot(&mut self) {
        for node in self.members.clone() {
            self.world.start(node).unwrap();
        }
        for _ in 0..100 {
            self.world.run_for(Duration::from_millis(100)).unwrap();
            let up = |node: &NodeNo| self.world.state(*node) == NodeState::Up;
            if self.members.iter().all(up) {
                return;
            }
        }
        for node in &self.members {
            if let Some(error) = self.world.failure(*node) {
                panic!("{}: {error}", self.world.spec(*node).name);
            }
        }
        panic!("not all nodes are up after ten seconds");
    }

    /// Starts every client; each publishes so many messages to a channel of its own, so far apart.
    pub fn load(&mut self, messages: u64, apart: Duration) {
        for node in self.clients.clone() {
            self.publish(node, messages, apart);
        }
    }

    /// One client's part of it.
    pub fn publish(&mut self, node: NodeNo, messages: u64, apart: Duration) {
        self.world.start(node).unwrap();
        let config = self.world.client_config(node).unwrap();
        let (env, streams) = (self.world.env(node).unwrap(), self.world.streams(node));
        let name = self.world.spec(node).name.to_string();
        let done = self.done.clone();
        self.world.spawn(node, async move {
            let failed = |what: String| done.lock().failed.push(format!("{name}: {what}"));
            let clock = env.clone();
            let client = match Client::connect_over(env, streams, config).await {
                Ok(client) => client,
                Err(error) => return failed(error.to_string()),
            };
            let channel = ChannelName::new("c").unwrap();
            for message in 0..messages {
                match client.publish(&channel, format!("message {message}")).await {
                    Ok(published) => done
                        .lock()
                        .acked
                        .push((name.clone(), published.offset.unwrap())),
                    Err(error) => failed(error.to_string()),
                }
                clock.sleep(apart).await;
            }
        });
    }

    /// The whole run's hash.
    pub fn hash(&self) -> Hash {
        self.world.hash()
    }
}

/// Runs the same twice: the hashes agree, or the first event that differs is told.
pub fn twice<T: PartialEq + std::fmt::Debug>(
    run: impl Fn(&Trace) -> Result<(Hash, T), Stopped>,
) -> (Hash, T) {
    let (first, second) = (Trace::new(), Trace::new());
    let (hash, outcome) = run(&first).unwrap_or_else(|stopped| panic!("{stopped}"));
    let (again, outcome_again) = run(&second).unwrap_or_else(|stopped| panic!("{stopped}"));
    if let Some(difference) = first.difference(&second) {
        panic!("{difference}");
    }
    assert!(!first.is_empty());
    assert_eq!((hash, &outcome), (again, &outcome_again));
    (hash, outcome)
}
