//! `pqcnet keys revoke`, `keys succeed`, `root grant`, `root shards` and `root submit`: directives, signed with the network's root key and handed to a running node,
//! which keeps them and passes them on.

use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::Args;
use pqcnet_actor::Env;
use pqcnet_crypto::{MlDsaKeyPair, NodeId};
use pqcnet_link::Wire as _;
use pqcnet_messages::{
    Directive, MAX_REASON, Order, Role, ShardMap, SignedDirective, SubmitDirective, Submitted,
};
use pqcnet_p2p::network::NetworkFile;

use super::{UnlockArgs, days};
use crate::clock::wall_ms;
use crate::commands::identity::IdentityArgs;
use crate::commands::nodes::{Names, chosen};
use crate::config::UnlockSource;
use crate::exit::{Exit, Failed};
use crate::operator::{NoAnswer, Operator};
use crate::succession::{MAX_REQUEST, Succession};
use crate::unlock::Opener;

/// Largest file of a directive: a shard map of 4,096 shards and 1,024 owners is half of it.
const MAX_DIRECTIVE: u64 = 128 * 1024;

/// Who signs, and where the directive goes.
#[derive(Debug, Args)]
struct Root {
    /// The network's root key; in a folder made by `pqcnet up`, its own.
    #[arg(long = "root", value_name = "FILE")]
    path: Option<PathBuf>,
    /// A file with the root key's passphrase, mode 0600.
    #[arg(long, conflicts_with = "root_key_file", requires = "path")]
    root_passphrase_file: Option<PathBuf>,
    /// A file of 32 random bytes that opens the root key.
    #[arg(long, requires = "path")]
    root_key_file: Option<PathBuf>,
    /// Write the directive here, a new file, instead of handing it to a node: for a root key on a machine without a network.
    #[arg(long, value_name = "FILE", conflicts_with = "to")]
    out: Option<PathBuf>,
    /// Hand it to this node: a name, or the beginning of an id. Otherwise to the first that answers.
    #[arg(long, value_name = "NODE")]
    to: Option<String>,
    #[command(flatten)]
    who: IdentityArgs,
}

/// Whom to revoke.
#[derive(Debug, Args)]
pub struct Revoke {
    /// The node: its whole id, 64 digits.
    node: NodeId,
    /// Why, for people: at most 128 printable characters.
    #[arg(long, value_parser = reason)]
    reason: String,
    #[command(flatten)]
    root: Root,
}

/// Whom to let succeed.
#[derive(Debug, Args)]
pub struct Succeed {
    /// What `keys rotate identity` wrote.
    #[arg(long, value_name = "FILE", default_value = "succession.toml")]
    request: PathBuf,
    /// How many days both identities hold.
    #[arg(long, value_name = "DAYS", default_value = "30", value_parser = days)]
    overlap: u64,
    #[command(flatten)]
    root: Root,
}

/// Who may be what from now on.
#[derive(Debug, Args)]
pub struct Grant {
    /// The node: its whole id, 64 digits.
    node: NodeId,
    /// A role that it has, once for each; none takes all away. Whatever the network file says of it counts no more.
    #[arg(long = "role", value_name = "ROLE")]
    roles: Vec<Role>,
    /// How many days it holds; 0 is without end.
    #[arg(long, value_name = "DAYS", default_value = "365", value_parser = clap::value_parser!(u16))]
    lease: u16,
    #[command(flatten)]
    root: Root,
}

/// Which relayers have the shards from now on.
#[derive(Debug, Args)]
pub struct Shards {
    /// A relayer that has none any more: a name, or the beginning of an id. Once for each; the others have them.
    #[arg(long, value_name = "NODE", conflicts_with = "among")]
    without: Vec<String>,
    /// Instead: a relayer that has some, once for each, and nobody else. Neither: as the network file has it.
    #[arg(long, value_name = "NODE")]
    among: Vec<String>,
    /// How many days it holds; 0 is without end. After them nobody stores anything until the root signs the next.
    #[arg(long, value_name = "DAYS", default_value = "0", value_parser = clap::value_parser!(u16))]
    lease: u16,
    #[command(flatten)]
    root: Root,
}

