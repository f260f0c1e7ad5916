//! Who may be what, for everybody in a node who lets others in: the gate, the steward, the diallers, relayers' intakes.
//!
//! ```text
//!   Registrar ──standings──▶ ┐
//!                            ├─ Authority (clones, read without waiting) ── admit? ── gate, steward, dials, sessions
//!   Herald ─────bans───────▶ ┘                                           └─ changed ── steward: close what may not stand
//! ```

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use pqcnet_actor::Env;
use pqcnet_actor::latest;
use pqcnet_crypto::NodeId;
use pqcnet_messages::Role;
use pqcnet_p2p::network::NetworkFile;

use crate::core::standing::{Standing, Standings};

/// Who is banned, and until when by this node's monotonic clock.
pub type Bans = BTreeMap<NodeId, Duration>;

/// The present ruling. Cheap to clone; every clone follows the same node's directives and bans.
#[derive(Clone)]
pub struct Authority {
    env: Env,
    standings: latest::Receiver<Arc<Standings>>,
    bans: latest::Receiver<Arc<Bans>>,
}

/// Where rulings are made: the registrar sends standings, the herald bans. They outlive both actors' incarnations.
#[derive(Clone, Debug)]
pub struct Rulings {
    /// The registrar's.
    pub standings: latest::Sender<Arc<Standings>>,
    /// The herald's.
    pub bans: latest::Sender<Arc<Bans>>,
}

impl Authority {
    /// An authority that begins with these standings, and where its rulings come from.
    pub fn new(env: &Env, standings: Standings) -> (Authority, Rulings) {
        let (standings_out, standings) = latest::channel(Arc::new(standings));
        let (bans_out, bans) = latest::channel(Arc::default());
        let authority = Authority {
            env: env.clone(),
            standings,
            bans,
        };
        let rulings = Rulings {
            standings: standings_out,
            bans: bans_out,
        };
        (authority, rulings)
    }

    /// An authority by the network file alone, for ever.
    pub fn of_file(env: &Env, network: Arc<NetworkFile>) -> Authority {
        Authority::new(env, Standings::new(network, [])).0
    }

    /// Whether a node may be what it claims, now.
    ///
    /// # Errors
    /// Why not.
    pub fn admit(&self, node: NodeId, role: Role) -> Result<(), Standing> {
        let standings = self.standings.borrow();
        standings.admit(node, role, self.env.wall_ms())?;
        drop(standings);
        self.not_banned(node)
    }

    /// Whether a key is good for anything, now: neither revoked nor succeeded, and its node not banned.
    ///
    /// # Errors
    /// Why not.
    pub fn valid(&self, node: NodeId) -> Result<(), Standing> {
        let standings = self.standings.borrow();
        standings.valid(node, self.env.wall_ms())?;
        drop(standings);
        self.not_banned(node)
    }

    /// Whether a node belongs to the network, other than as a client, and is not banned.
    pub fn is_member(&self, node: NodeId) -> bool {
        let standings = self.standings.borrow();
        let member = standings.is_member(node, self.env.wall_ms());
        drop(standings);
        member && self.not_banned(node).is_ok()
    }

    fn not_banned(&self, node: NodeId) -> Result<(), Standing> {
        let (bans, now) = (self.bans.borrow(), self.env.now());
        match bans.get(&node) {
            Some(until) if *until > now => Err(Standing::Banned {
                node,
                left_s: until.saturating_sub(now).as_secs().saturating_add(1),
            }),
            Some(_) | None => Ok(()),
        }
    }

    /// The present standings.
    pub fn standings(&self) -> Arc<Standings> {
        self.standings.borrow().clone()
    }

    /// Resolves once a directive or a ban has changed something since the last call; never when the node is stopping.
    pub async fn changed(&mut self) {
        let gone = tokio::select! {
            biased;
            changed = self.standings.changed() => changed.is_err(),
            changed = self.bans.changed() => changed.is_err(),
        };
        if gone {
            std::future::pending::<()>().await;
        }
    }
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authority").finish_non_exhaustive()
    }
}
