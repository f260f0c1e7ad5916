use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

use proptest::prelude::*;
use tempfile::TempDir;

use super::*;

mod versions;

/// The cheapest cost that a file may have, so that hundreds of opens stay quick.
const CHEAP: Argon2Cost = Argon2Cost {
    memory_kib: 8 * 1024,
    passes: 1,
    lanes: 1,
};

fn folder() -> TempDir {
    tempfile::tempdir().unwrap()
}

fn passphrase(text: &str) -> Passphrase {
    Passphrase::new(text.to_owned()).unwrap()
}

fn wrapping_key(byte: u8) -> WrappingKey {
    WrappingKey::copied_from(&[byte; 32])
}

/// A node's file under a wrapping key of ones, with its bytes.
fn node_file(folder: &TempDir) -> (PathBuf, Vec<u8>) {
    let path = folder.path().join("node.key");
    create(
        &path,
        &NodeSecrets::generate(),
        Unlock::KeyFile(&wrapping_key(1)),
    )
    .unwrap();
    let bytes = fs::read(&path).unwrap();
    (path, bytes)
}

fn open_node(path: &Path) -> Result<NodeSecrets, KeystoreError> {
    open(path, Unlock::KeyFile(&wrapping_key(1)))
}

/// Replaces a file's bytes and leaves its mode.
fn overwrite(path: &Path, bytes: &[u8]) {
    fs::write(path, bytes).unwrap();
}

// A node's secrets go through a file under either lock and come back: same identity, same storage key, signatures that
// the first identity verifies. The file is 0600, of the documented length, and holds no seed in the clear.
#[test]
fn a_node_comes_back_from_its_file() {
    let folder = folder();
    let secrets = NodeSecrets::generate();
    let (phrase, key) = (passphrase("correct horse"), wrapping_key(7));
    let unlocks = [
        ("by passphrase", Unlock::Passphrase(&phrase)),
        ("by key", Unlock::KeyFile(&key)),
    ];
    for (name, unlock) in unlocks {
        let path = folder.path().join(name);
        create_with(&path, &secrets, unlock, CHEAP).unwrap();
        let metadata = fs::metadata(&path).unwrap();
        assert_eq!((metadata.mode() & 0o7777, metadata.len()), (0o600, 350));

        let opened: NodeSecrets = open(&path, unlock).unwrap();
        assert_eq!(opened.keys.node_id(), secrets.keys.node_id());
        assert_eq!(opened.storage.expose(), secrets.storage.expose());
        let signature = opened.keys.sign(b"hello");
        assert_eq!(secrets.keys.public().verify(b"hello", &signature), Ok(()));

        let bytes = fs::read(&path).unwrap();
        let (ml_dsa, ed25519) = secrets.keys.seeds();
        for secret in [ml_dsa.expose(), ed25519.expose(), secrets.storage.expose()] {
            assert!(!bytes.windows(32).any(|window| window == secret));
        }
    }
    assert_eq!(
        fs::read_dir(folder.path()).unwrap().count(),
        2,
        "no passing files are left"
    );
}

// A root key goes through a file and signs as before; a node's file is not taken for it, nor the other way round.
#[test]
fn a_root_key_comes_back_and_is_not_a_node() {
    let folder = folder();
    let key = wrapping_key(1);
    let (root_path, node_path) = (folder.path().join("root.key"), node_file(&folder).0);
    let root = MlDsaKeyPair::generate();
    create(&root_path, &root, Unlock::KeyFile(&key)).unwrap();
    assert_eq!(fs::metadata(&root_path).unwrap().len(), 148);

    let opened: MlDsaKeyPair = open(&root_path, Unlock::KeyFile(&key)).unwrap();
    assert_eq!(
        root.public()
            .verify(b"shard map", &opened.sign(b"shard map")),
        Ok(())
    );

    let refused = open_node(&root_path).unwrap_err();
    assert!(
        matches!(
            refused,
            KeystoreError::WrongKind {
                found: Kind::Root,
                needed: Kind::Node,
                ..
            }
        ),
        "{refused:?}"
    );
    let refused = open::<MlDsaKeyPair>(&node_path, Unlock::KeyFile(&key)).unwrap_err();
    assert!(
        matches!(
            refused,
            KeystoreError::WrongKind {
                found: Kind::Node,
                needed: Kind::Root,
                ..
            }
        ),
        "{refused:?}"
    );
}

