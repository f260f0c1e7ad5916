//! A meter on a real store, between a worker whose book the test writes and a sentry whose receivers sign what the test says:
//! windows are kept over restarts, readings that were not kept come again and are counted once, a receipt counts as far as it
//! proves something, and one that proves nothing is refused and counted.

#![allow(clippy::unwrap_used, reason = "a test's helpers")]

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use pqcnet_actor::{
    Addr, Behaviour, Cx, Env, On, Reply, Restart, Running, Spec, Strategy, Threads, Tree,
};
use pqcnet_crypto::{NodeId, NodeKeys};
use pqcnet_messages::metering::{
    CloseWindow, CreateReport, DeliveredVolume, NoteGrant, ReadTotals, Reading, StoredVolume,
    TakeVolume, Volume, VolumeTaken,
};
use pqcnet_messages::relay::RelayCountersign;
use pqcnet_messages::{
    Channel, ChannelName, Countersigned, Grant, Receipt, Refusal, Role, Series, ShardId, Statement,
};
use pqcnet_meter::core::report::Stated;
use pqcnet_meter::core::verify::{Trust, Verified, verify};
use pqcnet_meter::{BOUNDS, Identity, Meter, MeterConfig, disk};
use pqcnet_store::{OpenError, RocksStore, StoreConfig};

const NETWORK: [u8; 32] = [7; 32];
const WITHIN: Duration = Duration::from_secs(60);
const SENTRY: NodeId = NodeId::from_bytes([8; 32]);
const SERIES: Series = Series([5; 16]);
/// No window is closed but by request.
const NEVER: Duration = Duration::from_secs(86_400);

fn volume(frames: u64) -> Volume {
    Volume {
        frames,
        bytes: frames * 10,
    }
}

/// What the test wrote into the worker's book.
#[derive(Default)]
struct Book {
    /// One life of the worker.
    run: u64,
    serial: u64,
    generation: u32,
    /// Stored ever, and when it was opened.
    stored: (u64, u64),
    /// Sent since a reading was kept, and from where to where.
    sent: u64,
    unkept: u64,
    span: (u64, u64),
    /// The meter is not to hear the next answer.
    silent: bool,
}

struct Worker {
    book: Arc<Mutex<Book>>,
    sides: Sides,
    ask: Addr<Sentry>,
}

impl Behaviour for Worker {
    const NAME: &'static str = "Worker";
}

impl On<TakeVolume> for Worker {
    fn on(&mut self, msg: TakeVolume, _: &mut Cx<Self>) -> Reply<TakeVolume> {
        let mut book = self.book.lock().unwrap();
        let last = Reading {
            run: book.run,
            serial: book.serial,
        };
        if msg.kept == last {
            book.unkept = 0;
        }
        book.unkept += std::mem::take(&mut book.sent);
        book.serial += 1;
        if std::mem::take(&mut book.silent) {
            return Reply::Now(Err(Refusal::Unavailable));
        }
        Reply::Now(Ok(VolumeTaken {
            shard: ShardId(0),
            moves: 0,
            generation: book.generation,
            reading: Reading {
                run: book.run,
                serial: book.serial,
            },
            stored: vec![StoredVolume {
                channel: self.sides.channel(),
                at_open: volume(book.stored.0),
                now: volume(book.stored.1),
            }],
            delivered: vec![DeliveredVolume {
                channel: self.sides.channel(),
                receiver: self.sides.receiver.node_id(),
                series: SERIES,
                after: book.span.0,
                last: book.span.1,
                volume: volume(book.unkept),
                ask: Some((self.ask.of(), 4)),
            }],
        }))
    }
}

type Signs = Arc<Mutex<Option<Receipt>>>;

/// Answers as the test says.
struct Sentry {
    signs: Signs,
}

impl Behaviour for Sentry {
    const NAME: &'static str = "Sentry";
}

impl On<RelayCountersign> for Sentry {
    fn on(&mut self, msg: RelayCountersign, _: &mut Cx<Self>) -> Reply<RelayCountersign> {
        assert_eq!(msg.subscription, 4);
        let signed = self.signs.lock().unwrap().clone();
        let signed = signed.map(|receipt| Countersigned { receipt });
        Reply::Now(signed.ok_or(Refusal::Unavailable))
    }
}

/// Whose keys these are.
#[derive(Clone)]
struct Sides {
    relayer: Arc<NodeKeys>,
    publisher: Arc<NodeKeys>,
    receiver: Arc<NodeKeys>,
}

impl Sides {
    fn new() -> Sides {
        let keys = || Arc::new(NodeKeys::generate());
        Sides {
            relayer: keys(),
            publisher: keys(),
            receiver: keys(),
        }
    }

    fn channel(&self) -> Channel {
        Channel {
            owner: self.publisher.node_id(),
            name: ChannelName::new("orders").unwrap(),
        }
    }

