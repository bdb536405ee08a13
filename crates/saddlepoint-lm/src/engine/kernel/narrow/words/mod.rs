//! Weights of 32 or 16 bits, read as words of 32 bits (one `f32` or two bf16) and widened in registers.

#[cfg(target_arch = "x86_64")]
mod tiles;

use std::ops::Range;

use bytemuck::{NoUninit, try_cast_slice};
use half::bf16;
use pulp::{Arch, Simd, WithSimd};
use saddlepoint_opt::simd::vectorized;

use super::{AHEAD, groups};
use crate::engine::kernel::lanes::prefetch_second;

/// Weight rows of one tile.
const ROWS: usize = 2;
/// Rows of a piece of a product are a multiple of this.
pub(super) const PIECE: usize = 32;
/// Columns that are multiplied before the next ones: eight rows of inputs then stay in the first cache.
const DEPTH: usize = 768;

/// A weight of which `PARTS` fill a word.
pub(super) trait Weight: NoUninit + Into<f32> + Sync {
    const PARTS: usize;
}

impl Weight for f32 {
    const PARTS: usize = 1;
}

impl Weight for bf16 {
    const PARTS: usize = 2;
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

/// The rows of `x`, arranged as the tiles read them beside `P` weights a word.
pub(super) struct Inputs<'a, const P: usize> {
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

impl<'a, const P: usize> Inputs<'a, P> {
    pub(super) fn new(x: &'a [f32], k: usize) -> Self {
        let lanes = Arch::new().dispatch(Lanes);
        // Sixteen accumulators leave AVX-512 its other registers for what they take in, eight do so for AVX2.
        let widest = if lanes == 16 { 8 } else { 4 };
        let groups = groups(x.len() / k, widest).map(|(first, rows)| {
            let mut packed = vec![0.0; k / P / lanes * P * rows * lanes];
            vectorized(
                #[inline(always)]
                || pack::<P>(&x[first * k..], k, rows, lanes, &mut packed),
            );
            Group { first, rows, packed }
        });
        Self { x, k, groups: groups.collect() }
    }
}

/// So many rows of `x` as `[vectors of words, parts of a word, rows, lanes]`.
#[inline(always)]
fn pack<const P: usize>(x: &[f32], k: usize, rows: usize, lanes: usize, packed: &mut [f32]) {
    for (vector, packed) in packed.chunks_exact_mut(P * rows * lanes).enumerate() {
        for (row, x) in x.chunks_exact(k).take(rows).enumerate() {
            let x = &x[vector * lanes * P..][..lanes * P];
            for part in 0..P {
                let packed = &mut packed[(part * rows + row) * lanes..][..lanes];
                for (o, word) in packed.iter_mut().zip(x.as_chunks::<P>().0) {
                    *o = word[part];
                }
            }
        }
    }
}

/// The rows of `x` beside weights of bf16: for Intel's matrix unit where it is there and takes them, and for vectors.
pub(super) struct Halves<'a> {
    #[cfg(target_arch = "x86_64")]
    tiles: Option<tiles::Inputs>,
    vectors: Inputs<'a, 2>,
}

impl<'a> Halves<'a> {
    /// For weights of `n` rows.
    pub(super) fn new(x: &'a [f32], k: usize, n: usize) -> Self {
        #[cfg(target_arch = "x86_64")]
        {
            let tiles = tiles::Inputs::new(x, k);
            let all = tiles.is_some() && n.is_multiple_of(tiles::ROWS);
            Self { tiles, vectors: Inputs::new(if all { &[] } else { x }, k) }
        }
        #[cfg(not(target_arch = "x86_64"))]
        {
            let _ = n;
            Self { vectors: Inputs::new(x, k) }
        }
    }

    /// As [`product`]; the rows of a piece are a multiple of [`PIECE`], but for the last. The matrix unit asks the memory for the beginning
    /// of `then` at the end, and leaves rows that fill no tiles to the vectors.
    pub(super) fn product(&self, w: &[bf16], then: &[bf16], out: &mut [&mut [f32]], accumulate: bool) {
        let _ = then;
        #[cfg(target_arch = "x86_64")]
        if let Some(inputs) = &self.tiles {
            let done = tiles::product(w, then, inputs, out, accumulate);
            let mut rest: Vec<_> = out.iter_mut().map(|out| &mut out[done..]).collect();
            return product(&w[done * self.vectors.k..], &self.vectors, &mut rest, accumulate);
        }
        product(w, &self.vectors, out, accumulate);
    }
}

/// Some rows of weights against all inputs; `out` has the part of each input's row that belongs to them.
pub(super) fn product<W: Weight, const P: usize>(
    w: &[W],
    inputs: &Inputs<'_, P>,
    out: &mut [&mut [f32]],
    accumulate: bool,
) {
    assert_eq!(W::PARTS, P, "the inputs are arranged for these weights");
    let whole = (inputs.k * size_of::<W>()).is_multiple_of(size_of::<u32>());
    let words = if whole { try_cast_slice(w).unwrap_or_default() } else { &[] };
    Arch::new().dispatch(Task { w, words, inputs, out, accumulate });
}

