//! The stateless Retry: tokens, puzzles, rotation, replay.

use std::time::Duration;

use super::net::*;
use crate::retry::{ROTATE_AFTER, TOKEN_LIFETIME};
use crate::*;

const EASY: Admission = Admission::Challenge { bits: 4 };

/// Alice after a Retry: the M1 that carries her token.
fn challenged(alice: Config, bits: u8) -> (Pair, Vec<u8>) {
    let (mut pair, first) = Pair::new(alice, config(BOB));
    let asked = retry(
        pair.bob_takes(Admission::Challenge { bits }, &first)
            .unwrap(),
    );
    assert_eq!(asked.len(), 45);
    let again = resend(pair.alice.on_message(&asked).unwrap());
    assert_eq!(again.len(), first.len());
    (pair, again)
}

fn refused(mut pair: Pair, message: &[u8], reason: Reason) {
    let bob = pair.bob_takes(EASY, message).unwrap_err();
    assert_eq!(bob.error, here(Stage::Retry, reason));
    let alice = pair.alice.on_message(&bob.reject.unwrap()).unwrap_err();
    assert_eq!(alice.error, told(Stage::Retry, reason, false));
}

// A puzzle is asked for and solved; the responder that takes the answer is not the one that asked.
#[test]
fn another_responder_takes_the_answer() {
    let (mut pair, again) = challenged(config(ALICE), 4);
    pair.bob = Responder::new(config(BOB).into());
    let reply = m2(pair.bob_takes(EASY, &again).unwrap());
    let (last, alice, _) = m3(pair.alice.on_message(&reply).unwrap());
    let (bob, _) = done(pair.bob_takes(EASY, &last).unwrap());
    assert_eq!(alice.transcript_hash(), bob.transcript_hash());
}

// A token alone, without work; and a load that has passed: the token is still checked and still bound.
#[test]
fn token_without_work() {
    let (mut pair, again) = challenged(config(ALICE), 0);
    let reply = m2(pair.bob_takes(Admission::Accept, &again).unwrap());
    m3(pair.alice.on_message(&reply).unwrap());
}

// More bits than any initiator would solve are asked for: the responder asks for the most there may be.
#[test]
fn bits_are_capped() {
    let (mut pair, first) = Pair::new(config(ALICE), config(BOB));
    let asked = retry(
        pair.bob_takes(Admission::Challenge { bits: 255 }, &first)
            .unwrap(),
    );
    assert_eq!(asked[4 + 8], Config::MAX_PUZZLE_BITS);
}

// The token of one M1 is used with another.
#[test]
fn token_of_another_message() {
    let (pair, again) = challenged(config(ALICE), 0);
    let (alice, other) = Initiator::new(config(ALICE).into(), keys(BOB).node_id()).unwrap();
    let mut stolen = other;
    let at = stolen.len() - 49;
    stolen[at..].copy_from_slice(&again[at..]);
    refused(Pair { alice, ..pair }, &stolen, Reason::BadToken);
}

// The whole M1 with its token is replayed from another connection.
#[test]
fn token_from_another_carrier() {
    let (pair, again) = challenged(config(ALICE), 0);
    let mut other = Responder::new(config(BOB).into());
    let failure = other
        .on_message(pair.now, b"192.0.2.7:4711#2", EASY, &pair.retry, &again)
        .unwrap_err();
    assert_eq!(failure.error, here(Stage::Retry, Reason::BadToken));
}

// A token is good to the last millisecond of its life, and no longer.
#[test]
fn expired_token() {
    let (mut pair, again) = challenged(config(ALICE), 0);
    pair.now = T0 + TOKEN_LIFETIME;
    m2(pair.bob_takes(EASY, &again).unwrap());

    let (mut pair, again) = challenged(config(ALICE), 0);
    pair.now = T0 + TOKEN_LIFETIME + Duration::from_millis(1);
    refused(pair, &again, Reason::TokenExpired);
}

// Keys rotate on time: a token outlives one rotation, and is unknown after two.
#[test]
fn rotated_keys() {
    let (mut pair, again) = challenged(config(ALICE), 0);
    assert!(
        !pair
            .retry
            .rotate_if_due(T0 + ROTATE_AFTER - Duration::from_millis(1))
    );
    assert!(pair.retry.rotate_if_due(T0 + ROTATE_AFTER));
    m2(pair.bob_takes(EASY, &again).unwrap());

    let (mut pair, again) = challenged(config(ALICE), 0);
    assert!(pair.retry.rotate_if_due(T0 + ROTATE_AFTER));
    assert!(pair.retry.rotate_if_due(T0 + 2 * ROTATE_AFTER));
    refused(pair, &again, Reason::BadToken);
}

