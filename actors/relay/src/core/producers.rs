//! The producers of one channel: what each may append next. Spec: docs/spec/relay.md §2.

use std::collections::BTreeMap;

use pqcnet_log::ProducerMark;
use pqcnet_messages::Refusal;
use pqcnet_messages::moving::Mark;

/// How far one producer got.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Progress {
    /// Highest sequence admitted, and its offset. Reached the disk or is on its way.
    pub admitted: (u64, u64),
    /// Highest sequence known durable, and its offset.
    pub durable: (u64, u64),
    /// Number of the batch that holds the highest admitted one.
    pub batch: u64,
    used: u64,
    /// Takes nothing more; it goes when room is needed.
    fenced: bool,
}

/// What to do with a publish of sequences `first..=last`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Append all but the first `skip`, which were admitted before.
    Admit {
        /// How many to leave out.
        skip: usize,
    },
    /// All of it is durable; so is everything up to this sequence, which is at this offset.
    Stored {
        /// Highest durable sequence of the producer.
        sequence: u64,
        /// Its offset.
        offset: u64,
    },
    /// All of it is on its way in batch `batch`.
    UnderWay {
        /// Highest admitted sequence of the producer.
        sequence: u64,
        /// Its offset.
        offset: u64,
        /// Batch to wait for.
        batch: u64,
    },
}

/// A bounded set of producers; the one unused longest goes when room is needed.
#[derive(Debug)]
pub struct Producers {
    by_epoch: BTreeMap<u64, Progress>,
    forgotten: u64,
    clock: u64,
}

impl Producers {
    /// Producers as stored. Those that stored last count as used last.
    pub fn restored(marks: &[ProducerMark], forgotten: u64) -> Self {
        let by_epoch = marks.iter().map(|mark| {
            let at = (mark.sequence, mark.offset);
            let progress = Progress {
                admitted: at,
                durable: at,
                batch: 0,
                used: mark.offset,
                fenced: false,
            };
            (mark.epoch, progress)
        });
        Self {
            by_epoch: by_epoch.collect(),
            forgotten,
            clock: marks.iter().map(|m| m.offset).max().unwrap_or(0),
        }
    }

    /// Keeps those of `earlier` that never stored anything, with nothing admitted: their epochs stay good.
    pub fn keep_unused(&mut self, earlier: &Producers, max: usize) {
        for (epoch, progress) in &earlier.by_epoch {
            if progress.durable.0 == 0 && self.by_epoch.len() < max {
                self.by_epoch.entry(*epoch).or_default();
            }
        }
    }

    /// Highest epoch ever dropped after it had stored something.
    pub fn forgotten(&self) -> u64 {
        self.forgotten
    }

    /// Adds a producer. When `max` are there, the one unused longest with nothing on its way goes: the epoch to remove
    /// from the disk is returned, if it had stored anything.
    pub fn open(&mut self, epoch: u64, max: usize) -> Result<Option<u64>, Refusal> {
        let mut dropped = None;
        if self.by_epoch.len() >= max {
            let idle = self
                .by_epoch
                .iter()
                .filter(|(_, p)| p.admitted == p.durable);
            let oldest = idle
                .min_by_key(|(epoch, p)| (!p.fenced, p.used, **epoch))
                .map(|(epoch, _)| *epoch);
            let oldest = oldest.ok_or(Refusal::Busy)?;
            if self
                .by_epoch
                .remove(&oldest)
                .is_some_and(|p| p.durable.0 > 0)
            {
                self.forgotten = self.forgotten.max(oldest);
                dropped = Some(oldest);
            }
        }
        self.clock += 1;
        let used = self.clock;
        self.by_epoch.insert(
            epoch,
            Progress {
                used,
                ..Progress::default()
            },
        );
        Ok(dropped)
    }

    /// Takes nothing more under `epoch`; what is on its way goes on. Returns the epoch if its mark can be removed from the
    /// disk now. One that never stored anything is forgotten as if it had: what it has on its way may yet be.
    pub fn fence(&mut self, epoch: u64) -> Option<u64> {
        let progress = self.by_epoch.get_mut(&epoch)?;
        self.forgotten = self.forgotten.max(epoch);
        if progress.admitted != progress.durable {
            progress.fenced = true;
            return None;
        }
        let stored = progress.durable.0 > 0;
        self.by_epoch.remove(&epoch);
        stored.then_some(epoch)
    }

