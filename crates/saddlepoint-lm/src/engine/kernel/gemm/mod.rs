//! `c = onto + scale (a b + a' b')` by blocks.
//!
//! ```text
//! for each piece of the depth (at most DEPTH)              c passes once for each piece
//!   for each block of columns (at most BLOCK elements)     its part of b is packed into panels: second-level cache
//!     for each group of rows (GROUP)                       packed where its elements are not in order along k
//!       for each tile of rows                              its part of a stays in the first-level cache
//!         for each panel                                   one tile; the first group packs it, and asks for the next
//! ```
//! The last group asks for the first panel of what this thread packs next, and the last panel for the next tile's rows of `a`. The second
//! product belongs to the last piece of the depth: its rows of `b'` have room behind those of `b`, which lie there unless they are read
//! in place.
//!
//! How the work is cut into threads, blocks and tiles has no part in the sums: each element is summed over
//! ascending `k`, piece by piece, and the pieces depend on the depth alone.

#[cfg(target_arch = "x86_64")]
mod amx;
mod pack;
mod tile;

use std::cell::RefCell;
use std::ops::Range;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;

#[cfg(target_arch = "x86_64")]
pub(super) use amx::{Tiles, ask_tile, available, transposed};
use half::bf16;
use pulp::{Simd, WithSimd};
use rayon::prelude::*;

use self::pack::Part;
use self::tile::{Ahead, LARGEST, Left, Out, Right, Term};
use super::lanes::LINE;
use super::matmul::{Mat, Values};
use crate::engine::aligned::Aligned;

/// Deepest piece that is summed in registers.
const DEPTH: usize = 768;
/// Most elements of a block of the right operand (800 kB).
const BLOCK: usize = 200_000;
/// Rows of the left operand that are packed together.
const GROUP: usize = 48;
/// Up to this many rows the right operand is read where it lies, if its rows are contiguous; and for any number of rows if they begin
/// with a cache line.
const FEW: usize = 64;
/// Depth up to which a product is bound by writing its result: threads get rows, and with them whole pages.
const SHALLOW: usize = 64;
/// Columns of a part: whole panels for every set of instructions.
const COLUMNS: usize = 48;
/// What packing an element costs, in multiply-adds, and about how many parts a product is shared in.
const PACKING: usize = 6;
const SHARES: usize = 8;
/// Elements of the largest tile.
const TILE: usize = LARGEST.0 * LARGEST.1 * LINE;

/// Most bytes of the packed operands of one thread.
pub(crate) fn packed_bytes() -> usize {
    let vectors = (BLOCK + GROUP * DEPTH + 2 * LINE) * size_of::<f32>();
    #[cfg(target_arch = "x86_64")]
    return vectors.max(amx::packed_bytes());
    #[cfg(not(target_arch = "x86_64"))]
    vectors
}

/// What a product is computed by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unit {
    /// The widest vectors that the machine has.
    Vectors,
    /// Intel's matrix unit.
    #[cfg(target_arch = "x86_64")]
    Tiles,
}

impl Unit {
    /// For products of so many columns and this depth. The rows have no part in it: none of them depends on the others.
    pub(super) fn of(columns: usize, depth: usize) -> Self {
        #[cfg(target_arch = "x86_64")]
        if amx::takes(columns, depth) {
            return Self::Tiles;
        }
        let _ = (columns, depth);
        Self::Vectors
    }
}

/// A matrix that is written, of which threads write different parts, and what the product is added to: elsewhere or
/// there, with rows as far apart.
#[derive(Debug, Clone, Copy)]
pub(super) struct Target {
    pub(super) data: *mut f32,
    pub(super) onto: Option<*const f32>,
    pub(super) row_stride: usize,
}

#[allow(unsafe_code, reason = "a target is only handed to threads in parts that do not overlap")]
// SAFETY: it is made from an exclusive borrow, and each element is given to one thread.
unsafe impl Send for Target {}
#[allow(unsafe_code, reason = "as above")]
// SAFETY: as above.
unsafe impl Sync for Target {}

