//! A recipe: everything that decides a run, in one TOML file.
//!
//! ```toml
//! [model]
//! path = "SmolLM2-135M-Instruct"
//! lora = { r = 16 }
//! [data]
//! path = "pairs.jsonl"
//! eval_fraction = 0.1
//! [method]
//! name = "dpo"
//! label_smoothing = 0.1
//! [tether]
//! budget = 3.0
//! [train]
//! output_dir = "runs/first"
//! max_steps = 200
//! ```
//! Where a key exists in TRL or transformers it has that name. Paths are relative to the recipe file.

mod data;
mod model;
mod teacher;
mod train;

use std::path::{Path, PathBuf};

use saddlepoint_core::config;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use data::DataConfig;
pub use model::{Family, FrozenDtype, ModelConfig, NewModel};
pub use teacher::TeacherConfig;
pub use train::{OptimizerConfig, TrainConfig};

use crate::method::{Method, MethodConfig, Teaching};
use crate::reward::{RewardConfig, Rewards};
use crate::rollout::{Plan, RolloutConfig};
use crate::tether::{ReferenceConfig, Tether, TetherConfig};
use crate::{Error, Result};

/// The configuration of a run.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Recipe {
    /// What is trained.
    pub model: ModelConfig,
    /// What it is trained on.
    pub data: DataConfig,
    /// What is minimised; `name` chooses the method.
    pub method: MethodConfig,
    /// How far the policy may go from its reference. Without it nothing holds the policy but the method itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tether: Option<TetherConfig>,
    /// A second model, for methods that learn from its distributions.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub teacher: Option<TeacherConfig>,
    /// How completions are sampled, for methods that learn from rewards.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rollout: Option<RolloutConfig>,
    /// What completions are worth, for methods that learn from rewards.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reward: Option<RewardConfig>,
    /// How parameters are updated; `name` chooses the rule.
    pub optimizer: OptimizerConfig,
    /// How long, in what portions, and what is written where.
    pub train: TrainConfig,
}

impl Recipe {
    /// Reads a recipe, changes it by `KEY=VALUE` options, and checks it. Relative paths (those of the options
    /// too) start at the recipe's folder.
    ///
    /// # Errors
    /// The file is not a recipe, or a setting is outside its range or contradicts another.
    pub fn load(file: &Path, sets: &[String]) -> Result<Self> {
        let recipe = Self::read(file, sets)?;
        recipe.check()?;
        Ok(recipe)
    }

    /// The rewards of a recipe, read as by [`load`](Self::load); the rest of it is not checked.
    ///
    /// # Errors
    /// The file is not a recipe, has no `[reward]`, or a setting there is outside its range.
    pub fn rewards(file: &Path, sets: &[String]) -> Result<Rewards> {
        let reward = Self::read(file, sets)?.reward;
        reward.ok_or_else(|| refused("reward", "is missing: name rewards in reward.reward_funcs"))?.build()
    }

    fn read(file: &Path, sets: &[String]) -> Result<Self> {
        let mut recipe: Recipe = config::load(Some(file), sets)?;
        let folder = file.parent().unwrap_or(Path::new(""));
        for path in recipe.paths() {
            *path = folder.join(&*path);
        }
        Ok(recipe)
    }

