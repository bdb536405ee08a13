//! A large problem whose objective is a small sum of large terms, so that rounding hides what a step gains.

use saddlepoint_opt::linalg::Triplets;
use saddlepoint_opt::outcome::Status;
use saddlepoint_opt::problem::{Constrained, Constraint, Objective};
use saddlepoint_opt::solver::{AugmentedLagrangian, Solver as _};

/// `½ xᵀ tridiag(−1, 4, −1) x − bᵀx + ¼ Σ x_j⁴` subject to `x_s − 2 x_s+1 + x_s+2 + ½ x_s² = r_i`, `s = 4i`: the chain of docs/scaling.md with
/// waves in place of its random numbers.
struct Chain {
    b: Vec<f64>,
    r: Vec<f64>,
    constraints: Vec<Constraint>,
}

impl Chain {
    fn new(n: usize) -> Self {
        let b: Vec<f64> = (0..n).map(|j| 2.0 * (1.3 * (j * j) as f64).sin()).collect();
        let inside: Vec<f64> = (0..n).map(|j| 0.7 * (0.9 * (j * j) as f64 + 1.0).sin()).collect();
        let constraint = |i: usize| Constraint { name: format!("c{i}"), lower: 0.0, upper: 0.0 };
        let mut chain = Self { b, r: vec![0.0; n / 4], constraints: (0..n / 4).map(constraint).collect() };
        let mut r = vec![0.0; n / 4];
        chain.residuals(&inside, &mut r);
        chain.r = r;
        chain
    }
}

impl Objective for Chain {
    fn dim(&self) -> usize {
        self.b.len()
    }

    fn value(&self, x: &[f64]) -> f64 {
        let at = |j: usize| x.get(j).copied().unwrap_or(0.0);
        (0..x.len()).map(|j| x[j] * (2.0 * x[j] - at(j + 1) - self.b[j]) + 0.25 * x[j].powi(4)).sum()
    }

    fn grad(&self, x: &[f64], g: &mut [f64]) {
        let at = |j: Option<usize>| j.and_then(|j| x.get(j)).copied().unwrap_or(0.0);
        for (j, g) in g.iter_mut().enumerate() {
            *g = 4.0 * x[j] - at(j.checked_sub(1)) - at(Some(j + 1)) - self.b[j] + x[j].powi(3);
        }
    }
}

impl Constrained for Chain {
    fn constraints(&self) -> &[Constraint] {
        &self.constraints
    }

    fn residuals(&self, x: &[f64], c: &mut [f64]) {
        for (x, (c, r)) in x.chunks(4).zip(c.iter_mut().zip(&self.r)) {
            *c = x[0] - 2.0 * x[1] + x[2] + 0.5 * x[0] * x[0] - r;
        }
    }

    fn vjp(&self, x: &[f64], w: &[f64], out: &mut [f64]) {
        for ((x, out), w) in x.chunks(4).zip(out.chunks_mut(4)).zip(w) {
            [1.0 + x[0], -2.0, 1.0].iter().zip(out).for_each(|(slope, out)| *out += w * slope);
        }
    }

    fn jacobian(&self, x: &[f64]) -> Triplets {
        let mut jacobian = Triplets::new(self.r.len(), x.len());
        for i in 0..self.r.len() {
            for (k, slope) in [1.0 + x[4 * i], -2.0, 1.0].into_iter().enumerate() {
                jacobian.push(i, 4 * i + k, slope);
            }
        }
        jacobian
    }
}

#[test]
fn the_augmented_lagrangian_solves_a_chain_of_any_length_to_its_default_tolerance() {
    for n in [400, 1000, 2000] {
        let out =
            AugmentedLagrangian::default().solve(&Chain::new(n), &vec![0.0; n]).expect("a valid problem");
        assert_eq!(out.status, Status::Optimal, "{n}: {}", out.kkt);
        assert!(out.iterations <= 12, "{n}: {} updates", out.iterations);
    }
}
