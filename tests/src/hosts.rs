//! Hosts in network namespaces of a test's own: a public network, NATs, and hosts behind them.
//!
//! ```text
//!   public host ──┐                          (192.0.2.0/24, a documentation net: RFC 5737)
//!                 ├── bridge ── NAT ── host  (10.n.0.0/24 behind the n-th NAT)
//!   public host ──┘
//! ```
//!
//! A test runs itself once more, in namespaces of its own for network, mounts and processes ([`alone`]): whatever becomes of it, all of
//! that ends with it, and nothing of it can be reached from outside or reach it. Needs root, and Debian's packages
//! `iproute2`, `nftables`, `util-linux` and `mount`.

use std::fs::File;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use nix::sched::{CloneFlags, setns};

use crate::tools::{find, run};

/// Says that a test runs in namespaces of its own; nodes take what begins with `PQCNET_` for theirs.
const ALONE: &str = "TEST_HAS_OWN_NAMESPACES";
/// Where `ip` keeps its namespaces.
const NAMESPACES: &str = "/run/netns";
/// The bridge's.
const PUBLIC: &str = "public";
/// Hosts, and NATs, that a world has room for.
const ROOM: usize = 9;

/// Runs the body of the test `name` of this very program in namespaces of its own, and fails as it does.
pub fn alone(name: &str, body: impl FnOnce() -> Result<()>) -> Result<()> {
    if std::env::var_os(ALONE).is_some() {
        return body();
    }
    let unshare = find("unshare", "util-linux")?;
    for (program, package) in [
        ("ip", "iproute2"),
        ("ss", "iproute2"),
        ("nft", "nftables"),
        ("nsenter", "util-linux"),
        ("mount", "mount"),
    ] {
        find(program, package)?;
    }
    ensure!(
        nix::unistd::geteuid().is_root(),
        "network namespaces need root: run this test as root"
    );
    let own = [
        "--net",
        "--mount",
        "--pid",
        "--fork",
        "--kill-child",
        "--mount-proc",
        "--",
    ];
    let ended = Command::new(unshare)
        .args(own)
        .arg(std::env::current_exe()?)
        .args(["--exact", name, "--nocapture", "--test-threads=1"])
        .env(ALONE, "1")
        .status()?;
    ensure!(
        ended.success(),
        "in its own namespaces, {name} ended with {ended}"
    );
    Ok(())
}

/// What a NAT does with the ports of connections that go out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ports {
    /// Keeps them where it can, whomever the connection is with: what holes need.
    Kept,
    /// Draws one for each connection.
    Drawn,
}

/// A public network with its hosts and NATs.
pub struct World {
    ip: PathBuf,
    hosts: usize,
    nats: usize,
}

/// A host: one address, one namespace.
#[derive(Clone, Debug)]
pub struct Host {
    /// Its namespace.
    pub name: String,
    /// Its own address.
    pub at: Ipv4Addr,
    /// Under which it appears on the public network.
    pub seen_as: Ipv4Addr,
}

impl World {
    /// An empty one. Only in a test that is [`alone`].
    pub fn create() -> Result<World> {
        ensure!(std::env::var_os(ALONE).is_some(), "not without `alone`");
        let mount = find("mount", "mount")?;
        run(&mount, &["-t", "tmpfs", "none", "/run"], "")?;
        std::fs::create_dir(NAMESPACES)?;
        let world = World {
            ip: find("ip", "iproute2")?,
            hosts: 0,
            nats: 0,
        };
        world.namespace(PUBLIC)?;
        world.on(PUBLIC, "link add name bridge type bridge")?;
        world.on(PUBLIC, "link set bridge up")?;
        Ok(world)
    }

    fn ip(&self, words: &str) -> Result<()> {
        let words: Vec<&str> = words.split(' ').collect();
        run(&self.ip, &words, "").map(|_| ())
    }

    /// One of `ip`'s commands, in a namespace.
    fn on(&self, namespace: &str, words: &str) -> Result<()> {
        self.ip(&format!("-n {namespace} {words}"))
    }

    fn namespace(&self, name: &str) -> Result<()> {
        self.ip(&format!("netns add {name}"))?;
        self.on(name, "link set lo up")
    }

