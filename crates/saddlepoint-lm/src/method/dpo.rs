//! Direct preference optimisation: fit a policy to pairs without a reward model.
//!
//! # Objective
//! ```text
//! L(θ) = − E [ (1 − ε) ln σ(h) + ε ln σ(−h) ],   h = β (a − b)
//! a = ln π(y⁺|x) − ln π₀(y⁺|x),   b likewise for y⁻
//! ∂L/∂a = β ( ε σ(h) − (1 − ε) σ(−h) ) = −∂L/∂b
//! ```
//! With `ε > 0` the loss of a pair has its minimum at `h = ln((1 − ε)/ε)`; with `ε = 0` it falls for ever.
//! # Parameters
//! | name | symbol | default | range | meaning |
//! |------|--------|---------|-------|---------|
//! | beta | β | 0.1 | > 0 | strength of the pull to the reference; a tether replaces it |
//! | label_smoothing | ε | 0.0 | [0, 0.5) | assumed share of pairs whose preference is wrong |
//! # Metrics
//! `loss` nats a pair · `rewards/chosen` mean β a · `rewards/rejected` mean β b · `rewards/margins` mean h ·
//! `rewards/accuracies` share of pairs with a > b · `logps/chosen` and `logps/rejected` nats a sequence ·
//! `mean_token_accuracy` share of chosen tokens that are the most probable one. In training β is the tether's where
//! a budget moves it; an evaluation (`eval_...`) always has the configured one, so that two can be compared.
//! # Reference
//! Rafailov et al. 2023, arXiv:2305.18290, eq. 7; ε: Mitchell 2023, "A note on DPO with noisy preferences".
//! # Differences
//! TRL 1.16 ignores `label_smoothing` with `loss_type = "sigmoid"`; here it is conservative DPO's, as in TRL
//! before 1.0. `logits/chosen` and `logits/rejected` do not exist, because logits never do; `entropy` is not
//! computed, because no part of the loss needs it.
//! # Checked against
//! closed form (a = b gives ln 2), finite differences, TRL 1.16 (`tests/golden/dpo.json`).

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::pairs::{positive, sigmoid_loss, smoothing};
use super::{Family, Input, Meta, Method, Status, Sums, View};
use crate::Result;
use crate::engine::{Cotangent, Want};

/// This method's row in the table of methods.
pub const META: Meta = Meta {
    name: "dpo",
    family: Family::Preferences,
    paper: "arXiv:2305.18290",
    status: Status::Stable,
    slug: None,
    summary: "Direct preference optimisation on pairs of completions",
    learning_rate: 1e-6,
};

/// Settings. The checks are in [`Dpo::new`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct DpoConfig {
    /// Strength of the pull to the reference, > 0. A tether replaces it.
    pub beta: f64,
    /// Assumed share of pairs whose preference is wrong, in [0, 0.5). Above 0 the loss has a finite optimum,
    /// which gives a budget something to pull on.
    pub label_smoothing: f64,
}

impl Default for DpoConfig {
    fn default() -> Self {
        Self { beta: 0.1, label_smoothing: 0.0 }
    }
}

/// The method.
#[derive(Debug, Clone)]
pub struct Dpo {
    config: DpoConfig,
}

impl Dpo {
    /// Checks the settings.
    ///
    /// # Errors
    /// One is outside its range.
    pub fn new(config: DpoConfig) -> Result<Self> {
        let default = DpoConfig::default();
        positive("beta", config.beta, default.beta)?;
        smoothing(config.label_smoothing, default.label_smoothing)?;
        Ok(Self { config })
    }
}

impl Method for Dpo {
    fn meta(&self) -> &'static Meta {
        &META
    }

    fn input(&self) -> Input {
        Input::Pairs
    }

    fn want(&self) -> Want {
        Want { ref_logp: true, ..Want::default() }
    }

    fn beta(&self) -> Option<f64> {
        Some(self.config.beta)
    }

    fn loss(&self, view: &View, out: &mut Cotangent) -> Sums {
        let beta = view.beta.unwrap_or(self.config.beta);
        out.logp.resize(view.stats.logp.len(), 0.0);
        let mut sums = Sums::default();
        for pair in view.pairs() {
            let [a, b] = pair.log_ratios(view.stats);
            let (value, slope) = sigmoid_loss(beta * (a - b), self.config.label_smoothing);
            let cotangent = beta * slope / view.norm.pairs as f64;
            pair.spread([cotangent, -cotangent], &mut out.logp);
            pair.report(view.stats, value, [beta * a, beta * b], &mut sums);
        }
        sums
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_outside_their_range_are_refused() {
        for (config, message) in [
            (
                DpoConfig { beta: -0.1, ..DpoConfig::default() },
                "method.beta: must be > 0, got -0.1 (default 0.1)",
            ),
            (
                DpoConfig { beta: f64::NAN, ..DpoConfig::default() },
                "method.beta: must be > 0, got NaN (default 0.1)",
            ),
            (
                DpoConfig { label_smoothing: 0.5, ..DpoConfig::default() },
                "method.label_smoothing: must be in [0, 0.5), got 0.5 (default 0)",
            ),
        ] {
            assert_eq!(Dpo::new(config).expect_err("refused").to_string(), message);
        }
    }
}
