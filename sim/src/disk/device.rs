//! The device: what is durable, what is under way, and what the world does to it.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Mutex, RwLock};
use pqcnet_actor::{Env, StreamRng};
use pqcnet_mesh::shelf::Kind;
use pqcnet_store::{
    Batch, Commit, OpenError, ReadError, Schema, Settle, SubmitError, View, WriteError,
    commit_channel,
};
use rand_core::Rng;
use tokio::sync::Notify;

use super::data::Data;
use super::shelf::SimFile;
use super::store::{self, MemStore};

/// How fast a disk is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Speed {
    /// What one synced write costs beside its bytes; a quarter more or less, by the dice.
    pub sync: Duration,
    /// Bytes written a second.
    pub bytes_per_second: u64,
}

impl Default for Speed {
    /// A datacentre SSD. Virtual timers round both up to a millisecond.
    fn default() -> Speed {
        Speed {
            sync: Duration::from_micros(500),
            bytes_per_second: 500 << 20,
        }
    }
}

/// Limits of a disk, those of its queue as in the production store's configuration.
#[derive(Debug, Clone, Copy)]
pub struct DiskConfig {
    /// Bytes it holds.
    pub capacity: u64,
    /// Of them so many are kept in reserve: writes that would use them are refused.
    pub reserve: u64,
    /// Batches that may wait for the writer.
    pub queue_batches: usize,
    /// Bytes that may wait for the writer.
    pub queue_bytes: usize,
    /// Bytes of batches that share one synced write.
    pub group_bytes: usize,
    /// How fast it is.
    pub speed: Speed,
}

impl Default for DiskConfig {
    /// 64 GiB, and otherwise what a production relayer has.
    fn default() -> DiskConfig {
        DiskConfig {
            capacity: 64 << 30,
            reserve: 128 << 20,
            queue_batches: 4096,
            queue_bytes: 64 << 20,
            group_bytes: 4 << 20,
            speed: Speed::default(),
        }
    }
}

/// Counts since the disk was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct DiskCounts {
    /// Synced writes.
    pub groups: u64,
    /// Batches in them.
    pub batches: u64,
    /// Bytes of keys and values in them.
    pub bytes: u64,
    /// Writes that failed or were refused for lack of room.
    pub failures: u64,
    /// Crashes.
    pub crashes: u64,
    /// Batches that crashes lost, the torn ones among them.
    pub lost: u64,
    /// Batches of which a crash or a failure left a part.
    pub torn: u64,
}

/// What a crash did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Crashed {
    /// Batches under way that were on the disk already. Nobody was told so.
    pub kept: u64,
    /// Batches that are gone.
    pub lost: u64,
    /// Whether one of those was torn: a part of it was on the disk.
    pub torn: bool,
}

pub(super) struct Device {
    name: String,
    config: DiskConfig,
    state: Mutex<State>,
    // Apart from the state, so that a view may submit.
    data: RwLock<Data>,
}

struct State {
    kind: Option<(&'static str, u32)>,
    files: BTreeMap<Kind, SimFile>,
    mounts: u64,
    mounted: Option<Mounted>,
    speed: Speed,
    slowdown: u32,
    capacity: u64,
    stalled: bool,
    failing: u32,
    /// How the disk was when it began to lie.
    truth: Option<(Data, BTreeMap<Kind, SimFile>)>,
    rng: StreamRng,
    counts: DiskCounts,
}

/// One incarnation's hold on the disk. Taken away, its batches settle no more.
struct Mounted {
    number: u64,
    waiting: VecDeque<Queued>,
    waiting_bytes: usize,
    under_way: Vec<Queued>,
    news: Arc<Notify>,
}

pub(super) struct Queued {
    batch: Batch,
    settle: Settle,
}

/// What the writer does next.
pub(super) enum Next {
    /// The mount is over.
    Over,
    /// Nothing waits, or the disk is stalled.
    Wait,
    /// A group is under way and takes so long.
    Write(Duration),
}

impl Device {
    /// An empty one. `name` stands in errors; `rng` is its dice.
    pub(super) fn new(name: String, config: DiskConfig, rng: StreamRng) -> Arc<Device> {
        Arc::new(Device {
            name,
            config,
            state: Mutex::new(State {
                kind: None,
                files: BTreeMap::new(),
                mounts: 0,
                mounted: None,
                speed: config.speed,
                slowdown: 1,
                capacity: config.capacity,
                stalled: false,
                failing: 0,
                truth: None,
                rng,
                counts: DiskCounts::default(),
            }),
            data: RwLock::default(),
        })
    }

