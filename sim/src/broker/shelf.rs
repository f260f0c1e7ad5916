//! What a broker keeps, and what it has to do. Time and dice come in, frames go out; whoever sends those is woken.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use pqcnet_actor::StreamRng;
use pqcnet_log::broker::transport::Message;
use rand_core::Rng as _;
use tokio::sync::Notify;

use super::wire::{Ask, Body, Confirm, Content, Deliver, Outcome, Publish, Reply, What};

/// A message is kept after this long at least, and at most twice as long: to two of three disks and back within a data
/// centre. Virtual timers round it up to a millisecond.
const KEEPING: Duration = Duration::from_millis(2);

#[derive(Default)]
struct Stream {
    messages: Vec<Content>,
    /// So many are confirmed, and readers see no others.
    kept: u64,
}

#[derive(Default)]
struct Conn {
    out: VecDeque<Body>,
    news: Arc<Notify>,
    writers: BTreeMap<u64, String>,
    readers: BTreeMap<u64, Reader>,
}

impl Conn {
    /// Who writes or reads such a stream does so no more.
    fn cut_off(&mut self, such: impl Fn(&str) -> bool) {
        let writers = self.writers.extract_if(.., |_, at| such(at));
        let mut over: Vec<u64> = writers.map(|(id, _)| id).collect();
        let readers = self
            .readers
            .extract_if(.., |_, reader| such(&reader.stream));
        over.extend(readers.map(|(id, _)| id));
        self.out.extend(over.into_iter().map(Body::Close));
    }
}

struct Reader {
    stream: String,
    next: u64,
    credit: u64,
}

/// A message that is being kept.
struct Keeping {
    due: Duration,
    stream: String,
    position: u64,
    conn: u64,
    id: u64,
    tag: u64,
}

/// A broker's streams, which outlive it, and its connections, which do not.
pub struct Shelf {
    streams: BTreeMap<String, Stream>,
    /// It does not serve the streams that it had when it forgot them.
    asleep: Vec<String>,
    conns: BTreeMap<u64, Conn>,
    last: u64,
    locks: BTreeMap<String, u64>,
    keeping: VecDeque<Keeping>,
    rng: StreamRng,
}

impl Shelf {
    /// An empty one with these dice.
    pub fn new(rng: StreamRng) -> Shelf {
        Shelf {
            streams: BTreeMap::new(),
            asleep: Vec::new(),
            conns: BTreeMap::new(),
            last: 0,
            locks: BTreeMap::new(),
            keeping: VecDeque::new(),
            rng,
        }
    }

    /// The broker begins anew with what it kept. Of what it had not confirmed, in each stream, so much as the dice say is
    /// there.
    pub(super) fn begin(&mut self) {
        self.conns.clear();
        self.locks.clear();
        self.keeping.clear();
        for stream in self.streams.values_mut() {
            let unsure = stream.messages.len() as u64 - stream.kept;
            let survive = self.rng.next_u64() % (unsure + 1);
            stream.kept += survive;
            stream.messages.truncate(stream.kept as usize);
        }
    }

    /// Forgets the streams that it has, or is told of them again. Who writes or reads there is cut off.
    pub fn set_forgetful(&mut self, forgets: bool) {
        self.asleep = if forgets {
            self.streams.keys().cloned().collect()
        } else {
            Vec::new()
        };
        let asleep = &self.asleep;
        for conn in self.conns.values_mut() {
            conn.cut_off(|stream| asleep.iter().any(|asleep| asleep == stream));
        }
        self.keeping
            .retain(|message| !asleep.contains(&message.stream));
        self.tell();
    }

    /// Names of the streams that there are.
    pub fn streams(&self) -> Vec<String> {
        self.streams.keys().cloned().collect()
    }

    /// Wakes whoever has something to send.
    fn tell(&self) {
        for conn in self.conns.values().filter(|conn| !conn.out.is_empty()) {
            conn.news.notify_one();
        }
    }

    /// All that a stream holds and has confirmed, in order.
    pub fn messages(&self, stream: &str) -> Vec<Message> {
        let Some(stream) = self.streams.get(stream) else {
            return Vec::new();
        };
        let kept = stream.messages.iter().zip(0..stream.kept);
        kept.filter_map(|(content, position)| content.at(position))
            .collect()
    }

    /// A connection's number, and what wakes whoever sends on it.
    pub(super) fn connected(&mut self) -> (u64, Arc<Notify>) {
        self.last += 1;
        let conn = self.conns.entry(self.last).or_default();
        (self.last, conn.news.clone())
    }

    pub(super) fn gone(&mut self, conn: u64) {
        self.conns.remove(&conn);
        self.locks.retain(|_, holder| *holder != conn);
    }

    /// What is to be sent on a connection; `None` if that is over.
    pub(super) fn take_out(&mut self, conn: u64) -> Option<VecDeque<Body>> {
        Some(std::mem::take(&mut self.conns.get_mut(&conn)?.out))
    }

    /// When [`Shelf::keep`] is due.
    pub(super) fn next_due(&self) -> Option<Duration> {
        self.keeping.front().map(|message| message.due)
    }

