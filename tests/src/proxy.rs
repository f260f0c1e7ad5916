//! A TCP proxy that loses what it is told to lose.

use std::net::SocketAddr;

use anyhow::Result;
use pqcnet_actor::latest;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

#[derive(Clone, Copy, Default)]
struct State {
    /// What comes back from the server is thrown away.
    swallow: bool,
    /// Rises with each cut.
    cuts: u64,
}

/// A proxy in front of one address. It ends with this value.
pub struct Proxy {
    /// Where it listens.
    pub at: SocketAddr,
    state: latest::Sender<State>,
}

impl Proxy {
    /// Listens on a free port of loopback; both directions pass.
    pub async fn start(to: SocketAddr) -> Result<Proxy> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let at = listener.local_addr()?;
        let (state, seen) = latest::channel(State::default());
        tokio::spawn(async move {
            let mut over = seen.clone();
            loop {
                tokio::select! {
                    biased;
                    gone = over.wait_for(|_| false) => {
                        debug_assert!(gone.is_err(), "nothing else ends this wait");
                        return;
                    }
                    Ok((client, _)) = listener.accept() => {
                        tokio::spawn(carry(client, to, seen.clone()));
                    }
                }
            }
        });
        Ok(Proxy { at, state })
    }

    /// From now on what the client sends arrives, and what comes back is lost.
    pub fn swallow_answers(&self) {
        self.state.send_modify(|state| state.swallow = true);
    }

    /// Cuts every connection there is. New ones pass in both directions.
    pub fn cut(&self) {
        self.state.send_modify(|state| {
            state.swallow = false;
            state.cuts += 1;
        });
    }
}

async fn carry(client: TcpStream, to: SocketAddr, state: latest::Receiver<State>) {
    let mut cut = state.clone();
    let before = state.borrow().cuts;
    let passing = async {
        let Ok(server) = TcpStream::connect(to).await else {
            return;
        };
        let (mut from_client, mut to_client) = client.into_split();
        let (mut from_server, mut to_server) = server.into_split();
        let there = tokio::io::copy(&mut from_client, &mut to_server);
        let back = async {
            let mut chunk = vec![0; 16 * 1024];
            while let Ok(n @ 1..) = from_server.read(&mut chunk).await {
                let swallow = state.borrow().swallow;
                if !swallow && to_client.write_all(&chunk[..n]).await.is_err() {
                    return;
                }
            }
        };
        tokio::select! {
            biased;
            _ = there => {}
            () = back => {}
        }
    };
    // Dropping both sockets cuts the connection; so does the end of the proxy.
    tokio::select! {
        biased;
        _ = cut.wait_for(|state| state.cuts > before) => {}
        () = passing => {}
    }
}
