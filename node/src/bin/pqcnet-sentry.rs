//! `pqcnet-sentry`: takes clients in and carries their messages to the relayers.

use std::process::ExitCode;

fn main() -> ExitCode {
    pqcnet_node::service::main("pqcnet-sentry", pqcnet_node::Role::Sentry)
}
