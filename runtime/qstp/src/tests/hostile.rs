//! Records that somebody on the path takes out of order: any schedule of replays, drops, swaps, reflections and records of
//! other sessions. The link profile has one answer: the first record that is not the next one ends the channel, typed.

use proptest::prelude::*;

use super::net::*;
use crate::*;

/// What the path does at one step.
#[derive(Debug, Clone, Copy)]
enum Act {
    /// Hands on the next record, as an honest path does.
    Next,
    /// An earlier record again, this many before the newest.
    Replay(usize),
    /// A later record first, this many ahead.
    Skip(usize),
    /// The receiver's own record comes back.
    Reflect,
    /// The record of the same number of another session of the same two nodes.
    Splice,
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        8 => Just(Act::Next),
        1 => (1usize..6).prop_map(Act::Replay),
        1 => (1usize..6).prop_map(Act::Skip),
        1 => Just(Act::Reflect),
        1 => Just(Act::Splice),
    ]
}

const RECORDS: usize = 40;

fn records(sealer: &mut Sealer) -> Vec<Vec<u8>> {
    (0..RECORDS)
        .map(|n| sealed(sealer, T0, Kind::Data, &[n as u8; 3]))
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    // Whatever the path does, over key updates, in both directions and suites: what opens is exactly the front of what was
    // sent, in order, each once; the first other record is NotOpened, and after it nothing opens, not even the right one.
    #[test]
    fn only_the_next_record_opens(
        acts in proptest::collection::vec(act(), 1..RECORDS - 6),
        epoch_records in prop_oneof![Just(1u32), Just(2), Just(3), Just(8), Just(1 << 23)],
        suite in prop_oneof![Just(SUITES[0]), Just(SUITES[1])],
        to_responder in any::<bool>(),
    ) {
        let limits = Limits { epoch_records, ..Limits::default() };
        let connect = || connect(config(ALICE), only(BOB, suite).with_limits(limits).unwrap());
        // Of one session: the sealer under test, its opener, and the sealer of the opener's own side.
        let take = |(alice, bob): (Session, Session)| {
            let ((alice_out, alice_in), (bob_out, bob_in)) = (alice.split(), bob.split());
            if to_responder { (alice_out, bob_in, bob_out) } else { (bob_out, alice_in, alice_out) }
        };
        let (mut out, mut back, mut reflected) = take(connect());
        let (mut other, ..) = take(connect());
        let sent = records(&mut out);
        let own = records(&mut reflected);
        let spliced = records(&mut other);
        let mut next = 0;
        let mut failed = false;
        for act in acts {
            let (record, honest) = match act {
                Act::Next => (&sent[next], true),
                Act::Replay(by) if by <= next => (&sent[next - by], false),
                Act::Replay(_) => continue,
                Act::Skip(by) => (&sent[next + by], false),
                Act::Reflect => (&own[next], false),
                Act::Splice => (&spliced[next], false),
            };
            let result = opened(&mut back, record);
            if failed {
                prop_assert_eq!(result, Err(RecordError::Over));
            } else if honest {
                prop_assert_eq!(result, Ok((Kind::Data, vec![next as u8; 3])));
                next += 1;
            } else {
                prop_assert_eq!(result, Err(RecordError::NotOpened), "{:?} at {}", act, next);
                failed = true;
            }
        }
        if failed {
            prop_assert_eq!(opened(&mut back, &sent[next]), Err(RecordError::Over));
            prop_assert_eq!(back.end_of_input(), Err(RecordError::Over));
        }
    }
}
