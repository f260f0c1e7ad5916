//! The peer book: the youngest advert of every node of the network that was heard of.

use std::collections::BTreeMap;
use std::sync::Arc;

use pqcnet_crypto::NodeId;
use pqcnet_messages::{Advert, MAX_HAVE, MAX_PULLED, Pulled, SignedAdvert};
use pqcnet_p2p::network::Address;

/// How long an address is worth trying after its advert is over: a node that was away longer is looked up anew.
pub const KEEP_MS: u64 = 30 * 24 * 3600 * 1000;

/// What became of an advert.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heard {
    /// The first of its node.
    New,
    /// Younger than the one that was known, and from elsewhere.
    Moved,
    /// Of a node that was known from this node's disk only.
    Revived,
    /// Younger than the one that was known; where the node is has not changed.
    Younger,
    /// Known, or older than what is known.
    Known,
    /// The book is full; a network that large needs lookup.
    Full,
    /// This node's own.
    Own,
}

/// Where to find a node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Route {
    /// Its control plane.
    pub control: Vec<Address>,
    /// Its direct streams.
    pub data: Vec<Address>,
}

impl Route {
    fn of(advert: &Advert) -> Route {
        let read = |texts: &[String]| texts.iter().filter_map(|at| at.parse().ok()).collect();
        Route {
            control: read(&advert.control),
            data: read(&advert.data),
        }
    }
}

/// Routes by node; many hold the same ones.
pub type Routes = BTreeMap<NodeId, Arc<Route>>;

/// The advert itself, some six KiB with its keys, stands elsewhere.
#[derive(Clone, Debug)]
struct Page {
    signed: Box<SignedAdvert>,
    stamp: Stamp,
    route: Arc<Route>,
    /// Not from this node's own disk.
    heard: bool,
    /// Gossip that brought it was told to take it further.
    forwarded: bool,
}

/// All that a pull asks of a page whose advert the peer has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Stamp {
    fingerprint: [u8; 8],
    expires_at_ms: u64,
}

/// The book. Whatever comes in has been verified, and its node is a member of the network.
#[derive(Clone, Debug)]
pub struct Book {
    me: NodeId,
    pages: BTreeMap<NodeId, Page>,
    /// Those of all pages, in order and close together: every pull goes through them all, and mostly finds that nothing is lacking.
    stamps: Vec<Stamp>,
    /// Grows whenever [`Book::routes`] changes.
    moves: u64,
}

impl Book {
    /// An empty book of this node.
    pub fn new(me: NodeId) -> Book {
        Book {
            me,
            pages: BTreeMap::new(),
            stamps: Vec::new(),
            moves: 0,
        }
    }

    /// From this node's disk: addresses to try, but no word that the node lives.
    pub fn recall(&mut self, signed: SignedAdvert) {
        self.take(signed, false);
    }

    /// From another node.
    pub fn hear(&mut self, signed: SignedAdvert) -> Heard {
        self.take(signed, true)
    }

    fn take(&mut self, signed: SignedAdvert, heard: bool) -> Heard {
        let node = signed.advert.node_id();
        if node == self.me {
            return Heard::Own;
        }
        let known = self.pages.get(&node);
        let outcome = match known {
            Some(page) if page.signed.advert.issued_at_ms >= signed.advert.issued_at_ms => {
                return Heard::Known;
            }
            Some(page) => {
                let (former, latter) = (&page.signed.advert, &signed.advert);
                let stayed = (&former.control, &former.data) == (&latter.control, &latter.data);
                match stayed {
                    false => Heard::Moved,
                    true if heard && !page.heard => Heard::Revived,
                    true => Heard::Younger,
                }
            }
            None if self.pages.len() >= MAX_HAVE => return Heard::Full,
            None => Heard::New,
        };
        let route = match known {
            Some(page) if outcome != Heard::Moved => Arc::clone(&page.route),
            Some(_) | None => {
                self.moves += 1;
                Arc::new(Route::of(&signed.advert))
            }
        };
        let stamp = Stamp {
            fingerprint: signed.fingerprint(),
            expires_at_ms: signed.advert.expires_at_ms(),
        };
        if let Some(former) = known.map(|page| page.stamp) {
            self.forget_stamp(former);
        }
        let at = self.stamps.partition_point(|other| *other < stamp);
        self.stamps.insert(at, stamp);
        let page = Page {
            stamp,
            route,
            signed: Box::new(signed),
            heard,
            forwarded: false,
        };
        self.pages.insert(node, page);
        outcome
    }

    fn forget_stamp(&mut self, stamp: Stamp) {
        if let Ok(at) = self.stamps.binary_search(&stamp) {
            self.stamps.remove(at);
        }
    }

    /// Whether gossip is to take this advert further: if it is what the book has of its node, and was not forwarded yet. It may have
    /// come by a pull before its gossip did, and those behind this node have only the gossip.
    pub fn forward(&mut self, signed: &SignedAdvert) -> bool {
        let page = self.pages.get_mut(&signed.advert.node_id());
        page.is_some_and(|page| {
            *page.signed == *signed && !std::mem::replace(&mut page.forwarded, true)
        })
    }

