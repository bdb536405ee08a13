//! `accuracy_reward`: 1 if the answer means the same as the solution's, as GSM8K and MATH have them, else 0.
//!
//! Range {0, 1}. Reads the column `column` (`solution`): a number, an expression, or a text that ends with one, marked by
//! `\boxed{}` or `####`. A case without a solution gets `None`. Where the answer of a completion is found and when two
//! answers mean the same is said in [`answer`](super::answer).
//!
//! `reasoning_accuracy_reward` looks at what follows the last of its `reasoning_delimiters` only, and gives 0 to a
//! completion that has none: its reasoning is not complete.
//!
//! Names and columns are those of TRL; TRL gives `None` where `math_verify` cannot read the solution, which is compared as
//! text here, and looks for answers in LaTeX only.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::answer::{Unmarked, answer, equal, solution};
use super::{Case, Judged, Reward};
use crate::{Error, Result};

/// Settings of `accuracy_reward`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct AccuracyConfig {
    /// The column with the solution. For GSM8K: `answer`, with `data.columns = { prompt = "question" }`.
    pub column: String,
    /// What counts as the answer of a completion that marks none.
    pub unmarked: Unmarked,
}

impl Default for AccuracyConfig {
    fn default() -> Self {
        Self { column: "solution".to_owned(), unmarked: Unmarked::default() }
    }
}

/// See the module.
#[derive(Debug)]
pub struct Accuracy {
    config: AccuracyConfig,
}

impl Accuracy {
    /// With these settings.
    ///
    /// # Errors
    /// None.
    pub fn new(config: AccuracyConfig) -> Result<Self> {
        Ok(Self { config })
    }

    /// Whether `completion` answers `case` right; none without a solution.
    pub(super) fn right(&self, case: &Case, completion: &str) -> Result<Option<bool>, String> {
        let text = case.text(&self.config.column)?;
        let wanted = text.as_deref().map(solution).filter(|wanted| !wanted.is_empty());
        let given = answer(completion, self.config.unmarked);
        Ok(wanted.map(|wanted| given.is_some_and(|given| equal(wanted, given))))
    }
}

impl Reward for Accuracy {
    fn columns(&self) -> Vec<&str> {
        vec![&self.config.column]
    }

    fn score(&self, cases: &[Case]) -> Judged {
        let judge = |case: &Case| Ok(self.right(case, &case.completion)?.map(f64::from));
        cases.iter().map(judge).collect()
    }
}

/// Settings of `reasoning_accuracy_reward`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ReasoningAccuracyConfig {
    /// The column with the solution.
    pub column: String,
    /// What counts as the answer where none is marked after the reasoning.
    pub unmarked: Unmarked,
    /// What ends the reasoning: the first of these that a completion has, at its last place.
    pub reasoning_delimiters: Vec<String>,
}

impl Default for ReasoningAccuracyConfig {
    fn default() -> Self {
        let AccuracyConfig { column, unmarked } = AccuracyConfig::default();
        Self { column, unmarked, reasoning_delimiters: vec!["</think>".to_owned()] }
    }
}

/// See the module.
#[derive(Debug)]
pub struct ReasoningAccuracy {
    accuracy: Accuracy,
    delimiters: Vec<String>,
}

impl ReasoningAccuracy {
    /// With these settings.
    ///
    /// # Errors
    /// A delimiter is empty, or there is none.
    pub fn new(config: ReasoningAccuracyConfig) -> Result<Self> {
        let ReasoningAccuracyConfig { column, unmarked, reasoning_delimiters: delimiters } = config;
        if delimiters.is_empty() || delimiters.iter().any(String::is_empty) {
            let problem = "needs at least one text, none of them empty (default [\"</think>\"])".to_owned();
            return Err(Error::Config { key: "reasoning_delimiters".to_owned(), problem });
        }
        Ok(Self { accuracy: Accuracy { config: AccuracyConfig { column, unmarked } }, delimiters })
    }

    fn after_reasoning<'a>(&self, completion: &'a str) -> Option<&'a str> {
        self.delimiters.iter().find_map(|delimiter| Some(completion.rsplit_once(delimiter.as_str())?.1))
    }
}

impl Reward for ReasoningAccuracy {
    fn columns(&self) -> Vec<&str> {
        self.accuracy.columns()
    }

    fn score(&self, cases: &[Case]) -> Judged {
        let judge = |case: &Case| {
            let answer = self.after_reasoning(&case.completion);
            let right = self.accuracy.right(case, answer.unwrap_or_default())?;
            Ok(right.map(|right| f64::from(right && answer.is_some())))
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
    fn solutions_and_completions_may_be_written_in_many_ways() {
        let reward = Accuracy::new(AccuracyConfig::default()).expect("valid");
        for (solution, completion, value) in [
            ("2 + 2 = <<2+2=4>>4\n#### 4", "It is 4 because ...\n#### 4", Some(1.0)),
            ("#### 1,234", r"Thus \boxed{1234 \text{ apples}}.", Some(1.0)),
            (r"\frac{1}{3}", r"My answer is \boxed{\frac{1}{3}}", Some(1.0)),
            (r"\frac{1}{3}", r"My answer is \boxed{\frac{1}{2}}", Some(0.0)),
            ("18", "The answer is $18.", Some(1.0)),
            ("18", "I made 18 steps and gave up", Some(0.0)),
            ("18", "", Some(0.0)),
            ("  ", "18", None),
        ] {
            let case = case(completion, &[("solution", json!(solution))]);
            assert_eq!(reward.score(&[case]).expect("judged"), [value], "{solution:?} {completion:?}");
        }
        assert_eq!(reward.score(&[case("18", &[])]).expect("judged"), [None]);
    }

    #[test]
    fn an_answer_inside_the_reasoning_is_none() {
        // The example of TRL's documentation.
        let reward = ReasoningAccuracy::new(ReasoningAccuracyConfig::default()).expect("valid");
        let cases = [
            r"<think> Reasoning content </think> The final answer is \boxed{\frac{1}{3}}",
            r"<think> Reasoning content </think> The final answer is \boxed{\frac{1}{2}}",
            r"<think> Reasoning content with partial answers \boxed{\frac{1}{3}} but no final answer",
        ]
        .map(|completion| case(completion, &[("solution", json!(r"\frac{1}{3}"))]));
        assert_eq!(reward.score(&cases).expect("judged"), [Some(1.0), Some(0.0), Some(0.0)]);
        let none = ReasoningAccuracyConfig { reasoning_delimiters: Vec::new(), ..Default::default() };
        assert!(ReasoningAccuracy::new(none).is_err());
    }
}
