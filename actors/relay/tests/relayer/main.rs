//! Intake, ShardWorker, log and store together: real actors, real RocksDB.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod disk;
#[path = "../support/mod.rs"]
mod support;

use futures::future::join_all;
use pqcnet_actor::AskError;
use pqcnet_crypto::{NodeId, NodeKeys};
use pqcnet_messages::relay::{
    CloseSession, OpenSession, RelaySetReaders, RelaySubscribe, RelayUnsubscribe,
};
use pqcnet_messages::relay_local::{Admit, DescribeShard, IssueEpoch};
use pqcnet_messages::{Grant, Redirect, Refusal, Series};
use support::{NETWORK, Relayer, SHARD, WITHIN, embedded, store_config, with_env};

fn texts(records: &[(u32, u64, String)]) -> Vec<(u64, &str)> {
    records
        .iter()
        .map(|(_, offset, text)| (*offset, text.as_str()))
        .collect()
}

// A client publishes, repeats a publish whose answer it lost, subscribes from the start and from the middle, and
// consumes. Each message is there once, in order.
#[test]
fn from_publish_to_delivery() {
    with_env(|env| async move {
        let dir = tempfile::tempdir().unwrap();
        let (_store, log) = embedded(&env, store_config(dir.path())).await;
        let mut relayer = Relayer::start(&env, log, 100);
        let session = relayer.session().await;
        let channel = relayer.channel(0);
        let epoch = relayer.producer(session, &channel).await;
        let first = relayer
            .publish(session, &channel, epoch, 1, &["a", "b"])
            .await
            .unwrap();
        assert_eq!((first.last_seq, first.last_offset), (2, 2));
        let again = relayer
            .publish(session, &channel, epoch, 1, &["a", "b"])
            .await
            .unwrap();
        assert_eq!(again, first);
        let overlapping = relayer
            .publish(session, &channel, epoch, 2, &["b", "c"])
            .await
            .unwrap();
        assert_eq!((overlapping.last_seq, overlapping.last_offset), (3, 3));
        let gap = relayer.publish(session, &channel, epoch, 9, &["z"]).await;
        assert_eq!(gap, Err(Refusal::Gap { expected: 4 }));
        assert_eq!(
            relayer
                .subscribe(session, 1, &channel, 0)
                .await
                .unwrap()
                .head,
            3
        );
        assert_eq!(
            texts(&relayer.records(3).await),
            [(1, "a"), (2, "b"), (3, "c")]
        );
        relayer.consumed(session, 1, 3).await;
        assert_eq!(
            relayer
                .subscribe(session, 2, &channel, 2)
                .await
                .unwrap()
                .head,
            3
        );
        assert_eq!(texts(&relayer.records(1).await), [(3, "c")]);
        relayer
            .publish(session, &channel, epoch, 4, &["d"])
            .await
            .unwrap();
        let mut live = relayer.records(2).await;
        live.sort();
        assert_eq!(live, [(1, 4, "d".to_owned()), (2, 4, "d".to_owned())]);
        let beyond = relayer.subscribe(session, 3, &channel, 5).await;
        assert!(matches!(beyond, Err(Refusal::Invalid(_))), "{beyond:?}");
        let account = relayer
            .worker
            .of::<DescribeShard>()
            .ask(DescribeShard, WITHIN)
            .await
            .unwrap();
        assert_eq!(
            (
                account.status.channels,
                account.status.records,
                account.subscriptions
            ),
            (1, 4, 2)
        );
        assert!(account.ready);
        relayer.running.stop().await;
    });
}

