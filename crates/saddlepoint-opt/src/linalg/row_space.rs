//! Projections that belong to the rows of a matrix, by its singular value decomposition and by its QR factorisation.

use faer::MatRef;
use serde::{Deserialize, Serialize};

use super::vector::{add_scaled, dot, largest};
use crate::{Error, Result};

/// The solutions of `A x = b`: an orthonormal basis of the row space and the solution that lies in it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RowSpace {
    /// Orthonormal vectors, one after the other.
    basis: Vec<f64>,
    /// The solution of least norm.
    nearest: Vec<f64>,
}

impl RowSpace {
    /// From the rows of `A`, with `columns` numbers each. Singular values below rounding count as 0.
    ///
    /// # Errors
    /// An element is not finite, or there is no solution.
    pub fn new(a: &[f64], b: &[f64], columns: usize) -> Result<Self> {
        assert_eq!(a.len(), b.len() * columns, "whole rows");
        if a.iter().chain(b).any(|a| !a.is_finite()) {
            let problem = "the rows of an affine set must be finite".to_owned();
            return Err(Error::Problem { problem });
        }
        let rows = b.len();
        if rows == 0 || columns == 0 {
            return Self { basis: Vec::new(), nearest: vec![0.0; columns] }.solving(a, b);
        }
        let svd = MatRef::from_row_major_slice(a, rows, columns).thin_svd();
        let svd = svd.map_err(|_| Error::Svd { rows, columns })?;
        let values = svd.S().column_vector();
        let least = values.iter().copied().fold(0.0, f64::max) * f64::EPSILON * rows.max(columns) as f64;
        let (mut basis, mut nearest) = (Vec::new(), vec![0.0; columns]);
        for k in (0..values.nrows()).filter(|&k| values[k] > least) {
            let row: Vec<f64> = (0..columns).map(|j| svd.V()[(j, k)]).collect();
            let along: f64 = (0..rows).map(|i| svd.U()[(i, k)] * b[i]).sum();
            add_scaled(&mut nearest, along / values[k], &row);
            basis.extend(row);
        }
        Self { basis, nearest }.solving(a, b)
    }

    fn solving(self, a: &[f64], b: &[f64]) -> Result<Self> {
        let columns = self.nearest.len();
        for (i, b) in b.iter().enumerate() {
            let row = &a[i * columns..(i + 1) * columns];
            let (got, scale) = (dot(row, &self.nearest), largest(row) * largest(&self.nearest) + b.abs());
            if (got - b).abs() > 1e-9 * scale {
                let problem =
                    format!("no point satisfies all rows of the affine set: row {i} contradicts others");
                return Err(Error::Problem { problem });
            }
        }
        Ok(self)
    }

    /// The number of variables.
    pub fn columns(&self) -> usize {
        self.nearest.len()
    }

    /// Replaces `x` by the nearest solution.
    pub fn project(&self, x: &mut [f64]) {
        for row in self.basis.chunks_exact(self.columns().max(1)) {
            let along = dot(row, x);
            add_scaled(x, -along, row);
        }
        add_scaled(x, 1.0, &self.nearest);
    }
}

/// An orthonormal basis of `{z : A z = 0}` for a matrix of full row rank: its vectors, one after the other.
pub fn null_space(a: &[f64], rows: usize, columns: usize) -> Vec<f64> {
    assert!(a.len() == rows * columns && rows <= columns, "no more rows than columns");
    if rows == 0 {
        return (0..columns * columns).map(|k| f64::from(u8::from(k / columns == k % columns))).collect();
    }
    let q = MatRef::from_row_major_slice(a, rows, columns).transpose().qr().compute_Q();
    (rows..columns).flat_map(|k| (0..columns).map(move |i| (i, k))).map(|at| q[at]).collect()
}

#[cfg(test)]
mod tests {
    use saddlepoint_core::test::assert_close;

    use super::*;

    #[test]
    fn the_null_space_is_orthonormal_and_annihilated() {
        let a = [1.0, 2.0, 0.0, -1.0, 0.5, 0.0, 3.0, 1.0];
        let z = null_space(&a, 2, 4);
        for i in 0..2 {
            for j in 0..2 {
                let expected = f64::from(u8::from(i == j));
                assert_close!(dot(&z[4 * i..4 * i + 4], &z[4 * j..4 * j + 4]), expected, atol = 1e-14);
                assert_close!(dot(&a[4 * i..4 * i + 4], &z[4 * j..4 * j + 4]), 0.0, atol = 1e-14);
            }
        }
        assert_close!(null_space(&[], 0, 2), [1.0, 0.0, 0.0, 1.0], atol = 0.0);
    }
}
