//! Shards that move, step by step.

use super::*;

pub(super) fn node(byte: u8) -> NodeId {
    NodeId::from_bytes([byte; 32])
}

pub(super) fn map(version: u64, owners: [u8; 3]) -> MapInForce {
    MapInForce {
        map: ShardMap::new(version, owners.map(node).to_vec()).unwrap(),
        until_ms: None,
    }
}

pub(super) fn first() -> ShardMap {
    map(1, [0, 1, 2]).map
}

fn tenure(me: u8) -> Tenure {
    Tenure::new(node(me), first(), []).unwrap()
}

fn restarted(tenure: &Tenure) -> Tenure {
    let mut again = Tenure::new(tenure.me, tenure.first.clone(), tenure.to_keep()).unwrap();
    again.enforce(tenure.force.clone());
    again
}

const SHARD: ShardId = ShardId(0);

fn elsewhere(owner: u8, map_version: u64) -> Place {
    Place::Elsewhere(Redirect {
        owner: node(owner),
        map_version,
    })
}

/// Scenario: a shard moves from 0 to 3, whose answer is lost and comes again; then back. Each step holds after a restart.
/// Whoever asks the wrong one is sent to the right one.
#[test]
fn a_shard_moves_and_comes_back() {
    let (mut old, mut new) = (tenure(0), tenure(3));
    assert_eq!(old.place(SHARD, 0), Place::Here);
    assert_eq!(new.place(SHARD, 0), elsewhere(0, 1));
    let second = map(2, [3, 1, 2]);
    new.enforce(second.clone());
    assert_eq!(new.wanted(0), [(SHARD, node(0))]);
    let early = old.asked(SHARD, node(3), 2);
    assert_eq!(early, Asked::Refuse(Refusal::Unavailable));
    old.enforce(second);
    assert_eq!(old.place(SHARD, 0), Place::Here);
    assert_eq!(old.overdue().collect::<Vec<_>>(), [(SHARD, node(3))]);
    assert_eq!(old.asked(SHARD, node(3), 2), Asked::Begin);
    old.leave(SHARD, node(3));
    assert_eq!(
        (old.place(SHARD, 0), old.works(SHARD)),
        (Place::Leaving, false)
    );
    // It goes on asking until it has all of it.
    assert_eq!(old.asked(SHARD, node(3), 2), Asked::Begin);
    assert_eq!(old.give(SHARD, node(3)), 1);
    let mut old = restarted(&old);
    assert_eq!(old.place(SHARD, 0), elsewhere(3, 2));
    assert_eq!(old.asked(SHARD, node(3), 2), Asked::Done { moves: 1 });
    assert_eq!(new.place(SHARD, 0), elsewhere(0, 2));
    assert_eq!(old.given().collect::<Vec<_>>(), [(SHARD, node(3), 1)]);
    assert!(!new.has_had(SHARD, 1));
    new.take(SHARD, 1);
    let mut new = restarted(&new);
    assert!(new.has_had(SHARD, 1) && !new.has_had(SHARD, 2));
    assert_eq!((new.place(SHARD, 0), new.moves(SHARD)), (Place::Here, 1));
    assert_eq!(new.held().collect::<Vec<_>>(), [SHARD]);

    let third = map(3, [0, 1, 2]);
    new.enforce(third.clone());
    old.enforce(third);
    assert_eq!(old.wanted(0), [(SHARD, node(3))]);
    assert_eq!(new.asked(SHARD, node(0), 3), Asked::Begin);
    assert_eq!(new.give(SHARD, node(0)), 2);
    assert!(new.has_had(SHARD, 1) && !new.has_had(SHARD, 2));
    old.take(SHARD, 2);
    assert_eq!(
        (old.place(SHARD, 0), new.place(SHARD, 0)),
        (Place::Here, elsewhere(0, 3))
    );
    // What was true two maps ago moves nothing.
    assert_eq!(
        old.asked(SHARD, node(3), 2),
        Asked::Refuse(Refusal::NotAllowed)
    );
}

/// Scenario: the map goes back to a lower version than the one a shard came under, names somebody else, or has moved the shard
/// as often as can be counted: the shard stays. Someone who never had it says who does.
#[test]
fn what_moves_nothing() {
    let mut holder = Tenure::new(
        node(3),
        first(),
        [write(
            SHARD,
            &Entry::Held {
                version: 5,
                moves: 255,
            },
        )],
    )
    .unwrap();
    holder.enforce(map(4, [1, 1, 2]));
    assert_eq!(
        holder.asked(SHARD, node(1), 4),
        Asked::Refuse(Refusal::NotAllowed)
    );
    holder.enforce(map(6, [1, 1, 2]));
    assert_eq!(
        holder.asked(SHARD, node(2), 6),
        Asked::Refuse(Refusal::NotAllowed)
    );
    assert_eq!(
        holder.asked(SHARD, node(1), 6),
        Asked::Refuse(Refusal::Quota)
    );
    let mut other = tenure(1);
    let redirect = Redirect {
        owner: node(0),
        map_version: 1,
    };
    assert_eq!(
        other.asked(SHARD, node(2), 1),
        Asked::Refuse(Refusal::NotOwner(Some(redirect)))
    );
    assert_eq!(
        other.asked(SHARD, node(0), 1),
        Asked::Refuse(Refusal::NotOwner(None))
    );
    other.enforce(map(6, [1, 1, 2]));
    other.told(SHARD, Some(node(3)));
    assert_eq!(other.wanted(0), [(SHARD, node(3))]);
    other.told(SHARD, Some(node(1)));
    assert_eq!(other.wanted(0), [(SHARD, node(0))]);
    holder.leave(SHARD, node(1));
    holder.stay(SHARD);
    assert_eq!(holder.place(SHARD, 0), Place::Here);
}

/// Scenario: the lease of the map ends: nobody may store, nobody asks for anything.
#[test]
fn a_lease_ends() {
    let mut tenure = tenure(0);
    let leased = MapInForce {
        until_ms: Some(1000),
        ..map(2, [0, 0, 2])
    };
    tenure.enforce(leased);
    assert_eq!(
        (tenure.place(SHARD, 999), tenure.place(SHARD, 1000)),
        (Place::Here, Place::Lapsed)
    );
    assert_eq!(
        (tenure.wanted(999).len(), tenure.wanted(1000).len()),
        (1, 0)
    );
}

/// What is kept is pinned, and read back as it was; anything else is refused.
#[test]
fn kept() {
    let held = Entry::Held {
        version: 2,
        moves: 1,
    };
    let given = Entry::Given {
        to: node(9),
        version: 3,
        moves: 2,
    };
    let pinned = [&[0, 7, 1, 1, 0, 0, 0, 0, 0, 0, 0, 2][..], &[0; 32]].concat();
    assert_eq!(write(ShardId(7), &held), pinned);
    let pinned = [&[1, 0, 2, 2, 0, 0, 0, 0, 0, 0, 0, 3][..], &[9; 32]].concat();
    assert_eq!(write(ShardId(256), &given), pinned);
    for entry in [held, given] {
        assert_eq!(read(&write(SHARD, &entry)), Some((SHARD, entry)));
    }
    let mut bad = pinned.clone();
    bad[2] = 3;
    for bad in [
        bad,
        pinned[..43].to_vec(),
        [&pinned[..], &[0]].concat(),
        Vec::new(),
    ] {
        assert!(Tenure::new(node(0), first(), [bad.into()]).is_err());
    }
}
