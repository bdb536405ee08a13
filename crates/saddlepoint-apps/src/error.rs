//! The errors of this crate.

use std::path::PathBuf;

use saddlepoint_core::quote::escaped;

/// Result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What the caller must fix.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A setting is outside its range or contradicts another.
    #[error("{key}: {problem}")]
    Setting {
        /// Name of the setting.
        key: &'static str,
        /// What is wrong, with the accepted range.
        problem: String,
    },
    /// A file cannot be read.
    #[error("{path}: {}", escaped(problem))]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// A place in a file is wrong.
    #[error("{path}:{line}: {}", escaped(problem))]
    Line {
        /// The file.
        path: PathBuf,
        /// Line, from 1.
        line: u64,
        /// What is wrong, with the column where there is one.
        problem: String,
    },
    /// The data do not fit what they are used for.
    #[error("the data: {}", escaped(problem))]
    Data {
        /// What is wrong, and what to do.
        problem: String,
    },
    /// A graph or an order is not what it has to be.
    #[error("the graph: {problem}")]
    Graph {
        /// What is wrong.
        problem: String,
    },
    /// A regression was not solved to its tolerance; nothing is returned in its place.
    #[error(
        "the regression of column {node} on {parents} others was not solved: its optimality conditions are missed by \
         {residual:.1e} ({what}); standardise the columns or raise the penalty"
    )]
    NotSolved {
        /// Which column, from 0.
        node: usize,
        /// How many regressors it has.
        parents: usize,
        /// What remains, relative to the scale of the problem.
        residual: f64,
        /// How it ended.
        what: String,
    },
    /// Of the solver library.
    #[error(transparent)]
    Opt(#[from] saddlepoint_opt::Error),
}

impl Error {
    /// A setting that must be in a range and is not.
    pub(crate) fn range(key: &'static str, range: &str, got: f64, default: f64) -> Self {
        Error::Setting { key, problem: format!("must be {range}, got {got} (default {default})") }
    }

    /// Refuses a setting that is below 0 or not finite.
    pub(crate) fn not_negative(key: &'static str, got: f64, default: f64) -> Result<()> {
        if got >= 0.0 && got.is_finite() { Ok(()) } else { Err(Self::range(key, ">= 0", got, default)) }
    }

    /// Refuses a setting that is not above 0 or not finite.
    pub(crate) fn positive(key: &'static str, got: f64, default: f64) -> Result<()> {
        if got > 0.0 && got.is_finite() { Ok(()) } else { Err(Self::range(key, "> 0", got, default)) }
    }

    /// Refuses a minimisation without steps.
    pub(crate) fn some_steps(got: u64, default: u64) -> Result<()> {
        if got > 0 { Ok(()) } else { Err(Self::range("steps", ">= 1", 0.0, default as f64)) }
    }

    /// Of data.
    pub(crate) fn data(problem: impl Into<String>) -> Self {
        Error::Data { problem: problem.into() }
    }

    /// Of a graph.
    pub(crate) fn graph(problem: impl Into<String>) -> Self {
        Error::Graph { problem: problem.into() }
    }
}
