//! Key versions: rotation, overlap, the file that holds them, and files of format 1.

use std::os::unix::fs::symlink;

use super::*;
use crate::{Prk, encapsulate};

const DAY: u64 = 24 * 3600 * 1000;
const NOW: u64 = 1_800_000_000_000;

fn file_of(folder: &TempDir, secrets: &NodeSecrets) -> PathBuf {
    let path = folder.path().join("node.keys");
    create(&path, secrets, Unlock::KeyFile(&wrapping_key(1))).unwrap();
    path
}

fn change<T>(
    path: &Path,
    change: impl FnOnce(&mut NodeSecrets) -> Result<T, RotateError>,
) -> Result<Result<T, RotateError>, KeystoreError> {
    update(path, Unlock::KeyFile(&wrapping_key(1)), change)
}

/// A file as a release before key versions wrote it: ML-DSA seed, Ed25519 seed, storage master key.
fn file_of_format_1(folder: &TempDir) -> (PathBuf, NodeKeys) {
    let path = folder.path().join("old.keys");
    let keys = node_keys([&[0x11; 32], &[0x22; 32]]);
    let header = Header {
        kind: Kind::Node,
        protection: Protection::KeyFile,
        salt: [1; 32],
        nonce: [2; 12],
        public_id: *keys.node_id().as_bytes(),
        table: None,
    };
    let mut body = BodyWriter::default();
    for seed in [[0x11; 32], [0x22; 32], [0x33; 32]] {
        body.push(&seed);
    }
    let file = header.seal(&Prk::copied_from(&[1; 32]), body);
    assert_eq!(file.len(), 212);
    disk::write_new(&path, &file).unwrap();
    (path, keys)
}

// A year of a node: KEM keys rotate, an identity is prepared, put into use, and its overlap ends. At each step the file
// comes back with the same keys, versions and ages, the summary says the same without unlocking, and ended versions are
// gone from the file.
#[test]
fn a_node_rotates_its_keys() {
    let folder = folder();
    let path = file_of(&folder, &NodeSecrets::generate_at(NOW));
    let first = open_node(&path).unwrap();
    let first_id = first.keys.node_id();
    let (old_ciphertext, old_secret) =
        encapsulate(first.versions.kem().unwrap().key.public()).unwrap();

    let later = NOW + 90 * DAY;
    assert_eq!(
        change(&path, |s| s.rotate_kem(later, 7 * DAY)).unwrap(),
        Ok(2)
    );
    let kept = open_node(&path).unwrap();
    assert_eq!(kept.storage.expose(), first.storage.expose());
    assert_eq!(kept.versions.kem().unwrap().version.version, 2);
    let overlap = kept.versions.kem_of(1, later + 7 * DAY - 1).unwrap();
    assert_eq!(
        overlap.decapsulate(&old_ciphertext).unwrap().expose(),
        old_secret.expose()
    );
    let stale = kept.versions.kem_of(1, later + 7 * DAY).unwrap_err();
    assert_eq!(stale, Some(2), "the error names the version in use");
    assert_eq!(kept.versions.kem_of(3, later).unwrap_err(), Some(2));

    let prepared = change(&path, |s| {
        s.prepare_identity(later).map(|next| next.key.node_id())
    });
    let second_id = prepared.unwrap().unwrap();
    let kept = open_node(&path).unwrap();
    assert_eq!(kept.keys.node_id(), first_id, "prepared is not in use");
    assert_eq!(kept.versions.prepared().unwrap().key.node_id(), second_id);

    let until = later + 30 * DAY;
    let used = change(&path, |s| s.use_prepared(later + DAY, until));
    assert_eq!(used.unwrap(), Ok(second_id));
    let kept = open_node(&path).unwrap();
    assert_eq!(kept.keys.node_id(), second_id);
    assert_eq!(
        (
            kept.versions.identity.version,
            kept.versions.identity.made_at_ms
        ),
        (2, later)
    );
    let former = |at| -> Vec<(NodeId, KeyVersion)> {
        (kept.versions.former(at))
            .map(|kept| (kept.key.node_id(), kept.version))
            .collect()
    };
    let ended = KeyVersion {
        version: 1,
        made_at_ms: NOW,
        until_ms: until,
    };
    assert_eq!(former(until - 1), [(first_id, ended)]);
    assert_eq!(former(until), []);
    let signature = kept
        .versions
        .former(until - 1)
        .next()
        .unwrap()
        .key
        .sign(b"still me");
    assert_eq!(first.keys.public().verify(b"still me", &signature), Ok(()));

    let summary = summary(&path).unwrap();
    assert_eq!(summary.node_id(), Some(second_id));
    let table = summary.versions.unwrap();
    assert_eq!(table, kept.table().unwrap());
    assert_eq!(
        table.identities[0],
        Entry {
            version: ended,
            id: *first_id.as_bytes()
        }
    );
    assert_eq!(
        table.identities[1].version.age_ms(later + 3 * DAY),
        Some(3 * DAY)
    );

    let next = change(&path, |s| s.rotate_kem(until, 0)).unwrap();
    assert_eq!(next, Ok(3));
    let kept = open_node(&path).unwrap();
    let table = kept.table().unwrap();
    assert_eq!(
        (table.identities.len(), table.kem.len()),
        (1, 1),
        "what ended is erased"
    );
    assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o600);
    assert_eq!(
        fs::read_dir(folder.path()).unwrap().count(),
        1,
        "no passing files"
    );
}

