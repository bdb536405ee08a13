//! `[data]`: what the model is trained on.

use std::collections::BTreeMap;
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::refused;
use crate::Result;
use crate::data::generate::GenerateConfig;
use crate::data::{PrepareConfig, ReadConfig, Schema, TrainOn, Truncation};

/// What the model is trained on. Exactly one of `path` and `generate` is given.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct DataConfig {
    /// A JSONL file, a JSON array, or Parquet, in one of TRL's schemas.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<PathBuf>,
    /// Data made up for trying things.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub generate: Option<GenerateConfig>,
    /// A file to evaluate on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub eval_path: Option<PathBuf>,
    /// Share of `path` to evaluate on instead of training on it, in [0, 1); drawn by the seed.
    pub eval_fraction: f64,
    /// Layout of the records; recognised from the columns if it is not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub schema: Option<Schema>,
    /// The file's column for a column of the schema, for example `{ prompt = "question" }`.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub columns: BTreeMap<String, String>,
    /// Longest sequence in tokens, prompt and completion together, at least 2.
    pub max_length: usize,
    /// What happens to longer ones. Either way they are counted.
    pub truncation_mode: Truncation,
    /// Which tokens of a conversation are learned.
    pub train_on: TrainOn,
}

impl Default for DataConfig {
    fn default() -> Self {
        Self {
            path: None,
            generate: None,
            eval_path: None,
            eval_fraction: 0.0,
            schema: None,
            columns: BTreeMap::new(),
            max_length: 1024,
            truncation_mode: Truncation::default(),
            train_on: TrainOn::default(),
        }
    }
}

impl DataConfig {
    /// Whether something is kept for evaluation.
    pub fn has_eval(&self) -> bool {
        self.eval_path.is_some()
            || self.eval_fraction > 0.0
            || self.generate.as_ref().is_some_and(|generate| generate.eval_samples > 0)
    }

    /// How files are read.
    pub fn reading(&self) -> ReadConfig {
        ReadConfig { columns: self.columns.clone(), schema: self.schema }
    }

    /// How records become ids.
    pub fn preparation(&self) -> PrepareConfig {
        PrepareConfig {
            max_length: Some(self.max_length),
            truncation_mode: self.truncation_mode,
            train_on: self.train_on,
        }
    }

    pub(super) fn check(&self) -> Result<()> {
        match (&self.path, &self.generate) {
            (None, None) => return Err(refused("data", "needs `path` or `generate`")),
            (Some(_), Some(_)) => return Err(refused("data", "takes `path` or `generate`, not both")),
            (None, Some(generate)) => {
                generate.check()?;
                if self.eval_path.is_some() || self.eval_fraction > 0.0 {
                    let problem =
                        "generated data has its own `eval_samples`; remove eval_path and eval_fraction";
                    return Err(refused("data.generate", problem));
                }
            }
            (Some(_), None) => {}
        }
        if !(0.0..1.0).contains(&self.eval_fraction) {
            let problem = format!("must be in [0, 1), got {} (default 0)", self.eval_fraction);
            return Err(refused("data.eval_fraction", problem));
        }
        if self.eval_fraction > 0.0 && self.eval_path.is_some() {
            return Err(refused("data", "takes `eval_path` or `eval_fraction`, not both"));
        }
        Ok(())
    }
}
