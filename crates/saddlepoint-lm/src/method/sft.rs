//! Supervised fine-tuning: raise the likelihood of given completions.
//!
//! # Objective
//! ```text
//! L(θ) = − (1/T) Σ ln π(y_t | x, y_<t)        over the T supervised tokens of the step
//! ∂L/∂ln π(y_t) = −1/T
//! ```
//! # Parameters
//! None.
//! # Metrics
//! `loss` nats a token · `entropy` of the predictions, nats a token · `mean_token_accuracy` share of tokens that
//! are the most probable one.
//! # Reference
//! TRL 1.16 `SFTTrainer` with `loss_type = "nll"`.
//! # Differences
//! The mean is over all supervised tokens of an optimizer step, whatever the micro-batches. A tether adds
//! `λ · divergence`, a sequence's sum over its supervised tokens, averaged over sequences.
//! # Checked against
//! closed form, finite differences, TRL 1.16 (`tests/golden/sft.json`).

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Family, Input, Meta, Method, Per, Status, Sums, View};
use crate::Result;
use crate::engine::{Cotangent, Want};

/// This method's row in the table of methods.
pub const META: Meta = Meta {
    name: "sft",
    family: Family::Supervised,
    input: Input::Supervised,
    paper: "arXiv:2203.02155",
    status: Status::Stable,
    slug: None,
    summary: "Supervised fine-tuning on texts, conversations or completions",
    learning_rate: 2e-5,
};

/// Settings: none.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct SftConfig {}

/// The method.
#[derive(Debug, Clone)]
pub struct Sft;

impl Sft {
    /// Nothing to check.
    ///
    /// # Errors
    /// None.
    pub fn new(_: SftConfig) -> Result<Self> {
        Ok(Self)
    }
}

impl Method for Sft {
    fn meta(&self) -> &'static Meta {
        &META
    }

    fn want(&self) -> Want {
        Want { entropy: true, ..Want::default() }
    }

    fn loss(&self, view: &View, out: &mut Cotangent) -> Sums {
        let stats = view.stats;
        out.logp.resize(stats.logp.len(), 0.0);
        let mut sums = Sums::default();
        for row in view.sequences.iter().cloned().flatten() {
            out.logp[row] -= 1.0 / view.norm.tokens as f64;
            sums.add("loss", -stats.logp[row], Per::Token);
            sums.add("entropy", stats.entropy[row], Per::Token);
            sums.add("mean_token_accuracy", f64::from(stats.top1[row]), Per::Token);
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
    fn is_the_mean_negative_log_likelihood() {
        let stats = Stats {
            logp: vec![-1.0, -2.0, -6.0],
            entropy: vec![0.5, 0.5, 2.0],
            top1: vec![true, false, true],
            ..Stats::default()
        };
        let norm = Norm { tokens: 3, sequences: 2, pairs: 0, desirable: 0 };
        let mut out = Cotangent::default();
        let sums = Sft.loss(&View::new(&[0..2, 2..3], &stats, norm), &mut out);
        assert_eq!(sums.means(norm), [("loss", 3.0), ("entropy", 1.0), ("mean_token_accuracy", 2.0 / 3.0)]);
        assert_eq!(out, Cotangent { logp: vec![-1.0 / 3.0; 3], ..Cotangent::default() });
    }
}
