//! Where each named tensor lies in the arena, and who can fill it.

use std::ops::Range;

use saddlepoint_opt::optimizer::Tensor;

use crate::Result;

/// A named tensor at a fixed place of a flat `f32` arena.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorSpec {
    /// Name in Hugging Face (or PEFT) files.
    pub name: String,
    /// Dimensions, row-major; one for a vector, two for a matrix.
    pub dims: Vec<usize>,
    /// Offset of the first element in the arena, in elements.
    pub offset: usize,
}

impl TensorSpec {
    /// Number of elements.
    #[allow(clippy::len_without_is_empty, reason = "a tensor is never empty")]
    pub fn len(&self) -> usize {
        self.dims.iter().product()
    }

    /// Its elements in the arena.
    pub fn range(&self) -> Range<usize> {
        self.offset..self.offset + self.len()
    }

    /// Whether weight decay applies: matrices only, as in the usual trainers.
    pub fn decays(&self) -> bool {
        self.dims.len() > 1
    }

    /// What the optimizer has to know of it.
    pub fn optimized(&self) -> Tensor {
        let columns = self.dims.last().copied().unwrap_or(1).max(1);
        Tensor { rows: self.len() / columns, columns, decays: self.decays() }
    }

    pub(crate) fn list() -> TensorList {
        TensorList(Vec::new())
    }
}

/// Builds a list of tensors laid out one after another.
#[derive(Debug)]
pub(crate) struct TensorList(Vec<TensorSpec>);

impl TensorList {
    fn push(&mut self, name: String, dims: Vec<usize>) {
        let offset = self.0.last().map_or(0, |last| last.range().end);
        self.0.push(TensorSpec { name, dims, offset });
    }

    pub(crate) fn vector(&mut self, name: impl Into<String>, len: usize) {
        self.push(name.into(), vec![len]);
    }

    pub(crate) fn matrix(&mut self, name: impl Into<String>, rows: usize, columns: usize) {
        self.push(name.into(), vec![rows, columns]);
    }

    pub(crate) fn finish(self) -> Vec<TensorSpec> {
        self.0
    }
}

/// A file (or several) that holds named tensors: a safetensors folder, a GGUF file, an adapter.
pub trait WeightSource {
    /// Reads the tensor as `f32` into `out`, in the row-major order of `spec.dims`, dequantised and with
    /// rotary pairs in the half-split convention.
    ///
    /// # Errors
    /// The tensor is missing, has other dimensions, holds a NaN or infinity, or the file is damaged.
    fn read(&self, spec: &TensorSpec, out: &mut [f32]) -> Result<()>;

    /// Names in the file that `specs` do not use (reported to the user, never silently ignored).
    fn unused(&self, specs: &[TensorSpec]) -> Vec<String>;
}
