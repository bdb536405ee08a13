//! The method of multipliers: minimise the augmented Lagrangian, update the multipliers, repeat.
//!
//! # Method
//! With the objective scaled by `s_f` and each constraint by `s_i`, so that no gradient at the start is above 100,
//! ```text
//! x      ← argmin  s_f f(x) + h(x) + Σ_i terms of s_i c_i(x)           to a tolerance that falls to that of the problem
//! λ_i, ρ_i ← as crate::dual::AugmentedLagrangian
//! ```
//! The inner problem is solved by L-BFGS within bounds, or by spectral proximal gradients for other simple parts. With an L1 norm in
//! the simple part nothing is scaled, since that would change its weight.
//!
//! # Parameters
//! | name | symbol | default | range | meaning |
//! |---|---|---|---|---|
//! | penalty.rho | ρ | 10 | > 0 | first penalty, per unit of scaled violation |
//! | penalty.growth | | 10 | >= 1 | factor where a violation does not fall |
//! | penalty.share | | 0.25 | in [0, 1] | share of a violation that may remain |
//! | inner | | 1000 | > 0 | most steps of an inner problem |
//!
//! # Reference
//! Birgin & Martínez 2014, *Practical Augmented Lagrangian Methods*, algorithm 4.1; Nocedal & Wright, §17.4.
//!
//! # Differences
//! Penalties are raised for each constraint by itself. Multipliers are not safeguarded by a box: a weight that is not finite ends
//! the run.

use saddlepoint_core::metrics::Metrics;
use serde::{Deserialize, Serialize};

use super::descent::{End, Smooth, minimise};
use super::{Flow, Iterate, Solver, Stop};
use crate::dual::{self, Duals, Penalty, at_least, at_most, equal};
use crate::kkt::{Kkt, infeasibility, residuals};
use crate::linalg::{largest, scale};
use crate::outcome::{Status, UNBOUNDED};
use crate::problem::{Constrained, Constraint, check_start};
use crate::{Error, Result};

/// Settings of the method of multipliers.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AugmentedLagrangian {
    /// When it ends; an iteration is an update of the multipliers.
    pub stop: Stop,
    /// The penalty and how it is raised.
    pub penalty: Penalty,
    /// Most steps of an inner problem.
    pub inner: u64,
}

impl Default for AugmentedLagrangian {
    fn default() -> Self {
        let penalty = Penalty { rho: 10.0, growth: 10.0, share: 0.25, rho_max: 1e12 };
        Self { stop: Stop { iterations: 100, ..Stop::default() }, penalty, inner: 1000 }
    }
}

/// What it remembers between two updates of the multipliers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AugmentedLagrangianState {
    x: Vec<f64>,
    duals: Duals,
    /// The constraint of each multiplier: one with two limits has two.
    of: Vec<usize>,
    scale: Scale,
    /// Stationarity that the next inner problem is solved to.
    tolerance: f64,
    iteration: u64,
    /// The least KKT error and the least violation so far, and the updates since.
    best: (f64, u64),
    least_violation: (f64, u64),
    measures: Vec<(String, f64)>,
}

/// Factors by which the inner problem sees the functions.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Scale {
    pub(super) objective: f64,
    pub(super) constraints: Vec<f64>,
}

impl Scale {
    /// Gradients above this are scaled down to it.
    const LARGE: f64 = 100.0;
    const LEAST: f64 = 1e-8;

    /// All functions as they are.
    pub(super) fn none(constraints: usize) -> Self {
        Self { objective: 1.0, constraints: vec![1.0; constraints] }
    }

    /// From the gradients at `x`.
    pub(super) fn new<P: Constrained + ?Sized>(problem: &P, x: &[f64]) -> Self {
        if problem.simple().is_norm() {
            return Self::none(problem.constraints().len());
        }
        let factor = |size: f64| if size > Self::LARGE { (Self::LARGE / size).max(Self::LEAST) } else { 1.0 };
        let mut g = vec![0.0; x.len()];
        problem.grad(x, &mut g);
        let rows = problem.jacobian(x).row_sizes();
        Self { objective: factor(largest(&g)), constraints: rows.into_iter().map(factor).collect() }
    }
}

