//! The operator's page in a real Chromium, over real processes: it shows a relayer that was killed, says when its node is gone,
//! asks nobody but its node, and can be read by everybody.
#![allow(
    clippy::print_stdout,
    reason = "how soon a killed relayer is seen is worth reading beside the verdict"
)]

use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use pqcnet_crypto::NodeKeys;
use pqcnet_messages::Role;
use pqcnet_roles::snapshot::{MeshState, ShardSource, Snapshot, Verdict};
use pqcnet_tests::browser::{Browser, Tab};
use pqcnet_tests::network::{Network, Node};
use serde_json::{Value, json};

/// What the page may take to show that a relayer is gone.
const SHOWN_WITHIN: Duration = Duration::from_secs(2);

/// Records of 32 KiB: three times the window of a subscription.
const RECORDS: u64 = 192;

/// The address of a node's page, as its operator gets it.
fn page_of(node: &Node) -> Result<String> {
    let text = std::fs::read_to_string(node.folder().join("page.url"))?;
    Ok(text.trim_end().to_owned())
}

fn token_of(node: &Node) -> Result<String> {
    let page = page_of(node)?;
    let (_, token) = page.split_once('#').context("a fragment")?;
    Ok(token.to_owned())
}

/// Status and body of a request to a node's admin address.
fn get(node: &Node, path: &str, headers: &[(&str, &str)]) -> Result<(u16, String)> {
    let agent: ureq::Agent = ureq::Agent::config_builder()
        .http_status_as_error(false)
        .build()
        .into();
    let mut request = agent.get(format!("http://{}{path}", node.admin()?));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let answer = request.call()?;
    let status = answer.status().as_u16();
    Ok((status, answer.into_body().read_to_string()?))
}

/// Only the token opens the API, only under an address of this machine; a snapshot is one of the documented form, tells of
/// messages that were really sent and of a subscriber that lags; events begin with all of it and go on with what changed.
#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_is_for_whoever_has_the_token() -> Result<()> {
    let network = Network::start(1, 2).await?;
    let sentry = network.node(Role::Sentry, 1);
    let keys = Arc::new(NodeKeys::generate());
    let client = network.client(&keys).await?;
    let channel = network.balanced_channels(keys.node_id(), 1)?.remove(0);
    let publisher = client.publisher(&channel)?;
    let mut receipts = Vec::new();
    for _ in 0..RECORDS {
        receipts.push(publisher.send(vec![7; 32 * 1024]).await?);
    }
    for receipt in receipts {
        receipt.await?;
    }
    // It takes one record and consumes no more: what does not fit into its window is its lag.
    let mut records = client.subscribe(&client.channel(channel), 0).await?;
    assert_eq!(records.next().await?.offset, 1);

    let bearer = format!("Bearer {}", token_of(sentry)?);
    let right = ("Authorization", bearer.as_str());
    for path in ["/api/v1/snapshot", "/api/v1/events"] {
        for headers in [
            &[][..],
            &[("Authorization", "Bearer 00")],
            &[("Authorization", &bearer[7..])],
            &[("Cookie", &bearer)],
        ] {
            assert_eq!(get(sentry, path, headers)?.0, 401, "{path} {headers:?}");
        }
        assert_eq!(
            get(sentry, &format!("{path}?token={}", &bearer[7..]), &[])?.0,
            401
        );
        let rebound = get(sentry, path, &[right, ("Host", "evil.example")])?;
        assert_eq!(rebound.0, 421, "{}", rebound.1);
    }
    assert_eq!(get(sentry, "/ui", &[("Host", "evil.example:80")])?.0, 421);
    assert!(
        !sentry.log().contains(&bearer[7..]),
        "the token is in the log"
    );

    let relayers = [1, 2].map(|number| network.node(Role::Relayer, number));
    let told = |snapshot: &Snapshot| {
        let linked = snapshot.nodes.values().all(|node| node.peers.len() == 2)
            && relayers.iter().all(|relayer| {
                let seen = snapshot.nodes.get(&relayer.id.to_string());
                seen.is_some_and(|seen| seen.linked.len() == 2)
            });
        let all = snapshot.shards.values();
        linked
            && snapshot.verdict == Verdict::Ok
            && all.clone().all(|shard| shard.source == ShardSource::Told)
            && all.map(|shard| shard.lag_records.unwrap_or(0)).max() > Some(RECORDS / 2)
    };
    // Relayers are asked when somebody looks; what they said, once all links stand, is in a later look.
    let snapshot = tokio::time::timeout(Duration::from_secs(20), async {
        loop {
            let (status, text) = get(sentry, "/api/v1/snapshot", &[right])?;
            ensure!(status == 200, "{status}: {text}");
            let snapshot: Snapshot = serde_json::from_str(&text)?;
            if told(&snapshot) {
                let plain: Value = serde_json::from_str(&text)?;
                ensure!(serde_json::to_value(&snapshot)? == plain, "{text}");
                return Ok(snapshot);
            }
            tokio::task::yield_now().await;
        }
    })
    .await
    .context("the network is not well, or no lag was told")??;
    assert_eq!(snapshot.node.id, sentry.id.to_string());
    let records: u64 = snapshot
        .shards
        .values()
        .filter_map(|shard| shard.records)
        .sum();
    assert_eq!(records, RECORDS);
    for relayer in relayers {
        let seen = &snapshot.nodes[&relayer.id.to_string()];
        assert_eq!((seen.state, seen.linked.len()), (MeshState::Linked, 2));
        assert_eq!(seen.peers.len(), 2, "{seen:?}");
    }
    assert_eq!(snapshot.totals.clients, 1);
    assert!(
        snapshot
            .links
            .values()
            .any(|link| link.role == "relayer" && link.rtt_us.is_some())
    );
    assert!(
        snapshot.actors.keys().any(|path| path.ends_with("/gate")),
        "{:?}",
        snapshot.actors.keys()
    );
    assert_eq!(
        snapshot.keys["identity/1"].fingerprint,
        Some(sentry.id.to_string())
    );

    let stream = ureq::get(format!("http://{}/api/v1/events", sentry.admin()?))
        .header(right.0, right.1)
        .call()?;
    assert_eq!(stream.headers()["content-type"], "text/event-stream");
    let mut lines = BufReader::new(stream.into_body().into_reader()).lines();
    let mut names = Vec::new();
    let (mut whole, mut changes) = (None, Vec::new());
    while changes.len() < 2 {
        let line = lines.next().context("an event")??;
        if let Some(name) = line.strip_prefix("event: ") {
            names.push(name.to_owned());
        }
        if let Some(data) = line.strip_prefix("data: ") {
            match names.last().map(String::as_str) {
                Some("snapshot") => whole = Some(serde_json::from_str::<Snapshot>(data)?),
                _ => changes.push(serde_json::from_str::<Value>(data)?),
            }
        }
    }
    assert_eq!(names, ["snapshot", "change", "change"]);
    let whole = whole.context("a snapshot")?;
    assert!(whole.taken_at_ms > snapshot.taken_at_ms);
    for change in changes {
        assert!(
            change["taken_at_ms"].as_u64() > Some(whole.taken_at_ms),
            "{change}"
        );
        assert_eq!(
            change.get("version"),
            None,
            "what did not change is not sent: {change}"
        );
    }
    drop((lines, client));
    network.stop().await
}

