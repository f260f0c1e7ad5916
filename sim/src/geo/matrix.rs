//! Measured tables of round trips, as CSV.
//!
//! Either the first row and the first column name the places, or the table is bare numbers and a second file names its
//! rows in order (`id,title,…` with a header, as the WonderProxy set has it). Cells are round trips in milliseconds.

use std::collections::BTreeMap;
use std::time::Duration;

/// Most places of a table: a million cells.
pub const MAX_PLACES: usize = 1_000;
/// Longest round trip that is believed, in milliseconds.
const MAX_ROUND_TRIP_MS: f64 = 10_000.0;

/// What is wrong with a table; its author erred.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum MatrixError {
    /// Too many rows.
    #[error("the table has more than {MAX_PLACES} rows: split it")]
    TooLarge,
    /// No rows at all.
    #[error("the table has no rows")]
    Empty,
    /// A row of another width.
    #[error("line {line} has {found} cells, not {wanted}")]
    Width {
        /// From 1.
        line: usize,
        /// Its cells.
        found: usize,
        /// Those of the others.
        wanted: usize,
    },
    /// No round trip.
    #[error("line {line}: `{cell}` is no round trip in milliseconds (0 to 10,000)")]
    Cell {
        /// From 1.
        line: usize,
        /// What stands there.
        cell: String,
    },
    /// As many names as rows are needed.
    #[error("{names} names for {rows} rows")]
    Names {
        /// Names found.
        names: usize,
        /// Rows found.
        rows: usize,
    },
    /// A name that stands twice.
    #[error("`{0}` names two rows")]
    Twice(String),
    /// No row has this name.
    #[error("no row is named `{0}`")]
    Unknown(String),
}

/// One-way times between named places.
#[derive(Clone, Debug, PartialEq)]
pub struct Matrix {
    names: BTreeMap<String, usize>,
    /// Round trips in milliseconds, row by row.
    round_trips_ms: Vec<f64>,
}

impl Matrix {
    /// Reads a table. `names` is the text of the second file, for a table of bare numbers.
    pub fn parse(table: &str, names: Option<&str>) -> Result<Matrix, MatrixError> {
        let rows: Vec<(usize, Vec<&str>)> = table
            .lines()
            .enumerate()
            .filter(|(_, line)| !line.trim().is_empty())
            .map(|(index, line)| (index + 1, line.split(',').map(str::trim).collect()))
            .collect();
        if rows.len() > MAX_PLACES + 1 {
            return Err(MatrixError::TooLarge);
        }
        match names {
            Some(names) => Matrix::build(listed(names), &rows, 0),
            None => {
                let (_, header) = rows.first().ok_or(MatrixError::Empty)?;
                let names = header.iter().skip(1).map(|name| name.to_string());
                Matrix::build(names.collect(), &rows[1..], 1)
            }
        }
    }

    fn build(
        titles: Vec<String>,
        rows: &[(usize, Vec<&str>)],
        skip: usize,
    ) -> Result<Matrix, MatrixError> {
        if rows.is_empty() {
            return Err(MatrixError::Empty);
        }
        if rows.len() > MAX_PLACES {
            return Err(MatrixError::TooLarge);
        }
        if titles.len() != rows.len() {
            return Err(MatrixError::Names {
                names: titles.len(),
                rows: rows.len(),
            });
        }
        let mut names = BTreeMap::new();
        for (index, title) in titles.into_iter().enumerate() {
            if names.insert(slug(&title), index).is_some() {
                return Err(MatrixError::Twice(title));
            }
        }
        let mut round_trips_ms = Vec::with_capacity(rows.len() * rows.len());
        for (line, cells) in rows {
            if cells.len() != rows.len() + skip {
                return Err(MatrixError::Width {
                    line: *line,
                    found: cells.len(),
                    wanted: rows.len() + skip,
                });
            }
            for cell in &cells[skip..] {
                round_trips_ms.push(round_trip(*line, cell)?);
            }
        }
        Ok(Matrix {
            names,
            round_trips_ms,
        })
    }

