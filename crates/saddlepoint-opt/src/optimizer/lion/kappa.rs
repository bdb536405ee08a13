//! The convex functions `K` of the family: value, subgradient and conjugate `K*(y) = sup_z y·z − K(z)`.
//!
//! With weight decay `λ` the optimizer minimises `f(x) + (1/λ) K*(λ x)`. For `λ = 1`:
//! ```text
//! name            K(z)                       ∂K(z)                         what is minimised
//! l1              Σ |z|                      sign(z)                       f  where |x| <= 1             (Lion)
//! lp              ‖z‖_p                      sign(z) (|z| / ‖z‖_p)^(p−1)   f  where ‖x‖_q <= 1, 1/p + 1/q = 1
//! soft-threshold  Σ max(|z| − e, 0)          sign(z) where |z| > e         f + e ‖x‖₁  where |x| <= 1
//! top-k           Σ of the k largest |z|     sign(z) at these k            f  where ‖x‖₁ <= k, |x| <= 1
//! huber           Σ z²/2e, or |z| − e/2      clip(z, −e, e) / e            f + (e/2) ‖x‖²  where |x| <= 1
//! sqrt            Σ √(z² + e²)               z / √(z² + e²)                f − e Σ √(1 − x²)
//! log-cosh        Σ ln cosh z                tanh z                        f + Σ ½ [(1+x) ln(1+x) + (1−x) ln(1−x)]
//! half-square     ½ Σ z²                     z                             f + ½ ‖x‖²
//! l2              ‖z‖₂, or its sum over rows z / ‖z‖₂                      f  where ‖x‖₂ <= 1, of each row
//! nuclear         Σ of singular values       U Vᵀ                          f  where the spectral norm <= 1
//! ```
//! The first five are in table 2 of Chen et al. as far as we know; the others are usual members of the family. All
//! conjugates were derived anew and are tested by Fenchel's equality `K(z) + K*(∂K(z)) = z·∂K(z)`.
//!
//! Norms are over a whole tensor. At 0 the subgradient is 0, and norms below `1e-12` count as `1e-12`.

use rayon::prelude::*;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::super::decayed::CHUNK;
use super::super::sign_sgd::sign;
use crate::simd::vectorized;
use crate::{Error, Result, linalg};

/// Smallest norm that a vector is divided by.
const FLOOR: f64 = 1e-12;
/// How far outside of the domain of `K*` counts as rounding.
const SLACK: f64 = 1e-12;

/// A choice of `K`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "name", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Kappa {
    /// The l1 norm, which makes it Lion.
    #[default]
    L1,
    /// The p-norm. An update has an l2 norm of at most 1 for `p >= 2`, that of Lion one of `√d`: compare at learning
    /// rates that differ by it.
    Lp {
        /// The exponent, > 1.
        p: f64,
    },
    /// The l1 norm of what exceeds a threshold: only momentum beyond it moves, and the result is sparse.
    SoftThreshold {
        /// The threshold, in units of the gradient, > 0.
        e: f64,
    },
    /// The sum of the largest elements: only they move. Of equal elements the first count.
    TopK {
        /// Elements that move in each tensor, at least 1.
        k: usize,
    },
    /// The Huber loss: a sign that is linear near 0.
    Huber {
        /// Where it becomes a sign, in units of the gradient, > 0.
        e: f64,
    },
    /// A smooth l1 norm.
    Sqrt {
        /// Where it becomes a sign, in units of the gradient, > 0.
        e: f64,
    },
    /// A smooth l1 norm whose conjugate is an entropy.
    LogCosh,
    /// Half the squared l2 norm: momentum with an l2 penalty.
    HalfSquare,
    /// The l2 norm: normalised momentum.
    L2 {
        /// What is normalised.
        #[serde(default)]
        group: Group,
    },
    /// The nuclear norm of each matrix (of a vector, its l2 norm): orthogonalised momentum, as in Muon. Takes a
    /// singular value decomposition of every matrix at every step, so it is for adapters and small models.
    Nuclear,
}

/// What an l2 norm is taken of.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Group {
    /// A tensor.
    #[default]
    Tensor,
    /// Each row of a matrix.
    Row,
}

