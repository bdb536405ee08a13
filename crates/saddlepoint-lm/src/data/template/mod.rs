//! Chat templates: Jinja as transformers runs it.
//!
//! The environment is that of transformers' `render_jinja_template`: `trim_blocks`, `lstrip_blocks`, loop
//! controls, Python's string and dict methods, `raise_exception`, `strftime_now`, a `tojson` like
//! `json.dumps`, and `{% generation %}` blocks. Undefined values behave as in Jinja2. A render that costs more
//! than [`FUEL`] fails instead of running for ever.

mod date;
mod generation;
mod python;
mod tojson;

use std::ops::Range;
use std::path::Path;

use minijinja::syntax::SyntaxConfig;
use minijinja::{AutoEscape, Environment, ErrorKind, Value};
use serde_json::Map;

pub use date::Date;

use super::Message;
use crate::{Error, Result};

/// Bound on the work of one render, in minijinja's units (about one instruction or 64 bytes each).
const FUEL: u64 = 10_000_000;

/// A chat template, compiled.
#[derive(Debug)]
pub struct Template {
    environment: Environment<'static>,
    marks_generation: bool,
    specials: Vec<(String, Value)>,
}

/// A rendered conversation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rendered {
    /// The text.
    pub text: String,
    /// Bytes inside `{% generation %}` blocks, in order.
    pub generated: Vec<Range<usize>>,
}

/// Why a template did not render.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TemplateError {
    /// The template called `raise_exception`.
    #[error("the chat template refuses this conversation: {message} (template line {line})")]
    Raised {
        /// The template's own words.
        message: String,
        /// Line of the template, counted from 1.
        line: usize,
    },
    /// An expression failed.
    #[error("the chat template fails: {message} (template line {line})")]
    Failed {
        /// What went wrong.
        message: String,
        /// Line of the template, counted from 1.
        line: usize,
    },
    /// A conversation holds the characters that mark generation blocks.
    #[error(
        "the conversation holds U+FDD0 or U+FDD1, which are no characters and cannot be rendered; remove them"
    )]
    Reserved,
}

impl Template {
    /// Compiles the template `source`; `origin` is the file named in errors.
    ///
    /// `tokenizer_config` gives the special tokens that templates read (`bos_token`, `eos_token`, ...). `today`
    /// is what `strftime_now` formats: transformers reads the clock there, so the same run would train on other
    /// text tomorrow. Without a date the function is not defined; templates that ask whether it is then use the
    /// date they carry, and those that do not ask fail with a message that says what to set.
    pub fn new(
        origin: &Path,
        source: &str,
        tokenizer_config: &serde_json::Value,
        today: Option<Date>,
    ) -> Result<Self> {
        let fail = |problem: String| Error::Model { path: origin.to_owned(), problem };
        let mut environment = Environment::new();
        // Otherwise messages name what is undefined in debug builds only.
        environment.set_debug(true);
        let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
        environment.set_syntax(syntax.map_err(|e| fail(e.to_string()))?);
        environment.set_auto_escape_callback(|_| AutoEscape::None);
        environment.set_fuel(Some(FUEL));
        environment.set_unknown_method_callback(python::method);
        environment.add_test("iterable", python::is_iterable);
        environment.add_filter("tojson", tojson::filter);
        environment.add_filter(generation::FILTER, generation::mark);
        environment.add_function("raise_exception", |message: String| -> Result<Value, minijinja::Error> {
            Err(minijinja::Error::new(ErrorKind::InvalidOperation, message.clone())
                .with_source(Raised(message)))
        });
        if let Some(today) = today {
            environment.add_function("strftime_now", move |format: String| today.format(&format));
        }
        let rewritten = generation::rewrite(source);
        let marks_generation = rewritten.is_some();
        let text = rewritten.unwrap_or_else(|| source.to_owned());
        environment.add_template_owned(NAME, text).map_err(|e| {
            let line = e.line().unwrap_or(1);
            fail(format!("line {line} of the chat template: {}", reason(&e)))
        })?;
        Ok(Self { environment, marks_generation, specials: specials(tokenizer_config) })
    }

    /// Whether the template says by `{% generation %}` blocks what the assistant wrote.
    pub fn marks_generation(&self) -> bool {
        self.marks_generation
    }

