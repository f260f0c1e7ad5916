//! Children that come and go.

use pqcnet_actor::{
    AskError, Behaviour, Cx, Env, Exit, Intensity, Message, Nursery, NurseryFull, On, Reply,
    Restart, Spec, Strategy, Tree, simulate,
};

use crate::{LONG, Log, ms};

struct Session {
    log: Log,
}
impl Behaviour for Session {
    const NAME: &'static str = "Session";
    fn started(&mut self, cx: &mut Cx<Self>) {
        self.log.push(format!("+{}", cx.path().name()));
    }
    fn stopping(&mut self, cx: &mut Cx<Self>) -> pqcnet_actor::Stopping {
        self.log
            .push(format!("-{} at {:?}", cx.path().name(), cx.now()));
        cx.after(ms(100), |_, cx| cx.stop());
        pqcnet_actor::Stopping::Draining
    }
}
struct Leave(bool);
impl Message for Leave {
    type Reply = ();
    const NAME: &'static str = "Leave";
}
impl On<Leave> for Session {
    fn on(&mut self, leave: Leave, cx: &mut Cx<Self>) -> Reply<Leave> {
        assert!(!leave.0, "left in anger");
        cx.stop();
        Reply::Now(())
    }
}

fn session(log: &Log) -> Spec<Session> {
    let log = log.clone();
    Spec::new("session", move |_| Session { log: log.clone() })
}

fn start(limit: usize, intensity: Intensity) -> (Nursery, pqcnet_actor::Running, Env) {
    let env = Env::simulated(1, "node");
    let mut tree = Tree::new("tree", Strategy::OneForOne).intensity(Intensity {
        restarts: 1,
        ..Intensity::default()
    });
    let nursery = tree.nursery_with("sessions", limit, intensity, Default::default());
    (nursery, tree.start(env.clone()), env)
}

// A nursery for three: a fourth is refused until one has left, by itself or by a panic, which counts against nobody.
// Names are numbered, all three stop together, and a stopped nursery takes no more.
#[test]
fn a_nursery_is_bounded() {
    let log = Log::default();
    simulate({
        let log = log.clone();
        || async move {
            let (nursery, running, env) = start(
                3,
                Intensity {
                    restarts: 0,
                    within: LONG,
                },
            );
            let mut sessions: Vec<_> = (0..3)
                .map(|_| nursery.spawn(session(&log)).unwrap())
                .collect();
            assert_eq!(
                nursery.spawn(session(&log)).unwrap_err(),
                NurseryFull::Full { limit: 3 }
            );
            assert_eq!(
                sessions
                    .remove(0)
                    .of::<Leave>()
                    .ask(Leave(false), LONG)
                    .await,
                Ok(())
            );
            let angry = sessions.remove(0).of::<Leave>();
            assert_eq!(angry.ask(Leave(true), LONG).await, Err(AskError::Panicked));
            env.sleep(ms(1)).await;
            assert_eq!(angry.ask(Leave(false), LONG).await, Err(AskError::Closed));
            assert_eq!(nursery.len(), 1);
            nursery.spawn(session(&log)).unwrap();
            nursery.spawn(session(&log)).unwrap();
            env.sleep(ms(1)).await;
            assert_eq!(running.inspect().await.len(), 3);
            assert_eq!(running.stop().await, Exit::Stopped);
            assert!(nursery.is_empty());
            assert_eq!(
                nursery.spawn(session(&log)).unwrap_err(),
                NurseryFull::Closed
            );
        }
    });
    let lines = log.lines();
    assert_eq!(
        lines[..5],
        [
            "+session#0",
            "+session#1",
            "+session#2",
            "+session#3",
            "+session#4"
        ]
    );
    assert_eq!(
        lines[5..],
        [
            "-session#2 at 2ms",
            "-session#3 at 2ms",
            "-session#4 at 2ms"
        ]
    );
}

// Restarted children that fall too often take the nursery down; the tree starts it again, empty and usable.
#[test]
fn a_nursery_that_gives_up_comes_back_empty() {
    simulate(|| async {
        let log = Log::default();
        let (nursery, running, env) = start(
            10,
            Intensity {
                restarts: 2,
                within: LONG,
            },
        );
        let calm = nursery.spawn(session(&log)).unwrap().of::<Leave>();
        let angry = session(&log).restart(Restart::Transient);
        let angry = nursery.spawn(angry).unwrap().of::<Leave>();
        for _ in 0..3 {
            assert_eq!(angry.ask(Leave(true), LONG).await, Err(AskError::Panicked));
        }
        env.sleep(ms(10_000)).await;
        assert_eq!(calm.ask(Leave(false), LONG).await, Err(AskError::Closed));
        assert!(nursery.is_empty());
        let next = nursery.spawn(session(&log)).unwrap().of::<Leave>();
        assert_eq!(next.ask(Leave(false), LONG).await, Ok(()));
        assert_eq!(running.stop().await, Exit::Stopped);
    });
}
