//! DisCO: scores of right completions up, of wrong ones down, within a trust region around the policy that sampled them.
//!
//! # Objective
//! ```text
//! J(θ) = (1/Q) Σ_q [ mean_P s − S_N ]                 over prompts q with right (P) and wrong (N) completions; Q counts all
//! S_N  = τ ln mean_N e^{s/τ} (dro)                    or mean_N s
//! s    = (1/T) Σ_t e^{d_t} (l_ratio)                  or (1/T) Σ_t ln π(y_t|x, y_<t) (log_l)
//! L(θ) = −J + (β₀/2) max(0, K − δ)²                   d_t = ln π(y_t|x, y_<t) − ln π_old(y_t|x, y_<t)
//! K    = mean over tokens of −d_t (kl)                or of e^{d_t} − d_t − 1 (low_var_kl)
//! ```
//! Right is a reward of 1, wrong one of 0; another reward is neither. With advantages divided by their deviation the objective of
//! GRPO without clip is that of `dro = false` with weight `sqrt(p (1 − p))` for a prompt that is answered right with probability
//! `p`; here every prompt has the same weight. `S_N` with `dro` pushes down the wrong completions of the largest scores: `τ → ∞`
//! is the mean, `τ → 0` the largest.
//! # Parameters
//! | name | symbol | default | range | meaning |
//! |------|--------|---------|-------|---------|
//! | score | s | log_l | l_ratio, log_l | what is pushed up and down |
//! | dro | S_N | true | | soft maximum of the wrong scores instead of their mean |
//! | tau | τ | 10 for log_l, 1 for l_ratio | > 0 | its temperature |
//! | kl_estimator | K | kl | kl, low_var_kl | how the distance from the old policy is estimated; `kl` may be negative by chance |
//! | delta | δ | 1e-4 | ≥ 0 | radius of the trust region, nats a token |
//! | beta0 | β₀ | 1e3 | ≥ 0 | weight of what goes beyond it |
//!
//! The trust region is around the policy that sampled, which the first step of a round starts from: `K` is 0 there, so it takes
//! `rollout.steps_per_generation` (the authors: 4) or `rollout.num_iterations` above one for it to act. `[tether]` adds the exact
//! divergence from the reference, which is another constraint.
//! # Metrics
//! `loss` · `disco/objective` the value `J` · `disco/penalty` `c K` with `c = β₀ max(0, K − δ)`, by which the authors report it ·
//! `disco/kl` the value `K` · `disco/violated` 1 if `K > δ` · `disco/valid` share of prompts with right and wrong completions ·
//! `disco/clamped` share of tokens with `d_t > 20`, whose ratio is held there · `entropy` nats a token.
//! # Reference
//! Li et al. 2025, arXiv:2505.12366; the factor 1/2 is that of the authors' program.
//! # Differences
//! Their program reports another value for `S_N` (the derivative is the same), and `c K` in the place of the squared hinge, whose
//! derivative is what it follows.
//! # Checked against
//! published vectors, PyTorch's derivative (`tests/golden/disco.json`), finite differences, the limits of τ.

use std::ops::Range;

use saddlepoint_opt::divergence::Estimator;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::pairs::{positive, refuse};
use super::{Family, Input, Meta, Method, OnPolicy, Per, Rewarded, Status, Sums, View};
use crate::Result;
use crate::engine::{Cotangent, Want};

/// This method's row in the table of methods.
pub const META: Meta = Meta {
    name: "disco",
    family: Family::Rewards,
    input: Input::Prompts,
    paper: "arXiv:2505.12366",
    status: Status::Preview,
    slug: Some("disco"),
    summary: "Scores of right completions above those of wrong ones, in a trust region instead of a clip",
    learning_rate: 2e-6,
};

/// Settings. The checks are in [`Disco::new`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct DiscoConfig {
    /// What is pushed up and down.
    pub score: Score,
    /// Push down a soft maximum of the wrong scores instead of their mean.
    pub dro: bool,
    /// Temperature of the soft maximum, > 0. Without it 10 for `log_l` and 1 for `l_ratio`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tau: Option<f64>,
    /// How the distance from the policy that sampled is estimated.
    pub kl_estimator: KlEstimator,
    /// Radius of the trust region, nats a token, >= 0.
    pub delta: f64,
    /// Weight of what goes beyond it, >= 0.
    pub beta0: f64,
}

