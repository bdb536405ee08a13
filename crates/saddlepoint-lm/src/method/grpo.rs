//! GRPO: a clipped policy gradient whose baseline is the group of completions of the same prompt.
//!
//! # Objective
//! ```text
//! L(θ) = Σ_i Σ_t c_i [ −min( w A_i, clip(w, 1 − ε, 1 + ε_high) A_i ) + β k3_t ]
//! w    = π(y_t|x, y_<t) / π_old(y_t|x, y_<t)                     importance_sampling_level = token
//! w    = ( π(y|x) / π_old(y|x) )^(1/T_i)                         sequence (GSPO): one for all tokens
//! k3_t = e^-l − 1 + l,   l = ln π(y_t|x, y_<t) − ln π₀(y_t|x, y_<t);   times w with use_bias_correction_kl
//! A_i  = (r_i − mean of the group) / (std + 1e-4)                std by scale_rewards: group, batch, none
//! ```
//! | loss_type | c_i |
//! |---|---|
//! | grpo | 1 / (N T_i): every completion the same |
//! | bnpo | 1 / tokens of the step |
//! | dr_grpo | 1 / (N max_completion_length): no preference for short wrong or long right completions |
//! | dapo | 1 / tokens of the round a step |
//!
//! `π_old` sampled the completions, `N` of them in a step, `T_i` tokens each. A step that uses them for the first time has
//! `w = 1`, but for rounding; `rollout.num_iterations` and `rollout.steps_per_generation` let several steps use them.
//! # Parameters
//! | name | symbol | default | range | meaning |
//! |------|--------|---------|-------|---------|
//! | loss_type | c | dapo | grpo, bnpo, dr_grpo, dapo | what the sum over tokens is divided by |
//! | importance_sampling_level | w | token | token, sequence | whether a token or its completion has a ratio |
//! | epsilon | ε | 0.2 | [0, 1] | how far a ratio may fall |
//! | epsilon_high | ε_high | epsilon | ≥ 0 | how far it may rise; DAPO has 0.28 |
//! | scale_rewards | | group | group, batch, none | by which standard deviation advantages are divided |
//! | beta | β | 0.0 | ≥ 0 | weight of the sampled KL; without effect under a tether |
//! | use_bias_correction_kl | | false | | multiply k3 by the ratio, which makes its gradient that of the reverse KL at each prefix |
//!
//! Under `[tether]` the sampled KL is left out, and the exact divergence of the completions' tokens is added to the loss with
//! the tether's coefficient, or with the multiplier of its budget.
//! # Metrics
//! `loss` · `entropy` nats a token · `clip_ratio/low_mean`, `clip_ratio/high_mean`, `clip_ratio/region_mean` share of tokens (of
//! completions with `sequence`) whose ratio is clipped · `kl` mean k3 a token, if β > 0. Those of rewards and completions are the
//! trainer's (`docs/on-policy.md`).
//! # Reference
//! Shao et al. 2024, arXiv:2402.03300, eq. 3; dapo and ε_high: Yu et al. 2025, arXiv:2503.14476; dr_grpo: Liu et al. 2025,
//! arXiv:2503.20783; sequence: Zheng et al. 2025, arXiv:2507.18071; bias correction: arXiv:2512.02556.
//! # Differences
//! TRL 1.16 has `use_bias_correction_kl = true`. Its bnpo divides by the tokens of each pass, here by those of the step,
//! so that the division into passes does not matter. A completion without a reward is left out like one that was masked,
//! while TRL gives it the advantage 0 and counts its tokens. `clip_ratio/low_min` and `clip_ratio/high_max` are not there. With
//! `reward.multi_objective_aggregation = "normalize_then_sum"` advantages are normalised over the round, as in TRL.
//! # Checked against
//! TRL 1.16's loss and PyTorch's derivative of it (`tests/golden/grpo.json`), finite differences, closed forms.

