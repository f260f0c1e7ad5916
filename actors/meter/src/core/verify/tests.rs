//! A relayer of two windows with a publisher and two receivers, one of whom never signs: its report stands and adds up; every
//! byte that is changed is found; and each way of lying in good form is named.

use std::collections::BTreeSet;

use pqcnet_crypto::NodeKeys;
use pqcnet_messages::{Channel, Series, Statement};
use proptest::prelude::*;

use super::*;
use crate::core::record::{Qos, VolumeRecord};
use crate::core::report::{Parts, Stated};
use crate::core::testing::{Listed, NETWORK, channel_of, grant, node, volume};
use crate::core::window::Window;

struct World {
    relayer: NodeKeys,
    publisher: NodeKeys,
    receiver: NodeKeys,
    silent: NodeKeys,
    sentry: NodeId,
}

impl World {
    fn new() -> World {
        World {
            relayer: NodeKeys::generate(),
            publisher: NodeKeys::generate(),
            receiver: NodeKeys::generate(),
            silent: NodeKeys::generate(),
            sentry: node(4),
        }
    }

    fn channel(&self) -> Channel {
        channel_of(self.publisher.node_id())
    }

    fn trust(&self) -> Listed {
        let relayer = (self.relayer.node_id(), Role::Relayer);
        Listed(BTreeSet::from([relayer, (self.sentry, Role::Sentry)]))
    }

    fn record(&self, qos: Qos, customer: &NodeKeys, frames: u64, total: u64) -> VolumeRecord {
        VolumeRecord {
            key: RecordKey {
                qos,
                customer: customer.node_id(),
                channel: self.channel(),
                series: match qos {
                    Qos::Stored => Series::NONE,
                    Qos::Delivered => Series([1; 16]),
                },
            },
            window: 0,
            volume: volume(frames),
            total: volume(total),
            last: total,
        }
    }

    fn stored(&self, frames: u64, total: u64) -> VolumeRecord {
        self.record(Qos::Stored, &self.publisher, frames, total)
    }

    fn delivered(&self, to: &NodeKeys, frames: u64, total: u64) -> VolumeRecord {
        self.record(Qos::Delivered, to, frames, total)
    }

    fn statement(&self, after: u64, last: u64) -> Statement {
        Statement {
            network_id: NETWORK,
            receiver: self.receiver.node_id(),
            relayer: self.relayer.node_id(),
            channel: self.channel(),
            series: Series([1; 16]),
            window: 2,
            after,
            last,
            frames: last - after,
            bytes: (last - after) * 10,
            signed_at_ms: 7,
        }
    }

    fn window(&self, chain: &Chain, records: Vec<VolumeRecord>) -> Window {
        let end = chain.end_ms + 10_000;
        Window::close(&self.relayer, NETWORK, chain, (end, 9_000), records)
    }

    /// Windows 1 to 3; 40 stored, 30 and 10 delivered, of which 25 are signed for.
    fn parts(&self) -> Parts {
        let first = self.window(
            &Chain::new(1_000_000),
            vec![self.stored(10, 10), self.delivered(&self.receiver, 8, 8)],
        );
        let second = self.window(
            &Chain::behind(&first.head),
            vec![
                self.stored(30, 40),
                self.delivered(&self.receiver, 22, 30),
                self.delivered(&self.silent, 10, 10),
            ],
        );
        let third = self.window(&Chain::behind(&second.head), Vec::new());
        Parts {
            windows: vec![first, second, third],
            grants: [&self.publisher, &self.receiver, &self.silent]
                .map(|keys| grant(keys, self.sentry, 1_000_500))
                .into(),
            receipts: vec![self.statement(0, 25).sign(&self.receiver)],
        }
    }

    fn report(&self, parts: Parts) -> Vec<u8> {
        Report::create(&self.relayer, NETWORK, 1_100_000, parts)
    }

    fn fault(&self, change: impl FnOnce(&mut Parts)) -> Fault {
        let mut parts = self.parts();
        change(&mut parts);
        verify(&self.report(parts), &self.trust()).unwrap_err()
    }

    /// The third window again, behind what has become of the second.
    fn mend(&self, parts: &mut Parts) {
        parts.windows.truncate(2);
        let chain = Chain::behind(&parts.windows[1].head);
        parts.windows.push(self.window(&chain, Vec::new()));
    }
}

