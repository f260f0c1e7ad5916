//! The key file, its permissions, and what opens it.

use pqcnet_crypto::NodeSecrets;
use pqcnet_crypto::keystore::{self, KeystoreError};

use super::{Check, Code, Group};
use crate::config::{NodeConfig, UnlockSource};
use crate::unlock::{Opener, PASSPHRASE_VARIABLE, UnlockError};

/// Opens the keys as the node would, but asks nobody.
pub(super) fn check(config: &NodeConfig) -> (Vec<Check>, Option<NodeSecrets>) {
    let summary = match keystore::summary(&config.keys) {
        Ok(summary) => summary,
        Err(error) => return (vec![failed(code(&error), &error)], None),
    };
    let Some(id) = summary.node_id() else {
        let told = format!("{} holds {}", config.keys.display(), summary.kind);
        return (
            vec![Check::failed(Group::Keys, Code::KeysWrongKind, told)],
            None,
        );
    };
    let found = Check::ok(
        Group::Keys,
        format!(
            "{}: node {}, locked by {}",
            config.keys.display(),
            id.short(),
            summary.protection
        ),
    );
    if config.unlock == UnlockSource::Ask && std::env::var_os(PASSPHRASE_VARIABLE).is_none() {
        let told =
            format!("the passphrase is typed at the start: set {PASSPHRASE_VARIABLE} to check it");
        return (vec![found, Check::skipped(Group::Keys, told)], None);
    }
    let opened = Opener::from_source(&config.unlock).map_err(|error| match error {
        UnlockError::Keystore(error) => (unlock_code(&error), error.to_string()),
        UnlockError::TooOpen { .. } => (Code::KeysOpen, error.to_string()),
        UnlockError::Read { .. } => (Code::UnlockMissing, error.to_string()),
        _ => (Code::UnlockMissing, error.to_string()),
    });
    let opened = opened.and_then(|opener| {
        opener
            .open::<NodeSecrets>(&config.keys)
            .map_err(|error| match error {
                UnlockError::Keystore(error) => (code(&error), error.to_string()),
                other => (Code::UnlockWrong, other.to_string()),
            })
    });
    match opened {
        Ok(secrets) => (
            vec![found, Check::ok(Group::Keys, "they open")],
            Some(secrets),
        ),
        Err((code, told)) => (vec![found, Check::failed(Group::Keys, code, told)], None),
    }
}

fn failed(code: Code, error: &KeystoreError) -> Check {
    Check::failed(Group::Keys, code, error.to_string())
}

/// What is wrong with the key file itself.
fn code(error: &KeystoreError) -> Code {
    match error {
        KeystoreError::NotFound { .. } | KeystoreError::Io { .. } => Code::KeysMissing,
        KeystoreError::TooOpen { .. } => Code::KeysOpen,
        KeystoreError::ForeignOwner { .. } => Code::KeysForeign,
        KeystoreError::WrongKind { .. } => Code::KeysWrongKind,
        KeystoreError::WrongUnlock { .. } | KeystoreError::CannotUnlock { .. } => Code::UnlockWrong,
        KeystoreError::WrappingKeyLength { .. } | KeystoreError::PassphraseLength { .. } => {
            Code::UnlockWrong
        }
        _ => Code::KeysDamaged,
    }
}

/// What is wrong with the file that opens it.
fn unlock_code(error: &KeystoreError) -> Code {
    match error {
        KeystoreError::TooOpen { .. } => Code::KeysOpen,
        KeystoreError::ForeignOwner { .. } => Code::KeysForeign,
        KeystoreError::NotFound { .. }
        | KeystoreError::Io { .. }
        | KeystoreError::NotAFile { .. } => Code::UnlockMissing,
        _ => Code::UnlockWrong,
    }
}
