//! Peers that hold the handshake's keys and misuse them, and the rejects they may send.

use pqcnet_crypto::{HybridSignature, KemPublic, NodeKeys, encapsulate};

use super::net::*;
use crate::frame::{FrameType, HEADER_LEN, framed, header};
use crate::schedule::{HandshakeKeys, Side, handshake_secret, signed};
use crate::transcript::Transcript;
use crate::wire::{M1, M2, M3};
use crate::*;

/// What a dishonest peer puts into its sealed part.
struct Sealing<'a> {
    /// Public keys shown.
    shown: &'a NodeKeys,
    /// Keys that sign.
    signer: &'a NodeKeys,
    extra: &'a [u8],
    /// Role under the signature.
    role: Side,
    flip_finished: bool,
    /// Bit of the signatures to flip.
    flip_signature: Option<usize>,
}

impl<'a> Sealing<'a> {
    fn honest(who: &'a NodeKeys, extra: &'a [u8], role: Side) -> Self {
        Sealing {
            shown: who,
            signer: who,
            extra,
            role,
            flip_finished: false,
            flip_signature: None,
        }
    }

    /// As `sealed::finish_sealed`, with the faults. Finished is right unless flipped.
    fn append(
        &self,
        transcript: &mut Transcript,
        keys: &HandshakeKeys,
        side: Side,
        message: &mut Vec<u8>,
    ) {
        let start = message.len();
        let aad = transcript.th();
        message.extend_from_slice(&self.shown.public().to_bytes());
        message.extend_from_slice(self.extra);
        transcript.absorb(&message[start..]);
        let mut signatures = self
            .signer
            .sign(&signed(self.role, &transcript.th()))
            .to_bytes();
        if let Some(bit) = self.flip_signature {
            signatures[bit / 8] ^= 1 << (bit % 8);
        }
        transcript.absorb(&signatures);
        message.extend_from_slice(&signatures);
        let mut finished = keys.finished(side, &transcript.th());
        finished[31] ^= u8::from(self.flip_finished);
        transcript.absorb(&finished);
        message.extend_from_slice(&finished);
        let tag = keys.seal(side).seal(&aad, &mut message[start..]);
        message.extend_from_slice(&tag);
        transcript.absorb(&message[start..]);
    }
}

/// Begins an M2 to `m1` by hand.
fn reply_by_hand(m1: &[u8], suite_number: u16) -> (Vec<u8>, Transcript, HandshakeKeys) {
    let mut transcript = Transcript::new(b"/pqcnet/qstp/1");
    transcript.absorb(m1);
    let key = KemPublic::from_bytes(M1::decode(&m1[HEADER_LEN..]).unwrap().key).unwrap();
    let (ciphertext, shared) = encapsulate(&key).unwrap();
    let mut message = header(FrameType::M2, M2::LEN).to_vec();
    message.extend_from_slice(&suite_number.to_be_bytes());
    message.extend_from_slice(&[3; 32]);
    message.extend_from_slice(ciphertext.as_bytes());
    transcript.absorb(&message);
    let keys = HandshakeKeys::new(handshake_secret(&shared), Suite::Aes256Gcm, transcript.th());
    (message, transcript, keys)
}

/// Alice's verdict over an M2 with these faults, and what a responder with the same keys reads in her reject.
fn alice_on(sealing: &Sealing<'_>) -> (HandshakeError, HandshakeError) {
    let (mut pair, first) = Pair::new(config(ALICE), config(BOB));
    let (mut message, mut transcript, keys) = reply_by_hand(&first, 1);
    sealing.append(&mut transcript, &keys, Side::Responder, &mut message);
    let replied = responder::Replied {
        keys,
        transcript,
        suite: Suite::Aes256Gcm,
    };
    pair.bob = Responder::resumed(config(BOB).into(), replied);
    pair.alice_refuses(&message)
}

