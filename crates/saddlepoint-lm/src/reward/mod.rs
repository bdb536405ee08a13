//! Rewards: what a completion is worth, by a rule, a program or a service. One file each.
//!
//! A [`Reward`] judges a batch of [`Case`]s; [`Rewards`] are those of a recipe, with weights. `None` says that a reward
//! does not apply to a case, which is something else than 0: it is left out of the case's sum.
//!
//! # Isolation
//! No reward can take a run with it, and none fails silently. Each batch call runs on a thread of its own and has a
//! deadline. A reward that panics, does not come back, returns an error, another number of values than there are cases,
//! or a value that is not finite has *failed*. By [`OnError`] that ends the run, or is counted: then the case has no sum
//! at all ([`Part::Failed`]), because a sum without the failed part would count it as 0.
//!
//! A thread cannot be killed. One that is late is left alone, and its reward fails at once until it has come back; so
//! threads do not pile up. What can hang by its nature (generated code, other programs, services) is bounded by what can
//! be ended: processes are killed, connections time out.
//!
//! To add one: its file, and one line in the list in `config.rs`.

pub mod accuracy;
pub mod aggregate;
pub mod answer;
pub mod best_of_n;
pub mod code;
mod config;
pub mod exact;
mod fence;
mod guard;
pub mod http;
pub mod length;
pub mod model;
pub mod overlong;
pub mod pattern;
pub mod program;
pub mod repetition;
pub mod schema;
mod score;
pub mod task;
pub mod think;
mod wire;

use std::borrow::Cow;
use std::fmt::Debug;
use std::sync::Arc;

use serde_json::{Map, Value};

pub use config::{FunctionConfig, KindConfig, OnError, RewardConfig};
pub use score::{Failure, Part, Rewards, Scores};

/// One completion to be judged: everything that a reward may look at.
#[derive(Debug, Clone, PartialEq)]
pub struct Case {
    /// The prompt as the model saw it, as text.
    pub prompt: String,
    /// What followed, without the prompt and without end tokens.
    pub completion: String,
    /// Its token ids; an end token that the model gave counts.
    pub completion_ids: Vec<u32>,
    /// Whether the model ended it; not so where it was cut at the length limit.
    pub finished: bool,
    /// The record's other columns ([`Record::extra`](crate::data::Record::extra)).
    pub columns: Arc<Map<String, Value>>,
}

impl Case {
    /// A column as text: a string as it is, a number as it is written. `None` where the record has no such column.
    ///
    /// # Errors
    /// The column holds something else.
    pub fn text(&self, column: &str) -> Result<Option<Cow<'_, str>>, String> {
        match self.columns.get(column) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.into())),
            Some(Value::Number(number)) => Ok(Some(number.to_string().into())),
            Some(other) => {
                let place = self.excerpt();
                Err(format!("column `{column}` must be text or a number, got {other} ({place})"))
            }
        }
    }

    /// The beginning of the prompt, for messages.
    fn excerpt(&self) -> String {
        let start: String = self.prompt.chars().take(40).collect();
        format!("prompt {start:?}")
    }
}

/// One value a case, in their order; `None` where the reward does not apply. Or why the batch cannot be judged.
pub type Judged = Result<Vec<Option<f64>>, Box<dyn std::error::Error + Send + Sync>>;

/// A judge of completions.
pub trait Reward: Debug + Send + Sync {
    /// Columns of the data that it reads; a case that lacks one gets `None`.
    fn columns(&self) -> Vec<&str> {
        Vec::new()
    }

    /// Seconds that this many cases may take within limits of its own, such as those of the processes that it starts.
    /// They come on top of the deadline of a batch.
    fn allowance(&self, _cases: usize) -> f64 {
        0.0
    }

    /// Bytes that it holds in this process from its first batch on, beside what it holds already, where batches have so many cases, of at
    /// most `longest` tokens with their prompts.
    fn bytes(&self, _cases: usize, _longest: usize) -> u64 {
        0
    }

    /// Judges a batch.
    ///
    /// # Errors
    /// The batch cannot be judged.
    fn score(&self, cases: &[Case]) -> Judged;
}

#[cfg(test)]
mod tests;
