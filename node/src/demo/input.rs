//! Real input: a file, a folder, standard input, or the project's own source files.

use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, Read as _, Write as _};
use std::os::unix::fs::FileTypeExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result};
use pqcnet_actor::Env;
use pqcnet_client::MAX_PAYLOAD;

use super::parts::{Digest, channel_of};

/// Kinds of file that are the project's own text.
const SOURCES: [&str; 4] = ["rs", "toml", "md", "proto"];
/// A pipe that says nothing for this long is nobody's input: build systems leave theirs open.
const PIPE_SPEAKS_WITHIN: Duration = Duration::from_secs(2);

/// Input that the demo cannot carry; the operator erred.
#[derive(Debug, thiserror::Error)]
pub enum BadInput {
    /// Nothing was named, nothing piped in, and there is no source here.
    #[error("no source files here; name --input, or pipe something in")]
    None,
    /// It holds no message.
    #[error("the input is empty: nothing to send")]
    Empty,
    /// It cannot be read.
    #[error("cannot read {}", path.display())]
    Unreadable {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// Where messages come from.
pub enum Source {
    /// These files, one after another.
    Files(Vec<PathBuf>),
    /// Standard input, from its first byte on.
    Stdin(Vec<u8>),
}

/// What was read: the messages, spooled to a file, and what must arrive.
pub struct Spooled {
    /// The messages, a line each.
    pub path: PathBuf,
    /// What each channel must carry.
    pub expected: Vec<Digest>,
    /// Messages in all.
    pub messages: u64,
    /// Payload bytes in all.
    pub bytes: u64,
    /// Whether there was more.
    pub cut: bool,
}

impl Source {
    /// The named path, else standard input if it speaks, else the source files below the working folder.
    pub async fn find(env: &Env, named: Option<&Path>) -> Result<(Source, String)> {
        if let Some(path) = named {
            let files = if path.is_dir() {
                files_below(path, None)?
            } else {
                vec![path.to_owned()]
            };
            return Ok((Source::Files(files), path.display().to_string()));
        }
        if let Some(first) = first_of_stdin(env).await? {
            return Ok((Source::Stdin(first), "standard input".to_owned()));
        }
        let files = files_below(Path::new("."), Some(&SOURCES))?;
        if files.is_empty() {
            return Err(BadInput::None.into());
        }
        let told = format!("the project's own source, {} files", files.len());
        Ok((Source::Files(files), told))
    }

    /// Reads everything once, line by line, and spools it.
    pub fn spool(self, path: &Path, channels: usize, most: u64) -> Result<Spooled> {
        let file =
            File::create(path).with_context(|| format!("cannot write {}", path.display()))?;
        let mut spool = Spool {
            out: BufWriter::new(file),
            expected: vec![Digest::default(); channels],
            messages: 0,
            bytes: 0,
            most,
        };
        let mut cut = false;
        match self {
            Source::Stdin(first) => {
                cut = spool.all(&mut BufReader::new(
                    io::Cursor::new(first).chain(io::stdin()),
                ))?
            }
            Source::Files(files) => {
                for path in files {
                    let file = File::open(&path)
                        .map_err(|source| BadInput::Unreadable { path, source })?;
                    cut = spool.all(&mut BufReader::new(file))?;
                    if cut {
                        break;
                    }
                }
            }
        }
        spool.out.flush().context("the spool file")?;
        if spool.messages == 0 {
            return Err(BadInput::Empty.into());
        }
        Ok(Spooled {
            path: path.to_owned(),
            expected: spool.expected,
            messages: spool.messages,
            bytes: spool.bytes,
            cut,
        })
    }
}

struct Spool {
    out: BufWriter<File>,
    expected: Vec<Digest>,
    messages: u64,
    bytes: u64,
    most: u64,
}

impl Spool {
    /// True if the limit cut it short.
    fn all(&mut self, input: &mut dyn BufRead) -> Result<bool> {
        let mut line = Vec::new();
        loop {
            line.clear();
            // A line over the limit of a payload is carried in pieces.
            if input
                .take(MAX_PAYLOAD as u64)
                .read_until(b'\n', &mut line)
                .context("the input")?
                == 0
            {
                return Ok(false);
            }
            if self.messages == self.most {
                return Ok(true);
            }
            if line.last() == Some(&b'\n') {
                line.pop();
            }
            let channel = channel_of(self.messages, self.expected.len());
            if let Some(expected) = self.expected.get_mut(channel) {
                expected.add(&line);
            }
            self.messages += 1;
            self.bytes += line.len() as u64;
            line.push(b'\n');
            self.out.write_all(&line).context("the spool file")?;
        }
    }
}

/// The first bytes of standard input; `None` for a terminal, `/dev/null`, and a pipe that is closed or silent.
async fn first_of_stdin(env: &Env) -> Result<Option<Vec<u8>>> {
    let Ok(kind) = std::fs::metadata("/dev/stdin").map(|about| about.file_type()) else {
        return Ok(None);
    };
    if !(kind.is_file() || kind.is_fifo() || kind.is_socket()) {
        return Ok(None);
    }
    let (sender, receiver) = tokio::sync::oneshot::channel();
    env.dedicated_thread("stdin", move || {
        let mut chunk = vec![0; 64 * 1024];
        let read = io::stdin().read(&mut chunk).unwrap_or(0);
        chunk.truncate(read);
        if sender.send(chunk).is_err() {
            tracing::trace!("standard input spoke too late");
        }
    })
    .context("no thread for standard input")?;
    match tokio::time::timeout(PIPE_SPEAKS_WITHIN, receiver).await {
        Ok(Ok(first)) if !first.is_empty() => Ok(Some(first)),
        _ => Ok(None),
    }
}

/// Every file below a folder, sorted, hidden ones and build products left out.
fn files_below(folder: &Path, kinds: Option<&[&str]>) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        let entries = std::fs::read_dir(&folder)
            .with_context(|| format!("cannot read {}", folder.display()))?;
        for entry in entries {
            let entry = entry?;
            let (name, path, kind) = (entry.file_name(), entry.path(), entry.file_type()?);
            let hidden = name.to_string_lossy().starts_with('.');
            if hidden || name == "target" {
                continue;
            }
            let extension = path
                .extension()
                .and_then(|extension| extension.to_str())
                .unwrap_or_default();
            if kind.is_dir() {
                folders.push(path);
            } else if kind.is_file() && kinds.is_none_or(|kinds| kinds.contains(&extension)) {
                files.push(path);
            }
        }
    }
    files.sort();
    Ok(files)
}

