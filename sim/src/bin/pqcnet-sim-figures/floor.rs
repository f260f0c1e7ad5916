//! What actix alone pays for more actors than the processor's caches hold: a floor under worlds of whole nodes.
//!
//! Each actor has as many bytes as a node of a world of ten thousand takes. A visit is one `send` that follows a chain through so
//! many lines of these bytes, always the same ones, as an event passes a node's connection, task, link, mailbox and actor; actors
//! are visited in random order. Nothing else is done, so what a visit costs more with more actors is the way to memory.

use actix::{Actor, Context, Handler, Message};
use anyhow::{Context as _, Result, ensure};
use pqcnet_actor::StreamRng;
use pqcnet_sim::world::{NodeName, stream_of};
use rand_core::Rng as _;

use crate::tell;

/// Actors, each row beside the first.
const ACTORS: [usize; 3] = [100, 1_000, 10_000];
/// Bytes that an actor has: 2.7 GB with ten thousand.
const BYTES: usize = 272 << 10;
/// Lines that a visit passes.
const LINES: [usize; 3] = [16, 64, 128];
/// Visits that are measured; as many before.
const VISITS: usize = 200_000;
/// Bytes of a line.
const LINE: usize = 64;

/// An actor's bytes, by lines; the first word of a line names the next one.
#[derive(Clone, Copy)]
#[repr(align(64))]
struct Line([u64; LINE / 8]);

struct Visited {
    lines: Vec<Line>,
    first: usize,
    steps: usize,
}

struct Visit;

impl Message for Visit {
    type Result = u64;
}

impl Actor for Visited {
    type Context = Context<Self>;
}

impl Handler<Visit> for Visited {
    type Result = u64;

    fn handle(&mut self, _: Visit, _: &mut Context<Self>) -> u64 {
        let (mut at, mut sum) = (self.first, 0u64);
        for _ in 0..self.steps {
            let line = &mut self.lines[at].0;
            line[1] = line[1].wrapping_add(1);
            sum = sum.wrapping_add(line[1]);
            at = line[0] as usize;
        }
        sum
    }
}

impl Visited {
    fn new(steps: usize, dice: &mut StreamRng) -> Visited {
        let count = BYTES / LINE;
        // Touched, so that they are there.
        let mut lines = vec![Line([1; LINE / 8]); count];
        // Spread over all of them, in no order.
        let stride = count / steps;
        let mut places: Vec<usize> = (0..steps)
            .map(|step| step * stride + below(dice, stride))
            .collect();
        for at in (1..steps).rev() {
            places.swap(at, below(dice, at + 1));
        }
        for (at, next) in places.iter().zip(places.iter().cycle().skip(1)) {
            lines[*at].0[0] = *next as u64;
        }
        Visited {
            lines,
            first: places[0],
            steps,
        }
    }
}

fn below(dice: &mut StreamRng, limit: usize) -> usize {
    (dice.next_u64() % limit.max(1) as u64) as usize
}

/// Processor time of this thread so far, which other programs on the machine take no part of.
fn used_ns() -> Result<u64> {
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat")?;
    let used = stat.split_whitespace().next();
    used.context("schedstat")?.parse().context("schedstat")
}

/// Microseconds of processor time a visit.
fn measure(actors: usize, steps: usize) -> Result<f64> {
    actix_rt::System::new().block_on(async move {
        let mut dice = stream_of(1, &NodeName::new("floor"), "", "visits");
        let all: Vec<_> = (0..actors)
            .map(|_| Visited::new(steps, &mut dice).start())
            .collect();
        let (mut sum, mut before) = (0u64, 0);
        for visit in 0..2 * VISITS {
            if visit == VISITS {
                before = used_ns()?;
            }
            let actor = &all[below(&mut dice, actors)];
            sum = sum.wrapping_add(actor.send(Visit).await.context("an actor is gone")?);
        }
        ensure!(sum > 0, "nobody was visited");
        Ok((used_ns()? - before) as f64 / 1e3 / VISITS as f64)
    })
}

/// Prints a row for each number of lines.
pub(crate) fn floor() -> Result<()> {
    tell(
        "\n| raw actix: lines a visit | CPU us a visit, 100 actors | 1,000 | 10,000 | 1,000 / 100 | 10,000 / 100 | ns a line more, 10,000 |",
    );
    tell("|---|---|---|---|---|---|---|");
    for steps in LINES {
        let mut row = Vec::new();
        for actors in ACTORS {
            row.push(measure(actors, steps)?);
        }
        let [few, more, many] = [row[0], row[1], row[2]];
        tell(&format!(
            "| {steps} | {few:.2} | {more:.2} | {many:.2} | {:.1} | {:.1} | {:.0} |",
            more / few,
            many / few,
            (many - few) * 1e3 / steps as f64
        ));
    }
    Ok(())
}
