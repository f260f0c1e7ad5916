//! Who may read what a node tells of itself: whoever can read the file with its address and token.
//!
//! The page's address is `http://127.0.0.1:7412/ui#TOKEN`. A fragment is never sent, so the token is in no log and no
//! referrer; the page keeps it for its own tab and sends it as `Authorization: Bearer TOKEN`. There is no cookie: one of
//! `127.0.0.1` would go to every port there, whoever listens on it.
//!
//! A page of a stranger's can make a browser ask this node, but neither read the answer nor add that header. One whose name
//! was made to point at this machine (DNS rebinding) is told from ours by its Host: only addresses and `localhost` pass.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use pqcnet_crypto::random;
use subtle::ConstantTimeEq as _;

/// Bytes of a token; nobody guesses one.
const TOKEN_LEN: usize = 32;
/// Longest file that is read: an address, `/ui#`, a token.
const MAX_FILE: u64 = 256;

/// What opens the page, in hexadecimal. Prints as its name only.
#[derive(Clone)]
pub struct Token(String);

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Token")
    }
}

/// Why a node has no page; the operator erred, or the disk did.
#[derive(Debug, thiserror::Error)]
pub enum NoToken {
    /// The file cannot be written.
    #[error("cannot write {}: {source}; set `admin.page` to a path that the node may write", path.display())]
    Write {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The pages are not on loopback, and a token would travel in clear text.
    #[error(
        "admin.listen is {0}, not a loopback address: the page would send its token in clear text"
    )]
    NotLoopback(SocketAddr),
}

impl Token {
    fn new() -> Token {
        let mut bytes = [0; TOKEN_LEN];
        random::fill(&mut bytes);
        Token(hex::encode(bytes))
    }

    fn parse(text: &str) -> Option<Token> {
        let well_formed = text.len() == TOKEN_LEN * 2
            && text
                .bytes()
                .all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
        well_formed.then(|| Token(text.to_owned()))
    }

    /// The token of a node whose admin pages are at `bound`: the one in the file if only this user could read it, else a new
    /// one. The file holds the page's address, this token in its fragment.
    ///
    /// # Errors
    /// The file cannot be written, or the pages are not on loopback.
    pub fn establish(path: &Path, bound: SocketAddr) -> Result<Token, NoToken> {
        if !bound.ip().is_loopback() {
            return Err(NoToken::NotLoopback(bound));
        }
        let kept = kept(path);
        let token = kept.unwrap_or_else(Token::new);
        write(path, &token.address(bound)).map_err(|source| NoToken::Write {
            path: path.to_owned(),
            source,
        })?;
        Ok(token)
    }

    /// Where a browser finds the page.
    pub fn address(&self, bound: SocketAddr) -> String {
        format!("http://{bound}/ui#{}", self.0)
    }

    /// Whether a request's `Authorization` carries it. Takes the same time wherever a wrong one differs.
    pub fn opens(&self, authorization: Option<&[u8]>) -> bool {
        let given = authorization.and_then(|value| value.strip_prefix(b"Bearer "));
        given.is_some_and(|given| given.ct_eq(self.0.as_bytes()).into())
    }
}

/// The token of an earlier start. What others may have read or written is none.
fn kept(path: &Path) -> Option<Token> {
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
        .open(path)
        .ok()?;
    let about = file.metadata().ok()?;
    let ours = about.uid() == nix::unistd::geteuid().as_raw() && about.mode() & 0o077 == 0;
    if !about.is_file() || !ours {
        tracing::warn!(file = %path.display(), "others may have read the page's token: there is a new one");
        return None;
    }
    let mut text = String::new();
    file.take(MAX_FILE).read_to_string(&mut text).ok()?;
    Token::parse(text.trim_end().split_once('#')?.1)
}

/// Replaces the file whole, mode 0600 from its first moment.
fn write(path: &Path, address: &str) -> io::Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let passing = path.with_file_name(name);
    match std::fs::remove_file(&passing) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file: File = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&passing)?;
    file.write_all(format!("{address}\n").as_bytes())?;
    file.sync_all()?;
    std::fs::rename(&passing, path)
}

