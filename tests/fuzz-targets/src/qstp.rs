//! QSTP: frames, every handshake message, the plaintexts inside M2 and M3, records.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use pqcnet_crypto::seeded::{self, Seeded};
use pqcnet_crypto::{KemCiphertext, KemPublic, KemSecret, NodeKeys, encapsulate};
use pqcnet_qstp::frame::{Decoder, Header};
use pqcnet_qstp::*;

use crate::schedule::{Keys, M2_CLEAR, PROLOGUE, Transcript, head};
use crate::{Target, choose};

const T0: Duration = Duration::from_secs(1);
/// Plaintexts of M2 and M3.
const M2_PLAIN: usize = 5_401;
const M3_PLAIN: usize = 5_421;

/// The same randomness for every input: the same keys, the same messages.
fn same() -> Seeded {
    seeded::from_seed(b"fuzz")
}

fn configs() -> &'static [Arc<Config>; 2] {
    static CONFIGS: OnceLock<[Arc<Config>; 2]> = OnceLock::new();
    CONFIGS.get_or_init(|| {
        let _same = same();
        std::array::from_fn(|_| {
            let keys = Arc::new(NodeKeys::generate());
            let suites = vec![Suite::Aes256Gcm, Suite::ChaCha20Poly1305];
            let config = Config::new([7; 32], suites, keys, Profile::Link)
                .and_then(|config| config.with_prologue(PROLOGUE))
                // A puzzle costs hashes, not decoding.
                .and_then(|config| config.with_puzzle(4, 1 << 9));
            Arc::new(config.unwrap_or_else(|error| panic!("{error}")))
        })
    })
}

fn retry_keys() -> &'static RetryKeys {
    static KEYS: OnceLock<RetryKeys> = OnceLock::new();
    KEYS.get_or_init(|| {
        let _same = same();
        RetryKeys::new(T0)
    })
}

fn initiator() -> (Initiator, Vec<u8>) {
    let [alice, bob] = configs();
    let begun = Initiator::new(alice.clone(), bob.keys().node_id());
    begun.unwrap_or_else(|failure| panic!("{failure:?}"))
}

fn take(responder: &mut Responder, message: &[u8]) -> Result<ResponderStep, Failure> {
    responder.on_message(T0, b"from", Admission::Accept, retry_keys(), message)
}

/// A responder whose M2 is out, and its M2.
fn replied(m1: &[u8]) -> (Responder, Vec<u8>) {
    let mut responder = Responder::new(configs()[1].clone());
    match take(&mut responder, m1) {
        Ok(ResponderStep::Reply(m2)) => (responder, m2),
        other => panic!("no M2: {other:?}"),
    }
}

/// A failure is typed and says at most one of two sizes.
fn small(failure: &Failure) {
    let fits = |reject: &Vec<u8>| reject.len() == 10 || reject.len() == 26;
    assert!(failure.reject.as_ref().is_none_or(fits), "{failure:?}");
}

/// The data as it is, or behind a header that fits it, so that a mutation need not find the length.
fn messages(kind: u8, data: &[u8]) -> [Vec<u8>; 2] {
    let framed = [&head(kind, data.len())[..], data].concat();
    [data.to_vec(), framed]
}

/// The frame decoder, in pieces.
pub const FRAMES: Target = Target {
    name: "qstp_frames",
    body: |data| {
        let Some((piece, stream)) = choose(data) else {
            return;
        };
        let mut decoder = Decoder::new();
        for mut piece in stream.chunks(piece + 1) {
            while !piece.is_empty() {
                match decoder.push(&mut piece) {
                    Ok(Some(message)) => {
                        assert!(message.len() <= MAX_HANDSHAKE_MESSAGE);
                        assert!(Header::split(&message).is_ok());
                    }
                    Ok(None) => assert!(piece.is_empty() && decoder.missing() > 0),
                    Err(_) => return,
                }
            }
        }
    },
    seeds: || {
        let reject = vec![4, 5, 0, 0, 6, 1, 13, 0, 0, 0, 0, 1, 0, 0, 3, 9, 9, 9];
        vec![[&[255][..], &initiator_m1()].concat(), reject]
    },
};

fn initiator_m1() -> Vec<u8> {
    configs();
    let _same = same();
    initiator().1
}

/// A first message, at a responder that accepts and at one that challenges.
pub const M1: Target = Target {
    name: "qstp_m1",
    body: |data| {
        let [_, bob] = configs();
        retry_keys();
        let _same = same();
        for message in messages(1, data) {
            for admission in [Admission::Accept, Admission::Challenge { bits: 1 }] {
                let mut bob = Responder::new(bob.clone());
                let step = bob.on_message(T0, b"from", admission, retry_keys(), &message);
                if let Err(failure) = step {
                    small(&failure);
                }
            }
        }
    },
    seeds: || {
        let m1 = initiator_m1();
        let mut cut = m1.clone();
        cut.truncate(600);
        vec![m1[4..].to_vec(), m1, cut]
    },
};