/// Bob's verdict over an M3 with these faults, and what Alice reads in his reject.
fn bob_on(sealing: &Sealing<'_>) -> (HandshakeError, HandshakeError) {
    let (mut pair, first) = Pair::new(config(ALICE), config(BOB));
    let reply = m2(pair.bob_takes(Admission::Accept, &first).unwrap());
    let mut accepted = pair
        .alice
        .sent()
        .on_m2(&config(ALICE), keys(BOB).node_id(), &reply)
        .unwrap();
    let mut message = header(FrameType::M3, M3::LEN).to_vec();
    accepted.transcript.absorb(&message);
    sealing.append(
        &mut accepted.transcript,
        &accepted.keys,
        Side::Initiator,
        &mut message,
    );
    let bob = pair.bob_takes(Admission::Accept, &message).unwrap_err();
    let (_, session, _) = m3(accepted.m3(&config(ALICE)));
    match opened(&mut session.split().1, &bob.reject.unwrap()) {
        Err(RecordError::Rejected(alice)) => (bob.error, alice),
        other => panic!("not rejected: {other:?}"),
    }
}

fn both(stage: Stage, reason: Reason) -> (HandshakeError, HandshakeError) {
    (here(stage, reason), told(stage, reason, true))
}

const LAST_ED25519_BIT: usize = 8 * 64 - 1;

// The helper itself: without a fault both sides are content.
#[test]
fn no_fault_no_refusal() {
    let (mut pair, first) = Pair::new(config(ALICE), config(BOB));
    let (mut message, mut transcript, keys_by_hand) = reply_by_hand(&first, 1);
    let bob = keys(BOB);
    let limits = Limits::default().encode();
    let honest = Sealing::honest(&bob, &limits, Side::Responder);
    honest.append(
        &mut transcript,
        &keys_by_hand,
        Side::Responder,
        &mut message,
    );
    let (.., peer) = m3(pair.alice.on_message(&message).unwrap());
    assert_eq!(&peer, bob.public());
}

// Each half of the responder's signatures is damaged; somebody else signs; the initiator's role is signed. Whoever shows
// Bob's keys without holding them gets no further.
#[test]
fn bad_signatures_in_m2() {
    let (bob, eve) = (keys(BOB), keys(EVE));
    let limits = Limits::default().encode();
    let honest = || Sealing::honest(&bob, &limits, Side::Responder);
    for faulty in [
        Sealing {
            flip_signature: Some(LAST_ED25519_BIT - 8),
            ..honest()
        },
        Sealing {
            flip_signature: Some(LAST_ED25519_BIT + 1),
            ..honest()
        },
        Sealing {
            signer: &eve,
            ..honest()
        },
        Sealing {
            role: Side::Initiator,
            ..honest()
        },
    ] {
        assert_eq!(alice_on(&faulty), both(Stage::M2, Reason::BadSignature));
    }
}

// The same in M3. Eve, who broke one of Alice's two keys, still lacks the other.
#[test]
fn bad_signatures_in_m3() {
    let (alice, eve, meant) = (keys(ALICE), keys(EVE), keys(BOB).node_id());
    let honest = || Sealing::honest(&alice, meant.as_bytes(), Side::Initiator);
    for faulty in [
        Sealing {
            flip_signature: Some(LAST_ED25519_BIT - 8),
            ..honest()
        },
        Sealing {
            flip_signature: Some(LAST_ED25519_BIT + 1),
            ..honest()
        },
        Sealing {
            signer: &eve,
            ..honest()
        },
        Sealing {
            role: Side::Responder,
            ..honest()
        },
    ] {
        assert_eq!(bob_on(&faulty), both(Stage::M3, Reason::BadSignature));
    }
}

