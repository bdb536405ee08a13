//! `[reward]`: what completions are worth.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::aggregate::Aggregation;
use super::{
    Reward, Rewards, accuracy, code, exact, http, length, model, overlong, pattern, program, repetition,
    schema, task, think,
};
use crate::{Error, Result};

/// What completions are worth: a list of rewards and how they are added up.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("default" = RewardConfig::default()))]
pub struct RewardConfig {
    /// The rewards; `name` chooses each.
    pub reward_funcs: Vec<FunctionConfig>,
    /// Whether rewards are added up as they are, or each normalised within its group first (GDPO).
    pub multi_objective_aggregation: Aggregation,
    /// What happens when a reward fails: panics, is late, returns an error, the wrong number of values, or one that is not
    /// finite.
    pub on_error: OnError,
    /// Seconds that a reward has for a batch, beside what its own settings allow.
    pub deadline: f64,
}

impl Default for RewardConfig {
    fn default() -> Self {
        Self {
            reward_funcs: Vec::new(),
            multi_objective_aggregation: Aggregation::default(),
            on_error: OnError::default(),
            deadline: 60.0,
        }
    }
}

/// What happens when a reward fails.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnError {
    /// The run ends with the reason.
    #[default]
    Error,
    /// The completion is left out, and counted.
    Skip,
}

/// One reward of the list.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct FunctionConfig {
    /// Which one, with its settings.
    #[serde(flatten)]
    pub kind: KindConfig,
    /// What its value is multiplied by.
    #[serde(default = "one")]
    pub weight: f64,
    /// Its name in metrics; needed where a reward is there twice. Without it, its name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
}

fn one() -> f64 {
    1.0
}

/// The list: enum variant (its snake-case form is the reward's name), module, type, configuration, and the name in metrics
/// where TRL has another one there.
macro_rules! rewards {
    ($($variant:ident = $module:ident::{$reward:ident, $config:ident} $(as $metric:literal)?;)*) => {
        /// Settings of a reward, chosen by `name`.
        #[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
        #[serde(tag = "name", rename_all = "snake_case")]
        pub enum KindConfig {
            $(#[doc = concat!("See [`", stringify!($module), "`].")] $variant($module::$config),)*
        }

        impl KindConfig {
            fn build(&self) -> Result<Arc<dyn Reward>> {
                Ok(match self { $(Self::$variant(config) => Arc::new($module::$reward::new(config.clone())?),)* })
            }

            /// The name in metrics that TRL has for it, where that is another.
            fn metric(&self) -> Option<&'static str> {
                match self { $(Self::$variant(_) => [$($metric)?].first().copied(),)* }
            }
        }
    };
}

rewards! {
    AccuracyReward = accuracy::{Accuracy, AccuracyConfig};
    ReasoningAccuracyReward = accuracy::{ReasoningAccuracy, ReasoningAccuracyConfig};
    ExactMatch = exact::{ExactMatch, ExactMatchConfig};
    TaskReward = task::{TaskReward, TaskRewardConfig};
    Code = code::{Code, CodeConfig};
    JsonSchema = schema::{MatchesSchema, SchemaConfig};
    Regex = pattern::{Pattern, PatternConfig};
    ThinkFormatReward = think::{ThinkFormat, ThinkFormatConfig};
    Length = length::{Length, LengthConfig};
    GetSoftOverlongPunishment = overlong::{SoftOverlong, SoftOverlongConfig} as "soft_overlong_punishment_reward";
    GetRepetitionPenaltyReward = repetition::{Repetition, RepetitionConfig} as "repetition_penalty_reward";
    RewardModel = model::{RewardModel, RewardModelConfig};
    Program = program::{Program, ProgramConfig};
    Http = http::{Http, HttpConfig};
}

impl FunctionConfig {
    /// The name in metrics.
    pub fn label(&self) -> String {
        let name = || {
            let value = serde_json::to_value(&self.kind).expect("settings are JSON");
            value["name"].as_str().expect("the tag").to_owned()
        };
        self.label.clone().or_else(|| self.kind.metric().map(str::to_owned)).unwrap_or_else(name)
    }
}

impl RewardConfig {
    /// The files and folders that it names.
    pub fn paths(&mut self) -> impl Iterator<Item = &mut PathBuf> {
        self.reward_funcs.iter_mut().flat_map(|function| match &mut function.kind {
            KindConfig::JsonSchema(config) => config.path.iter_mut().collect(),
            KindConfig::RewardModel(config) => config.folders().collect(),
            KindConfig::Program(config) => vec![&mut config.folder],
            _ => Vec::new(),
        })
    }

    /// The checked rewards.
    ///
    /// # Errors
    /// A setting is outside its range, or two rewards have the same label.
    pub fn build(&self) -> Result<Rewards> {
        let refused =
            |key: String, problem: String| Err(Error::Config { key: format!("reward.{key}"), problem });
        if self.reward_funcs.is_empty() {
            return refused("reward_funcs".to_owned(), "needs at least one reward".to_owned());
        }
        if !(self.deadline > 0.0 && self.deadline <= MOST_SECONDS) {
            let problem =
                format!("must be in (0, {MOST_SECONDS:e}] seconds, got {} (default 60)", self.deadline);
            return refused("deadline".to_owned(), problem);
        }
        let mut rewards = Rewards::new(self.multi_objective_aggregation, self.on_error, self.deadline);
        let mut labels = BTreeSet::new();
        for (i, function) in self.reward_funcs.iter().enumerate() {
            let place = |key: &str| format!("reward_funcs[{i}].{key}");
            if !function.weight.is_finite() {
                return refused(
                    place("weight"),
                    format!("must be finite, got {} (default 1)", function.weight),
                );
            }
            let label = function.label();
            if !labels.insert(label.clone()) {
                return refused(
                    place("label"),
                    format!("`{label}` is there already; give this one another `label`"),
                );
            }
            let reward = function.kind.build().map_err(|error| match error {
                Error::Config { key, problem } => {
                    Error::Config { key: format!("reward.{}", place(&key)), problem }
                }
                other => other,
            })?;
            rewards = rewards.with(&label, function.weight, reward);
        }
        Ok(rewards)
    }
}

/// Longest deadline: more than a day is a slip.
const MOST_SECONDS: f64 = 1e5;
