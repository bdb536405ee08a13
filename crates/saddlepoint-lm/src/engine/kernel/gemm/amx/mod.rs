//! Products on the matrix unit of Intel processors (AMX), as exact as those in `f32`.
//!
//! The unit multiplies tiles of bf16, which have 8 bits, and sums in `f32`. An `f32` has 24 bits: it is the exact sum of
//! three bf16, `x = h + m + l`, each the nearest to what the ones before it leave. Of the nine products in `x y` six are computed:
//! ```text
//! h h' + h m' + m h' + h l' + m m' + l h'
//! ```
//! The other three are together below `2^-24 |x y|`, half of what rounding `x y` to an `f32` may cost. A right operand that is stored in
//! bf16 has no `m'` and `l'`: three products, none left out. One step of a tile does 16 x 16 x 32 multiply-adds in the
//! time of 16 vector instructions, so six products are still 2.7 times as fast as `f32` vectors, and three 5.3 times.
//!
//! ```text
//! for each piece of the depth (at most DEPTH)           c passes once for each piece
//!   for each group of rows (LEFT bytes a thread)        its part of a is split and packed, by all threads for all
//!     for each block of columns (at most RIGHT bytes)   its part of b is split and packed: second-level cache
//!       for each tile of rows, for each panel           32 x 32 sums
//! ```
//! As in the vector code an element's sum depends on the depth alone. It is not the same to the last bit: the unit sums both
//! halves of a step apart. Numbers below `2^-126` count as zero, parts of numbers as well, so that below `2^-110` a number loses
//! digits.

mod split;
mod unit;

use std::ops::Range;
use std::sync::{Mutex, PoisonError};

use rayon::prelude::*;

use super::super::matmul::{Mat, Values};
use super::{PACKED, Piece, Product, shared};
use crate::engine::aligned::Aligned;
use crate::engine::kernel::lanes::{LINE, prefetch};
pub(in crate::engine::kernel) use split::transposed;
use split::{Form, View};
use unit::{SIDE, STEP, Sums, TILE};
pub(in crate::engine::kernel) use unit::{Tiles, ask_tile, available};

/// Most bytes of a packed group of rows, for each thread, and of a packed block of columns.
const LEFT: usize = 3 << 20;
const RIGHT: usize = 6 << 17;
/// Parts of an `f32`.
const PARTS: usize = 3;
/// Narrowest and shallowest product that is worth the packing.
const LEAST: usize = 128;

/// Most bytes of the packed operands of one thread; 0 without the unit.
pub(super) fn packed_bytes() -> usize {
    if available() { LEFT + RIGHT } else { 0 }
}

/// Whether a product of this depth and so many columns is computed here. The number of rows has no part in it, so that a row
/// does not depend on the others.
pub(super) fn takes(columns: usize, depth: usize) -> bool {
    columns >= LEAST && depth >= LEAST && available()
}

/// Memory for packed rows, kept between products. Not one a thread: a thread that waits for the others may begin with another
/// product meanwhile.
static LEFTS: Mutex<Vec<Aligned>> = Mutex::new(Vec::new());

impl Product<'_> {
    /// Computes it on the matrix unit, which is there, with so many threads.
    pub(super) fn run_on_tiles(&self, workers: usize) {
        let kept = || LEFTS.lock().unwrap_or_else(PoisonError::into_inner);
        let mut left = kept().pop().unwrap_or_default();
        for piece in self.pieces() {
            OnTiles::new(self, piece).run(&mut left, workers);
        }
        kept().push(left);
    }
}

/// A piece of the depth of a product.
struct OnTiles<'p, 'a> {
    product: &'p Product<'a>,
    piece: Piece<'a>,
    /// Steps with a right operand of one part, and of three.
    steps: (usize, usize),
    /// 16-bit numbers of 32 packed rows and of 32 packed columns.
    tall: usize,
    wide: usize,
}

impl<'p, 'a> OnTiles<'p, 'a> {
    fn new(product: &'p Product<'a>, piece: Piece<'a>) -> Self {
        let (own, more) =
            (piece.k.len().div_ceil(STEP), piece.more.map_or(0, |(.., b)| b.rows.div_ceil(STEP)));
        let narrow = matches!(product.b.values, Values::Bf16(_));
        let steps = if narrow { (own, more) } else { (0, own + more) };
        let tall = (own + more) * PARTS * 2 * TILE;
        let wide = (steps.0 + steps.1 * PARTS) * 2 * TILE;
        Self { product, piece, steps, tall, wide }
    }

