//! What a meter keeps, and where. All of a window is one batch, so it is on the disk whole or not at all. These functions
//! block: call them off the actor's thread.
//!
//! | family | key | value |
//! |---|---|---|
//! | `meter.state` | `chain` | last window's number u64, end_ms u64, hash 32; oldest window kept u64 |
//! | `meter.state` | `whole` | nothing; there when the log was made together with this store |
//! | `meter.state` | `sums` | six u64: frames and bytes stored, delivered, receipted |
//! | `meter.window` | number u64 | the window, as in a report |
//! | `meter.total` | a record's key | see [`Entry`] |
//! | `meter.receipt` | a record's key, after u64 | the last receipt of that account |
//! | `meter.grant` | customer 32, issued_at_ms u64, nonce 16 | the grant |
//! | `meter.shard` | shard u16 | moves u8, run u64, serial u64 of the last reading kept |
//! | `meter.customer` | customer 32 | as `sums` |

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use pqcnet_crypto::NodeId;
use pqcnet_messages::metering::{Reading, Sums, Volume};
use pqcnet_messages::{Grant, Receipt, ShardId};
use pqcnet_store::{Batch, Family, ReadError, Scan, Schema, Store, View};

use crate::core::bytes::{Malformed, Reader, put};
use crate::core::ledger::{Entry, ShardMark};
use crate::core::record::RecordKey;
use crate::core::window::{Chain, Window};

/// Where the chain stands, and sums.
pub const STATE: Family = Family("meter.state");
/// Closed windows.
pub const WINDOW: Family = Family("meter.window");
/// What was counted of each key.
pub const TOTAL: Family = Family("meter.total");
/// Receivers' receipts.
pub const RECEIPT: Family = Family("meter.receipt");
/// Customers' grants.
pub const GRANT: Family = Family("meter.grant");
/// Readings of shards.
pub const SHARD: Family = Family("meter.shard");
/// Sums by customer.
pub const CUSTOMER: Family = Family("meter.customer");

const CHAIN: &[u8] = b"chain";
const SUMS: &[u8] = b"sums";
const WHOLE: &[u8] = b"whole";

/// How a meter's store is laid out.
pub fn schema() -> Schema {
    Schema {
        kind: "meter",
        version: 1,
        families: vec![STATE, WINDOW, TOTAL, RECEIPT, GRANT, SHARD, CUSTOMER],
    }
}

/// What is kept could not be read.
#[derive(Debug, Clone, thiserror::Error)]
pub enum DiskError {
    /// The store failed.
    #[error("the meter's store: {0}")]
    Read(String),
    /// A value that no version of this program wrote.
    #[error("the meter's store holds something else than it should in {family}: {what}")]
    Value {
        /// Where.
        family: &'static str,
        /// What was found.
        what: String,
    },
}

fn odd(family: Family) -> impl Fn(Malformed) -> DiskError {
    move |malformed| DiskError::Value {
        family: family.0,
        what: malformed.to_string(),
    }
}

/// Where a meter stands.
#[derive(Debug, Clone, Default)]
pub struct Standing {
    /// Behind the last window; `None` before the first.
    pub chain: Option<Chain>,
    /// The oldest window kept; 1 before the first.
    pub oldest: u64,
    /// Since metering began.
    pub sums: Sums,
    /// The log was made together with the meter's store: nothing was stored in it before there was a meter.
    pub whole: bool,
    /// The reading of each shard that was kept.
    pub shards: BTreeMap<ShardId, ShardMark>,
}

/// Reads on one snapshot.
pub fn on_snapshot<T>(
    store: &dyn Store,
    mut read: impl FnMut(&dyn View) -> Result<T, DiskError>,
) -> Result<T, DiskError> {
    let mut out = None;
    let viewed = store.view(&mut |view| {
        out = Some(read(view));
        Ok(())
    });
    viewed.map_err(of_read)?;
    out.unwrap_or_else(|| Err(DiskError::Read("nothing was read".to_owned())))
}

fn of_read(error: ReadError) -> DiskError {
    DiskError::Read(error.to_string())
}

/// Reads where the meter stands.
pub fn standing(store: &dyn Store) -> Result<Standing, DiskError> {
    on_snapshot(store, |view| {
        let mut standing = Standing {
            oldest: 1,
            ..Standing::default()
        };
        if let Some(value) = view.get(STATE, CHAIN).map_err(of_read)? {
            let (chain, oldest) = read_chain(&value).map_err(odd(STATE))?;
            standing.chain = Some(chain);
            standing.oldest = oldest;
        }
        if let Some(value) = view.get(STATE, SUMS).map_err(of_read)? {
            standing.sums = read_sums(&value).map_err(odd(STATE))?;
        }
        standing.whole = view.get(STATE, WHOLE).map_err(of_read)?.is_some();
        let mut fault = None;
        let all = Scan {
            from: &[],
            to: &[0xff; 3],
        };
        let visit = &mut |key: &[u8], value: &[u8]| match read_mark(key, value) {
            Ok((shard, mark)) => {
                standing.shards.insert(shard, mark);
                ControlFlow::Continue(())
            }
            Err(malformed) => {
                fault = Some(malformed);
                ControlFlow::Break(())
            }
        };
        view.scan(SHARD, all, visit).map_err(of_read)?;
        match fault {
            Some(malformed) => Err(odd(SHARD)(malformed)),
            None => Ok(standing),
        }
    })
}

