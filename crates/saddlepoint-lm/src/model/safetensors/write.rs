//! Streaming writer: the header is known before the first tensor is read.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

use serde_json::{Map, Value, json};

use crate::Result;
use crate::engine::TensorSpec;
use crate::model::{Dtype, bytes, finite, json as text, put, unwritable};

/// Name of an unsharded file.
pub(in crate::model) const SINGLE: &str = "model.safetensors";
/// Name of the index of a sharded one.
pub(in crate::model) const INDEX: &str = "model.safetensors.index.json";

/// Reads a tensor that is to be written.
pub(in crate::model) type Read<'a> = &'a dyn Fn(&TensorSpec, &mut [f32]) -> Result<()>;

/// Writes `specs` to the file `path` in the order of their names, which is also transformers' order.
pub(in crate::model) fn write(path: &Path, specs: &[&TensorSpec], read: Read, dtype: Dtype) -> Result<()> {
    let mut specs = specs.to_vec();
    specs.sort_by(|a, b| a.name.cmp(&b.name));
    let mut header = Map::new();
    header.insert("__metadata__".into(), json!({ "format": "pt" }));
    let mut end = 0;
    for spec in &specs {
        let start = end;
        end += (spec.len() * dtype.size()) as u64;
        let entry = json!({ "dtype": dtype.name(), "shape": spec.dims, "data_offsets": [start, end] });
        header.insert(spec.name.clone(), entry);
    }
    let mut header = serde_json::to_vec(&header).expect("JSON values serialise");
    // Spaces keep the data aligned to 8 bytes, as the format recommends.
    header.resize(header.len().next_multiple_of(8), b' ');

    let failed = |source| unwritable(path, source);
    let file = File::create(path).map_err(failed)?;
    let mut out = BufWriter::new(file);
    out.write_all(&(header.len() as u64).to_le_bytes()).map_err(failed)?;
    out.write_all(&header).map_err(failed)?;
    let mut values = Vec::new();
    let mut block = Vec::with_capacity(bytes::BLOCK);
    for spec in &specs {
        values.resize(spec.len(), 0.0);
        read(spec, &mut values)?;
        finite::check_write(path, &spec.name, &spec.dims, &values, dtype)?;
        for part in values.chunks(bytes::BLOCK / dtype.size()) {
            block.clear();
            dtype.encode(part, &mut block);
            out.write_all(&block).map_err(failed)?;
        }
    }
    let file = out.into_inner().map_err(|error| unwritable(path, error.into_error()))?;
    file.sync_all().map_err(failed)
}

/// Writes `specs` into `folder`: one file if they take at most `most` bytes, else several and an index.
pub(in crate::model) fn write_sharded(
    folder: &Path,
    specs: &[TensorSpec],
    read: Read,
    dtype: Dtype,
    most: u64,
) -> Result<()> {
    let shards = split(specs, dtype, most);
    if let [all] = shards.as_slice() {
        return write(&folder.join(SINGLE), all, read, dtype);
    }
    let mut map = Map::new();
    for (number, shard) in shards.iter().enumerate() {
        let name = format!("model-{:05}-of-{:05}.safetensors", number + 1, shards.len());
        write(&folder.join(&name), shard, read, dtype)?;
        map.extend(shard.iter().map(|spec| (spec.name.clone(), Value::from(name.as_str()))));
    }
    map.sort_keys();
    let total: usize = specs.iter().map(|spec| spec.len() * dtype.size()).sum();
    let index = json!({ "metadata": { "total_size": total }, "weight_map": map });
    let index = index.as_object().expect("the literal above is an object");
    put(&folder.join(INDEX), &text::to_bytes(index))
}

/// Consecutive tensors that together take at most `most` bytes; a larger tensor is alone.
fn split(specs: &[TensorSpec], dtype: Dtype, most: u64) -> Vec<Vec<&TensorSpec>> {
    let mut shards: Vec<Vec<&TensorSpec>> = vec![Vec::new()];
    let mut filled = 0;
    for spec in specs {
        let size = (spec.len() * dtype.size()) as u64;
        if filled > 0 && filled + size > most {
            shards.push(Vec::new());
            filled = 0;
        }
        filled += size;
        shards.last_mut().expect("starts with one").push(spec);
    }
    shards
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_is_reported() {
        let full = Path::new("/dev/full");
        if !full.exists() {
            eprintln!("SKIPPED: this system has no /dev/full");
            return;
        }
        for len in [1, 1 << 20] {
            let spec = TensorSpec { name: "w".into(), dims: vec![len], offset: 0 };
            let message = write(full, &[&spec], &|_, _| Ok(()), Dtype::F32).expect_err("full").to_string();
            assert!(message.starts_with("cannot write /dev/full: No space left on device"), "{message}");
        }
    }

    #[test]
    fn a_shard_takes_what_fits_and_a_large_tensor_is_alone() {
        let spec = |len: usize| TensorSpec { name: format!("t{len}"), dims: vec![len], offset: 0 };
        let specs = [spec(2), spec(3), spec(9), spec(1), spec(4)];
        let shards = split(&specs, Dtype::F16, 10);
        let lengths: Vec<Vec<usize>> = shards.iter().map(|s| s.iter().map(|t| t.len()).collect()).collect();
        assert_eq!(lengths, [vec![2, 3], vec![9], vec![1, 4]]);
        assert_eq!(split(&specs, Dtype::F16, 38).len(), 1);
    }
}
