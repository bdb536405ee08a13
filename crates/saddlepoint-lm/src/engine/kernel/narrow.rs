//! Products with few rows, as decoding makes them: bound by reading the weights once.
//!
//! Weights keep the `[out, in]` layout of the files. Four weight rows meet four input rows at a time in
//! sixteen vector accumulators; narrow types are widened into a cache-resident buffer first, so one inner
//! kernel serves all. Every output is summed in the same order however many rows there are.

use bytemuck::cast_slice;
use half::bf16;
use pulp::{Arch, Simd, WithSimd};
use rayon::prelude::*;

/// Eight-bit weights with one scale a row: `w[n, k] = scale[n] values[n, k]`.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Quantized {
    /// `[out, in]`.
    pub values: Vec<i8>,
    /// `[out]`.
    pub scales: Vec<f32>,
}

impl Quantized {
    /// Rounds each row to the nearest of 255 levels, the largest magnitude at 127.
    pub fn new(w: &[f32], columns: usize) -> Self {
        let rows = w.len() / columns;
        let mut out = Self { values: vec![0; w.len()], scales: vec![0.0; rows] };
        (w.par_chunks_exact(columns), out.values.par_chunks_exact_mut(columns), &mut out.scales)
            .into_par_iter()
            .for_each(|(row, values, scale)| {
                let top = row.iter().fold(0.0f32, |a, v| a.max(v.abs()));
                *scale = top / 127.0;
                let inverse = if top > 0.0 { 127.0 / top } else { 0.0 };
                for (q, &v) in values.iter_mut().zip(row) {
                    *q = (v * inverse).round() as i8;
                }
            });
        out
    }
}

/// A weight matrix `[out, in]` in one of the types that decoding reads.
#[derive(Debug, Clone, Copy)]
pub enum NarrowWeights<'a> {
    /// Full precision.
    F32(&'a [f32]),
    /// The upper half of each `f32`.
    Bf16(&'a [bf16]),
    /// Eight bits and a scale a row.
    Int8 {
        /// `[out, in]`.
        values: &'a [i8],
        /// `[out]`.
        scales: &'a [f32],
    },
}

/// Weight rows and input rows of one tile.
const TILE: usize = 4;
/// Weight rows of one task.
const TASK: usize = 64;

pub(crate) fn narrow(w: NarrowWeights<'_>, x: &[f32], m: usize, out: &mut [f32]) {
    if m == 0 || out.is_empty() {
        return;
    }
    let k = x.len() / m;
    let arch = Arch::new();
    out.par_chunks_mut(TASK * m).enumerate().for_each_init(
        || vec![0.0f32; if matches!(w, NarrowWeights::F32(_)) { 0 } else { TILE * k }],
        |wide, (task, out)| arch.dispatch(Rows { w, x, m, k, first: task * TASK, wide, out }),
    );
}

struct Rows<'a> {
    w: NarrowWeights<'a>,
    x: &'a [f32],
    m: usize,
    k: usize,
    first: usize,
    wide: &'a mut [f32],
    out: &'a mut [f32],
}

impl WithSimd for Rows<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Rows { w, x, m, k, first, wide, out } = self;
        for (tile, out) in out.chunks_mut(TILE * m).enumerate() {
            let row = first + tile * TILE;
            let rows = out.len() / m;
            let own = row * k..(row + rows) * k;
            let weights = match w {
                NarrowWeights::F32(w) => &w[own],
                NarrowWeights::Bf16(w) => {
                    let bits: &[u16] = cast_slice(&w[own]);
                    for (o, &b) in wide.iter_mut().zip(bits) {
                        *o = f32::from_bits(u32::from(b) << 16);
                    }
                    &wide[..rows * k]
                }
                NarrowWeights::Int8 { values, .. } => {
                    for (o, &q) in wide.iter_mut().zip(&values[own]) {
                        *o = f32::from(q);
                    }
                    &wide[..rows * k]
                }
            };
            for start in (0..m).step_by(TILE) {
                let inputs = (m - start).min(TILE);
                let mut sums = [[0.0f32; TILE]; TILE];
                if rows == TILE && inputs == TILE {
                    tile_full(simd, weights, &x[start * k..], k, &mut sums);
                } else {
                    for i in 0..rows {
                        for j in 0..inputs {
                            sums[i][j] = one(
                                simd,
                                &weights[i * k..(i + 1) * k],
                                &x[(start + j) * k..(start + j + 1) * k],
                            );
                        }
                    }
                }
                for i in 0..rows {
                    let scale = match w {
                        NarrowWeights::Int8 { scales, .. } => scales[row + i],
                        _ => 1.0,
                    };
                    for j in 0..inputs {
                        out[i * m + start + j] = sums[i][j] * scale;
                    }
                }
            }
        }
    }
}

