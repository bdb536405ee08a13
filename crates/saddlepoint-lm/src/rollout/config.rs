//! `[rollout]`: how completions are sampled that a method learns from.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::server::KEY;
use super::{Correction, CorrectionMode, FilterConfig};
use crate::engine::Weights;
use crate::server::ServerConfig;
use crate::{Error, Result};

/// How completions are sampled that a method learns from; TRL's names.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("default" = RolloutConfig::default()))]
pub struct RolloutConfig {
    /// Completions a prompt. Without it the method's default: grpo, disco, kdrl and reinforce 8, rloo 2, ppo 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub num_generations: Option<usize>,
    /// Logits are divided by it, > 0, in sampling and in training.
    pub temperature: f64,
    /// Keep the most probable tokens that together reach this probability, in (0, 1]. Log-probabilities are those before tokens
    /// are left out.
    pub top_p: f64,
    /// Keep this many most probable tokens; 0 keeps all.
    pub top_k: usize,
    /// Keep tokens at least this probable relative to the most probable one, in [0, 1).
    pub min_p: f64,
    /// Longest completion, in tokens.
    pub max_completion_length: usize,
    /// Learn nothing from completions that were cut at the longest length. Their rewards still count for the others of their
    /// group.
    pub mask_truncated_completions: bool,
    /// How often a round is gone through before the next is sampled.
    pub num_iterations: usize,
    /// Passes of `train.per_device_train_batch_size` completions that make a round. Without it
    /// `train.gradient_accumulation_steps`: a round is a step.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub steps_per_generation: Option<usize>,
    /// What sampling reads the weights as: `f32`, or copies as `bf16` or `int8`. These sample faster, from a distribution that is not
    /// quite that of the policy, for which the derivatives by log-probabilities and values are weighted.
    pub weights: Weights,
    /// A server that samples in the place of this process, with the adapter that is trained (`model.lora`). Its distribution is
    /// taken for another than that of the policy, as with narrower weights.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server: Option<ServerConfig>,
    /// How many rounds older the weights that sampled a round may be than those that it is trained from, 0 or 1; 1 with a server
    /// only. With 1 the server samples the next round while this one is trained on, and what it gives is weighted as any
    /// completion of a server is. With 0 it waits meanwhile: only then are samples of the policy itself, and only then does a resumed run end
    /// with the same bytes.
    pub max_staleness: usize,
    /// How such completions are weighted: by the ratio of policy to sampling of a token or of a whole completion; a ratio beyond
    /// `importance_sampling_clip_max` is held there (`token_truncate`, `sequence_truncate`), or what has it is left out (`token_mask`,
    /// `sequence_mask`).
    pub importance_sampling_mode: CorrectionMode,
    /// Largest weight, > 0.
    pub importance_sampling_clip_max: f64,
    /// Which prompts make up a round, by how often they are answered right. Without it all that are sampled.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub filter: Option<FilterConfig>,
}

impl Default for RolloutConfig {
    fn default() -> Self {
        Self {
            num_generations: None,
            temperature: 1.0,
            top_p: 1.0,
            top_k: 0,
            min_p: 0.0,
            max_completion_length: 512,
            mask_truncated_completions: false,
            num_iterations: 1,
            steps_per_generation: None,
            weights: Weights::F32,
            server: None,
            max_staleness: 0,
            importance_sampling_mode: CorrectionMode::default(),
            importance_sampling_clip_max: 3.0,
            filter: None,
        }
    }
}

/// Most of anything that is counted: products of three stay within 64 bits.
const MOST: usize = 1 << 20;