// The header can be read without unlocking: kind, lock and NodeId, so that `pqcnet keys` can name a file's node.
#[test]
fn the_summary_needs_no_unlocking() {
    let folder = folder();
    let secrets = NodeSecrets::generate();
    let path = folder.path().join("node.key");
    create_with(
        &path,
        &secrets,
        Unlock::Passphrase(&passphrase("correct horse")),
        CHEAP,
    )
    .unwrap();
    let summary = summary(&path).unwrap();
    assert_eq!(
        (summary.kind, summary.protection),
        (Kind::Node, Protection::Passphrase(CHEAP))
    );
    assert_eq!(summary.node_id(), Some(secrets.keys.node_id()));

    let root_path = folder.path().join("root.key");
    create(
        &root_path,
        &MlDsaKeyPair::generate(),
        Unlock::KeyFile(&wrapping_key(1)),
    )
    .unwrap();
    assert_eq!(super::summary(&root_path).unwrap().node_id(), None);
}

// The pinned bytes of format 1: a header of known fields, and a whole file whose seal opens. A change of either is a
// change of format.
#[test]
fn format_1_is_pinned() {
    let header = Header {
        kind: Kind::Node,
        protection: Protection::Passphrase(Argon2Cost::DEFAULT),
        salt: [0xaa; 32],
        nonce: [0xbb; 12],
        public_id: [0xcc; 32],
        table: None,
    };
    let expected = [
        &b"PQCNKEYS\x00\x01\x01\x01\x00\x01\x00\x00\x00\x00\x00\x03\x00\x00\x00\x01"[..],
        &[0xaa; 32],
        &[0xbb; 12],
        &[0xcc; 32],
    ]
    .concat();
    assert_eq!(header.to_bytes().as_slice(), expected);

    let folder = folder();
    let path = folder.path().join("root.key");
    let root = MlDsaKeyPair::from_seed(MlDsaSeed::copied_from(&[5; 32]));
    let header = Header {
        kind: Kind::Root,
        protection: Protection::KeyFile,
        salt: [1; 32],
        nonce: [2; 12],
        public_id: root.public_id(),
        table: None,
    };
    let mut body = BodyWriter::default();
    root.write(&mut body);
    let file = header.seal(&crate::Prk::copied_from(&[9; 32]), body);
    assert_eq!(hex::encode(&file[68..]), PINNED_ROOT_FILE_TAIL);
    disk::write_new(&path, &file).unwrap();
    let opened: MlDsaKeyPair = open(&path, Unlock::KeyFile(&wrapping_key(9))).unwrap();
    assert_eq!(opened.public(), root.public());
}

/// The root's public id, then its sealed seed.
const PINNED_ROOT_FILE_TAIL: &str = "ec5adc80de5840134c703d530303d6326d2b1fa35fe46986e7eb57e8abe67afc\
    2c0988aba79f5464ba874bd321310da56f45f2b6784b15249942f01b4e33d20b8dba6a003a6292d6f88448c1b57eb01f";

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