    /// Whether one as young is known: then its signature need not be checked.
    pub fn is_known(&self, signed: &SignedAdvert) -> bool {
        let node = signed.advert.node_id();
        let known = self.pages.get(&node);
        node == self.me
            || known
                .is_some_and(|page| page.signed.advert.issued_at_ms >= signed.advert.issued_at_ms)
    }

    /// A node's advert.
    pub fn get(&self, node: &NodeId) -> Option<&SignedAdvert> {
        self.pages.get(node).map(|page| &*page.signed)
    }

    /// Every advert, by node.
    pub fn iter(&self) -> impl Iterator<Item = (NodeId, &SignedAdvert)> {
        self.pages.iter().map(|(node, page)| (*node, &*page.signed))
    }

    /// Where every node is.
    pub fn routes(&self) -> impl Iterator<Item = (NodeId, &Arc<Route>)> {
        self.pages.iter().map(|(node, page)| (*node, &page.route))
    }

    /// How often [`Book::routes`] has changed.
    pub fn moves(&self) -> u64 {
        self.moves
    }

    /// Forgets nodes that are members no more, and those of whom nothing was heard for [`KEEP_MS`]. Says whether there were any.
    pub fn sweep(&mut self, wall_ms: u64, is_member: impl Fn(NodeId) -> bool) -> bool {
        let gone = self.pages.extract_if(.., |node, page| {
            let end = page.stamp.expires_at_ms.saturating_add(KEEP_MS);
            wall_ms >= end || !is_member(*node)
        });
        let gone: Vec<Stamp> = gone.map(|(_, page)| page.stamp).collect();
        for stamp in &gone {
            self.forget_stamp(*stamp);
        }
        self.moves += u64::from(!gone.is_empty());
        !gone.is_empty()
    }

    /// Nodes in the book.
    pub fn len(&self) -> usize {
        self.pages.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.pages.is_empty()
    }

    /// Nodes heard of since this node started, by an advert that still holds.
    pub fn heard(&self, wall_ms: u64) -> usize {
        let pages = self.pages.values();
        pages
            .filter(|page| page.heard && page.stamp.holds(wall_ms))
            .count()
    }

    /// What a pull of ours says that we have.
    pub fn have(&self) -> Vec<[u8; 8]> {
        self.stamps.iter().map(|stamp| stamp.fingerprint).collect()
    }

    /// The first of the adverts that still hold and that a peer with these fingerprints lacks; its own it has.
    pub fn lacking(&self, peer: NodeId, have: &[[u8; 8]], wall_ms: u64) -> Pulled<SignedAdvert> {
        let mut have = have.to_vec();
        have.sort_unstable();
        let own = self.pages.get(&peer).map(|page| page.stamp);
        let lacks = |stamp: &Stamp| {
            stamp.holds(wall_ms)
                && Some(*stamp) != own
                && have.binary_search(&stamp.fingerprint).is_err()
        };
        if !self.stamps.iter().any(lacks) {
            return Pulled {
                items: Vec::new(),
                more: false,
            };
        }
        let mut lacking = (self.pages.iter()).filter(|(_, page)| lacks(&page.stamp));
        let items = lacking.by_ref().take(MAX_PULLED);
        Pulled {
            items: items.map(|(_, page)| (*page.signed).clone()).collect(),
            more: lacking.next().is_some(),
        }
    }
}

