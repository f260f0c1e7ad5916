//! Reads entries back: from the stream by their places, from the spill while they are there.

use std::time::Duration;

use bytes::BytesMut;

use super::BrokerLog;
use super::local::{MAX_RUNS, Placed, placed, spilled_entries, storage};
use super::transport::{BrokerError, EntryHead, Message, Messages, Start, in_time};
use crate::embedded::read::bounds;
use crate::{ChannelId, Entries, LogError, ReadRequest, ShardNo};

/// How long a read waits for a broker that is not there before it is answered `Busy`, to be made again.
const WAIT: Duration = Duration::from_secs(1);
/// Messages of other channels that are rather passed over than a new reader started behind them.
const GAP: u64 = 4096;
/// Readers kept between reads, each with a channel and what the broker sent it ahead.
const PARKED: usize = 32;

impl BrokerLog {
    pub(super) async fn read_entries(&self, request: ReadRequest) -> Result<Entries, LogError> {
        let (shard, channel) = (request.shard, request.channel);
        let mut entries = Entries::default();
        let mut next = request.after.saturating_add(1);
        // Each turn serves something or passes over runs whose front the broker removed; a turn that does neither is the last.
        loop {
            let want = remaining(&request, &entries);
            if want.max_records == 0 || (want.max_bytes == 0 && !entries.items.is_empty()) {
                return Ok(entries);
            }
            let look = self.off_thread(move |store| {
                let (first, head) = bounds(store, shard, channel)?;
                let next = next.max(first);
                if next > head {
                    return Ok((next, head, Vec::new(), Entries::default()));
                }
                let runs = placed(store, &want, next)?;
                let mut spilled = (BytesMut::new(), Vec::new());
                if runs.is_empty() {
                    let mut from = next;
                    let read =
                        store.view(&mut |v| spilled_entries(v, &want, &mut from, &mut spilled));
                    read.map_err(storage)?;
                }
                let (buffer, items) = spilled;
                Ok((next, head, runs, Entries { buffer, items }))
            });
            let (from, head, runs, spilled) = look.await?;
            next = from;
            if next > head {
                return Ok(entries);
            }
            let served = if let Some((last, _)) = spilled.items.last() {
                next = last + 1;
                spilled
            } else if runs.is_empty() {
                if !entries.items.is_empty() {
                    return Ok(entries);
                }
                return Err(LogError::Damaged {
                    shard,
                    channel,
                    offset: next,
                    detail: "its place in the stream is not known".to_owned(),
                });
            } else {
                let (served, to) = self.fetch(&want, &runs, next).await?;
                // Entries that the broker no longer has are a front that was trimmed: never a hole inside an answer.
                let jumped = served.items.first().is_some_and(|(o, _)| *o != next);
                if !entries.items.is_empty() && (jumped || served.items.is_empty()) {
                    return Ok(entries);
                }
                let all_gone = served.items.is_empty();
                next = to;
                if all_gone {
                    continue;
                }
                served
            };
            let full = served.items.len() >= MAX_RUNS;
            if !join(&mut entries, served, &request) || full || next > head {
                return Ok(entries);
            }
        }
    }

    /// The entries of these runs from `next` on, as far as wanted, and the offset to go on with. The first is higher than
    /// `next` where the broker no longer has what was before.
    async fn fetch(
        &self,
        want: &ReadRequest,
        runs: &[Placed],
        next: u64,
    ) -> Result<(Entries, u64), LogError> {
        let parked = self.unpark(want, next);
        let resumed = parked.is_some();
        match self.fetch_from(parked, want, runs, next).await {
            // Or the broker removed what came next from under the reader: a new one sees which.
            Err(LogError::Damaged { .. }) if resumed => {
                self.fetch_from(None, want, runs, next).await
            }
            fetched => fetched,
        }
    }

    async fn fetch_from(
        &self,
        parked: Option<Parked>,
        want: &ReadRequest,
        runs: &[Placed],
        next: u64,
    ) -> Result<(Entries, u64), LogError> {
        let stream = self.stream_of(want.shard)?;
        let busy = |error: BrokerError| {
            tracing::debug!(%error, "a read waits for the broker");
            LogError::Busy
        };
        let mut line = self.0.reading.clone();
        let connected = line.wait_for(|line| line.connection.is_some());
        let connection = match tokio::time::timeout(WAIT, connected).await {
            Ok(Ok(line)) => line.connection.clone().ok_or(LogError::Busy)?,
            Ok(Err(_)) => return Err(LogError::Closed),
            Err(_) => return Err(LogError::Busy),
        };
        let permit = self.0.readers.acquire().await;
        let _permit = permit.map_err(|_| LogError::Closed)?;
        let mut reading = Reading::new(want, next);
        let (mut messages, mut at) = (None, 0);
        if let Some(parked) = parked {
            (messages, at) = (Some(parked.messages), parked.at);
            reading.held = parked.held;
        }
        for run in runs.iter().filter(|run| run.last >= next) {
            if reading.is_full() {
                break;
            }
            let far = run.position > at + GAP;
            let mut begins = false;
            let opened = match messages.take() {
                Some(open) if !far => open,
                other => {
                    begins = true;
                    reading.held = None;
                    if let Some(open) = other {
                        open.close().await;
                    }
                    let from = Start::Position(run.position);
                    in_time(connection.read(&stream, from))
                        .await
                        .map_err(busy)?
                }
            };
            let messages = messages.insert(opened);
            while reading.wants(run) {
                let message = match reading.held.take() {
                    Some(message) => message,
                    None => in_time(messages.next()).await.map_err(busy)?,
                };
                at = message.position;
                let removed = std::mem::take(&mut begins) && message.position > run.position;
                match reading.take(run, message, removed) {
                    Took::Goes => {}
                    Took::Gone => break,
                    Took::Missing => {
                        return Err(LogError::Damaged {
                            shard: want.shard,
                            channel: want.channel,
                            offset: reading.next,
                            detail: "the broker lost it".to_owned(),
                        });
                    }
                }
            }
        }
        if let Some(messages) = messages {
            let parked = Parked {
                shard: want.shard,
                channel: want.channel,
                next: reading.next,
                at,
                held: reading.held,
                messages,
            };
            self.park(parked).await;
        }
        Ok((reading.entries, reading.next))
    }

