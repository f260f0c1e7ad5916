//! Every bit flip and every cut of every message and of records, under both suites.

use std::sync::Arc;

use pqcnet_crypto::{KemSecret, Prk};

use super::net::*;
use crate::frame::{Decoder, HEADER_LEN, Header};
use crate::initiator::Sent;
use crate::responder::{FromM1, Replied, Source, on_m1};
use crate::*;

fn flips(message: &[u8]) -> impl Iterator<Item = (usize, Vec<u8>)> {
    (0..message.len() * 8).map(|bit| {
        let mut flipped = message.to_vec();
        flipped[bit / 8] ^= 1 << (bit % 8);
        (bit, flipped)
    })
}

/// A cut message is not whole for the decoder, and refused where it is taken for whole.
fn cuts_are_not_messages(message: &[u8]) {
    for len in 0..message.len() {
        let cut = &message[..len];
        assert!(Header::split(cut).is_err());
        let mut decoder = Decoder::new();
        assert_eq!(decoder.push(&mut { cut }), Ok(None));
        let whole = if len < HEADER_LEN {
            HEADER_LEN
        } else {
            message.len()
        };
        assert_eq!(decoder.missing(), whole - len);
    }
}

fn source(retry: &RetryKeys) -> Source<'_> {
    Source {
        now: T0,
        carrier: CARRIER,
        retry,
    }
}

/// The initiator in the state after its M1.
fn sent_again(sent: &Sent) -> Sent {
    Sent {
        kem: KemSecret::from_seed(sent.kem.expose_seed()),
        m1: sent.m1.clone(),
        transcript: sent.transcript.clone(),
        retried: sent.retried,
    }
}

fn replied_again(replied: &Replied) -> Replied {
    Replied {
        keys: replied.keys.copy(),
        transcript: replied.transcript.clone(),
        suite: replied.suite,
    }
}

// M1 flips: the responder refuses what it understands; of the rest it makes an M2 that the initiator cannot open.
#[test]
fn flipped_m1_of_suite_1() {
    flipped_m1_in(Suite::Aes256Gcm);
}

#[test]
fn flipped_m1_of_suite_2() {
    flipped_m1_in(Suite::ChaCha20Poly1305);
}

fn flipped_m1_in(suite: Suite) {
    let (pair, first) = Pair::new(config(ALICE), only(BOB, suite));
    let (alice, bob, bob_id) = (config(ALICE), only(BOB, suite), keys(BOB).node_id());
    let mut answered = 0;
    for (bit, flipped) in flips(&first) {
        if bit < HEADER_LEN * 8 {
            let mut bob = Responder::new(Arc::new(bob.clone()));
            let failure = bob
                .on_message(T0, CARRIER, Admission::Accept, &pair.retry, &flipped)
                .unwrap_err();
            assert_eq!(failure.error.stage, Stage::M1);
            continue;
        }
        let byte = bit / 8 - HEADER_LEN;
        match on_m1(
            &bob,
            &source(&pair.retry),
            Admission::Accept,
            false,
            &flipped,
        ) {
            Ok(FromM1::Reply { message, .. }) => {
                assert!((2..1_284).contains(&byte), "byte {byte} must be refused");
                answered += 1;
                let failure = pair
                    .alice
                    .sent()
                    .on_m2(&alice, bob_id, &message)
                    .map(drop)
                    .unwrap_err();
                assert_eq!(
                    failure.error,
                    here(Stage::M2, Reason::NotOpened),
                    "bit {bit}"
                );
            }
            Ok(FromM1::Retry(_)) => panic!("nobody asked for a Retry"),
            Err(failure) => {
                let expected = match byte {
                    0 => Reason::Version {
                        offered: flipped[4],
                        supported: 1,
                    },
                    1 => Reason::Profile { asked: flipped[5] },
                    2..4 => Reason::NoCommonSuite {
                        offered: u16::from_be_bytes([flipped[6], flipped[7]]),
                        supported: suite.bit(),
                    },
                    4..36 => Reason::WrongNetwork,
                    68..1_284 => Reason::BadKey,
                    1_284..1_325 => Reason::BadToken,
                    1_325.. => Reason::Malformed,
                    _ => panic!("byte {byte}: {failure:?}"),
                };
                assert_eq!(failure.error.reason, expected, "bit {bit}");
            }
        }
    }
    assert!(answered > 8_000, "nonce and most of the key: {answered}");
}

