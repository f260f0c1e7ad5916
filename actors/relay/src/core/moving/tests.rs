use pqcnet_crypto::NodeId;
use pqcnet_messages::{Channel, ChannelName};

use super::*;

fn channel(name: &str) -> Channel {
    Channel {
        owner: NodeId::from_bytes([1; 32]),
        name: ChannelName::new(name).unwrap(),
    }
}

fn facts(name: &str, head: u64) -> ChannelFacts {
    ChannelFacts {
        channel: channel(name),
        readers: Vec::new(),
        head,
        bytes: head * 50,
        newest_ms: 7,
        forgotten_epoch: 0,
        marks: vec![Mark {
            epoch: 1,
            sequence: head,
            offset: head,
        }],
        groups: Bytes::new(),
    }
}

fn page(mut channels: Vec<ChannelFacts>, more: bool) -> ShardSurvey {
    channels.sort_by_key(|facts| channel_id(&facts.channel));
    ShardSurvey {
        generation: 4,
        channels,
        more,
    }
}

fn text(number: u64) -> Bytes {
    [7u64.to_be_bytes(), number.to_be_bytes()].concat().into()
}

fn answer(stretches: &[Stretch], runs: Vec<Run>) -> ShardEntries {
    let digest = digest(stretches, &runs);
    ShardEntries { runs, digest }
}

fn run(first: u64, count: u64) -> Run {
    Run {
        first,
        texts: (first..first + count).map(text).collect(),
    }
}

fn copying() -> Copying {
    Copying::new(BTreeMap::new(), 5)
}

fn reads(copy: &mut Copying) -> Vec<Stretch> {
    match copy.turn() {
        Next::Read(stretches) => stretches,
        other => panic!("{other:?}"),
    }
}

/// Scenario: a channel whose first three entries are trimmed comes in two answers; its facts are stored with the second. A pass that
/// finds little new is followed by the fence, that by the last pass, and what is there then is what was told.
#[test]
fn a_trimmed_channel_is_copied() {
    let mut copy = copying();
    assert_eq!(copy.turn(), Next::Survey(None));
    copy.surveyed(page(vec![facts("a", 9)], false)).unwrap();
    let wanted = reads(&mut copy);
    assert_eq!((wanted[0].after, wanted[0].up_to), (0, 9));
    let pieces = copy.entries(answer(&wanted, vec![run(4, 2)])).unwrap();
    assert_eq!((pieces[0].first(), pieces[0].skips), (4, true));
    assert!(pieces[0].about.is_some() && pieces[0].settles.is_none());
    copy.stored(pieces);
    let wanted = reads(&mut copy);
    assert_eq!((wanted[0].after, wanted[0].up_to), (5, 9));
    let pieces = copy.entries(answer(&wanted, vec![run(6, 4)])).unwrap();
    assert_eq!((pieces[0].first(), pieces[0].skips), (6, false));
    let settled = pieces[0].settles.clone().unwrap();
    assert_eq!(settled.facts(), Some(facts("a", 9)));
    copy.stored(pieces);
    assert_eq!((copy.turn(), copy.records()), (Next::Fence, 6));
    copy.fenced();
    assert_eq!(copy.turn(), Next::Survey(None));
    copy.surveyed(page(vec![facts("a", 9)], false)).unwrap();
    assert_eq!(copy.turn(), Next::Done);
}

/// Scenario: only readers and a mark change while a channel's entries stay: that is stored without a read, and the mark that went
/// is dropped. Nothing is left of a channel that was trimmed to its head.
#[test]
fn facts_alone() {
    let mut copy = copying();
    copy.surveyed(page(vec![facts("a", 2)], false)).unwrap();
    let wanted = reads(&mut copy);
    let nothing = Run {
        first: 3,
        texts: Vec::new(),
    };
    let pieces = copy.entries(answer(&wanted, vec![nothing])).unwrap();
    assert_eq!((pieces[0].base.head, pieces[0].skips), (2, true));
    copy.stored(pieces);
    copy.turn();
    copy.fenced();
    let mut changed = facts("a", 2);
    changed.readers = vec![NodeId::from_bytes([2; 32])];
    changed.marks[0].epoch = 2;
    copy.surveyed(page(vec![changed], false)).unwrap();
    let Next::Store(pieces) = copy.turn() else {
        panic!("nothing to store");
    };
    assert_eq!(pieces[0].drops, [1]);
    assert!(pieces[0].about.is_some() && !pieces[0].skips);
    copy.stored(pieces);
    assert_eq!(copy.turn(), Next::Done);
}

