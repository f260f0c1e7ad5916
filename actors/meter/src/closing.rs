//! Makes one batch of a window: what is new, signed, beside what was kept. Blocks; runs off the actor's thread.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use pqcnet_crypto::{NodeId, NodeKeys};
use pqcnet_messages::metering::{CreateReport, Sums, Volume, VolumeTaken};
use pqcnet_messages::{Receipt, ShardId};
use pqcnet_store::{Batch, Store, View};

use crate::core::ledger::{
    Entry, Posted, ShardMark, begins_anew, delivered_key, minus, plus, post_delivered, post_stored,
};
use crate::core::record::{Qos, RecordKey, VolumeRecord};
use crate::core::report::{
    MAX_GRANTS, MAX_RECEIPTS, MAX_WINDOWS, Parts, Report, covers, receipt_key,
};
use crate::core::window::{Chain, MAX_RECORDS, Window};
use crate::disk::{self, DiskError, Standing};

/// Records of all windows that are closed at once; shards beyond it wait for the next time.
const MAX_AT_ONCE: usize = 16 * MAX_RECORDS;
/// Largest report that is made while the node runs: it is held in memory.
pub const MAX_REPORT: usize = 64 << 20;

/// Who meters.
#[derive(Clone)]
pub struct Identity {
    /// Signs.
    pub keys: Arc<NodeKeys>,
    /// The network.
    pub network_id: [u8; 32],
    /// Windows that are kept.
    pub keep: u64,
}

/// What a window is made of.
pub struct Closing {
    /// Where the meter stands; the chain begins at `start_ms` if there is none.
    pub standing: Standing,
    /// When the first window begins.
    pub start_ms: u64,
    /// When this one ends, and how long of it the relayer ran.
    pub end: (u64, u64),
    /// The workers' readings.
    pub taken: Vec<VolumeTaken>,
    /// What receivers signed, with the series that they were asked about.
    pub signed: Vec<(RecordKey, Receipt)>,
}

/// What came of it.
pub struct Closed {
    /// To be written.
    pub batch: Batch,
    /// Where the meter stands once it is.
    pub standing: Standing,
    /// Up to where each open series is signed for.
    pub receipted: BTreeMap<RecordKey, u64>,
    /// What was added.
    pub added: Sums,
    /// Receipts that were taken.
    pub accepted: u64,
    /// Receipts that prove nothing.
    pub refused: u64,
}

/// Makes the batch.
///
/// # Errors
/// What is kept does not read.
pub fn close(who: &Identity, store: &dyn Store, mut closing: Closing) -> Result<Closed, DiskError> {
    // The closure runs once; what it consumes is taken out of `closing`.
    disk::on_snapshot(store, |view| {
        let mut work = Work {
            who,
            view,
            batch: Batch::new(),
            sums: BTreeMap::new(),
            posted: BTreeSet::new(),
            added: Sums::default(),
        };
        let mut standing = std::mem::take(&mut closing.standing);
        let receipted = work.receipts(&std::mem::take(&mut closing.signed))?;
        let taken = std::mem::take(&mut closing.taken);
        let (posted, marks) = work.post(&standing, &taken, &receipted.fresh)?;
        let chain = standing.chain.unwrap_or(Chain::new(closing.start_ms));
        standing.chain = Some(work.windows(chain, closing.end, posted));
        standing.oldest = work.forget_old(&standing)?;
        for (shard, mark) in marks {
            disk::put_mark(&mut work.batch, shard, &mark);
            standing.shards.insert(shard, mark);
        }
        work.finish(&mut standing)?;
        let mut open = receipted.last;
        for delivered in taken.iter().flat_map(|taken| &taken.delivered) {
            let key = delivered_key(delivered);
            if delivered.ask.is_some() && !open.contains_key(&key) {
                let last = disk::receipts(view, &key)?;
                let last = last.iter().map(|receipt| receipt.statement.last).max();
                open.insert(key, last.unwrap_or(delivered.after));
            }
        }
        Ok(Closed {
            batch: work.batch,
            standing,
            receipted: open,
            added: work.added,
            accepted: receipted.accepted,
            refused: receipted.refused,
        })
    })
}