impl RolloutConfig {
    /// Checks the ranges.
    ///
    /// # Errors
    /// A setting is outside its range.
    pub fn check(&self) -> Result<()> {
        let refuse = |key: &str, problem: String| Err(refused(key, problem));
        for (key, value, default) in [
            ("num_generations", self.num_generations.unwrap_or(1), "the method's"),
            ("max_completion_length", self.max_completion_length, "512"),
            ("num_iterations", self.num_iterations, "1"),
            ("steps_per_generation", self.steps_per_generation.unwrap_or(1), "one step"),
        ] {
            if !(1..=MOST).contains(&value) {
                return refuse(key, format!("must be from 1 to {MOST}, got {value} (default {default})"));
            }
        }
        if self.server.is_some() && self.weights != Weights::F32 {
            return refuse("weights", "contradicts rollout.server, which samples; remove one".to_owned());
        }
        if let Some(server) = &self.server {
            server.client(KEY)?;
        }
        if self.max_staleness > 1 {
            let problem = format!(
                "must be 0 or 1, got {}: one round is sampled ahead, no more (default 0)",
                self.max_staleness
            );
            return refuse("max_staleness", problem);
        }
        if self.max_staleness > 0 && self.server.is_none() {
            let problem = "needs rollout.server: sampling in this process uses all of its cores, so that nothing would \
                           overlap; remove it";
            return refuse("max_staleness", problem.to_owned());
        }
        let Self { temperature, top_p, min_p, .. } = *self;
        if !(temperature > 0.0 && temperature.is_finite()) {
            return refuse("temperature", format!("must be > 0, got {temperature} (default 1)"));
        }
        if !(top_p > 0.0 && top_p <= 1.0) {
            return refuse("top_p", format!("must be in (0, 1], got {top_p} (default 1)"));
        }
        if !(0.0..1.0).contains(&min_p) {
            return refuse("min_p", format!("must be in [0, 1), got {min_p} (default 0)"));
        }
        let clip_max = self.importance_sampling_clip_max;
        if !(clip_max > 0.0 && clip_max.is_finite()) {
            return refuse(
                "importance_sampling_clip_max",
                format!("must be > 0, got {clip_max} (default 3)"),
            );
        }
        Ok(())
    }

    /// How completions are weighted, where another distribution sampled them than is trained.
    pub fn corrected(&self) -> Option<Correction> {
        let correction =
            Correction { mode: self.importance_sampling_mode, clip_max: self.importance_sampling_clip_max };
        (self.weights != Weights::F32 || self.server.is_some()).then_some(correction)
    }

    /// The temperature, where it is not 1.
    pub fn tempered(&self) -> Option<f64> {
        Some(self.temperature).filter(|temperature| (temperature - 1.0).abs() > 0.0)
    }
}

/// A setting that cannot be used.
pub(super) fn refused(key: &str, problem: String) -> Error {
    Error::Config { key: format!("rollout.{key}"), problem }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_outside_their_range_are_refused() {
        let default = RolloutConfig::default();
        assert_eq!((default.check().is_ok(), default.tempered()), (true, None));
        for (config, message) in [
            (
                RolloutConfig { temperature: 0.0, ..default.clone() },
                "rollout.temperature: must be > 0, got 0 (default 1)",
            ),
            (
                RolloutConfig { top_p: 1.5, ..default.clone() },
                "rollout.top_p: must be in (0, 1], got 1.5 (default 1)",
            ),
            (
                RolloutConfig { min_p: f64::NAN, ..default.clone() },
                "rollout.min_p: must be in [0, 1), got NaN (default 0)",
            ),
            (
                RolloutConfig { importance_sampling_clip_max: 0.0, ..default.clone() },
                "rollout.importance_sampling_clip_max: must be > 0, got 0 (default 3)",
            ),
            (
                RolloutConfig { max_staleness: 2, ..default.clone() },
                "rollout.max_staleness: must be 0 or 1, got 2: one round is sampled ahead, no more (default 0)",
            ),
            (
                RolloutConfig { max_staleness: 1, ..default.clone() },
                "rollout.max_staleness: needs rollout.server: sampling in this process uses all of its cores, so that \
                 nothing would overlap; remove it",
            ),
            (
                RolloutConfig { num_generations: Some(0), ..default.clone() },
                "rollout.num_generations: must be from 1 to 1048576, got 0 (default the method's)",
            ),
        ] {
            assert_eq!(config.check().expect_err("refused").to_string(), message);
        }
        assert_eq!(RolloutConfig { temperature: 0.6, ..default }.tempered(), Some(0.6));
    }
}
