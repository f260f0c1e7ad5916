//! What happens to connections when their time has come.

use std::cmp::Ordering;
use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use pqcnet_actor::hosted;

use super::conns::{End, Item};
use super::engine::{SYN_RETRIES, State, ns};
use super::mailbox::{Arrival, WAITING};
use super::parcel::Parcel;
use crate::world::{EventKind, NodeNo};

/// Something that is to happen. Ordered by time, then by when it was put in.
pub(super) struct Event {
    pub(super) at: u64,
    pub(super) number: u64,
    pub(super) what: What,
}

/// What.
pub(super) enum What {
    /// A connection's first packet reaches its listener.
    Syn { conn: u64 },
    /// Its answer reaches the dialler.
    Answered { conn: u64 },
    /// The dialler has waited for it long enough.
    SynAgain { conn: u64, attempt: u32 },
    /// Something arrives in order at one end's node.
    Item { conn: u64, to: End, item: Item },
    /// And has come in over its own line.
    In { conn: u64, to: End, item: Item },
    /// What a cut path has held up is sent again.
    Again { conn: u64, to: End, attempt: u32 },
    /// And arrives.
    Recovered {
        conn: u64,
        to: End,
        items: VecDeque<Item>,
    },
    /// One end hears that the other has nothing of this connection.
    Reset { conn: u64, to: End },
    /// A datagram arrives.
    Datagram {
        from: (NodeNo, u16),
        to: (NodeNo, u16),
        bytes: Bytes,
        /// It has come in over the node's own line.
        inside: bool,
    },
    /// The world's own.
    Call(Box<dyn FnOnce() + Send>),
}

impl PartialEq for Event {
    fn eq(&self, other: &Self) -> bool {
        (self.at, self.number) == (other.at, other.number)
    }
}
impl Eq for Event {}
impl PartialOrd for Event {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Event {
    fn cmp(&self, other: &Self) -> Ordering {
        (self.at, self.number).cmp(&(other.at, other.number))
    }
}

/// First pause before a held-up segment is sent again; doubles up to [`AGAIN_AT_MOST`].
const AGAIN_AFTER: Duration = Duration::from_millis(200);
/// Linux's TCP_RTO_MAX is 120 s; half of it, since nodes give a silent link up long before.
const AGAIN_AT_MOST: Duration = Duration::from_secs(60);
/// 0.2 s doubling to a minute, then each minute: a quarter of an hour, as `tcp_retries2` has it.
const AGAIN_TIMES: u32 = 22;

fn again_after(attempt: u32) -> Duration {
    AGAIN_AFTER
        .saturating_mul(1 << attempt.min(16))
        .min(AGAIN_AT_MOST)
}

impl State {
    fn ends(&mut self, conn: u64) -> Option<(NodeNo, NodeNo)> {
        let conn = self.conns.get(conn)?;
        Some((conn.dialler.node, conn.listener.node))
    }

    /// Nothing gets from one machine to the other.
    fn is_blocked(&self, from: NodeNo, to: NodeNo) -> bool {
        !self.hosts[to.index()].up || self.cuts.between(from, to)
    }

    fn note(&self, now: u64, at: NodeNo, from: NodeNo, what: &'static str, bytes: &[u8]) {
        let digest = hosted::fold(hosted::digest(bytes), self.ledger.name_hash(from));
        let now = Duration::from_nanos(now);
        self.ledger.record(
            EventKind::Network,
            now,
            at,
            "net",
            what,
            bytes.len(),
            digest,
        );
    }

    pub(super) fn send_syn(&mut self, now: u64, conn: u64, attempt: u32) {
        let Some((from, to)) = self.ends(conn) else {
            return;
        };
        self.note_sent(now, from, to);
        let at = self.segment(now, from, to, 0);
        self.push(at, What::Syn { conn });
        let pause = ns(Duration::from_secs(1).saturating_mul(1 << attempt.min(8)));
        let what = What::SynAgain { conn, attempt };
        self.push(now.saturating_add(pause), what);
    }

    /// Sends something in order from one end to the other.
    pub(super) fn transmit(&mut self, now: u64, number: u64, from: End, item: Item) {
        let Some(conn) = self.conns.get(number) else {
            return;
        };
        let to = from.other();
        let (sender, receiver) = (conn.side(from).node, conn.side(to).node);
        let link = conn.side(from).link;
        let bytes = item.bytes();
        self.note_sent(now, sender, receiver);
        let link = link.unwrap_or_else(|| self.link_number(sender, receiver));
        let arrives = self.segment_over(now, (sender, receiver), link, bytes);
        let Some(conn) = self.conns.get(number) else {
            return;
        };
        conn.side(from).link = Some(link);
        let side = conn.side(to);
        let at = arrives.max(side.last_arrival);
        side.last_arrival = at;
        let conn = number;
        self.push(at, What::Item { conn, to, item });
    }

