//! Who listens at an address of this machine, as far as `/proc` shows it to this user.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};

/// A process that listens.
pub(super) struct Holder {
    /// Its id.
    pub pid: u32,
    /// Its name.
    pub name: String,
    /// Its working folder and words.
    place: PathBuf,
    words: Vec<String>,
}

impl Holder {
    /// Whether it is the node of this configuration.
    pub(super) fn runs(&self, file: Option<&Path>) -> bool {
        if !self.name.starts_with("pqcnet-") {
            return false;
        }
        let named = self
            .words
            .windows(2)
            .find(|pair| matches!(pair[0].as_str(), "--config" | "-c"));
        let theirs = named.map(|pair| self.place.join(&pair[1]));
        match (file, theirs) {
            (Some(ours), Some(theirs)) => {
                let real = |path: &Path| path.canonicalize().ok();
                real(ours).is_some() && real(ours) == real(&theirs)
            }
            (None, None) => true,
            _ => false,
        }
    }
}

/// The process that listens at `at`, or at every address with its port.
pub(super) fn holder_of(at: SocketAddr) -> Option<Holder> {
    let inodes: Vec<String> = ["/proc/net/tcp", "/proc/net/tcp6"]
        .iter()
        .filter_map(|table| fs::read_to_string(table).ok())
        .flat_map(|table| listening(&table, at))
        .collect();
    if inodes.is_empty() {
        return None;
    }
    let processes = fs::read_dir("/proc").ok()?;
    for process in processes.flatten() {
        let Some(pid) = process
            .file_name()
            .to_str()
            .and_then(|name| name.parse().ok())
        else {
            continue;
        };
        if holds(&process.path(), &inodes) {
            return Some(described(pid, &process.path()));
        }
    }
    None
}

/// Inodes of the sockets that listen at an address, of a table like `/proc/net/tcp`; those at every address are among them,
/// and for an address that means every one, so are all of its port.
fn listening(table: &str, at: SocketAddr) -> Vec<String> {
    let mut inodes = Vec::new();
    for line in table.lines().skip(1) {
        let words: Vec<&str> = line.split_whitespace().collect();
        let (Some(local), Some(&"0A"), Some(inode)) = (words.get(1), words.get(3), words.get(9))
        else {
            continue;
        };
        let Some(there) = local_address(local) else {
            continue;
        };
        let anywhere = there.ip().is_unspecified() || at.ip().is_unspecified();
        if there.port() == at.port() && (anywhere || there.ip() == at.ip().to_canonical()) {
            inodes.push((*inode).to_owned());
        }
    }
    inodes
}

/// `0100007F:1CF2`: the address as the kernel's words of 32 bits in this machine's byte order, the port as a number; proc(5).
fn local_address(text: &str) -> Option<SocketAddr> {
    let (address, port) = text.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let mut bytes = Vec::with_capacity(16);
    for at in (0..address.len()).step_by(8) {
        let word = u32::from_str_radix(address.get(at..at + 8)?, 16).ok()?;
        bytes.extend(word.to_ne_bytes());
    }
    let ip = match <[u8; 4]>::try_from(bytes.as_slice()) {
        Ok(four) => IpAddr::V4(Ipv4Addr::from(four)),
        Err(_) => IpAddr::V6(Ipv6Addr::from(<[u8; 16]>::try_from(bytes.as_slice()).ok()?)),
    };
    Some(SocketAddr::new(ip.to_canonical(), port))
}

fn holds(process: &Path, inodes: &[String]) -> bool {
    let Ok(open) = fs::read_dir(process.join("fd")) else {
        return false;
    };
    open.flatten().any(|entry| {
        let target = fs::read_link(entry.path()).unwrap_or_default();
        let target = target.to_string_lossy();
        let inode = target
            .strip_prefix("socket:[")
            .and_then(|rest| rest.strip_suffix(']'));
        inode.is_some_and(|inode| inodes.iter().any(|wanted| wanted == inode))
    })
}

fn described(pid: u32, process: &Path) -> Holder {
    let words = fs::read(process.join("cmdline")).unwrap_or_default();
    let words = words.split(|byte| *byte == 0);
    let words: Vec<String> = words
        .map(|word| String::from_utf8_lossy(word).into_owned())
        .collect();
    let name = words.first().and_then(|path| path.rsplit('/').next());
    Holder {
        pid,
        name: name.unwrap_or_default().to_owned(),
        place: fs::read_link(process.join("cwd")).unwrap_or_default(),
        words,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Scenario: of a table's lines only those that listen on the port are meant, at that address or at every one.
    #[test]
    #[cfg(target_endian = "little")]
    fn tables_are_read() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n\
             0: 0100007F:1CF2 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4711 1 x\n\
             1: 0100007F:1CF2 0100007F:9999 01 00000000:00000000 00:00000000 00000000     0        0 4712 1 x\n\
             2: 0100007F:1CF3 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4713 1 x\n\
             3: 0200007F:1CF2 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4714 1 x\n\
             4: 00000000:1CF2 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4715 1 x\n";
        let wide = "  sl  local_address rem_address st tx_queue tr tm->when retrnsmt uid timeout inode\n\
             0: 00000000000000000000000001000000:1CF2 0:0 0A 0:0 00:0 0 0 0 4716 1 x\n\
             1: 0000000000000000FFFF00000100007F:1CF2 0:0 0A 0:0 00:0 0 0 0 4717 1 x\n";
        let at = |text: &str| text.parse::<SocketAddr>().unwrap();
        assert_eq!(listening(table, at("127.0.0.1:7410")), ["4711", "4715"]);
        assert_eq!(listening(table, at("127.0.0.2:7410")), ["4714", "4715"]);
        assert_eq!(
            listening(table, at("0.0.0.0:7410")),
            ["4711", "4714", "4715"]
        );
        assert_eq!(listening(wide, at("[::1]:7410")), ["4716"]);
        assert_eq!(listening(wide, at("127.0.0.1:7410")), ["4717"]);
    }

    /// Scenario: a listener of this very process is found, and is not taken for a node.
    #[test]
    fn this_process_is_found() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let holder = holder_of(listener.local_addr().unwrap()).unwrap();
        assert_eq!(holder.pid, std::process::id());
        assert!(!holder.runs(None), "{}", holder.name);
    }
}
