//! Reproductions of the papers on applications: one file or folder each, and one line in the list.
//!
//! An experiment takes what the paper is about as an argument, so that a test can run it with a corrupted one and see a claim fail.

mod topo;

use saddlepoint_core::reproduce;

use crate::Error;

/// A reproduction in this crate.
pub type Reproduction = reproduce::Reproduction<Error>;

/// Every reproduction in this crate.
pub const LIST: &[&Reproduction] = &[&topo::REPRODUCTION];
