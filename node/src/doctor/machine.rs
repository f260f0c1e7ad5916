//! The machine under a node: primitives, clock, descriptors, disk, ports.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use nix::sys::resource::{Resource, getrlimit};
use pqcnet_crypto::self_test;

use super::owner::{Holder, holder_of};
use super::{Check, Code, Group};
use crate::config::NodeConfig;

/// No node ran before this, in milliseconds since 1970: the middle of 2025.
const SANE_FROM_MS: u64 = 1_750_000_000_000;
/// A certificate of nothing, but no machine of today lives to see 2100.
const SANE_UNTIL_MS: u64 = 4_102_444_800_000;
/// Files a little from the future are other machines' clocks, not a broken one.
const SKEW: Duration = Duration::from_secs(300);
/// A relayer's store and a few hundred links fit; a node raises its soft limit to the hard one by itself.
const DESCRIPTORS: u64 = 4096;

pub(super) fn self_test() -> Check {
    match self_test::run() {
        Ok(()) => Check::ok(Group::Machine, "the cryptographic self-test passes"),
        Err(error) => Check::failed(Group::Machine, Code::SelfTestFailed, error.to_string()),
    }
}

pub(super) fn descriptors() -> Check {
    match getrlimit(Resource::RLIMIT_NOFILE) {
        Ok((_, hard)) if hard < DESCRIPTORS => Check::failed(
            Group::Machine,
            Code::DescriptorsLow,
            format!(
                "a process started from here may open {hard} files, a node wants {DESCRIPTORS} at least"
            ),
        ),
        Ok((_, hard)) => Check::ok(Group::Machine, format!("up to {hard} descriptors")),
        Err(error) => Check::skipped(Group::Machine, format!("descriptors: {error}")),
    }
}

/// `now` within reason, and none of the files from its future.
pub(super) fn clock(now_ms: u64, files: &[PathBuf]) -> Check {
    let wrong = |told: String| Check::failed(Group::Machine, Code::ClockWrong, told);
    if !(SANE_FROM_MS..SANE_UNTIL_MS).contains(&now_ms) {
        return wrong(format!(
            "it is {now_ms} ms since 1970 by this machine's clock"
        ));
    }
    let now = Duration::from_millis(now_ms);
    for file in files {
        let written = std::fs::metadata(file).and_then(|meta| meta.modified());
        let Ok(Ok(written)) = written.map(|time| time.duration_since(UNIX_EPOCH)) else {
            continue;
        };
        if written > now + SKEW {
            return wrong(format!(
                "{} was written {} s after the time on this machine's clock",
                file.display(),
                (written - now).as_secs(),
            ));
        }
    }
    Check::ok(Group::Machine, "the clock is plausible")
}

/// Whether each listener could be bound, or is by this very node.
pub(super) fn ports(config: &NodeConfig, file: Option<&Path>) -> Vec<Check> {
    let mut taken: BTreeMap<u16, (&str, SocketAddr)> = BTreeMap::new();
    let mut checks = Vec::new();
    for (key, at) in [
        ("listen.control", config.control),
        ("listen.data", config.data),
        ("admin.listen", config.admin),
    ] {
        if at.port() != 0
            && let Some((other, there)) = taken.get(&at.port())
            && (there.ip() == at.ip() || there.ip().is_unspecified() || at.ip().is_unspecified())
        {
            let told = format!("{key} and {other} are both {at}");
            checks.push(Check::failed(Group::Ports, Code::PortClash, told));
            continue;
        }
        taken.insert(at.port(), (key, at));
        checks.push(port(key, at, file));
    }
    checks
}

fn port(key: &str, at: SocketAddr, file: Option<&Path>) -> Check {
    let error = match TcpListener::bind(at) {
        Ok(_) => return Check::ok(Group::Ports, format!("{key} {at} is free")),
        Err(error) => error,
    };
    let told = format!("{key} {at}: {error}");
    match error.kind() {
        ErrorKind::AddrInUse => match holder_of(at) {
            Some(holder) if holder.runs(file) => Check::ok(
                Group::Ports,
                format!("{key} {at}: this node runs, process {}", holder.pid),
            ),
            Some(Holder { pid, name, .. }) => {
                let told = format!("{key} {at}: {name} listens there, process {pid}");
                Check::failed(Group::Ports, Code::PortTaken, told)
            }
            None => Check::failed(Group::Ports, Code::PortTaken, told),
        },
        ErrorKind::AddrNotAvailable => Check::failed(Group::Ports, Code::AddressNotLocal, told),
        ErrorKind::PermissionDenied => Check::failed(Group::Ports, Code::PortForbidden, told),
        _ => Check::failed(Group::Ports, Code::PortTaken, told),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Scenario: clocks of 1970 and 2200 are wrong, and so is one behind a file's time; a minute's skew is not.
    #[test]
    fn clocks() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        let file = std::fs::File::create(&path).unwrap();
        let now_ms = 1_800_000_000_000;
        let at = |ms: u64| UNIX_EPOCH + Duration::from_millis(ms);
        let judge = |now| clock(now, std::slice::from_ref(&path)).code;
        file.set_modified(at(now_ms + 60_000)).unwrap();
        assert_eq!(judge(now_ms), "");
        assert_eq!(judge(12_000), "clock-wrong");
        assert_eq!(judge(SANE_UNTIL_MS + 1), "clock-wrong");
        file.set_modified(at(now_ms + 86_400_000)).unwrap();
        assert_eq!(judge(now_ms), "clock-wrong");
    }
}
