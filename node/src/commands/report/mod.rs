//! `pqcnet report`: what a relayer carried, for whom, and what receivers signed for. Spec: docs/spec/metering.md.

mod document;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use clap::{Args, Subcommand};
use pqcnet_crypto::NodeId;
use pqcnet_link::Wire as _;
use pqcnet_messages::metering::Volume;
use pqcnet_messages::{Order, Role, SignedDirective};
use pqcnet_meter::core::report::{Account, MAX_BYTES, Report, account};
use pqcnet_meter::core::verify::{Fault, GrantFault, Trust, verify};
use pqcnet_p2p::network::NetworkFile;

use super::identity::STATE;
use super::status::Output;
use super::ui::address;
use crate::exit::{Exit, Failed};
use crate::local::folder::LocalFolder;

pub use document::{RelayerPerformanceReport, document};

/// What to do with a report.
#[derive(Debug, Subcommand)]
pub enum ReportCommand {
    /// Have a running relayer close its window and sign a report.
    Create(CreateArgs),
    /// Print what a report says, without judging it.
    Show(ShowArgs),
    /// Judge a report with nothing but the network file, and the root's word on who succeeded whom: 0 if it stands; 5 if not, naming the first thing that is wrong.
    Verify(VerifyArgs),
}

/// Of whom, and over what.
#[derive(Debug, Args)]
pub struct CreateArgs {
    /// A relayer of the local network (`relayer-1`).
    #[arg(required_unless_present = "config", conflicts_with = "config")]
    node: Option<String>,
    /// The relayer's configuration, instead of the local network; its page's file is read.
    #[arg(long, short)]
    config: Option<PathBuf>,
    /// The local network's folder.
    #[arg(long, env = "PQCNET_STATE", default_value = STATE)]
    state: PathBuf,
    /// First window; without it, the oldest that is kept.
    #[arg(long)]
    from: Option<u64>,
    /// Last window; without it, one that is closed for this report.
    #[arg(long)]
    to: Option<u64>,
    /// Where the report goes; nothing is overwritten.
    #[arg(long, short = 'f')]
    out: PathBuf,
}

/// Which report.
#[derive(Debug, Args)]
pub struct ShowArgs {
    /// The report.
    file: PathBuf,
    /// How to print.
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
}

/// Successions that are followed from one identity back, as nodes do.
const MAX_SUCCESSIONS: usize = 24;
/// A succession has less than 8 KiB.
const MAX_DIRECTIVE: u64 = 128 * 1024;

/// Which report, in which network.
#[derive(Debug, Args)]
pub struct VerifyArgs {
    /// The report.
    file: PathBuf,
    /// The network file; without it, the local network's.
    #[arg(long)]
    network: Option<PathBuf>,
    /// A directive of the network's root, by which the relayer, or a sentry that customers' grants name, succeeded a node of the
    /// network file (`pqcnet keys succeed --out FILE` writes it); once for each.
    #[arg(long, value_name = "FILE")]
    directive: Vec<PathBuf>,
    /// The local network's folder.
    #[arg(long, env = "PQCNET_STATE", default_value = STATE)]
    state: PathBuf,
    /// How to print.
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
}

/// Runs it.
pub fn run(command: &ReportCommand) -> Result<Exit, Failed> {
    match command {
        ReportCommand::Create(args) => create(args),
        ReportCommand::Show(args) => show(args),
        ReportCommand::Verify(args) => judge(args),
    }
}

/// A window waits for receipts, and a large report takes a while to be read and hashed.
const ANSWER_WITHIN: Duration = Duration::from_secs(150);

fn create(args: &CreateArgs) -> Result<Exit, Failed> {
    let page = match (&args.config, &args.node) {
        (Some(config), _) => address(config)?,
        (None, Some(name)) => {
            let folder = local(&args.state)?;
            let nodes = folder.nodes()?;
            let node = nodes.iter().find(|node| node.name == *name);
            let node = node.with_context(|| format!("no node {name} in {}", args.state.display()));
            address(&node.map_err(Failed::usage)?.config)?
        }
        (None, None) => return Err(Failed::usage(anyhow::anyhow!("name a relayer"))),
    };
    let (at, token) = page
        .split_once("/ui#")
        .with_context(|| format!("the page's file holds {page:?}, not an address with a token"))?;
    let close = u8::from(args.to.is_none());
    let mut url = format!("{at}/api/v1/metering/report?close={close}");
    for (name, window) in [("from", args.from), ("to", args.to)] {
        if let Some(window) = window {
            url.push_str(&format!("&{name}={window}"));
        }
    }
    let report = fetch(&url, token)?;
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .open(&args.out)
        .with_context(|| format!("cannot make {}", args.out.display()))
        .map_err(Failed::usage)?;
    std::io::Write::write_all(&mut file, &report)
        .and_then(|()| file.sync_all())
        .with_context(|| format!("cannot write {}", args.out.display()))?;
    say!("{}", args.out.display());
    Ok(Exit::Ok)
}

