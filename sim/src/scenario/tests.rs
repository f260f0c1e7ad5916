//! Scenario: authors write scenarios, right and wrong ones.

use super::spec::*;
use super::*;
use crate::crypto::{Costs, Op};

const SMALL: &str = r#"
name = "small"
duration = "30s"
[[nodes]]
role = "relayer"
[[nodes]]
role = "sentry"
count = 3
regions = ["london", "tokyo"]
[[nodes]]
name = "people"
role = "client"
count = 2
"#;

fn problems(text: &str) -> Vec<String> {
    let found = Scenario::parse(text).err().unwrap_or_default();
    found.iter().map(Problem::to_string).collect()
}

// Every built-in scenario is sound, has its own name, and says what it is for.
#[test]
fn built_in_scenarios_are_sound() {
    for name in builtin::names() {
        let loaded = Scenario::load(name).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(loaded.scenario.name, name);
        assert!(loaded.scenario.about.ends_with('.'), "{name}");
        assert!(!loaded.scenario.traffic.is_empty(), "{name}");
    }
    let steady = Scenario::load("steady-1000").expect("built in").scenario;
    assert_eq!(steady.node_count(), 1_000);
    let mixed = Scenario::load("mixed-32").expect("built in").scenario;
    assert_eq!(mixed.node_count(), 32);
}

// What a scenario leaves out has a default.
#[test]
fn a_small_scenario_is_read() {
    let scenario = Scenario::parse(SMALL).expect("sound");
    assert_eq!(scenario.crypto, Crypto::Memo);
    assert_eq!(scenario.network.latency, Latency::Geography);
    let sentries = scenario.group("sentry").expect("a group");
    assert_eq!(sentries.nodes().last().as_deref(), Some("sentry-3"));
    assert_eq!(
        [0, 1, 2].map(|n| sentries.region(n)),
        ["london", "tokyo", "london"]
    );
    assert_eq!(
        scenario.group("people").map(|group| group.role),
        Some(Role::Client)
    );
}

// Misspelt keys anywhere are named with their line and what was meant, all of them at once.
#[test]
fn misspelt_keys_have_line_and_suggestion() {
    let text = SMALL.replace("count = 3", "cuont = 3") + "[invariants]\nmailbx = 1\n[netwrok]\n";
    assert_eq!(
        problems(&text),
        [
            "line 8: unknown key `nodes[1].cuont`, did you mean `count`?",
            "line 15: unknown key `invariants.mailbx`, did you mean `mailbox`?",
            "line 16: unknown key `netwrok`, did you mean `network`?",
        ]
    );
}

// A fault's keys depend on its kind: what belongs to another kind is unknown here.
#[test]
fn a_faults_keys_are_those_of_its_kind() {
    let fault = "[[faults]]\nkind = \"crash\"\nnodes = [\"relayer\"]\nat = \"1s\"\nfactor = 2.0\n";
    assert_eq!(
        problems(&(SMALL.to_owned() + fault)),
        ["line 18: unknown key `faults[0].factor`"]
    );
    let fault = "[[faults]]\nkind = \"crush\"\nnodes = [\"relayer-2\"]\nat = \"40s\"\n";
    assert_eq!(
        problems(&(SMALL.to_owned() + fault)),
        [
            "line 15: `faults[0].kind`: `crush` is none of churn, crash, restart, partition, latency, loss, slow, skew, \
             jump, panic, disk-full, disk-slow, disk-stalled, disk-fails, disk-lies, broker-forgets, did you mean `crash`?",
            "line 16: `faults[0].nodes`: `relayer-2` is no group, no node and no `group/number`, did you mean \
             `relayer-1`?",
            "line 17: `faults[0].at`: within the duration",
        ]
    );
}

// Names that point nowhere: a region, a group of clients, a place without coordinates, a network without a relayer.
#[test]
fn names_that_point_nowhere_are_refused() {
    let text = SMALL.replace("tokyo", "tokio")
        + "[[traffic]]\npublishers = \"peple\"\nsubscribers = \"sentry\"\n[places.home]\nlatitude = 1\n";
    assert_eq!(
        problems(&text),
        [
            "line 9: `nodes[1].regions`: `tokio` is no place known here, did you mean `tokyo`?",
            "line 15: `traffic[0].publishers`: `peple` is no group of clients, did you mean `people`?",
            "line 16: `traffic[0].subscribers`: `sentry` is no group of clients",
            "line 17: `places.home.longitude` is missing",
        ]
    );
    let alone = "name = \"x\"\nduration = \"1s\"\n[[nodes]]\nrole = \"sentry\"\n";
    assert_eq!(
        problems(alone),
        ["line 3: `nodes`: a network needs a relayer"]
    );
    assert_eq!(
        problems("[network]\nlatency = \"gegraphy\"\n"),
        [
            "line 1: `name` is missing",
            "line 1: `duration` is missing",
            "line 1: `nodes` is missing",
            "line 2: `network.latency`: `gegraphy` is neither geography nor matrix nor a duration, did you mean \
             `geography`?",
        ]
    );
}

