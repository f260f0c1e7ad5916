//! Streams of events, near and far: who falls behind, and who comes back, learns exactly what it missed.

use pqcnet_link::{BacklogLimits, Missed, Position};

use super::*;

const FOUR: BacklogLimits = BacklogLimits {
    events: 4,
    bytes: 1000,
};

fn source(env: &Env, limits: BacklogLimits) -> EventSource<News> {
    EventSource::new(env, limits)
}

fn publish(source: &EventSource<News>, numbers: std::ops::RangeInclusive<u64>) {
    for n in numbers {
        let position = source.publish(&News(n.to_string()));
        assert_eq!(position.number, n);
    }
}

fn event(epoch: u64, number: u64) -> Result<Notice<News>, EventsEnded> {
    let position = Position { epoch, number };
    let event = News(number.to_string());
    Ok(Notice::Event { position, event })
}

fn missed(epoch: u64, first: u64, last: Option<u64>) -> Result<Notice<News>, EventsEnded> {
    Ok(Notice::Missed(Missed { epoch, first, last }))
}

/// The handle at the subscriber's end, and the one at the source's.
async fn publishing(env: &Env, source: &EventSource<News>) -> (LinkHandle, LinkHandle) {
    let (a, b) = pair(env).await;
    let there = b.start(Bindings::new().publish(source));
    (a.start(Bindings::new()), there)
}

async fn unsubscribed(env: &Env, source: &EventSource<News>) {
    while source.subscribers() > 0 {
        env.sleep(Duration::from_millis(1)).await;
    }
}

/// What every subscription must do, wherever its source is.
async fn body(env: Env, source: EventSource<News>, mut subscription: Subscription<News>) {
    let epoch = source.head().epoch;
    // It has begun once the source counts it.
    while source.subscribers() == 0 {
        env.sleep(Duration::from_millis(1)).await;
    }
    publish(&source, 1..=3);
    for n in 1..=3 {
        assert_eq!(subscription.next().await, event(epoch, n));
        let position = Position { epoch, number: n };
        assert_eq!(subscription.position(), Some(position));
    }
    assert_eq!(source.head(), Position { epoch, number: 3 });
    // An event that comes while it is awaited.
    let later = source.clone();
    let waking = env.clone();
    let told = env.task(async move {
        waking.sleep(Duration::from_millis(20)).await;
        publish(&later, 4..=4);
    });
    assert_eq!(subscription.next().await, event(epoch, 4));
    told.await.unwrap();
    drop(subscription);
    unsubscribed(&env, &source).await;
}

#[test]
fn near() {
    simulated(|env| async move {
        let source = source(&env, BacklogLimits::default());
        let subscription = source.subscribe(None).unwrap();
        body(env, source, subscription).await;
    });
}

#[test]
fn far() {
    simulated(|env| async move {
        let source = source(&env, BacklogLimits::default());
        let (here, _there) = publishing(&env, &source).await;
        let subscription = here.subscribe(None).unwrap();
        body(env, source, subscription).await;
    });
}

/// A subscriber that takes nothing while a thousand events are published, of which the source keeps four: what it gets is
/// what its window held, one gap that names the rest number by number, and the last four.
#[test]
fn one_that_cannot_keep_up() {
    simulated(|env| async move {
        let source = source(&env, FOUR);
        let (here, there) = publishing(&env, &source).await;
        let mut subscription = here.subscribe::<News>(None).unwrap();
        while source.subscribers() == 0 {
            env.sleep(Duration::from_millis(1)).await;
        }
        for n in 1..=1000 {
            publish(&source, n..=n);
            if n % 4 == 0 {
                // The link keeps up while its window lasts.
                env.sleep(Duration::from_millis(1)).await;
            }
        }
        let epoch = source.head().epoch;
        let (mut seen, mut gaps) = (0, Vec::new());
        let mut next = 1;
        while next <= 1000 {
            match subscription.next().await.unwrap() {
                Notice::Event { position, event } => {
                    assert_eq!(
                        position,
                        Position {
                            epoch,
                            number: next
                        }
                    );
                    assert_eq!(event.0, next.to_string());
                    (seen, next) = (seen + 1, next + 1);
                }
                Notice::Missed(gap) => {
                    assert_eq!((gap.epoch, gap.first), (epoch, next));
                    next = gap.last.unwrap() + 1;
                    gaps.push(gap);
                }
            }
        }
        assert_eq!(gaps.len(), 1, "{gaps:?}");
        assert_eq!(gaps[0].last, Some(996));
        let window = 2 * u64::from(pqcnet_link::MAX_COST);
        assert_eq!(seen, window + 4);
        assert!(there.stats().outbound < 1000);
    });
}

