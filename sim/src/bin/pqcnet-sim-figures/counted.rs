//! Instructions an event, and how many of its lines of memory no cache has, counted by valgrind's callgrind: what an event costs
//! where memory is as near as registers, and how often it is not. Its caches are modelled, so that machines without counters tell
//! the same: 32 KiB of data and of code, and 32 MiB behind both, as one core complex of the reference machine has them.

use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use anyhow::{Context as _, Result, ensure};

use crate::tell;

/// Nodes and simulated seconds: enough events, and counting is a hundred times slower than running.
const ROWS: [(usize, u64); 3] = [(100, 60), (1_000, 6), (10_000, 1)];
/// Size, associativity and line, bytes, of the modelled caches: first level, and the last one.
const NEAR: &str = "32768,8,64";
const FAR: &str = "33554432,16,64";

/// Whether it counts.
static COUNTING: AtomicBool = AtomicBool::new(false);

/// Begins counting, or ends it; nothing where no valgrind runs the program.
pub(crate) fn count(begin: bool) {
    COUNTING.store(begin, Relaxed);
    tell_callgrind(begin);
}

/// Does something that is not counted.
pub(crate) fn uncounted<T>(what: impl FnOnce() -> T) -> T {
    let counting = COUNTING.load(Relaxed);
    if counting {
        tell_callgrind(false);
    }
    let done = what();
    if counting {
        tell_callgrind(true);
    }
    done
}

#[expect(
    unsafe_code,
    reason = "valgrind's client request is a sequence of instructions that does nothing elsewhere"
)]
#[cfg(target_arch = "x86_64")]
fn tell_callgrind(begin: bool) {
    const TOOL: u64 = ((b'C' as u64) << 24) | ((b'T' as u64) << 16);
    let request = [TOOL + if begin { 4 } else { 5 }, 0, 0, 0, 0, 0];
    // SAFETY: on a processor this rotates rdi by 128 bits in all and exchanges rbx with itself; valgrind reads `request`.
    unsafe {
        std::arch::asm!(
            "rol rdi, 3",
            "rol rdi, 13",
            "rol rdi, 61",
            "rol rdi, 51",
            "xchg rbx, rbx",
            in("rax") request.as_ptr(),
            inout("rdx") 0u64 => _,
        );
    }
}

/// No other processor has been looked at.
#[cfg(not(target_arch = "x86_64"))]
fn tell_callgrind(_begin: bool) {}

/// Prints a row for each size, each counted in a process of its own.
pub(crate) fn instructions() -> Result<()> {
    tell(
        "\n| nodes | events counted | instructions an event | beside 100 nodes | lines an event that the first data cache does not have | that no cache has |",
    );
    tell("|---|---|---|---|---|---|");
    let program = std::env::current_exe().context("where is this program?")?;
    let mut first = None;
    for (nodes, seconds) in ROWS {
        let mut child = Command::new(&program);
        child.args([&nodes.to_string(), "modelled", &seconds.to_string()]);
        let caches = [("I1", NEAR), ("D1", NEAR), ("LL", FAR)];
        let shapes = caches.map(|(cache, shape)| format!("--{cache}={shape}"));
        let options = ["--cache-sim=yes".to_owned()].into_iter().chain(shapes);
        let (out, err) = counted(&child, options)?;
        let events = out.split('|').nth(9).context("no row")?;
        let events: f64 = events.trim().parse().context("the row's events")?;
        let each = total(&err, "I   refs:")? / events;
        let near = total(&err, "D1  misses:")? / events;
        let far = total(&err, "LL misses:")? / events;
        let few = *first.get_or_insert(each);
        tell(&format!(
            "| {nodes} | {events} | {each:.0} | {:.2} | {near:.0} | {far:.0} |",
            each / few
        ));
    }
    Ok(())
}

/// A total of callgrind's summary: `==1== D1  misses:    6,721,773  (  4,794,337 rd + ...`.
fn total(summary: &str, name: &str) -> Result<f64> {
    let rest = summary.split(name).nth(1);
    let count = rest.and_then(|rest| rest.split_whitespace().next());
    let count = count.with_context(|| format!("callgrind tells no {name:?}"))?;
    let count: f64 = count
        .replace(',', "")
        .parse()
        .context("callgrind's count")?;
    ensure!(count > 0.0, "callgrind counted nothing");
    Ok(count)
}

/// Runs this under valgrind: what it printed, and callgrind's summary.
fn counted(
    command: &Command,
    options: impl IntoIterator<Item = String>,
) -> Result<(String, String)> {
    let mut child = Command::new("valgrind");
    child.args([
        "--tool=callgrind",
        "--instr-atstart=no",
        "--callgrind-out-file=/dev/null",
    ]);
    child.args(options);
    child.arg(command.get_program()).args(command.get_args());
    let output = child
        .output()
        .context("valgrind is missing: install Debian's package `valgrind`")?;
    let (out, err) = (
        String::from_utf8_lossy(&output.stdout).into_owned(),
        String::from_utf8_lossy(&output.stderr).into_owned(),
    );
    ensure!(
        output.status.success(),
        "{command:?}: {}: {out}{err}",
        output.status
    );
    Ok((out, err))
}

/// Runs this under valgrind: what it printed, and how many instructions were counted.
pub(crate) fn instructions_of(command: &Command) -> Result<(String, f64)> {
    let (out, err) = counted(command, [])?;
    let count = total(&err, "Collected :")?;
    Ok((out, count))
}