use saddlepoint_opt::divergence::Estimator;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::advantage::{self, Scale};
use super::clipped::{Clip, Clipped};
use super::pairs::refuse;
use super::{Family, Input, Meta, Method, OnPolicy, Per, Rewarded, Status, Sums, View};
use crate::Result;
use crate::engine::{Cotangent, Want};

/// This method's row in the table of methods.
pub const META: Meta = Meta {
    name: "grpo",
    family: Family::Rewards,
    input: Input::Prompts,
    paper: "arXiv:2402.03300",
    status: Status::Stable,
    slug: None,
    summary: "Clipped policy gradient with the group as baseline; also DAPO, Dr. GRPO, GSPO",
    learning_rate: 1e-6,
};

/// Settings. The checks are in [`Grpo::new`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct GrpoConfig {
    /// What the sum over tokens is divided by.
    pub loss_type: LossType,
    /// Whether a token or its whole completion has a ratio.
    pub importance_sampling_level: Level,
    /// How far a ratio may fall below 1, in [0, 1].
    pub epsilon: f64,
    /// How far it may rise above 1, >= 0. Without it, as `epsilon`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub epsilon_high: Option<f64>,
    /// By which standard deviation advantages are divided.
    pub scale_rewards: Scale,
    /// Weight of the sampled KL (k3), >= 0. Without effect under a tether, which adds the exact divergence.
    pub beta: f64,
    /// Multiply the sampled KL by the ratio, which makes its gradient that of the reverse KL at each prefix.
    pub use_bias_correction_kl: bool,
}

/// What the sum over tokens is divided by; TRL's names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LossType {
    /// Each completion by its length, then by their number.
    Grpo,
    /// The tokens of the step.
    Bnpo,
    /// The number of completions times the longest that was allowed.
    DrGrpo,
    /// The tokens of the round, divided by the steps that go once through it.
    Dapo,
}

/// What has a ratio of new to old probability; TRL's names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// Each token.
    Token,
    /// The completion: the geometric mean over its tokens.
    Sequence,
}

impl Default for GrpoConfig {
    fn default() -> Self {
        Self {
            loss_type: LossType::Dapo,
            importance_sampling_level: Level::Token,
            epsilon: 0.2,
            epsilon_high: None,
            scale_rewards: Scale::Group,
            beta: 0.0,
            use_bias_correction_kl: false,
        }
    }
}

/// The method.
#[derive(Debug, Clone)]
pub struct Grpo {
    config: GrpoConfig,
    clip: Clip,
}

impl Grpo {
    /// Checks the settings.
    ///
    /// # Errors
    /// One is outside its range.
    pub fn new(config: GrpoConfig) -> Result<Self> {
        let clip = Clip::new(config.epsilon, config.epsilon_high)?;
        if !(config.beta >= 0.0 && config.beta.is_finite()) {
            refuse("beta", format!("must be >= 0, got {} (default 0)", config.beta))?;
        }
        Ok(Self { config, clip })
    }

    /// The surrogate of each token, one of them all where they share a ratio.
    fn surrogate(&self, log_ratios: &[f64], advantage: f64) -> Vec<Clipped> {
        match self.config.importance_sampling_level {
            Level::Token => log_ratios.iter().map(|&l| self.clip.at(l, advantage)).collect(),
            Level::Sequence => vec![self.clip.at(mean(log_ratios), advantage)],
        }
    }

    /// Adds `weight` times the derivative of the sampled KL of a completion; its value at each token.
    fn restrain(&self, log_ratios: &[f64], l: &[f64], weight: f64, out: &mut [f64]) -> Vec<f64> {
        let k3: Vec<f64> = l.iter().map(|&l| Estimator::K3.value(l, 0.0)).collect();
        let slopes = l.iter().map(|&l| 1.0 - (-l).exp());
        if !self.config.use_bias_correction_kl {
            out.iter_mut().zip(slopes).for_each(|(out, slope)| *out += weight * slope);
            return k3;
        }
        let ratios: Vec<f64> = match self.config.importance_sampling_level {
            Level::Token => log_ratios.iter().map(|l| l.exp()).collect(),
            Level::Sequence => vec![mean(log_ratios).exp(); l.len()],
        };
        let values: Vec<f64> = k3.iter().zip(&ratios).map(|(k3, w)| k3 * w).collect();
        let shared = mean(&values);
        for (((out, slope), w), value) in out.iter_mut().zip(slopes).zip(&ratios).zip(&values) {
            let by_ratio = match self.config.importance_sampling_level {
                Level::Token => *value,
                Level::Sequence => shared,
            };
            *out += weight * (w * slope + by_ratio);
        }
        values
    }
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

impl Method for Grpo {
    fn meta(&self) -> &'static Meta {
        &META
    }