/// What is pushed up and down.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Score {
    /// The mean ratio of new to old probability.
    LRatio,
    /// The mean log-probability.
    LogL,
}

/// Estimates of the KL of the policy from the one that sampled; the names are verl's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum KlEstimator {
    /// The log-ratio.
    Kl,
    /// With a control variate, never negative.
    LowVarKl,
}

impl Default for DiscoConfig {
    fn default() -> Self {
        Self {
            score: Score::LogL,
            dro: true,
            tau: None,
            kl_estimator: KlEstimator::Kl,
            delta: 1e-4,
            beta0: 1e3,
        }
    }
}

/// Log-ratios beyond it are held there, so that no ratio overflows.
const MOST: f64 = 20.0;

/// The method.
#[derive(Debug, Clone)]
pub struct Disco {
    config: DiscoConfig,
    tau: f64,
}

impl Disco {
    /// Checks the settings.
    ///
    /// # Errors
    /// One is outside its range.
    pub fn new(config: DiscoConfig) -> Result<Self> {
        let default = match config.score {
            Score::LRatio => 1.0,
            Score::LogL => 10.0,
        };
        let tau = config.tau.unwrap_or(default);
        positive("tau", tau, default)?;
        for (key, value, default) in [("delta", config.delta, 1e-4), ("beta0", config.beta0, 1e3)] {
            if !(value >= 0.0 && value.is_finite()) {
                refuse(key, format!("must be >= 0, got {value} (default {default:e})"))?;
            }
        }
        Ok(Self { config, tau })
    }

    /// The score of a completion and its derivative by each log-probability.
    fn score(&self, logp: &[f64], log_ratios: &[f64]) -> (f64, Vec<f64>) {
        let tokens = logp.len() as f64;
        match self.config.score {
            Score::LogL => (logp.iter().sum::<f64>() / tokens, vec![1.0 / tokens; logp.len()]),
            Score::LRatio => {
                let ratios = || log_ratios.iter().map(|&d| d.min(MOST).exp() / tokens);
                let slopes = ratios().zip(log_ratios).map(|(ratio, &d)| if d > MOST { 0.0 } else { ratio });
                (ratios().sum(), slopes.collect())
            }
        }
    }

    /// What is taken for the wrong scores, and its derivative by each: weights that add up to 1.
    fn wrong(&self, scores: &[f64]) -> (f64, Vec<f64>) {
        let count = scores.len() as f64;
        if !self.config.dro {
            return (scores.iter().sum::<f64>() / count, vec![1.0 / count; scores.len()]);
        }
        let most = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let terms: Vec<f64> = scores.iter().map(|s| ((s - most) / self.tau).exp()).collect();
        let sum: f64 = terms.iter().sum();
        (most + self.tau * (sum / count).ln(), terms.iter().map(|term| term / sum).collect())
    }

    /// The distance of a token and its derivative by its log-probability.
    fn distance(&self, d: f64) -> (f64, f64) {
        match self.config.kl_estimator {
            KlEstimator::Kl => (-d, -1.0),
            // k3 of the policy that sampled from the one that is trained.
            KlEstimator::LowVarKl => (Estimator::K3.value(-d, 0.0), d.exp() - 1.0),
        }
    }
}

/// A completion from which something is learned.
struct Scored {
    rows: Range<usize>,
    log_ratios: Vec<f64>,
    right: Option<bool>,
    score: f64,
    slopes: Vec<f64>,
}

