//! Run plumbing of Saddlepoint: configuration, seeds, recorder, run directory, checkpoints.
//!
//! | module | what it gives |
//! |---|---|
//! | [`config`] | a typed configuration from defaults, a TOML file and `--set` options |
//! | [`seed`] | every random stream of a run, derived by name from one number |
//! | [`run`] | the run directory and its checkpoints |
//! | [`record`] | `metrics.jsonl`, `events.jsonl` and TensorBoard files of a run |
//! | [`reproduce`] | a paper's claims, measured and judged |
//! | [`interval`] | a mean with its confidence interval |
//! | [`power`] | the exponent by which a quantity grows, with its standard error |
//! | [`axis`] | an axis of a chart and its ticks |
//! | [`progress`] | a bar on a terminal |
//! | [`atomic`] | files and folders that are there whole or not at all |
//! | [`clock`] | the only place that reads a clock |
//! | [`memory`] | what this process holds |
//! | [`quote`] | pieces of a file as a message repeats them |
//! | [`mod@test`] | what tests share: comparison of numbers, data outside the repository |
//!
//! Nothing here knows what is trained or solved.

pub mod atomic;
pub mod axis;
pub mod clock;
pub mod config;
mod error;
pub mod interval;
pub mod memory;
pub mod metrics;
pub mod power;
pub mod progress;
pub mod quote;
pub mod record;
pub mod reproduce;
pub mod run;
pub mod seed;
pub mod test;

pub use error::{Error, Origin, Result};
