//! The log on a real RabbitMQ: the conformance suite, a broker and writers that die, two would-be owners. One broker serves
//! all of it, since a broker takes longer to start than all of this to run.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[macro_use]
mod rules;
#[path = "support/amqp_proxy.rs"]
mod amqp_proxy;
#[path = "support/broker.rs"]
mod on_broker;
#[path = "rules/owners.rs"]
mod owners;
#[path = "support/private_broker.rs"]
#[allow(dead_code, reason = "each test binary uses its part")]
mod private_broker;
mod support;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use amqp_proxy::AmqpProxy;
use futures::StreamExt as _;
use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicQosOptions, QueueDeclareOptions, QueueDeleteOptions,
};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{Connection, ConnectionProperties};
use on_broker::{
    OTHER, OnBroker, S, all_texts, append_each, drained, opened, opened_of, refused, refused_of,
    waiting,
};
use pqcnet_log::broker;
use pqcnet_log::{BrokerConfig, BrokerLog, Letter, LetterKeys, LogError, ShardLog};
use pqcnet_store::RocksStore;
use private_broker::{Broker, Cluster};
use rules::Fixture;
use support::{A, batch, read, soon};

macro_rules! in_turn {
    ($($name:ident),+ $(,)?) => {
        /// Every rule, each on a log of its own, one after the other.
        async fn all(uri: &str) {
            $(
                eprintln!("{}", stringify!($name));
                soon(rules::$name(OnBroker::new(uri))).await;
            )+
        }
    };
}

every_rule!(in_turn);

macro_rules! limits_in_turn {
    ($($name:ident),+ $(,)?) => {
        /// The same of those about limits.
        async fn all_limits(uri: &str) {
            $(
                eprintln!("{}", stringify!($name));
                soon(rules::limits::$name(|limits| OnBroker::keeping(uri, limits))).await;
            )+
        }
    };
}

every_limit!(limits_in_turn);

// The broker dies under the log. What is appended then is durable all the same: it outlives the log's own death, is read, and
// when the broker is back it goes there in order, before anything new.
async fn an_outage_is_spilled_and_drained(broker: &mut Broker) -> OnBroker {
    let here = OnBroker::new(&broker.uri());
    let generation = opened(&here.log).await;
    append_each(&here.log, generation, 0, &["a", "b"]).await;
    drained(&here.store).await;
    broker.kill();
    append_each(&here.log, generation, 2, &["c", "d", "e"]).await;
    assert_eq!(waiting(&here.store), 3);
    let late = soon(read(&here.log, S, A, 2)).await.unwrap();
    assert_eq!(
        late,
        [3, 4, 5].map(|o| (o, ["c", "d", "e"][o as usize - 3].to_owned()))
    );
    let here = here.restarted().await;
    let again = opened(&here.log).await;
    assert_eq!(again, generation + 1);
    append_each(&here.log, again, 5, &["f"]).await;
    assert_eq!(waiting(&here.store), 4);
    assert_eq!(soon(read(&here.log, S, A, 0)).await, Err(LogError::Busy));
    broker.resume();
    drained(&here.store).await;
    append_each(&here.log, again, 6, &["g"]).await;
    drained(&here.store).await;
    assert_eq!(
        all_texts(&here.log).await,
        ["a", "b", "c", "d", "e", "f", "g"]
    );
    here
}

// The relayer's disk is lost: a log with an empty store takes over what the stream says. Then the old disk comes back, whose
// log knows nothing of that: it is told so, and writes nothing.
async fn an_empty_store_takes_over(here: OnBroker) {
    let before = soon(here.log.heads(S)).await.unwrap();
    let (uri, prefix, old) = here.ended().await;
    let dir = tempfile::tempdir().unwrap();
    let (log, store) = on_broker::log(&uri, dir.path(), &prefix);
    let generation = opened(&log).await;
    assert!(generation > 1 << 20, "{generation}");
    assert_eq!(soon(log.heads(S)).await.unwrap(), before);
    append_each(&log, generation, 7, &["h"]).await;
    assert_eq!(
        all_texts(&log).await,
        ["a", "b", "c", "d", "e", "f", "g", "h"]
    );
    let second = tempfile::tempdir().unwrap();
    let (rival, _rivals) = on_broker::log(&uri, second.path(), &prefix);
    refused(&rival, "holds the lock").await;
    append_each(&log, generation, 8, &["i"]).await;
    drained(&store).await;
    drop((log, rival));
    let (stale, _stale) = on_broker::log(&uri, old.path(), &prefix);
    refused(&stale, "somebody else has written").await;
}

