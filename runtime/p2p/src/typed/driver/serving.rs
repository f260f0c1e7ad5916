//! The peer's asks that are being answered.
//!
//! Most links answer one or two at a time, and there may be very many links: two asks have places of their own and are polled
//! whenever the link is; only what finds no place goes into a set that knows who was woken. At rest none of it holds memory.

use std::collections::HashMap;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures::future::{AbortHandle, Abortable};
use futures::stream::{FuturesUnordered, Stream as _};
use pqcnet_link::Answer;

use crate::typed::Boxed;

/// Asks with a place of their own.
const PLACES: usize = 2;

#[derive(Default)]
pub(super) struct Serving {
    places: [Option<(u64, Boxed<Answer>)>; PLACES],
    more: Option<Box<More>>,
}

#[derive(Default)]
struct More {
    answers: FuturesUnordered<Abortable<Boxed<(u64, Answer)>>>,
    aborts: HashMap<u64, AbortHandle>,
}

impl Serving {
    pub(super) fn push(&mut self, id: u64, answer: Boxed<Answer>) {
        if let Some(place) = self.places.iter_mut().find(|place| place.is_none()) {
            *place = Some((id, answer));
            return;
        }
        let more = self.more.get_or_insert_default();
        let (abort, registration) = AbortHandle::new_pair();
        more.aborts.insert(id, abort);
        let answer: Boxed<(u64, Answer)> = Box::pin(async move { (id, answer.await) });
        more.answers.push(Abortable::new(answer, registration));
    }

    /// Drops an ask that was cancelled.
    pub(super) fn abort(&mut self, cancelled: u64) {
        for place in &mut self.places {
            if place.as_ref().is_some_and(|(id, _)| *id == cancelled) {
                *place = None;
                return;
            }
        }
        let abort = self
            .more
            .as_mut()
            .and_then(|more| more.aborts.remove(&cancelled));
        if let Some(abort) = abort {
            abort.abort();
        }
    }

    /// The answer of one that has been answered; none while all wait, each with this waker.
    pub(super) fn poll_next(&mut self, cx: &mut Context<'_>) -> Option<(u64, Answer)> {
        for place in &mut self.places {
            if let Some((id, answer)) = place
                && let Poll::Ready(answer) = answer.as_mut().poll(cx)
            {
                let id = *id;
                *place = None;
                return Some((id, answer));
            }
        }
        let more = self.more.as_mut()?;
        loop {
            match Pin::new(&mut more.answers).poll_next(cx) {
                Poll::Ready(Some(Ok((id, answer)))) => {
                    more.aborts.remove(&id);
                    return Some((id, answer));
                }
                // It was aborted; who cancelled it has its answer.
                Poll::Ready(Some(Err(_))) => {}
                Poll::Ready(None) => {
                    self.more = None;
                    return None;
                }
                Poll::Pending => return None,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use bytes::Bytes;
    use futures::channel::oneshot;
    use futures::task::noop_waker_ref;

    use super::*;

    fn answered(serving: &mut Serving) -> Vec<u64> {
        let mut cx = Context::from_waker(noop_waker_ref());
        std::iter::from_fn(|| serving.poll_next(&mut cx))
            .map(|(id, _)| id)
            .collect()
    }

    /// Scenario: seven asks, any one of which is cancelled, the others answered from the last to the first, one at a time.
    #[test]
    fn each_ask_is_answered_once_unless_it_was_cancelled() {
        for cancelled in 0..7 {
            let mut serving = Serving::default();
            let mut tellers = Vec::new();
            for id in 0..7 {
                let (tell, told) = oneshot::channel::<Answer>();
                tellers.push((id, tell));
                serving.push(
                    id,
                    Box::pin(async { told.await.unwrap_or(Answer::Abandoned) }),
                );
            }
            assert!(answered(&mut serving).is_empty());
            serving.abort(cancelled);
            let mut left: BTreeSet<u64> = (0..7).filter(|id| *id != cancelled).collect();
            while let Some((id, tell)) = tellers.pop() {
                // Whoever cancelled does not listen.
                let _heard = tell.send(Answer::Ok(Bytes::new()));
                let expected: Vec<u64> = left.take(&id).into_iter().collect();
                assert_eq!(answered(&mut serving), expected);
            }
            assert!(left.is_empty() && serving.more.is_none());
            assert!(serving.places.iter().all(Option::is_none));
        }
    }
}
