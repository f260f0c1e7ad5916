//! What links, cuts and NATs do to streams and datagrams.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures::{AsyncReadExt as _, AsyncWriteExt as _};
use parking_lot::Mutex;
use pqcnet_messages::Role;
use pqcnet_p2p::network::Address;
use pqcnet_p2p::streams::Listener;
use pqcnet_sim::net::{Bandwidth, Cut, Link, Nat, Uniform};
use pqcnet_sim::world::{CrashKind, NodeNo, NodeSpec, World, WorldConfig};

const PORT: u16 = 7;

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

struct Pair {
    world: World,
    a: NodeNo,
    b: NodeNo,
}

fn pair(seed: u64, link: Link) -> Pair {
    let mut config = WorldConfig::new(seed);
    config.links = Box::new(Uniform(link));
    let mut world = World::new(config);
    world
        .add(NodeSpec::new("relayer-0", Role::Relayer))
        .unwrap();
    let [a, b] = ["a", "b"].map(|name| {
        let node = world.add(NodeSpec::new(name, Role::Client)).unwrap();
        world.start(node).unwrap();
        node
    });
    Pair { world, a, b }
}

impl Pair {
    fn at(&self, node: NodeNo) -> Address {
        SocketAddr::new(self.world.net().ip(node), PORT).into()
    }

    fn listen(&mut self, node: NodeNo) -> Box<dyn Listener> {
        let (streams, at) = (self.world.streams(node), self.at(node));
        let listening = self.world.wait(async move { streams.listen(&at).await });
        listening.unwrap().unwrap()
    }

    /// b answers every byte with itself; a dials it, and notes when it has a connection and when each byte is back.
    fn echo(&mut self, bytes: usize, apart: Duration) -> Arc<Mutex<Vec<(u128, u8)>>> {
        let mut listener = self.listen(self.b);
        self.world.spawn(self.b, async move {
            while let Ok(arrived) = listener.accept().await {
                let (mut read, mut write) = arrived.stream.split();
                let copied = futures::io::copy(&mut read, &mut write).await;
                copied.ok();
                write.close().await.ok();
            }
        });
        let (streams, to) = (self.world.streams(self.a), self.at(self.b));
        let env = self.world.env(self.a).unwrap();
        let notes: Arc<Mutex<Vec<(u128, u8)>>> = Arc::default();
        let told = notes.clone();
        self.world.spawn(self.a, async move {
            let stream = streams.dial(&to).await.unwrap();
            told.lock().push((env.now().as_millis(), 255));
            let (mut read, mut write) = stream.split();
            let clock = env.clone();
            let sending = async move {
                for byte in 0..u8::try_from(bytes).unwrap() {
                    write.write_all(&[byte]).await.unwrap();
                    clock.sleep(apart).await;
                }
                write.close().await.unwrap();
            };
            let reading = async {
                let mut byte = [0];
                while read.read(&mut byte).await.unwrap() == 1 {
                    told.lock().push((env.now().as_millis(), byte[0]));
                }
                told.lock().push((env.now().as_millis(), 254));
            };
            futures::join!(sending, reading);
        });
        notes
    }
}

// Scenario: 20 ms one way. A connection takes a round trip, a byte its round trip, and the end is heard after one as well.
#[test]
fn latency_is_exact() {
    let mut pair = pair(1, Link::default());
    let notes = pair.echo(2, ms(5));
    pair.world.run_for(ms(500)).unwrap();
    assert_eq!(*notes.lock(), [(40, 255), (80, 0), (85, 1), (90, 254)]);
    assert_eq!(pair.world.net().counts().connections, 0);
}

// Scenario: a link that loses every fifth packet and jitters: bytes come late, and still all of them in order.
#[test]
fn a_stream_stays_in_order_over_a_bad_link() {
    let link = Link {
        jitter: ms(30),
        loss: 0.2,
        duplicate: 0.2,
        reorder: 0.2,
        ..Link::default()
    };
    let mut pair = pair(2, link);
    let notes = pair.echo(200, ms(1));
    pair.world.run_for(Duration::from_secs(60)).unwrap();
    let notes = notes.lock();
    let bytes: Vec<u8> = notes[1..].iter().map(|(_, byte)| *byte).collect();
    let expected: Vec<u8> = (0..200).chain([254]).collect();
    assert_eq!(bytes, expected);
    assert!(
        notes[200].0 > 450,
        "nothing was sent again: {:?}",
        notes[200]
    );
}

