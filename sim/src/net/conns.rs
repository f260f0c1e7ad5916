//! Connections: two ends, and what is under way between them. Plain data; [`super::engine`] moves it.

use std::collections::VecDeque;
use std::io;
use std::task::Waker;

use bytes::Bytes;

use super::engine::LinkNo;
use super::parcel::{Parcel, Taker};
use crate::world::NodeNo;

/// Bytes that one end may have sent and the other not read: flow control and socket buffers together.
pub(super) const WINDOW: usize = 256 * 1024;

/// What travels in order from one end to the other.
#[derive(Debug)]
pub(super) enum Item {
    /// The dialler has heard the answer: now the listener has a connection.
    Open,
    /// Bytes.
    Data(Bytes),
    /// A value that stands for bytes.
    Parcel(Parcel),
    /// No more bytes.
    Fin,
}

impl Item {
    /// Bytes of it on the way.
    pub(super) fn bytes(&self) -> usize {
        match self {
            Item::Data(bytes) => bytes.len(),
            Item::Parcel(parcel) => parcel.bytes,
            Item::Open | Item::Fin => 0,
        }
    }
}

/// Which end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// Who dialled.
    Dialler,
    /// Who listened.
    Listener,
}

impl End {
    pub(super) fn other(self) -> End {
        match self {
            End::Dialler => End::Listener,
            End::Listener => End::Dialler,
        }
    }
}

/// One end. What every read and write asks for comes first and lies together: most ends have not been touched for long.
#[derive(Debug)]
#[repr(C)]
pub(super) struct Side {
    /// Came, and was not read yet.
    pub(super) inbox: VecDeque<Bytes>,
    pub(super) reader: Option<Waker>,
    /// Sent to this end, and not read by it.
    pub(super) unread: usize,
    /// When the last item that travels to this end arrives, ns.
    pub(super) last_arrival: u64,
    /// Nothing comes after the inbox.
    pub(super) eof: bool,
    pub(super) error: Option<io::ErrorKind>,
    pub(super) fin_sent: bool,
    /// The other end's writer waits until this one reads.
    pub(super) starves: bool,
    pub(super) node: NodeNo,
    /// What it sends goes over; none before the first.
    pub(super) link: Option<LinkNo>,
    pub(super) port: u16,
    /// Somebody holds this end.
    pub(super) held: bool,
    /// The connection stands, as far as this end knows.
    pub(super) open: bool,
    /// Nobody holds it yet, but a listener will.
    pub(super) awaited: bool,
    pub(super) writer: Option<Waker>,
    /// Items for this end that a cut path holds up, in order.
    pub(super) held_up: VecDeque<Item>,
    /// They are being tried again, and later ones wait behind them.
    pub(super) recovering: bool,
    /// Who takes parcels.
    pub(super) taker: Taker,
}

impl Side {
    pub(super) fn new(node: NodeNo, port: u16) -> Side {
        Side {
            node,
            port,
            link: None,
            held: false,
            open: false,
            awaited: false,
            inbox: VecDeque::new(),
            eof: false,
            error: None,
            reader: None,
            writer: None,
            unread: 0,
            starves: false,
            fin_sent: false,
            last_arrival: 0,
            held_up: VecDeque::new(),
            recovering: false,
            taker: Taker::None,
        }
    }

    /// Its tasks have something to see.
    pub(super) fn rouse(&mut self, woken: &mut Vec<Waker>) {
        woken.extend(self.reader.take());
        woken.extend(self.writer.take());
    }

    /// It has failed, unless it had before.
    pub(super) fn fail(&mut self, error: io::ErrorKind, woken: &mut Vec<Waker>) {
        if self.error.is_none() {
            self.error = Some(error);
            woken.extend(self.taker.closed(Some(error)));
        }
        self.rouse(woken);
    }
}

/// A connection, or one that may come about.
#[derive(Debug)]
pub(super) struct Conn {
    pub(super) dialler: Side,
    pub(super) listener: Side,
}

impl Conn {
    pub(super) fn side(&mut self, end: End) -> &mut Side {
        match end {
            End::Dialler => &mut self.dialler,
            End::Listener => &mut self.listener,
        }
    }

    pub(super) fn is_over(&self) -> bool {
        !self.dialler.held && !self.listener.held && !self.listener.awaited
    }
}

/// Connections by number. A number names a slot and how often it was used before, so a late delivery finds no other.
#[derive(Default)]
pub(super) struct Conns {
    slots: Vec<(u32, Option<Box<Conn>>)>,
    free: Vec<u32>,
}

fn split(number: u64) -> (usize, u32) {
    let slot = usize::try_from(number & 0xFFFF_FFFF).unwrap_or(usize::MAX);
    let turn = u32::try_from(number >> 32).unwrap_or(u32::MAX);
    (slot, turn)
}

impl Conns {
    pub(super) fn add(&mut self, conn: Conn) -> u64 {
        let slot = match self.free.pop() {
            Some(slot) => slot,
            None => {
                self.slots.push((0, None));
                u32::try_from(self.slots.len() - 1).unwrap_or(u32::MAX)
            }
        };
        let (turn, place) = &mut self.slots[slot as usize];
        *place = Some(Box::new(conn));
        u64::from(*turn) << 32 | u64::from(slot)
    }

    pub(super) fn get(&mut self, number: u64) -> Option<&mut Conn> {
        let (slot, turn) = split(number);
        match self.slots.get_mut(slot) {
            Some((now, Some(conn))) if *now == turn => Some(conn),
            Some(_) | None => None,
        }
    }

    pub(super) fn remove(&mut self, number: u64) -> Option<Box<Conn>> {
        let (slot, turn) = split(number);
        let (now, place) = self.slots.get_mut(slot)?;
        if *now != turn {
            return None;
        }
        let conn = place.take()?;
        *now = now.wrapping_add(1);
        self.free.push(u32::try_from(slot).unwrap_or(u32::MAX));
        Some(conn)
    }

    pub(super) fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }
}
