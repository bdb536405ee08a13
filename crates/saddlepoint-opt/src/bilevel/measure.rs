//! Lipschitz constants of a problem's gradients near a point, from which step sizes follow that nobody has to guess.
//!
//! The power method on differences of first-order oracles: `J v ≈ (G(z + h v) − G(z − h v)) / 2h`. What is found is a lower
//! bound of the constant at that point, and the point's only; the solvers keep a factor of safety and halve their
//! steps no further on their own.

use super::Bilevel;
use crate::linalg::{add_scaled, norm};

/// Most rounds of the power method.
const ROUNDS: usize = 12;
/// Relative change from one round to the next at which a value is known well enough: the steps have a factor of safety of two.
const SETTLED: f64 = 0.01;

/// Takes a round's value into the largest so far; whether it was the last round.
fn settled(size: f64, most: &mut f64) -> bool {
    let settled = (size - *most).abs() <= SETTLED * *most;
    *most = most.max(size);
    settled
}

/// The largest `|eigenvalue|` of the symmetric Jacobian of `map` at `z`; 0 for a constant map or no variables.
pub(super) fn lipschitz(z: &[f64], mut map: impl FnMut(&[f64], &mut [f64])) -> f64 {
    let mut v = start(z.len());
    let mut most = 0.0_f64;
    for _ in 0..ROUNDS {
        let image = derivative(z, &v, z.len(), &mut map);
        let size = norm(&image);
        if !size.is_finite() {
            return size;
        }
        if settled(size, &mut most) {
            break;
        }
        v = image.into_iter().map(|value| value / size).collect();
    }
    most
}

/// The largest singular value of the Jacobian of `map`, whose transpose is the Jacobian of `back`: both are
/// derivatives of one function of two variables, `map` of the gradient by the second as the first (at `a`) moves.
pub(super) fn cross(
    a: &[f64],
    b: &[f64],
    mut map: impl FnMut(&[f64], &mut [f64]),
    mut back: impl FnMut(&[f64], &mut [f64]),
) -> f64 {
    let mut v = start(a.len());
    let mut most = 0.0_f64;
    for _ in 0..ROUNDS {
        let image = derivative(a, &v, b.len(), &mut map);
        let size = norm(&image);
        if settled(size, &mut most) {
            break;
        }
        let u: Vec<f64> = image.into_iter().map(|value| value / size).collect();
        let image = derivative(b, &u, a.len(), &mut back);
        let size = norm(&image);
        if size == 0.0 || !size.is_finite() {
            break;
        }
        v = image.into_iter().map(|value| value / size).collect();
    }
    most
}

/// The largest singular value of the Jacobian of `g` by `y`.
pub(super) fn coupling<P: Bilevel + ?Sized>(problem: &P, x: &[f64], y: &[f64]) -> f64 {
    let sizes = problem.sizes();
    if sizes.constraints == 0 {
        return 0.0;
    }
    let mut v = start(y.len());
    let (mut most, mut unused) = (0.0_f64, vec![0.0; sizes.upper]);
    for _ in 0..ROUNDS {
        let image = derivative(y, &v, sizes.constraints, &mut |y: &[f64], g: &mut [f64]| {
            problem.constraints(x, y, g);
        });
        let size = norm(&image);
        if settled(size, &mut most) {
            break;
        }
        v.fill(0.0);
        problem.vjp(x, y, &image, &mut unused, &mut v);
        let size = norm(&v);
        if size == 0.0 || !size.is_finite() {
            break;
        }
        for value in &mut v {
            *value /= size;
        }
    }
    most
}

/// A direction that is orthogonal to no eigenvector that a problem is likely to have.
fn start(len: usize) -> Vec<f64> {
    let mut v: Vec<f64> = (0..len).map(|i| 1.0 + 0.5 * (i as f64 * 0.618_034).fract()).collect();
    let size = norm(&v);
    for value in &mut v {
        *value /= size;
    }
    v
}

/// Central difference along the unit vector `v`.
fn derivative(z: &[f64], v: &[f64], len: usize, map: &mut impl FnMut(&[f64], &mut [f64])) -> Vec<f64> {
    let h = 1e-5 * (1.0 + norm(z));
    let (mut moved, mut plus, mut minus) = (z.to_vec(), vec![0.0; len], vec![0.0; len]);
    add_scaled(&mut moved, h, v);
    map(&moved, &mut plus);
    add_scaled(&mut moved, -2.0 * h, v);
    map(&moved, &mut minus);
    plus.iter().zip(&minus).map(|(plus, minus)| (plus - minus) / (2.0 * h)).collect()
}

#[cfg(test)]
mod tests {
    use saddlepoint_core::test::assert_close;

    use super::*;

    #[test]
    fn the_constants_of_a_quadratic_are_found() {
        let eigenvalues = [1.0, -7.0, 3.0];
        let found = lipschitz(&[1.0, 2.0, 3.0], |z, out| {
            for i in 0..3 {
                out[i] = eigenvalues[i] * z[i] + 5.0;
            }
        });
        assert_close!(found, 7.0, rtol = SETTLED);
        assert_close!(lipschitz(&[], |_, _| ()), 0.0, atol = 0.0);
        assert_close!(lipschitz(&[1.0], |_, out| out.fill(2.0)), 0.0, atol = 0.0);
        // The matrix (3 4; 0 0) has the singular values 5 and 0.
        let found = cross(
            &[1.0, 1.0],
            &[0.0, 0.0],
            |a, out| {
                out[0] = 3.0 * a[0] + 4.0 * a[1];
                out[1] = 0.0;
            },
            |b, out| {
                out[0] = 3.0 * b[0];
                out[1] = 4.0 * b[0];
            },
        );
        assert_close!(found, 5.0, rtol = 1e-6);
    }

    #[test]
    fn what_is_not_finite_comes_out_as_such() {
        assert!(!lipschitz(&[1.0], |_, out| out.fill(f64::NAN)).is_finite());
    }
}
