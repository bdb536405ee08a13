//! Applications of the solvers of `saddlepoint-opt`.
//!
//! | module | what it gives |
//! |---|---|
//! | [`dag`] | directed acyclic graphs learned from data: topological swaps, NOTEARS, DAGMA |
//! | [`reproduce`] | papers whose claims are measured |

pub mod dag;
mod error;
pub mod reproduce;

pub use error::{Error, Result};

/// The examples of the page on graphs are tests.
#[cfg(doctest)]
#[doc = include_str!("../../../docs/dag.md")]
struct Page;