// An identity is put into use, and the operator thinks better of it: the one before is in use again, in the file too, and
// the new one is prepared, so that it can go into use another time under the same NodeId. When the one before no longer
// counts there is no way back, and none over a prepared one.
#[test]
fn a_rotation_is_undone() {
    let folder = folder();
    let path = file_of(&folder, &NodeSecrets::generate_at(NOW));
    let first = open_node(&path).unwrap().keys.node_id();
    let undo = |at| change(&path, move |s| s.undo_use(at)).unwrap();
    assert_eq!(undo(NOW), Err(RotateError::NothingToUndo));
    let prepared = change(&path, |s| {
        s.prepare_identity(NOW + DAY).map(|next| next.key.node_id())
    });
    let second = prepared.unwrap().unwrap();
    let waits = RotateError::AlreadyPrepared { version: 2 };
    assert_eq!(undo(NOW + DAY), Err(waits));
    let until = NOW + 30 * DAY;
    let into_use = |at| change(&path, move |s| s.use_prepared(at, until)).unwrap();
    assert_eq!(into_use(NOW + 2 * DAY), Ok(second));

    assert_eq!(undo(NOW + 3 * DAY), Ok(first));
    let back = open_node(&path).unwrap();
    assert_eq!(back.keys.node_id(), first);
    let in_use = KeyVersion {
        version: 1,
        made_at_ms: NOW,
        until_ms: 0,
    };
    assert_eq!(back.versions.identity, in_use);
    let next = back.versions.prepared().unwrap();
    assert_eq!((next.key.node_id(), next.version.version), (second, 2));
    assert_eq!(next.version.until_ms, 0);
    assert_eq!(back.versions.former(NOW).count(), 0);

    assert_eq!(into_use(NOW + 4 * DAY), Ok(second));
    assert_eq!(undo(until), Err(RotateError::NothingToUndo));
    assert_eq!(open_node(&path).unwrap().keys.node_id(), second);
}

// The way back to a release from before key versions: a file of format 1 with the identity in use and the storage key, of
// the length and under the header that such a release knows; the file with the versions stays.
#[test]
fn a_file_of_format_1_is_written_for_an_earlier_release() {
    let folder = folder();
    let path = file_of(&folder, &NodeSecrets::generate_at(NOW));
    change(&path, |s| s.rotate_kem(NOW, DAY)).unwrap().unwrap();
    let secrets = open_node(&path).unwrap();
    let old = folder.path().join("old.keys");
    let key = wrapping_key(1);
    create_format_1(&old, &secrets, Unlock::KeyFile(&key)).unwrap();
    let bytes = fs::read(&old).unwrap();
    assert_eq!((bytes.len(), &bytes[8..10]), (212, &[0, 1][..]));
    let opened = open_node(&old).unwrap();
    assert_eq!(opened.keys.node_id(), secrets.keys.node_id());
    assert_eq!(opened.storage.expose(), secrets.storage.expose());
    assert!(opened.versions.kem().is_none());
    let again = create_format_1(&old, &secrets, Unlock::KeyFile(&key));
    assert!(
        matches!(again, Err(KeystoreError::Exists { .. })),
        "{again:?}"
    );
    assert_eq!(
        open_node(&path)
            .unwrap()
            .versions
            .kem()
            .unwrap()
            .version
            .version,
        2
    );
}

