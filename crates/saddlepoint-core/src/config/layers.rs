//! What the user wrote: the file with the options laid over it, and where each value came from.

use std::collections::BTreeMap;
use std::fs;
use std::ops::Range;
use std::path::Path;

use toml::de::{DeTable, DeValue};
use toml::{Table, Value};

use crate::{Error, Origin, Result};

/// The user's values and their origins by dotted path (`data.files[0].path`; the empty path is the whole).
#[derive(Debug)]
pub(super) struct Layers {
    pub(super) values: Table,
    origins: BTreeMap<String, Origin>,
}

impl Layers {
    pub(super) fn read(file: Option<&Path>, sets: &[String]) -> Result<Self> {
        let mut layers = Self { values: Table::new(), origins: BTreeMap::new() };
        if let Some(path) = file {
            layers.file(path)?;
        }
        for set in sets {
            layers.set(set)?;
        }
        Ok(layers)
    }

    /// Where the value at `path`, or the table around it, was given.
    pub(super) fn origin(&self, path: &str) -> Origin {
        let mut path = path;
        loop {
            if let Some(origin) = self.origins.get(path) {
                return origin.clone();
            }
            if path.is_empty() {
                return Origin::Default;
            }
            path = &path[..path.rfind(['.', '[']).unwrap_or(0)];
        }
    }

    fn file(&mut self, path: &Path) -> Result<()> {
        let text = fs::read_to_string(path).map_err(Error::io("read", path))?;
        let parsed = DeTable::parse(&text).and_then(|spans| Ok((spans, toml::from_str(&text)?)));
        let (spans, values) = parsed.map_err(|error| {
            let (line, column) = position(&text, error.span().map_or(0, |span| span.start));
            Error::Syntax { path: path.into(), line, column, problem: error.message().to_owned() }
        })?;
        let origin =
            |span: Range<usize>| Origin::File { path: path.into(), line: position(&text, span.start).0 };
        self.values = values;
        self.origins.insert(String::new(), origin(0..0));
        trace_table(spans.get_ref(), "", &mut |at, span| {
            self.origins.insert(at, origin(span));
        });
        Ok(())
    }

    fn set(&mut self, text: &str) -> Result<()> {
        let malformed = || Error::Set { text: text.into() };
        let (path, value) = text.split_once('=').ok_or_else(malformed)?;
        let keys: Vec<&str> = path.trim().split('.').map(str::trim).collect();
        if keys.iter().any(|key| key.is_empty()) {
            return Err(malformed());
        }
        let mut layer = option_value(value.trim());
        self.trace_set(&keys.join("."), &layer, &Origin::Set(text.into()));
        for key in keys.iter().rev() {
            layer = Value::Table(Table::from_iter([((*key).to_owned(), layer)]));
        }
        if let Value::Table(layer) = layer {
            merge(&mut self.values, layer);
        }
        Ok(())
    }

    fn trace_set(&mut self, at: &str, value: &Value, origin: &Origin) {
        self.origins.insert(at.to_owned(), origin.clone());
        match value {
            Value::Table(table) => {
                table.iter().for_each(|(key, v)| self.trace_set(&join(at, key), v, origin));
            }
            Value::Array(list) => {
                list.iter().enumerate().for_each(|(i, v)| self.trace_set(&format!("{at}[{i}]"), v, origin));
            }
            _ => {}
        }
    }
}

/// `key` inside the table at `path`.
pub(super) fn join(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}

/// TOML if it is exactly one TOML value, else the text itself.
fn option_value(text: &str) -> Value {
    let document: Option<Table> = toml::from_str(&format!("value = {text}")).ok();
    match document {
        Some(mut table) if table.len() == 1 => table.remove("value"),
        _ => None,
    }
    .unwrap_or_else(|| Value::String(text.to_owned()))
}

fn merge(below: &mut Table, above: Table) {
    for (key, value) in above {
        match (below.get_mut(&key), value) {
            (Some(Value::Table(below)), Value::Table(above)) => merge(below, above),
            (_, value) => {
                below.insert(key, value);
            }
        }
    }
}

fn trace_table(table: &DeTable<'_>, at: &str, found: &mut impl FnMut(String, Range<usize>)) {
    for (key, value) in table {
        let path = join(at, key.get_ref());
        found(path.clone(), key.span());
        trace_value(value.get_ref(), &path, found);
    }
}

fn trace_value(value: &DeValue<'_>, at: &str, found: &mut impl FnMut(String, Range<usize>)) {
    match value {
        DeValue::Table(table) => trace_table(table, at, found),
        DeValue::Array(list) => {
            for (i, item) in list.iter().enumerate() {
                let path = format!("{at}[{i}]");
                found(path.clone(), item.span());
                trace_value(item.get_ref(), &path, found);
            }
        }
        _ => {}
    }
}

/// Line and column (in characters), counted from 1, of a byte of `text`.
fn position(text: &str, byte: usize) -> (usize, usize) {
    let before = text.get(..byte).unwrap_or(text);
    let line = before.rsplit('\n').next().unwrap_or(before);
    (before.matches('\n').count() + 1, line.chars().count() + 1)
}