/// The augmented Lagrangian of a problem.
pub(super) struct Lagrangian<'a, P: ?Sized> {
    pub(super) problem: &'a P,
    pub(super) duals: &'a Duals,
    pub(super) of: &'a [usize],
    pub(super) scale: &'a Scale,
}

impl<P: Constrained + ?Sized> Lagrangian<'_, P> {
    /// The scaled constraint functions, one a multiplier.
    pub(super) fn measured(&self, x: &[f64]) -> Vec<f64> {
        let mut c = vec![0.0; self.problem.constraints().len()];
        self.problem.residuals(x, &mut c);
        self.of.iter().map(|&i| self.scale.constraints[i] * c[i]).collect()
    }

    /// From one weight a multiplier to one a constraint.
    fn gather(&self, weights: &[f64]) -> Vec<f64> {
        let mut gathered = vec![0.0; self.problem.constraints().len()];
        self.of.iter().zip(weights).for_each(|(&i, w)| gathered[i] += self.scale.constraints[i] * w);
        gathered
    }
}

impl<P: Constrained + ?Sized> Smooth for Lagrangian<'_, P> {
    fn value(&self, x: &[f64]) -> f64 {
        let term = self.duals.term_at(&self.measured(x));
        // Where a constraint is not finite there is no value: the search steps back.
        self.scale.objective * self.problem.value(x) + term.unwrap_or(f64::NAN)
    }

    fn grad(&self, x: &[f64], g: &mut [f64]) {
        self.problem.grad(x, g);
        scale(g, self.scale.objective);
        match self.duals.weights_at(&self.measured(x)) {
            Ok(weights) => self.problem.vjp(x, &self.gather(&weights), g),
            Err(_) => g.fill(f64::NAN),
        }
    }
}

/// Multipliers for constraints with limits, scaled: one each, two where both limits are finite and differ.
pub(super) fn split(constraints: &[Constraint], factors: &[f64]) -> (Vec<dual::Constraint>, Vec<usize>) {
    let mut split = Vec::new();
    for (i, (c, s)) in constraints.iter().zip(factors).enumerate() {
        let name = || c.name.clone();
        if c.is_equality() {
            split.push((equal(name(), s * c.upper), i));
            continue;
        }
        if c.upper < f64::INFINITY {
            split.push((at_most(name(), s * c.upper), i));
        }
        if c.lower > f64::NEG_INFINITY {
            split.push((at_least(name(), s * c.lower), i));
        }
    }
    split.into_iter().unzip()
}

/// One multiplier a constraint, of the functions as they are.
pub(super) fn gathered(duals: &Duals, of: &[usize], scale: &Scale) -> Vec<f64> {
    let mut multipliers = vec![0.0; scale.constraints.len()];
    for ((&i, c), multiplier) in of.iter().zip(duals.constraints()).zip(duals.multipliers()) {
        let sign = if c.sense == dual::Sense::AtLeast { -1.0 } else { 1.0 };
        multipliers[i] += sign * multiplier * scale.constraints[i] / scale.objective;
    }
    multipliers
}

/// The start of a method that minimises Lagrangians, projected. Refuses what does not fit the problem, and no steps for a minimisation.
pub(super) fn begin<P: Constrained + ?Sized>(
    problem: &P,
    x0: &[f64],
    stop: Stop,
    [inner, default]: [u64; 2],
) -> Result<Vec<f64>> {
    check_start(problem, x0)?;
    stop.check()?;
    if inner == 0 {
        return Err(Error::range("inner", "> 0", 0.0, default as f64));
    }
    let mut x = x0.to_vec();
    problem.simple().project(&mut x);
    Ok(x)
}

impl<P: Constrained + ?Sized> Solver<P> for AugmentedLagrangian {
    type State = AugmentedLagrangianState;

    fn stop(&self) -> Stop {
        self.stop
    }

