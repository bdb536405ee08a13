//! The conditions of Karush, Kuhn and Tucker at a point, measured from the problem alone: every solver is judged by this code
//! and none by its own.
//!
//! With multipliers `λ` in the convention of the Lagrangian `L = f + Σ λ_i c_i` (`λ_i >= 0` where the upper limit binds,
//! `<= 0` where the lower one does):
//! ```text
//! stationarity      |x − prox_h(x − ∇L)|∞          |∇L|∞ without a simple part
//! feasibility       the largest distance of a c_i from [lower_i, upper_i], and of x from its set
//! complementarity   max_i max( min(λ_i⁺, upper_i − c_i), min(λ_i⁻, c_i − lower_i) )
//! ```
//! A multiplier of the wrong sign shows in the complementarity, since an absent limit is infinitely far.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::linalg::{add_scaled, largest, norm};
use crate::problem::{Constrained, Simple};

/// The three residuals, in the units of the problem.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Kkt {
    /// How far `x` is from being stationary.
    pub stationarity: f64,
    /// How far `x` is from satisfying the constraints.
    pub feasibility: f64,
    /// How far multipliers are from 0 where their constraint does not bind.
    pub complementarity: f64,
    /// By what the first and the last are divided before they are compared with a tolerance: `max(1, |λ|∞ / 100, |∇f|∞ / 100)`, since
    /// terms that large leave rounding errors where they cancel (after Wächter & Biegler 2006, eq. 6, whose solver scales the objective
    /// instead).
    #[serde(skip, default = "one")]
    pub scale: f64,
}

fn one() -> f64 {
    1.0
}

impl Kkt {
    /// The largest residual, the first and the last divided by the scale; NaN if one is.
    pub fn error(&self) -> f64 {
        largest(&[self.stationarity / self.scale, self.feasibility, self.complementarity / self.scale])
    }
}

impl fmt::Display for Kkt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { stationarity, feasibility, complementarity, .. } = self;
        write!(
            f,
            "stationarity {stationarity:.1e}, feasibility {feasibility:.1e}, complementarity {complementarity:.1e}"
        )
    }
}

/// What common code finds at a point.
#[derive(Debug, Clone, PartialEq)]
pub struct Judgement {
    /// `f(x) + h(x)`.
    pub objective: f64,
    /// The residuals.
    pub kkt: Kkt,
    /// The gradient of the Lagrangian: at a bound its negative is the bound's multiplier.
    pub reduced: Vec<f64>,
    /// Names of the constraints, in the order of the multipliers.
    pub names: Vec<String>,
    /// Stationarity of the constraint violation, where there is any.
    pub infeasibility: Option<Infeasibility>,
    /// What the problem has to tell.
    pub notes: Vec<String>,
}

/// How nearly a point where constraints are violated is a local minimum of the violation: with `v_i` the distance of `c_i` from
/// its limits and `w = v / |v|`, the nonnegative combination `w` of violated constraints has a gradient `Jᵀ w` near 0. For convex
/// constraints that proves that no point satisfies them all.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Infeasibility {
    /// `|v|`, Euclidean.
    pub violation: f64,
    /// `|x − P(x − Jᵀ w)|∞`, over the largest element of the rows of `J` that take part if that is above 1.
    pub gradient: f64,
    /// `w`, one a constraint.
    pub weights: Vec<f64>,
}

/// A problem that common code can judge: what [`Solver::run`](crate::solver::Solver::run) needs.
pub trait Judge {
    /// Objective, residuals and certificates at `x` with one multiplier a constraint.
    fn judge(&self, x: &[f64], multipliers: &[f64]) -> Judgement;
}

impl<P: Constrained + ?Sized> Judge for P {
    fn judge(&self, x: &[f64], multipliers: &[f64]) -> Judgement {
        let (kkt, reduced) = residuals(self, x, multipliers);
        Judgement {
            objective: self.value(x) + self.simple().value(x),
            kkt,
            reduced,
            names: self.constraints().iter().map(|c| c.name.clone()).collect(),
            infeasibility: infeasibility(self, x),
            notes: self.notes(),
        }
    }
}

