//! What an actor waits for beside its mailbox: futures on its own thread.
//!
//! Most actors wait for one or two things at a time (the end of a link, an answer), and there may be ten thousand of them:
//! two futures have places of their own and are polled whenever the actor is; only what finds no place goes into a set that
//! knows who was woken, whose first future costs 250 bytes more.

use std::pin::Pin;
use std::task::{Context, Poll};

use futures::future::LocalBoxFuture;
use futures::stream::{FuturesUnordered, Stream};

/// Futures with a place of their own.
const PLACES: usize = 2;

pub(crate) struct Tasks<T> {
    places: [Option<LocalBoxFuture<'static, T>>; PLACES],
    more: Option<Box<FuturesUnordered<LocalBoxFuture<'static, T>>>>,
    /// Where the next look begins: nobody is passed over for one that is always ready.
    turn: usize,
}

impl<T> Default for Tasks<T> {
    fn default() -> Self {
        Tasks {
            places: [const { None }; PLACES],
            more: None,
            turn: 0,
        }
    }
}

impl<T> Tasks<T> {
    pub(crate) fn push(&mut self, task: LocalBoxFuture<'static, T>) {
        match self.places.iter_mut().find(|place| place.is_none()) {
            Some(place) => *place = Some(task),
            None => self.more.get_or_insert_default().push(task),
        }
    }

    pub(crate) fn len(&self) -> usize {
        let placed = self.places.iter().flatten().count();
        placed + self.more.as_ref().map_or(0, |more| more.len())
    }

    /// The output of one that has ended; none while all wait, each with this waker.
    pub(crate) fn poll_next(&mut self, task: &mut Context<'_>) -> Option<T> {
        for _ in 0..=PLACES {
            let turn = self.turn;
            self.turn = (turn + 1) % (PLACES + 1);
            let ended = match self.places.get_mut(turn) {
                Some(place) => poll_place(place, task),
                None => self.poll_more(task),
            };
            if ended.is_some() {
                return ended;
            }
        }
        None
    }

    fn poll_more(&mut self, task: &mut Context<'_>) -> Option<T> {
        let more = self.more.as_mut()?;
        match Pin::new(&mut **more).poll_next(task) {
            Poll::Ready(Some(output)) => Some(output),
            Poll::Ready(None) => {
                self.more = None;
                None
            }
            Poll::Pending => None,
        }
    }
}

fn poll_place<T>(
    place: &mut Option<LocalBoxFuture<'static, T>>,
    task: &mut Context<'_>,
) -> Option<T> {
    match place.as_mut()?.as_mut().poll(task) {
        Poll::Ready(output) => {
            *place = None;
            Some(output)
        }
        Poll::Pending => None,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::future::{pending, ready};

    use futures::channel::oneshot;
    use futures::task::noop_waker_ref;

    use super::*;

    fn ended<T>(tasks: &mut Tasks<T>) -> Vec<T> {
        let mut cx = Context::from_waker(noop_waker_ref());
        std::iter::from_fn(|| tasks.poll_next(&mut cx)).collect()
    }

    // Scenario: five tasks, of which any may end first; each output comes once, and what is left waits on.
    #[test]
    fn each_output_comes_once() {
        for first in 0..5 {
            let mut tasks = Tasks::default();
            let mut tellers = Vec::new();
            for _ in 0..5 {
                let (tell, told) = oneshot::channel::<usize>();
                tellers.push(tell);
                tasks.push(Box::pin(async { told.await.expect("told") }));
            }
            assert_eq!(ended(&mut tasks), []);
            tellers.remove(first).send(first).expect("waits");
            assert_eq!(ended(&mut tasks), [first]);
            assert_eq!(tasks.len(), 4);
            for (n, tell) in tellers.into_iter().enumerate() {
                tell.send(10 + n).expect("waits");
            }
            let rest = ended(&mut tasks).into_iter().collect::<BTreeSet<_>>();
            assert_eq!(rest, BTreeSet::from([10, 11, 12, 13]));
            assert_eq!(tasks.len(), 0);
            assert!(tasks.more.is_none());
        }
    }

    // Scenario: two tasks that wait for ever have the places; one that is done at once goes beside them, and again; then a place
    // whose task ends at once each time is filled again and again, and the one in the set still gets its turn.
    #[test]
    fn nobody_is_passed_over() {
        let mut tasks: Tasks<u32> = Tasks::default();
        tasks.push(Box::pin(pending()));
        tasks.push(Box::pin(pending()));
        for n in 0..3 {
            tasks.push(Box::pin(ready(n)));
            assert_eq!(ended(&mut tasks), [n]);
        }
        let mut tasks: Tasks<u32> = Tasks::default();
        for n in 0..4 {
            tasks.push(Box::pin(ready(n)));
        }
        let mut cx = Context::from_waker(noop_waker_ref());
        let mut seen = BTreeSet::new();
        for n in 4..10 {
            seen.extend(tasks.poll_next(&mut cx));
            tasks.push(Box::pin(ready(n)));
        }
        assert!(seen.is_superset(&BTreeSet::from([0, 1, 2, 3])), "{seen:?}");
    }
}
