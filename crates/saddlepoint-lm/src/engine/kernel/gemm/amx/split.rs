//! Operands as sums of bf16, in the order in which tiles read them.
//!
//! A *line* is a row of the left operand or a column of the right one. A tile has 16 rows of 16 pairs of bf16: of the left operand
//! a row of the tile is a line, of the right one it is a pair of steps of the depth. Which steps make a pair is free, as long as
//! both operands agree:
//! ```text
//! left    row i, pair p     x(i, p), x(i, p + 16)
//! right   row p, pair j     x(j, p), x(j, p + 16)
//! ```
//! So either is made of two squares of 16 x 16 numbers, those of the first and of the second half of the depth, row by row. A square
//! whose rows in memory are the other ones is transposed before.

use std::arch::x86_64::{
    __m512, __m512i, _mm256_maskz_loadu_epi16, _mm512_and_si512, _mm512_castpd_ps, _mm512_castps_pd,
    _mm512_castsi512_ps, _mm512_cvtepu16_epi32, _mm512_cvtne2ps_pbh, _mm512_maskz_loadu_ps,
    _mm512_permutexvar_epi16, _mm512_set1_epi32, _mm512_setr_epi32, _mm512_setzero_ps, _mm512_setzero_si512,
    _mm512_shuffle_f32x4, _mm512_slli_epi32, _mm512_storeu_si512, _mm512_sub_ps, _mm512_unpackhi_pd,
    _mm512_unpackhi_ps, _mm512_unpacklo_pd, _mm512_unpacklo_ps,
};
use std::ops::Range;

use half::bf16;

use super::unit::{STEP, TILE};
use super::{Mat, PARTS, Values};
use crate::engine::kernel::lanes::prefetch;

/// Rows and columns of a square.
const SIDE: usize = STEP / 2;

/// How many steps of the depth ahead memory is asked for.
const FAR: usize = 8 * SIDE;

/// What a row of a tile is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// A line: the left operand.
    Lines,
    /// A pair of steps of the depth: the right operand.
    Pairs,
}

/// At most 32 lines of an operand and a piece of its depth.
#[derive(Debug, Clone)]
pub(super) struct View<'a> {
    values: Values<'a>,
    lines: Range<usize>,
    k: Range<usize>,
    /// Elements from a line to the next.
    across: usize,
    /// Elements from a step of the depth to the next; this or `across` is 1.
    along: usize,
}

impl<'a> View<'a> {
    /// Rows of a left operand.
    pub(super) fn rows(a: Mat<'a>, lines: Range<usize>, k: Range<usize>) -> Self {
        assert!(lines.end <= a.rows && k.end <= a.columns, "a part of the matrix");
        Self { values: a.values, lines, k, across: a.row_stride, along: a.column_stride }
    }

    /// Columns of a right operand.
    pub(super) fn columns(b: Mat<'a>, lines: Range<usize>, k: Range<usize>) -> Self {
        Self::rows(b.t(), lines, k)
    }
}

