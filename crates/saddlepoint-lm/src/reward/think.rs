//! `think_format_reward`: 1 if the completion starts with its reasoning between `<think>` and `</think>`, else 0.
//!
//! Range {0, 1}. Reads no column. As in TRL, whose pattern is `^<think>(?!.*<think>)(.*?)</think>.*$`: one `<think>` alone, at
//! the very beginning, and a `</think>` somewhere after it. Where a chat template opens the reasoning itself, so that
//! `<think>` is in the prompt, every completion gets 0; `regex` can say what is wanted instead.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Case, Judged, Reward};
use crate::Result;

/// Settings of `think_format_reward`: none.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ThinkFormatConfig {}

/// See the module.
#[derive(Debug)]
pub struct ThinkFormat;

impl ThinkFormat {
    /// Without settings.
    ///
    /// # Errors
    /// None.
    pub fn new(_: ThinkFormatConfig) -> Result<Self> {
        Ok(Self)
    }
}

impl Reward for ThinkFormat {
    fn score(&self, cases: &[Case]) -> Judged {
        Ok(cases.iter().map(|case| Some(f64::from(is_enclosed(&case.completion)))).collect())
    }
}

fn is_enclosed(completion: &str) -> bool {
    let after = completion.strip_prefix("<think>");
    after.is_some_and(|after| !after.contains("<think>") && after.contains("</think>"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verdicts_are_those_of_the_pattern() {
        // Computed with Python's re and TRL's pattern.
        for (completion, enclosed) in [
            ("<think>\nThis is my reasoning.\n</think>\nThis is my answer.", true),
            ("<think>\nThis is my reasoning.\nThis is my answer.", false),
            ("<think></think>", true),
            (" <think>a</think>b", false),
            ("<think>a<think>b</think>c", false),
            ("<think>a</think>b</think>c", true),
            ("<think>a</think><think>b</think>", false),
            ("a</think>b", false),
            ("", false),
        ] {
            assert_eq!(is_enclosed(completion), enclosed, "{completion:?}");
        }
    }
}
