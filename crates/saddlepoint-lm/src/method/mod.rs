//! Methods: what is minimised. One file each.
//!
//! A method is a pure function from per-token statistics to a value and its derivative with respect to each
//! statistic. It sees no model, draws no random numbers and has no state; so it composes with every layout,
//! adapter and tether. One that learns from samples of the policy says how many; the trainer draws them. One that learns from
//! rewards of such samples also says what they are worth in its loss, from the rewards of a whole round ([`OnPolicy`],
//! [`Method::advantages`]). To add one: its file, and one line in the list at the end of this file.

pub mod advantage;
mod clipped;
pub mod disco;
pub mod dpo;
pub mod f_dpo;
pub mod grpo;
pub mod hypo;
pub mod implicit_reward;
pub mod ipo;
pub mod kdrl;
pub mod kto;
pub mod longpo;
mod meta;
mod on_policy;
pub mod orpo;
pub(crate) mod pairs;
pub mod ppo;
pub mod reinforce;
pub mod reward;
pub mod rloo;
pub mod sft;
pub mod simpo;
mod sums;
pub mod tdpo;

use std::fmt::Debug;
use std::ops::Range;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use meta::{Family, Meta, Status};
pub use on_policy::{Credit, Judged, OnPolicy, Rewarded, Rollout};
pub use sums::{Per, Sums};

use crate::Result;
use crate::engine::{Cotangent, Readout, Stats, Want};

/// An objective over a batch of sequences.
pub trait Method: Debug + Send + Sync {
    /// Name, input, paper and summary.
    fn meta(&self) -> &'static Meta;

    /// The statistics it reads beside `logp` and `top1`.
    fn want(&self) -> Want;

    /// What it needs the model to read from its last hidden states.
    fn readout(&self) -> Readout {
        Readout::Vocabulary
    }

    /// Its own coefficient of the divergence from the reference. A method that has one is tethered by moving it;
    /// one that has none gets the divergence added to its loss.
    fn beta(&self) -> Option<f64> {
        None
    }

    /// Whether the loss of a sequence depends on the others of its pass. The parts of a step then do not add up to the step,
    /// so that a recipe which divides it is refused.
    fn couples(&self) -> bool {
        false
    }

    /// Whether it needs [`View::mismatched`], which costs a pass of its own.
    fn mismatched(&self) -> bool {
        false
    }

    /// What it reads of a teacher, which is its reference and which a recipe has to name in `[teacher]`; none if it has none.
    fn teacher(&self) -> Option<Teaching> {
        None
    }

    /// Whether something is learned from the teacher after `step` optimizer steps. Where nothing is, nothing will be later: the
    /// teacher is then neither asked nor computed, and the statistics have nothing of it.
    fn is_taught(&self, _step: u64) -> bool {
        self.teacher().is_some()
    }

    /// The samples of the policy that it learns from beside the examples. Only for methods on pairs.
    fn samples(&self) -> Option<Samples> {
        None
    }

    /// What it needs of the policy's own completions, if it learns from rewards of them. Its input is [`Input::Prompts`].
    fn on_policy(&self) -> Option<OnPolicy> {
        None
    }

    /// What each completion of a round is worth in the loss: its advantage; none where there is no reward. Only for methods
    /// that are [`on_policy`](Self::on_policy).
    fn advantages(&self, _rewarded: &Rewarded) -> Vec<Option<f64>> {
        Vec::new()
    }

    /// What each token of each completion of a round is worth in the loss; none where there is no reward. In place of
    /// [`advantages`](Self::advantages) for methods whose [`readout`](Self::readout) is [`Readout::Both`]: they learn a value of every prefix.
    fn credit(&self, _rewarded: &Rewarded) -> Vec<Option<Credit>> {
        Vec::new()
    }

    /// Adds the derivative of the loss to `out` (vectors that it needs are grown to the length of
    /// `view.stats.logp`, or where there is none of `view.stats.score`) and returns the sums behind the metrics, among them `loss`.
    ///
    /// The loss of a batch is a sum over its sequences divided by counts of `view.norm`, which are those of the
    /// whole accumulation: so parts of a batch add up to the batch, unless the method couples its sequences.
    fn loss(&self, view: &View, out: &mut Cotangent) -> Sums;
}

/// What the sequences of a batch are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Input {
    /// Each sequence is an example of its own.
    Supervised,
    /// Sequences `2i` and `2i + 1` are the chosen and the rejected completion of one prompt.
    Pairs,
    /// As pairs, of which each sequence has one row, at its last token, and [`View::margins`] are there.
    ScoredPairs,
    /// As pairs, each after a long prompt; the reference reads a short prompt instead, and [`View::contexts`] are there.
    LongPairs,
    /// Each sequence is a completion with a label of its own.
    Unpaired,
    /// Each sequence is a completion that the policy gave to a prompt, and [`View::rollout`] is there.
    Prompts,
}

/// Samples that a method asks for: after the prompt of every example, at temperature 1 from the policy as it is at the
/// step, each with the token that ended it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Samples {
    /// After each prompt.
    pub per_prompt: usize,
    /// At the first optimizer step and then once in so many.
    pub every: u64,
    /// Longest sample in tokens; `None` for that of the run's other samples.
    pub max_completion_length: Option<usize>,
}

