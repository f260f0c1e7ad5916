//! The house rules that no compiler checks: purity of cores, direction of dependencies, what products may link, bans.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use cargo_metadata::{DependencyKind, MetadataCommand};

/// What a pure core does without: time, randomness and bytes come in as arguments.
const IMPURE: &[&str] = &[
    "actix",
    "tokio",
    "std::net",
    "std::fs",
    "std::thread",
    "std::env",
    "Instant",
    "SystemTime",
    "thread_rng",
    "ThreadRng",
    "rand::rng",
    "SysRng",
    "OsRng",
];

/// Whole crates, and rooms of one, that are pure.
const PURE_CRATES: &[&str] = &["runtime/qstp/src", "runtime/link/src", "sim/src/gossip"];

fn root() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent();
    root.expect("tests/ lies in the root").to_owned()
}

/// Every Rust file under `folder`, sorted, build products left out.
fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("a folder of the tree") {
            let path = entry.expect("an entry of the tree").path();
            let name = path
                .file_name()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned();
            if path.is_dir() && !name.starts_with('.') && name != "target" {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                files.push(path);
            }
        }
    }
    files.sort();
    files
}

/// The code of a file: comments gone, cut where its tests begin. Line numbers are kept.
fn code(path: &Path) -> Vec<String> {
    let text = fs::read_to_string(path).expect("a source file");
    text.lines()
        .take_while(|line| line.trim() != "#[cfg(test)]")
        .map(|line| line.split("//").next().unwrap_or_default().to_owned())
        .collect()
}

fn is_test_file(path: &Path) -> bool {
    path.components().any(|part| part.as_os_str() == "tests")
        || path.file_name().is_some_and(|name| name == "tests.rs")
        || path.components().any(|part| part.as_os_str() == "kat")
}

/// Whether `word` stands in `line` on its own: `Instant` is not found in `Instantly`.
fn has_word(line: &str, word: &str) -> bool {
    let part_of_name = |c: char| c.is_alphanumeric() || c == '_';
    line.match_indices(word).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        let after = line[at + word.len()..].chars().next();
        !before.is_some_and(part_of_name) && !after.is_some_and(part_of_name)
    })
}

fn relative(path: &Path) -> String {
    path.strip_prefix(root())
        .unwrap_or(path)
        .display()
        .to_string()
}

// Scenario: a core that reads a clock, a socket, a file or hidden randomness could not run in a simulation.
#[test]
fn cores_are_pure() {
    let root = root();
    let mut cores = 0;
    let mut found = Vec::new();
    for path in rust_files(&root) {
        let name = relative(&path);
        let pure = name.contains("/src/core/")
            || name.ends_with("/src/core.rs")
            || PURE_CRATES.iter().any(|folder| name.starts_with(folder));
        if !pure || is_test_file(&path) {
            continue;
        }
        cores += 1;
        for (index, line) in code(&path).iter().enumerate() {
            for word in IMPURE.iter().filter(|word| has_word(line, word)) {
                found.push(format!("{name}:{}: `{word}` in a pure core", index + 1));
            }
        }
    }
    assert!(
        cores > 10,
        "only {cores} files of cores found: did the layout change?"
    );
    assert!(found.is_empty(), "{}", found.join("\n"));
}

