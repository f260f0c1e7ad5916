//! What a ref promises holds near and far.

use pqcnet_actor::Watchable as _;

use super::*;

/// Longer than any of these takes on a busy machine.
const LONG: Duration = Duration::from_secs(30);

/// The one body that local and remote refs must both pass.
pub(super) async fn body(refs: Refs) {
    // Tells keep their order, and an ask of the same class does not overtake them.
    for n in 0..300 {
        refs.note.tell(Note(n.to_string())).await.unwrap();
    }
    let notes = refs.notes.ask(Notes(String::new()), LONG).await.unwrap();
    let expected: Vec<String> = (0..300).map(|n| n.to_string()).collect();
    assert_eq!(notes.0, expected.join(" "));

    let echo = refs.echo.ask(Echo("hello".into()), LONG).await;
    assert_eq!(echo, Ok(Text("hello".into())));
    let many = (0..100).map(|n| refs.echo.ask(Echo(n.to_string()), LONG));
    for (n, echo) in futures::future::join_all(many)
        .await
        .into_iter()
        .enumerate()
    {
        assert_eq!(echo, Ok(Text(n.to_string())));
    }

    // Later, too late, never.
    let held = refs.hold.ask(Hold("after 50".into()), LONG).await;
    assert_eq!(held, Ok(Text("at last".into())));
    let wait = Duration::from_millis(20);
    let held = refs.hold.ask(Hold("after 50".into()), wait).await;
    assert_eq!(held, Err(AskError::Timeout));
    let forgotten = refs.forget.ask(Forget(String::new()), LONG).await;
    assert_eq!(forgotten, Err(AskError::Abandoned));

    // An ask that its caller drops is dropped where it is held.
    let pending = refs.hold.try_ask(Hold("forever".into()), LONG).unwrap();
    let count = || refs.hold.ask(Hold("count".into()), LONG);
    assert_eq!(count().await, Ok(Text("1".into())));
    drop(pending);
    while count().await != Ok(Text("0".into())) {}
    // And so is one whose time is over.
    let timed = refs.hold.ask(Hold("forever".into()), wait).await;
    assert_eq!(timed, Err(AskError::Timeout));
    while count().await != Ok(Text("0".into())) {}

    // The trace of whoever sends is current where it is handled.
    let trace = TraceCx {
        trace_id: 0xabc << 64,
        span_id: 5,
        sampled: true,
    };
    let pending = trace.scope(|| refs.trace.try_ask(Trace(String::new()), LONG));
    let traced = pending.unwrap().await;
    assert_eq!(traced, Ok(Text(format!("{:x}", trace.trace_id))));
    let traced = refs.trace.ask(Trace(String::new()), LONG).await;
    assert_eq!(traced, Ok(Text("0".into())));

    // A panic is learnt by its caller; the restarted actor serves on through the same ref.
    let exploded = refs.explode.ask(Explode(String::new()), LONG).await;
    assert_eq!(exploded, Err(AskError::Panicked));
    let echo = refs.echo.ask(Echo("again".into()), LONG).await;
    assert_eq!(echo, Ok(Text("again".into())));
}

#[test]
fn a_local_ref_keeps_its_promises() {
    simulated(|env| async move {
        let (addr, running) = scribe(&env, 1024);
        body(near(&addr)).await;
        running.stop().await;
    });
}

#[test]
fn a_remote_ref_keeps_the_same_promises() {
    simulated(|env| async move {
        let (addr, running) = scribe(&env, 1024);
        let (here, there) = served(&env, &addr).await;
        body(far(&here)).await;
        let stats = (here.stats(), there.stats());
        assert_eq!((stats.0.open_asks, stats.1.unanswered), (0, 0));
        running.stop().await;
    });
}

