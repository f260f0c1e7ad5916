//! Whole local networks: messages, exit codes of what can go wrong, admin pages, stopping.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::process::Stdio;
use std::time::Duration;

use nix::sys::signal::Signal;
use pqcnet_node::Role;
use pqcnet_node::local::folder::{LocalFolder, LocalNode};

use crate::{Node, output, path, pqcnet, signal};

pub(crate) struct Network {
    folder: LocalFolder,
    pub(crate) nodes: Vec<LocalNode>,
    _place: tempfile::TempDir,
}

impl Network {
    pub(crate) fn create() -> Network {
        let place = tempfile::tempdir().unwrap();
        let folder = LocalFolder::create(&place.path().join("net"), 2).unwrap();
        Network {
            nodes: folder.nodes().unwrap(),
            folder,
            _place: place,
        }
    }

    pub(crate) fn state(&self) -> &str {
        path(self.folder.root())
    }

    fn node(&self, role: Role) -> &LocalNode {
        self.nodes.iter().find(|node| node.role == role).unwrap()
    }
}

/// Asks for the network's status until it is as it should be, by exit code and number of problems: who dials whom on the control
/// plane is settled within seconds of a start, not at once. The last answer, when it never is.
fn settled(state: &[&str], is_so: impl Fn(Option<i32>, usize) -> bool) -> (Option<i32>, String) {
    let mut told = (None, String::new());
    for _ in 0..30 {
        let (code, document, _) = output(pqcnet(&[&["status", "-o", "json"][..], state].concat()));
        let all: serde_json::Value = serde_json::from_str(&document).unwrap_or_default();
        let problems = all["problems"].as_array().map_or(0, Vec::len);
        told = (code, document);
        if all["starting"] == false && is_so(code, problems) {
            break;
        }
        std::thread::sleep(Duration::from_secs(1));
    }
    told
}

// Scenario: lines go in by standard input and by arguments, come out in order, resume after a stored offset; whoever is not
// on the access list is refused; every node stops cleanly on SIGTERM.
#[test]
fn messages_go_through_and_resume() {
    let network = Network::create();
    let nodes: Vec<Node> = network.nodes.iter().map(Node::start).collect();
    let state = ["--state", network.state()];

    let mut publish = pqcnet(&[&["publish", "orders"][..], &state].concat());
    let mut child = publish
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(b"one\n\nthree")
        .unwrap();
    let done = child.wait_with_output().unwrap();
    assert_eq!(
        (done.status.code(), done.stdout.as_slice()),
        (Some(0), &b"1\n2\n3\n"[..])
    );
    let (code, offsets, _) = output(pqcnet(
        &[&["publish", "orders", "four"][..], &state].concat(),
    ));
    assert_eq!((code, offsets.as_str()), (Some(0), "4\n"));

    let stored = network.folder.root().join("offset");
    let resume = ["--store-offset", path(&stored)];
    let read = |count| {
        output(pqcnet(
            &[
                &["subscribe", "orders", "--count", count][..],
                &state,
                &resume,
            ]
            .concat(),
        ))
    };
    let (code, text, err) = read("3");
    assert_eq!((code, text.as_str()), (Some(0), "one\n\nthree\n"), "{err}");
    assert_eq!(fs::read_to_string(&stored).unwrap(), "3\n");
    assert_eq!(read("1").1, "four\n");

    let owner = network.folder.keys_of("client");
    let owner = pqcnet_crypto::keystore::summary(&owner)
        .unwrap()
        .node_id()
        .unwrap()
        .to_string();
    let stranger = [
        "subscribe",
        "orders",
        "--count",
        "1",
        "--as",
        "reader",
        "--owner",
        &owner,
    ];
    let (code, text, err) = output(pqcnet(&[&stranger[..], &state].concat()));
    assert_eq!((code, text.as_str()), (Some(5), ""), "{err}");
    assert!(err.contains("may not read `orders`"), "{err}");
    assert!(err.contains("pqcnet publish orders --reader"), "{err}");

    let (code, document) = settled(&state, |code, _| code == Some(0));
    let all: serde_json::Value = serde_json::from_str(&document).unwrap();
    let reports = all["nodes"].as_array().unwrap().clone();
    assert_eq!((code, reports.len()), (Some(0), 3), "{document}");
    assert_eq!(all["problems"], serde_json::json!([]));
    let mut names: Vec<&str> = reports
        .iter()
        .map(|report| report["name"].as_str().unwrap())
        .collect();
    names.sort_unstable();
    assert_eq!(names, ["relayer-1", "relayer-2", "sentry-1"]);
    let shards = reports
        .iter()
        .flat_map(|report| report["shards"].as_array().unwrap());
    assert_eq!(
        shards
            .map(|shard| shard["records"].as_u64().unwrap())
            .sum::<u64>(),
        4
    );
    let planes = |report: &serde_json::Value, plane: &str| {
        report["links"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|link| link["plane"] == plane)
            .count()
    };
    for report in &reports {
        assert_eq!(
            planes(report, "control"),
            2,
            "every pair has one control link: {document}"
        );
    }
    assert_eq!(
        output(pqcnet(&[&["ping", "-c", "2"][..], &state].concat())).0,
        Some(0)
    );
    for node in nodes.into_iter().rev() {
        assert_eq!(node.stop(), Some(0));
    }
}

