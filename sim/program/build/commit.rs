//! Which commit a source tree is, and what may change that.

use std::path::{Path, PathBuf};
use std::process::Command;

/// What the program is built from, in the tree's root.
const SOURCES: &[&str] = &[
    "Cargo.toml",
    "Cargo.lock",
    ".cargo",
    "protos",
    "runtime",
    "messages",
    "actors",
    "node/roles",
    "sim",
    "tests/account",
];
/// Ends the name of a tree whose sources differ from its commit.
const DIRTY: &str = "-dirty";
/// A tree that is no checkout, or a machine without git.
const UNKNOWN: &str = "unknown";

/// What git says of the tree; `None` where it fails.
fn git(root: &Path, args: &[&str]) -> Option<String> {
    let mut git = Command::new("git");
    git.arg("-C").arg(root).args(args);
    // A hook's words on where its repository is are not about this tree.
    for variable in ["GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE"] {
        git.env_remove(variable);
    }
    let output = git.output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| text.trim().to_owned())
}

/// Whether the tree is a checkout, and not a folder in one of something else.
fn is_checkout(root: &Path) -> bool {
    let top = git(root, &["rev-parse", "--show-toplevel"]).map(PathBuf::from);
    let top = top.and_then(|top| top.canonicalize().ok());
    top.is_some() && top == root.canonicalize().ok()
}

/// The commit's hash, with a mark if the sources differ from it.
pub fn of(root: &Path) -> String {
    let hash = git(root, &["rev-parse", "HEAD"]).filter(|_| is_checkout(root));
    let Some(hash) = hash else {
        return UNKNOWN.to_owned();
    };
    let mut status = vec!["status", "--porcelain", "--"];
    status.extend(SOURCES);
    match git(root, &status) {
        Some(changes) if changes.is_empty() => hash,
        Some(_) | None => hash + DIRTY,
    }
}

/// Files and folders of which a change may make another commit of the tree, or another difference from it.
pub fn watched(root: &Path) -> Vec<PathBuf> {
    let mut paths: Vec<PathBuf> = SOURCES.iter().map(|path| root.join(path)).collect();
    if is_checkout(root) {
        // A reference is a file of its own, or a line of `packed-refs`; the log tells of each move.
        let files = ["HEAD", "logs/HEAD", "refs/heads", "packed-refs"];
        let files = files.map(|file| git(root, &["rev-parse", "--git-path", file]));
        paths.extend(files.into_iter().flatten().map(|path| root.join(path)));
    }
    // What does not exist would have everything built again and again.
    paths.retain(|path| path.exists());
    paths
}