    fn run(&self, left: &mut Aligned, workers: usize) {
        let Product { rows, columns, .. } = self.product;
        let group = even(rows.len(), workers * LEFT / 2 / self.tall);
        for first in rows.clone().step_by(group) {
            let rows = first..rows.end.min(first + group);
            let left = words(left.room(rows.len().div_ceil(SIDE) * self.tall / 2));
            let pack = |(at, out): (usize, &mut [u16])| {
                let i = rows.start + at * SIDE;
                self.pack_rows(i..rows.end.min(i + SIDE), out);
            };
            if workers == 1 {
                left.chunks_exact_mut(self.tall).enumerate().for_each(pack);
            } else {
                left.par_chunks_exact_mut(self.tall).enumerate().for_each(pack);
            }
            shared(columns, SIDE, workers, |columns, _| {
                PACKED.with_borrow_mut(|packed| self.columns(&rows, &columns, left, &mut packed.right));
            });
        }
    }

    /// These columns of packed rows.
    fn columns(&self, rows: &Range<usize>, columns: &Range<usize>, left: &[u16], right: &mut Aligned) {
        let Self { steps, tall, wide, .. } = *self;
        let tiles = Tiles::configured();
        let block = even(columns.len(), RIGHT / 2 / wide);
        let mut sums = Sums::default();
        for first in columns.clone().step_by(block) {
            let columns = first..columns.end.min(first + block);
            let right = words(right.room(columns.len().div_ceil(SIDE) * wide / 2));
            for (j, out) in columns.clone().step_by(SIDE).zip(right.chunks_exact_mut(wide)) {
                self.pack_columns(j..columns.end.min(j + SIDE), out);
            }
            // While a tile of rows meets the panels, the next one is on its way into the second-level cache.
            let mut ahead = left;
            for (i, left) in rows.clone().step_by(SIDE).zip(left.chunks_exact(tall)) {
                ahead = &ahead[tall..];
                let mut next = ahead;
                for (j, right) in columns.clone().step_by(SIDE).zip(right.chunks_exact(wide)) {
                    let (i, j) = (i..rows.end.min(i + SIDE), j..columns.end.min(j + SIDE));
                    self.ask(i.clone(), j.clone());
                    tiles.sums(left, right, steps, next, &mut sums);
                    next = &next[next.len().min((steps.0 + steps.1) * unit::AHEAD)..];
                    self.place(&sums, i, j);
                }
            }
        }
    }

    /// At most 32 rows of `a` and `a'`.
    fn pack_rows(&self, rows: Range<usize>, out: &mut [u16]) {
        let own = View::rows(self.product.a, rows.clone(), self.piece.k.clone());
        let out = split::pack(&own, Form::Lines, PARTS, out);
        if let Some((a, _)) = self.piece.more {
            split::pack(&View::rows(a, rows, 0..a.columns), Form::Lines, PARTS, out);
        }
    }

    /// At most 32 columns of `b`, in one part or in three, and `b'`.
    fn pack_columns(&self, columns: Range<usize>, out: &mut [u16]) {
        let parts = if self.steps.0 > 0 { 1 } else { PARTS };
        let own = View::columns(self.product.b, columns.clone(), self.piece.k.clone());
        let out = split::pack(&own, Form::Pairs, parts, out);
        if let Some((_, b)) = self.piece.more {
            split::pack(&View::columns(b, columns, 0..b.rows), Form::Pairs, PARTS, out);
        }
    }

    /// Asks for the lines of `c` that will be written.
    fn ask(&self, rows: Range<usize>, columns: Range<usize>) {
        let target = self.product.c;
        for i in rows {
            let row = target.data.wrapping_add(i * target.row_stride);
            for j in columns.clone().step_by(LINE) {
                prefetch(row.wrapping_add(j));
            }
        }
    }

    /// `c = onto + scale sums` for these rows and columns.
    #[allow(unsafe_code, reason = "threads write different parts of one matrix")]
    fn place(&self, sums: &Sums, rows: Range<usize>, columns: Range<usize>) {
        let target = self.piece.c;
        for (i, sums) in rows.zip(&sums.0) {
            let at = i * target.row_stride + columns.start;
            let onto = target.onto.map(|onto| onto.wrapping_add(at));
            // SAFETY: `MatMut` bounds every index of its view, what is added to lies alike, and this part of it is given to
            // this thread alone. Whoever configured the tiles has the unit.
            unsafe {
                unit::place(sums, columns.len(), self.product.scale, onto, target.data.wrapping_add(at));
            };
        }
    }
}

