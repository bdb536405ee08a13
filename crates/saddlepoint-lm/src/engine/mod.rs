//! The decoder: forward and backward written by hand over one arena.
//!
//! Notation: `N` tokens of a forest, `R` rows (predictions that somebody wants), `d` hidden size,
//! `V` vocabulary. Matrices are row-major; weights are `[out, in]` as in Hugging Face files.

mod forest;
mod lora;
mod shape;
mod stats;
mod tensor;

pub use forest::{Forest, Row, Segment};
pub use lora::{LoraConfig, Target};
pub use shape::{Rope, RopeScaling, Shape};
pub use stats::{Cotangent, Divergence, Stats, Want};
pub use tensor::{TensorSpec, WeightSource};