    /// The places, by name in order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.names.keys().map(String::as_str)
    }

    /// The row of a place.
    pub fn find(&self, name: &str) -> Result<usize, MatrixError> {
        let row = self.names.get(&slug(name)).copied();
        row.ok_or_else(|| MatrixError::Unknown(name.to_owned()))
    }

    /// Half the round trip between two rows; both directions' measurements averaged.
    ///
    /// # Panics
    /// On a row that [`Matrix::find`] did not give.
    pub fn one_way(&self, from: usize, to: usize) -> Duration {
        let n = self.names.len();
        let both = self.round_trips_ms[from * n + to] + self.round_trips_ms[to * n + from];
        Duration::from_micros((both * 250.0) as u64)
    }
}

/// Second column of a list with a header, or the only one.
fn listed(names: &str) -> Vec<String> {
    names
        .lines()
        .skip(1)
        .filter(|line| !line.trim().is_empty())
        .map(|line| {
            let mut cells = line.split(',');
            let first = cells.next().unwrap_or_default();
            cells.next().unwrap_or(first).trim().to_owned()
        })
        .collect()
}

/// `New York` and `new-york` are one place.
fn slug(name: &str) -> String {
    name.trim().to_lowercase().replace(' ', "-")
}

fn round_trip(line: usize, cell: &str) -> Result<f64, MatrixError> {
    match cell.parse::<f64>() {
        Ok(ms) if (0.0..=MAX_ROUND_TRIP_MS).contains(&ms) => Ok(ms),
        _ => Err(MatrixError::Cell {
            line,
            cell: cell.to_owned(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Scenario: the same three places as a table with names and as bare numbers with a list beside it.
    #[test]
    fn both_forms_are_read() {
        let named = ",Oslo,New York,Lima\nOslo,0,80,200\nNew York,82,0,120\nLima,200,120,0\n";
        let bare = "0,80,200\n82,0,120\n200,120,0\n";
        let list = "id,title,country\n0,Oslo,Norway\n1,New York,United States\n2,Lima,Peru\n";
        let matrix = Matrix::parse(named, None).expect("a table");
        assert_eq!(Ok(&matrix), Matrix::parse(bare, Some(list)).as_ref());
        let (oslo, york) = (matrix.find("oslo"), matrix.find("new-york"));
        let one_way = matrix.one_way(oslo.expect("a row"), york.expect("a row"));
        assert_eq!(one_way, Duration::from_micros(40_500));
        assert_eq!(
            matrix.names().collect::<Vec<_>>(),
            ["lima", "new-york", "oslo"]
        );
        assert_eq!(
            matrix.find("paris"),
            Err(MatrixError::Unknown("paris".to_owned()))
        );
    }

    // Scenario: each way in which a table can be wrong is named with its line.
    #[test]
    fn broken_tables_are_refused_by_line() {
        let parse = |table: &str| Matrix::parse(table, None).map(|_| ());
        assert_eq!(parse(""), Err(MatrixError::Empty));
        assert_eq!(parse(",a\n"), Err(MatrixError::Empty));
        assert_eq!(
            parse(",a,b\na,0,1\nb,1\n"),
            Err(MatrixError::Width {
                line: 3,
                found: 2,
                wanted: 3
            })
        );
        assert_eq!(
            parse(",a,b\na,0,NaN\nb,1,0\n"),
            Err(MatrixError::Cell {
                line: 2,
                cell: "NaN".to_owned()
            })
        );
        assert_eq!(
            parse(",a,b\na,0,1\n"),
            Err(MatrixError::Names { names: 2, rows: 1 })
        );
        assert_eq!(
            parse(",a,A\na,0,1\nb,1,0\n"),
            Err(MatrixError::Twice("A".to_owned()))
        );
        let many = "0\n".repeat(MAX_PLACES + 2);
        assert_eq!(parse(&many), Err(MatrixError::TooLarge));
    }
}
