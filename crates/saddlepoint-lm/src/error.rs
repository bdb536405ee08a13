//! The errors of this crate.

use std::path::PathBuf;

/// Result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What can go wrong, with the place and the remedy in the message.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file of a model (weights, tokenizer, configuration, template) cannot be used.
    #[error("{}: {problem}", path.display())]
    Model {
        /// The file.
        path: PathBuf,
        /// What is wrong and what to do.
        problem: String,
    },
    /// A record of a data file cannot be used.
    #[error("{}:{line}:{column}: {problem}", path.display())]
    Data {
        /// The file.
        path: PathBuf,
        /// Line, counted from 1.
        line: usize,
        /// Column in bytes, counted from 1.
        column: usize,
        /// What is wrong and what to do.
        problem: String,
    },
    /// A setting is outside its range or contradicts another.
    #[error("{key}: {problem}")]
    Config {
        /// Dotted path of the key, for example `method.beta`.
        key: String,
        /// What is wrong, with the accepted range and the default.
        problem: String,
    },
    /// A number that must be finite is not; the run stops before it is written anywhere.
    #[error("{what} is not finite ({value}); {remedy}")]
    NotFinite {
        /// Which quantity.
        what: String,
        /// Its value.
        value: f64,
        /// What to do.
        remedy: String,
    },
    /// A reward cannot judge, and that is not to be skipped.
    #[error("reward `{name}`: {problem}")]
    Reward {
        /// Its name in metrics.
        name: String,
        /// What happened and what to do.
        problem: String,
    },
    /// A server does not do its part of a run.
    #[error("{key}: {problem}")]
    Server {
        /// By which the recipe names it.
        key: &'static str,
        /// What happened and what to do.
        problem: String,
    },
    /// The run plumbing failed: a file could not be read or written, or a setting is wrong.
    #[error(transparent)]
    Core(#[from] saddlepoint_core::Error),
    /// An optimizer, schedule or multiplier refused its settings or state.
    #[error(transparent)]
    Opt(#[from] saddlepoint_opt::Error),
}
