//! JSON objects of model folders, read with messages that name file, key and value.

use std::path::Path;

use serde_json::{Map, Value};

use super::{bad, unreadable};
use crate::Result;

/// A JSON object.
pub(super) type Object = Map<String, Value>;

/// Reads a file that must hold one object.
pub(super) fn read(path: &Path) -> Result<Object> {
    parse(path, &std::fs::read(path).map_err(|source| unreadable(path, source))?)
}

/// Parses `bytes`, which stand in `path`.
pub(super) fn parse(path: &Path, bytes: &[u8]) -> Result<Object> {
    match serde_json::from_slice(bytes) {
        Ok(Value::Object(object)) => Ok(object),
        Ok(_) => Err(bad(path, "must hold a JSON object ({...})")),
        Err(error) => Err(bad(path, format!("is not valid JSON: {error}"))),
    }
}

/// Object as the bytes of a file: indented by two, with a final newline, as transformers writes it.
pub(super) fn to_bytes(object: &Object) -> Vec<u8> {
    let mut bytes = serde_json::to_vec_pretty(object).expect("JSON values serialise");
    bytes.push(b'\n');
    bytes
}

/// Typed access to the keys of an object. `null` counts as absent.
#[derive(Debug, Clone, Copy)]
pub(super) struct Keys<'a> {
    pub(super) path: &'a Path,
    /// Dotted path of the object in the file with its final dot, or nothing.
    pub(super) prefix: &'a str,
    pub(super) object: &'a Object,
}

impl<'a> Keys<'a> {
    pub(super) fn new(path: &'a Path, object: &'a Object) -> Self {
        Self { path, prefix: "", object }
    }

    /// The value, if there is one.
    pub(super) fn get(self, key: &str) -> Option<&'a Value> {
        self.object.get(key).filter(|value| !value.is_null())
    }

    /// Refuses the value of `key`.
    pub(super) fn refuse(self, key: &str, why: &str) -> crate::Error {
        let value = self.object.get(key).unwrap_or(&Value::Null);
        bad(self.path, format!("{}{key} = {value}: {why}", self.prefix))
    }

    fn typed<T>(self, key: &str, kind: &str, read: impl Fn(&'a Value) -> Option<T>) -> Result<Option<T>> {
        match self.get(key) {
            None => Ok(None),
            Some(value) => read(value).map(Some).ok_or_else(|| self.refuse(key, &format!("must be {kind}"))),
        }
    }

    pub(super) fn count(self, key: &str) -> Result<Option<usize>> {
        self.typed(key, "a non-negative integer", |v| v.as_u64().and_then(|n| usize::try_from(n).ok()))
    }

    pub(super) fn number(self, key: &str) -> Result<Option<f64>> {
        self.typed(key, "a number", Value::as_f64)
    }

    pub(super) fn flag(self, key: &str) -> Result<bool> {
        Ok(self.typed(key, "true or false", Value::as_bool)?.unwrap_or(false))
    }

    pub(super) fn text(self, key: &str) -> Result<Option<&'a str>> {
        self.typed(key, "a string", Value::as_str)
    }

    pub(super) fn object(self, key: &str) -> Result<Option<&'a Object>> {
        self.typed(key, "an object", Value::as_object)
    }
}
