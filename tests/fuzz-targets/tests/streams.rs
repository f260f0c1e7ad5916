//! Frames of link version 2 made anew in each run, not only those that a corpus keeps.

use proptest::collection::vec;
use proptest::prelude::*;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_024))]

    // Scenario: a peer on an open link says whatever it likes of subscriptions, watches and sequenced tells, those that stand
    // and others. In one piece or frame by frame it comes to the same; no number of a subscription is left out; what it makes
    // the link say stays bounded; after the end there is nothing.
    #[test]
    fn any_conversation(frames in vec((0..16_u8, 0..5_u8, 0..6_u8, any::<u8>()), 0..40)) {
        let data: Vec<u8> = frames.into_iter().flat_map(|(kind, a, b, c)| [kind, a, b, c]).collect();
        pqcnet_fuzz_targets::run("link_streams", &data);
    }

    // Scenario: the same with fields from the whole of their range.
    #[test]
    fn any_fields(data in vec(any::<u8>(), 0..160)) {
        pqcnet_fuzz_targets::run("link_streams", &data);
    }
}
