//! A node's CPU: jobs queue for its cores. Pure.

/// How fast a node computes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CpuSpec {
    /// Cores that work on offloaded jobs.
    pub cores: usize,
    /// What every cost is multiplied with; 1 is the machine that the costs were measured on.
    pub slowness: f64,
    /// Charged for each message handled, beside its cryptography.
    pub message_ns: u64,
}

impl Default for CpuSpec {
    /// Two cores; a message takes 2 us, what a sentry's and a relayer's handlers take on the average in production.
    fn default() -> CpuSpec {
        CpuSpec {
            cores: 2,
            slowness: 1.0,
            message_ns: 2_000,
        }
    }
}

/// Jobs that may wait; as many as in production's pool.
const QUEUE: usize = 2_048;

/// Cores and when each is free.
#[derive(Clone, Debug)]
pub struct Cpu {
    spec: CpuSpec,
    free_at: Vec<u64>,
    waiting: usize,
    busy_ns: u64,
}

impl Cpu {
    /// An idle one.
    pub fn new(spec: CpuSpec) -> Cpu {
        Cpu {
            free_at: vec![0; spec.cores.max(1)],
            spec,
            waiting: 0,
            busy_ns: 0,
        }
    }

    /// What the node's speed makes of a cost.
    fn scaled(&self, cost_ns: u64) -> u64 {
        if self.spec.slowness == 1.0 {
            return cost_ns;
        }
        // Costs are far below 2^53 ns.
        (cost_ns as f64 * self.spec.slowness.max(0.0)) as u64
    }

    /// Whether another job may wait.
    pub fn takes_jobs(&self) -> bool {
        self.waiting < QUEUE
    }

    /// Puts a job on the core that is free first; says when it is done, ns. It waits until [`Cpu::done`].
    pub fn job(&mut self, now_ns: u64, cost_ns: u64) -> u64 {
        self.waiting += 1;
        self.occupy(now_ns, cost_ns)
    }

    /// A job's result has been taken.
    pub fn done(&mut self) {
        self.waiting = self.waiting.saturating_sub(1);
    }

    /// Takes a core's time without anybody waiting for it: what handlers compute themselves.
    pub fn occupy(&mut self, now_ns: u64, cost_ns: u64) -> u64 {
        let cost = self.scaled(cost_ns);
        self.busy_ns = self.busy_ns.saturating_add(cost);
        let mut first = 0;
        for (core, free_at) in self.free_at.iter().enumerate() {
            if *free_at < self.free_at[first] {
                first = core;
            }
        }
        let ends = self.free_at[first].max(now_ns).saturating_add(cost);
        self.free_at[first] = ends;
        ends
    }

    /// From now on everything takes so many times as long as on the machine that was measured.
    pub fn set_slowness(&mut self, slowness: f64) {
        self.spec.slowness = slowness;
    }

    /// CPU time used, ns, over all cores.
    pub fn busy_ns(&self) -> u64 {
        self.busy_ns
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cpu(cores: usize, slowness: f64) -> Cpu {
        Cpu::new(CpuSpec {
            cores,
            slowness,
            message_ns: 0,
        })
    }

    // Two cores, three jobs of 100 at once: the third waits for a core. Work without a waiter takes a core's time as well.
    #[test]
    fn jobs_queue_for_cores() {
        let mut two = cpu(2, 1.0);
        assert_eq!([0, 0, 0].map(|now| two.job(now, 100)), [100, 100, 200]);
        two.occupy(0, 50);
        assert_eq!(two.job(120, 10), 160);
        assert_eq!(two.job(1_000, 10), 1_010);
        assert_eq!(two.busy_ns(), 370);
    }

    // A node of a third of the speed takes three times as long; 2,048 jobs may wait, and one more when one is done.
    #[test]
    fn slow_and_full() {
        let mut slow = cpu(1, 3.0);
        assert_eq!(slow.job(0, 100), 300);
        while slow.takes_jobs() {
            slow.job(0, 0);
        }
        assert_eq!(slow.waiting, QUEUE);
        slow.done();
        assert!(slow.takes_jobs());
    }
}