    /// Tells one end that the other is not there.
    pub(super) fn reset(&mut self, now: u64, number: u64, to: End) {
        let Some(conn) = self.conns.get(number) else {
            return;
        };
        let (sender, receiver) = (conn.side(to.other()).node, conn.side(to).node);
        let at = self.segment(now, sender, receiver, 0);
        self.push(at, What::Reset { conn: number, to });
    }

    /// A node's process, or its machine, has lost its end.
    pub(super) fn abandon(&mut self, now: u64, number: u64, node: NodeNo, tells: bool) {
        let Some(conn) = self.conns.get(number) else {
            return;
        };
        for end in [End::Dialler, End::Listener] {
            let side = conn.side(end);
            if side.node != node || !(side.held || side.open) {
                continue;
            }
            side.held = false;
            side.open = false;
            side.inbox.clear();
            side.awaited = false;
            side.error = Some(io::ErrorKind::ConnectionReset);
            if tells {
                self.reset(now, number, end.other());
            }
            break;
        }
        self.hosts[node.index()].conns.remove(&number);
        self.sweep(number);
    }

    /// Forgets a connection that nobody holds.
    pub(super) fn sweep(&mut self, number: u64) {
        if !self.conns.get(number).is_some_and(|conn| conn.is_over()) {
            return;
        }
        if let Some(conn) = self.conns.remove(number) {
            for node in [conn.dialler.node, conn.listener.node] {
                self.hosts[node.index()].conns.remove(&number);
            }
        }
    }

    /// One delivery, due at `at` and made now.
    pub(super) fn happen(&mut self, now: u64, at: u64, what: What) {
        match what {
            What::Syn { conn } => self.on_syn(now, conn),
            What::Answered { conn } => self.on_answered(now, conn),
            What::SynAgain { conn, attempt } => self.on_syn_again(now, conn, attempt),
            What::Item { conn, to, item } => self.on_line(now, at, conn, to, item),
            What::In { conn, to, item } => self.on_item(now, conn, to, item),
            What::Again { conn, to, attempt } => self.on_again(now, conn, to, attempt),
            What::Recovered { conn, to, items } => self.on_recovered(now, conn, to, items),
            What::Reset { conn, to } => self.on_reset(now, conn, to),
            What::Datagram {
                from,
                to,
                bytes,
                inside: true,
            } => self.on_datagram(now, from, to, bytes),
            What::Datagram {
                from, to, bytes, ..
            } => match self.come_in(at, to.0, bytes.len(), true) {
                Some(passed) if passed == at => self.on_datagram(now, from, to, bytes),
                Some(passed) => {
                    let inside = true;
                    let what = What::Datagram {
                        from,
                        to,
                        bytes,
                        inside,
                    };
                    self.push(passed, what);
                }
                None => self.counts.lost += 1,
            },
            What::Call(then) => then(),
        }
    }

    fn on_syn(&mut self, now: u64, number: u64) {
        let Some((from, to)) = self.ends(number) else {
            return;
        };
        let (at, blocked) = (Duration::from_nanos(now), self.is_blocked(from, to));
        let Some(conn) = self.conns.get(number) else {
            return;
        };
        if blocked || conn.listener.open {
            return;
        }
        let port = conn.listener.port;
        let host = &self.hosts[to.index()];
        if !host.lets_in(from, at) {
            self.counts.turned_away += 1;
            return;
        }
        let Some(&listener) = host.listeners.get(&port) else {
            return self.reset(now, number, End::Dialler);
        };
        if self.backlog_full(listener) {
            return;
        }
        if let Some(conn) = self.conns.get(number) {
            conn.listener.open = true;
        }
        self.hosts[to.index()].conns.insert(number);
        let arrives = self.segment(now, to, from, 0);
        self.push(arrives, What::Answered { conn: number });
    }