// Retry flips: what the initiator does not refuse, the responder does, since all of a Retry comes back to it.
#[test]
fn flipped_retry() {
    SUITES.into_iter().for_each(flipped_retry_in);
}

fn flipped_retry_in(suite: Suite) {
    let alice = config(ALICE).with_puzzle(2, 1 << 12).unwrap();
    let (mut pair, first) = Pair::new(alice.clone(), only(BOB, suite));
    let asked = retry(
        pair.bob_takes(Admission::Challenge { bits: 1 }, &first)
            .unwrap(),
    );
    let mut resent = 0;
    for (bit, flipped) in flips(&asked) {
        let (mut again, _) = Initiator::new(Arc::new(alice.clone()), keys(BOB).node_id()).unwrap();
        again.put(sent_again(pair.alice.sent()));
        match again.on_message(&flipped) {
            Ok(InitiatorStep::Resend(m1)) => {
                resent += 1;
                let refused = on_m1(
                    &only(BOB, suite),
                    &source(&pair.retry),
                    Admission::Accept,
                    true,
                    &m1,
                )
                .map(drop)
                .unwrap_err();
                assert_eq!(
                    refused.error,
                    here(Stage::Retry, Reason::BadToken),
                    "bit {bit}"
                );
            }
            Ok(step) => panic!("bit {bit}: {step:?}"),
            Err(failure) => assert!(
                matches!(
                    failure.error.reason,
                    Reason::Unexpected { .. } | Reason::Malformed | Reason::PuzzleTooHard { .. }
                ),
                "bit {bit}: {failure:?}"
            ),
        }
    }
    assert!(resent >= 8 * 40, "{resent}");
}

// Flips of the M1 that carries a token: its hash is under the token's HMAC; a changed solution that happens to solve the
// puzzle too is another transcript.
#[test]
fn flipped_m1_with_token() {
    SUITES.into_iter().for_each(flipped_m1_with_token_in);
}

fn flipped_m1_with_token_in(suite: Suite) {
    let (mut pair, first) = Pair::new(config(ALICE), only(BOB, suite));
    let asked = retry(
        pair.bob_takes(Admission::Challenge { bits: 1 }, &first)
            .unwrap(),
    );
    let again = resend(pair.alice.on_message(&asked).unwrap());
    let mut other_solutions = 0;
    for (bit, flipped) in flips(&again).skip(HEADER_LEN * 8) {
        match on_m1(
            &only(BOB, suite),
            &source(&pair.retry),
            Admission::Accept,
            true,
            &flipped,
        ) {
            Ok(FromM1::Reply { message, .. }) => {
                assert!(
                    bit / 8 >= flipped.len() - 8,
                    "bit {bit} is not of the solution"
                );
                other_solutions += 1;
                let failure = pair
                    .alice
                    .sent()
                    .on_m2(&config(ALICE), keys(BOB).node_id(), &message)
                    .map(drop)
                    .unwrap_err();
                assert_eq!(failure.error, here(Stage::M2, Reason::NotOpened));
            }
            Ok(FromM1::Retry(_)) => panic!("a Retry for an M1 with token"),
            Err(failure) => assert!(
                matches!(
                    failure.error.reason,
                    Reason::BadToken
                        | Reason::PuzzleUnsolved
                        | Reason::Version { .. }
                        | Reason::Profile { .. }
                        | Reason::NoCommonSuite { .. }
                        | Reason::WrongNetwork
                ),
                "bit {bit}: {failure:?}"
            ),
        }
    }
    assert!(other_solutions > 0);
}