#[test]
fn a_good_report_stands_and_adds_up() {
    let world = World::new();
    let verified = verify(&world.report(world.parts()), &world.trust()).unwrap();
    let wanted = Stated {
        stored: volume(40),
        delivered: volume(40),
        receipted: volume(25),
        up_ms: 27_000,
        span_ms: 30_000,
        ..Stated::default()
    };
    assert_eq!(verified.account.sums, wanted);
    assert_eq!(wanted.unreceipted(), volume(15));
    // The last two windows alone: of the receipts, what the first had not been given.
    let mut parts = world.parts();
    parts.windows.remove(0);
    let verified = verify(&world.report(parts), &world.trust()).unwrap();
    assert_eq!(verified.account.sums.receipted, volume(17));
    assert_eq!(verified.account.sums.stored, volume(30));
    // A customer without a grant, or with one of another time: counted apart.
    for late in [None, Some(9_000_000)] {
        let mut parts = world.parts();
        let id = world.publisher.node_id();
        parts.grants.retain(|grant| grant.customer.node_id() != id);
        parts
            .grants
            .extend(late.map(|at| grant(&world.publisher, world.sentry, at)));
        let verified = verify(&world.report(parts), &world.trust()).unwrap();
        assert_eq!(verified.account.sums.stored_ungranted, volume(40));
        assert_eq!(verified.account.sums.delivered_ungranted, volume(0));
    }
}

#[test]
fn every_changed_byte_is_found() {
    let world = World::new();
    let good = world.report(world.parts());
    assert!(verify(&good, &world.trust()).is_ok());
    // One in 23, which is prime to the length of every part.
    for at in (0..good.len()).step_by(23) {
        let mut bad = good.clone();
        bad[at] ^= 1 << (at % 8);
        let verdict = verify(&bad, &world.trust());
        assert!(verdict.is_err(), "byte {at} of {} was changed", good.len());
    }
    for len in (0..good.len()).step_by(61) {
        let cut = verify(&good[..len], &world.trust());
        assert!(matches!(cut, Err(Fault::Form(_))), "cut to {len}");
    }
    let longer = [&good[..], &[0]].concat();
    let wrong = Malformed {
        what: "the report's end",
        at: good.len(),
    };
    assert_eq!(
        verify(&longer, &world.trust()).unwrap_err(),
        Fault::Form(wrong)
    );
}

#[test]
fn whose_report_it_is() {
    let world = World::new();
    let report = world.report(world.parts());
    let other = verify(&report, &Listed(BTreeSet::new())).unwrap_err();
    assert_eq!(other, Fault::Relayer(world.relayer.node_id()));
    let parts = world.parts();
    let elsewhere = Report::create(&world.relayer, [8; 32], 1, parts);
    let other = verify(&elsewhere, &world.trust()).unwrap_err();
    assert_eq!(other, Fault::Network);
    assert_eq!(world.fault(|parts| parts.windows.clear()), Fault::Empty);
    // Somebody else's signature under a relayer's name.
    let mut forged = report.clone();
    let at = forged.len() - 1;
    forged[at] ^= 1;
    assert_eq!(
        verify(&forged, &world.trust()).unwrap_err(),
        Fault::Signature
    );
    let mut boastful = report;
    let sums = boastful.len() - MlDsa::LEN - 12 * 8;
    boastful[sums + 7] += 1;
    assert_eq!(verify(&boastful, &world.trust()).unwrap_err(), Fault::Sums);
}

use pqcnet_crypto::MlDsaSignature as MlDsa;

#[test]
fn a_window_that_does_not_stand_is_named() {
    let world = World::new();
    let named = |fault: Fault, number: u64, wanted: WindowFault| {
        assert_eq!(
            fault,
            Fault::Window {
                number,
                fault: wanted
            }
        );
    };
    let fault = world.fault(|parts| drop(parts.windows.remove(1)));
    named(fault, 3, WindowFault::Number);
    let fault = world.fault(|parts| {
        let chain = Chain::behind(&parts.windows[0].head);
        parts.windows[1] = world.window(&chain, vec![world.stored(30, 40)]);
    });
    named(fault, 3, WindowFault::Previous);
    let fault = world.fault(|parts| parts.windows[1].records[0].volume.frames += 1);
    named(fault, 2, WindowFault::Root);
    let fault = world.fault(|parts| parts.windows[1].records[0].volume.frames = 99);
    named(fault, 2, WindowFault::Record(0));
    let fault = world.fault(|parts| parts.windows[1].records[1].window = 1);
    named(fault, 2, WindowFault::Record(1));
    let fault = world.fault(|parts| parts.windows[1].records.swap(0, 1));
    named(fault, 2, WindowFault::Order(1));
    let fault = world.fault(|parts| parts.windows[0].head.up_ms = 10_001);
    named(fault, 1, WindowFault::Times);
    let fault = world.fault(|parts| parts.windows[0].head.up_ms -= 1);
    named(fault, 1, WindowFault::Signature);
    let fault = world.fault(|parts| parts.windows[0].head.previous = [1; 32]);
    named(fault, 1, WindowFault::Previous);
    let fault = world.fault(|parts| parts.windows[0].head.network_id = [1; 32]);
    named(fault, 1, WindowFault::Network);
    let fault = world.fault(|parts| parts.windows[0].head.relayer = node(8));
    named(fault, 1, WindowFault::Relayer);
}

