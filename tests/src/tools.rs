//! Programs of other packages that tests run. One that is missing is a failure that names its package: a check that was
//! skipped would look like one that passed.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use anyhow::{Context as _, Result, ensure};

/// Where a program of Debian's package `package` is.
pub fn find(program: &str, package: &str) -> Result<PathBuf> {
    let paths = std::env::var_os("PATH").unwrap_or_default();
    let places = std::env::split_paths(&paths).map(|place| place.join(program));
    let mut found = places.filter(|path| path.is_file());
    found.next().with_context(|| {
        format!("{program} is missing: apt-get install --no-install-recommends {package}")
    })
}

/// Runs it with this input; a status other than 0 is an error with what it said.
pub fn run(program: &Path, arguments: &[&str], input: &str) -> Result<String> {
    use std::io::Write as _;
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let mut stdin = child.stdin.take().context("no standard input")?;
    stdin.write_all(input.as_bytes())?;
    drop(stdin);
    let Output {
        status,
        stdout,
        stderr,
    } = child.wait_with_output()?;
    let said = format!(
        "{}{}",
        String::from_utf8_lossy(&stdout),
        String::from_utf8_lossy(&stderr)
    );
    let name = program.display();
    ensure!(status.success(), "{name} {arguments:?}: {status}\n{said}");
    Ok(said)
}

/// A server of another package; killed with this value.
pub struct Running(Child);

impl Running {
    /// Starts it, its output in `log`.
    pub fn start(program: &Path, arguments: &[String], log: &Path) -> Result<Running> {
        let file = std::fs::File::create(log)?;
        let child = Command::new(program)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file)
            .spawn();
        Ok(Running(
            child.with_context(|| program.display().to_string())?,
        ))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself.
        self.0.kill().ok();
        self.0.wait().ok();
    }
}
