//! Nodes' CPUs.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use pqcnet_actor::Env;
use pqcnet_crypto::NodeKeys;
use pqcnet_messages::Role;
use pqcnet_sim::crypto::{Costs, Crypto, Op};
use pqcnet_sim::world::{CpuSpec, NodeSpec, World, WorldConfig};

const MS: u64 = 1_000_000_000;

/// Signing takes 10 ms and nothing else costs anything.
fn world(slowness: f64) -> (World, Env, Arc<NodeKeys>) {
    let mut config = WorldConfig::new(1);
    config.crypto = Crypto::Modelled;
    for op in Op::ALL {
        config.costs.set(op, 0, 0);
    }
    config.costs.set(Op::MlDsaSign, 10 * MS, 0);
    config.costs.set(Op::Seal, 0, MS);
    let mut world = World::new(config);
    world
        .add(NodeSpec::new("relayer-0", Role::Relayer))
        .unwrap();
    let mut spec = NodeSpec::new("client-0", Role::Client);
    spec.cpu = CpuSpec {
        cores: 2,
        slowness,
        message_ns: 0,
    };
    let node = world.add(spec).unwrap();
    world.start(node).unwrap();
    let (env, keys) = (world.env(node).unwrap(), world.keys(node));
    (world, env, keys)
}

/// When the results of so many signatures, offloaded at once, arrive, ms.
fn arrivals(slowness: f64, jobs: usize) -> Vec<u128> {
    let (mut world, env, keys) = world(slowness);
    let arrived: Arc<Mutex<Vec<u128>>> = Arc::default();
    let node = world.find("client-0").unwrap();
    for _ in 0..jobs {
        let (env, keys, arrived) = (env.clone(), keys.clone(), arrived.clone());
        world.spawn(node, async move {
            let began = env.now();
            let (worker, before) = (env.clone(), env.computing());
            let took = env.offload(move || {
                keys.sign_ml_dsa(b"x");
                worker.computing() - before
            });
            // The work has been computed already, but nobody has its result before its time.
            let took = took.await.unwrap();
            assert!(took >= Duration::from_millis(10));
            arrived.lock().push((env.now() - began).as_millis());
        });
    }
    world.run_for(Duration::from_secs(2)).unwrap();
    let used = u128::try_from(jobs).unwrap() * 10_000_000;
    let cpu = world.cpu_time(node).as_nanos();
    assert!(slowness != 1.0 || cpu == used, "{cpu}");
    std::mem::take(&mut *arrived.lock())
}

// Scenario: five signatures of 10 ms are offloaded at once on two cores: their results come after 10, 10, 20, 20 and 30 ms of
// virtual time. On a node that is three times as slow, after three times that.
#[test]
fn results_come_when_their_cost_is_over() {
    assert_eq!(arrivals(1.0, 5), [10, 10, 20, 20, 30]);
    assert_eq!(arrivals(3.0, 3), [30, 30, 60]);
}

// Scenario: a node seals 100 bytes on each core without offloading it, at 1 ms a byte: nobody waits for that, but what is
// offloaded next does.
#[test]
fn what_is_computed_in_passing_takes_the_cpu_too() {
    let (mut world, env, keys) = world(1.0);
    let node = world.find("client-0").unwrap();
    let arrived: Arc<Mutex<Option<u128>>> = Arc::default();
    let told = arrived.clone();
    world.spawn(node, async move {
        let key = pqcnet_crypto::AeadKey::new(pqcnet_crypto::AeadAlgorithm::Aes256Gcm, &[1; 32]);
        for _ in 0..2 {
            key.seal_in_place(&[0; 12], b"", &mut [0; 100]);
        }
        assert_eq!(env.now(), Duration::ZERO);
        env.offload(move || keys.sign_ml_dsa(b"x")).await.unwrap();
        *told.lock() = Some(env.now().as_millis());
    });
    world.run_for(Duration::from_secs(1)).unwrap();
    assert_eq!(*arrived.lock(), Some(110));
}

// Scenario: costs are constants, so that a hash does not depend on the machine; the reference machine's are these.
#[test]
fn the_reference_costs_are_constants() {
    let costs = Costs::default();
    assert_eq!(costs.of(Op::MlDsaSign, 5_000), Duration::from_micros(93));
    assert!(costs.of(Op::Seal, 65_536) > costs.of(Op::Seal, 100));
}