/// A directive that was written down.
#[derive(Debug, Args)]
pub struct Submit {
    /// What `--out` wrote.
    directive: PathBuf,
    /// Hand it to this node: a name, or the beginning of an id. Otherwise to the first that answers.
    #[arg(long, value_name = "NODE")]
    to: Option<String>,
    #[command(flatten)]
    who: IdentityArgs,
}

/// Grants roles.
pub async fn grant(args: &Grant) -> Result<Exit, Failed> {
    let order = Order::GrantRole {
        node: args.node,
        roles: args.roles.iter().copied().collect(),
    };
    let lease_ms = u64::from(args.lease) * super::DAY_MS;
    args.root.give_for(order, lease_ms, wall_ms()).await
}

/// Gives the shards out.
pub async fn shards(args: &Shards) -> Result<Exit, Failed> {
    let network = args.root.network()?;
    let names = args.root.who.names();
    let now_ms = wall_ms();
    let map = given_out(&network, &names, args, now_ms)?;
    let lease_ms = u64::from(args.lease) * super::DAY_MS;
    let order = Order::ShardMap(map.clone());
    let exit = args.root.give_for(order, lease_ms, now_ms).await?;
    for relayer in network.relayers() {
        let shards: Vec<String> = map.owned_by(relayer.id).map(|s| s.to_string()).collect();
        let shards = match shards.is_empty() {
            true => "none".to_owned(),
            false => shards.join(" "),
        };
        eprintln!("{}: shards {shards}", names.full(&relayer.id));
    }
    Ok(exit)
}

/// The network file's map, with the relayers that are meant.
fn given_out(
    network: &NetworkFile,
    names: &Names,
    args: &Shards,
    version: u64,
) -> Result<ShardMap, Failed> {
    let relayers: Vec<NodeId> = network.relayers().into_iter().map(|node| node.id).collect();
    let meant = |wanted: &[String]| {
        let one = |wanted: &String| one_of(&relayers, names, wanted);
        wanted.iter().map(one).collect::<Result<Vec<_>, _>>()
    };
    let (without, among) = (meant(&args.without)?, meant(&args.among)?);
    let has = |relayer: &NodeId| {
        !without.contains(relayer) && (among.is_empty() || among.contains(relayer))
    };
    let first = ShardMap::from_relayers(network.shards(), relayers.iter().copied());
    let map = first.and_then(|first| first.among(version, relayers.iter().copied().filter(has)));
    map.map_err(|error| Failed::usage(anyhow::anyhow!("nobody would have the shards: {error}")))
}

/// The one relayer that a name or the beginning of an id means.
fn one_of(relayers: &[NodeId], names: &Names, wanted: &str) -> Result<NodeId, Failed> {
    let called = |id: &&NodeId| names.name(id) == Some(wanted);
    let begins = |id: &&NodeId| id.to_string().starts_with(wanted);
    if let Some(id) = relayers.iter().find(called) {
        return Ok(*id);
    }
    let meant: Vec<&NodeId> = relayers.iter().filter(begins).collect();
    match meant[..] {
        [id] => Ok(*id),
        [] => {
            let known: Vec<String> = relayers.iter().map(|id| names.full(id)).collect();
            Err(Failed::usage(anyhow::anyhow!(
                "no relayer of the network file is called `{wanted}` and no id of one begins with it; relayers: {}",
                known.join(", ")
            )))
        }
        [..] => Err(Failed::usage(anyhow::anyhow!(
            "ids of {} relayers begin with `{wanted}`: give more of it",
            meant.len()
        ))),
    }
}