/// What a method reads of a teacher's distribution at each token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Teaching {
    /// The log-probability of the token: [`Stats::ref_logp`].
    Token,
    /// Also those of the most probable tokens: [`Stats::listed`], [`Stats::ref_listed`].
    Top,
    /// All of it: [`Stats::divergence`].
    Whole,
}

/// The samples after the prompt of one example.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Completions {
    /// The rows of each in the statistics.
    pub sequences: Vec<Range<usize>>,
    /// How many were cut at the length limit.
    pub truncated: usize,
}

/// What a method sees of a batch.
#[derive(Debug, Clone, Copy)]
pub struct View<'a> {
    /// The rows of each sequence in `stats`; none is empty.
    pub sequences: &'a [Range<usize>],
    /// Whether each sequence is desirable; empty unless the input is [`Input::Unpaired`].
    pub labels: &'a [bool],
    /// How far apart the scores of each pair are asked to be. Empty unless the input is [`Input::ScoredPairs`].
    pub margins: &'a [f64],
    /// Of each pair the rows of its chosen sequence that are not in `sequences`: prompts, and what stands between answers. The
    /// reference says nothing about them. Empty unless the input is [`Input::LongPairs`].
    pub contexts: &'a [Range<usize>],
    /// The statistics of all rows, in nats.
    pub stats: &'a Stats,
    /// The counts to divide by.
    pub norm: Norm,
    /// Coefficient of the divergence from the tether, in place of [`Method::beta`]. 0 for a method on rewards under a tether,
    /// which then adds the divergence itself.
    pub beta: Option<f64>,
    /// Mean of `ln π(y'|x) − ln π₀(y'|x)` over the whole step, in nats, where each `y'` is the completion of another example;
    /// 0 unless [`Method::mismatched`].
    pub mismatched: f64,
    /// The samples that it asked for, example by example. Empty at a step without and in evaluations.
    pub samples: &'a [Completions],
    /// What is known of the completions beside their statistics; only where the input is [`Input::Prompts`].
    pub rollout: Option<Rollout<'a>>,
}

impl<'a> View<'a> {
    /// Sequences with their statistics, and nothing that only some methods read.
    pub fn new(sequences: &'a [Range<usize>], stats: &'a Stats, norm: Norm) -> Self {
        Self {
            sequences,
            labels: &[],
            margins: &[],
            contexts: &[],
            stats,
            norm,
            beta: None,
            mismatched: 0.0,
            samples: &[],
            rollout: None,
        }
    }
}

/// Counts over everything that goes into one optimizer step (or one evaluation).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Norm {
    /// Predicted tokens.
    pub tokens: usize,
    /// Sequences.
    pub sequences: usize,
    /// Pairs of sequences.
    pub pairs: usize,
    /// Sequences whose label says that they are desirable.
    pub desirable: usize,
}

/// The list: enum variant (its kebab-case form is the method's name), module and configuration.
macro_rules! methods {
    ($($variant:ident = $module:ident::$config:ident;)*) => {
        /// Settings of a method, chosen by `name`.
        #[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
        #[serde(tag = "name", rename_all = "kebab-case")]
        pub enum MethodConfig {
            $(#[doc = concat!("See [`", stringify!($module), "`].")] $variant($module::$config),)*
        }

        impl MethodConfig {
            /// The checked method.
            ///
            /// # Errors
            /// A setting is outside its range.
            pub fn build(&self) -> Result<Box<dyn Method>> {
                Ok(match self { $(Self::$variant(c) => Box::new($module::$variant::new(c.clone())?),)* })
            }

            /// Name, paper and summary.
            pub fn meta(&self) -> &'static Meta {
                match self { $(Self::$variant(_) => &$module::META,)* }
            }

            /// The default settings of every method.
            pub fn defaults() -> Vec<Self> {
                vec![$(Self::$variant($module::$config::default()),)*]
            }
        }

        /// Every method.
        pub fn list() -> Vec<&'static Meta> {
            vec![$(&$module::META,)*]
        }
    };
}

methods! {
    Sft = sft::SftConfig;
    ImplicitReward = implicit_reward::ImplicitRewardConfig;
    Dpo = dpo::DpoConfig;
    FDpo = f_dpo::FDpoConfig;
    Hypo = hypo::HypoConfig;
    Tdpo = tdpo::TdpoConfig;
    Ipo = ipo::IpoConfig;
    Simpo = simpo::SimpoConfig;
    Orpo = orpo::OrpoConfig;
    Kto = kto::KtoConfig;
    Longpo = longpo::LongpoConfig;
    Reward = reward::RewardConfig;
    Reinforce = reinforce::ReinforceConfig;
    Rloo = rloo::RlooConfig;
    Ppo = ppo::PpoConfig;
    Grpo = grpo::GrpoConfig;
    Disco = disco::DiscoConfig;
    Kdrl = kdrl::KdrlConfig;
}

impl Default for MethodConfig {
    fn default() -> Self {
        Self::Sft(sft::SftConfig::default())
    }
}

#[cfg(test)]
mod conformance;
