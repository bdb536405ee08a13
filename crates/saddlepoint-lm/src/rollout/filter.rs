//! Difficulty filtering: prompts that the policy always or never answers right teach nothing, so others take their place.
//!
//! A prompt is kept if the share of its completions that are right lies within a band, `low <= k/G <= high`, measured on the
//! completions of the round itself. Around 1/2 is where a policy can learn most: with rewards of 0 and 1 and success rate `p`
//! the KL of the best policy under a penalty β from the one now is at least `p (1 − p) (s − 1 + e^{−s})`, `s = 1/β`.
//! Prompts are sampled, in the order of the epochs, until the round is full; what it cost is reported beside what it gave.
//!
//! Source: Bae et al. 2025, arXiv:2504.03380; 0 < k/G < 1 is the dynamic sampling of DAPO, arXiv:2503.14476.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::config::refused;
use crate::Result;

/// Which prompts of a round are kept.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct FilterConfig {
    /// Least share of right completions (those with a reward of 1), in [0, 1].
    pub low: f64,
    /// Largest, in [low, 1].
    pub high: f64,
    /// The reward that says what is right, by its name in metrics. Without it the sum of all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reward: Option<String>,
    /// Most prompts sampled for a round, as a multiple of those that it has. What is then missing is filled with prompts outside
    /// the band, in the order in which they came, first those with right and wrong completions.
    pub max_attempts: usize,
}

impl Default for FilterConfig {
    fn default() -> Self {
        Self { low: 0.2, high: 0.8, reward: None, max_attempts: 10 }
    }
}

/// Shares of right completions are compared up to rounding.
const TOLERANCE: f64 = 1e-9;

impl FilterConfig {
    /// Checks the ranges.
    ///
    /// # Errors
    /// A setting is outside its range, or no share of `num_generations` lies within the band.
    pub fn check(&self, num_generations: usize) -> Result<()> {
        let Self { low, high, max_attempts, .. } = *self;
        if !(0.0..=1.0).contains(&low) || !(low..=1.0).contains(&high) {
            let problem =
                format!("must have 0 <= low <= high <= 1, got {low} and {high} (default 0.2 and 0.8)");
            return Err(refused("filter", problem));
        }
        if max_attempts == 0 {
            return Err(refused("filter.max_attempts", "must be at least 1, got 0 (default 10)".to_owned()));
        }
        if !(0..=num_generations).any(|k| self.keeps(k, num_generations)) {
            let problem =
                format!("no share of {num_generations} completions lies from {low} to {high}: widen it");
            return Err(refused("filter", problem));
        }
        Ok(())
    }

    /// Whether a prompt is kept of whose `of` completions `right` were right.
    pub fn keeps(&self, right: usize, of: usize) -> bool {
        let share = right as f64 / of as f64;
        share >= self.low - TOLERANCE && share <= self.high + TOLERANCE
    }
}

/// Which prompts make up a round of `wanted`, in the order in which they were sampled. `right` has of each prompt how many of `of`
/// completions were right. `None` if more are to be sampled; with `last`, what is missing is filled.
pub fn chosen(
    config: &FilterConfig,
    right: &[usize],
    of: usize,
    wanted: usize,
    last: bool,
) -> Option<Vec<usize>> {
    let mut chosen: Vec<usize> = (0..right.len()).filter(|&i| config.keeps(right[i], of)).collect();
    chosen.truncate(wanted);
    if chosen.len() < wanted && !last {
        return None;
    }
    for mixed in [true, false] {
        let outside = |&i: &usize| !config.keeps(right[i], of) && (right[i] > 0 && right[i] < of) == mixed;
        let missing = wanted - chosen.len();
        chosen.extend((0..right.len()).filter(outside).take(missing));
    }
    chosen.sort_unstable();
    Some(chosen)
}

#[cfg(test)]
mod tests {
    use saddlepoint_core::test::assert_close;

    use super::*;

    /// `(G over k) p^k (1 - p)^(G - k)` summed over the kept k: how often a prompt is accepted.
    fn acceptance(config: &FilterConfig, p: f64, of: usize) -> f64 {
        let ways = |k: usize| (0..k).map(|i| (of - i) as f64 / (i + 1) as f64).product::<f64>();
        (0..=of)
            .filter(|&k| config.keeps(k, of))
            .map(|k| ways(k) * p.powi(k as i32) * (1.0 - p).powi((of - k) as i32))
            .sum()
    }

    fn band(low: f64, high: f64) -> FilterConfig {
        FilterConfig { low, high, ..FilterConfig::default() }
    }

    #[test]
    fn acceptance_is_that_of_the_card() {
        // V4: G = 16; 0 < k/G < 1 as a band that leaves out the ends only.
        let inner = band(0.01, 0.99);
        for (p, balanced, mixed) in [
            (0.02, 0.000_240_133_066_294, 0.276_202_279_408),
            (0.1, 0.068_406_173_875_6, 0.814_697_981_115),
            (0.3, 0.754_110_534_938, 0.996_676_702_638),
            (0.5, 0.978_729_248_047, 0.999_969_482_422),
        ] {
            let got = [acceptance(&band(0.2, 0.8), p, 16), acceptance(&inner, p, 16)];
            assert_close!(got, [balanced, mixed], rtol = 1e-10);
            assert_close!([acceptance(&band(0.25, 0.75), p, 16)], [balanced], rtol = 1e-10);
        }
        let pool = |config: &FilterConfig| {
            [(0.5, 0.02), (0.3, 0.3), (0.2, 0.95)]
                .iter()
                .map(|&(share, p)| share * acceptance(config, p, 16))
                .sum::<f64>()
        };
        let means = [pool(&band(0.2, 0.8)), pool(&inner)];
        assert_close!(means, [0.227_754_008_546, 0.549_078_816_765], rtol = 1e-10);
        assert_close!(means.map(|mean| 64.0 / mean), [281.004_933_387, 116.558_858_302], rtol = 1e-9);
    }

    #[test]
    fn a_round_is_filled_in_the_order_of_sampling() {
        let config = band(0.25, 0.75);
        let right = [0, 2, 4, 1, 3, 2];
        assert_eq!(chosen(&config, &right, 4, 3, false), Some(vec![1, 3, 4]));
        assert_eq!(chosen(&config, &right[..3], 4, 2, false), None, "one of three is kept");
        let narrow = band(0.5, 0.5);
        assert_eq!(chosen(&narrow, &right, 4, 4, true), Some(vec![1, 3, 4, 5]), "mixed ones first");
        assert_eq!(chosen(&narrow, &right, 4, 5, true), Some(vec![0, 1, 3, 4, 5]));
    }

    #[test]
    fn settings_outside_their_range_are_refused() {
        let told = |config: FilterConfig| config.check(4).expect_err("refused").to_string();
        assert_eq!(
            told(band(0.8, 0.2)),
            "rollout.filter: must have 0 <= low <= high <= 1, got 0.8 and 0.2 (default 0.2 and 0.8)"
        );
        assert_eq!(
            told(band(0.3, 0.4)),
            "rollout.filter: no share of 4 completions lies from 0.3 to 0.4: widen it"
        );
    }
}