#[cfg(test)]
mod tests {
    // Scenario: lines, an over-long line and a last line without an end are spooled as the messages they are.
    use super::*;

    #[test]
    fn lines_become_messages_in_turn() {
        let place = tempfile::tempdir().unwrap();
        let input = place.path().join("input");
        let long = vec![b'x'; MAX_PAYLOAD + 3];
        let text = [b"one\n\ntwo\n".as_slice(), &long, b"\nlast"].concat();
        std::fs::write(&input, text).unwrap();
        let spooled = Source::Files(vec![input.clone()])
            .spool(&place.path().join("spool"), 2, 100)
            .unwrap();
        assert_eq!((spooled.messages, spooled.cut), (6, false));
        let messages: [&[u8]; 6] = [
            b"one",
            b"",
            b"two",
            &long[..MAX_PAYLOAD],
            &long[MAX_PAYLOAD..],
            b"last",
        ];
        let mut expected = vec![Digest::default(); 2];
        for (index, message) in messages.iter().enumerate() {
            expected[index % 2].add(message);
        }
        assert_eq!(spooled.expected, expected);
        let cut = Source::Files(vec![input])
            .spool(&place.path().join("spool"), 2, 2)
            .unwrap();
        assert_eq!((cut.messages, cut.cut), (2, true));
    }

    #[test]
    fn empty_input_is_an_error() {
        let place = tempfile::tempdir().unwrap();
        let error = Source::Files(Vec::new())
            .spool(&place.path().join("spool"), 2, 2)
            .err()
            .unwrap();
        assert_eq!(error.to_string(), "the input is empty: nothing to send");
    }
}