/// Writes the tiles of `view` in the first `parts` parts, step by step: of each part that of lines 0 to 15 and that of lines
/// 16 to 31, with zeros where lines or depth end before. Returns what is left of `out`.
#[allow(unsafe_code, reason = "instructions that not every machine has")]
pub(super) fn pack<'o>(view: &View<'_>, form: Form, parts: usize, out: &'o mut [u16]) -> &'o mut [u16] {
    let (out, rest) = out.split_at_mut(view.k.len().div_ceil(STEP) * parts * 2 * TILE);
    // SAFETY: operands are packed only where the unit is, and processors with it have these instructions.
    unsafe {
        match view.values {
            Values::F32(x) => packed(view, x, form, parts, out),
            Values::Bf16(x) => packed(view, x, form, parts, out),
        }
    }
    rest
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
fn packed<T: Element>(view: &View<'_>, x: &[T], form: Form, parts: usize, out: &mut [u16]) {
    for (k, out) in view.k.clone().step_by(STEP).zip(out.chunks_exact_mut(parts * 2 * TILE)) {
        let middle = view.k.end.min(k + SIDE);
        let end = view.k.end.min(k + STEP);
        for (half, line) in [view.lines.start, view.lines.start + SIDE].into_iter().enumerate() {
            let lines = line..view.lines.end.clamp(line, line + SIDE);
            let first = view.square(x, lines.clone(), k..middle, form);
            let second = view.square(x, lines, middle..end, form);
            for row in 0..SIDE {
                let pairs = split(first[row], second[row]);
                for (part, pairs) in pairs.into_iter().take(parts).enumerate() {
                    store(pairs, &mut out[(2 * part + half) * TILE + row * STEP..][..STEP]);
                }
            }
        }
    }
}

impl View<'_> {
    /// From an element at step `k` to what is asked the memory for when it is read: a few steps on or, at the end of the
    /// depth, where the next lines begin. Rows of so many lines are more than a processor foresees.
    fn ahead(&self, k: usize) -> usize {
        if self.along > 1 {
            STEP * self.along
        } else if k + FAR < self.k.end {
            FAR
        } else {
            2 * SIDE * self.across + FAR - self.k.len().min(FAR)
        }
    }

    /// At most 16 lines and steps of the depth.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl")]
    fn square<T: Element>(&self, x: &[T], lines: Range<usize>, k: Range<usize>, form: Form) -> Square {
        let k0 = k.start;
        let (there, stride, rows, columns) = if self.along == 1 {
            (Form::Lines, self.across, lines, k)
        } else {
            (Form::Pairs, self.along, k, lines)
        };
        let square = square(x, stride, rows, columns, self.ahead(k0));
        if there == form { square } else { transposed(square) }
    }
}

/// A type that matrices are stored in.
trait Element: Copy {
    /// At most 16 of them, and zeros.
    ///
    /// # Safety
    /// The machine has AVX-512 with BW and VL.
    #[allow(
        unsafe_code,
        reason = "a method of a trait is compiled for an instruction set only if it is unsafe"
    )]
    unsafe fn wide(x: &[Self]) -> __m512;
}

impl Element for f32 {
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl")]
    #[allow(unsafe_code, reason = "a load takes an address")]
    unsafe fn wide(x: &[Self]) -> __m512 {
        let mask = (1_u32 << x.len()) - 1;
        // SAFETY: the mask has a bit for each element, and what has none is not read.
        unsafe { _mm512_maskz_loadu_ps(mask as u16, x.as_ptr()) }
    }
}

impl Element for bf16 {
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl")]
    #[allow(unsafe_code, reason = "as above")]
    unsafe fn wide(x: &[Self]) -> __m512 {
        let mask = (1_u32 << x.len()) - 1;
        // SAFETY: as above.
        let narrow = unsafe { _mm256_maskz_loadu_epi16(mask as u16, x.as_ptr().cast()) };
        _mm512_castsi512_ps(_mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(narrow)))
    }
}

/// Rows of 16 numbers.
pub(in crate::engine::kernel) type Square = [__m512; SIDE];

/// At most 16 rows, `stride` elements apart, of at most 16 neighbours, and zeros.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
#[allow(unsafe_code, reason = "as above")]
fn square<T: Element>(
    x: &[T],
    stride: usize,
    rows: Range<usize>,
    columns: Range<usize>,
    ahead: usize,
) -> Square {
    let mut square = [_mm512_setzero_ps(); SIDE];
    if columns.is_empty() {
        return square;
    }
    for (out, row) in square.iter_mut().zip(rows) {
        let at = row * stride + columns.start;
        prefetch(x.as_ptr().wrapping_add(at + ahead));
        // SAFETY: this function is compiled for what is needed.
        *out = unsafe { T::wide(&x[at..][..columns.len()]) };
    }
    square
}

