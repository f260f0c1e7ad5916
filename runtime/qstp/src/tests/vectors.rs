//! Pinned handshakes, byte for byte: `tests/vectors/link.json`.
//!
//! Only the ignored test writes the file: `cargo nextest run -p pqcnet-qstp --run-ignored only regenerate`. A change in it is
//! a change of the protocol on the wire.

use std::path::PathBuf;
use std::sync::Arc;

use pqcnet_crypto::{NodeKeys, seeded};
use serde::{Deserialize, Serialize};

use super::net::{CARRIER, NETWORK, T0, done, m2, m3, resend, retry, sealed};
use crate::schedule::{Chain, Side};
use crate::*;

/// One handshake and what follows. Byte strings are hexadecimal. Whoever holds `kem_seed` can check everything else
/// from the messages alone: decapsulate M2, derive the keys, open M2 and M3, verify what they hold, open the records.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Vector {
    name: String,
    suites_initiator: Vec<u16>,
    suites_responder: Vec<u16>,
    puzzle_bits: Option<u8>,
    prologue: String,
    network_id: String,
    max_record: u32,
    epoch_records: u32,
    epoch_ms: u32,
    initiator_node_id: String,
    responder_node_id: String,
    /// The seed of the initiator's ephemeral X-Wing key.
    kem_seed: String,
    m1: String,
    retry: Option<String>,
    m1_again: Option<String>,
    m2: String,
    m3: String,
    handshake_secret: String,
    /// `th` after the clear part of M2.
    th_m2_clear: String,
    /// Key and IV of M2's sealed part.
    seal_responder: String,
    /// Key and IV of M3's sealed part.
    seal_initiator: String,
    /// Key and IV of the responder's sealed Reject.
    reject_responder: String,
    /// `th` after M3.
    transcript_hash: String,
    /// Key and IV of the initiator's first three epochs.
    epochs_initiator: Vec<String>,
    /// `export("vector", "context", 32)`.
    export: String,
    /// Contents "one", "two", "three", then Close, initiator to responder.
    records_initiator: Vec<String>,
    /// Contents "uno", then Close, responder to initiator.
    records_responder: Vec<String>,
    /// What the responder would have sent had M3 been damaged: a sealed Reject, stage M3, reason 14.
    sealed_reject: String,
}

fn file() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/vectors/link.json")
}

fn run(name: &str, alices: &[Suite], bobs: &[Suite], puzzle_bits: Option<u8>) -> Vector {
    let _seeded = seeded::from_seed(name.as_bytes());
    let limits = Limits {
        epoch_records: 2,
        ..Limits::default()
    };
    let config = |suites: &[Suite]| {
        let keys = Arc::new(NodeKeys::generate());
        let config = Config::new(NETWORK, suites.to_vec(), keys, Profile::Link).unwrap();
        let config = config.with_prologue(b"/pqcnet/qstp/1").unwrap();
        Arc::new(config.with_limits(limits).unwrap())
    };
    let (alice, bob) = (config(alices), config(bobs));
    let retry_keys = RetryKeys::new(T0);
    let bob_id = bob.keys().node_id();
    let (mut initiator, m1) = Initiator::new(alice.clone(), bob_id).unwrap();
    let kem_seed = hex::encode(initiator.sent().kem.expose_seed());

    let mut responder = Responder::new(bob.clone());
    let (mut asked, mut again) = (None, None);
    if let Some(bits) = puzzle_bits {
        let admission = Admission::Challenge { bits };
        let message = retry(
            responder
                .on_message(T0, CARRIER, admission, &retry_keys, &m1)
                .unwrap(),
        );
        again = Some(resend(initiator.on_message(&message).unwrap()));
        asked = Some(message);
    }
    let last_m1 = again.as_ref().unwrap_or(&m1);
    let reply = m2(responder
        .on_message(T0, CARRIER, Admission::Accept, &retry_keys, last_m1)
        .unwrap());
    let accepted = initiator.sent().on_m2(&alice, bob_id, &reply).unwrap();
    let handshake_secret = hex::encode(accepted.keys.hs.expose());
    let th_m2_clear = hex::encode(accepted.keys.th());
    let [seal_responder, seal_initiator] = [Side::Responder, Side::Initiator]
        .map(|side| hex::encode(accepted.keys.seal(side).expose()));
    let reject_key = accepted.keys.reject(Side::Responder);
    let reject_responder = hex::encode(reject_key.expose());
    let sealed_reject = reject::sealed(Stage::M3, Reason::NotOpened, &reject_key);

    let (m3, alices, _) = m3(initiator.on_message(&reply).unwrap());
    let (bobs, _) = done(
        responder
            .on_message(T0, CARRIER, Admission::Accept, &retry_keys, &m3)
            .unwrap(),
    );
    let th = *alices.transcript_hash();
    let mut chain = Chain::first(&accepted.keys.master(&th), Side::Initiator, th);
    let epochs_initiator = (0..3)
        .map(|_| {
            let (key, iv) = chain.advance();
            hex::encode([&key[..], &iv].concat())
        })
        .collect();
    let mut export = [0; 32];
    bobs.export(b"vector", b"context", &mut export).unwrap();

    let send = |sealer: &mut Sealer, contents: &[&[u8]]| {
        let mut records: Vec<String> = contents
            .iter()
            .map(|content| hex::encode(sealed(sealer, T0, Kind::Data, content)))
            .collect();
        records.push(hex::encode(sealed(sealer, T0, Kind::Close, b"")));
        records
    };
    Vector {
        name: name.to_owned(),
        suites_initiator: alice.suites.iter().map(|suite| suite.number()).collect(),
        suites_responder: bob.suites.iter().map(|suite| suite.number()).collect(),
        puzzle_bits,
        prologue: hex::encode(b"/pqcnet/qstp/1"),
        network_id: hex::encode(NETWORK),
        max_record: limits.max_record,
        epoch_records: limits.epoch_records,
        epoch_ms: limits.epoch_ms,
        initiator_node_id: alice.keys().node_id().to_string(),
        responder_node_id: bob_id.to_string(),
        kem_seed,
        m1: hex::encode(&m1),
        retry: asked.map(hex::encode),
        m1_again: again.map(hex::encode),
        m2: hex::encode(&reply),
        m3: hex::encode(&m3),
        handshake_secret,
        th_m2_clear,
        seal_responder,
        seal_initiator,
        reject_responder,
        transcript_hash: hex::encode(th),
        epochs_initiator,
        export: hex::encode(export),
        records_initiator: send(&mut alices.split().0, &[b"one", b"two", b"three"]),
        records_responder: send(&mut bobs.split().0, &[b"uno"]),
        sealed_reject: hex::encode(sealed_reject),
    }
}

