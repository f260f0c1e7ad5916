//! What a node tells of itself while it runs: its log, and, where a collector is configured, traces and metrics.

use std::sync::Arc;

use anyhow::Context as _;
use futures::FutureExt as _;
use pqcnet_actor::Env;
use pqcnet_crypto::NodeId;
use pqcnet_messages::Role;
use pqcnet_telemetry::logs::{self, LogHandle};
use pqcnet_telemetry::{Otlp, OtlpConfig};

use crate::admin::Pages;
use crate::config::{NodeConfig, TelemetryConfig};
use crate::exit::Failed;

/// Largest file of certificates that is read.
const MAX_AUTHORITIES: u64 = 1 << 20;

/// The process's log and exporter. Clones share them.
#[derive(Clone)]
pub struct Observed {
    /// Changes what is logged.
    pub log: LogHandle,
    exporter: Option<(Arc<Otlp>, TelemetryConfig)>,
}

impl Observed {
    /// Sets both up; once a process.
    pub fn start(role: Role, config: &NodeConfig, node: NodeId) -> Result<Observed, Failed> {
        let exporter = config.telemetry.clone().map(|telemetry| {
            let otlp = exporter(role, &telemetry, node)?;
            Ok::<_, Failed>((Arc::new(otlp), telemetry))
        });
        let exporter = exporter.transpose()?;
        let otlp = exporter.as_ref().map(|(otlp, _)| &**otlp);
        let log = logs::init_with(&config.log_level, config.log_format, otlp);
        let log = log.map_err(Failed::usage)?;
        Ok(Observed { log, exporter })
    }

    /// What the node observes from now on is in what will be sent: to be called before anything is started.
    pub fn follow(&self, env: &Env) {
        if let Some((otlp, _)) = &self.exporter {
            otlp.mirror(env);
        }
    }

    /// From now on traces begin at this node, and its metrics are sent.
    pub fn watch(&self, env: &Env, pages: &Pages) {
        let Some((otlp, config)) = &self.exporter else {
            return;
        };
        env.set_sampling(config.sampling.get());
        pages.source(otlp.samples());
        let pages = pages.clone();
        otlp.push_metrics(env, config.metrics_every, move || {
            let pages = pages.clone();
            async move { pages.samples().await }.boxed()
        });
        let (endpoint, sampling) = (&config.endpoint, &config.sampling);
        tracing::info!(%endpoint, %sampling, "traces and metrics go to a collector");
    }

    /// Sends what waits, then ends. Blocks for some seconds at most: the last thing a process does.
    pub fn stop(&self) {
        if let Some((otlp, _)) = &self.exporter {
            otlp.stop();
        }
    }
}

fn exporter(role: Role, telemetry: &TelemetryConfig, node: NodeId) -> Result<Otlp, Failed> {
    let authorities = telemetry.ca_file.as_ref().map(|path| {
        let read = std::fs::metadata(path).and_then(|about| match about.len() {
            0..=MAX_AUTHORITIES => std::fs::read(path),
            _ => Err(std::io::Error::other(format!(
                "over {MAX_AUTHORITIES} bytes"
            ))),
        });
        read.with_context(|| format!("telemetry.ca_file: {}", path.display()))
    });
    Otlp::start(OtlpConfig {
        endpoint: telemetry.endpoint.clone(),
        authorities: authorities.transpose().map_err(Failed::usage)?,
        service: format!("pqcnet-{role}"),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        instance: node.to_string(),
    })
    .map_err(|error| Failed::usage(anyhow::Error::new(error).context("telemetry")))
}
