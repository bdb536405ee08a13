//! Language models under constraints: engine, model formats, data, methods, tether and trainer.
//!
//! A method is a pure function from per-token statistics ([`engine::Stats`]) to a value and its
//! derivatives ([`engine::Cotangent`]); it never sees a tensor.

pub mod bench;
pub mod data;
pub mod engine;
mod error;
mod http;
pub mod method;
pub mod model;
pub mod recipe;
pub mod reproduce;
pub mod reward;
pub mod rollout;
pub mod server;
pub mod short_to_long;
pub mod teacher;
pub mod tether;
pub mod trainer;

pub use error::{Error, Result};