fn shown(node: &Node, state: &str) -> String {
    format!(
        "visible('[data-node=\"{}\"][data-state=\"{state}\"]')",
        node.id
    )
}

/// An element that is there, has a size and says something.
const VISIBLE: &str = "globalThis.visible = (selector) => {
    const found = document.querySelector(selector);
    const box = found?.getBoundingClientRect();
    return !!box && box.width > 0 && box.height > 0 && found.innerText.trim().length > 0;
}; 0";

/// The texts whose contrast with what lies behind them is too small for their size (WCAG 2.1, 1.4.3).
const FAINT: &str = r"(() => {
    const parse = (text) => text.match(/[\d.]+/g).map(Number);
    const over = ([r, g, b, a = 1], [R, G, B]) => [r * a + R * (1 - a), g * a + G * (1 - a), b * a + B * (1 - a)];
    const light = (rgb) => {
        const [r, g, b] = rgb.map((c) => (c /= 255) <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
        return 0.2126 * r + 0.7152 * g + 0.0722 * b;
    };
    const behind = (element) => {
        const layers = [];
        for (let at = element; at; at = at.parentElement) {
            const colour = parse(getComputedStyle(at).backgroundColor);
            if (colour[3] !== 0) layers.push(colour);
            if (colour.length === 3) break;
        }
        return layers.reverse().reduce((under, layer) => over(layer, under), [255, 255, 255]);
    };
    const faint = [];
    const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    while (walker.nextNode()) {
        const element = walker.currentNode.parentElement;
        const style = getComputedStyle(element);
        if (!walker.currentNode.data.trim() || element.closest('svg, noscript, .sr') || !element.getClientRects().length) continue;
        const back = behind(element);
        const [a, b] = [light(over(parse(style.color), back)), light(back)].sort((x, y) => y - x);
        const ratio = (a + 0.05) / (b + 0.05);
        if (ratio < 4.5) faint.push(`${walker.currentNode.data.trim().slice(0, 40)}: ${ratio.toFixed(2)}`);
    }
    return faint;
})()";

fn scheme(tab: &mut Tab, name: &str) -> Result<()> {
    let features = json!({ "features": [{ "name": "prefers-color-scheme", "value": name }] });
    tab.call("Emulation.setEmulatedMedia", features).map(drop)
}

fn width(tab: &mut Tab, width: u32) -> Result<()> {
    let size = json!({ "width": width, "height": 900, "deviceScaleFactor": 1, "mobile": false });
    tab.call("Emulation.setDeviceMetricsOverride", size)
        .map(drop)
}