// Finished values that do not fit.
#[test]
fn bad_finished() {
    let (alice, bob) = (keys(ALICE), keys(BOB));
    let limits = Limits::default().encode();
    assert_eq!(
        alice_on(&Sealing {
            flip_finished: true,
            ..Sealing::honest(&bob, &limits, Side::Responder)
        }),
        both(Stage::M2, Reason::BadFinished)
    );
    let meant = bob.node_id();
    assert_eq!(
        bob_on(&Sealing {
            flip_finished: true,
            ..Sealing::honest(&alice, meant.as_bytes(), Side::Initiator)
        }),
        both(Stage::M3, Reason::BadFinished)
    );
}

// Limits beyond what the protocol allows, one at a time, on both ends of their ranges.
#[test]
fn bad_limits() {
    let good = Limits::default();
    let bob = keys(BOB);
    for bad in [
        Limits {
            max_record: 4_095,
            ..good
        },
        Limits {
            max_record: 65_537,
            ..good
        },
        Limits {
            epoch_records: 0,
            ..good
        },
        Limits {
            epoch_records: (1 << 23) + 1,
            ..good
        },
        Limits {
            epoch_ms: 999,
            ..good
        },
        Limits {
            epoch_ms: 86_400_001,
            ..good
        },
    ] {
        let faulty = Sealing::honest(&bob, &bad.encode(), Side::Responder)
            .extra
            .to_vec();
        assert_eq!(
            alice_on(&Sealing::honest(&bob, &faulty, Side::Responder)),
            both(Stage::M2, Reason::BadLimits)
        );
    }
}

// Identity misbinding: Alice meant Eve, and Eve passes her handshake on to Bob. The NodeId under Alice's signature says so.
#[test]
fn meant_for_another_node() {
    let (alice, meant) = (keys(ALICE), keys(EVE).node_id());
    let (bob, told_alice) = bob_on(&Sealing::honest(&alice, meant.as_bytes(), Side::Initiator));
    assert_eq!(
        bob,
        here(
            Stage::M3,
            Reason::Identity {
                expected: Some(meant),
                got: Some(keys(BOB).node_id())
            }
        )
    );
    let untold = Reason::Identity {
        expected: None,
        got: None,
    };
    assert_eq!(told_alice, told(Stage::M3, untold, true));
}

// An initiator shows the responder's own keys.
#[test]
fn initiator_with_the_responders_keys() {
    let bob = keys(BOB);
    let meant = bob.node_id();
    assert_eq!(
        bob_on(&Sealing::honest(&bob, meant.as_bytes(), Side::Initiator)),
        both(Stage::M3, Reason::SelfConnect)
    );
}

// A suite that Alice did not offer, and one that nobody knows.
#[test]
fn suite_that_was_not_offered() {
    for chosen in [2, 0, 3, 0xffff] {
        let mut alice = config(ALICE);
        alice.suites = vec![Suite::Aes256Gcm];
        let (mut pair, first) = Pair::new(alice, config(BOB));
        m2(pair.bob_takes(Admission::Accept, &first).unwrap());
        let (mut message, ..) = reply_by_hand(&first, chosen);
        message.resize(HEADER_LEN + M2::LEN, 0);
        let reason = Reason::SuiteNotOffered { chosen };
        assert_eq!(
            pair.alice_refuses(&message),
            (here(Stage::M2, reason), told(Stage::M2, reason, false))
        );
    }
}

// An ephemeral key that FIPS 203 refuses, and X25519 values of low order on either side.
#[test]
fn degenerate_keys() {
    let (mut pair, mut first) = Pair::new(config(ALICE), config(BOB));
    first[HEADER_LEN + 68..][..3].fill(0xff);
    assert_eq!(
        pair.bob_refuses(&first),
        (
            told(Stage::M1, Reason::BadKey, false),
            here(Stage::M1, Reason::BadKey)
        )
    );

    let (mut pair, mut first) = Pair::new(config(ALICE), config(BOB));
    first[HEADER_LEN + 68 + 1184..][..32].fill(0);
    assert_eq!(
        pair.bob_refuses(&first),
        (
            told(Stage::M1, Reason::BadKey, false),
            here(Stage::M1, Reason::BadKey)
        )
    );

    let (mut pair, first) = Pair::new(config(ALICE), config(BOB));
    let mut reply = m2(pair.bob_takes(Admission::Accept, &first).unwrap());
    reply[HEADER_LEN + 34 + 1088..][..32].fill(0);
    assert_eq!(
        pair.alice_refuses(&reply),
        (
            here(Stage::M2, Reason::BadCiphertext),
            told(Stage::M2, Reason::BadCiphertext, false)
        )
    );
}

