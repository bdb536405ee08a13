//! How a divergence of sampled sequences acts on the policy that sampled them.
//!
//! The value that is reported ([`Estimator`]) and the gradient that is followed ([`Gradient`]) are two choices. For a sequence
//! `y` with tokens `t`, let `l_t = ln p_t - ln q_t` of the sampled token, `D_t` the exact reverse KL of the two distributions
//! at its prefix, `v_t` the value of the token by the estimator. Everything below is an expectation over sequences sampled
//! from the policy as it is, at temperature 1; samples of an older policy would need importance weights.
//! ```text
//! K     = E sum_t l_t = E sum_t D_t        reverse KL of whole sequences (chain rule)
//! local = E sum_t grad D_t                 at the sampled prefixes, as if they did not depend on the policy
//! grad K = local + E sum_t grad ln p_t sum_{s>t} D_s
//! ```
//! | mode | derivative | follows |
//! |---|---|---|
//! | `exact` | `grad D_t` | `local`, without the noise of the token |
//! | `pathwise_k2` | `l_t grad ln p_t`, which is `grad k2` | `local` |
//! | `score_function` with `k1` | `grad ln p_t` times the return of `k1` | `grad K` |
//! | `score_function` with `exact` | `grad D_t + grad ln p_t sum_{s>t} D_s` | `grad K`, with the least noise |
//! | `score_function` with `k3` | as with `k1` | `grad K` less `E sum_t grad KL(q_t, p_t)`: biased |
//! | `score_function` with `k2` | as with `k1` | `grad E sum k2` less `local`: biased |
//! | `in_reward` | none here; the method's policy gradient of the reward `-v_t` | `-grad K` with `k1`; with `k3` and `k2` biased in the same way; with `exact` `local - grad K`: biased |
//!
//! Where the biases come from: `grad E v = E[v grad ln p] + E[grad v]`, and a score function has the first part only. The second
//! is zero for k1, `local` for k2, the gradient of the forward KL for k3. `exact` does not depend on the sampled token, so
//! its own token contributes nothing to the first part, and all of `grad D_t` is in the second; that immediate term can be
//! added to a loss and not to a reward. `local` is what distillation wants (arXiv:2506.02208) and, for a divergence from a
//! reference, misses that a token changes where the next ones are.
//!
//! The return of a token is by [`Credit`] the sum over the sequence or over the token and those after it: the same
//! expectation, the second with less noise. Only the immediate value of each token would be `local` with k1. With samples of one
//! prompt, [`leave_one_out`] takes the mean of the others from each: the same expectation again, since no baseline depends
//! on what it is subtracted from. A method that divides by the deviation of a group, as GRPO does, changes the weight
//! of a prompt: a bias of its own.
//!
//! Nothing here is clamped. Log-ratios of sampled tokens are bounded by the precision of the policy (a token of
//! probability below `1e-45` is not sampled), and those of sequences grow with their length.
//!
//! Every line of the table is checked by enumeration of all sequences of a small policy.

use std::ops::Range;

use saddlepoint_opt::divergence::Estimator;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::engine::{Cotangent, Stats};

/// What is followed: see the table of the module.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Gradient {
    /// Of the exact divergence at every sampled prefix.
    Exact,
    /// Of k2 at every sampled token.
    PathwiseK2,
    /// Of the expectation of the value, by the score of the samples.
    ScoreFunction(Credit),
    /// None here: the value is taken from the reward of a method that has one.
    InReward,
}

/// Which values a token answers for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Credit {
    /// All of its sequence.
    WholeSequence,
    /// Its own and those of later tokens.
    RewardToGo,
}

/// The value of each token of `rows`, nats. Needs `ref_logp`, for `exact` the divergence (of the reverse KL) instead.
pub fn values(estimator: Estimator, stats: &Stats, rows: Range<usize>) -> Vec<f64> {
    let value = |row: usize| match estimator {
        Estimator::Exact => stats.divergence[row],
        sampled => sampled.value(log_ratio(stats, row), 0.0),
    };
    rows.map(value).collect()
}

fn log_ratio(stats: &Stats, row: usize) -> f64 {
    stats.logp[row] - stats.ref_logp[row]
}

/// The mean of the others taken from each: `R_i - mean_{j != i} R_j`. Of a single value, which has no others, nothing is
/// taken.
pub fn leave_one_out(returns: &[f64]) -> Vec<f64> {
    let others = returns.len().saturating_sub(1);
    let sum: f64 = returns.iter().sum();
    let baseline = |r: f64| if others == 0 { 0.0 } else { (sum - r) / others as f64 };
    returns.iter().map(|&r| r - baseline(r)).collect()
}

impl Gradient {
    /// Adds `weight` times the derivative for one sampled sequence, whose tokens are `rows`, to `out`.
    ///
    /// `baseline` (nats) is taken from the return of every token; it must not depend on this sequence. The modes without a
    /// return ignore it.
    pub fn add(
        self,
        estimator: Estimator,
        stats: &Stats,
        rows: Range<usize>,
        baseline: f64,
        weight: f64,
        out: &mut Cotangent,
    ) {
        match self {
            Self::Exact => immediate(stats, rows, weight, out),
            Self::PathwiseK2 => {
                out.logp.resize(stats.logp.len(), 0.0);
                rows.for_each(|row| out.logp[row] += weight * log_ratio(stats, row));
            }
            Self::ScoreFunction(credit) => {
                let values = values(estimator, stats, rows.clone());
                let mut returns = credit.returns(&values);
                if estimator == Estimator::Exact {
                    immediate(stats, rows.clone(), weight, out);
                    // Of the token's own value the score has only noise.
                    returns.iter_mut().zip(&values).for_each(|(r, value)| *r -= value);
                }
                out.logp.resize(stats.logp.len(), 0.0);
                for (row, r) in rows.zip(returns) {
                    out.logp[row] += weight * (r - baseline);
                }
            }
            Self::InReward => {}
        }
    }
}

fn immediate(stats: &Stats, rows: Range<usize>, weight: f64, out: &mut Cotangent) {
    out.divergence.resize(stats.divergence.len(), 0.0);
    rows.for_each(|row| out.divergence[row] += weight);
}

impl Credit {
    /// The return of each token of a sequence with these values.
    pub fn returns(self, values: &[f64]) -> Vec<f64> {
        match self {
            Self::WholeSequence => vec![values.iter().sum(); values.len()],
            Self::RewardToGo => {
                let mut sum = 0.0;
                let mut returns: Vec<f64> = values
                    .iter()
                    .rev()
                    .map(|value| {
                        sum += value;
                        sum
                    })
                    .collect();
                returns.reverse();
                returns
            }
        }
    }
}

#[cfg(test)]
mod tests;
