//! Decompositions of matrices. Dense ones are row-major slices of `f64` with `columns` numbers a row, sparse ones
//! [`Triplets`].
//!
//! The only place that names the linear-algebra crate. Everything runs on the calling thread, so a result does not
//! depend on the number of threads.

mod definite;
mod eigen;
mod general;
mod indefinite;
mod krylov;
mod multifrontal;
mod row_space;
mod svd;
mod triplets;
mod vector;

pub use definite::Cholesky;
pub use eigen::eigenvalues;
pub use general::Lu;
pub use indefinite::{Inertia, Ldlt};
pub use krylov::{Solved, gmres, minres};
pub use multifrontal::{Analysis, SparseLdlt};
pub use row_space::{RowSpace, null_space};
pub use svd::{polar, singular_values};
pub use triplets::Triplets;
pub use vector::{add_scaled, dot, largest, norm, scale};
