//! Judges a report with nothing but the network file: names the first thing that is wrong. Spec: docs/spec/metering.md §5.

use std::collections::{BTreeMap, BTreeSet};

use pqcnet_crypto::{NodeId, NodePublic};
use pqcnet_messages::metering::Volume;
use pqcnet_messages::{Grant, GrantError, Receipt, ReceiptError, Role};

use super::bytes::Malformed;
use super::ledger::plus;
use super::record::RecordKey;
use super::report::{Account, Report, account, grant_order, receipt_key, receipt_order, signed};
use super::window::{Chain, WindowFault};

/// Whom the network trusts with what.
pub trait Trust {
    /// Its id.
    fn network_id(&self) -> [u8; 32];
    /// Whether the node has the role.
    fn is(&self, node: &NodeId, role: Role) -> bool;
}

/// The first thing that is wrong with a report. Form comes before content; then it goes in the order of the file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// It does not read as a report.
    #[error("{0}")]
    Form(#[from] Malformed),
    /// Of another network than the network file's.
    #[error("the report is of another network")]
    Network,
    /// The network file names no such relayer, and none that it was shown to have succeeded.
    #[error("the network has no relayer {0}")]
    Relayer(NodeId),
    /// Nothing is reported.
    #[error("the report has no windows")]
    Empty,
    /// A window does not stand.
    #[error("window {number}: {fault}")]
    Window {
        /// Its number.
        number: u64,
        /// Why.
        fault: WindowFault,
    },
    /// A total is not the one before and what was added.
    #[error("window {number}: the total of {key} does not follow from the record before")]
    Total {
        /// The window's number.
        number: u64,
        /// Which record.
        key: Box<RecordKey>,
    },
    /// A grant does not hold.
    #[error("grant {index}: {fault}")]
    Grant {
        /// Its place, from 0.
        index: usize,
        /// Why.
        fault: GrantFault,
    },
    /// A receipt proves nothing.
    #[error("receipt {index}: {fault}")]
    Receipt {
        /// Its place, from 0.
        index: usize,
        /// Why.
        fault: ReceiptFault,
    },
    /// The report's sums are not those of its windows and receipts.
    #[error("the sums that the report states are not those of its windows and receipts")]
    Sums,
    /// Not signed by the relayer.
    #[error("the report's signature does not verify")]
    Signature,
}

/// Why a grant does not stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum GrantFault {
    /// Out of order, or there twice.
    #[error("it is out of order")]
    Order,
    /// To whom it was given is no sentry.
    #[error("it was given to {0}, which is no sentry of the network")]
    Sentry(NodeId),
    /// It does not hold.
    #[error("{0}")]
    Proof(GrantError),
}

/// Why a receipt does not stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ReceiptFault {
    /// Out of order, or there twice.
    #[error("it is out of order")]
    Order,
    /// For another relayer.
    #[error("it was given to another relayer")]
    Relayer,
    /// No grant names its receiver's key.
    #[error("no grant names its receiver's key")]
    NoGrant,
    /// No window has a record of it.
    #[error("no window has a record of what it is for")]
    NoRecord,
    /// It shares offsets with the one before.
    #[error("it shares offsets with the receipt before")]
    Overlap,
    /// It proves nothing.
    #[error("{0}")]
    Proof(ReceiptError),
}

/// A report that stands, and what it amounts to.
#[derive(Debug, Clone)]
pub struct Verified {
    /// It.
    pub report: Report,
    /// Its lines and sums.
    pub account: Account,
}

/// Judges a report. Costs a signature verification (about 60 µs) for each window, grant and receipt.
///
/// # Errors
/// The first thing that is wrong.
pub fn verify(bytes: &[u8], trust: &dyn Trust) -> Result<Verified, Fault> {
    let report = Report::read(bytes)?;
    let network_id = trust.network_id();
    if report.network_id != network_id {
        return Err(Fault::Network);
    }
    let relayer = report.relayer.node_id();
    if !trust.is(&relayer, Role::Relayer) {
        return Err(Fault::Relayer(relayer));
    }
    let recorded = check_windows(&report, &relayer)?;
    let keys = check_grants(&report.grants, trust)?;
    check_receipts(&report, &relayer, &keys, &recorded)?;
    let account = account(&report.windows, &report.grants, &report.receipts);
    if account.sums != report.stated {
        return Err(Fault::Sums);
    }
    let body = &bytes[..bytes.len() - report.signature.as_bytes().len()];
    let verdict = (report.relayer.ml_dsa).verify(&signed(body), &report.signature);
    verdict.map_err(|_| Fault::Signature)?;
    Ok(Verified { report, account })
}

