//! Trees: built first, then started as a whole.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::latest;
use tokio::sync::mpsc;

use crate::addr::Addr;
use crate::env::Env;
use crate::error::Exit;
use crate::inspect::{ActorInfo, Inspector};
use crate::message::Behaviour;
use crate::order::{CutOff, Order, REPORTS_A_CHILD, Reporter};
use crate::path::Path;
use crate::supervise::driver::{Driver, Members, Parent, Phase};
use crate::supervise::limiter::{Backoff, Intensity, Limiter};
use crate::supervise::member::{Member, Probe, Standing};
use crate::supervise::nursery::{Nursery, NurseryMember};
use crate::supervise::plan::Plan;
use crate::supervise::policy::{KILL_GRACE, Restart, Strategy};
use crate::supervise::spec::Spec;

/// A supervisor and its children, in the order they start.
pub struct Tree {
    name: String,
    strategy: Strategy,
    intensity: Intensity,
    backoff: Backoff,
    children: Vec<Arc<dyn Member>>,
}

impl Tree {
    /// A tree without children.
    pub fn new(name: impl Into<String>, strategy: Strategy) -> Self {
        Tree {
            name: name.into(),
            strategy,
            intensity: Intensity::default(),
            backoff: Backoff::default(),
            children: Vec::new(),
        }
    }

    /// How many failures it survives before it stops its children and fails itself.
    pub fn intensity(mut self, intensity: Intensity) -> Self {
        self.intensity = intensity;
        self
    }

    /// How long it waits before a restart.
    pub fn backoff(mut self, backoff: Backoff) -> Self {
        self.backoff = backoff;
        self
    }

    /// Adds an actor. Its address works at once: messages wait for the start.
    pub fn child<B: Behaviour>(&mut self, spec: Spec<B>) -> Addr<B> {
        let (addr, member) = spec.into_member(Restart::Permanent, None);
        self.children.push(Arc::new(member));
        addr
    }

    /// Adds a supervisor with children of its own. Its failure counts here as one.
    pub fn subtree(&mut self, tree: Tree) {
        self.children.push(Arc::new(tree.into_member()));
    }

    /// Adds a place for at most `limit` actors that come and go.
    pub fn nursery(&mut self, name: impl Into<String>, limit: usize) -> Nursery {
        self.nursery_with(name, limit, Intensity::default(), Backoff::default())
    }

    /// As [`Tree::nursery`], saying how many failures of restarted children it survives.
    pub fn nursery_with(
        &mut self,
        name: impl Into<String>,
        limit: usize,
        intensity: Intensity,
        backoff: Backoff,
    ) -> Nursery {
        let limiter = Limiter::new(intensity, backoff);
        let (nursery, member) = NurseryMember::new(name.into(), limit, limiter);
        self.children.push(Arc::new(member));
        nursery
    }

    /// Starts the children, each once the one before it has started. The tree runs on if `Running` is dropped.
    pub fn start(self, env: Env) -> Running {
        let (phase, watched) = latest::channel(Phase::Starting);
        let path = Path::root(&self.name);
        let member = self.into_member();
        let standing = Arc::clone(&member.standing);
        let parent = Parent::Root {
            phase,
            cut: CutOff::default(),
        };
        member.run(&env, path, parent);
        standing.set(Order::Start);
        Running {
            standing,
            phase: watched,
            inspector: Inspector {
                root: Arc::new(member),
                env,
            },
        }
    }

    fn into_member(self) -> TreeMember {
        let mut plan = Plan::new(self.strategy, Limiter::new(self.intensity, self.backoff));
        // Children stop one after another, and one that must be killed takes its grace as well.
        let mut shutdown = KILL_GRACE;
        for child in &self.children {
            plan.add(child.restart(), child.shutdown());
            shutdown = shutdown
                .saturating_add(child.shutdown())
                .saturating_add(KILL_GRACE);
        }
        let members: BTreeMap<u64, _> = (0..).zip(self.children).collect();
        TreeMember {
            name: self.name,
            shutdown,
            standing: Arc::default(),
            members: Arc::new(Mutex::new(members)),
            plan: Mutex::new(Some(plan)),
        }
    }
}