impl Kappa {
    /// Refuses a parameter outside its range.
    ///
    /// # Errors
    /// As said.
    pub fn check(self) -> Result<()> {
        let (ok, key, range, got) = match self {
            Kappa::Lp { p } => (p > 1.0 && p.is_finite(), "kappa.p", "> 1", p),
            Kappa::TopK { k } => (k >= 1, "kappa.k", ">= 1", k as f64),
            Kappa::SoftThreshold { e } | Kappa::Huber { e } | Kappa::Sqrt { e } => {
                (e > 0.0 && e.is_finite(), "kappa.e", "> 0", e)
            }
            _ => return Ok(()),
        };
        if ok { Ok(()) } else { Err(Error::required(key, range, got)) }
    }

    /// `K(z)` of a tensor whose rows have `columns` elements (a vector is one row).
    ///
    /// # Errors
    /// A singular value decomposition fails.
    pub fn value(self, z: &[f64], columns: usize) -> Result<f64> {
        Ok(match self {
            Kappa::L1 => sum(z, f64::abs),
            Kappa::Lp { p } => norm(z, p),
            Kappa::SoftThreshold { e } => sum(z, |z| (z.abs() - e).max(0.0)),
            Kappa::TopK { k } => {
                let (least, ties) = largest(z, k);
                sum(z, |z| if z.abs() > least { z.abs() } else { 0.0 }) + least * ties as f64
            }
            Kappa::Huber { e } => sum(z, |z| {
                let z = z.abs();
                if z <= e { z * z / (2.0 * e) } else { z - e / 2.0 }
            }),
            Kappa::Sqrt { e } => sum(z, |z| z.hypot(e)),
            Kappa::LogCosh => sum(z, |z| z.abs() + (-2.0 * z.abs()).exp().ln_1p() - std::f64::consts::LN_2),
            Kappa::HalfSquare => sum(z, |z| z * z) / 2.0,
            Kappa::L2 { group } => z.chunks(group.size(z.len(), columns)).map(length).sum(),
            Kappa::Nuclear => linalg::singular_values(z, columns)?.iter().sum(),
        })
    }

    /// Replaces `z`, a tensor whose rows have `columns` elements, by a subgradient of `K` at it.
    ///
    /// # Errors
    /// A singular value decomposition fails; then `z` has not changed.
    pub fn subgradient(self, z: &mut [f64], columns: usize) -> Result<()> {
        match self {
            Kappa::Lp { p } => {
                let norm = norm(z, p).max(FLOOR);
                z.par_iter_mut().for_each(|z| *z = sign(*z) * (z.abs() / norm).powf(p - 1.0));
            }
            Kappa::TopK { k } => {
                let (least, mut ties) = largest(z, k);
                for z in z {
                    let tie = z.abs().to_bits() == least.to_bits() && ties > 0;
                    ties -= usize::from(tie);
                    *z = if tie || z.abs() > least { sign(*z) } else { 0.0 };
                }
            }
            Kappa::L2 { group } => z.par_chunks_mut(group.size(z.len(), columns)).for_each(|row| {
                let length = length(row).max(FLOOR);
                row.par_iter_mut().for_each(|z| *z /= length);
            }),
            Kappa::Nuclear => linalg::polar(z, columns)?,
            Kappa::L1 => each(z, sign),
            Kappa::SoftThreshold { e } => each(z, |z| soft_threshold(z, e)),
            Kappa::Huber { e } => each(z, |z| clip(z, e)),
            Kappa::Sqrt { e } => each(z, |z| smooth_sign(z, e)),
            Kappa::LogCosh => each(z, f64::tanh),
            Kappa::HalfSquare => {}
        }
        Ok(())
    }

    /// `K*(y)`; infinite outside of its domain, of which `1e-12` outside counts as its boundary.
    ///
    /// # Errors
    /// A singular value decomposition fails.
    pub fn conjugate(self, y: &[f64], columns: usize) -> Result<f64> {
        let most = y.iter().fold(0.0, |most: f64, y| most.max(y.abs()));
        let (size, inside) = match self {
            Kappa::L1 => (most, 0.0),
            Kappa::Lp { p } => (norm(y, p / (p - 1.0)), 0.0),
            Kappa::SoftThreshold { e } => (most, e * sum(y, f64::abs)),
            Kappa::TopK { k } => (most.max(sum(y, f64::abs) / k as f64), 0.0),
            Kappa::Huber { e } => (most, e / 2.0 * sum(y, |y| y * y)),
            Kappa::Sqrt { e } => (most, -e * sum(y, |y| (1.0 - y * y).max(0.0).sqrt())),
            Kappa::LogCosh => (most, sum(y, |y| f64::midpoint(y_ln_y(1.0 + y), y_ln_y(1.0 - y)))),
            Kappa::HalfSquare => (0.0, sum(y, |y| y * y) / 2.0),
            Kappa::L2 { group } => {
                (y.chunks(group.size(y.len(), columns)).map(length).fold(0.0, f64::max), 0.0)
            }
            Kappa::Nuclear => (linalg::singular_values(y, columns)?.first().copied().unwrap_or(0.0), 0.0),
        };
        Ok(if size <= 1.0 + SLACK { inside } else { f64::INFINITY })
    }

