//! Subscriptions, watches and sequenced tells of the peer.

use std::collections::BTreeMap;
use std::collections::HashMap;
use std::task::{Context, Poll, Waker};

use futures::future::{AbortHandle, Abortable};
use futures::stream::{FuturesUnordered, StreamExt as _};
use pqcnet_actor::{Down, DownReason, Incarnation, Watch};
use pqcnet_link::{
    AckState, DroppedWhy, EndedWhy, Fate, Inbound, Missed, Notice, Position, SendError, ServiceId,
};

use super::{Driver, Waiting};
use crate::typed::Boxed;
use crate::typed::access::Denied;
use crate::typed::bindings::Under;
use crate::typed::events::{NoTap, Tap};
use crate::typed::inbox::{Arrival, Outcome, ReliableInbox, gone};

/// Something seen of what the peer watches.
enum Seen {
    Present(u64, Option<Incarnation>, Watch),
    Down(u64, Down),
}

/// What the peer follows: the driver's part of it.
pub(super) struct Followers {
    taps: BTreeMap<u64, Tap>,
    /// Polled when one of them was woken: most never are while the link lasts.
    watched: FuturesUnordered<Abortable<Boxed<Seen>>>,
    changed: Waker,
    aborts: HashMap<u64, AbortHandle>,
}

impl Followers {
    fn follow(&mut self, id: u64, seen: Boxed<Seen>) {
        let (abort, registration) = AbortHandle::new_pair();
        self.aborts.insert(id, abort);
        self.watched.push(Abortable::new(seen, registration));
        self.changed.wake_by_ref();
    }
}

impl Driver {
    #[inline]
    pub(super) fn permitted(&self, access: &crate::typed::Access) -> Result<(), Denied> {
        let role = self.shared.peer().role;
        access.permits(role, || self.shared.env().now())
    }

    fn followers(&mut self) -> &mut Followers {
        let shared = &self.shared;
        self.followers.get_or_insert_with(|| {
            Box::new(Followers {
                taps: BTreeMap::new(),
                watched: FuturesUnordered::new(),
                changed: shared.changed(),
                aborts: HashMap::new(),
            })
        })
    }

    pub(super) fn on_subscribe(
        &mut self,
        id: u64,
        (service, type_id): (ServiceId, u32),
        after: Option<Position>,
    ) {
        let ended = match self.bindings.source(service, type_id) {
            None => Err((EndedWhy::NotServed, String::new())),
            Some((source, access)) => match self.permitted(access) {
                Err(denied) => Err((EndedWhy::Refused, denied.to_string())),
                Ok(()) => source.tap(after).map_err(|error| match error {
                    NoTap::Limit => (EndedWhy::Limit, String::new()),
                    NoTap::BadPosition(bad) => (EndedWhy::BadPosition, bad.to_string()),
                }),
            },
        };
        let mut inner = self.shared.inner.lock();
        match ended {
            Ok(tap) => {
                let (epoch, next) = tap.begin();
                inner.link.begin_subscription(id, epoch, next);
                drop(inner);
                self.followers().taps.insert(id, tap);
            }
            Err((why, detail)) => {
                inner.link.end_subscription(id, why, &detail);
                if why == EndedWhy::Refused {
                    inner.link.penalise();
                }
            }
        }
    }

    pub(super) fn on_unsubscribed(&mut self, id: u64) {
        if let Some(followers) = &mut self.followers {
            followers.taps.remove(&id);
        }
    }

    /// Sends subscribers what there is for them, as far as their windows reach.
    pub(super) fn poll_taps(&mut self, cx: &Context<'_>) -> bool {
        let Some(followers) = &mut self.followers else {
            return false;
        };
        let mut any = false;
        followers.taps.retain(|id, tap| {
            while let Some(notice) = tap.peek(cx.waker()) {
                let link = &mut self.shared.inner.lock().link;
                let sent = match link.send_notice(*id, &notice) {
                    // No frame of the peer's holds it: it is missed, and said to be.
                    Err(SendError::TooLarge) => link.send_notice(*id, &gap_for(&notice)),
                    sent => sent,
                };
                match sent {
                    Ok(()) => {
                        any = true;
                        tap.advance(&notice);
                    }
                    Err(SendError::NoCredit | SendError::OutboundFull) => return true,
                    Err(_) => return false,
                }
            }
            true
        });
        any
    }

    pub(super) fn on_watch(&mut self, id: u64, (service, type_id): (ServiceId, u32)) {
        let bound = self.bindings.find(service, type_id);
        let permitted = bound.map(|bound| self.permitted(&bound.access));
        match (bound, permitted) {
            (Some(bound), Some(Ok(()))) => {
                let mut watch = bound.handler.watch();
                let seen = async move {
                    let present = watch.incarnation().await;
                    Seen::Present(id, present, watch)
                };
                self.followers().follow(id, Box::pin(seen));
            }
            (_, denied) => {
                let mut inner = self.shared.inner.lock();
                inner.link.send_fate(id, Fate::NotWatched);
                if denied.is_some() {
                    inner.link.penalise();
                }
            }
        }
    }

