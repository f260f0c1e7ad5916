//! What a crash, a full disk, a slow one and a lying one do.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use pqcnet_actor::{Env, simulate};
use pqcnet_mesh::shelf::Kind;
use pqcnet_sim::disk::{Crashed, Disk, DiskConfig, MemStore, Speed};
use pqcnet_store::{
    Batch, Commit, Family, OpenError, ReadError, Schema, Store, SubmitError, WriteError,
};

const F: Family = Family("f");

fn schema() -> Schema {
    Schema {
        kind: "test",
        version: 2,
        families: vec![F],
    }
}

fn disk(env: &Env, config: DiskConfig) -> Disk {
    Disk::new("node", config, env.rng("disk"))
}

fn put(store: &MemStore, key: u8, len: usize) -> Commit {
    let mut batch = Batch::new();
    batch.put(F, &[key], &vec![key; len]);
    store.submit(batch).unwrap()
}

fn keys(store: &dyn Store) -> Vec<u8> {
    let mut keys = Vec::new();
    store
        .view(&mut |view| {
            for key in 0..=u8::MAX {
                if view.get(F, &[key])?.is_some() {
                    keys.push(key);
                }
            }
            Ok(())
        })
        .unwrap();
    keys
}

const SLOW: DiskConfig = DiskConfig {
    capacity: 1 << 20,
    reserve: 0,
    queue_batches: 8,
    queue_bytes: 1 << 16,
    group_bytes: 1 << 10,
    speed: Speed {
        sync: Duration::from_millis(100),
        bytes_per_second: 1 << 20,
    },
};

// 1 has settled; 2, 3 and 4 are being written as one group, 5 waits. Crashes with a hundred different dice: 1 is always
// there, 5 never, and of the group a beginning, every length of it in its turn, torn in the middle of a batch or between two.
// The store of before is closed, and the disk can be mounted again.
#[test]
fn a_crash_keeps_what_was_synced_and_a_beginning_of_the_rest() {
    let mut seen = [[0u32; 2]; 4];
    for seed in 0..100 {
        simulate(|| async {
            let env = Env::simulated(seed, "node");
            let disk = disk(&env, SLOW);
            let store = disk.mount(&env, &schema()).unwrap();
            put(&store, 1, 10).await.unwrap();
            let group = [2, 3, 4].map(|key| put(&store, key, 300));
            env.sleep(Duration::from_millis(20)).await;
            let waits = put(&store, 5, 300);
            assert_eq!(disk.backlog(), (1, 301));
            let crashed = disk.crash();
            for commit in group.into_iter().chain([waits]) {
                assert_eq!(commit.await, Err(WriteError::Closed));
            }
            let Crashed { kept, lost, torn } = crashed;
            assert_eq!(kept + lost, 4);
            let wanted: Vec<u8> = (1..=1 + u8::try_from(kept).unwrap()).collect();
            assert_eq!(keys(&*disk.reader()), wanted);
            seen[usize::try_from(kept).unwrap()][usize::from(torn)] += 1;
            let mut batch = Batch::new();
            batch.put(F, b"", b"");
            assert!(matches!(store.submit(batch), Err(SubmitError::Closed(_))));
            assert_eq!(store.view(&mut |_| Ok(())), Err(ReadError::Closed));
            let again = disk.mount(&env, &schema()).unwrap();
            // A store of before that goes late takes nothing with it.
            drop(store);
            put(&again, 9, 1).await.unwrap();
            assert_eq!(disk.counts().crashes, 1);
        });
    }
    // Torn in the first batch, the second, the third; all kept is not torn.
    for (kept, [_, torn]) in seen.iter().enumerate() {
        assert_eq!(*torn > 0, kept < 3, "{seen:?}");
    }
}

// A disk of little room: what does not fit is refused and nothing of it is there; reading goes on; it takes more once there
// is room. The mesh's files are refused too.
#[test]
fn a_full_disk_refuses_and_recovers() {
    simulate(|| async {
        let env = Env::simulated(1, "node");
        let disk = disk(&env, SLOW);
        let store = disk.mount(&env, &schema()).unwrap();
        put(&store, 1, 1000).await.unwrap();
        disk.set_full(true);
        let refused = put(&store, 2, 1).await.unwrap_err();
        assert!(matches!(refused, WriteError::Full { .. }), "{refused}");
        let item = [Bytes::from_static(b"x")];
        let failed = disk.shelf().save(Kind::Adverts, &item).unwrap_err();
        assert!(failed.to_string().contains("node/peers"), "{failed}");
        assert_eq!((disk.free_bytes(), keys(&store)), (0, vec![1]));
        disk.set_full(false);
        put(&store, 3, 1).await.unwrap();
        disk.shelf().save(Kind::Adverts, &item).unwrap();
        assert_eq!(keys(&store), [1, 3]);
        disk.set_capacity(disk.used_bytes() + 100);
        let refused = put(&store, 4, 100).await.unwrap_err();
        assert!(matches!(refused, WriteError::Full { .. }), "{refused}");
        put(&store, 5, 60).await.unwrap();
        assert_eq!(disk.counts().failures, 2);
        disk.crash();
        assert_eq!(disk.shelf().load(Kind::Adverts).unwrap(), item);
    });
}

