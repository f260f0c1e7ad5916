//! Standard output, as far as somebody takes it.

use std::fmt;
use std::io::{ErrorKind, Write as _, stdout};

use crate::exit::Exit;

/// Prints a line. Where nobody reads any more (`pqcnet ping … | head -1`) the process ends at once and well, as the reader
/// wanted it; where the line cannot be written, it says so and fails.
macro_rules! say {
    ($($text:tt)*) => {
        $crate::output::line(::core::format_args!($($text)*))
    };
}

pub(crate) fn line(text: fmt::Arguments<'_>) {
    let mut out = stdout().lock();
    match writeln!(out, "{text}").and_then(|()| out.flush()) {
        Ok(()) => {}
        Err(error) if error.kind() == ErrorKind::BrokenPipe => std::process::exit(Exit::Ok as i32),
        Err(error) => {
            eprintln!("pqcnet: cannot write to standard output: {error}");
            std::process::exit(Exit::Failure as i32)
        }
    }
}
