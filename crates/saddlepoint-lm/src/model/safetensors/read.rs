//! One safetensors file.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::Value;

use crate::engine::{TensorSpec, WeightSource};
use crate::model::bytes::{self, Bytes};
use crate::model::{Dtype, bad, finite, json, unreadable};
use crate::{Error, Result};

/// Largest header, as in the reference implementation.
const LARGEST_HEADER: u64 = 100_000_000;

/// Where a tensor lies.
#[derive(Debug)]
struct Entry {
    dtype: String,
    dims: Vec<usize>,
    /// Offsets of its first byte and of the byte after its last, in the file.
    start: u64,
    end: u64,
}

/// How the header describes a tensor.
#[derive(Deserialize)]
struct Described {
    dtype: String,
    shape: Vec<usize>,
    data_offsets: [u64; 2],
}

/// A safetensors file whose header has been read and checked; the tensors stay on disk.
#[derive(Debug)]
pub struct SafeTensors {
    path: PathBuf,
    bytes: Box<dyn Bytes>,
    entries: BTreeMap<String, Entry>,
}

impl SafeTensors {
    /// Opens a file and checks its header.
    pub fn open(path: &Path) -> Result<Self> {
        Self::parse(path, bytes::open(path)?)
    }

    /// Checks the header of `bytes`; `path` stands in messages.
    pub fn parse(path: &Path, bytes: Box<dyn Bytes>) -> Result<Self> {
        let size = bytes.size();
        let mut length = [0; 8];
        if size < 8 {
            return Err(truncated(path, &format!("it has {size} bytes and a header alone takes more")));
        }
        bytes.read_at(0, &mut length).map_err(|source| unreadable(path, source))?;
        let length = u64::from_le_bytes(length);
        if length > LARGEST_HEADER {
            let problem = format!("a header of {length} bytes is announced: this is not a safetensors file");
            return Err(bad(path, problem));
        }
        if length > size - 8 {
            return Err(truncated(path, &format!("its header takes {length} bytes and {} follow", size - 8)));
        }
        let mut header = vec![0; length as usize];
        bytes.read_at(8, &mut header).map_err(|source| unreadable(path, source))?;
        let mut entries = BTreeMap::new();
        for (name, value) in json::parse(path, &header)? {
            if name != "__metadata__" {
                let entry = entry(path, &name, &value, 8 + length, size)?;
                entries.insert(name, entry);
            }
        }
        check_layout(path, &entries, 8 + length, size)?;
        Ok(Self { path: path.to_owned(), bytes, entries })
    }

    /// Names of the tensors, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.entries.keys().map(String::as_str)
    }

    /// Dimensions of a tensor, if the file has it.
    pub fn dims(&self, name: &str) -> Option<&[usize]> {
        self.entries.get(name).map(|entry| entry.dims.as_slice())
    }

    /// Whether two tensors have the same type, dimensions and bytes. False if one is missing.
    pub(super) fn same(&self, name: &str, other: (&SafeTensors, &str)) -> Result<bool> {
        let (Some(a), Some(b)) = (self.entries.get(name), other.0.entries.get(other.1)) else {
            return Ok(false);
        };
        if a.dtype != b.dtype || a.dims != b.dims {
            return Ok(false);
        }
        let (mut equal, mut at, mut theirs) = (true, b.start, Vec::new());
        bytes::in_blocks(&self.path, self.bytes.as_ref(), a.start..a.end, 1, |block| {
            theirs.resize(block.len(), 0);
            other.0.bytes.read_at(at, &mut theirs).map_err(|source| unreadable(&other.0.path, source))?;
            equal &= block == theirs;
            at += block.len() as u64;
            Ok(())
        })?;
        Ok(equal)
    }
}

fn truncated(path: &Path, what: &str) -> Error {
    bad(path, format!("{what}: the file is truncated; download or write it again"))
}

fn entry(path: &Path, name: &str, value: &Value, data: u64, size: u64) -> Result<Entry> {
    let Described { dtype, shape, data_offsets: [start, end] } = Described::deserialize(value)
        .map_err(|error| bad(path, format!("the header's entry for tensor {name} is wrong: {error}")))?;
    if start > end {
        return Err(bad(path, format!("tensor {name} ends (byte {end}) before it starts (byte {start})")));
    }
    if end > size - data {
        let have = size - data;
        return Err(truncated(
            path,
            &format!("tensor {name} ends at byte {end} of the data, of which there are {have}"),
        ));
    }
    if let Some(known) = Dtype::from_name(&dtype) {
        let elements = shape.iter().try_fold(1_u64, |product, &dim| product.checked_mul(dim as u64));
        let needed = elements.and_then(|elements| elements.checked_mul(known.size() as u64));
        if needed != Some(end - start) {
            let have = end - start;
            return Err(bad(
                path,
                format!("tensor {name} of {dtype} {shape:?} has {have} bytes, which does not fit"),
            ));
        }
    }
    Ok(Entry { dtype, dims: shape, start: data + start, end: data + end })
}

/// The tensors must cover the data without gap or overlap.
fn check_layout(path: &Path, entries: &BTreeMap<String, Entry>, data: u64, size: u64) -> Result<()> {
    let mut order: Vec<_> = entries.iter().collect();
    order.sort_by_key(|(_, entry)| (entry.start, entry.end));
    let mut end = data;
    for (name, entry) in order {
        if entry.start != end {
            let what = if entry.start < end { "overlaps the tensor before it" } else { "follows a gap" };
            return Err(bad(path, format!("tensor {name} {what} (byte {} of the data)", entry.start - data)));
        }
        end = entry.end;
    }
    if end != size {
        return Err(bad(path, format!("{} bytes follow the last tensor: the file is damaged", size - end)));
    }
    Ok(())
}

impl WeightSource for SafeTensors {
    fn read(&self, spec: &TensorSpec, out: &mut [f32]) -> Result<()> {
        let name = &spec.name;
        let entry = self.entries.get(name).ok_or_else(|| {
            let hint = if name == "lm_head.weight" {
                "; if the head shares the embedding, set tie_word_embeddings to true in config.json"
            } else {
                ""
            };
            bad(&self.path, format!("tensor {name} is missing (the file has {}){hint}", self.entries.len()))
        })?;
        if entry.dims != spec.dims {
            let (have, want) = (&entry.dims, &spec.dims);
            return Err(bad(
                &self.path,
                format!("tensor {name} has dimensions {have:?}, the configuration asks for {want:?}"),
            ));
        }
        let dtype = Dtype::from_name(&entry.dtype).ok_or_else(|| {
            bad(
                &self.path,
                format!("tensor {name} is stored as {}; F32, F16 and BF16 can be read", entry.dtype),
            )
        })?;
        let mut filled = 0;
        bytes::in_blocks(&self.path, self.bytes.as_ref(), entry.start..entry.end, dtype.size(), |block| {
            let elements = block.len() / dtype.size();
            dtype.decode(block, &mut out[filled..filled + elements]);
            filled += elements;
            Ok(())
        })?;
        finite::check_read(&self.path, name, &spec.dims, out)
    }

    fn unused(&self, specs: &[TensorSpec]) -> Vec<String> {
        super::unused(self.names(), specs)
    }
}
