//! How good a point of a bilevel problem is, measured from the problem alone.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::problem::{lagrangian_grad, violation};
use super::{Bilevel, penalised};
use crate::kkt::{Kkt, scale};
use crate::linalg::largest;
use crate::problem::Simple;

/// Residuals of both levels at the point of a method. Each is 0 at a solution.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Diagnosis {
    /// KKT residuals of the lower level at `(y, multipliers)`, in the largest element: `|y − P_Y(y − ∇_y f − J_yᵀ λ)|`, the violation of `g`, and
    /// `min(λ, |g|)`.
    pub lower: Kkt,
    /// By how much the lower objective could still fall: `f(x, y)` less the least `f(x, ·)` that was found from `y`; below 0 where `y` violates
    /// the constraints.
    pub gap: f64,
    /// Estimate of the gradient of `min_{y in S(x)} F(x, y)`, where `S(x)` solves the lower level: that of `ψ_σ` extrapolated from
    /// `σ = 1e-3` and its half to 0, with the lower level solved anew from `y`.
    pub hypergradient: Vec<f64>,
    /// `|x − P_X(x − hypergradient)|`, in the largest element.
    pub stationarity: f64,
    /// What the solves behind the estimate left of their own gradients.
    pub residual: f64,
}

/// The lower level's answer to an `x`, solved from the `y` that a method ended with.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Response {
    /// Lower variable.
    pub y: Vec<f64>,
    /// Its multipliers.
    pub multipliers: Vec<f64>,
    /// `F(x, y)`.
    pub upper: f64,
}

impl Diagnosis {
    /// What has to be small at a solution `x`: the projected hyper-gradient, and what is left of the solves behind it.
    pub fn error(&self) -> f64 {
        largest(&[self.stationarity, self.residual])
    }
}

impl fmt::Display for Diagnosis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "lower level: {}, gap {:.1e}; hyper-gradient {:.1e}",
            self.lower, self.gap, self.stationarity
        )
    }
}

/// Measures at `(x, y)` with the multipliers of the lower level, and solves the lower level from there.
pub fn diagnose<P: Bilevel + ?Sized>(
    problem: &P,
    x: &[f64],
    y: &[f64],
    multipliers: &[f64],
) -> (Diagnosis, Response) {
    /// Small beside the curvature of usual problems, large beside rounding over it.
    const SIGMA: f64 = 1e-3;
    let estimate = penalised(problem, x, SIGMA, (y, multipliers));
    let half = penalised(problem, x, SIGMA / 2.0, (&estimate.y, multipliers));
    // The error of first order in sigma falls out of the difference (Richardson).
    let hypergradient: Vec<f64> =
        half.grad.iter().zip(&estimate.grad).map(|(half, whole)| 2.0 * half - whole).collect();
    let diagnosis = Diagnosis {
        lower: lower(problem, x, y, multipliers),
        gap: problem.lower(x, y) - problem.lower(x, &estimate.z),
        stationarity: projected(problem.upper_set(), x, &hypergradient),
        hypergradient,
        residual: estimate.residual.max(half.residual),
    };
    let upper = problem.upper(x, &estimate.z);
    (diagnosis, Response { y: estimate.z, multipliers: estimate.multipliers, upper })
}

/// KKT residuals of the lower level.
pub(super) fn lower<P: Bilevel + ?Sized>(problem: &P, x: &[f64], y: &[f64], multipliers: &[f64]) -> Kkt {
    let mut g = vec![0.0; multipliers.len()];
    problem.constraints(x, y, &mut g);
    let (mut unused, mut dy) = (vec![0.0; x.len()], vec![0.0; y.len()]);
    lagrangian_grad(problem, x, y, multipliers, &mut unused, &mut dy);
    let slack = |(i, lambda): (usize, &f64)| match (problem.equality(i), *lambda) {
        (true, _) => 0.0,
        // Of the wrong sign, or not a number.
        (_, lambda) if lambda.is_nan() || lambda < 0.0 => lambda,
        (_, lambda) => lambda.min(g[i].abs()),
    };
    Kkt {
        stationarity: projected(problem.lower_set(), y, &dy),
        feasibility: largest(&[violation(problem, &g), problem.lower_set().distance(y)]),
        complementarity: largest(&multipliers.iter().enumerate().map(slack).collect::<Vec<_>>()),
        scale: scale(largest(multipliers)),
    }
}

/// `|x − P(x − g)|`, in the largest element.
pub(super) fn projected(set: &Simple, x: &[f64], g: &[f64]) -> f64 {
    let mut moved: Vec<f64> = x.iter().zip(g).map(|(x, g)| x - g).collect();
    set.prox(1.0, &mut moved);
    largest(&x.iter().zip(&moved).map(|(x, moved)| x - moved).collect::<Vec<_>>())
}
