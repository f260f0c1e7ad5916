//! What relayers' meters say they stored and delivered, held against their logs and against what subscribers took.

use std::ops::ControlFlow;
use std::time::Duration;

use futures::future::join_all;
use pqcnet_messages::metering::{CloseWindow, Volume};
use pqcnet_messages::{Receipt, Series};
use pqcnet_meter::core::ledger::{Entry, plus};
use pqcnet_meter::core::record::{Qos, RecordKey};
use pqcnet_meter::disk::{RECEIPT, TOTAL};
use pqcnet_store::{ReadError, Scan, View};

use super::Oracle;
use super::lane::Lane;
use crate::world::{NodeNo, Stopped, World};

/// Workers' readings, receivers' signatures and the disk take their time; a stalled or full disk takes longer.
const CLOSED_WITHIN: Duration = Duration::from_secs(30);

/// What meters have counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Metered {
    /// Relayers whose last window was closed.
    pub relayers: u64,
    /// Messages that they stored.
    pub stored: u64,
    /// Messages that they sent to receivers.
    pub delivered: u64,
    /// Of these, signed for.
    pub receipted: u64,
}

/// What the relayers that had a lane's shard have in their books of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Books {
    stored: Volume,
    delivered: u64,
    receipted: u64,
}

impl Books {
    fn add(&mut self, other: Books) {
        self.stored = plus(self.stored, other.stored);
        self.delivered += other.delivered;
        self.receipted += other.receipted;
    }

    /// What is wrong in them, beside a log with so many messages of so many bytes each, of which the subscriber took so many;
    /// `complete`: nothing stored is missing either.
    pub(super) fn wrong(
        &self,
        (durable, size): (u64, u64),
        taken: u64,
        complete: bool,
    ) -> Option<String> {
        let Volume { frames, bytes } = self.stored;
        if frames > durable || (complete && frames < durable) {
            return Some(format!(
                "meters have {frames} messages as stored, the log has {durable}"
            ));
        }
        if bytes != frames * size {
            return Some(format!(
                "meters have {bytes} bytes as stored in {frames} messages of {size}"
            ));
        }
        let signed = self.receipted;
        (signed > taken)
            .then(|| format!("its subscriber signed for {signed} messages and took {taken}"))
    }
}

impl Oracle {
    /// What all who may have had a lane's shard have in their books of it.
    pub(super) fn books(&self, world: &World, lane: &Lane) -> Result<Books, ReadError> {
        let mut books = Books::default();
        for owner in self.owners(lane) {
            books.add(of(world, owner, lane)?);
        }
        Ok(books)
    }

    /// What is wrong with a lane's books, `durable` being what is in its log.
    pub(super) fn misbooked(
        &self,
        world: &World,
        lane: &Lane,
        durable: u64,
        complete: bool,
    ) -> Option<String> {
        let taken = lane.state().account.counts()[3];
        let size = lane.spec.size.max(8) as u64;
        match self.books(world, lane) {
            Ok(books) => books.wrong((durable, size), taken, complete),
            Err(error) => Some(error.to_string()),
        }
    }

    /// Has all relayers that are up close their windows; then their books have exactly what their logs have. `None`: relayers of
    /// this world do not meter.
    ///
    /// # Errors
    /// Books do not agree with logs or subscribers; the world has stopped.
    pub fn audit(&mut self, world: &mut World) -> Result<Option<Metered>, Stopped> {
        if world.metering().is_none() {
            return Ok(None);
        }
        let (mut nodes, mut asks) = (Vec::new(), Vec::new());
        for node in world.nodes() {
            if let Some(meter) = world.started(node).and_then(|started| started.meter) {
                nodes.push(node);
                asks.push(async move { meter.close.ask(CloseWindow, CLOSED_WITHIN).await });
            }
        }
        let answers = world.wait(join_all(asks))?;
        let closed = nodes.into_iter().zip(answers);
        let closed: Vec<NodeNo> = closed
            .filter_map(|(node, answer)| matches!(answer, Ok(Ok(_))).then_some(node))
            .collect();
        let mut metered = Metered {
            relayers: closed.len() as u64,
            ..Metered::default()
        };
        let mut found = None;
        for lane in self.judged() {
            let durable = self.durable(world, lane, &[]);
            let durable = durable.map(Option::unwrap_or_default);
            let wrong = match (durable, self.books(world, lane)) {
                (Ok(durable), Ok(books)) => {
                    metered.stored += books.stored.frames;
                    metered.delivered += books.delivered;
                    metered.receipted += books.receipted;
                    let complete = self.books_are_complete(lane, &closed);
                    self.misbooked(world, lane, durable, complete)
                }
                (Err(error), _) | (_, Err(error)) => Some(error.to_string()),
            };
            found = found.or_else(|| Some(format!("{lane}: {}", wrong?)));
        }
        if let Some(found) = found {
            self.ledger.stop(found);
            world.run_for(Duration::ZERO)?;
        }
        Ok(Some(metered))
    }

