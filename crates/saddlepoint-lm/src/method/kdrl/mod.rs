//! KDRL: a reward and a teacher at once, both on the policy's own completions.
//!
//! # Objective
//! ```text
//! L(θ) = (1/N) Σ_i Σ_t [ −w A_i + β_k m_i d_t ]      w = π(y_t|x, y_<t) / π_old(y_t|x, y_<t), 1 at new samples
//! d_t  = R_t²/2 (k2)                                 R_t = ln π_T(y_t|x, y_<t) − ln π(y_t|x, y_<t)
//!        e^R − R − 1 (k3)                            π_T: the teacher
//!        KL(π(·|x, y_<t) ‖ π_T(·|x, y_<t)) (full)    the exact sum over the vocabulary
//!        the same with all but the teacher's most probable tokens taken for one (top_k): a lower bound
//! β_k  = max(beta_init − beta_delta k, beta_min)     k: optimizer steps done
//! m_i  = 1 (none)
//!        0 where the completion is right, else 1 (response)
//!        0 where a completion of its prompt is, else 1 (group)
//! A_i  = (r_i − mean of the group) / (std + 1e-6)
//! ```
//! `N` counts the tokens of the step from which something is learned. The divergence is that from the teacher, and there is none
//! from the initial policy. Its gradient is that at each prefix, without what a token changes later: `−R ∇ ln π` in expectation for
//! k2 and without the noise of the token for full. The gradient of k3 is that of the *forward* KL. That of top_k has no noise of the token either and
//! does not see how policy and teacher share what is left. A right completion is one with a
//! reward of 1. A prompt whose completions all got the same has `A = 0` and still teaches by the teacher.
//!
//! `mode = "sequential"` distils alone for `kd_steps` steps (`L = (1/N) Σ Σ m_i d_t`) and then learns from rewards alone: the
//! teacher is not asked any more, and there are no metrics of it.
//! # Parameters
//! | name | symbol | default | range | meaning |
//! |------|--------|---------|-------|---------|
//! | mode | | joint | joint, sequential | both terms in every step, or one after the other |
//! | kd_steps | | none | ≥ 1 | steps of distillation before rewards; `sequential` only, which needs it |
//! | kl_estimator | d | k2 | k2, k3, full, top_k | how the divergence from the teacher is valued |
//! | beta_init | β_0 | 5e-3 | ≥ 0 | first weight of the divergence; `joint` only, as the next two |
//! | beta_min | | 1e-3 | [0, beta_init] | last weight |
//! | beta_delta | | 5e-5 | ≥ 0 | how much it falls in a step; 0 keeps it |
//! | mask | m | none | none, response, group | where the teacher is not asked |
//! | mask_normalizer | | all | all, kept | divide the second term by all tokens, or by those that the mask keeps |
//! | std | | population | population, sample | standard deviation by which advantages are divided |
//!
//! The teacher is `[teacher]` of the recipe: a model in this process, or a server, of which k2 and k3 read the sampled token and top_k also
//! the most probable ones. It stands where other methods have the reference of `[tether]`, so that there is no
//! tether beside it: with `grpo` and `tether.reference = { checkpoint = ... }` the divergence from another model is a constraint.
//! # Metrics
//! `loss` · `entropy` nats a token · `kl` from the teacher a token: the mean of k3, whatever is differentiated, or with full the
//! exact value · `kdrl/top_kl` with top_k, the bound that is differentiated, a token · `kdrl/left`, `kdrl/teacher_left` with it, what policy and
//! teacher give to all other tokens, a token · `kdrl/beta` weight of the divergence (1 and 0 with `sequential`) · `kdrl/masked` share of tokens for which the
//! teacher is not asked · `kdrl/clamped` share of tokens with `R`, or with top_k the log-ratio of a listed token, beyond ±20, which is held
//! there.
//! # Reference
//! Xu et al. 2025, arXiv:2506.02208: eq. 5 and 8, sections 2.2 and 3.4; defaults from secondary sources.
//! # Differences
//! Where `R` is held at ±20, its slope is that of the policy-gradient form, `−R` with the held value, and not 0. The
//! paper's sum over the most probable tokens is said to be unstable, and alone is no divergence: here all others are one more event. The teacher in
//! the reward is not there. A completion without a reward is left out.
//! # Checked against
//! published vectors, TRL 1.16's GRPO loss with k3 and PyTorch's derivative (`tests/golden/kdrl.json`), finite differences, the
//! gradient of both KLs over many samples.