impl Stamp {
    fn holds(&self, wall_ms: u64) -> bool {
        wall_ms < self.expires_at_ms
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::testing::{advert, public};
    use proptest::prelude::*;

    const LEASE: u64 = 1000;

    fn id(byte: u8) -> NodeId {
        public(byte).node_id()
    }

    /// Scenario: first word of a node, the same again, an older and a younger one, and this node's own coming back.
    #[test]
    fn the_youngest_holds() {
        let mut book = Book::new(id(1));
        assert_eq!(book.hear(advert(2, 10, LEASE)), Heard::New);
        assert!(book.is_known(&advert(2, 10, LEASE)) && !book.is_known(&advert(2, 11, LEASE)));
        assert_eq!(book.hear(advert(2, 10, LEASE)), Heard::Known);
        assert_eq!(book.hear(advert(2, 9, LEASE)), Heard::Known);
        assert_eq!(book.hear(advert(2, 11, LEASE)), Heard::Younger);
        assert_eq!(book.get(&id(2)), Some(&advert(2, 11, LEASE)));
        assert_eq!(book.hear(advert(1, 11, LEASE)), Heard::Own);
        assert!(book.is_known(&advert(1, 99, LEASE)));
        assert_eq!((book.len(), book.is_empty()), (1, false));
    }

    /// Scenario: an advert that came by a pull is forwarded when its gossip comes, once; so is a younger one; an older one, and one
    /// that differs from what was checked, are not.
    #[test]
    fn forwarded_once() {
        let mut book = Book::new(id(1));
        assert!(!book.forward(&advert(2, 10, LEASE)));
        book.hear(advert(2, 10, LEASE));
        let mut forged = advert(2, 10, LEASE);
        forged.advert.control.clear();
        assert!(!book.forward(&forged));
        assert!(book.forward(&advert(2, 10, LEASE)));
        assert!(!book.forward(&advert(2, 10, LEASE)));
        book.hear(advert(2, 11, LEASE));
        assert!(!book.forward(&advert(2, 10, LEASE)));
        assert!(book.forward(&advert(2, 11, LEASE)));
    }

    /// Scenario: what was on the disk is known, but not heard; an advert younger than it is.
    #[test]
    fn the_disk_is_no_word_of_life() {
        let mut book = Book::new(id(1));
        book.recall(advert(2, 10, LEASE));
        assert_eq!((book.len(), book.heard(10)), (1, 0));
        assert_eq!(book.hear(advert(2, 10, LEASE)), Heard::Known);
        assert_eq!(book.heard(10), 0);
        assert_eq!(book.hear(advert(2, 20, LEASE)), Heard::Revived);
        assert_eq!(book.hear(advert(2, 21, LEASE)), Heard::Younger);
        assert_eq!((book.heard(21), book.heard(21 + LEASE)), (1, 0));
    }

    /// Scenario: a node says the same again, then that it is elsewhere, then it is forgotten: routes change but for the first.
    #[test]
    fn moved() {
        let mut book = Book::new(id(1));
        book.hear(advert(2, 10, LEASE));
        let (moves, here) = (book.moves(), book.routes().next().unwrap().1.clone());
        assert_eq!(book.hear(advert(2, 11, LEASE)), Heard::Younger);
        assert_eq!(book.moves(), moves);
        assert!(Arc::ptr_eq(book.routes().next().unwrap().1, &here));
        let mut elsewhere = advert(2, 12, LEASE);
        elsewhere.advert.data = vec!["127.0.0.1:9".to_owned()];
        assert_eq!(book.hear(elsewhere), Heard::Moved);
        assert_eq!(book.moves(), moves + 1);
        let (_, there) = book.routes().next().unwrap();
        assert_eq!(there.data, ["127.0.0.1:9".parse().unwrap()]);
        assert!(book.sweep(12, |_| false));
        assert_eq!((book.moves(), book.routes().count()), (moves + 2, 0));
    }

    /// Scenario: one node left the network, one was silent for over thirty days, one for a little less.
    #[test]
    fn swept() {
        let mut book = Book::new(id(1));
        for (byte, issued) in [(2, 500), (3, 0), (4, 1)] {
            book.hear(advert(byte, issued, LEASE));
        }
        let wall = LEASE + KEEP_MS;
        assert!(book.sweep(wall, |node| node != id(2)));
        let left: Vec<NodeId> = book.iter().map(|(node, _)| node).collect();
        assert_eq!(left, [id(4)]);
        assert!(!book.sweep(wall, |_| true));
    }

    /// Scenario: a peer gets neither what it has, nor its own, nor what is over.
    #[test]
    fn pulled() {
        let mut book = Book::new(id(1));
        for (byte, issued) in [(2, 100), (3, 100), (4, 0), (5, 100)] {
            book.hear(advert(byte, issued, LEASE));
        }
        let has = [advert(3, 100, LEASE).fingerprint()];
        let page = book.lacking(id(2), &has, LEASE);
        let expected = Pulled {
            items: vec![advert(5, 100, LEASE)],
            more: false,
        };
        assert_eq!(page, expected);
        assert!(book.have().contains(&has[0]));
    }

    proptest! {
        /// Adverts in any order and number: every node ends with the youngest of each, and what one hears from another by
        /// pulls is the same.
        #[test]
        fn books_converge(arrivals in proptest::collection::vec((2u8..7, 0u64..20), 0..60)) {
            let (mut one, mut other) = (Book::new(id(1)), Book::new(id(9)));
            for (who, issued) in &arrivals {
                one.hear(advert(*who, *issued, LEASE));
            }
            for (who, issued) in arrivals.iter().rev() {
                other.hear(advert(*who, *issued, LEASE));
            }
            prop_assert!(one.iter().eq(other.iter()));
            let mut third = Book::new(id(8));
            for signed in one.lacking(id(8), &third.have(), 0).items {
                third.hear(signed);
            }
            prop_assert!(one.iter().eq(third.iter()));
            prop_assert_eq!(one.have(), third.have());
            for (node, signed) in one.iter() {
                let youngest = arrivals.iter().filter(|(who, _)| id(*who) == node).map(|(_, at)| *at).max();
                prop_assert_eq!(Some(signed.advert.issued_at_ms), youngest);
            }
        }
    }
}
