//! What a bilevel problem is to the solvers: oracles, each with a default where a problem may do without.

use serde::{Deserialize, Serialize};

use super::vector::finite;
use crate::linalg::largest;
use crate::problem::Simple;
use crate::{Error, Result};

/// The dimensions of a problem.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sizes {
    /// `n`, of the upper variable `x`.
    pub upper: usize,
    /// `m`, of the lower variable `y`.
    pub lower: usize,
    /// `p`, of the constraint `g` of the lower level; 0 where it has none.
    pub constraints: usize,
}

/// A bilevel problem:
/// ```text
/// min_{x in X, y in Y}  F(x, y)     where     y in argmin_{y in Y} { f(x, y) : g(x, y) <= 0 }
/// ```
/// with simple closed convex sets `X` and `Y`. Gradients of both functions are needed, nothing of second order; see
/// [`LowerCurvature`] for the methods that need more.
///
/// Oracles that write into slices overwrite them, except [`vjp`](Bilevel::vjp), which adds. Slices have the lengths of
/// [`sizes`](Bilevel::sizes). A solver that is given a value which is not finite stops and keeps the last good iterate.
pub trait Bilevel {
    /// Its dimensions.
    fn sizes(&self) -> Sizes;

    /// `F(x, y)`.
    fn upper(&self, x: &[f64], y: &[f64]) -> f64;

    /// Writes the derivatives of `F` by `x` and by `y`.
    fn upper_grad(&self, x: &[f64], y: &[f64], dx: &mut [f64], dy: &mut [f64]);

    /// `f(x, y)`.
    fn lower(&self, x: &[f64], y: &[f64]) -> f64;

    /// Writes the derivatives of `f` by `x` and by `y`.
    fn lower_grad(&self, x: &[f64], y: &[f64], dx: &mut [f64], dy: &mut [f64]);

    /// Writes `g(x, y)`.
    fn constraints(&self, _x: &[f64], _y: &[f64], _g: &mut [f64]) {}

    /// Adds `J_xᵀ w` to `dx` and `J_yᵀ w` to `dy`, with the Jacobians of `g` at `(x, y)`.
    fn vjp(&self, _x: &[f64], _y: &[f64], _w: &[f64], _dx: &mut [f64], _dy: &mut [f64]) {}

    /// Whether constraint `i` reads `g_i = 0` instead of `g_i <= 0`.
    fn equality(&self, _i: usize) -> bool {
        false
    }

    /// `X`; the default is the whole space. It must be a set, not a norm.
    fn upper_set(&self) -> &Simple {
        &Simple::Free
    }

    /// `Y`, likewise.
    fn lower_set(&self) -> &Simple {
        &Simple::Free
    }

    /// Projects the pair onto `C = {(x, y) in X x Y : g(x, y) <= 0}`, jointly: projecting one after the other is not the
    /// same. Without constraints it is both projections.
    ///
    /// # Errors
    /// The default refuses a problem that has constraints.
    fn project(&self, x: &mut [f64], y: &mut [f64]) -> Result<()> {
        if self.sizes().constraints > 0 {
            let problem = "it has constraints but no joint projection onto them; implement Bilevel::project";
            return Err(Error::Problem { problem: problem.to_owned() });
        }
        self.upper_set().prox(1.0, x);
        self.lower_set().prox(1.0, y);
        Ok(())
    }

    /// Whether the sampled oracles differ from the exact ones.
    fn stochastic(&self) -> bool {
        false
    }

    /// [`upper_grad`](Bilevel::upper_grad) on the sample with this number, unbiased over numbers. The same number at
    /// another point is the same sample: recursive momentum needs both.
    fn upper_grad_on(&self, _sample: u64, x: &[f64], y: &[f64], dx: &mut [f64], dy: &mut [f64]) {
        self.upper_grad(x, y, dx, dy);
    }