mod top;

use saddlepoint_opt::divergence::{Divergence, Estimator};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::advantage;
use super::pairs::refuse;
use super::{Family, Input, Meta, Method, OnPolicy, Per, Rewarded, Status, Sums, Teaching, View};
use crate::Result;
use crate::engine::{Cotangent, Want};
use crate::reward::aggregate::Variance;

/// This method's row in the table of methods.
pub const META: Meta = Meta {
    name: "kdrl",
    family: Family::Rewards,
    input: Input::Prompts,
    paper: "arXiv:2506.02208",
    status: Status::Preview,
    slug: Some("kdrl"),
    summary: "A reward and the reverse KL to a teacher at once, on the policy's own completions",
    learning_rate: 1e-6,
};

/// Settings. The checks are in [`Kdrl::new`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct KdrlConfig {
    /// Whether both terms are in every step, or one comes after the other.
    pub mode: Mode,
    /// Steps of distillation before rewards, >= 1. With `sequential`, which needs it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kd_steps: Option<u64>,
    /// How the divergence from the teacher is valued.
    pub kl_estimator: KlEstimator,
    /// First weight of the divergence, >= 0. This and the next two with `joint` only.
    pub beta_init: f64,
    /// Last weight, in [0, beta_init].
    pub beta_min: f64,
    /// How much the weight falls in a step, >= 0; 0 keeps it.
    pub beta_delta: f64,
    /// Where the teacher is not asked.
    pub mask: Mask,
    /// What the sum over the tokens that the mask keeps is divided by.
    pub mask_normalizer: Normalizer,
    /// The standard deviation by which advantages are divided.
    pub std: Variance,
}

/// How reward and teacher come together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// Both in every step.
    Joint,
    /// The teacher first, then rewards.
    Sequential,
}

/// How the divergence of a token from the teacher is valued.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum KlEstimator {
    /// Half of the squared log-ratio; its gradient is that of the reverse KL.
    K2,
    /// The log-ratio with a control variate; its gradient is that of the forward KL.
    K3,
    /// The exact reverse KL over the vocabulary.
    Full,
    /// The reverse KL over the most probable tokens that a server tells, with all others taken for one: a lower bound.
    TopK,
}

/// Where the teacher is not asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Mask {
    /// Nowhere.
    None,
    /// In right completions.
    Response,
    /// In completions of prompts that were answered right at least once.
    Group,
}

/// What the sum over the tokens that a mask keeps is divided by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Normalizer {
    /// The tokens of the step.
    All,
    /// Those that the mask keeps.
    Kept,
}

impl Default for KdrlConfig {
    fn default() -> Self {
        Self {
            mode: Mode::Joint,
            kd_steps: None,
            kl_estimator: KlEstimator::K2,
            beta_init: 5e-3,
            beta_min: 1e-3,
            beta_delta: 5e-5,
            mask: Mask::None,
            mask_normalizer: Normalizer::All,
            std: Variance::Population,
        }
    }
}

/// Log-ratios beyond it are held there: k2 is quadratic in them, and k3 exponential.
const MOST: f64 = 20.0;
/// Added to a standard deviation before it divides.
const EPSILON: f64 = 1e-6;

/// The method.
#[derive(Debug, Clone)]
pub struct Kdrl {
    config: KdrlConfig,
}