// Scenario: an unbiased select polls in a random order, so two runs of one seed would differ.
#[test]
fn every_select_is_biased() {
    let mut found = Vec::new();
    for path in rust_files(&root()) {
        let name = relative(&path);
        if name.starts_with("tests/fixtures/") || name == "tests/tests/house.rs" {
            continue;
        }
        let text = code(&path).join("\n");
        for (at, _) in text.match_indices("select!") {
            let after = text[at + "select!".len()..].trim_start();
            let first = after.trim_start_matches(['{', '(']).trim_start();
            if !first.starts_with("biased;") {
                let line = text[..at].matches('\n').count() + 1;
                found.push(format!("{name}:{line}: `select!` without `biased;`"));
            }
        }
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
}

// Scenario: with `panic = "abort"` no supervisor would ever see a panic.
#[test]
fn panics_unwind() {
    let root = root();
    let mut files = vec![root.join("Cargo.toml"), root.join(".cargo/config.toml")];
    let metadata = MetadataCommand::new()
        .no_deps()
        .other_options(["--offline".to_owned()])
        .exec();
    let metadata = metadata.expect("cargo metadata");
    files.extend(
        metadata
            .packages
            .iter()
            .map(|package| package.manifest_path.clone().into()),
    );
    for file in files {
        let text = fs::read_to_string(&file).expect("a manifest");
        let manifest: toml::Table = text.parse().expect("TOML");
        let profiles = manifest.get("profile").and_then(toml::Value::as_table);
        for (name, profile) in profiles.into_iter().flatten() {
            assert_eq!(
                profile.get("panic"),
                None,
                "{}: profile {name}",
                file.display()
            );
        }
        assert!(!text.contains("panic=abort"), "{}", file.display());
    }
}

// Scenario: an exception from a ban anywhere but in the runtime's own clock and threads, node's start-up, benches and
// tests would hollow the ban out.
#[test]
fn exceptions_from_bans_stand_where_they_may_and_say_why() {
    let allowed = ["runtime/actor/src/", "node/src/", "tests/"];
    let mut found = Vec::new();
    for path in rust_files(&root()) {
        let name = relative(&path);
        if is_test_file(&path) || allowed.iter().any(|folder| name.starts_with(folder)) {
            continue;
        }
        let lines = code(&path);
        for (index, line) in lines.iter().enumerate() {
            if line.contains("clippy::disallowed") {
                found.push(format!("{name}:{}: an exception from a ban", index + 1));
            }
        }
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
    for path in rust_files(&root()) {
        let text = code(&path).join(" ");
        for (at, _) in text.match_indices("clippy::disallowed") {
            let rest = &text[at..];
            let attribute = &rest[..rest.find(")]").unwrap_or(rest.len())];
            let fixture = relative(&path).starts_with("tests/fixtures/");
            let here = relative(&path) == "tests/tests/house.rs";
            assert!(
                fixture || here || attribute.contains("reason"),
                "{}: {attribute}",
                relative(&path)
            );
        }
    }
}

/// The floor a package lives on; dependencies point to a lower one.
fn floor(manifest: &str) -> u8 {
    match manifest.split('/').next().unwrap_or_default() {
        "protos" => 0,
        "runtime" => 1,
        "messages" => 2,
        "actors" => 3,
        "node" if manifest.starts_with("node/roles/") => 4,
        "node" => 5,
        "sim" | "tests" => 6,
        other => panic!("{other}: a room on no floor"),
    }
}

// Scenario: a dependency that points upward, or from one actor crate to another, would tie concerns together.
#[test]
fn dependencies_point_downward() {
    let metadata = MetadataCommand::new()
        .no_deps()
        .other_options(["--offline".to_owned()])
        .exec();
    let metadata = metadata.expect("cargo metadata");
    let root = root();
    let floors: BTreeMap<String, u8> = metadata
        .packages
        .iter()
        .map(|package| {
            let manifest = package.manifest_path.as_std_path();
            let place = manifest
                .strip_prefix(&root)
                .expect("in the tree")
                .display()
                .to_string();
            (package.name.to_string(), floor(&place))
        })
        .collect();
    assert!(floors.len() >= 17, "only {} packages found", floors.len());
    let mut found = Vec::new();
    for package in &metadata.packages {
        let own = floors[package.name.as_str()];
        for dependency in &package.dependencies {
            let Some(&below) = floors.get(&dependency.name) else {
                continue;
            };
            // Rooms of the runtime may use each other; so may the test crates.
            let same_floor_allowed = own == 1 || own == 6;
            let test_of_itself = dependency.kind == DependencyKind::Development;
            if below > own || (below == own && !same_floor_allowed && !test_of_itself) {
                found.push(format!("{} depends on {}", package.name, dependency.name));
            }
        }
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
}

/// Names of all packages that a package links in production.
fn tree_of(package: &str) -> BTreeSet<String> {
    let output = Command::new(env!("CARGO"))
        .args([
            "tree",
            "--offline",
            "--locked",
            "-e",
            "normal",
            "--prefix",
            "none",
            "-f",
            "{p}",
        ])
        .args(["-p", package])
        .current_dir(root())
        .output()
        .expect("cargo tree");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let text = String::from_utf8(output.stdout).expect("names");
    text.lines()
        .filter_map(|line| line.split(' ').next())
        .map(str::to_owned)
        .collect()
}

fn linked(package: &str, banned: &[&str]) -> Vec<String> {
    let tree = tree_of(package);
    assert!(tree.contains(package), "{tree:?}");
    banned
        .iter()
        .filter(|name| tree.contains(**name))
        .map(|name| format!("{package} links {name}"))
        .collect()
}

// Scenario: an integrator embeds the client; it must bring no database, broker, web server or second network stack.
#[test]
fn the_client_is_light() {
    let banned = [
        "rocksdb",
        "librocksdb-sys",
        "lapin",
        "actix-web",
        "tonic",
        "libp2p",
    ];
    assert_eq!(linked("pqcnet-client", &banned), Vec::<String>::new());
}

// Scenario: no product may offer a channel that a quantum computer opens.
#[test]
fn products_link_no_other_security_upgrade() {
    for package in ["pqcnet-node", "pqcnet-roles", "pqcnet-client", "pqcnet-p2p"] {
        let banned = ["libp2p-noise", "libp2p-tls", "libp2p-quic", "snow"];
        assert_eq!(linked(package, &banned), Vec::<String>::new());
    }
}

// Scenario: deterministic entropy, modelled cryptography and a world's hooks belong into tests and the simulator; a product
// that linked them could be made to repeat its keys, or to believe a signature that is none.
#[test]
fn products_link_no_seeded_entropy() {
    for package in ["pqcnet-node", "pqcnet-client"] {
        let output = Command::new(env!("CARGO"))
            .args([
                "tree",
                "--offline",
                "--locked",
                "-e",
                "normal,features",
                "-p",
                package,
            ])
            .current_dir(root())
            .output()
            .expect("cargo tree");
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        let text = String::from_utf8(output.stdout).expect("names");
        for feature in [
            "pqcnet-crypto feature \"seeded\"",
            "pqcnet-crypto feature \"simulation\"",
            "pqcnet-actor feature \"simulation\"",
        ] {
            assert!(!text.contains(feature), "{package} links {feature}");
        }
    }
}

// Scenario: each ban of clippy.toml is broken once in tests/fixtures/bans; one that clippy does not report is a misspelt
// path, and a ban without a violation there is untested.
#[test]
fn every_ban_fires() {
    let root = root();
    let text = fs::read_to_string(root.join("clippy.toml")).expect("clippy.toml");
    let bans: toml::Table = text.parse().expect("TOML");
    let mut expected = BTreeSet::new();
    for list in [
        "disallowed-methods",
        "disallowed-types",
        "disallowed-macros",
    ] {
        for ban in bans[list].as_array().expect("a list") {
            assert!(
                ban["reason"]
                    .as_str()
                    .is_some_and(|reason| reason.len() > 10),
                "{ban} without a reason"
            );
            expected.insert(ban["path"].as_str().expect("a path").to_owned());
        }
    }
    let output = Command::new(env!("CARGO"))
        .args([
            "clippy",
            "--offline",
            "--locked",
            "-p",
            "pqcnet-bans",
            "--features",
            "violations",
        ])
        .args(["--message-format", "short"])
        .current_dir(&root)
        .env_remove("CLIPPY_ARGS")
        .output()
        .expect("cargo clippy");
    let report = String::from_utf8_lossy(&output.stderr);
    let fired = report
        .lines()
        .filter_map(|line| line.split_once("use of a disallowed ")?.1.split('`').nth(1));
    let fired: BTreeSet<String> = fired.map(str::to_owned).collect();
    let silent: Vec<&String> = expected.difference(&fired).collect();
    assert!(
        silent.is_empty(),
        "bans that did not fire: {silent:?}\n{report}"
    );
    assert!(
        report.contains("iteration over unordered hash-based type"),
        "{report}"
    );
}

// Scenario: on a system that is not Debian the dependency script names what is needed, installs nothing and stops.
#[test]
fn the_dependency_script_stops_on_another_system() {
    let script = root().join("deploy/scripts/install-deps.sh");
    let folder = tempfile::tempdir().expect("a folder");
    let os_release = folder.path().join("os-release");
    fs::write(&os_release, "ID=plan9\n").expect("a file");
    let output = Command::new(&script)
        .env("PQCNET_OS_RELEASE", &os_release)
        .env_remove("PQCNET_SKIP_DEPS")
        .output()
        .expect("the script");
    assert_eq!(output.status.code(), Some(1));
    let list = Command::new(&script)
        .arg("--list")
        .output()
        .expect("the script");
    assert_eq!(output.stdout, list.stdout);
    assert!(String::from_utf8_lossy(&list.stdout).contains("librocksdb-dev"));
}

// Scenario: a build goes against the installed RocksDB, found when it begins, and against another where somebody named one.
#[test]
fn a_build_finds_the_rocksdb_that_is_installed() {
    let script = root().join("deploy/scripts/with-rocksdb.sh");
    let folder_for = |named: Option<&str>| {
        let mut command = Command::new(&script);
        command.args(["sh", "-c", "printf %s \"$ROCKSDB_LIB_DIR\""]);
        command.env_remove("ROCKSDB_LIB_DIR");
        if let Some(named) = named {
            command.env("ROCKSDB_LIB_DIR", named);
        }
        String::from_utf8(command.output().expect("the script").stdout).expect("a path")
    };
    let header = Path::new("/usr/include/rocksdb/c.h").exists();
    let found = folder_for(None);
    assert_eq!(Path::new(&found).join("librocksdb.so").exists(), header);
    if header {
        assert_eq!(folder_for(Some("/elsewhere")), "/elsewhere");
    }
    // Whatever make builds goes through it: what make itself knows dates from before it installed anything.
    let makefile = fs::read_to_string(root().join("Makefile")).expect("a Makefile");
    let builds = ["build", "test", "clippy", "run", "bench", "nextest run"];
    for build in builds.map(|build| format!("$(CARGO) {build}")) {
        assert!(!makefile.contains(&build), "`{build}`");
    }
}
