//! Conjugate gradients.

use crate::linalg::{add_scaled, dot, norm};

/// `A q = b` for a positive semidefinite `A` with `b` in its range, from `q = 0`: there the limit is that of the pseudo-inverse.
pub(super) fn conjugate_gradients(
    b: &[f64],
    tolerance: f64,
    mut product: impl FnMut(&[f64], &mut [f64]),
) -> Vec<f64> {
    let (mut q, mut r, mut d, mut image) = (vec![0.0; b.len()], b.to_vec(), b.to_vec(), vec![0.0; b.len()]);
    let mut square = dot(&r, &r);
    let goal = tolerance * norm(b);
    for _ in 0..10 * b.len() {
        if square.sqrt() <= goal {
            break;
        }
        product(&d, &mut image);
        let curvature = dot(&d, &image);
        if curvature <= 0.0 || !curvature.is_finite() {
            break;
        }
        let step = square / curvature;
        add_scaled(&mut q, step, &d);
        add_scaled(&mut r, -step, &image);
        let next = dot(&r, &r);
        let turn = next / square;
        d.iter_mut().zip(&r).for_each(|(d, r)| *d = r + turn * *d);
        square = next;
    }
    q
}

#[cfg(test)]
mod tests {
    use saddlepoint_core::test::assert_close;

    use super::*;

    #[test]
    fn it_gives_the_pseudo_inverse() {
        // (1 1; 1 1) with b in its range.
        let q = conjugate_gradients(&[3.0, 3.0], 1e-12, |v, out| out.fill(v[0] + v[1]));
        assert_close!(q, [1.5, 1.5], atol = 1e-12);
        assert_eq!(conjugate_gradients(&[0.0], 1e-12, |_, out| out.fill(1.0)), [0.0]);
    }
}