impl Kdrl {
    /// Checks the settings.
    ///
    /// # Errors
    /// One is outside its range, or contradicts another.
    pub fn new(config: KdrlConfig) -> Result<Self> {
        let KdrlConfig { beta_init, beta_min, beta_delta, .. } = config;
        for (key, value, default) in [("beta_init", beta_init, 5e-3), ("beta_delta", beta_delta, 5e-5)] {
            if !(value >= 0.0 && value.is_finite()) {
                refuse(key, format!("must be >= 0, got {value} (default {default:e})"))?;
            }
        }
        if !(0.0..=beta_init).contains(&beta_min) {
            let problem =
                format!("must be from 0 to method.beta_init = {beta_init}, got {beta_min} (default 1e-3)");
            refuse("beta_min", problem)?;
        }
        match (config.mode, config.kd_steps) {
            (Mode::Joint, Some(_)) => {
                refuse("kd_steps", "has no use with mode = \"joint\": remove it".to_owned())?;
            }
            (Mode::Sequential, None) => {
                let problem = "is missing: mode = \"sequential\" needs the number of steps with the teacher";
                refuse("kd_steps", problem.to_owned())?;
            }
            (_, Some(0)) => refuse("kd_steps", "must be at least 1, got 0".to_owned())?,
            _ => {}
        }
        Ok(Self { config })
    }

    /// Weights of the rewards' term and of the teacher's after `step` optimizer steps.
    fn weights(&self, step: u64) -> [f64; 2] {
        let KdrlConfig { mode, kd_steps, beta_init, beta_min, beta_delta, .. } = self.config;
        match mode {
            Mode::Joint => [1.0, (beta_init - beta_delta * step as f64).max(beta_min)],
            Mode::Sequential if kd_steps.is_some_and(|steps| step < steps) => [0.0, 1.0],
            Mode::Sequential => [1.0, 0.0],
        }
    }

    /// Value of a token's divergence and its derivative by the policy's log-probability, from the teacher's less the policy's.
    fn distilled(&self, r: f64) -> (f64, f64) {
        match self.config.kl_estimator {
            KlEstimator::K3 => (Estimator::K3.value(-r, 0.0), -r.exp_m1()),
            KlEstimator::K2 | KlEstimator::Full | KlEstimator::TopK => (Estimator::K2.value(-r, 0.0), -r),
        }
    }

    fn is_full(&self) -> bool {
        self.config.kl_estimator == KlEstimator::Full
    }

    /// Whether the teacher is asked, completion by completion.
    fn kept(&self, view: &View) -> Vec<bool> {
        let right = |reward: Option<f64>| reward.is_some_and(|reward| reward > 1.0 - 1e-9);
        let all = || view.judged().map(|(_, judged)| judged);
        let solved = |group: usize| all().any(|other| other.group == group && right(other.reward));
        all()
            .map(|judged| match self.config.mask {
                Mask::None => true,
                Mask::Response => !right(judged.reward),
                Mask::Group => !solved(judged.group),
            })
            .collect()
    }
}

