//! The simulator: the trees that production nodes run, on simulated machines, in one thread and in virtual time.
//!
//! ```text
//!   scenario ──▶ World ── nodes: roles' trees and clients on SimPlatform {env, streams, control, disk}
//!                  │          │            ▲
//!     faults, ─────┤          ▼            │ one heap of deliveries, one link model
//!     oracle       │        Net ───────────┘
//!                  └─ every message handled and every delivery ──▶ event hash, observers, report
//! ```
//!
//! (scenario, seed, commit) gives the same event hash on any machine. Guide: docs/guides/sim.md.
//!
//! | module | what |
//! |---|---|
//! | [`world`] | nodes, virtual time, randomness by name, the CPU of each node, the event hash |
//! | [`net`] | streams and datagrams over modelled links; partitions, NAT |
//! | [`crypto`] | real, remembered or modelled; what each operation costs a node |
//! | [`control`] | the control plane in virtual time, over [`net`] |
//! | [`gossip`] | gossipsub 1.1, pure |
//! | [`broker`] | a message broker, for logs that are on one |
//! | [`disk`] | a node's disk in memory |
//! | [`faults`] | churn, crashes, clocks, partitions; nodes that do not keep the rules |
//! | [`oracle`] | load, and what must hold all along |
//! | [`geo`] | how long light takes between two places |
//! | [`scenario`] | scenarios as TOML |
//! | [`report`] | series, run files, pages |
//! | [`play`] | runs a scenario: joins all of the above |

pub mod broker;
pub mod control;
pub mod crypto;
pub mod disk;
pub mod faults;
pub mod geo;
pub mod gossip;
pub mod net;
pub mod oracle;
pub mod play;
pub mod report;
pub mod scenario;
pub mod world;