// Targets: a group, one node, the first of a group, all; each once, in the nodes' order.
#[test]
fn targets_are_resolved_in_order() {
    let fault = "[[faults]]\nkind = \"restart\"\nat = \"1s\"\nnodes = [\"people-2\", \"sentry/2\", \"sentry-1\"]\n\
                 [[faults]]\nkind = \"slow\"\nfactor = 3\nnodes = \"all\"\n";
    let scenario = Scenario::parse(&(SMALL.to_owned() + fault)).expect("sound");
    assert_eq!(
        scenario.faults[0].targets.nodes,
        ["sentry-1", "sentry-2", "people-2"]
    );
    assert_eq!(scenario.faults[1].targets.nodes.len(), 6);
    assert_eq!(scenario.faults[1].kind, FaultKind::Slow(3.0));
}

// A scenario with a table and statistics beside it; the hash covers them, and a region that the table lacks is named.
#[test]
fn files_beside_a_scenario_are_read_and_hashed() {
    let folder = tempfile::tempdir().expect("a folder");
    let put = |name: &str, text: &str| fs::write(folder.path().join(name), text).expect("a file");
    let load = || Scenario::load(folder.path().join("s.toml").to_str().expect("UTF-8"));
    put(
        "m.csv",
        ",frankfurt,london,tokyo\nfrankfurt,1,15,230\nlondon,15,1,240\ntokyo,230,240,1\n",
    );
    put(
        "t.json",
        r#"{"session_length_cdf_hours": [[2.0, 0.5], [8.0, 0.8]], "weekly_class_share_percent": {"online": 1}}"#,
    );
    let text = SMALL.to_owned()
        + "[network]\nmatrix = \"m.csv\"\n[[faults]]\nkind = \"churn\"\nmodel = \"trace\"\ntrace = \"t.json\"\n\
           speed = 600\nnodes = \"sentry\"\n";
    put("s.toml", &text);
    let first = load().expect("sound");
    assert_eq!(first.files.traces.len(), 1);
    assert!(first.files.matrix.is_some());
    put(
        "m.csv",
        ",frankfurt,london,tokyo\nfrankfurt,1,15,230\nlondon,15,1,241\ntokyo,230,240,1\n",
    );
    let second = load().expect("sound");
    assert_eq!(first.text, second.text);
    assert_ne!(first.hash, second.hash);
    put("m.csv", ",frankfurt,london\nfrankfurt,1,15\nlondon,15,1\n");
    let error = load().expect_err("no tokyo").to_string();
    assert!(error.ends_with("m.csv: no row is named `tokyo`"), "{error}");
}

// Neither a file nor a built-in scenario.
#[test]
fn a_misspelt_name_is_suggested() {
    let error = Scenario::load("stedy-1000").expect_err("none").to_string();
    assert_eq!(
        error,
        "`stedy-1000` is neither a file nor a built-in scenario, did you mean `steady-1000`?"
    );
}

// A table of costs, as `pqcnet-sim calibrate` prints it, comes back; what it does not say is the reference machine's; one more key
// is unknown.
#[test]
fn costs_come_back() {
    let mut costs = Costs::default();
    costs.set(Op::MlDsaSign, 186_500_000, 0);
    costs.set(Op::Open, 240_000, 108);
    let read = |table: &str| Scenario::parse(&format!("{SMALL}{table}"));
    assert_eq!(read(&costs.to_toml()).expect("sound").costs, costs);
    let slow = read("[costs]\nml_dsa_verify = 70\n").expect("sound").costs;
    assert_eq!(slow.get(Op::MlDsaVerify), (70_000_000, 0));
    assert_eq!(slow.get(Op::Seal), Costs::default().get(Op::Seal));
    assert_eq!(
        problems(&format!("{SMALL}[costs]\nml_dsa_sing = 1\n")),
        ["line 15: unknown key `costs.ml_dsa_sing`, did you mean `ml_dsa_sign`?"]
    );
}

// What stands before a node: nothing, `true`, or which kind.
#[test]
fn nats_have_kinds() {
    for (word, nat) in [
        ("false", Nat::None),
        ("true", Nat::Cone),
        ("\"cone\"", Nat::Cone),
        ("\"symmetric\"", Nat::Symmetric),
    ] {
        let text = SMALL.replace("count = 3", &format!("count = 3\nnat = {word}"));
        let scenario = Scenario::parse(&text).expect("sound");
        assert_eq!(scenario.group("sentry").expect("a group").nat, nat);
    }
    let text = SMALL.replace("count = 3", "count = 3\nnat = \"cones\"");
    assert_eq!(
        problems(&text),
        ["line 9: `nodes[1].nat`: `cones` is none of cone, symmetric, did you mean `cone`?"]
    );
}

// Relayers meter in windows of a minute, of another length, or not at all; windows shorter than they can be closed are refused.
#[test]
fn windows_of_meters() {
    let of = |key: &str| Scenario::parse(&(key.to_owned() + SMALL)).map(|read| read.metering);
    let second = std::time::Duration::from_secs(1);
    assert_eq!(of("").ok(), Some(Some(60 * second)));
    assert_eq!(of("metering = \"1s\"").ok(), Some(Some(second)));
    assert_eq!(of("metering = \"0s\"").ok(), Some(None));
    assert_eq!(
        problems(&("metering = \"10ms\"".to_owned() + SMALL)),
        ["line 1: `metering`: zero, or 100 ms to a day"]
    );
}
