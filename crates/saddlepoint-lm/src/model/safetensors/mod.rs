//! Safetensors files: a JSON header that says where each tensor lies, then the tensors.
//!
//! Layout: length of the header (8 bytes, little-endian), header, data. Offsets count from the first
//! byte after the header. <https://huggingface.co/docs/safetensors>

use std::collections::BTreeSet;

use crate::engine::TensorSpec;

mod read;
mod shards;
mod write;

pub use read::SafeTensors;
pub(super) use shards::Shards;
pub(super) use write::{write, write_sharded};

/// Those of `names` that no spec has.
fn unused<'a>(names: impl Iterator<Item = &'a str>, specs: &[TensorSpec]) -> Vec<String> {
    let used: BTreeSet<&str> = specs.iter().map(|spec| spec.name.as_str()).collect();
    names.filter(|name| !used.contains(name)).map(str::to_owned).collect()
}
