//! Records: order, key updates, close, limits.

use std::time::Duration;

use super::net::*;
use crate::frame::FrameType;
use crate::record::{HEADER_LEN, OVERHEAD, TRAILER_LEN};
use crate::*;

/// Alice's sealer and Bob's opener under these limits.
fn direction(limits: Limits) -> (Sealer, Opener) {
    let bob = config(BOB).with_limits(limits).unwrap();
    let (alice, bob) = connect(config(ALICE), bob);
    assert_eq!(alice.limits(), limits);
    (alice.split().0, bob.split().1)
}

fn data(sealer: &mut Sealer, n: u8) -> Vec<u8> {
    sealed(sealer, T0, Kind::Data, &[n; 3])
}

fn ok(n: u8) -> Result<(Kind, Vec<u8>), RecordError> {
    Ok((Kind::Data, vec![n; 3]))
}

// The second of three records is lost, comes twice, or comes late: the first that does not follow ends the channel.
#[test]
fn dropped_repeated_reordered() {
    for order in [[0, 2], [0, 0], [1, 0]] {
        let (mut out, mut back) = direction(Limits::default());
        let records = [0, 1, 2].map(|n| data(&mut out, n));
        let mut results = order.map(|n| opened(&mut back, &records[n]));
        if order[0] == 0 {
            assert_eq!(results[0], ok(0));
            results.reverse();
        }
        assert_eq!(results[0], Err(RecordError::NotOpened));
        assert_eq!(
            opened(&mut back, &records[1]),
            Err(RecordError::Over),
            "nothing opens after a failure"
        );
    }
}

// Keys change each third record; the receiver follows; both count epochs alike.
#[test]
fn key_update_at_the_record_limit() {
    let (mut out, mut back) = direction(Limits {
        epoch_records: 3,
        ..Limits::default()
    });
    for n in 0..10u8 {
        assert_eq!(out.epoch(), u64::from(n / 3));
        let record = data(&mut out, n);
        assert_eq!(opened(&mut back, &record), ok(n));
        assert_eq!(back.epoch(), out.epoch());
    }
}

// The real limit: the 2^23rd record is the last of its epoch, the one after opens under the next key.
#[test]
fn key_update_at_two_to_the_23() {
    let (mut out, mut back) = direction(Limits::default());
    out.skip_to((1 << 23) - 2);
    back.skip_to((1 << 23) - 2);
    for (n, epoch) in [(1, 0), (2, 1), (3, 1)] {
        let record = data(&mut out, n);
        assert_eq!(opened(&mut back, &record), ok(n));
        assert_eq!((out.epoch(), back.epoch()), (epoch, epoch));
    }
}

// The first record at or after the time limit is the last under its key; the age counts from the key's first record.
#[test]
fn key_update_at_the_time_limit() {
    let (mut out, mut back) = direction(Limits {
        epoch_ms: 1_000,
        ..Limits::default()
    });
    let ms = Duration::from_millis;
    for (at, epoch) in [
        (0, 0),
        (999, 0),
        (1_000, 1),
        (1_999, 1),
        (2_000, 2),
        (9_000, 3),
        (500, 3),
    ] {
        let record = sealed(&mut out, T0 + ms(at), Kind::Data, b"x");
        assert_eq!(out.epoch(), epoch, "after the record at {at} ms");
        opened(&mut back, &record).unwrap();
        assert_eq!(back.epoch(), epoch);
    }
}

// The sender jumps an epoch: its records do not open.
#[test]
fn skipped_epoch() {
    let (mut out, mut back) = direction(Limits {
        epoch_records: 1,
        ..Limits::default()
    });
    let records = [0, 1, 2].map(|n| data(&mut out, n));
    assert_eq!(opened(&mut back, &records[0]), ok(0));
    assert_eq!(opened(&mut back, &records[2]), Err(RecordError::NotOpened));
}

// Equal content under the next key is other bytes: the record number starts again, the key does not.
#[test]
fn epochs_do_not_repeat_keystream() {
    let (mut out, _) = direction(Limits {
        epoch_records: 1,
        ..Limits::default()
    });
    assert_ne!(data(&mut out, 7), data(&mut out, 7));
}