    /// A reader that stopped just before this entry; the last of them, for an older one may hold what the broker removed since.
    fn unpark(&self, want: &ReadRequest, next: u64) -> Option<Parked> {
        let mut parked = self.0.parked.lock();
        let at = parked.iter().rposition(|reader| {
            (reader.shard, reader.channel, reader.next) == (want.shard, want.channel, next)
        })?;
        parked.remove(at)
    }

    /// Keeps a reader for whoever goes on where it stopped; the one kept longest goes.
    async fn park(&self, reader: Parked) {
        let oldest = {
            let mut parked = self.0.parked.lock();
            parked.push_back(reader);
            (parked.len() > PARKED).then(|| parked.pop_front())
        };
        if let Some(oldest) = oldest.flatten() {
            oldest.messages.close().await;
        }
    }
}

/// A reader of a stream between two reads.
pub(super) struct Parked {
    shard: ShardNo,
    channel: ChannelId,
    /// The entry that comes next.
    next: u64,
    /// Place of the last message taken.
    at: u64,
    /// It was taken and not wanted yet.
    held: Option<Message>,
    messages: Box<dyn Messages>,
}

impl Parked {
    pub(super) fn shard(&self) -> ShardNo {
        self.shard
    }
}

enum Took {
    Goes,
    /// The run's wanted entries are no longer there.
    Gone,
    /// They should be there and are not.
    Missing,
}

/// What a reader has so far.
struct Reading {
    want: ReadRequest,
    entries: Entries,
    next: u64,
    full: bool,
    /// The stream's front was removed up to where this reader started.
    removed: bool,
    /// A message beyond the run, for the next one.
    held: Option<Message>,
}

impl Reading {
    fn new(want: &ReadRequest, next: u64) -> Self {
        Self {
            want: *want,
            entries: Entries::default(),
            next,
            full: false,
            removed: false,
            held: None,
        }
    }

    fn is_full(&self) -> bool {
        self.full || self.entries.items.len() >= self.want.max_records
    }

    fn wants(&self, run: &Placed) -> bool {
        !self.is_full() && self.next <= run.last
    }

    fn take(&mut self, run: &Placed, message: Message, removed: bool) -> Took {
        self.removed |= removed;
        let stamp = message.stamp;
        let (epoch, sequence) = (stamp.epoch, stamp.sequence);
        if epoch < run.epoch || (epoch == run.epoch && sequence < run.sequence) {
            return Took::Goes;
        }
        let mine = |head: &EntryHead| {
            epoch == run.epoch && head.channel == self.want.channel && head.offset <= run.last
        };
        let mut entries = message.entries();
        // Of another run, which the front that was removed may well begin with.
        let ahead = (entries.iter())
            .any(|(head, _)| head.channel == self.want.channel && head.offset > run.last);
        entries.retain(|(head, _)| mine(head));
        let (mut goes, mut hole) = (!entries.is_empty(), false);
        for (head, body) in entries {
            if head.offset < self.next {
                continue;
            }
            if head.offset != self.next && !self.removed {
                (goes, hole) = (false, true);
                break;
            }
            let (buffer, items) = (&mut self.entries.buffer, &mut self.entries.items);
            let start = buffer.len();
            let many = items.len() >= self.want.max_records;
            if many || (!items.is_empty() && start + body.len() > self.want.max_bytes) {
                self.full = true;
                // What is taken of it is passed over then.
                self.held = Some(message);
                return Took::Goes;
            }
            buffer.extend_from_slice(&body);
            items.push((head.offset, start..buffer.len()));
            self.next = head.offset + 1;
            self.removed = false;
        }
        if goes {
            return Took::Goes;
        }
        // Another channel's message, or a closing one, within the run's record: the run may go on behind it.
        let beyond = epoch > run.epoch || hole || ahead || self.closes(run, &message);
        if !beyond {
            return Took::Goes;
        }
        if !self.removed {
            return Took::Missing;
        }
        if self.entries.items.is_empty() {
            self.next = run.last + 1;
            self.held = Some(message);
            return Took::Gone;
        }
        self.full = true;
        Took::Gone
    }

    /// Whether the run's record is over with this message.
    fn closes(&self, run: &Placed, message: &Message) -> bool {
        message.stamp.last && message.stamp.sequence >= run.sequence
    }
}

fn remaining(request: &ReadRequest, entries: &Entries) -> ReadRequest {
    ReadRequest {
        max_records: request.max_records.saturating_sub(entries.items.len()),
        max_bytes: request.max_bytes.saturating_sub(entries.buffer.len()),
        ..*request
    }
}

/// Appends `more`; false if not all of it fits.
fn join(entries: &mut Entries, more: Entries, request: &ReadRequest) -> bool {
    if entries.items.is_empty() {
        *entries = more;
        return true;
    }
    for (offset, range) in more.items {
        let start = entries.buffer.len();
        if start + range.len() > request.max_bytes {
            return false;
        }
        entries.buffer.extend_from_slice(&more.buffer[range]);
        entries.items.push((offset, start..entries.buffer.len()));
    }
    true
}