// Scenario: 10,000 bytes a second: 5,000 bytes take their time, headers included, and the latency.
#[test]
fn bytes_queue_for_bandwidth() {
    let link = Link {
        bandwidth: Some(Bandwidth {
            bytes_per_second: 10_000,
            queue_bytes: 4_000,
        }),
        ..Link::default()
    };
    let mut pair = pair(3, link);
    let (a, b) = (pair.a, pair.b);
    let mut listener = pair.listen(b);
    let (streams, to, env) = (
        pair.world.streams(a),
        pair.at(b),
        pair.world.env(b).unwrap(),
    );
    let came = pair.world.wait(async move {
        let dialled = async {
            let mut stream = streams.dial(&to).await.unwrap();
            stream.write_all(&[1; 5_000]).await.unwrap();
            stream
        };
        let accepted = async {
            let mut stream = listener.accept().await.unwrap().stream;
            let began = env.now();
            stream.read_exact(&mut [0; 5_000]).await.unwrap();
            env.now() - began
        };
        futures::join!(dialled, accepted).1
    });
    // 5,000 bytes and 4 headers of 66 at 10 bytes a millisecond, right behind the 66 of the packet that opened.
    let came = came.unwrap().as_millis();
    assert!((526..=527).contains(&came), "{came}");
    pair.world.run_for(Duration::from_secs(1)).unwrap();
    // Datagrams that find more than 4,000 bytes waiting are dropped.
    let mut inbox = pair.world.net().mailbox(b, PORT + 1).unwrap();
    let outbox = pair.world.net().mailbox(a, PORT + 1).unwrap();
    let (to, env) = (inbox.local(), pair.world.env(b).unwrap());
    let got = pair.world.wait(async move {
        for _ in 0..20 {
            outbox.send(to, vec![0; 934].into());
        }
        let mut got = 0;
        loop {
            tokio::select! {
                biased;
                came = inbox.receive() => got += usize::from(came.is_some()),
                () = env.sleep(Duration::from_secs(5)) => return got,
            }
        }
    });
    assert_eq!(got.unwrap(), 5);
}

// Scenario: a has a line of its own of 10,000 bytes a second, both ways; its links have no bound. It sends 5,000 bytes to each of
// two peers and gets as many of each, all at once: what goes out queues together, what comes in too, and the two directions do
// not touch. Behind the line a link of 20,000 bytes a second takes its own time; without the line nothing waits.
#[test]
fn a_nodes_own_line_queues_both_ways() {
    let mut pair = pair(9, Link::default());
    let (a, b) = (pair.a, pair.b);
    let c = pair.world.add(NodeSpec::new("c", Role::Client)).unwrap();
    pair.world.start(c).unwrap();
    let mut both = Vec::new();
    for peer in [b, c] {
        let mut listener = pair.listen(peer);
        let (streams, to) = (pair.world.streams(a), pair.at(peer));
        let ends = pair.world.wait(async move {
            let (dialled, accepted) = futures::join!(streams.dial(&to), listener.accept());
            (dialled.unwrap(), accepted.unwrap().stream)
        });
        both.push(ends.unwrap());
    }
    let (mut ours, mut theirs): (Vec<_>, Vec<_>) = both.into_iter().unzip();
    // When each of the 5,000 bytes that everybody sends to everybody have come: at the peers, at a.
    let mut exchange = |pair: &mut Pair| -> [Vec<u128>; 2] {
        let env = pair.world.env(a).unwrap();
        let exchanged = pair.world.wait(async {
            let began = env.now();
            for stream in ours.iter_mut().chain(&mut theirs) {
                stream.write_all(&[1; 5_000]).await.unwrap();
            }
            let ends = ours.iter_mut().chain(&mut theirs).map(async |stream| {
                stream.read_exact(&mut [0; 5_000]).await.unwrap();
                (env.now() - began).as_millis()
            });
            futures::future::join_all(ends).await
        });
        let mut came = exchanged.unwrap();
        let mut out = came.split_off(2);
        came.sort_unstable();
        out.sort_unstable();
        [out, came]
    };
    assert_eq!(exchange(&mut pair), [vec![20, 20], vec![20, 20]]);
    let line = Bandwidth {
        bytes_per_second: 10_000,
        queue_bytes: 4_000,
    };
    pair.world.net().set_access(a, Some(line));
    // 5,000 bytes and 4 headers of 66 take 526.4 ms, and the way 20 ms.
    assert_eq!(exchange(&mut pair), [vec![546, 1_073], vec![546, 1_073]]);
    let link = Link {
        bandwidth: Some(Bandwidth {
            bytes_per_second: 20_000,
            queue_bytes: 4_000,
        }),
        ..Link::default()
    };
    pair.world.net().set_link(a, b, Some(link));
    pair.world.net().set_link(a, c, Some(link));
    // On its way out each also passes its link, in 263.2 ms; what comes in has links without a bound still.
    assert_eq!(exchange(&mut pair), [vec![810, 1_336], vec![546, 1_073]]);
    pair.world.net().set_access(a, None);
    assert_eq!(exchange(&mut pair), [vec![283, 283], vec![20, 20]]);
}

