//! Handshakes that succeed, and the wrong network, version, suite, identity that both sides name alike.

use super::net::*;
use crate::*;

// Both sides finish with the same hash, suite, limits and exports, know each other, and talk both ways.
#[test]
fn two_nodes_meet() {
    let (mut pair, first) = Pair::new(config(ALICE), config(BOB));
    assert_eq!(first.len(), 1_337);
    let reply = m2(pair.to_bob(Admission::Accept, &first).unwrap());
    assert_eq!(reply.len(), 6_575);
    let (last, alice, bobs_keys) = m3(pair.alice.on_message(&reply).unwrap());
    assert_eq!(last.len(), 5_441);
    let (bob, alices_keys) = done(pair.to_bob(Admission::Accept, &last).unwrap());
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