// Who may do what: grants of another network, sentry or time, unknown sessions, other people's channels and other
// relayers' shards are each refused; a reader on the list may subscribe until it is taken off.
#[test]
fn only_the_entitled() {
    with_env(|env| async move {
        let dir = tempfile::tempdir().unwrap();
        let (_store, log) = embedded(&env, store_config(dir.path())).await;
        let mut relayer = Relayer::start(&env, log, 100);
        let open = relayer.intake.of::<OpenSession>();
        let now = env.wall_ms();
        let keys = NodeKeys::generate();
        let elsewhere = NodeId::from_bytes([8; 32]);
        let bad = [
            Grant::issue(&keys, [8; 32], relayer.sentry, now, 60_000, [0; 16]),
            Grant::issue(&keys, NETWORK, elsewhere, now, 60_000, [0; 16]),
            Grant::issue(
                &keys,
                NETWORK,
                relayer.sentry,
                now - 120_000,
                60_000,
                [0; 16],
            ),
            Grant {
                issued_at_ms: now - 1,
                ..relayer.grant()
            },
        ];
        for grant in bad {
            let refused = open.ask(OpenSession { grant }, WITHIN).await.unwrap();
            assert_eq!(refused.unwrap_err(), Refusal::BadGrant);
        }
        let session = relayer.session().await;
        let channel = relayer.channel(0);
        let epoch = relayer.producer(session, &channel).await;
        relayer
            .publish(session, &channel, epoch, 1, &["a"])
            .await
            .unwrap();
        let unknown = relayer.publish(99, &channel, epoch, 2, &["b"]).await;
        assert_eq!(unknown, Err(Refusal::UnknownSession));
        let there = Redirect {
            owner: NodeId::from_bytes([3; 32]),
            map_version: 1,
        };
        let elsewhere = relayer
            .publish(session, &relayer.channel(1), epoch, 1, &["b"])
            .await;
        assert_eq!(elsewhere, Err(Refusal::NotOwner(Some(there))));
        let unknown = relayer
            .publish(session, &channel, epoch + 1, 1, &["b"])
            .await;
        assert_eq!(unknown, Err(Refusal::UnknownProducer));

        // Somebody else, over the same link.
        let grant = Grant::issue(&keys, NETWORK, relayer.sentry, now, 60_000, [0; 16]);
        let other = open
            .ask(OpenSession { grant }, WITHIN)
            .await
            .unwrap()
            .unwrap()
            .session;
        let refused = relayer.publish(other, &channel, epoch, 2, &["b"]).await;
        assert_eq!(refused, Err(Refusal::NotAllowed));
        let refused = relayer.subscribe(other, 5, &channel, 0).await;
        assert_eq!(refused.unwrap_err(), Refusal::NotAllowed);
        let set_readers = async |readers: Vec<NodeId>| {
            let channel = channel.name.clone();
            let ask = RelaySetReaders {
                session,
                channel,
                readers,
            };
            relayer
                .intake
                .of::<RelaySetReaders>()
                .ask(ask, WITHIN)
                .await
                .unwrap()
        };
        set_readers(vec![keys.node_id()]).await.unwrap();
        relayer.subscribe(other, 5, &channel, 0).await.unwrap();
        let number_in_use = relayer.subscribe(other, 5, &channel, 0).await;
        assert!(
            matches!(number_in_use, Err(Refusal::Invalid(_))),
            "{number_in_use:?}"
        );
        set_readers(Vec::new()).await.unwrap();
        assert_eq!(texts(&relayer.records(1).await), [(1, "a")]);
        assert_eq!(relayer.ended().await, (5, Refusal::NotAllowed));

        // The number is free again once the end was told; a closed session takes its subscriptions along.
        relayer.subscribe(session, 5, &channel, 1).await.unwrap();
        relayer.subscribe(session, 6, &channel, 1).await.unwrap();
        let unsubscribe = RelayUnsubscribe {
            session,
            subscription: 5,
        };
        relayer.intake.of().ask(unsubscribe, WITHIN).await.unwrap();
        relayer
            .intake
            .of()
            .ask(CloseSession { session }, WITHIN)
            .await
            .unwrap();
        let refused = relayer.publish(session, &channel, epoch, 2, &["b"]).await;
        assert_eq!(refused, Err(Refusal::UnknownSession));
        // Behind the intake's requests in the worker's mailbox, unlike the description, which overtakes.
        let customer = NodeId::from_bytes([9; 32]);
        let ask = IssueEpoch {
            customer,
            channel,
            supersedes: None,
        };
        let refused = relayer.worker.of().ask(ask, WITHIN).await.unwrap();
        assert_eq!(refused.unwrap_err(), Refusal::NotAllowed);
        let account = relayer
            .worker
            .of()
            .ask(DescribeShard, WITHIN)
            .await
            .unwrap();
        assert_eq!(account.subscriptions, 0);
        relayer.running.stop().await;
    });
}

