//! What an operator may ask of running actors.

use std::sync::Arc;
use std::time::Duration;

use crate::env::Env;
use crate::mail::{Bounds, Life};
use crate::path::Path;
use crate::supervise::member::Member;

/// How long an inspection waits for all descriptions together. A healthy actor answers within a poll.
const PATIENCE: Duration = Duration::from_millis(250);

/// One actor, as seen from outside.
#[derive(Debug, Clone)]
pub struct ActorInfo {
    /// Where it stands.
    pub path: Path,
    /// Its behaviour's name.
    pub behaviour: &'static str,
    /// Whether it runs.
    pub life: Life,
    /// Messages waiting, by class in the order of [`crate::Class::ALL`].
    pub depth: [usize; 3],
    /// How many may wait.
    pub bounds: Bounds,
    /// Incarnations after the first.
    pub restarts: u32,
    /// Messages handled.
    pub handled: u64,
    /// Time spent handling, estimated from a sample.
    pub busy: Duration,
    /// What the actor says of itself; `None` if it does not run, or did not answer in time.
    pub state: Option<String>,
}

/// Lists a tree's actors. Cheap to clone.
#[derive(Clone)]
pub struct Inspector {
    pub(crate) root: Arc<dyn Member>,
    pub(crate) env: Env,
}

impl Inspector {
    /// Every actor in the tree, in order of its place.
    pub async fn inspect(&self) -> Vec<ActorInfo> {
        let mut probes = Vec::new();
        self.root.probe(&mut probes);
        let mut patience = std::pin::pin!(self.env.sleep(PATIENCE));
        let mut infos = Vec::with_capacity(probes.len());
        for (mut info, mut description) in probes {
            if matches!(info.life, Life::Running | Life::Draining) {
                info.state = if patience.is_elapsed() {
                    description.try_recv().ok()
                } else {
                    tokio::select! {
                        biased;
                        text = &mut description => text.ok(),
                        () = &mut patience => None,
                    }
                };
            }
            infos.push(info);
        }
        infos
    }
}
