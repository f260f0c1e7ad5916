//! The admin pages under attack: other names, guessed tokens, paths that lead elsewhere, requests that never end, connections
//! that say nothing.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, Result};
use pqcnet_messages::Role;
use pqcnet_p2p::network::Admission;
use pqcnet_tests::network::Network;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// Only something broken takes it.
const SOON: Duration = Duration::from_secs(30);

/// Sends bytes and reads the answer to its end, or to its first 64 KiB.
async fn send(at: SocketAddr, bytes: &[u8]) -> Result<String> {
    let asked = async {
        let mut stream = TcpStream::connect(at).await?;
        // It may close before it has read all of it.
        stream.write_all(bytes).await.ok();
        let mut answer = vec![0; 64 << 10];
        let mut len = 0;
        loop {
            match stream.read(&mut answer[len..]).await {
                Ok(0) | Err(_) => break,
                Ok(read) => len += read,
            }
        }
        Ok::<_, anyhow::Error>(String::from_utf8_lossy(&answer[..len]).into_owned())
    };
    tokio::time::timeout(SOON, asked).await.context("no end")?
}

/// A request for a path under these headers, a line each; the status and the whole answer.
async fn ask(at: SocketAddr, method: &str, path: &str, headers: &[&str]) -> Result<(u16, String)> {
    let mut request = format!("{method} {path} HTTP/1.1\r\nConnection: close\r\n");
    for header in headers {
        request.push_str(header);
        request.push_str("\r\n");
    }
    request.push_str("\r\n");
    let answer = send(at, request.as_bytes()).await?;
    let status = answer.split(' ').nth(1).and_then(|word| word.parse().ok());
    Ok((
        status.with_context(|| format!("{path}: {answer:?}"))?,
        answer,
    ))
}

/// Without the token, under another name, by any path and with any method, nobody reads more of a node than whether it lives and
/// what it counts; and neither heads without end, bodies without measure nor two hundred silent connections keep the node
/// from answering its operator.
#[tokio::test(flavor = "multi_thread")]
async fn admin_pages_hold_against_strangers() -> Result<()> {
    let network = Network::create(1, 1, Admission::Any)?;
    let sentry = network.node(Role::Sentry, 1);
    network.start_all().await?;
    let at = sentry.admin()?;
    let ours = "Host: localhost";
    let url = std::fs::read_to_string(sentry.folder().join("page.url"))?;
    let token = url
        .trim()
        .rsplit_once('#')
        .context("no token")?
        .1
        .to_owned();
    let right = format!("Authorization: Bearer {token}");

    // By name: only addresses and localhost are this node.
    for path in [
        "/livez",
        "/readyz?verbose",
        "/metrics",
        "/ui",
        "/api/v1/snapshot",
    ] {
        for host in [
            "Host: evil.example",
            "Host: localhost.evil.example",
            "Host: 127.0.0.1.nip.io",
        ] {
            let (status, answer) = ask(at, "GET", path, &[host, &right]).await?;
            assert_eq!(status, 421, "{path} {host}: {answer}");
            assert!(!answer.contains(&sentry.id.to_string()), "{answer}");
        }
        let (status, answer) = ask(at, "GET", path, &[]).await?;
        assert!(
            matches!(status, 400 | 421),
            "{path} without a name: {answer}"
        );
    }
    // By token: a header and nothing else.
    let mut flipped = right.clone();
    flipped.pop();
    let wrong = [
        "Authorization: Bearer ",
        "Authorization: Basic Og==",
        &flipped,
        "Cookie: token=1",
    ];
    for path in ["/api/v1/snapshot", "/api/v1/events"] {
        for header in wrong {
            assert_eq!(
                ask(at, "GET", path, &[ours, header]).await?.0,
                401,
                "{header}"
            );
        }
        let query = format!("{path}?token={token}");
        assert_eq!(ask(at, "GET", &query, &[ours]).await?.0, 401);
    }
    assert_eq!(
        ask(at, "GET", "/api/v1/snapshot", &[ours, &right]).await?.0,
        200
    );
    let (status, page) = ask(at, "GET", "/ui", &[ours]).await?;
    assert_eq!(status, 200);
    let page = page.to_lowercase();
    for header in [
        "content-security-policy: default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
        "x-content-type-options: nosniff",
        "referrer-policy: no-referrer",
    ] {
        assert!(page.contains(header), "{page}");
    }
    assert!(!page.contains(&token));
    // By path and method: what is embedded, read only.
    for path in [
        "/ui/../../../../etc/passwd",
        "/ui/%2e%2e/%2e%2e/etc/passwd",
        "/ui//etc/passwd",
        "/ui/app.js/../../page.url",
        "/api/v1/../../page.url",
        "/page.url",
        "/",
    ] {
        assert_eq!(
            ask(at, "GET", path, &[ours, &right]).await?.0,
            404,
            "{path}"
        );
    }
    for method in ["POST", "PUT", "DELETE", "TRACE", "OPTIONS"] {
        let (status, answer) = ask(at, method, "/api/v1/snapshot", &[ours, &right]).await?;
        assert!(matches!(status, 404 | 405), "{method}: {answer}");
    }
    // Without measure: a head of a mebibyte, a body that is announced as a terabyte, two heads that disagree about a body.
    let long = format!(
        "GET /metrics HTTP/1.1\r\nHost: localhost\r\nX: {}\r\n\r\n",
        "x".repeat(1 << 20)
    );
    let answer = send(at, long.as_bytes()).await?;
    assert!(!answer.contains("pqcnet_"), "{answer}");
    let huge = "POST /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: 1099511627776\r\n\r\nx";
    let answer = send(at, huge.as_bytes()).await?;
    assert!(!answer.contains(" 200 "), "{answer}");
    let both = "POST /livez HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let answer = send(at, both.as_bytes()).await?;
    assert!(!answer.contains("pqcnet_"), "{answer}");
    // Without a word, and with half of one: they are closed by the node, and the operator gets in meanwhile or after.
    let mut silent = Vec::new();
    for number in 0..200 {
        let mut stream = TcpStream::connect(at).await?;
        if number % 2 == 1 {
            stream.write_all(b"GET /metrics HT").await?;
        }
        silent.push(stream);
    }
    let (status, answer) = ask(at, "GET", "/metrics", &[ours]).await?;
    assert_eq!(status, 200, "{answer}");
    let closed = silent.into_iter().map(|mut stream| async move {
        let mut rest = Vec::new();
        // A reset is an end as well.
        stream.read_to_end(&mut rest).await.ok();
    });
    let all = futures::future::join_all(closed);
    tokio::time::timeout(SOON, all).await.context("held open")?;
    assert!(!sentry.log().contains(&token), "the token is in the log");
    network.stop().await
}
