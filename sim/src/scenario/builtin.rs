//! The scenarios that come with the simulator; their files lie in sim/scenarios.

const ALL: &[(&str, &str)] = &[
    (
        "steady-1000",
        include_str!("../../scenarios/steady-1000.toml"),
    ),
    ("churn-30", include_str!("../../scenarios/churn-30.toml")),
    (
        "partition-heal",
        include_str!("../../scenarios/partition-heal.toml"),
    ),
    (
        "relayer-crash",
        include_str!("../../scenarios/relayer-crash.toml"),
    ),
    ("mixed-32", include_str!("../../scenarios/mixed-32.toml")),
    ("handover", include_str!("../../scenarios/handover.toml")),
    (
        "two-owners",
        include_str!("../../scenarios/two-owners.toml"),
    ),
    ("hot-shard", include_str!("../../scenarios/hot-shard.toml")),
    (
        "relayer-loss",
        include_str!("../../scenarios/relayer-loss.toml"),
    ),
    ("nat", include_str!("../../scenarios/nat.toml")),
    (
        "broker-outage",
        include_str!("../../scenarios/broker-outage.toml"),
    ),
    ("claim-10k", include_str!("../../scenarios/claim-10k.toml")),
];

/// The text of a built-in scenario.
pub fn text(name: &str) -> Option<&'static str> {
    let found = ALL.iter().find(|(known, _)| *known == name);
    found.map(|(_, text)| *text)
}

/// Their names.
pub fn names() -> impl Iterator<Item = &'static str> {
    ALL.iter().map(|(name, _)| *name)
}