    pub(super) fn on_frame(&mut self, now: Duration, conn: u64, body: Body) {
        match body {
            Body::Ask(ask) => self.asked(conn, ask),
            Body::Publish(publish) => self.published(now, conn, publish),
            Body::Credit(credit) => {
                let reader = self.conns.get_mut(&conn);
                if let Some(reader) = reader.and_then(|c| c.readers.get_mut(&credit.id)) {
                    reader.credit += credit.more;
                    let stream = reader.stream.clone();
                    self.feed(&stream);
                }
            }
            Body::Close(id) => {
                if let Some(conn) = self.conns.get_mut(&conn) {
                    conn.writers.remove(&id);
                    conn.readers.remove(&id);
                }
            }
            // What a broker alone says.
            Body::Reply(_) | Body::Confirm(_) | Body::Deliver(_) => {}
        }
        self.tell();
    }

    fn asked(&mut self, number: u64, ask: Ask) {
        let outcome = self.outcome(number, &ask);
        let Some(conn) = self.conns.get_mut(&number) else {
            return;
        };
        if outcome == Outcome::Yes {
            match ask.what() {
                What::Has => {}
                What::Delete => return self.deleted(number, &ask),
                What::Write => {
                    conn.writers.insert(ask.id, ask.stream.clone());
                }
                What::Read => {
                    let reader = Reader {
                        stream: ask.stream.clone(),
                        next: ask.from,
                        credit: 0,
                    };
                    conn.readers.insert(ask.id, reader);
                }
            }
        }
        conn.out.push_back(Body::Reply(Reply {
            id: ask.id,
            outcome: outcome.into(),
        }));
    }

    fn outcome(&mut self, conn: u64, ask: &Ask) -> Outcome {
        if matches!(ask.what(), What::Write | What::Delete) {
            let holder = *self.locks.entry(ask.stream.clone()).or_insert(conn);
            if holder != conn {
                return Outcome::Locked;
            }
        }
        if self.asleep.contains(&ask.stream) {
            return Outcome::Asleep;
        }
        if ask.what() == What::Write && ask.make {
            self.streams.entry(ask.stream.clone()).or_default();
        }
        if ask.what() == What::Delete {
            // Also one that is not there.
            return Outcome::Yes;
        }
        match self.streams.contains_key(&ask.stream) {
            true => Outcome::Yes,
            false => Outcome::No,
        }
    }

    /// A stream goes, with its lock and whoever writes or reads it.
    fn deleted(&mut self, number: u64, ask: &Ask) {
        self.streams.remove(&ask.stream);
        self.locks.remove(&ask.stream);
        self.keeping.retain(|message| message.stream != ask.stream);
        for conn in self.conns.values_mut() {
            conn.cut_off(|stream| stream == ask.stream);
        }
        if let Some(conn) = self.conns.get_mut(&number) {
            conn.out.push_back(Body::Reply(Reply {
                id: ask.id,
                outcome: Outcome::Yes.into(),
            }));
        }
    }

    fn published(&mut self, now: Duration, conn: u64, publish: Publish) {
        let Publish { id, tag, content } = publish;
        let Some(from) = self.conns.get_mut(&conn) else {
            return;
        };
        let name = from.writers.get(&id).cloned();
        let Some((name, stream)) = name.and_then(|name| {
            let stream = self.streams.get_mut(&name)?;
            Some((name, stream))
        }) else {
            // As a broker does with what comes on a channel that it closed.
            return from.out.push_back(Body::Close(id));
        };
        let position = stream.messages.len() as u64;
        stream.messages.push(content);
        let more = self.rng.next_u64() % (KEEPING.as_micros() as u64);
        let due = now + KEEPING + Duration::from_micros(more);
        // One disk: in the order in which they came.
        let due = due.max(self.keeping.back().map_or(due, |last| last.due));
        self.keeping.push_back(Keeping {
            due,
            stream: name,
            position,
            conn,
            id,
            tag,
        });
    }

    /// Confirms what is kept by now.
    pub(super) fn keep(&mut self, now: Duration) {
        while self.keeping.front().is_some_and(|first| first.due <= now) {
            let Some(kept) = self.keeping.pop_front() else {
                return;
            };
            if let Some(stream) = self.streams.get_mut(&kept.stream) {
                stream.kept = stream.kept.max(kept.position + 1);
            }
            if let Some(conn) = self.conns.get_mut(&kept.conn)
                && conn.writers.contains_key(&kept.id)
            {
                let (id, tag) = (kept.id, kept.tag);
                conn.out.push_back(Body::Confirm(Confirm { id, tag }));
            }
            self.feed(&kept.stream);
        }
        self.tell();
    }

    fn feed(&mut self, name: &str) {
        let Some(stream) = self.streams.get(name) else {
            return;
        };
        for conn in self.conns.values_mut() {
            for (id, reader) in &mut conn.readers {
                while reader.stream == name && reader.credit > 0 && reader.next < stream.kept {
                    conn.out.push_back(Body::Deliver(Deliver {
                        id: *id,
                        position: reader.next,
                        content: stream.messages[reader.next as usize].clone(),
                    }));
                    reader.next += 1;
                    reader.credit -= 1;
                }
            }
        }
    }
}