/// A product, or a part of one: rows `rows` and columns `columns` of `c`.
#[derive(Debug, Clone)]
pub(super) struct Product<'a> {
    pub(super) c: Target,
    pub(super) a: Mat<'a>,
    pub(super) b: Mat<'a>,
    /// `a'`, whose rows are in order, and `b'`.
    pub(super) more: Option<(Mat<'a>, Mat<'a>)>,
    pub(super) rows: Range<usize>,
    pub(super) columns: Range<usize>,
    pub(super) scale: f32,
    /// First column of the part that this thread probably computes after this one.
    pub(super) then: Option<usize>,
}

/// Memory for packed operands.
#[derive(Debug, Default)]
struct Packed {
    left: Aligned,
    right: Aligned,
}

thread_local! {
    static PACKED: RefCell<Packed> = RefCell::default();
}

/// Hands parts of `range`, in multiples of `side`, to so many threads: large ones first and ever smaller ones after them, so that
/// threads of different speeds end together. `body` is also told where the part begins that its thread takes next, if all are as fast.
fn shared(
    range: &Range<usize>,
    side: usize,
    workers: usize,
    body: impl Fn(Range<usize>, Option<usize>) + Sync,
) {
    if workers == 1 {
        return body(range.clone(), None);
    }
    let (ends, next) = (ends(range, side, workers), AtomicUsize::new(0));
    (0..workers).into_par_iter().with_max_len(1).for_each(|_| {
        loop {
            let part = next.fetch_add(1, Relaxed);
            let Some(&end) = ends.get(part) else { break };
            let start = part.checked_sub(1).map_or(range.start, |before| ends[before]);
            body(start..end, ends.get(part + workers - 1).copied().filter(|&next| next < range.end));
        }
    });
}

/// Where the parts of [`shared`] end. There is one for each thread of the same size before the next smaller ones, so that threads of one
/// speed end together too: of twelve panels two threads take 3, 3, 2, 2, 1 and 1.
fn ends(range: &Range<usize>, side: usize, workers: usize) -> Vec<usize> {
    let least = range.len() / (4 * workers) / side * side;
    let (mut ends, mut end) = (Vec::with_capacity(6 * workers), range.start);
    while end < range.end {
        let rest = range.end - end;
        let len = least.max(rest / (2 * workers)).min(rest.div_ceil(workers)).max(1).next_multiple_of(side);
        for _ in 0..workers {
            if end < range.end {
                end = range.end.min(end + len);
                ends.push(end);
            }
        }
    }
    ends
}

impl<'a> Product<'a> {
    /// Its pieces; one of no depth is one empty piece.
    fn pieces(&self) -> impl Iterator<Item = Piece<'a>> {
        let (depth, deep) = (self.b.rows, deepest(self.b.rows));
        let Self { c, more, .. } = *self;
        (0..depth.max(1)).step_by(deep).map(move |k| Piece {
            k: k..depth.min(k + deep),
            more: more.filter(|_| k + deep >= depth),
            c: if k > 0 { Target { onto: Some(c.data.cast_const()), ..c } } else { c },
        })
    }

    /// Computes it with so many threads.
    pub(super) fn run(&self, unit: Unit, workers: usize) {
        match unit {
            Unit::Vectors => self.run_on_vectors(workers),
            #[cfg(target_arch = "x86_64")]
            Unit::Tiles => self.run_on_tiles(workers),
        }
    }

    fn run_on_vectors(&self, workers: usize) {
        let part = |rows: Range<usize>, columns: Range<usize>, then: Option<usize>| {
            let product = Self { rows, columns, then, ..self.clone() };
            PACKED.with_borrow_mut(|packed| pulp::Arch::new().dispatch(Run { product, packed }));
        };
        let (rows, columns) = (&self.rows, &self.columns);
        if self.by_rows() {
            shared(rows, LARGEST.0, workers, |rows, next| {
                part(rows, columns.clone(), next.map(|_| columns.start));
            });
        } else {
            shared(columns, COLUMNS, workers, |columns, next| part(rows.clone(), columns, next));
        }
    }

    /// Whether threads get rows of `c`, each with all columns, or columns.
    fn by_rows(&self) -> bool {
        let (m, n, depth) = (self.rows.len(), self.columns.len(), self.a.columns);
        // Every part packs the other operand anew, and the last of them keeps one thread while the others wait.
        let columns =
            if self.a.in_order().is_some() { 0 } else { SHARES * PACKING * m } + m * COLUMNS.min(n) / 2;
        let rows = SHARES * PACKING * n + n * LARGEST.0.min(m) / 2;
        depth <= SHALLOW || rows < columns
    }
}

