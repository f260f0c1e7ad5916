//! Sessions and uplinks with a relayer and a client at their ends, all real actors in virtual time.
#![allow(clippy::unwrap_used, reason = "a test's helpers fail as the test does")]

mod world;

use std::time::Duration;

use pqcnet_actor::{AskError, simulate};
use pqcnet_crypto::NodeKeys;
use pqcnet_messages::edge::{
    Attach, Attached, Commit, Committed, Consumed, DeadLetters, JoinGroup, ListDeadLetters, Nack,
    OpenProducer, ProducerOpened, Publish, Published, SetReaders, Subscribe, Subscribed,
    Unsubscribe,
};
use pqcnet_messages::relay::{RelayCountersign, RelayFlow, RelaySubscriptionEnded};
use pqcnet_messages::{Channel, GroupName, MemberId, Membership, PauseCause, Refusal, Series};
use pqcnet_sentry_actors::{MAX_WINDOW, MAX_WINDOWS};
use world::{DEADLINE, PublishAnswer, RELAYER, SENTRY, start};

/// Nothing is served before the grant; a grant of somebody else, or for another sentry, opens nothing; afterwards only
/// channels of the client's own can be written.
#[test]
fn nothing_without_a_grant() {
    simulate(|| async {
        let world = start();
        world.relayer_up().await;
        assert_eq!(
            world.ask(world.publish(1)).await,
            Err(Refusal::UnknownSession)
        );
        assert_eq!(
            world.ask(world.subscribe(1, 0)).await,
            Err(Refusal::UnknownSession)
        );
        let other = NodeKeys::generate();
        let grant = world.grant(&other, SENTRY);
        assert_eq!(world.ask(Attach { grant }).await, Err(Refusal::BadGrant));
        let grant = world.grant(&world.keys, RELAYER);
        assert_eq!(world.ask(Attach { grant }).await, Err(Refusal::BadGrant));
        assert_eq!(world.heard(), Vec::<String>::new());

        world.attach().await;
        let channel = Channel {
            owner: other.node_id(),
            ..world.own()
        };
        let open = OpenProducer {
            channel: channel.clone(),
            supersedes: None,
        };
        assert_eq!(world.ask(open).await, Err(Refusal::NotAllowed));
        let publish = Publish {
            channel,
            ..world.publish(1)
        };
        assert_eq!(world.ask(publish).await, Err(Refusal::NotAllowed));
        assert_eq!(world.heard(), Vec::<String>::new());
        world.stop().await;
    });
}

/// A client that attaches again while its grant is being verified waits its turn: it has one place in the node's pool.
#[test]
fn one_grant_at_a_time() {
    simulate(|| async {
        let world = start();
        let attach = world.session.of::<Attach>();
        let asked: Vec<_> = (0..3)
            .map(|_| {
                let grant = world.grant(&world.keys, SENTRY);
                attach.try_ask(Attach { grant }, DEADLINE).unwrap()
            })
            .collect();
        let mut answers = Vec::new();
        for pending in asked {
            answers.push(pending.await.unwrap());
        }
        let busy = Err(Refusal::Busy);
        assert_eq!(answers, [Ok(Attached { shards: 4 }), busy.clone(), busy]);
        world.attach().await;
        world.stop().await;
    });
}

/// What a grant is good for: the link's requests are let through from the moment it is verified until its end, and the
/// session is over a second before, so that the client links anew. Grants that do not hold let nothing through.
#[test]
fn a_session_ends_with_its_grant() {
    simulate(|| async {
        let world = start();
        let grant = world.grant(&world.keys, RELAYER);
        assert_eq!(world.ask(Attach { grant }).await, Err(Refusal::BadGrant));
        assert_eq!(*world.permitted.lock().unwrap(), []);
        let hour = Duration::from_secs(3_600);
        let until = world.env.now() + hour;
        world.attach().await;
        assert_eq!(*world.permitted.lock().unwrap(), [until]);
        world.env.sleep(hour - Duration::from_secs(2)).await;
        assert_eq!(*world.closed.lock().unwrap(), 0);
        world.env.sleep(Duration::from_millis(1_001)).await;
        assert_eq!(*world.closed.lock().unwrap(), 1);
        world.stop().await;
    });
}

