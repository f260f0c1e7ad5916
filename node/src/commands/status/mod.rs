//! `pqcnet status`: asks nodes how they are, over the network itself. Problems come first, each with its root cause.

mod document;
mod text;
mod verdict;

use clap::{Args, ValueEnum};
use futures::future::join_all;
use pqcnet_actor::Env;
use pqcnet_messages::control::{Status, StatusReport};
use pqcnet_p2p::network::NodeEntry;
use pqcnet_roles::steward::AWAITED;

use super::identity::IdentityArgs;
use super::nodes::{Names, chosen};
use crate::clock::wall_ms;
use crate::exit::{Exit, Failed};
use crate::operator::{NoAnswer, Operator};

pub use document::document;
pub use text::{lines, problem_lines};
pub use verdict::problems;

/// How data is printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// For people.
    #[default]
    Text,
    /// One JSON document.
    Json,
}

/// Which nodes, and how to print what they say.
#[derive(Debug, Args)]
pub struct StatusArgs {
    /// A node's name, its id, or the beginning of it; without one, every node with a data address.
    node: Option<String>,
    #[command(flatten)]
    identity: IdentityArgs,
    /// How to print.
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
}

/// What one node said, or why it said nothing.
#[derive(Clone, Debug)]
pub struct Answer {
    /// As the network file lists it.
    pub node: NodeEntry,
    /// What it said.
    pub said: Result<StatusReport, NoAnswer>,
}

/// `pqcnet status`: 0 if every node is well or still starting, 3 if one is not, 4 or 5 if one does not answer.
pub async fn status(args: &StatusArgs) -> Result<Exit, Failed> {
    let identity = args.identity.open("operator")?;
    let env = Env::plain();
    let operator = Operator::new(&env, identity.keys.clone(), &identity.network)?;
    let nodes = chosen(&identity.network, &identity.names, args.node.as_deref())?;
    let answers = ask(&operator, &nodes).await;
    let refused = answers.iter().map(|answer| answer.said.as_ref().err());
    if let Some(why) = operator.is_none(refused) {
        return Err(Failed::new(Exit::Refused, why));
    }
    let problems = problems(&identity.network, &identity.names, &answers);
    match args.output {
        Output::Text => {
            for line in lines(&identity.names, &answers, &problems, wall_ms()) {
                say!("{line}");
            }
        }
        Output::Json => say!("{}", document(&identity.names, &answers, &problems)),
    }
    Ok(exit(&answers))
}

/// Asks all at once.
pub async fn ask(operator: &Operator, nodes: &[&NodeEntry]) -> Vec<Answer> {
    let asked = nodes.iter().map(|node| async {
        match operator.link(node).await {
            Ok(link) => Answer {
                node: link.node.clone(),
                said: link.ask(Status {}).await,
            },
            Err(error) => Answer {
                node: (*node).clone(),
                said: Err(error),
            },
        }
    });
    join_all(asked).await
}

/// One node's account.
pub async fn ask_status(operator: &Operator, node: &NodeEntry) -> Result<StatusReport, NoAnswer> {
    operator.link(node).await?.ask(Status {}).await
}

/// The worst of all answers.
fn exit(answers: &[Answer]) -> Exit {
    let exits = answers.iter().map(|answer| match &answer.said {
        Ok(report) if report.problems.is_empty() => Exit::Ok,
        Ok(_) => Exit::Unhealthy,
        Err(error) => error.exit(),
    });
    exits.max_by_key(|exit| *exit as u8).unwrap_or(Exit::Ok)
}

/// Whether a node was just started and waits for links that it has not had yet: no problem so far.
pub fn is_starting(answer: &Answer) -> bool {
    let counters = answer.said.iter().flat_map(|report| &report.counters);
    counters
        .into_iter()
        .any(|(name, value)| name == AWAITED && *value > 0)
}

/// What a node is called.
fn called(names: &Names, node: &NodeEntry) -> String {
    names.full(&node.id)
}