/// A product and the memory it uses.
struct Run<'a, 'p> {
    product: Product<'a>,
    packed: &'p mut Packed,
}

/// The depth of all pieces of a product but the last.
fn deepest(depth: usize) -> usize {
    depth.div_ceil(depth.div_ceil(DEPTH).max(1)).max(1)
}

/// A piece of the depth.
#[derive(Debug, Clone)]
struct Piece<'a> {
    k: Range<usize>,
    /// The second product, with the last piece.
    more: Option<(Mat<'a>, Mat<'a>)>,
    /// Added to what the product is, or after the first piece to the sums so far.
    c: Target,
}

/// One block: rows and columns of `c`, and a piece of the depth.
#[derive(Debug, Clone)]
struct Block<'a> {
    /// Columns of a panel.
    width: usize,
    rows: Range<usize>,
    columns: Range<usize>,
    piece: Piece<'a>,
    /// Where in `b` what is packed next begins: step of the depth and column.
    then: Option<(usize, usize)>,
}

impl WithSimd for Run<'_, '_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Run { product, packed } = self;
        let Product { b, more, rows, columns, .. } = product.clone();
        let width = panel(tile::shape::<S>().1, columns.len().div_ceil(S::F32_LANES)) * S::F32_LANES;
        let panels = columns.len().div_ceil(width);
        let packed_rows = deepest(b.rows) + more.map_or(0, |(_, b)| b.rows);
        let blocks = panels.div_ceil((BLOCK / (packed_rows * width)).max(1));
        let across = panels.div_ceil(blocks) * width;
        let mut blocks = product
            .pieces()
            .flat_map(|piece| columns.clone().step_by(across).map(move |j| (piece.clone(), j)))
            .peekable();
        while let Some((piece, j)) = blocks.next() {
            let (rows, columns) = (rows.clone(), j..columns.end.min(j + across));
            let next = blocks.peek().map(|(piece, j)| (piece.k.start, *j));
            let then = next.or(product.then.map(|j| (0, j)));
            product.block(simd, &Block { width, rows, columns, piece, then }, packed);
        }
    }
}

/// Vectors of a panel, of which at most `most` fit a tile: as many for each panel, rather than few for the last.
fn panel(most: usize, vectors: usize) -> usize {
    vectors.div_ceil(vectors.div_ceil(most).max(1)).max(1)
}

