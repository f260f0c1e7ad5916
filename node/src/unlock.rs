//! Opening and making key files: by a passphrase from a file, the environment or the terminal, or by a key file.

use std::fs::{File, OpenOptions};
use std::io::{BufReader, Read, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use pqcnet_crypto::NodeSecrets;
use pqcnet_crypto::keystore::{self, Contents, KeystoreError, Passphrase, Unlock, WrappingKey};

use crate::config::UnlockSource;

/// The variable that holds a passphrase. Fit for tests and service managers that load it from a vault.
pub const PASSPHRASE_VARIABLE: &str = "PQCNET_PASSPHRASE";
/// Longest passphrase file that is read, in bytes; a passphrase is shorter.
const MAX_PASSPHRASE_FILE: u64 = 4096;
/// Permission bits that only an owner's file lacks.
const OPEN_TO_OTHERS: u32 = 0o077;

/// Why a key file stayed closed; the operator erred, unless the keystore says otherwise.
#[derive(Debug, thiserror::Error)]
pub enum UnlockError {
    /// The key file or what locks it.
    #[error(transparent)]
    Keystore(#[from] KeystoreError),
    /// The file of a passphrase or a broker's address is open to others.
    #[error("{} is open to others (mode {mode:04o}): run `chmod 600 {}`", path.display(), path.display())]
    TooOpen {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// That file could not be read.
    #[error("{}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Nobody to ask.
    #[error(
        "no passphrase: give --passphrase-file or --key-file (a node: unlock.passphrase_file or unlock.key_file), set {PASSPHRASE_VARIABLE}, or run on a terminal"
    )]
    NoTerminal,
    /// Ctrl-C, or the end of the terminal, in the place of a passphrase.
    #[error("interrupted")]
    Interrupted,
    /// What was typed is no text.
    #[error("a passphrase is UTF-8 text")]
    NoText,
    /// The two passphrases typed differ.
    #[error("the two passphrases differ")]
    Differ,
}

/// Something to open a key file with.
#[derive(Debug)]
pub enum Opener {
    /// A passphrase.
    Passphrase(Passphrase),
    /// 32 random bytes.
    KeyFile(WrappingKey),
}

impl Opener {
    /// Reads what opens an existing key file; asks on the terminal last.
    pub fn from_source(source: &UnlockSource) -> Result<Opener, UnlockError> {
        Opener::read(source, false)
    }

    /// The same for a file to be made: a typed passphrase is asked for twice.
    pub fn for_new_file(source: &UnlockSource) -> Result<Opener, UnlockError> {
        Opener::read(source, true)
    }

    fn read(source: &UnlockSource, new: bool) -> Result<Opener, UnlockError> {
        let text = match source {
            UnlockSource::KeyFile(path) => return Ok(Opener::KeyFile(WrappingKey::open(path)?)),
            UnlockSource::PassphraseFile(path) => owners_text(path)?,
            UnlockSource::Ask => match std::env::var(PASSPHRASE_VARIABLE) {
                Ok(text) => text,
                Err(_) => prompt(new)?,
            },
        };
        Ok(Opener::Passphrase(Passphrase::new(text)?))
    }

    /// Opens a key file.
    pub fn open<C: Contents>(&self, path: &Path) -> Result<C, UnlockError> {
        Ok(keystore::open(path, self.unlock())?)
    }

    /// Makes a key file, mode 0600, never over another.
    pub fn create<C: Contents>(&self, path: &Path, contents: &C) -> Result<(), UnlockError> {
        Ok(keystore::create(path, contents, self.unlock())?)
    }

    /// Makes a key file of format 1; see [`keystore::create_format_1`].
    pub fn create_format_1(&self, path: &Path, secrets: &NodeSecrets) -> Result<(), UnlockError> {
        Ok(keystore::create_format_1(path, secrets, self.unlock())?)
    }

    /// Changes what a key file holds; see [`keystore::update`].
    pub fn update<C: Contents, T, E>(
        &self,
        path: &Path,
        change: impl FnOnce(&mut C) -> Result<T, E>,
    ) -> Result<Result<T, E>, UnlockError> {
        Ok(keystore::update(path, self.unlock(), change)?)
    }

    fn unlock(&self) -> Unlock<'_> {
        match self {
            Opener::Passphrase(passphrase) => Unlock::Passphrase(passphrase),
            Opener::KeyFile(key) => Unlock::KeyFile(key),
        }
    }
}

/// What stands in a small file that is its owner's alone, without the end of its line.
pub(crate) fn owners_text(path: &Path) -> Result<String, UnlockError> {
    let failed = |source| UnlockError::Read {
        path: path.to_owned(),
        source,
    };
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
        .open(path)
        .map_err(failed)?;
    let mode = file.metadata().map_err(failed)?.mode() & 0o7777;
    if mode & OPEN_TO_OTHERS != 0 {
        return Err(UnlockError::TooOpen {
            path: path.to_owned(),
            mode,
        });
    }
    let mut text = String::new();
    file.take(MAX_PASSPHRASE_FILE)
        .read_to_string(&mut text)
        .map_err(failed)?;
    text.truncate(text.trim_end_matches(['\r', '\n']).len());
    Ok(text)
}

