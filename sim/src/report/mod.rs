//! What a run leaves in its folder.
//!
//! | file | what |
//! |---|---|
//! | `run.json` | what was run, by what, what came of it ([`Run`]) |
//! | `scenario.toml` | the scenario's text |
//! | `events.parquet` | what happened ([`Event`]) |
//! | `series.parquet` | what was measured, every simulated second: `at_ns`, `name`, `value` |
//! | `report.html` | a page with plots, readable without a network |

mod page;
mod plot;
mod progress;
mod record;
mod run;
mod table;

pub use page::page;
pub use progress::{Progress, Progressed, resident};
pub use record::{Event, Kept, Record};
pub use run::{Broken, Commit, FORMAT, Machine, Outcome, Percentiles, Run, RunError};
pub use table::TableError;