fn read_chain(value: &[u8]) -> Result<(Chain, u64), Malformed> {
    let what = "where the chain stands";
    let mut read = Reader::new(value);
    let chain = Chain {
        number: read.u64(what)?,
        end_ms: read.u64(what)?,
        hash: read.array(what)?,
    };
    let oldest = read.u64(what)?;
    read.end(what)?;
    Ok((chain, oldest))
}

fn read_mark(key: &[u8], value: &[u8]) -> Result<(ShardId, ShardMark), Malformed> {
    let what = "a shard's reading";
    let mut read = Reader::new(key);
    let shard = ShardId(u16::from_be_bytes(read.array(what)?));
    read.end(what)?;
    let mut read = Reader::new(value);
    let mark = ShardMark {
        moves: read.u8(what)?,
        run: read.u64(what)?,
        serial: read.u64(what)?,
    };
    read.end(what)?;
    Ok((shard, mark))
}

fn read_sums(value: &[u8]) -> Result<Sums, Malformed> {
    let what = "sums";
    let mut read = Reader::new(value);
    let volume = |read: &mut Reader<'_>| {
        Ok::<_, Malformed>(Volume {
            frames: read.u64(what)?,
            bytes: read.u64(what)?,
        })
    };
    let sums = Sums {
        stored: volume(&mut read)?,
        delivered: volume(&mut read)?,
        receipted: volume(&mut read)?,
    };
    read.end(what)?;
    Ok(sums)
}

fn sums_bytes(sums: &Sums) -> Vec<u8> {
    let mut out = Vec::with_capacity(48);
    for volume in [sums.stored, sums.delivered, sums.receipted] {
        put(&mut out, [volume.frames, volume.bytes]);
    }
    out
}

/// Adds where the chain stands to a batch.
pub fn put_standing(batch: &mut Batch, chain: &Chain, oldest: u64, sums: &Sums) {
    let mut out = Vec::with_capacity(56);
    put(&mut out, [chain.number, chain.end_ms]);
    out.extend_from_slice(&chain.hash);
    put(&mut out, [oldest]);
    batch.put(STATE, CHAIN, &out);
    batch.put(STATE, SUMS, &sums_bytes(sums));
}

/// Notes that the log was made together with the meter's store, before anything is stored in it: a relayer that is killed before
/// its first window ends then still counts from the first record.
pub fn put_whole(batch: &mut Batch) {
    batch.put(STATE, WHOLE, &[]);
}

/// Adds a reading to a batch.
pub fn put_mark(batch: &mut Batch, shard: ShardId, mark: &ShardMark) {
    let mut out = vec![mark.moves];
    put(&mut out, [mark.run, mark.serial]);
    batch.put(SHARD, &shard.0.to_be_bytes(), &out);
}

/// The mark of a reading.
pub fn mark_of(moves: u8, reading: Reading) -> ShardMark {
    ShardMark {
        moves,
        run: reading.run,
        serial: reading.serial,
    }
}

/// Adds a window to a batch.
pub fn put_window(batch: &mut Batch, window: &Window) {
    let mut out = Vec::new();
    window.put(&mut out);
    batch.put(WINDOW, &window.head.number.to_be_bytes(), &out);
}

/// A window, while it is kept.
pub fn window(view: &dyn View, number: u64) -> Result<Option<Window>, DiskError> {
    let found = view.get(WINDOW, &number.to_be_bytes()).map_err(of_read)?;
    let Some(bytes) = found else { return Ok(None) };
    let mut read = Reader::new(&bytes);
    let window = Window::read(&mut read).map_err(odd(WINDOW))?;
    read.end("a window").map_err(odd(WINDOW))?;
    Ok(Some(window))
}

/// Adds what is counted of a key to a batch.
pub fn put_entry(batch: &mut Batch, key: &RecordKey, entry: &Entry) {
    batch.put(TOTAL, &key.to_bytes(), &entry.to_bytes());
}

/// What was counted of a key.
pub fn entry(view: &dyn View, key: &RecordKey) -> Result<Option<Entry>, DiskError> {
    let found = view.get(TOTAL, &key.to_bytes()).map_err(of_read)?;
    let entry = found.map(|bytes| Entry::from_bytes(&bytes));
    entry.transpose().map_err(odd(TOTAL))
}

/// Adds a receipt to a batch, in the place of an earlier one of the same account.
pub fn put_receipt(batch: &mut Batch, key: &RecordKey, receipt: &Receipt) {
    let mut name = key.to_bytes();
    put(&mut name, [receipt.statement.after]);
    batch.put(RECEIPT, &name, &receipt.to_bytes());
}