    /// Plugs a namespace into the bridge.
    fn plug(&self, namespace: &str, device: &str, at: Ipv4Addr) -> Result<()> {
        let port = format!("to-{namespace}");
        self.on(
            PUBLIC,
            &format!("link add {port} type veth peer name {device} netns {namespace}"),
        )?;
        self.on(PUBLIC, &format!("link set {port} master bridge up"))?;
        self.on(namespace, &format!("addr add {at}/24 dev {device}"))?;
        self.on(namespace, &format!("link set {device} up"))
    }

    /// A host on the public network.
    pub fn host(&mut self) -> Result<Host> {
        ensure!(self.hosts < ROOM, "too many hosts");
        self.hosts += 1;
        let at = Ipv4Addr::new(192, 0, 2, u8::try_from(self.hosts)?);
        let name = format!("host-{}", self.hosts);
        self.namespace(&name)?;
        self.plug(&name, "wan", at)?;
        Ok(Host {
            name,
            at,
            seen_as: at,
        })
    }

    /// A host behind a NAT of its own. The NAT lets in what answers, silently drops the rest, as most do, and passes these
    /// ports on to the host.
    pub fn behind_nat(&mut self, ports: Ports, forwarded: &[u16]) -> Result<Host> {
        ensure!(self.nats < ROOM, "too many NATs");
        self.nats += 1;
        let number = u8::try_from(self.nats)?;
        let (nat, name) = (format!("nat-{number}"), format!("inner-{number}"));
        let (seen_as, at) = (
            Ipv4Addr::new(192, 0, 2, 100 + number),
            Ipv4Addr::new(10, number, 0, 2),
        );
        let gate = Ipv4Addr::new(10, number, 0, 1);
        self.namespace(&nat)?;
        self.namespace(&name)?;
        self.plug(&nat, "wan", seen_as)?;
        self.on(
            &nat,
            &format!("link add lan type veth peer name lan netns {name}"),
        )?;
        for (namespace, own) in [(&nat, gate), (&name, at)] {
            self.on(namespace, &format!("addr add {own}/24 dev lan"))?;
            self.on(namespace, "link set lan up")?;
        }
        self.on(&name, &format!("route add default via {gate}"))?;
        let random = match ports {
            Ports::Kept => "",
            Ports::Drawn => "random",
        };
        let forwards = forwarded
            .iter()
            .map(|port| format!("iifname \"wan\" tcp dport {port} dnat to {at};"));
        let rules = format!(
            "table ip edge {{
               chain outward {{ type nat hook postrouting priority 100; oifname \"wan\" masquerade {random}; }}
               chain inward {{ type nat hook prerouting priority -100; {} }}
               chain through {{
                 type filter hook forward priority 0; policy drop;
                 ct state established,related accept; ct status dnat accept; iifname \"lan\" accept;
               }}
               chain arriving {{ type filter hook input priority 0; policy drop; }}
             }}",
            forwards.collect::<String>()
        );
        let router = Host {
            name: nat,
            at: gate,
            seen_as,
        };
        router.run("nft", &["-f", "-"], &rules)?;
        router.run("sh", &["-c", "echo 1 > /proc/sys/net/ipv4/ip_forward"], "")?;
        Ok(Host { name, at, seen_as })
    }
}

impl Host {
    /// Where its namespace is.
    fn namespace(&self) -> PathBuf {
        Path::new(NAMESPACES).join(&self.name)
    }

    /// The beginning of a command line that runs there.
    pub fn enter(&self) -> [String; 2] {
        let namespace = self.namespace();
        [
            "nsenter".to_owned(),
            format!("--net={}", namespace.display()),
        ]
    }

    /// Runs a program there; what it said.
    pub fn run(&self, program: &str, arguments: &[&str], input: &str) -> Result<String> {
        let [nsenter, namespace] = self.enter();
        let arguments = [&[namespace.as_str(), program][..], arguments].concat();
        run(&find(&nsenter, "util-linux")?, &arguments, input)
    }

    /// Asks something from there. This thread is there meanwhile, others are not.
    pub fn within<T>(&self, ask: impl FnOnce() -> T) -> Result<T> {
        let home = File::open("/proc/thread-self/ns/net")?;
        let there = File::open(self.namespace()).with_context(|| self.name.clone())?;
        setns(&there, CloneFlags::CLONE_NEWNET)?;
        let answer = ask();
        setns(&home, CloneFlags::CLONE_NEWNET)?;
        Ok(answer)
    }
}
