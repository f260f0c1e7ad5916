//! Reads a TOML document field by field and keeps every problem with its line.
//!
//! Whoever reads a table asks for the keys it knows; what nobody asked for is unknown, and the nearest of the keys that were
//! asked for is what was probably meant. So the list of keys and the code that reads them cannot differ.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::ops::RangeInclusive;
use std::str::FromStr;
use std::time::Duration;

use toml::Spanned;
use toml::de::{DeArray, DeTable, DeValue};

use super::units::{Bits, Bytes, UnitError, parse_duration};

/// What is wrong in a document; its author erred.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// Not TOML.
    #[error("line {line}: {message}")]
    Syntax {
        /// From 1.
        line: usize,
        /// The parser's words.
        message: String,
    },
    /// A key that means nothing.
    #[error("line {line}: unknown key `{key}`{}", meant(.did_you_mean))]
    Unknown {
        /// From 1.
        line: usize,
        /// With the tables it stands in.
        key: String,
        /// The nearest key there.
        did_you_mean: Option<String>,
    },
    /// A key that must be there.
    #[error("line {line}: `{key}` is missing")]
    Missing {
        /// Where its table begins.
        line: usize,
        /// With the tables it belongs in.
        key: String,
    },
    /// A value of another type.
    #[error("line {line}: `{key}` is {wanted}, not {found}")]
    Type {
        /// From 1.
        line: usize,
        /// With the tables it stands in.
        key: String,
        /// What it should be.
        wanted: &'static str,
        /// What it is.
        found: String,
    },
    /// A value that cannot be.
    #[error("line {line}: `{key}`: {why}{}", meant(.did_you_mean))]
    Value {
        /// From 1.
        line: usize,
        /// With the tables it stands in.
        key: String,
        /// Why not.
        why: String,
        /// The nearest value that can.
        did_you_mean: Option<String>,
    },
}

fn meant(word: &Option<String>) -> String {
    word.as_ref()
        .map(|word| format!(", did you mean `{word}`?"))
        .unwrap_or_default()
}

impl Problem {
    /// Where it is, from 1.
    pub fn line(&self) -> usize {
        match self {
            Problem::Syntax { line, .. }
            | Problem::Unknown { line, .. }
            | Problem::Missing { line, .. }
            | Problem::Type { line, .. }
            | Problem::Value { line, .. } => *line,
        }
    }
}

/// A parsed document and what was found wrong in it.
pub struct Document<'a> {
    text: &'a str,
    problems: RefCell<Vec<Problem>>,
}

impl<'a> Document<'a> {
    /// Parses `text` and has `read` take its fields. Problems come in order of lines.
    pub fn read<T>(text: &'a str, read: impl FnOnce(&Fields<'_>) -> T) -> Result<T, Vec<Problem>> {
        let document = Document {
            text,
            problems: RefCell::default(),
        };
        let table = DeTable::parse(text).map_err(|error| {
            let at = error.span().map_or(0, |span| span.start);
            vec![Problem::Syntax {
                line: document.line(at),
                message: error.message().to_owned(),
            }]
        })?;
        let fields = Fields {
            document: &document,
            path: String::new(),
            line: 1,
            table: table.get_ref(),
            asked: RefCell::default(),
            finished: Cell::new(false),
        };
        let value = read(&fields);
        drop(fields);
        let mut problems = document.problems.into_inner();
        problems.sort_by_key(Problem::line);
        if problems.is_empty() {
            Ok(value)
        } else {
            Err(problems)
        }
    }

    fn line(&self, offset: usize) -> usize {
        let before = self.text.as_bytes().get(..offset);
        let before = before.unwrap_or(self.text.as_bytes());
        before.iter().filter(|byte| **byte == b'\n').count() + 1
    }
}

/// One table of a document.
pub struct Fields<'a> {
    document: &'a Document<'a>,
    /// With a trailing point, or empty at the top.
    path: String,
    line: usize,
    table: &'a DeTable<'a>,
    asked: RefCell<BTreeSet<&'static str>>,
    finished: Cell<bool>,
}

