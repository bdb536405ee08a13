//! The singular value decomposition `A = U Σ Vᵀ`, where `Σ` has `min(rows, columns)` values, the largest first.

use faer::diag::Diag;
use faer::dyn_stack::{MemBuffer, MemStack};
use faer::linalg::matmul::matmul;
use faer::linalg::svd::{ComputeSvdVectors, svd, svd_scratch};
use faer::{Accum, Mat, MatMut, MatRef, Par};

use crate::{Error, Result};

/// The singular values of `a`, the largest first.
///
/// # Errors
/// The iteration does not converge, as when an element is not finite.
pub fn singular_values(a: &[f64], columns: usize) -> Result<Vec<f64>> {
    let a = view(a, columns);
    let mut values = Diag::zeros(a.nrows().min(a.ncols()));
    decompose(a, &mut values, None)?;
    Ok(values.column_vector().iter().copied().collect())
}

/// Replaces `a` by its orthogonal polar factor `U Vᵀ`, a subgradient of the nuclear norm. Directions in which `a`
/// vanishes to rounding are left out: there the factor is 0 as well, as the sign of 0 is.
///
/// # Errors
/// As [`singular_values`]; then `a` has not changed.
pub fn polar(a: &mut [f64], columns: usize) -> Result<()> {
    let from = view(a, columns);
    let (rows, size) = (from.nrows(), from.nrows().min(from.ncols()));
    let (mut u, mut v) = (Mat::zeros(rows, size), Mat::zeros(from.ncols(), size));
    let mut values = Diag::zeros(size);
    decompose(from, &mut values, Some((u.as_mut(), v.as_mut())))?;
    let values = values.column_vector();
    let least = values.iter().copied().fold(0.0, f64::max) * f64::EPSILON * rows.max(from.ncols()) as f64;
    let rank = values.iter().filter(|&&value| value > least).count();
    let (u, v) = (u.subcols(0, rank), v.subcols(0, rank));
    let to = MatMut::from_row_major_slice_mut(a, rows, columns);
    matmul(to, Accum::Replace, u, v.transpose(), 1.0, Par::Seq);
    Ok(())
}

fn view(a: &[f64], columns: usize) -> MatRef<'_, f64> {
    assert!(columns > 0 && a.len().is_multiple_of(columns), "whole rows");
    MatRef::from_row_major_slice(a, a.len() / columns, columns)
}

fn decompose(
    a: MatRef<'_, f64>,
    values: &mut Diag<f64>,
    vectors: Option<(MatMut<'_, f64>, MatMut<'_, f64>)>,
) -> Result<()> {
    let (rows, columns) = a.shape();
    let compute = if vectors.is_some() { ComputeSvdVectors::Thin } else { ComputeSvdVectors::No };
    let (u, v) = vectors.unzip();
    let parameters = faer::prelude::default();
    let scratch = svd_scratch::<f64>(rows, columns, compute, compute, Par::Seq, parameters);
    let mut memory = MemBuffer::new(scratch);
    svd(a, values.as_mut(), u, v, Par::Seq, MemStack::new(&mut memory), parameters)
        .map_err(|_| Error::Svd { rows, columns })
}

#[cfg(test)]
mod tests {
    use saddlepoint_core::test::assert_close;

    use super::*;

    /// Rows of different length than columns, both ways.
    const SHAPES: [usize; 4] = [1, 3, 4, 12];

    fn matrix() -> Vec<f64> {
        (0..12).map(|i| f64::from(i * 37 % 23) - 11.0).collect()
    }

    fn squared(a: &[f64]) -> f64 {
        a.iter().map(|a| a * a).sum()
    }

    #[test]
    fn singular_values_of_a_diagonal_and_of_a_rotation_are_known() {
        assert_close!(singular_values(&[0.0, -3.0, 2.0, 0.0], 2).expect("finite"), [3.0, 2.0], rtol = 1e-14);
        for columns in SHAPES {
            let values = singular_values(&matrix(), columns).expect("finite");
            assert_eq!(values.len(), columns.min(12 / columns));
            assert!(values.is_sorted_by(|a, b| a >= b));
            assert_close!(squared(&values), squared(&matrix()), rtol = 1e-13);
        }
    }

    #[test]
    fn the_polar_factor_is_orthogonal_and_keeps_the_singular_vectors() {
        for columns in SHAPES {
            let (a, mut p) = (matrix(), matrix());
            polar(&mut p, columns).expect("finite");
            let values = singular_values(&p, columns).expect("finite");
            assert_close!(values, vec![1.0; values.len()], rtol = 1e-13);
            let along: f64 = a.iter().zip(&p).map(|(a, p)| a * p).sum();
            let nuclear: f64 = singular_values(&a, columns).expect("finite").iter().sum();
            assert_close!(along, nuclear, rtol = 1e-13);
        }
    }

    #[test]
    fn directions_that_vanish_are_left_out() {
        // Of rank one.
        let mut a: Vec<f64> = [2.0, -1.0, 3.0].iter().flat_map(|r| [4.0 * r, -3.0 * r]).collect();
        polar(&mut a, 2).expect("finite");
        assert_close!(singular_values(&a, 2).expect("finite"), [1.0, 0.0], atol = 1e-14);
        let mut zero = [0.0; 6];
        polar(&mut zero, 3).expect("finite");
        assert_close!(zero, [0.0; 6], atol = 0.0);
        assert!(singular_values(&[], 3).expect("empty").is_empty());
    }

    #[test]
    fn what_is_not_finite_is_refused() {
        let message = singular_values(&[1.0, f64::NAN, 0.0, 1.0], 2).expect_err("refused").to_string();
        assert_eq!(
            message,
            "the singular values of a 2 x 2 matrix did not converge; look for elements that are not finite"
        );
    }
}
