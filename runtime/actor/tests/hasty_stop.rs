//! A tree is told to stop while some of its children are only just being started: it stops at once all the same.

use std::time::Duration;

use pqcnet_actor::{Behaviour, Env, Exit, Spec, Strategy, Tree, simulate};

struct Quiet;
impl Behaviour for Quiet {
    const NAME: &'static str = "Quiet";
}

async fn yields(n: usize) {
    for _ in 0..n {
        tokio::task::yield_now().await;
    }
}

// A child comes into a nursery and, some steps of the scheduler later, the tree is told to stop. However many steps:
// the child's start is not lost under the order to stop, which would wait for its deadline, 30 s later.
#[test]
fn a_child_that_has_just_come_stops_at_once() {
    for steps in 0..12 {
        simulate(|| async move {
            let env = Env::simulated(1, "node");
            let mut tree = Tree::new("tree", Strategy::OneForOne);
            let nursery = tree.nursery("nursery", 3);
            let running = tree.start(env.clone());
            yields(50).await;
            nursery.spawn(Spec::new("quiet", |_| Quiet)).unwrap();
            yields(steps).await;
            let since = env.now();
            assert_eq!(running.stop().await, Exit::Stopped, "after {steps} steps");
            let took = env.now() - since;
            assert!(
                took < Duration::from_secs(1),
                "{took:?} after {steps} steps"
            );
        });
    }
}

// The same with a tree of trees that is stopped while it starts.
#[test]
fn a_tree_that_has_just_started_stops_at_once() {
    for steps in 0..30 {
        simulate(|| async move {
            let env = Env::simulated(1, "node");
            let mut tree = Tree::new("tree", Strategy::OneForOne);
            tree.child(Spec::new("first", |_| Quiet));
            let mut inner = Tree::new("inner", Strategy::OneForOne);
            inner.child(Spec::new("second", |_| Quiet));
            tree.subtree(inner);
            tree.nursery("nursery", 3);
            tree.child(Spec::new("last", |_| Quiet));
            let running = tree.start(env.clone());
            yields(steps).await;
            let since = env.now();
            assert_eq!(running.stop().await, Exit::Stopped, "after {steps} steps");
            let took = env.now() - since;
            assert!(
                took < Duration::from_secs(1),
                "{took:?} after {steps} steps"
            );
        });
    }
}