// The engine refuses a key of its own: not the peer's fault, and said so.
#[test]
fn engine_failure_is_not_the_peers_fault() {
    use pqcnet_crypto::KemError;
    assert_eq!(
        Reason::of_kem(KemError::Engine, Reason::BadKey),
        Reason::Engine
    );
    assert_eq!(
        Reason::of_kem(KemError::LowOrder, Reason::BadKey),
        Reason::BadKey
    );
}

// A Reject with a stage that does not exist, and one with a reason of a later version.
#[test]
fn rejects_of_other_versions() {
    for (body, error) in [
        ([9, 3, 0, 0, 0, 0], here(Stage::M2, Reason::Malformed)),
        (
            [1, 200, 0, 0, 0, 0],
            told(Stage::M1, Reason::Unknown { code: 200 }, false),
        ),
    ] {
        let (mut pair, _) = Pair::new(config(ALICE), config(BOB));
        let failure = pair
            .alice
            .on_message(&framed(FrameType::Reject, &body))
            .unwrap_err();
        assert_eq!(failure.error, error);
        assert_eq!(failure.reject, None);
    }
    let (mut pair, first) = Pair::new(config(ALICE), config(BOB));
    let reply = m2(pair.bob_takes(Admission::Accept, &first).unwrap());
    let (_, session, _) = m3(pair.alice.on_message(&reply).unwrap());
    // Bob, from a later version, refuses at a stage that Alice does not know.
    let key = pair.bob.replied().keys.reject(Side::Responder);
    let head = header(FrameType::SealedReject, 22);
    let mut text = [9, 3, 0, 0, 0, 0];
    let tag = key.seal(&head, &mut text);
    assert_eq!(
        opened(&mut session.split().1, &[&head[..], &text, &tag].concat()),
        Err(RecordError::Rejected(here(Stage::M3, Reason::Malformed)))
    );
}

// Every reason survives the wire, save the NodeIds, which do not travel.
#[test]
fn reasons_on_the_wire() {
    let mut seen = 0;
    for code in 0..=255u8 {
        let reason = Reason::decode(code, 0x0001_0002);
        assert_eq!(reason.encode().0, code);
        assert_eq!(Reason::decode(code, reason.encode().1), reason);
        seen += u32::from(!matches!(reason, Reason::Unknown { .. }));
    }
    assert_eq!(seen, 23);
}

// Somebody on the path invents a clear Reject after M2: it ends the handshake, as cutting the connection would, and is
// marked as not authenticated. A sealed one cannot be invented.
#[test]
fn invented_rejects() {
    let busy = reject::clear(Stage::M2, Reason::Busy);
    let (mut pair, first) = Pair::new(config(ALICE), config(BOB));
    m2(pair.bob_takes(Admission::Accept, &first).unwrap());
    let bob = pair.bob_takes(Admission::Accept, &busy).unwrap_err();
    assert_eq!(bob.error, told(Stage::M2, Reason::Busy, false));

    let (mut pair, first) = Pair::new(config(ALICE), config(BOB));
    m2(pair.bob_takes(Admission::Accept, &first).unwrap());
    let sealed = framed(FrameType::SealedReject, &[1; 22]);
    let bob = pair.bob_takes(Admission::Accept, &sealed).unwrap_err();
    assert_eq!(bob.error, here(Stage::M3, Reason::NotOpened));
    assert_eq!(bob.reject, None);
}

const _: () = assert!(HybridSignature::LEN == 64 + 3_309);