    fn want(&self) -> Want {
        Want { entropy: true, ref_logp: self.config.beta > 0.0, ..Want::default() }
    }

    fn on_policy(&self) -> Option<OnPolicy> {
        Some(OnPolicy {
            num_generations: 8,
            fewest: 2,
            corrects: true,
            kl_in_reward: false,
            whole_groups: false,
        })
    }

    fn advantages(&self, rewarded: &Rewarded) -> Vec<Option<f64>> {
        if rewarded.normalized {
            return advantage::normalized(rewarded.rewards);
        }
        advantage::group_mean(rewarded.rewards, rewarded.groups, self.config.scale_rewards)
    }

    fn loss(&self, view: &View, out: &mut Cotangent) -> Sums {
        out.logp.resize(view.stats.logp.len(), 0.0);
        let mut sums = Sums::default();
        let Some(rollout) = view.rollout else { return sums };
        let beta = view.beta.unwrap_or(self.config.beta);
        let sequences = view.norm.sequences as f64;
        for (rows, judged) in view.judged() {
            let Some(advantage) = judged.advantage else {
                sums.add("loss", 0.0, Per::Sequence);
                continue;
            };
            let tokens = rows.len() as f64;
            let weight = match self.config.loss_type {
                LossType::Grpo => 1.0 / (sequences * tokens),
                LossType::Bnpo => 1.0 / view.norm.tokens as f64,
                LossType::DrGrpo => 1.0 / (sequences * rollout.max_completion_length as f64),
                LossType::Dapo => 1.0 / rollout.tokens_a_step,
            };
            let log_ratios = view.log_ratios(rows, judged);
            let surrogate = self.surrogate(&log_ratios, advantage);
            let slopes = &mut out.logp[rows.clone()];
            // A ratio that tokens share moves by 1/T with each of them and stands at T of them.
            let each = surrogate.iter().cycle().take(rows.len());
            slopes.iter_mut().zip(each).for_each(|(slope, clipped)| *slope += weight * clipped.slope);
            let mut loss: f64 = surrogate.iter().map(|clipped| clipped.value).sum();
            let per = match self.config.importance_sampling_level {
                Level::Token => Per::Token,
                Level::Sequence => {
                    loss *= tokens;
                    Per::Count(1)
                }
            };
            for clipped in &surrogate {
                clipped.report(&mut sums, per);
            }
            if beta > 0.0 {
                let of_reference = &view.stats.ref_logp[rows.clone()];
                let l: Vec<f64> =
                    view.stats.logp[rows.clone()].iter().zip(of_reference).map(|(p, q)| p - q).collect();
                let kl: f64 = self.restrain(&log_ratios, &l, weight * beta, slopes).iter().sum();
                loss += beta * kl;
                sums.add("kl", kl, Per::Token);
            }
            view.report_entropy(rows, &mut sums);
            // Divided by the number of sequences again.
            sums.add("loss", weight * loss * sequences, Per::Sequence);
        }
        sums
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Judged, Norm, Rollout};
    use super::*;
    use crate::engine::Stats;

