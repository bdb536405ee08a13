//! Safetensors files: a JSON header that says where each tensor lies, then the tensors.
//!
//! Layout: length of the header (8 bytes, little-endian), header, data. Offsets count from the first
//! byte after the header. <https://huggingface.co/docs/safetensors>

mod read;
mod shards;
mod write;

pub use read::SafeTensors;
pub(super) use shards::Shards;
pub(super) use write::{write, write_sharded};