// A write takes a tenth of a second, ten times slower a second; while stalled none begins. Eight batches fit into the queue.
#[test]
fn slow_and_stalled_disks_take_virtual_time() {
    simulate(|| async {
        let env = Env::simulated(1, "node");
        let disk = disk(&env, SLOW);
        let store = disk.mount(&env, &schema()).unwrap();
        for (slowdown, least, most) in [(1, 75, 127), (10, 750, 1270)] {
            disk.set_slowdown(slowdown);
            let began = env.now();
            put(&store, 1, 1).await.unwrap();
            let took = (env.now() - began).as_millis();
            assert!((least..=most).contains(&took), "{took} ms");
        }
        disk.set_slowdown(1);
        disk.set_stalled(true);
        let mut waiting: Vec<Commit> = (0..8).map(|key| put(&store, key, 200)).collect();
        let refused = store.submit(Batch::new());
        assert!(matches!(refused, Err(SubmitError::Busy(_))));
        env.sleep(Duration::from_secs(3600)).await;
        assert_eq!((disk.backlog().0, keys(&store)), (8, vec![1]));
        disk.set_stalled(false);
        let last = waiting.pop().unwrap();
        last.await.unwrap();
        assert_eq!(keys(&store), [0, 1, 2, 3, 4, 5, 6, 7]);
        // Five of them make a kilobyte.
        assert_eq!(disk.counts().groups, 2 + 2);
    });
}

// Told to fail, a write's fate is unknown to its caller: with other dice another beginning of the group is there. The next
// write goes well.
#[test]
fn a_failed_write_may_leave_something() {
    let mut kept = [0; 3];
    for seed in 0..40 {
        simulate(|| async {
            let env = Env::simulated(seed, "node");
            let disk = disk(&env, SLOW);
            let store = disk.mount(&env, &schema()).unwrap();
            disk.fail_writes(1);
            let (first, second) = (put(&store, 1, 100), put(&store, 2, 100));
            let failed = first.await.unwrap_err();
            assert!(matches!(failed, WriteError::Io { .. }), "{failed}");
            assert_eq!(second.await, Err(failed));
            kept[keys(&store).len()] += 1;
            put(&store, 3, 1).await.unwrap();
        });
    }
    assert!(kept.iter().all(|times| *times > 0), "{kept:?}");
}

// A disk that lies shows what was written until it crashes; then it is as it was when it began to lie.
#[test]
fn a_lying_disk_forgets() {
    simulate(|| async {
        let env = Env::simulated(1, "node");
        let disk = disk(&env, SLOW);
        let store = disk.mount(&env, &schema()).unwrap();
        put(&store, 1, 1).await.unwrap();
        disk.set_lying(true);
        put(&store, 2, 1).await.unwrap();
        assert_eq!(keys(&store), [1, 2]);
        disk.crash();
        assert_eq!(keys(&*disk.reader()), [1]);
        let store = disk.mount(&env, &schema()).unwrap();
        put(&store, 3, 1).await.unwrap();
        disk.set_lying(false);
        disk.crash();
        assert_eq!(keys(&*disk.reader()), [1, 3]);
    });
}

// Two incarnations at once, another kind, a newer version: each is refused by name.
#[test]
fn a_disk_is_mounted_once_and_as_what_it_is() {
    simulate(|| async {
        let env = Env::simulated(1, "node");
        let disk = disk(&env, SLOW);
        let store = Arc::new(disk.mount(&env, &schema()).unwrap());
        let refused = disk.mount(&env, &schema()).err().unwrap();
        assert!(matches!(refused, OpenError::Locked { .. }), "{refused}");
        drop(store);
        let mut other = schema();
        other.kind = "other";
        let refused = disk.mount(&env, &other).err().unwrap();
        assert!(matches!(refused, OpenError::WrongKind { .. }), "{refused}");
        let mut older = schema();
        older.version = 1;
        let refused = disk.mount(&env, &older).err().unwrap();
        assert!(matches!(refused, OpenError::TooNew { .. }), "{refused}");
    });
}
