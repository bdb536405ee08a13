//! A record's columns while they are being read, with errors that point at the field.

use std::collections::BTreeMap;
use std::fmt::Write;

use serde_json::{Map, Value};

use super::json::{Step, kind, locate};
use super::record::Message;
use super::{Schema, Source};
use crate::{Error, Result};

/// Columns of one record and the text they came from.
pub(crate) struct Row<'a> {
    pub(crate) columns: Map<String, Value>,
    /// JSON text of the record; empty where there is none (Parquet).
    pub(crate) json: &'a [u8],
    pub(crate) source: Source,
    /// `data.columns`: the file's name of a column by its schema name.
    pub(crate) renamed: &'a BTreeMap<String, String>,
}

impl Row<'_> {
    /// Applies `data.columns` and drops nulls, which files made from tables hold where a column is absent.
    pub(crate) fn settle(&mut self) -> Result<()> {
        self.columns.retain(|_, value| !value.is_null());
        for (name, theirs) in self.renamed {
            let Some(value) = self.columns.shift_remove(theirs) else {
                return Err(self.source.error(format!(
                    "no column `{theirs}`, which `data.columns` reads as `{name}` (columns: {}); correct `data.columns`",
                    self.found()
                )));
            };
            self.columns.insert(name.clone(), value);
        }
        Ok(())
    }

    /// The columns as `a, b, c`.
    pub(crate) fn found(&self) -> String {
        let names: Vec<&str> = self.columns.keys().map(String::as_str).collect();
        if names.is_empty() { "none".to_owned() } else { names.join(", ") }
    }

    /// Checks that the columns of `schema` are there.
    pub(crate) fn check(&self, schema: Schema) -> Result<()> {
        let missing: Vec<&str> =
            schema.required().iter().copied().filter(|c| !self.columns.contains_key(*c)).collect();
        if missing.is_empty() {
            return Ok(());
        }
        Err(self.source.error(format!(
            "missing column{} {} (columns: {}); the file is read as `{}`, so each record needs {}",
            if missing.len() == 1 { "" } else { "s" },
            missing.join(", "),
            self.found(),
            schema.name(),
            schema.required().join(", ")
        )))
    }

    /// An error at the value that `path` leads to; `path` starts with a column.
    pub(crate) fn error(&self, path: &[Step<'_>], problem: &str) -> Error {
        let mut theirs = path.to_vec();
        if let Some(Step::Key(column)) = theirs.first_mut()
            && let Some(name) = self.renamed.get(*column)
        {
            *column = name;
        }
        let place = self.source.advanced(self.json, locate(self.json, &theirs));
        place.error(format!("`{}` {problem}", spell(&theirs)))
    }

    pub(crate) fn mismatch(&self, path: &[Step<'_>], wanted: &str, value: &Value) -> Error {
        self.error(path, &format!("must be {wanted}, got {}", kind(value)))
    }

    /// Takes a column out.
    pub(crate) fn take(&mut self, column: &str) -> Option<Value> {
        self.columns.shift_remove(column)
    }

    /// Takes a string column; absent is the empty string.
    pub(crate) fn string(&mut self, column: &str) -> Result<String> {
        match self.take(column) {
            None => Ok(String::new()),
            Some(Value::String(text)) => Ok(text),
            Some(other) => Err(self.mismatch(&[Step::Key(column)], "a string", &other)),
        }
    }

    /// Takes a column of true or false.
    pub(crate) fn flag(&mut self, column: &str) -> Result<bool> {
        match self.take(column) {
            Some(Value::Bool(flag)) => Ok(flag),
            other => Err(self.mismatch(&[Step::Key(column)], "true or false", &other.unwrap_or(Value::Null))),
        }
    }

    /// Takes a column that holds an array.
    pub(crate) fn array(&mut self, column: &str) -> Result<Vec<Value>> {
        match self.take(column) {
            None => Ok(Vec::new()),
            Some(Value::Array(items)) => Ok(items),
            Some(other) => Err(self.mismatch(&[Step::Key(column)], "an array", &other)),
        }
    }

    /// Checks the messages of a column: objects with a string `role` and a textual `content`.
    pub(crate) fn messages(&self, column: &str, items: Vec<Value>) -> Result<Vec<Message>> {
        self.messages_at(&[Step::Key(column)], items)
    }

    /// As [`Self::messages`] at any place in the record.
    pub(crate) fn messages_at(&self, place: &[Step<'_>], items: Vec<Value>) -> Result<Vec<Message>> {
        if items.is_empty() {
            return Err(self.error(place, "has no messages"));
        }
        items.into_iter().enumerate().map(|(i, item)| self.message(place, i, item)).collect()
    }

    fn message(&self, place: &[Step<'_>], index: usize, item: Value) -> Result<Message> {
        let inside = |steps: &[Step<'static>]| [place, &[Step::Index(index)], steps].concat();
        let here = inside(&[]);
        let Value::Object(mut message) = item else {
            return Err(self.mismatch(&here, "a message {role, content}", &item));
        };
        message.retain(|name, value| !value.is_null() || name == "content");
        match message.get("role") {
            Some(Value::String(_)) => {}
            None => return Err(self.error(&here, &format!("has no `role` (fields: {})", fields(&message)))),
            Some(other) => {
                return Err(self.mismatch(&inside(&[Step::Key("role")]), "a string", other));
            }
        }
        let calls = message.contains_key("tool_calls");
        let content = match message.get_mut("content") {
            Some(Value::String(_)) => return Ok(message),
            Some(Value::Null) | None if calls => return Ok(message),
            None => {
                return Err(self.error(&here, &format!("has no `content` (fields: {})", fields(&message))));
            }
            Some(content) => content,
        };
        let path = inside(&[Step::Key("content")]);
        let Value::Array(blocks) = content else {
            return Err(self.mismatch(&path, "a string or a list of text blocks", content));
        };
        let mut text = String::new();
        for (i, block) in blocks.iter().enumerate() {
            let is_text = block.get("type").is_none_or(|t| t.as_str() == Some("text"));
            let Some(part) = block.get("text").and_then(Value::as_str).filter(|_| is_text) else {
                let path = inside(&[Step::Key("content"), Step::Index(i)]);
                let wanted = r#"is not a text block {"type": "text", "text": ...}; only text is read"#;
                return Err(self.error(&path, wanted));
            };
            text.push_str(part);
        }
        *content = Value::String(text);
        Ok(message)
    }

    /// Reads ShareGPT turns (`from`, `value`) of a column as messages. Turns that already have `role` and
    /// `content` are taken as they are.
    pub(crate) fn turns(&self, column: &str, items: Vec<Value>) -> Result<Vec<Message>> {
        let mut messages = Vec::with_capacity(items.len());
        for (i, mut item) in items.into_iter().enumerate() {
            if let Value::Object(turn) = &mut item
                && let Some(from) = turn.shift_remove("from")
            {
                let path = [Step::Key(column), Step::Index(i), Step::Key("from")];
                let role = match from.as_str() {
                    Some("human" | "user") => "user",
                    Some("gpt" | "assistant") => "assistant",
                    Some("system") => "system",
                    Some("observation" | "tool") => "tool",
                    Some(other) => {
                        let known = "human, user, gpt, assistant, system, observation or tool";
                        return Err(self.error(&path, &format!("is `{other}`; it must be {known}")));
                    }
                    None => return Err(self.mismatch(&path, "a string", &from)),
                };
                let value = turn.shift_remove("value").unwrap_or(Value::Null);
                if !value.is_string() {
                    let path = [Step::Key(column), Step::Index(i), Step::Key("value")];
                    return Err(self.mismatch(&path, "a string", &value));
                }
                turn.insert("role".to_owned(), role.into());
                turn.insert("content".to_owned(), value);
            }
            messages.push(item);
        }
        self.messages(column, messages)
    }
}

fn fields(message: &Message) -> String {
    let names: Vec<&str> = message.keys().map(String::as_str).collect();
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}

/// `messages[2].content`.
fn spell(path: &[Step<'_>]) -> String {
    let mut text = String::new();
    for step in path {
        match step {
            Step::Key(key) if text.is_empty() => text.push_str(key),
            Step::Key(key) => {
                text.push('.');
                text.push_str(key);
            }
            Step::Index(index) => {
                write!(text, "[{index}]").expect("writing to a string cannot fail");
            }
        }
    }
    text
}
