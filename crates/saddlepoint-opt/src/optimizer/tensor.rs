//! What the optimizers have to know of the tensors in an arena.

use std::ops::Range;

/// A tensor; those of an arena lie in it one after another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tensor {
    /// Number of rows; 1 for a vector.
    pub rows: usize,
    /// Elements of a row, which are adjacent.
    pub columns: usize,
    /// Whether weight decay applies.
    pub decays: bool,
}

impl Tensor {
    /// Number of elements.
    #[allow(clippy::len_without_is_empty, reason = "a tensor is never empty")]
    pub fn len(&self) -> usize {
        self.rows * self.columns
    }

    /// Where weight decay applies in the arena.
    pub(super) fn decayed(tensors: &[Self]) -> Vec<Range<usize>> {
        let mut end = 0;
        let place = |tensor: &Self| {
            end += tensor.len();
            tensor.decays.then(|| end - tensor.len()..end)
        };
        tensors.iter().filter_map(place).collect()
    }
}
