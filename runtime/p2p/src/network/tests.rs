use super::*;

fn id(n: u8) -> NodeId {
    NodeId::from_bytes([n; 32])
}

fn node(n: u8, roles: &[Role]) -> NodeEntry {
    NodeEntry {
        id: id(n),
        roles: roles.iter().copied().collect(),
        control: vec!["127.0.0.1:7001".parse().unwrap()],
        data: vec!["127.0.0.1:7002".parse().unwrap()],
    }
}

fn parts() -> NetworkParts {
    NetworkParts {
        name: "first-light".into(),
        root: MlDsaPublic::from_slice(&[7; 1952]).unwrap(),
        shards: 16,
        admission: Admission::Any,
        nodes: vec![
            node(3, &[Role::Relayer]),
            node(1, &[Role::Sentry, Role::Gateway]),
            node(2, &[Role::Relayer]),
            node(9, &[Role::Client]),
        ],
        bootstrap: vec![id(1)],
    }
}

fn text() -> String {
    NetworkFile::new(parts()).unwrap().to_toml()
}

fn refusal(text: &str) -> (usize, Problem, Option<String>) {
    match NetworkFile::parse("network.toml", text).unwrap_err() {
        NetworkFileError::Invalid {
            origin,
            line,
            problem,
            did_you_mean,
        } => {
            assert_eq!(origin, "network.toml");
            (line, *problem, did_you_mean)
        }
        other => panic!("{other}"),
    }
}

fn line_of(text: &str, needle: &str) -> usize {
    text.lines().position(|line| line.contains(needle)).unwrap() + 1
}

/// The id is a wire value: any change to its encoding splits every network.
#[test]
fn network_id_is_pinned() {
    let network = NetworkFile::new(parts()).unwrap();
    assert_eq!(
        network.network_id().to_string(),
        "fd7242252a2215740265120cde16a0b9639fd5013844cffcd67ca8da453cecc7"
    );
}

/// The id depends on everything but addresses and the order of entries.
#[test]
fn network_id_covers_all_but_addresses() {
    let base = NetworkFile::new(parts()).unwrap().network_id();
    let with = |edit: fn(&mut NetworkParts)| {
        let mut parts = parts();
        edit(&mut parts);
        NetworkFile::new(parts).unwrap().network_id()
    };
    assert_eq!(with(|p| p.nodes.reverse()), base);
    assert_eq!(with(|p| p.nodes[0].data.clear()), base);
    assert_eq!(
        with(|p| p.nodes[0].control = vec!["example.org:1".parse().unwrap()]),
        base
    );
    let edits: [fn(&mut NetworkParts); 7] = [
        |p| p.name.push('x'),
        |p| p.root = MlDsaPublic::from_slice(&[8; 1952]).unwrap(),
        |p| p.shards = 17,
        |p| p.admission = Admission::Listed,
        |p| p.nodes[0].roles = [Role::Relayer, Role::Watcher].into(),
        |p| p.nodes.truncate(3),
        |p| p.bootstrap.clear(),
    ];
    let ids: BTreeSet<NetworkId> = edits.into_iter().map(with).chain([base]).collect();
    assert_eq!(ids.len(), 8);
}

/// What is written reads back equal, and gives each question its answer.
#[test]
fn reads_back() {
    let network = NetworkFile::new(parts()).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("network.toml");
    network.write(&path).unwrap();
    assert_eq!(NetworkFile::load(&path).unwrap(), network);

    let ids = |nodes: Vec<&NodeEntry>| nodes.iter().map(|n| n.id).collect::<Vec<_>>();
    assert_eq!(ids(network.relayers()), [id(2), id(3)]);
    assert_eq!(ids(network.sentries()), [id(1)]);
    assert_eq!(ids(network.bootstrap()), [id(1)]);
    assert_eq!(
        network.roles_of(&id(1)),
        [Role::Sentry, Role::Gateway].into()
    );
    assert_eq!(network.roles_of(&id(5)), BTreeSet::new());
    assert!(network.grants(&id(5), Role::Client));
    assert!(!network.grants(&id(5), Role::Operator));
    assert!(!network.grants(&id(1), Role::Relayer));
    let mut listed = parts();
    listed.admission = Admission::Listed;
    let listed = NetworkFile::new(listed).unwrap();
    assert!(!listed.grants(&id(5), Role::Client));
    assert!(listed.grants(&id(9), Role::Client));
}

/// A misspelt key, role or rule names its line and the word that was meant.
#[test]
fn misspelling_gets_a_suggestion() {
    let good = text();
    for (right, wrong, word, meant) in [
        ("shards =", "shard =", "shard", "shards"),
        ("[admission]", "[admision]", "admision", "admission"),
        (
            "roles = [\"relayer\"]",
            "rols = [\"relayer\"]",
            "rols",
            "roles",
        ),
        ("[\"relayer\"]", "[\"relayr\"]", "relayr", "relayer"),
        ("\"any\"", "\"anny\"", "anny", "any"),
    ] {
        let bad = good.replacen(right, wrong, 1);
        let (line, problem, did_you_mean) = refusal(&bad);
        assert_eq!(line, line_of(&bad, wrong), "{wrong}");
        let Problem::Syntax(message) = problem else {
            panic!("{problem}")
        };
        assert!(message.contains(word), "{message}");
        assert_eq!(did_you_mean.as_deref(), Some(meant));
    }
    let bad = good.replacen("shards =", "colour =", 1);
    assert_eq!(refusal(&bad).2, None);
    let shown = NetworkFile::parse("network.toml", &good.replacen("shards", "shard", 1));
    let shown = shown.unwrap_err().to_string();
    assert!(
        shown.starts_with("network.toml:4: unknown field `shard`"),
        "{shown}"
    );
    assert!(shown.ends_with("(did you mean `shards`?)"), "{shown}");
}

