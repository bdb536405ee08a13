//! The problem with slacks and logarithms: everything that is a function of a point.

use super::super::augmented_lagrangian::Scale;
use crate::kkt::{self, Kkt};
use crate::linalg::{Triplets, largest};
use crate::problem::{Bounds, Constrained, Constraint, Curved};

/// `min f(x)` subject to `c(x) − t = 0` for equalities, `c(x) − s = 0` for the others, and limits of `v = (x, s)`. Functions are scaled.
pub(super) struct Barrier<'a, P: ?Sized> {
    problem: &'a P,
    scale: &'a Scale,
    /// The number of variables without slacks.
    pub(super) n: usize,
    /// Where in `v` the slack of a constraint is.
    pub(super) slack: Vec<Option<usize>>,
    pub(super) lower: Vec<f64>,
    pub(super) upper: Vec<f64>,
}

/// Functions at a point.
pub(super) struct Values {
    pub(super) objective: f64,
    /// What is to be 0, one a constraint.
    pub(super) c: Vec<f64>,
}

impl Values {
    pub(super) fn finite(&self) -> bool {
        self.objective.is_finite() && self.c.iter().all(|c| c.is_finite())
    }

    /// The sum of the violations.
    pub(super) fn violation(&self) -> f64 {
        self.c.iter().map(|c| c.abs()).sum()
    }
}

/// First derivatives at a point, with respect to `x`.
pub(super) struct Slopes {
    pub(super) gradient: Vec<f64>,
    pub(super) jacobian: Triplets,
}

/// Multipliers of the limits of `v`; 0 where there is none.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
pub(super) struct LimitDuals {
    pub(super) lower: Vec<f64>,
    pub(super) upper: Vec<f64>,
}

/// Keeps a variable with one limit from moving away for nothing.
const DAMPING: f64 = 1e-5;

impl<'a, P: Constrained + ?Sized> Barrier<'a, P> {
    pub(super) fn new(problem: &'a P, scale: &'a Scale, bounds: Bounds) -> Self {
        let Bounds { mut lower, mut upper } = bounds;
        let n = problem.dim();
        let slack = problem.constraints().iter().zip(&scale.constraints).map(|(of, s)| {
            (!of.is_equality()).then(|| {
                lower.push(s * of.lower);
                upper.push(s * of.upper);
                lower.len() - 1
            })
        });
        let slack = slack.collect();
        Self { problem, scale, n, slack, lower, upper }
    }

