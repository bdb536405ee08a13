//! A record after reading: one of TRL's schemas, whatever the file's own layout.

use serde_json::{Map, Value};

use super::Source;

/// One turn: `role`, `content` (a string, or null beside `tool_calls`) and whatever else the template reads.
pub type Message = Map<String, Value>;

/// Columns that go to the chat template beside the messages.
pub(crate) const CONTEXT_COLUMNS: [&str; 3] = ["tools", "documents", "chat_template_kwargs"];

/// Text as such, or a conversation that the chat template turns into text.
#[derive(Debug, Clone, PartialEq)]
pub enum Text {
    /// A string.
    Plain(String),
    /// Messages.
    Chat(Vec<Message>),
}

impl Text {
    /// Whether there is nothing to learn in it: an empty string, or messages without content and tool calls.
    pub fn is_empty(&self) -> bool {
        match self {
            Text::Plain(text) => text.is_empty(),
            Text::Chat(messages) => messages.iter().all(says_nothing),
        }
    }
}

/// Whether a turn has neither content nor tool calls.
pub(crate) fn says_nothing(message: &Message) -> bool {
    let blank = |v: &Value| matches!(v, Value::Null) || v.as_str().is_some_and(str::is_empty);
    message.get("content").is_none_or(blank) && !message.contains_key("tool_calls")
}

/// Role of a turn; reading made sure that there is one.
pub(crate) fn role(message: &Message) -> &str {
    message.get("role").and_then(Value::as_str).unwrap_or_default()
}

/// What a record teaches.
#[derive(Debug, Clone, PartialEq)]
pub enum Body {
    /// Text or a whole conversation.
    Text(Text),
    /// A prompt alone.
    Prompt(Text),
    /// A prompt and how to continue it.
    Completion {
        /// What comes first.
        prompt: Text,
        /// What is learned.
        completion: Text,
    },
    /// A prompt and two continuations.
    Preference {
        /// What comes first.
        prompt: Text,
        /// The better continuation.
        chosen: Text,
        /// The worse one.
        rejected: Text,
    },
    /// A document and questions about it, each with two answers.
    Long {
        /// The long context.
        document: String,
        /// The questions, in their order; at least one.
        turns: Vec<Turn>,
    },
    /// A prompt, a continuation and whether it is a good one.
    Unpaired {
        /// What comes first.
        prompt: Text,
        /// What is judged.
        completion: Text,
        /// Whether it is good.
        label: bool,
    },
}

impl Body {
    /// Name for messages.
    pub fn name(&self) -> &'static str {
        match self {
            Body::Text(Text::Plain(_)) => "text",
            Body::Text(Text::Chat(_)) => "messages",
            Body::Prompt(_) => "prompts",
            Body::Completion { .. } => "prompt and completion",
            Body::Preference { .. } => "preference pairs",
            Body::Long { .. } => "preference pairs about long documents",
            Body::Unpaired { .. } => "labelled completions",
        }
    }

    /// Whether it needs a chat template.
    pub fn conversational(&self) -> bool {
        let first = match self {
            Body::Text(text) | Body::Prompt(text) => text,
            Body::Completion { completion, .. } | Body::Unpaired { completion, .. } => completion,
            Body::Preference { chosen, .. } => chosen,
            Body::Long { turns, .. } => &turns[0].chosen,
        };
        matches!(first, Text::Chat(_))
    }
}

/// A question about a document.
#[derive(Debug, Clone, PartialEq)]
pub struct Turn {
    /// The part of the document that answers it; not empty.
    pub chunk: String,
    /// The question. The document, or in its place the chunk, comes right before it.
    pub prompt: Text,
    /// The better answer.
    pub chosen: Text,
    /// The worse one.
    pub rejected: Text,
}

/// One record of a data file.
#[derive(Debug, Clone, PartialEq)]
pub struct Record {
    /// Where it stands.
    pub source: Source,
    /// What it teaches.
    pub body: Body,
    /// Variables for the chat template: `tools`, `documents`, and those of `chat_template_kwargs`.
    pub context: Map<String, Value>,
    /// The other columns, for rewards.
    pub extra: Map<String, Value>,
}
