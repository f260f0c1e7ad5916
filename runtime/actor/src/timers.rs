//! An actor's timers and alarms: one heap and one sleep, whatever their number.
//!
//! Due ones are fired by the pump itself, before messages, so a flooded mailbox cannot starve them.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use crate::cx::Cx;
use crate::message::Behaviour;
use crate::trace::TraceCx;

/// Names a timer of one actor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TimerId(pub(crate) u64);

type Once<B> = Box<dyn FnOnce(&mut B, &mut Cx<B>)>;
type Each<B> = Box<dyn FnMut(&mut B, &mut Cx<B>)>;

pub(crate) enum Call<B: Behaviour> {
    Once(Once<B>),
    Every(Duration, Each<B>),
}

pub(crate) struct Timer<B: Behaviour> {
    /// When, then in the order of making.
    key: Reverse<(Duration, u64)>,
    pub(crate) trace: TraceCx,
    pub(crate) call: Call<B>,
}

impl<B: Behaviour> Timer<B> {
    pub(crate) fn at(&self) -> Duration {
        self.key.0.0
    }
}

impl<B: Behaviour> PartialEq for Timer<B> {
    fn eq(&self, other: &Self) -> bool {
        self.key == other.key
    }
}
impl<B: Behaviour> Eq for Timer<B> {}
impl<B: Behaviour> PartialOrd for Timer<B> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl<B: Behaviour> Ord for Timer<B> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.key.cmp(&other.key)
    }
}

type AlarmCall<B> = fn(&mut B, &mut Cx<B>);

struct AlarmSlot<B: Behaviour> {
    due: Option<Duration>,
    call: AlarmCall<B>,
}

/// What is due.
pub(crate) enum Due<B: Behaviour> {
    Timer(TimerId, Timer<B>),
    Alarm(AlarmCall<B>),
}

pub(crate) struct Timers<B: Behaviour> {
    heap: BinaryHeap<Timer<B>>,
    alarms: Vec<AlarmSlot<B>>,
    next_id: u64,
}

impl<B: Behaviour> Timers<B> {
    pub(crate) const fn new() -> Self {
        Timers {
            heap: BinaryHeap::new(),
            alarms: Vec::new(),
            next_id: 0,
        }
    }

    pub(crate) fn add(&mut self, at: Duration, trace: TraceCx, call: Call<B>) -> TimerId {
        let id = self.next_id;
        self.next_id += 1;
        self.heap.push(Timer {
            key: Reverse((at, id)),
            trace,
            call,
        });
        TimerId(id)
    }

    /// Puts an interval back under its old name.
    pub(crate) fn again(&mut self, id: TimerId, at: Duration, trace: TraceCx, call: Call<B>) {
        self.heap.push(Timer {
            key: Reverse((at, id.0)),
            trace,
            call,
        });
    }

    pub(crate) fn cancel(&mut self, id: TimerId) -> bool {
        let before = self.heap.len();
        self.heap.retain(|timer| timer.key.0.1 != id.0);
        self.heap.len() != before
    }

    pub(crate) fn next_due(&self) -> Option<Duration> {
        let timer = self.heap.peek().map(Timer::at);
        let alarms = self.alarms.iter().filter_map(|alarm| alarm.due);
        alarms.chain(timer).min()
    }

    /// Takes the earliest that is due, an alarm before a timer of the same moment.
    pub(crate) fn pop_due(&mut self, now: Duration) -> Option<Due<B>> {
        let due = self.next_due().filter(|due| *due <= now)?;
        if let Some(alarm) = self.alarms.iter_mut().find(|alarm| alarm.due == Some(due)) {
            alarm.due = None;
            return Some(Due::Alarm(alarm.call));
        }
        let timer = self.heap.pop()?;
        Some(Due::Timer(TimerId(timer.key.0.1), timer))
    }

    pub(crate) fn len(&self) -> usize {
        let alarms = self.alarms.iter().filter(|alarm| alarm.due.is_some());
        self.heap.len() + alarms.count()
    }
}

/// One timer that is moved often: setting it costs a store.
///
/// It belongs to the actor's state and calls a plain function, typically the actor's `drive`.
pub struct Alarm<B: Behaviour> {
    slot: Option<usize>,
    call: AlarmCall<B>,
}

impl<B: Behaviour> Alarm<B> {
    /// An alarm that is off.
    pub const fn new(call: fn(&mut B, &mut Cx<B>)) -> Self {
        Alarm { slot: None, call }
    }

    /// Sets it to go off once at `due`, a time as [`Cx::now`] gives it, or turns it off. A time in the past goes off
    /// right after this handler.
    pub fn set(&mut self, cx: &mut Cx<B>, due: Option<Duration>) {
        let alarms = &mut cx.timers_mut().alarms;
        match self.slot {
            Some(slot) => alarms[slot].due = due,
            None if due.is_none() => {}
            None => {
                self.slot = Some(alarms.len());
                if alarms.is_empty() {
                    // Many actors have one, and there are many of them: no room for four.
                    alarms.reserve_exact(1);
                }
                alarms.push(AlarmSlot {
                    due,
                    call: self.call,
                });
            }
        }
    }
}
