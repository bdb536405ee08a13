//! The innermost loop: a tile of the result, held in registers while both operands pass by.

use pulp::Simd;

use crate::engine::kernel::lanes::{prefetch, prefetch_second};

/// Most rows and most vectors in a row of a tile.
pub(super) const LARGEST: (usize, usize) = (8, 3);

/// Rows of a tile and vectors in a row: of 32 registers 24 hold sums, three a row of the right operand and one an
/// element of the left one; of 16 registers, twelve, two and one.
pub(super) const fn shape<S: Simd>() -> (usize, usize) {
    if S::REGISTER_COUNT >= 32 { LARGEST } else { (6, 2) }
}

/// Rows of the left operand: element `k` of row `i` is at `data + i row + k column`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Left {
    pub(super) data: *const f32,
    pub(super) row: usize,
    pub(super) column: usize,
}

/// Columns of the right operand: those of row `k` begin at `data + k row`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Right {
    pub(super) data: *const f32,
    pub(super) row: usize,
}

/// Where the tile goes: row `i` begins at `data + i row`. What the sums are added to lies alike from `onto` on.
#[derive(Debug, Clone, Copy)]
pub(super) struct Out {
    pub(super) data: *mut f32,
    pub(super) onto: Option<*const f32>,
    pub(super) row: usize,
    pub(super) scale: f32,
}

/// What will be packed next, asked for while a tile is computed: a line in each step of the depth. At step `k` that is
/// the one at `data + (k / 2 mod 8) row + (k and whole) column`, all in bytes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ahead {
    pub(super) data: *const u8,
    pub(super) row: usize,
    pub(super) whole: usize,
    pub(super) column: usize,
}

impl Ahead {
    #[inline(always)]
    fn ask(self, k: usize) {
        prefetch_second(self.data.wrapping_add((k / 2 % 8) * self.row + (k & self.whole) * self.column));
    }
}

/// Two operands and how many columns of the left one there are.
pub(super) type Term = (Left, Right, usize);

/// `rows` rows of at most as many whole vectors as [`shape`] says: `out = onto + scale sum_t left_t right_t`.
///
/// Every element is one chain of multiply-adds over ascending `k`, whatever tile it lies in.
///
/// # Safety
/// For all `i < rows`, `k < depth` and `j < vectors S::F32_LANES` the places above must lie in memory that may
/// be read (`left`, `right`, `onto`) or is exclusively the caller's (`out`).
#[allow(unsafe_code, reason = "bounds checks in the innermost loop cost a fifth of the time")]
#[inline(always)]
pub(super) unsafe fn tiles<S: Simd>(
    simd: S,
    rows: usize,
    vectors: usize,
    mut terms: [Term; 2],
    mut out: Out,
    ahead: Ahead,
) {
    let mut rest = rows;
    while rest > 0 {
        // SAFETY: the caller's promise, for a part of the rows.
        let done = unsafe {
            match (rest, vectors) {
                (8.., 3) => tile::<S, 8, 3>(simd, terms, out, ahead),
                (4.., 3) => tile::<S, 4, 3>(simd, terms, out, ahead),
                (2.., 3) => tile::<S, 2, 3>(simd, terms, out, ahead),
                (_, 3) => tile::<S, 1, 3>(simd, terms, out, ahead),
                (8.., 2) => tile::<S, 8, 2>(simd, terms, out, ahead),
                (6.., 2) => tile::<S, 6, 2>(simd, terms, out, ahead),
                (4.., 2) => tile::<S, 4, 2>(simd, terms, out, ahead),
                (2.., 2) => tile::<S, 2, 2>(simd, terms, out, ahead),
                (_, 2) => tile::<S, 1, 2>(simd, terms, out, ahead),
                (8.., _) => tile::<S, 8, 1>(simd, terms, out, ahead),
                (6.., _) => tile::<S, 6, 1>(simd, terms, out, ahead),
                (4.., _) => tile::<S, 4, 1>(simd, terms, out, ahead),
                (2.., _) => tile::<S, 2, 1>(simd, terms, out, ahead),
                _ => tile::<S, 1, 1>(simd, terms, out, ahead),
            }
        };
        for (left, ..) in &mut terms {
            left.data = left.data.wrapping_add(done * left.row);
        }
        out.data = out.data.wrapping_add(done * out.row);
        out.onto = out.onto.map(|onto| onto.wrapping_add(done * out.row));
        rest -= done;
    }
}

/// `R` rows of `V` vectors; returns `R`.
///
/// # Safety
/// As [`tiles`].
#[allow(unsafe_code, reason = "as above")]
#[inline(always)]
unsafe fn tile<S: Simd, const R: usize, const V: usize>(
    simd: S,
    [first, second]: [Term; 2],
    out: Out,
    ahead: Ahead,
) -> usize {
    let at = |i: usize, v: usize| i * out.row + v * S::F32_LANES;
    for i in 0..R {
        for v in 0..V {
            prefetch(out.data.wrapping_add(at(i, v)));
        }
    }
    let mut sums = [[simd.splat_f32s(0.0); V]; R];
    // SAFETY: the caller's promise.
    unsafe { add(simd, first, &mut sums, |k| ahead.ask(k)) };
    // SAFETY: as above.
    unsafe { add(simd, second, &mut sums, |_| ()) };
    let scale = simd.splat_f32s(out.scale);
    for i in 0..R {
        for v in 0..V {
            let sum = match out.onto {
                // SAFETY: a whole vector of row `i` of what the caller adds to.
                Some(onto) => simd.mul_add_e_f32s(scale, sums[i][v], unsafe {
                    onto.wrapping_add(at(i, v)).cast::<S::f32s>().read_unaligned()
                }),
                None => simd.mul_f32s(scale, sums[i][v]),
            };
            // SAFETY: a whole vector of the caller's row `i`.
            unsafe { out.data.wrapping_add(at(i, v)).cast::<S::f32s>().write_unaligned(sum) };
        }
    }
    R
}

/// Adds a term to the sums; `step` is called at every step of its depth.
///
/// # Safety
/// As [`tiles`].
#[allow(unsafe_code, reason = "as above")]
#[inline(always)]
unsafe fn add<S: Simd, const R: usize, const V: usize>(
    simd: S,
    (left, right, depth): Term,
    sums: &mut [[S::f32s; V]; R],
    step: impl Fn(usize),
) {
    let (mut a, mut b) = (left.data, right.data);
    for k in 0..depth {
        step(k);
        let mut x = [simd.splat_f32s(0.0); V];
        for v in 0..V {
            // SAFETY: row `k < depth`, a whole vector of the caller's columns.
            x[v] = unsafe { b.wrapping_add(v * S::F32_LANES).cast::<S::f32s>().read_unaligned() };
        }
        for i in 0..R {
            // SAFETY: element `k < depth` of row `i` of the left operand.
            let w = simd.splat_f32s(unsafe { a.wrapping_add(i * left.row).read() });
            for v in 0..V {
                sums[i][v] = simd.mul_add_e_f32s(w, x[v], sums[i][v]);
            }
        }
        a = a.wrapping_add(left.column);
        b = b.wrapping_add(right.row);
    }
}
