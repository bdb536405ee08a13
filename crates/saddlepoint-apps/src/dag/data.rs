//! Samples: a table of numbers, a named column a node.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use saddlepoint_core::quote;

use crate::{Error, Result};

/// Samples of the variables of a graph, by columns.
#[derive(Debug, Clone, PartialEq)]
pub struct Data {
    names: Vec<String>,
    columns: Vec<Vec<f64>>,
}

/// What is done to the columns before anything is learned.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Scaling {
    /// Nothing. Regressions have no intercept, so a mean that is not 0 is explained by parents.
    None,
    /// The mean is taken away, which is what an intercept would do.
    #[default]
    Centre,
    /// Mean 0 and variance 1. Takes away what the variances say of the order, which in simulated data is much.
    Standardise,
}

impl Data {
    /// From columns of equal length with their names.
    ///
    /// # Errors
    /// No column, fewer than 2 rows, columns of unequal length, names that are empty or occur twice, a value that is not finite,
    /// a column of equal values.
    pub fn new(names: Vec<String>, columns: Vec<Vec<f64>>) -> Result<Self> {
        if columns.is_empty() {
            return Err(Error::data("there is no column; a graph needs at least one variable"));
        }
        if names.len() != columns.len() {
            return Err(Error::data(format!("{} names for {} columns", names.len(), columns.len())));
        }
        let mut known: BTreeMap<&str, usize> = BTreeMap::new();
        for (j, name) in names.iter().enumerate() {
            if name.is_empty() {
                return Err(Error::data(format!("column {} has no name", j + 1)));
            }
            if let Some(first) = known.insert(name, j) {
                let (first, second) = (first + 1, j + 1);
                return Err(Error::data(format!("columns {first} and {second} are both named `{name}`")));
            }
        }
        let rows = columns[0].len();
        if rows < 2 {
            return Err(Error::data(format!("{rows} rows; at least 2 are needed")));
        }
        for (name, column) in names.iter().zip(&columns) {
            if column.len() != rows {
                let problem = format!("column `{name}` has {} rows, the first one has {rows}", column.len());
                return Err(Error::data(problem));
            }
            if let Some(row) = column.iter().position(|x| !x.is_finite()) {
                let problem = format!(
                    "row {} of column `{name}` is {}; values must be finite, leave rows with missing ones out",
                    row + 1,
                    column[row]
                );
                return Err(Error::data(problem));
            }
            #[allow(clippy::float_cmp, reason = "equal values are meant")]
            let constant = column.iter().all(|x| *x == column[0]);
            if constant {
                let problem = format!(
                    "column `{name}` is {} in every row and says nothing about edges; leave it out",
                    column[0]
                );
                return Err(Error::data(problem));
            }
        }
        Ok(Self { names, columns })
    }

    /// From columns alone, which are named `x1`, `x2` and so on.
    ///
    /// # Errors
    /// As [`Data::new`].
    pub fn unnamed(columns: Vec<Vec<f64>>) -> Result<Self> {
        Self::new((1..=columns.len()).map(|j| format!("x{j}")).collect(), columns)
    }

    /// Reads a table: a line a sample, separated by commas, tabs or semicolons, whichever the first line has. If the first line has a
    /// word that is no number, it holds the names.
    ///
    /// # Errors
    /// With line and column of what is no number or missing; as [`Data::new`].
    pub fn read(path: &Path) -> Result<Self> {
        let bytes = fs::read(path).map_err(|error| Error::File {
            path: path.into(),
            problem: format!("cannot be read: {error}"),
        })?;
        Self::parse(&bytes, path)
    }

