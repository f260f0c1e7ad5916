//! What a producer does after a failure, and when time is up.

use std::collections::VecDeque;
use std::time::Duration;

use pqcnet_messages::Refusal;

use super::{Effect, Failure, Phase, Producer};

impl<T> Producer<T> {
    /// Once every answer is in after a failure: decide by the first unacknowledged batch.
    pub(super) fn settle(&mut self, now: Duration, random: u64) {
        if self.phase != Phase::Settling || self.outstanding() > 0 {
            return;
        }
        let Some(first) = self.in_flight.front() else {
            self.phase = self.ready_phase();
            return;
        };
        match first.refused.clone() {
            Some(Refusal::UnknownProducer) if !self.acked_any => {
                for batch in &mut self.in_flight {
                    batch.doubtful = false;
                }
                self.abandon_epoch(None);
            }
            Some(Refusal::UnknownProducer | Refusal::StaleEpoch) => self.abandon_epoch(None),
            // The owner lost what it had acknowledged: these numbers mean something else to it.
            Some(Refusal::Gap { expected }) if expected < first.first_seq => {
                self.abandon_epoch(None)
            }
            Some(refusal) if !retries(&refusal) => self.abandon_epoch(Some(refusal)),
            Some(_) | None => {}
        }
        self.phase = Phase::Pausing(self.pause.until(now, random));
    }

    /// Gives the epoch up. What may be stored ends unknown; the rest is queued again, in order; with `fatal` the first
    /// batch was refused for good.
    fn abandon_epoch(&mut self, fatal: Option<Refusal>) {
        self.given_up = self.epoch.take().or(self.given_up);
        let mut again = VecDeque::new();
        for (index, batch) in std::mem::take(&mut self.in_flight).into_iter().enumerate() {
            let failure = match &fatal {
                _ if batch.doubtful || batch.acked.is_some() => Some(Failure::OutcomeUnknown),
                Some(refusal) if index == 0 => Some(Failure::Refused(refusal.clone())),
                Some(_) | None => None,
            };
            let acked = batch.acked.is_some();
            for mut record in batch.records {
                match &failure {
                    None => {
                        record.refused.clone_from(&batch.refused);
                        again.push_back(record);
                    }
                    Some(_) if acked => {
                        self.effects.push_back(Effect::Done {
                            ticket: record.ticket,
                            offset: None,
                        });
                    }
                    Some(failure) => self.effects.push_back(Effect::Failed {
                        ticket: record.ticket,
                        failure: failure.clone(),
                    }),
                }
            }
        }
        again.append(&mut self.queued);
        self.queued = again;
    }

    pub(super) fn expire(&mut self, now: Duration) {
        let oldest = self.in_flight.front().and_then(|b| b.records.first());
        if oldest.is_some_and(|r| r.deadline <= now) {
            for batch in &mut self.in_flight {
                batch.doubtful |= batch.attempt.is_some();
            }
            self.abandon_epoch(None);
            self.phase = Phase::NoEpoch;
        }
        while let Some(record) = self.queued.pop_front_if(|r| r.deadline <= now) {
            let failure = record.refused.map_or(Failure::NotSent, Failure::Refused);
            self.effects.push_back(Effect::Failed {
                ticket: record.ticket,
                failure,
            });
        }
    }
}

/// A refusal that proves that this attempt stored nothing.
pub(super) fn is_definite(refusal: &Refusal) -> bool {
    matches!(
        refusal,
        Refusal::UnknownProducer
            | Refusal::StaleEpoch
            | Refusal::Gap { .. }
            | Refusal::Busy
            | Refusal::NoRoom
    ) || !refusal.is_retryable()
}

/// A gap closes when the batches before it are repeated.
fn retries(refusal: &Refusal) -> bool {
    refusal.is_retryable() || matches!(refusal, Refusal::Gap { .. })
}