    /// Judges sequences `first..first + count` of `epoch`; `count` is at least 1 and the end fits a u64.
    pub fn judge(&mut self, epoch: u64, first: u64, count: usize) -> Result<Verdict, Refusal> {
        self.clock += 1;
        let Some(progress) = self.by_epoch.get_mut(&epoch) else {
            // Above the mark nothing was ever stored under it, so a fresh epoch may repeat its messages. At or below,
            // something may have been.
            return Err(if epoch <= self.forgotten {
                Refusal::StaleEpoch
            } else {
                Refusal::UnknownProducer
            });
        };
        if progress.fenced {
            return Err(Refusal::StaleEpoch);
        }
        progress.used = self.clock;
        let (admitted, _) = progress.admitted;
        let last = first + (count as u64 - 1);
        if first > admitted + 1 {
            Err(Refusal::Gap {
                expected: admitted + 1,
            })
        } else if last <= progress.durable.0 {
            let (sequence, offset) = progress.durable;
            Ok(Verdict::Stored { sequence, offset })
        } else if last <= admitted {
            let (sequence, offset) = progress.admitted;
            let batch = progress.batch;
            Ok(Verdict::UnderWay {
                sequence,
                offset,
                batch,
            })
        } else {
            // At most `count` fits a usize, so this does.
            Ok(Verdict::Admit {
                skip: (admitted + 1 - first) as usize,
            })
        }
    }

    /// Sequences up to `sequence`, at `offset`, went into batch `batch`.
    pub fn admitted(&mut self, epoch: u64, sequence: u64, offset: u64, batch: u64) {
        if let Some(progress) = self.by_epoch.get_mut(&epoch) {
            progress.admitted = (sequence, offset);
            progress.batch = batch;
        }
    }

    /// Sequences up to `sequence`, at `offset`, are on disk.
    pub fn durable(&mut self, epoch: u64, sequence: u64, offset: u64) {
        if let Some(progress) = self.by_epoch.get_mut(&epoch) {
            progress.durable = (sequence, offset);
        }
    }

    /// How far each got that may go on, ascending by epoch.
    pub fn marks(&self) -> Vec<Mark> {
        let going = self
            .by_epoch
            .iter()
            .filter(|(_, p)| !p.fenced && p.durable.0 > 0);
        let marks = going.map(|(epoch, progress)| Mark {
            epoch: *epoch,
            sequence: progress.durable.0,
            offset: progress.durable.1,
        });
        marks.collect()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.by_epoch.len()
    }

