//! `P A = L U` of any square matrix.

use faer::linalg::solvers::{DenseSolveCore, PartialPivLu};
use faer::{Mat, MatRef};

/// An LU decomposition with row pivots.
#[derive(Debug, Clone)]
pub struct Lu {
    factor: PartialPivLu<f64>,
    n: usize,
}

impl Lu {
    /// Of the row-major matrix `a`.
    pub fn new(a: &[f64], n: usize) -> Self {
        assert_eq!(a.len(), n * n, "a square matrix");
        Self { factor: MatRef::from_row_major_slice(a, n, n).partial_piv_lu(), n }
    }

    /// `log det A`; `None` if the determinant is not positive and finite.
    pub fn log_determinant(&self) -> Option<f64> {
        let (mut log, mut negative) = (0.0, self.swaps() % 2 == 1);
        for pivot in self.factor.U().diagonal().column_vector().iter() {
            log += pivot.abs().ln();
            negative ^= *pivot < 0.0;
        }
        (!negative && log.is_finite()).then_some(log)
    }

    /// Exchanges of two rows that make up the permutation: one fewer than its nodes in each cycle.
    fn swaps(&self) -> usize {
        let (forward, _) = self.factor.P().arrays();
        let mut seen = vec![false; self.n];
        let mut swaps = 0;
        for start in 0..self.n {
            let mut at = start;
            while !std::mem::replace(&mut seen[at], true) {
                at = forward[at];
                swaps += usize::from(at != start);
            }
        }
        swaps
    }

    /// `A^-1`, row-major; `None` if it is not finite, as of a singular matrix.
    pub fn inverse(&self) -> Option<Vec<f64>> {
        let inverse: Mat<f64> = self.factor.inverse();
        let n = self.n;
        let values: Vec<f64> = (0..n * n).map(|at| inverse[(at / n, at % n)]).collect();
        values.iter().all(|x| x.is_finite()).then_some(values)
    }
}

#[cfg(test)]
mod tests {
    use saddlepoint_core::test::assert_close;

    use super::*;

    #[test]
    fn determinants_and_inverses_by_hand() {
        let lu = Lu::new(&[0.0, -2.0, 3.0, 4.0], 2);
        assert_close!(lu.log_determinant().expect("positive"), 6.0_f64.ln(), rtol = 1e-15);
        assert_close!(lu.inverse().expect("regular"), [4.0 / 6.0, 2.0 / 6.0, -0.5, 0.0], atol = 1e-15);
        let turned = Lu::new(&[0.0, 1.0, 0.0, 0.0, 0.0, 1.0, 1.0, 0.0, 0.0], 3);
        assert_close!(turned.log_determinant().expect("two exchanges"), 0.0, atol = 0.0);
        assert!(Lu::new(&[0.0, 2.0, 3.0, 4.0], 2).log_determinant().is_none(), "determinant -6");
        let singular = Lu::new(&[1.0, 2.0, 2.0, 4.0], 2);
        assert!(singular.log_determinant().is_none() && singular.inverse().is_none());
        assert!(Lu::new(&[f64::NAN], 1).inverse().is_none());
        let empty = Lu::new(&[], 0);
        assert_close!(empty.log_determinant().expect("1"), 0.0, atol = 0.0);
    }
}
