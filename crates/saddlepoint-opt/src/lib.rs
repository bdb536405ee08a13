//! Constrained optimisation: problems, solvers and multipliers, and the optimizers and schedules of trainers.
//!
//! The answer to a constrained problem is a saddle point: low in the variables and high in the multipliers. Three nouns and one
//! verb: a [`problem`], a [`solver`], an [`outcome`], and `solve`.
//!
//! ```
//! use saddlepoint_opt::prelude::*;
//!
//! let problem = minimize(2, |x| (x[0] - 2.0).powi(2) + (x[1] - 1.0).powi(2))
//!     .grad(|x, g| { g[0] = 2.0 * (x[0] - 2.0); g[1] = 2.0 * (x[1] - 1.0); })
//!     .subject_to(le("budget", |x| x[0] + x[1] - 1.0).grad(|_, g| g.fill(1.0)));
//!
//! let out = AugmentedLagrangian::default().solve(&problem, &[0.0, 0.0])?;
//!
//! assert_eq!(out.status, Status::Optimal);
//! println!("x = {:?}, price of budget = {:.3}, {}", out.x, out.dual("budget"), out.kkt);
//! # assert!((out.x[0] - 1.0).abs() < 1e-6 && out.x[1].abs() < 1e-6 && (out.dual("budget") - 2.0).abs() < 1e-5);
//! # Ok::<(), saddlepoint_opt::Error>(())
//! ```
//!
//! | module | what it gives |
//! |---|---|
//! | [`problem`] | problems stated by closures or by traits, sets with projections |
//! | [`problems`] | problems given as text: CUTEst's |
//! | [`solver`] | the solvers |
//! | [`bilevel`] | problems whose constraint is another problem's solution, and their solvers |
//! | [`outcome`], [`kkt`] | status, multipliers by name, residuals measured by code that no solver has a hand in |
//! | [`dual`] | multipliers, for solvers and training loops alike |
//! | [`optimizer`], [`schedule`] | what trains models |
//! | [`divergence`] | what the constraint of a policy measures |
//! | [`linalg`] | decompositions |
//! | [`reproduce`] | papers whose claims are measured |
//! | [`examples`] | examples with labels and features, from text files |

pub mod bilevel;
pub mod divergence;
pub mod dual;
mod error;
pub mod examples;
pub mod kkt;
pub mod linalg;
pub mod optimizer;
pub mod outcome;
pub mod prelude;
pub mod problem;
pub mod problems;
pub mod reproduce;
pub mod schedule;
pub mod simd;
pub mod solver;

pub use error::{Error, Result};

/// The examples of the page on solvers are tests.
#[cfg(doctest)]
#[doc = include_str!("../../../docs/solvers.md")]
struct Page;
