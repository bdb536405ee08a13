//! The Newton system `Γ z = b` with `Γ = [[B, Gᵀ], [G, 0]]`, solved a little at a time.
//!
//! A sketch step projects onto the solutions of a random combination of the equations,
//! ```text
//! z ← z − Γ S (Sᵀ Γ² S)⁺ Sᵀ r,   r = Γ z − b,   S of N rows
//! ```
//! | [`System`] | S | operations a step |
//! |---|---|---|
//! | `GaussianVector` | one column of normal numbers | `4 N²` |
//! | `Kaczmarz` | one unit vector, uniformly | `4 N`, with `Γ²` computed once |
//! | `CountSketch` | `width` columns, each row in one with a random sign | `2 N² + 2 N² width + N width²` |
//!
//! `|z − z*|` never increases. The deterministic ways are MINRES, restarted GMRES, and a factorisation.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::Rng as _;
use rand_distr::{Distribution as _, StandardNormal};
use serde::{Deserialize, Serialize};

use crate::linalg::{Cholesky, Ldlt, add_scaled, dot, gmres, minres, norm};

/// How the Newton system is solved.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "name")]
pub enum System {
    /// Gaussian sketches of one vector.
    GaussianVector,
    /// Randomised Kaczmarz.
    Kaczmarz,
    /// Count-sketches.
    CountSketch {
        /// Columns of a sketch, > 0.
        width: usize,
    },
    /// MINRES to the accuracy that is asked for.
    Minres,
    /// Restarted GMRES to the accuracy that is asked for.
    Gmres {
        /// Products between restarts, > 0.
        restart: usize,
    },
    /// A factorisation.
    Direct,
}

/// A system and how far it is solved.
#[derive(Debug)]
pub(super) struct Iteration<'a> {
    gamma: &'a [f64],
    b: &'a [f64],
    /// `Γ²`, for Kaczmarz.
    squared: Vec<f64>,
    pub(super) z: Vec<f64>,
    pub(super) r: Vec<f64>,
    /// Sketch steps or products with `Γ`.
    pub(super) steps: u64,
    /// Floating-point operations.
    pub(super) flops: f64,
}

/// Steps after which the residual of Kaczmarz is computed anew, against the rounding of its updates.
const REFRESH: u64 = 1000;

impl<'a> Iteration<'a> {
    /// From `z = 0`.
    pub(super) fn new(system: System, gamma: &'a [f64], b: &'a [f64]) -> Self {
        let n = b.len();
        let r = b.iter().map(|b| -b).collect();
        let mut new = Self { gamma, b, squared: Vec::new(), z: vec![0.0; n], r, steps: 0, flops: 0.0 };
        if system == System::Kaczmarz {
            new.squared = (0..n * n).map(|k| dot(new.row(k / n), new.row(k % n))).collect();
            new.flops += (n * n * (n + 1)) as f64;
        }
        new
    }