    fn on_answered(&mut self, now: u64, number: u64) {
        let Some((from, to)) = self.ends(number) else {
            return;
        };
        if self.is_blocked(to, from) {
            // The next SYN is answered again.
            if let Some(conn) = self.conns.get(number) {
                conn.listener.open = false;
            }
            return;
        }
        self.note(now, from, to, "answered", &[]);
        let Some(conn) = self.conns.get(number) else {
            return;
        };
        if !conn.dialler.held || conn.dialler.open {
            return;
        }
        conn.dialler.open = true;
        conn.listener.awaited = true;
        conn.dialler.rouse(&mut self.woken);
        self.transmit(now, number, End::Dialler, Item::Open);
    }

    fn on_syn_again(&mut self, now: u64, number: u64, attempt: u32) {
        let Some(conn) = self.conns.get(number) else {
            return;
        };
        let side = &mut conn.dialler;
        if side.open || side.error.is_some() {
            return;
        }
        if attempt >= SYN_RETRIES {
            side.fail(io::ErrorKind::TimedOut, &mut self.woken);
            return;
        }
        self.send_syn(now, number, attempt + 1);
    }

    /// Something is at the far end of its receiver's own line.
    fn on_line(&mut self, now: u64, at: u64, conn: u64, to: End, item: Item) {
        let Some(known) = self.conns.get(conn) else {
            return;
        };
        let receiver = known.side(to).node;
        match self.come_in(at, receiver, item.bytes(), false) {
            Some(passed) if passed > at => self.push(passed, What::In { conn, to, item }),
            Some(_) | None => self.on_item(now, conn, to, item),
        }
    }

    fn on_item(&mut self, now: u64, number: u64, to: End, item: Item) {
        let Some((dialler, listener)) = self.ends(number) else {
            return;
        };
        let (sender, receiver) = match to {
            End::Dialler => (listener, dialler),
            End::Listener => (dialler, listener),
        };
        let blocked = self.is_blocked(sender, receiver);
        let Some(conn) = self.conns.get(number) else {
            return;
        };
        let side = conn.side(to);
        if blocked || side.recovering {
            self.counts.held_up += 1;
            side.held_up.push_back(item);
            if !std::mem::replace(&mut side.recovering, true) {
                let at = now.saturating_add(ns(again_after(0)));
                let (conn, attempt) = (number, 1);
                self.push(at, What::Again { conn, to, attempt });
            }
            return;
        }
        self.arrive(now, number, to, item);
    }

    fn on_again(&mut self, now: u64, number: u64, to: End, attempt: u32) {
        let Some(conn) = self.conns.get(number) else {
            return;
        };
        let (sender, receiver) = (conn.side(to.other()).node, conn.side(to).node);
        if !conn.side(to.other()).held && !conn.side(to.other()).fin_sent {
            return;
        }
        if self.is_blocked(sender, receiver) || !self.hosts[sender.index()].up {
            if attempt >= AGAIN_TIMES {
                if let Some(conn) = self.conns.get(number) {
                    let side = conn.side(to.other());
                    side.fail(io::ErrorKind::TimedOut, &mut self.woken);
                    conn.listener.awaited = false;
                }
                return self.sweep(number);
            }
            let at = now.saturating_add(ns(again_after(attempt)));
            let (conn, attempt) = (number, attempt + 1);
            return self.push(at, What::Again { conn, to, attempt });
        }
        let Some(conn) = self.conns.get(number) else {
            return;
        };
        let items = std::mem::take(&mut conn.side(to).held_up);
        let bytes = items.iter().map(Item::bytes).sum();
        let at = self.segment(now, sender, receiver, bytes);
        let conn = number;
        self.push(at, What::Recovered { conn, to, items });
    }

    fn on_recovered(&mut self, now: u64, number: u64, to: End, items: VecDeque<Item>) {
        let Some((dialler, listener)) = self.ends(number) else {
            return;
        };
        let (sender, receiver) = match to {
            End::Dialler => (listener, dialler),
            End::Listener => (dialler, listener),
        };
        let blocked = self.is_blocked(sender, receiver);
        let Some(conn) = self.conns.get(number) else {
            return;
        };
        let side = conn.side(to);
        let later = std::mem::take(&mut side.held_up);
        if blocked {
            side.held_up = items.into_iter().chain(later).collect();
            let at = now.saturating_add(ns(again_after(0)));
            let (conn, attempt) = (number, 1);
            return self.push(at, What::Again { conn, to, attempt });
        }
        side.recovering = false;
        for item in items.into_iter().chain(later) {
            self.arrive(now, number, to, item);
        }
    }

