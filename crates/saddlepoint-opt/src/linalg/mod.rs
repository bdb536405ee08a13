//! Decompositions of dense matrices, each a row-major slice of `f64` with `columns` numbers a row.
//!
//! The only place that names the linear-algebra crate. Everything runs on the calling thread, so a result does not
//! depend on the number of threads.

mod svd;

pub use svd::{polar, singular_values};