    /// The smallest subgradient of `K*` at `y`: 0 inside of a domain that only constrains.
    ///
    /// # Errors
    /// There is none: `y` is outside of the domain, or on its boundary where the slope of `K*` is infinite.
    pub fn conjugate_subgradient(self, y: &[f64], columns: usize) -> Result<Vec<f64>> {
        let inside = self.conjugate(y, columns)?.is_finite();
        let slope: Vec<f64> = match self {
            Kappa::SoftThreshold { e } => y.iter().map(|&y| e * sign(y)).collect(),
            Kappa::Huber { e } => y.iter().map(|y| e * y).collect(),
            Kappa::Sqrt { e } => y.iter().map(|y| e * y / (1.0 - y * y).sqrt()).collect(),
            Kappa::LogCosh => y.iter().map(|y| y.atanh()).collect(),
            Kappa::HalfSquare => y.to_vec(),
            _ => vec![0.0; y.len()],
        };
        if inside && slope.iter().all(|slope| slope.is_finite()) {
            return Ok(slope);
        }
        Err(Error::Domain { kappa: format!("{self:?}"), domain: self.domain() })
    }

    fn domain(self) -> &'static str {
        match self {
            Kappa::L1 | Kappa::SoftThreshold { .. } | Kappa::Huber { .. } => "|y| <= 1",
            Kappa::Sqrt { .. } | Kappa::LogCosh => "|y| < 1",
            Kappa::Lp { .. } => "the ball of the dual norm",
            Kappa::TopK { .. } => "|y| <= 1 and sum |y| <= k",
            Kappa::HalfSquare => "the finite numbers",
            Kappa::L2 { .. } => "the ball of the l2 norm",
            Kappa::Nuclear => "the ball of the spectral norm",
        }
    }
}

impl Group {
    /// Elements that are normalised together.
    fn size(self, len: usize, columns: usize) -> usize {
        match self {
            Group::Tensor => len,
            Group::Row => columns,
        }
        .max(1)
    }
}

/// `sign(z)` beyond `e`.
#[allow(clippy::inline_always, reason = "compiled once for each instruction set, inside the dispatch")]
#[inline(always)]
pub(super) fn soft_threshold(z: f64, e: f64) -> f64 {
    sign(z) * f64::from(u8::from(z.abs() > e))
}

/// `clip(z, −e, e) / e`.
#[allow(clippy::inline_always, reason = "compiled once for each instruction set, inside the dispatch")]
#[inline(always)]
pub(super) fn clip(z: f64, e: f64) -> f64 {
    (z / e).clamp(-1.0, 1.0)
}

/// `z / √(z² + e²)`, of numbers of at most 1, so that no square overflows.
#[allow(clippy::inline_always, reason = "compiled once for each instruction set, inside the dispatch")]
#[inline(always)]
pub(super) fn smooth_sign(z: f64, e: f64) -> f64 {
    let scale = z.abs().max(e);
    let (z, e) = (z / scale, e / scale);
    z / (z * z + e * e).sqrt()
}

fn each(z: &mut [f64], to: impl Fn(f64) -> f64 + Sync) {
    z.par_chunks_mut(CHUNK).for_each(|z| {
        vectorized(
            #[inline(always)]
            || z.iter_mut().for_each(|z| *z = to(*z)),
        );
    });
}

/// `y ln y`, which is 0 at 0 and, by rounding, below.
fn y_ln_y(y: f64) -> f64 {
    if y > 0.0 { y * y.ln() } else { 0.0 }
}

/// A sum in a fixed order: the same for any number of threads.
fn sum(z: &[f64], of: impl Fn(f64) -> f64 + Sync) -> f64 {
    let partial: Vec<f64> = z.par_chunks(CHUNK).map(|z| z.iter().map(|&z| of(z)).sum()).collect();
    partial.iter().sum()
}

