//! A report as JSON. Form: docs/spec/report.schema.json, which a test holds against these types.

use pqcnet_messages::metering::Volume;
use pqcnet_messages::{Channel, Series};
use pqcnet_meter::core::record::RecordKey;
use pqcnet_meter::core::report::{Account, Report, Stated, receipt_key};
#[cfg(test)]
use schemars::JsonSchema;
use serde::Serialize;

/// A report of a relayer. Ids, hashes and series are hexadecimal; times are milliseconds since 1970.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(JsonSchema))]
pub struct RelayerPerformanceReport {
    /// Version of this form; now 1. Readers ignore fields that they do not know.
    pub version: u32,
    /// Whether the report was judged, and stands.
    pub verified: bool,
    /// The network's id.
    pub network_id: String,
    /// The relayer's id.
    pub relayer: String,
    /// When it was made, by the relayer's clock.
    pub created_at_ms: u64,
    /// What it amounts to.
    pub sums: SumsView,
    /// By customer, channel and subscription.
    pub lines: Vec<LineView>,
    /// In order.
    pub windows: Vec<WindowView>,
    /// Of the customers.
    pub grants: Vec<GrantView>,
    /// Of the receivers.
    pub receipts: Vec<ReceiptView>,
}

/// Messages and the bytes of their payloads.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(JsonSchema))]
pub struct VolumeView {
    /// Messages.
    pub frames: u64,
    /// Bytes.
    pub bytes: u64,
}

impl From<Volume> for VolumeView {
    fn from(volume: Volume) -> VolumeView {
        VolumeView {
            frames: volume.frames,
            bytes: volume.bytes,
        }
    }
}

/// Sums of a report.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(JsonSchema))]
pub struct SumsView {
    /// Published and durable.
    pub stored: VolumeView,
    /// Of that, without a grant of the customer at the time.
    pub stored_ungranted: VolumeView,
    /// Sent to receivers.
    pub delivered: VolumeView,
    /// Of that, without a grant of the receiver at the time.
    pub delivered_ungranted: VolumeView,
    /// Of what was delivered, signed for by receivers.
    pub receipted: VolumeView,
    /// The rest: the relayer's word alone.
    pub unreceipted: VolumeView,
    /// How long the relayer ran, by its own word.
    pub up_ms: u64,
    /// From the first window's start to the last one's end.
    pub span_ms: u64,
}

impl From<&Stated> for SumsView {
    fn from(sums: &Stated) -> SumsView {
        SumsView {
            stored: sums.stored.into(),
            stored_ungranted: sums.stored_ungranted.into(),
            delivered: sums.delivered.into(),
            delivered_ungranted: sums.delivered_ungranted.into(),
            receipted: sums.receipted.into(),
            unreceipted: sums.unreceipted().into(),
            up_ms: sums.up_ms,
            span_ms: sums.span_ms,
        }
    }
}

/// A channel's name.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(JsonSchema))]
pub struct ChannelView {
    /// Whose it is.
    pub owner: String,
    /// What its owner calls it.
    pub name: String,
}

impl From<&Channel> for ChannelView {
    fn from(channel: &Channel) -> ChannelView {
        ChannelView {
            owner: channel.owner.to_string(),
            name: channel.name.to_string(),
        }
    }
}

/// What is counted.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(JsonSchema))]
pub struct KeyView {
    /// `stored` or `delivered`.
    pub qos: &'static str,
    /// Who was served: the publisher of what is stored, the receiver of what is delivered.
    pub customer: String,
    /// Which channel.
    pub channel: ChannelView,
    /// The receiver's subscription; absent for what is stored, and of receivers that do not sign.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub series: Option<String>,
}

impl From<&RecordKey> for KeyView {
    fn from(key: &RecordKey) -> KeyView {
        KeyView {
            qos: key.qos.name(),
            customer: key.customer.to_string(),
            channel: (&key.channel).into(),
            series: (key.series != Series::NONE).then(|| key.series.to_string()),
        }
    }
}

/// All windows' records of one key.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(JsonSchema))]
pub struct LineView {
    /// Of what.
    #[serde(flatten)]
    pub key: KeyView,
    /// In these windows.
    pub volume: VolumeView,
    /// Of that, without a grant at the time.
    pub ungranted: VolumeView,
    /// Of that, signed for; of what is stored, nothing.
    pub receipted: VolumeView,
    /// Since the relayer began with it.
    pub total: VolumeView,
    /// The highest offset.
    pub last_offset: u64,
}

