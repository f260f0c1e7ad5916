//! Every corpus through its target, and the layout that `cargo fuzz` needs.

#![allow(clippy::unwrap_used, reason = "a test's helpers")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use pqcnet_fuzz_targets::TARGETS;

fn fuzz() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz")
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = fs::read_dir(folder)
        .unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
        .map(|entry| entry.unwrap().path())
        .collect();
    files.sort();
    files
}

// Scenario: every input of every corpus, found by a fuzzer or made from a real message, and each seed cut at every
// eighth and with each of its first 64 bytes replaced: none makes its decoder panic.
#[test]
fn every_corpus() {
    let mut inputs = 0;
    for target in TARGETS {
        let corpus = files(&fuzz().join("corpus").join(target.name));
        assert!(!corpus.is_empty(), "{} has no corpus", target.name);
        for file in corpus {
            let data = fs::read(&file).unwrap();
            let run = std::panic::catch_unwind(|| (target.body)(&data));
            assert!(run.is_ok(), "{} panics at {}", target.name, file.display());
            inputs += 1;
        }
        for seed in (target.seeds)() {
            for eighth in 0..8 {
                (target.body)(&seed[..seed.len() * eighth / 8]);
            }
            for at in 0..seed.len().min(64) {
                let mut changed = seed.clone();
                changed[at] ^= 0x41;
                (target.body)(&changed);
            }
        }
    }
    assert!(inputs >= 2 * TARGETS.len(), "{inputs} inputs");
}

// Scenario: the seeds in the corpora are what this code makes of real messages. After a deliberate change of a format:
// `cargo nextest run -p pqcnet-fuzz-targets --run-ignored only regenerate`.
#[test]
fn seeds_are_of_this_code() {
    for target in TARGETS {
        for (n, seed) in (target.seeds)().iter().enumerate() {
            let path = fuzz().join(format!("corpus/{}/seed-{n}", target.name));
            let kept =
                fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            assert!(kept == *seed, "{} is of another version", path.display());
        }
    }
}

#[test]
#[ignore = "writes the corpora's seeds anew: run by hand after a deliberate change of a format"]
fn regenerate() {
    for target in TARGETS {
        let folder = fuzz().join("corpus").join(target.name);
        fs::create_dir_all(&folder).unwrap();
        for (n, seed) in (target.seeds)().iter().enumerate() {
            fs::write(folder.join(format!("seed-{n}")), seed).unwrap();
        }
    }
}

// Scenario: a target without its binary is never fuzzed, a binary without its target does not build.
#[test]
fn every_target_has_its_binary() {
    let names: BTreeSet<String> = TARGETS
        .iter()
        .map(|target| target.name.to_owned())
        .collect();
    assert_eq!(names.len(), TARGETS.len(), "a name twice");
    assert!(names.len() >= 10);
    let manifest = fs::read_to_string(fuzz().join("Cargo.toml")).unwrap();
    for name in &names {
        let binary = fuzz().join(format!("fuzz_targets/{name}.rs"));
        let text = fs::read_to_string(&binary).unwrap_or_else(|_| panic!("{}", binary.display()));
        assert!(text.contains(&format!("{name:?}")), "{}", binary.display());
        assert!(manifest.contains(&format!("name = {name:?}")), "{name}");
    }
    let binaries = files(&fuzz().join("fuzz_targets"));
    // Without the node its one target is left out.
    let left_out = usize::from(!cfg!(feature = "node"));
    assert_eq!(binaries.len(), names.len() + left_out, "{binaries:?}");
}

// Scenario: a message that was added to a service is fuzzed and weighed too: each that the code binds to a service, and
// each reply, is listed.
#[test]
fn every_message_is_listed() {
    let listed: BTreeSet<String> = pqcnet_fuzz_targets::DECODERS
        .iter()
        .flat_map(|list| list.iter())
        .map(|decoder| decoder.name.replace(' ', ""))
        .collect();
    let sources = fuzz().join("../../messages/src");
    let mut missing = BTreeSet::new();
    let mut found = 0;
    for file in files(&sources) {
        if file.extension().is_none_or(|extension| extension != "rs") {
            continue;
        }
        let text = fs::read_to_string(&file).unwrap();
        for line in text.lines().filter(|line| line.starts_with("message!(")) {
            let inside = line.trim_start_matches("message!(").trim_end_matches(");");
            let (message, rest) = inside.split_once(',').unwrap();
            let (_, reply) = rest.split_once("=> ").unwrap();
            found += 1;
            for name in [message, reply].map(|name| name.replace(' ', "")) {
                if name != "()" && !listed.contains(&name) {
                    missing.insert(name);
                }
            }
        }
    }
    assert!(
        found >= 24,
        "{found} messages found: did their form change?"
    );
    assert!(
        missing.is_empty(),
        "not in tests/fuzz-targets/src/messages.rs: {missing:?}"
    );
}
