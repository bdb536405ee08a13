//! The list of all keys of a configuration, for documentation and help.

use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Value;

use super::layers::join;
use super::schema::Node;

/// One key of a configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key {
    /// Dotted path. `method[dpo].beta` is a key of `[method]` when its `name` is `dpo`, `files[].path` one of
    /// each table in an array, `weights.NAME` any key of a free table.
    pub path: String,
    /// What it holds: `number`, `integer`, `string`, `boolean`, `"a" | "b"`, `array of string`, `table`.
    pub kind: String,
    /// Its default as TOML, or `unset`, or `required`.
    pub default: String,
    /// First paragraph of its doc comment.
    pub doc: String,
}

/// The keys of `T`, in the order of their declaration: one for each value, and one for each table that may be
/// left out.
pub fn keys<T: Default + Serialize + JsonSchema>() -> Vec<Key> {
    let schema = schemars::schema_for!(T);
    let defaults = serde_json::to_value(T::default()).expect("configuration types consist of TOML values");
    list(Node::root(schema.as_value()), Some(&defaults))
}

pub(super) fn list(root: Node<'_>, defaults: Option<&Value>) -> Vec<Key> {
    let mut keys = Vec::new();
    tables(root, "", defaults, &mut keys);
    keys
}

/// Lists the keys below a table, an array of tables or a table that can be of several kinds.
fn tables<'a>(node: Node<'a>, path: &str, default: Option<&Value>, keys: &mut Vec<Key>) {
    if let Some(tag) = node.tag() {
        let chosen = default.and_then(|default| default.get(tag));
        let fixed = |node: &Node<'a>| node.field(tag).and_then(Node::fixed).unwrap_or_default();
        let branches = node.alternatives();
        keys.push(Key {
            path: join(path, tag),
            kind: branches
                .iter()
                .map(|branch| format!("\"{}\"", fixed(branch)))
                .collect::<Vec<_>>()
                .join(" | "),
            default: chosen.map_or_else(|| "required".into(), toml_text),
            doc: node.field(tag).map(Node::doc).filter(|doc| !doc.is_empty()).unwrap_or_else(|| node.doc()),
        });
        fields(node.own_fields().into_iter(), &node, path, default, keys);
        for branch in branches {
            let name = fixed(&branch);
            let default = default.filter(|_| chosen.and_then(Value::as_str) == Some(name));
            let others = branch.fields().into_iter().filter(|(key, _)| *key != tag);
            fields(others, &branch, &format!("{path}[{name}]"), default, keys);
        }
    } else {
        fields(node.fields().into_iter(), &node, path, default, keys);
    }
    if let Some(item) = node.item(0) {
        tables(item, &format!("{path}[]"), None, keys);
    }
    if let Some(value) = node.values() {
        tables(value, &join(path, "NAME"), None, keys);
    }
}

fn fields<'a>(
    fields: impl Iterator<Item = (&'a str, Node<'a>)>,
    table: &Node<'_>,
    path: &str,
    default: Option<&Value>,
    keys: &mut Vec<Key>,
) {
    let required = table.required();
    for (name, node) in fields {
        let path = join(path, name);
        let given = default.and_then(|default| default.get(name)).filter(|value| !value.is_null());
        let default = given.or_else(|| node.default());
        let is_table = default.is_none_or(Value::is_object) && !node.fields().is_empty();
        let mixed = node.tag().is_none() && !node.alternatives().is_empty();
        if !is_table || mixed || node.optional() {
            let left_out = is_table && node.optional() && given.is_none();
            let default = match default.filter(|_| !left_out) {
                Some(value) => toml_text(value),
                None if required.contains(&name) => "required".into(),
                None => "unset".into(),
            };
            keys.push(Key { path: path.clone(), kind: kind(node), default, doc: node.doc() });
        }
        tables(node, &path, default, keys);
    }
}

fn kind(node: Node<'_>) -> String {
    if node.tag().is_some() {
        return "table".into();
    }
    let alternatives = node.alternatives();
    if !alternatives.is_empty() {
        return alternatives.into_iter().map(kind).collect::<Vec<_>>().join(" | ");
    }
    let choices = node.choices();
    if !choices.is_empty() {
        return choices.into_iter().map(|choice| format!("\"{choice}\"")).collect::<Vec<_>>().join(" | ");
    }
    match node.types()[..] {
        ["array"] => node.item(0).map_or_else(|| "array".into(), |item| format!("array of {}", kind(item))),
        ["object"] => {
            node.values().map_or_else(|| "table".into(), |value| format!("table of {}", kind(value)))
        }
        [] => "any value".into(),
        ref types => types.join(" | "),
    }
}

fn toml_text(value: &Value) -> String {
    toml::Value::try_from(value).map_or_else(|_| "unset".into(), |value| value.to_string())
}