/// A client that attaches again with a later grant keeps its session: that one's end counts. A bad one changes nothing.
#[test]
fn a_later_grant_keeps_the_session() {
    simulate(|| async {
        let world = start();
        world.relayer_up().await;
        world.attach().await;
        let half = Duration::from_secs(1_800);
        world.env.sleep(half).await;
        let until = world.env.now() + 2 * half;
        world.attach().await;
        let grant = world.grant(&world.keys, RELAYER);
        assert_eq!(world.ask(Attach { grant }).await, Err(Refusal::BadGrant));
        assert_eq!(world.permitted.lock().unwrap().last(), Some(&until));
        world.env.sleep(half).await;
        assert_eq!(*world.closed.lock().unwrap(), 0);
        let stored = world.ask(world.publish(1)).await;
        assert_eq!(stored.map(|published| published.last_seq), Ok(1));
        world.env.sleep(half).await;
        assert_eq!(*world.closed.lock().unwrap(), 1);
        world.stop().await;
    });
}

/// The relayer's session is opened once, by the first request; requests keep their order; answers come back as they are.
#[test]
fn requests_go_to_the_owner() {
    simulate(|| async {
        let world = start();
        world.attach().await;
        assert_eq!(world.ask(world.publish(1)).await, Err(Refusal::Unavailable));
        world.relayer_up().await;
        let open = world.session.of().try_ask(
            OpenProducer {
                channel: world.own(),
                supersedes: None,
            },
            DEADLINE,
        );
        let publish = world.session.of().try_ask(world.publish(1), DEADLINE);
        assert_eq!(
            open.unwrap().await.unwrap(),
            Ok(ProducerOpened { epoch: 9 })
        );
        let published = Ok(Published {
            last_seq: 1,
            last_offset: 101,
        });
        assert_eq!(publish.unwrap().await.unwrap(), published);
        let readers = vec![SENTRY];
        let set = SetReaders {
            channel: world.own().name,
            readers,
        };
        assert_eq!(world.ask(set).await, Ok(()));
        let expected = [
            "open session 1",
            "open producer, session 1",
            "publish 1..=1, session 1",
            "readers of own: 1",
        ];
        assert_eq!(world.heard(), expected);
        world.stop().await;
    });
}

/// The relayer forgot the session: the client gets a retryable answer, and its repetition opens another session. A busy
/// relayer's answer passes as it is.
#[test]
fn a_forgotten_session_is_opened_again() {
    simulate(|| async {
        let world = start();
        world.relayer_up().await;
        world.attach().await;
        let answers = [Refusal::Busy, Refusal::UnknownSession].map(PublishAnswer::Refuse);
        world.log.lock().unwrap().publish.extend(answers);
        assert_eq!(world.ask(world.publish(1)).await, Err(Refusal::Busy));
        assert_eq!(world.ask(world.publish(1)).await, Err(Refusal::Unavailable));
        assert!(world.ask(world.publish(1)).await.is_ok());
        let expected = [
            "open session 1",
            "publish 1..=1, session 1",
            "publish 1..=1, session 1",
            "open session 2",
            "publish 1..=1, session 2",
        ];
        assert_eq!(world.heard(), expected);
        world.stop().await;
    });
}

/// The relayer dies while it holds a publish: the client gets `Unavailable`, which it takes for "may be stored".
#[test]
fn a_pending_publish_is_answered_when_the_relayer_goes() {
    simulate(|| async {
        let world = start();
        world.relayer_up().await;
        world.attach().await;
        world
            .log
            .lock()
            .unwrap()
            .publish
            .push_back(PublishAnswer::Hold);
        let pending = world
            .session
            .of()
            .try_ask(world.publish(1), DEADLINE)
            .unwrap();
        world.settle().await;
        world.relayer_down().await;
        assert_eq!(pending.await.unwrap(), Err(Refusal::Unavailable));
        world.stop().await;
    });
}

