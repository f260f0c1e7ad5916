//! Commands that need no network.

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::process::{Command, Stdio};

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
        "--origin",
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
        out.contains(&format!(
            "listen.data = \"127.0.0.1:7411\"  # {}:",
            path(&file)
        )),
        "{out}"
    );
    assert!(out.contains("# unlock.key_file is not set"), "{out}");
    let mut command = pqcnet(&["config", "show", "--origin", path(&file)]);
    command.env("PQCNET_LOG_FORMAT", "json");
    let (_, out, _) = output(command);
    assert!(
        out.contains("log.format = \"json\"  # environment PQCNET_LOG_FORMAT"),
        "{out}"
    );
    fs::write(place.path().join("empty.toml"), "").unwrap();
    let (_, out, _) = output(pqcnet(&[
        "config",
        "show",
        "--origin",
        path(&place.path().join("empty.toml")),
    ]));
    assert!(out.contains("log.format = \"text\"  # default"), "{out}");
    // Without origins it is a file that sets the same values.
    let (code, out, _) = output(pqcnet(&["config", "show", path(&file)]));
    assert_eq!((code, out.contains('#')), (Some(0), false), "{out}");
    // Its paths hold wherever it is written to.
    let network = path(&place.path().join("network.toml")).to_owned();
    assert!(out.contains(&format!("network = {network:?}")), "{out}");
    let again = place.path().join("again.toml");
    fs::write(&again, &out).unwrap();
    assert_eq!(output(pqcnet(&["config", "show", path(&again)])).1, out);
    assert_eq!(init().0, Some(2));
}

// Scenario: standard output is a pipe that nobody reads any more, and a device that is full: the first ends well and quietly, the
// second fails and says why; neither is a panic.
#[test]
fn output_that_nobody_takes() {
    let told = |out: Stdio| {
        let child = pqcnet(&["config", "init", "--out", "-"])
            .stdout(out)
            .stderr(Stdio::piped())
            .spawn();
        let done = child.unwrap().wait_with_output().unwrap();
        (done.status.code(), String::from_utf8(done.stderr).unwrap())
    };
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    assert_eq!(told(writer.into()), (Some(0), String::new()));
    let full = fs::OpenOptions::new().write(true).open("/dev/full");
    let (code, said) = told(full.unwrap().into());
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("cannot write to standard output"), "{said}");
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
    let group = ["subscribe", "orders", "--group", "Billing"];
    let (code, _, err) = output(pqcnet(&[&group[..], &["--state", path(&none)]].concat()));
    assert_eq!(code, Some(2), "{err}");
    assert!(err.contains("a group's name holds only"), "{err}");
    assert!(!none.exists());
}

// Scenario: a shell completes this very command line, and each command has its page.
#[test]
fn completions_and_pages_name_every_command() {
    let (code, script, _) = output(pqcnet(&["completions", "bash"]));
    assert_eq!(code, Some(0));
    let place = tempfile::tempdir().unwrap();
    let folder = place.path().join("man");
    assert_eq!(output(pqcnet(&["man", "--out", path(&folder)])).0, Some(0));
    for command in [
        "up",
        "status",
        "ping",
        "top",
        "doctor",
        "bundle",
        "keys",
        "config",
        "publish",
        "subscribe",
    ] {
        assert!(
            script.contains(&format!("pqcnet__subcmd__{command}"))
                || script.contains(&format!("pqcnet__{command}")),
            "{command}"
        );
        let page = fs::read_to_string(folder.join(format!("pqcnet-{command}.1"))).unwrap();
        assert!(
            page.contains(".TH") && page.contains(command),
            "{command}: {page}"
        );
    }
    assert!(!folder.join("pqcnet-demo-publisher.1").exists());
    let (code, page, _) = output(pqcnet(&["man"]));
    assert_eq!(code, Some(0));
    assert!(page.contains("pqcnet"), "{page}");
    assert!(page.contains("Exit codes"), "{page}");
}

// Scenario: a node started without a configuration, where no network file is, says how to name one.
#[test]
fn a_node_without_a_configuration_is_told_how_to_get_one() {
    let place = tempfile::tempdir().unwrap();
    let mut command = Command::new(binary("pqcnet-relayer"));
    command.current_dir(place.path());
    let (code, _, err) = output(command);
    assert_eq!(code, Some(2));
    assert!(
        err.contains("--config") && err.contains("pqcnet config init"),
        "{err}"
    );
    assert!(err.contains("network.toml"), "{err}");
}