// M2 flips: the header is no M2's, another suite was not offered or does not fit, and nothing else opens.
#[test]
fn flipped_m2_of_suite_1() {
    flipped_m2_in(Suite::Aes256Gcm);
}

#[test]
fn flipped_m2_of_suite_2() {
    flipped_m2_in(Suite::ChaCha20Poly1305);
}

fn flipped_m2_in(suite: Suite) {
    let (mut pair, first) = Pair::new(config(ALICE), only(BOB, suite));
    let reply = m2(pair.bob_takes(Admission::Accept, &first).unwrap());
    let (alice, bob_id) = (config(ALICE), keys(BOB).node_id());
    for (bit, flipped) in flips(&reply) {
        if bit < HEADER_LEN * 8 {
            let (mut again, _) = Initiator::new(Arc::new(alice.clone()), bob_id).unwrap();
            again.put(sent_again(pair.alice.sent()));
            let failure = again.on_message(&flipped).unwrap_err();
            assert!(
                matches!(
                    failure.error.reason,
                    Reason::Unexpected { .. } | Reason::Malformed
                ),
                "{failure:?}"
            );
            continue;
        }
        let failure = pair
            .alice
            .sent()
            .on_m2(&alice, bob_id, &flipped)
            .map(drop)
            .unwrap_err();
        let expected = match bit / 8 - HEADER_LEN {
            0..2 => Reason::SuiteNotOffered {
                chosen: u16::from_be_bytes([flipped[4], flipped[5]]),
            },
            _ => Reason::NotOpened,
        };
        assert_eq!(failure.error, here(Stage::M2, expected), "bit {bit}");
    }
    m3(pair.alice.on_message(&reply).unwrap());
}

// M3 flips: nothing opens. The unflipped M3 is still taken afterwards, by the same state.
#[test]
fn flipped_m3_of_suite_1() {
    flipped_m3_in(Suite::Aes256Gcm);
}

#[test]
fn flipped_m3_of_suite_2() {
    flipped_m3_in(Suite::ChaCha20Poly1305);
}

fn flipped_m3_in(suite: Suite) {
    let (mut pair, first) = Pair::new(config(ALICE), only(BOB, suite));
    let reply = m2(pair.bob_takes(Admission::Accept, &first).unwrap());
    let (last, ..) = m3(pair.alice.on_message(&reply).unwrap());
    let bob = Arc::new(only(BOB, suite));
    for (bit, flipped) in flips(&last) {
        let failure = if bit < HEADER_LEN * 8 {
            let replied = replied_again(pair.bob.replied());
            Responder::resumed(bob.clone(), replied)
                .on_message(T0, CARRIER, Admission::Accept, &pair.retry, &flipped)
                .map(drop)
                .unwrap_err()
        } else {
            let failure = pair
                .bob
                .replied()
                .on_m3(&bob, &flipped)
                .map(drop)
                .unwrap_err();
            assert_eq!(failure.error.reason, Reason::NotOpened, "bit {bit}");
            failure
        };
        assert_eq!(failure.error.stage, Stage::M3);
    }
    done(pair.bob_takes(Admission::Accept, &last).unwrap());
}

// Every cut of every message: not whole for the decoder; refused as malformed where a caller takes it for whole.
#[test]
fn cut_messages() {
    SUITES.into_iter().for_each(cut_messages_in);
}

