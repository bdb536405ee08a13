//! `reward_model`: what a reward model says of prompt and completion, or several of them together.
//!
//! Range any. Reads no column. A model is the folder that a run with `method.name = "reward"` wrote (or any classifier of sequences
//! with one label that transformers reads), or an adapter of one. It reads the prompt as the policy read it, and the completion
//! with the end that it was trained on, unless the completion was cut. Several models are an ensemble, whose scores `aggregate` makes
//! one ([`ensemble`]).
//!
//! Scores of a model have a scale of its own. `score_scale.json` in its folder has their mean and deviation on the examples that were
//! held out from its training; members of an ensemble are put on that scale first, since otherwise the lowest score would be that of the
//! model with the lowest mean. Statistics of a batch are never used for that: they would change with the policy.

pub mod ensemble;
mod scorer;

use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use self::ensemble::Aggregate;
use self::scorer::Scorer;
pub use self::scorer::scores;
use super::aggregate::Variance;
use super::{Case, Judged, Reward};
use crate::{Error, Result};

/// Settings of `reward_model`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RewardModelConfig {
    /// Folder of the model, where there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<PathBuf>,
    /// Folders of the members of an ensemble.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub paths: Vec<PathBuf>,
    /// How their scores become one.
    pub aggregate: Aggregate,
    /// What the variance is multiplied by before it is taken off, >= 0; only with `uncertainty_weighted`.
    pub uncertainty_coefficient: f64,
    /// What the variance is divided by.
    pub variance: Variance,
    /// Take off the mean of a model's held-out scores and divide by their deviation (`score_scale.json`). Without it: where there are
    /// several models.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub normalize: Option<bool>,
    /// Longest sequence in tokens, prompt and completion together; a longer one is a failure.
    pub max_length: usize,
}

impl Default for RewardModelConfig {
    fn default() -> Self {
        Self {
            path: None,
            paths: Vec::new(),
            aggregate: Aggregate::default(),
            uncertainty_coefficient: 0.1,
            variance: Variance::default(),
            normalize: None,
            max_length: 1024,
        }
    }
}

impl RewardModelConfig {
    /// The folders that it names.
    pub(super) fn folders(&mut self) -> impl Iterator<Item = &mut PathBuf> {
        self.path.iter_mut().chain(&mut self.paths)
    }
}

/// See the module.
#[derive(Debug)]
pub struct RewardModel {
    config: RewardModelConfig,
    normalize: bool,
    members: Mutex<Vec<Scorer>>,
    /// Of all members together.
    parameters: usize,
}

/// Operations a second that any machine reaches; for the time that a batch is given.
const SLOW: f64 = 1e9;

impl RewardModel {
    /// Opens the models; their weights are read with the first batch.
    ///
    /// # Errors
    /// A setting is outside its range, a folder is no reward model, or one has no scale although its scores are to be normalised.
    pub fn new(mut config: RewardModelConfig) -> Result<Self> {
        let refused =
            |key: &str, problem: &str| Error::Config { key: key.to_owned(), problem: problem.to_owned() };
        if config.path.is_some() != config.paths.is_empty() {
            return Err(refused("path", "give the folder of a model as `path`, or several as `paths`"));
        }
        let coefficient = config.uncertainty_coefficient;
        if !(coefficient >= 0.0 && coefficient.is_finite()) {
            let problem = format!("must be >= 0, got {coefficient} (default 0.1)");
            return Err(refused("uncertainty_coefficient", &problem));
        }
        if config.max_length == 0 {
            return Err(refused("max_length", "must be at least 1, got 0 (default 1024)"));
        }
        let members: Vec<Scorer> = config.folders().map(|path| Scorer::open(path)).collect::<Result<_>>()?;
        let normalize = config.normalize.unwrap_or(members.len() > 1);
        if normalize && let Some(member) = members.iter().find(|member| member.scale.is_none()) {
            let problem = format!(
                "{} has no score_scale.json, which a run with method.name = \"reward\" writes: its scores cannot be compared with \
                 those of other models; train it again, or set normalize = false if all have the same scale",
                member.path().display()
            );
            return Err(refused("normalize", &problem));
        }
        let parameters = members.iter().map(Scorer::parameters).sum();
        Ok(Self { config, normalize, members: Mutex::new(members), parameters })
    }
}

impl Reward for RewardModel {
    fn allowance(&self, cases: usize) -> f64 {
        2.0 * self.parameters as f64 * (cases * self.config.max_length) as f64 / SLOW
    }

    fn bytes(&self, cases: usize, longest: usize) -> u64 {
        let members = self.members.lock().unwrap_or_else(PoisonError::into_inner);
        members.iter().map(|member| member.bytes(cases, longest, self.config.max_length)).sum()
    }

    fn score(&self, cases: &[Case]) -> Judged {
        let mut members = self.members.lock().unwrap_or_else(PoisonError::into_inner);
        let mut scores = vec![Vec::with_capacity(members.len()); cases.len()];
        for member in &mut *members {
            let scale = member.scale.filter(|_| self.normalize);
            for (scores, score) in scores.iter_mut().zip(member.score(cases, self.config.max_length)?) {
                scores.push(scale.map_or(score, |scale| scale.normalized(score)));
            }
        }
        let RewardModelConfig { aggregate, uncertainty_coefficient, variance, .. } = &self.config;
        let one = |scores: &Vec<f64>| Some(aggregate.of(scores, *uncertainty_coefficient, *variance));
        Ok(scores.iter().map(one).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bad_settings_are_refused() {
        let told = |config| RewardModel::new(config).expect_err("refused").to_string();
        let default = RewardModelConfig::default;
        let both = RewardModelConfig { path: Some("a".into()), paths: vec!["b".into()], ..default() };
        for config in [default(), both] {
            assert_eq!(told(config), "path: give the folder of a model as `path`, or several as `paths`");
        }
        let one = || RewardModelConfig { path: Some("a".into()), ..default() };
        assert_eq!(
            told(RewardModelConfig { uncertainty_coefficient: -1.0, ..one() }),
            "uncertainty_coefficient: must be >= 0, got -1 (default 0.1)"
        );
        assert_eq!(
            told(RewardModelConfig { max_length: 0, ..one() }),
            "max_length: must be at least 1, got 0 (default 1024)"
        );
        assert!(told(one()).starts_with("cannot read a"), "{}", told(one()));
    }
}
