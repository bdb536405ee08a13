//! Matrix products: strided views and the call into the GEMM crate.

use std::ops::Range;

use rayon::prelude::*;

/// A matrix that is read: any row and column stride.
#[derive(Debug, Clone, Copy)]
pub struct Mat<'a> {
    data: &'a [f32],
    rows: usize,
    columns: usize,
    row_stride: usize,
    column_stride: usize,
}

impl<'a> Mat<'a> {
    /// A dense row-major matrix.
    pub fn new(data: &'a [f32], rows: usize, columns: usize) -> Self {
        Self::strided(data, rows, columns, columns)
    }

    /// Rows `row_stride` elements apart.
    pub fn strided(data: &'a [f32], rows: usize, columns: usize, row_stride: usize) -> Self {
        check(data.len(), rows, columns, row_stride);
        Self { data, rows, columns, row_stride, column_stride: 1 }
    }

    /// A range of its columns.
    fn columns(self, columns: Range<usize>) -> Self {
        Self { data: &self.data[columns.start * self.column_stride..], columns: columns.len(), ..self }
    }

    /// The transpose.
    #[must_use]
    pub fn t(self) -> Self {
        Self {
            rows: self.columns,
            columns: self.rows,
            row_stride: self.column_stride,
            column_stride: self.row_stride,
            ..self
        }
    }
}

/// A row-major matrix that is written.
#[derive(Debug)]
pub struct MatMut<'a> {
    data: &'a mut [f32],
    rows: usize,
    columns: usize,
    row_stride: usize,
}

impl<'a> MatMut<'a> {
    /// A dense matrix.
    pub fn new(data: &'a mut [f32], rows: usize, columns: usize) -> Self {
        Self::strided(data, rows, columns, columns)
    }

    /// Rows `row_stride` elements apart.
    pub fn strided(data: &'a mut [f32], rows: usize, columns: usize, row_stride: usize) -> Self {
        check(data.len(), rows, columns, row_stride);
        Self { data, rows, columns, row_stride }
    }
}

fn check(len: usize, rows: usize, columns: usize, row_stride: usize) {
    assert!(row_stride >= columns, "rows must not overlap");
    assert!(rows == 0 || (rows - 1) * row_stride + columns <= len, "the matrix exceeds its slice");
}

/// Whether a product may use the whole thread pool or runs inside a task already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Threads {
    One,
    All,
}

/// Deepest product that the GEMM crate sums in one piece; deeper ones it cuts into equal pieces.
const DEPTH: usize = 512;
/// Widest left operand that the GEMM crate rearranges on one thread before the others start.
const PREPACKED: usize = 1024;
/// Columns of its kernel.
const COLUMNS: usize = 64;

/// `c = scale a b`, or `c += scale a b` with `accumulate`.
///
/// Each element is summed over ascending `k` in pieces of at most [`DEPTH`], for two rows of `c` or more in an
/// order that does not depend on how many there are. The GEMM crate has two exceptions for small results, which
/// are not left to it: it sums them in vector lanes where both operands are contiguous along `k`, and cuts at
/// [`DEPTH`] unevenly.
#[allow(clippy::needless_pass_by_value, reason = "a view is made for one product")]
pub(crate) fn matmul(c: MatMut<'_>, a: Mat<'_>, b: Mat<'_>, scale: f32, accumulate: bool, threads: Threads) {
    assert_eq!((c.rows, c.columns, a.columns), (a.rows, b.columns, b.rows), "shapes of a matrix product");
    if c.rows == 0 || c.columns == 0 {
        return;
    }
    let target =
        Target { data: c.data.as_mut_ptr(), rows: c.rows, columns: c.columns, row_stride: c.row_stride };
    let deep = b.row_stride == 1 && b.column_stride != 1;
    let workers = rayon::current_num_threads();
    if deep && threads == Threads::All && workers > 1 && c.columns <= PREPACKED && c.columns > COLUMNS {
        // Every thread rearranges its own columns.
        let step = c.columns.div_ceil(workers).next_multiple_of(COLUMNS);
        (0..c.columns.div_ceil(step)).into_par_iter().for_each(|part| {
            let columns = part * step..c.columns.min((part + 1) * step);
            even(target.columns(columns.clone()), a, b.columns(columns), scale, accumulate, Threads::One);
        });
        return;
    }
    even(target, a, b, scale, accumulate, threads);
}

/// A product without the GEMM crate's exceptions.
fn even(c: Target, a: Mat<'_>, b: Mat<'_>, scale: f32, accumulate: bool, threads: Threads) {
    let deep = b.row_stride == 1 && b.column_stride != 1;
    if !deep || (c.columns > 1 && c.rows * c.columns > 256) {
        return cut(c, a, b, scale, accumulate, threads);
    }
    let (stride, mut turned) = (c.columns.max(2), vec![0.0; b.rows * c.columns.max(2)]);
    for (column, values) in b.data.chunks(b.column_stride).take(c.columns).enumerate() {
        for (row, &v) in values[..b.rows].iter().enumerate() {
            turned[row * stride + column] = v;
        }
    }
    cut(c, a, Mat::strided(&turned, b.rows, c.columns, stride), scale, accumulate, threads);
}

