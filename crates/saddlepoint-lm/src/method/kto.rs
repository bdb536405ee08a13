//! KTO: completions judged one by one, as gains and losses against what the policy has moved on average.
//!
//! # Objective
//! ```text
//! kto:                L(θ) = E [ λ₊ (1 − σ(β (l − z₀))) ]   over desirable completions
//!                          + E [ λ₋ (1 − σ(β (z₀ − l))) ]   over undesirable ones
//! apo_zero_unpaired:  the same with z₀ = 0
//! l = ln π(y|x) − ln π₀(y|x)          z₀ = max(0, mean over the step of ln π(y'|x) − ln π₀(y'|x)),  no derivative
//! ```
//! `y'` is the completion of another example of the step (of the one before; of the first example, that of the last), so that
//! z₀ estimates how far the policy has moved in all.
//! # Parameters
//! | name | symbol | default | range | meaning |
//! |------|--------|---------|-------|---------|
//! | beta | β | 0.1 | > 0 | strength of the pull to the reference; a tether replaces it |
//! | desirable_weight | λ₊ | 1.0 | > 0 | weight of desirable completions |
//! | undesirable_weight | λ₋ | 1.0 | > 0 | weight of undesirable ones |
//! | loss_type | | kto | kto, apo_zero_unpaired | whether there is a z₀ |
//!
//! Where there are `n₊` desirable and `n₋` undesirable completions, the paper asks for `λ₊ n₊ / (λ₋ n₋)` between 1 and 4/3.
//!
//! Under a budget: the sigmoid is flat on both sides, so that no β draws a policy back that is far past the budget. A run
//! approaches it from below and ends with the latest weights that were within it.
//! # Metrics
//! `loss` a completion, without unit · `kl` z₀, nats a sequence · `kl/clamped` share of steps whose mean was below 0 ·
//! `kl/truncated` share of the `y'` that were cut to fit `data.max_length` · `rewards/chosen`, `rewards/rejected` mean β l of
//! the desirable and of the undesirable completions · `rewards/margins` their difference · `logps/chosen`,
//! `logps/rejected` nats a sequence. What a step without one of the two kinds cannot say is left out of its line. The `kl`s
//! are of `kto` alone.
//! # Reference
//! Ethayarajh et al. 2024, arXiv:2402.01306, eqs. 7 and 8; apo_zero_unpaired: D'Oosterlinck et al. 2024, arXiv:2408.06266.
//! # Differences
//! TRL 1.16 takes z₀ over one forward batch and fixes the order of the data for it; here it is over the whole optimizer step
//! (in an evaluation over all held-out examples), by a pass of its own, so that it does not depend on how a step is divided,
//! and every epoch has its own order. TRL does not count what it clamps and cuts. `entropy`, `logits/chosen` and
//! `logits/rejected` are not computed.
//! # Checked against
//! closed forms, finite differences, TRL 1.16 (`tests/golden/kto.json`).

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::pairs::{log_sigmoid, positive};
use super::{Family, Input, Meta, Method, Per, Status, Sums, View};
use crate::Result;
use crate::engine::{Cotangent, Want};

/// This method's row in the table of methods.
pub const META: Meta = Meta {
    name: "kto",
    family: Family::Preferences,
    input: Input::Unpaired,
    paper: "arXiv:2402.01306",
    status: Status::Stable,
    slug: None,
    summary: "Completions judged one by one, against how far the policy has moved on average",
    learning_rate: 1e-6,
};

/// Settings. The checks are in [`Kto::new`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct KtoConfig {
    /// Strength of the pull to the reference, > 0. A tether replaces it.
    pub beta: f64,
    /// Weight of desirable completions, > 0.
    pub desirable_weight: f64,
    /// Weight of undesirable completions, > 0.
    pub undesirable_weight: f64,
    /// Whether completions are compared with the policy's mean movement or with none.
    pub loss_type: LossType,
}

impl Default for KtoConfig {
    fn default() -> Self {
        Self { beta: 0.1, desirable_weight: 1.0, undesirable_weight: 1.0, loss_type: LossType::Kto }
    }
}

