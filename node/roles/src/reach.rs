//! How a node is reached on the control plane: directly, or through a relay; and whether it is such a relay.
//!
//! A node behind a NAT has each bootstrap node that relays take connections for it, and advertises those circuits instead of its own
//! address. Whoever learns of them dials them, unless the relay is itself. Where a node cannot tell (`auto`), relays try its
//! address, and it advertises what they reached or their circuits.
//!
//! ```text
//!   plane ──Probed──▶ gate ─▶ Paths ─▶ verdict ─┬▶ places at relays ─▶ Placard ──Announce──▶ herald
//!         ──Circuit─▶ gate ─▶ Paths ─▶ dial back └▶ addresses reached ──▲
//! ```
//! docs/spec/control-plane.md, "Reach".

use std::collections::BTreeSet;
use std::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use pqcnet_actor::latest;
use pqcnet_actor::{Ref, TellError};
use pqcnet_crypto::NodeId;
use pqcnet_mesh::Announce;
use pqcnet_messages::Advert;
use pqcnet_p2p::network::Address;

use crate::core::probes::{Probes, Verdict};
use crate::outward::Outward;

/// How a node takes part in circuits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Reach {
    /// Others reach its addresses; it carries no circuits.
    #[default]
    Direct,
    /// The same, and it carries circuits for nodes that cannot be reached.
    Relay,
    /// Nobody reaches its addresses: it is dialled through the bootstrap nodes that relay.
    Relayed,
    /// One of the bootstrap nodes that relay tries whether its addresses are reached; it is relayed where they are not.
    Auto,
}

impl Reach {
    /// Whether it may have to do with circuits to itself.
    pub(crate) fn may_be_relayed(self) -> bool {
        matches!(self, Reach::Relayed | Reach::Auto)
    }
}

/// A word that is none of them.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not direct, relay, relayed or auto")]
pub struct UnknownReach(String);

impl FromStr for Reach {
    type Err = UnknownReach;

    fn from_str(text: &str) -> Result<Reach, UnknownReach> {
        match text {
            "direct" => Ok(Reach::Direct),
            "relay" => Ok(Reach::Relay),
            "relayed" => Ok(Reach::Relayed),
            "auto" => Ok(Reach::Auto),
            other => Err(UnknownReach(other.to_owned())),
        }
    }
}

/// Between attempts to get a place at a bootstrap node: most do not relay, and one that is full has places again when others leave.
const ASK_AGAIN: Duration = Duration::from_secs(30);

/// Whether this node is reached directly, as far as is known; shared by the gate's incarnations.
#[derive(Clone)]
pub(crate) struct Paths {
    probes: Arc<Mutex<Probes>>,
    verdict: Arc<latest::Sender<Verdict>>,
    outward: Outward,
}

impl Paths {
    /// Nothing was tried. A node that is relayed by order needs no trial.
    pub(crate) fn new(reach: Reach, outward: &Outward) -> Paths {
        let verdict = match reach {
            Reach::Relayed => Verdict::Unreachable,
            Reach::Direct | Reach::Relay | Reach::Auto => Verdict::Unknown,
        };
        Paths {
            probes: Arc::default(),
            verdict: Arc::new(latest::Sender::new(verdict)),
            outward: outward.clone(),
        }
    }

    /// A relay has tried an address of this node.
    pub(crate) fn probed(&self, at: Address, by: NodeId, reached: bool) {
        tracing::info!(%at, %by, reached, "a relay has tried to reach this node");
        let verdict = {
            let mut probes = self.probes.lock().unwrap_or_else(PoisonError::into_inner);
            probes.on_probed(at, reached);
            probes.verdict()
        };
        self.verdict.send_if_modified(|known| {
            let changed = *known != verdict;
            *known = verdict;
            changed
        });
    }

    /// A node came through a relay: where it says that it listens, it is dialled, and that connection takes the circuit's
    /// place.
    pub(crate) async fn meet(self, peer: NodeId) {
        let at = self.outward.direct(&peer);
        if at.is_empty() {
            return;
        }
        if let Err(error) = self.outward.control.dial(peer, &at).await {
            tracing::debug!(%peer, %error, "no direct way to a node that came through a relay");
        }
    }
}