/// The relayer goes away and another incarnation takes its place: the subscription is taken up after the last record sent
/// on, the client notices nothing, and what the old one still sends is for nobody.
#[test]
fn a_subscription_outlives_its_relayer() {
    simulate(|| async {
        let world = start();
        world.relayer_up().await;
        world.attach().await;
        assert_eq!(
            world.ask(world.subscribe(4, 10)).await,
            Ok(Subscribed { head: 50 })
        );
        world.deliver(1, 11..=13, 1).await;
        world.relayer_down().await;
        world.deliver(1, 14..=14, 1).await;
        world.relayer_up().await;
        world.deliver(1, 14..=14, 1).await;
        world.deliver(2, 14..=15, 1).await;
        assert_eq!(world.seen(), ["4: 11 12 13", "4: 14 15"]);
        let consumed = Consumed {
            subscription: 4,
            offset: 15,
        };
        world.session.of().tell(consumed).await.unwrap();
        world.settle().await;
        let expected = [
            "open session 1",
            "subscribe 1 after 10",
            "open session 1",
            "subscribe 2 after 13",
            "consumed 2 to 15",
        ];
        assert_eq!(world.heard(), expected);
        world.stop().await;
    });
}

/// The relayer comes back and does not answer the opening of a session in time, as over a path that is cut: the subscription is
/// begun again by itself, though nothing else happens in the session that would remind it.
#[test]
fn a_subscription_outlives_an_opening_without_an_answer() {
    simulate(|| async {
        let world = start();
        world.relayer_up().await;
        world.attach().await;
        let subscribed = world.ask(world.subscribe(3, 10)).await;
        assert_eq!(subscribed, Ok(Subscribed { head: 50 }));
        world.deliver(1, 11..=12, 1).await;
        assert_eq!(world.seen(), ["3: 11 12"]);
        world.relayer_down().await;
        world.heard();
        world.log.lock().unwrap().silent = 1;
        world.relayer_up().await;
        assert_eq!(world.heard(), ["open session 1"]);
        world.env.sleep(Duration::from_secs(12)).await;
        assert_eq!(world.heard(), ["open session 2", "subscribe 2 after 12"]);
        world.deliver(2, 13..=13, 1).await;
        assert_eq!(world.seen(), ["3: 13"]);
        world.stop().await;
    });
}

/// A relayer's retryable end of a subscription is the sentry's business; a final one is the client's.
#[test]
fn ends_of_subscriptions() {
    simulate(|| async {
        let world = start();
        world.relayer_up().await;
        world.attach().await;
        assert_eq!(
            world.ask(world.subscribe(4, 0)).await,
            Ok(Subscribed { head: 50 })
        );
        world
            .log
            .lock()
            .unwrap()
            .subscribe
            .push_back(Err(Refusal::Busy));
        let ended = |subscription, refusal| RelaySubscriptionEnded {
            subscription,
            refusal,
        };
        world
            .uplink
            .of()
            .tell(ended(1, Refusal::Draining))
            .await
            .unwrap();
        world.settle().await;
        assert_eq!(world.seen(), Vec::<String>::new());
        world.deliver(3, 1..=2, 1).await;
        world
            .uplink
            .of()
            .tell(ended(3, Refusal::NotAllowed))
            .await
            .unwrap();
        world.settle().await;
        assert_eq!(world.seen(), ["4: 1 2", "4 ended: not allowed"]);
        let subscribes = world
            .heard()
            .into_iter()
            .filter(|line| line.starts_with("subscribe"));
        let expected = [
            "subscribe 1 after 0",
            "subscribe 2 after 0",
            "subscribe 3 after 0",
        ];
        assert_eq!(subscribes.collect::<Vec<_>>(), expected);
        world.stop().await;
    });
}

/// A first refusal goes to the client, whatever it is; so does a window or a number that cannot be.
#[test]
fn refused_subscriptions() {
    simulate(|| async {
        let world = start();
        world.attach().await;
        assert_eq!(
            world.ask(world.subscribe(1, 0)).await,
            Err(Refusal::Unavailable)
        );
        world.relayer_up().await;
        let refusals = [Err(Refusal::NotAllowed), Err(Refusal::Busy)];
        world.log.lock().unwrap().subscribe.extend(refusals);
        assert_eq!(
            world.ask(world.subscribe(1, 0)).await,
            Err(Refusal::NotAllowed)
        );
        assert_eq!(world.ask(world.subscribe(1, 0)).await, Err(Refusal::Busy));
        assert!(world.ask(world.subscribe(1, 0)).await.is_ok());
        let twice = Refusal::Invalid("the subscription number is in use".to_owned());
        assert_eq!(world.ask(world.subscribe(1, 0)).await, Err(twice));
        let window_bytes = MAX_WINDOW as u32 + 1;
        let wide = Subscribe {
            window_bytes,
            ..world.subscribe(2, 0)
        };
        assert_eq!(world.ask(wide).await, Err(Refusal::TooLarge));
        world.stop().await;
    });
}

