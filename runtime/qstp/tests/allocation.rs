//! What a peer can make a node hold: heap bytes of a handshake, whatever is sent; and none at all for a record.

use std::sync::Arc;
use std::time::Duration;

use pqcnet_crypto::NodeKeys;
use pqcnet_heap::thread::{Cost, cost};
use pqcnet_qstp::frame::Decoder;
use pqcnet_qstp::*;

fn config() -> Arc<Config> {
    let keys = Arc::new(NodeKeys::generate());
    Arc::new(
        Config::new([1; 32], vec![Suite::Aes256Gcm], keys, Profile::Link).expect("a configuration"),
    )
}

const T0: Duration = Duration::from_secs(1);

fn meet(alice: &Arc<Config>, bob: &Arc<Config>, retry: &RetryKeys) -> (Session, Session) {
    let (mut initiator, m1) =
        Initiator::new(alice.clone(), bob.keys().node_id()).expect("two nodes");
    let mut responder = Responder::new(bob.clone());
    let mut answer =
        |message: &[u8]| responder.on_message(T0, b"", Admission::Accept, retry, message);
    let Ok(ResponderStep::Reply(m2)) = answer(&m1) else {
        panic!("no M2")
    };
    let Ok(InitiatorStep::Done { send, session, .. }) = initiator.on_message(&m2) else {
        panic!("no M3")
    };
    let Ok(ResponderStep::Done { session: bobs, .. }) = answer(&send) else {
        panic!("not done")
    };
    (*session, *bobs)
}

// Both sides of honest handshakes together stay below half of what is declared for one; then the responder gets an M1
// damaged at each byte, the initiator an M2 damaged here and there, and the decoder every kind of header.
#[test]
fn handshakes_stay_within_the_declared_memory() {
    let (alice, bob, retry) = (config(), config(), RetryKeys::new(T0));
    drop(meet(&alice, &bob, &retry)); // whatever the engines set up once
    let (_, Cost { peak, .. }) = cost(|| meet(&alice, &bob, &retry));
    assert!(peak <= HANDSHAKE_MEMORY / 2, "{peak} bytes for both sides");

    let (initiator, m1) = Initiator::new(alice.clone(), bob.keys().node_id()).unwrap();
    drop(initiator);
    for at in 0..m1.len() {
        let mut damaged = m1.clone();
        damaged[at] ^= 0x40;
        let (_, Cost { peak, .. }) = cost(|| {
            Responder::new(bob.clone())
                .on_message(T0, b"", Admission::Accept, &retry, &damaged)
                .map(drop)
        });
        assert!(
            peak <= HANDSHAKE_MEMORY / 2,
            "{peak} bytes at byte {at} of M1"
        );
    }
    for at in (0..6_575).step_by(61).chain([6_574]) {
        let (_, Cost { peak, .. }) = cost(|| {
            let (mut initiator, m1) =
                Initiator::new(alice.clone(), bob.keys().node_id()).expect("two nodes");
            let mut responder = Responder::new(bob.clone());
            let step = responder.on_message(T0, b"", Admission::Accept, &retry, &m1);
            let Ok(ResponderStep::Reply(mut m2)) = step else {
                panic!("no M2")
            };
            m2[at] ^= 0x40;
            initiator.on_message(&m2).map(drop).unwrap_err()
        });
        assert!(
            peak <= HANDSHAKE_MEMORY / 2,
            "{peak} bytes at byte {at} of M2"
        );
    }
    // A decoder takes what the header says, and no header says more than the longest message.
    for frame in 0..=255u8 {
        for length in [[0, 0, 1], [0, 0x1f, 0xfc], [0, 0x1f, 0xfd], [0xff; 3]] {
            let head = [&[frame][..], &length].concat();
            let (_, Cost { peak, .. }) = cost(|| Decoder::new().push(&mut &head[..]).map(drop));
            assert!(peak <= MAX_HANDSHAKE_MESSAGE, "{peak} bytes for {head:?}");
        }
    }
}

// Sealing and opening in place touches the allocator only when the key changes, also for records that do not open.
#[test]
fn records_allocate_nothing() {
    let (alice, bob, retry) = (config(), config(), RetryKeys::new(T0));
    let (alices, bobs) = meet(&alice, &bob, &retry);
    let ((mut out, _), (_, mut back)) = (alices.split(), bobs.split());
    let mut buffer = Vec::with_capacity(65_536);
    for content in [1, 1_350, 16_384, out.max_content()] {
        for _ in 0..10 {
            buffer.clear();
            let (_, Cost { calls, .. }) = cost(|| {
                let start = out.begin(&mut buffer);
                buffer.resize(start + record::HEADER_LEN + content, 7);
                out.seal(T0, Kind::Data, &mut buffer, start).unwrap();
                let opened = back.open_in_place(&mut buffer).unwrap();
                assert_eq!(opened.content.len(), content);
            });
            assert_eq!(calls, 0, "allocations for {content} bytes");
        }
    }
    let (result, Cost { calls, .. }) = cost(|| back.open_in_place(&mut buffer));
    assert_eq!(result, Err(RecordError::NotOpened));
    assert_eq!(calls, 0);
}
