//! `pqcnet doctor` on a node that is well, and on one with each of many things broken.

use std::collections::BTreeSet;
use std::fs::{self, File, Permissions};
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime};

use pqcnet_node::Role;
use pqcnet_node::local::folder::{LocalFolder, LocalNode};

use crate::{Node, binary, output, path, pqcnet};

/// A network whose every node runs but one.
struct Ward {
    patient: LocalNode,
    _nurses: Vec<Node>,
    root: PathBuf,
    _place: tempfile::TempDir,
}

impl Ward {
    fn new(patient: Role, relayers: usize) -> Ward {
        let place = tempfile::tempdir().unwrap();
        let root = place.path().join("net");
        let nodes = LocalFolder::create(&root, relayers)
            .unwrap()
            .nodes()
            .unwrap();
        let (patients, others): (Vec<_>, Vec<_>) =
            nodes.into_iter().partition(|node| node.role == patient);
        Ward {
            patient: patients[0].clone(),
            _nurses: others.iter().map(Node::start).collect(),
            root,
            _place: place,
        }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    fn config(&self) -> String {
        fs::read_to_string(&self.patient.config).unwrap()
    }

    fn network(&self) -> String {
        fs::read_to_string(self.file("network.toml")).unwrap()
    }

    /// The patient's configuration under another name, changed.
    fn changed_config(&self, change: impl FnOnce(String) -> String) -> PathBuf {
        let path = self.patient.config.with_file_name("changed.toml");
        fs::write(&path, change(self.config())).unwrap();
        path
    }

    /// The network file under another name, changed, and the flag that uses it.
    fn changed_network(&self, change: impl FnOnce(String) -> String) -> String {
        let path = self.file("changed-network.toml");
        fs::write(&path, change(self.network())).unwrap();
        format!("network={}", path.display())
    }
}

/// The codes that the doctor names, each once; with its exit code checked.
fn diagnosed(config: &Path, set: &[String]) -> (BTreeSet<String>, String) {
    let mut command = pqcnet(&["doctor", path(config), "-o", "json"]);
    for flag in set {
        command.args(["--set", flag]);
    }
    named(command)
}

fn named(command: Command) -> (BTreeSet<String>, String) {
    let (code, document, err) = output(command);
    let all: serde_json::Value =
        serde_json::from_str(&document).unwrap_or_else(|_| panic!("{document}{err}"));
    let checks = all["checks"].as_array().unwrap();
    let failed = checks.iter().filter(|check| check["state"] == "failed");
    let codes: BTreeSet<String> = failed
        .map(|check| {
            let fix = check["fix"].as_str().unwrap();
            let code = check["code"].as_str().unwrap();
            assert!(
                fix.ends_with(&format!("docs/runbooks/doctor.md#{code}")),
                "{fix}"
            );
            code.to_owned()
        })
        .collect();
    let expected = if codes.is_empty() { Some(0) } else { Some(3) };
    assert_eq!(code, expected, "{document}");
    (codes, document)
}

/// Counts what was diagnosed exactly: this code and no other.
#[derive(Default)]
struct Score {
    broken: usize,
    exact: usize,
    misses: Vec<String>,
}

impl Score {
    fn judge(&mut self, what: &str, code: &str, (codes, document): (BTreeSet<String>, String)) {
        self.broken += 1;
        if codes.iter().eq([code]) {
            self.exact += 1;
            eprintln!("exact  {code:<26} {what}");
        } else {
            eprintln!("MISS   {code:<26} {what}: {codes:?}");
            self.misses.push(format!("{what}: {codes:?} {document}"));
        }
    }
}

/// Accepts and answers every connection with these words; with none, it keeps them waiting.
#[expect(
    clippy::disallowed_methods,
    reason = "a listener of the test, which ends with its process"
)]
fn impostor(words: &'static [u8]) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let at = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        let mut held = Vec::new();
        while let Ok((mut stream, _)) = listener.accept() {
            if !words.is_empty() {
                let mut some = [0; 64];
                if stream.read(&mut some).is_err() || stream.write_all(words).is_err() {
                    continue;
                }
            }
            held.push(stream);
        }
    });
    at
}

fn closed_port() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
}

fn replaced(text: &str, from: &str, to: &str) -> String {
    assert!(text.contains(from), "no `{from}` in {text}");
    text.replace(from, to)
}

