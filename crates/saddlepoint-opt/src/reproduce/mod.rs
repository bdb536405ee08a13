//! Reproductions of the papers on solvers: one file or folder each, and one line in the list.
//!
//! An experiment takes what the paper is about as an argument, so that a test can run it with a corrupted one and see a claim fail.

mod lv_hba;
mod machine;
mod penalty_bilevel;
mod sketched_newton;

use saddlepoint_core::power::Power;
use saddlepoint_core::reproduce;

use crate::Error;

/// A reproduction in this crate.
pub type Reproduction = reproduce::Reproduction<Error>;

/// Every reproduction in this crate.
pub const LIST: &[&Reproduction] =
    &[&lv_hba::REPRODUCTION, &penalty_bilevel::REPRODUCTION, &sketched_newton::REPRODUCTION];

/// The order of `b` in `a`: the exponent of the power that fits best.
fn slope(points: impl IntoIterator<Item = (f64, f64)>) -> f64 {
    Power::of(&points.into_iter().collect::<Vec<_>>()).exponent
}
