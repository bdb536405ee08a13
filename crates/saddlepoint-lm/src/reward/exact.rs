//! `exact_match`: 1 if the completion is the text of a column, else 0.
//!
//! Range {0, 1}. Reads the column `column` (`solution` by default); a case without it gets `None`. With `normalize`, both
//! are compared without case, articles (*a*, *an*, *the*), punctuation and runs of white space, as SQuAD's evaluation does
//! (Rajpurkar et al. 2016, arXiv:1606.05250). A reward for mathematics is [`accuracy`](super::accuracy).

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Case, Judged, Reward};
use crate::Result;

/// Settings of `exact_match`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ExactMatchConfig {
    /// The column that holds the text.
    pub column: String,
    /// Compare without case, punctuation, articles and runs of white space.
    pub normalize: bool,
}

impl Default for ExactMatchConfig {
    fn default() -> Self {
        Self { column: "solution".to_owned(), normalize: false }
    }
}

/// See the module.
#[derive(Debug)]
pub struct ExactMatch {
    config: ExactMatchConfig,
}

impl ExactMatch {
    /// With these settings.
    ///
    /// # Errors
    /// None.
    pub fn new(config: ExactMatchConfig) -> Result<Self> {
        Ok(Self { config })
    }

    fn equal(&self, completion: &str, wanted: &str) -> bool {
        if self.config.normalize {
            normalized(completion) == normalized(wanted)
        } else {
            completion.trim() == wanted.trim()
        }
    }
}

impl Reward for ExactMatch {
    fn columns(&self) -> Vec<&str> {
        vec![&self.config.column]
    }

    fn score(&self, cases: &[Case]) -> Judged {
        let judge = |case: &Case| {
            let wanted = case.text(&self.config.column)?;
            Ok(wanted.map(|wanted| f64::from(self.equal(&case.completion, &wanted))))
        };
        cases.iter().map(judge).collect()
    }
}

/// Lower case, without punctuation and articles, words one space apart.
fn normalized(text: &str) -> String {
    let kept: String = text.to_lowercase().chars().filter(|c| !c.is_ascii_punctuation()).collect();
    let words = kept.split_whitespace().filter(|word| !matches!(*word, "a" | "an" | "the"));
    words.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::super::tests::case;
    use super::*;

    fn score(normalize: bool, completion: &str, wanted: &str) -> Option<f64> {
        let reward = ExactMatch::new(ExactMatchConfig { normalize, ..ExactMatchConfig::default() });
        let case = case(completion, &[("solution", wanted.into())]);
        reward.expect("valid").score(&[case]).expect("judged")[0]
    }

    #[test]
    fn exact_means_up_to_white_space_around_it() {
        for (completion, wanted, value) in
            [("Paris", "Paris", 1.0), (" Paris\n", "Paris", 1.0), ("paris", "Paris", 0.0), ("", "Paris", 0.0)]
        {
            assert_eq!(score(false, completion, wanted), Some(value), "{completion:?}");
        }
    }

    #[test]
    fn normalised_is_without_case_articles_and_punctuation() {
        for (completion, value) in
            [("the  Eiffel tower.", 1.0), ("Eiffel-Tower", 0.0), ("An Eiffel Tower!", 1.0), ("Tower", 0.0)]
        {
            assert_eq!(score(true, completion, "The Eiffel Tower"), Some(value), "{completion:?}");
        }
    }
}
