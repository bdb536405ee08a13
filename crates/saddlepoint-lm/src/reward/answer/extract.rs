//! Where the answer is in a solution or a completion.

use std::sync::LazyLock;

use regex::Regex;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What counts as the answer of a completion that does not mark one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Unmarked {
    /// The whole completion.
    #[default]
    Whole,
    /// The last number in it.
    LastNumber,
}

/// The answer of a reference solution: the last `\boxed{}`, else what follows the last `####`, else all of it.
pub fn solution(text: &str) -> &str {
    boxed(text).or_else(|| after_hashes(text)).unwrap_or(text).trim()
}

/// The answer of a completion: the last `\boxed{}`, else what follows the last `####`, else the last `<answer>` element, else
/// what follows the last *answer is* or *answer:*, else what [`Unmarked`] says. `None` where there is nothing.
pub fn answer(text: &str, unmarked: Unmarked) -> Option<&str> {
    let marked =
        boxed(text).or_else(|| after_hashes(text)).or_else(|| element(text)).or_else(|| after_phrase(text));
    let found = marked.or_else(|| match unmarked {
        Unmarked::Whole => Some(text),
        Unmarked::LastNumber => NUMBER.find_iter(text).last().map(|found| found.as_str()),
    })?;
    Some(found.trim()).filter(|found| !found.is_empty())
}

static NUMBER: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(r"-?(?:\d[\d,]*\d|\d)(?:\.\d+)?(?:/\d+)?%?|-?\.\d+").expect("a valid pattern")
});

static PHRASE: LazyLock<Regex> =
    LazyLock::new(|| Regex::new(r"(?i)\banswer(?: is|:)[:* ]*").expect("a valid pattern"));

/// The content of the last box that is closed.
fn boxed(text: &str) -> Option<&str> {
    let mut before = text;
    while let Some(start) = before.rfind(r"\boxed").max(before.rfind(r"\fbox")) {
        let after = text[start..].trim_start_matches(|c: char| c == '\\' || c.is_ascii_alphabetic());
        if let Some(content) = braced(after.trim_start()) {
            return Some(content);
        }
        before = &text[..start];
    }
    None
}

/// What is between the first brace and the one that closes it.
fn braced(text: &str) -> Option<&str> {
    let inner = text.strip_prefix('{')?;
    let (mut depth, mut escaped) = (1, false);
    for (i, c) in inner.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '{' => depth += 1,
            '}' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return Some(&inner[..i]);
        }
    }
    None
}

fn after_hashes(text: &str) -> Option<&str> {
    let (_, after) = text.rsplit_once("####")?;
    after.trim_start().lines().next().filter(|line| !line.trim().is_empty())
}

fn element(text: &str) -> Option<&str> {
    let (before, _) = text.rsplit_once("</answer>")?;
    Some(before.rsplit_once("<answer>")?.1)
}

/// The rest of the sentence.
fn after_phrase(text: &str) -> Option<&str> {
    let rest = &text[PHRASE.find_iter(text).last()?.end()..];
    let line = rest.lines().next()?;
    let sentence = line.split(". ").next().unwrap_or(line);
    Some(sentence.trim_matches(|c: char| c == '*' || c == '.' || c.is_whitespace()))
        .filter(|answer| !answer.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_found_by_its_mark() {
        for (text, found) in [
            (r"so \boxed{\frac{1}{2}} holds", r"\frac{1}{2}"),
            (r"\boxed{1}, no, \boxed {\{1, 2\}}", r"\{1, 2\}"),
            (r"\boxed{7} and then \boxed{8", "7"),
            ("16 - 3 = 13\n#### 13\n\nNext question: 5", "13"),
            ("think <answer> 42 </answer>", "42"),
            ("The answer is 18. That was easy.", "18"),
            ("**Answer:** $3.50$", "$3.50$"),
            ("The final answer is: **7 apples**.", "7 apples"),
            ("  4 ", "4"),
        ] {
            assert_eq!(answer(text, Unmarked::Whole), Some(found), "{text}");
        }
        assert_eq!(answer("  ", Unmarked::Whole), None);
    }

    #[test]
    fn the_last_number_is_the_answer_only_where_asked_for() {
        let text = "First 3, then 4 times 1,250.50 dollars";
        assert_eq!(answer(text, Unmarked::LastNumber), Some("1,250.50"));
        assert_eq!(answer("none", Unmarked::LastNumber), None);
        assert_eq!(answer("it is -1/2, I think", Unmarked::LastNumber), Some("-1/2"));
        assert_eq!(answer(r"\boxed{1} or 2", Unmarked::LastNumber), Some("1"));
    }

    #[test]
    fn a_solution_is_itself_where_it_marks_nothing() {
        assert_eq!(solution("a\n#### 1,000"), "1,000");
        assert_eq!(solution(r"Thus $\boxed{x^2}$."), "x^2");
        assert_eq!(solution(r" \text{east} "), r"\text{east}");
    }
}
