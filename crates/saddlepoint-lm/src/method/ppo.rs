//! PPO: a clipped policy gradient whose baseline is a value of every prefix, learned beside the policy.
//!
//! # Objective
//! ```text
//! L(θ) = mean over tokens of −min( w_t A_t, clip(w_t, 1 − ε, 1 + ε) A_t ) + c/2 max( (V_t − R_t)², (clip(V_t, V'_t ± ε_V) − R_t)² )
//! w_t = π(y_t|x, y_<t) / π_old(y_t|x, y_<t)
//! r_t = −β ( ln π_old(y_t|..) − ln π₀(y_t|..) ),  and the reward of the completion on top at its last token
//! δ_t = r_t + γ V'_{t+1} − V'_t      V' by the policy that sampled, 0 behind the last token
//! A_t = δ_t + γλ A_{t+1}             R_t = A_t + V'_t
//! ```
//! A token is an action. `V = w · h` is one row of weights, `score.weight`, on the last hidden state of the policy itself, from
//! which the token is predicted; its gradient reaches the policy's layers. With `normalize_advantages` the `A` of a round are taken to mean 0 and
//! deviation 1, after the `R` are made.
//! # Parameters
//! | name | symbol | default | range | meaning |
//! |------|--------|---------|-------|---------|
//! | kl_coef | β | 0.05 | ≥ 0 | weight of the KL in the reward; without effect under a tether |
//! | cliprange | ε | 0.2 | [0, 1] | how far a ratio may go from 1 |
//! | vf_coef | c | 0.1 | ≥ 0 | weight of the loss of values |
//! | cliprange_value | ε_V | 0.2 | ≥ 0 | how far a value may go from its old one |
//! | gamma | γ | 1.0 | [0, 1] | discount a token |
//! | lam | λ | 0.95 | [0, 1] | 1: returns as they are, 0: one step and the next value |
//! | normalize_advantages | | true | | as said |
//!
//! `rollout.num_iterations` is what TRL calls `num_ppo_epochs`, where its default is 4. Of completions that other weights or a server sampled the
//! derivatives by log-probabilities and by values have the same weights, so that the values are those under which the weighted advantages
//! of a prefix have mean 0.
//! # Metrics
//! `loss` · `loss/policy_avg`, `loss/value_avg` its two parts a token, the second without c · `val/clipfrac_avg` share of tokens whose
//! value is clipped · `entropy` nats a token · `clip_ratio/low_mean`, `clip_ratio/high_mean`, `clip_ratio/region_mean` share of tokens
//! whose ratio is clipped. The trainer adds `kl`, mean log-ratio a token, if β > 0, `values/mean`, `returns/mean`, and those of rewards and
//! completions (`docs/on-policy.md`).
//! # Reference
//! Schulman et al. 2017, arXiv:1707.06347; GAE: Schulman et al. 2016, arXiv:1506.02438; with language models: Ouyang et al. 2022,
//! arXiv:2203.02155, and Coste et al. 2024, arXiv:2310.02743, sec. 3.
//! # Differences
//! TRL's PPO (in TRL up to 0.29; 1.16 has none) has a value model of its own, `missing_eos_penalty` and `whiten_rewards`. A completion without a
//! reward is left out like one that was masked.
//! # Checked against
//! TRL 0.23's formulas with PyTorch's derivative of them (`tests/golden/ppo.json`), a table of advantages by hand, finite differences.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::clipped::Clip;
use super::pairs::refuse;
use super::{Credit, Family, Input, Meta, Method, OnPolicy, Per, Rewarded, Status, Sums, View};
use crate::Result;
use crate::engine::{Cotangent, Readout, Want};
use crate::reward::aggregate::Variance;

/// This method's row in the table of methods.
pub const META: Meta = Meta {
    name: "ppo",
    family: Family::Rewards,
    input: Input::Prompts,
    paper: "arXiv:1707.06347",
    status: Status::Preview,
    slug: None,
    summary: "Clipped policy gradient with a learned value of every prefix as baseline",
    learning_rate: 3e-6,
};

