//! Parquet files, written as the run goes on.
//!
//! One row group takes [`ROWS`] rows; that many stay in memory and no more. Text columns are dictionaries, pages are
//! compressed with Snappy. `pandas.read_parquet`, DuckDB and Polars read them.

use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::Arc;

use parquet::basic::Compression;
use parquet::data_type::{ByteArray, ByteArrayType, DoubleType, Int64Type};
use parquet::errors::ParquetError;
use parquet::file::properties::WriterProperties;
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;

/// Rows of a row group: some megabytes of memory, and enough for dictionaries to pay off.
const ROWS: usize = 65_536;

/// What a column holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// 64-bit integers.
    Int,
    /// 64-bit floats.
    Float,
    /// UTF-8.
    Text,
}

/// One cell.
#[derive(Clone, Debug, PartialEq)]
pub enum Cell {
    /// For [`Kind::Int`].
    Int(i64),
    /// For [`Kind::Float`].
    Float(f64),
    /// For [`Kind::Text`].
    Text(Arc<str>),
}

/// What went wrong with a table.
#[derive(Debug, thiserror::Error)]
pub enum TableError {
    /// The file's.
    #[error("the table cannot be created: {0}")]
    Create(#[from] io::Error),
    /// The writer's, which is mostly the disk's.
    #[error("the table cannot be written: {0}")]
    Write(#[from] ParquetError),
    /// A row that does not fit the columns; ours.
    #[error("column {column} of the table cannot hold this row's cell")]
    Row {
        /// Its place.
        column: usize,
    },
}

enum Column {
    Int(Vec<i64>),
    Float(Vec<f64>),
    Text(Vec<ByteArray>),
}

impl Column {
    fn new(kind: Kind) -> Column {
        match kind {
            Kind::Int => Column::Int(Vec::new()),
            Kind::Float => Column::Float(Vec::new()),
            Kind::Text => Column::Text(Vec::new()),
        }
    }

    fn holds(&self, cell: &Cell) -> bool {
        match cell {
            Cell::Int(_) => matches!(self, Column::Int(_)),
            Cell::Float(_) => matches!(self, Column::Float(_)),
            Cell::Text(_) => matches!(self, Column::Text(_)),
        }
    }

    /// Takes a cell that it holds.
    fn push(&mut self, cell: &Cell) {
        match (self, cell) {
            (Column::Int(values), Cell::Int(value)) => values.push(*value),
            (Column::Float(values), Cell::Float(value)) => values.push(*value),
            (Column::Text(values), Cell::Text(value)) => values.push(ByteArray::from(&**value)),
            (Column::Int(_) | Column::Float(_) | Column::Text(_), _) => {}
        }
    }
}

/// A table on disk.
pub struct Table {
    writer: SerializedFileWriter<File>,
    columns: Vec<Column>,
    waiting: usize,
    rows: u64,
}

impl Table {
    /// Creates the file with these columns.
    pub fn create(path: &Path, columns: &[(&str, Kind)]) -> Result<Table, TableError> {
        let fields: String = columns
            .iter()
            .map(|(name, kind)| match kind {
                Kind::Int => format!("required int64 {name}; "),
                Kind::Float => format!("required double {name}; "),
                Kind::Text => format!("required binary {name} (utf8); "),
            })
            .collect();
        let schema = Arc::new(parse_message_type(&format!("message table {{ {fields}}}"))?);
        let properties = WriterProperties::builder()
            .set_compression(Compression::SNAPPY)
            .build();
        let file = File::create(path)?;
        Ok(Table {
            writer: SerializedFileWriter::new(file, schema, Arc::new(properties))?,
            columns: columns.iter().map(|(_, kind)| Column::new(*kind)).collect(),
            waiting: 0,
            rows: 0,
        })
    }

    /// Adds a row: one cell a column, in order.
    pub fn push(&mut self, row: &[Cell]) -> Result<(), TableError> {
        let cells = self.columns.len().max(row.len());
        let misfit = (0..cells).find(|&at| match (self.columns.get(at), row.get(at)) {
            (Some(column), Some(cell)) => !column.holds(cell),
            (Some(_), None) | (None, _) => true,
        });
        if let Some(column) = misfit {
            return Err(TableError::Row { column });
        }
        for (column, cell) in self.columns.iter_mut().zip(row) {
            column.push(cell);
        }
        self.waiting += 1;
        self.rows += 1;
        if self.waiting == ROWS {
            self.flush()?;
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<(), TableError> {
        let mut group = self.writer.next_row_group()?;
        for column in &mut self.columns {
            let Some(mut writer) = group.next_column()? else {
                break;
            };
            match column {
                Column::Int(values) => {
                    let typed = writer.typed::<Int64Type>();
                    typed.write_batch(values, None, None)?;
                    values.clear();
                }
                Column::Float(values) => {
                    let typed = writer.typed::<DoubleType>();
                    typed.write_batch(values, None, None)?;
                    values.clear();
                }
                Column::Text(values) => {
                    let typed = writer.typed::<ByteArrayType>();
                    typed.write_batch(values, None, None)?;
                    values.clear();
                }
            }
            writer.close()?;
        }
        group.close()?;
        self.waiting = 0;
        Ok(())
    }

    /// Writes what waits and the footer, without which the file cannot be read.
    pub fn close(mut self) -> Result<u64, TableError> {
        if self.waiting > 0 {
            self.flush()?;
        }
        self.writer.close()?;
        Ok(self.rows)
    }
}

#[cfg(test)]
mod tests {
    use parquet::file::reader::{FileReader as _, SerializedFileReader};
    use parquet::record::RowAccessor as _;

    use super::*;

    // Scenario: rows of every kind over two row groups come back as written, in order, under their names.
    #[test]
    fn rows_come_back() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("t.parquet");
        let columns = [
            ("at_ns", Kind::Int),
            ("value", Kind::Float),
            ("node", Kind::Text),
        ];
        let mut table = Table::create(&path, &columns).expect("a file");
        let count = ROWS + 3;
        for n in 0..count {
            let node = Arc::from(format!("relayer-{}", n % 7));
            let row = [
                Cell::Int(n as i64),
                Cell::Float(n as f64 / 2.0),
                Cell::Text(node),
            ];
            table.push(&row).expect("a row");
        }
        assert_eq!(table.close().expect("a footer"), count as u64);
        let reader = SerializedFileReader::new(File::open(&path).expect("the file"));
        let reader = reader.expect("a Parquet file");
        assert_eq!(reader.num_row_groups(), 2);
        let rows = reader.get_row_iter(None).expect("rows");
        for (n, row) in rows.enumerate() {
            let row = row.expect("a row");
            assert_eq!(row.get_long(0).expect("an integer"), n as i64);
            assert_eq!(row.get_double(1).expect("a float"), n as f64 / 2.0);
            let node = row.get_string(2).expect("text");
            assert_eq!(*node, format!("relayer-{}", n % 7));
        }
    }

    // Scenario: a row of another shape is refused whole, and the file stays sound.
    #[test]
    fn a_row_of_another_shape_is_refused() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("t.parquet");
        let mut table =
            Table::create(&path, &[("a", Kind::Int), ("b", Kind::Text)]).expect("a file");
        let wrong = table.push(&[Cell::Int(1), Cell::Int(2)]);
        assert!(matches!(wrong, Err(TableError::Row { column: 1 })));
        let short = table.push(&[Cell::Int(1)]);
        assert!(matches!(short, Err(TableError::Row { column: 1 })));
        assert_eq!(table.close().expect("a footer"), 0);
    }
}
