//! Direct preference optimisation: fit a policy to pairs without a reward model.
//!
//! # Objective
//! ```text
//! sigmoid:  L(θ) = − E [ (1 − ε) ln σ(h) + ε ln σ(−h) ]              h = β (a − b)
//! robust:   L(θ) = − E [ (1 − ε) ln σ(h) − ε ln σ(−h) ] / (1 − 2ε)
//! a = ln π(y⁺|x) − ln π₀(y⁺|x),   b likewise for y⁻
//! ```
//! With `ε = 0` both are the same and fall for ever. With `ε > 0`, `sigmoid` is conservative DPO: the loss of a pair has its
//! minimum at `h = ln((1 − ε)/ε)`. `robust` is unbiased: its mean over preferences flipped with probability ε is the loss on
//! the true ones; it has no lower bound, so that only a penalty on the divergence or an early end stops it.
//! # Parameters
//! | name | symbol | default | range | meaning |
//! |------|--------|---------|-------|---------|
//! | beta | β | 0.1 | > 0 | strength of the pull to the reference; a tether replaces it |
//! | label_smoothing | ε | 0.0 | [0, 0.5) | assumed share of pairs whose preference is wrong |
//! | loss_type | | sigmoid | sigmoid, robust | what is done about that share |
//! # Metrics
//! `loss` nats a pair · `rewards/chosen` mean β a · `rewards/rejected` mean β b · `rewards/margins` mean h ·
//! `rewards/accuracies` share of pairs with a > b · `logps/chosen` and `logps/rejected` nats a sequence ·
//! `mean_token_accuracy` share of chosen tokens that are the most probable one. In training β is the tether's where
//! a budget moves it; an evaluation (`eval_...`) always has the configured one, so that two can be compared.
//! # Reference
//! Rafailov et al. 2023, arXiv:2305.18290, eq. 7; ε: Mitchell 2023, "A note on DPO with noisy preferences";
//! robust: Chowdhury et al. 2024, arXiv:2403.00409, eq. 10.
//! # Differences
//! TRL 1.16 ignores `label_smoothing` with `loss_type = "sigmoid"`; here it is conservative DPO's, as in TRL
//! before 1.0. `logits/chosen` and `logits/rejected` do not exist, because logits never do; `entropy` is not
//! computed, because no part of the loss needs it.
//! # Checked against
//! closed form (a = b gives ln 2), finite differences, TRL 1.16 (`tests/golden/dpo.json`).

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::pairs::{log_sigmoid, positive, sigmoid_loss, smoothing};
use super::{Family, Input, Meta, Method, Status, Sums, View};
use crate::Result;
use crate::engine::{Cotangent, Want};

/// This method's row in the table of methods.
pub const META: Meta = Meta {
    name: "dpo",
    family: Family::Preferences,
    input: Input::Pairs,
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
    /// Assumed share of pairs whose preference is wrong, in [0, 0.5). Above 0 the sigmoid loss has a finite optimum, which
    /// gives a budget something to pull on.
    pub label_smoothing: f64,
    /// What is done about that share: `sigmoid` is conservative, `robust` unbiased and without a lower bound.
    pub loss_type: LossType,
}

impl Default for DpoConfig {
    fn default() -> Self {
        Self { beta: 0.1, label_smoothing: 0.0, loss_type: LossType::Sigmoid }
    }
}

/// Two losses of a margin; TRL's names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LossType {
    /// Conservative: the flipped preference counts too, and the loss has a finite optimum.
    Sigmoid,
    /// Unbiased: the mean over flips is the loss on the true preferences.
    Robust,
}

/// Value and derivative of the robust loss with respect to the margin.
fn robust_loss(h: f64, e: f64) -> (f64, f64) {
    let (right, wrong) = (log_sigmoid(h), log_sigmoid(-h));
    let weight = 1.0 - 2.0 * e;
    ((e * wrong - (1.0 - e) * right) / weight, -((1.0 - e) * wrong.exp() + e * right.exp()) / weight)
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
            let (h, smoothing) = (beta * (a - b), self.config.label_smoothing);
            let (value, slope) = match self.config.loss_type {
                LossType::Sigmoid => sigmoid_loss(h, smoothing),
                LossType::Robust => robust_loss(h, smoothing),
            };
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
    fn the_robust_losss_mean_over_flips_is_the_loss_of_the_true_preference() {
        for (h, e) in [(0.7, 0.1), (-3.0, 0.4), (30.0, 0.25), (0.3, 0.0)] {
            let mean = (1.0 - e) * robust_loss(h, e).0 + e * robust_loss(-h, e).0;
            assert!((mean + log_sigmoid(h)).abs() < 1e-12 * mean.abs().max(1.0), "{mean}");
            let numeric = (robust_loss(h + 1e-6, e).0 - robust_loss(h - 1e-6, e).0) / 2e-6;
            assert!((numeric - robust_loss(h, e).1).abs() < 1e-8, "{numeric}");
        }
    }

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