    /// Reads the bytes of a table; `path` is what errors name.
    ///
    /// # Errors
    /// As [`Data::read`].
    pub fn parse(bytes: &[u8], path: &Path) -> Result<Self> {
        let file = |problem: String| Error::File { path: path.into(), problem };
        let bytes = bytes.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(bytes);
        let first = bytes.split(|byte| *byte == b'\n').next().unwrap_or_default();
        let delimiter = [b'\t', b',', b';'].into_iter().find(|byte| first.contains(byte)).unwrap_or(b',');
        let mut reader = csv::ReaderBuilder::new()
            .has_headers(false)
            .delimiter(delimiter)
            .trim(csv::Trim::All)
            .flexible(true)
            .from_reader(bytes);
        let mut names: Vec<String> = Vec::new();
        let mut columns: Vec<Vec<f64>> = Vec::new();
        for (index, record) in reader.records().enumerate() {
            let record = record.map_err(|error| {
                let line = error.position().map_or(0, csv::Position::line);
                Error::Line { path: path.into(), line, problem: error.to_string() }
            })?;
            let line = record.position().map_or(0, csv::Position::line);
            let wrong = |problem: String| Error::Line { path: path.into(), line, problem };
            if index == 0 {
                columns = vec![Vec::new(); record.len()];
                if record.iter().any(|word| word.parse::<f64>().is_err()) {
                    names = record.iter().map(str::to_owned).collect();
                    if let Some(j) = names.iter().position(String::is_empty) {
                        return Err(wrong(format!("column {} has no name", j + 1)));
                    }
                    continue;
                }
                names = (1..=record.len()).map(|j| format!("x{j}")).collect();
            }
            if record.len() != names.len() {
                let (got, expected) = (record.len(), names.len());
                return Err(wrong(format!("{got} values, and the first line has {expected}")));
            }
            for (j, word) in record.iter().enumerate() {
                let value = word.parse::<f64>().ok().filter(|value| value.is_finite());
                let value = value.ok_or_else(|| {
                    let what = if word.is_empty() { "nothing".to_owned() } else { quote::word(word) };
                    let problem = format!(
                        "column {} (`{}`): expected a finite number, got {what}; leave rows with missing values out",
                        j + 1,
                        names[j]
                    );
                    wrong(problem)
                })?;
                columns[j].push(value);
            }
        }
        Self::new(names, columns).map_err(|error| match error {
            Error::Data { problem } => file(problem),
            other => other,
        })
    }

    /// The names of the columns.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// The columns, a number a sample each.
    pub fn columns(&self) -> &[Vec<f64>] {
        &self.columns
    }

    /// How many samples there are.
    pub fn rows(&self) -> usize {
        self.columns[0].len()
    }

    /// How many variables there are.
    pub fn nodes(&self) -> usize {
        self.columns.len()
    }

    /// With columns centred or standardised.
    ///
    /// # Errors
    /// A column whose variance overflows or vanishes in rounding.
    pub fn scaled(&self, scaling: Scaling) -> Result<Self> {
        if scaling == Scaling::None {
            return Ok(self.clone());
        }
        let n = self.rows() as f64;
        let mut columns = self.columns.clone();
        for (name, column) in self.names.iter().zip(&mut columns) {
            let mean = column.iter().map(|x| x / n).sum::<f64>();
            for x in column.iter_mut() {
                *x -= mean;
            }
            let deviation = (column.iter().map(|x| x * x / n).sum::<f64>()).sqrt();
            if !(deviation.is_finite() && deviation > 0.0) {
                let problem = format!(
                    "the standard deviation of column `{name}` is {deviation}; measure it in other units"
                );
                return Err(Error::data(problem));
            }
            if scaling == Scaling::Standardise {
                for x in column {
                    *x /= deviation;
                }
            }
        }
        Ok(Self { names: self.names.clone(), columns })
    }

    /// `S = Xᵀ X / n`, row-major.
    ///
    /// # Errors
    /// A column whose mean square overflows or vanishes.
    pub fn gram(&self) -> Result<Vec<f64>> {
        let (d, n) = (self.nodes(), self.rows() as f64);
        let mut gram = vec![0.0; d * d];
        for i in 0..d {
            for j in 0..=i {
                let sum = product(&self.columns[i], &self.columns[j]) / n;
                (gram[i * d + j], gram[j * d + i]) = (sum, sum);
            }
        }
        for (i, name) in self.names.iter().enumerate() {
            let square = gram[i * d + i];
            if !(square.is_finite() && square >= f64::MIN_POSITIVE) {
                let problem =
                    format!("the mean square of column `{name}` is {square}; measure it in other units");
                return Err(Error::data(problem));
            }
        }
        Ok(gram)
    }
}