    pub(super) fn problem(&self) -> &'a P {
        self.problem
    }

    pub(super) fn scale(&self) -> &'a Scale {
        self.scale
    }

    pub(super) fn constraints(&self) -> &'a [Constraint] {
        self.problem.constraints()
    }

    /// Whether a variable has but one value.
    #[allow(clippy::float_cmp, reason = "limits are equal only if they were given as equal")]
    pub(super) fn fixed(&self, i: usize) -> bool {
        self.lower[i] == self.upper[i]
    }

    /// Distances to the limits, never 0 by rounding; infinite where there is none.
    pub(super) fn gaps(&self, v: &[f64], i: usize) -> (f64, f64) {
        let gap = |distance: f64, limit: f64| {
            if limit.is_finite() { distance.max(f64::EPSILON * limit.abs().max(1e-2)) } else { f64::INFINITY }
        };
        (gap(v[i] - self.lower[i], self.lower[i]), gap(self.upper[i] - v[i], self.upper[i]))
    }

    /// Whether any variable has a limit that is not its value.
    pub(super) fn limited(&self) -> bool {
        (0..self.lower.len())
            .any(|i| !self.fixed(i) && (self.lower[i].is_finite() || self.upper[i].is_finite()))
    }

    /// Moves `v` into the interior of its limits: `share` of the distance between two, or of the size of one.
    pub(super) fn inside(&self, v: &mut [f64], share: f64) {
        for (i, v) in v.iter_mut().enumerate() {
            let (lower, upper) = (self.lower[i], self.upper[i]);
            let width = share * (upper - lower);
            let margin = |limit: f64| (share * limit.abs().max(1.0)).min(width);
            if self.fixed(i) {
                *v = lower;
                continue;
            }
            if lower.is_finite() {
                *v = v.max(lower + margin(lower));
            }
            if upper.is_finite() {
                *v = v.min(upper - margin(upper));
            }
        }
    }

    pub(super) fn values(&self, v: &[f64]) -> Values {
        let x = &v[..self.n];
        let mut c = vec![0.0; self.slack.len()];
        self.problem.residuals(x, &mut c);
        for (i, (c, of)) in c.iter_mut().zip(self.constraints()).enumerate() {
            let scale = self.scale.constraints[i];
            *c = scale * *c - self.slack[i].map_or(scale * of.upper, |slack| v[slack]);
        }
        Values { objective: self.scale.objective * self.problem.value(x), c }
    }

    pub(super) fn slopes(&self, v: &[f64]) -> Slopes {
        let x = &v[..self.n];
        let mut gradient = vec![0.0; self.n];
        self.problem.grad(x, &mut gradient);
        crate::linalg::scale(&mut gradient, self.scale.objective);
        let unscaled = self.problem.jacobian(x);
        let mut jacobian = Triplets::new(unscaled.rows(), unscaled.columns());
        unscaled.elements().iter().for_each(|&(i, j, a)| jacobian.push(i, j, self.scale.constraints[i] * a));
        Slopes { gradient, jacobian }
    }

    /// `f − μ Σ log(v − l) − μ Σ log(u − v)`, damped.
    pub(super) fn objective(&self, objective: f64, v: &[f64], mu: f64) -> f64 {
        let mut sum = 0.0;
        for i in (0..v.len()).filter(|&i| !self.fixed(i)) {
            let (below, above) = self.gaps(v, i);
            match (below.is_finite(), above.is_finite()) {
                (true, true) => sum -= below.ln() + above.ln(),
                (true, false) => sum += DAMPING * below - below.ln(),
                (false, true) => sum += DAMPING * above - above.ln(),
                (false, false) => {}
            }
        }
        objective + mu * sum
    }

    /// The gradient of the logarithms times `mu`.
    pub(super) fn pull(&self, v: &[f64], mu: f64) -> Vec<f64> {
        let of = |i: usize| {
            if self.fixed(i) {
                return 0.0;
            }
            let (below, above) = self.gaps(v, i);
            let damping = match (below.is_finite(), above.is_finite()) {
                (true, false) => DAMPING,
                (false, true) => -DAMPING,
                _ => 0.0,
            };
            mu * (1.0 / above - 1.0 / below + damping)
        };
        (0..v.len()).map(of).collect()
    }

    /// `∇f + Jᵀ y` over `x` and `−y` over the slacks; `f` is left out if `objective` is false.
    pub(super) fn lagrangian(&self, slopes: &Slopes, y: &[f64], objective: bool) -> Vec<f64> {
        let mut g = if objective { slopes.gradient.clone() } else { vec![0.0; self.n] };
        slopes.jacobian.add_transposed_product(y, &mut g);
        g.resize(self.lower.len(), 0.0);
        self.slack.iter().zip(y).for_each(|(slack, y)| slack.iter().for_each(|&slack| g[slack] -= y));
        (0..g.len()).filter(|&i| self.fixed(i)).for_each(|i| g[i] = 0.0);
        g
    }

    /// `z` over the distance to its limit, both sides together: the barrier's second derivative.
    pub(super) fn sigma(&self, v: &[f64], z: &LimitDuals) -> Vec<f64> {
        let of = |i: usize| {
            let (below, above) = self.gaps(v, i);
            z.lower[i] / below + z.upper[i] / above
        };
        (0..v.len()).map(|i| if self.fixed(i) { 0.0 } else { of(i) }).collect()
    }

    /// The largest of `|stationarity|`, `|c|` and `|gap z − μ|`, the first and the last over the mean size of multipliers above 100.
    pub(super) fn error(&self, g: &[f64], c: &[f64], v: &[f64], y: &[f64], z: &LimitDuals, mu: f64) -> f64 {
        let sum = |of: &[f64]| of.iter().map(|z| z.abs()).sum::<f64>();
        let total = sum(y) + sum(&z.lower) + sum(&z.upper);
        let scale = (total / ((y.len() + 2 * v.len()).max(1) as f64) / 100.0).max(1.0);
        let (mut stationarity, mut complementarity) = (0.0_f64, 0.0_f64);
        for i in (0..v.len()).filter(|&i| !self.fixed(i)) {
            stationarity = stationarity.max((g[i] - z.lower[i] + z.upper[i]).abs());
            let (below, above) = self.gaps(v, i);
            for (gap, z) in [(below, z.lower[i]), (above, z.upper[i])] {
                if gap.is_finite() {
                    complementarity = complementarity.max((gap * z - mu).abs());
                }
            }
        }
        (stationarity / scale).max(complementarity / scale).max(largest(c))
    }

    /// The longest part of `step`, at most 1, that leaves each distance to a limit above `1 − tau` of what it was.
    pub(super) fn longest(&self, v: &[f64], step: &[f64], tau: f64) -> f64 {
        let mut alpha = 1.0_f64;
        for i in (0..v.len()).filter(|&i| !self.fixed(i)) {
            let (below, above) = self.gaps(v, i);
            if step[i] < 0.0 {
                alpha = alpha.min(-tau * below / step[i]);
            } else if step[i] > 0.0 {
                alpha = alpha.min(tau * above / step[i]);
            }
        }
        alpha
    }

    /// The residuals of the problem as it is, from what is known at a point.
    pub(super) fn kkt(&self, v: &[f64], values: &Values, slopes: &Slopes, y: &[f64]) -> Kkt {
        let scale = self.scale;
        let multipliers = self.multipliers(y);
        let objective = 1.0 / scale.objective;
        let mut reduced = slopes.gradient.clone();
        slopes.jacobian.add_transposed_product(y, &mut reduced);
        crate::linalg::scale(&mut reduced, objective);
        let steepest = objective * largest(&slopes.gradient);
        let of = |(i, c): (usize, &f64)| {
            let upper = || scale.constraints[i] * self.constraints()[i].upper;
            (c + self.slack[i].map_or_else(upper, |slack| v[slack])) / scale.constraints[i]
        };
        let c: Vec<f64> = values.c.iter().enumerate().map(of).collect();
        kkt::measured(self.problem, &v[..self.n], &multipliers, steepest, &c, &reduced)
    }

    /// Multipliers of the constraints as they are.
    pub(super) fn multipliers(&self, y: &[f64]) -> Vec<f64> {
        y.iter().zip(&self.scale.constraints).map(|(y, s)| y * s / self.scale.objective).collect()
    }
}

impl<P: Curved + ?Sized> Barrier<'_, P> {
    /// The lower triangle of `∇²f + Σ y_i ∇²c_i`.
    pub(super) fn hessian(&self, v: &[f64], y: &[f64]) -> Triplets {
        scaled(&self.problem.hessian(&v[..self.n], &self.multipliers(y)), self.scale.objective)
    }

    /// The lower triangle of `Σ y_i ∇²c_i`.
    pub(super) fn constraint_hessian(&self, v: &[f64], y: &[f64]) -> Triplets {
        let x = &v[..self.n];
        let weights: Vec<f64> = y.iter().zip(&self.scale.constraints).map(|(y, s)| y * s).collect();
        let mut hessian = self.problem.hessian(x, &weights);
        let objective = self.problem.hessian(x, &vec![0.0; weights.len()]);
        objective.elements().iter().for_each(|&(i, j, a)| hessian.push(i, j, -a));
        hessian
    }
}

fn scaled(matrix: &Triplets, factor: f64) -> Triplets {
    let mut scaled = Triplets::new(matrix.rows(), matrix.columns());
    matrix.elements().iter().for_each(|&(i, j, a)| scaled.push(i, j, factor * a));
    scaled
}
