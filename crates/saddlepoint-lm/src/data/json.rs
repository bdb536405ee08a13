//! JSON values with duplicate keys refused, and the place of a field in a JSON text.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

/// A JSON value none of whose objects names a key twice. Parsers disagree on which of two values counts, so
/// neither does.
pub(crate) struct Strict(pub(crate) Value);

impl<'de> Deserialize<'de> for Strict {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(StrictVisitor).map(Strict)
    }
}

struct StrictVisitor;

impl<'de> Visitor<'de> for StrictVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_bool<E>(self, v: bool) -> Result<Value, E> {
        Ok(Value::Bool(v))
    }

    fn visit_i64<E>(self, v: i64) -> Result<Value, E> {
        Ok(Value::Number(v.into()))
    }

    fn visit_u64<E>(self, v: u64) -> Result<Value, E> {
        Ok(Value::Number(v.into()))
    }

    fn visit_f64<E>(self, v: f64) -> Result<Value, E> {
        Ok(Number::from_f64(v).map_or(Value::Null, Value::Number))
    }

    fn visit_str<E>(self, v: &str) -> Result<Value, E> {
        Ok(Value::String(v.to_owned()))
    }

    fn visit_string<E>(self, v: String) -> Result<Value, E> {
        Ok(Value::String(v))
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let mut items = Vec::new();
        while let Some(Strict(item)) = seq.next_element()? {
            items.push(item);
        }
        Ok(Value::Array(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut object = Map::new();
        while let Some(key) = map.next_key::<String>()? {
            if object.contains_key(&key) {
                return Err(A::Error::custom(format!("the key `{key}` appears twice")));
            }
            let Strict(value) = map.next_value()?;
            object.insert(key, value);
        }
        Ok(Value::Object(object))
    }
}

/// What a value is called in messages.
pub(crate) fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}

/// One step into a JSON value.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Step<'a> {
    Key(&'a str),
    Index(usize),
}

/// Byte offset of the value at `path` in `json`, which has been parsed before. Where the path leaves the
/// text, the last value found.
pub(crate) fn locate(json: &[u8], path: &[Step<'_>]) -> usize {
    let mut scan = Scan { json, at: 0 };
    scan.space();
    let mut found = scan.at;
    for step in path {
        let inside = match *step {
            Step::Key(key) => scan.enter_key(key),
            Step::Index(index) => scan.enter_index(index),
        };
        if inside.is_none() {
            break;
        }
        found = scan.at;
    }
    found
}

/// Walks valid JSON; on anything else it stops.
struct Scan<'a> {
    json: &'a [u8],
    at: usize,
}

impl Scan<'_> {
    fn peek(&self) -> Option<u8> {
        self.json.get(self.at).copied()
    }

    fn space(&mut self) {
        while self.peek().is_some_and(|b| b.is_ascii_whitespace()) {
            self.at += 1;
        }
    }

    fn take(&mut self, byte: u8) -> Option<()> {
        self.space();
        (self.peek()? == byte).then(|| self.at += 1)
    }

    fn enter_key(&mut self, key: &str) -> Option<()> {
        self.take(b'{')?;
        loop {
            self.space();
            let start = self.at;
            self.string()?;
            let name = serde_json::from_slice::<String>(&self.json[start..self.at]).ok()?;
            self.take(b':')?;
            self.space();
            if name == key {
                return Some(());
            }
            self.value()?;
            self.take(b',')?;
        }
    }

    fn enter_index(&mut self, index: usize) -> Option<()> {
        self.take(b'[')?;
        for _ in 0..index {
            self.value()?;
            self.take(b',')?;
        }
        self.space();
        Some(())
    }

    /// Skips a string.
    fn string(&mut self) -> Option<()> {
        self.take(b'"')?;
        loop {
            match self.peek()? {
                b'\\' => self.at += 2,
                b'"' => {
                    self.at += 1;
                    return Some(());
                }
                _ => self.at += 1,
            }
        }
    }

    /// Skips a value.
    fn value(&mut self) -> Option<()> {
        let mut depth = 0_usize;
        loop {
            self.space();
            match self.peek()? {
                b'"' => self.string()?,
                b'{' | b'[' => {
                    depth += 1;
                    self.at += 1;
                }
                b'}' | b']' => {
                    depth = depth.checked_sub(1)?;
                    self.at += 1;
                }
                b',' | b':' => self.at += 1,
                _ => {
                    while self.peek().is_some_and(|b| !b.is_ascii_whitespace() && !b",:]}".contains(&b)) {
                        self.at += 1;
                    }
                }
            }
            if depth == 0 {
                return Some(());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn duplicate_keys_are_refused_at_any_depth() {
        let error =
            serde_json::from_str::<Strict>(r#"{"a": [{"b": 1, "b": 2}]}"#).err().expect("b is there twice");
        assert_eq!(error.to_string(), "the key `b` appears twice at line 1 column 19");
    }

    #[test]
    fn fields_are_found_in_the_text() {
        let json = br#" {"x": {"y": "}"}, "a\"b": [1, [2], {"c" : true}] } "#;
        let at = |path: &[Step<'_>]| std::str::from_utf8(&json[locate(json, path)..]).expect("ASCII");
        assert!(at(&[]).starts_with('{'));
        assert!(at(&[Step::Key("a\"b"), Step::Index(2), Step::Key("c")]).starts_with("true"));
        assert!(at(&[Step::Key("a\"b"), Step::Index(1)]).starts_with("[2]"));
        assert!(at(&[Step::Key("x"), Step::Key("nowhere")]).starts_with("{\"y\""));
    }

    proptest! {
        #[test]
        fn locating_never_leaves_the_text(text in prop::collection::vec(any::<u8>(), 0..60), key in "[a-c]", index in 0usize..4) {
            prop_assert!(locate(&text, &[Step::Key(&key), Step::Index(index), Step::Key("b")]) <= text.len());
        }

        #[test]
        fn every_key_of_an_object_is_found(map in prop::collection::btree_map("\\PC{0,5}", "\\PC{0,5}", 1..6)) {
            let text = serde_json::to_string_pretty(&map).expect("a map of strings is JSON");
            for (key, value) in &map {
                let at = locate(text.as_bytes(), &[Step::Key(key)]);
                prop_assert!(text[at..].starts_with(&serde_json::to_string(value).expect("a string is JSON")));
            }
        }
    }
}