    /// Checks what no type can say.
    ///
    /// # Errors
    /// A setting is outside its range or contradicts another.
    pub fn check(&self) -> Result<()> {
        self.model.check()?;
        self.data.check()?;
        self.optimizer.check()?;
        self.train.check()?;
        let method = self.method.build()?;
        if self.train.precompute_ref_log_probs {
            self.check_precomputing(&*method)?;
        }
        if method.couples() && self.train.gradient_accumulation_steps > 1 {
            let (name, steps) = (method.meta().name, self.train.gradient_accumulation_steps);
            let problem = format!(
                "must be 1 with these settings of method `{name}`, got {steps}: the loss of a sequence depends on the others \
                 of its pass, so the passes of a step would not add up to the step; raise \
                 train.per_device_train_batch_size instead"
            );
            return Err(refused("train.gradient_accumulation_steps", problem));
        }
        let rollout = self.rollout.clone().unwrap_or_default();
        TeacherConfig::check_for(self.teacher.as_ref(), &*method, &rollout, self.tether.is_some())?;
        let held_out = self.data.has_eval();
        if self.tether.is_some() && !method.readout().vocabulary() {
            let problem = format!(
                "has no use: `{}` makes a reward model, which has no distribution to hold; remove it",
                method.meta().name
            );
            return Err(refused("tether", problem));
        }
        if let Some(tether) = &self.tether {
            Tether::new(tether.clone(), &*method)?;
            self.check_rescale(tether)?;
        }
        if self.tether.is_some() && !held_out {
            let problem = "is measured on held-out prompts: set data.eval_path or data.eval_fraction";
            return Err(refused("tether", problem));
        }
        match method.on_policy() {
            Some(_) => self.check_on_policy(&*method)?,
            None => self.check_off_policy(&*method)?,
        }
        if self.train.load_best_model_at_end {
            if !held_out {
                let problem = "needs an evaluation: set data.eval_path or data.eval_fraction";
                return Err(refused("train.load_best_model_at_end", problem));
            }
            if self.tether.as_ref().is_some_and(|tether| tether.budget.is_some()) {
                let problem = "contradicts tether.budget, which chooses the model at the end; remove one";
                return Err(refused("train.load_best_model_at_end", problem));
            }
        }
        Ok(())
    }

    /// Checks what only methods on rewards have to do with.
    fn check_on_policy(&self, method: &dyn Method) -> Result<()> {
        let name = method.meta().name;
        let Some(reward) = &self.reward else {
            let problem =
                format!("is missing: `{name}` learns from rewards; name them in reward.reward_funcs");
            return Err(refused("reward", problem));
        };
        reward.build()?;
        self.plan()?;
        let rollout = self.rollout.clone().unwrap_or_default();
        if self.tether.is_some() && rollout.tempered().is_some() {
            let problem = format!(
                "must be 1 with a tether, got {}: the divergence is that of the policy's own distribution",
                rollout.temperature
            );
            return Err(refused("rollout.temperature", problem));
        }
        let unweighted = match method.teacher() {
            Some(Teaching::Whole) => Some("method.kl_estimator = \"full\""),
            Some(Teaching::Top) => Some("method.kl_estimator = \"top_k\""),
            _ => self.tether.as_ref().map(|_| "a tether"),
        };
        if let Some(unweighted) = unweighted.filter(|_| rollout.max_staleness > 0) {
            let problem = format!(
                "must be 0 with {unweighted}, got {}: the divergence there is that at the policy's own completions, and has no \
                 weights for those of an older one; remove one",
                rollout.max_staleness
            );
            return Err(refused("rollout.max_staleness", problem));
        }
        Ok(())
    }

    /// Refuses what only methods on rewards have a use for.
    fn check_off_policy(&self, method: &dyn Method) -> Result<()> {
        let name = method.meta().name;
        if let Some(reward) = &self.reward {
            reward.build()?;
            let problem = format!("has no use: {name} learns from no rewards; remove it");
            return Err(refused("reward", problem));
        }
        if self.rollout.is_some() {
            let problem =
                format!("has no use: {name} learns from no rewards of its own completions; remove it");
            return Err(refused("rollout", problem));
        }
        Ok(())
    }

