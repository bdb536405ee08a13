//! Penalties of ridge regression, chosen by the error on held-out examples.
//!
//! # Objective
//! With log-penalties `c`, one a feature or one for all, and targets `t`
//! ```text
//! min_c  F = 1/(2 M) Σ_held-out (wᵀ z_j + b − t_j)²
//! where  (w, b) minimises   1/(2 N) Σ_i (wᵀ z_i + b − t_i)² + ½ Σ_j exp(c_j) w_j²
//! ```
//! The intercept is not penalised.

use crate::bilevel::{Bilevel, LowerCurvature, Sizes};
use crate::examples::{Examples, Whole};
use crate::linalg::{add_scaled, dot};
use crate::problem::{Bounds, Simple};

/// Training and held-out examples.
#[derive(Debug, Clone)]
pub struct Ridge {
    train: Whole,
    held_out: Whole,
    /// Whether all features share one penalty.
    shared: bool,
    bounds: Simple,
}

impl Ridge {
    /// With limits of the log-penalties.
    pub fn new(train: Examples, held_out: Examples, shared: bool, (least, most): (f64, f64)) -> Self {
        assert_eq!(train.features, held_out.features, "the same features");
        let penalties = if shared { 1 } else { train.features };
        let bounds = Bounds::new(vec![least; penalties], vec![most; penalties]).into();
        Self { train: Whole::new(train), held_out: Whole::new(held_out), shared, bounds }
    }

    /// Mean squared error on some examples.
    pub fn error(&self, examples: &Examples, y: &[f64]) -> f64 {
        let d = self.features();
        let residual = |i: usize| examples.dot(i, &y[..d]) + y[d] - examples.labels[i];
        (0..examples.len()).map(|i| residual(i).powi(2)).sum::<f64>() / examples.len().max(1) as f64
    }

    fn features(&self) -> usize {
        self.train.examples().features
    }

    /// `wᵀ z_i + b − t_i` of each.
    fn residuals(of: &Whole, y: &[f64]) -> Vec<f64> {
        let mut all = of.products(y);
        add_scaled(&mut all, -1.0, &of.examples().labels);
        all
    }

    fn half_mean_square(of: &Whole, y: &[f64]) -> f64 {
        let residuals = Self::residuals(of, y);
        0.5 * dot(&residuals, &residuals) / residuals.len() as f64
    }

    /// `out += Σ_i a_i (z_i, 1)/N`.
    fn add_mean(of: &Whole, mut a: Vec<f64>, out: &mut [f64]) {
        let count = a.len() as f64;
        for a in &mut a {
            *a /= count;
        }
        of.add_sum(&a, out);
    }

    fn penalty(&self, x: &[f64], j: usize) -> f64 {
        x[if self.shared { 0 } else { j }].exp()
    }
}

impl Bilevel for Ridge {
    fn sizes(&self) -> Sizes {
        let d = self.features();
        Sizes { upper: if self.shared { 1 } else { d }, lower: d + 1, constraints: 0 }
    }

    fn upper(&self, _x: &[f64], y: &[f64]) -> f64 {
        Self::half_mean_square(&self.held_out, y)
    }

    fn upper_grad(&self, _x: &[f64], y: &[f64], dx: &mut [f64], dy: &mut [f64]) {
        dx.fill(0.0);
        dy.fill(0.0);
        Self::add_mean(&self.held_out, Self::residuals(&self.held_out, y), dy);
    }

    fn lower(&self, x: &[f64], y: &[f64]) -> f64 {
        let penalty = |j: usize| self.penalty(x, j) * y[j] * y[j];
        Self::half_mean_square(&self.train, y) + 0.5 * (0..self.features()).map(penalty).sum::<f64>()
    }

    fn lower_grad(&self, x: &[f64], y: &[f64], dx: &mut [f64], dy: &mut [f64]) {
        dx.fill(0.0);
        dy.fill(0.0);
        Self::add_mean(&self.train, Self::residuals(&self.train, y), dy);
        for j in 0..self.features() {
            let pull = self.penalty(x, j) * y[j];
            dy[j] += pull;
            dx[if self.shared { 0 } else { j }] += 0.5 * pull * y[j];
        }
    }

    fn upper_set(&self) -> &Simple {
        &self.bounds
    }
}

impl LowerCurvature for Ridge {
    fn hess_yy(&self, x: &[f64], _y: &[f64], v: &[f64], out: &mut [f64]) {
        let d = self.features();
        out.fill(0.0);
        Self::add_mean(&self.train, self.train.products(v), out);
        for j in 0..d {
            out[j] += self.penalty(x, j) * v[j];
        }
    }

    fn hess_xy(&self, x: &[f64], y: &[f64], v: &[f64], out: &mut [f64]) {
        out.fill(0.0);
        for j in 0..self.features() {
            out[if self.shared { 0 } else { j }] += self.penalty(x, j) * y[j] * v[j];
        }
    }
}