fn prompt(twice: bool) -> Result<String, UnlockError> {
    let terminal = || OpenOptions::new().read(true).write(true).open("/dev/tty");
    let tty = terminal().map_err(|_| UnlockError::NoTerminal)?;
    // Dropped on every way out, which gives the terminal back as it was.
    let _silence = Silence::new(&tty).ok_or(UnlockError::NoTerminal)?;
    let first = ask(&tty, "passphrase: ")?;
    if twice && ask(&tty, "again: ")? != first {
        return Err(UnlockError::Differ);
    }
    Ok(first)
}

fn ask(tty: &File, question: &str) -> Result<String, UnlockError> {
    let failed = |_| UnlockError::NoTerminal;
    let mut out = tty;
    out.write_all(question.as_bytes()).map_err(failed)?;
    let typed = typed(tty);
    out.write_all(b"\n").map_err(failed)?;
    typed
}

/// A line from a terminal that passes every key on: Ctrl-C is one of them, so that it cannot end the process while the
/// terminal is silent.
fn typed(input: impl Read) -> Result<String, UnlockError> {
    let mut line: Vec<u8> = Vec::new();
    // A byte at a time: what is typed ahead belongs to the next question.
    let input = BufReader::with_capacity(1, input.take(MAX_PASSPHRASE_FILE));
    for byte in input.bytes() {
        match byte.map_err(|_| UnlockError::NoTerminal)? {
            b'\n' | b'\r' => break,
            CTRL_C => return Err(UnlockError::Interrupted),
            CTRL_D if line.is_empty() => return Err(UnlockError::Interrupted),
            CTRL_U => line.clear(),
            BACKSPACE | DELETE => {
                // A whole character goes, however many bytes it has.
                while line.pop().is_some_and(|byte| byte & 0xc0 == 0x80) {}
            }
            byte => line.push(byte),
        }
    }
    String::from_utf8(line).map_err(|_| UnlockError::NoText)
}

const CTRL_C: u8 = 0x03;
const CTRL_D: u8 = 0x04;
const BACKSPACE: u8 = 0x08;
const CTRL_U: u8 = 0x15;
const DELETE: u8 = 0x7f;

/// A terminal that does not show what is typed and passes every key on, until dropped.
struct Silence<'a> {
    tty: &'a File,
    before: String,
}

impl<'a> Silence<'a> {
    fn new(tty: &'a File) -> Option<Silence<'a>> {
        let before = stty(tty, &["-g"])?;
        stty(tty, &["-echo", "-icanon", "-isig", "min", "1", "time", "0"])?;
        Some(Silence { tty, before })
    }
}

impl Drop for Silence<'_> {
    fn drop(&mut self) {
        if stty(self.tty, &[&self.before]).is_none() {
            tracing::warn!("the terminal stays silent: run `stty sane`");
        }
    }
}

/// Runs `stty` on the terminal; what it says.
fn stty(tty: &File, settings: &[&str]) -> Option<String> {
    let mut command = Command::new("stty");
    let input = tty.try_clone().ok()?;
    command.args(settings).stdin(input).stderr(Stdio::null());
    let done = command.output().ok().filter(|done| done.status.success())?;
    Some(String::from_utf8(done.stdout).ok()?.trim().to_owned())
}

#[cfg(test)]
mod tests {
    // Scenario: a passphrase in a file opens what it locked; an open file, a missing one and a short phrase are refused.
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    fn write(path: &Path, text: &str, mode: u32) {
        std::fs::write(path, text).unwrap();
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn a_passphrase_file_opens_what_it_locked() {
        let folder = tempfile::tempdir().unwrap();
        let phrase = folder.path().join("phrase");
        write(&phrase, "correct horse battery staple\n", 0o600);
        let source = UnlockSource::PassphraseFile(phrase);
        let secrets = NodeSecrets::generate();
        let path = folder.path().join("node.keys");
        Opener::for_new_file(&source)
            .unwrap()
            .create(&path, &secrets)
            .unwrap();
        let back: NodeSecrets = Opener::from_source(&source).unwrap().open(&path).unwrap();
        assert_eq!(back.keys.node_id(), secrets.keys.node_id());
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o7777, 0o600);
    }

    /// Scenario: keys as a silent terminal passes them: corrections count, an interruption is no passphrase.
    #[test]
    fn typed_lines_are_corrected() {
        let line = |keys: &[u8]| typed(keys).map_err(|error| error.to_string());
        assert_eq!(line(b"horse\nstaple").as_deref(), Ok("horse"));
        assert_eq!(line("hors\u{e9}\x7fe\r".as_bytes()).as_deref(), Ok("horse"));
        assert_eq!(line(b"wrong\x15right\n").as_deref(), Ok("right"));
        assert_eq!(line(b"half\x03\n"), Err("interrupted".to_owned()));
        assert_eq!(line(b"\x04"), Err("interrupted".to_owned()));
        assert_eq!(
            line(b"\xff\n"),
            Err("a passphrase is UTF-8 text".to_owned())
        );
    }

    #[test]
    fn files_that_are_open_missing_or_short_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let phrase = folder.path().join("phrase");
        let source = UnlockSource::PassphraseFile(phrase.clone());
        assert!(matches!(
            Opener::from_source(&source),
            Err(UnlockError::Read { .. })
        ));
        write(&phrase, "correct horse battery staple", 0o640);
        assert!(matches!(
            Opener::from_source(&source),
            Err(UnlockError::TooOpen { mode: 0o640, .. })
        ));
        write(&phrase, "short\n", 0o600);
        assert!(matches!(
            Opener::from_source(&source),
            Err(UnlockError::Keystore(KeystoreError::PassphraseLength {
                got: 5,
                ..
            }))
        ));
    }
}
