//! The steward and the mesh: links of those who may not be linked any more, what the mesh counts, what is wrong with it.

use std::sync::Arc;

use futures::FutureExt as _;
use pqcnet_actor::Cx;
use pqcnet_crypto::NodeId;
use pqcnet_link::Reason;
use pqcnet_mesh::{Authority, Standing};
use pqcnet_messages::control::Plane;

use super::Steward;
use crate::core::pairs::{PairLink, surplus};
use crate::problem::{Code, Problem};

impl Steward {
    /// Looks at every link again whenever a directive or a ban has changed something.
    pub(super) fn watch_authority(&self, mut authority: Authority, cx: &mut Cx<Self>) {
        let changed = async move {
            authority.changed().await;
            authority
        };
        cx.spawn(changed.boxed(), |steward, authority, cx| {
            steward.expel(cx);
            steward.watch_authority(authority, cx);
        });
    }

    /// Closes the links of whoever may not be linked any more.
    pub(super) fn expel(&mut self, cx: &mut Cx<Self>) {
        let mut barred = Vec::new();
        for link in self.links.values_mut().filter(|link| !link.closing) {
            let peer = link.handle.peer();
            if let Err(standing) = self.config.authority.admit(peer.node_id, peer.role) {
                tracing::warn!(peer = %peer.node_id, role = %peer.role, %standing, "closing its link");
                link.closing = true;
                barred.push(peer.node_id);
                link.handle.close_with(Reason::Role, &standing.to_string());
            }
        }
        for peer in barred {
            self.disconnect(peer, cx);
        }
    }

    /// A link has come: from now on its loss is a problem.
    pub(super) fn meet(&mut self, peer: NodeId, plane: Plane) {
        let standings = self.config.authority.standings();
        let seat = standings.seat(peer);
        for (id, of) in &self.config.expected {
            if plane == Plane::Control && *of == plane && standings.seat(*id) == seat {
                self.starting.meet(*id);
            }
        }
    }

    /// Of several control links with one node, closes those that are too many.
    pub(super) fn pair(&mut self, peer: NodeId) {
        let of_pair = self.links.iter().filter(|(_, link)| {
            link.is_of_pair() && !link.closing && link.handle.peer().node_id == peer
        });
        let links: Vec<PairLink> = of_pair
            .map(|(number, link)| PairLink {
                number: *number,
                dialled_here: link.dialled_here,
            })
            .collect();
        for number in surplus(self.config.node_id, peer, &links) {
            if let Some(link) = self.links.get_mut(&number) {
                tracing::info!(%peer, "closing a second link of the pair");
                link.closing = true;
                link.handle
                    .close_with(Reason::Closed, "a second link of the pair");
            }
        }
    }

    /// Diallers wait while there is a link that the other side dialled.
    pub(super) fn tell_linked(&self) {
        let links = self.links.values().filter(|link| link.is_of_pair());
        let linked = links.map(|link| link.handle.peer().node_id).collect();
        self.config.linked.send_if_modified(|told| {
            let changed = **told != linked;
            *told = Arc::new(linked);
            changed
        });
    }

    /// The connection under the links of the control plane goes too, once they have said why.
    fn disconnect(&self, peer: NodeId, cx: &mut Cx<Self>) {
        let control = self.config.control.clone();
        cx.after(super::FAREWELL, move |_, cx| {
            cx.spawn(
                async move { control.disconnect(peer).await },
                move |_, done, _| {
                    if let Err(error) = done {
                        tracing::debug!(%peer, %error, "not disconnected");
                    }
                },
            );
        });
    }

    /// Whether a link to a node is to be had at all.
    pub(super) fn is_expected(&self, peer: NodeId) -> bool {
        match self.config.authority.valid(peer) {
            // That it is not wanted for a while does not make it dispensable.
            Ok(()) | Err(Standing::Banned { .. }) => true,
            Err(_) => false,
        }
    }

    pub(super) fn mesh_counters(&self) -> Vec<(String, u64)> {
        let view = self.config.view.borrow();
        let count = |number: usize| u64::try_from(number).unwrap_or(u64::MAX);
        let named = [
            ("peers_known", count(view.known)),
            ("peers_heard", count(view.heard)),
            ("peers_linked", count(view.linked)),
            ("peers_banned", count(view.banned)),
            ("adverts_sent", view.announced),
        ];
        named
            .into_iter()
            .map(|(name, value)| (name.to_owned(), value))
            .collect()
    }

    pub(super) fn mesh_problems(&self, cx: &Cx<Self>) -> Vec<Problem> {
        let mut problems = Vec::new();
        let (me, role) = (self.config.node_id, self.config.role);
        if let Err(standing) = self.config.authority.admit(me, role) {
            problems.push(
                Code::NodeBarred
                    .problem("the network does not let this node in any more")
                    .because(standing.to_string()),
            );
        }
        let lapsed = self.config.authority.standings().lapsed(cx.wall_ms());
        if let Some(first) = lapsed.first() {
            let more = match lapsed.len() {
                1 => String::new(),
                many => format!(" and {} more", many - 1),
            };
            problems.push(
                Code::LeaseOver
                    .problem(format!("the lease of {first}{more} is over"))
                    .because("the root has not renewed it")
                    .explaining(lapsed),
            );
        }
        let view = self.config.view.borrow();
        if let Some(needed) = view.short_of {
            let told = format!(
                "links to {} others, {needed} are needed to hear of everything",
                view.linked
            );
            problems.push(
                Code::PeersLost
                    .problem(told)
                    .because("the others are down, or this node is cut off from them"),
            );
        }
        problems
    }
}
