//! ORPO: supervised training on the chosen completion and an odds ratio against the rejected one, without a reference.
//!
//! # Objective
//! ```text
//! L(θ) = E [ −p⁺ − β ln σ(o) ],   o = ln( e^p⁺ / (1 − e^p⁺) ) − ln( e^p⁻ / (1 − e^p⁻) )
//! p = ln π(y|x) / |y|
//! ```
//! # Parameters
//! | name | symbol | default | range | meaning |
//! |------|--------|---------|-------|---------|
//! | beta | β, the paper's λ | 0.1 | > 0 | weight of the odds ratio; not a pull to a reference, so a tether is added to the loss |
//! # Metrics
//! Those of `dpo`, with `rewards/…` β p · `nll_loss` −p⁺ · `log_odds_ratio` ln σ(o) · `log_odds_chosen` o ·
//! `orpo/clamped` share of completions whose mean probability was cut at 1 − 1e-7, where the odds have no bound.
//! # Reference
//! Hong et al. 2024, arXiv:2403.07691, eqs. 6 and 7.
//! # Differences
//! TRL's supervised term is a mean over the tokens of the batch, prompts included; here it is the paper's, of the completion
//! and a mean over pairs.
//! # Checked against
//! finite differences, TRL 1.16's odds ratio (`tests/golden/orpo.json`).

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::pairs::{positive, sigmoid_loss};
use super::{Family, Input, Meta, Method, Per, Status, Sums, View};
use crate::Result;
use crate::engine::{Cotangent, Want};

/// This method's row in the table of methods.
pub const META: Meta = Meta {
    name: "orpo",
    family: Family::Preferences,
    input: Input::Pairs,
    paper: "arXiv:2403.07691",
    status: Status::Stable,
    slug: None,
    summary: "Supervised training with an odds ratio against the rejected completion",
    learning_rate: 1e-6,
};

/// Largest mean log-probability whose odds are taken.
const LARGEST: f64 = -1e-7;

/// Settings. The checks are in [`Orpo::new`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct OrpoConfig {
    /// Weight of the odds ratio, > 0.
    pub beta: f64,
}

impl Default for OrpoConfig {
    fn default() -> Self {
        Self { beta: 0.1 }
    }
}

/// The method.
#[derive(Debug, Clone)]
pub struct Orpo {
    config: OrpoConfig,
}

impl Orpo {
    /// Checks the settings.
    ///
    /// # Errors
    /// One is outside its range.
    pub fn new(config: OrpoConfig) -> Result<Self> {
        positive("beta", config.beta, OrpoConfig::default().beta)?;
        Ok(Self { config })
    }
}

/// `ln(e^p / (1 - e^p))`, its derivative, and whether `p` was cut.
fn log_odds(p: f64) -> (f64, f64, bool) {
    let cut = p > LARGEST;
    let p = p.min(LARGEST);
    let complement = -p.exp_m1();
    (p - complement.ln(), if cut { 0.0 } else { 1.0 / complement }, cut)
}

impl Method for Orpo {
    fn meta(&self) -> &'static Meta {
        &META
    }

    fn want(&self) -> Want {
        Want::default()
    }

    fn loss(&self, view: &View, out: &mut Cotangent) -> Sums {
        let beta = self.config.beta;
        out.logp.resize(view.stats.logp.len(), 0.0);
        let mut sums = Sums::default();
        for pair in view.pairs() {
            let (logps, lengths) = (pair.totals(&view.stats.logp), pair.lengths());
            let means = [logps[0] / lengths[0], logps[1] / lengths[1]];
            let [(odds_a, rate_a, cut_a), (odds_b, rate_b, cut_b)] = means.map(log_odds);
            let (ratio, slope) = sigmoid_loss(odds_a - odds_b, 0.0);
            let pairs = view.norm.pairs as f64;
            let by_chosen = (beta * slope * rate_a - 1.0) / (pairs * lengths[0]);
            let by_rejected = -beta * slope * rate_b / (pairs * lengths[1]);
            pair.spread([by_chosen, by_rejected], &mut out.logp);
            pair.report(view.stats, beta * ratio - means[0], means.map(|p| beta * p), &mut sums);
            sums.add("nll_loss", -means[0], Per::Pair);
            sums.add("log_odds_ratio", -ratio, Per::Pair);
            sums.add("log_odds_chosen", odds_a - odds_b, Per::Pair);
            sums.add("orpo/clamped", f64::from(cut_a) + f64::from(cut_b), Per::Sequence);
        }
        sums
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn odds_in_closed_form_and_at_the_end_of_their_range() {
        let (value, rate, cut) = log_odds(0.2_f64.ln());
        assert!((value - 0.25_f64.ln()).abs() < 1e-15 && (rate - 1.25).abs() < 1e-15 && !cut);
        let (value, rate, cut) = log_odds(0.0);
        assert!(value.is_finite() && rate == 0.0 && cut);
    }
}