    fn init(&self, problem: &P, x0: &[f64]) -> Result<Self::State> {
        let x = begin(problem, x0, self.stop, [self.inner, Self::default().inner])?;
        let scale = Scale::new(problem, &x);
        let (constraints, of) = split(problem.constraints(), &scale.constraints);
        let rule =
            dual::AugmentedLagrangian { penalty: self.penalty, ..dual::AugmentedLagrangian::default() };
        Ok(AugmentedLagrangianState {
            x,
            duals: Duals::new(constraints, rule)?,
            of,
            scale,
            tolerance: 0.1,
            iteration: 0,
            best: (f64::MAX, 0),
            least_violation: (f64::MAX, 0),
            measures: Vec::new(),
        })
    }

    fn step(&self, problem: &P, state: &mut Self::State) -> Result<Flow> {
        state.iteration += 1;
        let finest = 0.5 * self.stop.tolerance * state.scale.objective;
        let lagrangian = Lagrangian { problem, duals: &state.duals, of: &state.of, scale: &state.scale };
        let (point, end) =
            minimise(&lagrangian, problem.simple(), &state.x, state.tolerance.max(finest), self.inner);
        let measured = lagrangian.measured(&point.x);
        let violation =
            |x: &[f64]| residuals(problem, x, &vec![0.0; problem.constraints().len()]).0.feasibility;
        if end == End::NotFinite {
            return Ok(Flow::Stop(Status::NotFinite));
        }
        if end == End::Unbounded {
            let feasible = violation(&point.x) <= 1e-6 * largest(&point.x).max(1.0);
            if feasible && problem.value(&point.x) < UNBOUNDED {
                state.x = point.x;
                return Ok(Flow::Stop(Status::Unbounded));
            }
            // The penalty does not hold the objective: more of it, from where the fall began.
            return Ok(if state.duals.raise_penalties(self.penalty.growth.max(2.0)) {
                Flow::Continue
            } else {
                state.x = point.x;
                Flow::Stop(Status::Unbounded)
            });
        }
        state.x = point.x;
        // A weight that is not finite belongs to a penalty that nothing can satisfy.
        if state.duals.update(&measured).is_err() {
            return Ok(Flow::Stop(Status::Infeasible));
        }
        let (kkt, _) = residuals(problem, &state.x, &state.multipliers());
        state.tolerance = (0.1 * state.tolerance).max(finest);
        state.record(problem.value(&state.x) + problem.simple().value(&state.x), &kkt);
        Ok(self.flow(problem, state, &kkt, end))
    }
}

impl AugmentedLagrangian {
    /// Updates without progress after which a run gives up.
    const PATIENCE: u64 = 8;

    fn flow<P: Constrained + ?Sized>(
        &self,
        problem: &P,
        state: &AugmentedLagrangianState,
        kkt: &Kkt,
        end: End,
    ) -> Flow {
        if kkt.error() <= self.stop.tolerance {
            return Flow::Stop(Status::Optimal);
        }
        if state.duals.constraints().is_empty() && end == End::Stalled {
            return Flow::Stop(Status::Stalled);
        }
        let violated = kkt.feasibility > self.stop.tolerance;
        if violated && state.least_violation.1 >= Self::PATIENCE {
            let stationary = infeasibility(problem, &state.x).is_some_and(|found| found.gradient <= 1e-3);
            return Flow::Stop(if stationary { Status::Infeasible } else { Status::Stalled });
        }
        let exhausted = state.best.1 >= 2 * Self::PATIENCE && end != End::Limit;
        if exhausted { Flow::Stop(Status::Stalled) } else { Flow::Continue }
    }
}

impl AugmentedLagrangianState {
    fn record(&mut self, objective: f64, kkt: &Kkt) {
        let better = |best: &mut (f64, u64), value: f64| {
            *best = if value < 0.9 * best.0 { (value, 0) } else { (best.0, best.1 + 1) };
        };
        better(&mut self.best, kkt.error());
        better(&mut self.least_violation, kkt.feasibility);
        let named = [
            ("objective", objective),
            ("stationarity", kkt.stationarity),
            ("feasibility", kkt.feasibility),
            ("complementarity", kkt.complementarity),
        ];
        self.measures = named.map(|(name, value)| (name.to_owned(), value)).to_vec();
    }
}