/// Settings. The checks are in [`Ppo::new`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct PpoConfig {
    /// Weight of the KL that is taken from rewards, >= 0. Without effect under a tether, which adds the exact divergence.
    pub kl_coef: f64,
    /// How far a ratio may go from 1, in [0, 1].
    pub cliprange: f64,
    /// Weight of the loss of values, >= 0.
    pub vf_coef: f64,
    /// How far a value may go from what it was when the completion was sampled, >= 0.
    pub cliprange_value: f64,
    /// Discount a token, in [0, 1].
    pub gamma: f64,
    /// How far ahead an advantage looks, in [0, 1]: 1 to the end, 0 to the next value.
    pub lam: f64,
    /// Take the advantages of a round to mean 0 and standard deviation 1.
    pub normalize_advantages: bool,
}

impl Default for PpoConfig {
    fn default() -> Self {
        Self {
            kl_coef: 0.05,
            cliprange: 0.2,
            vf_coef: 0.1,
            cliprange_value: 0.2,
            gamma: 1.0,
            lam: 0.95,
            normalize_advantages: true,
        }
    }
}

/// The method.
#[derive(Debug, Clone)]
pub struct Ppo {
    config: PpoConfig,
    clip: Clip,
}

impl Ppo {
    /// Checks the settings.
    ///
    /// # Errors
    /// One is outside its range.
    pub fn new(config: PpoConfig) -> Result<Self> {
        let default = PpoConfig::default();
        let share = |value: f64| (0.0..=1.0).contains(&value);
        let positive = |value: f64| value >= 0.0 && value.is_finite();
        for (key, value, fine, range, default) in [
            ("kl_coef", config.kl_coef, positive(config.kl_coef), ">= 0", default.kl_coef),
            ("cliprange", config.cliprange, share(config.cliprange), "in [0, 1]", default.cliprange),
            ("vf_coef", config.vf_coef, positive(config.vf_coef), ">= 0", default.vf_coef),
            (
                "cliprange_value",
                config.cliprange_value,
                positive(config.cliprange_value),
                ">= 0",
                default.cliprange_value,
            ),
            ("gamma", config.gamma, share(config.gamma), "in [0, 1]", default.gamma),
            ("lam", config.lam, share(config.lam), "in [0, 1]", default.lam),
        ] {
            if !fine {
                refuse(key, format!("must be {range}, got {value} (default {default})"))?;
            }
        }
        Ok(Self { clip: Clip::new(config.cliprange, None)?, config })
    }
}

/// Rewards of the tokens of a completion: what its KL costs, and its reward at the last one.
fn token_rewards(reward: f64, log_ratios: &[f64], beta: f64) -> Vec<f64> {
    let mut rewards: Vec<f64> = log_ratios.iter().map(|log_ratio| -beta * log_ratio).collect();
    if let Some(last) = rewards.last_mut() {
        *last += reward;
    }
    rewards
}

/// Generalised advantage estimates of tokens; the value behind the last is 0.
fn advantages(rewards: &[f64], values: &[f64], gamma: f64, lam: f64) -> Vec<f64> {
    let mut advantages = vec![0.0; rewards.len()];
    let (mut next_value, mut next_advantage) = (0.0, 0.0);
    for t in (0..rewards.len()).rev() {
        let delta = rewards[t] + gamma * next_value - values[t];
        next_advantage = delta + gamma * lam * next_advantage;
        next_value = values[t];
        advantages[t] = next_advantage;
    }
    advantages
}

/// Values less their mean, divided by their deviation: the root of the variance of a sample and 1e-8.
fn whitened(values: &[f64]) -> Vec<f64> {
    let count = values.len() as f64;
    let mean = values.iter().sum::<f64>() / count;
    let deviation = (Variance::Sample.of(values) + 1e-8).sqrt();
    values.iter().map(|value| (value - mean) / deviation).collect()
}

/// Half the larger squared error of a value and of its clipped form, the derivative by the value, and whether the clipped one counts.
fn value_loss(value: f64, old: f64, wanted: f64, range: f64) -> (f64, f64, bool) {
    // Not `clamp`, which panics where a policy that diverged has values that are no numbers.
    let clipped = value.max(old - range).min(old + range);
    let (plain, held) = ((value - wanted).powi(2), (clipped - wanted).powi(2));
    if held > plain { (0.5 * held, 0.0, true) } else { (0.5 * plain, value - wanted, false) }
}

