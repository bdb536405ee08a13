//! Robust DPO: the loss that is unbiased when a known share of the preferences is flipped.
//!
//! # Objective
//! ```text
//! L(θ) = − E [ (1 − ε) ln σ(h) − ε ln σ(−h) ] / (1 − 2ε),   h = β (a − b)
//! a = ln π(y⁺|x) − ln π₀(y⁺|x),   b likewise for y⁻
//! ```
//! Its mean over flips with probability ε is the loss of `dpo` on the true preferences. (`dpo` with `label_smoothing` is the
//! conservative variant, cDPO, with `+ ε ln σ(−h)` and without the divisor.) For ε > 0 it is not bounded below.
//! # Parameters
//! | name | symbol | default | range | meaning |
//! |------|--------|---------|-------|---------|
//! | beta | β | 0.1 | > 0 | strength of the pull to the reference; a tether replaces it |
//! | label_smoothing | ε | 0.1 | [0, 0.5) | share of pairs whose preference is wrong |
//! # Metrics
//! Those of `dpo`.
//! # Reference
//! Chowdhury et al. 2024, arXiv:2403.00409, eq. 10.
//! # Differences
//! TRL has it as `loss_type = "robust"`, with `label_smoothing` 0 unless it is set, which is `dpo`.
//! # Checked against
//! finite differences, TRL 1.16 (`tests/golden/robust-dpo.json`), the mean over flips.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::pairs::{log_sigmoid, positive, smoothing};
use super::{Family, Input, Meta, Method, Status, Sums, View};
use crate::Result;
use crate::engine::{Cotangent, Want};

/// This method's row in the table of methods.
pub const META: Meta = Meta {
    name: "robust-dpo",
    family: Family::Preferences,
    paper: "arXiv:2403.00409",
    status: Status::Stable,
    slug: None,
    summary: "DPO made unbiased for a known share of flipped preferences",
    learning_rate: 1e-6,
};

/// Settings. The checks are in [`RobustDpo::new`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RobustDpoConfig {
    /// Strength of the pull to the reference, > 0. A tether replaces it.
    pub beta: f64,
    /// Share of pairs whose preference is wrong, in [0, 0.5).
    pub label_smoothing: f64,
}

impl Default for RobustDpoConfig {
    fn default() -> Self {
        Self { beta: 0.1, label_smoothing: 0.1 }
    }
}

/// The method.
#[derive(Debug, Clone)]
pub struct RobustDpo {
    config: RobustDpoConfig,
}

impl RobustDpo {
    /// Checks the settings.
    ///
    /// # Errors
    /// One is outside its range.
    pub fn new(config: RobustDpoConfig) -> Result<Self> {
        let default = RobustDpoConfig::default();
        positive("beta", config.beta, default.beta)?;
        smoothing(config.label_smoothing, default.label_smoothing)?;
        Ok(Self { config })
    }
}

/// Value and derivative with respect to the margin.
fn robust_loss(h: f64, e: f64) -> (f64, f64) {
    let (right, wrong) = (log_sigmoid(h), log_sigmoid(-h));
    let weight = 1.0 - 2.0 * e;
    ((e * wrong - (1.0 - e) * right) / weight, -((1.0 - e) * wrong.exp() + e * right.exp()) / weight)
}

impl Method for RobustDpo {
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
            let (value, slope) = robust_loss(beta * (a - b), self.config.label_smoothing);
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
    fn its_mean_over_flips_is_the_loss_of_the_true_preference() {
        for (h, e) in [(0.7, 0.1), (-3.0, 0.4), (30.0, 0.25)] {
            let mean = (1.0 - e) * robust_loss(h, e).0 + e * robust_loss(-h, e).0;
            assert!((mean + log_sigmoid(h)).abs() < 1e-12 * mean.abs().max(1.0), "{mean}");
        }
    }
}
