//! A configuration type as a TOML file that explains itself: every key with its meaning and default.

use std::fmt::Write as _;

use saddlepoint_core::config::Key;

/// Columns of the comments.
const WIDTH: usize = 100;

/// The file for `keys`, where the table `chosen.0`, which may be of several kinds, is of the kind `chosen.1`.
///
/// What has no value, and tables that are left out by default, are comments; so the text reads back as the
/// configuration that it shows.
pub(crate) fn toml(keys: &[Key], chosen: (&str, &str)) -> String {
    let mut tables = vec![Table::default()];
    for key in keys {
        let Some(path) = resolve(&key.path, keys, chosen) else { continue };
        if key.kind == "table" {
            tables.push(Table { name: path, about: &key.doc, lines: String::new(), absent: true });
            continue;
        }
        let (table, name) = path.rsplit_once('.').unwrap_or(("", &path));
        let absent = tables.iter().any(|t| t.absent && is_within(table, &t.name));
        let index = tables.iter().position(|t| t.name == table).unwrap_or_else(|| {
            tables.push(Table { name: table.to_owned(), absent, ..Table::default() });
            tables.len() - 1
        });
        let value = match kind_of(table, keys, chosen).filter(|_| is_tag(key, keys)) {
            Some(kind) => Some(format!("\"{kind}\"")),
            None => Some(key.default.clone()).filter(|text| !matches!(text.as_str(), "unset" | "required")),
        };
        let lines = &mut tables[index].lines;
        let choices =
            if key.kind.starts_with('"') { format!(" One of {}.", key.kind) } else { String::new() };
        comment(lines, &(key.doc.clone() + &choices));
        let _ = match value {
            Some(value) if !absent => writeln!(lines, "{name} = {value}"),
            Some(value) => writeln!(lines, "# {name} = {value}"),
            None => writeln!(lines, "# {name} = {}", placeholder(key)),
        };
    }
    tables.iter().map(Table::text).collect()
}

#[derive(Default)]
struct Table<'a> {
    name: String,
    about: &'a str,
    lines: String,
    absent: bool,
}

impl Table<'_> {
    fn text(&self) -> String {
        if self.name.is_empty() {
            return self.lines.clone();
        }
        let mut text = "\n".to_owned();
        comment(&mut text, self.about);
        let _ = writeln!(text, "{}[{}]", if self.absent { "# " } else { "" }, self.name);
        text + &self.lines
    }
}

fn is_within(table: &str, outer: &str) -> bool {
    table.strip_prefix(outer).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

/// What stands for a value that there is not.
fn placeholder(key: &Key) -> String {
    let kind = if key.kind.starts_with('"') { "one of these" } else { &key.kind };
    if key.default == "required" { format!("<{kind}>  (required)") } else { format!("<{kind}>") }
}

/// The path without its choices, `method[dpo].beta` as `method.beta`; none where another kind is chosen.
fn resolve(path: &str, keys: &[Key], chosen: (&str, &str)) -> Option<String> {
    let Some((table, rest)) = path.split_once('[') else { return Some(path.to_owned()) };
    let (kind, rest) = rest.split_once(']')?;
    // `files[].path`: an array of tables, shown as a comment of its own key.
    if kind.is_empty() {
        return None;
    }
    let matches = kind_of(table, keys, chosen).is_some_and(|known| known == kind);
    if matches { resolve(&format!("{table}{rest}"), keys, chosen) } else { None }
}

/// The kind of a table that may be of several.
fn kind_of(table: &str, keys: &[Key], chosen: (&str, &str)) -> Option<String> {
    if table == chosen.0 {
        return Some(chosen.1.to_owned());
    }
    let tag = keys.iter().find(|key| {
        is_tag(key, keys) && key.path.rsplit_once('.').is_some_and(|(parent, _)| parent == table)
    })?;
    Some(tag.default.trim_matches('"').to_owned())
}

/// Whether the key says of which kind its table is: some key of the table belongs to one of its choices only.
fn is_tag(key: &Key, keys: &[Key]) -> bool {
    let Some((table, _)) = key.path.rsplit_once('.') else { return false };
    let of_a_kind = |other: &Key| {
        let rest = other.path.strip_prefix(table).and_then(|rest| rest.strip_prefix('['));
        let kind = rest.and_then(|rest| rest.split_once(']')).map(|(kind, _)| kind);
        kind.is_some_and(|kind| key.kind.split(" | ").any(|choice| choice.trim_matches('"') == kind))
    };
    key.kind.starts_with('"') && keys.iter().any(of_a_kind)
}

/// Appends the text as comment lines.
fn comment(lines: &mut String, text: &str) {
    let mut line = String::new();
    for word in text.split_whitespace() {
        if !line.is_empty() && line.len() + word.len() + 3 > WIDTH {
            let _ = writeln!(lines, "# {line}");
            line.clear();
        }
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(word);
    }
    if !line.is_empty() {
        let _ = writeln!(lines, "# {line}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(path: &str, kind: &str, default: &str, doc: &str) -> Key {
        Key { path: path.into(), kind: kind.into(), default: default.into(), doc: doc.into() }
    }

    #[test]
    fn what_has_no_value_is_a_comment_and_other_kinds_are_left_out() {
        let keys = [
            key("seed", "integer", "0", "The seed."),
            key("run.dir", "string", "required", "Where to write."),
            key("run.limit", "number", "unset", ""),
            key("tether", "table", "unset", "How far it may go."),
            key("tether.dual", "\"pi\" | \"hinge\"", "\"pi\"", "The rule."),
            key("tether.reference", "\"initial\" | \"soup\"", "\"initial\"", "From what."),
            key("tether.every", "integer", "10", "Steps between measurements."),
            key("tether[pi].gain", "number", "1.0", "Its gain."),
            key("tether[hinge].rho", "number", "2.0", ""),
            key("method.name", "\"sft\" | \"dpo\"", "\"sft\"", "Which one."),
            key("method[sft].packing", "boolean", "true", ""),
            key("method[dpo].beta", "number", "0.1", "Strength."),
            key("files[].path", "string", "required", ""),
        ];
        let text = toml(&keys, ("method", "dpo"));
        let expected = "\
# The seed.
seed = 0

[run]
# Where to write.
# dir = <string>  (required)
# limit = <number>

# How far it may go.
# [tether]
# The rule. One of \"pi\" | \"hinge\".
# dual = \"pi\"
# From what. One of \"initial\" | \"soup\".
# reference = \"initial\"
# Steps between measurements.
# every = 10
# Its gain.
# gain = 1.0

[method]
# Which one. One of \"sft\" | \"dpo\".
name = \"dpo\"
# Strength.
beta = 0.1
";
        assert_eq!(text, expected);
    }

    #[test]
    fn long_comments_are_wrapped() {
        let mut lines = String::new();
        comment(&mut lines, &"word ".repeat(40));
        assert!(lines.lines().count() > 1 && lines.lines().all(|line| line.len() <= WIDTH), "{lines}");
        assert_eq!(lines.matches("word").count(), 40);
    }
}