struct Receipted {
    /// Receipts that were taken now.
    fresh: BTreeMap<RecordKey, Receipt>,
    last: BTreeMap<RecordKey, u64>,
    accepted: u64,
    refused: u64,
}

struct Work<'a> {
    who: &'a Identity,
    view: &'a dyn View,
    batch: Batch,
    /// Of customers that something was added to.
    sums: BTreeMap<NodeId, Sums>,
    /// What this batch counts.
    posted: BTreeSet<RecordKey>,
    added: Sums,
}

impl Work<'_> {
    /// Takes the receipts that prove what they should.
    fn receipts(&mut self, signed: &[(RecordKey, Receipt)]) -> Result<Receipted, DiskError> {
        let mut receipted = Receipted {
            fresh: BTreeMap::new(),
            last: BTreeMap::new(),
            accepted: 0,
            refused: 0,
        };
        for (key, receipt) in signed {
            match self.receipt(key, receipt)? {
                Some(gained) => {
                    receipted.accepted += 1;
                    receipted.last.insert(key.clone(), receipt.statement.last);
                    receipted.fresh.insert(key.clone(), receipt.clone());
                    disk::put_receipt(&mut self.batch, key, receipt);
                    let of = self.sums.entry(key.customer).or_default();
                    of.receipted = plus(of.receipted, gained);
                }
                None => {
                    receipted.refused += 1;
                    let receiver = key.customer;
                    tracing::warn!(%receiver, "a receipt was refused");
                }
            }
        }
        Ok(receipted)
    }

    /// What a receipt adds to the ones before; `None` if it proves nothing.
    fn receipt(&self, key: &RecordKey, receipt: &Receipt) -> Result<Option<Volume>, DiskError> {
        let statement = &receipt.statement;
        if receipt_key(receipt) != *key || statement.relayer != self.who.keys.node_id() {
            return Ok(None);
        }
        let grants = disk::grants(self.view, &key.customer)?;
        let Some(signer) = grants.last().map(|grant| &grant.customer) else {
            return Ok(None);
        };
        let volume = Volume {
            frames: statement.frames,
            bytes: statement.bytes,
        };
        let mut before = Volume::default();
        for earlier in disk::receipts(self.view, key)? {
            let earlier = earlier.statement;
            if earlier.after == statement.after {
                before = Volume {
                    frames: earlier.frames,
                    bytes: earlier.bytes,
                };
            } else if earlier.after < statement.last && statement.after < earlier.last {
                return Ok(None);
            }
        }
        if receipt.verify(&self.who.network_id, signer).is_err() {
            return Ok(None);
        }
        Ok(minus(volume, before))
    }

    /// Counts what is new, shard by shard.
    fn post(
        &mut self,
        standing: &Standing,
        taken: &[VolumeTaken],
        fresh: &BTreeMap<RecordKey, Receipt>,
    ) -> Result<(Vec<Keyed>, Marks), DiskError> {
        let (mut posted, mut marks) = (Vec::new(), Vec::new());
        for taken in taken {
            if !posted.is_empty()
                && posted.len() + taken.stored.len() + taken.delivered.len() > MAX_AT_ONCE
            {
                break;
            }
            let anew = begins_anew(standing.shards.get(&taken.shard), taken, standing.whole);
            for stored in &taken.stored {
                let key = crate::core::ledger::stored_key(stored);
                let prior = disk::entry(self.view, &key)?;
                posted.push((key, post_stored(prior, stored, anew)));
            }
            for delivered in &taken.delivered {
                let key = delivered_key(delivered);
                let prior = disk::entry(self.view, &key)?;
                let mut receipts = disk::receipts(self.view, &key)?;
                let fresh = fresh.get(&key);
                if let Some(fresh) = fresh {
                    receipts.retain(|r| r.statement.after != fresh.statement.after);
                    receipts.push(fresh.clone());
                }
                let counted = post_delivered(prior, delivered, &receipts, fresh.is_some());
                posted.push((key, counted));
            }
            marks.push((taken.shard, disk::mark_of(taken.moves, taken.reading)));
        }
        posted.sort_by(|a, b| a.0.cmp(&b.0));
        Ok((posted, marks))
    }

    /// Closes as many windows as the records need, at least one.
    fn windows(&mut self, chain: Chain, (end_ms, up_ms): (u64, u64), posted: Vec<Keyed>) -> Chain {
        let mut chain = chain;
        let mut up_ms = up_ms;
        let mut rest = posted.into_iter().peekable();
        loop {
            let (mut records, mut entries): (Vec<VolumeRecord>, Vec<(RecordKey, Entry)>) =
                (Vec::new(), Vec::new());
            while records.len() < MAX_RECORDS
                && let Some((key, Posted { entry, record })) = rest.next()
            {
                let mut entry = entry;
                if record.is_some() {
                    entry.window = chain.number + 1;
                }
                records.extend(record);
                entries.push((key, entry));
            }
            let who = self.who;
            let end = (end_ms, up_ms);
            let window = Window::close(&who.keys, who.network_id, &chain, end, records);
            up_ms = 0;
            disk::put_window(&mut self.batch, &window);
            for (key, entry) in entries {
                disk::put_entry(&mut self.batch, &key, &entry);
                self.posted.insert(key);
            }
            for record in &window.records {
                let of = self.sums.entry(record.key.customer).or_default();
                let sum = match record.key.qos {
                    Qos::Stored => &mut of.stored,
                    Qos::Delivered => &mut of.delivered,
                };
                *sum = plus(*sum, record.volume);
            }
            chain = Chain::behind(&window.head);
            if rest.peek().is_none() {
                return chain;
            }
        }
    }

    /// Removes windows beyond those that are kept, and series and grants that none of the others speaks of.
    fn forget_old(&mut self, standing: &Standing) -> Result<u64, DiskError> {
        let newest = standing.chain.map_or(0, |chain| chain.number);
        let oldest = (newest + 1)
            .saturating_sub(self.who.keep)
            .max(standing.oldest);
        for number in standing.oldest..oldest {
            let Some(window) = disk::window(self.view, number)? else {
                continue;
            };
            let mut customers = BTreeSet::new();
            for record in &window.records {
                customers.insert(record.key.customer);
                let entry = disk::entry(self.view, &record.key)?;
                let ended = record.key.qos == Qos::Delivered
                    && !self.posted.contains(&record.key)
                    && entry.is_some_and(|entry| entry.window == number);
                if ended {
                    disk::forget(&mut self.batch, &record.key);
                }
            }
            for customer in &customers {
                let before = window.head.start_ms;
                disk::forget_grants(self.view, &mut self.batch, customer, before)?;
            }
            self.batch.delete(disk::WINDOW, &number.to_be_bytes());
        }
        Ok(oldest)
    }

    fn finish(&mut self, standing: &mut Standing) -> Result<(), DiskError> {
        for (customer, added) in &self.sums {
            let mut sums = disk::customer(self.view, customer)?;
            for sums in [&mut sums, &mut standing.sums, &mut self.added] {
                sums.stored = plus(sums.stored, added.stored);
                sums.delivered = plus(sums.delivered, added.delivered);
                sums.receipted = plus(sums.receipted, added.receipted);
            }
            disk::put_customer(&mut self.batch, customer, &sums);
        }
        if let Some(chain) = &standing.chain {
            disk::put_standing(&mut self.batch, chain, standing.oldest, &standing.sums);
        }
        Ok(())
    }
}

