//! The one task of a plane: what comes in, the heartbeat, waits that end, events on their way out.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use pqcnet_actor::latest;
use pqcnet_p2p::control::ControlEvent;
use tokio::sync::mpsc;

use super::peers::{Shared, State, Word};
use crate::net::Came;

/// Events that wait for the role, as in production; while they do, nothing further is taken in.
const EVENTS: usize = 256;
/// What is taken in before timers and events have their turn.
const BATCH: usize = 64;
/// How long a plane waits that waits for nothing.
const FAR: Duration = Duration::from_secs(24 * 60 * 60);

pub(super) async fn run(
    shared: Arc<Shared>,
    outbox: mpsc::Sender<ControlEvent>,
    mut alive: latest::Receiver<()>,
) {
    let mut sleep = pin!(shared.env.sleep(Duration::ZERO));
    let start = sleep.deadline() - shared.env.now();
    loop {
        let (waiting, due) = {
            let state = shared.lock();
            (state.queue.len(), next(&state))
        };
        let at = start + due;
        if sleep.deadline() != at {
            sleep.as_mut().reset(at);
        }
        tokio::select! {
            biased;
            _ = alive.changed() => return shared.stop(),
            room = outbox.reserve(), if waiting > 0 => match room {
                Ok(room) => {
                    if let Some(event) = shared.lock().queue.pop_front() {
                        room.send(event);
                    }
                }
                // The reader is gone; the plane goes on for its callers.
                Err(_) => shared.lock().queue.clear(),
            },
            came = std::future::poll_fn(|cx| shared.inbox.poll_next(cx)), if waiting < EVENTS => {
                take_in(&shared, came);
            }
            () = sleep.as_mut() => on_time(&shared),
            () = shared.nudge.notified() => {}
        }
    }
}

fn next(state: &State) -> Duration {
    let wake = state
        .router
        .as_ref()
        .and_then(|router| router.next_deadline());
    let next = [wake, state.next_beat].into_iter().flatten().min();
    next.unwrap_or(FAR)
}

fn on_time(shared: &Arc<Shared>) {
    let mut state = shared.lock();
    let now = shared.env.now();
    shared.routed(&mut state, |router, now, random| router.wake(now, random));
    if state.next_beat.is_some_and(|beat| beat <= now) {
        shared.routed(&mut state, |router, now, random| {
            router.heartbeat(now, random)
        });
        let every = state
            .router
            .as_ref()
            .map(|router| router.rules().parameters.heartbeat);
        state.next_beat = every.map(|every| now + every);
    }
}

fn take_in(shared: &Arc<Shared>, first: (u64, Came)) {
    let mut state = shared.lock();
    let mut came = Some(first);
    for _ in 0..BATCH {
        let Some((conn, what)) = came else {
            return;
        };
        on_came(shared, &mut state, conn, what);
        if state.queue.len() >= EVENTS {
            return;
        }
        came = shared.inbox.try_next();
    }
    if let Some((conn, what)) = came {
        on_came(shared, &mut state, conn, what);
    }
}

fn on_came(shared: &Arc<Shared>, state: &mut State, conn: u64, what: Came) {
    let body = match what {
        Came::Parcel(body) => body,
        Came::Closed(reason) => return shared.closed(state, conn, reason),
    };
    let Some(from) = state.conns.get(&conn).copied() else {
        return;
    };
    let Ok(word) = body.downcast::<Word>() else {
        return;
    };
    match *word {
        Word::Gossip(frame) => {
            let known = state.known.get(&from).filter(|known| known.gossips);
            if let Some(number) = known.map(|known| known.number) {
                shared.routed(state, |router, now, random| {
                    router.receive(now, number, frame, random);
                });
            }
        }
        Word::Branch(branch) => shared.on_branch(state, &from, conn, branch),
        Word::Ask(number, question) => super::lookup::asked(shared, state, from, number, question),
        Word::Reply(number, reply) => state.lookups.replied(&from, number, reply),
    }
}
