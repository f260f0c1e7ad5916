//! What a receiver signs for: each record once, for the relayer that asks first after it was taken.
//! Spec: docs/spec/metering.md, "Receipts".

use pqcnet_crypto::NodeId;
use pqcnet_messages::{Receipt, Series};

use super::subscription::Counts;

/// Where the counting stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mark {
    /// The last offset taken.
    pub offset: u64,
    /// What was taken up to there, since the subscription's first start.
    pub counts: Counts,
}

/// What is to be signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Due {
    /// Where this relayer's account begins.
    pub after: u64,
    /// The last offset taken.
    pub last: u64,
    /// What was taken in between.
    pub counts: Counts,
}

/// What to do with a relayer's question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Nothing was taken that another relayer has not been given a receipt for.
    Nothing,
    /// Nothing was taken since this one was signed.
    Same(Box<Receipt>),
    /// Sign this, then [`Tally::signed`].
    Sign(Due),
}

/// One subscription's receipts.
#[derive(Clone, Debug)]
pub struct Tally {
    /// Names the subscription over all its links.
    pub series: Series,
    relayer: Option<NodeId>,
    /// Where the account of `relayer` begins.
    base: Mark,
    /// Up to where everything is signed for.
    signed: Mark,
    last: Option<Box<Receipt>>,
}

impl Tally {
    /// Of a subscription that starts behind `after`.
    pub fn new(series: Series, after: u64) -> Tally {
        let start = Mark {
            offset: after,
            counts: Counts::default(),
        };
        Tally {
            series,
            relayer: None,
            base: start,
            signed: start,
            last: None,
        }
    }

    /// A relayer asks, and so much is taken.
    pub fn ask(&mut self, relayer: NodeId, taken: Mark) -> Answer {
        if self.relayer != Some(relayer) {
            // What was signed for one relayer is never signed for another.
            self.relayer = Some(relayer);
            self.base = self.signed;
            self.last = None;
        }
        if taken == self.signed
            && let Some(receipt) = &self.last
        {
            return Answer::Same(receipt.clone());
        }
        // What was passed over because it is no longer kept was not taken.
        if taken.counts.frames <= self.base.counts.frames {
            return Answer::Nothing;
        }
        // Before the signature is made: should another relayer ask meanwhile, its account begins behind this one.
        self.signed = taken;
        self.last = None;
        Answer::Sign(Due {
            after: self.base.offset,
            last: taken.offset,
            counts: Counts {
                frames: taken.counts.frames - self.base.counts.frames,
                bytes: taken.counts.bytes - self.base.counts.bytes,
            },
        })
    }

    /// The signature is made; if nothing was asked meanwhile it answers the next question too.
    pub fn signed(&mut self, receipt: Receipt) {
        let statement = &receipt.statement;
        if self.relayer == Some(statement.relayer) && self.signed.offset == statement.last {
            self.last = Some(Box::new(receipt));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pqcnet_crypto::NodeKeys;
    use pqcnet_messages::{Channel, ChannelName, Statement};

    fn node(byte: u8) -> NodeId {
        NodeId::from_bytes([byte; 32])
    }

    fn taken(offset: u64, frames: u64) -> Mark {
        let counts = Counts {
            frames,
            bytes: frames * 10,
        };
        Mark { offset, counts }
    }

    fn sign(relayer: NodeId, due: Due) -> Receipt {
        let keys = NodeKeys::generate();
        let statement = Statement {
            network_id: [0; 32],
            receiver: keys.node_id(),
            relayer,
            channel: Channel {
                owner: node(9),
                name: ChannelName::new("a").unwrap(),
            },
            series: Series([1; 16]),
            window: 1,
            after: due.after,
            last: due.last,
            frames: due.counts.frames,
            bytes: due.counts.bytes,
            signed_at_ms: 0,
        };
        statement.sign(&keys)
    }

    // A subscription from offset 5 on. Nothing taken: nothing to sign. Three records: signed for the relayer; asked again, the
    // same receipt; two more: the receipt counts all five. Then another relayer asks: it gets what came since, never what the
    // first was given; and the first, when it asks again, begins behind the second.
    #[test]
    fn each_record_is_signed_for_once() {
        let (first, second) = (node(1), node(2));
        let mut tally = Tally::new(Series([1; 16]), 5);
        assert_eq!(tally.ask(first, taken(5, 0)), Answer::Nothing);
        let Answer::Sign(due) = tally.ask(first, taken(8, 3)) else {
            panic!("three were taken");
        };
        assert_eq!((due.after, due.last, due.counts.frames), (5, 8, 3));
        let receipt = sign(first, due);
        tally.signed(receipt.clone());
        let again = tally.ask(first, taken(8, 3));
        assert_eq!(again, Answer::Same(Box::new(receipt)));
        let Answer::Sign(due) = tally.ask(first, taken(10, 5)) else {
            panic!("two more were taken");
        };
        assert_eq!((due.after, due.last, due.counts.bytes), (5, 10, 50));
        assert_eq!(tally.ask(second, taken(10, 5)), Answer::Nothing);
        let Answer::Sign(due) = tally.ask(second, taken(12, 7)) else {
            panic!("two more were taken");
        };
        assert_eq!((due.after, due.last, due.counts.frames), (10, 12, 2));
        assert_eq!(tally.ask(first, taken(12, 7)), Answer::Nothing);
        let Answer::Sign(due) = tally.ask(first, taken(13, 8)) else {
            panic!("one more was taken");
        };
        assert_eq!((due.after, due.last, due.counts.frames), (12, 13, 1));
    }
}
