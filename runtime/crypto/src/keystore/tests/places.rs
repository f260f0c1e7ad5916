//! Where key files may lie, whose they may be, and what opens them.

use std::fs::Permissions;
use std::os::unix::fs::{PermissionsExt as _, symlink};

use super::*;

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
