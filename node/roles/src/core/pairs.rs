//! Which of several control links between two nodes stay: one. When both dial at once there are two, and both ends must close
//! the same one, each by what it knows itself.

use pqcnet_crypto::NodeId;

/// A link of a pair, as one end knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PairLink {
    /// Its number here: of two, the younger has the higher.
    pub number: u64,
    /// This end dialled it.
    pub dialled_here: bool,
}

/// The links to close at this end. Of links that both ends dialled, those of the node with the lower id stay: both ends find the
/// same. Of several that one node dialled the youngest stays, and it is the dialler who closes the others, since it knows which it
/// meant.
pub fn surplus(me: NodeId, peer: NodeId, links: &[PairLink]) -> Vec<u64> {
    let is_senior = |link: &PairLink| link.dialled_here == (me < peer);
    let seniors = links.iter().any(is_senior);
    let dialled_here = links.iter().filter(|link| link.dialled_here);
    let youngest = dialled_here.map(|link| link.number).max();
    let goes = |link: &&PairLink| {
        (seniors && !is_senior(link)) || (link.dialled_here && Some(link.number) != youngest)
    };
    links.iter().filter(goes).map(|link| link.number).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(byte: u8) -> NodeId {
        NodeId::from_bytes([byte; 32])
    }

    fn link(number: u64, dialled_here: bool) -> PairLink {
        PairLink {
            number,
            dialled_here,
        }
    }

    /// Scenario: both dialled, and either one's link came first at either end: the lower id's stays, and both ends say so.
    #[test]
    fn both_orders_at_both_ends() {
        let (low, high) = (node(1), node(2));
        for (low_first, low_here) in [(true, true), (true, false), (false, true), (false, false)] {
            let (me, peer) = if low_here { (low, high) } else { (high, low) };
            let of_low = link(u64::from(!low_first), low_here);
            let of_high = link(u64::from(low_first), !low_here);
            for links in [[of_low, of_high], [of_high, of_low]] {
                assert_eq!(surplus(me, peer, &links), [of_high.number]);
            }
            assert_eq!(surplus(me, peer, &[of_high]), Vec::<u64>::new());
        }
    }

    /// Scenario: a node dialled twice, since it did not know of its first link any more: it closes the older one, the other end none.
    #[test]
    fn the_dialler_knows_which_it_meant() {
        for (me, peer) in [(node(1), node(2)), (node(2), node(1))] {
            assert_eq!(surplus(me, peer, &[link(4, true), link(9, true)]), [4]);
            assert_eq!(
                surplus(me, peer, &[link(4, false), link(9, false)]),
                Vec::<u64>::new()
            );
        }
        assert_eq!(surplus(node(1), node(2), &[]), Vec::<u64>::new());
    }

    /// However many links a pair has, dialled by whichever end and known to the ends in whatever order: once both have closed what
    /// they find, one link is left, and never none.
    #[test]
    fn one_is_left() {
        for count in 1..=6u32 {
            for (dialled, low_sees_own_first) in
                (0..1u32 << count).flat_map(|d| [(d, true), (d, false)])
            {
                let by_low: Vec<bool> = (0..count).map(|at| dialled >> at & 1 == 1).collect();
                // A dialler knows its own links in the order in which it made them; where the other's come in between is chance.
                let seen = |low_here: bool, own_first: bool| -> Vec<(usize, PairLink)> {
                    let mut order: Vec<usize> = (0..by_low.len()).collect();
                    order.sort_by_key(|at| ((by_low[*at] == low_here) != own_first, *at));
                    let numbers = order.into_iter().zip(0u64..);
                    numbers
                        .map(|(at, number)| (at, link(number, by_low[at] == low_here)))
                        .collect()
                };
                let mut left: Vec<usize> = (0..by_low.len()).collect();
                for (seen, me, peer) in [
                    (seen(true, low_sees_own_first), node(1), node(2)),
                    (seen(false, true), node(2), node(1)),
                ] {
                    let links: Vec<PairLink> = seen.iter().map(|(_, link)| *link).collect();
                    let gone = surplus(me, peer, &links);
                    left.retain(|at| {
                        !seen
                            .iter()
                            .any(|(which, link)| which == at && gone.contains(&link.number))
                    });
                }
                assert_eq!(left.len(), 1, "{by_low:?}");
            }
        }
    }
}