#[test]
fn totals_that_do_not_continue_are_named() {
    let world = World::new();
    let fault = world.fault(|parts| {
        let chain = Chain::behind(&parts.windows[0].head);
        // Signed in good form: ten of the thirty were counted before.
        parts.windows[1] = world.window(&chain, vec![world.stored(40, 40)]);
        world.mend(parts);
    });
    let key = Box::new(world.stored(1, 1).key);
    assert_eq!(fault, Fault::Total { number: 2, key });
}

#[test]
fn grants_and_receipts_that_prove_nothing_are_named() {
    let world = World::new();
    let stranger = NodeKeys::generate();
    let place = |parts: &Parts, keys: &NodeKeys| {
        let mut grants = parts.grants.clone();
        grants.sort_by_key(grant_order);
        let at = grants.iter().position(|g| g.customer == *keys.public());
        at.unwrap()
    };
    let of_receiver = place(&world.parts(), &world.receiver);
    let index = |parts: &Parts| {
        let at = parts
            .grants
            .iter()
            .position(|g| g.customer == *world.receiver.public());
        at.unwrap()
    };
    let fault = world.fault(|parts| {
        let at = index(parts);
        parts.grants[at].lifetime_ms += 1;
    });
    let wanted = GrantFault::Proof(GrantError::BadSignature);
    assert_eq!(
        fault,
        Fault::Grant {
            index: of_receiver,
            fault: wanted
        }
    );
    let fault = world.fault(|parts| {
        let at = index(parts);
        parts.grants[at] = grant(&world.receiver, node(7), 1_000_500);
    });
    let wanted = GrantFault::Sentry(node(7));
    assert_eq!(
        fault,
        Fault::Grant {
            index: of_receiver,
            fault: wanted
        }
    );

    let receipt = |change: &dyn Fn(&mut Statement)| {
        let mut statement = world.statement(0, 25);
        change(&mut statement);
        world.fault(|parts| parts.receipts = vec![statement.sign(&world.receiver)])
    };
    let named = |fault: Fault, wanted: ReceiptFault| {
        assert_eq!(
            fault,
            Fault::Receipt {
                index: 0,
                fault: wanted
            }
        );
    };
    named(receipt(&|s| s.relayer = node(8)), ReceiptFault::Relayer);
    let possible = ReceiptFault::Proof(ReceiptError::Counts);
    named(receipt(&|s| s.frames = 26), possible);
    let network = ReceiptFault::Proof(ReceiptError::WrongNetwork);
    named(receipt(&|s| s.network_id = [1; 32]), network);
    let forged = world.fault(|parts| {
        parts.receipts = vec![world.statement(0, 25).sign(&stranger)];
    });
    named(forged, ReceiptFault::Proof(ReceiptError::BadSignature));
    let fault = world.fault(|parts| {
        let again = world.statement(24, 30).sign(&world.receiver);
        parts.receipts.push(again);
    });
    let wanted = ReceiptFault::Overlap;
    assert_eq!(
        fault,
        Fault::Receipt {
            index: 1,
            fault: wanted
        }
    );
    // What is behind the first relayer's account is fine.
    let mut parts = world.parts();
    parts
        .receipts
        .push(world.statement(26, 30).sign(&world.receiver));
    let verified = verify(&world.report(parts), &world.trust()).unwrap();
    assert_eq!(verified.account.sums.receipted, volume(29));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    // Whatever the windows hold, the report stands, its sums are the sums of the records, and what is receipted is never more
    // than what was delivered; each record is proven by its path under its window's root.
    #[test]
    fn totals_equal_the_sum(volumes in proptest::collection::vec((0u64..1000, 0u64..1000), 1..6), signed in 0u64..3000) {
        let world = World::new();
        let mut chain = Chain::new(1_000_000);
        let (mut stored, mut sent) = (0, 0);
        let mut parts = world.parts();
        parts.windows.clear();
        for (published, delivered) in volumes {
            stored += published;
            sent += delivered;
            let mut records = Vec::new();
            if published > 0 {
                records.push(world.stored(published, stored));
            }
            if delivered > 0 {
                records.push(world.delivered(&world.receiver, delivered, sent));
            }
            let window = world.window(&chain, records);
            chain = Chain::behind(&window.head);
            let leaves: Vec<_> = window.records.iter().map(VolumeRecord::leaf).collect();
            for (index, leaf) in leaves.iter().enumerate() {
                let path = crate::core::merkle::path(&leaves, index).unwrap();
                let root = &window.head.root;
                prop_assert!(crate::core::merkle::proves(root, leaf, index, leaves.len(), &path));
            }
            parts.windows.push(window);
        }
        parts.receipts.clear();
        if signed > 0 && sent > 0 {
            parts.receipts.push(world.statement(0, signed).sign(&world.receiver));
        }
        let receipted = if sent > 0 { signed.min(sent) } else { 0 };
        let verified = verify(&world.report(parts), &world.trust()).unwrap();
        prop_assert_eq!(verified.account.sums.stored, volume(stored));
        prop_assert_eq!(verified.account.sums.delivered, volume(sent));
        prop_assert_eq!(verified.account.sums.receipted, volume(receipted));
    }
}
