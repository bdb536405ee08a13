//! Examples with labels and features, from text files: LIBSVM's format and tables.

pub mod csv;
pub mod libsvm;
mod whole;

use std::fs;
use std::path::{Path, PathBuf};

use saddlepoint_core::quote::escaped;

pub use self::whole::Whole;

/// Examples with sparse features.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Examples {
    /// One an example.
    pub labels: Vec<f64>,
    /// How many there are.
    pub features: usize,
    /// What the features are called; empty where the file does not say.
    pub names: Vec<String>,
    /// Where each example begins in `entries`, and their end.
    starts: Vec<usize>,
    /// Feature, counted from 0, and value.
    entries: Vec<(u32, f64)>,
}

/// A file that could not be read, and where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// It is not there or not readable.
    #[error("{path}: {}", escaped(problem))]
    File {
        /// The file.
        path: PathBuf,
        /// What the system says.
        problem: String,
    },
    /// A line is wrong.
    #[error("{path}:{line}:{column}: {}", escaped(problem))]
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
    /// A cell of a table is wrong.
    #[error("{path}:{line}: column `{}`: {}", escaped(name), escaped(problem))]
    Cell {
        /// The file.
        path: PathBuf,
        /// Line, from 1.
        line: usize,
        /// Name of the column.
        name: String,
        /// What is wrong and what is expected.
        problem: String,
    },
}

/// Reads a file: a table if its name ends in `.csv`, with the labels in the column of that name or in the last, else LIBSVM's format.
///
/// # Errors
/// With file and line; a name of a column where the format has none.
pub fn read(path: &Path, label: Option<&str>) -> Result<Examples, ReadError> {
    if path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("csv")) {
        return csv::parse(&text(path)?, path, label);
    }
    match label {
        None => libsvm::read(path),
        Some(name) => Err(ReadError::File {
            path: path.to_owned(),
            problem: format!(
                "files of LIBSVM's format have no column `{name}`: the label comes first; name a table .csv"
            ),
        }),
    }
}

fn text(path: &Path) -> Result<String, ReadError> {
    let file = |problem: String| ReadError::File { path: path.to_owned(), problem };
    let bytes = fs::read(path).map_err(|error| file(error.to_string()))?;
    String::from_utf8(bytes).map_err(|error| {
        file(format!("byte {} is not UTF-8; examples are plain text", error.utf8_error().valid_up_to()))
    })
}

impl Examples {
    /// Without any, of so many features.
    fn none(features: usize, names: Vec<String>) -> Self {
        Self { features, names, starts: vec![0], ..Self::default() }
    }

    /// Adds one, with its features in ascending order; those that are 0 need not be there.
    fn push(&mut self, label: f64, features: impl IntoIterator<Item = (u32, f64)>) {
        self.labels.push(label);
        self.entries.extend(features.into_iter().filter(|(_, value)| *value != 0.0));
        self.starts.push(self.entries.len());
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.labels.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty()
    }

    /// What feature `j`, counted from 0, is called: by the file, else by its index from 1.
    pub fn name(&self, j: usize) -> String {
        self.names.get(j).cloned().unwrap_or_else(|| (j + 1).to_string())
    }

    /// `Σ w_j z_ij` of example `i`, over the features that `w` has.
    pub fn dot(&self, i: usize, w: &[f64]) -> f64 {
        self.row(i).iter().map(|&(j, value)| value * w[j as usize]).sum()
    }

    /// `out += s z_i`.
    pub fn add(&self, i: usize, s: f64, out: &mut [f64]) {
        for &(j, value) in self.row(i) {
            out[j as usize] += s * value;
        }
    }

    fn row(&self, i: usize) -> &[(u32, f64)] {
        &self.entries[self.starts[i]..self.starts[i + 1]]
    }

    /// Those examples, in that order; all have as many features as these.
    #[must_use]
    pub fn pick(&self, which: &[usize]) -> Self {
        let mut picked = Self::none(self.features, self.names.clone());
        for &i in which {
            picked.push(self.labels[i], self.row(i).iter().copied());
        }
        picked
    }

    /// Mean and standard deviation of each feature.
    pub fn moments(&self) -> Vec<(f64, f64)> {
        let count = self.len().max(1) as f64;
        let mut sums = vec![0.0; self.features];
        (0..self.len()).for_each(|i| self.add(i, 1.0 / count, &mut sums));
        // The squares of what is not stored, whose value is 0, are added at once.
        let mut squares: Vec<(f64, usize)> = vec![(0.0, 0); self.features];
        for &(j, value) in &self.entries {
            let (square, stored) = &mut squares[j as usize];
            *square += (value - sums[j as usize]).powi(2);
            *stored += 1;
        }
        let deviation = |(mean, (square, stored)): (f64, (f64, usize))| {
            let absent = (self.len() - stored) as f64 * mean * mean;
            (mean, ((square + absent) / count).sqrt())
        };
        sums.into_iter().zip(squares).map(deviation).collect()
    }

    /// `(z_j − shift_j) / scale_j` for every feature.
    pub(crate) fn shift_and_scale(&mut self, by: &[(f64, f64)]) {
        let mut changed = Self::none(self.features, std::mem::take(&mut self.names));
        let mut row = vec![0.0; self.features];
        for i in 0..self.len() {
            row.fill(0.0);
            self.add(i, 1.0, &mut row);
            let features = row.iter().zip(by).map(|(value, (shift, scale))| (value - shift) / scale);
            changed.push(self.labels[i], (0..).zip(features));
        }
        *self = changed;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_count_what_is_not_stored() {
        let mut examples = libsvm::parse("1 1:3\n1 1:5 2:2\n1 2:-2\n", Path::new("a")).expect("reads");
        let close = |a: f64, b: f64| assert!((a - b).abs() < 1e-14, "{a} {b}");
        let moments = examples.moments();
        close(moments[0].0, 8.0 / 3.0);
        close(moments[0].1, (34.0_f64 / 3.0 - 64.0 / 9.0).sqrt());
        close(moments[1].1, (8.0_f64 / 3.0).sqrt());
        examples.shift_and_scale(&moments);
        for (mean, deviation) in examples.moments() {
            close(mean, 0.0);
            close(deviation, 1.0);
        }
    }

    #[test]
    fn a_column_cannot_be_named_in_a_format_without_columns() {
        let told = read(Path::new("a.txt"), Some("y")).expect_err("refused").to_string();
        assert!(told.starts_with("a.txt: files of LIBSVM's format have no column `y`"), "{told}");
        let told = read(Path::new("none.csv"), None).expect_err("refused").to_string();
        assert!(told.starts_with("none.csv: "), "{told}");
    }
}