/// All windows of a client together are bounded; what it gives up it may use again.
#[test]
fn a_client_cannot_hold_a_sentrys_memory() {
    simulate(|| async {
        let world = start();
        world.relayer_up().await;
        world.attach().await;
        let widest = |subscription| Subscribe {
            window_bytes: MAX_WINDOW as u32,
            ..world.subscribe(subscription, 0)
        };
        let most = (MAX_WINDOWS / MAX_WINDOW) as u32;
        for subscription in 0..most {
            assert!(world.ask(widest(subscription)).await.is_ok());
        }
        assert_eq!(world.ask(widest(most)).await, Err(Refusal::TooLarge));
        world.ask(Unsubscribe { subscription: 0 }).await;
        assert!(world.ask(widest(most)).await.is_ok());
        world.stop().await;
    });
}

/// A relayer that repeats or skips an offset is not believed: the feed is started again after the last good record.
#[test]
fn a_faulty_delivery_is_dropped() {
    simulate(|| async {
        let world = start();
        world.relayer_up().await;
        world.attach().await;
        assert!(world.ask(world.subscribe(4, 0)).await.is_ok());
        world.deliver(1, 1..=2, 1).await;
        world.deliver(1, 2..=3, 1).await;
        world.deliver(2, 3..=3, 1).await;
        assert_eq!(world.seen(), ["4: 1 2", "4: 3"]);
        let expected = [
            "open session 1",
            "subscribe 1 after 0",
            "unsubscribe 1",
            "subscribe 2 after 2",
        ];
        assert_eq!(world.heard(), expected);
        world.stop().await;
    });
}

/// The client's window is closed by 1 MiB: the rest waits at the sentry and goes out as the client consumes.
#[test]
fn a_slow_client_holds_its_window_only() {
    simulate(|| async {
        let world = start();
        world.relayer_up().await;
        world.attach().await;
        let narrow = Subscribe {
            window_bytes: 100,
            ..world.subscribe(4, 0)
        };
        assert!(world.ask(narrow).await.is_ok());
        world.deliver(1, 1..=3, 60).await;
        assert_eq!(world.seen(), ["4: 1"]);
        for offset in [1, 2] {
            let consumed = Consumed {
                subscription: 4,
                offset,
            };
            world.session.of().tell(consumed).await.unwrap();
            world.settle().await;
        }
        assert_eq!(world.seen(), ["4: 2", "4: 3"]);
        world.stop().await;
    });
}

/// The client leaves: its subscriptions and its session at the relayer are given up. An unsubscription ends one alone.
#[test]
fn a_leaving_client_leaves_nothing() {
    simulate(|| async {
        let world = start();
        world.relayer_up().await;
        world.attach().await;
        for subscription in [4, 5] {
            assert!(world.ask(world.subscribe(subscription, 0)).await.is_ok());
        }
        let unsubscribe = Unsubscribe { subscription: 4 };
        world.session.of().tell(unsubscribe).await.unwrap();
        world.settle().await;
        world.heard();
        world.deliver(1, 1..=1, 1).await;
        assert_eq!(world.seen(), Vec::<String>::new());
        assert_eq!(*world.closed.lock().unwrap(), 0);
        world.client.stop().await;
        world.settle().await;
        assert_eq!(*world.closed.lock().unwrap(), 1);
        assert_eq!(world.heard(), ["unsubscribe 2", "close session 1"]);
        let gone = world.session.of().ask(world.publish(1), DEADLINE).await;
        assert_eq!(gone, Err(AskError::Closed));
        world.stop().await;
    });
}