/// What the node answers; its refusals are told in its own words.
fn fetch(url: &str, token: &str) -> Result<Vec<u8>, Failed> {
    let agent: ureq::Agent = ureq::Agent::config_builder()
        .timeout_global(Some(ANSWER_WITHIN))
        .http_status_as_error(false)
        .proxy(None)
        .build()
        .into();
    let asked = agent
        .get(url)
        .header("authorization", format!("Bearer {token}"));
    let answer = asked
        .call()
        .map_err(|error| Failed::new(Exit::Unreachable, anyhow::Error::new(error)))?;
    let status = answer.status();
    let mut body = Vec::new();
    let limit = u64::try_from(MAX_BYTES).unwrap_or(u64::MAX);
    let reader = answer.into_body().into_reader();
    let read = reader.take(limit).read_to_end(&mut body);
    read.context("the node's answer broke off")?;
    if status.is_success() {
        return Ok(body);
    }
    let said = serde_json::from_slice::<serde_json::Value>(&body).ok();
    let said = said.as_ref().and_then(|said| said["what"].as_str());
    let said = said.map_or_else(|| status.to_string(), str::to_owned);
    Err(Failed::new(
        Exit::Refused,
        anyhow::anyhow!("the node says: {said}"),
    ))
}

fn local(state: &Path) -> Result<LocalFolder, Failed> {
    if !LocalFolder::exists(state) {
        return Err(Failed::usage(anyhow::anyhow!(
            "no network in {}: name files instead, or start one with `pqcnet up`",
            state.display()
        )));
    }
    LocalFolder::open(state).map_err(Failed::usage)
}

fn read(path: &Path) -> Result<Vec<u8>, Failed> {
    let failed =
        |error| Failed::usage(anyhow::Error::new(error).context(format!("{}", path.display())));
    let file = fs::File::open(path).map_err(failed)?;
    let limit = u64::try_from(MAX_BYTES).unwrap_or(u64::MAX);
    let mut bytes = Vec::new();
    file.take(limit + 1)
        .read_to_end(&mut bytes)
        .map_err(failed)?;
    if bytes.len() > MAX_BYTES {
        let mib = MAX_BYTES >> 20;
        let error = anyhow::anyhow!("{}: larger than {mib} MiB", path.display());
        return Err(Failed::usage(error));
    }
    Ok(bytes)
}

fn show(args: &ShowArgs) -> Result<Exit, Failed> {
    let bytes = read(&args.file)?;
    let report = Report::read(&bytes).map_err(|malformed| {
        let error = anyhow::Error::new(malformed);
        Failed::new(
            Exit::Refused,
            error.context(args.file.display().to_string()),
        )
    })?;
    let account = account(&report.windows, &report.grants, &report.receipts);
    print(&report, &account, args.output, false)?;
    Ok(Exit::Ok)
}

/// Who is what by the network file, and by what its root signed.
struct Listed<'a> {
    network: &'a NetworkFile,
    /// Whom each identity succeeded.
    elders: BTreeMap<NodeId, NodeId>,
}