    /// How completions are divided into rounds and steps; none where the method learns from no rewards.
    ///
    /// # Errors
    /// The numbers do not fit together.
    pub fn plan(&self) -> Result<Option<Plan>> {
        let method = self.method.build()?;
        let Some(needs) = method.on_policy() else { return Ok(None) };
        let rollout = self.rollout.clone().unwrap_or_default();
        let plan = Plan::new(&rollout, &self.train, &needs, method.meta().name)?;
        if rollout.server.is_some() && self.model.lora.is_none() {
            let problem =
                "needs model.lora: a server is given the adapter that is trained, not all weights".to_owned();
            return Err(Error::Config { key: "rollout.server".to_owned(), problem });
        }
        Ok(Some(plan))
    }

    /// Refuses a factor on the update where there is no line to move on, or no budget to meet.
    fn check_rescale(&self, tether: &TetherConfig) -> Result<()> {
        let needs = match () {
            () if !tether.rescale => return Ok(()),
            () if tether.budget.is_none() => "a `budget` that it is to meet",
            () if self.model.lora.is_none() => "an adapter whose update it can scale (model.lora)",
            () if tether.reference != ReferenceConfig::Initial => {
                "reference = \"initial\", on the line from which it moves the policy"
            }
            () => return Ok(()),
        };
        Err(refused("tether.rescale", format!("needs {needs}")))
    }

    fn check_precomputing(&self, method: &dyn Method) -> Result<()> {
        let (name, want) = (method.meta().name, method.want());
        let moves = self.tether.as_ref().is_some_and(|tether| tether.reference.moves());
        let added = self.tether.as_ref().is_some_and(|t| t.budget.is_some() || method.beta().is_none());
        let problem = match () {
            () if moves => "contradicts tether.reference, which moves; remove one".to_owned(),
            () if method.on_policy().is_some() => {
                format!("has no use: {name} asks the reference about completions, which are not known before")
            }
            () if want.divergence.is_some() => {
                format!("has no use: {name} reads whole distributions of the reference")
            }
            () if method.mismatched() => {
                format!(
                    "has no use: {name} asks the reference in every step, about completions of other prompts"
                )
            }
            () if added => {
                format!("has no use: the tether reads whole distributions of the reference for {name}")
            }
            () if !want.ref_logp => format!("has no use: {name} reads no reference"),
            () if method.samples().is_some() => {
                format!("has no use: {name} asks the reference about samples, which are not known before")
            }
            () => return Ok(()),
        };
        Err(refused("train.precompute_ref_log_probs", problem))
    }

    /// The learning rate: the one given, or the method's default.
    pub fn learning_rate(&self) -> f64 {
        self.optimizer.learning_rate.unwrap_or(self.method.meta().learning_rate)
    }

    /// The recipes that have to be run before this one, with the keys that name them.
    pub fn recipes(&self) -> impl Iterator<Item = (&'static str, &PathBuf)> {
        let teacher = self.teacher.as_ref().and_then(|teacher| teacher.recipe.as_ref());
        let named = [("model.recipe", self.model.recipe.as_ref()), ("teacher.recipe", teacher)];
        named.into_iter().filter_map(|(key, file)| file.map(|file| (key, file)))
    }

    fn paths(&mut self) -> impl Iterator<Item = &mut PathBuf> {
        let new = self.model.new.as_mut().and_then(|new| new.tokenizer.as_mut());
        [
            self.model.path.as_mut(),
            self.model.recipe.as_mut(),
            new,
            self.data.path.as_mut(),
            self.data.eval_path.as_mut(),
            Some(&mut self.train.output_dir),
            self.train.ref_log_probs_dir.as_mut(),
        ]
        .into_iter()
        .flatten()
        .chain(self.tether.iter_mut().flat_map(|tether| tether.reference.paths()))
        .chain(self.teacher.iter_mut().flat_map(|teacher| [&mut teacher.path, &mut teacher.recipe]).flatten())
        .chain(self.reward.iter_mut().flat_map(RewardConfig::paths))
    }
}

/// A setting that cannot be used.
fn refused(key: &str, problem: impl Into<String>) -> Error {
    Error::Config { key: key.to_owned(), problem: problem.into() }
}

#[cfg(test)]
mod tests;