impl Product<'_> {
    #[inline(always)]
    fn block<S: Simd>(&self, simd: S, block: &Block<'_>, packed: &mut Packed) {
        let Self { a, b, .. } = self;
        let tall = tile::shape::<S>().0;
        let (width, deep) = (block.width, block.piece.k.len());
        let n = block.columns.len();
        let lines = |b: &[f32], row: usize| {
            b.as_ptr().addr().is_multiple_of(LINE * size_of::<f32>()) && row.is_multiple_of(LINE)
        };
        let b_there = b.in_order().filter(|data| block.rows.len() <= FEW || lines(data, b.row_stride));
        // Panels are read where they lie only if they have all their columns.
        let there = if b_there.is_some() { n / width * width } else { 0 };
        let more = block.piece.more.map(|(a, b)| (a, a.in_order().expect("rows in order"), b));
        let extra = more.map_or(0, |(.., b)| b.rows);
        let packed_rows = deep + extra;
        let right = packed.right.room(packed_rows * n.next_multiple_of(width));
        let a_there = a.in_order();
        let packed_left = packed.left.room(GROUP * deep);
        let panels = n.div_ceil(width);
        for g in block.rows.clone().step_by(GROUP) {
            let group = g..block.rows.end.min(g + GROUP);
            if a_there.is_none() {
                pack_groups(*a, block.piece.k.clone(), group.clone(), tall, packed_left);
            }
            let tiles = group.len().div_ceil(tall);
            // The first group of rows meets the panels one by one, as they are packed; for the others a tile of rows
            // stays in the cache and the panels pass.
            let (first, last) = (g == block.rows.start, group.end == block.rows.end);
            let (outer, inner) = if first { (panels, tiles) } else { (tiles, panels) };
            for (at, then) in (0..outer).flat_map(|at| (0..inner).map(move |then| (at, then))) {
                let (tile, panel) = if first { (then, at) } else { (at, then) };
                let (i, p) = (g + tile * tall, panel * width);
                let j = block.columns.start + p;
                let columns = width.min(n - p);
                let vectors = columns.next_multiple_of(S::F32_LANES);
                let packed = &mut right[p * packed_rows..][..vectors * packed_rows];
                let (right, beyond) = packed.split_at_mut(vectors * deep);
                if first && tile == 0 {
                    if p >= there {
                        pack_panel(*b, block.piece.k.clone(), j..j + columns, vectors, right);
                    }
                    if let Some((.., b)) = more {
                        pack_panel(b, 0..extra, j..j + columns, vectors, beyond);
                    }
                }
                let left = match a_there {
                    Some(a_there) => Left {
                        data: a_there.as_ptr().wrapping_add(i * a.row_stride + block.piece.k.start),
                        row: a.row_stride,
                        column: 1,
                    },
                    None => Left { data: packed_left[(i - g) * deep..].as_ptr(), row: 1, column: tall },
                };
                let place = match b_there {
                    Some(b_there) if p < there => Right {
                        data: b_there.as_ptr().wrapping_add(block.piece.k.start * b.row_stride + j),
                        row: b.row_stride,
                    },
                    _ => Right { data: right.as_ptr(), row: vectors },
                };
                let second = more.map_or(Left { data: left.data, row: 0, column: 0 }, |(a, data, _)| Left {
                    data: data.as_ptr().wrapping_add(i * a.row_stride),
                    row: a.row_stride,
                    column: 1,
                });
                let beyond = Right { data: beyond.as_ptr(), row: vectors };
                let terms = [(left, place, deep), (second, beyond, extra)];
                let next = match (panel + 1 < panels, first, last) {
                    (true, true, _) => Some((block.piece.k.start, j + columns)),
                    (false, _, true) => block.then,
                    _ => None,
                };
                let ahead = match next {
                    Some((k, j)) => ahead(*b, k, j, tile),
                    None if a_there.is_some() && panel + 1 == panels && i + tall < block.rows.end => {
                        let size = size_of::<f32>();
                        let data = left.data.wrapping_add(tall * a.row_stride).cast::<u8>();
                        Ahead { data, row: a.row_stride * size, whole: !(LINE - 1), column: size }
                    }
                    None => Ahead { data: place.data.cast(), row: 0, whole: 0, column: 0 },
                };
                let rows = tall.min(group.end - i);
                self.place(simd, rows, columns, terms, (i, j), block.piece.c, ahead);
            }
        }
    }

    /// A tile of `rows` and `columns` at `(i, j)`.
    #[allow(unsafe_code, reason = "tiles work on pointers; all views were checked against their slices")]
    #[inline(always)]
    fn place<S: Simd>(
        &self,
        simd: S,
        rows: usize,
        columns: usize,
        terms: [Term; 2],
        (i, j): (usize, usize),
        c: Target,
        ahead: Ahead,
    ) {
        let (scale, row) = (self.scale, c.row_stride);
        let data = c.data.wrapping_add(i * row + j);
        let onto = c.onto.map(|onto| onto.wrapping_add(i * row + j));
        let vectors = columns.div_ceil(S::F32_LANES);
        let out = Out { data, onto, row, scale };
        if columns == vectors * S::F32_LANES {
            // SAFETY: `Mat` and `MatMut` bound every index of their views, packed operands are as large as the block,
            // and nothing else accesses this part of `c`.
            unsafe { tile::tiles(simd, rows, vectors, terms, out, ahead) };
            return;
        }
        // The last vector goes beyond the columns: by way of a tile that has room for it.
        let mut spare = [0.0f32; TILE];
        let row = vectors * S::F32_LANES;
        for (i, spare) in spare.chunks_exact_mut(row).take(rows).enumerate() {
            let Some(onto) = onto else { break };
            // SAFETY: row `i` of this part of what is added to, which nobody else writes.
            let there = unsafe { std::slice::from_raw_parts(onto.wrapping_add(i * out.row), columns) };
            spare[..columns].copy_from_slice(there);
        }
        let beside_onto = onto.map(|_| spare.as_ptr());
        let beside = Out { data: spare.as_mut_ptr(), onto: beside_onto, row, ..out };
        // SAFETY: as above; `spare` has room for the largest tile.
        unsafe { tile::tiles(simd, rows, vectors, terms, beside, ahead) };
        for (i, spare) in spare.chunks_exact(row).take(rows).enumerate() {
            // SAFETY: as above.
            let there = unsafe { std::slice::from_raw_parts_mut(data.wrapping_add(i * out.row), columns) };
            there.copy_from_slice(&spare[..columns]);
        }
    }
}

