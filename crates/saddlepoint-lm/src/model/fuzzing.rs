//! Entry points for fuzzing: everything that a reader does with untrusted bytes.

use std::path::Path;

use super::text::Files;
use super::{Gguf, ModelFolder, SafeTensors};
use crate::Result;
use crate::engine::{TensorSpec, WeightSource};

/// Tensors beyond this many elements are not read, so that a fuzzer spends its time elsewhere.
const MOST: usize = 1 << 16;

fn elements(dims: &[usize]) -> Option<usize> {
    dims.iter().try_fold(1_usize, |product, &dim| product.checked_mul(dim)).filter(|&n| n <= MOST)
}

/// Reads a safetensors file and all its tensors.
pub fn safetensors(bytes: &[u8]) -> Result<()> {
    let file = SafeTensors::parse(Path::new("fuzz.safetensors"), Box::new(bytes.to_vec()))?;
    let names: Vec<String> = file.names().map(str::to_owned).collect();
    for name in names {
        let dims = file.dims(&name).unwrap_or_default().to_vec();
        if let Some(n) = elements(&dims) {
            file.read(&TensorSpec { name, dims, offset: 0 }, &mut vec![0.0; n])?;
        }
    }
    Ok(())
}

/// Reads a GGUF file, all its tensors, and what a model folder makes of it.
pub fn gguf(bytes: &[u8]) -> Result<()> {
    let parse = || Gguf::parse(Path::new("fuzz.gguf"), Box::new(bytes.to_vec()));
    let file = parse()?;
    let names: Vec<String> = file.names().map(str::to_owned).collect();
    for name in names {
        let dims = file.dims(&name).unwrap_or_default().to_vec();
        if let Some(n) = elements(&dims) {
            file.read(&name, &dims, &mut vec![0.0; n])?;
        }
    }
    let model = ModelFolder::from_gguf(parse()?, Files::new())?;
    for spec in model.shape.tensors() {
        if let Some(n) = elements(&spec.dims) {
            model.source().read(&spec, &mut vec![0.0; n])?;
        }
    }
    Ok(())
}
