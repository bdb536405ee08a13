//! Small problems with known solutions, for trying a method out.

mod strongly_convex;

pub use strongly_convex::{Solution, StronglyConvex};

use super::{Bilevel, Form, Quadratic, Sizes};
use crate::Result;
use crate::problem::{Bounds, Simple};

/// `F = (y − 1)²/2 + 0.05 x²`, `f = (y − x)²/2`, with `|y| <= bound` if one is given. Solution without it: `x = y = 1/1.1`.
pub fn scalar(bound: Option<f64>) -> Quadratic {
    let upper = Form::new([0.1, 0.0, 0.0, 1.0], [0.0, -1.0], 0.5);
    let lower = Form::new([1.0, -1.0, -1.0, 1.0], [0.0; 2], 0.0);
    build(1, 1, upper, lower, bound)
}

/// `F = x² + y²`, `f = x y` with `|y| <= 1`: `ψ(x) = x² + 1` except `ψ(0) = 0`. No penalty finds the jump.
pub fn bilinear() -> Quadratic {
    let upper = Form::new([2.0, 0.0, 0.0, 2.0], [0.0; 2], 0.0);
    let lower = Form::new([0.0, 1.0, 1.0, 0.0], [0.0; 2], 0.0);
    build(1, 1, upper, lower, Some(1.0))
}

/// `F = (y₁ − 1)²/2 + (y₂ + ½)² + 0.05 x²`, `f = (y₁ + y₂ − x)²/2`: a line of lower solutions. Solution: `x = 10/23`,
/// `y = (22/23, −12/23)`.
pub fn line() -> Quadratic {
    let upper = Form::new([0.1, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 2.0], [0.0, -1.0, 1.0], 0.75);
    let lower = Form::new([1.0, -1.0, -1.0, -1.0, 1.0, 1.0, -1.0, 1.0, 1.0], [0.0; 3], 0.0);
    build(1, 2, upper, lower, None)
}

/// `F = (x − 2)² + (y − 1)²`, `f = (y − x)²/2` under `x + y <= 1`. Solution: `x = 1`, `y = 0`, multiplier 1.
pub fn half_space() -> Quadratic {
    let upper = Form::new([2.0, 0.0, 0.0, 2.0], [-4.0, -2.0], 5.0);
    let lower = Form::new([1.0, -1.0, -1.0, 1.0], [0.0; 2], 0.0);
    build(1, 1, upper, lower, None).at_most(&[1.0, 1.0], 1.0).expect("one finite row")
}

fn build(n: usize, m: usize, upper: Form, lower: Form, bound: Option<f64>) -> Quadratic {
    let set = bound.map_or(Simple::Free, |bound| Bounds::new(vec![-bound; m], vec![bound; m]).into());
    let problem = Quadratic::new(n, m, upper, lower).and_then(|problem| problem.within(Simple::Free, set));
    problem.expect("symmetric and finite")
}

/// Two problems of Yao et al. 2024 whose lower level is not strongly convex, with one equality that couples all variables,
/// `y = (y₁, y₂)` of twice the length `n` of `x`:
/// ```text
/// f = |y₁|²/2 − xᵀ y₁ + 1ᵀ y₂,   g = 1ᵀ x + 1ᵀ y₁ + 1ᵀ y₂ = 0
/// ```
/// The lower level makes `y₁ = x + 1` and its multiplier −1, and leaves `y₂` free up to its sum.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Coupled {
    /// Length of `x`, at least 1.
    pub n: usize,
    /// The upper objective.
    pub objective: Objective,
}

/// The upper objective of [`Coupled`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Objective {
    /// `|x − y₂|²/2 + |y₁ − 1|²/2`. Solution: `x = −0.3`, `y₁ = 0.7`, `y₂ = −0.4` in every element, `F = 0.05 n`.
    Squares,
    /// `(y₁ − 2)ᵀ (x − 1) + |y₂ + 3|²`. Solution: `x = 1`, `y₁ = 2`, `y₂ = −3`, `F = 0`.
    Product,
}

impl Bilevel for Coupled {
    fn sizes(&self) -> Sizes {
        Sizes { upper: self.n, lower: 2 * self.n, constraints: 1 }
    }

    fn upper(&self, x: &[f64], y: &[f64]) -> f64 {
        let (y1, y2) = y.split_at(self.n);
        let term = |i: usize| match self.objective {
            Objective::Squares => 0.5 * (x[i] - y2[i]).powi(2) + 0.5 * (y1[i] - 1.0).powi(2),
            Objective::Product => (y1[i] - 2.0) * (x[i] - 1.0) + (y2[i] + 3.0).powi(2),
        };
        (0..self.n).map(term).sum()
    }

    fn upper_grad(&self, x: &[f64], y: &[f64], dx: &mut [f64], dy: &mut [f64]) {
        let ((y1, y2), (d1, d2)) = (y.split_at(self.n), dy.split_at_mut(self.n));
        for i in 0..self.n {
            (dx[i], d1[i], d2[i]) = match self.objective {
                Objective::Squares => (x[i] - y2[i], y1[i] - 1.0, y2[i] - x[i]),
                Objective::Product => (y1[i] - 2.0, x[i] - 1.0, 2.0 * (y2[i] + 3.0)),
            };
        }
    }

    fn lower(&self, x: &[f64], y: &[f64]) -> f64 {
        let (y1, y2) = y.split_at(self.n);
        (0..self.n).map(|i| 0.5 * y1[i] * y1[i] - x[i] * y1[i] + y2[i]).sum()
    }

    fn lower_grad(&self, x: &[f64], y: &[f64], dx: &mut [f64], dy: &mut [f64]) {
        let (y1, (d1, d2)) = (&y[..self.n], dy.split_at_mut(self.n));
        for i in 0..self.n {
            (dx[i], d1[i], d2[i]) = (-y1[i], y1[i] - x[i], 1.0);
        }
    }

    fn constraints(&self, x: &[f64], y: &[f64], g: &mut [f64]) {
        g[0] = x.iter().sum::<f64>() + y.iter().sum::<f64>();
    }

    fn vjp(&self, _x: &[f64], _y: &[f64], w: &[f64], dx: &mut [f64], dy: &mut [f64]) {
        for d in dx.iter_mut().chain(dy) {
            *d += w[0];
        }
    }

    fn equality(&self, _i: usize) -> bool {
        true
    }

    fn project(&self, x: &mut [f64], y: &mut [f64]) -> Result<()> {
        let mean = (x.iter().sum::<f64>() + y.iter().sum::<f64>()) / (3 * self.n) as f64;
        for v in x.iter_mut().chain(y) {
            *v -= mean;
        }
        Ok(())
    }
}