    /// Renders `messages`; with `add_generation_prompt`, up to where the assistant's next turn begins.
    /// `context` holds `tools`, `documents` and whatever else the record gives the template.
    pub fn render(
        &self,
        messages: &[Message],
        context: &Map<String, serde_json::Value>,
        add_generation_prompt: bool,
    ) -> Result<Rendered, TemplateError> {
        if self.marks_generation
            && (messages.iter().any(|m| m.values().any(holds_marks)) || context.values().any(holds_marks))
        {
            return Err(TemplateError::Reserved);
        }
        let messages: Vec<Value> = messages.iter().map(|m| Value::from_pairs(with_reasoning(m))).collect();
        let mut variables: Vec<(String, Value)> =
            vec![("tools".to_owned(), Value::from(())), ("documents".to_owned(), Value::from(()))];
        variables.extend(self.specials.iter().cloned());
        variables.extend(context.iter().map(|(name, value)| (name.clone(), to_value(value))));
        variables.push(("messages".to_owned(), Value::from(messages)));
        variables.push(("add_generation_prompt".to_owned(), Value::from(add_generation_prompt)));
        let template = self.environment.get_template(NAME).expect("`new` added the template");
        let text = template.render(Value::from_pairs(variables)).map_err(|e| explain(&e))?;
        if !self.marks_generation {
            return Ok(Rendered { text, generated: Vec::new() });
        }
        generation::take_marks(&text).ok_or_else(|| TemplateError::Failed {
            message: "the text of a generation block was cut apart by the template".to_owned(),
            line: 1,
        })
    }
}

/// Name of the one template of the environment.
const NAME: &str = "chat_template";

/// Carries the words of `raise_exception` through minijinja's error.
#[derive(Debug)]
struct Raised(String);

impl std::fmt::Display for Raised {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Raised {}

fn explain(error: &minijinja::Error) -> TemplateError {
    let line = error.line().unwrap_or(1);
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(inner) = cause {
        if let Some(Raised(message)) = inner.downcast_ref() {
            return TemplateError::Raised { message: message.clone(), line };
        }
        cause = inner.source();
    }
    let mut message = reason(error);
    if error.kind() == ErrorKind::UnknownFunction && message.contains("strftime_now") {
        "it asks for today's date (strftime_now); set `data.today = \"YYYY-MM-DD\"`, so that the same run renders \
         the same text on any day"
            .clone_into(&mut message);
    }
    TemplateError::Failed { message, line }
}

/// minijinja's message without its own "in file:line".
fn reason(error: &minijinja::Error) -> String {
    match error.detail() {
        Some(detail) => format!("{}: {detail}", error.kind()),
        None => error.kind().to_string(),
    }
}

/// Every `*_token` of `tokenizer_config.json`: a string, or an object with `content`.
fn specials(config: &serde_json::Value) -> Vec<(String, Value)> {
    let Some(config) = config.as_object() else { return Vec::new() };
    let token = |value: &serde_json::Value| {
        value.as_str().or_else(|| value.get("content")?.as_str()).map(Value::from)
    };
    config
        .iter()
        .filter(|(name, _)| name.ends_with("_token"))
        .filter_map(|(name, value)| Some((name.clone(), token(value)?)))
        .collect()
}

/// The message's fields; reasoning is also given under the names that templates read, as transformers does.
fn with_reasoning(message: &Message) -> Vec<(String, Value)> {
    let mut fields: Vec<(String, Value)> =
        message.iter().map(|(name, value)| (name.clone(), to_value(value))).collect();
    let known = ["reasoning_content", "thinking", "reasoning"];
    if let Some(reasoning) = known.iter().find_map(|name| message.get(*name).filter(|v| !v.is_null())) {
        for name in ["reasoning_content", "thinking"] {
            if message.get(name).is_none_or(serde_json::Value::is_null) {
                fields.push((name.to_owned(), to_value(reasoning)));
            }
        }
    }
    fields
}

/// Whether a string anywhere in the value holds the characters that mark generation blocks.
fn holds_marks(json: &serde_json::Value) -> bool {
    use serde_json::Value as Json;
    match json {
        Json::String(s) => s.contains(generation::MARKS),
        Json::Array(items) => items.iter().any(holds_marks),
        Json::Object(fields) => fields.iter().any(|(k, v)| k.contains(generation::MARKS) || holds_marks(v)),
        Json::Null | Json::Bool(_) | Json::Number(_) => false,
    }
}

fn to_value(json: &serde_json::Value) -> Value {
    use serde_json::Value as Json;
    match json {
        Json::Null => Value::from(()),
        Json::Bool(b) => Value::from(*b),
        Json::Number(n) => match (n.as_i64(), n.as_u64()) {
            (Some(i), _) => Value::from(i),
            (None, Some(u)) => Value::from(u),
            (None, None) => Value::from(n.as_f64().unwrap_or(f64::NAN)),
        },
        Json::String(s) => Value::from(s.as_str()),
        Json::Array(items) => Value::from(items.iter().map(to_value).collect::<Vec<_>>()),
        Json::Object(fields) => Value::from_pairs(fields.iter().map(|(k, v)| (k.as_str(), to_value(v)))),
    }
}

#[cfg(test)]
mod tests;