/// Wrong types and unreadable values name their line.
#[test]
fn wrong_values_name_their_line() {
    let good = text();
    for (right, wrong) in [
        ("shards = 16", "shards = \"16\""),
        ("root = \"07", "root = \"0x"),
        ("root = \"0707", "root = \"07"),
        ("id = \"0101", "id = \"01"),
        ("network_id = \"", "network_id = \"z"),
        ("\"127.0.0.1:7002\"", "\"127.0.0.1\""),
        ("name = \"first-light\"", "name = ?"),
    ] {
        let bad = good.replacen(right, wrong, 1);
        let (line, problem, _) = refusal(&bad);
        assert_eq!(line, line_of(&bad, wrong), "{wrong}: {problem}");
        assert!(matches!(problem, Problem::Syntax(_)), "{problem}");
    }
}

/// What parses but cannot be meant is refused where it stands.
#[test]
fn every_problem_is_found() {
    let good = text();
    let node_line = |text: &str, n: u8| line_of(text, &format!("id = \"{}\"", id(n))) - 1;
    let name = good.replacen("first-light", "First light", 1);
    assert_eq!(
        refusal(&name),
        (2, Problem::Name("First light".into()), None)
    );
    for n in ["0", "4097", "70000"] {
        let bad = good.replacen("shards = 16", &format!("shards = {n}"), 1);
        assert_eq!(
            refusal(&bad),
            (4, Problem::Shards(n.parse().unwrap()), None)
        );
    }
    let twice = good.replacen(&id(3).to_string(), &id(2).to_string(), 1);
    let at = twice
        .lines()
        .enumerate()
        .filter(|(_, l)| l.contains(&id(2).to_string()))
        .last();
    let (line, problem, _) = refusal(&twice);
    assert_eq!(problem, Problem::DuplicateNode(id(2)));
    assert_eq!(line, at.unwrap().0);
    let bare = good.replacen("roles = [\"client\"]", "roles = []", 1);
    assert_eq!(
        refusal(&bare),
        (node_line(&bare, 9), Problem::NoRole(id(9)), None)
    );
    let many = good.replacen("\"127.0.0.1:7002\"", &["\"a:1\""; 9].join(","), 1);
    assert_eq!(
        refusal(&many),
        (node_line(&many, 1), Problem::TooManyAddresses(id(1)), None)
    );
    let web = good.replacen("data = [\"", "data = [\"ws://", 1);
    assert_eq!(
        refusal(&web),
        (node_line(&web, 1), Problem::DataOverWebSocket(id(1)), None)
    );
    let none = good.replace("\"relayer\"", "\"watcher\"");
    assert_eq!(refusal(&none).1, Problem::NoRelayer);
    let boot = format!("\n[[bootstrap]]\nid = \"{}\"\n", id(1));
    let doubled = format!("{good}{boot}");
    assert_eq!(refusal(&doubled).1, Problem::DuplicateBootstrap(id(1)));
    let unlisted = format!(
        "{good}{}",
        boot.replace(&id(1).to_string(), &id(8).to_string())
    );
    let (line, problem, _) = refusal(&unlisted);
    assert_eq!(problem, Problem::BootstrapUnlisted(id(8)));
    assert_eq!(line, line_of(&unlisted, &id(8).to_string()) - 1);
    let silent = good.replacen("control = [\"127.0.0.1:7001\"]", "control = []", 1);
    assert_eq!(refusal(&silent).1, Problem::BootstrapWithoutAddress(id(1)));
    let edited = good.replacen("shards = 16", "shards = 32", 1);
    let (line, problem, _) = refusal(&edited);
    assert_eq!(line, 3);
    assert!(matches!(problem, Problem::NetworkIdMismatch { .. }));
    let mut crowd = parts();
    crowd.nodes = vec![node(1, &[Role::Relayer]); MAX_NODES + 1];
    assert_eq!(
        NetworkFile::new(crowd),
        Err(Problem::TooManyNodes(MAX_NODES + 1))
    );
}

/// A file that is not there, and one that is too large, say so.
#[test]
fn unreadable_files() {
    let dir = tempfile::tempdir().unwrap();
    let missing = NetworkFile::load(&dir.path().join("none.toml")).unwrap_err();
    assert!(
        matches!(missing, NetworkFileError::Read { .. }),
        "{missing}"
    );
    let path = dir.path().join("large.toml");
    std::fs::write(&path, vec![b'#'; MAX_FILE as usize + 1]).unwrap();
    let large = NetworkFile::load(&path).unwrap_err();
    assert!(
        matches!(large, NetworkFileError::TooLarge { .. }),
        "{large}"
    );
}