// Scenario: nobody there is 4; a node that misses a neighbour says so, with 3; a stranger's keys are refused with 5; the
// admin pages agree.
#[test]
fn exit_codes_say_what_is_wrong() {
    let network = Network::create();
    let state = ["--state", network.state()];
    assert_eq!(
        output(pqcnet(&[&["status"][..], &state].concat())).0,
        Some(4)
    );
    assert_eq!(
        output(pqcnet(&[&["ping", "-c", "1"][..], &state].concat())).0,
        Some(4)
    );

    let sentry = network.node(Role::Sentry);
    let relayer = Node::start(network.node(Role::Relayer));
    let running = Node::start(sentry);
    let id = sentry.id.to_string();
    let (code, text, _) = output(pqcnet(&[&["status", &id][..], &state].concat()));
    assert_eq!(code, Some(3), "{text}");
    let missing = &network.nodes[1];
    let what = format!(
        "no link to {} ({}) on the data plane",
        missing.name,
        missing.id.short()
    );
    assert!(text.contains("critical  data-link-down"), "{text}");
    assert!(text.contains(&what), "{text}");
    assert!(text.contains("fix       start the peer"), "{text}");
    // By name, and all of them: the relayer that is not there is the one problem, its shards and links hang on it.
    let (code, document) = settled(&state, |_, problems| problems == 1);
    let all: serde_json::Value = serde_json::from_str(&document).unwrap();
    assert_eq!(code, Some(4), "{document}");
    let problems = all["problems"].as_array().unwrap();
    assert_eq!(problems.len(), 1, "{document}");
    assert_eq!(problems[0]["code"], "node-unreachable");
    let explained = problems[0]["explains"].as_array().unwrap();
    let shards = explained
        .iter()
        .filter(|told| told.as_str().unwrap().starts_with("shard "));
    assert_eq!(shards.count(), 8, "{document}");
    let (code, text, _) = output(pqcnet(&[&["ping", "relayer-2"][..], &state].concat()));
    assert_eq!(code, Some(4), "{text}");
    assert!(
        text.contains("relayer-2 (") && text.contains("unreachable at the step route"),
        "{text}"
    );
    let (code, text, _) = output(pqcnet(
        &[&["ping", "sentry-1", "-c", "1"][..], &state].concat(),
    ));
    assert_eq!(code, Some(0), "{text}");
    for step in ["route", "KEM", "signature", "role", "data"] {
        assert!(text.contains(&format!("\n  {step:<10} ")), "{step}: {text}");
    }
    // Keys that are no operator's are at fault, not the nodes that refuse them.
    let client = [&["status", "sentry-1", "--as", "client"][..], &state].concat();
    let (code, text, err) = output(pqcnet(&client));
    assert_eq!((code, text.as_str()), (Some(5), ""), "{err}");
    assert!(err.contains("are a client's"), "{err}");
    assert!(err.contains("use an operator's keys"), "{err}");
    let (code, _, err) = output(pqcnet(&[&["status", "sentri-1"][..], &state].concat()));
    assert_eq!(code, Some(2));
    assert!(err.contains("did you mean `sentry-1`?"), "{err}");
    assert_eq!(running.page("/livez"), (200, "ok\n".to_owned()));
    let (_, verbose) = running.page("/readyz?verbose");
    assert!(verbose.contains("problem: no link to"), "{verbose}");
    let (status, verbose) = relayer.page("/readyz?verbose");
    assert_eq!(status, 200, "{verbose}");
    let (status, metrics) = relayer.page("/metrics");
    assert_eq!(status, 200);
    for name in [
        "pqcnet_serving 1",
        "pqcnet_dead_letters_total",
        "pqcnet_actor_handled_total{actor=\"relayer/steward\"}",
    ] {
        assert!(metrics.contains(name), "{name}: {metrics}");
    }
    // Prometheus's own format: OpenMetrics, with its end mark, only for who asks for it.
    assert!(!metrics.contains("# EOF"), "{metrics}");

    let keys = network.folder.root().join("stranger.keys");
    let unlock = network.folder.root().join("unlock.key");
    let made = [
        "keys",
        "init",
        "--out",
        path(&keys),
        "--key-file",
        path(&unlock),
    ];
    assert_eq!(output(pqcnet(&made)).0, Some(0));
    let file = network.folder.network_path();
    let stranger = [
        "--network",
        path(&file),
        "--keys",
        path(&keys),
        "--key-file",
        path(&unlock),
    ];
    for words in [&["publish", "orders", "x"][..], &["status", &id]] {
        let (code, _, err) = output(pqcnet(&[words, &stranger].concat()));
        assert_eq!(code, Some(5), "{words:?}: {err}");
    }
}

