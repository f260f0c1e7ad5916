//! The tripwire, and what is told where two runs part.

use std::time::Duration;

use pqcnet_messages::Role;
use pqcnet_sim::world::{NodeSpec, Trace, World, WorldConfig};
use rand::rngs::SysRng;
use rand_core::TryRng as _;

fn run_with(what: impl FnOnce() + Send + 'static) -> Result<(), String> {
    let mut world = World::new(WorldConfig::new(1));
    let node = world.add(NodeSpec::new("client-0", Role::Client)).unwrap();
    world
        .add(NodeSpec::new("relayer-0", Role::Relayer))
        .unwrap();
    world.start(node).unwrap();
    let env = world.env(node).unwrap();
    world.spawn(node, async move {
        env.sleep(Duration::from_millis(10)).await;
        what();
    });
    let ran = world.run_for(Duration::from_secs(1));
    ran.map_err(|stopped| stopped.reason)
}

// Scenario: something in a node looks at the machine's clock, of either kind, or draws the machine's entropy: each time the
// run fails and says what was done, by which node, from where. The node's own clock and randomness trip nothing.
#[test]
#[expect(
    clippy::disallowed_methods,
    reason = "the test is of what the bans cannot see"
)]
fn hidden_clocks_and_entropy_fail_the_run() {
    let told = run_with(|| {
        std::hint::black_box(std::time::SystemTime::now());
    });
    let told = told.unwrap_err();
    assert!(
        told.starts_with("the machine's clock was read, while client-0 ran:"),
        "{told}"
    );
    assert!(
        told.contains("wire.rs") || told.contains("wire::"),
        "{told}"
    );
    let told = run_with(|| {
        std::hint::black_box(std::time::Instant::now());
    });
    assert!(told.unwrap_err().contains("clock was read, while client-0"));
    let told = run_with(|| {
        let mut bytes = [0; 8];
        SysRng.try_fill_bytes(&mut bytes).unwrap();
        std::hint::black_box(bytes);
    });
    assert!(
        told.unwrap_err()
            .contains("entropy was drawn, while client-0")
    );
    let clean = run_with(|| {
        let mut bytes = [0; 8];
        pqcnet_crypto::random::fill(&mut bytes);
        assert_ne!(bytes, [0; 8]);
    });
    assert_eq!(clean, Ok(()));
}

// Scenario: keys are made while nobody of the world runs: their entropy would be anybody's.
#[test]
fn entropy_of_nobody_fails_the_run() {
    let mut world = World::new(WorldConfig::new(1));
    let drawn = world.wait(async {
        let mut bytes = [0; 8];
        pqcnet_crypto::random::fill(&mut bytes);
    });
    let told = drawn.unwrap_err().reason;
    assert!(
        told.starts_with("entropy drawn outside of any node, while nobody"),
        "{told}"
    );
}

// Scenario: two runs that do not repeat, one drawing 3 and one 4 after the same beginning: the first event that differs is
// told, with what came before it.
#[test]
fn the_first_difference_is_told() {
    let run = |payload: u8| {
        let trace = Trace::new();
        let mut world = World::new(WorldConfig::new(5));
        let nodes = ["client-0", "client-1"].map(|name| {
            let node = world.add(NodeSpec::new(name, Role::Client));
            node.unwrap()
        });
        world
            .add(NodeSpec::new("relayer-0", Role::Relayer))
            .unwrap();
        world.observe(trace.clone());
        for node in nodes {
            world.start(node).unwrap();
        }
        let mut boxes = nodes.map(|node| world.net().mailbox(node, 9).unwrap());
        let to = boxes[1].local();
        let sent = world.wait(async {
            for bytes in [vec![1], vec![2], vec![payload]] {
                boxes[0].send(to, bytes.into());
                boxes[1].receive().await;
            }
        });
        sent.unwrap();
        trace
    };
    let (three, four) = (run(3), run(4));
    assert_eq!(three.difference(&run(3)), None);
    let difference = three.difference(&four).unwrap();
    assert_eq!((difference.number, difference.before.len()), (3, 2));
    let told = difference.to_string();
    let lines: Vec<&str> = told.lines().collect();
    assert_eq!(lines[0], "the runs part at event 3");
    let both = |line: &str| {
        line.starts_with("    both: 0.") && line.contains("client-1 net Network datagram")
    };
    assert!(both(lines[1]) && both(lines[2]), "{told}");
    assert!(
        lines[3].starts_with("   first: 0.060000 s client-1 net"),
        "{told}"
    );
    assert!(
        lines[4].starts_with("  second: 0.060000 s client-1 net"),
        "{told}"
    );
    assert_ne!(lines[3][9..], lines[4][9..]);
    let shorter = Trace::new().difference(&three).unwrap();
    assert!(
        shorter.to_string().contains("first: has ended"),
        "{shorter}"
    );
}