/// A window.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(JsonSchema))]
pub struct WindowView {
    /// From 1.
    pub number: u64,
    /// When the one before ended.
    pub start_ms: u64,
    /// When it was closed.
    pub end_ms: u64,
    /// How long of that the relayer ran.
    pub up_ms: u64,
    /// Merkle root of the records.
    pub root: String,
    /// SHA-256 of the head before.
    pub previous: String,
    /// What was counted.
    pub records: Vec<RecordView>,
}

/// A `VolumeRecord`.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(JsonSchema))]
pub struct RecordView {
    /// Of what.
    #[serde(flatten)]
    pub key: KeyView,
    /// In this window.
    pub volume: VolumeView,
    /// Since the relayer began with it.
    pub total: VolumeView,
    /// The highest offset.
    pub last_offset: u64,
}

/// A customer's leave.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(JsonSchema))]
pub struct GrantView {
    /// Who gave it.
    pub customer: String,
    /// To which sentry.
    pub sentry: String,
    /// By the customer's clock.
    pub issued_at_ms: u64,
    /// How long it held.
    pub lifetime_ms: u64,
}

/// A receiver's word.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(JsonSchema))]
pub struct ReceiptView {
    /// For what.
    #[serde(flatten)]
    pub key: KeyView,
    /// The window in which it was asked for.
    pub window: u64,
    /// Everything counted lies above this offset.
    pub after: u64,
    /// The last offset taken.
    pub last_offset: u64,
    /// Taken so far.
    pub volume: VolumeView,
    /// By the receiver's clock.
    pub signed_at_ms: u64,
}

/// The document.
pub fn document(report: &Report, account: &Account, verified: bool) -> RelayerPerformanceReport {
    let lines = account.lines.iter().map(|(key, line)| LineView {
        key: key.into(),
        volume: line.volume.into(),
        ungranted: line.ungranted.into(),
        receipted: line.receipted.into(),
        total: line.total.into(),
        last_offset: line.last,
    });
    let windows = report.windows.iter().map(|window| WindowView {
        number: window.head.number,
        start_ms: window.head.start_ms,
        end_ms: window.head.end_ms,
        up_ms: window.head.up_ms,
        root: hex::encode(window.head.root),
        previous: hex::encode(window.head.previous),
        records: (window.records.iter())
            .map(|record| RecordView {
                key: (&record.key).into(),
                volume: record.volume.into(),
                total: record.total.into(),
                last_offset: record.last,
            })
            .collect(),
    });
    let grants = report.grants.iter().map(|grant| GrantView {
        customer: grant.customer.node_id().to_string(),
        sentry: grant.sentry.to_string(),
        issued_at_ms: grant.issued_at_ms,
        lifetime_ms: grant.lifetime_ms,
    });
    let receipts = report.receipts.iter().map(|receipt| {
        let statement = &receipt.statement;
        let (frames, bytes) = (statement.frames, statement.bytes);
        ReceiptView {
            key: (&receipt_key(receipt)).into(),
            window: statement.window,
            after: statement.after,
            last_offset: statement.last,
            volume: VolumeView { frames, bytes },
            signed_at_ms: statement.signed_at_ms,
        }
    });
    RelayerPerformanceReport {
        version: 1,
        verified,
        network_id: hex::encode(report.network_id),
        relayer: report.relayer.node_id().to_string(),
        created_at_ms: report.created_at_ms,
        sums: (&account.sums).into(),
        lines: lines.collect(),
        windows: windows.collect(),
        grants: grants.collect(),
        receipts: receipts.collect(),
    }
}

#[cfg(test)]
mod tests {
    // Scenario: the committed schema is that of the types.
    use super::*;

    const SCHEMA: &str = "docs/spec/report.schema.json";

    /// `PQCNET_WRITE_SCHEMA=1` writes it.
    #[test]
    fn the_schema_is_that_of_the_types() {
        let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).parent();
        let path = root.unwrap().join(SCHEMA);
        let schema = schemars::schema_for!(RelayerPerformanceReport);
        let generated = format!("{}\n", serde_json::to_string_pretty(&schema).unwrap());
        if std::env::var_os("PQCNET_WRITE_SCHEMA").is_some() {
            std::fs::write(&path, &generated).unwrap();
        }
        let committed = std::fs::read_to_string(&path).unwrap();
        assert!(
            committed == generated,
            "{SCHEMA} is not that of the types: run this test with PQCNET_WRITE_SCHEMA=1"
        );
    }
}
