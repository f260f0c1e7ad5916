//! An operator's link to one node: dials its data plane, says `operator`, asks the `control` service.
//!
//! Every failure names the step at which it happened: the way there, the puzzle, the key agreement, the signatures, the role,
//! or the data on the link.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use pqcnet_actor::{AskError, Env, Message};
use pqcnet_crypto::{NodeId, NodeKeys};
use pqcnet_link::{Addressed, DownReason, LinkConfig, Reason, ServiceId, Wire};
use pqcnet_mesh::Standings;
use pqcnet_mesh::core::directives::Directives;
use pqcnet_messages::{PullDirectives, Role};
use pqcnet_p2p::handshake::{Account, HandshakeFailed, Plane, Secured, Security, SecurityConfig};
use pqcnet_p2p::network::{Address, NetworkFile, NodeEntry};
use pqcnet_p2p::streams::{BoxStream, Streams as _, TcpStreams};
use pqcnet_p2p::typed::{Bindings, LinkHandle, RoleRefused, establish};
use pqcnet_qstp::{HandshakeError, Reason as Fault, Stage};
use serde::Serialize;

use crate::exit::{Exit, Failed};

/// A node that does not answer within this is not reachable for a person.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);
/// A connection that is not there by then meets a firewall that says nothing.
const CONNECT_WITHIN: Duration = Duration::from_secs(5);

/// What has to work for an answer, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Step {
    /// An address, and a TCP connection to it.
    Route,
    /// The puzzle that a node under load asks for.
    Retry,
    /// The offer and the key agreement.
    Kem,
    /// Who answers: both signatures and the identity.
    Signature,
    /// What each side may be: Hello.
    Role,
    /// A message and its answer on the link.
    Data,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Step::Route => "route",
            Step::Retry => "retry",
            Step::Kem => "KEM",
            Step::Signature => "signature",
            Step::Role => "role",
            Step::Data => "data",
        })
    }
}

/// How long each step took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Timings {
    /// To connect.
    pub route: Duration,
    /// Zero when no puzzle was asked for.
    pub retry: Duration,
    /// Our first message to the peer's answer.
    pub kem: Duration,
    /// Verifying and signing.
    pub signature: Duration,
    /// Hello both ways.
    pub role: Duration,
}

/// Why a node gave no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{} at the step {step}: {why}", if *.refused { "refused" } else { "unreachable" })]
pub struct NoAnswer {
    /// Where it ended.
    pub step: Step,
    /// Somebody answered and said no, or is somebody else; otherwise nobody answered, or not in time.
    pub refused: bool,
    /// In words.
    pub why: String,
    /// What the handshake's protocol says.
    pub fault: Option<Fault>,
}

impl NoAnswer {
    /// The exit code that says so.
    pub fn exit(&self) -> Exit {
        if self.refused {
            Exit::Refused
        } else {
            Exit::Unreachable
        }
    }

    fn unreachable(step: Step, why: impl fmt::Display) -> NoAnswer {
        NoAnswer {
            step,
            refused: false,
            why: why.to_string(),
            fault: None,
        }
    }

    fn refused(step: Step, why: impl fmt::Display) -> NoAnswer {
        NoAnswer {
            refused: true,
            ..NoAnswer::unreachable(step, why)
        }
    }
}

impl From<NoAnswer> for Failed {
    fn from(error: NoAnswer) -> Failed {
        Failed::new(error.exit(), error)
    }
}

/// Asks for directives of one node: more than a table has room for.
const MAX_PULLS: usize = 64;

/// Dials nodes of one network as an operator.
#[derive(Clone)]
pub struct Operator {
    env: Env,
    security: Arc<Security>,
    network: Arc<NetworkFile>,
    /// Whose the keys are, if the network file does not list an operator by them.
    no_operator: Option<NoOperator>,
}

/// Keys that the network file names no operator by; whoever gave them erred, unless the root granted them the role since.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{}; nodes answer this to operators only: use an operator's keys, --keys operator.keys, \
         and in a network of `pqcnet up` no --as",
    whose(id, roles)
)]
pub struct NoOperator {
    /// Whose keys.
    pub id: NodeId,
    /// What else they are listed as.
    pub roles: BTreeSet<Role>,
}