    fn row(&self, i: usize) -> &'a [f64] {
        let n = self.b.len();
        &self.gamma[i * n..(i + 1) * n]
    }

    fn product(&mut self, v: &[f64]) -> Vec<f64> {
        self.flops += 2.0 * (v.len() * v.len()) as f64;
        let mut product = vec![0.0; v.len()];
        add_product(self.gamma, v, &mut product);
        product
    }

    fn refresh(&mut self) {
        let mut r = self.product(&self.z.clone());
        add_scaled(&mut r, -1.0, self.b);
        self.r = r;
    }

    /// Continues until `|r| <= tolerance` or `most` steps are taken in all.
    pub(super) fn run(&mut self, system: System, tolerance: f64, most: u64, rng: &mut ChaCha8Rng) {
        let n = self.b.len();
        match system {
            System::Direct => {
                if self.steps == 0 {
                    let factor = Ldlt::new(self.gamma, n);
                    self.z = factor.solve(self.b);
                    self.refresh();
                    // One step of refinement.
                    let correction = factor.solve(&self.r);
                    add_scaled(&mut self.z, -1.0, &correction);
                    self.refresh();
                    self.flops += (n * n * n) as f64 / 3.0 + 4.0 * (n * n) as f64;
                    self.steps = 1;
                }
            }
            System::Minres | System::Gmres { .. } => {
                let gamma = self.gamma;
                let product = |v: &[f64], out: &mut [f64]| {
                    out.fill(0.0);
                    add_product(gamma, v, out);
                };
                let left = most.saturating_sub(self.steps);
                let solved = match system {
                    System::Gmres { restart } => {
                        gmres(product, self.b, &mut self.z, restart, tolerance, left)
                    }
                    _ => minres(product, self.b, &mut self.z, tolerance, left),
                };
                self.steps += solved.products;
                self.flops += solved.products as f64 * (2 * n * n + 12 * n) as f64;
                self.refresh();
            }
            _ => {
                while norm(&self.r) > tolerance && self.steps < most {
                    self.step(system, rng);
                }
                self.refresh();
            }
        }
    }

    fn step(&mut self, system: System, rng: &mut ChaCha8Rng) {
        self.steps += 1;
        let n = self.b.len();
        match system {
            System::Kaczmarz => {
                self.kaczmarz(below(rng, n));
                if self.steps.is_multiple_of(REFRESH) {
                    self.refresh();
                }
            }
            System::CountSketch { width } => {
                let buckets: Vec<(usize, f64)> = (0..n)
                    .map(|_| (below(rng, width), if rng.next_u32() & 1 == 0 { 1.0 } else { -1.0 }))
                    .collect();
                self.count_sketch(width, &buckets);
            }
            _ => {
                let s: Vec<f64> = (0..n).map(|_| StandardNormal.sample(rng)).collect();
                self.vector(&s);
            }
        }
    }

    /// The step of one sketching vector.
    pub(super) fn vector(&mut self, s: &[f64]) {
        let w = self.product(s);
        let size = dot(&w, &w);
        if size > 0.0 {
            let a = dot(s, &self.r) / size;
            let change = self.product(&w);
            add_scaled(&mut self.z, -a, &w);
            add_scaled(&mut self.r, -a, &change);
        }
    }

    /// The step of equation `i`.
    pub(super) fn kaczmarz(&mut self, i: usize) {
        let n = self.b.len();
        let size = self.squared[i * n + i];
        if size > 0.0 {
            let a = self.r[i] / size;
            let row = self.row(i);
            add_scaled(&mut self.z, -a, row);
            add_scaled(&mut self.r, -a, &self.squared[i * n..(i + 1) * n]);
            self.flops += 4.0 * n as f64;
        }
    }

    /// The step of a sketch that adds each equation, with a sign, to one of `width` buckets.
    fn count_sketch(&mut self, width: usize, buckets: &[(usize, f64)]) {
        let n = self.b.len();
        // Columns of Γ S, and Sᵀ r; empty buckets say nothing.
        let (mut columns, mut right) = (vec![vec![0.0; n]; width], vec![0.0; width]);
        let mut used = vec![false; width];
        for (i, &(bucket, sign)) in buckets.iter().enumerate() {
            add_scaled(&mut columns[bucket], sign, self.row(i));
            right[bucket] += sign * self.r[i];
            used[bucket] = true;
        }
        let kept: Vec<usize> = (0..width).filter(|&k| used[k]).collect();
        let d = kept.len();
        let gram: Vec<f64> = (0..d * d).map(|k| dot(&columns[kept[k / d]], &columns[kept[k % d]])).collect();
        let right: Vec<f64> = kept.iter().map(|&k| right[k]).collect();
        self.flops += (2 * n * n + 2 * n * d * d + d * d * d) as f64;
        // Equations that depend on each other in the sketch: another one is drawn.
        let Some(factor) = Cholesky::new(&gram, d) else { return };
        let weights = factor.solve(&right);
        if weights.iter().all(|w| w.is_finite()) {
            kept.iter().zip(&weights).for_each(|(&k, w)| add_scaled(&mut self.z, -w, &columns[k]));
            self.refresh();
        }
    }
}

