//! The eigenvalues of a symmetric matrix.

use faer::{MatRef, Side};

/// In ascending order, from the lower triangle of `a`; `None` if they do not converge, as when an element is not finite.
pub fn eigenvalues(a: &[f64], n: usize) -> Option<Vec<f64>> {
    assert_eq!(a.len(), n * n, "a square matrix");
    if a.iter().any(|a| !a.is_finite()) {
        return None;
    }
    MatRef::from_row_major_slice(a, n, n).self_adjoint_eigenvalues(Side::Lower).ok()
}

#[cfg(test)]
mod tests {
    use saddlepoint_core::test::assert_close;

    use super::*;

    #[test]
    fn eigenvalues_ascend() {
        assert_close!(eigenvalues(&[2.0, 1.0, 1.0, 2.0], 2).expect("finite"), [1.0, 3.0], rtol = 1e-14);
        assert!(eigenvalues(&[f64::NAN], 1).is_none());
        assert!(eigenvalues(&[], 0).expect("empty").is_empty());
    }
}
