//! Descriptors that no stranger gets: a node's store has to open files whoever knocks at its doors.

use std::io;
use std::os::fd::AsRawFd;

use nix::sys::resource::{Resource, getrlimit};

/// Of all descriptors that the process may have, this part is left; half of the share below which a node takes no new links.
const PART: u64 = 40;
/// And so many at least: a table that is written, its log, the manifest, each in two places, and an operator's page.
const LEAST: u64 = 8;

/// Numbers from here on are the reserve.
fn line(limit: u64) -> u64 {
    limit.saturating_sub((limit / PART).max(LEAST))
}

/// Whether a socket that was just accepted is one of the reserve. A process gets the lowest number that is free, so its
/// number says how many are open at least.
pub(crate) fn took_the_last(socket: &impl AsRawFd) -> bool {
    let number = u64::try_from(socket.as_raw_fd()).unwrap_or(u64::MAX);
    match getrlimit(Resource::RLIMIT_NOFILE) {
        Ok((limit, _)) => number >= line(limit),
        Err(_) => false,
    }
}

/// What the listener says then; the socket is closed unread.
pub(crate) fn refused() -> io::Error {
    io::Error::other("file descriptors are as good as used up, and the rest is the store's")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Scenario: limits of a small login, a usual one, a unit's and none; a limit below the reserve leaves nobody in.
    #[test]
    fn what_is_left() {
        let lines = [4, 8, 256, 1_024, 16_384].map(line);
        assert_eq!(lines, [0, 0, 248, 999, 15_975]);
        assert_eq!(line(u64::MAX), u64::MAX - u64::MAX / 40);
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        assert!(!took_the_last(&socket), "{socket:?}");
    }
}
