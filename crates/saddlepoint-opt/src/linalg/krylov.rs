//! Iterative solution of symmetric systems by products alone.

use super::vector::{add_scaled, dot, norm, scale};

/// How an iteration ended.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Solved {
    /// Products with the matrix.
    pub products: u64,
    /// `|A x − b|`.
    pub residual: f64,
}

/// MINRES (Paige & Saunders 1975) for a symmetric, possibly indefinite matrix: improves `x` until `|A x − b| <= tolerance`, with at
/// most `most` products. `product(v, out)` overwrites `out` with `A v`.
pub fn minres(
    mut product: impl FnMut(&[f64], &mut [f64]),
    b: &[f64],
    x: &mut [f64],
    tolerance: f64,
    most: u64,
) -> Solved {
    let n = b.len();
    let (mut products, mut residual) = (0, f64::INFINITY);
    // Restarted from its own end, since the recurrences lose what rounding takes.
    while products < most {
        let mut r = residual_of(&mut product, b, x);
        products += 1;
        let beta1 = norm(&r);
        if beta1 <= tolerance || beta1 == 0.0 || !beta1.is_finite() || beta1 >= 0.99 * residual {
            return Solved { products, residual: beta1 };
        }
        residual = beta1;
        scale(&mut r, 1.0 / beta1);
        let (mut v_old, mut v) = (vec![0.0; n], r);
        let (mut w, mut w_old) = (vec![0.0; n], vec![0.0; n]);
        let (mut beta, mut eta) = (0.0, beta1);
        let (mut c, mut c_old, mut s, mut s_old) = (1.0, 1.0, 0.0, 0.0);
        for _ in 0..(5 * n).max(20) {
            if products >= most {
                break;
            }
            let mut next = vec![0.0; n];
            product(&v, &mut next);
            products += 1;
            let alpha = dot(&v, &next);
            add_scaled(&mut next, -alpha, &v);
            add_scaled(&mut next, -beta, &v_old);
            let beta_next = norm(&next);
            // The new column of the tridiagonal matrix, rotated by the last two rotations.
            let delta = c * alpha - c_old * s * beta;
            let rho = delta.hypot(beta_next);
            let rho2 = s * alpha + c_old * c * beta;
            let rho3 = s_old * beta;
            (c_old, s_old) = (c, s);
            if rho == 0.0 {
                break;
            }
            (c, s) = (delta / rho, beta_next / rho);
            let mut w_next = v.clone();
            add_scaled(&mut w_next, -rho3, &w_old);
            add_scaled(&mut w_next, -rho2, &w);
            scale(&mut w_next, 1.0 / rho);
            (w_old, w) = (w, w_next);
            add_scaled(x, c * eta, &w);
            eta *= -s;
            if eta.abs() <= 0.5 * tolerance || beta_next <= f64::EPSILON * beta1 {
                break;
            }
            scale(&mut next, 1.0 / beta_next);
            (v_old, v, beta) = (v, next, beta_next);
        }
    }
    Solved { products, residual: norm(&residual_of(&mut product, b, x)) }
}