// A file of format 1: it opens as version 1 of unknown age without a KEM key, is left as it is by opening, and becomes
// format 2 at the first rotation, with the same identity and storage key.
#[test]
fn a_file_of_format_1_migrates_at_its_first_rotation() {
    let folder = folder();
    let (path, keys) = file_of_format_1(&folder);
    let before = fs::read(&path).unwrap();
    let opened = open_node(&path).unwrap();
    assert_eq!(opened.keys.node_id(), keys.node_id());
    assert_eq!(opened.storage.expose(), &[0x33; 32]);
    assert!(opened.versions.kem().is_none());
    assert_eq!(opened.versions.kem_of(1, NOW).unwrap_err(), None);
    assert_eq!(
        (
            opened.versions.identity.version,
            opened.versions.identity.age_ms(NOW)
        ),
        (1, None)
    );
    assert_eq!(summary(&path).unwrap().versions, None);
    assert_eq!(fs::read(&path).unwrap(), before);

    assert_eq!(change(&path, |s| s.rotate_kem(NOW, DAY)).unwrap(), Ok(1));
    assert_eq!(fs::read(&path).unwrap()[8..10], [0, 2]);
    let opened = open_node(&path).unwrap();
    assert_eq!(opened.keys.node_id(), keys.node_id());
    assert_eq!(opened.storage.expose(), &[0x33; 32]);
    assert_eq!(opened.versions.kem().unwrap().version.made_at_ms, NOW);
}

// Each rotation that cannot be, and the file is as before, byte for byte.
#[test]
fn refused_rotations_change_nothing() {
    let folder = folder();
    let path = file_of(&folder, &NodeSecrets::generate_at(NOW));
    let refused = |error, act: fn(&mut NodeSecrets) -> Result<(), RotateError>| {
        let before = fs::read(&path).unwrap();
        assert_eq!(change(&path, act).unwrap(), Err(error));
        assert_eq!(fs::read(&path).unwrap(), before);
    };
    let too_long = RotateError::OverlapTooLong {
        max_ms: MAX_OVERLAP_MS,
        got_ms: MAX_OVERLAP_MS + 1,
    };
    refused(too_long, |s| {
        s.rotate_kem(NOW, MAX_OVERLAP_MS + 1).map(drop)
    });
    refused(RotateError::NothingPrepared, |s| {
        s.use_prepared(NOW, NOW + DAY).map(drop)
    });
    refused(RotateError::NothingPrepared, |s| {
        s.discard_prepared().map(drop)
    });
    change(&path, |s| s.prepare_identity(NOW).map(drop))
        .unwrap()
        .unwrap();
    refused(RotateError::AlreadyPrepared { version: 2 }, |s| {
        s.prepare_identity(NOW).map(drop)
    });
    refused(too_long, |s| {
        s.use_prepared(NOW, NOW + MAX_OVERLAP_MS + 1).map(drop)
    });
    assert_eq!(change(&path, NodeSecrets::discard_prepared).unwrap(), Ok(2));

    for version in 2..=4 {
        assert_eq!(
            change(&path, |s| s.rotate_kem(NOW, DAY)).unwrap(),
            Ok(version)
        );
    }
    let full = RotateError::TooMany {
        max: 4,
        until_ms: NOW + DAY,
    };
    refused(full, |s| s.rotate_kem(NOW, DAY).map(drop));
    assert_eq!(
        change(&path, |s| s.rotate_kem(NOW + DAY, DAY)).unwrap(),
        Ok(5)
    );
    for _ in 0..2 {
        change(&path, |s| {
            s.prepare_identity(NOW)?;
            s.use_prepared(NOW, NOW + 2 * DAY)
        })
        .unwrap()
        .unwrap();
    }
    let full = RotateError::TooMany {
        max: 2,
        until_ms: NOW + 2 * DAY,
    };
    refused(full, |s| s.prepare_identity(NOW).map(drop));
}