/// The p-norm, scaled so that no power overflows or vanishes.
fn norm(z: &[f64], p: f64) -> f64 {
    scaled(z, |z| z.powf(p)).map_or(0.0, |(most, sum)| most * sum.powf(1.0 / p))
}

/// The l2 norm.
fn length(z: &[f64]) -> f64 {
    scaled(z, |z| z * z).map_or(0.0, |(most, sum)| most * sum.sqrt())
}

/// The largest magnitude, and the sum of a power of all magnitudes over it.
fn scaled(z: &[f64], power: impl Fn(f64) -> f64 + Sync) -> Option<(f64, f64)> {
    let most = z.iter().fold(0.0, |most: f64, z| most.max(z.abs()));
    (most > 0.0).then(|| (most, sum(z, |z| power(z.abs() / most))))
}

/// The magnitude of the `k`-th largest element, and how many of that magnitude are among the `k` largest.
fn largest(z: &[f64], k: usize) -> (f64, usize) {
    let k = k.min(z.len());
    if k == 0 {
        return (0.0, 0);
    }
    let mut sizes: Vec<f64> = z.iter().map(|z| z.abs()).collect();
    let least = *sizes.select_nth_unstable_by(k - 1, |a, b| b.total_cmp(a)).1;
    (least, k - sizes.iter().filter(|&&size| size > least).count())
}

#[cfg(test)]
mod tests {
    use saddlepoint_core::test::assert_close;

    use super::super::tests::EVERY;
    use super::*;

    const Z: [f64; 4] = [1.5, -0.2, 0.7, -3.0];

    fn subgradient(kappa: Kappa, z: &[f64], columns: usize) -> Vec<f64> {
        let mut z = z.to_vec();
        kappa.subgradient(&mut z, columns).expect("finite");
        z
    }

    fn dot(a: &[f64], b: &[f64]) -> f64 {
        a.iter().zip(b).map(|(a, b)| a * b).sum()
    }

    #[test]
    fn agrees_with_worked_examples() {
        let e = 0.5;
        for (kappa, value, slope) in [
            (
                Kappa::Lp { p: 3.0 },
                3.132_097_999_02,
                [0.229_356_912_64, -0.004_077_456_224_72, 0.049_948_838_752_8, -0.917_427_650_562],
            ),
            (Kappa::SoftThreshold { e }, 3.7, [1.0, 0.0, 1.0, -1.0]),
            (Kappa::TopK { k: 2 }, 4.5, [1.0, 0.0, 0.0, -1.0]),
            (Kappa::Huber { e }, 4.49, [1.0, -0.4, 1.0, -1.0]),
            (
                Kappa::Sqrt { e },
                6.021_269_102_65,
                [0.948_683_298_051, -0.371_390_676_354, 0.813_733_471_207, -0.986_393_923_832],
            ),
            (
                Kappa::LogCosh,
                3.411_906_976_79,
                [0.905_148_253_645, -0.197_375_320_225, 0.604_367_777_117, -0.995_054_753_687],
            ),
            (
                Kappa::L2 { group: Group::Tensor },
                dot(&Z, &Z).sqrt(),
                [0.437_037_410_061, -0.058_271_654_674_8, 0.203_950_791_362, -0.874_074_820_122],
            ),
            (Kappa::L1, 5.4, [1.0, -1.0, 1.0, -1.0]),
            (Kappa::HalfSquare, dot(&Z, &Z) / 2.0, Z),
        ] {
            assert_close!(kappa.value(&Z, 4).expect("finite"), value, rtol = 1e-11);
            assert_close!(subgradient(kappa, &Z, 4), slope, rtol = 1e-11);
        }
    }

    /// `K(z) + K*(y) = y·z` for `y` in `∂K(z)` and nowhere else; `∂K` is odd, monotone and 0 at 0.
    #[test]
    fn every_kappa_is_convex_and_fits_its_conjugate() {
        let points: Vec<Vec<f64>> = (0..40)
            .map(|t| (0..6).map(|i| f64::from((i * 37 + t * 53) % 101 - 50) * 0.03).collect())
            .collect();
        for kappa in EVERY {
            assert_close!(subgradient(kappa, &[0.0; 6], 3), [0.0; 6], atol = 0.0);
            for (z, other) in points.iter().zip(&points[1..]) {
                let (y, far) = (subgradient(kappa, z, 3), subgradient(kappa, other, 3));
                let value = kappa.value(z, 3).expect("finite");
                let conjugate = kappa.conjugate(&y, 3).expect("finite");
                assert!((value + conjugate - dot(&y, z)).abs() < 1e-11, "{kappa:?} at {z:?}: {y:?}");
                let wrong = value + kappa.conjugate(&far, 3).expect("finite") - dot(&far, z);
                assert!(wrong > -1e-11, "{kappa:?}: Fenchel and Young");
                let turned = (0..6).map(|i| (z[i] - other[i]) * (y[i] - far[i])).sum::<f64>();
                assert!(turned > -1e-12, "{kappa:?}: not monotone");
                let negative: Vec<f64> = z.iter().map(|z| -z).collect();
                let odd: Vec<f64> = y.iter().map(|y| -y).collect();
                assert_close!(subgradient(kappa, &negative, 3), odd, rtol = 1e-12, atol = 1e-14);
            }
        }
    }

