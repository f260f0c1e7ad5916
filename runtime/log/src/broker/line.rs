//! A connection that comes back.

use std::sync::Arc;
use std::time::Duration;

use pqcnet_actor::latest;
use pqcnet_actor::{Env, Pause};
use rand_core::Rng as _;

use super::transport::{BrokerError, Connection, Transport, in_time};

/// Between attempts to connect: the flow is back soon after the broker is.
const RETRY: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(1));
/// Attempts that fail before it is said that the broker is not there; the quick ones take less than a second.
const TRIES: u32 = 3;

/// The present connection, if there is one, and whether connecting has been tried at all.
#[derive(Clone, Default)]
pub(crate) struct Line {
    pub connection: Option<Arc<dyn Connection>>,
    pub tried: bool,
}

/// Keeps a connection up until nobody listens any more.
pub(crate) async fn keep_connected(
    env: Env,
    transport: Arc<dyn Transport>,
    purpose: &'static str,
    line: latest::Sender<Line>,
) {
    let mut pause = Pause::new(RETRY.0, RETRY.1);
    let mut rng = env.rng(&format!("broker {purpose}"));
    let mut failed = 0_u32;
    while !line.is_closed() {
        match in_time(transport.connect(purpose)).await {
            Ok(connection) => {
                pause.reset();
                failed = 0;
                tracing::info!(purpose, "connected to the broker");
                line.send_replace(Line {
                    connection: Some(connection.clone()),
                    tried: true,
                });
                let why = tokio::select! {
                    biased;
                    () = line.closed() => "nobody needs it".to_owned(),
                    why = connection.lost() => why,
                };
                tracing::warn!(purpose, %why, "the connection to the broker is lost");
                line.send_replace(Line {
                    connection: None,
                    tried: true,
                });
            }
            Err(error) => {
                failed = failed.saturating_add(1);
                if failed == TRIES {
                    tracing::warn!(purpose, %error, "no connection to the broker; trying on");
                } else {
                    tracing::debug!(purpose, %error, "no connection to the broker");
                }
                if failed >= TRIES {
                    line.send_if_modified(|line| !std::mem::replace(&mut line.tried, true));
                }
            }
        }
        let wait = pause.next(rng.next_u64());
        tokio::select! {
            biased;
            () = line.closed() => {}
            () = env.sleep(wait) => {}
        }
    }
}

/// The connection, once there is one.
pub(crate) async fn connected(
    line: &mut latest::Receiver<Line>,
) -> Result<Arc<dyn Connection>, BrokerError> {
    let closed = |_| BrokerError::Refused("the log is closed".to_owned());
    let line = line
        .wait_for(|line| line.connection.is_some())
        .await
        .map_err(closed)?;
    let connection = line.connection.clone();
    connection.ok_or_else(|| BrokerError::Refused("not connected".to_owned()))
}
