//! Handshakes that succeed, and the wrong network, version, suite, identity that both sides name alike.

use super::net::*;
use crate::*;

// Both sides finish with the same hash, suite, limits and exports, know each other, and talk both ways.
#[test]
fn two_nodes_meet() {
    let (mut pair, first) = Pair::new(config(ALICE), config(BOB));
    assert_eq!(first.len(), 1_337);
    let reply = m2(pair.bob_takes(Admission::Accept, &first).unwrap());
    assert_eq!(reply.len(), 6_575);
    let (last, alice, bobs_keys) = m3(pair.alice.on_message(&reply).unwrap());
    assert_eq!(last.len(), 5_441);
    let (bob, alices_keys) = done(pair.bob_takes(Admission::Accept, &last).unwrap());
    assert_eq!(&bobs_keys, keys(BOB).public());
    assert_eq!(&alices_keys, keys(ALICE).public());
    assert_eq!(alice.transcript_hash(), bob.transcript_hash());
    assert_eq!(alice.suite(), Suite::Aes256Gcm);
    assert_eq!(bob.suite(), Suite::Aes256Gcm);
    assert_eq!(alice.limits(), Limits::default());

    let (mut a, mut b, mut c) = ([0; 40], [0; 40], [0; 40]);
    alice.export(b"x", b"context", &mut a).unwrap();
    bob.export(b"x", b"context", &mut b).unwrap();
    bob.export(b"x", b"other", &mut c).unwrap();
    assert_eq!(a, b);
    assert_ne!(a, c);
    let mut long = vec![0; 255 * 32 + 1];
    assert_eq!(
        alice.export(b"x", b"", &mut long).unwrap_err().asked,
        long.len()
    );

    let (mut alice_out, mut alice_in) = alice.split();
    let (mut bob_out, mut bob_in) = bob.split();
    let ping = sealed(&mut alice_out, T0, Kind::Data, b"ping");
    assert_eq!(ping.len(), 4 + record::OVERHEAD);
    assert_eq!(
        opened(&mut bob_in, &ping),
        Ok((Kind::Data, b"ping".to_vec()))
    );
    let pong = sealed(&mut bob_out, T0, Kind::Data, b"pong");
    assert_eq!(
        opened(&mut alice_in, &pong),
        Ok((Kind::Data, b"pong".to_vec()))
    );
}

// A node of another network is refused before anything is computed; both sides name M1 and the network.
#[test]
fn wrong_network() {
    let mut other = config(ALICE);
    other.network_id[31] ^= 1;
    let (mut pair, first) = Pair::new(other, config(BOB));
    assert_eq!(
        pair.bob_refuses(&first),
        (
            told(Stage::M1, Reason::WrongNetwork, false),
            here(Stage::M1, Reason::WrongNetwork)
        )
    );
}

// Either side is a version ahead; both learn both versions.
#[test]
fn wrong_version() {
    for (alices, bobs) in [(2, 1), (1, 2), (0, 1)] {
        let (mut alice, mut bob) = (config(ALICE), config(BOB));
        alice.version = alices;
        bob.version = bobs;
        let reason = Reason::Version {
            offered: alices,
            supported: bobs,
        };
        let (mut pair, first) = Pair::new(alice, bob);
        assert_eq!(
            pair.bob_refuses(&first),
            (told(Stage::M1, reason, false), here(Stage::M1, reason))
        );
    }
}

// A later version's M1 may have any length: it still gets the version, not "malformed".
#[test]
fn another_versions_message_has_another_length() {
    let (mut pair, _) = Pair::new(config(ALICE), config(BOB));
    let m1 = crate::frame::framed(frame::FrameType::M1, &[9; 5_000]);
    let reason = Reason::Version {
        offered: 9,
        supported: 1,
    };
    let bob = pair.bob_takes(Admission::Accept, &m1).unwrap_err();
    assert_eq!(bob.error, here(Stage::M1, reason));
}

// The tunnel profile has its place on the wire and is refused by name.
#[test]
fn tunnel_profile() {
    let (mut pair, mut first) = Pair::new(config(ALICE), config(BOB));
    first[5] = Profile::Tunnel.number();
    let reason = Reason::Profile { asked: 2 };
    assert_eq!(
        pair.bob_refuses(&first),
        (told(Stage::M1, reason, false), here(Stage::M1, reason))
    );
}

// No suite in common.
#[test]
fn no_common_suite() {
    let (mut alice, mut bob) = (config(ALICE), config(BOB));
    alice.suites = vec![Suite::Aes256Gcm];
    bob.suites = vec![Suite::ChaCha20Poly1305];
    let reason = Reason::NoCommonSuite {
        offered: 0b01,
        supported: 0b10,
    };
    let (mut pair, first) = Pair::new(alice, bob);
    assert_eq!(
        pair.bob_refuses(&first),
        (told(Stage::M1, reason, false), here(Stage::M1, reason))
    );
}

