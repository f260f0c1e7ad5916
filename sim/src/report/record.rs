//! What a run leaves behind while it goes on: two tables, and in memory what the page draws.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::table::{Cell, Kind, Table, TableError};

/// Points of one series that stay in memory for the page: a week by the minute. The table has all.
const MAX_POINTS: usize = 10_080;
/// Moments that the page marks.
const MAX_MARKS: usize = 200;

/// What happened, in a row of `events.parquet`.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// Since the world began.
    pub at: Duration,
    /// `fault`, `node`, `ack`, `delivery`, `message`, `broken`.
    pub kind: &'static str,
    /// Whose.
    pub node: Arc<str>,
    /// The actor's path, the channel, or empty.
    pub actor: Arc<str>,
    /// The message's type, the fault's words, the offset.
    pub what: Arc<str>,
    /// Bytes, where it has some.
    pub len: u64,
}

/// Writes both tables.
pub struct Record {
    events: Table,
    series: Table,
    nobody: Arc<str>,
    names: BTreeMap<String, Arc<str>>,
    kept: Kept,
}

/// What the page draws.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Kept {
    /// (seconds, value) by name.
    pub series: BTreeMap<String, Vec<(f64, f64)>>,
    /// (seconds, words): the first faults.
    pub marks: Vec<(f64, String)>,
    /// How many there were.
    pub faults: u64,
    /// Rows of `events.parquet`.
    pub events: u64,
    /// Rows of `series.parquet`.
    pub samples: u64,
}

fn ns(at: Duration) -> i64 {
    // 292 years.
    i64::try_from(at.as_nanos()).unwrap_or(i64::MAX)
}

impl Record {
    /// Creates `events.parquet` and `series.parquet` in a folder.
    pub fn create(folder: &Path) -> Result<Record, TableError> {
        let events = [
            ("at_ns", Kind::Int),
            ("kind", Kind::Text),
            ("node", Kind::Text),
            ("actor", Kind::Text),
            ("what", Kind::Text),
            ("len", Kind::Int),
        ];
        let series = [
            ("at_ns", Kind::Int),
            ("name", Kind::Text),
            ("value", Kind::Float),
        ];
        Ok(Record {
            events: Table::create(&folder.join("events.parquet"), &events)?,
            series: Table::create(&folder.join("series.parquet"), &series)?,
            nobody: Arc::from(""),
            names: BTreeMap::new(),
            kept: Kept::default(),
        })
    }

    /// Adds what happened.
    pub fn event(&mut self, event: &Event) -> Result<(), TableError> {
        self.kept.faults += u64::from(event.kind == "fault");
        if event.kind == "fault" && self.kept.marks.len() < MAX_MARKS {
            let words = format!("{} {}", event.node, event.what);
            self.kept.marks.push((event.at.as_secs_f64(), words));
        }
        self.events.push(&[
            Cell::Int(ns(event.at)),
            Cell::Text(Arc::from(event.kind)),
            Cell::Text(event.node.clone()),
            Cell::Text(event.actor.clone()),
            Cell::Text(event.what.clone()),
            Cell::Int(i64::try_from(event.len).unwrap_or(i64::MAX)),
        ])
    }

    /// Adds something of the whole world that happened.
    pub fn world_event(
        &mut self,
        at: Duration,
        kind: &'static str,
        what: &str,
    ) -> Result<(), TableError> {
        let (node, actor) = (self.nobody.clone(), self.nobody.clone());
        self.event(&Event {
            at,
            kind,
            node,
            actor,
            what: Arc::from(what),
            len: 0,
        })
    }

    /// Adds what something measured at a moment.
    pub fn sample(&mut self, at: Duration, name: &str, value: f64) -> Result<(), TableError> {
        let cell = match self.names.get(name) {
            Some(known) => known.clone(),
            None => {
                let new: Arc<str> = Arc::from(name);
                self.names.insert(name.to_owned(), new.clone());
                new
            }
        };
        let points = self.kept.series.entry(name.to_owned()).or_default();
        if points.len() < MAX_POINTS {
            points.push((at.as_secs_f64(), value));
        }
        let row = [Cell::Int(ns(at)), Cell::Text(cell), Cell::Float(value)];
        self.series.push(&row)
    }

    /// Ends both files.
    pub fn close(mut self) -> Result<Kept, TableError> {
        self.kept.events = self.events.close()?;
        self.kept.samples = self.series.close()?;
        Ok(self.kept)
    }
}
