//! The lower level at a fixed `x`, solved to a tolerance: what the baselines, the value functions and the diagnostics share.
//!
//! ```text
//! min_{θ in Y} max_{λ in Z}  σ F(x,θ) + f(x,θ) + λᵀ g(x,θ) + |θ − ȳ|²/(2γ₁) − |λ − z̄|²/(2γ₂)
//! ```
//! The maximum over `λ` is taken at `λ = Π_Z[z̄ + γ₂ g]`, which leaves a smooth function of `θ` (an augmented Lagrangian
//! with a truncated multiplier). That one is minimised by accelerated projected gradient descent with restarts
//! (O'Donoghue & Candès 2015); where the constraints have to hold, `z̄ <- λ` is repeated, the method of multipliers.

use super::Bilevel;
use super::problem::violation;
use super::vector::{distance, finite};
use crate::linalg::{add_scaled, dot, norm};

/// The function of `θ` at a fixed `x`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Inner<'a, P: ?Sized> {
    pub(super) problem: &'a P,
    pub(super) x: &'a [f64],
    /// Weight of the upper objective.
    pub(super) sigma: f64,
    /// `ȳ` and `γ₁`.
    pub(super) prox: Option<(&'a [f64], f64)>,
    /// `z̄`; empty without constraints.
    pub(super) z: &'a [f64],
    pub(super) gamma2: f64,
    /// Where multipliers are truncated.
    pub(super) r: f64,
}

/// A point and how good it is.
#[derive(Debug, Clone)]
pub(super) struct Solved {
    pub(super) y: Vec<f64>,
    pub(super) lambda: Vec<f64>,
    /// `L |v − P_Y(v − ∇/L)|`, and the violation of the constraints where they had to hold.
    pub(super) residual: f64,
}

/// When to stop.
#[derive(Debug, Clone, Copy)]
pub(super) struct Effort {
    pub(super) tolerance: f64,
    pub(super) iterations: usize,
}

