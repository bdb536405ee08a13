//! Functions `h` of a matrix `A >= 0` that are 0 exactly if its graph has no cycle, and their gradients.
//!
//! ```text
//! log-determinant   h = −log det(s I − A) + d log s      ∇h = (s I − A)^-T        where the spectral radius of A is below s
//! polynomial        h = tr (I + A/d)^d − d               ∇h = ((I + A/d)^(d−1))ᵀ
//! exponential       h = tr e^A − d                       ∇h = (e^A)ᵀ
//! ```
//! For a graph without a cycle the gradient of the first one at `(i, j)` is the total weight of the walks from `j` to `i`
//! ([`walks`]): it is 0 exactly if the edge `i -> j` can be added without making a cycle.
//!
//! # Reference
//! Bello, Aragam & Ravikumar 2022, arXiv:2209.08037; Zheng et al. 2018, arXiv:1803.01422; Yu et al. 2019, arXiv:1904.10098.

use saddlepoint_opt::linalg::Lu;

use super::graph::Weights;

/// Which function.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Acyclicity {
    /// The log-determinant with `s > 0`.
    LogDet(f64),
    /// The trace of a polynomial.
    Polynomial,
    /// The trace of the exponential.
    Exponential,
}

impl Acyclicity {
    /// `h(W∘W)` and its gradient with respect to `W`, `∇h ∘ 2 W`. `None` as for [`Self::value_and_grad`].
    pub(super) fn of_squares(self, w: &[f64], d: usize) -> Option<(f64, Vec<f64>)> {
        let squares: Vec<f64> = w.iter().map(|w| w * w).collect();
        let (h, grad) = self.value_and_grad(&squares, d)?;
        Some((h, grad.iter().zip(w).map(|(g, w)| 2.0 * g * w).collect()))
    }

    /// `h` and its gradient with respect to `A`, row-major, at the non-negative matrix `a` of `d` rows. `None` where it is not defined:
    /// a spectral radius of `s` or more, or an overflow.
    pub fn value_and_grad(self, a: &[f64], d: usize) -> Option<(f64, Vec<f64>)> {
        assert_eq!(a.len(), d * d, "a square matrix");
        let (value, grad) = match self {
            Acyclicity::LogDet(s) => {
                let mut m: Vec<f64> = a.iter().map(|a| -a).collect();
                (0..d).for_each(|i| m[i * d + i] += s);
                let lu = Lu::new(&m, d);
                let inverse = lu.inverse()?;
                // s I − A is an M-matrix exactly if its inverse is not negative; the determinant alone can be positive outside.
                let size = inverse.iter().fold(0.0_f64, |size, x| size.max(x.abs()));
                if inverse.iter().any(|x| *x < -1e-12 * size) {
                    return None;
                }
                (-lu.log_determinant()? + d as f64 * s.ln(), transposed(&inverse, d))
            }
            Acyclicity::Polynomial => {
                let mut m: Vec<f64> = a.iter().map(|a| a / d as f64).collect();
                (0..d).for_each(|i| m[i * d + i] += 1.0);
                let power = power(&m, d, d.saturating_sub(1));
                let trace: f64 =
                    (0..d).map(|i| (0..d).map(|k| power[i * d + k] * m[k * d + i]).sum::<f64>()).sum();
                (trace - d as f64, transposed(&power, d))
            }
            Acyclicity::Exponential => {
                let e = exponential(a, d);
                let trace: f64 = (0..d).map(|i| e[i * d + i]).sum();
                (trace - d as f64, transposed(&e, d))
            }
        };
        (value.is_finite() && grad.iter().all(|g| g.is_finite())).then_some((value, grad))
    }
}

/// `R = (I − |W|)^-1` of a graph without a cycle whose nodes stand in `order`: `R_jk` is the total weight of the walks from `j`
/// to `k`, and `∇h_ij = R_ji`. By substitution along the order, so that it is exact where it is 0.
pub fn walks(w: &Weights, order: &[usize]) -> Vec<f64> {
    let d = w.nodes();
    let mut walks = vec![0.0; d * d];
    for (place, &j) in order.iter().enumerate() {
        let row = &mut walks[j * d..(j + 1) * d];
        row[j] = 1.0;
        for &m in &order[place..] {
            let so_far = row[m];
            if so_far != 0.0 {
                for &k in order {
                    row[k] += so_far * w.get(m, k).abs();
                }
            }
        }
    }
    walks
}

fn transposed(a: &[f64], d: usize) -> Vec<f64> {
    let mut t = vec![0.0; d * d];
    (0..d).for_each(|i| (0..d).for_each(|j| t[j * d + i] = a[i * d + j]));
    t
}

/// `A B`.
fn times(a: &[f64], b: &[f64], d: usize) -> Vec<f64> {
    let mut c = vec![0.0; d * d];
    for i in 0..d {
        let row = &mut c[i * d..(i + 1) * d];
        for k in 0..d {
            let factor = a[i * d + k];
            if factor != 0.0 {
                row.iter_mut().zip(&b[k * d..(k + 1) * d]).for_each(|(c, b)| *c += factor * b);
            }
        }
    }
    c
}

/// `A^n` by squaring.
fn power(a: &[f64], d: usize, mut n: usize) -> Vec<f64> {
    let mut result = identity(d);
    let mut square = a.to_vec();
    while n > 0 {
        if n % 2 == 1 {
            result = times(&result, &square, d);
        }
        n /= 2;
        if n > 0 {
            square = times(&square, &square, d);
        }
    }
    result
}

