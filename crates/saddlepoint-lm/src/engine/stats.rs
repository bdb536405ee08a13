//! What a method sees of the model, and what it gives back: the seam between methods and engine.

pub use saddlepoint_opt::divergence::Divergence;

use super::kernel::{RowCotangent, RowState};
use super::listed;

/// Which per-token statistics are wanted beside `logp`.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Want {
    /// Entropy of the policy's next-token distribution.
    pub entropy: bool,
    /// Log-probability of the target under the reference.
    pub ref_logp: bool,
    /// Divergence of the policy's next-token distribution from the reference's, exact over the vocabulary.
    pub divergence: Option<Divergence>,
    /// What logits are divided by before anything is computed from them, the policy's and the reference's; none leaves
    /// them as they are. `logp` is among what it changes. Positive.
    pub temperature: Option<f64>,
    /// The score of the hidden state that a row reads ([`Readout`](super::Readout)).
    pub score: bool,
}

impl Want {
    /// Whether the reference has to be run.
    pub fn reference(&self) -> bool {
        self.ref_logp || self.divergence.is_some()
    }

    /// Both wishes together; if both name a divergence or a temperature, `self`'s is kept.
    #[must_use]
    pub fn or(self, other: Want) -> Want {
        Want {
            entropy: self.entropy || other.entropy,
            ref_logp: self.ref_logp || other.ref_logp,
            divergence: self.divergence.or(other.divergence),
            temperature: self.temperature.or(other.temperature),
            score: self.score || other.score,
        }
    }
}

/// Statistics of the rows of a forest, all `[R]`, in nats but for the score. Empty where not wanted; of a model that has nothing
/// but a score all others are empty.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Stats {
    /// `ln p(target | context)` under the policy.
    pub logp: Vec<f64>,
    /// Entropy of the policy's distribution.
    pub entropy: Vec<f64>,
    /// `ln q(target | context)` under the reference.
    pub ref_logp: Vec<f64>,
    /// The wanted divergence.
    pub divergence: Vec<f64>,
    /// Whether the target is the policy's most probable token.
    pub top1: Vec<bool>,
    /// The score of the hidden state from which the row is predicted. What the row predicts has no part in it.
    pub score: Vec<f64>,
    /// `ln p` of the tokens that [`Forest::listed`](super::Forest::listed) names, under the policy.
    pub listed: Vec<Vec<f64>>,
    /// `ln q` of the same tokens under the reference. No model in the process is asked for them; whoever chose the tokens knows.
    pub ref_listed: Vec<Vec<f64>>,
}

/// Derivatives of a scalar with respect to the statistics, `[R]` each; an empty vector means zero.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Cotangent {
    /// With respect to [`Stats::logp`].
    pub logp: Vec<f64>,
    /// With respect to [`Stats::entropy`].
    pub entropy: Vec<f64>,
    /// With respect to [`Stats::divergence`].
    pub divergence: Vec<f64>,
    /// With respect to [`Stats::score`].
    pub score: Vec<f64>,
    /// With respect to [`Stats::listed`].
    pub listed: Vec<Vec<f64>>,
}

/// What the head found of each row.
pub(super) fn statistics(states: &[RowState], score: Vec<f64>, logits: &listed::Logits, want: Want) -> Stats {
    let all = |value: &dyn Fn(&RowState) -> f64| states.iter().map(value).collect::<Vec<_>>();
    Stats {
        logp: all(&RowState::logp),
        entropy: if want.entropy { all(&RowState::entropy) } else { Vec::new() },
        ref_logp: if want.ref_logp { all(&RowState::ref_logp) } else { Vec::new() },
        divergence: want.divergence.map_or_else(Vec::new, |kind| all(&|s| s.divergence(kind))),
        top1: states.iter().map(RowState::top1).collect(),
        score,
        listed: listed::logps(states, logits),
        ref_listed: Vec::new(),
    }
}

/// A cotangent row by row, as the head takes it.
pub(super) fn row_cotangents(cotangent: &Cotangent, rows: usize) -> Vec<RowCotangent> {
    let Cotangent { logp, entropy, divergence, listed, .. } = cotangent;
    let get = |list: &[f64], i: usize| list.get(i).copied().unwrap_or(0.0);
    let row = |i: usize| RowCotangent {
        logp: get(logp, i),
        entropy: get(entropy, i),
        divergence: get(divergence, i),
        listed: listed.get(i).map_or(0.0, |slopes| slopes.iter().sum()),
    };
    (0..rows).map(row).collect()
}
