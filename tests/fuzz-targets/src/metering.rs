//! What stands in a report and in a meter's store: reports whole, windows, receipts, grants, kept totals.

use pqcnet_crypto::{NodeId, NodeKeys, seeded};
use pqcnet_messages::metering::Volume;
use pqcnet_messages::{Channel, ChannelName, Grant, Receipt, Role, Series, Statement};
use pqcnet_meter::core::bytes::Reader;
use pqcnet_meter::core::ledger::Entry;
use pqcnet_meter::core::record::{Qos, RecordKey, VolumeRecord};
use pqcnet_meter::core::report::{Parts, Report, account};
use pqcnet_meter::core::verify::{Trust, verify};
use pqcnet_meter::core::window::{Chain, Window};

use crate::{Target, choose};

const NETWORK: [u8; 32] = [9; 32];

/// Trusts everybody, so that as much as possible is read.
struct Everybody;

impl Trust for Everybody {
    fn network_id(&self) -> [u8; 32] {
        NETWORK
    }

    fn is(&self, _: &NodeId, _: Role) -> bool {
        true
    }
}

fn keys(name: &[u8]) -> NodeKeys {
    let _same = seeded::from_seed(name);
    NodeKeys::generate()
}

fn statement(relayer: &NodeKeys, receiver: &NodeKeys) -> Statement {
    Statement {
        network_id: NETWORK,
        receiver: receiver.node_id(),
        relayer: relayer.node_id(),
        channel: channel(receiver),
        series: Series([3; 16]),
        window: 1,
        after: 0,
        last: 7,
        frames: 7,
        bytes: 70,
        signed_at_ms: 1_700_000_000_000,
    }
}

fn channel(owner: &NodeKeys) -> Channel {
    let name = ChannelName::new("orders/eu").unwrap_or_else(|error| panic!("{error}"));
    let owner = owner.node_id();
    Channel { owner, name }
}

fn window(relayer: &NodeKeys, customer: &NodeKeys) -> Window {
    let volume = Volume {
        frames: 9,
        bytes: 90,
    };
    let record = |qos, series| VolumeRecord {
        key: RecordKey {
            qos,
            customer: customer.node_id(),
            channel: channel(customer),
            series,
        },
        window: 1,
        volume,
        total: volume,
        last: 9,
    };
    let records = vec![
        record(Qos::Stored, Series::NONE),
        record(Qos::Delivered, Series([3; 16])),
    ];
    let chain = Chain::new(1_700_000_000_000);
    Window::close(
        relayer,
        NETWORK,
        &chain,
        (1_700_000_060_000, 60_000),
        records,
    )
}

/// Chosen by the first byte: a report, a window, a receipt, a grant, a kept total. What is read is written as it was read; what
/// verifies adds up.
pub const METERING: Target = Target {
    name: "metering",
    body: |data| {
        let Some((choice, data)) = choose(data) else {
            return;
        };
        match choice % 5 {
            0 => report(data),
            1 => {
                let mut read = Reader::new(data);
                if let Ok(window) = Window::read(&mut read) {
                    let mut again = Vec::new();
                    window.put(&mut again);
                    assert_eq!(again, data[..read.at()]);
                }
            }
            2 => {
                if let Ok(receipt) = Receipt::from_bytes(data) {
                    assert_eq!(receipt.to_bytes(), data);
                }
            }
            3 => {
                if let Ok(grant) = Grant::from_bytes(data) {
                    assert_eq!(grant.to_bytes(), data);
                }
            }
            _ => {
                if let Ok(entry) = Entry::from_bytes(data) {
                    assert_eq!(entry.to_bytes(), data);
                }
            }
        }
    },
    seeds: || {
        let (relayer, customer) = (keys(b"relayer"), keys(b"customer"));
        let _same = seeded::from_seed(b"metering");
        let sentry = NodeId::from_bytes([4; 32]);
        let issued = 1_700_000_000_000;
        let grant = Grant::issue(&customer, NETWORK, sentry, issued, 60_000, [6; 16]);
        let receipt = statement(&relayer, &customer).sign(&customer);
        let window = window(&relayer, &customer);
        let parts = Parts {
            windows: vec![window.clone()],
            grants: vec![grant.clone()],
            receipts: vec![receipt.clone()],
        };
        let report = Report::create(&relayer, NETWORK, 1_700_000_070_000, parts);
        let mut alone = Vec::new();
        window.put(&mut alone);
        let texts = [
            report,
            alone,
            receipt.to_bytes(),
            grant.to_bytes(),
            Entry::default().to_bytes(),
        ];
        let chosen = |(choice, text): (u8, Vec<u8>)| [&[choice][..], &text].concat();
        (0u8..).zip(texts).map(chosen).collect()
    },
};

fn report(data: &[u8]) {
    let Ok(report) = Report::read(data) else {
        return;
    };
    drop(account(&report.windows, &report.grants, &report.receipts));
    if let Ok(verified) = verify(data, &Everybody) {
        assert_eq!(verified.account.sums, report.stated);
        assert!(verified.account.sums.receipted.frames <= verified.account.sums.delivered.frames);
    }
}
