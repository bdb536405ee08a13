//! GGUF files (versions 2 and 3): metadata, then descriptions of tensors, then the tensors, often quantised.
//!
//! <https://github.com/ggml-org/ggml/blob/master/docs/gguf.md>. Everything is little-endian; the first
//! dimension of a tensor is the contiguous one, the opposite of Hugging Face files.

mod cursor;
mod file;
mod metadata;
mod quant;
mod shape;
mod tokenizer;
mod weights;

pub use file::Gguf;
pub use quant::Kind;
pub(super) use shape::shape;
pub(super) use tokenizer::synthesise;
pub(super) use weights::GgufWeights;
