//! The decoder: forward and backward written by hand over one arena.
//!
//! Notation: `N` tokens of a forest, `R` rows (predictions that somebody wants), `d` hidden size,
//! `V` vocabulary. Matrices are row-major; weights are `[out, in]` as in Hugging Face files.

mod adapter;
mod aligned;
mod arena;
mod copies;
mod decode;
mod decoder;
mod forest;
mod head;
pub mod kernel;
mod listed;
mod lora;
mod pages;
mod plan;
mod policy;
mod rope;
mod score;
mod shape;
mod stats;
mod tensor;
mod weights;

pub use decode::{Finish, GenerateConfig, Generator, Prompt, Sample, TokenEvent, Weights};
pub use forest::{Forest, Row, Segment};
pub(crate) use head::{Buffers as HeadBuffers, Head, Side as HeadSide};
pub use lora::{LoraConfig, Target};
pub use plan::MemoryPlan;
pub use policy::{Policy, Reference, Setup, Trainable, Views};
pub(crate) use shape::SCORE;
pub use shape::{Readout, Rope, RopeScaling, Shape};
pub use stats::{Cotangent, Divergence, Stats, Want};
pub use tensor::{TensorSpec, WeightSource};
pub use weights::Storage;
pub(crate) use weights::Weights as StoredWeights;
