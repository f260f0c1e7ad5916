//! Protobuf bombs: how much a node holds at once while it reads what a peer sent.
#![allow(clippy::unwrap_used, reason = "a test's helpers")]

use bytes::Bytes;
use pqcnet_fuzz_targets::DECODERS;
use pqcnet_heap::thread::cost;

/// Most heap bytes held at once while `bytes` are read and what they say is held, the input not counted; and whether
/// they were a message.
fn peak(reads: fn(Bytes) -> bool, bytes: &Bytes) -> (usize, bool) {
    let bytes = bytes.clone();
    let (read, cost) = cost(|| reads(bytes));
    (cost.peak, read)
}

fn varint(mut n: usize, out: &mut Vec<u8>) {
    while n >= 0x80 {
        out.push(n as u8 | 0x80);
        n >>= 7;
    }
    out.push(n as u8);
}

fn field(tag: usize, wire_type: usize, body: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    varint(tag << 3 | wire_type, &mut out);
    if wire_type == 2 {
        varint(body.len(), &mut out);
    }
    out.extend_from_slice(body);
    out
}

/// `element` so often that the whole has about `size` bytes.
fn repeated(element: &[u8], size: usize) -> Vec<u8> {
    element.repeat((size / element.len()).max(1))
}

/// The largest frame.
const LARGEST: usize = 1024 * 1024;

/// Bombs of this size: each field of a message repeated with nothing, little or something in it, the same inside one
/// level and two levels of other fields, one long text, an unknown field, groups in groups, and lengths that lie.
fn bombs(size: usize) -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    if size == LARGEST {
        // A few: a debug build reads each with forty decoders.
        for tag in [1, 2, 5] {
            all.push(repeated(&field(tag, 2, b""), size));
            all.push(field(tag, 2, &vec![b'a'; size]));
        }
        return all;
    }
    for tag in (1..=9).chain([200]) {
        let small: Vec<Vec<u8>> = vec![
            field(tag, 2, b""),
            field(tag, 2, b"\x0a\x00"),
            field(tag, 2, &[b'a'; 32]),
            field(tag, 0, &[1]),
        ];
        for element in small {
            let list = repeated(&element, size);
            for outer in 1..=6 {
                all.push(field(outer, 2, &list));
                all.push(field(1, 2, &field(outer, 2, &list)));
            }
            all.push(list);
        }
        all.push(field(tag, 2, &vec![b'a'; size]));
        let mut lie = field(tag, 2, &vec![0; size]);
        lie.truncate(size / 2);
        all.push(lie);
        all.push(repeated(&field(tag, 3, b""), size));
    }
    all
}

// Scenario: frames up to the largest, made to become as much memory as they can: each message and reply of each service
// holds at most four times the bytes that came, or that one unit of credit stands for, which is what a peer pays for
// the smallest message.
#[test]
fn a_message_holds_four_times_its_bytes_at_most() {
    let unit = pqcnet_link::UNIT;
    let mut worst = (0.0, String::new());
    let mut report = Vec::new();
    for size in [1_000, 8_192, 2 * unit, LARGEST] {
        for bomb in bombs(size) {
            let bomb = Bytes::from(bomb);
            let paid = bomb.len().max(unit);
            for decoder in DECODERS.iter().flat_map(|list| list.iter()) {
                let (held, _) = peak(decoder.reads, &bomb);
                let times = held as f64 / paid as f64;
                if times > worst.0 {
                    worst = (
                        times,
                        format!("{} of {} bytes: {held}", decoder.name, bomb.len()),
                    );
                }
                if held > 4 * paid {
                    let begin = &bomb[..bomb.len().min(12)];
                    report.push(format!(
                        "{} holds {held} bytes for {} that begin with {begin:02x?}",
                        decoder.name,
                        bomb.len()
                    ));
                }
            }
        }
    }
    println!("the worst: {:.2} times, {}", worst.0, worst.1);
    report.dedup();
    assert!(report.is_empty(), "{}", report.join("\n"));
    // The allocator does count.
    let (held, _) = peak(
        |bytes| bytes.to_vec().len() == bytes.len(),
        &Bytes::from(vec![0; 4_096]),
    );
    assert_eq!(held, 4_096);
}
