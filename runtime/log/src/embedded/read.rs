//! What a snapshot of the store says, and whom to blame when it makes no sense.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use bytes::Bytes;
use pqcnet_store::{ReadError, Scan, Store, View};

use crate::keys::{self, ABOUT, ENTRY, FIRST, GENERATION, HEAD, MARK};
use crate::{ChannelHead, ChannelId, Entries, LogError, ProducerMark, ReadRequest, Salt, ShardNo};

/// Runs `read` on one snapshot and hands out what it returns.
pub(crate) fn on_snapshot<T>(
    store: &dyn Store,
    mut read: impl FnMut(&dyn View) -> Result<T, Fault>,
) -> Result<T, Fault> {
    let mut out = None;
    store
        .view(&mut |view| {
            out = Some(read(view));
            Ok(())
        })
        .map_err(Fault::Read)?;
    out.unwrap_or(Err(Fault::Read(ReadError::Closed)))
}

/// A read that failed, before it is known where to place the blame.
pub(crate) enum Fault {
    Read(ReadError),
    /// Stored bytes that no version of this code wrote.
    Value(&'static str),
    Missing(u64),
}

impl From<ReadError> for Fault {
    fn from(error: ReadError) -> Self {
        Self::Read(error)
    }
}

impl Fault {
    pub(crate) fn in_shard(self, shard: ShardNo) -> LogError {
        match self {
            Self::Read(ReadError::Corrupt { detail, .. }) => {
                LogError::DamagedShard { shard, detail }
            }
            Self::Value(what) => LogError::DamagedShard {
                shard,
                detail: format!("a value in {what} has the wrong shape"),
            },
            Self::Missing(offset) => LogError::DamagedShard {
                shard,
                detail: format!("entry {offset} is missing"),
            },
            Self::Read(other) => storage(other),
        }
    }

