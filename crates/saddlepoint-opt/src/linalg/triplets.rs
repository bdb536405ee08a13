//! Sparse matrices as lists of elements.

use serde::{Deserialize, Serialize};

/// A sparse matrix as a list of `(row, column, value)`; elements at the same place add up.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Triplets {
    rows: usize,
    columns: usize,
    elements: Vec<(usize, usize, f64)>,
}

impl Triplets {
    /// A matrix of zeros.
    pub fn new(rows: usize, columns: usize) -> Self {
        Self { rows, columns, elements: Vec::new() }
    }

    /// Adds to an element, which must be inside.
    pub fn push(&mut self, row: usize, column: usize, value: f64) {
        assert!(row < self.rows && column < self.columns, "an element inside of the matrix");
        self.elements.push((row, column, value));
    }

    /// The number of rows.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// The number of columns.
    pub fn columns(&self) -> usize {
        self.columns
    }

    /// The elements, as they were added.
    pub fn elements(&self) -> &[(usize, usize, f64)] {
        &self.elements
    }

    /// All elements, row by row.
    pub fn dense(&self) -> Vec<f64> {
        let mut dense = vec![0.0; self.rows * self.columns];
        self.elements.iter().for_each(|&(i, j, v)| dense[i * self.columns + j] += v);
        dense
    }

    /// All elements of the symmetric matrix whose lower triangle this is, row by row.
    pub fn symmetric(&self) -> Vec<f64> {
        assert_eq!(self.rows, self.columns, "a symmetric matrix is square");
        let mut dense = vec![0.0; self.rows * self.columns];
        for &(i, j, v) in &self.elements {
            dense[i * self.columns + j] += v;
            if i != j {
                dense[j * self.columns + i] += v;
            }
        }
        dense
    }

    /// `out += A v`.
    pub fn add_product(&self, v: &[f64], out: &mut [f64]) {
        self.elements.iter().for_each(|&(i, j, a)| out[i] += a * v[j]);
    }

    /// `out += Aᵀ w`.
    pub fn add_transposed_product(&self, w: &[f64], out: &mut [f64]) {
        self.elements.iter().for_each(|&(i, j, a)| out[j] += a * w[i]);
    }

    /// The largest absolute element of each row.
    pub fn row_sizes(&self) -> Vec<f64> {
        let mut sizes = vec![0.0_f64; self.rows];
        self.elements.iter().for_each(|&(i, _, v)| sizes[i] = sizes[i].max(v.abs()));
        sizes
    }
}

#[cfg(test)]
mod tests {
    use saddlepoint_core::test::assert_close;

    use super::*;

    #[test]
    fn elements_at_one_place_add_up_and_products_follow() {
        let mut a = Triplets::new(2, 2);
        for (i, j, v) in [(0, 0, 1.0), (1, 0, 2.0), (0, 0, 0.5), (1, 1, -3.0)] {
            a.push(i, j, v);
        }
        assert_close!(a.dense(), [1.5, 0.0, 2.0, -3.0], atol = 0.0);
        assert_close!(a.symmetric(), [1.5, 2.0, 2.0, -3.0], atol = 0.0);
        let (mut right, mut left) = ([0.0; 2], [1.0; 2]);
        a.add_product(&[2.0, 1.0], &mut right);
        a.add_transposed_product(&[2.0, 1.0], &mut left);
        assert_close!(right, [3.0, 1.0], atol = 0.0);
        assert_close!(left, [6.0, -2.0], atol = 0.0);
        assert_close!(a.row_sizes(), [1.0, 3.0], atol = 0.0);
    }
}