fn all() -> Vec<Vector> {
    use Suite::{Aes256Gcm, ChaCha20Poly1305};
    vec![
        run(
            "suite 1",
            &[Aes256Gcm, ChaCha20Poly1305],
            &[Aes256Gcm, ChaCha20Poly1305],
            None,
        ),
        run(
            "suite 2, after a Retry with a puzzle of 8 bits",
            &[Aes256Gcm, ChaCha20Poly1305],
            &[ChaCha20Poly1305],
            Some(8),
        ),
    ]
}

// The code makes the pinned bytes, every one of them.
#[test]
fn handshakes_match_the_file() {
    let pinned: Vec<Vector> =
        serde_json::from_str(&std::fs::read_to_string(file()).unwrap()).unwrap();
    let made = all();
    assert_eq!(made.len(), pinned.len());
    for (made, pinned) in made.iter().zip(&pinned) {
        assert_eq!(made, pinned);
    }
}

// A reader that never made these bytes: from the pinned seed and M2 alone to the keys, and through the records.
#[test]
fn the_file_explains_itself() {
    use pqcnet_crypto::{KemCiphertext, KemSecret, OpenKey};
    let pinned: Vec<Vector> =
        serde_json::from_str(&std::fs::read_to_string(file()).unwrap()).unwrap();
    for vector in pinned {
        let bytes = |text: &str| hex::decode(text).unwrap();
        let seed: [u8; 32] = bytes(&vector.kem_seed).try_into().unwrap();
        let m2 = bytes(&vector.m2);
        let ciphertext = KemCiphertext::from_bytes(&m2[38..1_158]).unwrap();
        let shared = KemSecret::from_seed(&seed)
            .decapsulate(&ciphertext)
            .unwrap();
        let hs = schedule::handshake_secret(&shared);
        assert_eq!(hex::encode(hs.expose()), vector.handshake_secret);

        let mut input = b"QSTP/1 transcript\x00\x0e/pqcnet/qstp/1".to_vec();
        input.extend(bytes(&vector.m1));
        for more in [&vector.retry, &vector.m1_again].into_iter().flatten() {
            input.extend(bytes(more));
        }
        input.extend(&m2[..1_158]);
        let th = pqcnet_crypto::sha256(&[&input]);
        assert_eq!(hex::encode(th), vector.th_m2_clear);

        let suite = Suite::of_number(u16::from_be_bytes([m2[4], m2[5]])).unwrap();
        let key = |text: &str| {
            let bytes = bytes(text);
            let (key, iv) = bytes.split_at(32);
            let key = OpenKey::new(suite.aead(), key.try_into().unwrap());
            (key, <[u8; 12]>::try_from(iv).unwrap())
        };
        let (open, iv) = key(&vector.seal_responder);
        let mut sealed = m2[1_158..].to_vec();
        let plain = open.open_in_place(&iv, &th, &mut sealed).unwrap();
        let public = pqcnet_crypto::NodePublic::from_bytes(&plain[..1_984]).unwrap();
        assert_eq!(public.node_id().to_string(), vector.responder_node_id);

        // Two records an epoch: "one" and "two" under the first key, "three" and Close under the second.
        let mut texts = Vec::new();
        for (n, record) in vector.records_initiator.iter().enumerate() {
            let (open, mut nonce) = key(&vector.epochs_initiator[n / 2]);
            nonce[11] ^= (n % 2) as u8;
            let record = bytes(record);
            let (head, sealed) = record.split_at(4);
            let mut sealed = sealed.to_vec();
            texts.push(
                open.open_in_place(&nonce, head, &mut sealed)
                    .unwrap()
                    .to_vec(),
            );
        }
        assert_eq!(texts, [&b"one\x01"[..], b"two\x81", b"three\x01", b"\x82"]);
    }
}

#[test]
#[ignore = "writes the pinned vectors anew: run by hand after a deliberate change of the protocol"]
fn regenerate() {
    let text = serde_json::to_string_pretty(&all()).unwrap();
    std::fs::write(file(), text + "\n").unwrap();
}