impl Listed<'_> {
    /// With the successions in these files.
    fn with<'a>(network: &'a NetworkFile, directives: &[PathBuf]) -> Result<Listed<'a>, Failed> {
        let mut elders = BTreeMap::new();
        for path in directives {
            let wrong = |error: &dyn std::fmt::Display| {
                Failed::usage(anyhow::anyhow!("{}: {error}", path.display()))
            };
            let file = fs::File::open(path).map_err(|error| wrong(&error))?;
            let mut bytes = Vec::new();
            let read = file.take(MAX_DIRECTIVE).read_to_end(&mut bytes);
            read.map_err(|error| wrong(&error))?;
            let signed = SignedDirective::from_wire(bytes.into()).map_err(|error| wrong(&error))?;
            let verdict = signed.verify(&network.network_id().0, network.root());
            verdict.map_err(|error| wrong(&error))?;
            match &signed.directive.order {
                Order::Succeed { old, new, .. } => elders.insert(new.node_id(), *old),
                Order::Revoke { .. } | Order::GrantRole { .. } | Order::ShardMap(_) => {
                    let what = format!("{}: no succession", signed.directive);
                    return Err(wrong(&what));
                }
            };
        }
        Ok(Listed { network, elders })
    }
}

impl Trust for Listed<'_> {
    fn network_id(&self) -> [u8; 32] {
        self.network.network_id().0
    }

    fn is(&self, node: &NodeId, role: Role) -> bool {
        let mut node = node;
        for _ in 0..MAX_SUCCESSIONS {
            match (self.network.node(node), self.elders.get(node)) {
                (Some(entry), _) => return entry.roles.contains(&role),
                (None, Some(elder)) => node = elder,
                (None, None) => return false,
            }
        }
        false
    }
}

fn judge(args: &VerifyArgs) -> Result<Exit, Failed> {
    let path = match &args.network {
        Some(path) => path.clone(),
        None => local(&args.state)?.network_path(),
    };
    let network = NetworkFile::load(&path).map_err(Failed::usage)?;
    let bytes = read(&args.file)?;
    let trust = Listed::with(&network, &args.directive)?;
    let verified = verify(&bytes, &trust).map_err(|fault| {
        let sentry = |fault: &GrantFault| matches!(fault, GrantFault::Sentry(_));
        let unknown = matches!(&fault, Fault::Relayer(_))
            || matches!(&fault, Fault::Grant { fault, .. } if sentry(fault));
        let mut named = args.file.display().to_string();
        if unknown {
            named = format!(
                "{named}: if it succeeded a node of the network file, name the root's directive that says so with --directive"
            );
        }
        Failed::new(Exit::Refused, anyhow::Error::new(fault).context(named))
    })?;
    print(&verified.report, &verified.account, args.output, true)?;
    Ok(Exit::Ok)
}

fn print(report: &Report, account: &Account, output: Output, verified: bool) -> Result<(), Failed> {
    match output {
        Output::Json => {
            let document = document(report, account, verified);
            say!(
                "{}",
                serde_json::to_string(&document).context("the report as JSON")?
            );
        }
        Output::Text => {
            for line in lines(report, account, verified) {
                say!("{line}");
            }
        }
    }
    Ok(())
}

/// A report for people.
pub fn lines(report: &Report, account: &Account, verified: bool) -> Vec<String> {
    let relayer = report.relayer.node_id();
    let mut out = vec![match verified {
        true => format!("the report of relayer {relayer} stands"),
        false => format!("relayer {relayer} says, and nobody has judged it here:"),
    }];
    if let (Some(first), Some(last)) = (report.windows.first(), report.windows.last()) {
        let (from, to) = (first.head.number, last.head.number);
        let sums = &account.sums;
        let percent = sums.up_ms as f64 * 100.0 / sums.span_ms.max(1) as f64;
        out.push(format!(
            "windows {from} to {to}, {} s; up {percent:.1} %, by its own word",
            sums.span_ms / 1000
        ));
    }
    let sums = &account.sums;
    for (what, volume) in [
        ("stored", sums.stored),
        ("  without a grant", sums.stored_ungranted),
        ("delivered", sums.delivered),
        ("  receipted", sums.receipted),
        ("  unreceipted", sums.unreceipted()),
        ("  without a grant", sums.delivered_ungranted),
    ] {
        out.push(format!("{what:<18} {}", amount(volume)));
    }
    let customers: BTreeSet<NodeId> = account.lines.keys().map(|key| key.customer).collect();
    out.push(format!(
        "{} customers, {} grants, {} receipts",
        customers.len(),
        report.grants.len(),
        report.receipts.len()
    ));
    for (key, line) in &account.lines {
        out.push(format!("  {key}: {}", amount(line.volume)));
    }
    out
}

fn amount(volume: Volume) -> String {
    format!("{:>12} messages {:>16} bytes", volume.frames, volume.bytes)
}