/// The link breaks; meanwhile six events come, of which the source keeps four. On the next link the subscriber presents its
/// position: it misses exactly two, and gets the other four. Then the source's node restarts.
#[test]
fn one_that_comes_back() {
    simulated(|env| async move {
        let source = source(&env, FOUR);
        let epoch = source.head().epoch;
        let (here, there) = publishing(&env, &source).await;
        let mut subscription = here.subscribe::<News>(None).unwrap();
        while source.subscribers() == 0 {
            env.sleep(Duration::from_millis(1)).await;
        }
        publish(&source, 1..=2);
        assert_eq!(subscription.next().await, event(epoch, 1));
        assert_eq!(subscription.next().await, event(epoch, 2));
        there.close(Reason::Draining);
        let ended = subscription.next().await.unwrap_err();
        let words = "the link is gone: closed by the peer at stage open: draining";
        assert_eq!(ended.to_string(), words);
        let position = subscription.position();
        publish(&source, 3..=8);

        let (here, there) = publishing(&env, &source).await;
        let mut subscription = here.subscribe::<News>(position).unwrap();
        assert_eq!(subscription.next().await, missed(epoch, 3, Some(4)));
        for n in 5..=8 {
            assert_eq!(subscription.next().await, event(epoch, n));
        }
        there.close(Reason::Draining);
        subscription.next().await.unwrap_err();
        let position = subscription.position();

        let restarted = super::events::source(&env, FOUR);
        let another = restarted.head().epoch;
        assert_ne!(another, epoch);
        publish(&restarted, 1..=5);
        let (here, _there) = publishing(&env, &restarted).await;
        let mut subscription = here.subscribe::<News>(position).unwrap();
        assert_eq!(subscription.next().await, missed(epoch, 9, None));
        let number = 0;
        let begins = Position {
            epoch: another,
            number,
        };
        assert_eq!(subscription.position(), Some(begins));
        assert_eq!(subscription.next().await, missed(another, 1, Some(1)));
        assert_eq!(subscription.next().await, event(another, 2));
    });
}

/// A position can be held before anything was published: nothing that comes between two links is lost unsaid.
#[test]
fn back_before_the_first_event() {
    simulated(|env| async move {
        let source = source(&env, FOUR);
        let epoch = source.head().epoch;
        let (here, there) = publishing(&env, &source).await;
        let mut subscription = here.subscribe::<News>(None).unwrap();
        assert_eq!(subscription.position(), None, "the source has said nothing");
        while source.subscribers() == 0 {
            env.sleep(Duration::from_millis(1)).await;
        }
        there.close(Reason::Closed);
        subscription.next().await.unwrap_err();
        let position = subscription.position();
        assert_eq!(position, Some(Position { epoch, number: 0 }));
        publish(&source, 1..=1);
        let (here, _there) = publishing(&env, &source).await;
        let mut subscription = here.subscribe::<News>(position).unwrap();
        assert_eq!(subscription.next().await, event(epoch, 1));
    });
}

/// Nobody publishes it; a position that was never given; one that the rule keeps out; a link that is gone.
#[test]
fn why_it_ends() {
    simulated(|env| async move {
        let source = source(&env, FOUR);
        let (a, b) = pair(&env).await;
        let client = Access::roles([Role::Client]);
        let there = b.start(Bindings::new().publish_if(client, &source));
        let here = a.start(Bindings::new());
        let mut nothing = here.subscribe::<Note>(None).unwrap();
        let name = std::any::type_name::<Note>();
        let not_served = Err(EventsEnded::NotServed(name));
        assert_eq!(nothing.next().await, not_served);
        assert_eq!(nothing.next().await, Err(EventsEnded::Closing), "once");
        let mut refused = here.subscribe::<News>(None).unwrap();
        let words = "not for a sentry".to_owned();
        assert_eq!(refused.next().await, Err(EventsEnded::Refused(words)));
        assert_eq!(there.stats().counts.refused, 1);
        assert_eq!(source.subscribers(), 0);
        here.close(Reason::Closed);
        here.closed().await;
        let lost = here.subscribe::<News>(None).unwrap_err();
        assert!(matches!(lost, EventsEnded::LinkLost(_)));

        let (here, _there) = publishing(&env, &source).await;
        let epoch = source.head().epoch;
        let ahead = Some(Position { epoch, number: 9 });
        let bad = || Err(EventsEnded::BadPosition);
        assert_eq!(here.subscribe::<News>(ahead).unwrap().next().await, bad());
        let near = source.subscribe(ahead).map(drop);
        assert_eq!(near, Err(EventsEnded::BadPosition));
    });
}

/// An event that no frame of the subscriber's holds is a gap of one.
#[test]
fn too_large_an_event() {
    simulated(|env| async move {
        let source = source(&env, BacklogLimits::default());
        let mut small = config(Role::Sentry);
        small.limits.max_frame = 8 * 1024;
        let (a, b) = pair_with(&env, small, config(Role::Relayer)).await;
        let _there = b.start(Bindings::new().publish(&source));
        let here = a.start(Bindings::new());
        let mut subscription = here.subscribe::<News>(None).unwrap();
        while source.subscribers() == 0 {
            env.sleep(Duration::from_millis(1)).await;
        }
        source.publish(&News("x".repeat(10_000)));
        source.publish(&News("2".into()));
        let epoch = source.head().epoch;
        assert_eq!(subscription.next().await, missed(epoch, 1, Some(1)));
        assert_eq!(subscription.next().await, event(epoch, 2));
    });
}
