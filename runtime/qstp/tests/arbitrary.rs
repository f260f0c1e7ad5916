//! Bytes from nowhere, at every decoder: a typed error or a wait for more, never a panic.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use pqcnet_crypto::NodeKeys;
use pqcnet_qstp::frame::{Decoder, HEADER_LEN, Header};
use pqcnet_qstp::*;
use proptest::prelude::*;

const T0: Duration = Duration::from_secs(1);

fn configs() -> &'static (Arc<Config>, Arc<Config>) {
    static CONFIGS: OnceLock<(Arc<Config>, Arc<Config>)> = OnceLock::new();
    CONFIGS.get_or_init(|| {
        let config = || {
            let keys = Arc::new(NodeKeys::generate());
            Arc::new(
                Config::new([1; 32], vec![Suite::Aes256Gcm], keys, Profile::Link)
                    .expect("a configuration"),
            )
        };
        (config(), config())
    })
}

fn retry_keys() -> &'static RetryKeys {
    static KEYS: OnceLock<RetryKeys> = OnceLock::new();
    KEYS.get_or_init(|| RetryKeys::new(T0))
}

/// A message whose header is right for its type, with any body; or bytes that are nothing.
fn message() -> impl Strategy<Value = Vec<u8>> {
    let framed = (
        prop_oneof![
            Just((1u8, 1_333usize)),
            Just((2, 41)),
            Just((3, 6_571)),
            Just((4, 5_437)),
            Just((5, 6)),
            Just((6, 22)),
        ],
        proptest::collection::vec(any::<u8>(), 6_571),
        any::<bool>(),
    )
        .prop_map(|((kind, len), mut body, believable)| {
            body.truncate(len);
            if believable && kind == 1 {
                body[..4].copy_from_slice(&[1, 1, 0, 1]);
                body[4..36].fill(1);
            }
            if believable && kind == 3 {
                body[..2].copy_from_slice(&[0, 1]);
            }
            let mut out = vec![kind, 0, (len >> 8) as u8, len as u8];
            out.extend(body);
            out
        });
    prop_oneof![framed, proptest::collection::vec(any::<u8>(), 0..200)]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    // Any message, in every state that waits for one: always a failure, and a reject of one of two sizes or none.
    #[test]
    fn any_message(message in message(), challenge in any::<bool>()) {
        let (alice, bob) = configs();
        let admission = if challenge { Admission::Challenge { bits: 1 } } else { Admission::Accept };
        let small = |reject: &Option<Vec<u8>>| reject.as_ref().is_none_or(|r| r.len() == 10 || r.len() == 26);

        let (mut initiator, m1) = Initiator::new(alice.clone(), bob.keys().node_id()).unwrap();
        // Only a Retry with a modest puzzle is followed, and that costs hashes, not trust.
        let modest = message.len() == 45 && message[..4] == [2, 0, 0, 41] && message[12] <= 20;
        if !modest {
            let failure = initiator.on_message(&message).map(drop).unwrap_err();
            prop_assert!(small(&failure.reject));
        }

        let mut fresh = Responder::new(bob.clone());
        let failure = fresh.on_message(T0, b"", admission, retry_keys(), &message).map(drop).unwrap_err();
        prop_assert!(small(&failure.reject));

        let mut replied = Responder::new(bob.clone());
        replied.on_message(T0, b"", Admission::Accept, retry_keys(), &m1).unwrap();
        let failure = replied.on_message(T0, b"", admission, retry_keys(), &message).map(drop).unwrap_err();
        prop_assert!(small(&failure.reject));
    }

    // Any stream in any pieces: the decoder never holds more than the longest message.
    #[test]
    fn any_stream(stream in proptest::collection::vec(any::<u8>(), 0..20_000), type_byte in 0u8..8, piece in 1usize..3_000) {
        let mut stream = stream;
        if let Some(first) = stream.first_mut() {
            *first = type_byte;
        }
        let mut decoder = Decoder::new();
        'stream: for piece in stream.chunks(piece) {
            let mut rest = piece;
            while !rest.is_empty() {
                match decoder.push(&mut rest) {
                    Ok(Some(message)) => {
                        prop_assert!(message.len() <= MAX_HANDSHAKE_MESSAGE);
                        prop_assert!(Header::split(&message).is_ok());
                    }
                    Ok(None) => {
                        prop_assert!(rest.is_empty());
                        prop_assert!((1..=MAX_HANDSHAKE_MESSAGE).contains(&decoder.missing()));
                    }
                    Err(_) => break 'stream,
                }
            }
        }
    }

    // Any record, at an initiator that may still see a Reject and at a responder.
    #[test]
    fn any_record(body in proptest::collection::vec(any::<u8>(), 0..5_000), type_byte in prop_oneof![Just(0x10u8), Just(6), any::<u8>()], lie in any::<bool>()) {
        let (alice, bob) = configs();
        let (mut initiator, m1) = Initiator::new(alice.clone(), bob.keys().node_id()).unwrap();
        let mut responder = Responder::new(bob.clone());
        let mut answer = |message: &[u8]| responder.on_message(T0, b"", Admission::Accept, retry_keys(), message);
        let Ok(ResponderStep::Reply(m2)) = answer(&m1) else { panic!("no M2") };
        let Ok(InitiatorStep::Done { send, session, .. }) = initiator.on_message(&m2) else { panic!("no M3") };
        let Ok(ResponderStep::Done { session: bobs, .. }) = answer(&send) else { panic!("not done") };
        let len = body.len() + usize::from(lie);
        let mut record = vec![type_byte, 0, (len >> 8) as u8, len as u8];
        record.extend(body);
        for session in [session, bobs] {
            let (_, mut back) = session.split();
            if record.len() >= HEADER_LEN {
                let mut copy = record.clone();
                prop_assert!(back.open_in_place(&mut copy).is_err());
                prop_assert_eq!(back.open_in_place(&mut copy), Err(RecordError::Over));
            }
        }
    }
}