fn cut_messages_in(suite: Suite) {
    let (mut pair, first) = Pair::new(config(ALICE), only(BOB, suite));
    let asked = retry(
        pair.bob_takes(Admission::Challenge { bits: 1 }, &first)
            .unwrap(),
    );
    pair.bob = Responder::new(only(BOB, suite).into());
    let reply = m2(pair.bob_takes(Admission::Accept, &first).unwrap());
    let sent = sent_again(pair.alice.sent());
    let replied = replied_again(pair.bob.replied());
    let (last, ..) = m3(pair.alice.on_message(&reply).unwrap());
    let reject = reject::clear(Stage::M1, Reason::Busy);
    let sealed_reject = reject::sealed(
        Stage::M3,
        Reason::Busy,
        &replied.keys.reject(schedule::Side::Responder),
    );
    for message in [&first, &asked, &reply, &last, &reject, &sealed_reject] {
        cuts_are_not_messages(message);
    }
    let malformed = |stage| here(stage, Reason::Malformed);
    let (alice, bob) = (Arc::new(config(ALICE)), Arc::new(only(BOB, suite)));
    for len in 0..first.len() {
        let failure = Responder::new(bob.clone())
            .on_message(T0, CARRIER, Admission::Accept, &pair.retry, &first[..len])
            .unwrap_err();
        assert_eq!(failure.error, malformed(Stage::M1));
    }
    let (mut initiator, _) = Initiator::new(alice, keys(BOB).node_id()).unwrap();
    for message in [&asked, &reply] {
        for len in 0..message.len() {
            initiator.put(sent_again(&sent));
            let failure = initiator.on_message(&message[..len]).unwrap_err();
            assert_eq!(failure.error, malformed(Stage::M2));
        }
    }
    for len in 0..last.len() {
        let failure = Responder::resumed(bob.clone(), replied_again(&replied))
            .on_message(T0, CARRIER, Admission::Accept, &pair.retry, &last[..len])
            .unwrap_err();
        assert_eq!(failure.error, malformed(Stage::M3));
    }
}

// A cut M1 whose header was mended to fit.
#[test]
fn cut_and_mended_m1() {
    let (pair, first) = Pair::new(config(ALICE), config(BOB));
    for len in 2..first.len() - HEADER_LEN {
        let message = frame::framed(frame::FrameType::M1, &first[HEADER_LEN..][..len]);
        let failure = on_m1(
            &config(BOB),
            &source(&pair.retry),
            Admission::Accept,
            false,
            &message,
        )
        .map(drop)
        .unwrap_err();
        assert_eq!(failure.error, here(Stage::M1, Reason::Malformed));
    }
}

// Flips of a sealed Reject: neither side reads anything out of it. A clear one has no protection and still ends typed.
#[test]
fn flipped_rejects() {
    SUITES.into_iter().for_each(flipped_rejects_in);
}

fn flipped_rejects_in(suite: Suite) {
    let (mut pair, first) = Pair::new(config(ALICE), only(BOB, suite));
    let reply = m2(pair.bob_takes(Admission::Accept, &first).unwrap());
    let replied = replied_again(pair.bob.replied());
    let (_, session, _) = m3(pair.alice.on_message(&reply).unwrap());
    let (_, mut back) = session.split();
    let key = replied.keys.reject(schedule::Side::Responder);
    for (bit, flipped) in flips(&reject::sealed(Stage::M3, Reason::BadFinished, &key)) {
        let error = opened(&mut back, &flipped).unwrap_err();
        let header = bit < HEADER_LEN * 8;
        assert!(
            matches!(
                (header, error),
                (false, RecordError::NotOpened)
                    | (
                        true,
                        RecordError::NotOpened
                            | RecordError::Frame { .. }
                            | RecordError::Length { .. }
                    )
            ),
            "bit {bit}: {error:?}"
        );
        back.revive();
    }
    for (bit, flipped) in flips(&reject::clear(Stage::M2, Reason::NotOpened)) {
        let failure = Responder::resumed(only(BOB, suite).into(), replied_again(&replied))
            .on_message(T0, CARRIER, Admission::Accept, &pair.retry, &flipped)
            .unwrap_err();
        assert_eq!(failure.reject.is_some(), bit < HEADER_LEN * 8, "bit {bit}");
    }
}