// A wrong passphrase, a wrong key and the wrong sort of lock.
#[test]
fn what_does_not_unlock() {
    let folder = folder();
    let (path, _) = node_file(&folder);
    let wrong = open::<NodeSecrets>(&path, Unlock::KeyFile(&wrapping_key(2))).unwrap_err();
    assert!(
        matches!(wrong, KeystoreError::CannotUnlock { .. }),
        "{wrong:?}"
    );
    let phrase = passphrase("correct horse");
    let wrong = open::<NodeSecrets>(&path, Unlock::Passphrase(&phrase)).unwrap_err();
    assert!(
        matches!(
            wrong,
            KeystoreError::WrongUnlock {
                locked_by: Protection::KeyFile,
                ..
            }
        ),
        "{wrong:?}"
    );

    let path = folder.path().join("by passphrase");
    create_with(
        &path,
        &NodeSecrets::generate(),
        Unlock::Passphrase(&phrase),
        CHEAP,
    )
    .unwrap();
    let other = passphrase("correct horsf");
    let wrong = open::<NodeSecrets>(&path, Unlock::Passphrase(&other)).unwrap_err();
    assert!(
        matches!(wrong, KeystoreError::CannotUnlock { .. }),
        "{wrong:?}"
    );
    let wrong = open::<NodeSecrets>(&path, Unlock::KeyFile(&wrapping_key(1))).unwrap_err();
    assert!(
        matches!(
            wrong,
            KeystoreError::WrongUnlock {
                locked_by: Protection::Passphrase(_),
                ..
            }
        ),
        "{wrong:?}"
    );
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
        altered(9, 3),
        KeystoreError::Version {
            found: 3,
            known: 2,
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

// Group or world may read: refused with the mode, and the message says what to type.
#[test]
fn a_file_open_to_others_is_refused() {
    let folder = folder();
    let (path, _) = node_file(&folder);
    for mode in [0o640, 0o604, 0o620, 0o610, 0o601, 0o666] {
        fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
        let refused = open_node(&path).unwrap_err();
        assert!(
            matches!(refused, KeystoreError::TooOpen { mode: found, .. } if found == mode),
            "{refused:?}"
        );
        assert!(refused.to_string().contains("chmod 600"), "{refused}");
        assert!(matches!(summary(&path), Err(KeystoreError::TooOpen { .. })));
    }
    for mode in [0o600, 0o400] {
        fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
        open_node(&path).unwrap();
    }
}

// Another user's file: a test cannot become somebody else, so the rule itself is asked.
#[test]
fn a_foreign_owner_is_refused() {
    let refused = disk::check_owner(Path::new("node.key"), 1000, 1001).unwrap_err();
    assert!(matches!(
        refused,
        KeystoreError::ForeignOwner {
            owner: 1000,
            us: 1001,
            ..
        }
    ));
    disk::check_owner(Path::new("node.key"), 1000, 1000).unwrap();
}

// Nothing there, a link, a folder, a named pipe, and a path through a file.
#[test]
fn only_regular_files_are_opened() {
    let folder = folder();
    let (path, _) = node_file(&folder);
    let at = |name: &str| folder.path().join(name);

    assert!(matches!(
        open_node(&at("absent")),
        Err(KeystoreError::NotFound { .. })
    ));
    symlink(&path, at("link")).unwrap();
    assert!(matches!(
        open_node(&at("link")),
        Err(KeystoreError::NotAFile { .. })
    ));
    fs::create_dir(at("folder")).unwrap();
    assert!(matches!(
        open_node(&at("folder")),
        Err(KeystoreError::NotAFile { .. })
    ));
    nix::unistd::mkfifo(&at("pipe"), nix::sys::stat::Mode::S_IRUSR).unwrap();
    assert!(matches!(
        open_node(&at("pipe")),
        Err(KeystoreError::NotAFile { .. })
    ));
    let through = path.join("below");
    assert!(matches!(
        open_node(&through),
        Err(KeystoreError::Io { doing: "open", .. })
    ));
}

// Keys are never overwritten, not even by the same keys, nor is a link followed; a missing folder is an error that names
// it, and nothing is left behind.
#[test]
fn creation_never_overwrites() {
    let folder = folder();
    let (path, good) = node_file(&folder);
    let key = wrapping_key(1);
    let refused = create(&path, &NodeSecrets::generate(), Unlock::KeyFile(&key)).unwrap_err();
    assert!(
        matches!(refused, KeystoreError::Exists { .. }),
        "{refused:?}"
    );
    let link = folder.path().join("dangling");
    symlink(folder.path().join("nowhere"), &link).unwrap();
    let refused = create(&link, &NodeSecrets::generate(), Unlock::KeyFile(&key)).unwrap_err();
    assert!(
        matches!(refused, KeystoreError::Exists { .. }),
        "{refused:?}"
    );
    assert_eq!(fs::read(&path).unwrap(), good);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);

    let nowhere = folder.path().join("absent/node.key");
    let refused = create(&nowhere, &NodeSecrets::generate(), Unlock::KeyFile(&key)).unwrap_err();
    assert!(
        matches!(
            refused,
            KeystoreError::Io {
                doing: "create",
                ..
            }
        ),
        "{refused:?}"
    );
}

// A wrapping key is 32 bytes under the same conditions as the file it opens.
#[test]
fn wrapping_keys() {
    let folder = folder();
    let path = folder.path().join("wrap.key");
    let created = WrappingKey::create(&path).unwrap();
    assert_eq!(WrappingKey::open(&path).unwrap().expose(), created.expose());
    assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o600);
    assert!(matches!(
        WrappingKey::create(&path),
        Err(KeystoreError::Exists { .. })
    ));

    fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
    assert!(matches!(
        WrappingKey::open(&path),
        Err(KeystoreError::TooOpen { .. })
    ));
    fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
    for length in [0, 31, 33] {
        overwrite(&path, &vec![1; length]);
        let refused = WrappingKey::open(&path).unwrap_err();
        assert!(
            matches!(refused, KeystoreError::WrappingKeyLength { got, .. } if got == length as u64),
            "{refused:?}"
        );
    }
}

// A passphrase has 8 to 1,024 bytes.
#[test]
fn passphrase_lengths() {
    for (length, fits) in [
        (0, false),
        (7, false),
        (8, true),
        (1024, true),
        (1025, false),
    ] {
        match Passphrase::new("x".repeat(length)) {
            Ok(_) => assert!(fits, "{length}"),
            Err(refused) => {
                assert!(!fits, "{length}");
                assert!(matches!(
                    refused,
                    KeystoreError::PassphraseLength { min: 8, max: 1024, got } if got == length
                ));
            }
        }
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