/// A Retry, an M2 or a Reject, at an initiator that waits for one.
pub const M2: Target = Target {
    name: "qstp_m2",
    body: |data| {
        configs();
        let _same = same();
        for message in messages(3, data) {
            let (mut alice, _) = initiator();
            if let Err(failure) = alice.on_message(&message) {
                small(&failure);
            }
        }
    },
    seeds: || {
        let m1 = initiator_m1();
        let m2 = {
            retry_keys();
            let _same = same();
            replied(&m1).1
        };
        let retry = {
            let _same = same();
            let mut bob = Responder::new(configs()[1].clone());
            let admission = Admission::Challenge { bits: 1 };
            match bob.on_message(T0, b"from", admission, retry_keys(), &m1) {
                Ok(ResponderStep::Retry(retry)) => retry,
                other => panic!("no Retry: {other:?}"),
            }
        };
        vec![
            m2[4..].to_vec(),
            m2,
            retry,
            vec![5, 0, 0, 6, 1, 13, 0, 0, 0, 0],
        ]
    },
};

/// An M3 or a Reject, at a responder whose M2 is out.
pub const M3: Target = Target {
    name: "qstp_m3",
    body: |data| {
        let m1 = initiator_m1();
        retry_keys();
        let _same = same();
        for message in messages(4, data) {
            let (mut bob, _) = replied(&m1);
            if let Err(failure) = take(&mut bob, &message) {
                small(&failure);
            }
        }
    },
    seeds: || {
        configs();
        retry_keys();
        let _same = same();
        let (mut alice, m1) = initiator();
        let (_, m2) = replied(&m1);
        match alice.on_message(&m2) {
            Ok(InitiatorStep::Done { send, .. }) => {
                vec![send[4..].to_vec(), send, vec![6, 0, 0, 22, 1, 2, 3]]
            }
            other => panic!("no M3: {other:?}"),
        }
    },
};

/// What a hostile peer puts inside: any plaintext, sealed as it should be.
pub const SEALED: Target = Target {
    name: "qstp_sealed",
    body: |data| {
        let Some((which, plain)) = choose(data) else {
            return;
        };
        if which % 2 == 0 {
            in_m2(plain)
        } else {
            in_m3(plain)
        }
    },
    seeds: || {
        configs();
        let public = configs()[1].keys().public().to_bytes();
        let of = |which: u8, extra: &[u8]| [&[which][..], &public, extra].concat();
        vec![
            of(0, &[0, 1, 0, 0, 0, 0x80, 0, 0, 0, 0x36, 0xee, 0x80]),
            of(1, configs()[1].keys().node_id().as_bytes()),
        ]
    },
};

/// Exactly so many bytes of it, zeros behind.
fn fitted(plain: &[u8], len: usize) -> Vec<u8> {
    let mut plain = plain.to_vec();
    plain.resize(len, 0);
    plain
}

/// The responder's side by hand.
fn in_m2(plain: &[u8]) {
    configs();
    let _same = same();
    let (mut alice, m1) = initiator();
    let key = KemPublic::from_bytes(&m1[4 + 68..4 + 1_284]);
    let key = key.unwrap_or_else(|error| panic!("{error}"));
    let (ciphertext, shared) = encapsulate(&key).unwrap_or_else(|error| panic!("{error}"));
    let clear = [&[0, 1][..], &[9; 32], ciphertext.as_bytes()].concat();
    let mut m2 = head(3, clear.len() + M2_PLAIN + 16).to_vec();
    m2.extend_from_slice(&clear);
    let mut transcript = Transcript::new();
    transcript.absorb(&m1);
    transcript.absorb(&m2);
    let th_2 = transcript.th();
    let keys = Keys::new(&shared, th_2);
    m2.extend_from_slice(&keys.seal(b'R', &th_2, &fitted(plain, M2_PLAIN)));
    match alice.on_message(&m2) {
        Err(failure) => {
            small(&failure);
            assert_ne!(failure.error.reason, Reason::NotOpened, "it opens");
        }
        Ok(step) => panic!("nobody's signatures: {step:?}"),
    }
}