/// Whether a request names this node as nobody but it can be named: by an address, or as `localhost`. The name of another
/// site that resolves to this machine does not pass.
pub fn names_us(host: Option<&str>) -> bool {
    let Some(host) = host else {
        return false;
    };
    if host.parse::<IpAddr>().is_ok() {
        return true;
    }
    let (name, port) = match host.strip_prefix('[').map(|rest| rest.split_once(']')) {
        Some(Some(parts)) => parts,
        Some(None) => return false,
        None => host.find(':').map_or((host, ""), |at| host.split_at(at)),
    };
    let number = |port: &str| port.parse::<u16>().is_ok();
    let port_is_one = port.is_empty() || port.strip_prefix(':').is_some_and(number);
    port_is_one && (name.eq_ignore_ascii_case("localhost") || name.parse::<IpAddr>().is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    fn loopback() -> SocketAddr {
        "127.0.0.1:7412".parse().unwrap()
    }

    fn mode(path: &Path) -> u32 {
        std::fs::metadata(path).unwrap().mode() & 0o777
    }

    /// A first start makes the file, mode 0600; a second one keeps the token; whoever has it gets in, nobody else does.
    #[test]
    fn a_token_outlives_a_start() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("page.url");
        let token = Token::establish(&path, loopback()).unwrap();
        assert_eq!(mode(&path), 0o600);
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(text.trim_end(), token.address(loopback()));
        assert!(text.starts_with("http://127.0.0.1:7412/ui#"), "{text}");
        let elsewhere = "127.0.0.1:9999".parse().unwrap();
        let again = Token::establish(&path, elsewhere).unwrap();
        assert_eq!(again.0, token.0);
        assert!(
            std::fs::read_to_string(&path)
                .unwrap()
                .contains(":9999/ui#")
        );

        let right = format!("Bearer {}", token.0);
        assert!(token.opens(Some(right.as_bytes())));
        let mut wrong = right.clone().into_bytes();
        *wrong.last_mut().unwrap() ^= 1;
        for given in [
            &wrong[..],
            b"Bearer ",
            b"",
            &right.as_bytes()[..20],
            token.0.as_bytes(),
        ] {
            assert!(!token.opens(Some(given)));
        }
        assert!(!token.opens(None));
        assert_eq!(format!("{token:?}"), "Token");
    }

    /// A file that others may read, a link, a file of something else: its token is not used, the file is replaced.
    #[test]
    fn what_others_may_know_is_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("page.url");
        let first = Token::establish(&path, loopback()).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
        let second = Token::establish(&path, loopback()).unwrap();
        assert_ne!(first.0, second.0);
        assert_eq!(mode(&path), 0o600);

        let real = folder.path().join("real");
        std::fs::rename(&path, &real).unwrap();
        std::os::unix::fs::symlink(&real, &path).unwrap();
        let third = Token::establish(&path, loopback()).unwrap();
        assert_ne!(second.0, third.0);
        assert!(std::fs::symlink_metadata(&path).unwrap().is_file());
        assert!(std::fs::read_to_string(&real).unwrap().contains(&second.0));

        for text in [
            "",
            "http://127.0.0.1:1/ui",
            "http://127.0.0.1:1/ui#beef",
            "x#é",
        ] {
            std::fs::write(&path, text).unwrap();
            let token = Token::establish(&path, loopback()).unwrap();
            assert!(Token::parse(&token.0).is_some());
        }
    }

    /// No folder to write to; an address that others reach.
    #[test]
    fn no_token_says_why() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("absent").join("page.url");
        let error = Token::establish(&path, loopback()).unwrap_err();
        assert!(matches!(error, NoToken::Write { .. }), "{error}");
        let public = "0.0.0.0:7412".parse().unwrap();
        let error = Token::establish(&folder.path().join("page.url"), public).unwrap_err();
        assert!(
            matches!(error, NoToken::NotLoopback(at) if at == public),
            "{error}"
        );
    }

    /// A rebound name is a name: only addresses and localhost pass.
    #[test]
    fn a_host_must_be_ours() {
        for host in [
            "127.0.0.1:7412",
            "127.0.0.1",
            "localhost:80",
            "LOCALHOST",
            "[::1]:7412",
            "[::1]",
            "::1",
        ] {
            assert!(names_us(Some(host)), "{host}");
        }
        for host in [
            "",
            "evil.example",
            "evil.example:7412",
            "localhost.evil.example",
            "127.0.0.1.nip.io",
            "localhost:",
            "localhost:x",
        ] {
            assert!(!names_us(Some(host)), "{host}");
        }
        assert!(!names_us(None));
    }
}