/// The largest multiple of [`SIDE`] that divides `len` into as few and as even parts as `most` of it at a time.
fn even(len: usize, most: usize) -> usize {
    let sides = len.div_ceil(SIDE);
    sides.div_ceil(sides.div_ceil(most.max(1))).max(1) * SIDE
}

/// The same memory as numbers of 16 bits.
fn words(numbers: &mut [f32]) -> &mut [u16] {
    bytemuck::cast_slice_mut(numbers)
}

#[cfg(test)]
mod tests {
    use super::super::super::filled;
    use super::super::{Target, Unit};
    use super::*;

    fn product(a: &[f32], b: Mat<'_>, m: usize, unit: Unit) -> Vec<f32> {
        let a = Mat::new(a, m, b.rows);
        let mut c = vec![0.0; m * b.columns];
        let target = Target { data: c.as_mut_ptr(), onto: None, row_stride: b.columns };
        let (rows, columns) = (0..m, 0..b.columns);
        Product { c: target, a, b, more: None, rows, columns, scale: 1.0, then: None }.run(unit, 1);
        c
    }

    /// Root of the mean square of what is left of the exact product, over that of the product.
    fn error(a: &[f32], b: Mat<'_>, m: usize, unit: Unit) -> f64 {
        let Values::F32(y) = b.values else { unreachable!("f32 operands") };
        let (n, k) = (b.columns, b.rows);
        let c = product(a, b, m, unit);
        let (mut left, mut whole) = (0.0, 0.0);
        for (at, &c) in c.iter().enumerate() {
            let (i, j) = (at / n, at % n);
            let exact: f64 = (0..k).map(|l| f64::from(a[i * k + l]) * f64::from(y[l * n + j])).sum();
            left += (f64::from(c) - exact).powi(2);
            whole += exact * exact;
        }
        (left / whole).sqrt()
    }

    #[test]
    fn the_error_is_at_most_that_of_vectors() {
        if !available() {
            return;
        }
        for (m, n, k, spread) in [(40, 130, 128, 0.0), (33, 128, 900, 0.0), (40, 130, 300, 20.0)] {
            let numbers = |len, seed| -> Vec<f32> {
                let sizes = filled(len, seed + 100);
                filled(len, seed).iter().zip(sizes).map(|(x, size)| x * (spread * size).exp2()).collect()
            };
            let (a, b) = (numbers(m * k, 1), numbers(k * n, 2));
            let of = |unit| error(&a, Mat::new(&b, k, n), m, unit);
            let (tiles, vectors) = (of(Unit::Tiles), of(Unit::Vectors));
            assert!(tiles <= vectors, "{m}x{n}x{k}: {tiles:e}, vectors {vectors:e}");
        }
    }

    #[test]
    fn what_is_not_finite_stays_so() {
        if !available() {
            return;
        }
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, f32::from_bits(0x7f80_0001), f32::MAX] {
            let (mut a, b) = (filled(3 * 200, 1), filled(200 * 130, 2));
            a[200 + 7] = bad;
            let c = product(&a, Mat::new(&b, 200, 130), 3, Unit::Tiles);
            for (row, c) in c.chunks_exact(130).enumerate() {
                assert!(c.iter().all(|c| c.is_finite() == (row != 1)), "{bad} in row {row}");
            }
        }
    }

    #[test]
    fn blocks_and_groups_do_not_change_a_bit() {
        if !available() {
            return;
        }
        // More than one group of rows, block of columns and piece of the depth; then parts of them alone.
        let (m, n, k) = (900, 400, 800);
        let (a, b) = (filled(m * k, 1), filled(k * n, 2));
        let whole = product(&a, Mat::new(&b, k, n), m, Unit::Tiles);
        for i in [0, 31, 640, 899] {
            let row = product(&a[i * k..][..k], Mat::new(&b, k, n), 1, Unit::Tiles);
            assert!(row.iter().zip(&whole[i * n..]).all(|(x, y)| x.to_bits() == y.to_bits()), "row {i}");
        }
    }
}