    /// Opens the store on it, see [`Disk::mount`](super::Disk::mount); a new one begins with `first`.
    pub(super) fn mount(
        self: &Arc<Device>,
        env: &Env,
        schema: &Schema,
        first: Option<&Batch>,
    ) -> Result<MemStore, OpenError> {
        let path = || self.name.clone().into();
        let mut state = self.state.lock();
        if state.mounted.is_some() {
            return Err(OpenError::Locked {
                path: path(),
                holder: None,
            });
        }
        let is_new = state.kind.is_none();
        match state.kind {
            Some((found, _)) if found != schema.kind => {
                return Err(OpenError::WrongKind {
                    path: path(),
                    found: found.to_owned(),
                    wanted: schema.kind,
                });
            }
            Some((_, found)) if found > schema.version => {
                return Err(OpenError::TooNew {
                    path: path(),
                    found,
                    supported: schema.version,
                });
            }
            Some(_) | None => {}
        }
        state.kind = Some((schema.kind, schema.version));
        state.mounts += 1;
        let number = state.mounts;
        let news = Arc::new(Notify::new());
        state.mounted = Some(Mounted {
            number,
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            under_way: Vec::new(),
            news: news.clone(),
        });
        drop(state);
        let mut data = self.data.write();
        data.create(&schema.families);
        if let Some(first) = first.filter(|_| is_new) {
            data.apply(first);
        }
        drop(data);
        env.spawn(store::write(self.clone(), env.clone(), number, news));
        Ok(MemStore::new(self.clone(), number))
    }

    /// Takes it away from its node in mid-flow.
    pub(super) fn crash(&self) -> Crashed {
        let mut state = self.state.lock();
        let mut data = self.data.write();
        let mut crashed = Crashed::default();
        if let Some(mounted) = state.mounted.take() {
            let written = mounted.under_way.len() as u64;
            (crashed.kept, crashed.torn) = tear(&mut state, &mut data, &mounted.under_way);
            crashed.lost = written - crashed.kept + mounted.waiting.len() as u64;
            mounted.news.notify_one();
        }
        if let Some((truth, files)) = state.truth.clone() {
            *data = truth;
            state.files = files;
        }
        state.counts.crashes += 1;
        state.counts.lost += crashed.lost;
        crashed
    }

    pub(super) fn set_capacity(&self, bytes: u64) {
        self.state.lock().capacity = bytes;
    }

    pub(super) fn set_full(&self, full: bool) {
        self.set_capacity(if full { 0 } else { self.config.capacity });
    }

    pub(super) fn set_slowdown(&self, times: u32) {
        self.state.lock().slowdown = times.max(1);
    }

    pub(super) fn set_stalled(&self, stalled: bool) {
        let mut state = self.state.lock();
        state.stalled = stalled;
        if let Some(mounted) = &state.mounted {
            mounted.news.notify_one();
        }
    }

    pub(super) fn fail_writes(&self, writes: u32) {
        self.state.lock().failing = writes;
    }

    pub(super) fn set_lying(&self, lying: bool) {
        let mut state = self.state.lock();
        let now = || (self.data.read().clone(), state.files.clone());
        state.truth = lying.then(now);
    }

    pub(super) fn free_bytes(&self) -> u64 {
        self.free(&self.state.lock())
    }

    pub(super) fn used_bytes(&self) -> u64 {
        self.used(&self.state.lock())
    }

    pub(super) fn backlog(&self) -> (usize, usize) {
        let state = self.state.lock();
        let mounted = state.mounted.as_ref();
        mounted.map_or((0, 0), |m| (m.waiting.len(), m.waiting_bytes))
    }

    pub(super) fn counts(&self) -> DiskCounts {
        self.state.lock().counts
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    fn used(&self, state: &State) -> u64 {
        let files = state.files.values().map(SimFile::bytes);
        self.data.read().bytes() + files.sum::<u64>()
    }

    fn free(&self, state: &State) -> u64 {
        state.capacity.saturating_sub(self.used(state))
    }

    pub(super) fn submit(&self, mount: u64, batch: Batch) -> Result<Commit, SubmitError> {
        let bytes = batch.byte_len();
        if bytes > self.config.queue_bytes {
            return Err(SubmitError::TooLarge(batch));
        }
        let mut state = self.state.lock();
        let Some(mounted) = state.mounted.as_mut().filter(|m| m.number == mount) else {
            return Err(SubmitError::Closed(batch));
        };
        let full = mounted.waiting.len() >= self.config.queue_batches
            || mounted.waiting_bytes + bytes > self.config.queue_bytes;
        if full {
            return Err(SubmitError::Busy(batch));
        }
        let (settle, commit) = commit_channel();
        mounted.waiting_bytes += bytes;
        mounted.waiting.push_back(Queued { batch, settle });
        mounted.news.notify_one();
        Ok(commit)
    }

    /// Takes the next group, and says how long writing it takes.
    pub(super) fn begin(&self, mount: u64) -> Next {
        let mut state = self.state.lock();
        let (stalled, speed, slowdown) = (state.stalled, state.speed, state.slowdown);
        let Some(mounted) = state.mounted.as_mut().filter(|m| m.number == mount) else {
            return Next::Over;
        };
        if stalled || mounted.waiting.is_empty() {
            return Next::Wait;
        }
        let bytes = mounted.take_group(self.config.group_bytes);
        // Three quarters to five quarters.
        let dice = state.rng.next_u64() % 512;
        let sync = speed.sync.saturating_mul(768 + dice as u32) / 1024;
        let rate = speed.bytes_per_second.max(1);
        let nanos = (bytes as u128 * 1_000_000_000) / u128::from(rate);
        let moved = Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX));
        Next::Write((sync + moved).saturating_mul(slowdown))
    }

