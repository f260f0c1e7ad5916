//! An operator's link to one node: dials its data plane, says `operator`, asks the `control` service.

use std::sync::Arc;
use std::time::Duration;

use pqcnet_actor::{AskError, Env, Message};
use pqcnet_crypto::NodeKeys;
use pqcnet_link::{Addressed, DownReason, LinkConfig, Reason, ServiceId, Wire};
use pqcnet_messages::Role;
use pqcnet_p2p::endpoint::{Connected, DialError, Endpoint};
use pqcnet_p2p::handshake::{Account, HandshakeFailed, Security, SecurityConfig};
use pqcnet_p2p::network::{NetworkFile, NodeEntry};
use pqcnet_p2p::streams::TcpStreams;
use pqcnet_p2p::typed::{Bindings, LinkHandle, RoleRefused, establish};

use crate::exit::{Exit, Failed};

/// A node that does not answer within this is not reachable for a person.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);

/// Dials nodes of one network as an operator.
#[derive(Clone)]
pub struct Operator {
    env: Env,
    endpoint: Endpoint,
}

/// A link to one node.
pub struct NodeLink {
    link: LinkHandle,
    /// What its handshake cost.
    pub handshake: Account,
}

/// Why a node gave no answer.
#[derive(Debug, thiserror::Error)]
pub enum NoAnswer {
    /// Nobody is there, or not in time.
    #[error("unreachable: {0}")]
    Unreachable(String),
    /// The node, or somebody at its address, said no.
    #[error("refused: {0}")]
    Refused(String),
}

impl NoAnswer {
    /// The exit code that says so.
    pub fn exit(&self) -> Exit {
        match self {
            NoAnswer::Unreachable(_) => Exit::Unreachable,
            NoAnswer::Refused(_) => Exit::Refused,
        }
    }
}

impl From<NoAnswer> for Failed {
    fn from(error: NoAnswer) -> Failed {
        Failed::new(error.exit(), error)
    }
}

impl Operator {
    /// An operator with these keys; the network must list them as such.
    pub fn new(env: &Env, keys: Arc<NodeKeys>, network: &NetworkFile) -> Result<Operator, Failed> {
        let config = SecurityConfig::new(keys, network.network_id());
        let security = Security::new(env.clone(), config).map_err(|error| {
            Failed::from(anyhow::anyhow!("no handshake configuration: {error}"))
        })?;
        Ok(Operator {
            env: env.clone(),
            endpoint: Endpoint::new(security, Arc::new(TcpStreams)),
        })
    }

    /// Links to a node.
    pub async fn link(&self, node: &NodeEntry) -> Result<NodeLink, NoAnswer> {
        let Connected {
            account, stream, ..
        } = self.dial(node).await?;
        let config = LinkConfig::new(Role::Operator, [ServiceId::CONTROL]);
        let wanted = node.roles.clone();
        let accepted = establish(&self.env, stream, node.id, config, move |_, hello| {
            if wanted.contains(&hello.role) {
                return Ok(());
            }
            Err(RoleRefused::new(format!("not listed as a {}", hello.role)))
        })
        .await
        .map_err(|error| match error.reason.reason() {
            Some(Reason::Role | Reason::Version) => NoAnswer::Refused(error.to_string()),
            _ if matches!(error.reason, DownReason::Lost { .. }) => {
                NoAnswer::Unreachable(error.to_string())
            }
            _ => NoAnswer::Refused(error.to_string()),
        })?;
        Ok(NodeLink {
            link: accepted.start(Bindings::new()),
            handshake: account,
        })
    }

    async fn dial(&self, node: &NodeEntry) -> Result<Connected, NoAnswer> {
        let mut last = NoAnswer::Unreachable("network.toml has no data address for it".to_owned());
        for at in &node.data {
            match self.endpoint.dial(at, node.id).await {
                Ok(connected) => return Ok(connected),
                Err(error) => last = no_answer(&error),
            }
        }
        Err(last)
    }
}

fn no_answer(error: &DialError) -> NoAnswer {
    match error.handshake() {
        None | Some(HandshakeFailed::Io { .. } | HandshakeFailed::Deadline(_)) => {
            NoAnswer::Unreachable(error.to_string())
        }
        Some(_) => NoAnswer::Refused(error.to_string()),
    }
}

impl NodeLink {
    /// Asks the node.
    pub async fn ask<M>(&self, message: M) -> Result<M::Reply, NoAnswer>
    where
        M: Message + Addressed,
        M::Reply: Wire,
    {
        self.link
            .remote::<M>()
            .ask(message, ANSWER_WITHIN)
            .await
            .map_err(|error| match error {
                AskError::Refused(why) => NoAnswer::Refused(why),
                other => NoAnswer::Unreachable(other.to_string()),
            })
    }
}