impl Method for Ppo {
    fn meta(&self) -> &'static Meta {
        &META
    }

    fn want(&self) -> Want {
        Want { entropy: true, score: true, ..Want::default() }
    }

    fn readout(&self) -> Readout {
        Readout::Both
    }

    fn on_policy(&self) -> Option<OnPolicy> {
        Some(OnPolicy {
            num_generations: 1,
            fewest: 1,
            corrects: true,
            kl_in_reward: self.config.kl_coef > 0.0,
            whole_groups: false,
        })
    }

    fn credit(&self, rewarded: &Rewarded) -> Vec<Option<Credit>> {
        let PpoConfig { kl_coef, gamma, lam, normalize_advantages, .. } = self.config;
        let of = |(i, reward): (usize, &Option<f64>)| {
            let (reward, values) = ((*reward)?, rewarded.values.get(i)?.clone());
            let none = vec![0.0; values.len()];
            let log_ratios = rewarded.log_ratios.map_or(&none, |all| &all[i]);
            let advantages = advantages(&token_rewards(reward, log_ratios, kl_coef), &values, gamma, lam);
            let returns = advantages.iter().zip(&values).map(|(a, v)| a + v).collect();
            Some(Credit { values, advantages, returns })
        };
        let mut credits: Vec<Option<Credit>> = rewarded.rewards.iter().enumerate().map(of).collect();
        if normalize_advantages {
            let all: Vec<f64> =
                credits.iter().flatten().flat_map(|credit| &credit.advantages).copied().collect();
            let mut normalized = whitened(&all).into_iter();
            for advantage in credits.iter_mut().flatten().flat_map(|credit| &mut credit.advantages) {
                *advantage = normalized.next().expect("as many as before");
            }
        }
        credits
    }

    fn loss(&self, view: &View, out: &mut Cotangent) -> Sums {
        out.logp.resize(view.stats.logp.len(), 0.0);
        out.score.resize(view.stats.logp.len(), 0.0);
        let PpoConfig { vf_coef, cliprange_value, .. } = self.config;
        let (tokens, sequences) = (view.norm.tokens as f64, view.norm.sequences as f64);
        let mut sums = Sums::default();
        for (rows, judged) in view.judged() {
            let Some(credit) = judged.credit.filter(|_| judged.advantage.is_some()) else {
                sums.add("loss", 0.0, Per::Sequence);
                continue;
            };
            let log_ratios = view.log_ratios(rows, judged);
            let mut loss = 0.0;
            for (t, row) in rows.clone().enumerate() {
                let clipped = self.clip.at(log_ratios[t], credit.advantages[t]);
                let (value, slope, held) =
                    value_loss(view.stats.score[row], credit.values[t], credit.returns[t], cliprange_value);
                out.logp[row] += clipped.slope / tokens;
                out.score[row] += vf_coef * slope / tokens;
                loss += clipped.value + vf_coef * value;
                clipped.report(&mut sums, Per::Token);
                sums.add("loss/policy_avg", clipped.value, Per::Token);
                sums.add("loss/value_avg", value, Per::Token);
                sums.add("val/clipfrac_avg", f64::from(held), Per::Token);
            }
            view.report_entropy(rows, &mut sums);
            // A mean over tokens, written as one over sequences, of which some may have no tokens to learn from.
            sums.add("loss", loss * sequences / tokens, Per::Sequence);
        }
        sums
    }
}

#[cfg(test)]
mod tests {
    use saddlepoint_core::test::assert_close;
    use saddlepoint_opt::divergence::Estimator;

    use super::*;

    const LOG_RATIOS: [f64; 4] = [-1.0 + 1.2, -0.5 + 0.7, -2.0 + 1.5, -0.3 + 0.4];
    const VALUES: [f64; 4] = [0.2, 0.25, 0.3, 0.4];

    #[test]
    fn values_that_are_no_numbers_give_a_loss_that_is_none() {
        for (value, old) in [(0.1, f64::NAN), (f64::NAN, 0.1), (f64::NAN, f64::NAN)] {
            let wanted = old + 1.0;
            assert!(value_loss(value, old, wanted, 0.2).0.is_nan(), "{value} {old}");
        }
    }

