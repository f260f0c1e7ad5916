//! How a node is reached on the control plane: directly, or through a relay; and whether it is such a relay.
//!
//! A node behind a NAT has each bootstrap node that relays take connections for it, and advertises those circuits instead of its own
//! address. Only nodes that use circuits dial them: relays are linked with such a node anyway, and it dials all others itself.
//! docs/spec/control-plane.md, "Reach".

use std::collections::BTreeSet;
use std::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use pqcnet_actor::{Ref, TellError};
use pqcnet_crypto::NodeId;
use pqcnet_mesh::Announce;
use pqcnet_messages::Advert;
use pqcnet_p2p::network::Address;

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
}

/// A word that is none of the three.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not direct, relay or relayed")]
pub struct UnknownReach(String);

impl FromStr for Reach {
    type Err = UnknownReach;

    fn from_str(text: &str) -> Result<Reach, UnknownReach> {
        match text {
            "direct" => Ok(Reach::Direct),
            "relay" => Ok(Reach::Relay),
            "relayed" => Ok(Reach::Relayed),
            other => Err(UnknownReach(other.to_owned())),
        }
    }
}

/// Between attempts to get a place at a bootstrap node: most do not relay, and one that is full has places again when others leave.
const ASK_AGAIN: Duration = Duration::from_secs(30);

/// What a relayed node says of itself: the relays that have given it a place.
#[derive(Clone)]
struct Placard {
    advert: Advert,
    relays: Arc<Mutex<BTreeSet<NodeId>>>,
    announce: Ref<Announce>,
}

impl Placard {
    async fn change(&self, relay: NodeId, placed: bool) {
        let advert = {
            let mut relays = self.relays.lock().unwrap_or_else(PoisonError::into_inner);
            match placed {
                true => relays.insert(relay),
                false => relays.remove(&relay),
            };
            let control = relays
                .iter()
                .map(|relay| Address::through(relay).to_string());
            Advert {
                control: control.collect(),
                ..self.advert.clone()
            }
        };
        if let Err(TellError::Full(announce) | TellError::Closed(announce)) =
            self.announce.tell(Announce { advert }).await
        {
            tracing::debug!(
                circuits = announce.advert.control.len(),
                "nobody announces this node any more"
            );
        }
    }
}

/// Keeps a place at each of these nodes that relays, for as long as there is a link with it, and says so. Ends with the node.
pub(crate) fn keep_places(
    outward: &Outward,
    bootstrap: impl IntoIterator<Item = NodeId>,
    advert: Advert,
    announce: Ref<Announce>,
) {
    let placard = Placard {
        advert,
        relays: Arc::default(),
        announce,
    };
    for relay in bootstrap {
        outward
            .env
            .spawn(keep_place(outward.clone(), relay, placard.clone()));
    }
}

async fn keep_place(outward: Outward, relay: NodeId, placard: Placard) {
    let mut linked = outward.steward.linked.clone();
    loop {
        if linked
            .wait_for(|linked| linked.contains(&relay))
            .await
            .is_err()
        {
            return;
        }
        let direct = outward.direct(&relay);
        let Some(at) = direct.first() else {
            outward.env.sleep(ASK_AGAIN).await;
            continue;
        };
        match outward.control.reserve(relay, at).await {
            Ok(()) => {
                tracing::info!(%relay, "reached through a relay");
                placard.change(relay, true).await;
                if linked
                    .wait_for(|linked| !linked.contains(&relay))
                    .await
                    .is_err()
                {
                    return;
                }
                placard.change(relay, false).await;
            }
            Err(error) => {
                tracing::debug!(%relay, %error, "no place at it");
                outward.env.sleep(ASK_AGAIN).await;
            }
        }
    }
}
