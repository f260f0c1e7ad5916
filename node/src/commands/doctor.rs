//! `pqcnet doctor`: checks a node and its surroundings without starting it; each failure comes with its remedy.

use std::path::PathBuf;

use clap::Args;
use pqcnet_actor::Env;
use pqcnet_messages::Role;
use serde_json::json;

use super::status::Output;
use crate::doctor::{Check, Group, Patient, State, examine};
use crate::exit::{Exit, Failed};

/// What to examine.
#[derive(Debug, Args)]
pub struct DoctorArgs {
    /// The node's configuration.
    #[arg(default_value = "node.toml")]
    file: PathBuf,
    /// Over file and environment: key=value.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// What the node is to be; without it, what the network file grants its keys.
    #[arg(long, value_parser = ["sentry", "relayer"])]
    role: Option<String>,
    /// How to print.
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
}

/// `pqcnet doctor`: 0 if every check passes or is skipped, 3 if one fails.
pub async fn doctor(args: &DoctorArgs) -> Result<Exit, Failed> {
    let patient = Patient {
        file: Some(args.file.clone()),
        set: args.set.clone(),
        role: match args.role.as_deref() {
            Some("sentry") => Some(Role::Sentry),
            Some("relayer") => Some(Role::Relayer),
            _ => None,
        },
    };
    let checks = examine(&Env::plain(), &patient).await;
    let failed = checks
        .iter()
        .filter(|check| check.state == State::Failed)
        .count();
    match args.output {
        Output::Text => print_text(&checks, failed),
        Output::Json => say!("{}", json!({ "healthy": failed == 0, "checks": checks })),
    }
    Ok(if failed == 0 {
        Exit::Ok
    } else {
        Exit::Unhealthy
    })
}

fn print_text(checks: &[Check], failed: usize) {
    let mut group: Option<Group> = None;
    for check in checks {
        if group != Some(check.group) {
            say!("{}", check.group.name());
            group = Some(check.group);
        }
        match check.state {
            State::Ok => say!("  ok    {}", check.what),
            State::Skipped => say!("  -     {}", check.what),
            State::Failed => {
                say!("  FAIL  {}  {}", check.code, check.what);
                say!("        fix  {}", check.fix);
            }
        }
    }
    let passed = checks
        .iter()
        .filter(|check| check.state == State::Ok)
        .count();
    say!(
        "\n{passed} passed, {failed} failed, {} skipped",
        checks.len() - passed - failed
    );
}
