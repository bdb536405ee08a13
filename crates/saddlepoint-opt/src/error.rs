//! The errors of this crate.

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
        /// What is wrong, with the accepted range and the default.
        problem: String,
    },
    /// A slice does not fit what it is used with.
    #[error("{what}: expected {expected} elements, got {got}; the state belongs to another problem")]
    Length {
        /// Which slice.
        what: &'static str,
        /// Its length as it should be.
        expected: usize,
        /// Its length as it is.
        got: usize,
    },
    /// A measured constraint is NaN or infinite, so no multiplier follows from it.
    #[error(
        "constraint `{name}` was measured as {value}; nothing was updated, find the source of the non-finite value"
    )]
    Measured {
        /// Name of the constraint.
        name: String,
        /// The value.
        value: f64,
    },
}

impl Error {
    /// A setting that must be in a range and is not.
    pub(crate) fn range(key: &'static str, range: &str, got: f64, default: f64) -> Self {
        Error::Setting { key, problem: format!("must be {range}, got {got} (default {default})") }
    }
}
