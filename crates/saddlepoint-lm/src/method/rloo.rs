//! RLOO: a policy gradient whose baseline is the mean reward of the other completions of the same prompt.
//!
//! # Objective
//! ```text
//! L(θ) = mean over i of −min( w_i A_i, clip(w_i, 1 − ε, 1 + ε_high) A_i )      w_i = π(y_i|x) / π_old(y_i|x)
//! A_i  = R_i − mean of R_j, j ≠ i          R_i = r_i − β ( ln π_old(y_i|x) − ln π₀(y_i|x) )
//! ```
//! The completion is one action: its ratio is that of the whole sequence, and the KL is part of its reward. With new samples
//! (`w = 1`) the gradient is that of `E r − β KL(π ‖ π₀)` without bias.
//! # Parameters
//! | name | symbol | default | range | meaning |
//! |------|--------|---------|-------|---------|
//! | beta | β | 0.05 | ≥ 0 | weight of the KL in the reward; without effect under a tether |
//! | epsilon | ε | 0.2 | [0, 1] | how far a ratio may fall |
//! | epsilon_high | ε_high | epsilon | ≥ 0 | how far it may rise |
//! | normalize_advantages | | false | | divide advantages by their deviation over the round |
//!
//! Under `[tether]` the KL is left out of the reward, and the exact divergence of the completions' tokens is added to the loss.
//! # Metrics
//! `loss` · `entropy` nats a token · `clip_ratio/low_mean`, `clip_ratio/high_mean`, `clip_ratio/region_mean` share of
//! completions whose ratio is clipped. The trainer adds `kl`, mean log-ratio a token, if β > 0, and those of rewards and
//! completions (`docs/on-policy.md`).
//! # Reference
//! Ahmadian et al. 2024, arXiv:2402.14740; Kool et al. 2019.
//! # Differences
//! TRL's `reward_clip_range` is not there. A completion without a reward is left out like one that was masked.
//! # Checked against
//! TRL 1.16's loss and PyTorch's derivative of it (`tests/golden/rloo.json`), finite differences.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::advantage;
use super::clipped::Clip;
use super::pairs::refuse;
use super::{Family, Input, Meta, Method, OnPolicy, Per, Rewarded, Status, Sums, View};
use crate::Result;
use crate::engine::{Cotangent, Want};

/// This method's row in the table of methods.
pub const META: Meta = Meta {
    name: "rloo",
    family: Family::Rewards,
    input: Input::Prompts,
    paper: "arXiv:2402.14740",
    status: Status::Stable,
    slug: None,
    summary: "Policy gradient with the other completions of the prompt as baseline",
    learning_rate: 1e-6,
};

/// Settings. The checks are in [`Rloo::new`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RlooConfig {
    /// Weight of the KL that is taken from rewards, >= 0. Without effect under a tether, which adds the exact divergence.
    pub beta: f64,
    /// How far a ratio may fall below 1, in [0, 1].
    pub epsilon: f64,
    /// How far it may rise above 1, >= 0. Without it, as `epsilon`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub epsilon_high: Option<f64>,
    /// Divide advantages by their standard deviation over the round.
    pub normalize_advantages: bool,
}

impl Default for RlooConfig {
    fn default() -> Self {
        Self { beta: 0.05, epsilon: 0.2, epsilon_high: None, normalize_advantages: false }
    }
}

/// The method.
#[derive(Debug, Clone)]
pub struct Rloo {
    config: RlooConfig,
    clip: Clip,
}

impl Rloo {
    /// Checks the settings.
    ///
    /// # Errors
    /// One is outside its range.
    pub fn new(config: RlooConfig) -> Result<Self> {
        let clip = Clip::new(config.epsilon, config.epsilon_high)?;
        if !(config.beta >= 0.0 && config.beta.is_finite()) {
            refuse("beta", format!("must be >= 0, got {} (default 0.05)", config.beta))?;
        }
        Ok(Self { config, clip })
    }
}

impl Method for Rloo {
    fn meta(&self) -> &'static Meta {
        &META
    }

    fn want(&self) -> Want {
        Want { entropy: true, ..Want::default() }
    }

    fn on_policy(&self) -> Option<OnPolicy> {
        let kl_in_reward = self.config.beta > 0.0;
        Some(OnPolicy { num_generations: 2, fewest: 2, corrects: true, kl_in_reward, whole_groups: false })
    }

    fn advantages(&self, rewarded: &Rewarded) -> Vec<Option<f64>> {
        let advantages = advantage::leave_one_out(&rewarded.less_kl(self.config.beta), rewarded.groups);
        if self.config.normalize_advantages { advantage::normalized(&advantages) } else { advantages }
    }

    fn loss(&self, view: &View, out: &mut Cotangent) -> Sums {
        out.logp.resize(view.stats.logp.len(), 0.0);
        let mut sums = Sums::default();
        for (rows, judged) in view.judged() {
            let Some(advantage) = judged.advantage else {
                sums.add("loss", 0.0, Per::Sequence);
                continue;
            };
            let clipped = self.clip.at(view.log_ratios(rows, judged).iter().sum(), advantage);
            let slope = clipped.slope / view.norm.sequences as f64;
            out.logp[rows.clone()].iter_mut().for_each(|out| *out += slope);
            clipped.report(&mut sums, Per::Count(1));
            view.report_entropy(rows, &mut sums);
            sums.add("loss", clipped.value, Per::Sequence);
        }
        sums
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kl_is_part_of_the_reward() {
        let config = RlooConfig { beta: 0.5, ..RlooConfig::default() };
        let rloo = Rloo::new(config).expect("valid");
        let rewards = [Some(1.0), Some(0.0), None, Some(0.5)];
        let rewarded = Rewarded::new(&[0..2, 2..4], &rewards);
        assert_eq!(rloo.advantages(&rewarded), [Some(1.0), Some(-1.0), None, Some(0.0)]);
        let kl = [2.0, 0.0, 9.0, 9.0];
        let rewarded = Rewarded { kl: Some(&kl), ..rewarded };
        assert_eq!(rloo.advantages(&rewarded)[..2], [Some(0.0), Some(0.0)], "what it gained it paid for");
    }

    #[test]
    fn settings_outside_their_range_are_refused() {
        let told =
            Rloo::new(RlooConfig { beta: f64::INFINITY, ..RlooConfig::default() }).expect_err("refused");
        assert_eq!(told.to_string(), "method.beta: must be >= 0, got inf (default 0.05)");
    }
}
