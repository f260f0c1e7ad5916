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
//! - When the oldest record in flight is past its deadline, everything in flight ends as `OutcomeUnknown` and the
//!   epoch is given up, since a sequence with a hole can not go on.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use pqcnet_actor::Pause;
use pqcnet_messages::Refusal;
use pqcnet_messages::edge::Published;

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
    /// Its deadline passed before it was ever sent; it is not stored.
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
    Open,
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
    next_seq: u64,
    /// Something of this epoch was acknowledged.
    acked_any: bool,
    next_attempt: u64,
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
            next_seq: 1,
            acked_any: false,
            next_attempt: 1,
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
        });
    }

    /// The link to the sentry came or went. A new link is tried at once.
    pub fn on_link(&mut self, linked: bool) {
        self.linked = linked;
        if linked {
            self.pause.reset();
            if let Phase::Pausing(_) = self.phase {
                self.phase = self.ready_phase();
            }
        }
    }

    /// The answer to [`Effect::Open`]. `random` feeds the pause's jitter.
    pub fn on_opened(&mut self, now: Duration, random: u64, answer: Answer<u64>) {
        if self.phase != Phase::Opening {
            return;
        }
        match answer {
            Answer::Given(Ok(epoch)) => {
                self.epoch = Some(epoch);
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
                batch.doubtful |= !is_definite(&refusal);
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

    /// When [`Producer::poll`] must be called again though nothing happened.
    pub fn next_deadline(&self) -> Option<Duration> {
        let oldest = self.in_flight.front().and_then(|b| b.records.first());
        let expiry = oldest.or(self.queued.front()).map(|r| r.deadline);
        let pause = match self.phase {
            Phase::Pausing(until) if self.linked => Some(until),
            _ => None,
        };
        [expiry, pause].into_iter().flatten().min()
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
        match self.phase {
            Phase::NoEpoch if !self.queued.is_empty() => {
                self.phase = Phase::Opening;
                Some(Effect::Open)
            }
            Phase::Flowing => self.send(),
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

    /// Once every answer is in after a failure: decide by the first unacknowledged batch.
    fn settle(&mut self, now: Duration, random: u64) {
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
        self.epoch = None;
        let mut again = VecDeque::new();
        for (index, batch) in std::mem::take(&mut self.in_flight).into_iter().enumerate() {
            let failure = match &fatal {
                _ if batch.doubtful || batch.acked.is_some() => Some(Failure::OutcomeUnknown),
                Some(refusal) if index == 0 => Some(Failure::Refused(refusal.clone())),
                Some(_) | None => None,
            };
            let acked = batch.acked.is_some();
            for record in batch.records {
                match &failure {
                    None => again.push_back(record),
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

    fn expire(&mut self, now: Duration) {
        let oldest = self.in_flight.front().and_then(|b| b.records.first());
        if oldest.is_some_and(|r| r.deadline <= now) {
            for batch in &mut self.in_flight {
                batch.doubtful = true;
            }
            self.abandon_epoch(None);
            self.phase = Phase::NoEpoch;
        }
        while let Some(record) = self.queued.pop_front_if(|r| r.deadline <= now) {
            let failure = Failure::NotSent;
            self.effects.push_back(Effect::Failed {
                ticket: record.ticket,
                failure,
            });
        }
    }
}

/// A refusal that proves that this attempt stored nothing.
fn is_definite(refusal: &Refusal) -> bool {
    matches!(
        refusal,
        Refusal::UnknownProducer | Refusal::StaleEpoch | Refusal::Gap { .. } | Refusal::Busy
    ) || !refusal.is_retryable()
}

/// A gap closes when the batches before it are repeated.
fn retries(refusal: &Refusal) -> bool {
    refusal.is_retryable() || matches!(refusal, Refusal::Gap { .. })
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);
    const DEADLINE: Duration = Duration::from_secs(30);
    const PAUSE: Duration = Duration::from_millis(10);

    type Effects = Vec<Effect<u32>>;

    fn producer() -> Producer<u32> {
        let limits = Limits {
            batch_records: 2,
            batch_bytes: 100,
            batches_in_flight: 3,
        };
        let mut producer = Producer::new(limits, Pause::new(PAUSE, PAUSE));
        producer.on_link(true);
        producer
    }

    fn payload(ticket: u32) -> Bytes {
        Bytes::from(ticket.to_string())
    }

    fn push(producer: &mut Producer<u32>, tickets: std::ops::RangeInclusive<u32>) {
        for ticket in tickets {
            producer.push(payload(ticket), ticket, DEADLINE);
        }
    }

    fn effects(producer: &mut Producer<u32>, now: Duration) -> Effects {
        std::iter::from_fn(|| producer.poll(now)).collect()
    }

    fn send(attempt: u64, first_seq: u64, tickets: std::ops::RangeInclusive<u32>) -> Effect<u32> {
        let payloads = tickets.map(payload).collect();
        Effect::Send {
            attempt,
            epoch: 9,
            first_seq,
            payloads,
        }
    }

    fn done(ticket: u32, offset: u64) -> Effect<u32> {
        Effect::Done {
            ticket,
            offset: Some(offset),
        }
    }

    fn failed(ticket: u32, failure: Failure) -> Effect<u32> {
        Effect::Failed { ticket, failure }
    }

    fn stored(last_seq: u64, last_offset: u64) -> Answer<Published> {
        Answer::Given(Ok(Published {
            last_seq,
            last_offset,
        }))
    }

    /// A producer with epoch 9 and three batches of two in flight, attempts 1 to 3.
    fn in_flight() -> Producer<u32> {
        let mut producer = producer();
        push(&mut producer, 1..=6);
        assert_eq!(effects(&mut producer, MS), [Effect::Open]);
        producer.on_opened(MS, 0, Answer::Given(Ok(9)));
        let sent = [send(1, 1, 1..=2), send(2, 3, 3..=4), send(3, 5, 5..=6)];
        assert_eq!(effects(&mut producer, MS), sent);
        producer
    }

    /// Three batches go out before the first answer, a fourth waits for room; answers carry each record's own offset.
    #[test]
    fn pipelines_in_order() {
        let mut producer = in_flight();
        push(&mut producer, 7..=7);
        assert_eq!(effects(&mut producer, MS), []);
        producer.on_answer(MS, 0, 1, stored(2, 102));
        assert_eq!(
            effects(&mut producer, MS),
            [done(1, 101), done(2, 102), send(4, 7, 7..=7)]
        );
        producer.on_answer(MS, 0, 2, stored(4, 110));
        producer.on_answer(MS, 0, 3, stored(6, 112));
        producer.on_answer(MS, 0, 4, stored(7, 113));
        let all = [
            done(3, 109),
            done(4, 110),
            done(5, 111),
            done(6, 112),
            done(7, 113),
        ];
        assert_eq!(effects(&mut producer, MS), all);
        assert!(producer.is_idle());
        assert_eq!(producer.next_deadline(), None);
    }

    /// The acknowledgement is lost with the link: nothing goes out until the new link is up, then every batch goes again
    /// under its old numbers. The first had landed: its repetition is acknowledged with a later mark, so its offset is
    /// not known; nothing is sent under new numbers.
    #[test]
    fn lost_answers_are_repeated_under_the_same_numbers() {
        let mut producer = in_flight();
        producer.on_link(false);
        for attempt in 1..=3 {
            producer.on_answer(MS, 0, attempt, Answer::Lost);
        }
        assert_eq!(effects(&mut producer, 1000 * MS), []);
        producer.on_link(true);
        let again = [send(4, 1, 1..=2), send(5, 3, 3..=4), send(6, 5, 5..=6)];
        assert_eq!(effects(&mut producer, 1000 * MS), again);
        producer.on_answer(MS, 0, 4, stored(4, 104));
        producer.on_answer(MS, 0, 5, stored(4, 104));
        let unknown = |ticket| Effect::Done {
            ticket,
            offset: None,
        };
        let answers = [unknown(1), unknown(2), done(3, 103), done(4, 104)];
        assert_eq!(effects(&mut producer, 1000 * MS), answers);
    }

    /// The relayer is busy for the first batch, so the others find a gap: all answers are awaited, then after the pause
    /// all three go again in order.
    #[test]
    fn a_gap_does_not_feed_on_itself() {
        let mut producer = in_flight();
        producer.on_answer(MS, 0, 1, Answer::Given(Err(Refusal::Busy)));
        producer.on_answer(MS, 0, 2, Answer::Given(Err(Refusal::Gap { expected: 1 })));
        assert_eq!(effects(&mut producer, 100 * MS), []);
        producer.on_answer(MS, 0, 3, Answer::Given(Err(Refusal::Gap { expected: 1 })));
        assert_eq!(producer.next_deadline(), Some(MS + PAUSE));
        assert_eq!(effects(&mut producer, PAUSE), []);
        let again = [send(4, 1, 1..=2), send(5, 3, 3..=4), send(6, 5, 5..=6)];
        assert_eq!(effects(&mut producer, MS + PAUSE), again);
    }

    /// A later batch is acknowledged while an earlier answer is lost: only the earlier one is repeated, and results come
    /// in order.
    #[test]
    fn an_acknowledged_batch_is_not_repeated() {
        let mut producer = in_flight();
        producer.on_answer(MS, 0, 1, Answer::Lost);
        producer.on_answer(MS, 0, 2, stored(4, 4));
        producer.on_answer(MS, 0, 3, stored(6, 6));
        assert_eq!(effects(&mut producer, MS + PAUSE), [send(4, 1, 1..=2)]);
        producer.on_answer(MS, 0, 4, stored(2, 2));
        let all: Effects = (1..=6).map(|n| done(n, u64::from(n))).collect();
        assert_eq!(effects(&mut producer, MS + PAUSE), all);
    }

    /// The relayer restarted before anything of the epoch was stored: everything goes again under a new epoch, from 1.
    #[test]
    fn an_unknown_epoch_stored_nothing() {
        let mut producer = in_flight();
        producer.on_answer(MS, 0, 1, Answer::Lost);
        let unknown = || Answer::Given(Err(Refusal::UnknownProducer));
        producer.on_answer(MS, 0, 2, unknown());
        producer.on_answer(MS, 0, 3, unknown());
        let again = [send(4, 1, 1..=2), send(5, 3, 3..=4), send(6, 5, 5..=6)];
        assert_eq!(effects(&mut producer, MS + PAUSE), again);
        for attempt in 4..=6 {
            producer.on_answer(MS, 0, attempt, unknown());
        }
        let now = MS + PAUSE + PAUSE;
        assert_eq!(effects(&mut producer, now), [Effect::Open]);
        producer.on_opened(now, 0, Answer::Given(Ok(10)));
        let payloads = vec![payload(1), payload(2)];
        let first = Effect::Send {
            attempt: 7,
            epoch: 10,
            first_seq: 1,
            payloads,
        };
        assert_eq!(effects(&mut producer, now)[0], first);
    }

    /// The epoch was dropped after it had stored something, or is unknown though something was acknowledged: what had
    /// no definite answer ends unknown, what was surely not stored goes out under a new epoch, in order.
    #[test]
    fn a_dropped_epoch_never_duplicates() {
        for refusal in [Refusal::StaleEpoch, Refusal::UnknownProducer] {
            let mut producer = in_flight();
            producer.on_answer(MS, 0, 1, stored(2, 2));
            assert_eq!(effects(&mut producer, MS), [done(1, 1), done(2, 2)]);
            producer.on_answer(MS, 0, 2, Answer::Lost);
            producer.on_answer(MS, 0, 3, Answer::Given(Err(Refusal::Gap { expected: 3 })));
            assert_eq!(
                effects(&mut producer, MS + PAUSE),
                [send(4, 3, 3..=4), send(5, 5, 5..=6)]
            );
            producer.on_answer(MS, 0, 4, Answer::Given(Err(refusal.clone())));
            producer.on_answer(MS, 0, 5, Answer::Given(Err(refusal)));
            let now = MS + PAUSE + PAUSE;
            let unknown = |ticket| failed(ticket, Failure::OutcomeUnknown);
            assert_eq!(
                effects(&mut producer, now),
                [unknown(3), unknown(4), Effect::Open]
            );
            producer.on_opened(now, 0, Answer::Given(Ok(10)));
            let payloads = vec![payload(5), payload(6)];
            let next = Effect::Send {
                attempt: 6,
                epoch: 10,
                first_seq: 1,
                payloads,
            };
            assert_eq!(effects(&mut producer, now), [next]);
        }
    }

    /// A sentry's "unavailable" may hide a lost acknowledgement, so it counts as doubt; "busy" does not.
    #[test]
    fn unavailable_is_no_proof() {
        for (refusal, doubt) in [(Refusal::Unavailable, true), (Refusal::Busy, false)] {
            let mut producer = in_flight();
            producer.on_answer(MS, 0, 1, Answer::Given(Err(refusal)));
            for attempt in [2, 3] {
                producer.on_answer(
                    MS,
                    0,
                    attempt,
                    Answer::Given(Err(Refusal::Gap { expected: 1 })),
                );
            }
            assert_eq!(effects(&mut producer, MS + PAUSE).len(), 3);
            for attempt in 4..=6 {
                producer.on_answer(MS, 0, attempt, Answer::Given(Err(Refusal::StaleEpoch)));
            }
            let unknown = |ticket| failed(ticket, Failure::OutcomeUnknown);
            let expected = match doubt {
                true => vec![unknown(1), unknown(2), Effect::Open],
                false => vec![Effect::Open],
            };
            assert_eq!(effects(&mut producer, MS + 2 * PAUSE), expected);
        }
    }

    /// The owner expects a sequence that it had acknowledged: it lost data, and repeating would mislead it.
    #[test]
    fn an_owner_that_lost_acknowledged_data() {
        let mut producer = in_flight();
        producer.on_answer(MS, 0, 1, stored(2, 2));
        producer.on_answer(MS, 0, 2, Answer::Lost);
        producer.on_answer(MS, 0, 3, Answer::Lost);
        assert_eq!(effects(&mut producer, MS + PAUSE).len(), 4);
        for attempt in [4, 5] {
            producer.on_answer(
                MS,
                0,
                attempt,
                Answer::Given(Err(Refusal::Gap { expected: 1 })),
            );
        }
        let unknown = |ticket| failed(ticket, Failure::OutcomeUnknown);
        let given_up = [unknown(3), unknown(4), unknown(5), unknown(6)];
        assert_eq!(effects(&mut producer, MS + 2 * PAUSE), given_up);
    }

    /// A refusal for good fails the batch it met; those behind it go on under a new epoch, since the sequence has a hole.
    #[test]
    fn a_final_refusal_fails_one_batch() {
        let mut producer = in_flight();
        producer.on_answer(MS, 0, 1, Answer::Given(Err(Refusal::TooLarge)));
        for attempt in [2, 3] {
            producer.on_answer(
                MS,
                0,
                attempt,
                Answer::Given(Err(Refusal::Gap { expected: 1 })),
            );
        }
        let refused = |ticket| failed(ticket, Failure::Refused(Refusal::TooLarge));
        assert_eq!(
            effects(&mut producer, MS + PAUSE),
            [refused(1), refused(2), Effect::Open]
        );
        producer.on_opened(MS + PAUSE, 0, Answer::Given(Ok(10)));
        let payloads = vec![payload(3), payload(4)];
        let next = Effect::Send {
            attempt: 4,
            epoch: 10,
            first_seq: 1,
            payloads,
        };
        assert_eq!(effects(&mut producer, MS + PAUSE)[0], next);
    }

    /// No epoch can be had: a refusal for good fails what waits, any other is tried again after a pause.
    #[test]
    fn opening_refused() {
        let mut producer = producer();
        push(&mut producer, 1..=1);
        assert_eq!(effects(&mut producer, MS), [Effect::Open]);
        producer.on_opened(MS, 0, Answer::Given(Err(Refusal::Unavailable)));
        assert_eq!(effects(&mut producer, PAUSE), []);
        assert_eq!(effects(&mut producer, MS + PAUSE), [Effect::Open]);
        producer.on_opened(MS + PAUSE, 0, Answer::Lost);
        assert_eq!(effects(&mut producer, MS + 2 * PAUSE), [Effect::Open]);
        producer.on_opened(MS, 0, Answer::Given(Err(Refusal::NotAllowed)));
        let refused = failed(1, Failure::Refused(Refusal::NotAllowed));
        assert_eq!(effects(&mut producer, MS), [refused]);
        assert!(producer.is_idle());
    }

    /// Past the oldest record's deadline everything in flight is unknown and what was never sent is surely not stored;
    /// late answers change nothing.
    #[test]
    fn deadlines() {
        let mut producer = in_flight();
        push(&mut producer, 7..=7);
        producer.push(payload(8), 8, DEADLINE + MS);
        assert_eq!(producer.next_deadline(), Some(DEADLINE));
        let mut expected: Effects = (1..=6)
            .map(|ticket| failed(ticket, Failure::OutcomeUnknown))
            .collect();
        expected.push(failed(7, Failure::NotSent));
        expected.push(Effect::Open);
        assert_eq!(effects(&mut producer, DEADLINE), expected);
        producer.on_answer(DEADLINE, 0, 1, stored(2, 2));
        assert_eq!(effects(&mut producer, DEADLINE), []);
        assert_eq!(
            effects(&mut producer, DEADLINE + MS),
            [failed(8, Failure::NotSent)]
        );
    }

    /// A batch is cut by bytes as well as by number, and takes one record of any size.
    #[test]
    fn batches_are_cut_by_bytes() {
        let mut producer = producer();
        for (ticket, len) in [(1, 60), (2, 40), (3, 1), (4, 150), (5, 1)] {
            producer.push(Bytes::from(vec![0; len]), ticket, DEADLINE);
        }
        assert_eq!(effects(&mut producer, MS), [Effect::Open]);
        producer.on_opened(MS, 0, Answer::Given(Ok(9)));
        let lens = effects(&mut producer, MS)
            .into_iter()
            .map(|effect| match effect {
                Effect::Send { payloads, .. } => payloads.iter().map(Bytes::len).collect(),
                Effect::Open | Effect::Done { .. } | Effect::Failed { .. } => Vec::new(),
            });
        assert_eq!(lens.collect::<Vec<_>>(), [vec![60, 40], vec![1], vec![150]]);
    }
}
