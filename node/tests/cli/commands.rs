//! Commands that need no network.

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::process::Command;

use crate::{binary, output, path, pqcnet};

// Scenario: a misspelt key stops `config check` and every node binary alike: code 2, with file, line and suggestion.
#[test]
fn an_unknown_key_stops_everything_with_its_line_and_a_suggestion() {
    let place = tempfile::tempdir().unwrap();
    let file = place.path().join("node.toml");
    fs::write(&file, "keys = \"k\"\n[log]\nlevle = \"info\"\n").unwrap();
    let told = format!(
        "{}:3: unknown key `log.levle`; did you mean `log.level`?",
        path(&file)
    );
    let (code, out, err) = output(pqcnet(&["config", "check", path(&file)]));
    assert_eq!((code, out.as_str()), (Some(2), ""));
    assert!(err.contains(&told), "{err}");
    for name in ["pqcnet-sentry", "pqcnet-relayer"] {
        let mut command = Command::new(binary(name));
        command.arg("--config").arg(&file);
        let (code, out, err) = output(command);
        assert_eq!((code, out.as_str()), (Some(2), ""), "{name}");
        assert!(err.contains(&told), "{name}: {err}");
    }
}

// Scenario: wrong types, unsafe values and broken variables are usage errors too, all told at once.
#[test]
fn unsafe_and_wrong_values_stop_the_start() {
    let place = tempfile::tempdir().unwrap();
    let file = place.path().join("node.toml");
    fs::write(
        &file,
        "[admin]\nlisten = \"0.0.0.0:7412\"\n[drain]\nseconds = true\n",
    )
    .unwrap();
    let mut command = pqcnet(&["config", "check", path(&file)]);
    command.env("PQCNET_LOG_LEVLE", "info");
    let (code, _, err) = output(command);
    assert_eq!(code, Some(2));
    for told in [
        "node.toml:2: `admin.listen` is unsafe",
        "node.toml:4: `drain.seconds` must be a whole number, not a TOML boolean",
        "environment PQCNET_LOG_LEVLE: unknown key",
    ] {
        assert!(err.contains(told), "{told}: {err}");
    }
}

// Scenario: `config init` writes what `config show` reads back; neither is ever written over.
#[test]
fn a_fresh_configuration_is_shown_with_its_origins() {
    let place = tempfile::tempdir().unwrap();
    let file = place.path().join("node.toml");
    let init = || output(pqcnet(&["config", "init", "--out", path(&file)]));
    assert_eq!(init().0, Some(0));
    let (code, out, _) = output(pqcnet(&[
        "config",
        "show",
        path(&file),
        "--set",
        "log.level=warn",
    ]));
    assert_eq!(code, Some(0));
    assert!(
        out.contains("log.level = \"warn\"  # flag --set log.level=warn"),
        "{out}"
    );
    assert!(
        out.contains("listen.data = \"127.0.0.1:7411\"  # "),
        "{out}"
    );
    assert_eq!(init().0, Some(2));
}

// Scenario: `keys init` makes a file of mode 0600 that tells who the node is, never over another one, and a node refuses it
// once others may read it.
#[test]
fn key_files_are_private_and_never_overwritten() {
    let place = tempfile::tempdir().unwrap();
    let (keys, phrase) = (place.path().join("node.keys"), place.path().join("phrase"));
    fs::write(&phrase, "correct horse battery staple\n").unwrap();
    fs::set_permissions(&phrase, Permissions::from_mode(0o600)).unwrap();
    let words = [
        "keys",
        "init",
        "--out",
        path(&keys),
        "--passphrase-file",
        path(&phrase),
    ];
    let (code, id, _) = output(pqcnet(&words));
    assert_eq!((code, id.trim().len()), (Some(0), 64));
    assert_eq!(fs::metadata(&keys).unwrap().mode() & 0o7777, 0o600);
    let (code, shown, _) = output(pqcnet(&["keys", "show", path(&keys)]));
    assert_eq!(code, Some(0));
    assert!(
        shown.contains(&format!("node_id = \"{}\"", id.trim())),
        "{shown}"
    );
    let (code, _, err) = output(pqcnet(&words));
    assert_eq!(code, Some(2));
    assert!(err.contains("never overwritten"), "{err}");
    fs::set_permissions(&keys, Permissions::from_mode(0o640)).unwrap();
    let (code, _, err) = output(pqcnet(&["keys", "show", path(&keys)]));
    assert_eq!(code, Some(2));
    assert!(err.contains("chmod 600"), "{err}");
}

// Scenario: without a terminal, a file or a variable there is no passphrase, and no empty one is made up.
#[test]
fn keys_need_something_to_lock_them() {
    let place = tempfile::tempdir().unwrap();
    let keys = place.path().join("node.keys");
    let mut command = Command::new("setsid");
    command
        .arg(binary("pqcnet"))
        .args(["keys", "init", "--out", path(&keys)]);
    command.env_remove("PQCNET_PASSPHRASE");
    let (code, _, err) = output(command);
    assert_eq!(code, Some(2));
    assert!(err.contains("no passphrase"), "{err}");
    let mut command = pqcnet(&["keys", "init", "--out", path(&keys)]);
    command.env("PQCNET_PASSPHRASE", "short");
    let (code, _, err) = output(command);
    assert_eq!(code, Some(2));
    assert!(err.contains("a passphrase has"), "{err}");
    assert!(!keys.exists());
}

// Scenario: a wrong command line is code 2, and so is a folder without a network.
#[test]
fn usage_errors_are_code_two() {
    let place = tempfile::tempdir().unwrap();
    let none = place.path().join("none");
    for words in [
        &["frobnicate"][..],
        &["publish"],
        &["status", "--state", path(&none)],
        &["subscribe", "UPPER CASE", "--state", path(&none)],
        &["up", "--relayers", "0", "--state", path(&none)],
    ] {
        assert_eq!(output(pqcnet(words)).0, Some(2), "{words:?}");
    }
    assert!(!none.exists());
}
