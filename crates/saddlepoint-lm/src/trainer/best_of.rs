//! Best of `N`: what choosing the best of `N` samples of the reference reaches, and how far from it that is.
//!
//! With a rule that says right or wrong, a prompt on which a sample is right with probability `p` is answered right with
//! `P = 1 − (1 − p)^N`. The policy that chooses (at random among equals) has the reference's distribution among the right
//! and among the wrong samples, so its divergence is exactly that of the two shares:
//! ```text
//! KL = P ln(P/p) + (1 − P) ln((1 − P)/(1 − p)) <= ln N − (N − 1)/N
//! ```
//! The bound is what is usually drawn in its place (Beirami et al. 2024, arXiv:2401.01879); it is reached where all rewards
//! differ.

use rand_chacha::rand_core::Rng;
use saddlepoint_core::interval::Mean;
use saddlepoint_core::seed::Seed;
use serde::Serialize;

use super::example::Asked;
use super::job::Job;
use super::sampling::Sampling;
use crate::data::generate::GenerateConfig;
use crate::reward::best_of_n;
use crate::{Error, Result};

/// The best of `n` samples, as a mean over prompts.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct BestOf {
    /// How many are drawn.
    pub n: usize,
    /// Share of prompts answered right; unbiased.
    pub reward: f64,
    /// 95 % interval over prompts.
    pub interval: [f64; 2],
    /// KL divergence of choosing from not choosing, nats a sequence, with each prompt's share of right samples in the
    /// place of its probability (so it is 0 where all or none were right, and somewhat too low).
    pub divergence: f64,
    /// `ln n − (n − 1)/n`, nats a sequence.
    pub bound: f64,
}

impl Job {
    /// The best of 1, 2, 4, ... up to `samples` samples of the policy as it is before training, at temperature 1 on the
    /// prompts on which a run is measured. None where no rule says what is right.
    ///
    /// # Errors
    /// The model cannot be read; `samples` is 0.
    pub fn best_of(&self, samples: usize) -> Result<Option<Vec<BestOf>>> {
        if samples == 0 {
            let problem = "must be at least 1, got 0".to_owned();
            return Err(Error::Config { key: "samples".to_owned(), problem });
        }
        let Some(task) = self.recipe.data.generate.as_ref().and_then(GenerateConfig::rule) else {
            return Ok(None);
        };
        let policy = self.policy(self.setup(None))?;
        let prompts = Asked::ids(&self.sampled_prompts().0);
        let (max_new_tokens, stop) = (self.sample_length(), self.codec.eos.clone());
        let sampling = Sampling { samples, max_new_tokens, stop, room: (0, 0) };
        let seed = Seed::new(self.recipe.train.seed).stream("best-of/samples", &[]).next_u64();
        let seed = Seed::new(seed);
        let mut right = vec![0; prompts.len()];
        for drawn in sampling.draw(&policy, &prompts, seed)? {
            let [prompt, said] =
                [prompts[drawn.prompt], &drawn.ids].map(|ids| self.codec.tokenizer.decode(ids));
            right[drawn.prompt] += usize::from(!drawn.cut && task.verify(&prompt, &said));
        }
        let sizes = best_of_n::sizes(samples);
        Ok(Some(sizes.map(|n| best_of(&right, samples, n)).collect()))
    }
}

/// From how many of `samples` samples were right for each prompt.
fn best_of(right: &[usize], samples: usize, n: usize) -> BestOf {
    let rewards: Vec<f64> = right.iter().map(|&right| reached(right, samples, n)).collect();
    let Mean { value: reward, interval } = Mean::of(&rewards);
    let divergences = right.iter().map(|&right| divergence(right as f64 / samples as f64, n));
    let divergence = divergences.sum::<f64>() / right.len() as f64;
    let bound = best_of_n::divergence(n);
    BestOf { n, reward, interval, divergence, bound }
}

/// The unbiased estimate of `1 − (1 − p)^n`: the share of draws of `n` out of `samples` samples with a right one.
fn reached(right: usize, samples: usize, n: usize) -> f64 {
    let wrong = samples - right;
    1.0 - (0..n).map(|i| wrong.saturating_sub(i) as f64 / (samples - i) as f64).product::<f64>()
}

/// The divergence where a sample is right with probability `p`.
fn divergence(p: f64, n: usize) -> f64 {
    let missed = (1.0 - p).powi(n as i32);
    let term = |a: f64, b: f64| if a > 0.0 { a * (a / b).ln() } else { 0.0 };
    term(1.0 - missed, p) + term(missed, 1.0 - p)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_estimate_has_the_mean_that_it_estimates() {
        let (samples, p) = (7, 0.3_f64);
        let binomial = |right: usize| {
            let ways = (0..right).map(|i| (samples - i) as f64 / (i + 1) as f64).product::<f64>();
            ways * p.powi(right as i32) * (1.0 - p).powi((samples - right) as i32)
        };
        for n in 1..=samples {
            let mean: f64 = (0..=samples).map(|right| binomial(right) * reached(right, samples, n)).sum();
            let exact = 1.0 - (1.0 - p).powi(n as i32);
            assert!((mean - exact).abs() < 1e-12, "best of {n}: {mean} for {exact}");
        }
    }

    #[test]
    fn the_divergence_is_that_of_the_policy_that_chooses() {
        // Three answers, the first two right; choosing the best of two at random among equals, by enumeration.
        let reference = [0.2_f64, 0.1, 0.7];
        let mut chosen = [0.0; 3];
        for (i, a) in reference.iter().enumerate() {
            for (j, b) in reference.iter().enumerate() {
                let share = match (i < 2, j < 2) {
                    (true, false) => [1.0, 0.0],
                    (false, true) => [0.0, 1.0],
                    _ => [0.5, 0.5],
                };
                chosen[i] += share[0] * a * b;
                chosen[j] += share[1] * a * b;
            }
        }
        let exact: f64 = chosen.iter().zip(reference).map(|(p, q)| p * (p / q).ln()).sum();
        assert!((divergence(0.3, 2) - exact).abs() < 1e-12);
        for nothing in [divergence(0.0, 4), divergence(1.0, 4), divergence(0.4, 1)] {
            assert!(nothing.abs() < 1e-15, "{nothing}");
        }
        for n in [2, 8, 64] {
            let bound = best_of(&[1, 2], 64, n).bound;
            assert!((1..100).all(|p| divergence(f64::from(p) / 100.0, n) <= bound), "{n}");
        }
    }
}