// Scenario: Ctrl-C at a passphrase prompt ends the command, and the terminal shows again what is typed.
#[test]
fn an_interrupted_prompt_gives_the_terminal_back() {
    use std::io::{Read as _, Write as _};
    use std::process::Stdio;
    let place = tempfile::tempdir().unwrap();
    let keys = place.path().join("node.keys");
    let words = format!(
        "{} keys init --out {}; echo code $?; stty -a",
        path(&binary("pqcnet")),
        path(&keys)
    );
    let mut child = Command::new("script")
        .args(["-qec", &words, "/dev/null"])
        .env_remove("PQCNET_PASSPHRASE")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("`script` of the package bsdutils");
    let mut told = String::new();
    let mut out = child.stdout.take().unwrap();
    let mut byte = [0];
    while !told.ends_with("passphrase: ") {
        assert_eq!(out.read(&mut byte).unwrap(), 1, "{told}");
        told.push(char::from(byte[0]));
    }
    let mut keyboard = child.stdin.take().unwrap();
    keyboard.write_all(b"secret\x03").unwrap();
    keyboard.flush().unwrap();
    let mut rest = String::new();
    out.read_to_string(&mut rest).unwrap();
    child.wait().unwrap();
    assert!(
        rest.contains("interrupted") && rest.contains("code 2"),
        "{rest}"
    );
    let words: Vec<&str> = rest.split([' ', ';', '\r', '\n']).collect();
    for setting in ["echo", "icanon", "isig"] {
        assert!(words.contains(&setting), "{setting}: {rest}");
    }
    assert!(!rest.contains("secret") && !keys.exists(), "{rest}");
}

// Scenario: a network of own machines is made with commands alone: keys of two nodes and an operator, a root key, a network file
// of them, which the nodes' configuration finds beside itself wherever it is checked from; nothing is written over another
// file, and what is wrong is named.
#[test]
fn a_network_is_made_by_commands() {
    let place = tempfile::tempdir().unwrap();
    let run = |words: &[&str]| {
        let mut command = pqcnet(words);
        command.current_dir(place.path());
        output(command)
    };
    let keys = |name: &str| {
        let unlock = format!("{name}.unlock");
        let file = format!("{name}.keys");
        let words = [
            "keys",
            "init",
            "--out",
            &file,
            "--key-file",
            &unlock,
            "--new-key-file",
        ];
        let (code, id, err) = run(&words);
        assert_eq!(code, Some(0), "{err}");
        id.trim().to_owned()
    };
    let [sentry, relayer, operator] = ["sentry", "relayer", "operator"].map(keys);
    let words = [
        "root",
        "init",
        "--out",
        "root.keys",
        "--key-file",
        "root.unlock",
        "--new-key-file",
    ];
    let (code, line, err) = run(&words);
    assert_eq!(code, Some(0), "{err}");
    fs::write(place.path().join("root.line"), line).unwrap();

    let nodes = [
        format!("sentry {sentry} control=192.0.2.1:7410 data=192.0.2.1:7411"),
        format!("relayer {relayer} control=192.0.2.2:7410 data=[2001:db8::2]:7411"),
        format!("operator {operator}"),
    ];
    let mut init = vec!["network", "init", "--name", "acme", "--root", "root.line"];
    for node in &nodes {
        init.extend(["--node", node]);
    }
    let (code, id, err) = run(&init);
    assert_eq!((code, id.trim().len()), (Some(0), 64), "{err}");
    let (code, shown, _) = run(&["network", "show"]);
    assert_eq!(code, Some(0));
    assert!(shown.starts_with(&format!(
        "network acme ({})\n64 shards, clients: any\n",
        id.trim()
    )));
    let line =
        format!("  {sentry}  sentry  control 192.0.2.1:7410  data 192.0.2.1:7411  bootstrap\n");
    assert!(shown.contains(&line), "{shown}");
    assert!(
        shown.contains(&format!("  {operator}  operator\n")),
        "{shown}"
    );

    // A configuration that names nothing finds its network beside itself.
    let elsewhere = place.path().join("elsewhere");
    fs::create_dir(&elsewhere).unwrap();
    fs::write(place.path().join("node.toml"), "").unwrap();
    let mut check = pqcnet(&["config", "check", "../node.toml"]);
    check.current_dir(&elsewhere);
    let (code, told, err) = output(check);
    assert_eq!(code, Some(0), "{err}");
    assert!(told.contains(id.trim()), "{told}");

    let before = fs::read(place.path().join("network.toml")).unwrap();
    let (code, _, err) = run(&init);
    assert_eq!(code, Some(2), "{err}");
    assert_eq!(fs::read(place.path().join("network.toml")).unwrap(), before);
    for (wrong, words) in [
        (
            ["--root", "root.keys"],
            "not the line that `pqcnet root init` printed",
        ),
        (["--bootstrap", "zz"], "no node's id begins so"),
        (["--name", "Acme!"], "Acme!"),
        (["--node", "relayer 0a1b"], "0a1b"),
        (["--node", &nodes[2]], "twice"),
        (
            ["--node", &format!("watcher {operator}")],
            "no program for a watcher",
        ),
    ] {
        let out = ["--out", "other.toml"];
        let mut words_of = init.clone();
        if let Some(at) = (wrong[0] != "--node")
            .then(|| words_of.iter().position(|word| *word == wrong[0]))
            .flatten()
        {
            words_of.drain(at..at + 2);
        }
        words_of.extend(wrong.iter().copied().chain(out));
        let (code, _, err) = run(&words_of);
        assert_eq!(code, Some(2), "{wrong:?}: {err}");
        assert!(err.contains(words), "{wrong:?}: {err}");
        assert!(!place.path().join("other.toml").exists());
    }
}
