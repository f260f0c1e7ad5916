//! Randomness goes by name.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use pqcnet_messages::Role;
use pqcnet_sim::world::{NodeName, NodeSpec, World, WorldConfig, stream_of};
use rand_core::Rng as _;

type Draws = BTreeMap<String, Vec<u64>>;

fn word() -> u64 {
    u64::from_be_bytes(pqcnet_crypto::random::bytes())
}

/// What four nodes draw, each in two tasks of three draws; `extra` nodes are started among them, and node b draws twice more
/// and starts a task more before its first.
fn draws(seed: u64, extra: usize, eager: bool) -> Draws {
    let drawn: Arc<Mutex<Draws>> = Arc::default();
    let mut world = World::new(WorldConfig::new(seed));
    world
        .add(NodeSpec::new("relayer-0", Role::Relayer))
        .unwrap();
    let extras = (0..extra).map(|n| format!("extra-{n}"));
    let names = extras.chain(["a", "b", "c", "d"].map(str::to_owned));
    let nodes: Vec<_> = names
        .map(|name| world.add(NodeSpec::new(name, Role::Client)).unwrap())
        .collect();
    for node in nodes {
        world.start(node).unwrap();
        let (env, name) = (world.env(node).unwrap(), world.spec(node).name.to_string());
        let mut own = env.rng("own");
        if eager && name == "b" {
            own.next_u64();
            env.rng("another");
            world.spawn(node, async {
                word();
            });
        }
        for task in ["first", "second"] {
            let (env, drawn, name) = (env.clone(), drawn.clone(), format!("{name} {task}"));
            world.spawn(node, async move {
                let mut mine = env.rng(&name);
                for _ in 0..3 {
                    let both = [word(), mine.next_u64()];
                    drawn.lock().entry(name.clone()).or_default().extend(both);
                    env.sleep(Duration::from_millis(1)).await;
                }
            });
        }
        drawn.lock().entry(name).or_default().push(own.next_u64());
    }
    world.run_for(Duration::from_secs(1)).unwrap();
    Arc::into_inner(drawn)
        .map(Mutex::into_inner)
        .unwrap_or_default()
}

// Scenario: three nodes are added before the others, and one of the others draws more, opens another stream and starts
// another task: nobody else's draws change, neither from streams with a name nor from what cryptography draws. Another seed
// changes all of them, and no two tasks draw the same.
#[test]
fn a_node_or_a_draw_more_shifts_nobody_elses() {
    let plain = draws(3, 0, false);
    assert_eq!(plain.len(), 12);
    assert_eq!(draws(3, 0, false), plain);
    let mut crowded = draws(3, 3, true);
    crowded.retain(|name, _| !name.starts_with("extra"));
    for (who, drawn) in &plain {
        if who.starts_with('b') {
            continue;
        }
        assert_eq!(crowded.get(who), Some(drawn), "{who}");
    }
    // Node b's own streams by name are where they were, one draw further.
    assert_ne!(crowded.get("b"), plain.get("b"));
    let other = draws(4, 0, false);
    let mut all: Vec<u64> = plain
        .values()
        .chain(other.values())
        .flatten()
        .copied()
        .collect();
    let count = all.len();
    all.sort_unstable();
    all.dedup();
    assert_eq!(all.len(), count, "two draws are the same");
}

// Scenario: the derivation is what makes a seed reproduce a run anywhere: its first words are pinned.
#[test]
fn streams_are_pinned() {
    let node = NodeName::new("sentry-3");
    let first = |actor, purpose| stream_of(7, &node, actor, purpose).next_u64();
    let words = [
        first("net", "relayer-0"),
        first("", "keys"),
        first("", "disk"),
    ];
    assert_eq!(words, PINNED);
}

const PINNED: [u64; 3] = [
    13_134_982_422_950_795_851,
    12_795_839_657_388_649_572,
    10_818_611_914_539_960_939,
];
