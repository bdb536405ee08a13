//! Lays the user's values over the defaults, checking each against the schema.

use toml::{Table, Value};

use super::keys::{Key, list};
use super::layers::{Layers, join};
use super::schema::Node;
use crate::{Error, Result};

#[derive(Debug)]
pub(super) struct Overlay<'a> {
    schema: &'a serde_json::Value,
    layers: &'a Layers,
}

impl<'a> Overlay<'a> {
    pub(super) fn new(schema: &'a serde_json::Value, layers: &'a Layers) -> Self {
        Self { schema, layers }
    }

    /// The defaults with the user's values over them.
    pub(super) fn merge(&self, defaults: &Value) -> Result<Value> {
        self.table("", Node::root(self.schema), Some(defaults), &self.layers.values)
    }

    fn value(&self, at: &str, node: Node<'a>, below: Option<&Value>, value: &Value) -> Result<Value> {
        let types = node.types();
        let kind = json_type(value);
        let fits = types.contains(&kind) || kind == "integer" && types.contains(&"number");
        if !types.is_empty() && !fits {
            let expected = types.iter().map(|kind| with_article(kind)).collect::<Vec<_>>().join(" or ");
            return Err(self.wrong(at, below, format!("must be {expected}, got {value}")));
        }
        match value {
            Value::Table(table) => self.table(at, node, below, table),
            Value::Array(items) => {
                let item = |(i, value)| match node.item(i) {
                    Some(node) => self.value(&format!("{at}[{i}]"), node, None, value),
                    None => Ok(value.clone()),
                };
                items.iter().enumerate().map(item).collect::<Result<_>>().map(Value::Array)
            }
            Value::String(text) => match &node.choices()[..] {
                choices if choices.is_empty() || choices.contains(&text.as_str()) => Ok(value.clone()),
                choices => Err(self.no_choice(at, below, text, choices)),
            },
            Value::Integer(number) => {
                let (least, greatest) = node.range();
                if let Some(least) = least.filter(|&least| (*number as f64) < least) {
                    return Err(self.wrong(at, below, format!("must be at least {least}, got {number}")));
                }
                if let Some(greatest) = greatest.filter(|&greatest| (*number as f64) > greatest) {
                    return Err(self.wrong(at, below, format!("must be at most {greatest}, got {number}")));
                }
                Ok(value.clone())
            }
            _ => Ok(value.clone()),
        }
    }

    fn table(&self, at: &str, node: Node<'a>, below: Option<&Value>, table: &Table) -> Result<Value> {
        let start = node.default().filter(|_| below.is_none()).and_then(|json| Value::try_from(json).ok());
        let below = below.or(start.as_ref());
        let own = node.own_fields();
        let (kind, same) = self.kind(at, node, below, table)?;
        let mut fields = kind.fields();
        fields.extend(own.iter().filter(|(key, _)| kind.field(key).is_none()));
        let free = kind.values();
        if fields.is_empty() && free.is_none() {
            return Ok(Value::Table(table.clone()));
        }
        let mut merged = below.and_then(Value::as_table).cloned().unwrap_or_default();
        merged.retain(|key, _| same || own.iter().any(|(known, _)| *known == key));
        for (key, value) in table {
            let path = join(at, key);
            let known = fields.iter().find(|(known, _)| known == key).map(|(_, node)| *node);
            let Some(field) = known.or(free) else {
                return Err(self.unknown(at, key, &fields));
            };
            let value = self.value(&path, field, merged.get(key), value)?;
            merged.insert(key.clone(), value);
        }
        let mut required = kind.required().into_iter().chain(node.required());
        match required.find(|key| !merged.contains_key(*key)) {
            Some(key) => Err(Error::MissingKey { origin: self.layers.origin(at), key: join(at, key) }),
            None => Ok(Value::Table(merged)),
        }
    }