impl<'a> Fields<'a> {
    fn ask(&self, key: &'static str) -> Option<&'a Spanned<DeValue<'a>>> {
        self.asked.borrow_mut().insert(key);
        self.table.get(key)
    }

    fn put(&self, problem: Problem) {
        self.document.problems.borrow_mut().push(problem);
    }

    fn at(&self, value: &Spanned<DeValue<'_>>) -> usize {
        self.document.line(value.span().start)
    }

    fn mistyped(&self, key: &str, value: &Spanned<DeValue<'_>>, wanted: &'static str) {
        self.put(Problem::Type {
            line: self.at(value),
            key: format!("{}{key}", self.path),
            wanted,
            found: format!(
                "{} {}",
                article(value.get_ref()),
                value.get_ref().type_str()
            ),
        });
    }

    /// Says that the value of a key of this table cannot be.
    pub fn refuse(&self, key: &'static str, why: impl Into<String>, did_you_mean: Option<String>) {
        let line = self
            .table
            .get(key)
            .map_or(self.line, |value| self.at(value));
        self.put(Problem::Value {
            line,
            key: format!("{}{key}", self.path),
            why: why.into(),
            did_you_mean,
        });
    }

    /// Says that a key must be there.
    pub fn missing(&self, key: &'static str) {
        self.put(Problem::Missing {
            line: self.line,
            key: format!("{}{key}", self.path),
        });
    }

    /// Whether the key stands here.
    pub fn has(&self, key: &'static str) -> bool {
        self.ask(key).is_some()
    }

    /// Whether the key stands here with a string.
    pub fn is_text(&self, key: &'static str) -> bool {
        let value = self.ask(key).map(Spanned::get_ref);
        matches!(value, Some(DeValue::String(_)))
    }

    /// A string.
    pub fn text(&self, key: &'static str) -> Option<String> {
        let value = self.ask(key)?;
        match value.get_ref() {
            DeValue::String(text) => Some(text.to_string()),
            _ => {
                self.mistyped(key, value, "a string");
                None
            }
        }
    }