// A stream that keeps half a MiB: when its front is gone, reading starts with the first entry left and goes on without a hole,
// offsets stay, and a log with an empty store, which could not know what the front held, takes over nothing.
async fn a_front_that_the_broker_removed_is_passed_over(uri: &str) {
    const EACH: u64 = 64;
    let mut config = BrokerConfig::new(uri, "kept-short").unwrap();
    config.settings.retention.bytes = Some(512 << 10);
    let dir = tempfile::tempdir().unwrap();
    let (log, _store) = on_broker::with(config.clone(), dir.path());
    let generation = opened(&log).await;
    let text = "x".repeat(4 << 10);
    let texts = vec![text.as_str(); EACH as usize];
    let mut head = 0;
    let first = soon(async {
        loop {
            let appended = log.append(batch(S, generation, A, head, &texts)).unwrap();
            appended.await.unwrap();
            head += EACH;
            let read = read(&log, S, A, 0).await.unwrap();
            if read[0].0 > 1 {
                return read[0].0;
            }
        }
    })
    .await;
    let mut next = first;
    while next <= head {
        let found = soon(read(&log, S, A, next - 1)).await.unwrap();
        for (offset, _) in found {
            assert_eq!(offset, next);
            next += 1;
        }
    }
    assert_eq!(soon(read(&log, S, A, head)).await.unwrap(), []);
    drop(log);
    let empty = tempfile::tempdir().unwrap();
    let (log, _store) = on_broker::with(config, empty.path());
    refused(&log, "front was removed").await;
}

/// How often each offset is in the shard's stream up to the first message with offset `last`, whoever wrote it there; asked of
/// the broker itself, which is waited for.
async fn copies(uri: &str, prefix: &str, last: u64) -> BTreeMap<u64, u32> {
    let stream = format!("{prefix}.shard-{}", S.0);
    let options = ConnectionProperties::default();
    let connection = Connection::connect(uri, options).await.unwrap();
    let channel = connection.create_channel().await.unwrap();
    let qos = BasicQosOptions::default();
    channel.basic_qos(64, qos).await.unwrap();
    let mut from = FieldTable::default();
    from.insert("x-stream-offset".into(), AMQPValue::LongLongInt(0));
    let options = BasicConsumeOptions::default();
    let reading = channel.basic_consume(stream.as_str().into(), "".into(), options, from);
    let mut reading = reading.await.unwrap();
    let mut copies = BTreeMap::new();
    while !copies.contains_key(&last) {
        let delivery = reading.next().await.unwrap().unwrap();
        delivery.ack(BasicAckOptions::default()).await.unwrap();
        let headers = delivery.properties.headers().as_ref().unwrap().inner();
        if let Some(offset) = headers.get("offset").and_then(AMQPValue::as_long_long_int) {
            *copies.entry(offset as u64).or_default() += 1;
        } else if headers.get("entries").is_some() {
            for (_, offset) in broker::bundled(&delivery.data).unwrap() {
                *copies.entry(offset).or_default() += 1;
            }
        }
    }
    copies
}

// The connection is cut when the broker has what was appended and its confirms are lost on the way: a new writer epoch publishes
// all of it again, so it is in the stream twice, and in the log once and in order.
async fn a_cut_inside_a_confirm_window_repeats_nothing(broker: &Broker) {
    let proxy = AmqpProxy::start(broker.at()).await.unwrap();
    let here = OnBroker::new(&proxy.in_front_of(&broker.uri()));
    let generation = opened(&here.log).await;
    append_each(&here.log, generation, 0, &["a", "b"]).await;
    drained(&here.store).await;
    proxy.lose_confirms();
    let appending = here
        .log
        .append(batch(S, generation, A, 2, &["c", "d", "e"]));
    let cutting = async {
        proxy.lost(1).await;
        copies(&broker.uri(), &here.prefix, 5).await;
        proxy.cut();
    };
    let (appended, ()) = soon(async { futures::join!(appending.unwrap(), cutting) }).await;
    appended.unwrap();
    append_each(&here.log, generation, 5, &["f"]).await;
    drained(&here.store).await;
    assert_eq!(all_texts(&here.log).await, ["a", "b", "c", "d", "e", "f"]);
    let copies = soon(copies(&broker.uri(), &here.prefix, 6)).await;
    let twice = [(1, 1), (2, 1), (3, 2), (4, 2), (5, 2), (6, 1)];
    assert_eq!(copies, BTreeMap::from(twice));
}

