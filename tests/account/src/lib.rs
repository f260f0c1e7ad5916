//! Who was promised what, and what became of it.
//!
//! - [`Account`] is judged at the end: what was sent, acknowledged, delivered, stored, and what is on the disks.
//! - [`Running`] is judged while it is written.

mod running;

use std::collections::BTreeMap;
use std::fmt;

pub use running::{Broken, Running};

/// One channel's account. Messages are numbered by the test, from 0; offsets are the network's, from 1.
#[derive(Debug, Default)]
pub struct Account {
    /// Messages handed to the publisher.
    pub sent: u64,
    /// Acknowledged messages, with the offset named in the acknowledgement.
    pub acked: BTreeMap<u64, Option<u64>>,
    /// Messages that failed, with the reason.
    pub failed: BTreeMap<u64, String>,
    /// What the running subscriber saw, in order: offset and message.
    pub delivered: Vec<(u64, u64)>,
    /// Offsets presented when it came back, each with the first offset it then got.
    pub resumed: Vec<(u64, Option<u64>)>,
    /// What is there at the end, read from the beginning.
    pub stored: Vec<(u64, u64)>,
    /// The same, read from the stopped relayer's disk.
    pub on_disk: Vec<(u64, u64)>,
}

/// What the ledger says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Handed over.
    pub sent: u64,
    /// Acknowledged.
    pub acked: u64,
    /// Stored.
    pub stored: u64,
    /// On the relayers' disks.
    pub on_disk: u64,
    /// Delivered to running subscribers.
    pub delivered: u64,
    /// Resumptions checked.
    pub resumed: u64,
    /// Records that the disk has and the network does not show, or the other way round.
    pub disk_differs: u64,
    /// Acknowledged, but not stored, or not at the acknowledged offset.
    pub lost: u64,
    /// Stored more than once.
    pub duplicated: u64,
    /// Stored after a message that was sent later.
    pub out_of_order: u64,
    /// Holes or repetitions in the stored offsets.
    pub holes: u64,
    /// Delivered at or below an offset that the subscriber had presented, or not the next one.
    pub delivered_wrong: u64,
    /// Delivered something else than what is stored at that offset.
    pub delivered_other: u64,
    /// Acknowledged, but never delivered to the running subscriber.
    pub undelivered: u64,
    /// Failed with an error, outcome unknown included.
    pub failed: u64,
}

impl Account {
    /// Checks the account and adds it to the verdict.
    pub fn judge(&self, verdict: &mut Verdict) {
        let by_offset: BTreeMap<u64, u64> = self.stored.iter().copied().collect();
        let mut places: BTreeMap<u64, Vec<u64>> = BTreeMap::new();
        for (offset, message) in &self.stored {
            places.entry(*message).or_default().push(*offset);
        }
        verdict.sent += self.sent;
        verdict.acked += self.acked.len() as u64;
        verdict.stored += self.stored.len() as u64;
        verdict.on_disk += self.on_disk.len() as u64;
        let shared = self.stored.iter().zip(&self.on_disk);
        let differing = shared.filter(|(shown, kept)| shown != kept).count();
        let missing = self.stored.len().abs_diff(self.on_disk.len());
        verdict.disk_differs += (differing + missing) as u64;
        verdict.delivered += self.delivered.len() as u64;
        verdict.resumed += self.resumed.len() as u64;
        verdict.failed += self.failed.len() as u64;
        for (message, offset) in &self.acked {
            let at = places.get(message);
            let there = at.is_some_and(|at| offset.is_none_or(|offset| at.contains(&offset)));
            verdict.lost += u64::from(!there);
        }
        verdict.duplicated += places.values().map(|at| at.len() as u64 - 1).sum::<u64>();
        for pair in self.stored.windows(2) {
            verdict.out_of_order += u64::from(pair[1].1 < pair[0].1);
        }
        for (index, (offset, _)) in self.stored.iter().enumerate() {
            verdict.holes += u64::from(*offset != index as u64 + 1);
        }
        for (index, (offset, message)) in self.delivered.iter().enumerate() {
            verdict.delivered_wrong += u64::from(*offset != index as u64 + 1);
            verdict.delivered_other += u64::from(by_offset.get(offset) != Some(message));
        }
        for (presented, first) in &self.resumed {
            let wrong = first.is_some_and(|first| first != presented + 1);
            verdict.delivered_wrong += u64::from(wrong);
        }
        let mut delivered: Vec<u64> = self.delivered.iter().map(|(_, message)| *message).collect();
        delivered.sort_unstable();
        for message in self.acked.keys() {
            let missing = delivered.binary_search(message).is_err();
            verdict.undelivered += u64::from(missing);
        }
    }
}