/// The residuals and the gradient of the Lagrangian.
pub(crate) fn residuals<P: Constrained + ?Sized>(
    problem: &P,
    x: &[f64],
    multipliers: &[f64],
) -> (Kkt, Vec<f64>) {
    let mut reduced = vec![0.0; x.len()];
    problem.grad(x, &mut reduced);
    let steepest = largest(&reduced);
    problem.vjp(x, multipliers, &mut reduced);
    let mut c = vec![0.0; problem.constraints().len()];
    problem.residuals(x, &mut c);
    (measured(problem, x, multipliers, steepest, &c, &reduced), reduced)
}

/// The residuals from what was evaluated at `x`: the largest element of `∇f`, the constraint functions, and the gradient of the
/// Lagrangian.
pub(crate) fn measured<P: Constrained + ?Sized>(
    problem: &P,
    x: &[f64],
    multipliers: &[f64],
    steepest: f64,
    c: &[f64],
    reduced: &[f64],
) -> Kkt {
    let constraints = problem.constraints();
    let excess: Vec<f64> = constraints.iter().zip(c).map(|(of, &c)| of.excess(c)).collect();
    let complementarity = constraints.iter().zip(c).zip(multipliers).map(|((of, c), &multiplier)| {
        let slack = if multiplier > 0.0 { of.upper - c } else { c - of.lower };
        if multiplier.is_nan() { multiplier } else { multiplier.abs().min(slack.abs()) }
    });
    Kkt {
        stationarity: stationarity(problem, x, reduced),
        feasibility: largest(&[largest(&excess), problem.simple().distance(x)]),
        complementarity: largest(&complementarity.collect::<Vec<_>>()),
        scale: scale(steepest.max(largest(multipliers))),
    }
}

/// The scale that belongs to terms of a size. What is infinite is not cancelled by anything, and excuses nothing.
pub(crate) fn scale(size: f64) -> f64 {
    if size.is_finite() { (size / 100.0).max(1.0) } else { 1.0 }
}

/// `|x − prox_h(x − g)|∞`.
pub(crate) fn stationarity<P: Constrained + ?Sized>(problem: &P, x: &[f64], g: &[f64]) -> f64 {
    let mut moved: Vec<f64> = x.iter().zip(g).map(|(x, g)| x - g).collect();
    problem.simple().prox(1.0, &mut moved);
    // Where nothing was projected the difference is g itself, without the rounding of x − (x − g).
    let free = |i: usize| moved[i].to_bits() == (x[i] - g[i]).to_bits();
    let change: Vec<f64> = (0..x.len()).map(|i| if free(i) { g[i] } else { x[i] - moved[i] }).collect();
    largest(&change)
}

/// How nearly stationary the violation is; `None` where there is none.
pub(crate) fn infeasibility<P: Constrained + ?Sized>(problem: &P, x: &[f64]) -> Option<Infeasibility> {
    let constraints = problem.constraints();
    let mut c = vec![0.0; constraints.len()];
    problem.residuals(x, &mut c);
    let excess: Vec<f64> = constraints.iter().zip(&c).map(|(of, &c)| of.excess(c)).collect();
    let violation = norm(&excess);
    if violation == 0.0 || !violation.is_finite() {
        return None;
    }
    let weights: Vec<f64> = excess.iter().map(|v| v / violation).collect();
    let jacobian = problem.jacobian(x);
    let sizes = jacobian.row_sizes();
    let taking_part = sizes.iter().zip(&weights).filter(|(_, w)| **w != 0.0).map(|(size, _)| *size);
    let scale = taking_part.fold(1.0, f64::max);
    let mut gradient = vec![0.0; x.len()];
    jacobian.add_transposed_product(&weights, &mut gradient);
    let mut moved = x.to_vec();
    add_scaled(&mut moved, -1.0, &gradient);
    let gradient = match problem.simple() {
        Simple::Free => largest(&gradient),
        // Norms play no part in whether constraints can be satisfied.
        set => {
            set.project(&mut moved);
            largest(&x.iter().zip(&moved).map(|(x, p)| x - p).collect::<Vec<_>>())
        }
    };
    Some(Infeasibility { violation, gradient: gradient / scale, weights })
}

