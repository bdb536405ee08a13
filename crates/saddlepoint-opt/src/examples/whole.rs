//! Products with the features of all examples at once.

use super::Examples;
use crate::simd::vectorized;

/// Rows whose sums stay in the first-level cache while all columns pass.
const BLOCK: usize = 1024;
/// Independent sums of a column; fixed, so that the order of the additions is.
const LANES: usize = 8;

/// Examples, and their features by columns `[features + 1, examples]`, the last of ones for the intercept, where most of them are not 0.
#[derive(Debug, Clone)]
pub struct Whole {
    examples: Examples,
    columns: Option<Vec<f64>>,
}

impl Whole {
    /// Of these examples.
    pub fn new(examples: Examples) -> Self {
        let (n, d) = (examples.len(), examples.features);
        let dense = n > 0 && examples.entries.len() / n >= d.div_ceil(2);
        let columns = dense.then(|| {
            let mut columns = vec![0.0; n * d];
            for i in 0..n {
                examples.row(i).iter().for_each(|&(j, value)| columns[j as usize * n + i] = value);
            }
            columns.resize(n * (d + 1), 1.0);
            columns
        });
        Self { examples, columns }
    }

    /// What they are.
    pub fn examples(&self) -> &Examples {
        &self.examples
    }

    /// `wᵀ z_i + b` of each, with `(w, b)` the first elements of `y`.
    pub fn products(&self, y: &[f64]) -> Vec<f64> {
        let (n, d) = (self.examples.len(), self.examples.features);
        let (w, b) = (&y[..d], y[d]);
        let Some(columns) = &self.columns else {
            return (0..n).map(|i| self.examples.dot(i, w) + b).collect();
        };
        let mut out = vec![b; n];
        vectorized(
            #[inline(always)]
            || products(columns, n, w, &mut out),
        );
        out
    }

    /// `out += Σ_i s_i (z_i, 1)`, to its first elements.
    pub fn add_sum(&self, s: &[f64], out: &mut [f64]) {
        let d = self.examples.features;
        let Some(columns) = &self.columns else {
            // A product with 0 is left out, not only to save time: there are many where few examples count.
            let some = s.iter().enumerate().filter(|(_, s)| **s != 0.0);
            some.for_each(|(i, s)| self.examples.add(i, *s, &mut out[..d]));
            out[d] += s.iter().sum::<f64>();
            return;
        };
        vectorized(
            #[inline(always)]
            || {
                for (column, out) in columns.chunks_exact(s.len()).zip(&mut out[..=d]) {
                    *out += dot(column, s);
                }
            },
        );
    }
}

#[allow(clippy::inline_always, reason = "compiled once for each instruction set, inside the dispatch")]
#[inline(always)]
fn products(columns: &[f64], n: usize, w: &[f64], out: &mut [f64]) {
    for (block, out) in out.chunks_mut(BLOCK).enumerate() {
        for (column, w) in columns.chunks_exact(n).zip(w) {
            for (out, z) in out.iter_mut().zip(&column[block * BLOCK..]) {
                *out += w * z;
            }
        }
    }
}

#[allow(clippy::inline_always, reason = "compiled once for each instruction set, inside the dispatch")]
#[inline(always)]
fn dot(a: &[f64], b: &[f64]) -> f64 {
    let mut lanes = [0.0; LANES];
    let ((a, rest_a), (b, rest_b)) = (a.as_chunks::<LANES>(), b.as_chunks::<LANES>());
    for (a, b) in a.iter().zip(b) {
        for (lane, (a, b)) in lanes.iter_mut().zip(a.iter().zip(b)) {
            *lane += a * b;
        }
    }
    for (lane, (a, b)) in lanes.iter_mut().zip(rest_a.iter().zip(rest_b)) {
        *lane += a * b;
    }
    lanes.iter().sum()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use saddlepoint_core::test::assert_close;

    use super::*;
    use crate::examples::libsvm;

    #[test]
    fn columns_and_rows_give_the_same() {
        let dense: Vec<String> = (0..2100).map(|i| format!("1 1:{} 2:{}\n", i % 7, (i * i) % 11)).collect();
        let sparse: Vec<String> = (0..40).map(|i| format!("1 {}:{}\n", 1 + i % 9, i % 5)).collect();
        for (lines, by_columns) in [(dense, true), (sparse, false)] {
            let whole = Whole::new(libsvm::parse(&lines.concat(), Path::new("a")).expect("reads"));
            assert_eq!(whole.columns.is_some(), by_columns);
            let (n, d) = (whole.examples().len(), whole.examples().features);
            let mut y: Vec<f64> = (0..d).map(|j| 0.5 - j as f64).collect();
            let one_by_one: Vec<f64> = (0..n).map(|i| whole.examples().dot(i, &y) + 0.25).collect();
            y.extend([0.25, 7.0]);
            assert_close!(whole.products(&y), one_by_one, rtol = 1e-14);
            let s: Vec<f64> = (0..n).map(|i| ((i * 5) % 13) as f64 - 6.0).collect();
            let (mut sum, mut sums) = (vec![1.0; d + 2], vec![1.0; d + 2]);
            whole.add_sum(&s, &mut sum);
            (0..n).for_each(|i| whole.examples().add(i, s[i], &mut sums[..d]));
            sums[d] += s.iter().sum::<f64>();
            assert_close!(sum, sums, rtol = 1e-12);
        }
        assert!(Whole::new(Examples::default()).products(&[1.0]).is_empty());
    }
}