/// A piece of a product.
struct Task<'a, 'b, W, const P: usize> {
    w: &'a [W],
    /// The same; nothing where a row does not fill whole words.
    words: &'a [u32],
    inputs: &'a Inputs<'a, P>,
    out: &'a mut [&'b mut [f32]],
    accumulate: bool,
}

impl<W: Weight, const P: usize> WithSimd for Task<'_, '_, W, P> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(mut self, simd: S) {
        let rows = self.out[0].len();
        let whole = rows / ROWS * ROWS;
        let vectors = if self.words.is_empty() { 0 } else { self.inputs.k / P / S::F32_LANES };
        let step = vectors.div_ceil((vectors * P * S::F32_LANES).div_ceil(DEPTH).max(1)).max(1);
        for group in &self.inputs.groups {
            for from in (0..vectors.max(1)).step_by(step) {
                let part = from..vectors.min(from + step);
                for row in (0..whole).step_by(ROWS) {
                    self.tiles::<S, ROWS>(simd, row, group, part.clone());
                }
                for row in whole..rows {
                    self.tiles::<S, 1>(simd, row, group, part.clone());
                }
            }
        }
    }
}

impl<W: Weight, const P: usize> Task<'_, '_, W, P> {
    #[inline(always)]
    fn tiles<S: Simd, const R: usize>(&mut self, simd: S, row: usize, group: &Group, part: Range<usize>) {
        match group.rows {
            8 => self.tile::<S, R, 8>(simd, row, group, part),
            4 => self.tile::<S, R, 4>(simd, row, group, part),
            2 => self.tile::<S, R, 2>(simd, row, group, part),
            _ => self.tile::<S, R, 1>(simd, row, group, part),
        }
    }

    /// A part of `R` weight rows against that of the `M` input rows of a group. Each of the `R M` sums has its own
    /// accumulator and the same order whatever `R` and `M` are. The last part takes what fills no vector.
    #[inline(always)]
    fn tile<S: Simd, const R: usize, const M: usize>(
        &mut self,
        simd: S,
        row: usize,
        group: &Group,
        part: Range<usize>,
    ) {
        let k = self.inputs.k;
        let (inputs, _) = S::as_simd_f32s(&group.packed);
        let row_bytes = k * size_of::<W>();
        let ahead = AHEAD.div_ceil(part.len().max(1) * size_of::<S::u32s>()) * row_bytes;
        let mut words: [&[S::u32s]; R] = [&[]; R];
        for (i, words) in words.iter_mut().enumerate() {
            if !part.is_empty() {
                let row = &self.words[(row + i) * (k / P)..(row + i + 1) * (k / P)];
                *words = &S::as_simd_u32s(row).0[part.clone()];
            }
        }
        let mut sums = [[simd.splat_f32s(0.0); M]; R];
        let inputs = &inputs[part.start * P * M..part.end * P * M];
        for (v, inputs) in inputs.chunks_exact(P * M).enumerate() {
            for words in &words {
                prefetch_second(words.as_ptr().wrapping_add(v).wrapping_byte_add(ahead));
            }
            for j in 0..P {
                let mut wide = [simd.splat_f32s(0.0); R];
                for i in 0..R {
                    wide[i] = number::<S, P>(simd, words[i][v], j);
                }
                for m in 0..M {
                    let x = inputs[j * M + m];
                    for i in 0..R {
                        sums[i][m] = simd.mul_add_e_f32s(wide[i], x, sums[i][m]);
                    }
                }
            }
        }
        let done = part.end * P * S::F32_LANES;
        let rest = if k - done < P * S::F32_LANES || part.is_empty() { done..k } else { 0..0 };
        for i in 0..R {
            for m in 0..M {
                let mut sum = simd.reduce_sum_f32s(sums[i][m]);
                for l in rest.clone() {
                    sum += self.w[(row + i) * k + l].into() * self.inputs.x[(group.first + m) * k + l];
                }
                let out = &mut self.out[group.first + m][row + i];
                *out = if self.accumulate || part.start > 0 { *out + sum } else { sum };
            }
        }
    }
}

/// Part `j` of words that hold `P` weights each, as numbers.
#[inline(always)]
fn number<S: Simd, const P: usize>(simd: S, words: S::u32s, j: usize) -> S::f32s {
    match (P, j) {
        (1, _) => simd.transmute_f32s_u32s(words),
        (2, 0) => simd.transmute_f32s_u32s(simd.wrapping_dyn_shl_u32s(words, simd.splat_u32s(16))),
        _ => simd.transmute_f32s_u32s(simd.and_u32s(words, simd.splat_u32s(0xffff_0000))),
    }
}