// An identity whose overlap is over when it goes out of use, as after its key was stolen, is gone at once.
#[test]
fn no_overlap_erases_at_once() {
    let mut secrets = NodeSecrets::generate_at(NOW);
    secrets.prepare_identity(NOW).unwrap();
    let id = secrets.use_prepared(NOW, 0).unwrap();
    assert_eq!(secrets.keys.node_id(), id);
    assert_eq!(secrets.table().unwrap().identities.len(), 1);
}

// Two rotations at once: the second is told that the file is busy. One that held the file of before is told so too.
#[test]
fn one_rotation_at_a_time() {
    let folder = folder();
    let path = file_of(&folder, &NodeSecrets::generate_at(NOW));
    let inner = change(&path, |secrets| {
        let second = change(&path, |s| s.rotate_kem(NOW, DAY)).unwrap_err();
        assert!(matches!(second, KeystoreError::Busy { .. }), "{second:?}");
        secrets.rotate_kem(NOW, DAY)
    });
    assert_eq!(inner.unwrap(), Ok(2));
    assert_eq!(change(&path, |s| s.rotate_kem(NOW, DAY)).unwrap(), Ok(3));
    let link = folder.path().join("link");
    symlink(&path, &link).unwrap();
    assert!(matches!(
        change(&link, |s| s.rotate_kem(NOW, DAY)),
        Err(KeystoreError::NotAFile { .. })
    ));
}

// The pinned bytes of format 2's clear part, and what each lie in it is called.
#[test]
fn format_2_is_pinned() {
    let entry = |version, made_at_ms, until_ms, id| Entry {
        version: KeyVersion {
            version,
            made_at_ms,
            until_ms,
        },
        id: [id; 32],
    };
    let header = Header {
        kind: Kind::Node,
        protection: Protection::KeyFile,
        salt: [0xaa; 32],
        nonce: [0xbb; 12],
        public_id: [0xcc; 32],
        table: Some(Table {
            storage_made_at_ms: 2,
            identities: vec![entry(1, 2, 3, 0xdd), entry(2, 5, 0, 0xcc)],
            kem: vec![entry(7, 8, 0, 0xee)],
        }),
    };
    let expected = [
        &b"PQCNKEYS\x00\x02\x01\x02"[..],
        &[0; 12],
        &[0xaa; 32],
        &[0xbb; 12],
        &[0xcc; 32],
        &[2, 1],
        &hex::decode("0000000100000000000000020000000000000003").unwrap(),
        &[0xdd; 32],
        &hex::decode("0000000200000000000000050000000000000000").unwrap(),
        &[0xcc; 32],
        &hex::decode("0000000700000000000000080000000000000000").unwrap(),
        &[0xee; 32],
    ]
    .concat();
    assert_eq!(header.to_bytes(), expected);
    let whole = [&expected[..], &[0; 32 * 6 + 16]].concat();
    let parsed = |bytes: &[u8]| Header::parse(Path::new("any"), bytes).map(|(header, _)| header);
    assert_eq!(parsed(&whole).unwrap().table, header.table);

    let second = 102 + 52;
    for (at, value, field) in [
        (10, 2, "kind"),
        (100, 0, "number of keys"),
        (100, 5, "number of keys"),
        (101, 5, "number of keys"),
        (100, 3, "length"),
        (101, 0, "length"),
        (68, 0xcd, "identity in use"),
        (102 + 3, 2, "key versions"),
        (102 + 3, 0, "key versions"),
        (second - 52 + 19, 0, "key versions"),
        (second + 19, 9, "key versions"),
        (second + 52 + 19, 9, "key versions"),
    ] {
        let mut bytes = whole.clone();
        bytes[at] = value;
        match parsed(&bytes).map(|_| ()).unwrap_err() {
            KeystoreError::Damaged { field: found, .. } => {
                // A table that is longer than the file may be called by what it reads in its place.
                assert!(found == field || (at == 100 && value == 3), "{at}: {found}");
            }
            other => panic!("{at}: {other:?}"),
        }
    }
}