/// A relayer asks for a receipt: the client of that subscription signs, for that relayer and window. One for a subscription that
/// is no more is refused. A later grant of the client is shown to the relayer, where it has a session.
#[test]
fn receipts_come_from_the_client_and_later_grants_reach_the_relayer() {
    simulate(|| async {
        let world = start();
        world.relayer_up().await;
        world.attach().await;
        assert!(world.ask(world.subscribe(4, 0)).await.is_ok());
        assert_eq!(world.heard(), ["open session 1", "subscribe 1 after 0"]);
        let ask = async |subscription| {
            let ask = RelayCountersign {
                subscription,
                window: 9,
            };
            world.uplink.of().ask(ask, DEADLINE).await.unwrap()
        };
        let receipt = ask(1).await.unwrap().receipt;
        assert_eq!(receipt.verify(&world::NETWORK, world.keys.public()), Ok(()));
        assert_eq!(receipt.statement.relayer, RELAYER);
        assert_eq!(world.seen(), ["countersign 4 window 9"]);
        assert_eq!(ask(2).await, Err(Refusal::Unavailable));

        world.attach().await;
        world.settle().await;
        assert_eq!(world.heard(), ["open session 2", "close session 2"]);
        world.stop().await;
    });
}

/// A member of a group: its turn begins at 41, it commits and refuses what it has, and hears at once when another has the
/// channel or the relayer is gone: nothing is started again behind its back, and what it says then is refused.
#[test]
fn a_groups_member() {
    simulate(|| async {
        let world = start();
        world.relayer_up().await;
        world.attach().await;
        let group = GroupName::new("workers").unwrap();
        let join = |subscription| JoinGroup {
            subscription,
            channel: world.own(),
            after: 3,
            window_bytes: 65_536,
            series: Series::NONE,
            membership: Membership {
                group: group.clone(),
                member: MemberId([1; 16]),
            },
        };
        assert_eq!(world.ask(join(4)).await, Ok(Subscribed { head: 50 }));
        world.deliver(1, 41..=42, 1).await;
        assert_eq!(world.seen(), ["4: 41 42"]);
        let commit = |subscription| Commit {
            subscription,
            offset: 42,
        };
        let nack = Nack {
            subscription: 4,
            offset: 41,
        };
        assert_eq!(world.ask(nack).await, Ok(Committed { offset: 1 }));
        assert_eq!(world.ask(commit(4)).await, Ok(Committed { offset: 42 }));
        let list = ListDeadLetters {
            channel: world.own(),
            group: group.clone(),
            discard: 0,
            remove: true,
        };
        let dead = DeadLetters {
            committed: 1,
            letters: Vec::new(),
            kept: Vec::new(),
            removed: true,
        };
        assert_eq!(world.ask(list).await, Ok(dead));
        let heard = [
            "open session 1",
            "join workers as 1 after 3",
            "aside 41 of 1",
            "commit 1 to 42",
            "dead letters of workers",
        ];
        assert_eq!(world.heard(), heard);

        let ended = RelaySubscriptionEnded {
            subscription: 1,
            refusal: Refusal::Reassigned,
        };
        world.uplink.of().tell(ended).await.unwrap();
        world.settle().await;
        let over = "4 ended: another member of the group has the channel now";
        assert_eq!(world.seen(), [over]);
        assert_eq!(world.ask(commit(4)).await, Err(Refusal::Reassigned));
        assert_eq!(world.ask(join(5)).await, Ok(Subscribed { head: 50 }));
        world.relayer_down().await;
        assert_eq!(world.seen(), ["5 ended: unavailable"]);
        assert_eq!(world.ask(commit(5)).await, Err(Refusal::Reassigned));
        assert_eq!(world.heard(), ["join workers as 2 after 3"]);
        world.stop().await;
    });
}

/// A relayer asks the publishers of a session to stop and to go on: the client hears both. One of another session is nobody's.
#[test]
fn pauses_reach_the_client() {
    simulate(|| async {
        let world = start();
        world.relayer_up().await;
        world.attach().await;
        assert!(world.ask(world.publish(1)).await.is_ok());
        for (session, paused) in [(1, Some(PauseCause::Memory)), (2, None), (1, None)] {
            let channel = world.own();
            let flow = RelayFlow {
                session,
                channel,
                paused,
            };
            world.uplink.of().tell(flow).await.unwrap();
        }
        world.settle().await;
        assert_eq!(world.seen(), ["own: Some(Memory)", "own: None"]);
        world.stop().await;
    });
}
