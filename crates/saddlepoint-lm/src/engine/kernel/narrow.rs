//! Products with few rows, as decoding makes them: bound by reading the weights once.
//!
//! Weights keep the `[out, in]` layout of the files and are read as words of 32 bits: one `f32`, two bf16 or
//! four 8-bit weights, widened in registers. Every output is summed in the same order however many rows
//! there are.

use bytemuck::{NoUninit, cast_slice, try_cast_slice};
use half::bf16;
use pulp::{Arch, Simd, WithSimd};
use rayon::prelude::*;

use super::lanes::prefetch;

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

/// Weight rows of one tile.
const ROWS: usize = 2;
/// Bytes between what a tile reads and what it asks the memory for.
const AHEAD: usize = 4608;
/// Weight rows of one task.
const TASK: usize = 32 * ROWS;

/// `out[m, n] = sum_k w[n, k] x[m, k]`, added to `out` with `accumulate`.
pub(crate) fn narrow(w: NarrowWeights<'_>, x: &[f32], m: usize, out: &mut [f32], accumulate: bool) {
    if m == 0 || out.is_empty() {
        return;
    }
    let (n, k) = (out.len() / m, x.len() / m);
    let arch = Arch::new();
    let lanes = arch.dispatch(Lanes);
    let inputs = match w {
        NarrowWeights::F32(_) => Inputs::new::<1>(x, k, lanes),
        NarrowWeights::Bf16(_) => Inputs::new::<2>(x, k, lanes),
        NarrowWeights::Int8 { .. } => Inputs::new::<4>(x, k, lanes),
    };
    let inputs = &inputs;
    // Task-major: the part of every output row that one task writes.
    let mut rows: Vec<_> = out.chunks_exact_mut(n).map(|row| row.chunks_mut(TASK)).collect();
    let mut parts: Vec<&mut [f32]> = Vec::with_capacity(m * n.div_ceil(TASK));
    for _ in 0..n.div_ceil(TASK) {
        parts.extend(rows.iter_mut().filter_map(Iterator::next));
    }
    parts.par_chunks_mut(m).enumerate().for_each(|(task, out)| {
        let first = task * TASK;
        let own = first * k..(first + out[0].len()) * k;
        match w {
            NarrowWeights::F32(w) => {
                let (words, tail) = (&w[own.clone()], |i: usize| w[own.start + i]);
                arch.dispatch(Task::<1, _> { words: cast_slice(words), tail, inputs, out, accumulate });
            }
            NarrowWeights::Bf16(w) => {
                let (words, tail) = (words(&w[own.clone()], k), |i: usize| w[own.start + i].to_f32());
                arch.dispatch(Task::<2, _> { words, tail, inputs, out, accumulate });
            }
            NarrowWeights::Int8 { values, scales } => {
                let (words, tail) =
                    (words(&values[own.clone()], k), |i: usize| f32::from(values[own.start + i]));
                let mut sums = vec![0.0; out.len() * out[0].len()];
                let mut sums: Vec<&mut [f32]> = sums.chunks_exact_mut(out[0].len()).collect();
                let task = Task::<4, _> { words, tail, inputs, out: &mut sums, accumulate: false };
                arch.dispatch(task);
                for (out, sums) in out.iter_mut().zip(&sums) {
                    for ((o, &sum), &scale) in out.iter_mut().zip(sums.iter()).zip(&scales[first..]) {
                        *o = if accumulate { *o + sum * scale } else { sum * scale };
                    }
                }
            }
        }
    });
}

/// Weights as words of four bytes; nothing where rows of `k` do not fill whole words.
fn words<T: NoUninit>(w: &[T], k: usize) -> &[u32] {
    if (k * size_of::<T>()).is_multiple_of(size_of::<u32>()) {
        try_cast_slice(w).unwrap_or_default()
    } else {
        &[]
    }
}

/// Number of `f32` in a vector.
struct Lanes;

impl WithSimd for Lanes {
    type Output = usize;

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) -> usize {
        S::F32_LANES
    }
}

/// The rows of `x`, arranged as the tiles read them.
struct Inputs<'a> {
    x: &'a [f32],
    k: usize,
    groups: Vec<Group>,
}

/// One to eight rows: `[vectors of words, parts of a word, rows, lanes]`.
struct Group {
    first: usize,
    rows: usize,
    packed: Vec<f32>,
}

impl<'a> Inputs<'a> {
    fn new<const P: usize>(x: &'a [f32], k: usize, lanes: usize) -> Self {
        let m = x.len() / k;
        // Sixteen accumulators leave AVX-512 its other registers for what they take in, eight do so for AVX2.
        let widest = if lanes == 16 { 8 } else { 4 };
        let (mut groups, mut first) = (Vec::new(), 0);
        while first < m {
            let rows = match (m - first).min(widest) {
                8 => 8,
                4.. => 4,
                2.. => 2,
                _ => 1,
            };
            let vectors = k / P / lanes;
            let mut packed = vec![0.0; vectors * P * rows * lanes];
            for (vector, packed) in packed.chunks_exact_mut(P * rows * lanes).enumerate() {
                for (row, x) in x[first * k..].chunks_exact(k).take(rows).enumerate() {
                    let words = x[vector * lanes * P..][..lanes * P].chunks_exact(P);
                    for (lane, word) in words.enumerate() {
                        for (part, &v) in word.iter().enumerate() {
                            packed[(part * rows + row) * lanes + lane] = v;
                        }
                    }
                }
            }
            groups.push(Group { first, rows, packed });
            first += rows;
        }
        Self { x, k, groups }
    }
}