// Scenario: 20 datagrams of 1,000 bytes with their headers at once, out over a line that lets 4,000 bytes wait, then in over it:
// each way one passes, four wait, and the others are dropped.
#[test]
fn a_nodes_own_line_drops_what_finds_no_room() {
    let mut pair = pair(10, Link::default());
    let (a, b) = (pair.a, pair.b);
    let line = Bandwidth {
        bytes_per_second: 10_000,
        queue_bytes: 4_000,
    };
    pair.world.net().set_access(a, Some(line));
    for (from, to) in [(a, b), (b, a)] {
        let lost = pair.world.net().counts().lost;
        let mut inbox = pair.world.net().mailbox(to, PORT).unwrap();
        let outbox = pair.world.net().mailbox(from, PORT).unwrap();
        let (at, env) = (inbox.local(), pair.world.env(to).unwrap());
        let got = pair.world.wait(async move {
            let began = env.now();
            for _ in 0..20 {
                outbox.send(at, vec![0; 934].into());
            }
            let mut got = Vec::new();
            loop {
                tokio::select! {
                    biased;
                    came = inbox.receive() => {
                        got.extend(came.map(|_| (env.now() - began).as_millis()));
                    }
                    () = env.sleep(Duration::from_secs(5)) => return got,
                }
            }
        });
        assert_eq!(got.unwrap(), [120, 220, 320, 420, 520]);
        assert_eq!(pair.world.net().counts().lost - lost, 15);
    }
}

// Scenario: datagrams over a link that loses a tenth, repeats a tenth and delays a tenth: of 2,000 about so many are missing,
// come twice and come late.
#[test]
fn datagrams_are_lost_repeated_and_reordered() {
    let link = Link {
        loss: 0.1,
        duplicate: 0.1,
        reorder: 0.1,
        ..Link::default()
    };
    let mut pair = pair(4, link);
    let mut inbox = pair.world.net().mailbox(pair.b, PORT).unwrap();
    let outbox = pair.world.net().mailbox(pair.a, PORT).unwrap();
    let (to, env) = (inbox.local(), pair.world.env(pair.b).unwrap());
    let got = pair.world.wait(async move {
        let mut got: Vec<u32> = Vec::new();
        for number in 0..2_000_u32 {
            outbox.send(to, number.to_be_bytes().to_vec().into());
            env.sleep(ms(1)).await;
            while let Some(Some(came)) = futures::FutureExt::now_or_never(inbox.receive()) {
                got.push(u32::from_be_bytes((&*came.bytes).try_into().unwrap()));
            }
        }
        env.sleep(ms(500)).await;
        while let Some(Some(came)) = futures::FutureExt::now_or_never(inbox.receive()) {
            got.push(u32::from_be_bytes((&*came.bytes).try_into().unwrap()));
        }
        got
    });
    let got = got.unwrap();
    let mut sorted = got.clone();
    sorted.sort_unstable();
    sorted.dedup();
    let (missing, twice) = (2_000 - sorted.len(), got.len() - sorted.len());
    let late = got.windows(2).filter(|pair| pair[0] > pair[1]).count();
    assert!((140..=260).contains(&missing), "{missing} missing");
    assert!((120..=240).contains(&twice), "{twice} twice");
    assert!((60..=400).contains(&late), "{late} late");
}

// Scenario: the path is cut one way, from b to a, for a second: a's bytes reach b, the echo waits, is sent again and comes in
// order once the path is whole.
#[test]
fn a_one_way_cut_holds_a_stream_up() {
    let mut pair = pair(5, Link::default());
    let notes = pair.echo(50, ms(10));
    pair.world.run_for(ms(200)).unwrap();
    let before = notes.lock().len();
    let (from, to) = (vec![pair.b], vec![pair.a]);
    let cut = pair.world.net().cut(Cut::OneWay { from, to });
    assert!(pair.world.net().is_cut(pair.b, pair.a) && !pair.world.net().is_cut(pair.a, pair.b));
    pair.world.run_for(ms(1_000)).unwrap();
    assert_eq!(notes.lock().len(), before);
    assert!(pair.world.net().heal(cut) && !pair.world.net().heal(cut));
    pair.world.run_for(Duration::from_secs(5)).unwrap();
    let bytes: Vec<u8> = notes.lock()[1..].iter().map(|(_, byte)| *byte).collect();
    assert_eq!(bytes, (0..50).chain([254]).collect::<Vec<u8>>());
    assert!(pair.world.net().counts().held_up > 0);
}

