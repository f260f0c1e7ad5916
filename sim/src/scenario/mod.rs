//! A scenario: one TOML file that says everything about a run but its seed.
//!
//! | module | what |
//! |---|---|
//! | [`spec`] | what a scenario holds |
//! | [`reader`] | TOML field by field; every problem with its line |
//! | [`churn`] | when nodes leave and come back |
//! | [`builtin`] | the scenarios that come with the simulator |
//!
//! docs/guides/sim.md lists all keys. Pure, save for [`Scenario::load`].

pub mod builtin;
pub mod churn;
mod faults;
mod read;
pub mod reader;
pub mod spec;
mod units;

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use pqcnet_crypto::Sha256;

use crate::geo::{Matrix, MatrixError};
use churn::TraceError;
use reader::Problem;
pub use spec::Scenario;
pub use units::Bytes;

/// Largest file that a scenario may name, in bytes: a table of a thousand places takes eight million.
const MAX_FILE: u64 = 16 * 1024 * 1024;

/// Files that a scenario names, read beside it.
#[derive(Clone, Debug, Default)]
pub struct Files {
    /// Of `network.matrix`.
    pub matrix: Option<Matrix>,
    /// Of `faults.trace`, in the order of the faults that name one.
    pub traces: Vec<churn::Trace>,
    /// All of them as they were read: the scenario's word for the file, and its text.
    pub texts: Vec<(String, String)>,
}

/// A scenario with the text it came from and the files it names.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// What it says.
    pub scenario: Scenario,
    /// The file's text.
    pub text: String,
    /// What it names.
    pub files: Files,
    /// SHA-256 over the text and all files: a run is a scenario of this hash and a seed.
    pub hash: [u8; 32],
}

/// Why a scenario cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// A file could not be read.
    #[error("{}: {error}", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// A file of no such size.
    #[error("{}: larger than 16 MiB", .0.display())]
    TooLarge(PathBuf),
    /// The scenario's author erred.
    #[error("{}", List(.path, .problems))]
    Wrong {
        /// The scenario.
        path: PathBuf,
        /// All that is wrong, by line.
        problems: Vec<Problem>,
    },
    /// A table of latencies is wrong.
    #[error("{}: {error}", path.display())]
    Matrix {
        /// Which.
        path: PathBuf,
        /// Why.
        error: MatrixError,
    },
    /// Statistics of churn are wrong.
    #[error("{}: {error}", path.display())]
    Trace {
        /// Which.
        path: PathBuf,
        /// Why.
        error: TraceError,
    },
    /// Neither a file nor a built-in scenario.
    #[error("`{name}` is neither a file nor a built-in scenario{}", did_you_mean.map(|near| format!(", did you mean `{near}`?")).unwrap_or_default())]
    NoSuch {
        /// What was asked for.
        name: String,
        /// The nearest built-in one.
        did_you_mean: Option<&'static str>,
    },
}

struct List<'a>(&'a Path, &'a [Problem]);

impl fmt::Display for List<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.1.iter().enumerate() {
            let end = if index == 0 { "" } else { "\n" };
            write!(f, "{end}{}: {problem}", self.0.display())?;
        }
        Ok(())
    }
}

impl Scenario {
    /// Reads a scenario's text.
    ///
    /// # Errors
    /// Everything that is wrong in it, by line.
    pub fn parse(text: &str) -> Result<Scenario, Vec<Problem>> {
        read::scenario(text)
    }

    /// A built-in scenario by name, or the file at a path with the files it names.
    pub fn load(name: &str) -> Result<Loaded, LoadError> {
        if let Some(text) = builtin::text(name) {
            return Scenario::with_files(text.to_owned(), Path::new(name));
        }
        let path = Path::new(name);
        if !path.exists() && !name.contains(['/', '.']) {
            let did_you_mean = reader::nearest(name, builtin::names());
            return Err(LoadError::NoSuch {
                name: name.to_owned(),
                did_you_mean: builtin::names().find(|known| Some(*known) == did_you_mean),
            });
        }
        Scenario::with_files(read_file(path)?, path)
    }

    /// A scenario's text, and the files it names relative to `path`.
    pub fn with_files(text: String, path: &Path) -> Result<Loaded, LoadError> {
        let scenario = Scenario::parse(&text).map_err(|problems| LoadError::Wrong {
            path: path.to_owned(),
            problems,
        })?;
        let mut hash = Sha256::new();
        hash.update(b"pqcnet-sim scenario/1");
        let mut add = |text: &str| {
            hash.update(&(text.len() as u64).to_be_bytes());
            hash.update(text.as_bytes());
        };
        add(&text);
        let beside = |file: &str| path.parent().unwrap_or(Path::new("")).join(file);
        let mut files = Files::default();
        if let spec::Latency::Matrix {
            table: words,
            names,
        } = &scenario.network.latency
        {
            let (place, listed) = (beside(words), names.as_deref().map(beside));
            let table = read_file(&place)?;
            let listed = listed.as_deref().map(read_file).transpose()?;
            add(&table);
            add(listed.as_deref().unwrap_or_default());
            let keep = [Some((words, &table)), names.as_ref().zip(listed.as_ref())];
            let keep = keep.into_iter().flatten();
            files
                .texts
                .extend(keep.map(|(word, text)| (word.clone(), text.clone())));
            let matrix = Matrix::parse(&table, listed.as_deref()).and_then(|matrix| {
                for region in scenario.regions() {
                    matrix.find(region)?;
                }
                Ok(matrix)
            });
            files.matrix = Some(matrix.map_err(|error| LoadError::Matrix { path: place, error })?);
        }
        for (file, speed) in scenario.traces() {
            let place = beside(file);
            let json = read_file(&place)?;
            let trace = churn::Trace::parse(&json, speed);
            let trace = trace.map_err(|error| LoadError::Trace { path: place, error })?;
            add(&json);
            files.traces.push(trace);
            files.texts.push((file.to_owned(), json));
        }
        Ok(Loaded {
            scenario,
            hash: hash.finish(),
            text,
            files,
        })
    }
}

fn read_file(path: &Path) -> Result<String, LoadError> {
    let read = |error| LoadError::Read {
        path: path.to_owned(),
        error,
    };
    if fs::metadata(path).map_err(read)?.len() > MAX_FILE {
        return Err(LoadError::TooLarge(path.to_owned()));
    }
    fs::read_to_string(path).map_err(read)
}

#[cfg(test)]
mod tests;
