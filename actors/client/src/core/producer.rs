//! One producer: numbers what is published, keeps several batches in flight, and repeats what may be lost.
//!
//! A producer epoch, issued by the shard's owner, and a sequence that counts records from 1 identify a publish. A batch
//! whose answer is lost goes out again under the same numbers, so the owner stores it once. The rules:
//!
//! - Batches are sent in sequence order, at most [`Limits::batches_in_flight`] unanswered.
//! - After a failure nothing new is sent until every outstanding answer is in; then all unacknowledged batches are
//!   repeated from the first, unchanged, after a pause. So a gap cannot feed on itself.
//! - An epoch that the owner does not know never stored anything (docs/spec/relay.md §2): its batches go out again under
//!   a new one. When the owner dropped the epoch after it had stored something, a batch that certainly was not stored is
//!   numbered again, and one that may have been ends as [`Failure::OutcomeUnknown`], never as a duplicate.
//! - When the oldest record in flight is past its deadline, everything of unknown fate ends as `OutcomeUnknown` and the
//!   epoch is given up, since a sequence with a hole can not go on. What certainly was not stored is queued again.
//! - The next epoch supersedes the one that was given up: its owner takes nothing more under that, so a message whose
//!   outcome was unknown can not land behind later ones.

mod recovery;

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use pqcnet_actor::Pause;
use pqcnet_messages::Refusal;
use pqcnet_messages::edge::Published;

/// Longest wait for the word to go on. A relayer that is asked again says so within a second.
const HOLD: Duration = Duration::from_secs(2);

/// How much one producer holds and sends.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Records in one batch, at most.
    pub batch_records: usize,
    /// Payload bytes in one batch, at most; a batch always takes one record.
    pub batch_bytes: usize,
    /// Batches unanswered at once.
    pub batches_in_flight: usize,
}

/// Why a record was not published, as far as the core can tell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The network refused it; it is not stored.
    Refused(Refusal),
    /// It may or may not be stored.
    OutcomeUnknown,
    /// Its deadline passed before it could be sent; it is not stored.
    NotSent,
}

/// What became of one attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer<T> {
    /// The network answered.
    Given(Result<T, Refusal>),
    /// No answer: the link went, or time ran out. It may have been carried out.
    Lost,
}

/// What the driver must do next. `T` is the ticket that came with the payload.
#[derive(Debug, PartialEq, Eq)]
pub enum Effect<T> {
    /// Ask for an epoch; answer with [`Producer::on_opened`].
    Open {
        /// The epoch that was given up: what is still on its way under it must not land behind what comes next.
        supersedes: Option<u64>,
    },
    /// Send a batch; answer with [`Producer::on_answer`] under the same `attempt`.
    Send {
        /// Names this sending.
        attempt: u64,
        /// Producer epoch.
        epoch: u64,
        /// Sequence of the first payload.
        first_seq: u64,
        /// The payloads, in order.
        payloads: Vec<Bytes>,
    },
    /// The record is durable.
    Done {
        /// Its ticket.
        ticket: T,
        /// Its offset; `None` if only a repetition was acknowledged and the owner no longer knows where it put it.
        offset: Option<u64>,
    },
    /// The record is given up.
    Failed {
        /// Its ticket.
        ticket: T,
        /// Why.
        failure: Failure,
    },
}

struct Record<T> {
    payload: Bytes,
    ticket: T,
    deadline: Duration,
    /// How its last attempt was refused, if it certainly is not stored.
    refused: Option<Refusal>,
}

struct Batch<T> {
    first_seq: u64,
    records: Vec<Record<T>>,
    /// The attempt whose answer is awaited.
    attempt: Option<u64>,
    /// Some attempt had no definite answer: it may be stored.
    doubtful: bool,
    /// The refusal that the last attempt met.
    refused: Option<Refusal>,
    /// Acknowledged, but a batch before it is not.
    acked: Option<Published>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// No epoch, and none asked for.
    NoEpoch,
    Opening,
    Flowing,
    /// Something failed; no sending until all answers are in.
    Settling,
    /// Until then nothing is sent.
    Pausing(Duration),
}