impl Method for Disco {
    fn meta(&self) -> &'static Meta {
        &META
    }

    fn want(&self) -> Want {
        Want { entropy: true, ..Want::default() }
    }

    fn couples(&self) -> bool {
        true
    }

    fn on_policy(&self) -> Option<OnPolicy> {
        Some(OnPolicy {
            num_generations: 8,
            fewest: 2,
            corrects: true,
            kl_in_reward: false,
            whole_groups: true,
        })
    }

    /// 1 for right, -1 for wrong, 0 for what is neither.
    fn advantages(&self, rewarded: &Rewarded) -> Vec<Option<f64>> {
        let side = |reward: &Option<f64>| {
            reward.map(|reward| right(reward).map_or(0.0, |r| if r { 1.0 } else { -1.0 }))
        };
        rewarded.rewards.iter().map(side).collect()
    }

    fn loss(&self, view: &View, out: &mut Cotangent) -> Sums {
        out.logp.resize(view.stats.logp.len(), 0.0);
        let mut sums = Sums::default();
        let mut groups: Vec<(usize, Vec<Scored>)> = Vec::new();
        for (rows, judged) in view.judged() {
            if groups.last().is_none_or(|(group, _)| *group != judged.group) {
                groups.push((judged.group, Vec::new()));
            }
            if judged.advantage.is_none() {
                continue;
            }
            let log_ratios = view.log_ratios(rows, judged);
            let (score, slopes) = self.score(&view.stats.logp[rows.clone()], &log_ratios);
            let scored = Scored {
                rows: rows.clone(),
                log_ratios,
                right: judged.reward.and_then(right),
                score,
                slopes,
            };
            view.report_entropy(rows, &mut sums);
            groups.last_mut().expect("just pushed").1.push(scored);
        }

        let (prompts, mut objective) = (groups.len() as f64, 0.0);
        for (_, scored) in &groups {
            let of = |side| scored.iter().filter(move |scored| scored.right == Some(side));
            let valid = of(true).next().is_some() && of(false).next().is_some();
            sums.add("disco/valid", f64::from(valid), Per::Count(1));
            if !valid {
                continue;
            }
            let each = 1.0 / of(true).count() as f64;
            let (wrong, weights) = self.wrong(&of(false).map(|scored| scored.score).collect::<Vec<_>>());
            objective += (of(true).map(|scored| scored.score).sum::<f64>() * each - wrong) / prompts;
            let mut pull = |scored: &Scored, weight: f64| {
                for (row, slope) in scored.rows.clone().zip(&scored.slopes) {
                    out.logp[row] -= weight * slope / prompts;
                }
            };
            of(true).for_each(|scored| pull(scored, each));
            of(false).zip(weights).for_each(|(scored, weight)| pull(scored, -weight));
        }

        let all = || groups.iter().flat_map(|(_, scored)| scored);
        let tokens = all().map(|scored| scored.rows.len()).sum::<usize>();
        let (mut kl, mut clamped) = (0.0, 0);
        for &d in all().flat_map(|scored| &scored.log_ratios) {
            kl += self.distance(d).0 / tokens as f64;
            clamped += usize::from(d > MOST);
        }
        let beyond = (kl - self.config.delta).max(0.0);
        let c = self.config.beta0 * beyond;
        for scored in all() {
            for (row, &d) in scored.rows.clone().zip(&scored.log_ratios) {
                out.logp[row] += c * self.distance(d).1 / tokens as f64;
            }
        }
        sums.add("loss", 0.5 * c * beyond - objective, Per::Count(1));
        sums.add("disco/objective", objective, Per::Count(1));
        sums.add("disco/penalty", c * kl, Per::Count(1));
        sums.add("disco/kl", kl, Per::Count(1));
        sums.add("disco/violated", f64::from(kl > self.config.delta), Per::Count(1));
        if self.config.score == Score::LRatio && tokens > 0 {
            sums.add("disco/clamped", clamped as f64, Per::Count(tokens));
        }
        sums
    }
}

/// Whether a reward says right or wrong; nothing if it is neither 1 nor 0.
fn right(reward: f64) -> Option<bool> {
    let is = |value: f64| (reward - value).abs() < 1e-9;
    if is(1.0) { Some(true) } else { is(0.0).then_some(false) }
}

#[cfg(test)]
mod tests {
    use saddlepoint_core::test::assert_close;

    use super::super::{Judged, Norm, Rollout};
    use super::*;
    use crate::engine::Stats;

    /// `(reward, group)` of each completion, and its log-probabilities now and when it was sampled.
    struct Case {
        judged: Vec<(f64, usize)>,
        logp: Vec<Vec<f64>>,
        old: Vec<Vec<f64>>,
    }

    impl Case {
        /// V1 of the card.
        fn first() -> Self {
            Self {
                judged: vec![(1.0, 0), (0.0, 0), (0.0, 0), (1.0, 0)],
                logp: vec![vec![-0.5, -1.0], vec![-0.8, -0.3, -1.2], vec![-2.0], vec![-0.1, -0.7]],
                old: vec![vec![-0.6, -0.9], vec![-0.7, -0.4, -1.2], vec![-1.8], vec![-0.15, -0.65]],
            }
        }