// Scenario: between two groups nothing passes, so a dial is tried again and again; after the cut it succeeds. One that nobody
// heals times out; a dial to a port where nothing listens is refused after a round trip.
#[test]
fn dials_meet_cuts_and_closed_doors() {
    let mut pair = pair(6, Link::default());
    let (a, b) = (pair.a, pair.b);
    let dial = |pair: &mut Pair, to: Address| {
        let (streams, env) = (pair.world.streams(a), pair.world.env(a).unwrap());
        let dialled = pair.world.wait(async move {
            let began = env.now();
            let outcome = streams
                .dial(&to)
                .await
                .map(drop)
                .map_err(|error| error.kind());
            (outcome, (env.now() - began).as_millis())
        });
        dialled.unwrap()
    };
    let at = pair.at(b);
    assert_eq!(
        dial(&mut pair, at.clone()),
        (Err(ErrorKind::ConnectionRefused), 40)
    );
    let nowhere = dial(&mut pair, "nobody:7".parse().unwrap());
    assert_eq!(nowhere, (Err(ErrorKind::HostUnreachable), 0));
    let groups = || Cut::Groups(vec![vec![a], vec![b]]);
    let _listener = pair.listen(b);
    let cut = pair.world.net().cut(groups());
    // 1 + 2 + 4 + 8 + 16 + 32 + 64 s.
    assert_eq!(
        dial(&mut pair, at.clone()),
        (Err(ErrorKind::TimedOut), 127_000)
    );
    pair.world.net().heal(cut);
    assert_eq!(dial(&mut pair, at.clone()), (Ok(()), 40));
    // By name as well.
    assert_eq!(dial(&mut pair, "b:7".parse().unwrap()), (Ok(()), 40));
}

// Scenario: b's process dies: a hears of it at once and reads the end; b's machine loses power: a hears nothing until it sends
// to the machine that came back and knows nothing of the connection.
#[test]
fn dead_processes_reset_and_dead_machines_are_silent() {
    for (kind, silent) in [(CrashKind::Process, false), (CrashKind::Machine, true)] {
        let mut pair = pair(7, Link::default());
        let (a, b) = (pair.a, pair.b);
        let mut listener = pair.listen(b);
        let (streams, to) = (pair.world.streams(a), pair.at(b));
        let both = pair.world.wait(async move {
            let (dialled, accepted) = futures::join!(streams.dial(&to), listener.accept());
            (dialled.unwrap(), accepted.unwrap())
        });
        let (mut dialled, accepted) = both.unwrap();
        pair.world.crash(b, kind);
        let (env, stream) = (pair.world.env(a).unwrap(), &mut dialled);
        let heard = pair.world.wait(async move {
            let mut byte = [0];
            tokio::select! {
                biased;
                read = stream.read(&mut byte) => Some(read.unwrap_err().kind()),
                () = env.sleep(Duration::from_secs(60)) => None,
            }
        });
        let heard = heard.unwrap();
        assert_eq!(heard, (!silent).then_some(ErrorKind::ConnectionReset));
        pair.world.start(b).unwrap();
        let stream = &mut dialled;
        let told = pair.world.wait(async move {
            stream.write_all(b"are you there?").await.ok();
            stream.read(&mut [0]).await.unwrap_err().kind()
        });
        assert_eq!(told.unwrap(), ErrorKind::ConnectionReset);
        drop(accepted);
    }
}

// Scenario: b is behind a NAT. Nobody dials it. Datagrams come in from whom it has sent to, and a dial too, behind a cone: so
// a hole is punched when both dial. Behind a symmetric one nothing new comes in.
#[test]
fn nats_let_in_whom_their_node_has_sent_to() {
    for (nat, punched) in [(Nat::Cone, true), (Nat::Symmetric, false)] {
        let mut pair = pair(8, Link::default());
        let (a, b) = (pair.a, pair.b);
        pair.world.net().set_nat(b, nat);
        let _listener = pair.listen(b);
        let (streams, env, to) = (
            pair.world.streams(a),
            pair.world.env(a).unwrap(),
            pair.at(b),
        );
        let (inbox, mut mine) = (
            pair.world.net().mailbox(b, 9).unwrap(),
            pair.world.net().mailbox(a, 9).unwrap(),
        );
        let dial = async |streams: Arc<dyn pqcnet_p2p::streams::Streams>, to: Address| {
            tokio::select! {
                biased;
                dialled = streams.dial(&to) => dialled.is_ok(),
                () = env.sleep(Duration::from_secs(5)) => false,
            }
        };
        let outcome = pair.world.wait(async {
            let before = dial(streams.clone(), to.clone()).await;
            inbox.send(mine.local(), b"hello".as_slice().into());
            let heard = mine.receive().await.is_some();
            (before, heard, dial(streams.clone(), to.clone()).await)
        });
        assert_eq!(outcome.unwrap(), (false, true, punched));
        // A dial that gets no answer is repeated after 1, 2 and 4 s; within 5 s that is three SYNs.
        let tries = if punched { 3 } else { 6 };
        assert_eq!(pair.world.net().counts().turned_away, tries);
    }
}
