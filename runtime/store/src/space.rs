//! How much room the file system has.

use std::path::Path;
use std::sync::Arc;

/// Answers how many bytes an unprivileged process can still write, `None` when unknown.
///
/// A function and not a fixed call, so a test can fill the disk without filling the disk.
pub type FreeSpace = Arc<dyn Fn(&Path) -> Option<u64> + Send + Sync>;

/// Asks the file system that holds `path`.
pub fn free_space_of(path: &Path) -> Option<u64> {
    let stat = nix::sys::statvfs::statvfs(path).ok()?;
    #[allow(
        clippy::useless_conversion,
        reason = "the fields' widths differ between systems"
    )]
    Some(u64::from(stat.blocks_available()).saturating_mul(u64::from(stat.fragment_size())))
}
