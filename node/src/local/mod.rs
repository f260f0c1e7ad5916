//! A network on this machine: its folder, its processes, and what `up` and `demo` do with them.
//!
//! ```text
//!   <state>/network.toml  root.keys  unlock.key  client.keys  operator.keys  ...
//!   <state>/sentry-1/     node.toml  node.keys
//!   <state>/relayer-1/    node.toml  node.keys  store/
//! ```

pub mod children;
pub mod folder;