/// A tree inside a tree; the root is one as well.
struct TreeMember {
    name: String,
    shutdown: Duration,
    standing: Arc<Standing>,
    members: Members,
    plan: Mutex<Option<Plan>>,
}

impl TreeMember {
    fn run(&self, env: &Env, path: Path, parent: Parent) {
        let plan = self
            .plan
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        let Some(plan) = plan else {
            return;
        };
        let members = self.members.lock().unwrap_or_else(PoisonError::into_inner);
        let capacity = (members.len() * REPORTS_A_CHILD).max(1);
        let (reporting, reports) = mpsc::channel(capacity);
        let cut = match &parent {
            Parent::Supervisor(reporter) => reporter.cut.clone(),
            Parent::Root { cut, .. } => cut.clone(),
        };
        for (number, member) in members.iter() {
            let reporter = Reporter {
                child: *number,
                tx: reporting.clone(),
                cut: cut.clone(),
            };
            member.launch(env, &path, reporter);
        }
        drop(members);
        let driver = Driver {
            policy: plan,
            members: Arc::clone(&self.members),
            standing: Arc::clone(&self.standing),
            reports,
            reporting,
            arrivals: None,
            on_gone: Box::new(|| {}),
            parent,
            env: env.clone(),
            path,
        };
        env.spawn(driver.run());
    }
}

impl Member for TreeMember {
    fn launch(&self, env: &Env, parent: &Path, reporter: Reporter) {
        self.run(env, parent.join(&self.name), Parent::Supervisor(reporter));
    }

    fn order(&self, order: Order) {
        self.standing.set(order);
    }

    fn restart(&self) -> Restart {
        Restart::Permanent
    }

    fn shutdown(&self) -> Duration {
        self.shutdown
    }

    fn path(&self) -> Path {
        Path::root(&self.name)
    }

    fn probe(&self, probes: &mut Vec<Probe>) {
        let members = self.members.lock().unwrap_or_else(PoisonError::into_inner);
        for member in members.values() {
            member.probe(probes);
        }
    }
}

/// A started tree.
#[derive(Clone)]
pub struct Running {
    standing: Arc<Standing>,
    phase: latest::Receiver<Phase>,
    inspector: Inspector,
}

impl Running {
    /// Resolves once every child has started; the error is how the tree ended before that.
    pub async fn started(&self) -> Result<(), Exit> {
        match self.reached(|phase| *phase != Phase::Starting).await {
            Phase::Over(exit) => Err(exit),
            Phase::Starting | Phase::Up => Ok(()),
        }
    }

    /// Stops the children in reverse order, each within its deadline, and says how that went.
    pub async fn stop(&self) -> Exit {
        self.standing.set(Order::Stop);
        self.wait().await
    }

    /// Resolves when the tree is over, whoever ended it.
    pub async fn wait(&self) -> Exit {
        match self.reached(|phase| matches!(phase, Phase::Over(_))).await {
            Phase::Over(exit) => exit,
            Phase::Starting | Phase::Up => Exit::Escalated {
                at: self.inspector.root.path(),
                cause: "the runtime went down".into(),
            },
        }
    }

    /// Every actor in the tree.
    pub async fn inspect(&self) -> Vec<ActorInfo> {
        self.inspector.inspect().await
    }

    /// A handle for inspection alone.
    pub fn inspector(&self) -> Inspector {
        self.inspector.clone()
    }

    async fn reached(&self, wanted: impl Fn(&Phase) -> bool) -> Phase {
        let mut phase = self.phase.clone();
        match phase.wait_for(wanted).await {
            Ok(reached) => reached.clone(),
            // The supervisor's task is gone without a word: its runtime went down.
            Err(_) => self.phase.borrow().clone(),
        }
    }
}
