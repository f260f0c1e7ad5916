//! Takes out of a text what nobody else may read: the secrets known here, and everything that looks like one.

use std::collections::BTreeSet;
use std::sync::Arc;

/// What stands in a secret's place.
pub const REDACTED: &str = "[redacted]";
/// Shorter words are no secret of ours, and taking them out would spoil the text.
const MIN_SECRET: usize = 8;
/// A key, a seed or a signature in hexadecimal has 64 digits at least.
const MIN_HEX: usize = 64;
/// 32 bytes in base 64.
const MIN_BASE64: usize = 43;
/// What is written after one of these words is taken out, whatever it is.
const WORDS: [&str; 9] = [
    "passphrase",
    "password",
    "passwd",
    "secret",
    "token",
    "bearer",
    "authorization",
    "grant",
    "payload",
];

/// Knows secrets, and identifiers that look like secrets and are none.
#[derive(Clone, Default)]
pub struct Redactor {
    secrets: Arc<BTreeSet<String>>,
    public: Arc<BTreeSet<String>>,
}

impl std::fmt::Debug for Redactor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Redactor")
    }
}

impl Redactor {
    /// Takes out these secrets, spares these public identifiers.
    pub fn new(
        secrets: impl IntoIterator<Item = String>,
        public: impl IntoIterator<Item = String>,
    ) -> Redactor {
        let long = |secret: &String| secret.len() >= MIN_SECRET;
        Redactor {
            secrets: Arc::new(secrets.into_iter().filter(long).collect()),
            public: Arc::new(public.into_iter().collect()),
        }
    }

    /// The text without them.
    pub fn clean(&self, text: &str) -> String {
        let mut text = text.to_owned();
        // The longest first: one may be a part of another.
        let mut secrets: Vec<&String> = self.secrets.iter().collect();
        secrets.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
        for secret in secrets {
            if text.contains(secret.as_str()) {
                text = text.replace(secret.as_str(), REDACTED);
            }
        }
        let lines = text.split('\n').map(|line| self.runs(&after_words(line)));
        lines.collect::<Vec<_>>().join("\n")
    }

    /// Long runs of digits that stand for bytes.
    fn runs(&self, line: &str) -> String {
        let mut out = String::with_capacity(line.len());
        let mut rest = line;
        while let Some(start) = rest.find(in_run) {
            out.push_str(&rest[..start]);
            let run = &rest[start..];
            let end = run.find(|c| !in_run(c)).unwrap_or(run.len());
            let (run, tail) = run.split_at(end);
            if self.looks_secret(run) {
                out.push_str(REDACTED);
            } else {
                out.push_str(run);
            }
            rest = tail;
        }
        out.push_str(rest);
        out
    }

    fn looks_secret(&self, run: &str) -> bool {
        if self.public.contains(run) {
            return false;
        }
        let hex = run.len() >= MIN_HEX && run.bytes().all(|b| b.is_ascii_hexdigit());
        let has = |test: fn(&u8) -> bool| run.as_bytes().iter().any(test);
        let mixed =
            has(u8::is_ascii_uppercase) && has(u8::is_ascii_lowercase) && has(u8::is_ascii_digit);
        hex || (run.len() >= MIN_BASE64 && mixed)
    }
}

fn in_run(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '+' | '=' | '_' | '-')
}

/// `token=abc`, `"token": "abc"`, `Bearer abc`: the value up to the next space, comma or bracket goes. A path that is named
/// so (`passphrase_file = "..."`) stays: it says where, not what.
fn after_words(line: &str) -> String {
    let lower = line.to_ascii_lowercase();
    let mut cut: Vec<(usize, usize)> = Vec::new();
    for word in WORDS {
        let mut from = 0;
        while let Some(found) = lower[from..].find(word) {
            let end = from + found + word.len();
            from = end;
            if let Some(range) = value_after(line, end, word == "bearer") {
                cut.push(range);
            }
        }
    }
    cut.sort_unstable();
    let mut out = String::with_capacity(line.len());
    let mut at = 0;
    for (start, end) in cut {
        if start >= at {
            out.push_str(&line[at..start]);
            out.push_str(REDACTED);
            at = end;
        }
    }
    out.push_str(&line[at..]);
    out
}

/// Where the value begins and ends, if what follows the word assigns one.
fn value_after(line: &str, end: usize, by_space: bool) -> Option<(usize, usize)> {
    let rest = &line[end..];
    let signs = rest.len()
        - rest
            .trim_start_matches(['"', '\'', ' ', '=', ':', '\\'])
            .len();
    let between = &rest[..signs];
    let assigns = between.contains(['=', ':']) || (by_space && between.contains(' '));
    if !assigns {
        return None;
    }
    let value = &rest[signs..];
    let quoted = between.ends_with(['"', '\'']);
    let ends: &[char] = if quoted {
        &['"', '\'']
    } else {
        &[' ', ',', ';', '&', '}', ']', ')', '"', '\'']
    };
    let length = value.find(ends).unwrap_or(value.len());
    (length > 0).then_some((end + signs, end + signs + length))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Scenario: known secrets go wherever they stand, unknown ones by how they look or by the word before them; node ids,
    /// paths, words and places of secrets stay.
    #[test]
    fn secrets_go_and_the_rest_stays() {
        let id = "0a".repeat(32);
        let redactor = Redactor::new(["correct horse".to_owned(), "abc".to_owned()], [id.clone()]);
        let clean = |text: &str| redactor.clean(text);
        assert_eq!(
            clean("opened by correct horse at 7"),
            "opened by [redacted] at 7"
        );
        assert_eq!(clean(&format!("peer={id} up")), format!("peer={id} up"));
        assert_eq!(
            clean(&format!("seed {}", "0b".repeat(32))),
            "seed [redacted]"
        );
        assert_eq!(clean(&"Aa0".repeat(15)), "[redacted]");
        assert_eq!(
            clean("GET /ui?token=s3cr3t&x=1"),
            "GET /ui?token=[redacted]&x=1"
        );
        assert_eq!(
            clean("{\"passphrase\": \"a b, c\", \"n\": 1}"),
            "{\"passphrase\": \"[redacted]\", \"n\": 1}"
        );
        assert_eq!(
            clean("Authorization: Bearer abcdef"),
            "Authorization: [redacted] [redacted]"
        );
        assert_eq!(clean("a token that is old"), "a token that is old");
        for kept in [
            "unlock.passphrase_file = \"/etc/pqcnet/phrase\"  # node.toml:3",
            "abc is too short to be one",
            "2026-11-21T08:00:00Z INFO pqcnet_roles::steward link open plane=\"data\"",
            "/root/a/very/long/path/that/goes/on/and/on/to/Relayer-1/store/db/MANIFEST-000005",
        ] {
            assert_eq!(clean(kept), kept);
        }
    }
}
