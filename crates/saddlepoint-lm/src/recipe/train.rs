//! `[optimizer]` and `[train]`: how parameters move, for how long, and what is written.

use std::path::PathBuf;

use saddlepoint_opt::optimizer;
use saddlepoint_opt::schedule::{Kind, Schedule, Warmup};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::refused;
use crate::{Error, Result};

/// Largest batch, accumulation and sample: products of two stay within 64 bits.
const MOST: usize = 1 << 24;
/// Threads beyond this are a slip, and starting them would take minutes.
const MOST_THREADS: usize = 4096;

/// How parameters are updated: a rule, chosen by `name`, and what stands beside every rule.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct OptimizerConfig {
    /// The rule and its settings.
    #[serde(flatten)]
    pub rule: optimizer::OptimizerConfig,
    /// Largest learning rate. Without it the method's default: sft 2e-5, implicit-reward 5e-6, disco 2e-6, reward 1e-4, ppo 3e-6, the
    /// other methods on preferences and on rewards 1e-6.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub learning_rate: Option<f64>,
    /// Largest norm of the gradient of a step; above it the gradient is scaled down. 0: no limit.
    pub max_grad_norm: f64,
}

impl Default for OptimizerConfig {
    fn default() -> Self {
        Self { rule: optimizer::OptimizerConfig::default(), learning_rate: None, max_grad_norm: 1.0 }
    }
}

impl OptimizerConfig {
    pub(super) fn check(&self) -> Result<()> {
        self.rule.check().map_err(|e| in_table("optimizer", e))?;
        if let Some(rate) = self.learning_rate.filter(|rate| !(*rate >= 0.0 && rate.is_finite())) {
            return Err(refused("optimizer.learning_rate", format!("must be >= 0, got {rate}")));
        }
        if !(self.max_grad_norm >= 0.0 && self.max_grad_norm.is_finite()) {
            let problem = format!("must be >= 0, got {} (default 1)", self.max_grad_norm);
            return Err(refused("optimizer.max_grad_norm", problem));
        }
        Ok(())
    }
}

/// How long, in what portions, and what is written where.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct TrainConfig {
    /// Folder of the run; must be new or empty unless the run is resumed.
    pub output_dir: PathBuf,
    /// Records in one forward and backward pass; of methods on rewards, completions.
    pub per_device_train_batch_size: usize,
    /// Records in one pass of an evaluation. Without it, as in training.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub per_device_eval_batch_size: Option<usize>,
    /// Passes whose gradients make one optimizer step. Only memory depends on how a step is divided.
    pub gradient_accumulation_steps: usize,
    /// Passes over the data; a fraction ends inside one.
    pub num_train_epochs: f64,
    /// Optimizer steps; overrides `num_train_epochs`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_steps: Option<u64>,
    /// How the learning rate changes after the warm-up.
    pub lr_scheduler_type: Kind,
    /// Steps over which the learning rate rises from 0.
    pub warmup_steps: u64,
    /// The same as a share of all steps, in [0, 1], if `warmup_steps` is 0.
    pub warmup_ratio: f64,
    /// Where a cosine ends, as a share of the learning rate, in [0, 1].
    pub min_lr_rate: f64,
    /// Steps between two lines of metrics, which are means over these steps. 0: only at the end.
    pub logging_steps: u64,
    /// Steps between two evaluations. 0: only at the end, if there is something to evaluate on.
    pub eval_steps: u64,
    /// Steps between two checkpoints. 0: only at the end.
    pub save_steps: u64,
    /// Checkpoints kept; the oldest are removed, never the best. Without it all are kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub save_total_limit: Option<usize>,
    /// From which every random number of the run is derived.
    pub seed: u64,
    /// Compute the reference's log-probabilities once for all examples, before training, instead of in every step. The
    /// result is the same to the bit. Without a tether and an adapter it also saves the memory of the reference.
    pub precompute_ref_log_probs: bool,
    /// Folder in which runs share them: they are found again by the digest of weights and examples. Without it the
    /// run's own folder.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ref_log_probs_dir: Option<PathBuf>,
    /// Compute activations again in the backward pass instead of keeping them: less memory, more time.
    pub gradient_checkpointing: bool,
    /// Threads; results do not depend on it. Without it, one a core.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub threads: Option<usize>,
    /// End with the checkpoint whose evaluation was best; a checkpoint is written whenever one is.
    pub load_best_model_at_end: bool,
    /// What is best: a metric of the evaluation, without `eval_`. Methods on rewards, whose evaluation has no `loss`, take
    /// `reward` in its place.
    pub metric_for_best_model: String,
    /// Whether more of it is better. Without it: not for names that end in `loss`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub greater_is_better: Option<bool>,
    /// Held-out prompts (training prompts if nothing is held out) that are continued before and after training, for
    /// `samples.jsonl`. A tether samples for `tether.final_prompts` in any case. 0: none.
    pub sample_prompts: usize,
    /// Longest of these samples in tokens; with a tether, `tether.max_completion_length`.
    pub max_completion_length: usize,
}