    /// The group that is under way has been written, or has not.
    pub(super) fn end(&self, mount: u64) {
        let mut state = self.state.lock();
        let Some(mounted) = state.mounted.as_mut().filter(|m| m.number == mount) else {
            return;
        };
        let group = std::mem::take(&mut mounted.under_way);
        let told = self.write(&mut state, group);
        drop(state);
        for (settle, result) in told {
            settle.settle(result);
        }
    }

    /// Writes what waits at once and lets go: a store that is closed in order.
    pub(super) fn close(&self, mount: u64) {
        let mut state = self.state.lock();
        let Some(mut mounted) = state.mounted.take_if(|m| m.number == mount) else {
            return;
        };
        mounted.news.notify_one();
        let mut group = std::mem::take(&mut mounted.under_way);
        group.extend(mounted.waiting.drain(..));
        let told = if group.is_empty() {
            Vec::new()
        } else {
            self.write(&mut state, group)
        };
        drop(state);
        for (settle, result) in told {
            settle.settle(result);
        }
    }

    fn write(
        &self,
        state: &mut State,
        group: Vec<Queued>,
    ) -> Vec<(Settle, Result<(), WriteError>)> {
        let mut told = Vec::with_capacity(group.len());
        let mut kept = Vec::with_capacity(group.len());
        let free = self.free(state);
        let mut data = self.data.write();
        // One caller's bug does not fail the batches that share its write.
        for queued in group {
            match queued.batch.families().iter().find(|f| !data.has(f)) {
                Some(unknown) => {
                    told.push((queued.settle, Err(WriteError::UnknownFamily(unknown.0))));
                }
                None => kept.push(queued),
            }
        }
        if kept.is_empty() {
            return told;
        }
        let bytes: u64 = kept.iter().map(|q| q.batch.byte_len() as u64).sum();
        let result = if free < self.config.reserve.saturating_add(bytes) {
            Err(WriteError::Full {
                detail: format!(
                    "{free} bytes free on {}, {} are kept in reserve",
                    self.name, self.config.reserve
                ),
            })
        } else if state.failing > 0 {
            state.failing -= 1;
            tear(state, &mut data, &kept);
            Err(WriteError::Io {
                detail: format!("{} was told to fail", self.name),
            })
        } else {
            kept.iter().for_each(|queued| data.apply(&queued.batch));
            state.counts.groups += 1;
            state.counts.batches += kept.len() as u64;
            state.counts.bytes += bytes;
            Ok(())
        };
        state.counts.failures += u64::from(result.is_err());
        told.extend(kept.into_iter().map(|q| (q.settle, result.clone())));
        told
    }

    pub(super) fn view(
        &self,
        mount: Option<u64>,
        read: &mut dyn FnMut(&dyn View) -> Result<(), ReadError>,
    ) -> Result<(), ReadError> {
        if let Some(mount) = mount {
            let state = self.state.lock();
            if state.mounted.as_ref().is_none_or(|m| m.number != mount) {
                return Err(ReadError::Closed);
            }
        }
        read(&*self.data.read())
    }

    pub(super) fn file(&self, kind: Kind) -> Option<SimFile> {
        self.state.lock().files.get(&kind).cloned()
    }

    /// False when there is no room.
    pub(super) fn replace_file(&self, kind: Kind, file: SimFile) -> bool {
        let mut state = self.state.lock();
        let fits = self.free(&state) >= file.bytes();
        if fits {
            state.files.insert(kind, file);
        }
        fits
    }
}

impl Mounted {
    /// Moves the oldest batches under way, at least one; their bytes.
    fn take_group(&mut self, limit: usize) -> usize {
        let mut taken = 0;
        while let Some(next) = self.waiting.front() {
            let bytes = next.batch.byte_len();
            if !self.under_way.is_empty() && taken + bytes > limit {
                break;
            }
            taken += bytes;
            self.waiting_bytes -= bytes;
            self.under_way.extend(self.waiting.pop_front());
        }
        taken
    }
}

/// Some bytes of the group have reached the disk. Batches wholly in them are kept, the one that is torn is not: how many
/// are kept, and whether one is torn.
fn tear(state: &mut State, data: &mut Data, group: &[Queued]) -> (u64, bool) {
    // A batch without bytes takes one, so that it too is there or not.
    let lengths = group.iter().map(|q| q.batch.byte_len().max(1) as u64);
    let total: u64 = lengths.clone().sum();
    // A quarter of the times all of it: then only the word that it is there was lost.
    let reached = match state.rng.next_u64() % 4 {
        0 => total,
        _ => state.rng.next_u64() % (total + 1),
    };
    let mut end = 0;
    let mut kept = 0;
    for (queued, length) in group.iter().zip(lengths) {
        if end + length > reached {
            break;
        }
        end += length;
        kept += 1;
        data.apply(&queued.batch);
    }
    let torn = reached > end;
    state.counts.torn += u64::from(torn);
    (kept, torn)
}
