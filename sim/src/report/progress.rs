//! The line that shows how far a run is.

use std::io::{self, IsTerminal as _, Write as _};
use std::time::Duration;

use crate::scenario::Bytes;

/// Times a second that the line is drawn anew on a terminal.
const EVERY: Duration = Duration::from_millis(200);
/// Characters of the bar.
const BAR: usize = 24;

/// Shows progress on standard error: a bar on a terminal, a line every tenth of the way elsewhere.
pub struct Progress {
    total: Duration,
    terminal: bool,
    quiet: bool,
    drawn: Option<Duration>,
    tenth: u32,
}

/// How far a run is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Progressed {
    /// Simulated time.
    pub simulated: Duration,
    /// Of the machine, since the run began.
    pub elapsed: Duration,
    /// Events so far.
    pub events: u64,
    /// Resident memory.
    pub rss_bytes: u64,
}

impl Progress {
    /// Of a run of so much simulated time. A quiet one shows nothing.
    pub fn new(total: Duration, quiet: bool) -> Progress {
        Progress {
            total,
            terminal: io::stderr().is_terminal(),
            quiet,
            drawn: None,
            tenth: 0,
        }
    }

    /// Draws, if it is time to.
    pub fn show(&mut self, at: &Progressed) {
        if self.quiet {
            return;
        }
        if self.terminal {
            let due = self.drawn.is_none_or(|drawn| at.elapsed >= drawn + EVERY);
            if due {
                self.drawn = Some(at.elapsed);
                // One that wraps could not be drawn over.
                let line = cut(self.line(at), columns());
                self.write(&format!("\r{line}\x1b[K"));
            }
            return;
        }
        let tenth = (self.share(at) * 10.0) as u32;
        if tenth > self.tenth {
            self.tenth = tenth;
            self.write(&format!("{}\n", self.line(at)));
        }
    }

    /// Leaves the line to what comes after it.
    pub fn end(&mut self) {
        if self.terminal && self.drawn.is_some() && !self.quiet {
            self.write("\r\x1b[K");
        }
    }

    fn write(&self, text: &str) {
        // A closed standard error is no reason to stop a run.
        io::stderr().write_all(text.as_bytes()).unwrap_or_default();
    }

    fn share(&self, at: &Progressed) -> f64 {
        let total = self.total.as_secs_f64();
        if total > 0.0 {
            (at.simulated.as_secs_f64() / total).min(1.0)
        } else {
            1.0
        }
    }

    /// The line itself.
    fn line(&self, at: &Progressed) -> String {
        let done = (self.share(at) * BAR as f64) as usize;
        let elapsed = at.elapsed.as_secs_f64().max(0.001);
        format!(
            "[{}{}] {:.1}/{:.0} s simulated, {:.1}x real time, {} events ({:.0}k/s), {}",
            "#".repeat(done),
            ".".repeat(BAR - done),
            at.simulated.as_secs_f64(),
            self.total.as_secs_f64(),
            at.simulated.as_secs_f64() / elapsed,
            at.events,
            at.events as f64 / elapsed / 1_000.0,
            Bytes(at.rss_bytes)
        )
    }
}

/// Columns of the terminal; many, where it does not say.
fn columns() -> usize {
    let size = crossterm::terminal::size();
    let columns = size.map_or(0, |(columns, _)| usize::from(columns));
    if columns == 0 { usize::MAX } else { columns }
}

/// As much of a line of ASCII as leaves the cursor in it.
fn cut(mut line: String, columns: usize) -> String {
    line.truncate(columns.saturating_sub(1));
    line
}

/// The process's resident memory and the most it had, in bytes; zeros where the system does not say.
pub fn resident() -> (u64, u64) {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        let kib = line.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok());
        kib.unwrap_or(0) * 1024
    };
    (field("VmRSS:"), field("VmHWM:"))
}

#[cfg(test)]
mod tests {
    use super::*;

    // Scenario: half way through a run; the line says time, speed, events and memory.
    #[test]
    fn the_line_says_how_far() {
        let progress = Progress::new(Duration::from_secs(60), true);
        let at = Progressed {
            simulated: Duration::from_secs(30),
            elapsed: Duration::from_secs(10),
            events: 1_200_000,
            rss_bytes: 300 << 20,
        };
        assert_eq!(
            progress.line(&at),
            "[############............] 30.0/60 s simulated, 3.0x real time, 1200000 events (120k/s), 300.0 MiB"
        );
    }

    // Scenario: a line of nine characters in windows of ten, nine and no columns: the last column stays free.
    #[test]
    fn a_line_fits_its_window() {
        for (columns, shown) in [(10, "123456789"), (9, "12345678"), (0, "")] {
            assert_eq!(cut("123456789".to_owned(), columns), shown);
        }
    }

    // Scenario: this process has memory, and its peak is no less than what it has now.
    #[test]
    fn memory_is_read() {
        let (now, peak) = resident();
        assert!(now > 1 << 20 && peak >= now, "{now} {peak}");
    }
}
