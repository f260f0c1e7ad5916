//! The report: windows of one relayer with the grants and receipts that back them, in one signed file.
//! Spec: docs/spec/metering.md §4.

use std::collections::{BTreeMap, BTreeSet};

use pqcnet_crypto::{MlDsaSignature, NodeId, NodeKeys, NodePublic, sha256};
use pqcnet_messages::metering::Volume;
use pqcnet_messages::{GRANT_SKEW_MS, Grant, Receipt};

use super::bytes::{Malformed, Reader, put, put_count};
use super::ledger::plus;
use super::record::{Qos, RecordKey};
use super::window::{Head, Window};

const CONTEXT: &[u8] = b"pqcnet/report/1";
const SIGNED: &[u8] = b"pqcnet/report/1/signed";
/// Windows of one report: eleven days of one a minute.
pub const MAX_WINDOWS: usize = 16_384;
/// Grants of one report.
pub const MAX_GRANTS: usize = 65_536;
/// Receipts of one report.
pub const MAX_RECEIPTS: usize = 65_536;
/// Largest report: what a tool reads at once.
pub const MAX_BYTES: usize = 256 << 20;

/// How a relayer performed: volume, receipts, uptime.
#[derive(Debug, Clone)]
pub struct Report {
    /// The network.
    pub network_id: [u8; 32],
    /// Who reports.
    pub relayer: NodePublic,
    /// When, by its own clock.
    pub created_at_ms: u64,
    /// In order, without a hole; at least one.
    pub windows: Vec<Window>,
    /// Of the customers, sorted by [`grant_order`], each once.
    pub grants: Vec<Grant>,
    /// The last one of each series and relayer's account, sorted by [`receipt_order`], each once.
    pub receipts: Vec<Receipt>,
    /// What the relayer says that this amounts to.
    pub stated: Stated,
    /// ML-DSA-65 over `"pqcnet/report/1/signed" ‖ SHA-256` of everything before it.
    pub signature: MlDsaSignature,
}

/// What a report amounts to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stated {
    /// Published and durable.
    pub stored: Volume,
    /// Of that, of customers without a grant at the time.
    pub stored_ungranted: Volume,
    /// Sent to receivers.
    pub delivered: Volume,
    /// Of that, of receivers without a grant at the time.
    pub delivered_ungranted: Volume,
    /// Of what was delivered, signed for. The rest is unreceipted: the relayer's word alone.
    pub receipted: Volume,
    /// How long the relayer ran.
    pub up_ms: u64,
    /// From the first window's start to the last one's end.
    pub span_ms: u64,
}

impl Stated {
    /// Delivered and not signed for.
    pub fn unreceipted(&self) -> Volume {
        Volume {
            frames: self.delivered.frames.saturating_sub(self.receipted.frames),
            bytes: self.delivered.bytes.saturating_sub(self.receipted.bytes),
        }
    }

    fn numbers(&self) -> [u64; 12] {
        let volumes = [
            self.stored,
            self.stored_ungranted,
            self.delivered,
            self.delivered_ungranted,
            self.receipted,
        ];
        let mut out = [0; 12];
        for (index, volume) in volumes.into_iter().enumerate() {
            out[index * 2] = volume.frames;
            out[index * 2 + 1] = volume.bytes;
        }
        out[10] = self.up_ms;
        out[11] = self.span_ms;
        out
    }

    fn read(read: &mut Reader<'_>) -> Result<Stated, Malformed> {
        let what = "the report's sums";
        let volume = |read: &mut Reader<'_>| {
            Ok::<_, Malformed>(Volume {
                frames: read.u64(what)?,
                bytes: read.u64(what)?,
            })
        };
        Ok(Stated {
            stored: volume(read)?,
            stored_ungranted: volume(read)?,
            delivered: volume(read)?,
            delivered_ungranted: volume(read)?,
            receipted: volume(read)?,
            up_ms: read.u64(what)?,
            span_ms: read.u64(what)?,
        })
    }
}

/// One line of the account.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Line {
    /// In these windows.
    pub volume: Volume,
    /// Of that, without a grant at the time.
    pub ungranted: Volume,
    /// Of what was delivered, signed for.
    pub receipted: Volume,
    /// What had been counted before the first window.
    pub before: Volume,
    /// What had been counted when the last one was closed.
    pub total: Volume,
    /// The highest offset.
    pub last: u64,
}