impl<P: Bilevel + ?Sized> Inner<'_, P> {
    /// `Π_Z[z̄ + γ₂ g(x, θ)]`.
    pub(super) fn multipliers(&self, theta: &[f64]) -> Vec<f64> {
        let mut lambda = vec![0.0; self.z.len()];
        if !lambda.is_empty() {
            self.problem.constraints(self.x, theta, &mut lambda);
        }
        for (i, lambda) in lambda.iter_mut().enumerate() {
            let least = if self.problem.equality(i) { -self.r } else { 0.0 };
            *lambda = (self.z[i] + self.gamma2 * *lambda).clamp(least, self.r);
        }
        lambda
    }

    /// The value at `θ` with its maximising multipliers.
    pub(super) fn value(&self, theta: &[f64], lambda: &[f64]) -> f64 {
        let mut value = self.problem.lower(self.x, theta);
        if self.sigma != 0.0 {
            value += self.sigma * self.problem.upper(self.x, theta);
        }
        if !lambda.is_empty() {
            let mut g = vec![0.0; lambda.len()];
            self.problem.constraints(self.x, theta, &mut g);
            value += dot(lambda, &g) - distance(lambda, self.z).powi(2) / (2.0 * self.gamma2);
        }
        value + self.prox.map_or(0.0, |(y, gamma1)| distance(theta, y).powi(2) / (2.0 * gamma1))
    }

    fn grad(&self, theta: &[f64], dx: &mut [f64], out: &mut [f64]) {
        self.problem.lower_grad(self.x, theta, dx, out);
        if self.sigma != 0.0 {
            let mut upper = vec![0.0; out.len()];
            self.problem.upper_grad(self.x, theta, dx, &mut upper);
            add_scaled(out, self.sigma, &upper);
        }
        if !self.z.is_empty() {
            self.problem.vjp(self.x, theta, &self.multipliers(theta), dx, out);
        }
        if let Some((y, gamma1)) = self.prox {
            for ((out, theta), y) in out.iter_mut().zip(theta).zip(y) {
                *out += (theta - y) / gamma1;
            }
        }
    }

    /// Minimises over `θ` from `start`; ends early at a value that is not finite, with an infinite residual.
    pub(super) fn minimise(&self, start: &[f64], effort: Effort) -> Solved {
        let m = start.len();
        let mut dx = vec![0.0; self.x.len()];
        let (mut at, mut grad, mut grad_new) = (start.to_vec(), vec![0.0; m], vec![0.0; m]);
        self.problem.lower_set().prox(1.0, &mut at);
        // y: the last point; at: where the gradient is taken, extrapolated.
        let (mut y, mut momentum, mut lipschitz) = (at.clone(), 1.0_f64, 1.0_f64);
        let mut residual = f64::INFINITY;
        for _ in 0..effort.iterations {
            self.grad(&at, &mut dx, &mut grad);
            let new = loop {
                let mut new = at.clone();
                add_scaled(&mut new, -1.0 / lipschitz, &grad);
                self.problem.lower_set().prox(1.0, &mut new);
                self.grad(&new, &mut dx, &mut grad_new);
                if !finite(&[&new, &grad_new]) && lipschitz > 1e30 {
                    return Solved { lambda: self.multipliers(&y), y, residual: f64::INFINITY };
                }
                // Along the step the slope may not rise by more than L |step|²; in gradients, so that it can be
                // told down to rounding.
                let rise: f64 = (0..m).map(|i| (grad_new[i] - grad[i]) * (new[i] - at[i])).sum();
                let length = distance(&new, &at);
                let limit = lipschitz * length * length;
                if rise <= limit * (1.0 + 1e-9) || length <= 1e-15 * (1.0 + norm(&at)) {
                    break new;
                }
                lipschitz *= 2.0;
            };
            residual = lipschitz * distance(&new, &at);
            let turned: f64 = (0..m).map(|i| (at[i] - new[i]) * (new[i] - y[i])).sum();
            let next =
                if turned > 0.0 { 1.0 } else { f64::midpoint(1.0, (1.0 + 4.0 * momentum * momentum).sqrt()) };
            let carry = if turned > 0.0 { 0.0 } else { (momentum - 1.0) / next };
            for i in 0..m {
                at[i] = new[i] + carry * (new[i] - y[i]);
            }
            (y, momentum) = (new, next);
            if residual <= effort.tolerance {
                break;
            }
            lipschitz *= 0.9;
        }
        Solved { lambda: self.multipliers(&y), y, residual }
    }
}

/// A minimiser of `σ F(x, ·) + f(x, ·)` over `Y` under the constraints, with its multipliers, from a start.
pub(super) fn solve<P: Bilevel + ?Sized>(
    problem: &P,
    x: &[f64],
    sigma: f64,
    (y, lambda): (&[f64], &[f64]),
    effort: Effort,
) -> Solved {
    /// Repeated until the multipliers stand, at most so often.
    const UPDATES: usize = 200;
    let mut solved = Solved { y: y.to_vec(), lambda: lambda.to_vec(), residual: f64::INFINITY };
    let mut g = vec![0.0; lambda.len()];
    let (mut gamma2, mut last) = (1.0, f64::INFINITY);
    for _ in 0..UPDATES {
        let z = solved.lambda.clone();
        let inner = Inner { problem, x, sigma, prox: None, z: &z, gamma2, r: f64::INFINITY };
        solved = inner.minimise(&solved.y, effort);
        if z.is_empty() || !solved.residual.is_finite() {
            break;
        }
        problem.constraints(x, &solved.y, &mut g);
        // Where a constraint does not bind this is its share of complementarity.
        let moved = distance(&solved.lambda, &z) / gamma2;
        let left = violation(problem, &g).max(moved);
        solved.residual = solved.residual.max(left);
        if left <= effort.tolerance || !left.is_finite() {
            break;
        }
        if left > 0.25 * last {
            gamma2 = (gamma2 * 4.0).min(1e6);
        }
        last = left;
    }
    solved
}
