//! Reward modelling: a score of completions by which the better one of a pair is the more probable choice.
//!
//! # Objective
//! ```text
//! L(θ) = E [ − ln σ(r⁺ − r⁻ − m) + c (r⁺ + r⁻)² + (λ/2) (r⁺² + r⁻²) ]
//! r = w · h(x, y):  h the last hidden state of the sequence's last token, w the only row of `score.weight`
//! ```
//! The model of Bradley and Terry, in which `y⁺` is preferred with probability `σ(r⁺ − r⁻)`; it says nothing about the sum of
//! the two scores, which the second term draws to 0. With a share `ε` of wrong preferences the scores of a true gap `g`
//! come to differ by `logit( (1 − ε) σ(g) + ε σ(−g) )` only. The last token is the last one that is not the padding token, where
//! transformers looks as well: a model that pads with its end token is read right before it.
//! # Parameters
//! | name | symbol | default | range | meaning |
//! |------|--------|---------|-------|---------|
//! | center_rewards_coefficient | c | 0 | ≥ 0 | pull of the sum of a pair's scores to 0; 0.01 is usual |
//! | score_l2_reg | λ | 0 | ≥ 0 | pull of every score to 0 |
//!
//! The margin `m` of a pair is its record's column `margin`; 0 without it.
//! # Metrics
//! `loss` nats a pair · `accuracy` share of pairs with r⁺ > r⁻ · `margin` mean r⁺ − r⁻ · `mean_reward` mean score
//! # Reference
//! Ouyang et al. 2022, arXiv:2203.02155, eq. 1; c: Eisenstein et al. 2023, arXiv:2312.09244, eq. 2; m: Touvron et al. 2023,
//! arXiv:2307.09288, eq. 2; λ and ensembles: Coste et al. 2024, arXiv:2310.02743.
//! # Differences
//! TRL has no `score_l2_reg`, and its `min_reward` and `max_reward` are not here: they are no means. Pairs that are too long
//! are cut or left out as `data.truncation_mode` says; TRL leaves them out.
//! # Checked against
//! TRL 1.16 (`tests/golden/reward.json`), closed forms of the loss and of the shrinking by wrong preferences, finite
//! differences.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::pairs::{refuse, sigmoid_loss};
use super::{Family, Input, Meta, Method, Per, Status, Sums, View};
use crate::Result;
use crate::engine::{Cotangent, Readout, Want};

/// This method's row in the table of methods.
pub const META: Meta = Meta {
    name: "reward",
    family: Family::Preferences,
    input: Input::ScoredPairs,
    paper: "arXiv:2203.02155",
    status: Status::Stable,
    slug: Some("reward-ensembles"),
    summary: "A reward model: scores by which the better completion of a pair is the more probable choice",
    learning_rate: 1e-4,
};

/// Settings. The checks are in [`Reward::new`].
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RewardConfig {
    /// Pull of the sum of a pair's scores to 0, >= 0. 0.01 is usual.
    pub center_rewards_coefficient: f64,
    /// Pull of every score to 0, >= 0: half of it times the square is added to the loss.
    pub score_l2_reg: f64,
}

/// The method.
#[derive(Debug, Clone)]
pub struct Reward {
    config: RewardConfig,
}

/// The loss of a pair of scores and its derivatives by the better and the worse one.
fn pair_loss([better, worse]: [f64; 2], margin: f64, config: &RewardConfig) -> (f64, [f64; 2]) {
    let RewardConfig { center_rewards_coefficient: center, score_l2_reg: l2 } = config;
    let (value, slope) = sigmoid_loss(better - worse - margin, 0.0);
    let sum = better + worse;
    let value = value + center * sum * sum + 0.5 * l2 * (better * better + worse * worse);
    (value, [slope + 2.0 * center * sum + l2 * better, -slope + 2.0 * center * sum + l2 * worse])
}

