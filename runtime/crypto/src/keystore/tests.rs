use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use super::*;

mod damaged;
mod places;
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