/// Without the line that would give an edit away.
fn without_id(text: &str) -> String {
    let lines = text.lines().filter(|line| !line.starts_with("network_id"));
    lines.collect::<Vec<_>>().join("\n")
}

/// Other files that stand where a node's belong.
fn strangers(place: &Path, unlock: &Path) -> (PathBuf, PathBuf) {
    let keys = place.join("stranger.keys");
    let made = [
        "keys",
        "init",
        "--out",
        path(&keys),
        "--key-file",
        path(unlock),
    ];
    assert_eq!(output(pqcnet(&made)).0, Some(0));
    let other = place.join("other-unlock.key");
    fs::write(&other, [7; 32]).unwrap();
    fs::set_permissions(&other, Permissions::from_mode(0o600)).unwrap();
    (keys, other)
}

// Scenario: a sentry that is well passes every check. Then, one at a time, its configuration, keys, permissions, network file,
// identity, limits, clock, ports and peers are broken, and a relayer's store. At least nineteen in twenty are diagnosed with
// exactly the code that names what was broken. (A mute peer takes the handshake's ten seconds; it goes on beside the rest.)
#[test]
fn twenty_and_more_broken_things_are_named() {
    let ward = Ward::new(Role::Sentry, 2);
    let config = &ward.patient.config;
    let well = diagnosed(config, &[]);
    assert_eq!(well.0, BTreeSet::new(), "{}", well.1);
    let mut score = Score::default();
    let relayers: Vec<LocalNode> = LocalFolder::open(&ward.root).unwrap().nodes().unwrap();
    let data = |n: usize| relayers[n].data.to_string();

    let mute = impostor(b"");
    let mute_network = replaced(&ward.network(), &data(0), &mute.to_string());
    fs::write(ward.file("mute.toml"), mute_network).unwrap();
    let waiting = pqcnet(&[
        "doctor",
        path(config),
        "-o",
        "json",
        "--set",
        &format!("network={}", ward.file("mute.toml").display()),
    ])
    .stdout(std::process::Stdio::piped())
    .spawn()
    .unwrap();

    configurations(&ward, &mut score);
    files(&ward, &mut score);
    networks(&ward, &mut score);
    surroundings(&ward, &mut score);

    let flag = ward.changed_network(|text| replaced(&text, &data(0), &closed_port().to_string()));
    score.judge(
        "nobody at a relayer's address",
        "peer-unreachable",
        diagnosed(config, &[flag]),
    );
    let web =
        impostor(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Length: 0\r\n\r\n");
    let flag = ward.changed_network(|text| replaced(&text, &data(0), &web.to_string()));
    score.judge(
        "a web server at a relayer's address",
        "peer-not-pqcnet",
        diagnosed(config, &[flag]),
    );
    let flag = ward.changed_network(|text| {
        replaced(
            &without_id(&text),
            "name = \"local\"",
            "name = \"elsewhere\"",
        )
    });
    score.judge(
        "another network file than the relayers'",
        "peer-other-network",
        diagnosed(config, &[flag]),
    );
    let flag = ward.changed_network(|text| replaced(&text, &data(0), &data(1)));
    score.judge(
        "a relayer listed at another's address",
        "peer-other-identity",
        diagnosed(config, &[flag]),
    );
    let flag = ward
        .changed_network(|text| replaced(&text, &format!("data = [\"{}\"]", data(0)), "data = []"));
    score.judge(
        "a relayer without a data address",
        "peer-no-address",
        diagnosed(config, &[flag]),
    );
    let control = relayers[0].control.to_string();
    let flag = ward.changed_network(|text| replaced(&text, &control, &closed_port().to_string()));
    score.judge(
        "a wrong control address",
        "peer-control-unreachable",
        diagnosed(config, &[flag]),
    );

    let told = waiting.wait_with_output().unwrap();
    let all: serde_json::Value = serde_json::from_slice(&told.stdout).unwrap();
    let failed = all["checks"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|check| check["state"] == "failed");
    let codes = failed
        .map(|check| check["code"].as_str().unwrap().to_owned())
        .collect();
    score.judge(
        "a peer that takes connections and says nothing",
        "peer-mute",
        (codes, all.to_string()),
    );

    stores(&mut score);
    println!("diagnosed exactly: {} of {}", score.exact, score.broken);
    assert!(score.broken >= 20, "{}", score.broken);
    assert!(score.exact * 20 >= score.broken * 19, "{:#?}", score.misses);
}

fn configurations(ward: &Ward, score: &mut Score) {
    let none = ward.file("none.toml");
    score.judge(
        "no configuration file",
        "config-missing",
        diagnosed(&none, &[]),
    );
    for (what, code, line) in [
        (
            "a quote that is not closed",
            "config-syntax",
            "\n[log]\nlevel = \"info\n",
        ),
        (
            "a misspelt key",
            "config-unknown-key",
            "\n[log]\nlevle = \"info\"\n",
        ),
        (
            "a number in quotes",
            "config-wrong-type",
            "\n[drain]\nseconds = \"9\"\n",
        ),
        (
            "a level that is none",
            "config-bad-value",
            "\n[log]\nlevel = \"loud\"\n",
        ),
    ] {
        let file = ward.changed_config(|text| text + line);
        score.judge(what, code, diagnosed(&file, &[]));
    }
    let open = "admin.listen=0.0.0.0:0".to_owned();
    score.judge(
        "admin pages for everybody",
        "config-unsafe",
        diagnosed(&ward.patient.config, &[open]),
    );
    let mut command = pqcnet(&["doctor", path(&ward.patient.config), "-o", "json"]);
    command.env("PQCNET_LISEN_DATA", "127.0.0.1:1");
    score.judge("a misspelt variable", "config-unknown-key", named(command));
}

fn files(ward: &Ward, score: &mut Score) {
    let config = &ward.patient.config;
    let keys = config.with_file_name("node.keys");
    let unlock = ward.file("unlock.key");
    let (stranger, other_unlock) = strangers(&ward.root, &unlock);
    let none = ward.file("none").display().to_string();
    let with = |key: &str, path: &Path| vec![format!("{key}={}", path.display())];

    score.judge(
        "no key file",
        "keys-missing",
        diagnosed(config, &[format!("keys={none}")]),
    );
    fs::set_permissions(&keys, Permissions::from_mode(0o644)).unwrap();
    score.judge(
        "keys that others may read",
        "keys-open",
        diagnosed(config, &[]),
    );
    fs::set_permissions(&keys, Permissions::from_mode(0o600)).unwrap();
    let cut = ward.file("cut.keys");
    let bytes = fs::read(&keys).unwrap();
    fs::write(&cut, &bytes[..bytes.len() / 2]).unwrap();
    fs::set_permissions(&cut, Permissions::from_mode(0o600)).unwrap();
    score.judge(
        "half a key file",
        "keys-damaged",
        diagnosed(config, &with("keys", &cut)),
    );
    let root = ward.file("root.keys");
    score.judge(
        "the root's keys",
        "keys-wrong-kind",
        diagnosed(config, &with("keys", &root)),
    );
    score.judge(
        "no unlock file",
        "unlock-missing",
        diagnosed(config, &[format!("unlock.key_file={none}")]),
    );
    score.judge(
        "another unlock file",
        "unlock-wrong",
        diagnosed(config, &with("unlock.key_file", &other_unlock)),
    );
    fs::set_permissions(&other_unlock, Permissions::from_mode(0o640)).unwrap();
    score.judge(
        "an open unlock file",
        "keys-open",
        diagnosed(config, &with("unlock.key_file", &other_unlock)),
    );
    score.judge(
        "keys of nobody in the network",
        "identity-unlisted",
        diagnosed(config, &with("keys", &stranger)),
    );
    let mut command = pqcnet(&["doctor", path(config), "-o", "json", "--role", "relayer"]);
    command.env_remove("PQCNET_KEYS");
    score.judge(
        "a sentry's keys for a relayer",
        "role-not-granted",
        named(command),
    );
}

fn networks(ward: &Ward, score: &mut Score) {
    let config = &ward.patient.config;
    let none = format!("network={}", ward.file("none").display());
    score.judge(
        "no network file",
        "network-missing",
        diagnosed(config, &[none]),
    );
    let flag = ward.changed_network(|text| text + "\n[[node]\n");
    score.judge(
        "a broken table",
        "network-syntax",
        diagnosed(config, &[flag]),
    );
    let flag = ward.changed_network(|text| replaced(&text, "shards = 16", "shards = 8"));
    score.judge(
        "a network file edited by hand",
        "network-edited",
        diagnosed(config, &[flag]),
    );
    let flag =
        ward.changed_network(|text| replaced(&without_id(&text), "shards = 16", "shards = 0"));
    score.judge(
        "a network without shards",
        "network-invalid",
        diagnosed(config, &[flag]),
    );
    let moved = format!("listen.data={}", closed_port());
    score.judge(
        "a listener where nobody looks",
        "address-differs",
        diagnosed(config, &[moved]),
    );
}

fn surroundings(ward: &Ward, score: &mut Score) {
    let config = &ward.patient.config;
    let keys = config.with_file_name("node.keys");
    let written = fs::metadata(&keys).unwrap().modified().unwrap();
    let later = written + Duration::from_secs(400 * 86_400);
    File::options()
        .write(true)
        .open(&keys)
        .unwrap()
        .set_modified(later)
        .unwrap();
    score.judge(
        "a clock a year behind",
        "clock-wrong",
        diagnosed(config, &[]),
    );
    let reset: SystemTime = written;
    File::options()
        .write(true)
        .open(&keys)
        .unwrap()
        .set_modified(reset)
        .unwrap();

    let mut limited = Command::new("sh");
    let doctor = format!(
        "ulimit -n 256; exec {} doctor {} -o json",
        path(&binary("pqcnet")),
        path(config)
    );
    limited.args(["-c", &doctor]);
    score.judge("256 descriptors", "descriptors-low", named(limited));
    let squatter = TcpListener::bind(ward.patient.data.to_string()).unwrap();
    score.judge(
        "somebody else at the data port",
        "port-taken",
        diagnosed(config, &[]),
    );
    drop(squatter);
    let clash = format!("admin.listen={}", ward.patient.data);
    score.judge(
        "two listeners at one address",
        "port-clash",
        diagnosed(config, &[clash]),
    );
    let foreign = [
        "admin.public=true".to_owned(),
        "admin.listen=192.0.2.1:7412".to_owned(),
    ];
    score.judge(
        "another machine's address",
        "address-not-local",
        diagnosed(config, &foreign),
    );
}

fn stores(score: &mut Score) {
    let ward = Ward::new(Role::Relayer, 1);
    let config = &ward.patient.config;
    let well = diagnosed(config, &[]);
    assert_eq!(well.0, BTreeSet::new(), "{}", well.1);
    let with = |path: &Path| vec![format!("store.path={}", path.display())];
    let file = ward.file("a-file");
    fs::write(&file, "x").unwrap();
    score.judge(
        "a file in the store's place",
        "store-unwritable",
        diagnosed(config, &with(&file)),
    );
    let photos = ward.file("photos");
    fs::create_dir(&photos).unwrap();
    fs::write(photos.join("beach.jpg"), "x").unwrap();
    score.judge(
        "a folder of something else",
        "store-foreign",
        diagnosed(config, &with(&photos)),
    );
    let newer = ward.file("newer");
    fs::create_dir(&newer).unwrap();
    fs::write(newer.join("FORMAT"), "pqcnet-store shard-log 999\n").unwrap();
    score.judge(
        "a newer program's store",
        "store-newer",
        diagnosed(config, &with(&newer)),
    );

    let room = ["disk.low_mib=1000000000".to_owned()];
    score.judge(
        "less room than is asked for",
        "disk-low",
        diagnosed(config, &room),
    );
    let node = Node::start(&ward.patient);
    let running = diagnosed(config, &[]);
    assert_eq!(
        running.0,
        BTreeSet::new(),
        "a node that runs is no fault: {}",
        running.1
    );
    let elsewhere = ward.changed_config(|text| {
        let text = replaced(&text, &ward.patient.data.to_string(), "127.0.0.1:0");
        replaced(&text, &ward.patient.control.to_string(), "127.0.0.1:0")
    });
    let (mut codes, document) = diagnosed(&elsewhere, &[]);
    // Its ports are meant to differ here: what matters is who holds the store.
    codes.remove("address-differs");
    score.judge(
        "a store that another process holds",
        "store-locked",
        (codes, document),
    );
    assert_eq!(node.stop(), Some(0));

    let store = config.with_file_name("store").join("db");
    let manifest = fs::read_dir(&store)
        .unwrap()
        .flatten()
        .map(|entry| entry.path());
    let manifest = manifest.filter(|path| {
        path.file_name()
            .unwrap()
            .to_string_lossy()
            .starts_with("MANIFEST")
    });
    let manifest = manifest.last().unwrap();
    let mut bytes = fs::read(&manifest).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0xff;
    fs::write(&manifest, bytes).unwrap();
    score.judge(
        "a flipped byte in the store",
        "store-damaged",
        diagnosed(config, &[]),
    );
}
