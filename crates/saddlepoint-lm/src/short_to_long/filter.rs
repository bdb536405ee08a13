//! What is obviously no question and no answer. The authors' exact rules are not published; these are the usual ones.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::Said;

/// Why something was left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Left {
    /// A document with fewer tokens than two chunks have.
    ShortDocument,
    /// A chunk about which the model asked nothing.
    NoQuestion,
    /// A pair with an answer without words.
    Empty,
    /// A pair with an answer that had not ended at its longest length.
    Truncated,
    /// A pair of two equal answers.
    Identical,
    /// A pair with an answer that repeats itself: more than half of its runs of eight words occurred before.
    Repetitive,
    /// A pair with an answer that begins as a refusal does.
    Refusal,
}

impl Left {
    /// For messages: `pairs of equal answers`.
    pub fn text(self) -> &'static str {
        match self {
            Left::ShortDocument => "documents shorter than two chunks",
            Left::NoQuestion => "chunks without a question",
            Left::Empty => "pairs with an empty answer",
            Left::Truncated => "pairs with an answer that did not end",
            Left::Identical => "pairs of equal answers",
            Left::Repetitive => "pairs with an answer that repeats itself",
            Left::Refusal => "pairs with a refusal",
        }
    }
}

/// Words of a run whose repetition is counted.
const RUN: usize = 8;
/// Largest share of runs that occurred before.
const REPEATED: f64 = 0.5;
/// How refusals begin, in lower case.
const REFUSALS: [&str; 8] =
    ["i'm sorry", "i am sorry", "sorry,", "i cannot", "i can't", "i'm unable", "i am unable", "as an ai"];
/// Letters of the shortest and of the longest question.
const QUESTION: std::ops::RangeInclusive<usize> = 10..=400;

/// Why a pair is to be left out, if it is.
pub(super) fn pair(chosen: &Said, rejected: &Said) -> Option<Left> {
    let any = |of: fn(&Said) -> bool| of(chosen) || of(rejected);
    match () {
        () if any(|said| !said.text.chars().any(char::is_alphanumeric)) => Some(Left::Empty),
        () if any(|said| !said.ended) => Some(Left::Truncated),
        () if chosen.text == rejected.text => Some(Left::Identical),
        () if any(|said| repeated(&said.text) > REPEATED) => Some(Left::Repetitive),
        () if any(|said| refuses(&said.text)) => Some(Left::Refusal),
        () => None,
    }
}

/// Share of the runs of eight words that occurred before.
fn repeated(text: &str) -> f64 {
    let words: Vec<&str> = text.split_whitespace().collect();
    let runs = words.windows(RUN);
    let all = runs.len();
    let different: BTreeSet<&[&str]> = runs.collect();
    if all == 0 { 0.0 } else { (all - different.len()) as f64 / all as f64 }
}

fn refuses(text: &str) -> bool {
    let text = text.to_lowercase().replace('’', "'");
    REFUSALS.iter().any(|start| text.starts_with(start))
}

/// The lines of a list that are questions, without their numbers. The last line of a list that was cut is none.
pub(super) fn questions(list: &Said) -> Vec<String> {
    let mut lines: Vec<&str> = list.text.lines().collect();
    if !list.ended {
        lines.pop();
    }
    let bare = |line: &str| {
        let line = line.trim().trim_start_matches(['-', '*', '•', '#']).trim_start();
        let line = line.trim_start_matches(|c: char| c.is_ascii_digit()).trim_start_matches(['.', ')', ':']);
        line.trim().trim_matches(['*', '"']).to_owned()
    };
    let questions = lines.into_iter().map(bare);
    questions.filter(|line| line.ends_with('?') && QUESTION.contains(&line.chars().count())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(text: &str) -> Said {
        Said { text: text.to_owned(), ended: true }
    }

    #[test]
    fn only_pairs_of_two_answers_stay() {
        let good = said("The treaty was signed in 1783, after two years of talks.");
        let loop_ = "the war went on and on and on ".repeat(6);
        for (other, reason) in [
            (said("It was signed in Paris."), None),
            (said(" ...\n"), Some(Left::Empty)),
            (Said { ended: false, ..said("It was") }, Some(Left::Truncated)),
            (good.clone(), Some(Left::Identical)),
            (said(&loop_), Some(Left::Repetitive)),
            (said("I’m sorry, but the text does not say."), Some(Left::Refusal)),
            (said("As an AI, I have no view."), Some(Left::Refusal)),
        ] {
            assert_eq!(pair(&good, &other), reason, "{other:?}");
            assert_eq!(pair(&other, &good), reason, "{other:?}");
        }
    }

    #[test]
    fn runs_that_occurred_before_are_counted() {
        let eight = "a b c d e f g h";
        assert!(repeated(eight).abs() < 1e-15 && repeated("a a a").abs() < 1e-15);
        // Nine runs, of which the last is the first.
        assert!((repeated(&format!("{eight} {eight}")) - 1.0 / 9.0).abs() < 1e-15);
        assert!(repeated(&"a ".repeat(20)) > 0.9);
    }

    #[test]
    fn questions_are_lines_that_end_as_such() {
        let list = "Here are 5 questions:\n1. What was signed in 1783?\n2) **Who signed it?**\n\n- Why?\n3. It was long.\n4. Where did they m";
        let expected = ["What was signed in 1783?", "Who signed it?"];
        assert_eq!(questions(&said(list)), expected);
        let cut = Said { ended: false, ..said("1. What was signed in 1783?\n2. Who signed it and then?") };
        assert_eq!(questions(&cut), expected[..1]);
        assert!(questions(&said("")).is_empty());
    }
}