    /// [`lower_grad`](Bilevel::lower_grad) on the sample with this number.
    fn lower_grad_on(&self, _sample: u64, x: &[f64], y: &[f64], dx: &mut [f64], dy: &mut [f64]) {
        self.lower_grad(x, y, dx, dy);
    }
}

/// Second derivatives of the lower objective as products with a vector; for [`Hypergradient`](super::Hypergradient).
pub trait LowerCurvature: Bilevel {
    /// Writes `∇²_yy f(x, y) v`.
    fn hess_yy(&self, x: &[f64], y: &[f64], v: &[f64], out: &mut [f64]);

    /// Writes `∇²_xy f(x, y) v`, the derivative by `x` of `v·∇_y f`.
    fn hess_xy(&self, x: &[f64], y: &[f64], v: &[f64], out: &mut [f64]);

    /// Applies to `v` the transposed derivative of the projection onto `Y` at the point `before`, which is projected to
    /// `after`. The default is that of a box: what was moved has derivative 0.
    fn project_lower_vjp(&self, before: &[f64], after: &[f64], v: &mut [f64]) {
        for ((v, before), after) in v.iter_mut().zip(before).zip(after) {
            if (before - after).abs() > 0.0 {
                *v = 0.0;
            }
        }
    }
}

/// Refuses a problem that contradicts itself, and a start that does not fit it or is not finite.
pub(super) fn check_start<P: Bilevel + ?Sized>(problem: &P, x: &[f64], y: &[f64]) -> Result<()> {
    let sizes = problem.sizes();
    let levels =
        [("upper", x, sizes.upper, problem.upper_set()), ("lower", y, sizes.lower, problem.lower_set())];
    for (level, start, expected, set) in levels {
        set.check(expected)?;
        let wrong = |problem| Err(Error::Problem { problem });
        if has_norm(set) {
            return wrong(format!("the {level} level is kept in a norm; it must be a set"));
        }
        if start.len() != expected {
            let (what, got) = (if level == "upper" { "upper start" } else { "lower start" }, start.len());
            return Err(Error::Length { what, expected, got });
        }
        if let Some(i) = start.iter().position(|value| !value.is_finite()) {
            return wrong(format!("variable {i} of the {level} start is {}; it must be finite", start[i]));
        }
    }
    Ok(())
}

/// The start of a method, projected.
pub(super) fn begin<P: Bilevel + ?Sized>(problem: &P, x: &[f64], y: &[f64]) -> Result<(Vec<f64>, Vec<f64>)> {
    let (mut x, mut y) = (x.to_vec(), y.to_vec());
    problem.project(&mut x, &mut y)?;
    if finite(&[&x, &y]) {
        return Ok((x, y));
    }
    let problem =
        "the projection of the start is not finite; Bilevel::project must give a point of its set".to_owned();
    Err(Error::Problem { problem })
}

fn has_norm(set: &Simple) -> bool {
    match set {
        Simple::L1(_) => true,
        Simple::Product(parts) => parts.iter().any(|(_, part)| has_norm(part)),
        _ => false,
    }
}

/// The gradient of `f + λᵀg` by both variables.
pub(super) fn lagrangian_grad<P: Bilevel + ?Sized>(
    problem: &P,
    x: &[f64],
    y: &[f64],
    lambda: &[f64],
    dx: &mut [f64],
    dy: &mut [f64],
) {
    problem.lower_grad(x, y, dx, dy);
    if !lambda.is_empty() {
        problem.vjp(x, y, lambda, dx, dy);
    }
}

/// How far `g` is from holding: the largest `max(0, g_i)`, or `|g_i|` of an equality. NaN where one is not a number.
pub(super) fn violation<P: Bilevel + ?Sized>(problem: &P, g: &[f64]) -> f64 {
    let beyond = |(i, &g): (usize, &f64)| if problem.equality(i) || g > 0.0 || g.is_nan() { g } else { 0.0 };
    largest(&g.iter().enumerate().map(beyond).collect::<Vec<_>>())
}