    fn statement(&self, last: u64) -> Statement {
        Statement {
            network_id: NETWORK,
            receiver: self.receiver.node_id(),
            relayer: self.relayer.node_id(),
            channel: self.channel(),
            series: SERIES,
            window: 1,
            after: 0,
            last,
            frames: last,
            bytes: last * 10,
            signed_at_ms: 1,
        }
    }
}

impl Trust for Sides {
    fn network_id(&self) -> [u8; 32] {
        NETWORK
    }

    fn is(&self, node: &NodeId, role: Role) -> bool {
        match role {
            Role::Relayer => *node == self.relayer.node_id(),
            Role::Sentry => *node == SENTRY,
            _ => false,
        }
    }
}

/// A meter and those beside it.
struct World {
    env: Env,
    sides: Sides,
    book: Arc<Mutex<Book>>,
    signs: Signs,
    meter: Addr<Meter>,
    running: Running,
}

impl World {
    async fn start(env: &Env, folder: &Path, sides: &Sides, book: Book) -> World {
        let mut config = StoreConfig::new(folder, disk::schema());
        config.reserve_bytes = 0;
        let store = loop {
            match RocksStore::open(env, config.clone()) {
                Ok(store) => break Arc::new(store),
                // The one before closes with its last actor.
                Err(OpenError::Locked { .. }) => tokio::task::yield_now().await,
                Err(other) => panic!("{other}"),
            }
        };
        let (book, signs) = (Arc::new(Mutex::new(book)), Signs::default());
        let mut tree = Tree::new("relayer", Strategy::OneForOne);
        let says = signs.clone();
        let sentry = tree.child(Spec::new("sentry", move |_| Sentry {
            signs: says.clone(),
        }));
        let (its_book, its_sides) = (book.clone(), sides.clone());
        let worker = tree.child(Spec::new("worker", move |_| Worker {
            book: its_book.clone(),
            sides: its_sides.clone(),
            ask: sentry.clone(),
        }));
        let config = MeterConfig {
            identity: Identity {
                keys: sides.relayer.clone(),
                network_id: NETWORK,
                keep: 1000,
            },
            window: NEVER,
            store,
            workers: BTreeMap::from([(ShardId(0), worker.of())]),
        };
        let spec = Spec::new("meter", move |_| Meter::new(config.clone()));
        let meter = tree.child(spec.mailbox(BOUNDS).restart(Restart::Permanent));
        let running = tree.start(env.clone());
        // The window that a meter closes soon after its start is this one; from here on only those that are asked for.
        meter.of().ask(CloseWindow, WITHIN).await.unwrap().unwrap();
        World {
            env: env.clone(),
            sides: sides.clone(),
            book,
            signs,
            meter,
            running,
        }
    }

    async fn grant(&self, keys: &NodeKeys) {
        let now = self.env.wall_ms();
        let grant = Grant::issue(keys, NETWORK, SENTRY, now, 3_600_000, [1; 16]);
        self.meter.of().tell(NoteGrant { grant }).await.unwrap();
    }

    async fn close(&self) -> Result<Option<u64>, String> {
        self.meter.of().ask(CloseWindow, WITHIN).await.unwrap()
    }

    async fn report(&self) -> Verified {
        let asked = CreateReport::default();
        let file = self.meter.of().ask(asked, WITHIN).await.unwrap();
        verify(&file.unwrap(), &self.sides).unwrap()
    }

    async fn sums(&self) -> Stated {
        self.report().await.account.sums
    }

    fn receipts(&self, verdict: &str) -> u64 {
        let labels: &'static [(&'static str, &'static str)] = match verdict {
            "accepted" => &[("verdict", "accepted")],
            "refused" => &[("verdict", "refused")],
            _ => &[("verdict", "missing")],
        };
        self.env.counter("receipts", "", labels).total()
    }

    fn write(&self, change: impl FnOnce(&mut Book)) {
        change(&mut self.book.lock().unwrap());
    }

    fn signs(&self, receipt: Option<Receipt>) {
        *self.signs.lock().unwrap() = receipt;
    }
}

fn with_env<Fut: Future>(test: impl FnOnce(Env) -> Fut) -> Fut::Output {
    let threads = Threads {
        workers: 1,
        arbiters: 2,
    };
    pqcnet_actor::run_on(threads, "relayer", test).unwrap()
}

fn first_life() -> Book {
    Book {
        run: 11,
        generation: 1,
        ..Book::default()
    }
}