// The broker refuses a message in the middle of a window; it has it all the same, which is worse than if it had not. From the
// first unconfirmed one on all is published again in a new writer epoch, and the log has each once and in order.
async fn a_nack_in_mid_window_repeats_nothing(broker: &Broker) {
    let proxy = AmqpProxy::start(broker.at()).await.unwrap();
    let here = OnBroker::new(&proxy.in_front_of(&broker.uri()));
    let generation = opened(&here.log).await;
    append_each(&here.log, generation, 0, &["a", "b"]).await;
    drained(&here.store).await;
    proxy.falsify(1);
    let window = batch(S, generation, A, 2, &["c", "d", "e", "f"]);
    soon(here.log.append(window).unwrap()).await.unwrap();
    soon(proxy.falsified(1)).await;
    append_each(&here.log, generation, 6, &["g"]).await;
    drained(&here.store).await;
    let wanted = ["a", "b", "c", "d", "e", "f", "g"];
    assert_eq!(all_texts(&here.log).await, wanted);
    let copies = soon(copies(&broker.uri(), &here.prefix, 7)).await;
    assert!(copies[&3] >= 2, "{copies:?}");
    assert_eq!(copies.len(), 7);
}

// What is drained in one go after an outage is more than the limit. The broker removes whole segments, and writes to one what it has been sent
// together however much that is: of what is kept half is there nevertheless, and a read finds it.
async fn a_burst_leaves_what_is_to_be_kept(broker: &Broker) {
    const KEPT: u64 = 512 << 10;
    let proxy = AmqpProxy::start(broker.at()).await.unwrap();
    let text = "x".repeat(4 << 10);
    let texts = vec![text.as_str(); 32];
    for round in 0..8 {
        let name = format!("burst-{round}");
        let mut config = BrokerConfig::new(&proxy.in_front_of(&broker.uri()), &name).unwrap();
        config.settings.retention.bytes = Some(KEPT);
        config.settings.limits.behind_after = Duration::from_millis(20);
        let dir = tempfile::tempdir().unwrap();
        let (log, store) = on_broker::with(config, dir.path());
        let generation = opened(&log).await;
        proxy.lose_confirms();
        for batches in 0..12 {
            let appended = log.append(batch(S, generation, A, batches * 32, &texts));
            soon(appended.unwrap()).await.unwrap();
        }
        proxy.cut();
        drained(&store).await;
        let (first, last) = soon(async {
            loop {
                match read(&log, S, A, 0).await.as_deref() {
                    // It removes them in its own time.
                    Ok([(first, _), .., (last, _)]) if last - first >= KEPT >> 12 => {}
                    Ok([(first, _), .., (last, _)]) => return (*first, *last),
                    Ok(few) => panic!("round {round}: {} entries", few.len()),
                    Err(error) => assert_eq!(*error, LogError::Busy),
                }
                tokio::task::yield_now().await;
            }
        })
        .await;
        assert_eq!(last, 12 * 32);
        assert!(last - first >= KEPT >> 13, "round {round}: from {first} on");
    }
}

// The suite, a stream that the broker has cut at its front, and confirms that are lost or falsified.
#[tokio::test]
async fn the_log_on_a_broker_conforms() {
    let broker = Broker::start();
    all(&broker.uri()).await;
    all_limits(&broker.uri()).await;
    a_front_that_the_broker_removed_is_passed_over(&broker.uri()).await;
    a_burst_leaves_what_is_to_be_kept(&broker).await;
    a_cut_inside_a_confirm_window_repeats_nothing(&broker).await;
    a_nack_in_mid_window_repeats_nothing(&broker).await;
    a_stream_that_is_gone_is_told(&broker).await;
}

