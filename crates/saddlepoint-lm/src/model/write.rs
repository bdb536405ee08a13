//! Hugging Face folders, written so that transformers, vLLM and llama.cpp's converter load them.

use std::path::Path;

use saddlepoint_core::atomic;

use super::json;
use super::safetensors;
use super::{Dtype, ModelFolder, put};
use crate::Result;
use crate::engine::TensorSpec;

/// How weights are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Format {
    /// Storage of the weights.
    pub dtype: Dtype,
    /// Largest file in bytes; above it the weights are split and an index says what is where.
    pub shard_bytes: u64,
}

impl Default for Format {
    fn default() -> Self {
        Self { dtype: Dtype::F32, shard_bytes: 5_000_000_000 }
    }
}

impl From<Dtype> for Format {
    fn from(dtype: Dtype) -> Self {
        Self { dtype, ..Self::default() }
    }
}

/// Writes the folder `target`, which appears complete or not at all: configuration and text files as
/// `model` has them, the weights `specs` as `read` gives them. Memory beyond the model's: one tensor.
///
/// # Errors
/// `target` exists, cannot be written, or a weight is not finite or not representable.
pub fn write_folder(
    target: &Path,
    model: &ModelFolder,
    specs: &[TensorSpec],
    read: &dyn Fn(&TensorSpec, &mut [f32]) -> Result<()>,
    format: Format,
) -> Result<()> {
    atomic::dir(target, |folder| fill_folder(folder, model, specs, read, format))
}

/// As [`write_folder`] into a folder that exists and that the caller completes and puts in place.
///
/// # Errors
/// As [`write_folder`].
pub fn fill_folder(
    folder: &Path,
    model: &ModelFolder,
    specs: &[TensorSpec],
    read: &dyn Fn(&TensorSpec, &mut [f32]) -> Result<()>,
    format: Format,
) -> Result<()> {
    let mut config = model.config().clone();
    let dtype = format.dtype.torch_name();
    // transformers renamed the key; a file keeps the one it has.
    if config.contains_key("torch_dtype") {
        config.insert("torch_dtype".into(), dtype.into());
    }
    if config.contains_key("dtype") || !config.contains_key("torch_dtype") {
        config.insert("dtype".into(), dtype.into());
    }
    put(&folder.join("config.json"), &json::to_bytes(&config))?;
    for (name, bytes) in model.files() {
        put(&folder.join(name), bytes)?;
    }
    safetensors::write_sharded(folder, specs, read, format.dtype, format.shard_bytes)
}
