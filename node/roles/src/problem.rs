//! The problems a node can have: a code each, what it takes away, what mends it, and which explains which.
//!
//! [`Problem`] itself is a message, since nodes report it to each other and to operators. Whoever finds something wrong
//! makes it here, `Code::DiskLow.problem("3 % of /var is free").because("…")`, so that every code has one severity, one
//! remedy and a page in `docs/runbooks/`. [`explain`] leaves the root causes and hangs their symptoms on them.

use std::collections::BTreeMap;

pub use pqcnet_messages::{Problem, Severity};

use pqcnet_crypto::NodeId;
use pqcnet_messages::MAX_EXPLAINED;

/// Where the pages stand, from the root of the source tree.
pub const RUNBOOKS: &str = "docs/runbooks";

/// Declares the codes once: variant, name, severity, place in a chain of causes, remedy.
macro_rules! codes {
    ($($(#[$doc:meta])* $code:ident = $name:literal, $severity:ident, $rank:expr, $fix:literal;)*) => {
        /// What can be wrong, by a stable name.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Code {
            $($(#[$doc])* $code,)*
        }

        impl Code {
            /// Every code.
            pub const ALL: &[Code] = &[$(Code::$code,)*];

            /// Its name, in kebab case: in reports, alert rules and as the runbook's file name.
            pub fn name(self) -> &'static str {
                match self { $(Code::$code => $name,)* }
            }

            /// What it takes away.
            pub fn severity(self) -> Severity {
                match self { $(Code::$code => Severity::$severity,)* }
            }

            /// What mends it, in a line.
            pub fn remedy(self) -> &'static str {
                match self { $(Code::$code => $fix,)* }
            }

            /// For codes about another node: the lower one causes the higher ones about the same node.
            fn rank(self) -> Option<u8> {
                match self { $(Code::$code => $rank,)* }
            }
        }
    };
}

codes! {
    /// An operator asked a node and nobody answered.
    NodeUnreachable = "node-unreachable", Critical, Some(0),
        "start the node, or mend the way to it";
    /// A node answered an operator and said no.
    NodeRefuses = "node-refuses", Critical, Some(0),
        "give both sides the same network.toml and the right keys";
    /// A data link that the role needs does not stand.
    DataLinkDown = "data-link-down", Critical, Some(1),
        "start the peer, or mend the way to its data address";
    /// A control link to a bootstrap neighbour does not stand.
    ControlLinkDown = "control-link-down", Warning, Some(2),
        "start the peer, or mend the way to its control address";
    /// A neighbour is connected and does not answer pings.
    PeerSilent = "peer-silent", Warning, Some(3),
        "look at the peer's log and load; restart it if it hangs";
    /// A sentry cannot reach the owner of a shard.
    ShardOutOfReach = "shard-out-of-reach", Critical, Some(4),
        "bring back the relayer that owns the shard";
    /// Shards of a relayer are not ready to work.
    ShardNotReady = "shard-not-ready", Critical, None,
        "wait while it recovers; if it stays, run `pqcnet doctor` on the relayer";
    /// A shard's worker does not answer.
    ShardStuck = "shard-stuck", Critical, None,
        "look at disk latency and the log; restart the relayer";
    /// A shard is not where the root's map wants it.
    ShardNotMoved = "shard-not-moved", Warning, None,
        "give the shard back to its relayer in the next map, or start the new owner";
    /// The root has signed a shard map that this network cannot have.
    ShardMapUnusable = "shard-map-unusable", Warning, None,
        "sign a map with the network's number of shards and with its own relayers";
    /// A sentry takes no more clients.
    ClientsFull = "clients-full", Critical, None,
        "add a sentry to network.toml, or find the clients that hold links";
    /// Less disk is free than is prudent.
    DiskLow = "disk-low", Warning, None,
        "free space on the store's disk, or move the store";
    /// Too little disk is free to go on.
    DiskFull = "disk-full", Critical, None,
        "free space on the store's disk now";
    /// File descriptors are nearly used up.
    DescriptorsLow = "descriptors-low", Warning, None,
        "raise LimitNOFILE (ulimit -n) and restart the node";
    /// File descriptors are as good as used up.
    DescriptorsOut = "descriptors-out", Critical, None,
        "raise LimitNOFILE (ulimit -n) and restart the node, or find who holds so many links";
    /// A changed configuration was not taken over.
    ConfigNotReloaded = "config-not-reloaded", Warning, None,
        "correct the file (`pqcnet config check`), then send SIGHUP again";
    /// The node is stopping on request.
    Draining = "draining", Warning, None,
        "wait until it has stopped; start it again when the work is done";
    /// This node's own key is revoked, succeeded, or granted nothing any more.
    NodeBarred = "node-barred", Critical, None,
        "ask whoever keeps the root key: a new identity needs `pqcnet keys rotate` and a directive";
    /// What the root gave for a time is over.
    LeaseOver = "lease-over", Warning, None,
        "sign it again with a new lease: `pqcnet root grant`";
    /// The node has links to so few of the others that it may be cut off.
    PeersLost = "peers-lost", Warning, None,
        "mend this node's way to the others' control addresses";
    /// Nodes of one network run different software.
    VersionsDiffer = "versions-differ", Warning, None,
        "finish the rolling upgrade";
}

impl Code {
    /// The code with this name.
    pub fn named(name: &str) -> Option<Code> {
        Code::ALL.iter().copied().find(|code| code.name() == name)
    }

    /// The page that says what to do, from the root of the source tree.
    pub fn runbook(self) -> String {
        format!("{RUNBOOKS}/{}.md", self.name())
    }

    /// A problem with this code; its fix names the runbook.
    pub fn problem(self, what: impl Into<String>) -> Problem {
        Problem {
            code: self.name().to_owned(),
            severity: self.severity(),
            what: what.into(),
            cause: String::new(),
            fix: format!("{}; {}", self.remedy(), self.runbook()),
            about: None,
            explains: Vec::new(),
        }
    }
}

/// Leaves root causes, the gravest first: of all that is said about one node, the problem nearest to the cause stays and
/// explains the others. What is about nobody else, or has a code that causes nothing, stays by itself.
pub fn explain(problems: impl IntoIterator<Item = Problem>) -> Vec<Problem> {
    let mut about: BTreeMap<NodeId, Vec<(u8, Problem)>> = BTreeMap::new();
    let mut told: Vec<Problem> = Vec::new();
    for problem in problems {
        let rank = Code::named(&problem.code).and_then(Code::rank);
        match (problem.about, rank) {
            (Some(node), Some(rank)) => about.entry(node).or_default().push((rank, problem)),
            _ => told.push(problem),
        }
    }
    told.extend(about.into_values().filter_map(fold));
    told.sort_by(|a, b| {
        (b.severity.cmp(&a.severity)).then_with(|| (&a.code, &a.what).cmp(&(&b.code, &b.what)))
    });
    told
}

/// One node's problems as one.
fn fold(mut problems: Vec<(u8, Problem)>) -> Option<Problem> {
    problems.sort_by_key(|(rank, _)| *rank);
    let mut rest = problems.into_iter().map(|(_, problem)| problem);
    let mut root = rest.next()?;
    for symptom in rest {
        root.severity = root.severity.max(symptom.severity);
        for told in std::iter::once(symptom.what).chain(symptom.explains) {
            if root.explains.len() < MAX_EXPLAINED
                && told != root.what
                && !root.explains.contains(&told)
            {
                root.explains.push(told);
            }
        }
    }
    Some(root)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    use super::*;

    fn node(byte: u8) -> NodeId {
        NodeId::from_bytes([byte; 32])
    }

    /// Scenario: a relayer is dead. What a sentry and an operator see of it, twelve shards included, is one problem whose
    /// root is the relayer; another node's trouble stays its own.
    #[test]
    fn one_dead_relayer_explains_its_shards() {
        let dead = node(1);
        let mut seen: Vec<Problem> = (0..12)
            .map(|shard| {
                Code::ShardOutOfReach
                    .problem(format!("shard {shard} is out of reach"))
                    .about(dead)
            })
            .collect();
        seen.push(
            Code::ControlLinkDown
                .problem("no control link to 01010101")
                .about(dead),
        );
        seen.push(
            Code::DataLinkDown
                .problem("no data link to 01010101")
                .about(dead),
        );
        seen.push(
            Code::PeerSilent
                .problem("02020202 is silent")
                .about(node(2)),
        );
        seen.push(
            Code::NodeUnreachable
                .problem("relayer-1 does not answer")
                .about(dead),
        );
        seen.push(Code::ClientsFull.problem("full"));
        let told = explain(seen);
        let roots: Vec<(&str, usize)> = told
            .iter()
            .map(|p| (p.code.as_str(), p.explains.len()))
            .collect();
        assert_eq!(
            roots,
            [
                ("clients-full", 0),
                ("node-unreachable", 14),
                ("peer-silent", 0)
            ]
        );
        assert_eq!(told[1].explains[0], "no data link to 01010101");
        assert!(
            told[1]
                .explains
                .contains(&"shard 11 is out of reach".to_owned())
        );
    }

    /// Scenario: warnings about a node whose symptom is critical become critical; a code nobody knows is never folded
    /// away; more symptoms than a report carries are cut.
    #[test]
    fn folding_keeps_severity_strangers_and_bounds() {
        let mut unknown = Code::DiskLow.problem("from a newer node").about(node(1));
        unknown.code = "made-later".to_owned();
        let control = Code::ControlLinkDown
            .problem("no control link")
            .about(node(1));
        let shards = (0..MAX_EXPLAINED + 5).map(|shard| {
            Code::ShardOutOfReach
                .problem(format!("shard {shard}"))
                .about(node(1))
        });
        let told = explain([unknown, control].into_iter().chain(shards));
        let codes: Vec<&str> = told.iter().map(|problem| problem.code.as_str()).collect();
        assert_eq!(codes, ["control-link-down", "made-later"]);
        assert_eq!(told[0].severity, Severity::Critical);
        assert_eq!(told[0].explains.len(), MAX_EXPLAINED);
    }

    /// Scenario: every code has a name of its own that reads back, and a runbook that says what is seen, why and what to do.
    #[test]
    fn every_code_has_a_runbook() {
        let names: BTreeSet<&str> = Code::ALL.iter().map(|code| code.name()).collect();
        assert_eq!(names.len(), Code::ALL.len());
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        for code in Code::ALL {
            assert_eq!(Code::named(code.name()), Some(*code));
            let path = root.join(code.runbook());
            let page = std::fs::read_to_string(&path).unwrap_or_default();
            assert!(
                page.starts_with(&format!("# {}\n", code.name())),
                "{}",
                path.display()
            );
            for part in ["## What is seen", "## Why", "## What to do"] {
                assert!(page.contains(part), "{}: no `{part}`", path.display());
            }
        }
    }
}
