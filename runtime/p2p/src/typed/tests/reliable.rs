//! Reliable tells over links that break.

use std::sync::{Arc as Shared, Mutex};

use pqcnet_actor::TellError;
use pqcnet_link::reliable::SenderLimits;

use super::*;

type Losses = Shared<Mutex<Vec<Lost>>>;

fn sender(env: &Env, limits: SenderLimits) -> (Reliable<Note>, Losses) {
    let losses = Losses::default();
    let told = losses.clone();
    let lost = move |lost| told.lock().unwrap().push(lost);
    (Reliable::new(env, limits, lost), losses)
}

/// A link whose bytes go through a task: ending it loses all that is under way, in both directions.
async fn breakable(
    env: &Env,
    bindings: Bindings,
) -> (LinkHandle, LinkHandle, pqcnet_actor::Task<()>) {
    let ((left, mut near), (mut far, right)) = (tokio::io::duplex(1024), tokio::io::duplex(1024));
    let between = env.task(async move {
        drop(tokio::io::copy_bidirectional_with_sizes(&mut near, &mut far, 256, 256).await);
    });
    let (a, b) = futures::join!(
        establish(env, left.compat(), node(2), config(Role::Sentry), anyone),
        establish(env, right.compat(), node(1), config(Role::Relayer), anyone),
    );
    let here = a.unwrap().start(Bindings::new());
    (here, b.unwrap().start(bindings), between)
}

async fn written(addr: &pqcnet_actor::Addr<Scribe>) -> Vec<String> {
    let ask = addr.of::<Notes>();
    let notes = loop {
        match ask.ask(Notes(String::new()), SECOND).await {
            Ok(notes) => break notes.0,
            // What is acknowledged is in the mailbox, and may fill it.
            Err(AskError::Busy) => tokio::task::yield_now().await,
            Err(other) => panic!("{other}"),
        }
    };
    notes.split_whitespace().map(str::to_owned).collect()
}

fn numbers(range: std::ops::Range<usize>) -> Vec<String> {
    range.map(|n| n.to_string()).collect()
}

/// Two thousand tells over forty links, each of which breaks in mid-flow with whatever is under way; the receiver's mailbox holds four. Every one arrives
/// once and in order, and is acknowledged.
#[test]
fn over_forty_links() {
    simulated(|env| async move {
        let (addr, running) = scribe(&env, 4);
        let inbox = ReliableInbox::new(&env);
        let (reliable, losses) = sender(&env, SenderLimits::default());
        let note = reliable.to_ref();
        let told = env.task(async move {
            for n in 0..2000 {
                note.tell(Note(n.to_string())).await.unwrap();
                if n % 100 == 0 {
                    tokio::task::yield_now().await;
                }
            }
        });
        for n in 0..40 {
            let bindings =
                Bindings::new().serve_reliably::<Note>(Access::anyone(), &inbox, addr.of());
            let (here, there, between) = breakable(&env, bindings).await;
            reliable.attach(&here);
            for _ in 0..30 + n * 7 {
                tokio::task::yield_now().await;
            }
            between.abort();
            here.closed().await;
            there.closed().await;
        }
        let before = written(&addr).await.len();
        let bindings = Bindings::new().serve_reliably::<Note>(Access::anyone(), &inbox, addr.of());
        let (here, _there, _between) = breakable(&env, bindings).await;
        reliable.attach(&here);
        told.await.unwrap();
        reliable.settled().await;
        assert!(before > 0, "something got through the broken ones");
        assert_eq!(written(&addr).await, numbers(0..2000));
        assert_eq!(reliable.unacknowledged(), 0);
        assert_eq!(*losses.lock().unwrap(), []);
        running.stop().await;
    });
}

/// The next link is there before the last one is known to be dead: what still waits for a mailbox on the old one is not
/// taken twice.
#[test]
fn two_links_at_once() {
    simulated(|env| async move {
        // Nobody runs yet: the mailbox fills and what follows waits on the first link.
        let mut tree = Tree::new("test", Strategy::OneForOne);
        let bounds = Bounds {
            request: 4,
            ..Bounds::default()
        };
        let addr = tree.child(Spec::new("scribe", |_| Scribe::new()).mailbox(bounds));
        let inbox = ReliableInbox::new(&env);
        let serve = || Bindings::new().serve_reliably::<Note>(Access::anyone(), &inbox, addr.of());
        let (reliable, losses) = sender(&env, SenderLimits::default());
        let (first, first_there, _one) = breakable(&env, serve()).await;
        reliable.attach(&first);
        let note = reliable.to_ref();
        for n in 0..20 {
            note.try_tell(Note(n.to_string())).unwrap();
        }
        env.sleep(SECOND).await;
        assert_eq!(reliable.unacknowledged(), 16, "four are in the mailbox");
        let (second, _second_there, _two) = breakable(&env, serve()).await;
        reliable.attach(&second);
        env.sleep(SECOND).await;
        let running = tree.start(env.clone());
        reliable.settled().await;
        assert_eq!(written(&addr).await, numbers(0..20));
        assert_eq!(*losses.lock().unwrap(), []);
        assert_eq!(first_there.down_reason(), None);
        running.stop().await;
    });
}

