//! From records to token ids ready for a method: rendered, tokenised, masked and cut, everything counted.
//!
//! Deterministic: records are prepared in parallel and kept in their order.

mod long;
mod preference;
mod prompts;
mod report;
mod sft;
mod truncate;
mod unpaired;

use rayon::prelude::*;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use long::{Answered, LongPair, long};
pub use preference::preference;
pub use prompts::prompts;
pub use report::{DropReason, Dropped, PrepareReport};
pub use sft::sft;
pub use truncate::Truncation;
pub use unpaired::unpaired;

use super::Record;
use crate::{Error, Result};

/// One sequence to learn.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Supervised {
    /// Token ids.
    pub ids: Vec<u32>,
    /// Whether each id is trained. Never the first, which nothing predicts; always at least one.
    pub supervised: Vec<bool>,
}

/// A prompt with a better and a worse continuation, none of them empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pair {
    /// What both begin with.
    pub prompt: Vec<u32>,
    /// The better continuation, its end token included.
    pub chosen: Vec<u32>,
    /// The worse one.
    pub rejected: Vec<u32>,
}

/// A prompt with a continuation that was judged, neither of them empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Labelled {
    /// What comes first.
    pub prompt: Vec<u32>,
    /// The continuation, its end token included.
    pub completion: Vec<u32>,
    /// Whether it is desirable.
    pub label: bool,
}

/// A prompt to continue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prompt {
    /// Token ids; never empty.
    pub ids: Vec<u32>,
    /// The text they came from, rendered.
    pub text: String,
}

/// Which tokens of a conversation are learned.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum TrainOn {
    /// Every assistant turn with its end token; of prompt and completion, the completion.
    #[default]
    AssistantTurns,
    /// The last assistant turn only.
    LastTurn,
    /// Every token but the first, prompts and user turns included.
    All,
}

/// How records become sequences.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct PrepareConfig {
    /// Longest sequence in tokens, prompt and completion together. Absent: no bound.
    pub max_length: Option<usize>,
    /// What happens to longer ones. Either way they are counted.
    pub truncation_mode: Truncation,
    /// Which tokens of a conversation are learned.
    pub train_on: TrainOn,
}

impl Default for PrepareConfig {
    fn default() -> Self {
        Self {
            max_length: Some(1024),
            truncation_mode: Truncation::KeepStart,
            train_on: TrainOn::AssistantTurns,
        }
    }
}

impl PrepareConfig {
    /// Longest sequence; refuses bounds under which nothing can be learned.
    fn bound(&self) -> Result<usize> {
        match self.max_length {
            None => Ok(usize::MAX),
            Some(length) if length >= 2 => Ok(length),
            Some(length) => Err(Error::Config {
                key: "data.max_length".to_owned(),
                problem: format!("must be at least 2, got {length} (default 1024)"),
            }),
        }
    }
}

/// What became of one record.
enum Outcome<T> {
    Kept(T, Notes),
    Dropped(DropReason),
}

/// What is counted about a record that was kept.
#[derive(Debug, Clone, Copy, Default)]
struct Notes {
    tokens: usize,
    /// Tokens of the longest sequence in it.
    longest: usize,
    trained: usize,
    cut: usize,
    prompt_changed: bool,
    ends_added: usize,
    identical: bool,
}

/// Prepares every record, in parallel, and reports in the records' order.
fn all<T: Send>(
    records: &[Record],
    one: impl Fn(&Record) -> Result<Outcome<T>> + Send + Sync,
) -> Result<(Vec<T>, PrepareReport)> {
    let outcomes: Vec<Result<Outcome<T>>> = records.par_iter().map(one).collect();
    let mut report = PrepareReport { read: records.len(), ..PrepareReport::default() };
    let mut items = Vec::with_capacity(records.len());
    for (index, outcome) in outcomes.into_iter().enumerate() {
        match outcome? {
            Outcome::Kept(item, notes) => {
                report.keep(index, notes);
                items.push(item);
            }
            Outcome::Dropped(reason) => {
                report.dropped.push(Dropped { reason, record: index, line: records[index].source.line });
            }
        }
    }
    report.check(records)?;
    Ok((items, report))
}

/// An error for a record that holds something else than the method learns from.
fn unfit(record: &Record, wanted: &str) -> Error {
    record.source.error(format!(
        "the records are {}, but {wanted} is needed; use another method, or say what the columns are with `data.columns`",
        record.body.name()
    ))
}

#[cfg(test)]
mod tests;