impl Method for Kdrl {
    fn meta(&self) -> &'static Meta {
        &META
    }

    fn want(&self) -> Want {
        let divergence = self.is_full().then_some(Divergence::ReverseKl);
        Want { entropy: true, ref_logp: !self.is_full(), divergence, ..Want::default() }
    }

    fn teacher(&self) -> Option<Teaching> {
        Some(match self.config.kl_estimator {
            KlEstimator::K2 | KlEstimator::K3 => Teaching::Token,
            KlEstimator::TopK => Teaching::Top,
            KlEstimator::Full => Teaching::Whole,
        })
    }

    fn is_taught(&self, step: u64) -> bool {
        self.config.mode != Mode::Sequential || self.weights(step)[1] > 0.0
    }

    /// The number of tokens that a mask keeps is known of a whole step only.
    fn couples(&self) -> bool {
        self.config.mask != Mask::None && self.config.mask_normalizer == Normalizer::Kept
    }

    fn on_policy(&self) -> Option<OnPolicy> {
        Some(OnPolicy {
            num_generations: 8,
            fewest: 2,
            corrects: false,
            kl_in_reward: false,
            whole_groups: self.config.mask == Mask::Group,
        })
    }

    fn advantages(&self, rewarded: &Rewarded) -> Vec<Option<f64>> {
        advantage::group_scaled(rewarded.rewards, rewarded.groups, self.config.std, EPSILON)
    }

    fn loss(&self, view: &View, out: &mut Cotangent) -> Sums {
        out.logp.resize(view.stats.logp.len(), 0.0);
        let Some(rollout) = view.rollout else { return Sums::default() };
        // A run that learns nothing of its teacher any more has no statistics of it.
        let taught = !if self.is_full() { &view.stats.divergence } else { &view.stats.ref_logp }.is_empty();
        if self.is_full() && taught {
            out.divergence.resize(view.stats.logp.len(), 0.0);
        }
        let top_k = self.config.kl_estimator == KlEstimator::TopK;
        if top_k && taught {
            out.listed = view.stats.listed.iter().map(|logps| vec![0.0; logps.len()]).collect();
        }
        let mut sums = Sums::default();
        let (tokens, sequences) = (view.norm.tokens as f64, view.norm.sequences as f64);
        let [pull, beta] = self.weights(rollout.step);
        let kept = self.kept(view);
        let learned = view.judged().zip(&kept).filter(|((_, judged), _)| judged.advantage.is_some());
        let asked: usize = learned.filter(|(_, kept)| **kept).map(|((rows, _), _)| rows.len()).sum();
        let divisor = if self.couples() { asked.max(1) as f64 } else { tokens };
        sums.add("kdrl/beta", beta, Per::Count(1));
        for ((rows, judged), kept) in view.judged().zip(kept) {
            let Some(advantage) = judged.advantage else {
                sums.add("loss", 0.0, Per::Sequence);
                continue;
            };
            let mut loss = 0.0;
            for (row, log_ratio) in rows.clone().zip(view.log_ratios(rows, judged)) {
                let surrogate = -pull * log_ratio.exp() * advantage / tokens;
                loss += surrogate;
                out.logp[row] += surrogate;
            }
            view.report_entropy(rows, &mut sums);
            if !taught {
                sums.add("loss", loss * sequences, Per::Sequence);
                continue;
            }
            let weight = if kept { beta / divisor } else { 0.0 };
            let (mut kl, mut clamped) = (0.0, 0);
            for row in rows.clone() {
                if self.is_full() {
                    kl += view.stats.divergence[row];
                    loss += weight * view.stats.divergence[row];
                    out.divergence[row] += weight;
                    continue;
                }
                let log_ratio = view.stats.ref_logp[row] - view.stats.logp[row];
                let r = log_ratio.clamp(-MOST, MOST);
                kl += Estimator::K3.value(-r, 0.0);
                if top_k {
                    let top = top::divergence(&view.stats.listed[row], &view.stats.ref_listed[row]);
                    clamped += usize::from(top.held);
                    loss += weight * top.value;
                    out.listed[row]
                        .iter_mut()
                        .zip(&top.slopes)
                        .for_each(|(sum, slope)| *sum += weight * slope);
                    sums.add("kdrl/top_kl", top.value, Per::Token);
                    sums.add("kdrl/left", top.left, Per::Token);
                    sums.add("kdrl/teacher_left", top.teacher_left, Per::Token);
                    continue;
                }
                let (value, slope) = self.distilled(r);
                clamped += usize::from(log_ratio.abs() > MOST);
                loss += weight * value;
                out.logp[row] += weight * slope;
            }
            sums.add("kl", kl, Per::Token);
            let masked = if kept { 0 } else { rows.len() };
            sums.add("kdrl/masked", masked as f64, Per::Token);
            if !self.is_full() {
                sums.add("kdrl/clamped", clamped as f64, Per::Token);
            }
            // Divided by the number of sequences again.
            sums.add("loss", loss * sequences, Per::Sequence);
        }
        sums
    }
}

#[cfg(test)]
mod tests;