// A peer that goes on under one key for longer than agreed.
#[test]
fn overrun_epoch() {
    let (mut out, mut back) = direction(Limits {
        epoch_records: 2,
        ..Limits::default()
    });
    out.forget_limits();
    for n in 0..2 {
        let record = data(&mut out, n);
        assert_eq!(opened(&mut back, &record), ok(n));
    }
    let record = data(&mut out, 2);
    assert_eq!(
        opened(&mut back, &record),
        Err(RecordError::EpochOverrun { limit: 2 })
    );
}

// The peer ends its stream; the transport may end then, and nothing may follow. The other direction goes on.
#[test]
fn close() {
    let (alice, bob) = connect(config(ALICE), config(BOB));
    let ((mut out, mut alice_in), (mut bob_out, mut back)) = (alice.split(), bob.split());
    let record = sealed(&mut out, T0, Kind::Close, b"");
    assert_eq!(opened(&mut back, &record), Ok((Kind::Close, vec![])));
    assert!(back.is_closed());
    assert_eq!(back.end_of_input(), Ok(()));
    let answer = sealed(&mut bob_out, T0, Kind::Data, b"still here");
    assert_eq!(
        opened(&mut alice_in, &answer),
        Ok((Kind::Data, b"still here".to_vec()))
    );

    let mut late = vec![0; 32];
    assert_eq!(
        out.seal(T0, Kind::Data, &mut late, 0),
        Err(SealError::Closed)
    );
    assert_eq!(opened(&mut back, &record), Err(RecordError::AfterClose));
    assert_eq!(back.end_of_input(), Err(RecordError::Over));
}

// Somebody cuts the connection between two records.
#[test]
fn cut_is_not_close() {
    let (mut out, mut back) = direction(Limits::default());
    let record = data(&mut out, 1);
    assert_eq!(opened(&mut back, &record), ok(1));
    assert_eq!(back.end_of_input(), Err(RecordError::Truncated));
    assert_eq!(back.end_of_input(), Err(RecordError::Over));
}

// What the caller may get wrong leaves its buffer and the channel as they were.
#[test]
fn seal_errors() {
    let limits = Limits {
        max_record: 4_096,
        ..Limits::default()
    };
    let (mut out, mut back) = direction(limits);
    let max = 4_096 - OVERHEAD;
    assert_eq!(out.max_content(), max);
    let try_seal = |out: &mut Sealer, kind, len: usize, start| {
        let mut buffer = vec![9; len];
        let result = out.seal(T0, kind, &mut buffer, start);
        assert_eq!(
            buffer.len(),
            len + if result.is_ok() { TRAILER_LEN } else { 0 }
        );
        (result, buffer)
    };
    let cases = [
        (
            Kind::Data,
            HEADER_LEN,
            0,
            SealError::Content {
                kind: Kind::Data,
                got: 0,
            },
        ),
        (
            Kind::Close,
            HEADER_LEN + 2,
            0,
            SealError::Content {
                kind: Kind::Close,
                got: 2,
            },
        ),
        (
            Kind::Data,
            HEADER_LEN + max + 1,
            0,
            SealError::TooLong { got: max + 1, max },
        ),
        (Kind::Data, 3, 0, SealError::NoHeader { start: 0 }),
        (Kind::Data, 3, 7, SealError::NoHeader { start: 7 }),
        (
            Kind::Data,
            3,
            usize::MAX,
            SealError::NoHeader { start: usize::MAX },
        ),
    ];
    for (kind, len, start, error) in cases {
        assert_eq!(try_seal(&mut out, kind, len, start).0, Err(error));
    }
    assert_eq!(
        out.seal_in_place(T0, Kind::Data, &mut [0; OVERHEAD - 1]),
        Err(SealError::NoHeader { start: 0 })
    );
    let (result, full) = try_seal(&mut out, Kind::Data, HEADER_LEN + max, 0);
    assert_eq!(result, Ok(()));
    assert_eq!(full.len(), back.max_record());
    assert_eq!(opened(&mut back, &full), Ok((Kind::Data, vec![9; max])));
}

