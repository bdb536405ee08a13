//! The container: header, metadata and the places of the tensors.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::cursor::Cursor;
use super::metadata::Metadata;
use super::quant::Kind;
use crate::Result;
use crate::model::bytes::{self, Bytes};
use crate::model::{bad, finite};

/// Smallest description of a tensor: empty name, number of dimensions, type, offset.
const LEAST_TENSOR: u64 = 8 + 4 + 4 + 8;
const MOST_DIMS: u32 = 4;

/// Where a tensor lies and how it is stored.
#[derive(Debug)]
struct Tensor {
    /// Row-major, as in Hugging Face files.
    dims: Vec<usize>,
    kind: Result<Kind, u32>,
    /// Offset in the file and length, in bytes. The length of an unknown kind is unknown (0).
    start: u64,
    length: u64,
}

/// A GGUF file whose header has been read and checked; the tensors stay on disk.
#[derive(Debug)]
pub struct Gguf {
    path: PathBuf,
    bytes: Box<dyn Bytes>,
    metadata: Metadata,
    tensors: BTreeMap<String, Tensor>,
}

impl Gguf {
    /// Opens a file and checks its header.
    pub fn open(path: &Path) -> Result<Self> {
        Self::parse(path, bytes::open(path)?)
    }

    /// Checks the header of `bytes`; `path` stands in messages.
    pub fn parse(path: &Path, bytes: Box<dyn Bytes>) -> Result<Self> {
        let mut cursor = Cursor::new(path, bytes.as_ref());
        if cursor.array("the magic bytes")? != *b"GGUF" {
            return Err(bad(path, "is not a GGUF file: it does not start with GGUF"));
        }
        match cursor.u32("the version")? {
            2 | 3 => {}
            version if version.swap_bytes() <= 3 => {
                return Err(bad(path, "big-endian GGUF files are not supported"));
            }
            version => {
                return Err(bad(path, format!("GGUF version {version} is not supported (2 and 3 are)")));
            }
        }
        let tensor_count = cursor.count(LEAST_TENSOR, "the number of tensors")?;
        let value_count = cursor.count(Metadata::LEAST, "the number of metadata values")?;
        let metadata = Metadata::read(path, &mut cursor, value_count)?;
        let alignment = metadata.count("general.alignment")?.unwrap_or(32) as u64;
        if !alignment.is_power_of_two() {
            return Err(metadata.refuse("general.alignment", "must be a power of two"));
        }
        if metadata.count("split.count")?.is_some_and(|parts| parts > 1) {
            let why =
                "models split over several files are not supported; join them with llama-gguf-split --merge";
            return Err(metadata.refuse("split.count", why));
        }
        let mut tensors = BTreeMap::new();
        for number in 1..=tensor_count {
            let (name, tensor) = tensor(path, &mut cursor, number, alignment)?;
            if tensors.insert(name.clone(), tensor).is_some() {
                return Err(bad(path, format!("tensor {name} is described twice")));
            }
        }
        let data = cursor.at().checked_next_multiple_of(alignment);
        let data = data.ok_or_else(|| metadata.refuse("general.alignment", "is larger than any file"))?;
        place(path, &mut tensors, data, bytes.size())?;
        Ok(Self { path: path.to_owned(), bytes, metadata, tensors })
    }

    pub(in crate::model) fn path(&self) -> &Path {
        &self.path
    }

    pub(in crate::model) fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    /// Names of the tensors, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// Dimensions of a tensor, row-major, if the file has it.
    pub fn dims(&self, name: &str) -> Option<&[usize]> {
        self.tensors.get(name).map(|tensor| tensor.dims.as_slice())
    }

    /// Dequantises the tensor `name`, which must have the dimensions `dims`.
    ///
    /// # Errors
    /// It is missing, has other dimensions, is stored in a format that cannot be read, or is not finite.
    pub fn read(&self, name: &str, dims: &[usize], out: &mut [f32]) -> Result<()> {
        let tensor = self.tensors.get(name).ok_or_else(|| {
            bad(&self.path, format!("tensor {name} is missing (the file has {})", self.tensors.len()))
        })?;
        if tensor.dims != dims {
            let have = &tensor.dims;
            return Err(bad(
                &self.path,
                format!("tensor {name} has dimensions {have:?}, the metadata ask for {dims:?}"),
            ));
        }
        let kind = tensor.kind.map_err(|id| {
            let known = "F32, F16, BF16, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q4_K, Q5_K and Q6_K can be read";
            bad(&self.path, format!("tensor {name} is stored as type {id}; {known}"))
        })?;
        let (weights, size) = kind.block();
        let mut filled = 0;
        let range = tensor.start..tensor.start + tensor.length;
        bytes::in_blocks(&self.path, self.bytes.as_ref(), range, size, |block| {
            let elements = block.len() / size * weights;
            kind.decode(block, &mut out[filled..filled + elements]);
            filled += elements;
            Ok(())
        })?;
        finite::check_read(&self.path, name, dims, out)
    }
}

fn tensor(path: &Path, cursor: &mut Cursor, number: usize, alignment: u64) -> Result<(String, Tensor)> {
    let name = cursor.text(&format!("the name of tensor {number}"))?;
    let what = format!("the description of tensor {name}");
    let rank = cursor.u32(&what)?;
    if rank == 0 || rank > MOST_DIMS {
        return Err(bad(path, format!("tensor {name} has {rank} dimensions: the file is damaged")));
    }
    let mut dims = Vec::new();
    for _ in 0..rank {
        dims.push(cursor.u64(&what)?);
    }
    let id = cursor.u32(&what)?;
    let start = cursor.u64(&what)?;
    if !start.is_multiple_of(alignment) {
        return Err(bad(
            path,
            format!("tensor {name} starts at byte {start}, which is not a multiple of {alignment}"),
        ));
    }
    let kind = Kind::from_id(id).ok_or(id);
    let elements = dims.iter().try_fold(1_u64, |product, &dim| product.checked_mul(dim));
    let length = match kind {
        Err(_) => elements.map(|_| 0),
        Ok(kind) => {
            let (weights, size) = kind.block();
            if !dims[0].is_multiple_of(weights as u64) {
                let problem =
                    format!("tensor {name} has rows of {} weights, not whole blocks of {weights}", dims[0]);
                return Err(bad(path, problem));
            }
            elements.and_then(|elements| (elements / weights as u64).checked_mul(size as u64))
        }
    };
    let length =
        length.ok_or_else(|| bad(path, format!("tensor {name} of {dims:?} is larger than any file")))?;
    let dims = dims.into_iter().rev().map(|dim| dim as usize).collect();
    Ok((name, Tensor { dims, kind, start, length }))
}

/// Turns offsets into the data into offsets into the file; the tensors must lie inside it and apart.
fn place(path: &Path, tensors: &mut BTreeMap<String, Tensor>, data: u64, size: u64) -> Result<()> {
    let mut order: Vec<_> = tensors.iter_mut().collect();
    order.sort_by_key(|(_, tensor)| (tensor.start, tensor.length));
    let mut free = data;
    for (name, tensor) in order {
        let start = tensor.start.checked_add(data);
        let end = start.and_then(|start| start.checked_add(tensor.length));
        let (Some(start), Some(end)) = (start, end.filter(|&end| end <= size)) else {
            let problem =
                format!("tensor {name} lies beyond the end of the file: it is truncated; download it again");
            return Err(bad(path, problem));
        };
        if start < free {
            return Err(bad(
                path,
                format!("tensor {name} overlaps the tensor before it: the file is damaged"),
            ));
        }
        tensor.start = start;
        free = end;
    }
    Ok(())
}
