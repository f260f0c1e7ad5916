//! Huge pages for the program's own heap.
//!
//! A world of whole nodes walks through all of its memory again and again, and spends a fifth of its time on looking up pages of
//! 4 KiB. glibc takes pages of 2 MiB where the kernel has them (`madvise` in /sys/kernel/mm/transparent_hugepage/enabled), if it
//! is told so before it begins.

use std::os::unix::process::CommandExt as _;
use std::process::Command;

/// What tells it.
const TUNABLES: &str = "GLIBC_TUNABLES";
const HUGE: &str = "glibc.malloc.hugetlb=1";

/// What the program is to be started with anew, by what it was started with; `None`: it was told already, this or otherwise.
fn missing(tunables: Option<&str>) -> Option<String> {
    match tunables {
        None | Some("") => Some(HUGE.to_owned()),
        Some(told) if told.contains("glibc.malloc.hugetlb") => None,
        Some(told) => Some(format!("{told}:{HUGE}")),
    }
}

/// Begins anew with huge pages, unless it was told what to do about them. Where that fails it goes on as it is, only slower.
pub(super) fn take() {
    let told = std::env::var(TUNABLES).ok();
    let Some(tunables) = missing(told.as_deref()) else {
        return;
    };
    let Ok(program) = std::env::current_exe() else {
        return;
    };
    // Comes back only if it fails.
    let error = Command::new(program)
        .args(std::env::args_os().skip(1))
        .env(TUNABLES, tunables)
        .exec();
    super::complain(&format!("goes on without huge pages: {error}"));
}

#[cfg(test)]
mod tests {
    use super::*;

    // Scenario: started plainly, with tunables of another kind, and with a word on huge pages, whichever: that is left as it is.
    #[test]
    fn what_was_said_stands() {
        assert_eq!(missing(None).as_deref(), Some(HUGE));
        assert_eq!(missing(Some("")).as_deref(), Some(HUGE));
        let other = "glibc.malloc.tcache_count=0";
        let both = format!("{other}:{HUGE}");
        assert_eq!(missing(Some(other)), Some(both.clone()));
        assert_eq!(missing(Some(&both)), None);
        assert_eq!(missing(Some("glibc.malloc.hugetlb=0")), None);
    }
}
