//! REINFORCE: the policy gradient as it is, with a baseline.
//!
//! # Objective
//! ```text
//! L(θ) = − mean over i of A_i ln π(y_i|x)           A_i = R_i − b_i
//! R_i  = r_i − β ( ln π_old(y_i|x) − ln π₀(y_i|x) )
//! b_i  = 0 (none) · mean of R over the round (batch) · mean of R over the completions of the prompt (group)
//! ```
//! The gradient is that of `E r − β KL(π ‖ π₀)`; with a mean that contains `R_i` itself it is smaller by the factor `1 − 1/n`.
//! The value of `L` means nothing. There is neither a ratio nor a clip, so every step needs samples of its own.
//! # Parameters
//! | name | symbol | default | range | meaning |
//! |------|--------|---------|-------|---------|
//! | baseline | b | batch | none, batch, group | what is taken from rewards |
//! | beta | β | 0.0 | ≥ 0 | weight of the KL in the reward; without effect under a tether |
//!
//! Under `[tether]` the KL is left out of the reward, and the exact divergence of the completions' tokens is added to the loss.
//! # Metrics
//! `loss` · `entropy` nats a token. The trainer adds `kl`, mean log-ratio a token, if β > 0, and those of rewards and
//! completions (`docs/on-policy.md`).
//! # Reference
//! Williams 1992, "Simple statistical gradient-following algorithms", with the completion as one action.
//! # Differences
//! None known; TRL 1.16 has no such trainer.
//! # Checked against
//! PyTorch's derivative of the objective (`tests/golden/reinforce.json`), finite differences.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::advantage::{self, Scale};
use super::pairs::refuse;
use super::{Family, Input, Meta, Method, OnPolicy, Per, Rewarded, Status, Sums, View};
use crate::Result;
use crate::engine::{Cotangent, Want};

/// This method's row in the table of methods.
pub const META: Meta = Meta {
    name: "reinforce",
    family: Family::Rewards,
    input: Input::Prompts,
    paper: "doi:10.1007/BF00992696",
    status: Status::Stable,
    slug: None,
    summary: "Policy gradient with a mean reward as baseline",
    learning_rate: 1e-6,
};

/// Settings. The checks are in [`Reinforce::new`].
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ReinforceConfig {
    /// What is taken from rewards.
    pub baseline: Baseline,
    /// Weight of the KL that is taken from rewards, >= 0. Without effect under a tether, which adds the exact divergence.
    pub beta: f64,
}

/// What is taken from rewards.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Baseline {
    /// Nothing.
    None,
    /// The mean over the round.
    #[default]
    Batch,
    /// The mean over the completions of the prompt.
    Group,
}

/// The method.
#[derive(Debug, Clone)]
pub struct Reinforce {
    config: ReinforceConfig,
}

impl Reinforce {
    /// Checks the settings.
    ///
    /// # Errors
    /// One is outside its range.
    pub fn new(config: ReinforceConfig) -> Result<Self> {
        if !(config.beta >= 0.0 && config.beta.is_finite()) {
            refuse("beta", format!("must be >= 0, got {} (default 0)", config.beta))?;
        }
        Ok(Self { config })
    }
}

impl Method for Reinforce {
    fn meta(&self) -> &'static Meta {
        &META
    }

    fn want(&self) -> Want {
        Want { entropy: true, ..Want::default() }
    }

    fn on_policy(&self) -> Option<OnPolicy> {
        let group = self.config.baseline == Baseline::Group;
        let kl_in_reward = self.config.beta > 0.0;
        let fewest = if group { 2 } else { 1 };
        Some(OnPolicy { num_generations: 8, fewest, corrects: false, kl_in_reward, whole_groups: false })
    }

    fn advantages(&self, rewarded: &Rewarded) -> Vec<Option<f64>> {
        let rewards = rewarded.less_kl(self.config.beta);
        match self.config.baseline {
            Baseline::None => rewards,
            Baseline::Batch => advantage::round_mean(&rewards),
            Baseline::Group => advantage::group_mean(&rewards, rewarded.groups, Scale::None),
        }
    }

    fn loss(&self, view: &View, out: &mut Cotangent) -> Sums {
        out.logp.resize(view.stats.logp.len(), 0.0);
        let mut sums = Sums::default();
        for (rows, judged) in view.judged() {
            let Some(advantage) = judged.advantage else {
                sums.add("loss", 0.0, Per::Sequence);
                continue;
            };
            let slope = -advantage / view.norm.sequences as f64;
            out.logp[rows.clone()].iter_mut().for_each(|out| *out += slope);
            view.report_entropy(rows, &mut sums);
            let logp: f64 = view.stats.logp[rows.clone()].iter().sum();
            sums.add("loss", -advantage * logp, Per::Sequence);
        }
        sums
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn baselines_in_closed_form() {
        let rewards = [Some(1.0), Some(0.0), Some(0.0), Some(0.0)];
        let rewarded = Rewarded::new(&[0..2, 2..4], &rewards);
        for (baseline, expected) in [
            (Baseline::None, [1.0, 0.0, 0.0, 0.0]),
            (Baseline::Batch, [0.75, -0.25, -0.25, -0.25]),
            (Baseline::Group, [0.5, -0.5, 0.0, 0.0]),
        ] {
            let reinforce = Reinforce::new(ReinforceConfig { baseline, beta: 0.0 }).expect("valid");
            assert_eq!(reinforce.advantages(&rewarded), expected.map(Some));
        }
    }

    #[test]
    fn a_reference_acts_through_the_reward_as_in_salsas_vectors() {
        // V2: log-probabilities of three tokens under the policy, a soup and the model that it starts from; beta 0.05.
        let policy = [-0.4, -1.1, -0.7];
        let kl = |reference: [f64; 3]| policy.iter().zip(reference).map(|(p, q)| p - q).sum::<f64>();
        let kl = [kl([-0.6, -0.9, -1.3]), kl([-0.45, -1.05, -0.8])];
        let reinforce = Reinforce::new(ReinforceConfig { baseline: Baseline::None, beta: 0.05 });
        let rewarded = Rewarded { kl: Some(&kl), ..Rewarded::new(&[0..1, 1..2], &[Some(1.7); 2]) };
        let worth = reinforce.expect("valid").advantages(&rewarded);
        for (got, expected) in worth.into_iter().zip([1.67, 1.695]) {
            assert!((got.expect("a reward") - expected).abs() < 1e-12, "{got:?} for {expected}");
        }
    }

    #[test]
    fn settings_outside_their_range_are_refused() {
        let told = Reinforce::new(ReinforceConfig { beta: -0.1, ..ReinforceConfig::default() });
        let told = told.expect_err("refused").to_string();
        assert_eq!(told, "method.beta: must be >= 0, got -0.1 (default 0)");
    }
}
