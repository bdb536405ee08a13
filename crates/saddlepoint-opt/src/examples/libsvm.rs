//! Examples in the text format of LIBSVM: a line each, `label index:value index:value ...`, indices from 1, ascending.

use std::path::Path;

use saddlepoint_core::quote;

use super::{Examples, ReadError};

/// The most features. One line with a wrong index must not ask for all memory.
const MOST_FEATURES: usize = 10_000_000;

/// Reads a file.
///
/// # Errors
/// With line and column.
pub fn read(path: &Path) -> Result<Examples, ReadError> {
    parse(&super::text(path)?, path)
}

/// Reads a text; `path` is what errors name.
///
/// # Errors
/// With line and column.
pub fn parse(text: &str, path: &Path) -> Result<Examples, ReadError> {
    let mut examples = Examples::none(0, Vec::new());
    let mut features = Vec::new();
    for (number, line) in text.lines().enumerate() {
        // What follows a # is a comment.
        let line = line.split('#').next().unwrap_or_default();
        let wrong = |word: &str, problem: String| {
            let column = word.as_ptr() as usize - line.as_ptr() as usize + 1;
            ReadError::Line { path: path.to_owned(), line: number + 1, column, problem }
        };
        let mut words = line.split_ascii_whitespace();
        let Some(label) = words.next() else { continue };
        let value = label.parse().ok().filter(|value: &f64| value.is_finite());
        let label = value
            .ok_or_else(|| wrong(label, format!("the label must be a number, got {}", quote::word(label))))?;
        features.clear();
        let mut last = 0;
        for word in words {
            let (index, value) = word
                .split_once(':')
                .ok_or_else(|| wrong(word, format!("expected index:value, got {}", quote::word(word))))?;
            let feature: usize = index.parse().map_err(|_| {
                let got = quote::word(index);
                wrong(word, format!("the index before `:` must be a whole number from 1, got {got}"))
            })?;
            if feature <= last {
                let problem = if feature == 0 {
                    "indices count from 1, got 0; add 1 to all of them".to_owned()
                } else {
                    format!("indices must ascend: {feature} comes after {last}")
                };
                return Err(wrong(word, problem));
            }
            if feature > MOST_FEATURES {
                return Err(wrong(
                    word,
                    format!("index {feature} is above the {MOST_FEATURES} that are allowed"),
                ));
            }
            let number = value.parse().ok().filter(|value: &f64| value.is_finite());
            let number = number.ok_or_else(|| {
                let got = quote::word(value);
                wrong(word, format!("the value of feature {feature} must be a number, got {got}"))
            })?;
            last = feature;
            examples.features = examples.features.max(feature);
            features.push((feature as u32 - 1, number));
        }
        examples.push(label, features.iter().copied());
    }
    if examples.is_empty() {
        return Err(ReadError::File {
            path: path.to_owned(),
            problem: "there is no example in it".to_owned(),
        });
    }
    Ok(examples)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(text: &str) -> Result<Examples, ReadError> {
        parse(text, Path::new("a.txt"))
    }

    #[test]
    fn examples_are_read_with_their_gaps_spaces_and_comments() {
        let examples = of("+1 1:0.5 3:-2 \n\n# nothing\n-1 2:1e-3 # a comment\r\n2\n").expect("reads");
        assert_eq!((examples.len(), examples.features), (3, 3));
        assert!(examples.labels.iter().zip([1.0, -1.0, 2.0]).all(|(a, b)| a.total_cmp(&b).is_eq()));
        let w = [1.0, 10.0, 100.0];
        assert!((0..3).zip([-199.5, 0.01, 0.0]).all(|(i, dot)| (examples.dot(i, &w) - dot).abs() < 1e-15));
        let picked = examples.pick(&[2, 0]);
        assert_eq!((picked.labels.clone(), picked.dot(1, &w), picked.features), (vec![2.0, 1.0], -199.5, 3));
        let mut sum = [0.0; 3];
        examples.add(0, 2.0, &mut sum);
        assert!(sum.iter().zip([1.0, 0.0, -4.0]).all(|(a, b)| a.total_cmp(&b).is_eq()));
    }

    #[test]
    fn what_is_wrong_is_told_with_its_place() {
        for (text, message) in [
            ("1 1:2\nx 1:2\n", "a.txt:2:1: the label must be a number, got `x`"),
            ("nan 1:2\n", "a.txt:1:1: the label must be a number, got `nan`"),
            ("1 1:2 7\n", "a.txt:1:7: expected index:value, got `7`"),
            ("1 qid:3 1:2\n", "a.txt:1:3: the index before `:` must be a whole number from 1, got `qid`"),
            ("1 0:2\n", "a.txt:1:3: indices count from 1, got 0; add 1 to all of them"),
            ("1 2:2 2:3\n", "a.txt:1:7: indices must ascend: 2 comes after 2"),
            ("1 99999999:2\n", "a.txt:1:3: index 99999999 is above the 10000000 that are allowed"),
            ("1 1:inf\n", "a.txt:1:3: the value of feature 1 must be a number, got `inf`"),
            ("1 1:\u{200b}2\n", "a.txt:1:3: the value of feature 1 must be a number, got `\\u{200b}2`"),
            (" \n#\n", "a.txt: there is no example in it"),
        ] {
            assert_eq!(of(text).expect_err("refused").to_string(), message);
        }
        let error = read(Path::new("no such file")).expect_err("refused").to_string();
        assert!(error.starts_with("no such file: "), "{error}");
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "[-+0-9.:# \\n\\t\\rexinfq]{0,80}") {
            if let Ok(examples) = of(&text) {
                prop_assert!(!examples.is_empty());
                let w = vec![1.0; examples.features];
                for i in 0..examples.len() {
                    prop_assert!(!examples.dot(i, &w).is_nan());
                }
            }
        }
    }
}