// Another node's keys, or this node's after a restart.
#[test]
fn token_of_another_life() {
    let (mut pair, again) = challenged(config(ALICE), 0);
    pair.retry = RetryKeys::new(T0);
    refused(pair, &again, Reason::BadToken);
}

// The solution is wrong.
#[test]
fn unsolved_puzzle() {
    let (pair, mut again) = challenged(config(ALICE), 12);
    let at = again.len() - 8;
    let token: [u8; 41] = again[at - 41..at].try_into().unwrap();
    let hash = wire::M1::hash(&wire::M1::with_token(&again, &[0; 41], 0));
    let wrong = (0..)
        .find(|&n| !puzzle::verify(&hash, &token, 12, n))
        .unwrap();
    again[at..].copy_from_slice(&u64::to_be_bytes(wrong));
    refused(pair, &again, Reason::PuzzleUnsolved);
}

// The initiator sets its own bounds: bits, and hashes tried.
#[test]
fn work_beyond_the_initiators_bounds() {
    for (config, bits, reason) in [
        (
            config(ALICE).with_puzzle(3, 1 << 20).unwrap(),
            4,
            Reason::PuzzleTooHard { bits: 4 },
        ),
        (
            config(ALICE).with_puzzle(20, 0).unwrap(),
            4,
            Reason::PuzzleGaveUp,
        ),
    ] {
        let (mut pair, first) = Pair::new(config, self::config(BOB));
        let asked = retry(
            pair.bob_takes(Admission::Challenge { bits }, &first)
                .unwrap(),
        );
        let alice = pair.alice.on_message(&asked).unwrap_err();
        assert_eq!(alice.error, here(Stage::Retry, reason));
        let bob = pair.bob_takes(EASY, &alice.reject.unwrap()).unwrap_err();
        assert_eq!(bob.error, told(Stage::Retry, reason, false));
    }
}

// A second Retry would let a responder make the initiator work for ever.
#[test]
fn second_retry() {
    let (mut pair, first) = Pair::new(config(ALICE), config(BOB));
    let asked = retry(pair.bob_takes(EASY, &first).unwrap());
    resend(pair.alice.on_message(&asked).unwrap());
    let reason = Reason::Unexpected { got: 2 };
    let alice = pair.alice.on_message(&asked).unwrap_err();
    assert_eq!(alice.error, here(Stage::Retry, reason));
}

// An initiator that ignores the Retry does not get another.
#[test]
fn ignored_retry() {
    let (mut pair, first) = Pair::new(config(ALICE), config(BOB));
    retry(pair.bob_takes(EASY, &first).unwrap());
    let bob = pair.bob_takes(EASY, &first).unwrap_err();
    assert_eq!(bob.error, here(Stage::M1, Reason::Unexpected { got: 1 }));
}

// A solution without a token.
#[test]
fn solution_without_token() {
    let (mut pair, mut first) = Pair::new(config(ALICE), config(BOB));
    *first.last_mut().unwrap() = 1;
    assert_eq!(
        pair.bob_refuses(&first),
        (
            told(Stage::M1, Reason::Malformed, false),
            here(Stage::M1, Reason::Malformed)
        )
    );
}

// Somebody on the path invents a Retry: the responder does not know the token.
#[test]
fn invented_retry() {
    let (mut pair, _) = Pair::new(config(ALICE), config(BOB));
    let invented = frame::framed(
        frame::FrameType::Retry,
        &[[0u8; 9].as_slice(), &[5; 32]].concat(),
    );
    let again = resend(pair.alice.on_message(&invented).unwrap());
    refused(pair, &again, Reason::BadToken);
}

// The solver finds what the checker takes, for every number of bits, and not less.
#[test]
fn puzzles() {
    for bits in 0..=12 {
        let solution = puzzle::solve(&[1; 32], b"token", bits, 1 << 20).unwrap();
        assert!(puzzle::verify(&[1; 32], b"token", bits, solution));
        assert_eq!(
            puzzle::solve(&[1; 32], b"token", bits, solution),
            None,
            "the first solution is the least"
        );
    }
    assert_eq!(puzzle::solve(&[1; 32], b"token", 0, 0), None);
}
