//! Scenario: one node breaks the rules, as a scenario's file says, for most of a short run. What it does is seen, and what honest
//! nodes were promised is kept.

use std::path::Path;

use pqcnet_sim::play::{Options, play};
use pqcnet_sim::report::{Outcome, Run};
use pqcnet_sim::scenario::Scenario;

/// Two relayers, three sentries, two pairs of clients; the second pair are the victims of bad sentries, if there are any.
const TOWN: &str = r#"
name = "byzantine"
duration = "10s"
crypto = "modelled"
shards = 4
[network]
latency = "20ms"
jitter = 0
[[nodes]]
role = "relayer"
count = 2
[[nodes]]
role = "sentry"
count = 3
[[nodes]]
name = "people"
role = "client"
count = 4
[[nodes]]
name = "others"
role = "client"
count = 2
[[traffic]]
publishers = "people"
subscribers = "people"
rate = 10
start = "1s"
stop = "8s"
[[traffic]]
publishers = "others"
subscribers = "others"
rate = 10
start = "1s"
stop = "8s"
"#;

/// Plays it with one who misbehaves. Whatever that is, what is judged is acknowledged and delivered, all of it.
fn with(more: &str) -> Run {
    let text = format!("{TOWN}{more}");
    let loaded = Scenario::with_files(text, Path::new("byzantine.toml"));
    let loaded = loaded.unwrap_or_else(|error| panic!("{error}"));
    let played = play(&loaded, &Options::new(3), &mut |_| {});
    let run = played.unwrap_or_else(|error| panic!("{error}")).run;
    assert_eq!(run.outcome, Outcome::Held, "{more}");
    let sent = run.counts["load: sent"];
    assert!(sent > 200, "{:?}", run.counts);
    assert_eq!(run.counts["load: acknowledged"], sent, "{more}");
    assert_eq!(run.counts["load: delivered"], sent, "{more}");
    run
}

fn sentry(behaviour: &str) -> Run {
    with(&format!(
        "[[byzantine]]\nnodes = [\"sentry-3\"]\nvictims = [\"others\"]\nfrom = \"2s\"\n{behaviour}\n"
    ))
}

const DONE: &str = "byzantine: messages lost, repeated, altered or sent in floods";

#[test]
fn one_that_drops() {
    let run = sentry("behaviour = \"drop\"\nshare = 0.3");
    assert!(run.counts[DONE] > 5, "{:?}", run.counts);
    assert!(run.counts["victims: sent"] > 0);
}

#[test]
fn one_that_replays() {
    let run = sentry("behaviour = \"replay\"\nshare = 1.0");
    assert!(run.counts[DONE] > 50, "{:?}", run.counts);
}

#[test]
fn one_that_lies() {
    let run = sentry("behaviour = \"lie\"\nshare = 0.5");
    assert!(run.counts[DONE] > 5, "{:?}", run.counts);
}

#[test]
fn one_that_floods() {
    let run = sentry("behaviour = \"flood\"\nrate = 200");
    assert!(run.counts[DONE] > 400, "{:?}", run.counts);
}

// A relayer that keeps everything back for 150 ms: a message to a channel of its shards takes that much longer in, its
// acknowledgement out, its delivery out.
#[test]
fn one_that_delays() {
    let longest = |run: &Run| run.times["publish to delivery"].p99_ms;
    let prompt = longest(&with(""));
    let late = "[[byzantine]]\nnodes = [\"relayer-1\"]\nbehaviour = \"delay\"\ndelay = \"150ms\"\n";
    let late = longest(&with(late));
    assert!(late >= prompt + 300.0, "{prompt} ms, then {late} ms");
}

// A sentry and a relayer start again and announce themselves: those that never forward hear of it and keep it to themselves.
#[test]
fn those_that_never_forward() {
    let news = "[[faults]]\nkind = \"restart\"\nnodes = [\"sentry-1\"]\nat = \"4s\"\n\
                [[faults]]\nkind = \"restart\"\nnodes = [\"relayer-2\"]\nat = \"5s\"\n";
    const KEPT: &str = "byzantine: messages not forwarded";
    assert_eq!(with(news).counts[KEPT], 0);
    let run = with(&format!(
        "{news}[[byzantine]]\nnodes = [\"relayer\", \"sentry-2\"]\nbehaviour = \"never-forward\"\n"
    ));
    assert!(run.counts[KEPT] > 0, "{:?}", run.counts);
}
