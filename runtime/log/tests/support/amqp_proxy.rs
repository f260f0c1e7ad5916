//! A proxy in front of a broker that loses or falsifies its confirms, and notes when records flow. `tests/src/lib.rs` has this
//! file too.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use pqcnet_actor::{Env, latest};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, BufReader, BufWriter};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};

/// Class and method of `basic.ack`; they begin a method frame's payload.
const ACK: [u8; 4] = [0, 60, 0, 80];
/// The same of `basic.nack`, whose arguments have the same shape.
const NACK: [u8; 4] = [0, 60, 0, 120];
/// `basic.publish`, `channel.open`, `connection.open-ok`, `queue.declare-ok`.
const PUBLISH: [u8; 4] = [0, 60, 0, 40];
const CHANNEL_OPEN: [u8; 4] = [0, 20, 0, 10];
const CONNECTED: [u8; 4] = [0, 10, 0, 41];
const DECLARED: [u8; 4] = [0, 50, 0, 11];
/// Type, channel and size before a frame's payload.
const HEAD: usize = 7;
const METHOD: u8 = 1;
/// What a client says before its first frame.
const PROTOCOL_HEADER: usize = 8;
/// Delivery tag of the first message after a writer's claim.
const FIRST_RECORD: u64 = 2;

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

/// When what first passed since the last [`AmqpProxy::mark`], by [`AmqpProxy::now`].
#[derive(Clone, Debug, Default)]
#[allow(dead_code, reason = "each test binary uses its part")]
pub struct Flow {
    /// A connection was taken.
    pub connected: Option<Duration>,
    /// A stream answered a declaration.
    pub declared: Option<Duration>,
    /// By stream: a message of a record was confirmed.
    pub confirmed: BTreeMap<String, Duration>,
}

#[derive(Default)]
struct Seen {
    flow: Flow,
    /// Streams to which records were ever published.
    streams: BTreeSet<String>,
}

/// What each channel of one connection publishes to.
#[derive(Default)]
struct Channels(Mutex<BTreeMap<u16, String>>);

impl Channels {
    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<u16, String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A frame of the client's.
    fn on_client(&self, frame: &[u8]) {
        let (channel, payload) = (u16::from_be_bytes([frame[1], frame[2]]), &frame[HEAD..]);
        if payload.starts_with(&CHANNEL_OPEN) {
            self.lock().remove(&channel);
        } else if payload.starts_with(&PUBLISH) {
            // Behind a reserved u16: the exchange, then the stream's name.
            let name = short(payload, 6).and_then(|(_, rest)| short(payload, rest));
            if let Some((name, _)) = name {
                self.lock().entry(channel).or_insert(name);
            }
        }
    }
}

/// The short string at `at`, and where the next field begins.
fn short(payload: &[u8], at: usize) -> Option<(String, usize)> {
    let begins = at + 1;
    let ends = begins + usize::from(*payload.get(at)?);
    let text = payload.get(begins..ends)?;
    Some((String::from_utf8_lossy(text).into_owned(), ends))
}

/// A proxy in front of one broker. It ends with this value.
pub struct AmqpProxy {
    at: SocketAddr,
    orders: Arc<latest::Sender<Orders>>,
    seen: Arc<latest::Sender<Seen>>,
    env: Env,
}

impl AmqpProxy {
    /// Listens on a free port of loopback; everything passes.
    pub async fn start(broker: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let at = listener.local_addr()?;
        let orders = Arc::new(latest::Sender::new(Orders::default()));
        let seen = Arc::new(latest::Sender::new(Seen::default()));
        let env = Env::plain();
        let (weak, watched, clock) = (Arc::downgrade(&orders), seen.clone(), env.clone());
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
                        let watch = Watch {
                            orders: Arc::downgrade(&orders),
                            seen: watched.clone(),
                            env: clock.clone(),
                            channels: Arc::default(),
                        };
                        tokio::spawn(carry(client, broker, orders.subscribe(), watch));
                    }
                }
            }
        });
        Ok(Self {
            at,
            orders,
            seen,
            env,
        })
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

    /// Time, as in [`Flow`].
    #[allow(dead_code, reason = "each test binary uses its part")]
    pub fn now(&self) -> Duration {
        self.env.now()
    }

    /// Notes anew when what first passes.
    #[allow(dead_code, reason = "each test binary uses its part")]
    pub fn mark(&self) {
        self.seen.send_modify(|seen| seen.flow = Flow::default());
    }

    /// Waits until records of every stream that ever had any were confirmed since the mark; when what first passed.
    #[allow(dead_code, reason = "each test binary uses its part")]
    pub async fn flows(&self) -> Flow {
        let all = |seen: &Seen| {
            let mut streams = seen.streams.iter();
            streams.all(|stream| seen.flow.confirmed.contains_key(stream))
        };
        let mut seen = self.seen.subscribe();
        let waited = seen.wait_for(all).await.map(|_| ());
        debug_assert!(waited.is_ok(), "what was seen lives as long as this");
        self.seen.borrow().flow.clone()
    }

    /// Cuts every connection there is, and loses no more confirms.
    pub fn cut(&self) {
        self.orders.send_modify(|orders| {
            orders.lose = false;
            orders.cuts += 1;
        });
    }
}