    /// `z` is a subgradient of `K*` at `∂K(z)`; the one that is returned satisfies Fenchel's equality as well.
    #[test]
    fn subgradients_of_the_conjugate_fit_it() {
        let y = [0.2, -0.1, 0.1, 0.05, -0.2, 0.3];
        for kappa in EVERY {
            let z = kappa.conjugate_subgradient(&y, 3).expect("inside");
            let (k, star) = (kappa.value(&z, 3).expect("finite"), kappa.conjugate(&y, 3).expect("finite"));
            assert!((k + star - dot(&y, &z)).abs() < 1e-12, "{kappa:?}: {z:?}");
        }
    }

    #[test]
    fn the_dual_norm_of_a_gradient_of_a_norm_is_one() {
        for p in [1.1, 1.5, 2.0, 3.0, 17.0] {
            let (y, q) = (subgradient(Kappa::Lp { p }, &Z, 4), p / (p - 1.0));
            assert_close!(y.iter().map(|y| y.abs().powf(q)).sum::<f64>().powf(1.0 / q), 1.0, rtol = 1e-12);
        }
        let y = subgradient(Kappa::Nuclear, &Z, 2);
        assert_close!(linalg::singular_values(&y, 2).expect("finite"), [1.0, 1.0], rtol = 1e-12);
        let y = subgradient(Kappa::L2 { group: Group::Row }, &Z, 2);
        assert_close!([length(&y[..2]), length(&y[2..])], [1.0, 1.0], rtol = 1e-12);
    }

    #[test]
    fn ties_move_exactly_k_elements() {
        let z = [1.0, -1.0, 0.5, 1.0, 0.0, -1.0];
        assert_close!(subgradient(Kappa::TopK { k: 3 }, &z, 6), [1.0, -1.0, 0.0, 1.0, 0.0, 0.0], atol = 0.0);
        assert_close!(subgradient(Kappa::TopK { k: 9 }, &z, 6), [1.0, -1.0, 1.0, 1.0, 0.0, -1.0], atol = 0.0);
        assert_close!(Kappa::TopK { k: 3 }.value(&z, 6).expect("finite"), 3.0, atol = 0.0);
        assert!(subgradient(Kappa::TopK { k: 3 }, &[], 1).is_empty());
    }

    #[test]
    fn extreme_arguments_give_finite_slopes() {
        for kappa in EVERY {
            for z in [[1e-300, -1e-300], [1e300, -1e-300], [-1e300, 1e300]] {
                let slope = subgradient(kappa, &z, 2);
                assert!(slope.iter().all(|slope| slope.is_finite()), "{kappa:?} at {z:?}: {slope:?}");
            }
        }
    }

    #[test]
    fn outside_of_its_domain_a_conjugate_is_infinite_and_has_no_slope() {
        for kappa in EVERY {
            let infinite = kappa != Kappa::HalfSquare;
            let outside = [0.8, 0.8, 0.8, 0.8, 0.8, 1.2];
            assert_eq!(kappa.conjugate(&outside, 3).expect("finite").is_infinite(), infinite, "{kappa:?}");
            assert_eq!(kappa.conjugate_subgradient(&outside, 3).is_err(), infinite, "{kappa:?}");
            let rounded = kappa.conjugate(&[1.0 + 5e-13, 0.0], 2).expect("finite");
            assert!(rounded.is_finite(), "{kappa:?}: {rounded}");
        }
        let message = Kappa::LogCosh.conjugate_subgradient(&[1.0], 1).expect_err("refused").to_string();
        assert_eq!(message, "LogCosh: no subgradient of K* there; lambda x must be inside of |y| < 1");
    }
}