/// One producer of one channel.
pub struct Producer<T> {
    limits: Limits,
    pause: Pause,
    linked: bool,
    phase: Phase,
    epoch: Option<u64>,
    /// Given up, and its owner does not know yet.
    given_up: Option<u64>,
    next_seq: u64,
    /// Something of this epoch was acknowledged.
    acked_any: bool,
    next_attempt: u64,
    /// The network asked to stop; until then, unless it says earlier to go on.
    held: Option<Duration>,
    queued: VecDeque<Record<T>>,
    in_flight: VecDeque<Batch<T>>,
    effects: VecDeque<Effect<T>>,
}

impl<T> Producer<T> {
    /// A producer without an epoch and without a link.
    pub fn new(limits: Limits, pause: Pause) -> Producer<T> {
        Producer {
            limits,
            pause,
            linked: false,
            phase: Phase::NoEpoch,
            epoch: None,
            given_up: None,
            next_seq: 1,
            acked_any: false,
            next_attempt: 1,
            held: None,
            queued: VecDeque::new(),
            in_flight: VecDeque::new(),
            effects: VecDeque::new(),
        }
    }

    /// Nothing queued and nothing in flight.
    pub fn is_idle(&self) -> bool {
        self.queued.is_empty() && self.in_flight.is_empty() && self.effects.is_empty()
    }

    /// Takes a payload; it must be durable by `deadline`. The caller bounds how much it hands over.
    pub fn push(&mut self, payload: Bytes, ticket: T, deadline: Duration) {
        self.queued.push_back(Record {
            payload,
            ticket,
            deadline,
            refused: None,
        });
    }

    /// The link to the sentry came or went. A new link is tried at once.
    pub fn on_link(&mut self, linked: bool) {
        self.linked = linked;
        self.held = None;
        if linked {
            self.pause.reset();
            if let Phase::Pausing(_) = self.phase {
                self.phase = self.ready_phase();
            }
        }
    }

    /// The network asks to stop sending, or to go on. Nobody waits for ever on a word that was lost: after a while the next
    /// batch goes out all the same, and is answered with another one.
    pub fn on_flow(&mut self, now: Duration, paused: bool) {
        self.held = paused.then(|| now + HOLD);
    }

    /// The answer to [`Effect::Open`]. `random` feeds the pause's jitter.
    pub fn on_opened(&mut self, now: Duration, random: u64, answer: Answer<u64>) {
        if self.phase != Phase::Opening {
            return;
        }
        match answer {
            Answer::Given(Ok(epoch)) => {
                self.epoch = Some(epoch);
                self.given_up = None;
                self.next_seq = 1;
                self.acked_any = false;
                self.phase = Phase::Flowing;
            }
            Answer::Given(Err(refusal)) if !refusal.is_retryable() => {
                self.phase = Phase::NoEpoch;
                for record in std::mem::take(&mut self.queued) {
                    self.effects.push_back(Effect::Failed {
                        ticket: record.ticket,
                        failure: Failure::Refused(refusal.clone()),
                    });
                }
            }
            Answer::Given(Err(_)) | Answer::Lost => {
                self.phase = Phase::Pausing(self.pause.until(now, random));
            }
        }
    }

    /// The answer to the [`Effect::Send`] of that `attempt`; answers to attempts long given up change nothing.
    pub fn on_answer(
        &mut self,
        now: Duration,
        random: u64,
        attempt: u64,
        answer: Answer<Published>,
    ) {
        let Some(batch) = self
            .in_flight
            .iter_mut()
            .find(|b| b.attempt == Some(attempt))
        else {
            return;
        };
        batch.attempt = None;
        match answer {
            Answer::Given(Ok(published)) => {
                batch.acked = Some(published);
                self.acked_any = true;
                self.pop_acked();
            }
            Answer::Given(Err(refusal)) => {
                // A sentry says "unavailable" also when its relayer went away with the answer.
                batch.doubtful |= !recovery::is_definite(&refusal);
                batch.refused = Some(refusal);
                self.phase = Phase::Settling;
            }
            Answer::Lost => {
                batch.doubtful = true;
                batch.refused = None;
                self.phase = Phase::Settling;
            }
        }
        self.settle(now, random);
    }