// The pinned bytes of format 3's clear part, and the two files of it that no release writes: one that says what its first
// identity says, and one that says nothing.
#[test]
fn format_3_is_pinned() {
    let entry = |version, made_at_ms, id| Entry {
        version: KeyVersion {
            version,
            made_at_ms,
            until_ms: 0,
        },
        id: [id; 32],
    };
    let header = Header {
        kind: Kind::Node,
        protection: Protection::KeyFile,
        salt: [0xaa; 32],
        nonce: [0xbb; 12],
        public_id: [0xcc; 32],
        table: Some(Table {
            storage_made_at_ms: 2,
            identities: vec![entry(2, 5, 0xcc)],
            kem: vec![entry(7, 8, 0xee)],
        }),
    };
    let expected = [
        &b"PQCNKEYS\x00\x03\x01\x02"[..],
        &[0; 12],
        &[0xaa; 32],
        &[0xbb; 12],
        &[0xcc; 32],
        &hex::decode("0000000000000002").unwrap(),
        &[1, 1],
        &hex::decode("0000000200000000000000050000000000000000").unwrap(),
        &[0xcc; 32],
        &hex::decode("0000000700000000000000080000000000000000").unwrap(),
        &[0xee; 32],
    ]
    .concat();
    assert_eq!(header.to_bytes(), expected);
    let whole = [&expected[..], &[0; 32 * 4 + 16]].concat();
    let parsed = |bytes: &[u8]| Header::parse(Path::new("any"), bytes).map(|(header, _)| header);
    assert_eq!(parsed(&whole).unwrap().table, header.table);
    for (at, value) in [(107, 0), (110 + 3, 1)] {
        let mut bytes = whole.clone();
        bytes[at] = value;
        match parsed(&bytes).map(|_| ()).unwrap_err() {
            KeystoreError::Damaged { field, .. } => assert_eq!(field, "age of the storage key"),
            other => panic!("{at}: {other:?}"),
        }
    }
}

// The storage key is as old as the first identity. The file goes on saying so when that identity is gone, and is of format
// 3 from then on, no sooner; a file that never knew stays of format 2.
#[test]
fn the_storage_key_keeps_its_age() {
    for (made_at, format_after) in [(NOW, 3), (0, 2)] {
        let folder = folder();
        let path = file_of(&folder, &NodeSecrets::generate_at(made_at));
        let format = || fs::read(&path).unwrap()[9];
        let told = || {
            let table = summary(&path).unwrap().versions.unwrap();
            table.storage_made_at_ms
        };
        assert_eq!((format(), told()), (2, made_at));
        change(&path, |secrets| {
            secrets.prepare_identity(NOW + DAY)?;
            secrets.use_prepared(NOW + DAY, NOW + 2 * DAY)
        })
        .unwrap()
        .unwrap();
        assert_eq!((format(), told()), (2, made_at));
        change(&path, |secrets| secrets.rotate_kem(NOW + 3 * DAY, DAY))
            .unwrap()
            .unwrap();
        assert_eq!((format(), told()), (format_after, made_at));
        let opened = open_node(&path).unwrap();
        assert_eq!(opened.versions.identity.version, 2);
        assert_eq!(opened.versions.storage_made_at_ms, made_at);
    }
}

// A validly sealed file whose KEM seed is not the one that its clear part names.
#[test]
fn an_inconsistent_kem_key_is_refused() {
    let folder = folder();
    let secrets = NodeSecrets::generate_at(NOW);
    let mut table = secrets.table().unwrap();
    table.kem[0].id = [0; 32];
    let header = Header {
        kind: Kind::Node,
        protection: Protection::KeyFile,
        salt: [0; 32],
        nonce: [0; 12],
        public_id: secrets.public_id(),
        table: Some(table),
    };
    let mut body = BodyWriter::default();
    secrets.write(&mut body);
    let path = folder.path().join("node.keys");
    disk::write_new(&path, &header.seal(&Prk::copied_from(&[1; 32]), body)).unwrap();
    assert!(matches!(
        open_node(&path),
        Err(KeystoreError::Inconsistent { .. })
    ));
}