    /// One of some words.
    pub fn word<T: Copy>(&self, key: &'static str, words: &[(&'static str, T)]) -> Option<T> {
        let text = self.text(key)?;
        let found = words.iter().find(|(word, _)| *word == text);
        if found.is_none() {
            let all: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
            let near = nearest(&text, all.iter().copied()).map(str::to_owned);
            let why = format!("`{text}` is none of {}", all.join(", "));
            self.refuse(key, why, near);
        }
        found.map(|(_, value)| *value)
    }

    fn unit<T>(
        &self,
        key: &'static str,
        parse: impl FnOnce(&str) -> Result<T, UnitError>,
    ) -> Option<T> {
        match parse(&self.text(key)?) {
            Ok(value) => Some(value),
            Err(error) => {
                self.refuse(key, error.to_string(), None);
                None
            }
        }
    }

    /// A duration: `"250ms"`, `"60s"`, `"10m"`.
    pub fn duration(&self, key: &'static str) -> Option<Duration> {
        self.unit(key, parse_duration)
    }

    /// An amount of bytes: `"512B"`, `"64KiB"`, `"1GiB"`.
    pub fn bytes(&self, key: &'static str) -> Option<u64> {
        self.unit(key, |text| Bytes::from_str(text).map(|bytes| bytes.0))
    }

    /// A data rate in bits a second: `"100Mbit"`.
    pub fn bits(&self, key: &'static str) -> Option<u64> {
        self.unit(key, |text| Bits::from_str(text).map(|bits| bits.0))
    }

    /// A whole number within bounds.
    pub fn count(&self, key: &'static str, bounds: RangeInclusive<u64>) -> Option<u64> {
        let value = self.ask(key)?;
        let DeValue::Integer(number) = value.get_ref() else {
            self.mistyped(key, value, "a whole number");
            return None;
        };
        match u64::from_str_radix(number.as_str(), number.radix()) {
            Ok(number) if bounds.contains(&number) => Some(number),
            _ => {
                let why = format!(
                    "{number} is not within {} to {}",
                    bounds.start(),
                    bounds.end()
                );
                self.refuse(key, why, None);
                None
            }
        }
    }

    /// A number within bounds.
    pub fn number(&self, key: &'static str, bounds: RangeInclusive<f64>) -> Option<f64> {
        let value = self.ask(key)?;
        let text = match value.get_ref() {
            DeValue::Integer(number) => number.to_string(),
            DeValue::Float(number) => number.to_string(),
            _ => {
                self.mistyped(key, value, "a number");
                return None;
            }
        };
        match text.parse::<f64>() {
            Ok(number) if bounds.contains(&number) => Some(number),
            _ => {
                let why = format!(
                    "{text} is not within {} to {}",
                    bounds.start(),
                    bounds.end()
                );
                self.refuse(key, why, None);
                None
            }
        }
    }

    /// True or false.
    pub fn flag(&self, key: &'static str) -> Option<bool> {
        let value = self.ask(key)?;
        match value.get_ref() {
            DeValue::Boolean(yes) => Some(*yes),
            _ => {
                self.mistyped(key, value, "true or false");
                None
            }
        }
    }

    fn array(&self, key: &'static str, wanted: &'static str) -> Option<&'a DeArray<'a>> {
        let value = self.ask(key)?;
        match value.get_ref() {
            DeValue::Array(array) => Some(array),
            _ => {
                self.mistyped(key, value, wanted);
                None
            }
        }
    }

    /// Strings: a list, or one alone.
    pub fn texts(&self, key: &'static str) -> Option<Vec<String>> {
        if let DeValue::String(text) = self.ask(key)?.get_ref() {
            return Some(vec![text.to_string()]);
        }
        let mut texts = Vec::new();
        for value in self.array(key, "a list of strings")? {
            match value.get_ref() {
                DeValue::String(text) => texts.push(text.to_string()),
                _ => self.mistyped(key, value, "a list of strings"),
            }
        }
        Some(texts)
    }

    /// A table within this one.
    pub fn table(&self, key: &'static str) -> Option<Fields<'a>> {
        let value = self.ask(key)?;
        match value.get_ref() {
            DeValue::Table(table) => Some(self.within(key.to_owned(), value, table)),
            _ => {
                self.mistyped(key, value, "a table");
                None
            }
        }
    }

    /// A list of tables, `[[key]]`.
    pub fn tables(&self, key: &'static str) -> Vec<Fields<'a>> {
        let mut tables = Vec::new();
        for (index, value) in self
            .array(key, "a list of tables")
            .into_iter()
            .flatten()
            .enumerate()
        {
            match value.get_ref() {
                DeValue::Table(table) => {
                    tables.push(self.within(format!("{key}[{index}]"), value, table));
                }
                _ => self.mistyped(key, value, "a list of tables"),
            }
        }
        tables
    }

    /// Tables by names that the author chose, `[key.<name>]`.
    pub fn named_tables(&self, key: &'static str) -> Vec<(String, Fields<'a>)> {
        let Some(outer) = self.table(key) else {
            return Vec::new();
        };
        outer.finished.set(true);
        let mut tables = Vec::new();
        for (name, value) in outer.table {
            let name = name.get_ref().to_string();
            match value.get_ref() {
                DeValue::Table(table) => {
                    tables.push((name.clone(), outer.within(name, value, table)));
                }
                _ => outer.mistyped(&name, value, "a table"),
            }
        }
        tables
    }

    fn within(
        &self,
        name: String,
        value: &Spanned<DeValue<'_>>,
        table: &'a DeTable<'a>,
    ) -> Fields<'a> {
        Fields {
            document: self.document,
            path: format!("{}{name}.", self.path),
            line: self.at(value),
            table,
            asked: RefCell::default(),
            finished: Cell::new(false),
        }
    }

    /// Says of every key that nobody asked for that it is unknown. Done once all were asked for.
    fn finish(&self) {
        if self.finished.replace(true) {
            return;
        }
        let asked = self.asked.borrow();
        for (name, _) in self.table {
            let word: &str = name.get_ref();
            if asked.contains(word) {
                continue;
            }
            self.put(Problem::Unknown {
                line: self.document.line(name.span().start),
                key: format!("{}{word}", self.path),
                did_you_mean: nearest(word, asked.iter().copied()).map(str::to_owned),
            });
        }
    }
}

