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

use std::ops::Range;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Family, Input, Meta, Method, Per, Status, Sums, View};
use crate::engine::{Cotangent, Want};
use crate::{Error, Result};

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

/// Value and derivative with respect to the margin `h` of one pair.
pub fn loss(h: f64, label_smoothing: f64) -> (f64, f64) {
    let e = label_smoothing;
    let value = -(1.0 - e) * log_sigmoid(h) - e * log_sigmoid(-h);
    (value, e * log_sigmoid(h).exp() - (1.0 - e) * log_sigmoid(-h).exp())
}

/// `ln(1 / (1 + e^-x))` without overflow.
fn log_sigmoid(x: f64) -> f64 {
    x.min(0.0) - (-x.abs()).exp().ln_1p()
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
        let refuse = |key: &str, problem: String| Err(Error::Config { key: key.to_owned(), problem });
        if !(config.beta > 0.0 && config.beta.is_finite()) {
            return refuse("method.beta", format!("must be > 0, got {} (default 0.1)", config.beta));
        }
        if !(0.0..0.5).contains(&config.label_smoothing) {
            let problem = format!("must be in [0, 0.5), got {} (default 0)", config.label_smoothing);
            return refuse("method.label_smoothing", problem);
        }
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
        let stats = view.stats;
        let beta = view.beta.unwrap_or(self.config.beta);
        let total = |values: &[f64], rows: &Range<usize>| values[rows.clone()].iter().sum::<f64>();
        out.logp.resize(stats.logp.len(), 0.0);
        let mut sums = Sums::default();
        for pair in view.sequences.chunks_exact(2) {
            let (chosen, rejected) = (&pair[0], &pair[1]);
            let (logp_chosen, logp_rejected) = (total(&stats.logp, chosen), total(&stats.logp, rejected));
            let a = logp_chosen - total(&stats.ref_logp, chosen);
            let b = logp_rejected - total(&stats.ref_logp, rejected);
            let (value, slope) = loss(beta * (a - b), self.config.label_smoothing);
            let cotangent = beta * slope / view.norm.pairs as f64;
            out.logp[chosen.clone()].iter_mut().for_each(|c| *c += cotangent);
            out.logp[rejected.clone()].iter_mut().for_each(|c| *c -= cotangent);

            let correct = stats.top1[chosen.clone()].iter().filter(|&&top1| top1).count();
            sums.add("loss", value, Per::Pair);
            sums.add("rewards/chosen", beta * a, Per::Pair);
            sums.add("rewards/rejected", beta * b, Per::Pair);
            sums.add("rewards/margins", beta * (a - b), Per::Pair);
            sums.add("rewards/accuracies", f64::from(a > b), Per::Pair);
            sums.add("logps/chosen", logp_chosen, Per::Pair);
            sums.add("logps/rejected", logp_rejected, Per::Pair);
            sums.add("mean_token_accuracy", correct as f64, Per::Count(chosen.len()));
        }
        sums
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::Stats;
    use crate::method::Norm;

    #[test]
    fn closed_forms() {
        let (value, slope) = loss(0.0, 0.0);
        assert!((value - 2.0_f64.ln()).abs() < 1e-15 && (slope + 0.5).abs() < 1e-15);
        let (_, slope) = loss((0.9_f64 / 0.1).ln(), 0.1);
        assert!(slope.abs() < 1e-15, "smoothing e has its optimum at ln((1 - e)/e), slope {slope}");
        let (value, slope) = loss(-800.0, 0.0);
        assert!((value - 800.0).abs() < 1e-12 && (slope + 1.0).abs() < 1e-15, "no overflow");
        assert!(loss(800.0, 0.0).0.abs() < 1e-300);
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

    #[derive(Deserialize)]
    struct Golden {
        cases: Vec<Case>,
    }

    #[derive(Deserialize)]
    struct Case {
        beta: f64,
        label_smoothing: f64,
        loss: f64,
        metrics: serde_json::Map<String, serde_json::Value>,
        logp: Vec<Vec<f64>>,
        ref_logp: Vec<Vec<f64>>,
        top1: Vec<Vec<bool>>,
    }

    #[test]
    fn agrees_with_trl() {
        let golden: Golden =
            serde_json::from_str(include_str!("../../tests/golden/dpo.json")).expect("golden file");
        assert_eq!(golden.cases.len(), 5);
        for case in golden.cases {
            let mut sequences = Vec::new();
            let mut stats = Stats::default();
            for i in 0..case.logp.len() {
                sequences.push(stats.logp.len()..stats.logp.len() + case.logp[i].len());
                stats.logp.extend(&case.logp[i]);
                stats.ref_logp.extend(&case.ref_logp[i]);
                stats.top1.extend(&case.top1[i]);
            }
            let norm =
                Norm { tokens: stats.logp.len(), sequences: sequences.len(), pairs: sequences.len() / 2 };
            let config = DpoConfig { beta: case.beta, label_smoothing: case.label_smoothing };
            let view = View { sequences: &sequences, stats: &stats, norm, beta: None };
            let sums = Dpo::new(config).expect("valid").loss(&view, &mut Cotangent::default());
            for (name, got) in sums.means(norm) {
                let expected =
                    case.metrics.get(name).and_then(serde_json::Value::as_f64).unwrap_or(case.loss);
                let error = (got - expected).abs() / expected.abs().max(1.0);
                assert!(error < 1e-5, "{name}: {got} against {expected}"); // TRL's head is f32
            }
        }
    }
}