/// Every key that a window has a record of.
fn check_windows(report: &Report, relayer: &NodeId) -> Result<BTreeSet<RecordKey>, Fault> {
    let first = report.windows.first().ok_or(Fault::Empty)?;
    // What came before the first window is not here; of the very first it is known.
    let mut chain = match first.head.number {
        1 => Chain::new(first.head.start_ms),
        number => Chain {
            number: number.wrapping_sub(1),
            end_ms: first.head.start_ms,
            hash: first.head.previous,
        },
    };
    let signer = (relayer, &report.relayer.ml_dsa);
    let mut totals: BTreeMap<RecordKey, (Volume, u64)> = BTreeMap::new();
    for window in &report.windows {
        let number = window.head.number;
        let stands = window.check(&report.network_id, signer, &chain);
        stands.map_err(|fault| Fault::Window { number, fault })?;
        chain = Chain::behind(&window.head);
        for record in &window.records {
            let follows = match totals.get(&record.key) {
                Some((total, last)) => {
                    plus(*total, record.volume) == record.total && record.last >= *last
                }
                None => true,
            };
            if !follows {
                let key = Box::new(record.key.clone());
                return Err(Fault::Total { number, key });
            }
            totals.insert(record.key.clone(), (record.total, record.last));
        }
    }
    Ok(totals.into_keys().collect())
}

/// The keys that grants name.
fn check_grants(
    grants: &[Grant],
    trust: &dyn Trust,
) -> Result<BTreeMap<NodeId, NodePublic>, Fault> {
    let mut keys = BTreeMap::new();
    let mut before = None;
    for (index, grant) in grants.iter().enumerate() {
        let fault = |fault| Fault::Grant { index, fault };
        let order = grant_order(grant);
        if before.is_some_and(|before| before >= order) {
            return Err(fault(GrantFault::Order));
        }
        if !trust.is(&grant.sentry, Role::Sentry) {
            return Err(fault(GrantFault::Sentry(grant.sentry)));
        }
        // Whether it held at a window's time is the account's business: here it is held against itself.
        let verdict = grant.verify(&trust.network_id(), &grant.sentry, grant.issued_at_ms);
        let customer = verdict.map_err(|error| fault(GrantFault::Proof(error)))?;
        keys.insert(customer, grant.customer.clone());
        before = Some(order);
    }
    Ok(keys)
}

fn check_receipts(
    report: &Report,
    relayer: &NodeId,
    keys: &BTreeMap<NodeId, NodePublic>,
    recorded: &BTreeSet<RecordKey>,
) -> Result<(), Fault> {
    let mut before: Option<(&Receipt, RecordKey)> = None;
    for (index, receipt) in report.receipts.iter().enumerate() {
        let fault = |fault| Fault::Receipt { index, fault };
        let statement = &receipt.statement;
        let key = receipt_key(receipt);
        if before
            .as_ref()
            .is_some_and(|(before, _)| receipt_order(before) >= receipt_order(receipt))
        {
            return Err(fault(ReceiptFault::Order));
        }
        if statement.relayer != *relayer {
            return Err(fault(ReceiptFault::Relayer));
        }
        let signer = keys.get(&statement.receiver);
        let signer = signer.ok_or_else(|| fault(ReceiptFault::NoGrant))?;
        if !recorded.contains(&key) {
            return Err(fault(ReceiptFault::NoRecord));
        }
        if let Some((before, of)) = &before
            && *of == key
            && before.statement.last > statement.after
        {
            return Err(fault(ReceiptFault::Overlap));
        }
        let verdict = receipt.verify(&report.network_id, signer);
        verdict.map_err(|error| fault(ReceiptFault::Proof(error)))?;
        before = Some((receipt, key));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
