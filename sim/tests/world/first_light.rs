//! One message through whole nodes.

use std::time::Duration;

use pqcnet_sim::crypto::{Crypto, Op};
use pqcnet_sim::world::WorldConfig;

use crate::support::{Done, Town, twice};

// Scenario: a relayer, a sentry and a client over simulated streams, with real QSTP: the client publishes, the relayer
// stores, the client is acked. Twice, with real, remembered and modelled cryptography: each time the same events. With another
// seed others.
#[test]
fn a_message_is_acked_twice_alike() {
    let run = |seed: u64, crypto: Crypto| {
        twice(|trace| {
            let mut config = WorldConfig::new(seed);
            config.crypto = crypto;
            let mut town = Town::new(config, 1, 1, 1);
            town.world.observe(trace.clone());
            town.boot();
            town.load(3, Duration::from_millis(50));
            town.world.run_for(Duration::from_secs(5))?;
            let counts = town.world.crypto_counts();
            assert!(counts.of(Op::Decapsulate) >= 2, "{counts:?}");
            let done = town.done.lock().clone();
            Ok((town.hash(), done))
        })
    };
    let acked = |offset| ("client-0".to_owned(), offset);
    let expected = Done {
        acked: vec![acked(1), acked(2), acked(3)],
        failed: Vec::new(),
    };
    let mut hashes = Vec::new();
    for crypto in Crypto::ALL {
        let (hash, done) = run(7, crypto);
        assert_eq!(done, expected, "{crypto:?}");
        hashes.push(hash);
    }
    // Memory changes what is computed, not what happens.
    assert_eq!(hashes[0], hashes[1]);
    assert_ne!(hashes[1], hashes[2]);
    assert_ne!(run(8, Crypto::Memo).0, hashes[1]);
}