impl Reward {
    /// Checks the settings.
    ///
    /// # Errors
    /// One is outside its range.
    pub fn new(config: RewardConfig) -> Result<Self> {
        let RewardConfig { center_rewards_coefficient, score_l2_reg } = config;
        for (key, value) in
            [("center_rewards_coefficient", center_rewards_coefficient), ("score_l2_reg", score_l2_reg)]
        {
            if !(value >= 0.0 && value.is_finite()) {
                refuse(key, format!("must be >= 0, got {value} (default 0)"))?;
            }
        }
        Ok(Self { config })
    }
}

impl Method for Reward {
    fn meta(&self) -> &'static Meta {
        &META
    }

    fn want(&self) -> Want {
        Want { score: true, ..Want::default() }
    }

    fn readout(&self) -> Readout {
        Readout::Score
    }

    fn loss(&self, view: &View, out: &mut Cotangent) -> Sums {
        out.score.resize(view.stats.score.len(), 0.0);
        let mut sums = Sums::default();
        for (i, pair) in view.pairs().enumerate() {
            let scores = pair.totals(&view.stats.score);
            let margin = view.margins.get(i).copied().unwrap_or(0.0);
            let (value, slopes) = pair_loss(scores, margin, &self.config);
            pair.spread(slopes.map(|slope| slope / view.norm.pairs as f64), &mut out.score);
            sums.add("loss", value, Per::Pair);
            sums.add("accuracy", f64::from(scores[0] > scores[1]), Per::Pair);
            sums.add("margin", scores[0] - scores[1], Per::Pair);
            sums.add("mean_reward", scores[0] + scores[1], Per::Sequence);
        }
        sums
    }
}

#[cfg(test)]
mod tests {
    use saddlepoint_core::test::assert_close;

    use super::*;

    #[test]
    fn values_of_the_pairwise_loss() {
        let plain = RewardConfig::default();
        let pulled = RewardConfig { score_l2_reg: 0.001, ..RewardConfig::default() };
        let values = [&plain, &pulled].map(|config| pair_loss([1.3, 0.4], 0.0, config).0);
        assert_close!(values, [0.341_153_874_732, 0.342_078_874_732], rtol = 1e-11);
        let asked = pair_loss([1.3, 0.4], 0.9, &plain).0;
        assert_close!([asked], [2.0_f64.ln()], rtol = 1e-14);
    }

    #[test]
    fn wrong_preferences_shrink_the_gap_that_is_learned() {
        let sigmoid = |x: f64| 1.0 / (1.0 + (-x).exp());
        let mut found = Vec::new();
        for gap in [1.0, 3.0] {
            let right = 0.75 * sigmoid(gap) + 0.25 * sigmoid(-gap);
            // The minimum of the expected loss by Newton's method on its derivative.
            let mut h: f64 = 0.0;
            for _ in 0..50 {
                let slope = |h: f64| {
                    let [of_right, of_wrong] =
                        [h, -h].map(|h| pair_loss([h, 0.0], 0.0, &RewardConfig::default()).1[0]);
                    right * of_right - (1.0 - right) * of_wrong
                };
                let curvature = (slope(h + 1e-5) - slope(h - 1e-5)) / 2e-5;
                h -= slope(h) / curvature;
            }
            found.extend([right, h]);
        }
        assert_close!(
            found,
            [0.615_529_289_315, 0.470_614_919_734, 0.726_287_063_411, 0.975_865_460_313],
            rtol = 1e-9
        );
    }

    #[test]
    fn settings_outside_their_range_are_refused() {
        let told = |config| Reward::new(config).expect_err("refused").to_string();
        assert_eq!(
            told(RewardConfig { center_rewards_coefficient: -1.0, ..RewardConfig::default() }),
            "method.center_rewards_coefficient: must be >= 0, got -1 (default 0)"
        );
        assert_eq!(
            told(RewardConfig { score_l2_reg: f64::NAN, ..RewardConfig::default() }),
            "method.score_l2_reg: must be >= 0, got NaN (default 0)"
        );
    }
}