/// The receiving node restarts and has forgotten: exactly those sent and not acknowledged are said to be unknown; what follows arrives.
#[test]
fn a_restarted_receiver() {
    simulated(|env| async move {
        let mut tree = Tree::new("test", Strategy::OneForOne);
        let bounds = Bounds {
            request: 4,
            ..Bounds::default()
        };
        let addr = tree.child(Spec::new("scribe", |_| Scribe::new()).mailbox(bounds));
        let inbox = ReliableInbox::new(&env);
        let serve = |inbox: &ReliableInbox, addr: &pqcnet_actor::Addr<Scribe>| {
            Bindings::new().serve_reliably::<Note>(Access::anyone(), inbox, addr.of())
        };
        let (reliable, losses) = sender(&env, SenderLimits::default());
        let (here, there, _between) = breakable(&env, serve(&inbox, &addr)).await;
        reliable.attach(&here);
        let note = reliable.to_ref();
        for n in 0..10 {
            note.try_tell(Note(n.to_string())).unwrap();
        }
        env.sleep(SECOND).await;
        assert_eq!(reliable.unacknowledged(), 6, "four are in the mailbox");
        there.close(Reason::Draining);
        here.closed().await;
        drop(tree);

        let (addr, running) = scribe(&env, 1024);
        let inbox = ReliableInbox::new(&env);
        let (here, _there, _between) = breakable(&env, serve(&inbox, &addr)).await;
        note.try_tell(Note("10".into())).unwrap();
        reliable.attach(&here);
        reliable.settled().await;
        assert_eq!(*losses.lock().unwrap(), [Lost::Unknown(5..=10)]);
        assert_eq!(written(&addr).await, ["10"]);
        running.stop().await;
    });
}

/// Without a link as much is kept as may be, then the teller waits; asks are not for this.
#[test]
fn bounded() {
    simulated(|env| async move {
        let limits = SenderLimits {
            messages: 3,
            ..SenderLimits::default()
        };
        let (addr, running) = scribe(&env, 1024);
        let inbox = ReliableInbox::new(&env);
        let (reliable, losses) = sender(&env, limits);
        let note = reliable.to_ref();
        for n in 0..3 {
            assert_eq!(note.free(), 3 - n);
            note.try_tell(Note(n.to_string())).unwrap();
        }
        let full = note.try_tell(Note("3".into()));
        assert!(matches!(full, Err(TellError::Full(Note(text))) if text == "3"));
        let asked = note.ask(Note(String::new()), SECOND).await;
        let refused = AskError::Refused("asks are not carried reliably".into());
        assert_eq!(asked, Err(refused));
        let waiting = env.task({
            let note = note.clone();
            async move { note.tell(Note("3".into())).await.is_ok() }
        });
        let bindings = Bindings::new().serve_reliably::<Note>(Access::anyone(), &inbox, addr.of());
        let (here, _there, _between) = breakable(&env, bindings).await;
        reliable.attach(&here);
        assert_eq!(waiting.await, Ok(true));
        reliable.settled().await;
        assert_eq!(written(&addr).await, numbers(0..4));
        assert_eq!(*losses.lock().unwrap(), []);
        running.stop().await;
    });
}

/// A peer that takes no such thing, or not in sequence, or not of this role; and one whose actor has stopped: the sender is told, and takes nothing more.
#[test]
fn refused() {
    simulated(|env| async move {
        let (addr, running) = scribe(&env, 1024);
        let inbox = ReliableInbox::new(&env);
        let client = Access::roles([Role::Client]);
        let cases = [
            (
                Bindings::new().serve::<Note>(addr.of()),
                "not taken in sequence",
            ),
            // Another message of the same lane, so that there is credit.
            (Bindings::new().serve::<Echo>(addr.of()), "not served"),
            (
                Bindings::new().serve_reliably::<Note>(client, &inbox, addr.of()),
                "not for a sentry",
            ),
        ];
        for (bindings, why) in cases {
            let (reliable, losses) = sender(&env, SenderLimits::default());
            let (here, _there, _between) = breakable(&env, bindings).await;
            reliable.attach(&here);
            let note = reliable.to_ref();
            note.try_tell(Note("no".into())).unwrap();
            reliable.settled().await;
            let lost = [Lost::Refused(why.to_owned())];
            assert_eq!(*losses.lock().unwrap(), lost);
            let told = note.try_tell(Note("no".into()));
            assert!(matches!(told, Err(TellError::Closed(_))));
        }
        running.stop().await;
        let bindings = Bindings::new().serve_reliably::<Note>(Access::anyone(), &inbox, addr.of());
        let (here, _there, _between) = breakable(&env, bindings).await;
        let (reliable, losses) = sender(&env, SenderLimits::default());
        reliable.attach(&here);
        reliable.to_ref().try_tell(Note("late".into())).unwrap();
        reliable.settled().await;
        let lost = [Lost::Refused("its receiver has stopped".to_owned())];
        assert_eq!(*losses.lock().unwrap(), lost);
    });
}
