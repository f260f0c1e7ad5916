//! The one heap, and everything that puts something into it.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::future::poll_fn;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::sync::Arc;
use std::task::{Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::{Mutex, MutexGuard};
use pqcnet_actor::{Env, StreamRng};
use pqcnet_p2p::network::Address;

use super::conns::{Conn, Conns, End, Item, Side};
use super::deliver::{Event, What};
use super::host::{self, Access, Cut, Cuts, Host, Nat};
use super::link::{Bandwidth, Link, LinkModel, Site};
use super::mailbox::{self, Mailbox};
use super::stream::SimStream;
use super::streams::{Listening, SimListener};
use crate::world::{Ledger, NodeName, NodeNo};

mod transit;

/// A SYN that is not answered is sent again after 1, 2, 4, ... s, so often (Linux's `tcp_syn_retries`).
pub(super) const SYN_RETRIES: u32 = 6;
/// Half of the clock's grain: a delivery is made at the nearest tick.
const HALF_TICK_NS: u64 = 500_000;
/// The clock's grain.
const TICK_NS: u64 = 1_000_000;

/// Counts since the world began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NetCounts {
    /// Segments of streams that arrived.
    pub segments: u64,
    /// Their bytes.
    pub stream_bytes: u64,
    /// Segments that met a cut path.
    pub held_up: u64,
    /// Datagrams that arrived.
    pub datagrams: u64,
    /// Datagrams that did not.
    pub lost: u64,
    /// Dials and datagrams that a NAT did not let in.
    pub turned_away: u64,
    /// Connections that stand or are being made.
    pub connections: u64,
}

/// The network of one world. Cheap to clone.
#[derive(Clone)]
pub struct Net(Arc<Shared>);

struct Shared {
    clock: Env,
    ledger: Arc<Ledger>,
    state: Mutex<State>,
}

/// One direction between two nodes, by the order of their first word.
#[derive(Clone, Copy, Debug)]
pub(super) struct LinkNo(u32);

pub(super) struct LinkState {
    pub(super) link: Link,
    rng: Option<StreamRng>,
    /// The last byte that waits leaves then, ns.
    busy_until: u64,
}

pub(super) struct State {
    pub(super) seed: u64,
    pub(super) ledger: Arc<Ledger>,
    pub(super) sites: Vec<Site>,
    pub(super) hosts: Vec<Host>,
    by_ip: BTreeMap<IpAddr, NodeNo>,
    by_name: BTreeMap<String, NodeNo>,
    model: Box<dyn LinkModel>,
    /// By sender and receiver; the links themselves lie together.
    link_numbers: Vec<BTreeMap<NodeNo, LinkNo>>,
    links: Vec<LinkState>,
    pub(super) cuts: Cuts,
    pub(super) heap: BinaryHeap<Reverse<Event>>,
    last_event: u64,
    pub(super) conns: Conns,
    pub(super) listeners: BTreeMap<u64, Listening>,
    pub(super) mailboxes: BTreeMap<u64, mailbox::Box>,
    last_number: u64,
    pub(super) counts: NetCounts,
    /// To be woken once the lock is free.
    pub(super) woken: Vec<Waker>,
    pump: Option<Waker>,
    /// The tick that the pump waits for.
    armed: u64,
}

/// The tick at which something due at `at` is delivered.
fn tick_of(at: u64) -> u64 {
    at.saturating_add(HALF_TICK_NS) / TICK_NS
}

