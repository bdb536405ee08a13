//! A schema: read once, with everything in it that is not understood refused, then applied.

use std::cell::Cell;
use std::collections::BTreeMap;

use regex::Regex;
use serde_json::{Map, Value};

/// A schema that was read.
#[derive(Debug, Clone)]
pub struct Schema {
    root: Value,
    patterns: BTreeMap<String, Regex>,
}

/// Schemas and values nested deeper than this are refused; a `$ref` to itself is.
const DEPTH: usize = 200;
/// Rules applied to one value: a schema that refers to itself in two branches would double its work with every level.
const MOST_STEPS: u32 = 1_000_000;

/// Keywords whose value is a schema, a list of schemas, a table of schemas, and anything else.
const ONE: [&str; 6] = ["items", "additionalProperties", "not", "if", "then", "else"];
const LIST: [&str; 4] = ["allOf", "anyOf", "oneOf", "prefixItems"];
const TABLE: [&str; 4] = ["properties", "patternProperties", "$defs", "definitions"];
const NUMBERS: [&str; 5] = ["minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"];
const COUNTS: [&str; 6] =
    ["minLength", "maxLength", "minItems", "maxItems", "minProperties", "maxProperties"];
const ANNOTATIONS: [&str; 11] = [
    "title",
    "description",
    "default",
    "examples",
    "$schema",
    "$id",
    "$comment",
    "deprecated",
    "readOnly",
    "writeOnly",
    "format",
];

impl Schema {
    /// Reads it.
    ///
    /// # Errors
    /// A keyword is not understood, or has a value that it cannot have.
    pub fn new(root: Value) -> Result<Self, String> {
        let mut schema = Self { patterns: BTreeMap::new(), root: Value::Null };
        schema.read(&root, "#", 0, &root)?;
        schema.root = root;
        Ok(schema)
    }

    /// Whether a value is allowed.
    ///
    /// # Errors
    /// The schema refers to itself without end.
    pub fn allows(&self, value: &Value) -> Result<bool, String> {
        let judge = Judge { root: &self.root, patterns: &self.patterns, left: Cell::new(MOST_STEPS) };
        judge.valid(&self.root, value, 0)
    }

    fn read(&mut self, schema: &Value, at: &str, depth: usize, root: &Value) -> Result<(), String> {
        if depth > DEPTH {
            return Err(format!("is nested deeper than {DEPTH}"));
        }
        let table = match schema {
            Value::Bool(_) => return Ok(()),
            Value::Object(table) => table,
            other => return Err(format!("has {other} at {at}, which must be a table, true or false")),
        };
        for (key, value) in table {
            let place = format!("{at}/{key}");
            let wrong = |wanted: &str| Err(format!("has {value} at {place}, which must be {wanted}"));
            match key.as_str() {
                key if ONE.contains(&key) => self.read(value, &place, depth + 1, root)?,
                key if LIST.contains(&key) => {
                    let Value::Array(list) = value else { return wrong("a list of schemas") };
                    for (i, each) in list.iter().enumerate() {
                        self.read(each, &format!("{place}/{i}"), depth + 1, root)?;
                    }
                }
                key if TABLE.contains(&key) => {
                    let Value::Object(table) = value else { return wrong("a table of schemas") };
                    for (name, each) in table {
                        if key == "patternProperties" {
                            self.pattern(name, &place)?;
                        }
                        self.read(each, &format!("{place}/{name}"), depth + 1, root)?;
                    }
                }
                "pattern" => match value.as_str() {
                    Some(pattern) => self.pattern(pattern, &place)?,
                    None => return wrong("text"),
                },
                "$ref" => {
                    let target = value.as_str().and_then(|path| path.strip_prefix('#'));
                    if target.and_then(|path| root.pointer(path)).is_none() {
                        return wrong("a place in this schema, such as #/$defs/name");
                    }
                }
                "type" => {
                    let names: Vec<&Value> =
                        value.as_array().map_or(vec![value], |list| list.iter().collect());
                    if !names.iter().all(|name| name.as_str().is_some_and(|name| TYPES.contains(&name))) {
                        return wrong(
                            "one of null, boolean, integer, number, string, array, object, or a list of them",
                        );
                    }
                }
                "required" => {
                    if !value.as_array().is_some_and(|names| names.iter().all(Value::is_string)) {
                        return wrong("a list of names");
                    }
                }
                "enum" if !value.is_array() => return wrong("a list"),
                "uniqueItems" if !value.is_boolean() => return wrong("true or false"),
                "multipleOf" if value.as_f64().is_none_or(|step| step <= 0.0) => return wrong("above 0"),
                key if NUMBERS.contains(&key) && !value.is_number() => return wrong("a number"),
                key if COUNTS.contains(&key) && value.as_u64().is_none() => return wrong("a count"),
                "enum" | "const" | "uniqueItems" => {}
                key if NUMBERS.contains(&key) || COUNTS.contains(&key) || ANNOTATIONS.contains(&key) => {}
                _ => return Err(format!("has the keyword `{key}` at {at}, which is not understood here")),
            }
        }
        Ok(())
    }