// The link's end takes one message at a time, and three subscriptions get forty records each: all arrive, in order.
#[test]
fn a_slow_link_gets_everything_in_order() {
    with_env(|env| async move {
        let dir = tempfile::tempdir().unwrap();
        let (_store, log) = embedded(&env, store_config(dir.path())).await;
        let mut relayer = Relayer::start(&env, log, 1);
        let session = relayer.session().await;
        let channel = relayer.channel(0);
        let epoch = relayer.producer(session, &channel).await;
        relayer.subscribe(session, 1, &channel, 0).await.unwrap();
        let publishes = (1..=40u64).map(|sequence| {
            let (relayer, channel) = (&relayer, &channel);
            async move {
                let text = sequence.to_string();
                relayer
                    .publish(session, channel, epoch, sequence, &[&text])
                    .await
                    .unwrap();
            }
        });
        join_all(publishes).await;
        for subscription in [2, 3] {
            let subscribe = RelaySubscribe {
                session,
                subscription,
                channel: channel.clone(),
                after: 0,
                window_bytes: 3,
                series: Series::NONE,
            };
            relayer
                .intake
                .of()
                .ask(subscribe, WITHIN)
                .await
                .unwrap()
                .unwrap();
        }
        let mut last = [0u64; 4];
        while last[1..] != [40, 40, 40] {
            for (subscription, offset, text) in relayer.records(1).await {
                let last = &mut last[subscription as usize];
                *last += 1;
                assert_eq!((offset, text), (*last, last.to_string()));
                relayer.consumed(session, subscription, offset).await;
            }
        }
        relayer.running.stop().await;
    });
}

// Twenty publishes are on their way when the relayer is told to stop: each is answered, and what was acknowledged is
// there when it starts again. Afterwards nothing is admitted.
#[test]
fn a_stop_answers_what_it_took() {
    with_env(|env| async move {
        let dir = tempfile::tempdir().unwrap();
        let (store, log) = embedded(&env, store_config(dir.path())).await;
        let relayer = Relayer::start(&env, log, 100);
        let session = relayer.session().await;
        let channel = relayer.channel(0);
        let epoch = relayer.producer(session, &channel).await;
        let admit = |sequence: u64| Admit {
            customer: channel.owner,
            channel: channel.clone(),
            epoch,
            first_seq: sequence,
            payloads: vec![sequence.to_string().into()],
            publisher: None,
        };
        let worker = relayer.worker.of::<Admit>();
        let asks: Vec<_> = (1..=20)
            .map(|s| worker.try_ask(admit(s), WITHIN).unwrap())
            .collect();
        let stopping = relayer.running.stop();
        let (answers, _) = futures::join!(join_all(asks), stopping);
        let mut acked = 0;
        for (sequence, answer) in (1..).zip(answers) {
            match answer {
                Ok(Ok(published)) => {
                    assert_eq!(published.last_seq, sequence);
                    acked = sequence;
                }
                // It stopped before it came to this one.
                Err(error) => assert_eq!(error, AskError::Closed),
                Ok(Err(refusal)) => assert!(
                    matches!(refusal, Refusal::Draining | Refusal::Gap { .. }),
                    "{refusal}"
                ),
            }
        }
        relayer.into_customer();
        drop(store);
        let (_store, log) = embedded(&env, store_config(dir.path())).await;
        let heads = log.heads(SHARD).await.unwrap();
        assert_eq!(heads.first().map_or(0, |h| h.head), acked);
    });
}