fn whose(id: &NodeId, roles: &BTreeSet<Role>) -> String {
    let names: Vec<&str> = roles.iter().map(|role| role.name()).collect();
    match names.is_empty() {
        true => format!(
            "the network file does not list these keys ({}), as it need not list a client's",
            id.short()
        ),
        false => format!("these keys ({}) are a {}'s", id.short(), names.join("+")),
    }
}

/// A link to one node.
pub struct NodeLink {
    /// The node as the network file has it, under the identity that it has now.
    pub node: NodeEntry,
    link: LinkHandle,
    /// What its handshake cost.
    pub handshake: Account,
    /// How long each step took.
    pub timings: Timings,
    /// The address that answered.
    pub at: Address,
}

/// A proven stream to one node, without a link on it.
pub struct Reached {
    /// The stream and what it cost.
    pub secured: Secured<BoxStream>,
    /// How long connecting took.
    pub route: Duration,
    /// The address that answered.
    pub at: Address,
}

impl Operator {
    /// An operator with these keys; the network must list them as such.
    pub fn new(env: &Env, keys: Arc<NodeKeys>, network: &NetworkFile) -> Result<Operator, Failed> {
        let id = keys.node_id();
        let no_operator = (!network.grants(&id, Role::Operator)).then(|| NoOperator {
            id,
            roles: network.roles_of(&id),
        });
        let config = SecurityConfig::new(keys, network.network_id());
        let security = Security::new(env.clone(), config).map_err(|error| {
            Failed::from(anyhow::anyhow!("no handshake configuration: {error}"))
        })?;
        Ok(Operator {
            env: env.clone(),
            security,
            network: Arc::new(network.clone()),
            no_operator,
        })
    }