    fn at(self, shard: ShardNo, channel: ChannelId, offset: u64) -> LogError {
        let (offset, detail) = match self {
            Self::Read(ReadError::Corrupt { detail, .. }) => (offset, detail),
            Self::Value(what) => (offset, format!("a value in {what} has the wrong shape")),
            Self::Missing(offset) => (offset, "the entry is missing".to_owned()),
            Self::Read(other) => return storage(other),
        };
        LogError::Damaged {
            shard,
            channel,
            offset,
            detail,
        }
    }
}

fn storage(error: ReadError) -> LogError {
    match error {
        ReadError::Closed => LogError::Closed,
        ReadError::Io { .. } | ReadError::Corrupt { .. } | ReadError::UnknownFamily(_) => {
            LogError::Storage {
                detail: error.to_string(),
            }
        }
    }
}

pub(crate) fn generations(store: &dyn Store, shard: ShardNo) -> Result<Vec<(u32, Salt)>, LogError> {
    let (from, to) = keys::shard_range(shard);
    let found = on_snapshot(store, |view| {
        let mut found = Vec::new();
        let mut odd = false;
        let range = Scan {
            from: &from,
            to: &to,
        };
        view.scan(GENERATION, range, &mut |key, value| {
            let number = key
                .get(2..)
                .and_then(|k| k.try_into().ok())
                .map(u32::from_be_bytes);
            match (number, value.try_into()) {
                (Some(number), Ok(salt)) => found.push((number, salt)),
                _ => odd = true,
            }
            ControlFlow::Continue(())
        })?;
        if odd {
            Err(Fault::Value(GENERATION.0))
        } else {
            Ok(found)
        }
    });
    found.map_err(|fault| fault.in_shard(shard))
}

pub(crate) fn heads(store: &dyn Store, shard: ShardNo) -> Result<Vec<ChannelHead>, LogError> {
    let (from, to) = keys::shard_range(shard);
    let range = Scan {
        from: &from,
        to: &to,
    };
    let found = on_snapshot(store, |view| {
        let mut odd = None;
        let mut heads = BTreeMap::new();
        view.scan(HEAD, range, &mut |key, value| {
            match (keys::split(key), keys::numbers(value)) {
                (Some((channel, None)), Some([head, forgotten_epoch, bytes, newest_ms])) => {
                    heads.insert(
                        channel,
                        ChannelHead {
                            channel,
                            first: 1,
                            head,
                            forgotten_epoch,
                            bytes,
                            newest_ms,
                            producers: Vec::new(),
                            about: None,
                        },
                    );
                }
                _ => odd = Some(HEAD.0),
            }
            ControlFlow::Continue(())
        })?;
        view.scan(FIRST, range, &mut |key, value| {
            let head = keys::split(key).and_then(|(channel, _)| heads.get_mut(&channel));
            match (head, keys::numbers(value)) {
                (Some(head), Some([first])) => head.first = first,
                _ => odd = Some(FIRST.0),
            }
            ControlFlow::Continue(())
        })?;
        view.scan(MARK, range, &mut |key, value| {
            let Some((channel, Some(epoch))) = keys::split(key) else {
                odd = Some(MARK.0);
                return ControlFlow::Continue(());
            };
            match (heads.get_mut(&channel), keys::numbers(value)) {
                (Some(head), Some([sequence, offset])) => head.producers.push(ProducerMark {
                    epoch,
                    sequence,
                    offset,
                }),
                _ => odd = Some(MARK.0),
            }
            ControlFlow::Continue(())
        })?;
        view.scan(ABOUT, range, &mut |key, value| {
            match keys::split(key).and_then(|(channel, _)| heads.get_mut(&channel)) {
                Some(head) => head.about = Some(Bytes::copy_from_slice(value)),
                None => odd = Some(ABOUT.0),
            }
            ControlFlow::Continue(())
        })?;
        match odd {
            Some(family) => Err(Fault::Value(family)),
            None => Ok(heads.into_values().collect()),
        }
    });
    found.map_err(|fault| fault.in_shard(shard))
}

/// Lowest offset kept and highest stored.
pub(crate) fn bounds(
    store: &dyn Store,
    shard: ShardNo,
    channel: ChannelId,
) -> Result<(u64, u64), LogError> {
    on_snapshot(store, |view| bounds_in(view, shard, &channel))
        .map_err(|fault| fault.at(shard, channel, 1))
}

fn bounds_in(view: &dyn View, shard: ShardNo, channel: &ChannelId) -> Result<(u64, u64), Fault> {
    let key = keys::channel(shard, channel);
    let head = match view.get(HEAD, &key)? {
        None => 0,
        Some(value) => {
            let [head, _, _, _] = keys::numbers(&value).ok_or(Fault::Value(HEAD.0))?;
            head
        }
    };
    let first = match view.get(FIRST, &key)? {
        None => 1,
        Some(value) => {
            let [first] = keys::numbers(&value).ok_or(Fault::Value(FIRST.0))?;
            first
        }
    };
    Ok((first, head))
}

pub(crate) fn read(store: &dyn Store, request: ReadRequest) -> Result<Entries, LogError> {
    let ReadRequest {
        shard,
        channel,
        after,
        ..
    } = request;
    // Where reading stands, for the blame.
    let mut next = after.saturating_add(1);
    let found = on_snapshot(store, |view| {
        let (first, head) = bounds_in(view, shard, &channel)?;
        next = next.max(first);
        read_in(view, &request, &mut next, head)
    });
    found.map_err(|fault| fault.at(shard, channel, next))
}

fn read_in(
    view: &dyn View,
    request: &ReadRequest,
    next: &mut u64,
    head: u64,
) -> Result<Entries, Fault> {
    let mut entries = Entries::default();
    if *next > head || request.max_records == 0 {
        return Ok(entries);
    }
    let from = keys::numbered(request.shard, &request.channel, *next);
    let to = keys::numbered(request.shard, &request.channel, head + 1);
    let range = Scan {
        from: &from,
        to: &to,
    };
    let mut odd = None;
    let mut enough = false;
    let scanned = view.scan(ENTRY, range, &mut |key, value| {
        match keys::split(key) {
            Some((_, Some(offset))) if offset == *next => {}
            Some(_) => odd = Some(Fault::Missing(*next)),
            None => odd = Some(Fault::Value(ENTRY.0)),
        }
        let start = entries.buffer.len();
        let full = !entries.items.is_empty() && start + value.len() > request.max_bytes;
        if full || odd.is_some() {
            enough = true;
            return ControlFlow::Break(());
        }
        entries.buffer.extend_from_slice(value);
        entries.items.push((*next, start..entries.buffer.len()));
        *next += 1;
        enough = entries.items.len() == request.max_records;
        if enough {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    });
    if !entries.items.is_empty() {
        // What precedes a damaged entry is good; the next read starts at the damage and names it.
        return Ok(entries);
    }
    scanned?;
    Err(odd.unwrap_or(Fault::Missing(*next)))
}