/// Sixteen inner products over the same `k`, each summed as [`one`] does.
#[inline(always)]
fn tile_full<S: Simd>(simd: S, w: &[f32], x: &[f32], k: usize, sums: &mut [[f32; TILE]; TILE]) {
    let (w0, t0) = S::as_simd_f32s(&w[..k]);
    let (w1, t1) = S::as_simd_f32s(&w[k..2 * k]);
    let (w2, t2) = S::as_simd_f32s(&w[2 * k..3 * k]);
    let (w3, t3) = S::as_simd_f32s(&w[3 * k..4 * k]);
    let (x0, y0) = S::as_simd_f32s(&x[..k]);
    let (x1, y1) = S::as_simd_f32s(&x[k..2 * k]);
    let (x2, y2) = S::as_simd_f32s(&x[2 * k..3 * k]);
    let (x3, y3) = S::as_simd_f32s(&x[3 * k..4 * k]);
    let n = w0.len();
    let (w1, w2, w3) = (&w1[..n], &w2[..n], &w3[..n]);
    let (x0, x1, x2, x3) = (&x0[..n], &x1[..n], &x2[..n], &x3[..n]);
    let mut acc = [[simd.splat_f32s(0.0); TILE]; TILE];
    for v in 0..n {
        let inputs = [x0[v], x1[v], x2[v], x3[v]];
        let weights = [w0[v], w1[v], w2[v], w3[v]];
        for i in 0..TILE {
            for j in 0..TILE {
                acc[i][j] = simd.mul_add_e_f32s(weights[i], inputs[j], acc[i][j]);
            }
        }
    }
    let (wt, yt) = ([t0, t1, t2, t3], [y0, y1, y2, y3]);
    for i in 0..TILE {
        for j in 0..TILE {
            sums[i][j] = simd.reduce_sum_f32s(acc[i][j]) + tail(wt[i], yt[j]);
        }
    }
}

#[inline(always)]
fn one<S: Simd>(simd: S, w: &[f32], x: &[f32]) -> f32 {
    let (wv, wt) = S::as_simd_f32s(w);
    let (xv, xt) = S::as_simd_f32s(x);
    let mut acc = simd.splat_f32s(0.0);
    for (&a, &b) in wv.iter().zip(xv) {
        acc = simd.mul_add_e_f32s(a, b, acc);
    }
    simd.reduce_sum_f32s(acc) + tail(wt, xt)
}

#[inline(always)]
fn tail(w: &[f32], x: &[f32]) -> f32 {
    w.iter().zip(x).fold(0.0, |sum, (&a, &b)| sum + a * b)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(n: usize, seed: u32) -> Vec<f32> {
        let mut state = seed;
        (0..n)
            .map(|_| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (state >> 8) as f32 / 8_388_608.0 - 1.0
            })
            .collect()
    }

    #[test]
    fn every_type_agrees_with_its_widened_weights_and_rows_do_not_depend_on_the_batch() {
        for (n, k) in [(7, 5), (64, 33), (130, 576)] {
            let w = filled(n * k, 1);
            let half: Vec<bf16> = w.iter().map(|&v| bf16::from_f32(v)).collect();
            let eight = Quantized::new(&w, k);
            let all = filled(9 * k, 2);
            let kinds: [(NarrowWeights<'_>, Vec<f32>); 3] = [
                (NarrowWeights::F32(&w), w.clone()),
                (NarrowWeights::Bf16(&half), half.iter().map(|v| v.to_f32()).collect()),
                (
                    NarrowWeights::Int8 { values: &eight.values, scales: &eight.scales },
                    eight
                        .values
                        .iter()
                        .enumerate()
                        .map(|(i, &q)| f32::from(q) * eight.scales[i / k])
                        .collect(),
                ),
            ];
            for (kind, exact) in kinds {
                let mut single = vec![0.0; n];
                narrow(kind, &all[..k], 1, &mut single);
                for m in [1, 3, 4, 8, 9] {
                    let mut out = vec![0.0; n * m];
                    narrow(kind, &all[..m * k], m, &mut out);
                    for i in 0..n {
                        for j in 0..m {
                            let want: f64 =
                                (0..k).map(|l| f64::from(exact[i * k + l]) * f64::from(all[j * k + l])).sum();
                            assert!(
                                (f64::from(out[i * m + j]) - want).abs() < 1e-4,
                                "{n}x{k}, {m} rows at {i},{j}"
                            );
                        }
                        assert_eq!(out[i * m].to_bits(), single[i].to_bits(), "row 0 of {m}");
                    }
                }
            }
        }
    }

    #[test]
    fn quantisation_errs_by_half_a_level_at_most() {
        let w = filled(40 * 64, 7);
        let q = Quantized::new(&w, 64);
        for (i, &v) in w.iter().enumerate() {
            let scale = q.scales[i / 64];
            assert!((f32::from(q.values[i]) * scale - v).abs() <= 0.5001 * scale);
        }
    }
}
