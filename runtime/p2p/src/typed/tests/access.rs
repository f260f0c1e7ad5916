//! Rules by role and by grant, and how many links there may be.

use super::*;

/// A message that the role may not send: an ask is refused by name, a tell dropped and said to be; each is counted, and the rest of
/// the link works.
#[test]
fn by_role() {
    simulated(|env| async move {
        let (addr, running) = scribe(&env, 1024);
        let (a, b) = pair(&env).await;
        let operators = Access::roles([Role::Operator, Role::Relayer]);
        let bindings = Bindings::new()
            .serve_if::<Notes>(operators.clone(), addr.of())
            .serve_if::<Note>(operators, addr.of())
            .serve::<Echo>(addr.of());
        let there = b.start(bindings);
        let here = a.start(Bindings::new());
        let notes = here.remote::<Notes>();
        let notes = notes.ask(Notes(String::new()), SECOND).await;
        let refused = AskError::Refused("not for a sentry".into());
        assert_eq!(notes, Err(refused));
        here.remote::<Note>().tell(Note("no".into())).await.unwrap();
        let echo = here.remote::<Echo>();
        let echoed = echo.ask(Echo("yes".into()), SECOND).await;
        assert_eq!(echoed, Ok(Text("yes".into())));
        assert_eq!(there.stats().counts.refused, 2);
        assert_eq!(here.stats().counts.dropped_by_peer, 1);
        let notes = addr.of::<Notes>().ask(Notes(String::new()), SECOND).await;
        assert_eq!(notes, Ok(Text(String::new())));
        running.stop().await;
    });
}

/// A message that needs a grant: refused until the grant is verified, served until it ends.
#[test]
fn by_grant() {
    simulated(|env| async move {
        let (addr, running) = scribe(&env, 1024);
        let (a, b) = pair(&env).await;
        let pass = Pass::new();
        let access = Access::anyone().with(&pass);
        let there = b.start(Bindings::new().serve_if::<Echo>(access, addr.of()));
        let here = a.start(Bindings::new());
        let echo = here.remote::<Echo>();
        let ask = || echo.ask(Echo("hi".into()), SECOND);
        let refused = || Err(AskError::Refused("no valid grant".into()));
        assert_eq!(ask().await, refused());
        pass.open_until(env.now() + SECOND * 60);
        assert_eq!(ask().await, Ok(Text("hi".into())));
        env.sleep(SECOND * 60).await;
        assert_eq!(ask().await, refused());
        pass.open_until(env.now() + SECOND * 60);
        assert_eq!(ask().await, Ok(Text("hi".into())));
        pass.close();
        assert_eq!(ask().await, refused());
        assert_eq!(there.stats().counts.refused, 3);
        running.stop().await;
    });
}

/// One that goes on trying doors is shown out: both sides know why.
#[test]
fn too_many_refusals() {
    simulated(|env| async move {
        let (addr, running) = scribe(&env, 1024);
        let (a, b) = pair(&env).await;
        let access = Access::roles([Role::Operator]);
        let there = b.start(Bindings::new().serve_if::<Echo>(access, addr.of()));
        let here = a.start(Bindings::new());
        let echo = here.remote::<Echo>();
        let refused = || Err(AskError::Refused("not for a sentry".into()));
        for _ in 0..64 {
            assert_eq!(echo.ask(Echo(String::new()), SECOND).await, refused());
        }
        let last = echo.ask(Echo(String::new()), SECOND).await;
        let words = "the peer erred at stage open: it sent 64 messages that it may not send";
        assert_eq!(there.closed().await.to_string(), words);
        let down = here.closed().await;
        assert_eq!(down.reason(), Some(Reason::Refused));
        assert_eq!(last, Err(AskError::Remote(down.to_string())));
        running.stop().await;
    });
}

/// A link's place is free again when the link is down, not when somebody lets go of a handle.
#[test]
fn places() {
    simulated(|env| async move {
        let places = Places::new(2, 1);
        let (a, b) = pair(&env).await;
        let peer = b.peer.node_id;
        b.hold(places.take(peer).unwrap());
        let there = b.start(Bindings::new());
        let here = a.start(Bindings::new());
        let limit = NoPlace::Peer { limit: 1 };
        assert_eq!(places.take(peer).unwrap_err(), limit);
        here.close(Reason::Closed);
        there.closed().await;
        assert_eq!(places.taken(), 0);
        places.take(peer).unwrap();
        drop(there);
    });
}