/// How others may reach this node.
#[derive(Debug, Default)]
struct Found {
    direct: Vec<String>,
    relays: BTreeSet<NodeId>,
}

/// What a node that may be relayed says of itself: where it was reached, else the relays that have given it a place.
#[derive(Clone)]
struct Placard {
    advert: Advert,
    found: Arc<Mutex<Found>>,
    announce: Ref<Announce>,
}

impl Placard {
    async fn change(&self, change: impl FnOnce(&mut Found)) {
        let advert = {
            let mut found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
            change(&mut found);
            let circuits = found.relays.iter();
            let circuits = circuits.map(|relay| Address::through(relay).to_string());
            let control = match found.direct.is_empty() {
                true => circuits.collect(),
                false => found.direct.clone(),
            };
            Advert {
                control,
                ..self.advert.clone()
            }
        };
        if let Err(TellError::Full(announce) | TellError::Closed(announce)) =
            self.announce.tell(Announce { advert }).await
        {
            tracing::debug!(
                addresses = announce.advert.control.len(),
                "nobody announces this node any more"
            );
        }
    }
}

/// Says where this node is reached: where relays have found it to be, else through those of these nodes that relay and are linked
/// with it. Ends with the node.
pub(crate) fn say_where(
    paths: &Paths,
    bootstrap: impl IntoIterator<Item = NodeId>,
    advert: Advert,
    announce: Ref<Announce>,
) {
    let placard = Placard {
        advert,
        found: Arc::default(),
        announce,
    };
    let env = &paths.outward.env;
    for relay in bootstrap {
        let place = Place {
            outward: paths.outward.clone(),
            relay,
            placard: placard.clone(),
            verdict: paths.verdict.subscribe(),
        };
        env.spawn(async move {
            if let Err(latest::Ended) = place.keep().await {
                tracing::debug!(%relay, "this node is stopping");
            }
        });
    }
    env.spawn(say_what_was_reached(paths.verdict.subscribe(), placard));
}

async fn say_what_was_reached(mut verdict: latest::Receiver<Verdict>, placard: Placard) {
    loop {
        let found = verdict.borrow_and_update().clone();
        if let Verdict::Reachable(at) = found {
            let direct: Vec<String> = at.iter().map(Address::to_string).collect();
            tracing::info!(at = %direct.join(","), "reached directly");
            placard.change(|found| found.direct = direct).await;
        }
        if verdict.changed().await.is_err() {
            return;
        }
    }
}

/// A place at a relay.
struct Place {
    outward: Outward,
    relay: NodeId,
    placard: Placard,
    verdict: latest::Receiver<Verdict>,
}

impl Place {
    async fn keep(mut self) -> Result<(), latest::Ended> {
        let relay = self.relay;
        let mut linked = self.outward.steward.linked.clone();
        loop {
            drop(
                self.verdict
                    .wait_for(|verdict| *verdict == Verdict::Unreachable)
                    .await?,
            );
            drop(linked.wait_for(|linked| linked.contains(&relay)).await?);
            let direct = self.outward.direct(&relay);
            let Some(at) = direct.first() else {
                self.outward.env.sleep(ASK_AGAIN).await;
                continue;
            };
            match self.outward.control.reserve(relay, at).await {
                Ok(()) => {
                    tracing::info!(%relay, "reached through a relay");
                    self.placard
                        .change(|found| {
                            found.relays.insert(relay);
                        })
                        .await;
                    drop(linked.wait_for(|linked| !linked.contains(&relay)).await?);
                    self.placard
                        .change(|found| {
                            found.relays.remove(&relay);
                        })
                        .await;
                }
                Err(error) => {
                    tracing::debug!(%relay, %error, "no place at it");
                    self.outward.env.sleep(ASK_AGAIN).await;
                }
            }
        }
    }
}
