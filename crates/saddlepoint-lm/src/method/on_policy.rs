//! What a method on rewards of the policy's own completions says and sees.

use std::ops::Range;

use serde::{Deserialize, Serialize};

use super::{Per, Sums, View};

/// What a method needs of the policy's own completions.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct OnPolicy {
    /// Completions a prompt where a recipe does not say.
    pub num_generations: usize,
    /// Fewest completions a prompt with which it can learn.
    pub fewest: usize,
    /// Whether it corrects for samples of an older policy. If not, every step needs samples of its own.
    pub corrects: bool,
    /// Whether it takes the reverse KL of a completion from its reward, so that [`Rewarded::kl`] is to be there.
    pub kl_in_reward: bool,
    /// Whether it compares the completions of a prompt with each other, so that they have to be in one pass.
    pub whole_groups: bool,
}

/// The rewards of a round: everything that was sampled by the same weights.
#[derive(Debug, Clone, Copy)]
pub struct Rewarded<'a> {
    /// The completions of each prompt.
    pub groups: &'a [Range<usize>],
    /// What each completion is worth; `None` where no reward applies or one failed.
    pub rewards: &'a [Option<f64>],
    /// Whether these are sums of rewards that were each normalised within its group
    /// ([`Aggregation::NormalizeThenSum`](crate::reward::aggregate::Aggregation)).
    pub normalized: bool,
    /// `ln π(y|x) − ln π₀(y|x)` of each completion under the policy that sampled it, nats; only if the method asked for it
    /// and no tether takes its place.
    pub kl: Option<&'a [f64]>,
    /// The same of each of its tokens.
    pub log_ratios: Option<&'a [Vec<f64>]>,
    /// Of each completion the values of what each of its tokens follows, by the policy that sampled it. Empty unless the method
    /// learns values.
    pub values: &'a [Vec<f64>],
}

/// What the tokens of a completion are worth in the loss.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Credit {
    /// Values by the policy that sampled it.
    pub values: Vec<f64>,
    /// Advantages.
    pub advantages: Vec<f64>,
    /// What values are to be.
    pub returns: Vec<f64>,
}

impl Credit {
    /// Mean advantage of its tokens.
    pub fn mean(&self) -> f64 {
        self.advantages.iter().sum::<f64>() / self.advantages.len() as f64
    }
}

impl<'a> Rewarded<'a> {
    /// Rewards as they are, without what only some methods ask for.
    pub fn new(groups: &'a [Range<usize>], rewards: &'a [Option<f64>]) -> Self {
        Self { groups, rewards, normalized: false, kl: None, log_ratios: None, values: &[] }
    }

    /// The rewards less `beta` times the KL of their completions, where it is there.
    pub(super) fn less_kl(&self, beta: f64) -> Vec<Option<f64>> {
        let Some(kl) = self.kl else { return self.rewards.to_vec() };
        self.rewards.iter().zip(kl).map(|(reward, kl)| reward.map(|r| r - beta * kl)).collect()
    }
}

/// A pass of a round.
#[derive(Debug, Clone, Copy)]
pub struct Rollout<'a> {
    /// What is known of each sequence.
    pub completions: &'a [Judged<'a>],
    /// Longest completion that was allowed, tokens.
    pub max_completion_length: usize,
    /// Optimizer steps done before this one.
    pub step: u64,
    /// Tokens of the round from which something is learned, divided by the optimizer steps that go once through it.
    pub tokens_a_step: f64,
}

/// A completion beside its statistics.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Judged<'a> {
    /// Log-probability of each token under the policy that sampled it, at the temperature of sampling, nats.
    pub old_logp: &'a [f64],
    /// By [`Method::advantages`](super::Method::advantages); `None` if nothing is to be learned from it: it has no reward, or it
    /// was cut and such are left out.
    pub advantage: Option<f64>,
    /// What its tokens are worth, if the method learns values.
    pub credit: Option<&'a Credit>,
    /// What it is worth.
    pub reward: Option<f64>,
    /// Number of its prompt in the round.
    pub group: usize,
}

impl<'a> View<'a> {
    /// Rows of each completion and what is known of it. Nothing where there is no rollout.
    pub(super) fn judged(&self) -> impl Iterator<Item = (&'a Range<usize>, &'a Judged<'a>)> + use<'a> {
        let completions = self.rollout.map_or(&[][..], |rollout| rollout.completions);
        self.sequences.iter().zip(completions)
    }

    /// `ln π(y_t|x, y_<t) − ln π_old(y_t|x, y_<t)` of the tokens of a completion, nats.
    pub(super) fn log_ratios(&self, rows: &Range<usize>, judged: &Judged) -> Vec<f64> {
        self.stats.logp[rows.clone()].iter().zip(judged.old_logp).map(|(new, old)| new - old).collect()
    }

    /// Adds the mean entropy of the tokens from which something is learned.
    pub(super) fn report_entropy(&self, rows: &Range<usize>, sums: &mut Sums) {
        sums.add("entropy", self.stats.entropy[rows.clone()].iter().sum(), Per::Token);
    }
}