#[inline(always)]
fn pack_panel(b: Mat<'_>, k: Range<usize>, i: Range<usize>, width: usize, out: &mut [f32]) {
    let (along, across) = (b.row_stride, b.column_stride);
    match b.values {
        Values::F32(data) => pack::panel(Part { data, along, across }, k, i, width, out),
        Values::Bf16(data) => pack::panel(Part { data, along, across }, k, i, width, out),
    }
}

/// The part of the panel that begins at column `j` which tile `tile` of rows asks for: eight columns where neighbours lie
/// along `k`, and otherwise a line of each row of `b`.
#[inline(always)]
fn ahead(b: Mat<'_>, k: usize, j: usize, tile: usize) -> Ahead {
    let (data, size) = match b.values {
        Values::F32(data) => (data.as_ptr().cast::<u8>(), size_of::<f32>()),
        Values::Bf16(data) => (data.as_ptr().cast::<u8>(), size_of::<bf16>()),
    };
    let at = |j: usize| data.wrapping_add((k * b.row_stride + j * b.column_stride) * size);
    if b.row_stride == 1 {
        Ahead { data: at(j + 8 * tile), row: b.column_stride * size, whole: !(LINE - 1), column: size }
    } else {
        Ahead { data: at(j + LINE * tile), row: 0, whole: !0, column: b.row_stride * size }
    }
}