#[cfg(test)]
mod tests {
    use saddlepoint_core::test::assert_close;

    use super::*;
    use crate::problem::{Bounds, between, ge, le, minimize};

    #[test]
    fn residuals_vanish_at_a_saddle_point_and_show_each_fault() {
        // min x² + y² with x + y >= 1: x = y = 1/2, multiplier −1.
        let p = minimize(2, |x| x[0] * x[0] + x[1] * x[1])
            .grad(|x, g| (0..2).for_each(|i| g[i] = 2.0 * x[i]))
            .subject_to(ge("sum", |x| x[0] + x[1] - 1.0).grad(|_, g| g.fill(1.0)));
        let of = |x: [f64; 2], multiplier: f64| {
            let kkt = p.judge(&x, &[multiplier]).kkt;
            [kkt.stationarity, kkt.feasibility, kkt.complementarity]
        };
        assert_close!(of([0.5, 0.5], -1.0), [0.0; 3], atol = 1e-15);
        assert_close!(of([0.5, 0.5], -0.8), [0.2, 0.0, 0.0], atol = 1e-15);
        assert_close!(of([0.5, 0.25], 0.0), [1.0, 0.25, 0.0], atol = 1e-15);
        assert_close!(of([1.0, 0.5], -0.3), [1.7, 0.0, 0.3], atol = 1e-15);
        // The wrong sign, at the limit.
        assert_close!(of([0.5, 0.5], 2.0), [3.0, 0.0, 2.0], atol = 1e-15);
        assert!(p.judge(&[f64::NAN, 0.0], &[0.0]).kkt.error().is_nan());
        assert!(p.judge(&[0.0, 0.0], &[f64::NAN]).kkt.error().is_nan());
    }

    #[test]
    fn a_bound_takes_up_the_gradient_that_pushes_against_it() {
        let p = minimize(1, |x| x[0]).grad(|_, g| g[0] = 1.0).within(Bounds::new(vec![2.0], vec![3.0]));
        assert_close!(p.judge(&[2.0], &[]).kkt.error(), 0.0, atol = 0.0);
        assert_close!(p.judge(&[2.4], &[]).kkt.stationarity, 0.4, atol = 1e-15);
        assert_close!(p.judge(&[1.5], &[]).kkt.feasibility, 0.5, atol = 1e-15);
        assert_close!(p.judge(&[2.0], &[]).reduced, [1.0], atol = 0.0);
    }

    #[test]
    fn an_infinite_slope_at_a_bound_excuses_no_other() {
        let p = minimize(2, |x| x[0].sqrt() + x[1])
            .grad(|x, g| g.copy_from_slice(&[0.5 / x[0].sqrt(), 1.0]))
            .within(Bounds::new(vec![0.0, 0.0], vec![1.0, 3.0]));
        assert_close!(p.judge(&[0.0, 2.0], &[]).kkt.error(), 1.0, atol = 0.0);
        assert_close!(p.judge(&[0.0, 0.0], &[]).kkt.error(), 0.0, atol = 0.0);
    }

    #[test]
    fn contradicting_constraints_are_stationary_where_their_violation_is_least() {
        let p = minimize(1, |_| 0.0)
            .grad(|_, _| ())
            .subject_to(le("below", |x| x[0] + 1.0).grad(|_, g| g[0] = 1.0))
            .subject_to(ge("above", |x| x[0] - 1.0).grad(|_, g| g[0] = 1.0));
        let found = p.judge(&[0.0], &[0.0; 2]).infeasibility.expect("violated");
        assert_close!([found.violation, found.gradient], [2.0_f64.sqrt(), 0.0], atol = 1e-15);
        assert_close!(found.weights, [0.5_f64.sqrt(), -(0.5_f64.sqrt())], atol = 1e-15);
        let one = minimize(1, |_| 0.0)
            .grad(|_, _| ())
            .subject_to(between("c", 2.0, |x| x[0], 3.0).grad(|_, g| g[0] = 1.0));
        assert_close!(one.judge(&[0.0], &[0.0]).infeasibility.expect("violated").gradient, 1.0, atol = 1e-15);
        assert_eq!(one.judge(&[2.5], &[0.0]).infeasibility, None);
    }
}
