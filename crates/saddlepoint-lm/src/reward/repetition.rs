//! `get_repetition_penalty_reward`: a punishment of repeated n-grams of tokens.
//!
//! ```text
//! r = max_penalty (1 − distinct n-grams / n-grams),   0 with fewer than n tokens
//! ```
//! Appendix C.2 of *Demystifying Long Chain-of-Thought Reasoning* (Yeo et al. 2025, arXiv:2502.03373); names and values are
//! those of TRL, and its name in metrics is TRL's `repetition_penalty_reward`. Range [`max_penalty`, 0]. Reads no column.

use std::collections::BTreeSet;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Case, Judged, Reward};
use crate::{Error, Result};

/// Settings of `get_repetition_penalty_reward`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RepetitionConfig {
    /// Tokens of an n-gram, at least 1.
    pub ngram_size: usize,
    /// What repeating alone gets, <= 0.
    pub max_penalty: f64,
}

impl Default for RepetitionConfig {
    fn default() -> Self {
        Self { ngram_size: 3, max_penalty: -1.0 }
    }
}

/// See the module.
#[derive(Debug)]
pub struct Repetition {
    config: RepetitionConfig,
}

impl Repetition {
    /// With these settings.
    ///
    /// # Errors
    /// A setting is outside its range.
    pub fn new(config: RepetitionConfig) -> Result<Self> {
        let refused = |key: &str, problem: String| Err(Error::Config { key: key.to_owned(), problem });
        if config.ngram_size == 0 {
            return refused("ngram_size", "must be at least 1, got 0 (default 3)".to_owned());
        }
        if !(config.max_penalty <= 0.0 && config.max_penalty.is_finite()) {
            return refused("max_penalty", format!("must be <= 0, got {} (default -1)", config.max_penalty));
        }
        Ok(Self { config })
    }

    fn penalty(&self, ids: &[u32]) -> f64 {
        let grams = ids.windows(self.config.ngram_size);
        let count = grams.len();
        let distinct = grams.collect::<BTreeSet<_>>().len();
        if distinct == count { 0.0 } else { (1.0 - distinct as f64 / count as f64) * self.config.max_penalty }
    }
}

impl Reward for Repetition {
    fn score(&self, cases: &[Case]) -> Judged {
        Ok(cases.iter().map(|case| Some(self.penalty(&case.completion_ids))).collect())
    }
}

#[cfg(test)]
mod tests {
    use saddlepoint_core::test::assert_close;

    use super::*;

    #[test]
    fn values_are_those_of_trl() {
        let reward = Repetition::new(RepetitionConfig { ngram_size: 2, ..RepetitionConfig::default() });
        let reward = reward.expect("valid");
        for (ids, penalty) in [(&[1, 2, 3, 4][..], 0.0), (&[5; 5], -0.75), (&[1], 0.0), (&[], 0.0)] {
            assert_close!(reward.penalty(ids), penalty, atol = 1e-15);
        }
        let told = "max_penalty: must be <= 0, got 1 (default -1)";
        let positive = RepetitionConfig { max_penalty: 1.0, ..RepetitionConfig::default() };
        assert_eq!(Repetition::new(positive).expect_err("refused").to_string(), told);
    }
}