impl Default for TrainConfig {
    fn default() -> Self {
        Self {
            output_dir: PathBuf::from("output"),
            per_device_train_batch_size: 8,
            per_device_eval_batch_size: None,
            gradient_accumulation_steps: 1,
            num_train_epochs: 3.0,
            max_steps: None,
            lr_scheduler_type: Kind::Linear,
            warmup_steps: 0,
            warmup_ratio: 0.0,
            min_lr_rate: 0.0,
            logging_steps: 10,
            eval_steps: 0,
            save_steps: 500,
            save_total_limit: None,
            seed: 42,
            precompute_ref_log_probs: false,
            ref_log_probs_dir: None,
            gradient_checkpointing: false,
            threads: None,
            load_best_model_at_end: false,
            metric_for_best_model: "loss".to_owned(),
            greater_is_better: None,
            sample_prompts: 16,
            max_completion_length: 128,
        }
    }
}

impl TrainConfig {
    /// Records of one optimizer step.
    pub fn step_size(&self) -> usize {
        self.per_device_train_batch_size * self.gradient_accumulation_steps
    }

    /// Optimizer steps of one pass over `records`; the last may be smaller than the others.
    pub fn steps_per_epoch(&self, records: usize) -> u64 {
        records.div_ceil(self.step_size()) as u64
    }

    /// Optimizer steps of the run.
    pub fn total_steps(&self, records: usize) -> u64 {
        let epochs = self.num_train_epochs * self.steps_per_epoch(records) as f64;
        self.max_steps.unwrap_or(epochs.ceil() as u64)
    }

    /// The learning-rate schedule over `steps`.
    ///
    /// # Errors
    /// A ratio is outside its range, or a setting does not fit the kind of schedule.
    pub fn schedule(&self, steps: u64) -> Result<Schedule> {
        let warmup = match self.warmup_steps {
            0 => Warmup::Ratio(self.warmup_ratio),
            steps => Warmup::Steps(steps),
        };
        Schedule::new(self.lr_scheduler_type, steps, warmup, self.min_lr_rate)
            .map_err(|e| in_table("train", e))
    }

    /// The metric of the evaluation, without `eval_`, that says which checkpoint is best.
    pub fn best_metric(&self, on_policy: bool) -> &str {
        match self.metric_for_best_model.trim_start_matches("eval_") {
            "loss" if on_policy => "reward",
            name => name,
        }
    }

    /// Whether a value of `metric_for_best_model` is better than the best so far.
    pub fn better(&self, value: f64, best: f64, on_policy: bool) -> bool {
        let greater = self.greater_is_better.unwrap_or(!self.best_metric(on_policy).ends_with("loss"));
        if greater { value > best } else { value < best }
    }

    pub(super) fn check(&self) -> Result<()> {
        for (key, value) in [
            ("per_device_train_batch_size", Some(self.per_device_train_batch_size)),
            ("per_device_eval_batch_size", self.per_device_eval_batch_size),
            ("gradient_accumulation_steps", Some(self.gradient_accumulation_steps)),
            ("max_steps", self.max_steps.map(|steps| steps as usize)),
            ("save_total_limit", self.save_total_limit),
            ("threads", self.threads),
            ("max_completion_length", Some(self.max_completion_length)),
        ] {
            if value == Some(0) {
                return Err(refused(&format!("train.{key}"), "must be at least 1, got 0"));
            }
        }
        for (key, value, most) in [
            ("per_device_train_batch_size", self.per_device_train_batch_size, MOST),
            ("gradient_accumulation_steps", self.gradient_accumulation_steps, MOST),
            ("max_completion_length", self.max_completion_length, MOST),
            ("threads", self.threads.unwrap_or(1), MOST_THREADS),
        ] {
            if value > most {
                return Err(refused(&format!("train.{key}"), format!("must be at most {most}, got {value}")));
            }
        }
        if !(self.num_train_epochs > 0.0 && self.num_train_epochs.is_finite()) {
            let problem = format!("must be > 0, got {} (default 3)", self.num_train_epochs);
            return Err(refused("train.num_train_epochs", problem));
        }
        self.schedule(1).map(drop)
    }
}

/// An error of a setting, with the table that it stands in.
fn in_table(table: &str, error: saddlepoint_opt::Error) -> Error {
    match error {
        saddlepoint_opt::Error::Setting { key, problem } => refused(&format!("{table}.{key}"), problem),
        other => other.into(),
    }
}
