//! Matrix products of strided views.

use half::bf16;

use super::gemm::{Product, Target, Unit};

/// Elements as they are stored.
#[derive(Debug, Clone, Copy)]
pub(super) enum Values<'a> {
    F32(&'a [f32]),
    Bf16(&'a [bf16]),
}

/// A matrix that is read: any row and column stride.
#[derive(Debug, Clone, Copy)]
pub struct Mat<'a> {
    pub(super) values: Values<'a>,
    pub(super) rows: usize,
    pub(super) columns: usize,
    pub(super) row_stride: usize,
    pub(super) column_stride: usize,
}

impl<'a> Mat<'a> {
    /// A dense row-major matrix.
    pub fn new(data: &'a [f32], rows: usize, columns: usize) -> Self {
        Self::strided(data, rows, columns, columns)
    }

    /// Rows `row_stride` elements apart.
    pub fn strided(data: &'a [f32], rows: usize, columns: usize, row_stride: usize) -> Self {
        check(data.len(), rows, columns, row_stride);
        Self { values: Values::F32(data), rows, columns, row_stride, column_stride: 1 }
    }

    /// A dense row-major matrix of bf16, which a product widens as it reads.
    pub fn bf16(data: &'a [bf16], rows: usize, columns: usize) -> Self {
        check(data.len(), rows, columns, columns);
        Self { values: Values::Bf16(data), rows, columns, row_stride: columns, column_stride: 1 }
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

    /// Its elements, if they are `f32` and those of a row are neighbours.
    pub(super) fn in_order(self) -> Option<&'a [f32]> {
        match self.values {
            Values::F32(data) if self.column_stride == 1 => Some(data),
            _ => None,
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

/// Multiply-adds that are not worth a second thread.
const SMALL: usize = 1 << 18;

/// `c = scale a b`, or `c += scale a b` with `accumulate`.
///
/// Each element is summed over ascending `k` in an order that depends on the depth alone: neither the other rows and
/// columns nor the number of threads change a bit of it.
#[allow(clippy::needless_pass_by_value, reason = "a view is made for one product")]
pub(crate) fn matmul(c: MatMut<'_>, a: Mat<'_>, b: Mat<'_>, scale: f32, accumulate: bool, threads: Threads) {
    let data = c.data.as_mut_ptr();
    let onto = accumulate.then_some(data.cast_const());
    let target = Target { data, onto, row_stride: c.row_stride };
    let (rows, columns) = (0..c.rows, 0..c.columns);
    divided(&Product { c: target, a, b, more: None, rows, columns, scale, then: None }, threads);
}

/// `c = onto + a b + a' b'`, with zeros for what is not given, in one pass over `c`. `onto` lies as `c`; the rows of `a'` are
/// in order.
///
/// The sums are those of [`matmul`], with `a' b'` after the last `k`.
#[allow(clippy::needless_pass_by_value, reason = "a view is made for one product")]
pub(crate) fn matmul_onto(
    c: MatMut<'_>,
    onto: Option<&[f32]>,
    a: Mat<'_>,
    b: Mat<'_>,
    more: Option<(Mat<'_>, Mat<'_>)>,
) {
    if let Some(onto) = onto {
        check(onto.len(), c.rows, c.columns, c.row_stride);
    }
    let onto = onto.map(<[f32]>::as_ptr);
    let target = Target { data: c.data.as_mut_ptr(), onto, row_stride: c.row_stride };
    let (rows, columns) = (0..c.rows, 0..c.columns);
    divided(&Product { c: target, a, b, more, rows, columns, scale: 1.0, then: None }, Threads::All);
}

/// A whole product, done by all threads if it is worth them.
fn divided(whole: &Product<'_>, threads: Threads) {
    let (m, n, depth) = (whole.rows.end, whole.columns.end, whole.a.columns);
    for (a, b) in [(whole.a, whole.b)].into_iter().chain(whole.more) {
        assert_eq!((m, n, a.columns), (a.rows, b.columns, b.rows), "shapes of a matrix product");
    }
    if m == 0 || n == 0 {
        return;
    }
    let (unit, workers) = match threads {
        // Products inside of a task are small.
        Threads::One => (Unit::Vectors, 1),
        Threads::All if m * n * depth < SMALL => (Unit::of(n, depth), 1),
        Threads::All => (Unit::of(n, depth), rayon::current_num_threads()),
    };
    whole.run(unit, workers);
}

#[cfg(test)]
mod tests {
    use super::super::filled;
    use super::*;

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
            for m in [1, 2, 3, 7, 16, 17, 33, 64, 65, 129] {
                let some = rows(m);
                assert!(some.iter().zip(&all).all(|(x, y)| x.to_bits() == y.to_bits()), "{m} rows, {n}x{k}");
            }
        }
    }

    #[test]
    fn two_products_and_what_they_are_added_to_are_one_sum() {
        for (m, n, k, low) in [
            (1, 1, 1, 1),
            (3, 5, 7, 2),
            (70, 49, 33, 16),
            (100, 48, 800, 16),
            (70, 200, 300, 40),
            (9, 96, 0, 4),
        ] {
            let (a, b) = (filled(m * k, 1), filled(n * k, 2));
            let (u, v) = (filled(m * (low + 3), 3), filled(n * low, 4));
            let onto = filled(m * n, 5);
            let (a, b) = (Mat::new(&a, m, k), Mat::new(&b, n, k).t());
            let more = (Mat::strided(&u, m, low, low + 3), Mat::new(&v, n, low).t());
            let mut apart = onto.clone();
            matmul(MatMut::new(&mut apart, m, n), a, b, 1.0, true, Threads::All);
            matmul(MatMut::new(&mut apart, m, n), more.0, more.1, 1.0, true, Threads::All);
            let mut whole = vec![9.0; m * n];
            matmul_onto(MatMut::new(&mut whole, m, n), Some(&onto), a, b, Some(more));
            for (x, y) in whole.iter().zip(&apart) {
                assert!((x - y).abs() < 1e-4, "{m}x{n}x{k}+{low}: {x} {y}");
            }
            // A sum of nothing else is the product itself.
            matmul_onto(MatMut::new(&mut whole, m, n), None, a, b, None);
            matmul(MatMut::new(&mut apart, m, n), a, b, 1.0, false, Threads::All);
            assert!(whole.iter().zip(&apart).all(|(x, y)| x.to_bits() == y.to_bits()), "{m}x{n}x{k}");
        }
    }

    #[test]
    fn an_empty_sum_is_zero_and_an_empty_result_is_left_alone() {
        let mut c = vec![2.0; 6];
        matmul(MatMut::new(&mut c, 2, 3), Mat::new(&[], 2, 0), Mat::new(&[], 0, 3), 1.0, true, Threads::All);
        assert_eq!(c, [2.0; 6]);
        matmul(MatMut::new(&mut c, 2, 3), Mat::new(&[], 2, 0), Mat::new(&[], 0, 3), 1.0, false, Threads::All);
        assert_eq!(c, [0.0; 6]);
        matmul(
            MatMut::new(&mut [], 0, 3),
            Mat::new(&[], 0, 3),
            Mat::new(&[1.0; 9], 3, 3),
            1.0,
            false,
            Threads::All,
        );
    }

    #[test]
    fn nothing_beside_the_result_is_written() {
        let (m, n, k, stride) = (13, 37, 20, 41);
        let (a, b) = (filled(m * k, 1), filled(k * n, 2));
        let mut wide = vec![7.0; m * stride];
        let mut dense = vec![0.0; m * n];
        let (a, b) = (Mat::new(&a, m, k), Mat::new(&b, k, n));
        matmul(MatMut::strided(&mut wide, m, n, stride), a, b, 1.0, false, Threads::All);
        matmul(MatMut::new(&mut dense, m, n), a, b, 1.0, false, Threads::All);
        for (wide, dense) in wide.chunks_exact(stride).zip(dense.chunks_exact(n)) {
            assert_eq!(&wide[..n], dense);
            assert_eq!(wide[n..], [7.0; 4]);
        }
    }
}