    fn pattern(&mut self, pattern: &str, at: &str) -> Result<(), String> {
        let compiled = Regex::new(pattern).map_err(|error| {
            let reason = super::super::pattern::last_line(&error.to_string()).to_owned();
            format!("has {pattern:?} at {at}, which is not a regular expression: {reason}")
        })?;
        self.patterns.insert(pattern.to_owned(), compiled);
        Ok(())
    }
}

/// One application of a schema.
struct Judge<'a> {
    root: &'a Value,
    patterns: &'a BTreeMap<String, Regex>,
    /// Schemas that may still be applied.
    left: Cell<u32>,
}

impl Judge<'_> {
    fn valid(&self, schema: &Value, value: &Value, depth: usize) -> Result<bool, String> {
        if depth > DEPTH {
            return Err(format!("leads in circles, or deeper than {DEPTH}"));
        }
        let Some(left) = self.left.get().checked_sub(1) else {
            return Err(format!("branches so much that {MOST_STEPS} rules do not decide"));
        };
        self.left.set(left);
        let table = match schema {
            Value::Bool(allows) => return Ok(*allows),
            Value::Object(table) => table,
            _ => return Err("is referred to where there is no schema".to_owned()),
        };
        let holds = |schema: &Value| self.valid(schema, value, depth + 1);
        for (key, rule) in table {
            let each = || rule.as_array().into_iter().flatten();
            let valid = match key.as_str() {
                "$ref" => {
                    let path = rule.as_str().and_then(|path| path.strip_prefix('#')).unwrap_or_default();
                    holds(self.root.pointer(path).unwrap_or(&Value::Null))?
                }
                "type" => rule.as_str().map_or_else(
                    || each().filter_map(Value::as_str).any(|name| is(value, name)),
                    |name| is(value, name),
                ),
                "enum" => each().any(|allowed| same(allowed, value)),
                "const" => same(rule, value),
                "allOf" => each().map(holds).collect::<Result<Vec<_>, _>>()?.into_iter().all(|valid| valid),
                "anyOf" => each().map(holds).collect::<Result<Vec<_>, _>>()?.into_iter().any(|valid| valid),
                "oneOf" => {
                    let valid = each().map(holds).collect::<Result<Vec<_>, _>>()?;
                    valid.into_iter().filter(|&valid| valid).count() == 1
                }
                "not" => !holds(rule)?,
                "if" => {
                    let branch = if holds(rule)? { table.get("then") } else { table.get("else") };
                    branch.map_or(Ok(true), holds)?
                }
                _ => match value {
                    Value::Number(number) => in_range(key, rule, number.as_f64().unwrap_or(f64::NAN)),
                    Value::String(text) => self.text(key, rule, text),
                    Value::Array(items) => self.items(key, rule, table, items, depth)?,
                    Value::Object(fields) => self.fields(key, rule, table, fields, depth)?,
                    Value::Null | Value::Bool(_) => true,
                },
            };
            if !valid {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn text(&self, key: &str, rule: &Value, text: &str) -> bool {
        match key {
            "pattern" => rule.as_str().and_then(|p| self.patterns.get(p)).is_none_or(|p| p.is_match(text)),
            "minLength" | "maxLength" => counted(key, rule, text.chars().count()),
            _ => true,
        }
    }

    fn items(
        &self,
        key: &str,
        rule: &Value,
        table: &Map<String, Value>,
        items: &[Value],
        depth: usize,
    ) -> Result<bool, String> {
        let first = || table.get("prefixItems").and_then(Value::as_array).map_or(0, Vec::len);
        Ok(match key {
            "minItems" | "maxItems" => counted(key, rule, items.len()),
            "uniqueItems" if rule == true => {
                (0..items.len()).all(|i| items[..i].iter().all(|other| !same(other, &items[i])))
            }
            "prefixItems" => self.all(rule.as_array().into_iter().flatten().zip(items), depth)?,
            "items" => self.all(items.iter().skip(first()).map(|item| (rule, item)), depth)?,
            _ => true,
        })
    }

    fn fields(
        &self,
        key: &str,
        rule: &Value,
        table: &Map<String, Value>,
        fields: &Map<String, Value>,
        depth: usize,
    ) -> Result<bool, String> {
        let rules = || rule.as_object().into_iter().flatten();
        let matches =
            |pattern: &str, name: &str| self.patterns.get(pattern).is_some_and(|p| p.is_match(name));
        Ok(match key {
            "minProperties" | "maxProperties" => counted(key, rule, fields.len()),
            "required" => {
                let mut names = rule.as_array().into_iter().flatten().filter_map(Value::as_str);
                names.all(|name| fields.contains_key(name))
            }
            "properties" => {
                self.all(rules().filter_map(|(name, rule)| Some((rule, fields.get(name)?))), depth)?
            }
            "patternProperties" => {
                let mut pairs = Vec::new();
                for (pattern, rule) in rules() {
                    let fitting = fields.iter().filter(|(name, _)| matches(pattern, name));
                    pairs.extend(fitting.map(|(_, value)| (rule, value)));
                }
                self.all(pairs.into_iter(), depth)?
            }
            "additionalProperties" => {
                let of = |key: &str| table.get(key).and_then(Value::as_object);
                let named = |name: &str| of("properties").is_some_and(|known| known.contains_key(name));
                let patterned = |name: &str| {
                    of("patternProperties").is_some_and(|known| known.keys().any(|p| matches(p, name)))
                };
                let others = fields.iter().filter(|(name, _)| !named(name) && !patterned(name));
                self.all(others.map(|(_, value)| (rule, value)), depth)?
            }
            _ => true,
        })
    }

    fn all<'a>(
        &self,
        pairs: impl Iterator<Item = (&'a Value, &'a Value)>,
        depth: usize,
    ) -> Result<bool, String> {
        for (schema, value) in pairs {
            if !self.valid(schema, value, depth + 1)? {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

const TYPES: [&str; 7] = ["null", "boolean", "integer", "number", "string", "array", "object"];

fn is(value: &Value, name: &str) -> bool {
    match value {
        Value::Null => name == "null",
        Value::Bool(_) => name == "boolean",
        // 1.0 is an integer, in the standard too.
        Value::Number(n) => {
            name == "number" || name == "integer" && n.as_f64().is_some_and(|n| n.fract() == 0.0)
        }
        Value::String(_) => name == "string",
        Value::Array(_) => name == "array",
        Value::Object(_) => name == "object",
    }
}

fn in_range(key: &str, rule: &Value, number: f64) -> bool {
    let Some(bound) = rule.as_f64() else { return true };
    match key {
        "minimum" => number >= bound,
        "maximum" => number <= bound,
        "exclusiveMinimum" => number > bound,
        "exclusiveMaximum" => number < bound,
        "multipleOf" => {
            let times = number / bound;
            (times - times.round()).abs() <= 1e-9 * times.abs().max(1.0)
        }
        _ => true,
    }
}

fn counted(key: &str, rule: &Value, count: usize) -> bool {
    let bound = rule.as_u64().unwrap_or_default();
    if key.starts_with("min") { count as u64 >= bound } else { count as u64 <= bound }
}

/// Equality of JSON values: numbers by value, objects in any order.
fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(x), Value::Number(y)) => x == y || x.as_f64() == y.as_f64(),
        (Value::Array(x), Value::Array(y)) => x.len() == y.len() && x.iter().zip(y).all(|(x, y)| same(x, y)),
        (Value::Object(x), Value::Object(y)) => {
            x.len() == y.len() && x.iter().all(|(name, x)| y.get(name).is_some_and(|y| same(x, y)))
        }
        _ => a == b,
    }
}