/// A channel is of one shard, so that no key comes twice.
type Keyed = (RecordKey, Posted);
/// Readings that a batch has.
type Marks = Vec<(ShardId, ShardMark)>;

/// The first of the windows behind which none is another identity's, or missing.
fn own_windows(
    own: &NodeId,
    store: &dyn Store,
    windows: std::ops::RangeInclusive<u64>,
) -> Result<u64, String> {
    let (oldest, newest) = windows.into_inner();
    let begins = disk::on_snapshot(store, |view| {
        for number in (oldest..=newest).rev() {
            let window = disk::window(view, number)?;
            if window.is_none_or(|window| window.head.relayer != *own) {
                return Ok(number + 1);
            }
        }
        Ok(oldest)
    });
    begins.map_err(|error| error.to_string())
}

/// Makes a report; blocks.
///
/// # Errors
/// In words: what is kept does not read, or what was asked for is not there.
pub fn report(
    who: &Identity,
    store: &dyn Store,
    standing: &Standing,
    now_ms: u64,
    asked: CreateReport,
) -> Result<Bytes, String> {
    let newest = standing.chain.map_or(0, |chain| chain.number);
    if newest == 0 {
        return Err("no window is closed yet".to_owned());
    }
    let to = asked.to.unwrap_or(newest);
    let own = who.keys.node_id();
    // A report has one signer and no hole: it can not reach back behind the windows of an identity that this one succeeded, nor behind a restoration.
    let begins = own_windows(&own, store, standing.oldest..=to.min(newest))?;
    let from = asked.from.unwrap_or(begins);
    if from < begins && from >= standing.oldest {
        return Err(format!(
            "windows before {begins} were closed under an identity that {own} succeeded, or before the store was restored: ask for windows from {begins} on, or for some of those before"
        ));
    }
    let (oldest, count) = (standing.oldest, to.saturating_sub(from).saturating_add(1));
    if from < oldest || to > newest || from > to {
        return Err(format!(
            "windows {oldest} to {newest} are here, not {from} to {to}"
        ));
    }
    if count > MAX_WINDOWS as u64 {
        return Err(format!(
            "{count} windows are too many for one report: {MAX_WINDOWS} at most"
        ));
    }
    let parts = disk::on_snapshot(store, |view| {
        let mut parts = Parts::default();
        let mut series = BTreeSet::new();
        for number in from..=to {
            let Some(window) = disk::window(view, number)? else {
                continue;
            };
            series.extend(window.records.iter().map(|record| record.key.clone()));
            parts.windows.push(window);
        }
        let customers: BTreeSet<NodeId> = series.iter().map(|key| key.customer).collect();
        for customer in &customers {
            let mut grants = disk::grants(view, customer)?;
            let newest = grants.pop();
            let heads = || parts.windows.iter().map(|window| &window.head);
            grants.retain(|grant| heads().any(|head| covers(grant, head)));
            parts.grants.extend(grants);
            parts.grants.extend(newest);
        }
        for key in series.iter().filter(|key| key.qos == Qos::Delivered) {
            let receipts = disk::receipts(view, key)?.into_iter();
            let of_own = receipts.filter(|receipt| receipt.statement.relayer == own);
            parts.receipts.extend(of_own);
        }
        Ok(parts)
    });
    let parts = parts.map_err(|error| error.to_string())?;
    let missing = count - parts.windows.len() as u64;
    if missing > 0 {
        return Err(format!("{missing} of these windows are not on the disk"));
    }
    if parts.grants.len() > MAX_GRANTS || parts.receipts.len() > MAX_RECEIPTS {
        return Err(
            "too many grants and receipts for one report: ask for fewer windows".to_owned(),
        );
    }
    let report = Report::create(&who.keys, who.network_id, now_ms, parts);
    if report.len() > MAX_REPORT {
        let mib = report.len() >> 20;
        return Err(format!("the report has {mib} MiB: ask for fewer windows"));
    }
    Ok(report.into())
}