// 100 stored, 80 sent, 60 signed for; then the relayer is "killed" with 30 more stored and 20 more sent that no window has,
// and comes again with another life of its worker. Nothing stored is lost or doubled; what was sent and not in a window is
// restored by the receipt that covers it.
#[test]
fn windows_survive_a_kill() {
    with_env(|env| async move {
        let place = tempfile::tempdir().unwrap();
        let sides = Sides::new();
        let world = World::start(&env, place.path(), &sides, first_life()).await;
        world.grant(&sides.publisher).await;
        world.grant(&sides.receiver).await;
        world.write(|book| {
            book.stored = (0, 100);
            book.sent = 80;
            book.span = (0, 80);
        });
        world.signs(Some(sides.statement(60).sign(&sides.receiver)));
        let first = world.close().await.unwrap().unwrap();
        let sums = world.sums().await;
        assert_eq!((sums.stored, sums.delivered), (volume(100), volume(80)));
        assert_eq!(
            (sums.receipted, sums.unreceipted()),
            (volume(60), volume(20))
        );
        assert_eq!(sums.stored_ungranted, volume(0));
        // A quiet window adds nothing, and is there all the same.
        assert_eq!(world.close().await, Ok(Some(first + 1)));
        assert_eq!(world.sums().await.stored, volume(100));

        // An answer that never came: what it held comes again.
        world.write(|book| {
            book.stored.1 = 110;
            book.sent = 5;
            book.span.1 = 85;
            book.silent = true;
        });
        world.close().await.unwrap();
        assert_eq!(world.sums().await.stored, volume(100));
        world.close().await.unwrap();
        let sums = world.sums().await;
        assert_eq!((sums.stored, sums.delivered), (volume(110), volume(85)));
        let windows = world.report().await.report.windows.len();
        world.running.stop().await;
        drop(world);

        // What the last life stored beyond its last window is in the log; what it sent is not. The receiver has 105.
        let book = Book {
            run: 12,
            generation: 2,
            stored: (140, 150),
            sent: 15,
            span: (105, 120),
            ..Book::default()
        };
        let world = World::start(&env, place.path(), &sides, book).await;
        world.signs(Some(sides.statement(120).sign(&sides.receiver)));
        world.close().await.unwrap();
        let report = world.report().await;
        assert!(report.report.windows.len() > windows, "the chain goes on");
        let sums = report.account.sums;
        assert_eq!((sums.stored, sums.delivered), (volume(150), volume(120)));
        assert_eq!(
            (sums.receipted, sums.unreceipted()),
            (volume(120), volume(0))
        );
        let asked = ReadTotals {
            after: None,
            limit: 10,
        };
        let totals = world.meter.of().ask(asked, WITHIN).await.unwrap().unwrap();
        assert_eq!(totals.all.stored, volume(150));
        assert_eq!(totals.all.delivered, volume(120));
        assert_eq!(totals.all.receipted, volume(120));
        assert_eq!((totals.customers.len(), totals.more), (2, false));
        world.running.stop().await;
    });
}

// Receipts of every wrong kind: another's signature, another relayer's, more than there are offsets, another channel's. Each is
// refused and counted, none is in a report; the right one then is taken.
#[test]
fn forged_receipts_are_refused_and_counted() {
    with_env(|env| async move {
        let place = tempfile::tempdir().unwrap();
        let sides = Sides::new();
        let world = World::start(&env, place.path(), &sides, first_life()).await;
        world.grant(&sides.publisher).await;
        world.grant(&sides.receiver).await;
        world.write(|book| {
            book.stored = (0, 50);
            book.sent = 50;
            book.span = (0, 50);
        });
        let stranger = NodeKeys::generate();
        let honest = || sides.statement(50);
        let forged = [
            honest().sign(&stranger),
            Statement {
                relayer: SENTRY,
                ..honest()
            }
            .sign(&sides.receiver),
            Statement {
                frames: 51,
                ..honest()
            }
            .sign(&sides.receiver),
            Statement {
                channel: Channel {
                    owner: sides.receiver.node_id(),
                    ..sides.channel()
                },
                ..honest()
            }
            .sign(&sides.receiver),
            Statement {
                network_id: [0; 32],
                ..honest()
            }
            .sign(&sides.receiver),
        ];
        for (count, receipt) in (1..).zip(forged) {
            world.signs(Some(receipt));
            world.close().await.unwrap();
            assert_eq!(world.receipts("refused"), count);
        }
        let report = world.report().await;
        assert_eq!(report.report.receipts.len(), 0);
        let sums = report.account.sums;
        assert_eq!((sums.delivered, sums.receipted), (volume(50), volume(0)));
        let missing = world.receipts("missing");
        world.signs(None);
        world.close().await.unwrap();
        assert_eq!(world.receipts("missing"), missing + 1);
        world.signs(Some(honest().sign(&sides.receiver)));
        world.close().await.unwrap();
        assert_eq!(world.receipts("accepted"), 1);
        assert_eq!(world.sums().await.receipted, volume(50));
        // Everything is signed for: nobody is asked any more.
        world.close().await.unwrap();
        assert_eq!(world.receipts("missing"), missing + 1);
        world.running.stop().await;
    });
}

// A store that is older than its meter: what it held before is nobody's to report.
#[test]
fn what_was_stored_before_there_was_a_meter_is_not_claimed() {
    with_env(|env| async move {
        let place = tempfile::tempdir().unwrap();
        let sides = Sides::new();
        let book = Book {
            run: 11,
            generation: 7,
            stored: (1000, 1004),
            ..Book::default()
        };
        let world = World::start(&env, place.path(), &sides, book).await;
        world.grant(&sides.publisher).await;
        world.close().await.unwrap();
        assert_eq!(world.sums().await.stored, volume(4));
        world.running.stop().await;
    });
}