// Scenario: a node that the network does not list with its role does not start, and says which ids have it.
#[test]
fn a_role_that_is_not_granted_does_not_start() {
    let network = Network::create();
    let sentry = network.node(Role::Sentry);
    let mut command = std::process::Command::new(crate::binary("pqcnet-relayer"));
    command
        .arg("--config")
        .arg(&sentry.config)
        .stdin(Stdio::null());
    let (code, out, err) = output(command);
    assert_eq!((code, out.as_str()), (Some(2), ""));
    assert!(
        err.contains(&format!(
            "does not grant {} the role relayer",
            sentry.id.short()
        )),
        "{err}"
    );
}

// Scenario: keys that others may read stop the start, and the message says how to close them.
#[test]
fn open_keys_stop_the_start() {
    let network = Network::create();
    let relayer = network.node(Role::Relayer);
    let keys = relayer.config.with_file_name("node.keys");
    fs::set_permissions(&keys, fs::Permissions::from_mode(0o644)).unwrap();
    let mut command = std::process::Command::new(crate::binary("pqcnet-relayer"));
    command
        .arg("--config")
        .arg(&relayer.config)
        .stdin(Stdio::null());
    let (code, out, err) = output(command);
    assert_eq!((code, out.as_str()), (Some(2), ""));
    assert!(err.contains("chmod 600"), "{err}");
}

// Scenario: a port that is taken is a failure, not a usage error, and names the address.
#[test]
fn a_taken_port_is_named() {
    let network = Network::create();
    let relayer = network.node(Role::Relayer);
    let _taken = std::net::TcpListener::bind(relayer.data.to_string()).unwrap();
    let mut command = std::process::Command::new(crate::binary("pqcnet-relayer"));
    command
        .arg("--config")
        .arg(&relayer.config)
        .stdin(Stdio::null());
    let (code, _, err) = output(command);
    assert_eq!(code, Some(1));
    assert!(
        err.contains(&format!("cannot listen at {}", relayer.data)),
        "{err}"
    );
}

// Scenario: the end of standard input stops a node that was told so, cleanly.
#[test]
fn a_node_stops_with_its_parent() {
    let network = Network::create();
    let mut node = Node::start(network.node(Role::Relayer));
    drop(node.stdin.take());
    assert_eq!(node.child.wait().unwrap().code(), Some(0));
}