    pub(super) fn on_unwatched(&mut self, id: u64) {
        let aborts = self
            .followers
            .as_mut()
            .map(|followers| &mut followers.aborts);
        if let Some(abort) = aborts.and_then(|aborts| aborts.remove(&id)) {
            abort.abort();
        }
    }

    pub(super) fn poll_watched(&mut self) -> bool {
        let Some(followers) = &mut self.followers else {
            return false;
        };
        if !self.shared.take_somebody_changed() {
            return false;
        }
        let mut any = false;
        let changed = followers.changed.clone();
        let mut cx = Context::from_waker(&changed);
        while let Poll::Ready(Some(done)) = followers.watched.poll_next_unpin(&mut cx) {
            any = true;
            // An aborted one interests nobody.
            let Ok(seen) = done else { continue };
            let (id, fate) = match seen {
                Seen::Present(id, present, watch) => {
                    let down = async move { Seen::Down(id, watch.await) };
                    followers.follow(id, Box::pin(down));
                    let Some(present) = present else { continue };
                    (id, Fate::Present(present.number()))
                }
                Seen::Down(id, down) => {
                    followers.aborts.remove(&id);
                    (id, fate_of(&down))
                }
            };
            self.shared.inner.lock().link.send_fate(id, fate);
        }
        any
    }

    pub(super) fn on_sequenced(&mut self, stream: u64, number: u64, life: u64, message: Inbound) {
        let lane = (message.service, message.class);
        let units = message.units;
        let peer = self.shared.peer().node_id;
        let refuse = |why: String| (AckState::Refused(why), 0, 0);
        let Some(bound) = self.bindings.find(message.service, message.type_id) else {
            return self.acknowledge(stream, refuse("not served".to_owned()), lane, units);
        };
        if let Err(denied) = self.permitted(&bound.access) {
            self.acknowledge(stream, refuse(denied.to_string()), lane, units);
            return self.shared.inner.lock().link.penalise();
        }
        let Some((inbox, link)) = bound.inbox.as_deref() else {
            return self.acknowledge(
                stream,
                refuse("not taken in sequence".to_owned()),
                lane,
                units,
            );
        };
        let name = bound.handler.name();
        if bound.handler.class() != message.class {
            return self.fail(name, super::dispatch::WRONG_CLASS);
        }
        let waiting = self.lanes.get(&lane).is_some_and(|lane| !lane.is_empty());
        let arrival = Arrival {
            link: *link,
            peer,
            stream,
            number,
        };
        let under = Under {
            trace: message.trace,
            incarnation: 0,
        };
        let tell = || bound.handler.tell(message.payload, under, waiting);
        match inbox.arrived(arrival, life, tell) {
            Ok(Outcome::Say(state, number)) => {
                let said = (state, number, inbox.life());
                self.acknowledge(stream, said, lane, units);
            }
            Ok(Outcome::Parked(posting)) => {
                let sequenced = Some((inbox.clone(), arrival));
                self.lanes.entry(lane).or_default().push_back(Waiting {
                    posting,
                    units,
                    sequenced,
                });
            }
            Err(problem) => self.fail(name, problem),
        }
    }

    fn acknowledge(
        &self,
        stream: u64,
        (state, number, life): (AckState, u64, u64),
        (service, class): (ServiceId, pqcnet_link::Class),
        units: u32,
    ) {
        let link = &mut self.shared.inner.lock().link;
        link.send_ack(stream, state, number, life);
        link.grant(service, class, units);
    }

    /// A sequenced tell that waited is in its mailbox, or never will be.
    pub(super) fn settled(&self, inbox: &ReliableInbox, arrival: Arrival, taken: bool) {
        let Arrival { stream, number, .. } = arrival;
        let (state, number) = match taken {
            true => (AckState::Taken, number),
            false if inbox.has(arrival) => (gone(), number - 1),
            // A later link has the stream, and will say what became of it.
            false => return,
        };
        let life = inbox.life();
        let link = &mut self.shared.inner.lock().link;
        link.send_ack(stream, state, number, life);
    }

    /// Says that a tell was not taken.
    pub(super) fn dropped(&self, message: (ServiceId, u32), why: DroppedWhy) {
        let (service, type_id) = message;
        let link = &mut self.shared.inner.lock().link;
        link.send_dropped(service, type_id, why);
        if why == DroppedWhy::Refused {
            link.penalise();
        }
    }
}

fn gap_for(notice: &Notice) -> Notice {
    match notice {
        Notice::Item { position, .. } => Notice::Missed(Missed {
            epoch: position.epoch,
            first: position.number,
            last: Some(position.number),
        }),
        Notice::Missed(missed) => Notice::Missed(*missed),
    }
}

fn fate_of(down: &Down) -> Fate {
    let incarnation = down.incarnation.map_or(0, Incarnation::number);
    match down.reason {
        DownReason::Stopped => Fate::Stopped(incarnation),
        DownReason::Panicked => Fate::Panicked(incarnation),
        DownReason::Killed => Fate::Killed(incarnation),
        // Not watched here either, or at a third node behind a link that is gone.
        _ => Fate::NotWatched,
    }
}