/// `out += Γ v` for a symmetric `Γ`: rows are its columns, and sums of rows go several elements at a time.
fn add_product(gamma: &[f64], v: &[f64], out: &mut [f64]) {
    gamma.chunks_exact(v.len().max(1)).zip(v).for_each(|(row, v)| add_scaled(out, *v, row));
}

/// Uniform below `n`: the high word of a product is biased by less than `n / 2⁶⁴`.
fn below(rng: &mut ChaCha8Rng, n: usize) -> usize {
    ((u128::from(rng.next_u64()) * n as u128) >> 64) as usize
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use saddlepoint_core::seed::Seed;
    use saddlepoint_core::test::assert_close;

    use super::*;

    const GAMMA: [f64; 9] = [2.0, 0.0, 1.0, 0.0, 3.0, 1.0, 1.0, 1.0, 0.0];
    const B: [f64; 3] = [1.0, 2.0, 3.0];
    const EXACT: [f64; 3] = [1.6, 1.4, -2.2];

    /// The card's V3.
    #[test]
    fn kaczmarz_follows_the_known_steps() {
        let mut it = Iteration::new(System::Kaczmarz, &GAMMA, &B);
        let steps: [(usize, [f64; 3], f64); 5] = [
            (0, [0.4, 0.0, 0.2], 3.162_277_660_168),
            (2, [1.7, 1.3, 0.2], 3.342_154_993_414),
            (1, [1.7, 0.67, -0.01], 2.471_639_132_236),
            (2, [2.015, 0.985, -0.01], 3.164_399_627_101),
            (0, [0.807, 0.985, -0.614], 1.255_207_154_218),
        ];
        for (i, z, size) in steps {
            it.kaczmarz(i);
            assert_close!(it.z, z, atol = 1e-12);
            assert_close!(norm(&it.r), size, atol = 1e-11);
            assert_close!(it.r[i], 0.0, atol = 1e-14);
        }
    }

    /// The card's V4.
    #[test]
    fn gaussian_vectors_follow_the_known_steps() {
        let mut it = Iteration::new(System::GaussianVector, &GAMMA, &B);
        for (s, z, size) in [
            ([1.0, -1.0, 2.0], [1.176_470_588_235, -0.294_117_647_059, 0.0], 3.823_981_873_681),
            ([0.5, 1.0, 0.0], [1.356_542_617_047, 0.246_098_439_376, 0.270_108_043_217], 2.620_864_644_761),
        ] {
            it.vector(&s);
            assert_close!(it.z, z, atol = 1e-12);
            assert_close!(norm(&it.r), size, atol = 1e-12);
        }
    }

    #[test]
    fn every_way_reaches_the_solution_and_its_residual_is_true() {
        for system in [
            System::GaussianVector,
            System::Kaczmarz,
            System::CountSketch { width: 2 },
            System::Minres,
            System::Gmres { restart: 2 },
            System::Direct,
        ] {
            let mut it = Iteration::new(system, &GAMMA, &B);
            it.run(system, 1e-8, 100_000, &mut Seed::new(1).stream("test", &[]));
            assert!(norm(&it.r) <= 1e-8, "{system:?}: {it:?}");
            assert_close!(it.z, EXACT, atol = 1e-7);
            assert!(it.flops > 0.0 && it.steps > 0);
        }
    }

    proptest! {
        /// The card's V6: every sketch step is a projection, so the error never grows.
        #[test]
        fn the_error_never_grows(seed in 0..1000_u64) {
            for system in [System::GaussianVector, System::Kaczmarz, System::CountSketch { width: 2 }] {
                let mut rng = Seed::new(seed).stream("test", &[]);
                let mut it = Iteration::new(system, &GAMMA, &B);
                let far = |z: &[f64]| norm(&z.iter().zip(EXACT).map(|(z, e)| z - e).collect::<Vec<_>>());
                let mut last = far(&it.z);
                for _ in 0..30 {
                    it.step(system, &mut rng);
                    prop_assert!(far(&it.z) <= last + 1e-12);
                    last = far(&it.z);
                }
            }
        }
    }
}