    /// True when there is none.
    pub fn is_empty(&self) -> bool {
        self.by_epoch.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(epochs: &[u64], max: usize) -> Producers {
        let mut producers = Producers::restored(&[], 0);
        for epoch in epochs {
            producers.open(*epoch, max).unwrap();
        }
        producers
    }

    // One producer sends 1-3, repeats them in flight and after, overlaps, and skips ahead.
    #[test]
    fn every_verdict() {
        let mut p = with(&[5], 4);
        assert_eq!(p.judge(5, 2, 1), Err(Refusal::Gap { expected: 1 }));
        assert_eq!(p.judge(5, 1, 3), Ok(Verdict::Admit { skip: 0 }));
        p.admitted(5, 3, 10, 7);
        let under_way = Verdict::UnderWay {
            sequence: 3,
            offset: 10,
            batch: 7,
        };
        assert_eq!(p.judge(5, 1, 3), Ok(under_way));
        assert_eq!(p.judge(5, 2, 4), Ok(Verdict::Admit { skip: 2 }));
        p.durable(5, 3, 10);
        assert_eq!(
            p.judge(5, 1, 1),
            Ok(Verdict::Stored {
                sequence: 3,
                offset: 10
            })
        );
        assert_eq!(p.judge(5, 5, 1), Err(Refusal::Gap { expected: 4 }));
        assert_eq!(p.judge(6, 1, 1), Err(Refusal::UnknownProducer));
    }

    // Room for two. The unused one goes without a trace; one that stored leaves its epoch behind as stale.
    #[test]
    fn the_longest_unused_goes() {
        let mut p = with(&[1, 2], 2);
        p.judge(1, 1, 1).unwrap();
        p.admitted(1, 1, 1, 1);
        p.durable(1, 1, 1);
        assert_eq!(p.open(3, 2), Ok(None));
        assert_eq!(p.judge(2, 1, 1), Err(Refusal::UnknownProducer));
        p.judge(3, 1, 1).unwrap();
        assert_eq!(p.open(4, 2), Ok(Some(1)));
        assert_eq!((p.forgotten(), p.len()), (1, 2));
        assert_eq!(p.judge(1, 2, 1), Err(Refusal::StaleEpoch));
        assert!(!p.is_empty());
    }

    // Both have something on its way: neither may go.
    #[test]
    fn none_goes_while_its_messages_are_under_way() {
        let mut p = with(&[1, 2], 2);
        p.admitted(1, 1, 1, 1);
        p.admitted(2, 1, 2, 1);
        assert_eq!(p.open(3, 2), Err(Refusal::Busy));
    }

    // After a restart: the mark is known, and of two restored ones the one that stored earlier goes first.
    #[test]
    fn marks_survive_a_restart() {
        let marks = [
            ProducerMark {
                epoch: 9,
                sequence: 4,
                offset: 40,
            },
            ProducerMark {
                epoch: 8,
                sequence: 7,
                offset: 90,
            },
        ];
        let mut p = Producers::restored(&marks, 3);
        assert_eq!(
            p.judge(9, 4, 1),
            Ok(Verdict::Stored {
                sequence: 4,
                offset: 40
            })
        );
        let mut p = Producers::restored(&marks, 3);
        assert_eq!(p.open(10, 2), Ok(Some(9)));
        assert_eq!(p.judge(3, 1, 1), Err(Refusal::StaleEpoch));
    }

    // Storage failed and was reopened: what was opened but never stored is kept with nothing admitted.
    #[test]
    fn unused_producers_outlive_a_reopen() {
        let mut before = with(&[1, 2], 4);
        before.admitted(1, 3, 3, 1);
        let mark = ProducerMark {
            epoch: 2,
            sequence: 1,
            offset: 1,
        };
        let mut after = Producers::restored(&[mark], 0);
        after.keep_unused(&before, 4);
        assert_eq!(after.judge(1, 1, 1), Ok(Verdict::Admit { skip: 0 }));
        assert_eq!(after.judge(2, 2, 1), Ok(Verdict::Admit { skip: 0 }));
    }

    // A successor takes over while something of the old epoch is on its way: that lands, nothing else does, and when room is
    // needed the old one goes first. One that is idle goes at once, with its mark; one that nobody knows changes nothing.
    #[test]
    fn a_superseded_epoch_takes_nothing_more() {
        let mut p = with(&[1, 2], 3);
        p.judge(1, 1, 2).unwrap();
        p.admitted(1, 2, 2, 1);
        assert_eq!(p.fence(1), None);
        assert_eq!(p.judge(1, 3, 1), Err(Refusal::StaleEpoch));
        assert_eq!(p.judge(1, 1, 2), Err(Refusal::StaleEpoch));
        p.durable(1, 2, 2);
        p.open(3, 3).unwrap();
        assert_eq!(p.open(4, 3), Ok(Some(1)));
        p.judge(3, 1, 1).unwrap();
        p.admitted(3, 1, 3, 2);
        p.durable(3, 1, 3);
        assert_eq!(p.fence(3), Some(3));
        assert_eq!(p.judge(3, 1, 1), Err(Refusal::StaleEpoch));
        assert_eq!(p.fence(4), None);
        assert_eq!(p.judge(4, 1, 1), Err(Refusal::StaleEpoch));
        assert_eq!(p.fence(9), None);
        assert_eq!(p.judge(9, 1, 1), Err(Refusal::UnknownProducer));
        assert_eq!((p.len(), p.forgotten()), (1, 4));
    }
}