/// GMRES restarted after `restart` products (Saad & Schultz 1986); otherwise as [`minres`]. The matrix need not be symmetric.
pub fn gmres(
    mut product: impl FnMut(&[f64], &mut [f64]),
    b: &[f64],
    x: &mut [f64],
    restart: usize,
    tolerance: f64,
    most: u64,
) -> Solved {
    let n = b.len();
    let mut products = 0;
    loop {
        let mut r = residual_of(&mut product, b, x);
        products += 1;
        let beta = norm(&r);
        if beta <= tolerance || beta == 0.0 || !beta.is_finite() || products >= most {
            return Solved { products, residual: beta };
        }
        scale(&mut r, 1.0 / beta);
        let mut basis = vec![r];
        // Columns of the triangular factor, the rotations that made it, and the rotated right-hand side.
        let (mut columns, mut rotations): (Vec<Vec<f64>>, Vec<(f64, f64)>) = (Vec::new(), Vec::new());
        let mut g = vec![beta];
        for k in 0..restart.min(n).max(1) {
            let mut next = vec![0.0; n];
            product(&basis[k], &mut next);
            products += 1;
            let mut column: Vec<f64> = Vec::with_capacity(k + 2);
            for v in &basis {
                let along = dot(v, &next);
                add_scaled(&mut next, -along, v);
                column.push(along);
            }
            let size = norm(&next);
            for (i, &(c, s)) in rotations.iter().enumerate() {
                (column[i], column[i + 1]) =
                    (c * column[i] + s * column[i + 1], c * column[i + 1] - s * column[i]);
            }
            let rho = column[k].hypot(size);
            if rho == 0.0 || !rho.is_finite() {
                break;
            }
            let (c, s) = (column[k] / rho, size / rho);
            column[k] = rho;
            rotations.push((c, s));
            g.push(-s * g[k]);
            g[k] *= c;
            columns.push(column);
            if g[k + 1].abs() <= tolerance || size <= f64::EPSILON * rho {
                break;
            }
            scale(&mut next, 1.0 / size);
            basis.push(next);
        }
        if columns.is_empty() {
            return Solved { products, residual: beta };
        }
        let mut y = vec![0.0; columns.len()];
        for i in (0..columns.len()).rev() {
            let known: f64 = (i + 1..columns.len()).map(|j| columns[j][i] * y[j]).sum();
            y[i] = (g[i] - known) / columns[i][i];
        }
        y.iter().zip(&basis).for_each(|(y, v)| add_scaled(x, *y, v));
    }
}

fn residual_of(product: &mut impl FnMut(&[f64], &mut [f64]), b: &[f64], x: &[f64]) -> Vec<f64> {
    let mut r = vec![0.0; b.len()];
    product(x, &mut r);
    r.iter_mut().zip(b).for_each(|(r, b)| *r = b - *r);
    r
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use saddlepoint_core::test::assert_close;

    use super::*;
    use crate::linalg::eigenvalues;

    fn dense(a: &[f64]) -> impl FnMut(&[f64], &mut [f64]) {
        |v, out| {
            out.iter_mut().enumerate().for_each(|(i, out)| *out = dot(&a[i * v.len()..(i + 1) * v.len()], v));
        }
    }

    #[test]
    fn an_indefinite_system_is_solved() {
        let a = [2.0, 0.0, 1.0, 0.0, 3.0, 1.0, 1.0, 1.0, 0.0];
        for method in 0..2 {
            let mut x = [5.0, 0.0, -1.0];
            let solved = match method {
                0 => minres(dense(&a), &[1.0, 2.0, 3.0], &mut x, 1e-12, 100),
                _ => gmres(dense(&a), &[1.0, 2.0, 3.0], &mut x, 3, 1e-12, 100),
            };
            assert!(solved.residual <= 1e-12, "{method}: {solved:?}");
            assert_close!(x, [1.6, 1.4, -2.2], atol = 1e-11);
        }
    }

    proptest! {
        #[test]
        fn the_residual_is_what_is_told(elements in prop::collection::vec(-1.0..1.0f64, 36), b in prop::collection::vec(-1.0..1.0f64, 6)) {
            let a: Vec<f64> = (0..36).map(|k| elements[k] + elements[(k % 6) * 6 + k / 6]).collect();
            let values = eigenvalues(&a, 6).expect("finite");
            prop_assume!(values.iter().all(|v| v.abs() > 0.05));
            for method in 0..2 {
                let mut x = vec![0.0; 6];
                let solved = match method {
                    0 => minres(dense(&a), &b, &mut x, 1e-9, 1000),
                    _ => gmres(dense(&a), &b, &mut x, 6, 1e-9, 1000),
                };
                let residual = norm(&residual_of(&mut dense(&a), &b, &x));
                prop_assert!((residual - solved.residual).abs() <= 1e-12, "{method}: {residual} {solved:?}");
                prop_assert!(solved.residual <= 1e-9, "{method}: {solved:?}");
            }
        }
    }
}
