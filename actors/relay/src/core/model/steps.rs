//! What may happen to a shard.

use proptest::prelude::*;

use super::{CHANNELS, LINKS, PRODUCERS};

#[derive(Debug, Clone)]
pub(super) enum Step {
    OpenProducer {
        producer: usize,
        channel: usize,
    },
    /// `skew` before or after the producer's next sequence.
    Publish {
        producer: usize,
        skew: i64,
        count: usize,
        len: usize,
    },
    SetReaders {
        channel: usize,
        allow: bool,
    },
    Subscribe {
        link: u64,
        number: u32,
        channel: usize,
        stranger: bool,
        back: u64,
        window: u32,
    },
    Consume {
        subscription: usize,
        leave: u64,
    },
    Unsubscribe {
        subscription: usize,
    },
    Block {
        link: u64,
    },
    Ready {
        link: u64,
    },
    LinkDown {
        link: u64,
    },
    /// The append under way ends; a failed one may have reached the disk.
    Append {
        fails: bool,
        reached: bool,
    },
    Read {
        fails: bool,
    },
    Busy,
    Crash {
        reached: bool,
    },
    Time {
        ms: u64,
    },
}

/// Any of them, the ordinary ones most often.
pub(super) fn step() -> impl Strategy<Value = Step> {
    let (p, c, l) = (0..PRODUCERS, 0..CHANNELS, 0..LINKS);
    prop_oneof![
        2 => (p.clone(), c.clone()).prop_map(|(producer, channel)| Step::OpenProducer { producer, channel }),
        12 => (p, -3i64..=2, 1usize..5, 0usize..60)
            .prop_map(|(producer, skew, count, len)| Step::Publish { producer, skew: skew.min(1), count, len }),
        1 => (c.clone(), any::<bool>()).prop_map(|(channel, allow)| Step::SetReaders { channel, allow }),
        3 => (l.clone(), 0u32..4, c, any::<bool>(), 0u64..20, 0u32..400).prop_map(
            |(link, number, channel, stranger, back, window)| Step::Subscribe { link, number, channel, stranger, back, window }),
        6 => (0usize..8, 0u64..3).prop_map(|(subscription, leave)| Step::Consume { subscription, leave }),
        1 => (0usize..8).prop_map(|subscription| Step::Unsubscribe { subscription }),
        1 => l.clone().prop_map(|link| Step::Block { link }),
        2 => l.clone().prop_map(|link| Step::Ready { link }),
        1 => l.prop_map(|link| Step::LinkDown { link }),
        10 => (proptest::bool::weighted(0.1), any::<bool>()).prop_map(|(fails, reached)| Step::Append { fails, reached }),
        6 => proptest::bool::weighted(0.05).prop_map(|fails| Step::Read { fails }),
        1 => Just(Step::Busy),
        1 => any::<bool>().prop_map(|reached| Step::Crash { reached }),
        3 => (0u64..3000).prop_map(|ms| Step::Time { ms }),
    ]
}