/// A block of weight rows, `P` of them in a word, against all rows of `x`.
struct Task<'a, 'b, const P: usize, F> {
    words: &'a [u32],
    /// A weight of the block as a number.
    tail: F,
    inputs: &'a Inputs<'a>,
    out: &'a mut [&'b mut [f32]],
    accumulate: bool,
}

impl<const P: usize, F: Fn(usize) -> f32> WithSimd for Task<'_, '_, P, F> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(mut self, simd: S) {
        let rows = self.out[0].len();
        let whole = rows / ROWS * ROWS;
        for group in &self.inputs.groups {
            for row in (0..whole).step_by(ROWS) {
                match group.rows {
                    8 => self.tile::<S, ROWS, 8>(simd, row, group),
                    4 => self.tile::<S, ROWS, 4>(simd, row, group),
                    2 => self.tile::<S, ROWS, 2>(simd, row, group),
                    _ => self.tile::<S, ROWS, 1>(simd, row, group),
                }
            }
            for row in whole..rows {
                match group.rows {
                    8 => self.tile::<S, 1, 8>(simd, row, group),
                    4 => self.tile::<S, 1, 4>(simd, row, group),
                    2 => self.tile::<S, 1, 2>(simd, row, group),
                    _ => self.tile::<S, 1, 1>(simd, row, group),
                }
            }
        }
    }
}

impl<const P: usize, F: Fn(usize) -> f32> Task<'_, '_, P, F> {
    /// `R` weight rows against the `M` input rows of a group. Each of the `R M` sums has its own accumulator
    /// and the same order whatever `R` and `M` are.
    #[inline(always)]
    fn tile<S: Simd, const R: usize, const M: usize>(&mut self, simd: S, row: usize, group: &Group) {
        let k = self.inputs.k;
        let (inputs, _) = S::as_simd_f32s(&group.packed);
        let n = if self.words.is_empty() { 0 } else { inputs.len() / (P * M) };
        let q = k / P;
        let mut words: [&[S::u32s]; R] = [&[]; R];
        for (i, words) in words.iter_mut().enumerate() {
            if n > 0 {
                *words = &S::as_simd_u32s(&self.words[(row + i) * q..(row + i + 1) * q]).0[..n];
            }
        }
        let mut sums = [[simd.splat_f32s(0.0); M]; R];
        for (v, inputs) in inputs.chunks_exact(P * M).take(n).enumerate() {
            for words in &words {
                prefetch(words.as_ptr().wrapping_add(v).wrapping_byte_add(AHEAD));
            }
            for j in 0..P {
                let mut wide = [simd.splat_f32s(0.0); R];
                for i in 0..R {
                    wide[i] = part::<S, P>(simd, words[i][v], j);
                }
                for m in 0..M {
                    let x = inputs[j * M + m];
                    for i in 0..R {
                        sums[i][m] = simd.mul_add_e_f32s(wide[i], x, sums[i][m]);
                    }
                }
            }
        }
        let done = n * S::F32_LANES * P;
        for i in 0..R {
            for m in 0..M {
                let mut sum = simd.reduce_sum_f32s(sums[i][m]);
                for l in done..k {
                    sum += (self.tail)((row + i) * k + l) * self.inputs.x[(group.first + m) * k + l];
                }
                let out = &mut self.out[group.first + m][row + i];
                *out = if self.accumulate { *out + sum } else { sum };
            }
        }
    }
}

/// Part `j` of words that hold `P` weights each, as numbers.
#[inline(always)]
fn part<S: Simd, const P: usize>(simd: S, words: S::u32s, j: usize) -> S::f32s {
    match (P, j) {
        (1, _) => simd.transmute_f32s_u32s(words),
        (2, 0) => simd.transmute_f32s_u32s(simd.wrapping_dyn_shl_u32s(words, simd.splat_u32s(16))),
        (2, _) => simd.transmute_f32s_u32s(simd.and_u32s(words, simd.splat_u32s(0xffff_0000))),
        _ => {
            // The byte q + 128 in the mantissa of 2^23 is the number 2^23 + 128 + q.
            let shifted = simd.wrapping_dyn_shr_u32s(words, simd.splat_u32s(8 * j as u32));
            let byte = simd.and_u32s(shifted, simd.splat_u32s(0xff));
            let bits = simd.xor_u32s(byte, simd.splat_u32s(0x4b00_0080));
            simd.sub_f32s(simd.transmute_f32s_u32s(bits), simd.splat_f32s(8_388_736.0))
        }
    }
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
        for (n, k) in [(7, 5), (64, 33), (64, 34), (197, 576)] {
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
                narrow(kind, &all[..k], 1, &mut single, false);
                for m in [1, 3, 4, 8, 9] {
                    let mut out = vec![1.0; n * m];
                    narrow(kind, &all[..m * k], m, &mut out, false);
                    let once = out.clone();
                    narrow(kind, &all[..m * k], m, &mut out, true);
                    for i in 0..n {
                        for j in 0..m {
                            let want: f64 =
                                (0..k).map(|l| f64::from(exact[i * k + l]) * f64::from(all[j * k + l])).sum();
                            let got = once[j * n + i];
                            assert!((f64::from(got) - want).abs() < 1e-4, "{n}x{k}, {m} rows at {i},{j}");
                            assert_eq!(out[j * n + i].to_bits(), (got + got).to_bits(), "added");
                        }
                        assert_eq!(once[i].to_bits(), single[i].to_bits(), "row 0 of {m}");
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