/// What a connection is watched with.
#[derive(Clone)]
struct Watch {
    orders: std::sync::Weak<latest::Sender<Orders>>,
    seen: Arc<latest::Sender<Seen>>,
    env: Env,
    channels: Arc<Channels>,
}

async fn carry(
    client: TcpStream,
    broker: SocketAddr,
    mut cut: latest::Receiver<Orders>,
    watch: Watch,
) {
    let before = cut.borrow().cuts;
    let passing = async {
        let Ok(server) = TcpStream::connect(broker).await else {
            return;
        };
        let (from_client, to_client) = client.into_split();
        let (from_server, to_server) = server.into_split();
        let channels = watch.channels.clone();
        // What ends either way ends the connection.
        tokio::select! {
            biased;
            _ = from_the_client(from_client, to_server, &channels) => {}
            _ = from_the_broker(from_server, to_client, &watch) => {}
        }
    };
    tokio::select! {
        biased;
        _ = cut.wait_for(|orders| orders.cuts > before) => {}
        () = passing => {}
    }
}

async fn from_the_client(
    from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    channels: &Channels,
) -> io::Result<()> {
    let mut from = BufReader::new(from);
    let mut header = [0; PROTOCOL_HEADER];
    from.read_exact(&mut header).await?;
    to.write_all(&header).await?;
    frames(from, to, |frame| {
        channels.on_client(frame);
        true
    })
    .await
}

async fn from_the_broker(from: OwnedReadHalf, to: OwnedWriteHalf, watch: &Watch) -> io::Result<()> {
    frames(BufReader::new(from), to, |frame| watch.on_broker(frame)).await
}

impl Watch {
    /// A method of the broker's: notes it, and does with it what is ordered. Whether it passes.
    fn on_broker(&self, frame: &mut [u8]) -> bool {
        let now = self.env.now();
        let first = |at: &mut Option<Duration>| at.replace(at.unwrap_or(now)).is_none();
        let payload = &frame[HEAD..];
        if payload.starts_with(&CONNECTED) {
            self.seen
                .send_if_modified(|seen| first(&mut seen.flow.connected));
        } else if payload.starts_with(&DECLARED) {
            let name = short(payload, 4).map(|(name, _)| name).unwrap_or_default();
            if !name.ends_with(".owner") {
                self.seen
                    .send_if_modified(|seen| first(&mut seen.flow.declared));
            }
        } else if payload.starts_with(&ACK) {
            let Some(orders) = self.orders.upgrade() else {
                return false;
            };
            let mut passes = true;
            let meddled = orders.send_if_modified(|orders| {
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
            if !meddled {
                self.confirmed(frame, now);
            }
            return passes;
        }
        true
    }

    fn confirmed(&self, frame: &[u8], now: Duration) {
        let tag = frame.get(HEAD + 4..).and_then(|tag| tag.first_chunk());
        let tag = tag.map_or(0, |tag| u64::from_be_bytes(*tag));
        let channel = u16::from_be_bytes([frame[1], frame[2]]);
        let stream = self.channels.lock().get(&channel).cloned();
        let Some(stream) = stream.filter(|_| tag >= FIRST_RECORD) else {
            return;
        };
        self.seen.send_if_modified(|seen| {
            if seen.flow.confirmed.contains_key(&stream) {
                return false;
            }
            seen.streams.insert(stream.clone());
            seen.flow.confirmed.insert(stream, now);
            true
        });
    }
}

/// Passes frames on; `look` sees, and may change or hold back, those that carry a method.
async fn frames(
    mut from: BufReader<OwnedReadHalf>,
    to: OwnedWriteHalf,
    mut look: impl FnMut(&mut [u8]) -> bool,
) -> io::Result<()> {
    let mut to = BufWriter::new(to);
    let mut frame = vec![0; HEAD];
    loop {
        if from.buffer().is_empty() {
            to.flush().await?;
        }
        frame.resize(HEAD, 0);
        from.read_exact(&mut frame).await?;
        let size = u32::from_be_bytes([frame[3], frame[4], frame[5], frame[6]]);
        // The payload, and the octet that ends a frame.
        frame.resize(HEAD + size as usize + 1, 0);
        from.read_exact(&mut frame[HEAD..]).await?;
        if frame[0] != METHOD || look(&mut frame) {
            to.write_all(&frame).await?;
        }
    }
}