/// The initiator's side by hand.
fn in_m3(plain: &[u8]) {
    configs();
    retry_keys();
    let _same = same();
    let kem = KemSecret::generate();
    let mut m1 = head(1, 1_333).to_vec();
    m1.extend_from_slice(&[1, 1, 0, 1]);
    m1.extend_from_slice(&[7; 32]);
    m1.extend_from_slice(&[8; 32]);
    m1.extend_from_slice(kem.public().as_bytes());
    m1.resize(4 + 1_333, 0);
    let (mut bob, m2) = replied(&m1);
    let ciphertext = KemCiphertext::from_bytes(&m2[M2_CLEAR - 1_120..M2_CLEAR]);
    let shared = ciphertext.and_then(|ciphertext| kem.decapsulate(&ciphertext));
    let shared = shared.unwrap_or_else(|error| panic!("{error}"));
    let mut transcript = Transcript::new();
    transcript.absorb(&m1);
    transcript.absorb(&m2[..M2_CLEAR]);
    let th_2 = transcript.th();
    let keys = Keys::new(&shared, th_2);
    transcript.absorb(&keys.open(b'R', &th_2, &m2[M2_CLEAR..]));
    transcript.absorb(&m2[M2_CLEAR..]);
    let mut m3 = head(4, M3_PLAIN + 16).to_vec();
    transcript.absorb(&m3);
    m3.extend_from_slice(&keys.seal(b'I', &transcript.th(), &fitted(plain, M3_PLAIN)));
    match take(&mut bob, &m3) {
        Err(failure) => {
            small(&failure);
            assert_ne!(failure.error.reason, Reason::NotOpened, "it opens");
        }
        Ok(step) => panic!("nobody's signatures: {step:?}"),
    }
}

/// A record as bytes, or any plaintext in a record that opens, at a responder and at an initiator that may still see a
/// Reject.
pub const RECORD: Target = Target {
    name: "qstp_record",
    body: |data| {
        let Some((which, data)) = choose(data) else {
            return;
        };
        configs();
        retry_keys();
        let _same = same();
        let (mut alice, m1) = initiator();
        let (mut bob, m2) = replied(&m1);
        let Ok(InitiatorStep::Done { send, session, .. }) = alice.on_message(&m2) else {
            panic!("no M3");
        };
        let Ok(ResponderStep::Done { session: bobs, .. }) = take(&mut bob, &send) else {
            panic!("not done");
        };
        if which % 2 == 0 {
            for session in [session, bobs] {
                let (_, mut back) = session.split();
                let mut record = data.to_vec();
                assert!(back.open_in_place(&mut record).is_err());
                assert_eq!(back.open_in_place(&mut record), Err(RecordError::Over));
            }
            return;
        }
        // The initiator is hostile: it knows the keys, and seals what it likes.
        let kem = KemSecret::from_seed(&first_kem_seed(&m1));
        let ciphertext = KemCiphertext::from_bytes(&m2[M2_CLEAR - 1_120..M2_CLEAR]);
        let shared = ciphertext.and_then(|ciphertext| kem.decapsulate(&ciphertext));
        let shared = shared.unwrap_or_else(|error| panic!("{error}"));
        let mut transcript = Transcript::new();
        transcript.absorb(&m1);
        transcript.absorb(&m2[..M2_CLEAR]);
        let keys = Keys::new(&shared, transcript.th());
        let plain = &data[..data.len().min(60_000)];
        let mut record = keys.first_record(b'I', bobs.transcript_hash(), plain);
        let (_, mut back) = bobs.split();
        match back.open_in_place(&mut record) {
            Ok(opened) => assert_eq!(opened.content.len() + 1, plain.len()),
            Err(error) => assert_ne!(error, RecordError::NotOpened, "it opens"),
        }
    },
    seeds: || {
        vec![
            vec![0, 0x10, 0, 0, 17],
            vec![0, 6, 0, 0, 22],
            b"\x01content\x01".to_vec(),
            b"\x01content\x81".to_vec(),
            vec![1, 2],
            vec![1, 0x82],
        ]
    },
};

/// The seed of the ephemeral key that an initiator draws first under [`same`].
fn first_kem_seed(m1: &[u8]) -> [u8; 32] {
    static SEED: OnceLock<[u8; 32]> = OnceLock::new();
    *SEED.get_or_init(|| {
        // On a thread of its own, since this one is seeded already.
        let m1 = m1.to_vec();
        std::thread::scope(|scope| {
            let found = scope.spawn(move || {
                let _same = same();
                let seed = pqcnet_crypto::random::bytes::<32>();
                let public = KemSecret::from_seed(&seed).public().as_bytes().to_vec();
                assert!(
                    m1[4 + 68..4 + 1_284] == public[..],
                    "the first draw is the key's"
                );
                seed
            });
            found.join().unwrap_or_else(|_| panic!("no seed"))
        })
    })
}
