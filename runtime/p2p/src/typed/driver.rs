//! The one task of a link: reads, dispatches, answers, writes, keeps time.

mod alarm;
mod dispatch;
mod serving;
mod streams;
mod write;

use std::cell::Cell;
use std::collections::{BTreeMap, VecDeque};
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures::AsyncRead;
use pqcnet_link::{Class, DownReason, Event, Fault, Reason, ServiceId};

use alarm::Alarm;
use serving::Serving;
use streams::Followers;

use super::bindings::Bindings;
use super::inbox::{Arrival, ReliableInbox};
use super::shared::Shared;
use super::{Boxed, Io, LINGER};

/// Bytes asked of the stream at once: one unit of credit, since a payload pins the read it came in.
pub(super) const READ_CHUNK: usize = pqcnet_link::UNIT;
/// Bytes given to the stream at once: one QSTP record.
pub(super) const WRITE_CHUNK: usize = 64 * 1024;
/// Reads between writes: enough to answer many frames with one flush, few enough not to starve the socket's other half.
const READS_A_TURN: usize = 8;
/// Turns before other tasks of the thread have theirs.
const TURNS_A_POLL: usize = 4;

thread_local! {
    /// What this thread's links read into, one after the other: nothing of it is used but what was read just before, and a turn
    /// that reads a frame need not clear 16 KiB for it.
    static CHUNK: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// Tells of one (service, class) that wait for room in a mailbox, in order. Their units bound how many there are.
type Lane = VecDeque<Waiting>;

/// One of them.
struct Waiting {
    /// Puts it in, and says whether it is in.
    posting: Boxed<bool>,
    units: u32,
    /// To be acknowledged then.
    sequenced: Option<(ReliableInbox, Arrival)>,
}

pub(super) struct Driver {
    io: Box<dyn Io>,
    shared: Arc<Shared>,
    bindings: Bindings,
    lanes: BTreeMap<(ServiceId, Class), Lane>,
    serving: Serving,
    /// None before the first: most links have none.
    followers: Option<Box<Followers>>,
    writing: Bytes,
    unflushed: bool,
    write_timeout: Duration,
    /// When what is being written must be down to so many bytes.
    write_deadline: Option<Duration>,
    write_mark: usize,
    alarm: Alarm,
    phase: Phase,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    Running,
    /// Closing in order; at this time it ends even if asks are unanswered.
    Draining {
        until: Duration,
    },
    /// Down: what is left is written, at most until then.
    Parting {
        until: Duration,
    },
    /// All is written; waits for the other side to hang up, at most until then.
    Lingering {
        until: Duration,
    },
}

impl Driver {
    pub(super) fn new(io: Box<dyn Io>, shared: Arc<Shared>, bindings: Bindings) -> Driver {
        let write_timeout = {
            let mut inner = shared.inner.lock();
            for ((service, class), room) in bindings.lanes() {
                let room = u32::try_from(room).unwrap_or(u32::MAX);
                inner.link.open_window(service, class, room);
            }
            inner.link.config().limits.write_timeout
        };
        Driver {
            io,
            shared,
            bindings,
            lanes: BTreeMap::new(),
            serving: Serving::default(),
            followers: None,
            writing: Bytes::new(),
            unflushed: false,
            write_timeout,
            write_deadline: None,
            write_mark: 0,
            alarm: Alarm::default(),
            phase: Phase::Running,
        }
    }

    fn turn(&mut self, cx: &mut Context<'_>) -> Turn {
        // Before anything else: a deadline that is over counts as something done, and the turns would never end.
        if let Phase::Lingering { until } = self.phase
            && until <= self.shared.env().now()
        {
            return Turn::Done;
        }
        let mut busy = self.poll_time(cx);
        busy |= self.poll_close_request();
        busy |= self.poll_read(cx);
        busy |= self.poll_events();
        busy |= self.poll_lanes(cx);
        busy |= self.poll_served(cx);
        busy |= self.poll_watched();
        busy |= self.poll_taps(cx);
        self.poll_left();
        busy |= self.poll_drained();
        match self.poll_write(cx) {
            Poll::Ready(Err(error)) => {
                self.lose(error.kind());
                return Turn::Done;
            }
            Poll::Ready(Ok(wrote)) => busy |= wrote,
            Poll::Pending => {}
        }
        match self.phase {
            _ if busy => Turn::Again,
            Phase::Lingering { .. } => self.poll_linger(cx),
            Phase::Running | Phase::Draining { .. } | Phase::Parting { .. } => Turn::Wait,
        }
    }

    /// Runs what is due and arms the one timer.
    fn poll_time(&mut self, cx: &mut Context<'_>) -> bool {
        let link = self.shared.inner.lock().link.next_deadline();
        let own = match self.phase {
            Phase::Running => self.write_deadline,
            Phase::Draining { until } | Phase::Parting { until } | Phase::Lingering { until } => {
                Some(until)
            }
        };
        let Some(deadline) = link.into_iter().chain(own).min() else {
            self.alarm.clear();
            return false;
        };
        let due = self.alarm.poll(self.shared.env(), deadline, cx).is_ready();
        if due {
            self.on_time(self.shared.env().now());
        }
        due
    }

    fn on_time(&mut self, now: Duration) {
        self.shared.inner.lock().link.on_deadline(now);
        match self.phase {
            Phase::Draining { until } if now >= until => self.finish(),
            Phase::Running if self.write_deadline.is_some_and(|until| now >= until) => {
                self.write_deadline = None;
                self.shared.inner.lock().link.fail(Fault::NotReading);
                // Half a frame is under way, so no Down could be read; and nobody reads.
                self.poll_events();
                self.phase = Phase::Lingering {
                    until: Duration::ZERO,
                };
            }
            Phase::Parting { until } | Phase::Lingering { until } if now >= until => {
                self.phase = Phase::Lingering {
                    until: Duration::ZERO,
                };
            }
            _ => {}
        }
    }

    fn poll_close_request(&mut self) -> bool {
        if self.phase != Phase::Running {
            return false;
        }
        let mut inner = self.shared.inner.lock();
        if inner.closing.is_none() {
            return false;
        }
        inner.link.drain();
        let until = self.shared.env().now() + inner.link.config().limits.drain_timeout;
        drop(inner);
        self.phase = Phase::Draining { until };
        true
    }

    /// A draining link with nothing left to answer or hand over ends.
    fn poll_drained(&mut self) -> bool {
        let draining = matches!(self.phase, Phase::Draining { .. });
        if !draining || self.lanes.values().any(|lane| !lane.is_empty()) {
            return false;
        }
        if self.shared.inner.lock().link.unanswered() > 0 {
            return false;
        }
        self.finish();
        true
    }

    fn finish(&mut self) {
        let mut inner = self.shared.inner.lock();
        let (reason, detail) = inner
            .closing
            .clone()
            .unwrap_or((Reason::Closed, String::new()));
        inner.link.finish(reason, &detail);
        drop(inner);
        self.poll_events();
    }

    fn poll_read(&mut self, cx: &mut Context<'_>) -> bool {
        if matches!(self.phase, Phase::Parting { .. } | Phase::Lingering { .. }) {
            return false;
        }
        let mut chunk = CHUNK.take();
        chunk.resize(READ_CHUNK, 0);
        let read = self.read_into(&mut chunk, cx);
        CHUNK.set(chunk);
        read
    }

    fn read_into(&mut self, chunk: &mut [u8], cx: &mut Context<'_>) -> bool {
        let mut read = false;
        for _ in 0..READS_A_TURN {
            let outcome = match Pin::new(&mut self.io).poll_read(cx, chunk) {
                Poll::Pending => break,
                Poll::Ready(outcome) => outcome,
            };
            read = true;
            let mut inner = self.shared.inner.lock();
            match outcome {
                Ok(0) => inner.link.on_lost(io::ErrorKind::UnexpectedEof),
                Ok(n) => inner.link.on_bytes(self.shared.env().now(), &chunk[..n]),
                Err(error) => inner.link.on_lost(error.kind()),
            }
            let down = inner.link.is_down();
            drop(inner);
            self.poll_events();
            if down {
                break;
            }
        }
        read
    }

    fn poll_events(&mut self) -> bool {
        let mut any = false;
        loop {
            let mut inner = self.shared.inner.lock();
            let Some(event) = inner.link.poll_event() else {
                return any;
            };
            any = true;
            match event {
                Event::Tell(message) => {
                    drop(inner);
                    self.on_tell(message);
                }
                Event::Ask {
                    id,
                    remaining,
                    message,
                } => {
                    drop(inner);
                    self.on_ask(id, remaining, message);
                }
                Event::Cancelled { id } => {
                    drop(inner);
                    self.serving.abort(id);
                }
                Event::Answer { id, answer } => {
                    let sink = inner.sinks.remove(&id);
                    drop(inner);
                    self.on_answer(sink, answer);
                }
                Event::AskUnits(units) => self.shared.ask_units.add_permits(units as usize),
                Event::Credit {
                    service,
                    class,
                    units,
                } => inner.credit(service, class).add_permits(units as usize),
                Event::Down(reason) => {
                    drop(inner);
                    self.on_down(reason);
                }
                Event::Subscribe {
                    id,
                    service,
                    type_id,
                    after,
                } => {
                    drop(inner);
                    self.on_subscribe(id, (service, type_id), after);
                }
                Event::Unsubscribed { id } => {
                    drop(inner);
                    self.on_unsubscribed(id);
                }
                Event::Notice { id, notice } => inner.on_notice(id, notice),
                Event::Watch {
                    id,
                    service,
                    type_id,
                } => {
                    drop(inner);
                    self.on_watch(id, (service, type_id));
                }
                Event::Unwatched { id } => {
                    drop(inner);
                    self.on_unwatched(id);
                }
                Event::Fate { id, fate } => inner.on_fate(id, fate),
                Event::Sequenced {
                    stream,
                    number,
                    life,
                    message,
                } => {
                    drop(inner);
                    self.on_sequenced(stream, number, life, message);
                }
                Event::Ack {
                    stream,
                    state,
                    number,
                    life,
                } => {
                    let sender = inner.senders.get(&stream).cloned();
                    drop(inner);
                    if let Some(sender) = sender
                        && let Err(fault) = sender.on_ack(state, number, life)
                    {
                        self.shared.inner.lock().link.fail(fault);
                    }
                }
                Event::Dropped {
                    service,
                    type_id,
                    why,
                } => {
                    tracing::debug!(%service, type_id, ?why, "the peer dropped a tell");
                }
                // Both came before this task began.
                Event::Hello(_) | Event::Open => {}
            }
        }
    }

    fn on_down(&mut self, reason: DownReason) {
        tracing::debug!(peer = %self.shared.peer().node_id.short(), %reason, "link down");
        let until = self.shared.env().now() + LINGER;
        self.phase = Phase::Parting { until };
        self.lanes.clear();
        self.serving = Serving::default();
        self.followers = None;
        self.shared.go_down(reason);
    }

    fn lose(&mut self, kind: io::ErrorKind) {
        self.shared.inner.lock().link.on_lost(kind);
        self.poll_events();
    }
}

enum Turn {
    Again,
    Wait,
    Done,
}

impl Future for Driver {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        self.shared.register(cx.waker());
        for _ in 0..TURNS_A_POLL {
            match self.turn(cx) {
                Turn::Again => {}
                Turn::Wait => return Poll::Pending,
                Turn::Done => return Poll::Ready(()),
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

impl Drop for Driver {
    /// A task that the runtime dropped takes its link with it.
    fn drop(&mut self) {
        self.shared.go_down(super::DROPPED);
    }
}