/// An operator opens the page without and then with the token; a relayer is killed with SIGKILL, and the page shows it within
/// two seconds; it comes back, and so does the page; then the page's own node is killed, and the page says so.
#[tokio::test(flavor = "multi_thread")]
async fn the_page_shows_a_killed_relayer() -> Result<()> {
    let browser = Browser::start().await?;
    let network = Network::start(1, 2).await?;
    let sentry = network.node(Role::Sentry, 1);
    let relayer = network.node(Role::Relayer, 2);
    let page = page_of(sentry)?;
    let (bare, token) = page.split_once('#').context("a fragment")?;
    let mut tab = browser.tab()?;
    width(&mut tab, 1280)?;

    tab.open(bare)?;
    tab.wait_for("document.querySelector('#connection')?.dataset.phase === 'locked'")?;
    assert_eq!(
        tab.value("document.body.innerText.includes('pqcnet ui')")?,
        true
    );

    // The same document with another fragment: the page hears of it without being loaded again.
    tab.open(&page)?;
    tab.value(VISIBLE)?;
    tab.wait_for("document.querySelector('#verdict')?.dataset.verdict === 'ok'")?;
    assert_eq!(tab.value("location.href")?, bare);
    tab.wait_for(&shown(relayer, "linked"))?;
    tab.wait_for("document.querySelectorAll('.owned[data-known=true]').length === 2")?;
    for section in ["#mesh", "#traffic", "#shards", "#links", "#actors", "#keys"] {
        assert_eq!(
            tab.value(&format!("visible('{section}')"))?,
            true,
            "{section}"
        );
    }

    // Both the list of nodes and the verdict, which stands above everything else, name it.
    let dead = format!(
        "{} && visible('#verdict [data-about=\"{}\"]')",
        shown(relayer, "down"),
        relayer.id
    );
    tab.look_for(&dead)?;
    relayer.kill().await?;
    let seen = tab.seen()?;
    println!(
        "a relayer killed with SIGKILL is on the page after {seen:?} (bound {SHOWN_WITHIN:?})"
    );
    ensure!(seen < SHOWN_WITHIN, "it took {seen:?}");
    assert_eq!(
        tab.value("document.querySelector('main').firstElementChild.id")?,
        "verdict"
    );
    tab.wait_for(&format!(
        "visible('.owned.down[data-owner=\"{}\"]')",
        relayer.id
    ))?;

    // Everybody can read it, while something is wrong: by day and by night, on a telephone, with the keyboard alone.
    for colours in ["light", "dark"] {
        scheme(&mut tab, colours)?;
        assert_eq!(tab.value(FAINT)?, json!([]), "{colours}");
    }
    for narrow in [360, 768, 1280] {
        width(&mut tab, narrow)?;
        let wide = tab.value("document.documentElement.scrollWidth")?;
        assert!(
            wide.as_u64() <= Some(narrow.into()),
            "{wide} of {narrow} px"
        );
    }
    let stops = tab
        .value("document.querySelectorAll('button, summary, [tabindex=\"0\"], a[href]').length")?;
    let mut reached = BTreeSet::new();
    for _ in 0..stops.as_u64().context("a number")? {
        tab.press("Tab")?;
        let focus = tab.value(
            "(() => { const at = document.activeElement;
                return [at.tagName + at.innerText.slice(0, 40), getComputedStyle(at).outlineStyle]; })()",
        )?;
        assert_ne!(focus[1], "none", "{focus}");
        reached.insert(focus[0].to_string());
    }
    assert!(
        reached.iter().any(|stop| stop.contains("SUMMARY")),
        "{reached:?}"
    );

    relayer.start().await?;
    tab.wait_for("document.querySelector('#verdict')?.dataset.verdict === 'ok'")?;
    tab.wait_for(&shown(relayer, "linked"))?;

    tab.look_for(
        "document.querySelector('#connection').dataset.phase === 'lost' && visible('[role=alert]')",
    )?;
    sentry.kill().await?;
    println!(
        "the page's own node killed: the page says so after {:?}",
        tab.seen()?
    );
    // It goes on by itself when the node is back: at the same address, since its token outlived it.
    network.stop().await?;

    let mut asked = 0;
    let origin = bare.trim_end_matches("/ui");
    for event in &tab.events {
        let params = &event["params"];
        match event["method"].as_str().unwrap_or_default() {
            "Network.requestWillBeSent" => {
                let url = params["request"]["url"].as_str().unwrap_or_default();
                assert!(url.starts_with(origin), "{url}");
                // DevTools show a fragment beside the address; what is sent is the address.
                assert!(!url.contains(token), "{url}");
                asked += 1;
            }
            "Runtime.exceptionThrown" => panic!("the page failed: {event}"),
            "Log.entryAdded" => {
                let text = params["entry"]["text"].as_str().unwrap_or_default();
                assert!(!text.contains("Content Security Policy"), "{text}");
            }
            _ => {}
        }
    }
    assert!(asked > 4, "only {asked} requests seen");
    Ok(())
}