    /// Tickets of the batch that this attempt sends.
    pub fn tickets(&self, attempt: u64) -> impl Iterator<Item = &T> {
        let sent = self.in_flight.iter().find(|b| b.attempt == Some(attempt));
        sent.into_iter()
            .flat_map(|batch| batch.records.iter().map(|record| &record.ticket))
    }

    /// When [`Producer::poll`] must be called again though nothing happened.
    pub fn next_deadline(&self) -> Option<Duration> {
        let oldest = self.in_flight.front().and_then(|b| b.records.first());
        let expiry = oldest.or(self.queued.front()).map(|r| r.deadline);
        let pause = match self.phase {
            Phase::Pausing(until) if self.linked => Some(until),
            _ => None,
        };
        let held = self.held.filter(|_| self.linked);
        [expiry, pause, held].into_iter().flatten().min()
    }

    /// The next thing to do, until `None`.
    pub fn poll(&mut self, now: Duration) -> Option<Effect<T>> {
        self.expire(now);
        if let Some(effect) = self.effects.pop_front() {
            return Some(effect);
        }
        if !self.linked {
            return None;
        }
        if let Phase::Pausing(until) = self.phase
            && until <= now
        {
            self.phase = self.ready_phase();
        }
        if self.held.is_some_and(|until| until <= now) {
            self.held = None;
        }
        match self.phase {
            Phase::NoEpoch if !self.queued.is_empty() => {
                self.phase = Phase::Opening;
                let supersedes = self.given_up;
                Some(Effect::Open { supersedes })
            }
            Phase::Flowing if self.held.is_none() => self.send(),
            Phase::Flowing => None,
            Phase::NoEpoch | Phase::Opening | Phase::Settling | Phase::Pausing(_) => None,
        }
    }

    fn ready_phase(&self) -> Phase {
        if self.epoch.is_some() {
            Phase::Flowing
        } else {
            Phase::NoEpoch
        }
    }

    fn outstanding(&self) -> usize {
        self.in_flight
            .iter()
            .filter(|b| b.attempt.is_some())
            .count()
    }

    fn send(&mut self) -> Option<Effect<T>> {
        let epoch = self.epoch?;
        if self.outstanding() >= self.limits.batches_in_flight {
            return None;
        }
        let waiting = |b: &Batch<T>| b.attempt.is_none() && b.acked.is_none();
        let index = match self.in_flight.iter().position(waiting) {
            Some(index) => index,
            None if self.queued.is_empty() => return None,
            None if self.in_flight.len() >= self.limits.batches_in_flight => return None,
            None => {
                let batch = self.cut_batch();
                self.in_flight.push_back(batch);
                self.in_flight.len() - 1
            }
        };
        let attempt = self.next_attempt;
        self.next_attempt += 1;
        let batch = &mut self.in_flight[index];
        batch.attempt = Some(attempt);
        batch.refused = None;
        Some(Effect::Send {
            attempt,
            epoch,
            first_seq: batch.first_seq,
            payloads: batch.records.iter().map(|r| r.payload.clone()).collect(),
        })
    }

    fn cut_batch(&mut self) -> Batch<T> {
        let mut records = Vec::new();
        let mut bytes = 0;
        while let Some(next) = self.queued.front() {
            bytes += next.payload.len();
            let full = records.len() >= self.limits.batch_records
                || (!records.is_empty() && bytes > self.limits.batch_bytes);
            if full {
                break;
            }
            records.extend(self.queued.pop_front());
        }
        let first_seq = self.next_seq;
        self.next_seq += records.len() as u64;
        Batch {
            first_seq,
            records,
            attempt: None,
            doubtful: false,
            refused: None,
            acked: None,
        }
    }

    fn pop_acked(&mut self) {
        while let Some(batch) = self.in_flight.pop_front_if(|b| b.acked.is_some()) {
            self.pause.reset();
            let Some(published) = batch.acked else {
                continue;
            };
            let count = batch.records.len() as u64;
            let exact = published.last_seq == batch.first_seq + count - 1;
            for (index, record) in batch.records.into_iter().enumerate() {
                let after = count - 1 - index as u64;
                let offset = if exact {
                    published.last_offset.checked_sub(after)
                } else {
                    None
                };
                self.effects.push_back(Effect::Done {
                    ticket: record.ticket,
                    offset,
                });
            }
        }
    }
}

#[cfg(test)]
mod tests;