/// A pass over more than a settling shard stores is followed by another, without a fence.
#[test]
fn much_is_surveyed_again() {
    let mut copy = copying();
    copy.surveyed(page(vec![facts("a", 1100)], false)).unwrap();
    let wanted = reads(&mut copy);
    let pieces = copy.entries(answer(&wanted, vec![run(1, 1100)])).unwrap();
    copy.stored(pieces);
    assert_eq!(copy.turn(), Next::Survey(None));
    copy.surveyed(page(vec![facts("a", 1100)], false)).unwrap();
    assert_eq!(copy.turn(), Next::Fence);
}

/// Each fault.
#[test]
fn what_can_not_be_copied() {
    let id = |name: &str| channel_id(&channel(name));
    let own = |name: &str, head| {
        let copied = Copied {
            base: Base {
                head,
                ..Base::default()
            },
            ..Copied::default()
        };
        Copying::new(BTreeMap::from([(id(name), copied)]), 5)
    };
    let ahead = Err(CopyFault::Ahead { channel: id("a") });
    assert_eq!(
        own("a", 3).surveyed(page(vec![facts("a", 2)], false)),
        ahead
    );
    assert_eq!(own("a", 3).surveyed(page(Vec::new(), false)), ahead);
    let mut same = own("a", 3);
    assert_eq!(same.surveyed(page(vec![facts("a", 3)], false)), Ok(()));

    let mut backwards = page(vec![facts("a", 1), facts("b", 1)], false);
    backwards.channels.reverse();
    assert_eq!(copying().surveyed(backwards), Err(CopyFault::Order));

    let (theirs, own) = (5, 5);
    let mut later = page(Vec::new(), false);
    later.generation = theirs;
    let refused = copying().surveyed(later);
    assert_eq!(refused, Err(CopyFault::Generation { theirs, own }));

    let mut copy = copying();
    copy.surveyed(page(vec![facts("a", 5)], false)).unwrap();
    let wanted = reads(&mut copy);
    let expected = 1;
    let channel = id("a");
    let missing = Err(CopyFault::Entries { channel, expected });
    let none = Run {
        first: 2,
        texts: Vec::new(),
    };
    for runs in [Vec::new(), vec![run(0, 2)], vec![run(3, 4)], vec![none]] {
        assert_eq!(copy.entries(answer(&wanted, runs)), missing);
    }
    let mut altered = answer(&wanted, vec![run(1, 2)]);
    altered.runs[0].texts[1] = text(9);
    assert_eq!(copy.entries(altered), Err(CopyFault::Digest));
}

/// The digest of a shard is pinned, and differs with each part of what it is over.
#[test]
fn the_digest_of_a_shard() {
    let of = |facts: ChannelFacts| {
        let id = channel_id(&facts.channel);
        shard_digest([(&id, facts)].into_iter())
    };
    let plain = of(facts("a", 3));
    assert_eq!(hex::encode(&plain[..8]), "8824d323729ad16c");
    let changes: [fn(&mut ChannelFacts); 7] = [
        |facts| facts.head += 1,
        |facts| facts.bytes += 1,
        |facts| facts.newest_ms += 1,
        |facts| facts.forgotten_epoch += 1,
        |facts| facts.marks[0].sequence -= 1,
        |facts| facts.readers.push(NodeId::from_bytes([3; 32])),
        |facts| facts.channel = channel("b"),
    ];
    for change in changes {
        let mut changed = facts("a", 3);
        change(&mut changed);
        assert_ne!(of(changed), plain);
    }
}