impl Iterate for AugmentedLagrangianState {
    fn x(&self) -> &[f64] {
        &self.x
    }

    fn multipliers(&self) -> Vec<f64> {
        gathered(&self.duals, &self.of, &self.scale)
    }

    fn iteration(&self) -> u64 {
        self.iteration
    }

    fn measures(&self) -> Metrics {
        let mut metrics = Metrics::new();
        self.measures.iter().for_each(|(name, value)| metrics.set(name.clone(), *value));
        metrics
    }
}

#[cfg(test)]
mod tests {
    use saddlepoint_core::test::assert_close;

    use super::*;
    use crate::outcome::Outcome;
    use crate::problem::{Bounds, L1, Problem, Simplex, eq, le, minimize};

    fn solve(problem: &Problem, x0: &[f64]) -> Outcome {
        AugmentedLagrangian::default().solve(problem, x0).expect("a valid problem")
    }

    fn bowl<'a>() -> Problem<'a> {
        minimize(2, |x| x[0] * x[0] + x[1] * x[1]).grad(|x, g| (0..2).for_each(|i| g[i] = 2.0 * x[i]))
    }

    #[test]
    fn simple_parts_are_kept_beside_constraints() {
        let c = || eq("c", |x| x[0] - 3.0 * x[1]).grad(|_, g| g.copy_from_slice(&[1.0, -3.0]));
        let out = solve(&bowl().subject_to(c()).within(Simplex), &[0.0, 1.0]);
        assert_eq!(out.status, Status::Optimal, "{out:?}");
        assert_close!(out.x, [0.75, 0.25], atol = 1e-6);
        let bounds = Bounds::new(vec![1.5, f64::NEG_INFINITY], vec![f64::INFINITY; 2]);
        let out = solve(&bowl().subject_to(c()).within(bounds), &[0.0, 1.0]);
        assert_close!(out.x, [1.5, 0.5], atol = 1e-6);
        let out = solve(
            &bowl().subject_to(le("c", |x| 1.0 - x[0]).grad(|_, g| g[0] = -1.0)).within(L1::new(1.0)),
            &[0.0, 1.0],
        );
        assert_eq!(out.status, Status::Optimal, "{out:?}");
        assert_close!([out.x[0], out.x[1], out.dual("c")], [1.0, 0.0, 3.0], atol = 1e-5);
    }

    #[test]
    fn a_state_that_was_written_and_read_continues_exactly() {
        let problem =
            bowl().subject_to(eq("c", |x| x[0] * x[1] - 2.0).grad(|x, g| g.copy_from_slice(&[x[1], x[0]])));
        let solver = AugmentedLagrangian::default();
        let mut whole = solver.init(&problem, &[3.0, 1.0]).expect("valid");
        for _ in 0..6 {
            let text = serde_json::to_string(&whole).expect("serialises");
            let mut read: AugmentedLagrangianState = serde_json::from_str(&text).expect("parses");
            assert_eq!(
                solver.step(&problem, &mut whole).expect("steps"),
                solver.step(&problem, &mut read).expect("steps")
            );
            assert_eq!(whole, read);
        }
    }

    #[test]
    fn a_start_that_does_not_fit_is_refused() {
        let told =
            |x0: &[f64]| AugmentedLagrangian::default().solve(&bowl(), x0).expect_err("refused").to_string();
        assert_eq!(told(&[0.0]), "starting point: expected 2 elements, got 1");
        assert_eq!(
            told(&[0.0, f64::NAN]),
            "the problem: variable 1 of the starting point is NaN; it must be finite"
        );
        let solver =
            AugmentedLagrangian { stop: Stop { tolerance: 0.0, ..Stop::default() }, ..Default::default() };
        let told = solver.solve(&bowl(), &[0.0; 2]).expect_err("refused").to_string();
        assert_eq!(told, "tolerance: must be > 0, got 0 (default 0.000001)");
    }
}
