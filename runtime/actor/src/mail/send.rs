//! The senders' side of a mailbox: posting, and waiting in line for room.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use super::{Mail, Waiter};
use crate::error::TellError;
use crate::message::{Behaviour, Class, Message, On};
use crate::path::Path;
use crate::refs::{Carrier, Letter, Posting};
use crate::trace::Entered;
use crate::watch::{Incarnation, Watch};

impl<M: Message, B: On<M>> Carrier<M> for Mail<B> {
    #[inline]
    fn post(&self, letter: Letter<M>) -> Result<(), TellError<Letter<M>>> {
        let lane = M::CLASS.index();
        if letter.only.is_some() && letter.only != self.incarnation() {
            return self.refuse_stale(letter);
        }
        // Allocating before the lock keeps it short; a refusal, the rare case, pays for the box.
        let boxed = Box::new(letter);
        let mut inner = self.lock();
        if inner.closed {
            drop(inner);
            self.dead_letter(M::NAME);
            return Err(TellError::Closed(*boxed));
        }
        if !self.has_room(lane, &inner) || inner.lanes[lane].has_queue() {
            drop(inner);
            return self.refuse(*boxed);
        }
        let wake = self.push(lane, &mut inner, boxed);
        drop(inner);
        if wake {
            self.wake();
        }
        Ok(())
    }

    fn post_when_free(&self, letter: Letter<M>) -> Posting<'_, M> {
        match self.try_post(letter) {
            Ok(()) => Box::pin(std::future::ready(Ok(()))),
            Err(TellError::Closed(letter)) => Box::pin(std::future::ready(Err(letter))),
            Err(TellError::Full(letter)) => Box::pin(Wait {
                mail: self,
                letter: Some(Box::new(letter)),
                ticket: None,
            }),
        }
    }

    fn free(&self) -> usize {
        Mail::free(self, M::CLASS)
    }

    fn path(&self) -> &Path {
        Mail::path(self)
    }

    fn watch(&self) -> Watch {
        self.watch_incarnation()
    }

    fn incarnation(&self) -> Option<Incarnation> {
        Mail::incarnation(self)
    }
}

impl<B: Behaviour> Mail<B> {
    /// A letter for an incarnation that is over; one that is queued before its end is found when its turn comes.
    #[cold]
    fn refuse_stale<M: Message>(&self, mut letter: Letter<M>) -> Result<(), TellError<Letter<M>>> {
        if let Some(reply) = letter.reply.take() {
            self.stale::<M>(letter.only, Some(reply));
            return Ok(());
        }
        self.dead_letter(M::NAME);
        Err(TellError::Closed(letter))
    }

    #[cold]
    fn refuse<M: Message>(&self, letter: Letter<M>) -> Result<(), TellError<Letter<M>>> {
        match M::CLASS {
            Class::Bulk if letter.reply.is_none() => {
                self.count(|counters| &counters.bulk_dropped);
                let _entered = Entered::new(letter.trace);
                tracing::trace!(actor = %self.path(), message = M::NAME, "bulk message dropped");
                Ok(())
            }
            Class::Control | Class::Request | Class::Bulk => {
                self.count(|counters| &counters.refused);
                Err(TellError::Full(letter))
            }
        }
    }

    /// As `post`, but a full Bulk lane is `Full` and nothing is counted: the sender will wait.
    fn try_post<M: Message>(&self, letter: Letter<M>) -> Result<(), TellError<Letter<M>>>
    where
        B: On<M>,
    {
        let lane = M::CLASS.index();
        let mut inner = self.lock();
        if inner.closed {
            drop(inner);
            self.dead_letter(M::NAME);
            return Err(TellError::Closed(letter));
        }
        if !self.has_room(lane, &inner) || inner.lanes[lane].has_queue() {
            return Err(TellError::Full(letter));
        }
        let wake = self.push(lane, &mut inner, Box::new(letter));
        drop(inner);
        if wake {
            self.wake();
        }
        Ok(())
    }
}

/// A sender that waits for room.
struct Wait<'a, M: Message, B: On<M>> {
    mail: &'a Mail<B>,
    letter: Option<Box<Letter<M>>>,
    ticket: Option<u64>,
}

impl<M: Message, B: On<M>> Future for Wait<'_, M, B> {
    type Output = Result<(), Letter<M>>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        let lane = M::CLASS.index();
        let mut guard = this.mail.lock();
        let inner = &mut *guard;
        let Some(letter) = this.letter.take() else {
            return Poll::Ready(Ok(()));
        };
        if inner.closed {
            this.ticket = None;
            drop(guard);
            this.mail.dead_letter(M::NAME);
            return Poll::Ready(Err(*letter));
        }
        let waiters = &mut inner.lanes[lane].waiters;
        let place = this
            .ticket
            .and_then(|ticket| waiters.iter().position(|waiter| waiter.ticket == ticket));
        let mut wake = false;
        let admitted = match place {
            Some(place) if waiters[place].granted => {
                waiters.remove(place);
                inner.lanes[lane].granted -= 1;
                this.ticket = None;
                true
            }
            Some(place) => {
                waiters[place].waker.clone_from(cx.waker());
                false
            }
            None if !inner.lanes[lane].has_queue() && this.mail.has_room(lane, inner) => true,
            None => {
                let ticket = inner.next_ticket;
                inner.next_ticket += 1;
                this.ticket = Some(ticket);
                inner.lanes[lane].waiters.push_back(Waiter {
                    ticket,
                    waker: cx.waker().clone(),
                    granted: false,
                });
                // A receiver that parked early would not look for waiters when its batch is done.
                wake = std::mem::take(&mut inner.parked);
                false
            }
        };
        if !admitted {
            this.letter = Some(letter);
            drop(guard);
            if wake {
                this.mail.wake();
            }
            return Poll::Pending;
        }
        let wake = this.mail.push(lane, inner, letter);
        drop(guard);
        if wake {
            this.mail.wake();
        }
        Poll::Ready(Ok(()))
    }
}

impl<M: Message, B: On<M>> Drop for Wait<'_, M, B> {
    fn drop(&mut self) {
        let Some(ticket) = self.ticket else {
            return;
        };
        let lane = M::CLASS.index();
        let mut woken = Vec::new();
        let mut guard = self.mail.lock();
        let inner = &mut *guard;
        let waiters = &mut inner.lanes[lane].waiters;
        let place = waiters.iter().position(|waiter| waiter.ticket == ticket);
        if let Some(waiter) = place.and_then(|place| waiters.remove(place))
            && waiter.granted
        {
            inner.lanes[lane].granted -= 1;
            self.mail.grant(lane, inner, &mut woken);
        }
        drop(guard);
        woken.into_iter().for_each(Waker::wake);
    }
}
