//! `P A Pᵀ = L B Lᵀ` of a symmetric matrix by Bunch and Kaufman's pivots, where `B` has blocks of one and two rows. Their signs
//! are those of the eigenvalues (Sylvester's law), which tells whether a KKT matrix belongs to a minimum.

use faer::linalg::solvers::Solve;
use faer::{Mat, MatRef, Side};

/// How many eigenvalues have which sign.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Inertia {
    /// Above 0.
    pub positive: usize,
    /// Below 0.
    pub negative: usize,
    /// 0 to rounding.
    pub zero: usize,
}

/// A symmetric indefinite factorisation.
#[derive(Debug, Clone)]
pub struct Ldlt {
    factor: faer::linalg::solvers::Lblt<f64>,
    n: usize,
}

impl Ldlt {
    /// Of the symmetric matrix `a`, whose lower triangle is read.
    pub fn new(a: &[f64], n: usize) -> Self {
        assert_eq!(a.len(), n * n, "a square matrix");
        Self { factor: MatRef::from_row_major_slice(a, n, n).lblt(Side::Lower), n }
    }

    /// The signs of the eigenvalues; all are called 0 if an element of the matrix was not finite.
    pub fn inertia(&self) -> Inertia {
        let (diagonal, below) =
            (self.factor.B_diag().column_vector(), self.factor.B_subdiag().column_vector());
        let size = diagonal.iter().chain(below.iter()).fold(0.0_f64, |size, b| size.max(b.abs()));
        if !size.is_finite() || diagonal.iter().chain(below.iter()).any(|b| b.is_nan()) {
            return Inertia { positive: 0, negative: 0, zero: self.n };
        }
        let least = size * f64::EPSILON * self.n as f64;
        let mut inertia = Inertia { positive: 0, negative: 0, zero: 0 };
        let mut count = |value: f64| {
            if value.abs() <= least {
                inertia.zero += 1;
            } else if value > 0.0 {
                inertia.positive += 1;
            } else {
                inertia.negative += 1;
            }
        };
        let mut i = 0;
        while i < self.n {
            if i + 1 < self.n && below[i] != 0.0 {
                let (a, b, c) = (diagonal[i], below[i], diagonal[i + 1]);
                let (mean, half) = (0.5 * (a + c), (0.5 * (a - c)).hypot(b));
                count(mean + half);
                count(mean - half);
                i += 2;
            } else {
                count(diagonal[i]);
                i += 1;
            }
        }
        inertia
    }

    /// The solution of `A x = b`; not finite where the matrix is singular.
    pub fn solve(&self, b: &[f64]) -> Vec<f64> {
        assert_eq!(b.len(), self.n, "one number a row");
        let b = Mat::from_fn(self.n, 1, |i, _| b[i]);
        let x = self.factor.solve(&b);
        (0..self.n).map(|i| x[(i, 0)]).collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use saddlepoint_core::test::assert_close;

    use super::*;
    use crate::linalg::eigenvalues;

    #[test]
    fn a_kkt_matrix_is_solved_and_its_signs_counted() {
        let a = [2.0, 0.0, 1.0, 0.0, 3.0, 1.0, 1.0, 1.0, 0.0];
        let factor = Ldlt::new(&a, 3);
        assert_eq!(factor.inertia(), Inertia { positive: 2, negative: 1, zero: 0 });
        assert_close!(factor.solve(&[1.0, 2.0, 3.0]), [1.6, 1.4, -2.2], rtol = 1e-14);
        assert_eq!(
            Ldlt::new(&[0.0, 1.0, 1.0, 0.0], 2).inertia(),
            Inertia { positive: 1, negative: 1, zero: 0 }
        );
        assert_eq!(Ldlt::new(&[f64::NAN, 1.0, 1.0, 0.0], 2).inertia().zero, 2);
        assert_eq!(Ldlt::new(&[], 0).inertia(), Inertia { positive: 0, negative: 0, zero: 0 });
    }

    proptest! {
        #[test]
        fn the_signs_are_those_of_the_eigenvalues(elements in prop::collection::vec(-1.0..1.0f64, 36)) {
            let a: Vec<f64> = (0..36).map(|k| elements[k] + elements[(k % 6) * 6 + k / 6]).collect();
            let values = eigenvalues(&a, 6).expect("finite");
            prop_assume!(values.iter().all(|v| v.abs() > 1e-8));
            let inertia = Ldlt::new(&a, 6).inertia();
            prop_assert_eq!(inertia.positive, values.iter().filter(|v| **v > 0.0).count());
            prop_assert_eq!(inertia.zero, 0);
        }
    }
}
