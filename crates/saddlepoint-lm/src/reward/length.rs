//! `length`: a price on every token away from a length.
//!
//! ```text
//! r = −alpha |len − target|
//! ```
//! The length part of L1 (Aggarwal and Welleck 2025, arXiv:2503.04697, equation 1), whose `alpha` of 0.0003 is the default.
//! `len` is in tokens, an end token included. Range (−inf, 0]. Reads the column `column`, if there is one; it stands for
//! `target`, and a case without it gets `None`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Case, Judged, Reward};
use crate::{Error, Result};

/// Settings of `length`. Exactly one of `target` and `column` is given.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct LengthConfig {
    /// The length that costs nothing, in tokens.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target: Option<usize>,
    /// The column with that length, where every prompt has its own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub column: Option<String>,
    /// Price of a token, > 0.
    pub alpha: f64,
}

impl Default for LengthConfig {
    fn default() -> Self {
        Self { target: None, column: None, alpha: 0.0003 }
    }
}

/// See the module.
#[derive(Debug)]
pub struct Length {
    config: LengthConfig,
}

impl Length {
    /// With these settings.
    ///
    /// # Errors
    /// Not exactly one of `target` and `column` is given, or `alpha` is not positive.
    pub fn new(config: LengthConfig) -> Result<Self> {
        let refused = |key: &str, problem: String| Err(Error::Config { key: key.to_owned(), problem });
        if config.target.is_some() == config.column.is_some() {
            return refused(
                "target",
                "needs either `target` (tokens) or `column`, which holds it".to_owned(),
            );
        }
        if !(config.alpha > 0.0 && config.alpha.is_finite()) {
            return refused("alpha", format!("must be > 0, got {} (default 0.0003)", config.alpha));
        }
        Ok(Self { config })
    }

    fn target(&self, case: &Case) -> Result<Option<usize>, String> {
        let Some(column) = &self.config.column else { return Ok(self.config.target) };
        let Some(text) = case.text(column)? else { return Ok(None) };
        text.trim().parse().map(Some).map_err(|_| {
            let place = case.excerpt();
            format!("column `{column}` must be a number of tokens, got {text:?} ({place})")
        })
    }
}

impl Reward for Length {
    fn columns(&self) -> Vec<&str> {
        self.config.column.as_deref().into_iter().collect()
    }

    fn score(&self, cases: &[Case]) -> Judged {
        let judge = |case: &Case| {
            let price =
                |target: usize| -self.config.alpha * case.completion_ids.len().abs_diff(target) as f64;
            Ok(self.target(case)?.map(price))
        };
        cases.iter().map(judge).collect()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::tests::case;
    use super::*;

    #[test]
    fn every_token_away_costs_the_same() {
        let fixed = LengthConfig { target: Some(3), alpha: 0.5, ..LengthConfig::default() };
        let cases = ["", "abc", "abcde"].map(|completion| case(completion, &[]));
        let reward = Length::new(fixed).expect("valid");
        assert_eq!(reward.score(&cases).expect("judged"), [Some(-1.5), Some(-0.0), Some(-1.0)]);

        let own = LengthConfig { column: Some("tokens".to_owned()), alpha: 1.0, ..LengthConfig::default() };
        let reward = Length::new(own).expect("valid");
        let cases = [case("ab", &[("tokens", json!(5))]), case("ab", &[])];
        assert_eq!(reward.score(&cases).expect("judged"), [Some(-3.0), None]);
        let told =
            reward.score(&[case("ab", &[("tokens", json!("long"))])]).expect_err("refused").to_string();
        assert_eq!(told, "column `tokens` must be a number of tokens, got \"long\" (prompt \"a prompt\")");
    }

    #[test]
    fn settings_that_contradict_are_refused() {
        let both = LengthConfig { target: Some(1), column: Some("t".into()), ..LengthConfig::default() };
        for config in [both, LengthConfig::default()] {
            let told = "target: needs either `target` (tokens) or `column`, which holds it";
            assert_eq!(Length::new(config).expect_err("refused").to_string(), told);
        }
        let free = LengthConfig { target: Some(1), alpha: 0.0, ..LengthConfig::default() };
        let told = "alpha: must be > 0, got 0 (default 0.0003)";
        assert_eq!(Length::new(free).expect_err("refused").to_string(), told);
    }
}
