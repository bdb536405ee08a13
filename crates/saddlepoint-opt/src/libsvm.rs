//! Examples in the text format of LIBSVM: a line each, `label index:value index:value ...`, indices from 1, ascending.

use std::fs;
use std::path::{Path, PathBuf};

/// The most features. One line with a wrong index must not ask for all memory.
const MOST_FEATURES: usize = 10_000_000;

/// Examples with sparse features.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Examples {
    /// One an example.
    pub labels: Vec<f64>,
    /// How many there are: the largest index.
    pub features: usize,
    /// Where each example begins in `entries`, and their end.
    starts: Vec<usize>,
    /// Feature, counted from 0, and value.
    entries: Vec<(u32, f64)>,
}

/// A file that could not be read, and where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// It is not there or not readable.
    #[error("{path}: {problem}")]
    File {
        /// The file.
        path: PathBuf,
        /// What the system says.
        problem: String,
    },
    /// A line is wrong.
    #[error("{path}:{line}:{column}: {problem}")]
    Line {
        /// The file.
        path: PathBuf,
        /// Line, from 1.
        line: usize,
        /// Column, from 1, in bytes.
        column: usize,
        /// What is wrong and what is expected.
        problem: String,
    },
}

/// Reads a file.
///
/// # Errors
/// With line and column.
pub fn read(path: &Path) -> Result<Examples, ReadError> {
    let file = |problem: String| ReadError::File { path: path.to_owned(), problem };
    let bytes = fs::read(path).map_err(|error| file(error.to_string()))?;
    let text = String::from_utf8(bytes).map_err(|error| {
        file(format!("byte {} is not UTF-8; LIBSVM files are plain text", error.utf8_error().valid_up_to()))
    })?;
    parse(&text, path)
}

/// Reads a text; `path` is what errors name.
///
/// # Errors
/// With line and column.
pub fn parse(text: &str, path: &Path) -> Result<Examples, ReadError> {
    let mut examples = Examples { starts: vec![0], ..Examples::default() };
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
        let label =
            value.ok_or_else(|| wrong(label, format!("the label must be a number, got `{label}`")))?;
        examples.labels.push(label);
        let mut last = 0;
        for word in words {
            let (index, value) = word
                .split_once(':')
                .ok_or_else(|| wrong(word, format!("expected index:value, got `{word}`")))?;
            let feature: usize = index.parse().map_err(|_| {
                wrong(word, format!("the index before `:` must be a whole number from 1, got `{index}`"))
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
                wrong(word, format!("the value of feature {feature} must be a number, got `{value}`"))
            })?;
            last = feature;
            examples.features = examples.features.max(feature);
            if number != 0.0 {
                examples.entries.push((feature as u32 - 1, number));
            }
        }
        examples.starts.push(examples.entries.len());
    }
    if examples.is_empty() {
        return Err(ReadError::File {
            path: path.to_owned(),
            problem: "there is no example in it".to_owned(),
        });
    }
    Ok(examples)
}

impl Examples {
    /// How many examples there are.
    pub fn len(&self) -> usize {
        self.labels.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty()
    }

    /// `Σ w_j z_ij` of example `i`, over the features that `w` has.
    pub fn dot(&self, i: usize, w: &[f64]) -> f64 {
        self.entries[self.starts[i]..self.starts[i + 1]].iter().map(|&(j, value)| value * w[j as usize]).sum()
    }

    /// `out += s z_i`.
    pub fn add(&self, i: usize, s: f64, out: &mut [f64]) {
        for &(j, value) in &self.entries[self.starts[i]..self.starts[i + 1]] {
            out[j as usize] += s * value;
        }
    }

    /// Those examples, in that order; all have as many features as these.
    #[must_use]
    pub fn pick(&self, which: &[usize]) -> Self {
        let mut picked = Self { features: self.features, starts: vec![0], ..Self::default() };
        for &i in which {
            picked.labels.push(self.labels[i]);
            picked.entries.extend(&self.entries[self.starts[i]..self.starts[i + 1]]);
            picked.starts.push(picked.entries.len());
        }
        picked
    }
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