// The responder's order decides; suite 2 carries records.
#[test]
fn responder_prefers_suite_2() {
    let mut bob = config(BOB);
    bob.suites.reverse();
    let (alice, bob) = connect(config(ALICE), bob);
    assert_eq!(alice.suite(), Suite::ChaCha20Poly1305);
    assert_eq!(bob.suite(), Suite::ChaCha20Poly1305);
    let record = sealed(&mut alice.split().0, T0, Kind::Data, b"x");
    assert_eq!(
        opened(&mut bob.split().1, &record),
        Ok((Kind::Data, b"x".to_vec()))
    );
}

// Somebody on the path takes suite 1 out of the offer: both would speak suite 2, but the transcripts differ.
#[test]
fn downgrade_of_the_offer() {
    let (mut pair, mut first) = Pair::new(config(ALICE), config(BOB));
    assert_eq!(&first[6..8], &[0, 0b11]);
    first[7] = 0b10;
    let reply = m2(pair.bob_takes(Admission::Accept, &first).unwrap());
    assert_eq!(
        pair.alice_refuses(&reply),
        (
            here(Stage::M2, Reason::NotOpened),
            told(Stage::M2, Reason::NotOpened, false)
        )
    );
}

// Alice dials the address of Eve and Bob answers. She stops before she has said who she is, and does not tell him whom
// she was looking for.
#[test]
fn wrong_identity() {
    let (mut pair, _) = Pair::new(config(ALICE), config(BOB));
    let (alice, first) = Initiator::new(config(ALICE).into(), keys(EVE).node_id()).unwrap();
    pair.alice = alice;
    let reply = m2(pair.bob_takes(Admission::Accept, &first).unwrap());
    let reason = Reason::Identity {
        expected: Some(keys(EVE).node_id()),
        got: Some(keys(BOB).node_id()),
    };
    let untold = Reason::Identity {
        expected: None,
        got: None,
    };
    assert_eq!(
        pair.alice_refuses(&reply),
        (here(Stage::M2, reason), told(Stage::M2, untold, true))
    );
}

// A node does not dial its own NodeId.
#[test]
fn dialling_oneself() {
    let own = keys(ALICE).node_id();
    let error = Initiator::new(config(ALICE).into(), own).unwrap_err();
    assert_eq!(error, here(Stage::M1, Reason::SelfConnect));
}

// Alice dials Bob, and the path leads back to Alice's own listener.
#[test]
fn led_back_to_oneself() {
    let (mut pair, first) = Pair::new(config(ALICE), config(BOB));
    pair.bob = Responder::new(config(ALICE).into());
    let reply = m2(pair.bob_takes(Admission::Accept, &first).unwrap());
    assert_eq!(
        pair.alice_refuses(&reply),
        (
            here(Stage::M2, Reason::SelfConnect),
            told(Stage::M2, Reason::SelfConnect, true)
        )
    );
}

// Each side gets its own messages back.
#[test]
fn reflection() {
    let (mut pair, first) = Pair::new(config(ALICE), config(BOB));
    let failure = pair.alice.on_message(&first).unwrap_err();
    assert_eq!(
        failure.error,
        here(Stage::M2, Reason::Unexpected { got: 1 })
    );

    let (mut pair, first) = Pair::new(config(ALICE), config(BOB));
    let reply = m2(pair.bob_takes(Admission::Accept, &first).unwrap());
    let reason = Reason::Unexpected { got: 3 };
    let bob = pair.bob_takes(Admission::Accept, &reply).unwrap_err();
    assert_eq!(bob.error, here(Stage::M3, reason));
    // Bob's refusal is sealed: Alice, who has not seen M2, cannot read it and does not have to.
    let alice = pair.alice.on_message(&bob.reject.unwrap()).unwrap_err();
    assert_eq!(alice.error, here(Stage::M2, Reason::Unexpected { got: 6 }));
}

// Alice's records come back to her: her opener has Bob's keys, not hers.
#[test]
fn reflected_records() {
    let (alice, _) = connect(config(ALICE), config(BOB));
    let (mut out, mut back) = alice.split();
    let record = sealed(&mut out, T0, Kind::Data, b"hello");
    assert_eq!(opened(&mut back, &record), Err(RecordError::NotOpened));
}

// A recorded handshake is replayed: M1 costs one reply, and the recorded M3 does not fit it.
#[test]
fn replayed_handshake() {
    let (mut pair, first) = Pair::new(config(ALICE), config(BOB));
    let reply = m2(pair.bob_takes(Admission::Accept, &first).unwrap());
    let (last, ..) = m3(pair.alice.on_message(&reply).unwrap());
    done(pair.bob_takes(Admission::Accept, &last).unwrap());

    pair.bob = Responder::new(config(BOB).into());
    let second = m2(pair.bob_takes(Admission::Accept, &first).unwrap());
    assert_ne!(second, reply);
    let failure = pair.bob_takes(Admission::Accept, &last).unwrap_err();
    assert_eq!(failure.error, here(Stage::M3, Reason::NotOpened));
}