/// Looks through the queue of what was put aside; again while the broker is not there.
async fn sifted(log: &BrokerLog, listed: &[u64], wanted: &[u64]) -> Vec<(u64, String)> {
    let keys = |offsets: &[u64]| -> LetterKeys { offsets.iter().map(|at| (A, *at)).collect() };
    let found: Vec<Letter> = soon(async {
        loop {
            match log.sift_letters(S, keys(listed), keys(wanted)).await {
                Err(LogError::Busy) => tokio::task::yield_now().await,
                found => return found.unwrap(),
            }
        }
    })
    .await;
    let text = |letter: Letter| String::from_utf8(letter.sealed.to_vec()).unwrap();
    let found = found.into_iter();
    found.map(|letter| (letter.offset, text(letter))).collect()
}

/// Copies an entry into it; again while the broker is not there.
async fn kept(log: &BrokerLog, offset: u64) {
    soon(async {
        while let Err(error) = log.keep_letter(S, A, offset).await {
            assert_eq!(error, LogError::Busy);
            tokio::task::yield_now().await;
        }
    })
    .await;
}

// Entries are put aside; the broker dies by SIGKILL when it has the second and its confirm is lost, so nobody knows, and it is put there
// again. Then the stream's front goes, and with it both: what was put aside is there, once each, however often it is looked at, more often than
// the queue's delivery limit; what no list names goes.
async fn what_is_put_aside_outlives_the_stream(broker: &mut Broker) {
    let proxy = AmqpProxy::start(broker.at()).await.unwrap();
    let mut config = BrokerConfig::new(&proxy.in_front_of(&broker.uri()), "aside").unwrap();
    config.settings.retention.bytes = Some(512 << 10);
    let dir = tempfile::tempdir().unwrap();
    let (log, store) = on_broker::with(config, dir.path());
    let generation = opened(&log).await;
    append_each(&log, generation, 0, &["a", "b", "c"]).await;
    drained(&store).await;
    kept(&log, 2).await;
    broker.remember_queue("aside.shard-3.letters");
    proxy.lose_confirms();
    let copying = log.keep_letter(S, A, 3);
    let dying = async {
        proxy.lost(1).await;
        broker.kill();
    };
    let (copied, ()) = soon(async { futures::join!(copying, dying) }).await;
    assert_eq!(copied, Err(LogError::Busy));
    proxy.cut();
    broker.resume();
    kept(&log, 3).await;
    let text = "x".repeat(4 << 10);
    let texts = vec![text.as_str(); 64];
    let mut head = 3;
    soon(async {
        loop {
            let appended = log.append(batch(S, generation, A, head, &texts)).unwrap();
            appended.await.unwrap();
            head += 64;
            match read(&log, S, A, 0).await {
                Err(LogError::Busy) => {}
                found => {
                    if found.unwrap()[0].0 > 3 {
                        return;
                    }
                }
            }
        }
    })
    .await;
    let both = [(2, "b".to_owned()), (3, "c".to_owned())];
    for _ in 0..70 {
        assert_eq!(sifted(&log, &[2, 3], &[2, 3]).await, both);
    }
    // There is nothing left to copy.
    kept(&log, 1).await;
    assert_eq!(sifted(&log, &[1, 2, 3], &[1, 3]).await, both[1..]);
    assert_eq!(sifted(&log, &[3], &[2, 3]).await, both[1..]);
    assert_eq!(sifted(&log, &[2, 3], &[2, 3]).await, both[1..]);
}

/// Makes a stream at the broker, as nobody should who knows that it forgot others.
async fn make_stream(uri: &str, name: &str) {
    let options = ConnectionProperties::default();
    let connection = Connection::connect(uri, options).await.unwrap();
    let channel = connection.create_channel().await.unwrap();
    let mut arguments = FieldTable::default();
    arguments.insert(
        "x-queue-type".into(),
        AMQPValue::LongString("stream".into()),
    );
    let durable = QueueDeclareOptions {
        durable: true,
        ..QueueDeclareOptions::default()
    };
    let made = channel.queue_declare(name.into(), durable, arguments);
    made.await.unwrap();
}