    /// Picks the kind of a table that can be of several, and says whether the default below it is of the same kind.
    fn kind(
        &self,
        at: &str,
        node: Node<'a>,
        below: Option<&Value>,
        table: &Table,
    ) -> Result<(Node<'a>, bool)> {
        let alternatives = node.alternatives();
        if alternatives.is_empty() {
            return Ok((node, true));
        }
        let Some(tag) = node.tag() else { return Ok((node, false)) };
        let default = below.and_then(|below| below.get(tag)).and_then(Value::as_str);
        let path = join(at, tag);
        let chosen = match table.get(tag) {
            None => default
                .ok_or_else(|| Error::MissingKey { origin: self.layers.origin(at), key: path.clone() })?,
            Some(Value::String(text)) => text,
            Some(other) => return Err(self.wrong(&path, None, format!("must be a string, got {other}"))),
        };
        let is_chosen = |node: &&Node<'a>| node.field(tag).and_then(Node::fixed) == Some(chosen);
        let Some(branch) = alternatives.iter().find(is_chosen) else {
            let names: Vec<_> = alternatives.iter().filter_map(|node| node.field(tag)?.fixed()).collect();
            return Err(self.no_choice(&path, None, chosen, &names));
        };
        Ok((*branch, default == Some(chosen)))
    }

    fn no_choice(&self, at: &str, default: Option<&Value>, text: &str, choices: &[&str]) -> Error {
        let hint = match nearest(text, choices.iter().copied()) {
            Some(nearest) => format!("; did you mean \"{nearest}\"?"),
            None => String::new(),
        };
        let choices = choices.iter().map(|choice| format!("\"{choice}\"")).collect::<Vec<_>>().join(", ");
        self.wrong(at, default, format!("must be one of {choices}, got \"{text}\"{hint}"))
    }

    fn wrong(&self, at: &str, default: Option<&Value>, problem: String) -> Error {
        let problem = match default {
            Some(default) if !default.is_table() => format!("{problem} (default {default})"),
            _ => problem,
        };
        Error::Value { origin: self.layers.origin(at), key: at.to_owned(), problem }
    }

    /// Suggests a similar key of the same table, else the same key of another one.
    fn unknown(&self, at: &str, key: &str, fields: &[(&'a str, Node<'a>)]) -> Error {
        let path = join(at, key);
        let here = nearest(key, fields.iter().map(|(known, _)| *known)).map(|known| join(at, known));
        let elsewhere = || {
            let keys = list(Node::root(self.schema), None).into_iter().map(|Key { path, .. }| path);
            keys.into_iter().find(|path| path.rsplit('.').next() == Some(key))
        };
        Error::UnknownKey {
            origin: self.layers.origin(&path),
            key: path,
            nearest: here.or_else(elsewhere),
            known: fields.iter().map(|(known, _)| (*known).to_owned()).collect(),
        }
    }
}

/// The candidate with the fewest slips (insertions, deletions, changes, swaps), if it has at most one in three
/// letters.
pub fn nearest<'n>(name: &str, candidates: impl Iterator<Item = &'n str>) -> Option<&'n str> {
    candidates
        .map(|candidate| (strsim::osa_distance(name, candidate), candidate))
        .filter(|(slips, candidate)| {
            *slips <= candidate.chars().count().max(name.chars().count()).div_ceil(3)
        })
        .min_by_key(|(slips, _)| *slips)
        .map(|(_, candidate)| candidate)
}

fn json_type(value: &Value) -> &'static str {
    match value {
        Value::String(_) => "string",
        Value::Integer(_) => "integer",
        Value::Float(_) => "number",
        Value::Boolean(_) => "boolean",
        Value::Datetime(_) => "date",
        Value::Array(_) => "array",
        Value::Table(_) => "object",
    }
}

fn with_article(json_type: &str) -> &'static str {
    match json_type {
        "integer" => "an integer",
        "number" => "a number",
        "boolean" => "true or false",
        "array" => "an array",
        "object" => "a table",
        _ => "a string",
    }
}
