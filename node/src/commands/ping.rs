//! `pqcnet ping`: measures the way to nodes step by step, and says at which one it ends.

use std::time::Duration;

use clap::Args;
use pqcnet_actor::Env;
use pqcnet_messages::control::Ping;
use pqcnet_p2p::network::NodeEntry;
use serde_json::{Value, json};

use super::identity::IdentityArgs;
use super::nodes::{Names, chosen};
use super::status::Output;
use crate::exit::{Exit, Failed};
use crate::operator::{NoAnswer, NodeLink, Operator, Step};

/// Which node to ping, and how often.
#[derive(Debug, Args)]
pub struct PingArgs {
    /// A node's name, its id, or the beginning of it; without one, every node with a data address.
    node: Option<String>,
    #[command(flatten)]
    identity: IdentityArgs,
    /// Pings per node, over one link.
    #[arg(short, long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=1000))]
    count: u32,
    /// How to print.
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
}

/// What came of one node.
struct Measured {
    link: NodeLink,
    who: String,
    round_trips: Vec<Duration>,
}

/// `pqcnet ping`: 0 if every node answered, 4 if one did not, 5 if one refused.
pub async fn ping(args: &PingArgs) -> Result<Exit, Failed> {
    let identity = args.identity.open("operator")?;
    let env = Env::plain();
    let operator = Operator::new(&env, identity.keys.clone(), &identity.network)?;
    let mut worst = Exit::Ok;
    let mut documents = Vec::new();
    for node in chosen(&identity.network, &identity.names, args.node.as_deref())? {
        let outcome = measure(&env, &operator, node, args.count).await;
        if let Err(error) = &outcome
            && error.exit() as u8 > worst as u8
        {
            worst = error.exit();
        }
        match args.output {
            Output::Text => print_text(&identity.names, now(node, &outcome), &outcome),
            Output::Json => {
                documents.push(as_json(&identity.names, now(node, &outcome), &outcome));
            }
        }
    }
    if args.output == Output::Json {
        say!("{}", Value::Array(documents));
    }
    Ok(worst)
}

/// The node under the identity that answered.
fn now<'a>(node: &'a NodeEntry, outcome: &'a Result<Measured, NoAnswer>) -> &'a NodeEntry {
    outcome
        .as_ref()
        .map_or(node, |measured| &measured.link.node)
}

async fn measure(
    env: &Env,
    operator: &Operator,
    node: &NodeEntry,
    count: u32,
) -> Result<Measured, NoAnswer> {
    let link = operator.link(node).await?;
    let mut measured = Measured {
        link,
        who: String::new(),
        round_trips: Vec::new(),
    };
    for nonce in 1..=u64::from(count) {
        let sent = env.now();
        let pong = measured.link.ask(Ping { nonce }).await?;
        if pong.nonce != nonce {
            return Err(NoAnswer {
                step: Step::Data,
                refused: true,
                why: format!("answered ping {nonce} with {}", pong.nonce),
                fault: None,
            });
        }
        measured.round_trips.push(env.now().saturating_sub(sent));
        measured.who = format!("{} {}", pong.role, pong.software);
    }
    Ok(measured)
}

/// Each step with its time; no retry, no time.
fn steps(measured: &Measured) -> Vec<(Step, Duration)> {
    let took = measured.link.timings;
    let steps = [
        (Step::Route, took.route),
        (Step::Retry, took.retry),
        (Step::Kem, took.kem),
        (Step::Signature, took.signature),
        (Step::Role, took.role),
    ];
    let asked = |(step, took): &(Step, Duration)| *step != Step::Retry || !took.is_zero();
    steps.into_iter().filter(asked).collect()
}

fn print_text(names: &Names, node: &NodeEntry, outcome: &Result<Measured, NoAnswer>) {
    let who = names.full(&node.id);
    let measured = match outcome {
        Ok(measured) => measured,
        Err(error) => return say!("{who}  {error}"),
    };
    say!(
        "{who}  {} at {}, suite {}, {} bytes out and {} in",
        measured.who,
        measured.link.at,
        measured.link.handshake.suite.label(),
        measured.link.handshake.sent,
        measured.link.handshake.received,
    );
    for (step, took) in steps(measured) {
        say!("  {:<10} {took:?}", step.to_string());
    }
    let each: Vec<String> = (measured.round_trips.iter())
        .map(|took| format!("{took:?}"))
        .collect();
    say!("  {:<10} {}", Step::Data.to_string(), each.join("  "));
}

fn as_json(names: &Names, node: &NodeEntry, outcome: &Result<Measured, NoAnswer>) -> Value {
    let micros = |took: Duration| u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
    let mut document = json!({ "node_id": node.id, "name": names.name(&node.id) });
    match outcome {
        Ok(measured) => {
            document["steps_us"] = steps(measured)
                .into_iter()
                .map(|(step, took)| (step.to_string().to_lowercase(), Value::from(micros(took))))
                .collect::<serde_json::Map<_, _>>()
                .into();
            let each = measured.round_trips.iter().map(|took| micros(*took));
            document["data_us"] = each.collect::<Vec<_>>().into();
        }
        Err(error) => {
            document["failed_step"] = json!(error.step);
            document["refused"] = error.refused.into();
            document["error"] = error.why.clone().into();
        }
    }
    document
}