/// The three parts of 16 pairs: each the nearest bf16 to what the ones before it leave, which is exact.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
fn split(mut first: __m512, mut second: __m512) -> [__m512i; PARTS] {
    let upper = _mm512_set1_epi32(0xffff_0000_u32.cast_signed());
    let mut parts = [_mm512_setzero_si512(); PARTS];
    for part in &mut parts {
        *part = nearest(first, second);
        first = _mm512_sub_ps(first, _mm512_castsi512_ps(_mm512_slli_epi32::<16>(*part)));
        second = _mm512_sub_ps(second, _mm512_castsi512_ps(_mm512_and_si512(*part, upper)));
    }
    parts
}

/// 16 pairs of the nearest bf16.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
#[allow(unsafe_code, reason = "a vector of bf16 has no safe way to become one of integers")]
fn nearest(first: __m512, second: __m512) -> __m512i {
    // SAFETY: both types are 64 bytes, of which every value is one of either.
    let apart: __m512i = unsafe { std::mem::transmute(_mm512_cvtne2ps_pbh(second, first)) };
    // Word 2 i is word i and word 2 i + 1 is word 16 + i of what is one behind the other.
    #[rustfmt::skip]
    let pairs = _mm512_setr_epi32(
        0x10_0000, 0x11_0001, 0x12_0002, 0x13_0003, 0x14_0004, 0x15_0005, 0x16_0006, 0x17_0007,
        0x18_0008, 0x19_0009, 0x1a_000a, 0x1b_000b, 0x1c_000c, 0x1d_000d, 0x1e_000e, 0x1f_000f,
    );
    _mm512_permutexvar_epi16(pairs, apart)
}

/// Rows for columns.
#[inline]
#[target_feature(enable = "avx512f")]
pub(in crate::engine::kernel) fn transposed(mut x: Square) -> Square {
    // Squares of 4 x 4 within each quarter of a register,
    for i in (0..SIDE).step_by(4) {
        let [a, b, c, d] = [x[i], x[i + 1], x[i + 2], x[i + 3]];
        let [low, high] = [_mm512_unpacklo_ps(a, b), _mm512_unpackhi_ps(a, b)].map(|x| _mm512_castps_pd(x));
        let [more, most] = [_mm512_unpacklo_ps(c, d), _mm512_unpackhi_ps(c, d)].map(|x| _mm512_castps_pd(x));
        x[i] = _mm512_castpd_ps(_mm512_unpacklo_pd(low, more));
        x[i + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(low, more));
        x[i + 2] = _mm512_castpd_ps(_mm512_unpacklo_pd(high, most));
        x[i + 3] = _mm512_castpd_ps(_mm512_unpackhi_pd(high, most));
    }
    // then the quarters: that of x[4 q + i] at p belongs to row 4 p + i, at q.
    let mut out = x;
    for i in 0..4 {
        let [a, b, c, d] = [x[i], x[i + 4], x[i + 8], x[i + 12]];
        let (low, high) = (_mm512_shuffle_f32x4::<0x44>(a, b), _mm512_shuffle_f32x4::<0xee>(a, b));
        let (more, most) = (_mm512_shuffle_f32x4::<0x44>(c, d), _mm512_shuffle_f32x4::<0xee>(c, d));
        out[i] = _mm512_shuffle_f32x4::<0x88>(low, more);
        out[i + 4] = _mm512_shuffle_f32x4::<0xdd>(low, more);
        out[i + 8] = _mm512_shuffle_f32x4::<0x88>(high, most);
        out[i + 12] = _mm512_shuffle_f32x4::<0xdd>(high, most);
    }
    out
}

#[inline]
#[target_feature(enable = "avx512f")]
#[allow(unsafe_code, reason = "a store takes an address")]
fn store(row: __m512i, out: &mut [u16]) {
    assert!(out.len() == STEP, "a row of a tile");
    // SAFETY: 32 numbers of 16 bits.
    unsafe { _mm512_storeu_si512(out.as_mut_ptr().cast(), row) };
}