    /// Loss and derivative for completions of three and one tokens.
    fn loss(config: GrpoConfig, logp: [f64; 4], advantages: [f64; 2]) -> (f64, Vec<f64>) {
        let stats =
            Stats { logp: logp.to_vec(), entropy: vec![0.0; 4], ref_logp: vec![-1.0; 4], ..Stats::default() };
        let old = [-1.0; 4];
        let judged = |rows: std::ops::Range<usize>, group: usize| Judged {
            old_logp: &old[rows],
            advantage: Some(advantages[group]),
            credit: None,
            reward: None,
            group: 0,
        };
        let completions = [judged(0..3, 0), judged(3..4, 1)];
        let view = View {
            rollout: Some(Rollout {
                completions: &completions,
                max_completion_length: 5,
                step: 0,
                tokens_a_step: 8.0,
            }),
            ..View::new(&[0..3, 3..4], &stats, Norm { tokens: 4, sequences: 2, pairs: 0, desirable: 0 })
        };
        let mut out = Cotangent::default();
        let means = Grpo::new(config).expect("valid").loss(&view, &mut out).means(view.norm);
        (means.iter().find(|(name, _)| *name == "loss").expect("there").1, out.logp)
    }

    #[test]
    fn what_a_sum_is_divided_by_and_nothing_else_depends_on_the_type() {
        for (loss_type, weights) in [
            (LossType::Grpo, [1.0 / 6.0, 0.5]),
            (LossType::Bnpo, [0.25; 2]),
            (LossType::DrGrpo, [0.1; 2]),
            (LossType::Dapo, [0.125; 2]),
        ] {
            for importance_sampling_level in [Level::Token, Level::Sequence] {
                let config = GrpoConfig { loss_type, importance_sampling_level, ..GrpoConfig::default() };
                // New samples: every ratio is 1.
                let (value, slopes) = loss(config, [-1.0; 4], [2.0, -3.0]);
                let expected = [[-2.0 * weights[0]; 3].as_slice(), &[3.0 * weights[1]]].concat();
                assert!(slopes.iter().zip(&expected).all(|(a, b)| (a - b).abs() < 1e-15), "{slopes:?}");
                assert!((value - expected.iter().sum::<f64>()).abs() < 1e-15, "{value}");
            }
        }
    }

    #[test]
    fn a_completion_has_one_ratio_at_the_level_of_sequences() {
        let logp = [-0.5, -1.1, -1.0, -1.0];
        let at = |importance_sampling_level| {
            loss(GrpoConfig { importance_sampling_level, ..GrpoConfig::default() }, logp, [1.0, 0.0]).1
        };
        let mean = f64::exp(0.4 / 3.0);
        assert!(at(Level::Sequence)[..3].iter().all(|slope| (slope + mean / 8.0).abs() < 1e-15));
        assert!(at(Level::Token)[0].abs() < 1e-15, "clipped: its ratio is e^0.5");
        assert!((at(Level::Token)[1] + f64::exp(-0.1) / 8.0).abs() < 1e-15);
    }

    #[test]
    fn with_its_correction_the_slope_of_the_kl_at_new_samples_is_the_log_ratio() {
        let logp = [-0.5, -1.0, -1.5, -1.0];
        let grpo = |use_bias_correction_kl| {
            let config = GrpoConfig { beta: 1.0, use_bias_correction_kl, ..GrpoConfig::default() };
            let mut out = vec![0.0; 4];
            // The reference is at -1; the samples are new.
            Grpo::new(config).expect("valid").restrain(&[0.0; 4], &logp.map(|p| p + 1.0), 1.0, &mut out);
            out
        };
        assert!(grpo(true).iter().zip(logp).all(|(slope, p)| (slope - (p + 1.0)).abs() < 1e-15));
        assert!((grpo(false)[0] - (1.0 - f64::exp(-0.5))).abs() < 1e-15, "that of the forward KL");
    }

    #[test]
    fn settings_outside_their_range_are_refused() {
        let told = |config| Grpo::new(config).expect_err("refused").to_string();
        assert_eq!(
            told(GrpoConfig { beta: -1.0, ..GrpoConfig::default() }),
            "method.beta: must be >= 0, got -1 (default 0)"
        );
        assert_eq!(
            told(GrpoConfig { epsilon: f64::NAN, ..GrpoConfig::default() }),
            "method.epsilon: must be in [0, 1], got NaN (default 0.2)"
        );
    }
}
