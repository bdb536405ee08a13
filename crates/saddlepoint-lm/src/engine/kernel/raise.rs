//! What an adapter adds to a row: a sum of few rows, each read once.

use saddlepoint_opt::simd::vectorized;

use super::lanes::{COLUMNS, add};

/// `y += sum_i low[i] b[i, :]` with `b [r, out]`, one row of `b` after the other.
pub(crate) fn raise(low: &[f32], b: &[f32], y: &mut [f32]) {
    let out = y.len();
    vectorized(
        #[inline(always)]
        || {
            for (block, y) in y.chunks_mut(COLUMNS).enumerate() {
                let mut sums = [0.0f32; COLUMNS];
                for (&low, row) in low.iter().zip(b.chunks_exact(out)) {
                    add(&mut sums, low, &row[block * COLUMNS..]);
                }
                y.iter_mut().zip(&sums).for_each(|(y, sum)| *y += sum);
            }
        },
    );
}

#[cfg(test)]
mod tests {
    use super::super::filled;
    use super::*;

    #[test]
    fn adds_the_product_for_every_width() {
        for (r, out) in [(1, 1), (3, 63), (16, 64), (8, 200)] {
            let (low, b, start) = (filled(r, 1), filled(r * out, 2), filled(out, 3));
            let mut y = start.clone();
            raise(&low, &b, &mut y);
            for (j, (y, start)) in y.iter().zip(&start).enumerate() {
                let sum: f64 = (0..r).map(|i| f64::from(low[i]) * f64::from(b[i * out + j])).sum();
                assert!(
                    (f64::from(*y) - f64::from(*start) - sum).abs() < 1e-5,
                    "{r} rows, column {j} of {out}"
                );
            }
        }
    }
}
