//! Optimizers, schedules and multipliers: what the solvers and the trainers of Saddlepoint share.
//!
//! The answer to a constrained problem is a saddle point: low in the parameters ([`optimizer`],
//! [`schedule`]) and high in the multipliers ([`dual`]). What the constraint of a policy measures is a [`divergence`].
//! Decompositions are in [`linalg`].

pub mod divergence;
pub mod dual;
mod error;
pub mod linalg;
pub mod optimizer;
pub mod schedule;
pub mod simd;

pub use error::{Error, Result};