    /// Whether nothing that was stored may be missing: a relayer that dies between a move and the end of the window then under way
    /// takes what it had not booked with it (docs/spec/metering.md, 2).
    fn books_are_complete(&self, lane: &Lane, closed: &[NodeNo]) -> bool {
        let died = |node| self.crashes.get(&node).is_some_and(|crashes| *crashes > 0);
        let moved = !self.heirs.0.is_empty();
        let mut owners = self.owners(lane);
        owners.all(|owner| closed.contains(&owner) && !(moved && died(owner)))
    }
}

/// What one relayer has in its books of a lane, by its meter's disk.
fn of(world: &World, relayer: NodeNo, lane: &Lane) -> Result<Books, ReadError> {
    let mut books = Books::default();
    let Some(disk) = world.disk(relayer).meter_reader() else {
        return Ok(books);
    };
    let key = |qos, customer, series| {
        let channel = lane.channel.clone();
        let key = RecordKey {
            qos,
            customer,
            channel,
            series,
        };
        key.to_bytes()
    };
    let stored = key(Qos::Stored, lane.channel.owner, Series::NONE);
    let from = key(Qos::Delivered, lane.reader, Series([0; 16]));
    let to = [
        &key(Qos::Delivered, lane.reader, Series([0xff; 16]))[..],
        &[0xff; 9],
    ]
    .concat();
    let all = Scan {
        from: &from,
        to: &to,
    };
    let mut read = |view: &dyn View| {
        if let Some(entry) = view.get(TOTAL, &stored)? {
            books.stored = entry_of(&entry).total;
        }
        view.scan(TOTAL, all, &mut |_, value| {
            books.delivered += entry_of(value).total.frames;
            ControlFlow::Continue(())
        })?;
        view.scan(RECEIPT, all, &mut |_, value| {
            let receipt = Receipt::from_bytes(value).ok();
            books.receipted += receipt.map_or(0, |receipt| receipt.statement.frames);
            ControlFlow::Continue(())
        })
    };
    match disk.view(&mut read) {
        // It has never been mounted: nothing is on it.
        Ok(()) | Err(ReadError::UnknownFamily(_)) => Ok(books),
        Err(error) => Err(error),
    }
}

/// What a meter could not read itself counts for nothing, and is missed.
fn entry_of(value: &[u8]) -> Entry {
    Entry::from_bytes(value).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    // Scenario: books of a log with ten messages of 100 bytes, all taken. One message too many is always wrong, one too few when
    // nothing may be missing; so are other bytes, and a signature for what was not taken.
    #[test]
    fn books_are_held_against_the_log() {
        let books = |frames, bytes, receipted| Books {
            stored: Volume { frames, bytes },
            delivered: 12,
            receipted,
        };
        let log = (10, 100);
        for (books, complete, wrong) in [
            (books(10, 1_000, 10), true, None),
            (books(9, 900, 0), false, None),
            (
                books(9, 900, 0),
                true,
                Some("meters have 9 messages as stored, the log has 10"),
            ),
            (
                books(11, 1_100, 0),
                false,
                Some("meters have 11 messages as stored, the log has 10"),
            ),
            (
                books(10, 999, 0),
                false,
                Some("meters have 999 bytes as stored in 10 messages of 100"),
            ),
            (
                books(10, 1_000, 11),
                true,
                Some("its subscriber signed for 11 messages and took 10"),
            ),
        ] {
            assert_eq!(books.wrong(log, 10, complete).as_deref(), wrong);
        }
    }
}