        /// The means of metrics and the derivative.
        fn loss(&self, config: DiscoConfig) -> (Vec<(&'static str, f64)>, Vec<f64>) {
            let mut sequences = Vec::new();
            for rows in &self.logp {
                let from = sequences.last().map_or(0, |last: &Range<usize>| last.end);
                sequences.push(from..from + rows.len());
            }
            let logp = self.logp.concat();
            let stats = Stats { entropy: vec![0.0; logp.len()], logp, ..Stats::default() };
            let completions: Vec<Judged> = (self.judged.iter().zip(&self.old))
                .map(|(&(reward, group), old_logp)| Judged {
                    old_logp,
                    advantage: Some(0.0),
                    credit: None,
                    reward: Some(reward),
                    group,
                })
                .collect();
            let norm = Norm { tokens: stats.logp.len(), sequences: sequences.len(), ..Norm::default() };
            let rollout =
                Rollout { completions: &completions, max_completion_length: 9, step: 0, tokens_a_step: 1.0 };
            let view = View { rollout: Some(rollout), ..View::new(&sequences, &stats, norm) };
            let mut out = Cotangent::default();
            let means = Disco::new(config).expect("valid").loss(&view, &mut out).means(norm);
            (means, out.logp)
        }
    }

    fn get(means: &[(&'static str, f64)], name: &str) -> f64 {
        means.iter().find(|(known, _)| *known == name).expect("a metric").1
    }

    /// The loss as the authors report it.
    fn reported(means: &[(&'static str, f64)]) -> f64 {
        get(means, "disco/penalty") - get(means, "disco/objective")
    }

    fn config(score: Score, dro: bool) -> DiscoConfig {
        DiscoConfig { score, dro, ..DiscoConfig::default() }
    }

    #[test]
    fn the_vectors_of_the_card() {
        let case = Case::first();
        let (means, _) = case.loss(config(Score::LRatio, false));
        assert_close!([get(&means, "disco/kl")], [0.025], rtol = 1e-12);
        assert_close!(
            [get(&means, "disco/objective"), reported(&means)],
            [0.092_093_781_689_49, 0.530_406_218_310_51],
            rtol = 1e-12
        );

        let (means, slopes) = case.loss(config(Score::LRatio, true));
        assert_close!(
            [get(&means, "disco/objective"), reported(&means)],
            [0.087_839_924_556_83, 0.534_660_075_443_17],
            rtol = 1e-12
        );
        let expected = [
            -3.388_792_729_519,
            -3.338_709_354_509,
            -2.947_813_340_997,
            -2.911_351_260_461,
            -2.930_493_093_875,
            -2.740_813_200_874,
            -3.375_317_774_094,
            -3.350_307_356_126,
        ];
        assert_close!(slopes, expected, rtol = 1e-12);

        let low = DiscoConfig { kl_estimator: KlEstimator::LowVarKl, ..config(Score::LRatio, true) };
        let (means, _) = case.loss(low);
        assert_close!(
            [get(&means, "disco/kl"), reported(&means)],
            [0.005_155_993_272_24, -0.061_771_257_260_65],
            rtol = 1e-10
        );

        let (means, slopes) = case.loss(config(Score::LogL, false));
        assert_close!(
            [get(&means, "disco/objective"), reported(&means)],
            [0.808_333_333_333_33, -0.185_833_333_333_33],
            rtol = 1e-12
        );
        let expected =
            [[-3.3625; 2].as_slice(), &[-2.945_833_333_333_33; 3], &[-2.6125], &[-3.3625; 2]].concat();
        assert_close!(slopes, expected, rtol = 1e-12);

        let (means, slopes) = case.loss(config(Score::LogL, true));
        assert_close!(
            [get(&means, "disco/objective"), reported(&means)],
            [0.789_331_483_170_35, -0.166_831_483_170_35],
            rtol = 1e-12
        );
        assert_close!(
            slopes[2..6],
            [[-2.935_568_563_803_9; 3].as_slice(), &[-2.643_294_308_588_293]].concat(),
            rtol = 1e-12
        );
    }

    #[test]
    fn one_wrong_completion_needs_no_soft_maximum() {
        // V2, without the penalty.
        let case = Case {
            judged: vec![(1.0, 0), (0.0, 0)],
            logp: vec![vec![-0.9], vec![-2.3]],
            old: vec![vec![-1.0], vec![-2.0]],
        };
        for tau in [0.1, 1.0, 100.0] {
            let config = DiscoConfig { tau: Some(tau), beta0: 0.0, ..config(Score::LRatio, true) };
            assert_close!(case.loss(config).1, [-1.105_170_918_075_6, 0.740_818_220_681_8], rtol = 1e-12);
        }
    }

    #[test]
    fn soft_maxima_and_their_weights() {
        // V3.
        let scores = [0.9, 1.1, 1.4];
        let at = |tau| {
            Disco::new(DiscoConfig { tau: Some(tau), ..DiscoConfig::default() })
                .expect("valid")
                .wrong(&scores)
        };
        for (tau, expected) in [
            (0.05, 1.345_195_434_155_85),
            (0.5, 1.175_994_006_678_27),
            (1.0, 1.154_674_266_661_14),
            (10.0, 1.135_447_789_277_22),
            (1000.0, 1.133_354_444_789_95),
        ] {
            assert_close!([at(tau).0], [expected], rtol = 1e-12);
        }
        assert_close!(
            at(1.0).1,
            [0.258_389_651_737_98, 0.315_597_833_312_81, 0.426_012_514_949_21],
            rtol = 1e-12
        );
        assert!((at(1e-3).0 - (1.4 - 1e-3 * 3.0_f64.ln())).abs() < 1e-12, "the largest");
    }

    #[test]
    fn prompts_without_a_difference_dilute_and_order_does_not_matter() {
        let free = |score| DiscoConfig { beta0: 0.0, ..config(score, true) };
        let case = Case::first();
        let (means, slopes) = case.loss(free(Score::LogL));
        let mut more = Case::first();
        more.judged.push((1.0, 1));
        more.logp.push(vec![-0.2]);
        more.old.push(vec![-0.2]);
        let (halved, of_more) = more.loss(free(Score::LogL));
        assert_close!([get(&halved, "loss")], [get(&means, "loss") / 2.0], rtol = 1e-12);
        assert_close!(of_more[..8], slopes.iter().map(|s| s / 2.0).collect::<Vec<_>>(), rtol = 1e-12);
        assert_eq!((of_more[8], get(&halved, "disco/valid")), (0.0, 0.5));

        let mut turned = Case::first();
        turned.judged.reverse();
        turned.logp.reverse();
        turned.old.reverse();
        assert_close!(
            [get(&turned.loss(free(Score::LRatio)).0, "loss")],
            [get(&case.loss(free(Score::LRatio)).0, "loss")],
            rtol = 1e-12
        );
        // At the border of the trust region the penalty and its slope are 0.
        let border = DiscoConfig { delta: 0.025, ..config(Score::LogL, true) };
        assert_close!(case.loss(border).1, slopes, rtol = 1e-9);
    }

    #[test]
    fn the_objective_of_grpo_is_this_one_weighted() {
        // V4: advantages divided by the deviation of the population.
        let weighted = |rewards: [f64; 4], weight: f64| {
            let mut case = Case::first();
            case.judged = rewards.map(|reward| (reward, 0)).to_vec();
            weight * get(&case.loss(config(Score::LRatio, false)).0, "disco/objective")
        };
        assert_close!([weighted([1.0, 0.0, 0.0, 1.0], 0.5)], [0.046_046_890_844_75], rtol = 1e-11);
        assert_close!(
            [weighted([1.0, 0.0, 0.0, 0.0], (3.0_f64 / 16.0).sqrt())],
            [0.027_668_844_611_28],
            rtol = 1e-11
        );
    }

    #[test]
    fn rewards_that_are_neither_are_on_no_side() {
        let disco = Disco::new(DiscoConfig::default()).expect("valid");
        let rewards = [Some(1.0), Some(0.0), Some(0.5), None];
        let groups = std::slice::from_ref(&(0..4));
        let rewarded = Rewarded::new(groups, &rewards);
        assert_eq!(disco.advantages(&rewarded), [Some(1.0), Some(-1.0), Some(0.0), None]);
        let told = |config| Disco::new(config).expect_err("refused").to_string();
        assert_eq!(
            told(DiscoConfig { tau: Some(0.0), ..DiscoConfig::default() }),
            "method.tau: must be > 0, got 0 (default 10)"
        );
        assert_eq!(
            told(DiscoConfig { delta: -1.0, ..DiscoConfig::default() }),
            "method.delta: must be >= 0, got -1 (default 1e-4)"
        );
    }
}