    /// Something has come through.
    fn arrive(&mut self, now: u64, number: u64, to: End, item: Item) {
        let Some(conn) = self.conns.get(number) else {
            return;
        };
        let (sender, receiver) = (conn.side(to.other()).node, conn.side(to).node);
        let here = conn.side(to);
        let gone = !here.open || (!here.held && !matches!(item, Item::Open));
        if gone {
            here.awaited = false;
            if here.error.is_some() || !matches!(item, Item::Fin) {
                self.reset(now, number, to.other());
            }
            return self.sweep(number);
        }
        match item {
            Item::Open => self.accept(now, number),
            Item::Data(bytes) => {
                self.counts.segments += 1;
                self.counts.stream_bytes += u64::try_from(bytes.len()).unwrap_or(u64::MAX);
                self.note(now, receiver, sender, "data", &bytes);
                if let Some(conn) = self.conns.get(number) {
                    let side = conn.side(to);
                    side.inbox.push_back(bytes);
                    self.woken.extend(side.reader.take());
                }
            }
            Item::Fin => {
                self.note(now, receiver, sender, "end", &[]);
                if let Some(conn) = self.conns.get(number) {
                    let side = conn.side(to);
                    side.eof = true;
                    self.woken.extend(side.reader.take());
                    self.woken.extend(side.taker.closed(None));
                }
            }
            Item::Parcel(parcel) => {
                let Parcel {
                    bytes,
                    what,
                    digest,
                    body,
                } = parcel;
                let from = self.ledger.name_hash(sender);
                let (at, digest) = (Duration::from_nanos(now), hosted::fold(digest, from));
                (self.ledger).record(EventKind::Network, at, receiver, "net", what, bytes, digest);
                if let Some(conn) = self.conns.get(number) {
                    self.woken.extend(conn.side(to).taker.take(body));
                }
            }
        }
    }

    fn accept(&mut self, now: u64, number: u64) {
        let Some((from, to)) = self.ends(number) else {
            return;
        };
        let Some(conn) = self.conns.get(number) else {
            return;
        };
        let (port, from_port) = (conn.listener.port, conn.dialler.port);
        let listener = self.hosts[to.index()].listeners.get(&port).copied();
        let listening = listener.and_then(|number| self.listeners.get_mut(&number));
        let Some(listening) = listening else {
            if let Some(conn) = self.conns.get(number) {
                conn.listener.awaited = false;
            }
            self.reset(now, number, End::Dialler);
            return self.sweep(number);
        };
        let from_ip = self.hosts[from.index()].ip;
        let from_at = SocketAddr::new(from_ip, from_port);
        listening.queue.push_back((number, from_at));
        self.woken.extend(listening.waiting.take());
        if let Some(conn) = self.conns.get(number) {
            conn.listener.held = true;
            conn.listener.awaited = false;
        }
        self.note(now, to, from, "opened", &[]);
    }

    fn on_reset(&mut self, now: u64, number: u64, to: End) {
        let Some((dialler, listener)) = self.ends(number) else {
            return;
        };
        let (sender, receiver) = match to {
            End::Dialler => (listener, dialler),
            End::Listener => (dialler, listener),
        };
        if self.is_blocked(sender, receiver) {
            // Lost; whoever sends again is told again.
            return;
        }
        self.note(now, receiver, sender, "reset", &[]);
        let Some(conn) = self.conns.get(number) else {
            return;
        };
        let side = conn.side(to);
        let error = if side.open {
            io::ErrorKind::ConnectionReset
        } else {
            io::ErrorKind::ConnectionRefused
        };
        side.open = false;
        side.fail(error, &mut self.woken);
    }

    fn on_datagram(&mut self, now: u64, from: (NodeNo, u16), to: (NodeNo, u16), bytes: Bytes) {
        let ((sender, from_port), (receiver, port)) = (from, to);
        let at = Duration::from_nanos(now);
        let host = &self.hosts[receiver.index()];
        let let_in = host.lets_in(sender, at);
        self.counts.turned_away += u64::from(!let_in);
        let open = host.mailboxes.get(&port);
        let open = open.filter(|_| let_in).copied();
        let passes = !self.is_blocked(sender, receiver);
        let from_ip = self.hosts[sender.index()].ip;
        let open = open.and_then(|number| self.mailboxes.get_mut(&number));
        match open {
            Some(open) if passes && open.queue.len() < WAITING => {
                open.queue.push_back(Arrival {
                    from: SocketAddr::new(from_ip, from_port),
                    bytes: bytes.clone(),
                });
                self.woken.extend(open.reader.take());
                self.counts.datagrams += 1;
                self.note(now, receiver, sender, "datagram", &bytes);
            }
            Some(_) | None => self.counts.lost += 1,
        }
    }
}