impl Drop for Fields<'_> {
    fn drop(&mut self) {
        self.finish();
    }
}

fn article(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::Integer(_) | DeValue::Array(_) => "an",
        _ => "a",
    }
}

/// The nearest of some words, when it is near enough to have been meant.
pub fn nearest<'w>(word: &str, words: impl IntoIterator<Item = &'w str>) -> Option<&'w str> {
    words
        .into_iter()
        .map(|candidate| (strsim::damerau_levenshtein(word, candidate), candidate))
        .filter(|(distance, candidate)| *distance <= candidate.len().div_ceil(3))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(text: &str) -> Vec<String> {
        let read = |fields: &Fields<'_>| {
            fields.text("name");
            fields.count("shards", 1..=64);
            fields.duration("duration");
            fields.word("crypto", &[("real", 1), ("memo", 2)]);
            for node in fields.tables("nodes") {
                node.text("role");
                node.texts("regions");
                node.number("loss", 0.0..=1.0);
            }
            for (_, place) in fields.named_tables("places") {
                place.flag("nat");
            }
        };
        let found = Document::read(text, read).err().unwrap_or_default();
        found.iter().map(Problem::to_string).collect()
    }

    // Scenario: keys nobody knows, at the top, in a list of tables and in a named table, each with its line and the key
    // that was meant; a key far from all others is named without a guess.
    #[test]
    fn unknown_keys_are_named_with_line_and_suggestion() {
        let text = "nmae = \"x\"\n\n[[nodes]]\nrole = \"a\"\n[[nodes]]\nregoins = []\n[places.home]\nnta = true\n\
                    quantum = 1\n";
        assert_eq!(
            problems(text),
            [
                "line 1: unknown key `nmae`, did you mean `name`?",
                "line 6: unknown key `nodes[1].regoins`, did you mean `regions`?",
                "line 8: unknown key `places.home.nta`, did you mean `nat`?",
                "line 9: unknown key `places.home.quantum`",
            ]
        );
    }

    // Scenario: values of a wrong type, out of bounds, of no unit and misspelt.
    #[test]
    fn values_that_cannot_be_are_refused_by_line() {
        let text = "name = 1\nshards = 65\nduration = \"6 parsec\"\ncrypto = \"mmeo\"\n[[nodes]]\nloss = 1.5\n\
                    regions = [1]\n";
        assert_eq!(
            problems(text),
            [
                "line 1: `name` is a string, not an integer",
                "line 2: `shards`: 65 is not within 1 to 64",
                "line 3: `duration`: `6 parsec` is no duration: a number and ms, s, m, h or d",
                "line 4: `crypto`: `mmeo` is none of real, memo, did you mean `memo`?",
                "line 6: `nodes[0].loss`: 1.5 is not within 0 to 1",
                "line 7: `nodes[0].regions` is a list of strings, not an integer",
            ]
        );
    }

    // Scenario: a document that is no TOML.
    #[test]
    fn broken_toml_has_a_line() {
        let found = problems("name = \"x\"\nshards = = 1\n");
        assert_eq!(found.len(), 1);
        assert!(found[0].starts_with("line 2: "), "{found:?}");
    }

    // Scenario: a sound document has no problems, whether a list has one or many entries.
    #[test]
    fn a_sound_document_is_read() {
        let text = "name = \"x\"\nshards = 0x10\nduration = \"1m\"\n[[nodes]]\nregions = \"oslo\"\nloss = 1\n";
        assert_eq!(problems(text), Vec::<String>::new());
    }
}
