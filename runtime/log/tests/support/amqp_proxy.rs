//! A proxy in front of a broker that loses or falsifies its confirms. `tests/src/lib.rs` has this file too.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use pqcnet_actor::latest;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};

/// Class and method of `basic.ack`; they begin a method frame's payload.
const ACK: [u8; 4] = [0, 60, 0, 80];
/// The same of `basic.nack`, whose arguments have the same shape.
const NACK: [u8; 4] = [0, 60, 0, 120];
/// Type, channel and size before a frame's payload.
const HEAD: usize = 7;
const METHOD: u8 = 1;

#[derive(Clone, Copy, Default)]
struct Orders {
    /// Confirms are thrown away.
    lose: bool,
    /// So many of the next confirms say the contrary.
    falsify: u64,
    /// Rises with each cut.
    cuts: u64,
    lost: u64,
    falsified: u64,
}

/// A proxy in front of one broker. It ends with this value.
pub struct AmqpProxy {
    at: SocketAddr,
    orders: Arc<latest::Sender<Orders>>,
}

impl AmqpProxy {
    /// Listens on a free port of loopback; everything passes.
    pub async fn start(broker: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let at = listener.local_addr()?;
        let orders = Arc::new(latest::Sender::new(Orders::default()));
        let weak = Arc::downgrade(&orders);
        let mut over = orders.subscribe();
        tokio::spawn(async move {
            loop {
                tokio::select! {
                    biased;
                    gone = over.wait_for(|_| false) => {
                        debug_assert!(gone.is_err(), "nothing else ends this wait");
                        return;
                    }
                    accepted = listener.accept() => {
                        let (Ok((client, _)), Some(orders)) = (accepted, weak.upgrade()) else {
                            return;
                        };
                        tokio::spawn(carry(client, broker, orders.subscribe(), Arc::downgrade(&orders)));
                    }
                }
            }
        });
        Ok(Self { at, orders })
    }

    /// A broker's address with this proxy's in its place.
    pub fn in_front_of(&self, uri: &str) -> String {
        let Some((before, rest)) = uri.split_once('@') else {
            return uri.to_owned();
        };
        let path = rest.split_once('/').map_or("", |(_, path)| path);
        format!("{before}@{}/{path}", self.at)
    }

    /// From now on what is published arrives, and the broker's confirms are lost.
    pub fn lose_confirms(&self) {
        self.orders.send_modify(|orders| {
            orders.lose = true;
            orders.lost = 0;
        });
    }

    /// Waits until so many were lost since that order.
    pub async fn lost(&self, goal: u64) {
        self.reached(|orders| orders.lost >= goal).await;
    }

    /// So many confirms become nacks: the broker has the message and says that it has not.
    pub fn falsify(&self, confirms: u64) {
        self.orders.send_modify(|orders| {
            orders.falsify = confirms;
            orders.falsified = 0;
        });
    }

    /// Waits until so many were falsified since that order.
    pub async fn falsified(&self, goal: u64) {
        self.reached(|orders| orders.falsified >= goal).await;
    }

    async fn reached(&self, there: impl FnMut(&Orders) -> bool) {
        let waited = self.orders.subscribe().wait_for(there).await.map(|_| ());
        debug_assert!(waited.is_ok(), "the orders live as long as this");
    }

    /// Cuts every connection there is, and loses no more confirms.
    pub fn cut(&self) {
        self.orders.send_modify(|orders| {
            orders.lose = false;
            orders.cuts += 1;
        });
    }
}

async fn carry(
    client: TcpStream,
    broker: SocketAddr,
    mut cut: latest::Receiver<Orders>,
    orders: std::sync::Weak<latest::Sender<Orders>>,
) {
    let before = cut.borrow().cuts;
    let passing = async {
        let Ok(server) = TcpStream::connect(broker).await else {
            return;
        };
        let (mut from_client, to_client) = client.into_split();
        let (from_server, mut to_server) = server.into_split();
        // What ends either way ends the connection.
        tokio::select! {
            biased;
            _ = tokio::io::copy(&mut from_client, &mut to_server) => {}
            _ = frames(from_server, to_client, orders) => {}
        }
    };
    tokio::select! {
        biased;
        _ = cut.wait_for(|orders| orders.cuts > before) => {}
        () = passing => {}
    }
}

/// Passes the broker's frames on, less or other than they were where it is so ordered.
async fn frames(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    orders: std::sync::Weak<latest::Sender<Orders>>,
) -> io::Result<()> {
    let mut frame = vec![0; HEAD];
    loop {
        frame.resize(HEAD, 0);
        from.read_exact(&mut frame).await?;
        let size = u32::from_be_bytes([frame[3], frame[4], frame[5], frame[6]]);
        // The payload, and the octet that ends a frame.
        frame.resize(HEAD + size as usize + 1, 0);
        from.read_exact(&mut frame[HEAD..]).await?;
        let mut passes = true;
        if frame[0] == METHOD && frame[HEAD..].starts_with(&ACK) {
            let Some(orders) = orders.upgrade() else {
                return Ok(());
            };
            orders.send_if_modified(|orders| {
                if orders.lose {
                    orders.lost += 1;
                    passes = false;
                } else if orders.falsify > 0 {
                    orders.falsify -= 1;
                    orders.falsified += 1;
                    frame[HEAD..HEAD + 4].copy_from_slice(&NACK);
                } else {
                    return false;
                }
                true
            });
        }
        if passes {
            to.write_all(&frame).await?;
        }
    }
}
