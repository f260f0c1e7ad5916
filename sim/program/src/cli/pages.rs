//! A heap for worlds of thousands of nodes.
//!
//! A world of whole nodes walks through all of its memory again and again, and spends a fifth of its time on looking up pages of
//! 4 KiB. glibc takes pages of 2 MiB where the kernel has them (`madvise` in /sys/kernel/mm/transparent_hugepage/enabled), if it
//! is told so before it begins.

use std::os::unix::process::CommandExt as _;
use std::process::Command;

/// What tells it.
const TUNABLES: &str = "GLIBC_TUNABLES";
/// Huge pages; and small chunks that are free are kept apart by size, not merged with neighbours whose lines are far: a tenth of the time
/// of a world of thousands of nodes.
const HEAP: [(&str, &str); 2] = [
    ("glibc.malloc.hugetlb", "1"),
    ("glibc.malloc.tcache_count", "65535"),
];

/// What the program is to be started with anew, by what it was started with; `None`: it was told all of it already, this or otherwise.
fn missing(tunables: Option<&str>) -> Option<String> {
    let told = tunables.unwrap_or_default();
    let untold = HEAP.iter().filter(|(name, _)| !told.contains(name));
    let untold: Vec<String> = untold
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    if untold.is_empty() {
        return None;
    }
    let told = (!told.is_empty()).then(|| told.to_owned());
    let all: Vec<String> = told.into_iter().chain(untold).collect();
    Some(all.join(":"))
}

/// Begins anew with a heap for it, unless it was told what to do about that. Where that fails it goes on as it is, only slower.
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
    super::complain(&format!("goes on with a heap of small pages: {error}"));
}

#[cfg(test)]
mod tests {
    use super::*;

    // Scenario: started plainly, with tunables of another kind, and with a word on one of these, whichever: that is left as it is.
    #[test]
    fn what_was_said_stands() {
        let both = "glibc.malloc.hugetlb=1:glibc.malloc.tcache_count=65535";
        assert_eq!(missing(None).as_deref(), Some(both));
        assert_eq!(missing(Some("")).as_deref(), Some(both));
        assert_eq!(missing(Some(both)), None);
        let other = "glibc.malloc.arena_max=1";
        assert_eq!(missing(Some(other)), Some(format!("{other}:{both}")));
        let small = "glibc.malloc.hugetlb=0";
        let rest = "glibc.malloc.tcache_count=65535";
        assert_eq!(missing(Some(small)), Some(format!("{small}:{rest}")));
    }
}
