//! Weights for completions that another distribution sampled than the one that is trained.
//!
//! With `p` the policy before its first step on a round and `q` what sampled it (the same weights, read as fewer bits or by a server, or
//! those of the round before), the mean of `f(y) p(y)/q(y)` over samples of `q` is that of `f(y)` over samples of `p`. A ratio beyond a
//! bound is held there, or what has it is left out: else a few large ones would be most of what is learned from.
//!
//! Source: Yao et al. 2025, "Your efficient RL framework secretly brings you off-policy RL training"; TRL's
//! `vllm_importance_sampling_mode`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Which ratio weights a token, and what happens to one beyond the bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum CorrectionMode {
    /// That of the token, held at the bound.
    #[default]
    TokenTruncate,
    /// That of the token; nothing is learned from it beyond the bound.
    TokenMask,
    /// That of its completion, held at the bound.
    SequenceTruncate,
    /// That of its completion, from which nothing is learned beyond the bound.
    SequenceMask,
}

/// How completions are weighted.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Correction {
    /// Which ratio.
    pub mode: CorrectionMode,
    /// Its bound, > 0.
    pub clip_max: f64,
}

/// What the weights of some completions were.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Weighted {
    least: f64,
    sum: f64,
    most: f64,
    beyond: usize,
    count: usize,
}

impl Default for Weighted {
    fn default() -> Self {
        Self { least: f64::INFINITY, sum: 0.0, most: f64::NEG_INFINITY, beyond: 0, count: 0 }
    }
}

impl Correction {
    /// The weight of each token of a completion, of its log-probabilities under the policy and when it was sampled, nats.
    pub fn weights(self, policy: &[f64], sampled: &[f64], seen: &mut Weighted) -> Vec<f64> {
        let log_ratios = policy.iter().zip(sampled).map(|(p, q)| p - q);
        let (of_token, mask) = match self.mode {
            CorrectionMode::TokenTruncate => (true, false),
            CorrectionMode::TokenMask => (true, true),
            CorrectionMode::SequenceTruncate => (false, false),
            CorrectionMode::SequenceMask => (false, true),
        };
        let mut weight = |log_ratio: f64| {
            let ratio = log_ratio.exp();
            let beyond = ratio > self.clip_max;
            let weight = if !beyond {
                ratio
            } else if mask {
                0.0
            } else {
                self.clip_max
            };
            seen.add(weight, beyond);
            weight
        };
        if of_token {
            return log_ratios.map(weight).collect();
        }
        vec![weight(log_ratios.sum()); policy.len()]
    }
}

impl Weighted {
    fn add(&mut self, weight: f64, beyond: bool) {
        self.least = self.least.min(weight);
        self.most = self.most.max(weight);
        self.sum += weight;
        self.beyond += usize::from(beyond);
        self.count += 1;
    }

    /// Under TRL's names, and the share of ratios beyond the bound; nothing if there were none.
    pub fn means(&self) -> Vec<(String, f64)> {
        if self.count == 0 {
            return Vec::new();
        }
        let count = self.count as f64;
        [
            ("min", self.least),
            ("mean", self.sum / count),
            ("max", self.most),
            ("beyond", self.beyond as f64 / count),
        ]
        .map(|(name, value)| (format!("sampling/importance_sampling_ratio/{name}"), value))
        .to_vec()
    }
}

#[cfg(test)]
mod tests {
    use saddlepoint_core::test::assert_close;

    use super::*;

    #[test]
    fn ratios_weight_tokens_up_to_the_bound() {
        let policy = [-1.0, -2.0, -0.5];
        let sampled = [-1.5, -1.0, -2.5];
        let [a, b, c] = [f64::exp(0.5), f64::exp(-1.0), f64::exp(2.0)];
        for (mode, clip_max, expected, beyond) in [
            (CorrectionMode::TokenTruncate, 3.0, [a, b, 3.0], 1.0 / 3.0),
            (CorrectionMode::TokenMask, 3.0, [a, b, 0.0], 1.0 / 3.0),
            (CorrectionMode::TokenMask, 8.0, [a, b, c], 0.0),
            (CorrectionMode::SequenceTruncate, 5.0, [a * b * c; 3], 0.0),
            (CorrectionMode::SequenceTruncate, 3.0, [3.0; 3], 1.0),
            (CorrectionMode::SequenceMask, 3.0, [0.0; 3], 1.0),
        ] {
            let mut seen = Weighted::default();
            let weights = Correction { mode, clip_max }.weights(&policy, &sampled, &mut seen);
            assert_close!(weights, expected, rtol = 1e-12);
            let means = seen.means();
            assert_eq!(means[3].0, "sampling/importance_sampling_ratio/beyond");
            assert_close!([means[3].1], [beyond], rtol = 1e-12);
            let of_each = expected.iter().sum::<f64>() / 3.0;
            assert_close!([means[1].1], [of_each], rtol = 1e-12);
        }
        assert!(Weighted::default().means().is_empty());
    }

    /// Over all completions of two tokens the weighted mean under `q` is the mean under `p`.
    #[test]
    fn the_mean_is_that_of_the_policy() {
        let p = [0.6, 0.4, 0.3, 0.7, 0.9, 0.1];
        let q = [0.5, 0.5, 0.35, 0.65, 0.8, 0.2];
        let value = |first: usize, second: usize| 1.0 + 3.0 * first as f64 - 2.0 * (first * second) as f64;
        let correction = Correction { mode: CorrectionMode::SequenceTruncate, clip_max: 10.0 };
        let (mut exact, mut weighted) = (0.0, 0.0);
        for first in 0..2 {
            for second in 0..2 {
                let logs = |of: &[f64; 6]| [of[first].ln(), of[2 + 2 * first + second].ln()];
                let [of_p, of_q] = [logs(&p), logs(&q)];
                let weights = correction.weights(&of_p, &of_q, &mut Weighted::default());
                exact += (of_p[0] + of_p[1]).exp() * value(first, second);
                weighted += (of_q[0] + of_q[1]).exp() * weights[0] * value(first, second);
            }
        }
        assert_close!([weighted], [exact], rtol = 1e-12);
    }
}