// The two sides negotiated different protocol names in clear before the handshake.
#[test]
fn another_prologue() {
    let bob = config(BOB).with_prologue(b"/pqcnet/qstp/2").unwrap();
    let (mut pair, first) = Pair::new(config(ALICE), bob);
    let reply = m2(pair.bob_takes(Admission::Accept, &first).unwrap());
    assert_eq!(
        pair.alice_refuses(&reply),
        (
            here(Stage::M2, Reason::NotOpened),
            told(Stage::M2, Reason::NotOpened, false)
        )
    );
}

// The guard takes nobody now.
#[test]
fn busy() {
    let (mut pair, first) = Pair::new(config(ALICE), config(BOB));
    let bob = pair.bob_takes(Admission::Refuse, &first).unwrap_err();
    assert_eq!(bob.error, here(Stage::M1, Reason::Busy));
    let alice = pair.alice.on_message(&bob.reject.unwrap()).unwrap_err();
    assert_eq!(alice.error, told(Stage::M1, Reason::Busy, false));
}

// A caller that goes on after the end is told so, and the peer hears nothing.
#[test]
fn over() {
    let (mut pair, first) = Pair::new(config(ALICE), config(BOB));
    let reply = m2(pair.bob_takes(Admission::Accept, &first).unwrap());
    let (last, ..) = m3(pair.alice.on_message(&reply).unwrap());
    done(pair.bob_takes(Admission::Accept, &last).unwrap());
    let alice = pair.alice.on_message(&reply).unwrap_err();
    assert_eq!(alice.error, here(Stage::M2, Reason::Over));
    assert_eq!(alice.reject, None);
    let bob = pair.bob_takes(Admission::Accept, &last).unwrap_err();
    assert_eq!(bob.error, here(Stage::M3, Reason::Over));
    assert_eq!(bob.reject, None);
    let frame = frame::FrameError::Type { got: 0x10 };
    assert_eq!(pair.alice.on_bad_frame(frame).error.reason, Reason::Over);
    assert_eq!(pair.bob.on_bad_frame(frame).error.reason, Reason::Over);
}

// The stream holds no QSTP at all: each side refuses by name, in the state that it is in.
#[test]
fn bad_frames() {
    let frame = frame::FrameError::Type { got: b'G' };
    let reason = Reason::Unexpected { got: b'G' };
    let (mut pair, _) = Pair::new(config(ALICE), config(BOB));
    let bob = pair.bob.on_bad_frame(frame);
    assert_eq!(bob.error, here(Stage::M1, reason));
    let alice = pair.alice.on_message(&bob.reject.unwrap()).unwrap_err();
    assert_eq!(alice.error, told(Stage::M1, reason, false));

    let (mut pair, first) = Pair::new(config(ALICE), config(BOB));
    m2(pair.bob_takes(Admission::Accept, &first).unwrap());
    let alice = pair.alice.on_bad_frame(frame);
    assert_eq!(alice.error, here(Stage::M2, reason));
    let bob = pair
        .bob_takes(Admission::Accept, &alice.reject.unwrap())
        .unwrap_err();
    assert_eq!(bob.error, told(Stage::M2, reason, false));

    let (mut pair, first) = Pair::new(config(ALICE), config(BOB));
    let reply = m2(pair.bob_takes(Admission::Accept, &first).unwrap());
    let (_, alice, _) = m3(pair.alice.on_message(&reply).unwrap());
    let bob = pair.bob.on_bad_frame(frame);
    assert_eq!(bob.error, here(Stage::M3, reason));
    assert_eq!(
        opened(&mut alice.split().1, &bob.reject.unwrap()),
        Err(RecordError::Rejected(told(Stage::M3, reason, true)))
    );
}

// What an operator or caller may get wrong.
#[test]
fn configurations_that_cannot_work() {
    let new = |suites, profile| Config::new(NETWORK, suites, keys(ALICE), profile).unwrap_err();
    assert_eq!(new(vec![], Profile::Link), ConfigError::NoSuite);
    let [aes, chacha] = SUITES;
    assert_eq!(
        new(vec![aes, chacha, aes], Profile::Link),
        ConfigError::SuiteTwice(aes)
    );
    assert_eq!(
        new(vec![Suite::Aes256Gcm], Profile::Tunnel),
        ConfigError::TunnelProfile
    );
    assert_eq!(
        config(ALICE).with_prologue(&[0; 256]).unwrap_err(),
        ConfigError::PrologueTooLong { got: 256 }
    );
    let limits = Limits {
        max_record: 65_537,
        ..Limits::default()
    };
    assert_eq!(
        config(ALICE).with_limits(limits).unwrap_err(),
        ConfigError::Limits(limits)
    );
    assert_eq!(
        config(ALICE).with_puzzle(21, 1).unwrap_err(),
        ConfigError::PuzzleBits { got: 21 }
    );
}