// Scenario: `up` prints where everything is, serves until Ctrl-C, stops every node cleanly, and the same folder comes up again
// with what was stored.
#[test]
fn up_keeps_a_network_and_its_messages() {
    let place = tempfile::tempdir().unwrap();
    let state = place.path().join("net");
    for round in 1..=2 {
        let mut up = pqcnet(&["up", "--state", path(&state)]);
        let mut child = up
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap())
            .lines()
            .map(Result::unwrap);
        let told: Vec<String> = lines
            .take_while(|line| !line.contains("stop: Ctrl-C"))
            .collect();
        assert_eq!(
            told.iter()
                .filter(|line| line.contains("admin http://127.0.0.1:"))
                .count(),
            3
        );
        let text = format!("round {round}");
        let published = output(pqcnet(&["publish", "--state", path(&state), "log", &text]));
        assert_eq!(published.1, format!("{round}\n"), "{}", published.2);
        signal(&child, Signal::SIGINT);
        let done = child.wait_with_output().unwrap();
        let told = String::from_utf8(done.stderr).unwrap();
        assert_eq!(done.status.code(), Some(0), "{told}");
        assert_eq!(told.matches("exit status: 0").count(), 3, "{told}");
    }
}

// Scenario: `subscribe x | head -1`: the reader goes away with its line, and the command ends by itself and quietly though no
// further record ever comes; a line that is too long is named with its length, and is a usage error.
#[test]
fn a_reader_that_goes_away_ends_a_subscription() {
    let network = Network::create();
    let _nodes: Vec<Node> = network.nodes.iter().map(Node::start).collect();
    let state = ["--state", network.state()];
    assert_eq!(
        output(pqcnet(
            &[&["publish", "orders", "one", "two"][..], &state].concat()
        ))
        .0,
        Some(0)
    );
    let mut subscribe = pqcnet(&[&["subscribe", "orders"][..], &state].concat())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut reader = BufReader::new(subscribe.stdout.take().unwrap());
    let mut line = String::new();
    reader.read_line(&mut line).unwrap();
    assert_eq!(line, "one\n");
    drop(reader);
    let done = subscribe.wait_with_output().unwrap();
    assert_eq!(
        (done.status.code(), done.stderr.as_slice()),
        (Some(0), &b""[..])
    );

    let mut publish = pqcnet(&[&["publish", "orders"][..], &state].concat())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut text = vec![b'a'; 70_000];
    text.push(b'\n');
    publish.stdin.take().unwrap().write_all(&text).unwrap();
    let done = publish.wait_with_output().unwrap();
    let told = String::from_utf8(done.stderr).unwrap();
    assert_eq!(done.status.code(), Some(2), "{told}");
    assert!(
        told.contains("70000 bytes; a message has at most 65536"),
        "{told}"
    );
}

// Scenario: a second `up` on the same folder is told that a network runs there. In the first one node drains, and the others go on; when one
// dies, the reason comes before how the others were stopped, and the code is a failure's.
#[test]
fn a_folder_holds_one_network_and_a_dead_node_is_named_first() {
    let place = tempfile::tempdir().unwrap();
    let state = place.path().join("net");
    let mut up = pqcnet(&["up", "--state", path(&state)])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(up.stdout.take().unwrap())
        .lines()
        .map(Result::unwrap);
    let told: Vec<String> = lines
        .by_ref()
        .take_while(|line| !line.contains("stop: Ctrl-C"))
        .collect();
    let (code, _, err) = output(pqcnet(&["up", "--state", path(&state)]));
    assert_eq!(code, Some(2), "{err}");
    assert!(
        err.contains(&format!(
            "a network already runs in {}, process {}",
            path(&state),
            up.id()
        )),
        "{err}"
    );

    let kill = |name: &str, signal| {
        let line = told.iter().find(|line| line.trim_start().starts_with(name));
        let pid = line.unwrap().rsplit(' ').next().unwrap().parse().unwrap();
        let pid = nix::unistd::Pid::from_raw(pid);
        nix::sys::signal::kill(pid, signal).unwrap();
        pid
    };
    let drained = kill("relayer-2", Signal::SIGTERM);
    let gone = (0..300).any(|_| {
        std::thread::sleep(Duration::from_millis(100));
        nix::sys::signal::kill(drained, None).is_err()
    });
    assert!(gone, "relayer-2 does not end");
    kill("relayer-1", Signal::SIGKILL);
    let done = up.wait_with_output().unwrap();
    let told = String::from_utf8(done.stderr).unwrap();
    assert_eq!(done.status.code(), Some(1), "{told}");
    let lines: Vec<&str> = told.lines().collect();
    assert_eq!(
        lines[0],
        "relayer-2 has drained and ended; the others go on"
    );
    assert!(
        lines[1].contains("relayer-1 ended by itself: signal: 9"),
        "{told}"
    );
    assert_eq!(lines[2], "stopping the others", "{told}");
    assert_eq!(told.matches("exit status: 0").count(), 1, "{told}");
}

