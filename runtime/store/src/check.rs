//! Looks through a store that nobody uses, without changing it: every file's checksums, damage named by file.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use rocksdb::{ColumnFamily, DB, ReadOptions};

use crate::folder::{self, Reading, io};
use crate::framing::{self, Walked};
use crate::opening::open_to_check;
use crate::rocks::{RocksView, Schema};
use crate::{OpenError, View};

/// Damage that is told; more than this is a disk to replace, not a list to read.
pub const MAX_DAMAGE: usize = 256;

/// One thing that does not check out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damage {
    /// The file; the database's folder when it cannot be told.
    pub file: PathBuf,
    /// What was found.
    pub detail: String,
}

/// How much was looked through.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Looked {
    /// Table files (SST), and their bytes.
    pub tables: (u64, u64),
    /// Write-ahead logs and manifests, and their bytes.
    pub logs: (u64, u64),
    /// Records in those.
    pub log_records: u64,
    /// Bytes behind the last whole record of a log. After a power cut that is a write which was never acknowledged;
    /// after an orderly stop there are none.
    pub torn: u64,
    /// Keys in tables and logs together.
    pub keys: u64,
}

/// A store that was looked through and is held for reading.
pub struct Checker {
    db: Option<DB>,
    /// How much was looked through.
    pub looked: Looked,
    /// What does not check out, at most [`MAX_DAMAGE`].
    pub damage: Vec<Damage>,
    _folder: Reading,
}

impl Checker {
    /// Opens the store for reading, walks its logs and manifests, and reads every block of every table.
    ///
    /// # Errors
    /// A folder that is no such store or in use. Damage is no error: it is in [`Checker::damage`].
    pub fn open(path: &Path, schema: &Schema) -> Result<Checker, OpenError> {
        let folder = folder::Reading::open(path, schema.kind, schema.version)?;
        let mut checker = Checker {
            db: None,
            looked: Looked::default(),
            damage: Vec::new(),
            _folder: folder,
        };
        let db = path.join(folder::DB_FOLDER);
        checker.walk_logs(&db)?;
        match open_to_check(path, schema) {
            Ok(opened) => {
                checker.read_tables(&db, &opened, schema);
                checker.db = Some(opened);
            }
            // What the walk has named already need not be said again without a name.
            Err(error) if checker.damage.is_empty() || named_in(&db, &error).is_some() => {
                checker.found(&db, error);
            }
            Err(_) => {}
        }
        Ok(checker)
    }

    /// Reads what is stored, if the database opened at all.
    pub fn view<T>(&self, read: impl FnOnce(&dyn View) -> T) -> Option<T> {
        let db = self.db.as_ref()?;
        Some(read(&RocksView::of(db)))
    }

    /// Whether the database opened: without it only files were looked at.
    pub fn is_open(&self) -> bool {
        self.db.is_some()
    }

    fn found(&mut self, db: &Path, detail: String) {
        let file = named_in(db, &detail).unwrap_or_else(|| db.to_owned());
        if self.damage.len() < MAX_DAMAGE && !self.damage.iter().any(|known| known.file == file) {
            self.damage.push(Damage { file, detail });
        }
    }

    fn walk_logs(&mut self, db: &Path) -> Result<(), OpenError> {
        let mut names = BTreeSet::new();
        for entry in fs::read_dir(db).map_err(io("listing", db))? {
            let name = entry.map_err(io("listing", db))?.file_name();
            let name = name.to_string_lossy().into_owned();
            let numbered = name.strip_suffix(".log").or(name.strip_prefix("MANIFEST-"));
            if numbered.is_some_and(|n| n.bytes().all(|b| b.is_ascii_digit())) {
                names.insert(name);
            }
        }
        for name in names {
            let path = db.join(&name);
            let file = File::open(&path).map_err(io("opening", &path))?;
            self.looked.logs.0 += 1;
            self.looked.logs.1 += file.metadata().map_or(0, |meta| meta.len());
            match framing::walk(file) {
                Ok(Walked::Sound { records, torn }) => {
                    self.looked.log_records += records;
                    self.looked.torn += torn;
                }
                Ok(Walked::Damaged { at, what }) => {
                    let detail = format!("at byte {at}: {what}");
                    self.damage.push(Damage { file: path, detail });
                }
                Err(error) => self.damage.push(Damage {
                    file: path,
                    detail: error.to_string(),
                }),
            }
        }
        Ok(())
    }

    /// Reads every block of every table. Deleted ranges and old versions are not skipped: damage there is damage.
    fn read_tables(&mut self, db: &Path, opened: &DB, schema: &Schema) {
        let files = opened.live_files().unwrap_or_default();
        for file in &files {
            self.looked.tables.0 += 1;
            self.looked.tables.1 += file.size as u64;
        }
        for family in &schema.families {
            let Some(handle) = opened.cf_handle(family.0) else {
                self.found(db, format!("the family {} is missing", family.0));
                continue;
            };
            let mut from = Vec::new();
            while let Err((detail, at)) = self.read_family(opened, handle, &from) {
                let broken = named_in(db, &detail);
                self.found(db, detail);
                // Goes on behind the broken table, so that a second one is named too.
                let name = broken.as_deref().and_then(Path::file_name);
                let end = files
                    .iter()
                    .filter(|f| f.column_family_name == family.0)
                    .filter(|f| name == Path::new(&f.name).file_name())
                    .filter_map(|f| f.end_key.clone())
                    .find(|end| *end >= at);
                let Some(mut next) = end else { break };
                next.push(0);
                from = next;
            }
        }
    }

    /// From a key to the family's end. An error comes with the last key read, or the first wanted.
    fn read_family(
        &mut self,
        opened: &DB,
        handle: &ColumnFamily,
        from: &[u8],
    ) -> Result<(), (String, Vec<u8>)> {
        let mut options = ReadOptions::default();
        options.set_verify_checksums(true);
        options.fill_cache(false);
        options.set_ignore_range_deletions(true);
        options.set_readahead_size(2 << 20);
        let mut cursor = opened.raw_iterator_cf_opt(handle, options);
        cursor.seek(from);
        let mut last = from.to_vec();
        while let Some((key, _)) = cursor.item() {
            self.looked.keys += 1;
            last.clear();
            last.extend_from_slice(key);
            cursor.next();
        }
        cursor.status().map_err(|error| (error.into_string(), last))
    }
}

/// The file of this database that the engine's words name; a manifest only if they name no other, since it lists them.
fn named_in(db: &Path, detail: &str) -> Option<PathBuf> {
    let apart = |c: char| c.is_whitespace() || matches!(c, ',' | ':' | '(' | ')' | '\'' | '/');
    let words = || detail.split(apart).map(|word| word.trim_end_matches('.'));
    // A table that is missing is looked for under its name of old, and missed under that.
    let data = words().find_map(|name| match name.strip_suffix(".ldb") {
        Some(number) => Some(format!("{number}.sst")),
        None => (name.ends_with(".sst") || name.ends_with(".log")).then(|| name.to_owned()),
    });
    let index = || words().find(|name| name.starts_with("MANIFEST-") || *name == "CURRENT");
    let name = data.or_else(|| index().map(str::to_owned))?;
    Some(db.join(name))
}
