//! What a process says when it ends.

use std::fmt;
use std::process::ExitCode;

/// The exit codes, the same for every binary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// Done.
    Ok = 0,
    /// Something failed that is none of the below.
    Failure = 1,
    /// A wrong command line or configuration; nothing was started.
    Usage = 2,
    /// It runs and says that it is not well.
    Unhealthy = 3,
    /// Nobody answered.
    Unreachable = 4,
    /// Somebody answered and said no.
    Refused = 5,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> ExitCode {
        ExitCode::from(exit as u8)
    }
}

/// Why a command ended early, and with which code.
#[derive(Debug)]
pub struct Failed {
    /// The code.
    pub exit: Exit,
    /// What to tell the operator.
    pub error: anyhow::Error,
}

impl Failed {
    /// With this code.
    pub fn new(exit: Exit, error: impl Into<anyhow::Error>) -> Failed {
        Failed {
            exit,
            error: error.into(),
        }
    }

    /// A wrong command line, configuration or key file.
    pub fn usage(error: impl Into<anyhow::Error>) -> Failed {
        Failed::new(Exit::Usage, error)
    }

    /// Prints the reason to standard error, causes included, and gives the code.
    pub fn report(&self, program: &str) -> ExitCode {
        eprintln!("{program}: {self}");
        self.exit.into()
    }
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Some errors name their cause in their own text: nothing is said twice.
        let mut said = String::new();
        for cause in self.error.chain().map(ToString::to_string) {
            if said.is_empty() {
                said = cause;
            } else if !said.contains(&cause) {
                said.push_str(": ");
                said.push_str(&cause);
            }
        }
        f.write_str(&said)
    }
}

impl From<anyhow::Error> for Failed {
    fn from(error: anyhow::Error) -> Failed {
        Failed::new(Exit::Failure, error)
    }
}

/// What `main` returns.
pub fn finish(program: &str, outcome: Result<Exit, Failed>) -> ExitCode {
    match outcome {
        Ok(exit) => exit.into(),
        Err(failed) => failed.report(program),
    }
}

#[cfg(test)]
mod tests {
    // Scenario: a cause that its error's text names already is not repeated; one that it does not name is added.
    use super::*;
    use crate::unlock::UnlockError;

    #[test]
    fn a_cause_is_said_once() {
        let source = || std::io::Error::from(std::io::ErrorKind::NotFound);
        let named = UnlockError::Read {
            path: "phrase".into(),
            source: source(),
        };
        assert_eq!(Failed::usage(named).to_string(), "phrase: entity not found");
        let hidden = anyhow::Error::new(source()).context("cannot read phrase");
        assert_eq!(
            Failed::usage(hidden).to_string(),
            "cannot read phrase: entity not found"
        );
    }
}
