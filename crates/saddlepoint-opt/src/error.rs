//! The errors of this crate.

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
    /// What was given does not have the dimension of the problem.
    #[error("{what}: expected {expected} elements, got {got}")]
    Dimension {
        /// What was given.
        what: &'static str,
        /// Its length as it should be.
        expected: usize,
        /// Its length as it is.
        got: usize,
    },
    /// The text of a problem cannot be understood.
    #[error("line {line}, column {column}: {}", escaped(problem))]
    Text {
        /// Counted from 1.
        line: usize,
        /// Counted from 1.
        column: usize,
        /// What is wrong.
        problem: String,
    },
    /// A problem contradicts itself or lacks what a solver needs.
    #[error("the problem: {problem}")]
    Problem {
        /// What is wrong, and where.
        problem: String,
    },
    /// A matrix has no singular value decomposition.
    #[error(
        "the singular values of a {rows} x {columns} matrix did not converge; look for elements that are not finite"
    )]
    Svd {
        /// Its rows.
        rows: usize,
        /// Its columns.
        columns: usize,
    },
    /// A point at which the conjugate of K has no subgradient.
    #[error("{kappa}: no subgradient of K* there; lambda x must be inside of {domain}")]
    Domain {
        /// The choice of K.
        kappa: String,
        /// Where there is one.
        domain: &'static str,
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
    /// A measured constraint is so far from its bound that the weight that follows from it is not a number.
    #[error(
        "the weight of constraint `{name}` would be {weight} after a measurement of {value}; nothing was updated, lower \
         the gains or the penalty of its multiplier"
    )]
    Weight {
        /// Name of the constraint.
        name: String,
        /// The measurement.
        value: f64,
        /// What would follow.
        weight: f64,
    },
}

impl Error {
    /// A setting that must be in a range and is not.
    pub(crate) fn range(key: &'static str, range: &str, got: f64, default: f64) -> Self {
        Error::Setting { key, problem: format!("must be {range}, got {got} (default {default})") }
    }

    /// A setting without a default that must be in a range and is not.
    pub(crate) fn required(key: &'static str, range: &str, got: f64) -> Self {
        Error::Setting { key, problem: format!("must be {range}, got {got} (it has no default)") }
    }

    /// Refuses a setting outside of `[0, 1)`.
    pub(crate) fn fraction(key: &'static str, got: f64, default: f64) -> Result<()> {
        if (0.0..1.0).contains(&got) { Ok(()) } else { Err(Self::range(key, "in [0, 1)", got, default)) }
    }

    /// Refuses a setting that is below 0 or not finite.
    pub(crate) fn not_negative(key: &'static str, got: f64, default: f64) -> Result<()> {
        if got >= 0.0 && got.is_finite() { Ok(()) } else { Err(Self::range(key, ">= 0", got, default)) }
    }
}