/// Hands a directive in that was signed elsewhere. The node looks at its signature, too, but not at that of one it says it has.
pub async fn submit(args: &Submit) -> Result<Exit, Failed> {
    let path = args.directive.display();
    let failed = |error: &dyn std::fmt::Display| Failed::usage(anyhow::anyhow!("{path}: {error}"));
    let file = std::fs::File::open(&args.directive).map_err(|error| failed(&error))?;
    let mut bytes = Vec::new();
    file.take(MAX_DIRECTIVE)
        .read_to_end(&mut bytes)
        .map_err(|error| failed(&error))?;
    let signed = SignedDirective::from_wire(bytes.into())
        .map_err(|error| failed(&format!("not a directive: {error}")))?;
    let network = NetworkFile::load(&args.who.network_path()?).map_err(Failed::usage)?;
    let verified = signed.verify(&network.network_id().0, network.root());
    verified.map_err(|error| failed(&format!("{error} (network {})", network.name())))?;
    eprintln!("{}", signed.directive);
    hand_in(&args.who, args.to.as_deref(), signed).await
}

fn reason(text: &str) -> Result<String, String> {
    let printable = text.bytes().all(|byte| (b' '..=b'~').contains(&byte));
    if printable && (1..=MAX_REASON).contains(&text.len()) {
        return Ok(text.to_owned());
    }
    Err(format!("1 to {MAX_REASON} printable ASCII characters"))
}

/// Revokes a node.
pub async fn revoke(args: &Revoke) -> Result<Exit, Failed> {
    let order = Order::Revoke {
        node: args.node,
        reason: args.reason.clone(),
    };
    args.root.give(order).await
}

/// Lets a prepared identity succeed.
pub async fn succeed(args: &Succeed) -> Result<Exit, Failed> {
    let request = Succession::parse(&text_of(&args.request)?).map_err(Failed::usage)?;
    let network = args.root.network()?;
    let verified = request.verify(&network.network_id().0);
    verified.map_err(Failed::usage)?;
    let order = Order::Succeed {
        old: request.old_id(),
        new: request.new.clone(),
        overlap_until_ms: wall_ms().saturating_add(args.overlap),
    };
    args.root.give(order).await
}

fn text_of(path: &Path) -> Result<String, Failed> {
    let failed =
        |error: std::io::Error| Failed::usage(anyhow::anyhow!("{}: {error}", path.display()));
    let file = std::fs::File::open(path).map_err(failed)?;
    let mut text = String::new();
    file.take(MAX_REQUEST as u64 + 1)
        .read_to_string(&mut text)
        .map_err(failed)?;
    Ok(text)
}

impl Root {
    fn network(&self) -> Result<NetworkFile, Failed> {
        NetworkFile::load(&self.who.network_path()?).map_err(Failed::usage)
    }

    /// The root key's file and what opens it.
    fn key(&self) -> Result<(PathBuf, UnlockSource), Failed> {
        if let Some(path) = &self.path {
            let unlock = UnlockArgs {
                passphrase_file: self.root_passphrase_file.clone(),
                key_file: self.root_key_file.clone(),
            };
            return Ok((path.clone(), unlock.source()));
        }
        self.who.root_key()?.ok_or_else(|| {
            Failed::usage(anyhow::anyhow!("name the network's root key with --root"))
        })
    }

    /// As [`Root::give_for`], without end.
    async fn give(&self, order: Order) -> Result<Exit, Failed> {
        self.give_for(order, 0, wall_ms()).await
    }

    /// Signs the order as of now, and hands it in or writes it down.
    async fn give_for(&self, order: Order, lease_ms: u64, now_ms: u64) -> Result<Exit, Failed> {
        let network = self.network()?;
        let (path, unlock) = self.key()?;
        let opener = Opener::from_source(&unlock)
            .with_context(|| {
                format!(
                    "the root key in {} stays closed (--root-passphrase-file, --root-key-file)",
                    path.display()
                )
            })
            .map_err(Failed::usage)?;
        let root: MlDsaKeyPair = opener.open(&path).map_err(Failed::usage)?;
        let signed = sign(&root, &network, order, lease_ms, now_ms)?;
        eprintln!("{}", signed.directive);
        match &self.out {
            Some(out) => {
                // Never over another file: one slip, and it was the root key.
                let written = std::fs::File::create_new(out)
                    .and_then(|mut file| file.write_all(&signed.to_wire()));
                written.map_err(|error| {
                    Failed::usage(anyhow::anyhow!("{}: {error}", out.display()))
                })?;
                eprintln!("wrote {}; nobody was told", out.display());
                Ok(Exit::Ok)
            }
            None => hand_in(&self.who, self.to.as_deref(), signed).await,
        }
    }
}