/// What windows, grants and receipts amount to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Account {
    /// By what was counted.
    pub lines: BTreeMap<RecordKey, Line>,
    /// All together.
    pub sums: Stated,
}

/// Adds everything up. Nothing is judged here but which grant and which receipt belongs where.
pub fn account(windows: &[Window], grants: &[Grant], receipts: &[Receipt]) -> Account {
    let mut account = Account::default();
    let mut granted: BTreeMap<NodeId, Vec<&Grant>> = BTreeMap::new();
    for grant in grants {
        let of = granted.entry(grant.customer.node_id()).or_default();
        of.push(grant);
    }
    for window in windows {
        let head = &window.head;
        account.sums.up_ms = account.sums.up_ms.saturating_add(head.up_ms);
        for record in &window.records {
            let grants = granted.get(&record.key.customer);
            let holds = grants.is_some_and(|grants| grants.iter().any(|grant| covers(grant, head)));
            let line = account.lines.entry(record.key.clone()).or_insert(Line {
                volume: Volume::default(),
                ungranted: Volume::default(),
                receipted: Volume::default(),
                before: record.before().unwrap_or_default(),
                total: record.total,
                last: record.last,
            });
            line.volume = plus(line.volume, record.volume);
            line.total = record.total;
            line.last = line.last.max(record.last);
            if !holds {
                line.ungranted = plus(line.ungranted, record.volume);
            }
        }
    }
    if let (Some(first), Some(last)) = (windows.first(), windows.last()) {
        account.sums.span_ms = last.head.end_ms.saturating_sub(first.head.start_ms);
    }
    let mut signed: BTreeMap<RecordKey, Volume> = BTreeMap::new();
    for receipt in receipts {
        let (frames, bytes) = (receipt.statement.frames, receipt.statement.bytes);
        let sum = signed.entry(receipt_key(receipt)).or_default();
        *sum = plus(*sum, Volume { frames, bytes });
    }
    for (key, line) in &mut account.lines {
        if let Some(signed) = signed.get(key) {
            // Receipts count from the series' beginning: what they hold beyond the earlier windows is of these.
            let within =
                |signed: u64, before: u64, total: u64| signed.min(total).saturating_sub(before);
            line.receipted = Volume {
                frames: within(signed.frames, line.before.frames, line.total.frames),
                bytes: within(signed.bytes, line.before.bytes, line.total.bytes),
            };
        }
        let sums = &mut account.sums;
        match key.qos {
            Qos::Stored => {
                sums.stored = plus(sums.stored, line.volume);
                sums.stored_ungranted = plus(sums.stored_ungranted, line.ungranted);
            }
            Qos::Delivered => {
                sums.delivered = plus(sums.delivered, line.volume);
                sums.delivered_ungranted = plus(sums.delivered_ungranted, line.ungranted);
                sums.receipted = plus(sums.receipted, line.receipted);
            }
        }
    }
    account
}

/// Whether a grant held at any time of the window, as far as clocks agree.
pub fn covers(grant: &Grant, head: &Head) -> bool {
    grant.issued_at_ms <= head.end_ms.saturating_add(GRANT_SKEW_MS)
        && grant.expires_at_ms().saturating_add(GRANT_SKEW_MS) >= head.start_ms
}

/// Which records a receipt is about.
pub fn receipt_key(receipt: &Receipt) -> RecordKey {
    let statement = &receipt.statement;
    RecordKey {
        qos: Qos::Delivered,
        customer: statement.receiver,
        channel: statement.channel.clone(),
        series: statement.series,
    }
}

/// How receipts are sorted.
pub fn receipt_order(receipt: &Receipt) -> (RecordKey, u64) {
    (receipt_key(receipt), receipt.statement.after)
}

/// How grants are sorted.
pub fn grant_order(grant: &Grant) -> (NodeId, u64, [u8; 16]) {
    (grant.customer.node_id(), grant.issued_at_ms, grant.nonce)
}

/// What a report is made of.
#[derive(Debug, Clone, Default)]
pub struct Parts {
    /// In order, without a hole.
    pub windows: Vec<Window>,
    /// Any that might be needed.
    pub grants: Vec<Grant>,
    /// Any that might be needed, the last of each account.
    pub receipts: Vec<Receipt>,
}

