//! SimPO: preference optimisation on mean log-probabilities, without a reference.
//!
//! # Objective
//! ```text
//! L(θ) = − E ln σ(h),   h = β ( ln π(y⁺|x)/|y⁺| − ln π(y⁻|x)/|y⁻| ) − γ
//! ```
//! # Parameters
//! | name | symbol | default | range | meaning |
//! |------|--------|---------|-------|---------|
//! | beta | β | 2.0 | > 0 | scale of the reward; not a pull to a reference, so a tether is added to the loss |
//! | simpo_gamma | γ | 0.5 | >= 0 | margin by which the chosen reward is to be the larger |
//! # Metrics
//! Those of `dpo`, with `rewards/…` β times the mean log-probability of a token.
//! # Reference
//! Meng et al. 2024, arXiv:2405.14734, eq. 6; β 2.0 is where its searches begin.
//! # Differences
//! TRL has it as `CPOTrainer` with `loss_type = "simpo"` and `cpo_alpha = 0`, and with CPO's default β of 0.1, which hardly
//! weighs a mean log-probability.
//! # Checked against
//! finite differences, TRL 1.16 (`tests/golden/simpo.json`).

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::pairs::{positive, refuse, sigmoid_loss};
use super::{Family, Input, Meta, Method, Status, Sums, View};
use crate::Result;
use crate::engine::{Cotangent, Want};

/// This method's row in the table of methods.
pub const META: Meta = Meta {
    name: "simpo",
    family: Family::Preferences,
    input: Input::Pairs,
    paper: "arXiv:2405.14734",
    status: Status::Stable,
    slug: None,
    summary: "Pairs compared by mean log-probability with a margin, without a reference",
    learning_rate: 1e-6,
};

/// Settings. The checks are in [`Simpo::new`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct SimpoConfig {
    /// Scale of the reward, > 0.
    pub beta: f64,
    /// Margin by which the chosen reward is to be the larger, >= 0.
    pub simpo_gamma: f64,
}

impl Default for SimpoConfig {
    fn default() -> Self {
        Self { beta: 2.0, simpo_gamma: 0.5 }
    }
}

/// The method.
#[derive(Debug, Clone)]
pub struct Simpo {
    config: SimpoConfig,
}

impl Simpo {
    /// Checks the settings.
    ///
    /// # Errors
    /// One is outside its range.
    pub fn new(config: SimpoConfig) -> Result<Self> {
        let default = SimpoConfig::default();
        positive("beta", config.beta, default.beta)?;
        let gamma = config.simpo_gamma;
        if !(gamma >= 0.0 && gamma.is_finite()) {
            refuse("simpo_gamma", format!("must be >= 0, got {gamma} (default {})", default.simpo_gamma))?;
        }
        Ok(Self { config })
    }
}

impl Method for Simpo {
    fn meta(&self) -> &'static Meta {
        &META
    }

    fn want(&self) -> Want {
        Want::default()
    }

    fn loss(&self, view: &View, out: &mut Cotangent) -> Sums {
        let SimpoConfig { beta, simpo_gamma } = self.config;
        out.logp.resize(view.stats.logp.len(), 0.0);
        let mut sums = Sums::default();
        for pair in view.pairs() {
            let (logps, lengths) = (pair.totals(&view.stats.logp), pair.lengths());
            let rewards = [beta * logps[0] / lengths[0], beta * logps[1] / lengths[1]];
            let (value, slope) = sigmoid_loss(rewards[0] - rewards[1] - simpo_gamma, 0.0);
            let cotangent = beta * slope / view.norm.pairs as f64;
            pair.spread([cotangent / lengths[0], -cotangent / lengths[1]], &mut out.logp);
            pair.report(view.stats, value, rewards, &mut sums);
        }
        sums
    }
}
