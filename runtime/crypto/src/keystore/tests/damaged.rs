//! Files that no release wrote: flipped, cut, planted, inconsistent.

use proptest::prelude::*;

use super::*;

// Every bit of a node's file is flipped in turn: no such file opens.
#[test]
fn every_flipped_bit_is_refused() {
    let folder = folder();
    let (path, good) = node_file(&folder);
    for bit in 0..good.len() * 8 {
        let mut bytes = good.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        overwrite(&path, &bytes);
        assert!(open_node(&path).is_err(), "bit {bit}");
    }
    overwrite(&path, &good);
    open_node(&path).unwrap();
}

// The same for a passphrase's file: every bit of version, kind, lock and cost, one bit of every other byte (each open
// pays for Argon2id). Altered costs are refused by bounds or by the seal, never computed beyond the bounds.
#[test]
fn flipped_bits_of_a_passphrase_file_are_refused() {
    let folder = folder();
    let path = folder.path().join("node.key");
    let phrase = passphrase("correct horse");
    create_with(
        &path,
        &NodeSecrets::generate(),
        Unlock::Passphrase(&phrase),
        CHEAP,
    )
    .unwrap();
    let good = fs::read(&path).unwrap();
    let clear_fields = 8 * 8..24 * 8;
    let others = (24..good.len()).map(|byte| byte * 8 + byte % 8);
    for bit in clear_fields.chain(others) {
        let mut bytes = good.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        overwrite(&path, &bytes);
        assert!(
            open::<NodeSecrets>(&path, Unlock::Passphrase(&phrase)).is_err(),
            "bit {bit}"
        );
    }
}

// A file cut at any length, or with a byte appended, is refused with what is wrong about it.
#[test]
fn every_cut_is_refused() {
    let folder = folder();
    let (path, good) = node_file(&folder);
    for length in 0..good.len() {
        overwrite(&path, &good[..length]);
        match open_node(&path).unwrap_err() {
            KeystoreError::NotAKeyFile { .. } => assert!(length < 8, "{length}"),
            KeystoreError::Damaged {
                field: "length", ..
            } => assert!(length >= 8, "{length}"),
            other => panic!("{length}: {other:?}"),
        }
    }
    overwrite(&path, &[&good[..], &[0]].concat());
    assert!(matches!(
        open_node(&path),
        Err(KeystoreError::Damaged {
            field: "length",
            ..
        })
    ));
}

// Fields that no release writes: foreign magic, a later version, unknown kind and lock, a cost in a key-locked file.
#[test]
fn unknown_fields_are_named() {
    let folder = folder();
    let (path, good) = node_file(&folder);
    let altered = |at: usize, value: u8| {
        let mut bytes = good.clone();
        bytes[at] = value;
        overwrite(&path, &bytes);
        open_node(&path).unwrap_err()
    };
    assert!(matches!(
        altered(0, b'x'),
        KeystoreError::NotAKeyFile { .. }
    ));
    assert!(matches!(
        altered(9, 4),
        KeystoreError::Version {
            found: 4,
            known: 3,
            ..
        }
    ));
    assert!(matches!(
        altered(10, 9),
        KeystoreError::Damaged { field: "kind", .. }
    ));
    assert!(matches!(
        altered(11, 9),
        KeystoreError::Damaged {
            field: "protection",
            ..
        }
    ));
    assert!(matches!(
        altered(15, 1),
        KeystoreError::Damaged {
            field: "protection",
            ..
        }
    ));
}

// A hostile file asks for 4 TiB, for years of passes, for thousands of lanes, or for next to nothing.
#[test]
fn hostile_costs_are_refused_before_any_work() {
    let folder = folder();
    let path = folder.path().join("node.key");
    let phrase = passphrase("correct horse");
    create_with(
        &path,
        &NodeSecrets::generate(),
        Unlock::Passphrase(&phrase),
        CHEAP,
    )
    .unwrap();
    let good = fs::read(&path).unwrap();
    let most = Argon2Cost {
        memory_kib: 256 * 1024,
        passes: 16,
        lanes: 4,
    };
    for (memory, passes, lanes) in [
        (u32::MAX, 1, 1),
        (most.memory_kib + 1, 1, 1),
        (CHEAP.memory_kib - 1, 1, 1),
        (0, 0, 0),
        (CHEAP.memory_kib, most.passes + 1, 1),
        (CHEAP.memory_kib, 0, 1),
        (CHEAP.memory_kib, 1, most.lanes + 1),
        (CHEAP.memory_kib, 1, 0),
    ] {
        let mut bytes = good.clone();
        bytes[12..16].copy_from_slice(&memory.to_be_bytes());
        bytes[16..20].copy_from_slice(&passes.to_be_bytes());
        bytes[20..24].copy_from_slice(&lanes.to_be_bytes());
        overwrite(&path, &bytes);
        let refused = open::<NodeSecrets>(&path, Unlock::Passphrase(&phrase)).unwrap_err();
        assert!(
            matches!(refused, KeystoreError::CostOutOfBounds { memory_kib, .. } if memory_kib == memory),
            "{refused:?}"
        );
    }
}

// A validly sealed file whose seeds do not make the identity in its header (only a bug or a broken engine writes one).
#[test]
fn an_inconsistent_file_is_refused() {
    let folder = folder();
    let path = folder.path().join("node.key");
    let secrets = NodeSecrets::generate();
    let mut table = secrets.table().unwrap();
    table.identities[0].id = [0xee; 32];
    let header = Header {
        kind: Kind::Node,
        protection: Protection::KeyFile,
        salt: [0; 32],
        nonce: [0; 12],
        public_id: [0xee; 32],
        table: Some(table),
    };
    let mut body = BodyWriter::default();
    secrets.write(&mut body);
    disk::write_new(
        &path,
        &header.seal(&crate::Prk::copied_from(&[1; 32]), body),
    )
    .unwrap();
    assert!(matches!(
        open_node(&path),
        Err(KeystoreError::Inconsistent { .. })
    ));
}

proptest! {
    // Any bytes at all, with and without the right beginning: a typed refusal, no panic.
    #[test]
    fn any_bytes_are_refused(
        mut bytes in proptest::collection::vec(any::<u8>(), 0..300),
        magic in any::<bool>(),
    ) {
        if magic && bytes.len() > 12 {
            bytes[..8].copy_from_slice(&format::MAGIC);
            let (version, protection) = (bytes[9] % 3, bytes[11] % 3);
            bytes[8..12].copy_from_slice(&[0, version, 1, protection]);
        }
        let parsed = Header::parse(Path::new("any"), &bytes);
        if let Ok((header, sealed)) = parsed {
            prop_assert!(header.open(&crate::Prk::copied_from(&[1; 32]), sealed).is_none());
        }
    }
}
