//! IPO: identity preference optimisation, a squared loss that aims at a margin instead of an infinite one.
//!
//! # Objective
//! ```text
//! L(θ) = E ( a/|y⁺| − b/|y⁻| − 1/(2β) )²
//! a = ln π(y⁺|x) − ln π₀(y⁺|x),   b likewise for y⁻
//! ```
//! # Parameters
//! | name | symbol | default | range | meaning |
//! |------|--------|---------|-------|---------|
//! | beta | β, the paper's τ | 0.1 | > 0 | strength of the pull to the reference; a tether replaces it |
//! # Metrics
//! Those of `dpo`, with `rewards/…` β a and β b (sums, not means over tokens).
//! # Reference
//! Azar et al. 2023, arXiv:2310.12036, eq. 17.
//! # Differences
//! Log-ratios are means over tokens, as in TRL (there with the word of the authors); the paper's equation has sums.
//! # Checked against
//! finite differences, TRL 1.16 with `loss_type = "ipo"` (`tests/golden/ipo.json`).

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::pairs::positive;
use super::{Family, Input, Meta, Method, Status, Sums, View};
use crate::Result;
use crate::engine::{Cotangent, Want};

/// This method's row in the table of methods.
pub const META: Meta = Meta {
    name: "ipo",
    family: Family::Preferences,
    input: Input::Pairs,
    paper: "arXiv:2310.12036",
    status: Status::Stable,
    slug: None,
    summary: "Squared loss towards a margin, so that fitted pairs stop pulling",
    learning_rate: 1e-6,
};

/// Settings. The checks are in [`Ipo::new`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct IpoConfig {
    /// Strength of the pull to the reference, > 0: the margin aimed at is `1 / (2 beta)` nats a token. A tether replaces it.
    pub beta: f64,
}

impl Default for IpoConfig {
    fn default() -> Self {
        Self { beta: 0.1 }
    }
}

/// The method.
#[derive(Debug, Clone)]
pub struct Ipo {
    config: IpoConfig,
}

impl Ipo {
    /// Checks the settings.
    ///
    /// # Errors
    /// One is outside its range.
    pub fn new(config: IpoConfig) -> Result<Self> {
        positive("beta", config.beta, IpoConfig::default().beta)?;
        Ok(Self { config })
    }
}

impl Method for Ipo {
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
            let ([a, b], [length_a, length_b]) = (pair.log_ratios(view.stats), pair.lengths());
            let off = a / length_a - b / length_b - 0.5 / beta;
            let cotangent = 2.0 * off / view.norm.pairs as f64;
            pair.spread([cotangent / length_a, -cotangent / length_b], &mut out.logp);
            pair.report(view.stats, off * off, [beta * a, beta * b], &mut sums);
        }
        sums
    }
}