    /// What is wrong with the keys, where all nodes refused them their role: then none of the nodes is at fault.
    pub fn is_none<'a>(
        &self,
        mut refused: impl Iterator<Item = Option<&'a NoAnswer>>,
    ) -> Option<NoOperator> {
        let by_role = |error: Option<&NoAnswer>| {
            error.is_some_and(|error| error.refused && error.step == Step::Role)
        };
        let why = self.no_operator.clone()?;
        refused.all(by_role).then_some(why)
    }

    /// Links to a node, or to whoever succeeded it by the root's order.
    pub async fn link(&self, node: &NodeEntry) -> Result<NodeLink, NoAnswer> {
        let error = match self.link_to(node).await {
            Ok(link) => return Ok(link),
            Err(error) => error,
        };
        let Some(Fault::Identity { got: Some(got), .. }) = error.fault else {
            return Err(error);
        };
        match self.heir(node, got).await {
            Some(link) => Ok(link),
            None => Err(error),
        }
    }

    /// A link to the node that answers in another one's place, if it shows the root's word that it succeeded that one. The
    /// network file does not say so, and never will: its hash is the network's id.
    async fn heir(&self, node: &NodeEntry, got: NodeId) -> Option<NodeLink> {
        let heir = NodeEntry {
            id: got,
            ..node.clone()
        };
        let link = self.link_to(&heir).await.ok()?;
        let mut table = Directives::default();
        for _ in 0..MAX_PULLS {
            let ask = PullDirectives { have: table.have() };
            let pulled = link.ask(ask).await.ok()?.ok()?;
            for signed in pulled.items {
                let root = self.network.root();
                signed.verify(&self.network.network_id().0, root).ok()?;
                table.take(signed).ok()?;
            }
            if !pulled.more {
                break;
            }
        }
        let directives = table.iter().map(|signed| &signed.directive);
        let standings = Standings::new(self.network.clone(), directives);
        let succeeds =
            standings.successor(node.id) == got && standings.valid(got, self.env.wall_ms()).is_ok();
        succeeds.then_some(link)
    }

    /// Links to this node and no other.
    async fn link_to(&self, node: &NodeEntry) -> Result<NodeLink, NoAnswer> {
        let Reached { secured, route, at } = self.reach(node).await?;
        let steps = secured.account.steps;
        let config = LinkConfig::new(Role::Operator, [ServiceId::CONTROL]);
        let wanted = node.roles.clone();
        let began = self.env.now();
        let check = move |_, hello: &pqcnet_link::PeerHello| {
            if wanted.contains(&hello.role) {
                return Ok(());
            }
            Err(RoleRefused::new(format!("not listed as a {}", hello.role)))
        };
        let accepted = establish(&self.env, secured.stream, node.id, config, check)
            .await
            .map_err(|error| match error.reason.reason() {
                Some(Reason::Role) => match &self.no_operator {
                    Some(why) => NoAnswer::refused(Step::Role, format!("{error}: {why}")),
                    None => NoAnswer::refused(Step::Role, error),
                },
                Some(Reason::Version) => NoAnswer::refused(Step::Role, error),
                _ if matches!(error.reason, DownReason::Lost { .. }) => {
                    NoAnswer::unreachable(Step::Role, error)
                }
                _ => NoAnswer::refused(Step::Role, error),
            })?;
        Ok(NodeLink {
            node: node.clone(),
            link: accepted.start(Bindings::new()),
            handshake: secured.account,
            timings: Timings {
                route,
                retry: steps.retry,
                kem: steps.kem,
                signature: steps.signature,
                role: self.env.now().saturating_sub(began),
            },
            at,
        })
    }

    /// Proves that a node answers at one of its addresses.
    pub async fn reach(&self, node: &NodeEntry) -> Result<Reached, NoAnswer> {
        let mut last =
            NoAnswer::unreachable(Step::Route, "network.toml has no data address for it");
        for at in &node.data {
            match self.reach_at(node, at).await {
                Ok(reached) => return Ok(reached),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    async fn reach_at(&self, node: &NodeEntry, at: &Address) -> Result<Reached, NoAnswer> {
        let began = self.env.now();
        let stream = connect(at).await?;
        let route = self.env.now().saturating_sub(began);
        let handshake = self.security.initiate(stream, node.id, Plane::Data);
        let secured = match self.security.before_deadline(handshake).await {
            Ok(Ok(secured)) => secured,
            Ok(Err(failed)) | Err(failed) => return Err(no_handshake(at, &failed)),
        };
        let at = at.clone();
        Ok(Reached { secured, route, at })
    }
}

/// A TCP connection, in time.
pub async fn connect(at: &Address) -> Result<BoxStream, NoAnswer> {
    match tokio::time::timeout(CONNECT_WITHIN, TcpStreams.dial(at)).await {
        Ok(Ok(stream)) => Ok(stream),
        Ok(Err(error)) => {
            let why = format!("cannot connect to {at}: {error}");
            Err(NoAnswer::unreachable(Step::Route, why))
        }
        Err(_) => {
            let why = format!("no connection to {at} within {CONNECT_WITHIN:?}");
            Err(NoAnswer::unreachable(Step::Route, why))
        }
    }
}

fn no_handshake(at: &Address, failed: &HandshakeFailed) -> NoAnswer {
    let why = format!("{at}: {failed}");
    match failed {
        HandshakeFailed::Protocol(error) => NoAnswer {
            fault: Some(error.reason),
            ..NoAnswer::refused(step_of(error), why)
        },
        // Our side waits for the peer only between its first message and the answer to it.
        HandshakeFailed::Io { .. } | HandshakeFailed::Deadline(_) => {
            NoAnswer::unreachable(Step::Kem, why)
        }
        HandshakeFailed::Refused(_) | HandshakeFailed::Pool(_) => NoAnswer::refused(Step::Kem, why),
    }
}

fn step_of(error: &HandshakeError) -> Step {
    match (error.reason, error.stage) {
        (Fault::Identity { .. } | Fault::BadSignature | Fault::SelfConnect, _) => Step::Signature,
        (_, Stage::M1 | Stage::M2) => Step::Kem,
        (_, Stage::Retry) => Step::Retry,
        (_, Stage::M3) => Step::Signature,
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
                AskError::Refused(why) => NoAnswer::refused(Step::Data, why),
                other => NoAnswer::unreachable(Step::Data, other),
            })
    }
}