/// `Σ a_i b_i` in eight interleaved sums, so that it can be vectorised; the order does not depend on the machine.
#[inline(always)]
#[allow(clippy::inline_always, reason = "it is called from code for each instruction set")]
pub(crate) fn product(a: &[f64], b: &[f64]) -> f64 {
    let mut lanes = [0.0; 8];
    let (left, right) = (a.chunks_exact(8), b.chunks_exact(8));
    let rest: f64 = left.remainder().iter().zip(right.remainder()).map(|(a, b)| a * b).sum();
    for (a, b) in left.zip(right) {
        for lane in 0..8 {
            lanes[lane] += a[lane] * b[lane];
        }
    }
    lanes.iter().sum::<f64>() + rest
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use saddlepoint_core::test::assert_close;

    use super::*;

    fn of(text: &str) -> Result<Data> {
        Data::parse(text.as_bytes(), Path::new("a.csv"))
    }

    #[test]
    fn tables_are_read_with_and_without_names() {
        let data = of("a,\"b c\"\n1, 2\n3,4.5\n").expect("reads");
        assert_eq!(data.names(), ["a", "b c"]);
        assert_eq!(data.columns(), [[1.0, 3.0], [2.0, 4.5]]);
        let data = of("1\t2\n-3e1\t4\r\n").expect("reads");
        assert_eq!((data.names(), data.rows()), (&["x1".to_owned(), "x2".to_owned()][..], 2));
        assert_eq!(of("\u{feff}a;b\n1;2\n2;3\n").expect("reads").names(), ["a", "b"]);
    }

    #[test]
    fn what_is_wrong_is_told_with_its_place() {
        for (text, message) in [
            ("", "a.csv: there is no column; a graph needs at least one variable"),
            ("a,b\n", "a.csv: 0 rows; at least 2 are needed"),
            ("a,b\n1,2\n", "a.csv: 1 rows; at least 2 are needed"),
            (
                "a,b\n1,2\n3,x\n",
                "a.csv:3: column 2 (`b`): expected a finite number, got `x`; leave rows with missing values out",
            ),
            (
                "a,b\n1,\n",
                "a.csv:2: column 2 (`b`): expected a finite number, got nothing; leave rows with missing values out",
            ),
            (
                "a,b\nnan,1\n",
                "a.csv:2: column 1 (`a`): expected a finite number, got `nan`; leave rows with missing values out",
            ),
            (
                "a\u{7},b\n1\0\u{1b}[2J,1\n",
                "a.csv:2: column 1 (`a\\u{7}`): expected a finite number, got `1\\0\\u{1b}[2J`; leave rows with missing values out",
            ),
            ("a,b\n1,2\n3\n", "a.csv:3: 1 values, and the first line has 2"),
            ("a,a\n1,2\n3,4\n", "a.csv: columns 1 and 2 are both named `a`"),
            ("a,\n1,2\n", "a.csv:1: column 2 has no name"),
            (
                "a,b\n1,2\n3,2\n",
                "a.csv: column `b` is 2 in every row and says nothing about edges; leave it out",
            ),
        ] {
            assert_eq!(of(text).expect_err(text).to_string(), message);
        }
        let error = Data::read(Path::new("no such file")).expect_err("refused").to_string();
        assert!(error.starts_with("no such file: cannot be read: "), "{error}");
        let error = Data::unnamed(vec![vec![0.0, f64::NAN]]).expect_err("refused").to_string();
        assert!(error.contains("row 2 of column `x1` is NaN"), "{error}");
    }

    #[test]
    fn scaled_columns_have_mean_0_and_variance_1() {
        let data = Data::unnamed(vec![vec![1.0, 2.0, 6.0], vec![-1.0, 0.0, 4.0]]).expect("data");
        let gram = data.scaled(Scaling::Standardise).expect("scales").gram().expect("finite");
        assert_close!(gram, [1.0, 1.0, 1.0, 1.0], rtol = 1e-14);
        let centred = data.scaled(Scaling::Centre).expect("scales");
        assert_close!(centred.columns()[0], [-2.0, -1.0, 3.0], rtol = 1e-15);
        assert_close!(data.gram().expect("finite")[..2], [41.0 / 3.0, 23.0 / 3.0], rtol = 1e-15);
        let huge = Data::unnamed(vec![vec![1e200, -1e200]]).expect("data");
        for error in
            [huge.gram().expect_err("overflows"), huge.scaled(Scaling::Centre).expect_err("overflows")]
        {
            assert!(error.to_string().ends_with("is inf; measure it in other units"), "{error}");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "[-+0-9.,;\"ab \\n\\t\\rexinf]{0,80}") {
            if let Ok(data) = of(&text) {
                prop_assert!(data.rows() >= 2 && data.columns().iter().flatten().all(|x| x.is_finite()));
            }
        }

        #[test]
        fn interleaved_sums_are_sums(values in proptest::collection::vec(-1e3..1e3_f64, 0..40)) {
            let plain: f64 = values.iter().map(|x| x * x).sum();
            prop_assert!((product(&values, &values) - plain).abs() <= 1e-12 * plain.max(1.0));
        }
    }
}
