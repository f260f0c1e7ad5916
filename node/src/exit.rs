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
        write!(f, "{:#}", self.error)
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
