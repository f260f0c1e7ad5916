//! Keys in real processes: an identity is rotated under a running network, and its predecessor revoked, with the commands that
//! an operator types.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use pqcnet_crypto::{NodeId, NodeKeys};
use pqcnet_messages::{ChannelName, Role};
use pqcnet_p2p::network::Admission;
use pqcnet_tests::command::{pqcnet, run};
use pqcnet_tests::network::{Listing, Network};

/// Runs `pqcnet keys …` in a folder; what it printed.
fn keys(folder: &Path, arguments: &[&str]) -> Result<String> {
    pqcnet(folder, &[&["keys"], arguments].concat())
}

/// Waits until `pqcnet status` has no problem to tell of, nor of anybody who has just started.
async fn well(folder: &Path, operator: &[&str]) -> Result<()> {
    let mut told = String::new();
    for _ in 0..60 {
        let (code, printed) = run(folder, &[&["status"][..], operator].concat())?;
        if code == Some(0) && !printed.contains("starting") {
            return Ok(());
        }
        told = printed;
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    bail!("the network is not well a minute after the rotation:\n{told}")
}

/// The relayer's identity is rotated in the three steps of the operator's guide: it prepares, the root lets it succeed, it
/// puts the new one into use and starts again. Under its new NodeId and with the network file of before it has the old
/// one's place: what was published comes back, and publishing goes on. What it reports then is of its own windows, and stands by the
/// network file and the root's directive, which the verifier names where it is missing. It is undone, and done again; at each step the node
/// serves as before. Then the old key is revoked, and every node says so.
#[tokio::test(flavor = "multi_thread")]
async fn an_identity_is_rotated_under_a_running_network() -> Result<()> {
    let network = Network::listed(1, 1, Admission::Any, Listing::Operated)?;
    network.start_all().await?;
    let relayer = network.node(Role::Relayer, 1);
    let sentry = network.node(Role::Sentry, 1);
    let customer = Arc::new(NodeKeys::generate());
    let client = network.client(&customer).await?;
    let name = ChannelName::new("orders")?;
    let publisher = client.publisher(&name)?;
    assert_eq!(publisher.publish("before").await?.offset, Some(1));

    let office = network.office();
    let mut order = office.arguments();
    order.extend(["--root", "root.keys", "--root-key-file", "unlock.key"]);
    let file = ["--keys", "node.keys", "--key-file", "unlock.key"];
    let step = |what: &str, more: &[&str]| {
        keys(
            relayer.folder(),
            &[&["rotate", what][..], &file, more].concat(),
        )
    };
    let prepared = step("identity", &["--network", "network.toml"])?;
    let new: NodeId = prepared.trim().parse()?;
    let request = relayer.folder().join("succession.toml");
    let request = request.to_str().context("a path of UTF-8")?;
    let told = keys(
        &office.folder,
        &[&["succeed", "--request", request][..], &order].concat(),
    )?;
    assert!(told.contains("has it and passes it on"), "{told}");
    sentry
        .says(&format!("{} succeeds {}", new.short(), relayer.id.short()))
        .await?;
    let succession = ["succeed", "--request", request, "--out", "succession"];
    keys(&office.folder, &[&succession[..], &order].concat())?;
    let create = |name: &str| {
        let created = ["report", "create", "-c", "node.toml", "-f", name];
        pqcnet(relayer.folder(), &created)
    };
    let directive = office.folder.join("succession");
    let directive = directive.to_str().context("a path of UTF-8")?;
    let verify = |name: &str, more: &[&str]| {
        let verify = ["report", "verify", name, "--network", "network.toml"];
        run(relayer.folder(), &[&verify[..], more].concat())
    };
    create("former.report")?;
    let (code, told) = verify("former.report", &[])?;
    assert_eq!(code, Some(0), "{told}");
    assert_eq!(step("use", &["--overlap", "1"])?.trim(), new.to_string());
    assert_eq!(step("kem", &[])?.trim(), "kem = 2");

    relayer.stop().await?;
    relayer.start().await?;
    assert_eq!(relayer.secrets()?.keys.node_id(), new);
    assert_eq!(publisher.publish("after").await?.offset, Some(2));
    let mut records = client.subscribe(&client.channel(name), 0).await?;
    for expected in ["before", "after"] {
        assert_eq!(&records.next().await?.payload[..], expected.as_bytes());
    }

    create("heir.report")?;
    let (code, told) = verify("heir.report", &[])?;
    assert_eq!(code, Some(5), "{told}");
    assert!(
        told.contains(&format!("the network has no relayer {new}")),
        "{told}"
    );
    assert!(told.contains("--directive"), "{told}");
    let (code, told) = verify("heir.report", &["--directive", directive])?;
    assert_eq!(code, Some(0), "{told}");
    assert!(
        told.contains(&format!("the report of relayer {new} stands")),
        "{told}"
    );
    let (code, told) = verify("heir.report", &["--directive", "former.report"])?;
    assert_eq!(code, Some(2), "{told}");

    // An operator with the old network file finds it under its new identity.
    let operator = office.arguments();
    let (_, told) = run(&office.folder, &[&["status"][..], &operator].concat())?;
    assert!(
        told.contains(&format!("{}  relayer", new.short())),
        "{told}"
    );
    assert!(
        !told.contains("node-refuses") && !told.contains("node-unreachable"),
        "{told}"
    );
    well(&office.folder, &operator).await?;
    let told = pqcnet(&office.folder, &[&["ping"][..], &operator].concat())?;
    assert!(told.contains(&new.short()), "{told}");
    let told = pqcnet(relayer.folder(), &["doctor", "node.toml"])?;
    let succeeded = format!("{} succeeded {}", new.short(), relayer.id.short());
    assert!(told.contains(&succeeded), "{told}");
    let told = pqcnet(sentry.folder(), &["doctor", "node.toml"])?;
    assert!(
        told.contains(&format!("relayer {} answers", new.short())),
        "{told}"
    );

    // Somebody thinks better of it: the old one again, and then the new one after all.
    for (act, more, id, words, offset) in [
        ("undo", &[][..], relayer.id, "undone", 3),
        ("use", &["--overlap", "1"], new, "again", 4),
    ] {
        assert_eq!(step(act, more)?.trim(), id.to_string());
        relayer.stop().await?;
        relayer.start().await?;
        assert_eq!(relayer.secrets()?.keys.node_id(), id);
        assert_eq!(publisher.publish(words).await?.offset, Some(offset));
    }

    let shown: toml::Table = keys(relayer.folder(), &["show", "node.keys"])?.parse()?;
    let states = |table: &str| -> Vec<String> {
        let entries = shown[table].as_array().into_iter().flatten();
        let state = |entry: &toml::Value| format!("{} {}", entry["version"], entry["state"]);
        entries.map(state).collect()
    };
    assert_eq!(states("identity"), ["1 \"former\"", "2 \"in use\""]);
    assert_eq!(states("kem"), ["1 \"former\"", "2 \"in use\""]);

    let old = relayer.id.to_string();
    let revoke = ["revoke", &old, "--reason", "its backup was lost"];
    keys(&office.folder, &[&revoke[..], &order].concat())?;
    let ordered = format!("revoke {}: its backup was lost", relayer.id.short());
    for node in [relayer, sentry] {
        node.says(&ordered).await?;
    }
    assert_eq!(publisher.publish("as before").await?.offset, Some(5));
    network.stop().await
}