impl Report {
    /// Signs a report of these windows, with those grants and receipts that they need (about 150 µs and the hash of it all).
    pub fn create(
        keys: &NodeKeys,
        network_id: [u8; 32],
        created_at_ms: u64,
        parts: Parts,
    ) -> Vec<u8> {
        let Parts {
            windows,
            mut grants,
            mut receipts,
        } = parts;
        let records = windows.iter().flat_map(|window| &window.records);
        let keys_here: BTreeSet<&RecordKey> = records.map(|record| &record.key).collect();
        let customers: BTreeSet<NodeId> = keys_here.iter().map(|key| key.customer).collect();
        grants.retain(|grant| customers.contains(&grant.customer.node_id()));
        grants.sort_by_key(grant_order);
        grants.dedup_by_key(|grant| grant_order(grant));
        let known: BTreeSet<NodeId> = grants.iter().map(|g| g.customer.node_id()).collect();
        // Without a grant nobody could tell whose signature it is.
        receipts.retain(|receipt| {
            keys_here.contains(&receipt_key(receipt)) && known.contains(&receipt.statement.receiver)
        });
        receipts.sort_by_key(receipt_order);
        receipts.dedup_by_key(|receipt| receipt_order(receipt));
        let stated = account(&windows, &grants, &receipts).sums;

        let mut out = CONTEXT.to_vec();
        out.extend_from_slice(&network_id);
        out.extend_from_slice(&keys.public().to_bytes());
        put(&mut out, [created_at_ms]);
        put_count(&mut out, windows.len());
        for window in &windows {
            window.put(&mut out);
        }
        put_count(&mut out, grants.len());
        for grant in &grants {
            put_item(&mut out, &grant.to_bytes());
        }
        put_count(&mut out, receipts.len());
        for receipt in &receipts {
            put_item(&mut out, &receipt.to_bytes());
        }
        put(&mut out, stated.numbers());
        let signature = keys.sign_ml_dsa(&signed(&out));
        out.extend_from_slice(signature.as_bytes());
        out
    }

    /// Reads a report's form. What it says is not judged: [`super::verify::verify`] does.
    ///
    /// # Errors
    /// Which part does not read, and where.
    pub fn read(bytes: &[u8]) -> Result<Report, Malformed> {
        let mut read = Reader::new(bytes);
        read.expect("the report's context", CONTEXT)?;
        let network_id = read.array("the network's id")?;
        let what = "the relayer's keys";
        let at = read.at();
        let relayer = NodePublic::from_bytes(read.slice(what, NodePublic::LEN)?)
            .map_err(|_| Malformed { what, at })?;
        let created_at_ms = read.u64("the report's time")?;
        let mut windows = Vec::new();
        for _ in 0..read.count("the number of windows", MAX_WINDOWS)? {
            windows.push(Window::read(&mut read)?);
        }
        let mut grants = Vec::new();
        for _ in 0..read.count("the number of grants", MAX_GRANTS)? {
            grants.push(item(&mut read, "a grant", Grant::from_bytes)?);
        }
        let mut receipts = Vec::new();
        for _ in 0..read.count("the number of receipts", MAX_RECEIPTS)? {
            receipts.push(item(&mut read, "a receipt", Receipt::from_bytes)?);
        }
        let stated = Stated::read(&mut read)?;
        let what = "the report's signature";
        let at = read.at();
        let signature = MlDsaSignature::from_slice(read.slice(what, MlDsaSignature::LEN)?)
            .map_err(|_| Malformed { what, at })?;
        read.end("the report's end")?;
        Ok(Report {
            network_id,
            relayer,
            created_at_ms,
            windows,
            grants,
            receipts,
            stated,
            signature,
        })
    }
}

/// What the signature of a report is over.
pub(super) fn signed(body: &[u8]) -> Vec<u8> {
    [SIGNED, &sha256(&[body])].concat()
}

fn put_item(out: &mut Vec<u8>, bytes: &[u8]) {
    put_count(out, bytes.len());
    out.extend_from_slice(bytes);
}

fn item<T, E>(
    read: &mut Reader<'_>,
    what: &'static str,
    of: impl Fn(&[u8]) -> Result<T, E>,
) -> Result<T, Malformed> {
    let at = read.at();
    let len = read.count(what, MAX_BYTES)?;
    of(read.slice(what, len)?).map_err(|_| Malformed { what, at })
}