// A broker that is killed in the half second after its first stream ever forgets that it has streams: what is appended is spilled
// for as long as that lasts, and the log makes no new stream there, which would be the others' end. With what the runbook says to
// do they are back, and everything is there, in order.
async fn a_broker_that_forgot_its_streams(broker: &mut Broker) {
    let here = OnBroker::new(&broker.uri());
    let generation = opened(&here.log).await;
    append_each(&here.log, generation, 0, &["a", "b"]).await;
    drained(&here.store).await;
    broker.kill_forgetful();
    broker.resume();
    append_each(&here.log, generation, 2, &["c", "d"]).await;
    assert_eq!(waiting(&here.store), 2);
    broker.revive();
    drained(&here.store).await;
    append_each(&here.log, generation, 4, &["e"]).await;
    drained(&here.store).await;
    assert_eq!(all_texts(&here.log).await, ["a", "b", "c", "d", "e"]);
    // It has seen two epochs, which no stream has that was forgotten in its first half second.
    delete_stream(broker, &here.prefix).await;
}

// The same, and before anybody mends it somebody makes a stream: a second coordinator runs, which knows nothing of the first
// one's streams, until it is told.
async fn a_broker_that_forgot_and_was_given_a_new_stream(broker: &mut Broker) {
    let here = OnBroker::new(&broker.uri());
    let generation = opened(&here.log).await;
    append_each(&here.log, generation, 0, &["a", "b"]).await;
    drained(&here.store).await;
    broker.kill_forgetful();
    broker.resume();
    append_each(&here.log, generation, 2, &["c"]).await;
    refused_of(&here.log, OTHER, "does not serve").await;
    make_stream(&broker.uri(), "somebody-elses").await;
    assert_eq!(waiting(&here.store), 1);
    broker.revive();
    drained(&here.store).await;
    append_each(&here.log, generation, 3, &["d"]).await;
    assert_eq!(all_texts(&here.log).await, ["a", "b", "c", "d"]);
    opened_of(&here.log, OTHER).await;
}

// RabbitMQ before 3.11.3 (its issue 6179): killed as a stream starts, the broker may wait ever after for word of where that stream is
// served, and serves it no more, at no later start either. What is appended is spilled. With what the runbook says to do it is back, and
// a broker that does so as it starts, as a service is set up to, has it back by itself.
async fn a_broker_that_waits_for_its_stream(broker: &mut Broker) {
    let here = OnBroker::new(&broker.uri());
    let stream = format!("{}.shard-{}", here.prefix, S.0);
    let generation = opened(&here.log).await;
    append_each(&here.log, generation, 0, &["a", "b"]).await;
    drained(&here.store).await;
    broker.kill_waiting(&stream, false);
    broker.resume();
    append_each(&here.log, generation, 2, &["c"]).await;
    broker.kill();
    broker.resume();
    refused_of(&here.log, OTHER, "does not serve").await;
    append_each(&here.log, generation, 3, &["d"]).await;
    assert_eq!(waiting(&here.store), 2);
    broker.revive();
    drained(&here.store).await;
    broker.kill_waiting(&stream, true);
    broker.resume();
    append_each(&here.log, generation, 4, &["e"]).await;
    drained(&here.store).await;
    let found = broker.revived_by_itself();
    let id = format!("{{found,\"__{}_", stream.replace('.', "_"));
    assert!(found.contains(&id), "{found}");
    assert_eq!(all_texts(&here.log).await, ["a", "b", "c", "d", "e"]);
}

// RabbitMQ before 3.13.7: killed between the two files of a segment that it begins, be it a stream's first or a later one, the broker does not
// serve that stream, at no later start either. What is appended is spilled until what the runbook says to do is done; then everything is there.
async fn a_broker_that_began_a_segment(broker: &mut Broker) {
    let here = OnBroker::new(&broker.uri());
    let [stream, other] = [S, OTHER].map(|shard| format!("{}.shard-{}", here.prefix, shard.0));
    let generation = opened(&here.log).await;
    append_each(&here.log, generation, 0, &["a", "b"]).await;
    drained(&here.store).await;
    // As the log makes one, before it writes there.
    make_stream(&broker.uri(), &other).await;
    broker.kill_beginning(&[&stream, &other]);
    broker.resume();
    append_each(&here.log, generation, 2, &["c"]).await;
    broker.kill();
    broker.resume();
    append_each(&here.log, generation, 3, &["d"]).await;
    refused_of(&here.log, OTHER, "does not serve").await;
    assert_eq!(waiting(&here.store), 2);
    broker.revive();
    drained(&here.store).await;
    append_each(&here.log, generation, 4, &["e"]).await;
    assert_eq!(all_texts(&here.log).await, ["a", "b", "c", "d", "e"]);
    opened_of(&here.log, OTHER).await;
}