    #[test]
    fn the_table_of_advantages_by_hand() {
        let rewards = token_rewards(0.65, &LOG_RATIOS, 0.01);
        assert_close!(rewards, [-0.002, -0.002, 0.005, 0.649], rtol = 1e-12);
        let got = advantages(&rewards, &VALUES, 1.0, 0.95);
        assert_close!(got, [0.401_848_875, 0.372_472_5, 0.34155, 0.249], rtol = 1e-12);
        let returns: Vec<f64> = got.iter().zip(VALUES).map(|(a, v)| a + v).collect();
        assert_close!(returns, [0.601_848_875, 0.622_472_5, 0.64155, 0.649], rtol = 1e-12);
        let sum = |of: &dyn Fn(f64) -> f64| LOG_RATIOS.iter().map(|&l| of(l)).sum::<f64>();
        let kl = [
            sum(&|l| Estimator::K2.value(l, 0.0)),
            sum(&|l| Estimator::K3.value(-l, 0.0)),
            sum(&|l| Estimator::K3.value(l, 0.0)),
        ];
        assert_close!(kl, [0.17, 0.154_507_094_109, 0.191_020_194_892], rtol = 1e-11);
        assert!(sum(&|l| Estimator::K1.value(l, 0.0)).abs() < 1e-15);
    }

    #[test]
    fn the_two_ends_of_lambda() {
        let (rewards, values) = ([0.5, -1.0, 2.0], [0.3, 0.7, -0.2]);
        let end = advantages(&rewards, &values, 1.0, 1.0);
        assert_close!(end, [1.5 - 0.3, 1.0 - 0.7, 2.0 + 0.2], rtol = 1e-12);
        let step = advantages(&rewards, &values, 0.9, 0.0);
        let expected = [0.5 + 0.9 * 0.7 - 0.3, -1.0 - 0.9 * 0.2 - 0.7, 2.2];
        assert_close!(step, expected, rtol = 1e-12);
    }

    #[test]
    fn a_value_that_has_gone_far_enough_stops() {
        for (value, old, wanted, loss, slope) in [
            (1.0, 0.9, 2.0, 0.5, -1.0),
            (1.5, 0.9, 2.0, 0.5 * 0.9 * 0.9, 0.0),
            (0.0, 0.9, 2.0, 2.0, -2.0),
            (2.5, 0.9, 1.0, 0.5 * 1.5 * 1.5, 1.5),
        ] {
            let got = value_loss(value, old, wanted, 0.2);
            assert!(
                (got.0 - loss).abs() < 1e-12 && (got.1 - slope).abs() < 1e-12,
                "{value} {old} {wanted}: {got:?}"
            );
        }
    }

    #[test]
    fn advantages_of_a_round_are_normalised_after_the_returns_are_made() {
        let rewards = [Some(1.0), None, Some(-0.5)];
        let values = [vec![0.1, 0.2], vec![0.3], vec![0.4, 0.0, -0.1]];
        let rewarded = Rewarded { values: &values, ..Rewarded::new(&[0..1, 1..2, 2..3], &rewards) };
        let plain = PpoConfig { normalize_advantages: false, ..PpoConfig::default() };
        let plain = Ppo::new(plain).expect("valid").credit(&rewarded);
        let whitened = Ppo::new(PpoConfig::default()).expect("valid").credit(&rewarded);
        assert!(plain[1].is_none() && whitened[1].is_none());
        let all = |credits: &[Option<Credit>], of: fn(&Credit) -> &Vec<f64>| -> Vec<f64> {
            credits.iter().flatten().flat_map(of).copied().collect()
        };
        assert_eq!(all(&plain, |c| &c.returns), all(&whitened, |c| &c.returns));
        let advantages = all(&whitened, |c| &c.advantages);
        let mean = advantages.iter().sum::<f64>() / 5.0;
        let std = (advantages.iter().map(|a| (a - mean).powi(2)).sum::<f64>() / 4.0).sqrt();
        assert!(mean.abs() < 1e-12 && (std - 1.0).abs() < 1e-6, "{mean} {std}");
    }

    #[test]
    fn settings_outside_their_range_are_refused() {
        let told = |config| Ppo::new(config).expect_err("refused").to_string();
        let default = PpoConfig::default;
        for (config, message) in [
            (PpoConfig { kl_coef: -1.0, ..default() }, "method.kl_coef: must be >= 0, got -1 (default 0.05)"),
            (PpoConfig { lam: 1.5, ..default() }, "method.lam: must be in [0, 1], got 1.5 (default 0.95)"),
            (
                PpoConfig { vf_coef: f64::NAN, ..default() },
                "method.vf_coef: must be >= 0, got NaN (default 0.1)",
            ),
        ] {
            assert_eq!(told(config), message);
        }
    }
}
