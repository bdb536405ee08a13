//! The Standard Input Format (SIF), in which the problems of CUTEst are written.
//!
//! A file describes group-partially-separable functions
//! ```text
//! f, c_i  =  Σ g( Σ_j w_j F_j(x) + aᵀx − b ) / s
//! ```
//! with elements `F_j` of few variables and groups `g` of one. Both are written as expressions, from which the derivatives are taken;
//! those that the file gives beside them are compared ([`Sif::faults_of_given_derivatives`]).
//!
//! [`read`] takes parameters (with their default values), loops, arrays, ranges, bounds, starting points and quadratic terms, in fixed
//! columns as CUTEst's own decoder does. Whatever it does not understand is an error with line and column. Elements that call
//! functions of a Fortran program outside of the format cannot be read.
//!
//! # Reference
//! Conn, Gould & Toint 1992, *LANCELOT*, chapters 2 and 7; Gould, Orban & Toint 2015 (CUTEst).

mod check;
mod functions;
mod line;
mod parameters;
mod problem;
mod section;

pub use check::Known;
pub use problem::Sif;

use crate::Result;

/// Reads a problem.
///
/// # Errors
/// [`Error::Text`](crate::Error::Text): the first thing that cannot be understood, with its place.
pub fn read(text: &str) -> Result<Sif> {
    section::read(text)
}
