//! Back-pressure: a slow consumer makes the far sender wait, and memory stays bounded.

use std::sync::atomic::{AtomicUsize, Ordering};

use pqcnet_actor::TellError;
use pqcnet_link::MAX_COST;

use super::*;

/// A consumer whose handler hangs: the sender's `tell` waits after one window and one mailbox, the receiving node holds no more than
/// that, and once the consumer goes on, everything arrives in order.
#[test]
fn a_slow_consumer_stops_the_sender() {
    const MAILBOX: usize = 8;
    const TOTAL: usize = 1000;
    let threads = pqcnet_actor::Threads {
        workers: 1,
        arbiters: 2,
    };
    let done = pqcnet_actor::run_on(threads, "test", |env| async move {
        let (release, gate) = mpsc::sync_channel(1);
        let mut gate = Some(gate);
        let mut tree = Tree::new("test", Strategy::OneForOne);
        let bounds = Bounds {
            request: MAILBOX as u32,
            ..Bounds::default()
        };
        let spec = Spec::new("scribe", move |_| Scribe {
            gate: gate.take(),
            ..Scribe::new()
        });
        // The second arbiter: this one's thread must not hang with the actor.
        let addr = tree.child(spec.mailbox(bounds).place(1));
        let running = tree.start(env.clone());
        let (here, there) = served(&env, &addr).await;

        let sent = std::sync::Arc::new(AtomicUsize::new(0));
        let count = std::sync::Arc::clone(&sent);
        let (block, note) = (here.remote::<Block>(), here.remote::<Note>());
        let sender = env.task(async move {
            block.tell(Block(String::new())).await.unwrap();
            for n in 0..TOTAL {
                note.tell(Note(n.to_string())).await.unwrap();
                count.fetch_add(1, Ordering::SeqCst);
            }
        });
        // The window is the mailbox's room, at least one largest frame.
        let window = MAX_COST as usize;
        let note = here.remote::<Note>();
        while sent.load(Ordering::SeqCst) < window + MAILBOX - 1 {
            tokio::task::yield_now().await;
        }
        // All that can be under way is: a window, a mailbox, the one being handled.
        let at_most = window + MAILBOX + 1;
        assert!(sent.load(Ordering::SeqCst) <= at_most);
        assert!(note.free() <= 2);
        let stats = (here.stats(), there.stats());
        assert!(stats.0.outbound < 64 * 1024, "{stats:?}");
        assert!(sent.load(Ordering::SeqCst) <= at_most);
        release.send(()).unwrap();
        sender.await.unwrap();
        let notes = here.remote::<Notes>();
        let all = loop {
            match notes.ask(Notes(String::new()), SECOND * 20).await {
                Ok(all) => break all,
                Err(AskError::Busy) => tokio::task::yield_now().await,
                Err(other) => panic!("{other}"),
            }
        };
        let expected: Vec<String> = (0..TOTAL).map(|n| n.to_string()).collect();
        assert_eq!(all.0, expected.join(" "));
        drop((here, there));
        running.stop().await;
    });
    done.unwrap();
}

/// With a hanging consumer `try_tell` says `Full` and hands the message back; Bulk is dropped instead; an ask is `Busy`.
#[test]
fn full_near_the_sender() {
    simulated(|env| async move {
        // Nobody runs: its mailbox fills and stays full.
        let mut tree = Tree::new("test", Strategy::OneForOne);
        let bounds = Bounds {
            request: 4,
            ..Bounds::default()
        };
        let addr = tree.child(Spec::new("scribe", |_| Scribe::new()).mailbox(bounds));
        let (here, _there) = served(&env, &addr).await;
        let note = here.remote::<Note>();
        note.tell(Note("0".into())).await.unwrap();
        let mut told = 1;
        let full = loop {
            match note.try_tell(Note(told.to_string())) {
                Ok(()) => told += 1,
                Err(error) if told < MAX_COST as usize + 4 => {
                    assert!(error.is_full());
                    env.sleep(Duration::from_millis(1)).await;
                }
                Err(error) => break error,
            }
        };
        env.sleep(SECOND).await;
        assert_eq!(note.free(), 0, "nothing more comes while nobody consumes");
        let TellError::Full(back) = full else {
            panic!("{full}")
        };
        assert_eq!(back, Note((MAX_COST + 4).to_string()));
        let echo = here.remote::<Echo>();
        let asked = echo.ask(Echo(String::new()), SECOND).await;
        assert_eq!(asked, Err(AskError::Busy));
        let chatter = here.remote::<Chatter>();
        for _ in 0..2000 {
            chatter.try_tell(Chatter("x".repeat(100))).unwrap();
        }
        drop(tree);
    });
}

/// An ask beyond the peer's window is `Busy` here, without a frame; the window opens with the answers.
#[test]
fn the_ask_window() {
    simulated(|env| async move {
        let (addr, running) = scribe(&env, 1024);
        let (here, _there) = served(&env, &addr).await;
        let hold = here.remote::<Hold>();
        let ask = || hold.try_ask(Hold("after 50".into()), SECOND);
        let open: Vec<_> = (0..256).map(|_| ask().unwrap()).collect();
        assert!(ask().is_err_and(|error| error.is_full()));
        assert_eq!(hold.free(), 0);
        for answer in futures::future::join_all(open).await {
            assert_eq!(answer, Ok(Text("at last".into())));
        }
        assert_eq!(hold.free(), 256);
        // Waiting for room instead.
        let open: Vec<_> = (0..256).map(|_| ask().unwrap()).collect();
        let (letter, pending) = pqcnet_actor::Letter::ask(Hold("after 50".into()), SECOND);
        assert!(hold.post_when_free(letter).await.is_ok());
        assert_eq!(pending.await, Ok(Text("at last".into())));
        drop(open);
        running.stop().await;
    });
}

/// Bytes that the socket does not take count against the sender's own limit; then `tell` waits for the socket, in order.
#[test]
fn a_slow_socket_stops_the_sender() {
    simulated(|env| async move {
        let (addr, running) = scribe(&env, 1024);
        let mut narrow = config(Role::Sentry);
        narrow.limits.max_outbound = 10_000;
        let (a, b) = pair_with(&env, narrow, config(Role::Relayer)).await;
        let (here, _there) = (a.start(Bindings::new()), b.start(bind(&addr)));
        let note = here.remote::<Note>();
        for n in 0..200 {
            let text = format!("{n}{}", "x".repeat(3000));
            note.tell(Note(text)).await.unwrap();
            assert!(here.stats().outbound < 10_000 + 4000);
        }
        // The socket still has much to take: an ask that will not wait is Busy.
        let notes = here.remote::<Notes>();
        let asked = notes.ask(Notes(String::new()), SECOND).await;
        assert_eq!(asked, Err(AskError::Busy));
        let (letter, pending) = pqcnet_actor::Letter::ask(Notes(String::new()), SECOND);
        assert!(notes.post_when_free(letter).await.is_ok());
        let all = pending.await.unwrap();
        let order = all
            .0
            .split(' ')
            .map(|note| note.trim_end_matches('x').parse());
        let order: Result<Vec<usize>, _> = order.collect();
        assert_eq!(order.unwrap(), (0..200).collect::<Vec<_>>());
        running.stop().await;
    });
}