/// What a completion's log-ratio is compared with; TRL's names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(rename = "KtoLossType")]
pub enum LossType {
    /// The mean log-ratio of completions under the prompts of others.
    Kto,
    /// Zero: for desirable completions that are better than the model's own.
    ApoZeroUnpaired,
}

/// The method.
#[derive(Debug, Clone)]
pub struct Kto {
    config: KtoConfig,
}

impl Kto {
    /// Checks the settings.
    ///
    /// # Errors
    /// One is outside its range.
    pub fn new(config: KtoConfig) -> Result<Self> {
        let default = KtoConfig::default();
        positive("beta", config.beta, default.beta)?;
        positive("desirable_weight", config.desirable_weight, default.desirable_weight)?;
        positive("undesirable_weight", config.undesirable_weight, default.undesirable_weight)?;
        Ok(Self { config })
    }
}

impl Method for Kto {
    fn meta(&self) -> &'static Meta {
        &META
    }

    fn want(&self) -> Want {
        Want { ref_logp: true, ..Want::default() }
    }

    fn beta(&self) -> Option<f64> {
        Some(self.config.beta)
    }

    fn mismatched(&self) -> bool {
        self.config.loss_type == LossType::Kto
    }

    fn loss(&self, view: &View, out: &mut Cotangent) -> Sums {
        let KtoConfig { desirable_weight, undesirable_weight, .. } = self.config;
        let (beta, norm, stats) = (view.beta.unwrap_or(self.config.beta), view.norm, view.stats);
        let clamped = view.mismatched < 0.0;
        // Not `max`, which would hide a mean that is not a number.
        let z = if clamped { 0.0 } else { view.mismatched };
        out.logp.resize(stats.logp.len(), 0.0);
        let mut sums = Sums::default();
        for (rows, &label) in view.sequences.iter().zip(view.labels) {
            let total = |values: &[f64]| values[rows.clone()].iter().sum::<f64>();
            let logp = total(&stats.logp);
            let ratio = logp - total(&stats.ref_logp);
            let (sign, weight, kind) = if label {
                (1.0, desirable_weight, norm.desirable)
            } else {
                (-1.0, undesirable_weight, norm.sequences - norm.desirable)
            };
            let h = sign * beta * (ratio - z);
            let missed = log_sigmoid(-h).exp();
            let slope = -sign * beta * weight * missed * log_sigmoid(h).exp();
            out.logp[rows.clone()].iter_mut().for_each(|c| *c += slope / norm.sequences as f64);

            sums.add("loss", weight * missed, Per::Sequence);
            if self.mismatched() {
                sums.add("kl", z, Per::Sequence);
                sums.add("kl/clamped", f64::from(clamped), Per::Sequence);
            }
            let [rewards, logps] = if label {
                ["rewards/chosen", "logps/chosen"]
            } else {
                ["rewards/rejected", "logps/rejected"]
            };
            sums.add(rewards, beta * ratio, Per::Count(1));
            sums.add(logps, logp, Per::Count(1));
            if kind < norm.sequences {
                // Either mean as a sum over all sequences, whose difference then has one divisor.
                let share = kind as f64 / norm.sequences as f64;
                sums.add("rewards/margins", sign * beta * ratio / share, Per::Sequence);
            }
        }
        sums
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::Stats;
    use crate::method::Norm;

    type Metrics = Vec<(&'static str, f64)>;

    /// Metrics and derivatives for completions of one token with these log-ratios.
    fn run(config: KtoConfig, judged: &[(f64, bool)], mismatched: f64) -> (Metrics, Vec<f64>) {
        let stats = Stats {
            logp: judged.iter().map(|(l, _)| l - 2.0).collect(),
            ref_logp: vec![-2.0; judged.len()],
            top1: vec![true; judged.len()],
            ..Stats::default()
        };
        let labels: Vec<bool> = judged.iter().map(|(_, label)| *label).collect();
        let desirable = labels.iter().filter(|label| **label).count();
        let norm = Norm { tokens: judged.len(), sequences: judged.len(), pairs: 0, desirable };
        let sequences: Vec<_> = (0..judged.len()).map(|i| i..i + 1).collect();
        let view = View { labels: &labels, mismatched, ..View::new(&sequences, &stats, norm) };
        let mut out = Cotangent::default();
        (Kto::new(config).expect("valid").loss(&view, &mut out).means(norm), out.logp)
    }

    fn of(metrics: &Metrics, name: &str) -> f64 {
        metrics.iter().find(|(known, _)| *known == name).expect("a metric").1
    }

    #[test]
    fn closed_forms() {
        // At the baseline either kind loses a half, and its derivative is a quarter of beta.
        let (metrics, slopes) = run(KtoConfig::default(), &[(0.7, true), (0.7, false)], 0.7);
        assert!((of(&metrics, "loss") - 0.5).abs() < 1e-15);
        assert!((slopes[0] + 0.0125).abs() < 1e-15 && (slopes[1] - 0.0125).abs() < 1e-15);
        // σ(ln 3) = 3/4.
        let config = KtoConfig { beta: 1.0, desirable_weight: 2.0, ..KtoConfig::default() };
        let (metrics, slopes) = run(config, &[(3.0_f64.ln() + 0.5, true)], 0.5);
        assert!((of(&metrics, "loss") - 2.0 / 4.0).abs() < 1e-15);
        assert!((slopes[0] + 2.0 * 3.0 / 16.0).abs() < 1e-15);
        assert!(!metrics.iter().any(|(name, _)| *name == "rewards/margins" || *name == "rewards/rejected"));
        let (_, slopes) = run(KtoConfig { beta: 1.0, ..KtoConfig::default() }, &[(-800.0, true)], 0.0);
        assert!(slopes[0].abs() < 1e-300, "no overflow");
    }

    #[test]
    fn margins_are_the_difference_of_the_means() {
        let judged = [(0.4, true), (1.0, false), (-2.0, true), (0.2, true)];
        let (metrics, _) = run(KtoConfig::default(), &judged, 0.0);
        let (chosen, rejected) = (of(&metrics, "rewards/chosen"), of(&metrics, "rewards/rejected"));
        assert!((chosen + 0.14 / 3.0).abs() < 1e-15 && (rejected - 0.1).abs() < 1e-15);
        assert!((of(&metrics, "rewards/margins") - (chosen - rejected)).abs() < 1e-15);
    }

    #[test]
    fn a_baseline_below_zero_is_zero_and_counted_and_apo_has_none() {
        let judged = [(0.4, true), (1.0, false)];
        let (below, slopes) = run(KtoConfig::default(), &judged, -3.0);
        assert!(below.contains(&("kl", 0.0)) && below.contains(&("kl/clamped", 1.0)));
        assert!(run(KtoConfig::default(), &judged, 0.0).0.contains(&("kl/clamped", 0.0)));
        let apo = KtoConfig { loss_type: LossType::ApoZeroUnpaired, ..KtoConfig::default() };
        let (metrics, other) = run(apo, &judged, 0.0);
        assert_eq!((of(&metrics, "loss"), other), (of(&below, "loss"), slopes));
        assert!(!metrics.iter().any(|(name, _)| name.starts_with("kl")));
        let (metrics, _) = run(KtoConfig::default(), &judged, f64::NAN);
        assert!(of(&metrics, "loss").is_nan(), "not hidden by the clamp");
    }

    #[test]
    fn settings_outside_their_range_are_refused() {
        for (config, message) in [
            (
                KtoConfig { beta: 0.0, ..KtoConfig::default() },
                "method.beta: must be > 0, got 0 (default 0.1)",
            ),
            (
                KtoConfig { desirable_weight: -1.0, ..KtoConfig::default() },
                "method.desirable_weight: must be > 0, got -1 (default 1)",
            ),
            (
                KtoConfig { undesirable_weight: f64::INFINITY, ..KtoConfig::default() },
                "method.undesirable_weight: must be > 0, got inf (default 1)",
            ),
        ] {
            assert_eq!(Kto::new(config).expect_err("refused").to_string(), message);
        }
    }
}
