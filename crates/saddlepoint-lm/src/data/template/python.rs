//! Python's methods on strings, lists and dicts, as chat templates call them.

use minijinja::value::{ValueKind, from_args};
use minijinja::{Error, ErrorKind, State, Value};

/// Called for methods that minijinja does not know: those of `minijinja-contrib`, and what published templates
/// use beyond them.
pub(super) fn method(state: &mut State, value: &Value, name: &str, args: &[Value]) -> Result<Value, Error> {
    if let Some(text) = value.as_str() {
        match name {
            "removeprefix" | "removesuffix" => {
                let (affix,): (&str,) = from_args(args)?;
                let cut =
                    if name == "removeprefix" { text.strip_prefix(affix) } else { text.strip_suffix(affix) };
                return Ok(Value::from(cut.unwrap_or(text)));
            }
            "rsplit" => {
                let (separator, most): (&str, Option<usize>) = from_args(args)?;
                if separator.is_empty() {
                    return Err(Error::new(ErrorKind::InvalidOperation, "empty separator"));
                }
                let pieces = most.map_or(usize::MAX, |n| n.saturating_add(1));
                let mut parts: Vec<Value> = text.rsplitn(pieces, separator).map(Value::from).collect();
                parts.reverse();
                return Ok(Value::from(parts));
            }
            "partition" | "rpartition" => {
                let (separator,): (&str,) = from_args(args)?;
                let found = if name == "partition" {
                    text.split_once(separator)
                } else {
                    text.rsplit_once(separator)
                };
                let parts = match found {
                    Some((before, after)) => [before, separator, after],
                    None if name == "partition" => [text, "", ""],
                    None => ["", "", text],
                };
                return Ok(Value::from(parts.map(Value::from).to_vec()));
            }
            _ => {}
        }
    }
    minijinja_contrib::pycompat::unknown_method_callback(state, value, name, args)
}

/// The test `x is iterable`: none is not, undefined is.
pub(super) fn is_iterable(value: &Value) -> bool {
    matches!(
        value.kind(),
        ValueKind::String
            | ValueKind::Bytes
            | ValueKind::Seq
            | ValueKind::Map
            | ValueKind::Iterable
            | ValueKind::Undefined
    )
}
