//! Two threads at one mailbox: no wake-up is lost.

use std::time::Duration;

use futures::future::join_all;
use pqcnet_actor::{
    Behaviour, Bounds, Cx, Env, Message, On, Promise, Ref, Reply, Spec, Strategy, Threads, Tree,
    run_on,
};

const THREADS: Threads = Threads {
    workers: 2,
    arbiters: 2,
};
/// Never reached unless a wake-up is lost.
const HANG: Duration = Duration::from_secs(60);

struct Ball(u32);
impl Message for Ball {
    type Reply = u32;
    const NAME: &'static str = "Ball";
}
/// Start a rally of this many asks.
struct Rally(u32);
impl Message for Rally {
    type Reply = u32;
    const NAME: &'static str = "Rally";
}

#[derive(Default)]
struct Player {
    other: Option<Ref<Ball>>,
    done: Option<Promise<Rally>>,
}
impl Behaviour for Player {
    const NAME: &'static str = "Player";
}
impl Player {
    fn serve(&mut self, left: u32, cx: &mut Cx<Self>) {
        let Some(other) = self.other.clone() else {
            return;
        };
        if left == 0 {
            if let Some(done) = self.done.take() {
                done.fulfil(0);
            }
            return;
        }
        cx.ask(
            &other,
            Ball(left),
            HANG,
            |player: &mut Player, answer, cx| {
                player.serve(answer.unwrap() - 1, cx);
            },
        );
    }
}
impl On<Ball> for Player {
    fn on(&mut self, ball: Ball, _: &mut Cx<Self>) -> Reply<Ball> {
        Reply::Now(ball.0)
    }
}
impl On<Rally> for Player {
    fn on(&mut self, rally: Rally, cx: &mut Cx<Self>) -> Reply<Rally> {
        let (promise, reply) = Reply::later();
        self.done = Some(promise);
        self.serve(rally.0, cx);
        reply
    }
}

fn players(env: &Env, bounds: Bounds) -> (pqcnet_actor::Running, [pqcnet_actor::Addr<Player>; 2]) {
    let mut tree = Tree::new("tree", Strategy::OneForOne);
    let a = tree.child(
        Spec::new("a", |_| Player::default())
            .mailbox(bounds)
            .place(0),
    );
    let other = a.of::<Ball>();
    let b = Spec::new("b", move |_: &Env| Player {
        other: Some(other.clone()),
        done: None,
    });
    let b = tree.child(b.mailbox(bounds).place(1));
    (tree.start(env.clone()), [a, b])
}

// An actor on one arbiter asks one on another 20,000 times, each ask after the answer to the one before: every step
// parks one side and wakes the other.
#[test]
fn asks_across_arbiters_all_come_back() {
    let outcome = run_on(THREADS, "rally", |env| async move {
        let (running, [_, b]) = players(&env, Bounds::default());
        let outcome = b.of::<Rally>().ask(Rally(20_000), HANG).await;
        running.stop().await;
        outcome
    });
    assert_eq!(outcome.unwrap(), Ok(0));
}

// Eight tasks on two threads tell and ask both actors through mailboxes of four: each waits for room again and again,
// and every ask is answered.
#[test]
fn small_mailboxes_between_threads_never_stall() {
    run_on(THREADS, "narrow", |env| async move {
        let (running, [a, b]) = players(&env, Bounds::request(4));
        let tasks = (0..8).map(|task| {
            let balls = [a.of::<Ball>(), b.of::<Ball>()];
            env.task(async move {
                for n in 0..3_000_u32 {
                    let ball = &balls[usize::try_from((n + task) % 2).unwrap()];
                    ball.tell(Ball(n)).await.unwrap();
                    if n % 8 == 0 {
                        loop {
                            match ball.ask(Ball(n), HANG).await {
                                Ok(answer) => break assert_eq!(answer, n),
                                Err(error) => assert_eq!(error, pqcnet_actor::AskError::Busy),
                            }
                            tokio::task::yield_now().await;
                        }
                    }
                }
            })
        });
        for outcome in join_all(tasks).await {
            outcome.unwrap();
        }
        // Tells were taken; until all are handled this goes on.
        loop {
            let infos = running.inspect().await;
            let handled: u64 = infos.iter().map(|info| info.handled).sum();
            if handled >= 8 * 3_000 + 8 * 375 {
                break assert_eq!(handled, 8 * 3_000 + 8 * 375);
            }
        }
        running.stop().await;
    })
    .unwrap();
}

// Senders that wait for room are dropped at random moments while others go on: no room is lost with them, so in the
// end the whole bound is free again.
#[test]
fn cancelled_senders_give_their_room_back() {
    run_on(THREADS, "fickle", |env| async move {
        let (running, [a, _]) = players(&env, Bounds::request(3));
        let tasks = (0..6).map(|task| {
            let ball = a.of::<Ball>();
            env.task(async move {
                for n in 0..2_000_u32 {
                    let tell = ball.tell(Ball(n));
                    if (n + task) % 3 == 0 {
                        // Polled once, then dropped, granted or not.
                        drop(futures::poll!(std::pin::pin!(tell)));
                        tokio::task::yield_now().await;
                    } else {
                        tell.await.unwrap();
                    }
                }
            })
        });
        for outcome in join_all(tasks).await {
            outcome.unwrap();
        }
        // Once an ask has gone through, everything before it has been handled.
        while a.of::<Ball>().ask(Ball(1), HANG).await.is_err() {
            tokio::task::yield_now().await;
        }
        assert_eq!(a.of::<Ball>().free(), 3);
        running.stop().await;
    })
    .unwrap();
}