impl Verdict {
    /// Nothing lost, doubled, reordered or delivered wrongly.
    pub fn is_clean(&self) -> bool {
        let faults = [
            self.lost,
            self.duplicated,
            self.out_of_order,
            self.holes,
            self.delivered_wrong,
            self.delivered_other,
            self.undelivered,
            self.disk_differs,
        ];
        faults == [0; 8]
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "sent {}  acked {}  failed {}  stored {}  on disk {}  delivered {}  resumptions {}",
            self.sent,
            self.acked,
            self.failed,
            self.stored,
            self.on_disk,
            self.delivered,
            self.resumed
        )?;
        write!(
            f,
            "lost {}  duplicated {}  out of order {}  holes {}  delivered wrongly {}  other {}  undelivered {}  disk differs {}",
            self.lost,
            self.duplicated,
            self.out_of_order,
            self.holes,
            self.delivered_wrong,
            self.delivered_other,
            self.undelivered,
            self.disk_differs
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn account() -> Account {
        Account {
            sent: 3,
            acked: BTreeMap::from([(0, Some(1)), (1, None), (2, Some(3))]),
            delivered: vec![(1, 0), (2, 1), (3, 2)],
            resumed: vec![(1, Some(2)), (3, None)],
            stored: vec![(1, 0), (2, 1), (3, 2)],
            on_disk: vec![(1, 0), (2, 1), (3, 2)],
            ..Account::default()
        }
    }

    fn judged(account: &Account) -> Verdict {
        let mut verdict = Verdict::default();
        account.judge(&mut verdict);
        verdict
    }

    /// A ledger that could not see a fault would prove nothing: each kind of fault is made once and found.
    #[test]
    fn every_fault_is_found() {
        let clean = judged(&account());
        assert!(clean.is_clean(), "{clean}");
        assert_eq!((clean.sent, clean.acked, clean.stored), (3, 3, 3));

        type Break = fn(&mut Account);
        type Count = fn(&Verdict) -> u64;
        let breaks: [(Break, Count); 10] = [
            (
                |a| {
                    a.stored.pop();
                },
                |v| v.lost,
            ),
            (
                |a| {
                    a.acked.insert(2, Some(2));
                },
                |v| v.lost,
            ),
            (|a| a.stored.push((4, 2)), |v| v.duplicated),
            (|a| a.stored.extend([(4, 5), (5, 4)]), |v| v.out_of_order),
            (|a| a.stored[2].0 = 4, |v| v.holes),
            (|a| a.delivered[1].0 = 1, |v| v.delivered_wrong),
            (|a| a.resumed[0].1 = Some(1), |v| v.delivered_wrong),
            (|a| a.delivered[1].1 = 7, |v| v.delivered_other),
            (|a| a.on_disk[1].1 = 7, |v| v.disk_differs),
            (
                |a| {
                    a.delivered.pop();
                },
                |v| v.undelivered,
            ),
        ];
        for (number, (spoil, count)) in breaks.into_iter().enumerate() {
            let mut spoilt = account();
            spoil(&mut spoilt);
            let verdict = judged(&spoilt);
            assert!(
                count(&verdict) > 0 && !verdict.is_clean(),
                "fault {number}: {verdict}"
            );
        }
    }
}
