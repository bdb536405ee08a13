//! Entry points of the fuzz targets: whatever the bytes, an answer or an error.

use std::path::Path;

use serde_json::{Map, Value, json};

use super::{Message, ReadConfig, Template, read_json};
use crate::{Error, Result};

/// Reads the bytes as a data file (JSONL or a JSON array).
pub fn jsonl(bytes: &[u8]) -> Result<()> {
    read_json(Path::new("fuzz.jsonl"), bytes, &ReadConfig::default()).map(drop)
}

/// Renders a conversation with a template: the first line is the conversation, a JSON list of messages, the
/// rest the template. Where the first line is something else, all is template and the conversation a short one.
pub fn template(bytes: &[u8]) -> Result<()> {
    let path = Path::new("fuzz.jinja");
    let text = std::str::from_utf8(bytes)
        .map_err(|e| Error::Model { path: path.to_owned(), problem: format!("not UTF-8: {e}") })?;
    let (first, rest) = text.split_once('\n').unwrap_or((text, ""));
    let (messages, source) = match serde_json::from_str::<Vec<Map<String, Value>>>(first) {
        Ok(messages) => (messages, rest),
        Err(_) => (short_conversation(), text),
    };
    let template = Template::new(path, source, &json!({ "bos_token": "<s>", "eos_token": "</s>" }), None)?;
    for prompt in [false, true] {
        let rendered = template
            .render(&messages, &Map::new(), prompt)
            .map_err(|e| Error::Model { path: path.to_owned(), problem: e.to_string() })?;
        for span in rendered.generated {
            assert!(rendered.text.get(span).is_some(), "generated spans are ranges of the text");
        }
    }
    Ok(())
}

fn short_conversation() -> Vec<Message> {
    [("user", "Hi"), ("assistant", "Hello.")]
        .into_iter()
        .map(|(role, content)| {
            let field = |name: &str, value: &str| (name.to_owned(), Value::from(value));
            Map::from_iter([field("role", role), field("content", content)])
        })
        .collect()
}
