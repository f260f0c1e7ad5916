//! The commit in `run.json` is the one that the program was built from.

use std::fs;
use std::path::Path;
use std::process::Command;

use pqcnet_sim::report::Commit;

use super::{run_of, scenario, sim, within, word};

#[path = "../../build/commit.rs"]
mod source;

/// Runs a program that must succeed; what it printed.
fn done(program: &str, folder: &Path, args: &[&str]) -> String {
    let mut command = Command::new(program);
    command.args(args).current_dir(folder);
    for (name, value) in [("NAME", "t"), ("EMAIL", "t@example.invalid")] {
        command.env(format!("GIT_AUTHOR_{name}"), value);
        command.env(format!("GIT_COMMITTER_{name}"), value);
    }
    for (name, _) in std::env::vars() {
        // This build's words are not for the one inside.
        if name.starts_with("CARGO_") && name != "CARGO_HOME" || name == "PQCNET_COMMIT" {
            command.env_remove(name);
        }
    }
    command.env("CARGO_TARGET_DIR", folder.join("target"));
    let output = command.output().unwrap_or_else(|error| {
        panic!("{program} is missing: {error}; git is Debian's package `git`")
    });
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {args:?}: {told}");
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

// Scenario: a tree of a program with our build script is no checkout, becomes one, is changed, put back, committed with the change,
// and its references are packed. Cargo builds it before each look, and the program says what it was built from, also once the
// tree has gone on.
#[test]
fn a_program_knows_its_commit() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    let write = |path: &str, text: &str| {
        let path = root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    };
    write(".gitignore", "target\nCargo.lock\n");
    write("Cargo.toml", "[workspace]\nmembers = [\"sim/program\"]\n");
    write(
        "sim/program/Cargo.toml",
        "[package]\nname = \"p\"\nedition = \"2024\"\nbuild = \"build/main.rs\"\n",
    );
    let main = "fn main() { println!(\"{}\", env!(\"PQCNET_COMMIT\")) }\n";
    write("sim/program/src/main.rs", main);
    let ours = Path::new(env!("CARGO_MANIFEST_DIR")).join("build");
    for file in ["main.rs", "commit.rs"] {
        let text = fs::read_to_string(ours.join(file)).unwrap();
        write(&format!("sim/program/build/{file}"), &text);
    }
    let git = |args: &[&str]| done("git", root, args);
    let built = || done(env!("CARGO"), root, &["run", "--offline", "--quiet"]);
    assert_eq!(built(), "unknown");

    git(&["init", "--quiet"]);
    git(&["add", "."]);
    git(&["commit", "--quiet", "-m", "one"]);
    assert!(
        source::watched(root)
            .iter()
            .any(|path| path.ends_with("HEAD"))
    );
    let head = || git(&["rev-parse", "HEAD"]);
    let first = head();
    // Nothing that it watches has changed since it was no checkout but the folder of its own script.
    write("sim/program/src/main.rs", main);
    assert_eq!(built(), first);
    write("runtime/something.rs", "// New.\n");
    write("sim/program/src/main.rs", &format!("// Changed.\n{main}"));
    assert_eq!(built(), format!("{first}-dirty"));
    fs::remove_file(root.join("runtime/something.rs")).unwrap();
    write("sim/program/src/main.rs", main);
    assert_eq!(built(), first);
    write("docs.md", "No source.\n");
    assert_eq!(source::of(root), first);

    git(&["commit", "--quiet", "--allow-empty", "-m", "two"]);
    let second = head();
    assert_ne!(second, first);
    let program = word(&root.join("target/debug/p"));
    assert_eq!(done(&program, root, &[]), first, "built before");
    assert_eq!(built(), second);
    git(&["pack-refs", "--all"]);
    git(&["commit", "--quiet", "--allow-empty", "-m", "three"]);
    assert_eq!(built(), head());
    // A folder in a checkout of something else is none.
    assert_eq!(source::of(&root.join("sim")), "unknown");
}

// Scenario: the program runs where git shows another repository. What it says of itself, in `--version` and in `run.json`, is the
// commit of this tree, which cargo has just built it from.
#[test]
fn run_files_name_the_programs_own_commit() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let folder = tempfile::tempdir().unwrap();
    done("git", folder.path(), &["init", "--quiet"]);
    let version = sim(&["--version"]).out;
    let name = version.trim().strip_suffix(')').unwrap();
    let (_, name) = name.split_once("(commit ").unwrap();
    let built = Commit::named(name);
    assert_eq!(
        built.hash,
        Commit::named(&source::of(&root)).hash,
        "{version}"
    );
    let toml = scenario(folder.path(), "");
    let left = within(&folder, "out");
    let output = Command::new(env!("CARGO_BIN_EXE_pqcnet-sim"))
        .args(["run", &toml, "--quiet", "--out", &word(&left)])
        .env("GIT_DIR", folder.path().join(".git"))
        .current_dir(folder.path())
        .output()
        .unwrap();
    assert!(output.status.success());
    assert_eq!(run_of(&left).commit, built);
}
