//! `regex`: 1 if a regular expression matches somewhere in the completion, else 0.
//!
//! Range {0, 1}. Reads no column. The syntax is that of the crate [`regex`](https://docs.rs/regex/latest/regex/#syntax):
//! anchor with `^` and `$`, let a dot match line breaks with `(?s)`. It has neither look-around nor back-references, so
//! matching takes time linear in the completion and cannot hang.

use regex::Regex;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Case, Judged, Reward};
use crate::{Error, Result};

/// Settings of `regex`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PatternConfig {
    /// The regular expression.
    pub pattern: String,
}

/// See the module.
#[derive(Debug)]
pub struct Pattern {
    pattern: Regex,
}

impl Pattern {
    /// With these settings.
    ///
    /// # Errors
    /// The pattern is not a regular expression.
    pub fn new(config: PatternConfig) -> Result<Self> {
        let PatternConfig { pattern } = config;
        let pattern = Regex::new(&pattern).map_err(|error| {
            let problem = format!("is not a regular expression: {}", last_line(&error.to_string()));
            Error::Config { key: "pattern".to_owned(), problem }
        })?;
        Ok(Self { pattern })
    }
}

impl Reward for Pattern {
    fn score(&self, cases: &[Case]) -> Judged {
        Ok(cases.iter().map(|case| Some(f64::from(self.pattern.is_match(&case.completion)))).collect())
    }
}

/// What is wrong, without the drawing above it.
pub(super) fn last_line(text: &str) -> &str {
    text.lines().last().map_or(text, |line| line.trim_start_matches("error: "))
}

#[cfg(test)]
mod tests {
    use super::super::tests::case;
    use super::*;

    #[test]
    fn a_pattern_matches_or_not_and_a_bad_one_is_told() {
        let reward = |pattern: &str| Pattern::new(PatternConfig { pattern: pattern.to_owned() });
        let cases = [case("a\n<b>1</b>", &[]), case("<b>x</b>", &[])];
        assert_eq!(
            reward(r"<b>\d</b>$").expect("valid").score(&cases).expect("judged"),
            [Some(1.0), Some(0.0)]
        );
        assert_eq!(
            reward("(a").expect_err("refused").to_string(),
            "pattern: is not a regular expression: unclosed group"
        );
    }
}
