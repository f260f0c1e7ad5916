//! Death watch and incarnations: the same of an actor here and at another node.

use pqcnet_actor::{DownReason as Ended, Incarnation, TellError, Watchable as _};

use super::*;

/// A restarted actor is another incarnation: the watch names the one that ended, and a ref to that one reaches nobody.
async fn body(env: Env, refs: Refs, told: Result<(), ()>) {
    let mut watch = refs.echo.watch();
    let first = watch.incarnation().await.unwrap();
    let echo = refs.echo.only(first);
    let asked = echo.ask(Echo("first".into()), SECOND).await;
    assert_eq!(asked, Ok(Text("first".into())));
    let note = refs.note.only(first);
    note.tell(Note("to-the-first".into())).await.unwrap();
    let notes = refs.notes.ask(Notes(String::new()), SECOND).await;
    assert_eq!(notes, Ok(Text("to-the-first".into())));

    let exploded = refs.explode.ask(Explode(String::new()), SECOND).await;
    assert_eq!(exploded, Err(AskError::Panicked));
    let down = watch.await;
    assert_eq!(
        (down.incarnation, down.reason),
        (Some(first), Ended::Panicked)
    );

    // It comes back after its backoff; what is asked of any incarnation waits for that.
    let asked = refs.echo.ask(Echo("second".into()), SECOND * 20).await;
    assert_eq!(asked, Ok(Text("second".into())));
    let second = refs.echo.watch().incarnation().await.unwrap();
    assert_ne!(second, first);
    let stale = AskError::Stale {
        held: first,
        present: Some(second),
    };
    let asked = echo.ask(Echo("late".into()), SECOND).await;
    assert_eq!(asked, Err(stale));
    // A tell is at most once: here it is refused at once, from afar it is dropped there.
    let tell = note.try_tell(Note("late".into()));
    assert_eq!(tell.map_err(drop), told);
    env.sleep(SECOND).await;
    let notes = refs.notes.ask(Notes(String::new()), SECOND).await;
    assert_eq!(
        notes,
        Ok(Text(String::new())),
        "the second incarnation never got it"
    );
    let asked = refs.echo.only(second).ask(Echo("yes".into()), SECOND).await;
    assert_eq!(asked, Ok(Text("yes".into())));
}

#[test]
fn near() {
    simulated(|env| async move {
        let (addr, running) = scribe(&env, 1024);
        running.started().await.unwrap();
        body(env, super::near(&addr), Err(())).await;
        running.stop().await;
    });
}

#[test]
fn far() {
    simulated(|env| async move {
        let (addr, running) = scribe(&env, 1024);
        running.started().await.unwrap();
        let (here, there) = served(&env, &addr).await;
        body(env, super::far(&here), Ok(())).await;
        assert_eq!(here.stats().counts.dropped_by_peer, 1, "and said to be");
        running.stop().await;
        drop(there);
    });
}

/// What was asked of one incarnation and still waits in its mailbox when that ends is not handled by the next.
#[test]
fn queued_for_the_dead() {
    simulated(|env| async move {
        let (addr, running) = scribe(&env, 1024);
        running.started().await.unwrap();
        let refs = super::near(&addr);
        let first = refs.echo.incarnation().unwrap();
        let exploded = refs
            .explode
            .try_ask(Explode(String::new()), SECOND)
            .unwrap();
        let echo = refs.echo.only(first);
        let asked = echo.try_ask(Echo("queued".into()), SECOND * 20).unwrap();
        let told = refs.note.only(first).try_tell(Note("queued".into()));
        told.unwrap();
        assert_eq!(exploded.await, Err(AskError::Panicked));
        let Err(AskError::Stale { held, present }) = asked.await else {
            panic!("handled")
        };
        assert_eq!(held, first);
        assert_eq!(present, refs.echo.incarnation());
        assert_ne!(present, Some(first));
        let notes = refs.notes.ask(Notes(String::new()), SECOND).await;
        assert_eq!(notes, Ok(Text(String::new())));
        running.stop().await;
    });
}

/// The actor's node restarts: the watch says which incarnation went with the link, and on the link to the restarted node a ref to
/// that incarnation is refused by name.
#[test]
fn a_restarted_node() {
    simulated(|env| async move {
        let (addr, running) = scribe(&env, 1024);
        running.started().await.unwrap();
        let (here, there) = served(&env, &addr).await;
        let mut watch = here.remote::<Echo>().watch();
        let first = watch.incarnation().await.unwrap();
        there.close(Reason::Draining);
        let down = watch.await;
        assert_eq!(down.incarnation, Some(first));
        assert!(matches!(down.reason, Ended::LinkLost(_)), "{down:?}");
        running.stop().await;

        let again = Env::simulated(2, "test");
        let (addr, running) = scribe(&again, 1024);
        running.started().await.unwrap();
        let (here, _there) = served(&env, &addr).await;
        let echo = here.remote::<Echo>();
        let second = echo.watch().incarnation().await.unwrap();
        let asked = echo.only(first).ask(Echo("old".into()), SECOND).await;
        let stale = AskError::Stale {
            held: first,
            present: Some(second),
        };
        assert_eq!(asked, Err(stale));
        running.stop().await;
    });
}

/// An actor that stops for good: its watch ends, near and far alike. One that is not served and one that the rule keeps out:
/// their watches tell of the link alone.
#[test]
fn stopped_and_unseen() {
    simulated(|env| async move {
        let (addr, running) = scribe(&env, 1024);
        running.started().await.unwrap();
        let (a, b) = pair(&env).await;
        let client = Access::roles([Role::Client]);
        let bindings = Bindings::new()
            .serve::<Echo>(addr.of())
            .serve_if::<Note>(client, addr.of());
        let there = b.start(bindings);
        let here = a.start(Bindings::new());
        let unseen = [
            here.remote::<Unbound>().watch(),
            here.remote::<Note>().watch(),
        ];
        let mut near = addr.of::<Echo>().watch();
        let mut far = here.remote::<Echo>().watch();
        let incarnation = near.incarnation().await;
        assert!(incarnation.is_some());
        assert_eq!(far.incarnation().await, incarnation);
        running.stop().await;
        let (near, far) = (near.await, far.await);
        assert_eq!(
            (near.incarnation, near.reason),
            (incarnation, Ended::Stopped)
        );
        assert_eq!((far.incarnation, far.reason), (incarnation, Ended::Stopped));
        // Its number, carried as such, is the same incarnation.
        let number = incarnation.unwrap().number();
        assert_eq!(Incarnation::from_number(number), incarnation);
        let told = addr.of::<Note>().try_tell(Note(String::new()));
        assert!(matches!(told, Err(TellError::Closed(_))));
        assert_eq!(there.stats().counts.refused, 1);
        there.close(pqcnet_link::Reason::Closed);
        for watch in unseen {
            let reason = watch.await.reason;
            assert!(matches!(reason, Ended::LinkLost(_)), "{reason:?}");
        }
    });
}

/// Watches that nobody waits for are given up, here and there: a thousand of them do not use up the link's.
#[test]
fn abandoned_watches() {
    simulated(|env| async move {
        let (addr, running) = scribe(&env, 1024);
        running.started().await.unwrap();
        let (here, _there) = served(&env, &addr).await;
        let echo = here.remote::<Echo>();
        for _ in 0..5000 {
            let mut watch = echo.watch();
            assert!(watch.incarnation().await.is_some());
        }
        running.stop().await;
    });
}
