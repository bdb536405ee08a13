//! The findings and their words.

use std::fmt;

use serde::Serialize;

use crate::data::prepare::DropReason;

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// Training would not do what was asked; do not start.
    Error,
    /// Probably not what was meant.
    Warning,
    /// Good to know.
    Info,
}

/// Something that looks wrong. `Display` says what, and what to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "finding", rename_all = "snake_case")]
#[non_exhaustive]
#[allow(missing_docs, reason = "the fields are the numbers and names of the text that `Display` writes")]
pub enum Finding {
    /// No token of any sample is trained.
    NothingTrained,
    /// No trained token is one at which generation stops.
    StopNeverTrained { tokens: Vec<String> },
    /// Sequences begin with BOS twice.
    DoubleBos { count: usize },
    /// The tokenizer makes ids that the model has no embedding for.
    BeyondVocabulary { count: usize, first: String, id: u32, vocab: usize },
    /// The template writes a marker that is no single token.
    SplitMarker { marker: String, pieces: Vec<String> },
    /// The configured stop id is no token.
    UnknownStopToken { id: u32 },
    /// The model names no stop token.
    NoStopToken,
    /// The template fails on the simplest conversation.
    TemplateFails { reason: String },
    /// The template ends a turn with a token at which generation does not stop.
    EndIsNoStop { end: String, stops: Vec<String> },
    /// The template writes BOS and the tokenizer adds it to documents.
    BosInTemplate { token: String },
    /// Text that the tokenizer does not know.
    UnknownText { token: String, count: usize, samples: usize },
    /// Padding and stop token are the same.
    PadIsStop { token: String },
    /// Records left out.
    Dropped { reason: DropReason, count: usize, first_line: usize },
    /// Records cut.
    Truncated { count: usize, tokens: usize },
    /// Prompts that read differently alone than before their completion.
    PromptChanged { count: usize },
    /// End tokens trained beyond the template's blocks.
    EndsAdded { count: usize },
    /// Pairs of two equal completions.
    Identical { count: usize },
}

impl Finding {
    /// How bad it is.
    pub fn severity(&self) -> Severity {
        use Finding as F;
        match self {
            F::NothingTrained
            | F::StopNeverTrained { .. }
            | F::DoubleBos { .. }
            | F::BeyondVocabulary { .. }
            | F::SplitMarker { .. }
            | F::UnknownStopToken { .. } => Severity::Error,
            F::NoStopToken
            | F::TemplateFails { .. }
            | F::EndIsNoStop { .. }
            | F::UnknownText { .. }
            | F::Dropped { .. }
            | F::Truncated { .. }
            | F::Identical { .. } => Severity::Warning,
            F::BosInTemplate { .. } | F::PadIsStop { .. } | F::PromptChanged { .. } | F::EndsAdded { .. } => {
                Severity::Info
            }
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use Finding as F;
        match self {
            F::NothingTrained => {
                f.write_str("no token is trained: check the roles of the messages and data.max_length")
            }
            F::StopNeverTrained { tokens } => write!(
                f,
                "no trained token is a stop token ({}): the model would not learn to end; check the chat template, \
                 its generation blocks, and data.max_length",
                tokens.join(", ")
            ),
            F::DoubleBos { count } => write!(
                f,
                "{count} sequences begin with BOS twice: the text holds BOS and the tokenizer adds another; remove it \
                 from the data"
            ),
            F::BeyondVocabulary { count, first, id, vocab } => write!(
                f,
                "{count} tokens have no embedding: the model has {vocab} ids, but {first} is {id}; use the tokenizer \
                 that came with the model"
            ),
            F::SplitMarker { marker, pieces } => write!(
                f,
                "the chat template writes {marker}, which the tokenizer does not know as one token but splits into {} \
                 ({}); template and tokenizer belong to different models",
                pieces.len(),
                pieces.join(" ")
            ),
            F::UnknownStopToken { id } => {
                write!(f, "the stop id {id} is no token of the tokenizer; correct eos_token_id")
            }
            F::NoStopToken => f.write_str(
                "the model names no stop token: generation ends at its length limit only; set eos_token_id",
            ),
            F::TemplateFails { reason } => {
                write!(f, "a conversation of one question and answer does not render: {reason}")
            }
            F::EndIsNoStop { end, stops } => write!(
                f,
                "the chat template ends an assistant turn with {end}, but generation stops at {}; add it to eos_token_id",
                if stops.is_empty() { "nothing".to_owned() } else { stops.join(", ") }
            ),
            F::BosInTemplate { token } => write!(
                f,
                "the chat template writes {token} and the tokenizer adds it to documents; rendered text is tokenised \
                 without adding it, and other programs must do the same"
            ),
            F::UnknownText { token, count, samples } => write!(
                f,
                "{count} tokens of {samples} samples are {token}: the tokenizer does not know what the text says there, and \
                 the model reads the same for all of it; use a tokenizer that covers the data"
            ),
            F::PadIsStop { token } => write!(
                f,
                "padding and stop token are both {token}; harmless here, where nothing is padded or masked by id, but \
                 not in trainers that mask padding"
            ),
            F::Dropped { reason, count, first_line } => {
                write!(f, "{count} records left out: {} (first: line {first_line})", reason.text())
            }
            F::Truncated { count, tokens } => {
                write!(
                    f,
                    "{count} records cut to data.max_length, {tokens} tokens lost; raise it if memory allows"
                )
            }
            F::PromptChanged { count } => write!(
                f,
                "{count} prompts are tokenised differently alone than before their completion; training starts where \
                 they differ"
            ),
            F::EndsAdded { count } => write!(
                f,
                "{count} end-of-turn tokens lie behind the template's generation blocks; they are trained nevertheless"
            ),
            F::Identical { count } => {
                write!(
                    f,
                    "{count} pairs have the same chosen and rejected completion; nothing is learned from them"
                )
            }
        }
    }
}