/// The same over several threads and real time, the caller on a plain tokio without actors.
#[test]
fn a_remote_ref_on_many_threads() {
    let threads = pqcnet_actor::Threads {
        workers: 2,
        arbiters: 2,
    };
    let done = pqcnet_actor::run_on(threads, "test", |env| async move {
        let (addr, running) = scribe(&env, 1024);
        let (a, b) = streams();
        let client = std::sync::Arc::new(tokio::sync::Notify::new());
        let finished = std::sync::Arc::clone(&client);
        let plain = Env::plain();
        let side = plain.clone();
        plain.spawn(async move {
            let accepted = establish(&side, a, node(2), config(Role::Client), anyone).await;
            let handle = accepted.unwrap().start(Bindings::new());
            body(far(&handle)).await;
            finished.notify_one();
        });
        let accepted = establish(&env, b, node(1), config(Role::Sentry), anyone).await;
        let handle = accepted.unwrap().start(bind(&addr));
        assert_eq!(handle.peer().role, Role::Client);
        client.notified().await;
        // The client dropped its handle: an ordinary end, named by it.
        let down = handle.closed().await;
        assert_eq!(down.reason(), Some(Reason::Closed));
        running.stop().await;
    });
    done.unwrap();
}

/// Messages larger than any buffer on the way arrive whole, both ways.
#[test]
fn large_messages() {
    simulated(|env| async move {
        let (addr, running) = scribe(&env, 1024);
        let (here, _there) = served(&env, &addr).await;
        let text = "x".repeat(1024 * 1024);
        let echo = here.remote::<Echo>().ask(Echo(text.clone()), SECOND).await;
        assert_eq!(echo, Ok(Text(text)));
        let text = "x".repeat(2 * 1024 * 1024);
        let echo = here.remote::<Echo>().ask(Echo(text), SECOND).await;
        let words = "larger than the peer's largest frame".to_owned();
        assert_eq!(echo, Err(AskError::Refused(words)));
        running.stop().await;
    });
}

/// Both sides serve and use each other over one link; a ref's path names the link and the message.
#[test]
fn both_ways() {
    simulated(|env| async move {
        let (addr, running) = scribe(&env, 1024);
        let (a, b) = pair(&env).await;
        assert_eq!(a.peer.role, Role::Relayer);
        assert_eq!(a.peer.node_id, node(2));
        assert_eq!(a.peer.services, [ServiceId::CONTROL]);
        let (a, b) = (a.start(bind(&addr)), b.start(bind(&addr)));
        let (there, back) = (a.remote::<Echo>(), b.remote::<Echo>());
        assert_eq!(there.path().as_str(), "link/02020202/test.Echo");
        let (one, two) = futures::join!(
            there.ask(Echo("1".into()), SECOND),
            back.ask(Echo("2".into()), SECOND)
        );
        assert_eq!((one, two), (Ok(Text("1".into())), Ok(Text("2".into()))));
        running.stop().await;
    });
}

/// An idle hour costs a ping each ten seconds and a side, and the link still works.
#[test]
fn an_idle_hour() {
    simulated(|env| async move {
        let (addr, running) = scribe(&env, 1024);
        let (here, there) = served(&env, &addr).await;
        let before = here.stats().counts.frames_out;
        env.sleep(Duration::from_secs(3600)).await;
        let pings = here.stats().counts.frames_out - before;
        assert!((355..=361).contains(&pings), "{pings} frames");
        assert_eq!(there.down_reason(), None);
        let echo = here.remote::<Echo>().ask(Echo("hi".into()), SECOND).await;
        assert_eq!(echo, Ok(Text("hi".into())));
        running.stop().await;
    });
}

/// Watching a remote ref tells when its link is gone, also when it was gone before.
#[test]
fn watching() {
    simulated(|env| async move {
        let (addr, running) = scribe(&env, 1024);
        let (here, there) = served(&env, &addr).await;
        let echo = here.remote::<Echo>();
        let watch = echo.watch();
        there.close_with(Reason::Draining, "restart");
        let down = watch.await;
        let words = "closed by the peer at stage open: draining (restart)".to_owned();
        assert_eq!(
            down.reason,
            pqcnet_actor::DownReason::LinkLost(words.clone())
        );
        let late = echo.watch().await;
        assert_eq!(late.reason, pqcnet_actor::DownReason::LinkLost(words));
        running.stop().await;
    });
}
