//! `pqcnet-relayer`: keeps shards of channels: stores, acknowledges, delivers.

use std::process::ExitCode;

fn main() -> ExitCode {
    pqcnet_node::service::main("pqcnet-relayer", pqcnet_node::Role::Relayer)
}