// Record flips and cuts, in both suites: the header lies, or nothing opens. The unflipped record opens afterwards.
#[test]
fn flipped_and_cut_records() {
    for suite in SUITES {
        let (alice, bob) = connect(config(ALICE), only(BOB, suite));
        assert_eq!((alice.suite(), bob.suite()), (suite, suite));
        let ((mut out, _), (_, mut back)) = (alice.split(), bob.split());
        for content in [&[1u8; 1_350][..], &[2], &[]] {
            let kind = if content.is_empty() {
                Kind::Close
            } else {
                Kind::Data
            };
            let record = sealed(&mut out, T0, kind, content);
            for (bit, flipped) in flips(&record) {
                let error = opened(&mut back, &flipped).unwrap_err();
                let expected = match bit / 8 {
                    0 => RecordError::Frame { got: flipped[0] },
                    1..4 => RecordError::Length {
                        got: match error {
                            RecordError::Length { got } => got,
                            other => panic!("bit {bit}: {other:?}"),
                        },
                    },
                    _ => RecordError::NotOpened,
                };
                assert_eq!(error, expected, "bit {bit}");
                back.revive();
            }
            for len in 0..record.len() {
                let error = opened(&mut back, &record[..len]).unwrap_err();
                assert!(matches!(error, RecordError::Length { .. }), "{error:?}");
                back.revive();
            }
            // Cut, and the header mended: authenticated all the same.
            for len in record::TRAILER_LEN..record.len() - HEADER_LEN {
                let mended = frame::framed(frame::FrameType::Record, &record[HEADER_LEN..][..len]);
                assert_eq!(opened(&mut back, &mended), Err(RecordError::NotOpened));
                back.revive();
            }
            assert_eq!(opened(&mut back, &record), Ok((kind, content.to_vec())));
        }
    }
}

// Pieces of every size make the same message, and what follows it is not touched.
#[test]
fn decoder_in_pieces() {
    let (_, first) = Pair::new(config(ALICE), config(BOB));
    let stream = [&first[..], b"what follows"].concat();
    for size in [1, 2, 3, 4, 5, 1_336, 1_337, 1_338, 5_000] {
        let mut decoder = Decoder::new();
        let mut rest = &stream[..];
        let message = loop {
            let mut piece = &rest[..size.min(rest.len())];
            let before = piece.len();
            let message = decoder.push(&mut piece).unwrap();
            rest = &rest[before - piece.len()..];
            if let Some(message) = message {
                break message;
            }
        };
        assert_eq!(message, first);
        assert_eq!(rest, b"what follows");
        assert_eq!(decoder.missing(), HEADER_LEN, "ready for the next");
    }
}

// Headers that lie are refused before a body is waited for.
#[test]
fn decoder_refuses_by_header() {
    use frame::{FrameError, FrameType};
    for (head, error) in [
        ([0, 0, 0, 1], FrameError::Type { got: 0 }),
        ([0x10, 0, 0, 17], FrameError::Type { got: 0x10 }),
        (*b"GET ", FrameError::Type { got: b'G' }),
        (
            [1, 0, 0, 0],
            FrameError::Length {
                of: FrameType::M1,
                got: 0,
            },
        ),
        (
            [1, 0, 0x1f, 0xfd],
            FrameError::Length {
                of: FrameType::M1,
                got: 8_189,
            },
        ),
        (
            [2, 0, 0, 42],
            FrameError::Length {
                of: FrameType::Retry,
                got: 42,
            },
        ),
        (
            [3, 0xff, 0xff, 0xff],
            FrameError::Length {
                of: FrameType::M2,
                got: 0xff_ffff,
            },
        ),
        (
            [4, 0, 0, 0],
            FrameError::Length {
                of: FrameType::M3,
                got: 0,
            },
        ),
        (
            [5, 0, 0, 7],
            FrameError::Length {
                of: FrameType::Reject,
                got: 7,
            },
        ),
        (
            [6, 0, 0, 6],
            FrameError::Length {
                of: FrameType::SealedReject,
                got: 6,
            },
        ),
    ] {
        assert_eq!(Decoder::new().push(&mut &head[..]), Err(error));
    }
}

impl schedule::HandshakeKeys {
    fn copy(&self) -> Self {
        Self::new(Prk::copied_from(self.hs.expose()), self.suite(), *self.th())
    }
}
