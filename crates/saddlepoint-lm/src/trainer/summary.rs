//! What a finished run says.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::tether::Report;

/// The end of a run; also the content of `summary.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// Folder of the run; the trained model or adapter is in `model/` in it.
    pub run_dir: PathBuf,
    /// Optimizer steps.
    pub steps: u64,
    /// Seconds that this process took; an earlier, interrupted part of the run is not in it.
    pub seconds: f64,
    /// Last value of every metric.
    pub metrics: Map<String, Value>,
    /// Step of the weights that the run ends with: not the last one if an earlier one was better or the last
    /// did not hold the budget.
    pub model_step: u64,
    /// The divergence at the end, if there was a tether.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tether: Option<Report>,
    /// The method's metrics on the held-out examples before and after, if there are any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub evaluation: Option<Evaluation>,
    /// What was sampled before and after.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub samples: Option<SampleSummary>,
}

/// Metrics by name on the same held-out examples; of DPO with the configured beta.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Evaluation {
    /// Of the policy before its first step.
    pub before: Map<String, Value>,
    /// Of the weights that the run ends with.
    pub after: Map<String, Value>,
}

/// Samples before and after training on the same prompts; the text is in `samples.jsonl`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SampleSummary {
    /// Prompts.
    pub prompts: usize,
    /// Whether the prompts were kept out of training.
    pub held_out: bool,
    /// Share of right samples before, where the task has a rule that says what is right.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub accuracy_before: Option<f64>,
    /// The same after.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub accuracy_after: Option<f64>,
}

impl Summary {
    /// Whether the run did what was asked: false if a budget was set and did not hold.
    pub fn reached(&self) -> bool {
        self.tether.as_ref().is_none_or(|tether| tether.held != Some(false))
    }
}
