//! Reads records from JSONL, JSON arrays and, as a feature, Parquet.

mod array;
mod lines;
#[cfg(feature = "parquet")]
mod parquet;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::json::kind;
use super::row::Row;
use super::{Record, Schema, Source};
use crate::{Error, Result};

/// How to read a file whose columns do not speak for themselves.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ReadConfig {
    /// The file's column for a column of the schema, for example `{ prompt = "question", completion = "answer" }`.
    pub columns: BTreeMap<String, String>,
    /// Layout of the records; by default recognised from the columns of the first.
    pub schema: Option<Schema>,
}

/// What was read.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ReadReport {
    /// The file.
    pub path: std::path::PathBuf,
    /// The layout that was recognised or asked for.
    pub schema: Schema,
    /// What the records teach: `text`, `messages`, `prompts`, `prompt and completion`, `preference pairs` or
    /// `labelled completions`.
    pub body: &'static str,
    /// Whether the records are conversations, which need a chat template.
    pub conversational: bool,
    /// Number of records.
    pub records: usize,
    /// Blank lines skipped (JSONL).
    pub blank_lines: usize,
    /// Columns that the schema does not read; kept in [`Record::extra`].
    pub extra_columns: Vec<String>,
}

/// Reads a data file. Its format is told by its content: Parquet by its first bytes, a JSON array by `[`,
/// JSONL otherwise. The first bad record stops the reading with its line and column.
pub fn read_records(path: &Path) -> Result<(Vec<Record>, ReadReport)> {
    read_records_as(path, &ReadConfig::default())
}

/// [`read_records`] with column names or a schema given by the user.
pub fn read_records_as(path: &Path, config: &ReadConfig) -> Result<(Vec<Record>, ReadReport)> {
    let file = File::open(path).map_err(unreadable(path))?;
    let mut file = BufReader::with_capacity(1 << 16, file);
    if file.fill_buf().map_err(unreadable(path))?.starts_with(b"PAR1") {
        return read_parquet(path, config);
    }
    read_json(path, file, config)
}

fn unreadable(path: &Path) -> impl Fn(std::io::Error) -> Error {
    |source| saddlepoint_core::Error::Io { action: "read", path: path.to_owned(), source }.into()
}

/// Reads JSONL or a JSON array from `content`; `path` is what errors name.
pub fn read_json(
    path: &Path,
    content: impl BufRead,
    config: &ReadConfig,
) -> Result<(Vec<Record>, ReadReport)> {
    let mut reader = Reader::new(path, config)?;
    lines::read(&mut reader, content)?;
    reader.finish()
}

#[cfg(feature = "parquet")]
fn read_parquet(path: &Path, config: &ReadConfig) -> Result<(Vec<Record>, ReadReport)> {
    let mut reader = Reader::new(path, config)?;
    parquet::read(&mut reader)?;
    reader.finish()
}

#[cfg(not(feature = "parquet"))]
fn read_parquet(path: &Path, _: &ReadConfig) -> Result<(Vec<Record>, ReadReport)> {
    let problem = "is a Parquet file, which this build cannot read; build with `--features parquet` or convert it to JSONL";
    Err(Source { path: path.into(), line: 1, column: 1 }.error(problem))
}

/// Collects the records of one file.
struct Reader<'c> {
    path: Arc<Path>,
    config: &'c ReadConfig,
    schema: Option<Schema>,
    records: Vec<Record>,
    blank_lines: usize,
    extra: BTreeSet<String>,
}

impl<'c> Reader<'c> {
    fn new(path: &Path, config: &'c ReadConfig) -> Result<Self> {
        for name in config.columns.keys() {
            if !Schema::reads(name) {
                return Err(Error::Config {
                    key: format!("data.columns.{name}"),
                    problem: format!("no schema reads a column `{name}`; accepted: {}", Schema::accepted()),
                });
            }
        }
        Ok(Self {
            path: path.into(),
            config,
            schema: config.schema,
            records: Vec::new(),
            blank_lines: 0,
            extra: BTreeSet::new(),
        })
    }

    fn at(&self, line: usize, column: usize) -> Source {
        Source { path: Arc::clone(&self.path), line, column }
    }

    /// Adds the record `value`, whose text (empty if there is none) begins at `source`.
    fn push(&mut self, value: Value, json: &[u8], source: Source) -> Result<()> {
        let Value::Object(columns) = value else {
            return Err(source.error(format!(
                "a record must be an object like {{\"prompt\": ..., \"completion\": ...}}, got {}",
                kind(&value)
            )));
        };
        let mut row = Row { columns, json, source, renamed: &self.config.columns };
        row.settle()?;
        let schema = match self.schema.or_else(|| Schema::recognise(&row.columns)) {
            Some(schema) => *self.schema.insert(schema),
            None => {
                return Err(row.source.error(format!(
                    "no known schema has these columns: {}; accepted are {}; rename them with `data.columns`, \
                     for example {{ prompt = \"question\", completion = \"answer\" }}",
                    row.found(),
                    Schema::accepted()
                )));
            }
        };
        let record = row.record(schema)?;
        for column in record.extra.keys() {
            if !self.extra.contains(column) {
                self.extra.insert(column.clone());
            }
        }
        self.records.push(record);
        Ok(())
    }

    fn finish(self) -> Result<(Vec<Record>, ReadReport)> {
        let (Some(first), Some(schema)) = (self.records.first(), self.schema) else {
            return Err(self
                .at(1, 1)
                .error("the file holds no records; it needs one JSON object a line, or an array of them"));
        };
        let report = ReadReport {
            path: self.path.to_path_buf(),
            schema,
            body: first.body.name(),
            conversational: first.body.conversational(),
            records: self.records.len(),
            blank_lines: self.blank_lines,
            extra_columns: self.extra.into_iter().collect(),
        };
        Ok((self.records, report))
    }
}
