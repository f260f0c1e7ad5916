//! One producer, step by step: what it sends, repeats and gives up.

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

fn open(supersedes: Option<u64>) -> Effect<u32> {
    Effect::Open { supersedes }
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
    assert_eq!(effects(&mut producer, MS), [open(None)]);
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
    assert_eq!(effects(&mut producer, now), [open(Some(9))]);
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
            [unknown(3), unknown(4), open(Some(9))]
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
            true => vec![unknown(1), unknown(2), open(Some(9))],
            false => vec![open(Some(9))],
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
        [refused(1), refused(2), open(Some(9))]
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
    assert_eq!(effects(&mut producer, MS), [open(None)]);
    producer.on_opened(MS, 0, Answer::Given(Err(Refusal::Unavailable)));
    assert_eq!(effects(&mut producer, PAUSE), []);
    assert_eq!(effects(&mut producer, MS + PAUSE), [open(None)]);
    producer.on_opened(MS + PAUSE, 0, Answer::Lost);
    assert_eq!(effects(&mut producer, MS + 2 * PAUSE), [open(None)]);
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
    expected.push(open(Some(9)));
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
    assert_eq!(effects(&mut producer, MS), [open(None)]);
    producer.on_opened(MS, 0, Answer::Given(Ok(9)));
    let lens = effects(&mut producer, MS)
        .into_iter()
        .map(|effect| match effect {
            Effect::Send { payloads, .. } => payloads.iter().map(Bytes::len).collect(),
            Effect::Open { .. } | Effect::Done { .. } | Effect::Failed { .. } => Vec::new(),
        });
    assert_eq!(lens.collect::<Vec<_>>(), [vec![60, 40], vec![1], vec![150]]);
}

/// The disk is full until the deadline: what was refused for that and nothing else is told so, by type, and not as unknown.
#[test]
fn what_was_only_refused_is_told_as_refused() {
    let mut producer = in_flight();
    for attempt in [1, 2, 3] {
        producer.on_answer(MS, 0, attempt, Answer::Given(Err(Refusal::NoRoom)));
    }
    let told = effects(&mut producer, DEADLINE);
    let refused: Effects = (1..=6)
        .map(|ticket| failed(ticket, Failure::Refused(Refusal::NoRoom)))
        .collect();
    assert_eq!(told, refused);
    assert!(producer.is_idle());
}

/// An epoch was given up with something of unknown fate: every asking for the next one names it, until there is one.
#[test]
fn the_next_epoch_supersedes_the_one_given_up() {
    let mut producer = in_flight();
    push(&mut producer, 7..=7);
    producer.push(payload(8), 8, 2 * DEADLINE);
    let told = effects(&mut producer, DEADLINE);
    assert_eq!(told.last(), Some(&open(Some(9))));
    producer.on_opened(DEADLINE, 0, Answer::Lost);
    assert_eq!(effects(&mut producer, DEADLINE + PAUSE), [open(Some(9))]);
    producer.on_opened(DEADLINE + PAUSE, 0, Answer::Given(Ok(10)));
    assert!(matches!(
        effects(&mut producer, DEADLINE + PAUSE)[..],
        [Effect::Send { epoch: 10, .. }]
    ));
}

/// The network asks to stop: what was sent is still answered, nothing more goes out until it says to go on, or says nothing for
/// two seconds, or there is another link. Deadlines hold meanwhile.
#[test]
fn holds_back_when_asked() {
    let second = Duration::from_secs(1);
    let mut producer = in_flight();
    push(&mut producer, 7..=8);
    producer.on_flow(MS, true);
    producer.on_answer(MS, 0, 1, stored(2, 102));
    assert_eq!(effects(&mut producer, MS), [done(1, 101), done(2, 102)]);
    assert_eq!(producer.next_deadline(), Some(MS + 2 * second));
    assert_eq!(effects(&mut producer, second), []);
    producer.on_flow(second, false);
    assert_eq!(effects(&mut producer, second), [send(4, 7, 7..=8)]);

    push(&mut producer, 9..=9);
    producer.on_answer(second, 0, 2, stored(4, 104));
    producer.on_flow(second, true);
    assert_eq!(effects(&mut producer, second), [done(3, 103), done(4, 104)]);
    producer.on_flow(2 * second, true);
    assert_eq!(effects(&mut producer, 3 * second), []);
    assert_eq!(effects(&mut producer, 4 * second), [send(5, 9, 9..=9)]);

    producer.on_answer(4 * second, 0, 3, stored(6, 106));
    producer.on_flow(4 * second, true);
    push(&mut producer, 10..=10);
    assert_eq!(
        effects(&mut producer, 4 * second),
        [done(5, 105), done(6, 106)]
    );
    producer.on_link(true);
    assert_eq!(effects(&mut producer, 4 * second), [send(6, 10, 10..=10)]);
    producer.on_flow(5 * second, true);
    push(&mut producer, 11..=11);
    let late = effects(&mut producer, DEADLINE + second);
    assert!(late.contains(&failed(11, Failure::NotSent)), "{late:?}");
}
