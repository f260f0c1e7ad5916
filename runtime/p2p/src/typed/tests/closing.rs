//! How links end, and what those who wait for something learn.

use pqcnet_actor::TellError;

use super::*;

/// The last handle dropped, remote refs included, closes the link in order; both sides know why.
#[test]
fn the_last_handle_closes() {
    simulated(|env| async move {
        let (addr, running) = scribe(&env, 1024);
        let (here, there) = served(&env, &addr).await;
        let closed = (here.closed(), there.closed());
        let echo = here.remote::<Echo>();
        drop(here);
        let answer = echo.ask(Echo("still".into()), SECOND).await;
        assert_eq!(answer, Ok(Text("still".into())));
        let before = env.now();
        drop(echo);
        let (stage, reason, detail) = (Stage::Open, Reason::Closed, String::new());
        let local = DownReason::Local {
            stage,
            reason,
            detail: detail.clone(),
        };
        let peer = DownReason::Peer {
            stage,
            reason,
            detail,
        };
        assert_eq!((closed.0.await, closed.1.await), (local, peer.clone()));
        assert!(env.now() - before < SECOND, "nobody waited for a timeout");
        // The other side's refs say so at once.
        let note = there.remote::<Note>();
        let told = note.tell(Note("late".into())).await;
        assert!(matches!(told, Err(TellError::Closed(Note(text))) if text == "late"));
        let asked = there
            .remote::<Echo>()
            .ask(Echo(String::new()), SECOND)
            .await;
        assert_eq!(asked, Err(AskError::Closed));
        assert_eq!(there.down_reason(), Some(peer));
        running.stop().await;
    });
}

/// A closing side answers what is open, refuses what is new, then says Down.
#[test]
fn close_answers_what_is_open() {
    simulated(|env| async move {
        let (addr, running) = scribe(&env, 1024);
        let (here, there) = served(&env, &addr).await;
        let hold = here.remote::<Hold>();
        let open = hold.try_ask(Hold("after 50".into()), SECOND).unwrap();
        let count = hold.ask(Hold("count".into()), SECOND).await;
        assert_eq!(count, Ok(Text("0".into())));
        there.close_with(Reason::Draining, "restart");
        env.sleep(Duration::from_millis(10)).await;
        let new = hold.ask(Hold("count".into()), SECOND).await;
        assert_eq!(new, Err(AskError::Closed));
        assert_eq!(here.down_reason(), None, "it waits for the open one");
        assert_eq!(open.await, Ok(Text("at last".into())));
        let down = here.closed().await;
        let words = "closed by the peer at stage open: draining (restart)";
        assert_eq!(down.to_string(), words);
        running.stop().await;
    });
}

/// An answer that never comes holds a close up for the drain timeout only; its asker learns that the outcome is unknown.
#[test]
fn close_does_not_wait_forever() {
    simulated(|env| async move {
        let (addr, running) = scribe(&env, 1024);
        let (here, there) = served(&env, &addr).await;
        let hold = here.remote::<Hold>();
        let open = hold.try_ask(Hold("forever".into()), SECOND * 100).unwrap();
        hold.ask(Hold("count".into()), SECOND).await.unwrap();
        let start = env.now();
        there.close(Reason::Closed);
        let words = "closed by the peer at stage open: closed".to_owned();
        assert_eq!(open.await, Err(AskError::Remote(words)));
        let took = env.now() - start;
        assert!((SECOND * 10..SECOND * 11).contains(&took), "{took:?}");
        running.stop().await;
    });
}

/// Everything told before a close arrives.
#[test]
fn close_sends_what_is_queued() {
    simulated(|env| async move {
        let (addr, running) = scribe(&env, 1024);
        let (here, there) = served(&env, &addr).await;
        let note = here.remote::<Note>();
        for n in 0..200 {
            let text = format!("{n}{}", "x".repeat(2000));
            note.tell(Note(text)).await.unwrap();
        }
        drop((here, note));
        there.closed().await;
        let notes = addr.of::<Notes>().ask(Notes(String::new()), SECOND).await;
        assert_eq!(notes.unwrap().0.split(' ').count(), 200);
        running.stop().await;
    });
}

/// A connection that just ends, and one that goes silent: asks in flight are unknown, refs closed, the reason named.
#[test]
fn sudden_death() {
    simulated(|env| async move {
        for silent in [false, true] {
            let (left, right) = streams();
            let (a, b) = futures::join!(
                establish(&env, left, node(2), config(Role::Sentry), anyone),
                establish(&env, right, node(1), config(Role::Relayer), anyone),
            );
            // The far end is never started: it reads and writes nothing.
            let far = b.unwrap();
            let here = a.unwrap().start(Bindings::new());
            let echo = here.remote::<Echo>();
            let open = echo.try_ask(Echo(String::new()), SECOND * 100).unwrap();
            let start = env.now();
            let far = if silent {
                Some(far)
            } else {
                drop(far);
                None
            };
            let (words, after) = if silent {
                (
                    "the peer erred at stage open: it was silent for too long",
                    30,
                )
            } else {
                ("connection lost at stage open: unexpected end of file", 0)
            };
            assert_eq!(here.closed().await.to_string(), words);
            assert_eq!((env.now() - start).as_secs(), after);
            assert_eq!(open.await, Err(AskError::Remote(words.to_owned())));
            drop(far);
        }
    });
}

/// A peer that was told why and neither reads nor hangs up is hung up on: its connection and the link's task are gone
/// once the time for last words is over.
#[test]
fn a_peer_that_never_hangs_up() {
    simulated(|env| async move {
        for reads in [false, true] {
            let (left, right) = streams();
            let (a, b) = futures::join!(
                establish(&env, left, node(2), config(Role::Sentry), anyone),
                establish(&env, right, node(1), config(Role::Relayer), anyone),
            );
            let here = a.unwrap().start(Bindings::new());
            let mut far = b.unwrap().io;
            // A frame longer than any may be.
            far.write_all(&[0xff; 4]).await.unwrap();
            let down = here.closed().await;
            assert!(down.to_string().starts_with("the peer erred at stage open"));
            let start = env.now();
            if reads {
                let mut rest = Vec::new();
                far.read_to_end(&mut rest).await.unwrap();
            }
            env.sleep(LINGER * 2).await;
            assert!(far.write_all(&[0; 4]).await.is_err(), "still connected");
            assert!(env.now() - start < LINGER * 3);
        }
    });
}

/// A runtime that goes away takes its links along: whoever waits elsewhere is told.
#[test]
fn a_dropped_runtime() {
    let closed = {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let (here, closed) = runtime.block_on(async {
            let env = Env::plain();
            let (a, b) = pair(&env).await;
            let here = a.start(Bindings::new());
            std::mem::forget(b);
            let closed = here.closed();
            (here, closed)
        });
        drop(runtime);
        drop(here);
        closed
    };
    let waiter = tokio::runtime::Builder::new_current_thread().build();
    assert_eq!(waiter.unwrap().block_on(closed), DROPPED);
}