// Scenario: a network's folder is full of secrets, and its logs and configuration were given some more. The bundle holds what helps,
// and none of them in any of its files.
#[test]
fn a_bundle_holds_no_secret() {
    let network = Network::create();
    let nodes: Vec<Node> = network.nodes.iter().map(Node::start).collect();
    let root = network.folder.root();
    let unlock = fs::read(root.join("unlock.key")).unwrap();
    let relayer = network.node(Role::Relayer);
    let phrase = "correct horse battery staple";
    let seed = hex::encode([0x5e; 48]);
    let mut secrets = vec![
        hex::encode(&unlock),
        phrase.to_owned(),
        seed.clone(),
        "hunter2hunter2".to_owned(),
        "QmFzZTY0c2VjcmV0MTIzNDU2Nzg5MDEyMzQ1Njc4OTAxMjM0NTY3".to_owned(),
    ];
    let log = format!(
        "INFO link open peer={}\nDEBUG opened with {phrase}\nTRACE seed {seed}\nDEBUG unlock {}\nGET /ui token=hunter2hunter2\n\
         WARN passphrase: hunter2hunter2\nauthorization: Bearer {}\n",
        relayer.id, secrets[0], secrets[4],
    );
    fs::write(root.join("relayer-1").join("log.txt"), &log).unwrap();
    let page = root.join("relayer-1").join("page.url");
    let token = fs::read_to_string(&page).unwrap_or_default();
    secrets.extend(
        token
            .trim()
            .rsplit('#')
            .next()
            .filter(|token| token.len() > 8)
            .map(str::to_owned),
    );
    let out = root.join("bundle.tar");
    let mut command = pqcnet(&["bundle", "--state", network.state(), "--out", path(&out)]);
    command.env("PQCNET_PASSPHRASE", phrase);
    let (code, told, err) = output(command);
    assert_eq!(code, Some(0), "{err}");
    assert_eq!(told.trim(), path(&out));
    assert_eq!(
        fs::metadata(&out).unwrap().permissions().mode() & 0o777,
        0o600
    );

    let bytes = fs::read(&out).unwrap();
    let holds = |needle: &[u8]| bytes.windows(needle.len()).any(|window| window == needle);
    for secret in &secrets {
        assert!(!holds(secret.as_bytes()), "{secret}");
    }
    assert!(!holds(&unlock));
    for keys in [
        "operator.keys",
        "client.keys",
        "root.keys",
        "relayer-1/node.keys",
    ] {
        let sealed = fs::read(root.join(keys)).unwrap();
        assert!(!holds(&sealed[sealed.len() - 64..]), "{keys}");
    }
    // What is not there makes no bundle.
    let none = root.join("none.toml");
    for words in [
        &["bundle", path(&none)][..],
        &["bundle", "--state", network.state(), "--log", path(&none)],
    ] {
        let out = root.join("second.tar");
        let (code, _, err) = output(pqcnet(&[words, &["--out", path(&out)]].concat()));
        assert_eq!(code, Some(2), "{err}");
        assert!(err.contains("none.toml"), "{err}");
        assert!(!out.exists());
    }
    let id = relayer.id.to_string();
    for useful in [
        "versions.txt",
        "status.json",
        "relayer-1/config.txt",
        "relayer-1/network.toml",
        "relayer-1/doctor.json",
        "sentry-1/config.txt",
        "logs/relayer-1.txt",
        "INFO link open peer=",
        id.as_str(),
        "[redacted]",
        "listen.data",
    ] {
        assert!(holds(useful.as_bytes()), "{useful}");
    }
    drop(nodes);
}
