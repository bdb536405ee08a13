//! `A = L Lᵀ` of a symmetric positive definite matrix.

use faer::linalg::solvers::Solve;
use faer::{Mat, MatRef, Side};

/// A Cholesky factor.
#[derive(Debug, Clone)]
pub struct Cholesky {
    factor: faer::linalg::solvers::Llt<f64>,
    n: usize,
}

impl Cholesky {
    /// Of the symmetric matrix `a`, whose lower triangle is read; `None` if it is not positive definite.
    pub fn new(a: &[f64], n: usize) -> Option<Self> {
        assert_eq!(a.len(), n * n, "a square matrix");
        let a = MatRef::from_row_major_slice(a, n, n);
        Some(Self { factor: a.llt(Side::Lower).ok()?, n })
    }

    /// `L`, row-major; zeros above its diagonal.
    pub fn lower(&self) -> Vec<f64> {
        let (lower, n) = (self.factor.L(), self.n);
        (0..n * n).map(|at| if at % n <= at / n { lower[(at / n, at % n)] } else { 0.0 }).collect()
    }

    /// The solution of `A x = b`.
    pub fn solve(&self, b: &[f64]) -> Vec<f64> {
        assert_eq!(b.len(), self.n, "one number a row");
        let b = Mat::from_fn(self.n, 1, |i, _| b[i]);
        let x = self.factor.solve(&b);
        (0..self.n).map(|i| x[(i, 0)]).collect()
    }
}

#[cfg(test)]
mod tests {
    use saddlepoint_core::test::assert_close;

    use super::*;

    #[test]
    fn it_solves_and_refuses_what_is_not_definite() {
        let a = [4.0, 1.0, 1.0, 3.0];
        assert_close!(
            Cholesky::new(&a, 2).expect("definite").solve(&[1.0, 2.0]),
            [1.0 / 11.0, 7.0 / 11.0],
            rtol = 1e-14
        );
        let lower = Cholesky::new(&a, 2).expect("definite").lower();
        assert_close!(lower, [2.0, 0.0, 0.5, 2.75_f64.sqrt()], rtol = 1e-15);
        assert!(Cholesky::new(&[1.0, 2.0, 2.0, 1.0], 2).is_none());
        assert!(Cholesky::new(&[f64::NAN], 1).is_none());
        assert!(Cholesky::new(&[], 0).expect("empty").solve(&[]).is_empty());
    }
}
