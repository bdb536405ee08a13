//! Metadata of a GGUF file: names with typed values.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::cursor::Cursor;
use crate::model::bad;
use crate::{Error, Result};

/// A value, with the integer and the array types joined: their widths mean nothing to a reader.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value {
    Unsigned(u64),
    Signed(i64),
    Single(f32),
    Double(f64),
    Flag(bool),
    Text(String),
    Texts(Vec<String>),
    /// Integers, floats or flags; exact below 2^53.
    Numbers(Vec<f64>),
}

impl Value {
    fn describe(&self) -> String {
        match self {
            Value::Unsigned(x) => x.to_string(),
            Value::Signed(x) => x.to_string(),
            Value::Single(x) => x.to_string(),
            Value::Double(x) => x.to_string(),
            Value::Flag(x) => x.to_string(),
            Value::Text(x) => format!("{x:?}"),
            Value::Texts(list) => format!("{} strings", list.len()),
            Value::Numbers(list) => format!("{} numbers", list.len()),
        }
    }
}

const STRING: u32 = 8;
const ARRAY: u32 = 9;

/// Bytes that an element of this type takes at least; `None` for an unknown type.
fn least_size(kind: u32) -> Option<u64> {
    match kind {
        0 | 1 | 7 => Some(1),
        2 | 3 => Some(2),
        4..=6 => Some(4),
        STRING | 10..=12 => Some(8),
        _ => None,
    }
}

fn scalar(path: &Path, cursor: &mut Cursor, kind: u32, key: &str) -> Result<Value> {
    Ok(match kind {
        0 => Value::Unsigned(cursor.array(key).map(u8::from_le_bytes)?.into()),
        1 => Value::Signed(cursor.array(key).map(i8::from_le_bytes)?.into()),
        2 => Value::Unsigned(cursor.array(key).map(u16::from_le_bytes)?.into()),
        3 => Value::Signed(cursor.array(key).map(i16::from_le_bytes)?.into()),
        4 => Value::Unsigned(cursor.u32(key)?.into()),
        5 => Value::Signed(cursor.array(key).map(i32::from_le_bytes)?.into()),
        6 => Value::Single(cursor.array(key).map(f32::from_le_bytes)?),
        7 => Value::Flag(cursor.array::<1>(key)? != [0]),
        STRING => Value::Text(cursor.text(key)?),
        10 => Value::Unsigned(cursor.u64(key)?),
        11 => Value::Signed(cursor.array(key).map(i64::from_le_bytes)?),
        12 => Value::Double(cursor.array(key).map(f64::from_le_bytes)?),
        _ => {
            return Err(bad(
                path,
                format!("{key} has the unknown type {kind}: the file is damaged or too new"),
            ));
        }
    })
}

fn value(path: &Path, cursor: &mut Cursor, key: &str) -> Result<Value> {
    let kind = cursor.u32(key)?;
    if kind != ARRAY {
        return scalar(path, cursor, kind, key);
    }
    let kind = cursor.u32(key)?;
    let least = least_size(kind)
        .ok_or_else(|| bad(path, format!("{key} is an array of type {kind}, which is not supported")))?;
    let count = cursor.count(least, key)?;
    if kind == STRING {
        return (0..count).map(|_| cursor.text(key)).collect::<Result<_>>().map(Value::Texts);
    }
    let number = |value| match value {
        Value::Unsigned(x) => x as f64,
        Value::Signed(x) => x as f64,
        Value::Single(x) => x.into(),
        Value::Double(x) => x,
        Value::Flag(x) => x.into(),
        Value::Text(_) | Value::Texts(_) | Value::Numbers(_) => unreachable!("strings are read above"),
    };
    (0..count).map(|_| scalar(path, cursor, kind, key).map(number)).collect::<Result<_>>().map(Value::Numbers)
}

/// All metadata of a file.
#[derive(Debug)]
pub(in crate::model) struct Metadata {
    path: PathBuf,
    values: BTreeMap<String, Value>,
}

impl Metadata {
    /// Smallest pair: an empty key, a type and one byte.
    pub(super) const LEAST: u64 = 8 + 4 + 1;

    pub(super) fn read(path: &Path, cursor: &mut Cursor, count: usize) -> Result<Self> {
        let mut values = BTreeMap::new();
        for number in 1..=count {
            let key = cursor.text(&format!("metadata key {number} of {count}"))?;
            let value = value(path, cursor, &key)?;
            if values.insert(key.clone(), value).is_some() {
                return Err(bad(path, format!("{key} stands twice in the metadata")));
            }
        }
        Ok(Self { path: path.to_owned(), values })
    }

    /// Refuses the value of `key`.
    pub(super) fn refuse(&self, key: &str, why: &str) -> Error {
        match self.values.get(key) {
            Some(value) => bad(&self.path, format!("{key} = {}: {why}", value.describe())),
            None => bad(&self.path, format!("{key} is missing: {why}")),
        }
    }

    fn typed<'a, T>(
        &'a self,
        key: &str,
        kind: &str,
        read: impl Fn(&'a Value) -> Option<T>,
    ) -> Result<Option<T>> {
        match self.values.get(key) {
            None => Ok(None),
            Some(value) => read(value).map(Some).ok_or_else(|| self.refuse(key, &format!("must be {kind}"))),
        }
    }

    pub(super) fn count(&self, key: &str) -> Result<Option<usize>> {
        self.typed(key, "one non-negative integer", |value| match *value {
            Value::Unsigned(x) => usize::try_from(x).ok(),
            Value::Signed(x) => usize::try_from(x).ok(),
            _ => None,
        })
    }

    pub(super) fn need_count(&self, key: &str) -> Result<usize> {
        self.count(key)?.ok_or_else(|| self.refuse(key, "the model cannot be described without it"))
    }

    /// A float; single precision is widened to the `f64` that prints alike.
    pub(super) fn number(&self, key: &str) -> Result<Option<f64>> {
        self.typed(key, "one number", |value| match *value {
            Value::Single(x) => Some(crate::model::config::shortest(x)),
            Value::Double(x) => Some(x),
            Value::Unsigned(x) => Some(x as f64),
            Value::Signed(x) => Some(x as f64),
            _ => None,
        })
    }

    pub(super) fn flag(&self, key: &str) -> Result<Option<bool>> {
        self.typed(key, "true or false", |value| if let Value::Flag(x) = *value { Some(x) } else { None })
    }

    pub(super) fn text(&self, key: &str) -> Result<Option<&str>> {
        self.typed(key, "a string", |value| if let Value::Text(x) = value { Some(x.as_str()) } else { None })
    }

    pub(super) fn texts(&self, key: &str) -> Result<Option<&[String]>> {
        self.typed(key, "a list of strings", |value| match value {
            Value::Texts(list) => Some(list.as_slice()),
            _ => None,
        })
    }

    pub(super) fn numbers(&self, key: &str) -> Result<Option<&[f64]>> {
        self.typed(key, "a list of numbers", |value| match value {
            Value::Numbers(list) => Some(list.as_slice()),
            _ => None,
        })
    }
}