#[inline(always)]
fn pack_groups(a: Mat<'_>, k: Range<usize>, i: Range<usize>, tall: usize, out: &mut [f32]) {
    let (along, across) = (a.column_stride, a.row_stride);
    match a.values {
        Values::F32(data) => pack::groups(Part { data, along, across }, k, i, tall, out),
        Values::Bf16(data) => pack::groups(Part { data, along, across }, k, i, tall, out),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::super::filled;
    use super::*;

    #[test]
    fn parts_cover_a_range_once_and_become_smaller() {
        for (range, side, workers) in
            [(0..576, 48, 2), (5..3077, 32, 3), (0..7, 8, 2), (0..3, 8, 4), (0..100, 8, 16), (3..3, 8, 2)]
        {
            let parts = Mutex::new(Vec::new());
            shared(&range, side, workers, |part, _| parts.lock().expect("no panic").push(part));
            let mut parts = parts.into_inner().expect("no panic");
            parts.sort_by_key(|part| part.start);
            assert_eq!(
                parts.iter().cloned().flatten().collect::<Vec<_>>(),
                range.clone().collect::<Vec<_>>()
            );
            assert!(
                parts.windows(2).all(|pair| pair[0].len() >= pair[1].len() && pair[0].len() % side == 0),
                "{parts:?}"
            );
        }
    }

    #[test]
    fn threads_of_one_speed_get_equally_much() {
        for workers in 2..9 {
            for panels in [12, 13, 20, 32, 64, 1024] {
                let ends = ends(&(0..panels * COLUMNS), COLUMNS, workers);
                let mut busy = vec![0; workers];
                let mut start = 0;
                for end in ends {
                    *busy.iter_mut().min().expect("threads") += end - start;
                    start = end;
                }
                // None is a panel longer than all are in the mean.
                let most = busy.iter().max().expect("threads") / COLUMNS;
                assert!(workers * (most - 1) < panels, "{workers} threads, {panels} panels: {busy:?}");
            }
        }
    }

    /// `c + 0.5 a b` with one set of instructions.
    fn product(run: impl Fn(Run<'_, '_>), a: Mat<'_>, b: Mat<'_>, c: &[f32]) -> Vec<f32> {
        let mut c = c.to_vec();
        let (rows, columns) = (0..a.rows, 0..b.columns);
        let data = c.as_mut_ptr();
        let target = Target { data, onto: Some(data.cast_const()), row_stride: b.columns };
        let product = Product { c: target, a, b, more: None, rows, columns, scale: 0.5, then: None };
        run(Run { product, packed: &mut Packed::default() });
        c
    }

    #[test]
    fn every_instruction_set_agrees_with_three_loops() {
        for (m, n, k) in
            [(1, 1, 1), (9, 50, 5), (3, 100, 40), (70, 49, 33), (50, 17, 800), (100, 300, 70), (8, 48, 0)]
        {
            let (a, b, c) = (filled(m * k, 1), filled(k * n, 2), filled(m * n, 3));
            let narrow: Vec<bf16> = b.iter().map(|&v| bf16::from_f32(v)).collect();
            let b: Vec<f32> = narrow.iter().map(|v| v.to_f32()).collect();
            for turned in 0..8 {
                let (ta, tb) = (turned & 1 > 0, turned & 2 > 0);
                let a_view = if ta { Mat::new(&a, k, m).t() } else { Mat::new(&a, m, k) };
                let b_of = |rows, columns| {
                    if turned & 4 > 0 {
                        Mat::bf16(&narrow, rows, columns)
                    } else {
                        Mat::new(&b, rows, columns)
                    }
                };
                let b_view = if tb { b_of(n, k).t() } else { b_of(k, n) };
                let exact = |i: usize, j: usize| -> f64 {
                    let x = |l| f64::from(if ta { a[l * m + i] } else { a[i * k + l] });
                    let y = |l| f64::from(if tb { b[j * k + l] } else { b[l * n + j] });
                    f64::from(c[i * n + j]) + 0.5 * (0..k).map(|l| x(l) * y(l)).sum::<f64>()
                };
                let check = |name: &str, got: &[f32]| {
                    for (at, &v) in got.iter().enumerate() {
                        let want = exact(at / n, at % n);
                        assert!((f64::from(v) - want).abs() < 1e-4, "{name} {m}x{n}x{k} {turned} at {at}");
                    }
                };
                let widest = product(|run| pulp::Arch::new().dispatch(run), a_view, b_view, &c);
                check("widest", &widest);
                #[cfg(target_arch = "x86_64")]
                if k > 0 && amx::available() {
                    check("tiles", &product(|run| run.product.run_on_tiles(1), a_view, b_view, &c));
                }
                check("scalar", &product(|run| pulp::Scalar::new().vectorize(run), a_view, b_view, &c));
                #[cfg(target_arch = "x86_64")]
                if let Some(avx2) = pulp::x86::V3::try_new() {
                    let got = product(|run| Simd::vectorize(avx2, run), a_view, b_view, &c);
                    check("AVX2", &got);
                    assert!(
                        got.iter().zip(&widest).all(|(x, y)| x.to_bits() == y.to_bits()),
                        "the same sums"
                    );
                }
            }
        }
    }
}