/// To the first node that takes it, or to the one that was named.
async fn hand_in(
    who: &IdentityArgs,
    to: Option<&str>,
    directive: SignedDirective,
) -> Result<Exit, Failed> {
    let identity = who.open("operator")?;
    let network = &identity.network;
    let operator = Operator::new(&Env::plain(), identity.keys.clone(), network)?;
    let names: &Names = &identity.names;
    let mut last: Option<NoAnswer> = None;
    for node in chosen(network, names, to)? {
        let submit = SubmitDirective {
            directive: directive.clone(),
        };
        let answer = match operator.link(node).await {
            Ok(link) => link.ask(submit).await,
            Err(error) => Err(error),
        };
        let name = names.full(&node.id);
        match answer {
            Ok(Ok(submitted @ (Submitted::Applied | Submitted::Known))) => {
                match submitted {
                    Submitted::Known => say!("{name} had it already"),
                    _ => say!("{name} has it and passes it on"),
                }
                return Ok(Exit::Ok);
            }
            Ok(Ok(Submitted::Superseded)) => {
                let why = "a younger directive about the same subject is there already";
                return Err(Failed::new(Exit::Refused, anyhow::anyhow!("{name}: {why}")));
            }
            Ok(Err(refusal)) => {
                return Err(Failed::new(
                    Exit::Refused,
                    anyhow::anyhow!("{name} refused the directive: {refusal}"),
                ));
            }
            Err(error) => {
                eprintln!("{name}: {error}");
                last = Some(error);
            }
        }
    }
    Err(last.map_or_else(
        || Failed::usage(anyhow::anyhow!("no node to hand the directive to")),
        Failed::from,
    ))
}

/// The root's clock is the version: each order about a subject is younger than the one before.
fn sign(
    root: &MlDsaKeyPair,
    network: &NetworkFile,
    order: Order,
    lease_ms: u64,
    now_ms: u64,
) -> Result<SignedDirective, Failed> {
    if root.public() != network.root() {
        return Err(Failed::usage(anyhow::anyhow!(
            "this is not the root key of network {}: nobody would take the directive",
            network.name()
        )));
    }
    let directive = Directive {
        network_id: network.network_id().0,
        version: now_ms,
        issued_at_ms: now_ms,
        lease_ms,
        order,
    };
    directive.sign(root).map_err(Failed::usage)
}

#[cfg(test)]
mod tests {
    // Scenario: a revocation signed for a local network verifies there; another root's is refused before anybody is asked;
    // reasons that nobody could read are refused by the command line.
    use super::*;
    use crate::local::folder::LocalFolder;

    #[test]
    fn orders_are_signed_by_the_networks_root() {
        let place = tempfile::tempdir().unwrap();
        let state = place.path().join("net");
        let folder = LocalFolder::create(&state, 1).unwrap();
        let network = folder.network();
        let opener = Opener::from_source(&folder.unlock()).unwrap();
        let root: MlDsaKeyPair = opener.open(&state.join("root.keys")).unwrap();
        let node = network.nodes()[0].id;
        let order = || Order::Revoke {
            node,
            reason: "stolen".to_owned(),
        };
        let signed = sign(&root, network, order(), 0, 1_800_000_000_000).unwrap();
        assert_eq!(
            signed.verify(&network.network_id().0, network.root()),
            Ok(())
        );
        assert_eq!(signed.directive.version, 1_800_000_000_000);
        let other = sign(&MlDsaKeyPair::generate(), network, order(), 0, 1).unwrap_err();
        assert_eq!(other.exit, Exit::Usage);
        assert!(other.to_string().contains("not the root key"), "{other}");
    }

    #[test]
    fn reasons_are_printable() {
        assert_eq!(reason("disk stolen"), Ok("disk stolen".to_owned()));
        for text in ["", "\u{7}", "größer", &"x".repeat(MAX_REASON + 1)] {
            assert!(reason(text).unwrap_err().contains("128"), "{text}");
        }
    }
}