/// Deletes the shard's stream, as an operator might.
async fn delete_stream(broker: &Broker, prefix: &str) {
    let options = ConnectionProperties::default();
    let connection = Connection::connect(&broker.uri(), options).await.unwrap();
    let channel = connection.create_channel().await.unwrap();
    let stream = format!("{prefix}.shard-{}", S.0);
    let deleted = channel.queue_delete(stream.as_str().into(), QueueDeleteOptions::default());
    deleted.await.unwrap();
}

// A stream that somebody deleted is not made again in silence, for it held what was acknowledged: the log says so, and spills.
async fn a_stream_that_is_gone_is_told(broker: &Broker) {
    let here = OnBroker::new(&broker.uri());
    let generation = opened(&here.log).await;
    append_each(&here.log, generation, 0, &["a"]).await;
    drained(&here.store).await;
    delete_stream(broker, &here.prefix).await;
    append_each(&here.log, generation, 1, &["b"]).await;
    let here = here.restarted().await;
    let again = opened(&here.log).await;
    append_each(&here.log, again, 2, &["c"]).await;
    assert_eq!(waiting(&here.store), 2);
}

// What only a broker can do to a log: it forgets, it dies, and somebody else takes over.
#[tokio::test]
async fn the_log_outlives_its_broker() {
    let mut broker = Broker::start();
    a_broker_that_forgot_its_streams(&mut broker).await;
    a_broker_that_forgot_and_was_given_a_new_stream(&mut broker).await;
    a_broker_that_waits_for_its_stream(&mut broker).await;
    a_broker_that_began_a_segment(&mut broker).await;
    what_is_put_aside_outlives_the_stream(&mut broker).await;
    let drained = an_outage_is_spilled_and_drained(&mut broker).await;
    an_empty_store_takes_over(drained).await;
}

// A broker of three nodes, as `deploy/rabbitmq/compose.yaml` sets it up. One that dies stops nothing; without a majority nothing is confirmed,
// and what is appended is spilled. What was confirmed outlives the node that confirmed it, with its disk: an owner that has nothing of the shard
// finds all of it at another.
#[tokio::test]
async fn a_majority_of_three_nodes_keeps_what_was_confirmed() {
    let mut cluster = Cluster::start();
    let here = OnBroker::new(&cluster.nodes[0].uri());
    let generation = opened(&here.log).await;
    append_each(&here.log, generation, 0, &["a", "b"]).await;
    drained(&here.store).await;
    for (other, text) in [(1, "c"), (2, "d")] {
        cluster.nodes[other].kill();
        append_each(&here.log, generation, other as u64 + 1, &[text]).await;
        drained(&here.store).await;
        cluster.nodes[other].resume();
    }
    let minority = &mut cluster.nodes[1..];
    minority.iter_mut().for_each(Broker::kill);
    append_each(&here.log, generation, 4, &["e", "f"]).await;
    assert_eq!(waiting(&here.store), 2);
    minority.iter_mut().for_each(Broker::begin);
    minority.iter_mut().for_each(Broker::serves);
    drained(&here.store).await;
    append_each(&here.log, generation, 6, &["g"]).await;
    drained(&here.store).await;
    cluster.nodes[0].kill();
    let there = here.elsewhere(&cluster.nodes[1].uri()).await;
    let again = opened(&there.log).await;
    append_each(&there.log, again, 7, &["h"]).await;
    drained(&there.store).await;
    let all = ["a", "b", "c", "d", "e", "f", "g", "h"];
    assert_eq!(all_texts(&there.log).await, all);
}

// A shard changes owners while the broker dies.
#[tokio::test]
async fn a_move_outlives_the_broker() {
    let mut broker = Broker::start();
    owners::a_shard_goes_and_comes_back(&mut broker).await;
    owners::what_was_doomed_is_gone_before_it_comes_back(&mut broker).await;
}