fn identity(d: usize) -> Vec<f64> {
    (0..d * d).map(|at| f64::from(u8::from(at / d == at % d))).collect()
}

/// `e^A` by scaling and squaring of Taylor's series; all its terms are non-negative, so nothing cancels.
fn exponential(a: &[f64], d: usize) -> Vec<f64> {
    let norm = (0..d).map(|i| a[i * d..(i + 1) * d].iter().sum::<f64>()).fold(0.0, f64::max);
    if !norm.is_finite() {
        return vec![f64::NAN; d * d];
    }
    let halvings = if norm > 0.5 { (2.0 * norm).log2().ceil() as i32 } else { 0 };
    let scaled: Vec<f64> = a.iter().map(|a| a * 0.5_f64.powi(halvings)).collect();
    // 0.5^14 / 14! is below the rounding.
    let (mut term, mut sum) = (identity(d), identity(d));
    for k in 1..=14 {
        term = times(&term, &scaled, d);
        for t in &mut term {
            *t /= f64::from(k);
        }
        sum.iter_mut().zip(&term).for_each(|(s, t)| *s += t);
    }
    for _ in 0..halvings {
        sum = times(&sum, &sum, d);
    }
    sum
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use saddlepoint_core::test::assert_close;

    use super::*;

    const ALL: [Acyclicity; 3] = [Acyclicity::LogDet(1.0), Acyclicity::Polynomial, Acyclicity::Exponential];

    fn at(function: Acyclicity, a: &[f64], d: usize) -> (f64, Vec<f64>) {
        function.value_and_grad(a, d).expect("defined")
    }

    #[test]
    fn the_cycle_of_the_vectors() {
        let a = [0.0, 0.5, 0.0, 0.0, 0.0, 0.4, 0.3, 0.0, 0.0];
        let (value, grad) = at(Acyclicity::LogDet(1.0), &a, 3);
        assert_close!(value, 0.061_875_403_718, atol = 1e-12);
        assert_close!(grad[..3], [1.063_829_787_2, 0.127_659_574_5, 0.319_148_936_2], atol = 1e-10);
        assert_close!(at(Acyclicity::Polynomial, &a, 3).0, 0.006_666_666_667, atol = 1e-12);
        assert_close!(at(Acyclicity::Exponential, &a, 3).0, 0.030_015_001_786, atol = 1e-12);
        let squares: Vec<f64> = a.iter().map(|a| a * a).collect();
        assert_close!(at(Acyclicity::Exponential, &squares, 3).0, 0.001_800_054_000, atol = 1e-12);
    }

    #[test]
    fn outside_of_its_domain_there_is_no_log_determinant() {
        // Spectral radius 2: the determinant of I − A is −3 with one such cycle and 9 with two.
        let one = [0.0, 2.0, 2.0, 0.0];
        let two: Vec<f64> = (0..16)
            .map(|at| if [(0, 1), (1, 0), (2, 3), (3, 2)].contains(&(at / 4, at % 4)) { 2.0 } else { 0.0 })
            .collect();
        assert!(Acyclicity::LogDet(1.0).value_and_grad(&one, 2).is_none());
        assert!(Acyclicity::LogDet(1.0).value_and_grad(&two, 4).is_none());
        assert!(Acyclicity::LogDet(2.5).value_and_grad(&two, 4).is_some());
        for function in ALL {
            assert!(function.value_and_grad(&[f64::NAN], 1).is_none(), "{function:?}");
            assert!(function.value_and_grad(&[f64::INFINITY], 1).is_none(), "{function:?}");
            assert_close!(at(function, &[], 0).0, 0.0, atol = 0.0);
        }
    }

    proptest! {
        #[test]
        fn gradients_are_those_of_finite_differences(values in proptest::collection::vec(0.0..0.3_f64, 16)) {
            for function in ALL {
                let (_, grad) = at(function, &values, 4);
                for k in 0..16 {
                    let step = 1e-6;
                    let moved = |by: f64| {
                        let mut a = values.clone();
                        a[k] += by;
                        function.value_and_grad(&a, 4).map(|found| found.0)
                    };
                    // The spectral radius may be near 1, where the log-determinant ends.
                    let (Some(high), Some(low)) = (moved(step), moved(-step)) else { continue };
                    let slope = (high - low) / (2.0 * step);
                    prop_assert!((slope - grad[k]).abs() <= 1e-5 * grad[k].abs().max(1.0), "{function:?} {slope} {}", grad[k]);
                }
            }
        }

        #[test]
        fn without_a_cycle_h_is_0_and_its_gradient_counts_walks(values in proptest::collection::vec(-2.0..2.0_f64, 36), shift in 0_usize..6) {
            // Edges go up in the order shift, shift + 1, ...
            let order: Vec<usize> = (0..6).map(|k| (k + shift) % 6).collect();
            let mut w = Weights::none(6);
            for (place, &i) in order.iter().enumerate() {
                order[place + 1..].iter().for_each(|&j| w.set(i, j, values[i * 6 + j]));
            }
            let a: Vec<f64> = w.values().iter().map(|w| w.abs()).collect();
            let walks = walks(&w, &order);
            for function in ALL {
                prop_assert!(at(function, &a, 6).0.abs() < 1e-9, "{function:?}");
            }
            let (_, grad) = at(Acyclicity::LogDet(1.0), &a, 6);
            for i in 0..6 {
                for j in 0..6 {
                    prop_assert!((grad[i * 6 + j] - walks[j * 6 + i]).abs() < 1e-9 * (1.0 + walks[j * 6 + i]));
                }
            }
        }
    }
}