/// A product whose sums are cut evenly.
fn cut(c: Target, a: Mat<'_>, b: Mat<'_>, scale: f32, accumulate: bool, threads: Threads) {
    let depth = b.rows;
    if c.rows > 64 || c.columns > 64 || depth <= DEPTH {
        return gemm(c, a, b, scale, accumulate, threads);
    }
    let step = depth.div_ceil(depth.div_ceil(DEPTH));
    for from in (0..depth).step_by(step) {
        let piece = from..depth.min(from + step);
        gemm(c, a.columns(piece.clone()), b.t().columns(piece).t(), scale, accumulate || from > 0, threads);
    }
}

/// A matrix that is written, of which threads write different columns.
#[derive(Debug, Clone, Copy)]
struct Target {
    data: *mut f32,
    rows: usize,
    columns: usize,
    row_stride: usize,
}

#[allow(unsafe_code, reason = "a target is only handed to threads in parts that do not overlap")]
// SAFETY: `matmul` makes it from an exclusive borrow, and gives each column to one thread.
unsafe impl Send for Target {}
#[allow(unsafe_code, reason = "as above")]
// SAFETY: as above.
unsafe impl Sync for Target {}

impl Target {
    fn columns(self, columns: Range<usize>) -> Self {
        Self { data: self.data.wrapping_add(columns.start), columns: columns.len(), ..self }
    }
}

#[allow(
    unsafe_code,
    reason = "the GEMM crate takes raw pointers; all views were checked against their slices"
)]
fn gemm(c: Target, a: Mat<'_>, b: Mat<'_>, scale: f32, accumulate: bool, threads: Threads) {
    let parallelism = match threads {
        Threads::One => gemm_common::Parallelism::None,
        Threads::All => gemm_common::Parallelism::Rayon(0),
    };
    // The crate wants a column-major result: c^T = b^T a^T.
    //
    // SAFETY: `check` bounds every index of the three views, and nothing else accesses these columns of `c`.
    unsafe {
        gemm_f32::gemm::f32::get_gemm_fn()(
            c.columns,
            c.rows,
            a.columns,
            c.data,
            c.row_stride as isize,
            1,
            accumulate,
            b.data.as_ptr(),
            b.row_stride as isize,
            b.column_stride as isize,
            a.data.as_ptr(),
            a.row_stride as isize,
            a.column_stride as isize,
            1.0,
            scale,
            false,
            false,
            false,
            parallelism,
        );
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
    fn agrees_with_three_loops_for_every_orientation() {
        for (m, n, k) in [(1, 1, 1), (3, 5, 7), (17, 33, 16), (64, 48, 130), (5, 200, 64)] {
            let a = filled(m * k, 1);
            let b = filled(k * n, 2);
            let base = filled(m * n, 3);
            for (ta, tb) in [(false, false), (false, true), (true, false), (true, true)] {
                let av = if ta { Mat::new(&a, k, m).t() } else { Mat::new(&a, m, k) };
                let bv = if tb { Mat::new(&b, n, k).t() } else { Mat::new(&b, k, n) };
                let mut c = base.clone();
                matmul(MatMut::new(&mut c, m, n), av, bv, 0.5, true, Threads::All);
                for i in 0..m {
                    for j in 0..n {
                        let exact: f64 = (0..k)
                            .map(|l| {
                                let x = if ta { a[l * m + i] } else { a[i * k + l] };
                                let y = if tb { b[j * k + l] } else { b[l * n + j] };
                                f64::from(x) * f64::from(y)
                            })
                            .sum();
                        let want = f64::from(base[i * n + j]) + 0.5 * exact;
                        assert!(
                            (f64::from(c[i * n + j]) - want).abs() < 1e-4,
                            "{m}x{n}x{k} {ta} {tb} at {i},{j}"
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn the_number_of_threads_does_not_change_a_bit() {
        let (m, n, k) = (300, 700, 576);
        let (a, b) = (filled(m * k, 4), filled(n * k, 5));
        let run = |threads| {
            let mut c = vec![0.0; m * n];
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("a thread pool");
            pool.install(|| {
                matmul(
                    MatMut::new(&mut c, m, n),
                    Mat::new(&a, m, k),
                    Mat::new(&b, n, k).t(),
                    1.0,
                    false,
                    Threads::All,
                );
            });
            c
        };
        let one = run(1);
        for threads in [2, 3, 5] {
            assert!(
                one.iter().zip(&run(threads)).all(|(x, y)| x.to_bits() == y.to_bits()),
                "{threads} threads"
            );
        }
    }

    #[test]
    fn a_row_does_not_depend_on_how_many_there_are() {
        for (n, k) in [(1, 576), (8, 576), (16, 40), (48, 1300), (64, 700), (96, 576), (200, 1300)] {
            let (a, b) = (filled(300 * k, 6), filled(n * k, 7));
            let rows = |m: usize| {
                let mut c = vec![0.0; m * n];
                let (a, b) = (Mat::new(&a[..m * k], m, k), Mat::new(&b, n, k).t());
                matmul(MatMut::new(&mut c, m, n), a, b, 1.0, false, Threads::All);
                c
            };
            let all = rows(300);
            for m in [2, 3, 7, 16, 17, 33, 64, 65, 129] {
                let some = rows(m);
                assert!(some.iter().zip(&all).all(|(x, y)| x.to_bits() == y.to_bits()), "{m} rows, {n}x{k}");
            }
        }
    }
}