pub(super) fn ns(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

impl Net {
    pub(crate) fn new(
        clock: Env,
        seed: u64,
        model: Box<dyn LinkModel>,
        ledger: Arc<Ledger>,
    ) -> Net {
        Net(Arc::new(Shared {
            clock,
            ledger: ledger.clone(),
            state: Mutex::new(State {
                seed,
                ledger,
                sites: Vec::new(),
                hosts: Vec::new(),
                by_ip: BTreeMap::new(),
                by_name: BTreeMap::new(),
                model,
                link_numbers: Vec::new(),
                links: Vec::new(),
                cuts: Cuts::default(),
                heap: BinaryHeap::new(),
                last_event: 0,
                conns: Conns::default(),
                listeners: BTreeMap::new(),
                mailboxes: BTreeMap::new(),
                last_number: 0,
                counts: NetCounts::default(),
                woken: Vec::new(),
                pump: None,
                armed: u64::MAX,
            }),
        }))
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock()
    }

    pub(super) fn now_ns(&self) -> u64 {
        ns(self.0.clock.now())
    }

    /// Ends a change: whoever it concerns is woken, and the pump if something is due sooner than it thought.
    pub(super) fn rearm(&self, mut state: MutexGuard<'_, State>) {
        let next = state.next_tick();
        let sooner = next < state.armed;
        let pump = if sooner { state.pump.take() } else { None };
        if state.woken.is_empty() {
            drop(state);
        } else {
            let woken = std::mem::take(&mut state.woken);
            drop(state);
            woken.into_iter().for_each(Waker::wake);
        }
        if let Some(pump) = pump {
            pump.wake();
        }
    }

    // ---- the world's side ----

    pub(crate) fn add(&self, name: NodeName, place: String, nat: Nat) -> NodeNo {
        let mut state = self.lock();
        let node = NodeNo(u32::try_from(state.hosts.len()).unwrap_or(u32::MAX));
        let host = Host::new(node, nat);
        state.by_ip.insert(host.ip, node);
        state.by_name.insert(name.to_string(), node);
        state.hosts.push(host);
        state.sites.push(Site { node, name, place });
        state.link_numbers.push(BTreeMap::new());
        node
    }

    /// A node's machine runs from now on.
    pub(crate) fn switch_on(&self, node: NodeNo) {
        self.lock().hosts[node.index()].up = true;
    }

    /// All that a node had open is gone. Its peers hear of it if its machine still runs.
    pub(crate) fn process_ended(&self, node: NodeNo, machine_runs: bool) {
        let mut state = self.lock();
        let host = &mut state.hosts[node.index()];
        host.up = machine_runs;
        let listeners: Vec<u64> = host.listeners.values().copied().collect();
        let mailboxes: Vec<u64> = host.mailboxes.values().copied().collect();
        let conns = std::mem::take(&mut host.conns);
        host.forget();
        for number in listeners {
            state.listeners.remove(&number);
        }
        for number in mailboxes {
            if let Some(mut open) = state.mailboxes.remove(&number) {
                state.woken.extend(open.reader.take());
            }
        }
        let now = self.now_ns();
        for number in conns {
            state.abandon(now, number, node, machine_runs);
        }
        self.rearm(state);
    }

    /// Cuts paths until [`Net::heal`] is given the number returned.
    pub fn cut(&self, cut: Cut) -> u64 {
        self.lock().cuts.add(cut)
    }

    /// Ends a cut; false if there is none of this number.
    pub fn heal(&self, number: u64) -> bool {
        self.lock().cuts.remove(number)
    }

    /// Whether nothing passes from one node to another now.
    pub fn is_cut(&self, from: NodeNo, to: NodeNo) -> bool {
        self.lock().cuts.between(from, to)
    }

    /// From now on the link from one node to another is this; `None`: what the model says.
    pub fn set_link(&self, from: NodeNo, to: NodeNo, link: Option<Link>) {
        let mut state = self.lock();
        let link = link.unwrap_or_else(|| state.modelled(from, to));
        state.link(from, to).link = link;
    }

    /// The link from one node to another, as it is now.
    pub fn link(&self, from: NodeNo, to: NodeNo) -> Link {
        self.lock().link(from, to).link
    }

    /// From now on everything to and from a node takes so much longer.
    pub fn slow_down(&self, node: NodeNo, by: Duration) {
        self.lock().hosts[node.index()].slower = by;
    }

    /// From now on everything that a node sends and gets goes over one line of its own, beside the links; `None`: as fast as
    /// those are.
    pub fn set_access(&self, node: NodeNo, line: Option<Bandwidth>) {
        self.lock().hosts[node.index()].access = line.map(Access::new);
    }

    /// A node moves behind a NAT, or from behind it.
    pub fn set_nat(&self, node: NodeNo, nat: Nat) {
        self.lock().hosts[node.index()].nat = nat;
    }

    /// A node's address.
    pub fn ip(&self, node: NodeNo) -> IpAddr {
        host::address(node)
    }

    /// Which node has an address.
    pub fn node_at(&self, ip: IpAddr) -> Option<NodeNo> {
        self.lock().by_ip.get(&ip).copied()
    }

    /// Counts so far.
    pub fn counts(&self) -> NetCounts {
        let state = self.lock();
        NetCounts {
            connections: u64::try_from(state.conns.len()).unwrap_or(u64::MAX),
            ..state.counts
        }
    }

    /// Deliveries that are under way.
    pub fn under_way(&self) -> usize {
        self.lock().heap.len()
    }

    /// Calls `then` at a time of the world, to the nearest millisecond.
    pub(crate) fn at(&self, when: Duration, then: Box<dyn FnOnce() + Send>) {
        let mut state = self.lock();
        state.push(ns(when), What::Call(then));
        self.rearm(state);
    }

    // ---- a node's side ----

    /// A connection from a node to an address: `ip:port`, or a node's name and a port.
    ///
    /// # Errors
    /// Nothing listens there, nothing answers, or there is no such node.
    pub async fn dial(&self, from: NodeNo, to: &Address) -> io::Result<SimStream> {
        let stream = {
            let mut state = self.lock();
            let node = match to.ip() {
                Some(ip) => state.by_ip.get(&ip),
                None => state.by_name.get(to.host()),
            };
            let node = *node.ok_or(io::ErrorKind::HostUnreachable)?;
            let port = state.hosts[from.index()].free_port();
            let mut conn = Conn {
                dialler: Side::new(from, port),
                listener: Side::new(node, to.port()),
            };
            conn.dialler.held = true;
            let number = state.conns.add(conn);
            state.hosts[from.index()].conns.insert(number);
            state.send_syn(self.now_ns(), number, 0);
            self.rearm(state);
            SimStream::new(self.clone(), number, End::Dialler)
        };
        poll_fn(|cx| {
            let mut state = self.lock();
            let Some(conn) = state.conns.get(stream.number()) else {
                return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
            };
            let side = conn.side(End::Dialler);
            if let Some(error) = side.error {
                return Poll::Ready(Err(io::Error::from(error)));
            }
            if side.open {
                return Poll::Ready(Ok(()));
            }
            side.reader = Some(cx.waker().clone());
            Poll::Pending
        })
        .await?;
        Ok(stream)
    }

    pub(crate) fn listen(&self, node: NodeNo, port: u16) -> io::Result<SimListener> {
        let mut state = self.lock();
        let number = state.number();
        let host = &mut state.hosts[node.index()];
        let port = if port == 0 { host.free_port() } else { port };
        if host.listeners.contains_key(&port) {
            return Err(io::ErrorKind::AddrInUse.into());
        }
        host.listeners.insert(port, number);
        state.listeners.insert(number, Listening::default());
        Ok(SimListener {
            net: self.clone(),
            node,
            port,
            number,
        })
    }

    pub(super) fn stop_listening(&self, node: NodeNo, port: u16, number: u64) {
        let mut state = self.lock();
        let host = &mut state.hosts[node.index()];
        if host.listeners.get(&port) == Some(&number) {
            host.listeners.remove(&port);
        }
        let now = self.now_ns();
        if let Some(listening) = state.listeners.remove(&number) {
            for (conn, _) in listening.queue {
                state.abandon(now, conn, node, true);
            }
        }
        self.rearm(state);
    }

    /// Opens a node's port for datagrams; 0 lets the system choose.
    ///
    /// # Errors
    /// Another mailbox has the port.
    pub fn mailbox(&self, node: NodeNo, port: u16) -> io::Result<Mailbox> {
        let mut state = self.lock();
        let number = state.number();
        let host = &mut state.hosts[node.index()];
        let port = if port == 0 { host.free_port() } else { port };
        if host.mailboxes.contains_key(&port) {
            return Err(io::ErrorKind::AddrInUse.into());
        }
        host.mailboxes.insert(port, number);
        state.mailboxes.insert(number, mailbox::Box::default());
        Ok(Mailbox {
            net: self.clone(),
            node,
            port,
            number,
        })
    }

    pub(super) fn send_datagram(&self, from: NodeNo, port: u16, to: SocketAddr, bytes: Bytes) {
        let mut state = self.lock();
        let now = self.now_ns();
        let Some(&receiver) = state.by_ip.get(&to.ip()) else {
            state.counts.lost += 1;
            return;
        };
        state.note_sent(now, from, receiver);
        let delays = state.datagram(now, from, receiver, bytes.len());
        if delays.iter().all(Option::is_none) {
            state.counts.lost += 1;
        }
        for at in delays.into_iter().flatten() {
            let what = What::Datagram {
                from: (from, port),
                to: (receiver, to.port()),
                bytes: bytes.clone(),
                inside: false,
            };
            state.push(at, what);
        }
        self.rearm(state);
    }

    /// A holder lets an end of a connection go.
    pub(super) fn let_go(&self, number: u64, end: End) {
        let mut state = self.lock();
        let now = self.now_ns();
        let Some(conn) = state.conns.get(number) else {
            return;
        };
        let side = conn.side(end);
        let (node, was_open) = (side.node, side.open);
        let unread = !side.inbox.is_empty();
        side.inbox.clear();
        side.held = false;
        let hangs_up = side.error.is_none() && !side.fin_sent;
        side.fin_sent = true;
        if hangs_up {
            // Whoever closes with bytes unread resets, as TCP does; whoever gives up a dial does too.
            if unread || !was_open {
                state.reset(now, number, end.other());
            } else {
                state.transmit(now, number, end, Item::Fin);
            }
        }
        state.hosts[node.index()].conns.remove(&number);
        state.sweep(number);
        self.rearm(state);
    }

    // ---- the pump ----

    /// Makes deliveries at their time, for as long as the world lasts.
    pub(crate) async fn pump(self) {
        let mut sleep = pin!(self.0.clock.sleep(Duration::ZERO));
        let start = sleep.deadline() - self.0.clock.now();
        poll_fn(|cx| {
            loop {
                let due = self.now_ns().saturating_add(HALF_TICK_NS);
                self.deliver(due);
                let mut state = self.lock();
                let tick = state.next_tick();
                if tick <= self.now_ns() / TICK_NS {
                    continue;
                }
                state.armed = tick;
                state.pump = Some(cx.waker().clone());
                drop(state);
                if tick == u64::MAX {
                    return Poll::<()>::Pending;
                }
                let at = start + Duration::from_millis(tick);
                if sleep.deadline() != at {
                    sleep.as_mut().reset(at);
                }
                if sleep.as_mut().poll(cx).is_pending() {
                    return Poll::Pending;
                }
            }
        })
        .await;
    }

    fn deliver(&self, due: u64) {
        let now = self.now_ns();
        loop {
            let mut state = self.lock();
            let mut call = None;
            while let Some(Reverse(event)) = state.heap.peek() {
                if event.at >= due {
                    break;
                }
                let Some(Reverse(event)) = state.heap.pop() else {
                    break;
                };
                match event.what {
                    What::Call(then) => {
                        call = Some(then);
                        break;
                    }
                    what => state.happen(now, event.at, what),
                }
            }
            let mut woken = std::mem::take(&mut state.woken);
            drop(state);
            woken.drain(..).for_each(Waker::wake);
            let mut state = self.lock();
            if state.woken.is_empty() {
                state.woken = woken;
            }
            drop(state);
            match call {
                Some(call) => call(),
                None => return,
            }
        }
    }

    /// The world's ledger.
    pub(crate) fn ledger(&self) -> &Arc<Ledger> {
        &self.0.ledger
    }
}