/// Removes a series and its receipts.
pub fn forget(batch: &mut Batch, key: &RecordKey) {
    let (from, to) = prefixed(&key.to_bytes(), 8);
    batch.delete_range(RECEIPT, &from, &to);
    batch.delete(TOTAL, &key.to_bytes());
}

/// The first key that begins with `prefix`, and one behind the last of those with `more` bytes behind it.
fn prefixed(prefix: &[u8], more: usize) -> (Vec<u8>, Vec<u8>) {
    let to = [prefix, &vec![0xff; more + 1]].concat();
    (prefix.to_vec(), to)
}

/// The receipts of one series.
pub fn receipts(view: &dyn View, key: &RecordKey) -> Result<Vec<Receipt>, DiskError> {
    let (from, to) = prefixed(&key.to_bytes(), 8);
    collect(view, RECEIPT, (&from, &to), Receipt::from_bytes)
}

/// Adds a grant to a batch.
pub fn put_grant(batch: &mut Batch, grant: &Grant) {
    let mut key = grant.customer.node_id().as_bytes().to_vec();
    put(&mut key, [grant.issued_at_ms]);
    key.extend_from_slice(&grant.nonce);
    batch.put(GRANT, &key, &grant.to_bytes());
}

/// A customer's grants, oldest first.
pub fn grants(view: &dyn View, customer: &NodeId) -> Result<Vec<Grant>, DiskError> {
    let (from, to) = prefixed(customer.as_bytes(), 24);
    collect(view, GRANT, (&from, &to), Grant::from_bytes)
}

/// Removes the grants of a customer that were over before, save the newest: its key is needed for receipts.
pub fn forget_grants(
    view: &dyn View,
    batch: &mut Batch,
    customer: &NodeId,
    before_ms: u64,
) -> Result<(), DiskError> {
    let mut grants = grants(view, customer)?;
    grants.pop();
    for grant in grants.iter().filter(|g| g.expires_at_ms() < before_ms) {
        let mut key = customer.as_bytes().to_vec();
        put(&mut key, [grant.issued_at_ms]);
        key.extend_from_slice(&grant.nonce);
        batch.delete(GRANT, &key);
    }
    Ok(())
}

fn collect<T, E: std::fmt::Display>(
    view: &dyn View,
    family: Family,
    (from, to): (&[u8], &[u8]),
    of: impl Fn(&[u8]) -> Result<T, E>,
) -> Result<Vec<T>, DiskError> {
    let (mut out, mut fault) = (Vec::new(), None);
    let visit = &mut |_: &[u8], value: &[u8]| match of(value) {
        Ok(item) => {
            out.push(item);
            ControlFlow::Continue(())
        }
        Err(error) => {
            fault = Some(error.to_string());
            ControlFlow::Break(())
        }
    };
    let scanned = view.scan(family, Scan { from, to }, visit);
    scanned.map_err(of_read)?;
    match fault {
        Some(what) => Err(DiskError::Value {
            family: family.0,
            what,
        }),
        None => Ok(out),
    }
}

/// Adds a customer's sums to a batch.
pub fn put_customer(batch: &mut Batch, customer: &NodeId, sums: &Sums) {
    batch.put(CUSTOMER, customer.as_bytes(), &sums_bytes(sums));
}

/// A customer's sums.
pub fn customer(view: &dyn View, customer: &NodeId) -> Result<Sums, DiskError> {
    let found = view.get(CUSTOMER, customer.as_bytes()).map_err(of_read)?;
    let sums = found.map(|bytes| read_sums(&bytes)).transpose();
    Ok(sums.map_err(odd(CUSTOMER))?.unwrap_or_default())
}

/// At most `limit` customers behind this one, ascending; and whether there are more.
pub fn customers(
    store: &dyn Store,
    after: Option<NodeId>,
    limit: usize,
) -> Result<(Vec<(NodeId, Sums)>, bool), DiskError> {
    on_snapshot(store, |view| {
        // One byte behind a key is the first key behind it.
        let from = after.map_or(Vec::new(), |after| [&after.as_bytes()[..], &[0]].concat());
        let to = [0xff; 33];
        let (mut out, mut fault, mut more) = (Vec::new(), None, false);
        let visit = &mut |key: &[u8], value: &[u8]| {
            if out.len() == limit {
                more = true;
                return ControlFlow::Break(());
            }
            match (NodeId::from_slice(key), read_sums(value)) {
                (Ok(customer), Ok(sums)) => out.push((customer, sums)),
                _ => {
                    fault = Some(Malformed {
                        what: "a customer's sums",
                        at: 0,
                    });
                    return ControlFlow::Break(());
                }
            }
            ControlFlow::Continue(())
        };
        let range = Scan {
            from: &from,
            to: &to,
        };
        view.scan(CUSTOMER, range, visit).map_err(of_read)?;
        match fault {
            Some(malformed) => Err(odd(CUSTOMER)(malformed)),
            None => Ok((std::mem::take(&mut out), more)),
        }
    })
}