// A slice sealed in place is the same record as a vector; several records lie one behind the other in one buffer.
#[test]
fn coalesced_records() {
    let (mut out, mut back) = direction(Limits::default());
    let mut buffer = Vec::with_capacity(200);
    let at = buffer.as_ptr();
    for n in 1..=3u8 {
        let start = out.begin(&mut buffer);
        buffer.extend_from_slice(&[n; 10]);
        buffer.extend_from_slice(&[n; 10]);
        out.seal(T0, Kind::Data, &mut buffer, start).unwrap();
    }
    let mut slice = [4; OVERHEAD + 20];
    out.seal_in_place(T0, Kind::Data, &mut slice).unwrap();
    buffer.extend_from_slice(&slice);
    assert_eq!(buffer.as_ptr(), at, "the buffer did not move");

    let mut rest = &mut buffer[..];
    for n in 1..=4u8 {
        let head = rest.first_chunk().unwrap();
        let len = back.record_len(head).unwrap();
        let (record, next) = rest.split_at_mut(len);
        let opened = back.open_in_place(record).unwrap();
        assert_eq!(opened.kind, Kind::Data);
        assert_eq!(&record[opened.content], &[n; 20]);
        rest = next;
    }
    assert!(rest.is_empty());
}

// Headers that no record of this channel has: the receive buffer need not grow for them.
#[test]
fn record_headers() {
    let limits = Limits {
        max_record: 4_096,
        ..Limits::default()
    };
    for (head, error) in [
        ([4, 0, 0, 17], RecordError::Frame { got: 4 }),
        ([6, 0, 0, 22], RecordError::Frame { got: 6 }), // only an initiator may see a Reject, and only first
        ([0x10, 0, 0, 16], RecordError::Length { got: 16 }),
        ([0x10, 0, 0x0f, 0xfd], RecordError::Length { got: 4_093 }),
        (
            [0x10, 0xff, 0xff, 0xff],
            RecordError::Length { got: 0xff_ffff },
        ),
    ] {
        let (_, mut back) = direction(limits);
        assert_eq!(back.record_len(&head), Err(error));
        assert_eq!(back.record_len(&head), Err(RecordError::Over));
    }
    let (_, mut back) = direction(limits);
    assert_eq!(back.record_len(&[0x10, 0, 0x0f, 0xfc]), Ok(4_096));
    assert_eq!(
        back.open_in_place(&mut [0x10, 0, 0]),
        Err(RecordError::Length { got: 3 })
    );
}

// Records that only a peer with the keys can make, and should not.
#[test]
fn records_that_open_and_are_wrong() {
    let content = |kind, got| RecordError::Content { kind, got };
    for (text, error) in [
        (&[0x03][..], RecordError::UnknownKind { got: 3 }),
        (&[0x80], RecordError::UnknownKind { got: 0 }),
        (&[0x01], content(Kind::Data, 0)),
        (&[5, 0x02], content(Kind::Close, 1)),
    ] {
        let (mut out, mut back) = direction(Limits::default());
        let record = out.seal_text(text);
        assert_eq!(opened(&mut back, &record), Err(error));
    }
}

// Bob refuses M3 when Alice has already sent data: her opener says why. After a first record it would be no reject.
#[test]
fn refused_m3() {
    let (mut pair, first) = Pair::new(config(ALICE), config(BOB));
    let reply = m2(pair.bob_takes(Admission::Accept, &first).unwrap());
    let (mut last, alice, _) = m3(pair.alice.on_message(&reply).unwrap());
    *last.last_mut().unwrap() ^= 1;
    let bob = pair.bob_takes(Admission::Accept, &last).unwrap_err();
    assert_eq!(bob.error, here(Stage::M3, Reason::NotOpened));
    let reject = bob.reject.unwrap();
    assert_eq!(reject.len(), 26);
    let (_, mut back) = alice.split();
    assert_eq!(back.record_len(reject.first_chunk().unwrap()), Ok(26));
    assert_eq!(
        opened(&mut back, &reject),
        Err(RecordError::Rejected(told(
            Stage::M3,
            Reason::NotOpened,
            true
        )))
    );
    assert_eq!(opened(&mut back, &reject), Err(RecordError::Over));

    let (alice, bob) = connect(config(ALICE), config(BOB));
    let ((_, mut back), (mut out, _)) = (alice.split(), bob.split());
    let record = data(&mut out, 1);
    assert_eq!(opened(&mut back, &record), ok(1));
    assert_eq!(
        opened(&mut back, &reject),
        Err(RecordError::Frame {
            got: FrameType::SealedReject.number()
        })
    );
}
