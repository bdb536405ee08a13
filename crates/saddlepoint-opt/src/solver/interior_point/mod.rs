//! Primal-dual interior point with a filter line search: the baseline for problems with any constraints and bounds.
//!
//! # Method
//! With slacks `s` for constraints that are no equalities, `v = (x, s)` in `[l, u]` and everything else in `c(v) = 0`, for `μ → 0`
//! ```text
//! min φ_μ = f(x) − μ Σ log(v − l) − μ Σ log(u − v)   subject to  c(v) = 0
//! ```
//! is solved to `E_μ <= 10 μ` by Newton steps on its KKT conditions with multipliers `y` of `c` and `z` of the limits:
//! ```text
//! [ W + Σ + δ_w   Jᵀ  ] [Δv]     [ ∇φ_μ + Jᵀ y ]
//! [ J            −δ_c ] [Δy] = − [ c           ]     W = ∇²L,  Σ = z/(v − l) + z/(u − v)
//! ```
//! `δ_w` grows until the matrix has as many positive eigenvalues as there are variables and as many negative ones as there are
//! constraints; `δ_c > 0` where gradients of constraints are dependent. Steps end before a limit (`τ` of the way) and are halved until a
//! filter takes violation and objective; a first one that is not taken is bent back to the constraints by second-order corrections.
//! Where no part of a step is taken, `½|c|²` with the same barrier is minimised until the filter takes a point (restoration); where
//! that stays above 0 and is stationary, the problem is infeasible. Functions are scaled so that no gradient at the start is above 100.
//!
//! # Parameters
//! | name | symbol | default | range | meaning |
//! |---|---|---|---|---|
//! | mu | μ | 0.1 | > 0 | first barrier parameter |
//! | kappa_mu, theta_mu | κ_μ, θ_μ | 0.2, 1.5 | in (0, 1), in (1, 2) | the next is `min(κ_μ μ, μ^θ_μ)` |
//! | tau | τ | 0.99 | in (0, 1) | least part of the way to a limit that a step may go |
//! | push | | 0.01 | in (0, 0.5) | how far inside of its limits the start is moved |
//! | corrections | | 4 | | most second-order corrections of a step |
//! | stop | | 1e-6, 3000 | | |
//!
//! # Metrics
//! `objective` · `stationarity`, `feasibility`, `complementarity` as of the outcome · `mu` · `step` part of the last step that was taken ·
//! `regularisation` `δ_w` of the last step · `restoring` 1 while the violation alone is minimised
//!
//! # Reference
//! Wächter & Biegler 2006, *On the implementation of an interior-point filter line-search algorithm for large-scale nonlinear
//! programming*, Mathematical Programming 106, 25-57, whose constants are kept.
//!
//! # Differences
//! Limits are not relaxed. The restoration minimises the square of the violation, with its exact second derivatives, and not its sum. It ends
//! where the KKT residuals of the problem as it was given are within the tolerance, not those of the scaled one.
//! After eight steps in a row of which the filter leaves less than a fiftieth the filter is emptied, at most three times; then the restoration begins.
//!
//! # Checked against
//! Closed forms, quadratic convergence near a solution, the problems of `problems::known`; IPOPT on 129 problems of CUTEst (`docs/nlp.md`).

mod barrier;
mod filter;
mod restoration;
mod system;

use saddlepoint_core::metrics::Metrics;
use serde::{Deserialize, Serialize};

use super::augmented_lagrangian::Scale;
use super::{Flow, Iterate, Solver, Stop};
use crate::kkt::Kkt;
use crate::linalg::{add_scaled, dot, largest};
use crate::outcome::{Status, UNBOUNDED};
use crate::problem::{Bounds, Constrained, Curved, check_start};
use crate::{Error, Result};
use barrier::{Barrier, LimitDuals, Slopes, Values};
use filter::{Filter, Kind, Promise};
use restoration::Restoration;
use system::{Factored, Regularisation, System};

/// Settings of the method.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct InteriorPoint {
    /// When it ends.
    pub stop: Stop,
    /// First barrier parameter, > 0.
    pub mu: f64,
    /// Factor of the barrier parameter, in (0, 1).
    pub kappa_mu: f64,
    /// Power of the barrier parameter, in (1, 2).
    pub theta_mu: f64,
    /// Least part of the way to a limit that a step may go, in (0, 1).
    pub tau: f64,
    /// How far inside of its limits the start is moved, in (0, 0.5).
    pub push: f64,
    /// Most second-order corrections of a step.
    pub corrections: u64,
}

impl Default for InteriorPoint {
    fn default() -> Self {
        Self {
            stop: Stop { tolerance: 1e-6, iterations: 3000 },
            mu: 0.1,
            kappa_mu: 0.2,
            theta_mu: 1.5,
            tau: 0.99,
            push: 0.01,
            corrections: 4,
        }
    }
}

/// What it remembers between two steps.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct InteriorPointState {
    /// Variables, then slacks.
    v: Vec<f64>,
    n: usize,
    /// Multipliers of the scaled constraints.
    y: Vec<f64>,
    z: LimitDuals,
    mu: f64,
    filter: Filter,
    scale: Scale,
    past: Regularisation,
    restoration: Option<Restoration>,
    /// Steps in a row that were too short to change anything.
    tiny: u64,
    /// Steps in a row of which the filter left but a small part, and how often it was emptied for that.
    short: u64,
    emptied: u64,
    iteration: u64,
    measures: Vec<(String, f64)>,
}

/// Functions and derivatives at a point.
struct Here {
    values: Values,
    slopes: Slopes,
}

/// A step and how it may be bent.
struct Direction<'a> {
    v: Vec<f64>,
    y: Vec<f64>,
    factored: Factored<'a>,
    /// Right-hand side of the upper rows.
    r_v: Vec<f64>,
}

impl InteriorPoint {
    fn check(&self) -> Result<()> {
        let d = Self::default();
        self.stop.check()?;
        let range = |ok: bool, key, range: &str, got: f64, default| {
            if ok && got.is_finite() { Ok(()) } else { Err(Error::range(key, range, got, default)) }
        };
        let inside = |x: f64, low: f64, high: f64| x > low && x < high;
        range(self.mu > 0.0, "mu", "> 0", self.mu, d.mu)?;
        range(inside(self.kappa_mu, 0.0, 1.0), "kappa_mu", "in (0, 1)", self.kappa_mu, d.kappa_mu)?;
        range(inside(self.theta_mu, 1.0, 2.0), "theta_mu", "in (1, 2)", self.theta_mu, d.theta_mu)?;
        range(inside(self.tau, 0.0, 1.0), "tau", "in (0, 1)", self.tau, d.tau)?;
        range(inside(self.push, 0.0, 0.5), "push", "in (0, 0.5)", self.push, d.push)
    }

    /// Below this the barrier parameter does not fall: a multiplier and a distance that are equal are both below the tolerance then.
    fn least_mu(&self) -> f64 {
        0.1 * self.stop.tolerance.powi(2).min(1e-2 * self.stop.tolerance)
    }
}

/// Bounds of the variables, for a solver that knows no other set.
fn bounds<P: Constrained + ?Sized>(problem: &P) -> Result<Bounds> {
    problem.simple().as_bounds(problem.dim()).ok_or_else(|| {
        let problem =
            "interior-point takes bounds and no other set or norm; state it as constraints, or use the augmented Lagrangian";
        Error::Problem { problem: problem.to_owned() }
    })
}

impl<P: Curved + ?Sized> Solver<P> for InteriorPoint {
    type State = InteriorPointState;

    fn stop(&self) -> Stop {
        self.stop
    }

    fn init(&self, problem: &P, x0: &[f64]) -> Result<Self::State> {
        check_start(problem, x0)?;
        problem.check_curvature()?;
        self.check()?;
        let n = problem.dim();
        let mut x = x0.to_vec();
        let none = Scale::none(problem.constraints().len());
        let mut inner = Barrier::new(problem, &none, bounds(problem)?);
        inner.slack.clear();
        inner.inside(&mut x, self.push);
        let scale = Scale::new(problem, &x);
        let barrier = Barrier::new(problem, &scale, bounds(problem)?);
        let mut v = x;
        v.resize(barrier.lower.len(), 0.0);
        // With slacks at 0 what is left of a constraint is its value.
        let values = barrier.values(&v).c;
        barrier.slack.iter().zip(&values).for_each(|(slack, c)| slack.iter().for_each(|&s| v[s] = *c));
        if v.iter().all(|v| v.is_finite()) {
            barrier.inside(&mut v, self.push);
        }
        let mu = if barrier.limited() { self.mu.max(self.least_mu()) } else { self.least_mu() };
        let mut state = InteriorPointState {
            n,
            y: vec![0.0; barrier.slack.len()],
            z: barrier.first_duals(1.0),
            mu,
            filter: Filter::new(barrier.values(&v).violation()),
            past: Regularisation { last: 0.0 },
            restoration: None,
            tiny: 0,
            short: 0,
            emptied: 0,
            iteration: 0,
            measures: Vec::new(),
            v,
            scale: scale.clone(),
        };
        let here = barrier.here(&state.v);
        if here.values.finite() && here.slopes.finite() {
            state.y = barrier.least_squares(&here.slopes, &state).unwrap_or(state.y);
        }
        Ok(state)
    }

    fn step(&self, problem: &P, s: &mut Self::State) -> Result<Flow> {
        let scale = s.scale.clone();
        let barrier = Barrier::new(problem, &scale, bounds(problem)?);
        let here = barrier.here(&s.v);
        if !(here.values.finite() && here.slopes.finite()) {
            return Ok(Flow::Stop(Status::NotFinite));
        }
        let kkt = barrier.kkt(&s.v, &here.values, &here.slopes, &s.y);
        s.record(problem.value(&s.v[..s.n]), &kkt);
        if kkt.error() <= self.stop.tolerance {
            return Ok(Flow::Stop(Status::Optimal));
        }
        let size = largest(&s.v[..s.n]).max(1.0);
        if here.values.objective / scale.objective < UNBOUNDED && kkt.feasibility <= 1e-6 * size {
            return Ok(Flow::Stop(Status::Unbounded));
        }
        s.iteration += 1;
        match s.restoration {
            Some(restoration) => Ok(self.restore(&barrier, s, &here, restoration)),
            None => Ok(self.advance(&barrier, s, &here)),
        }
    }
}

/// Attempts with more regularisation at a point that satisfies the constraints.
const ATTEMPTS: u32 = 8;
/// Steps without effect after which a run ends.
const PATIENCE: u64 = 4;
/// Parts of steps below this are short; so many in a row are too many; so often the filter may be emptied.
const SHORT: f64 = 0.02;
const CRAWL: u64 = 8;
const EMPTIED: u64 = 3;
/// How far multipliers of limits may be from `μ` over the distance.
const SPREAD: f64 = 1e10;

impl InteriorPoint {
    /// A step on the barrier problem, or into the restoration.
    fn advance<P: Curved + ?Sized>(
        &self,
        barrier: &Barrier<P>,
        s: &mut InteriorPointState,
        here: &Here,
    ) -> Flow {
        let g = barrier.lagrangian(&here.slopes, &s.y, true);
        while s.mu > self.least_mu()
            && barrier.error(&g, &here.values.c, &s.v, &s.y, &s.z, s.mu) <= 10.0 * s.mu
        {
            s.mu = (self.kappa_mu * s.mu).min(s.mu.powf(self.theta_mu)).max(self.least_mu());
            s.filter.clear();
        }
        let violation = here.values.violation();
        let hessian = barrier.hessian(&s.v, &s.y);
        if s.short >= CRAWL {
            s.short = 0;
            if s.emptied < EMPTIED {
                s.emptied += 1;
                s.filter.clear();
            } else if violation > self.stop.tolerance {
                s.restoration = Some(Restoration::begin(barrier, s, 0.1 * violation));
                return Flow::Continue;
            }
        }
        let corner = vec![0.0; here.values.c.len()];
        let system = System::new(barrier, Some(&hessian), &here.slopes, barrier.sigma(&s.v, &s.z), corner);
        let mut floor = 0.0;
        for _ in 0..ATTEMPTS {
            let Some(factored) = system.regularised(&mut s.past, floor, s.mu) else { break };
            floor = (10.0 * factored.delta_w).max(1e-4);
            s.tell("regularisation", factored.delta_w);
            let mut r_v = g.clone();
            add_scaled(&mut r_v, 1.0, &barrier.pull(&s.v, s.mu));
            let (v, y) = factored.solve(&r_v, &here.values.c);
            if v.iter().chain(&y).any(|d| !d.is_finite()) {
                continue;
            }
            let direction = Direction { v, y, factored, r_v };
            if let Some(flow) = self.search(barrier, s, here, &direction) {
                return flow;
            }
            if violation > 0.1 * self.stop.tolerance {
                break;
            }
        }
        if violation <= 1e-3 * self.stop.tolerance {
            return Flow::Stop(Status::Stalled);
        }
        let objective = barrier.objective(here.values.objective, &s.v, s.mu);
        s.filter.add(violation, objective);
        s.restoration = Some(Restoration::begin(barrier, s, 0.9 * violation));
        Flow::Continue
    }

    /// Takes a part of a step; `None` if the filter takes none.
    fn search<P: Curved + ?Sized>(
        &self,
        barrier: &Barrier<P>,
        s: &mut InteriorPointState,
        here: &Here,
        direction: &Direction,
    ) -> Option<Flow> {
        let mu = s.mu;
        let tau = self.tau.max(1.0 - mu);
        let most = barrier.longest(&s.v, &direction.v, tau);
        let mut slope = dot(&here.slopes.gradient, &direction.v[..s.n]);
        slope += dot(&barrier.pull(&s.v, mu), &direction.v);
        let from = Promise {
            violation: here.values.violation(),
            objective: barrier.objective(here.values.objective, &s.v, mu),
            slope,
        };
        let relative = |(d, v): (&f64, &f64)| d.abs() / (1.0 + v.abs());
        let change = direction.v.iter().zip(&s.v).map(relative).fold(0.0, f64::max);
        if change <= 10.0 * f64::EPSILON {
            let mut v = s.v.clone();
            add_scaled(&mut v, most, &direction.v);
            if s.tiny > PATIENCE || !barrier.values(&v).finite() {
                return Some(Flow::Stop(Status::Stalled));
            }
            s.take(barrier, v, direction, most, most, mu, tau);
            // As near as the numbers get: on with the next barrier, and at the last with other multipliers.
            s.tiny += u64::from(s.mu <= self.least_mu());
            s.mu = (self.kappa_mu * s.mu).max(self.least_mu());
            if s.tiny == PATIENCE {
                s.y = barrier.least_squares(&here.slopes, s).unwrap_or_else(|| s.y.clone());
            }
            return Some(Flow::Continue);
        }
        let shortest = s.filter.shortest(from);
        let mut alpha = most;
        while alpha >= shortest {
            let mut v = s.v.clone();
            add_scaled(&mut v, alpha, &direction.v);
            let values = barrier.values(&v);
            let reached = |v: &[f64], values: &Values| {
                s.filter.accepts(alpha, from, values.violation(), barrier.objective(values.objective, v, mu))
            };
            let mut taken = reached(&v, &values).map(|kind| (v, kind, alpha));
            if taken.is_none() && alpha.to_bits() == most.to_bits() && values.violation() >= from.violation {
                taken = self.corrected(barrier, s, here, direction, values, (alpha, from, tau));
            }
            if let Some((v, kind, primal)) = taken {
                if kind == Kind::Either {
                    s.filter.add(from.violation, from.objective);
                }
                s.tiny = 0;
                s.short = if alpha < SHORT * most { s.short + 1 } else { 0 };
                s.take(barrier, v, direction, primal, alpha, mu, tau);
                return Some(Flow::Continue);
            }
            alpha *= 0.5;
        }
        None
    }

    /// A step whose end is pulled back to the constraints.
    fn corrected<P: Curved + ?Sized>(
        &self,
        barrier: &Barrier<P>,
        s: &InteriorPointState,
        here: &Here,
        direction: &Direction,
        mut values: Values,
        (alpha, from, tau): (f64, Promise, f64),
    ) -> Option<(Vec<f64>, Kind, f64)> {
        let mut c: Vec<f64> = here.values.c.clone();
        let (mut length, mut last) = (alpha, from.violation);
        for _ in 0..self.corrections {
            if !values.finite() {
                return None;
            }
            c.iter_mut().zip(&values.c).for_each(|(c, there)| *c = length * *c + there);
            let (step, _) = direction.factored.solve(&direction.r_v, &c);
            if step.iter().any(|d| !d.is_finite()) {
                return None;
            }
            length = barrier.longest(&s.v, &step, tau);
            let mut v = s.v.clone();
            add_scaled(&mut v, length, &step);
            values = barrier.values(&v);
            let violation = values.violation();
            let objective = barrier.objective(values.objective, &v, s.mu);
            if let Some(kind) = s.filter.accepts(alpha, from, violation, objective) {
                return Some((v, kind, length));
            }
            if violation > 0.99 * last || violation.is_nan() {
                return None;
            }
            last = violation;
        }
        None
    }
}

impl InteriorPointState {
    /// Moves to `v`, and the multipliers along.
    fn take<P: Constrained + ?Sized>(
        &mut self,
        barrier: &Barrier<P>,
        v: Vec<f64>,
        direction: &Direction,
        step: f64,
        alpha: f64,
        mu: f64,
        tau: f64,
    ) {
        add_scaled(&mut self.y, alpha, &direction.y);
        self.move_limits(barrier, &v, &direction.v, mu, tau);
        self.v = v;
        self.tell("step", step);
        self.tell("mu", mu);
    }

    /// The step of the multipliers of limits that belongs to a step from `self.v` to `v`.
    fn move_limits<P: Constrained + ?Sized>(
        &mut self,
        barrier: &Barrier<P>,
        v: &[f64],
        step: &[f64],
        mu: f64,
        tau: f64,
    ) {
        let count = self.v.len();
        let (mut lower, mut upper, mut alpha) = (vec![0.0; count], vec![0.0; count], 1.0_f64);
        for i in (0..count).filter(|&i| !barrier.fixed(i)) {
            let (below, above) = barrier.gaps(&self.v, i);
            for (gap, z, sign, change) in
                [(below, self.z.lower[i], 1.0, &mut lower[i]), (above, self.z.upper[i], -1.0, &mut upper[i])]
            {
                if gap.is_finite() {
                    *change = mu / gap - z - sign * z / gap * step[i];
                    if *change < 0.0 {
                        alpha = alpha.min(-tau * z / *change);
                    }
                }
            }
        }
        for i in (0..count).filter(|&i| !barrier.fixed(i)) {
            let (below, above) = barrier.gaps(v, i);
            for (gap, z, change) in
                [(below, &mut self.z.lower[i], lower[i]), (above, &mut self.z.upper[i], upper[i])]
            {
                if gap.is_finite() {
                    *z = (*z + alpha * change).clamp(mu / (SPREAD * gap), SPREAD * mu / gap);
                }
            }
        }
    }

    fn tell(&mut self, name: &str, value: f64) {
        match self.measures.iter_mut().find(|(known, _)| known == name) {
            Some((_, old)) => *old = value,
            None => self.measures.push((name.to_owned(), value)),
        }
    }

    fn record(&mut self, objective: f64, kkt: &Kkt) {
        self.tell("objective", objective);
        self.tell("stationarity", kkt.stationarity);
        self.tell("feasibility", kkt.feasibility);
        self.tell("complementarity", kkt.complementarity);
        self.tell("restoring", f64::from(u8::from(self.restoration.is_some())));
    }
}

impl Slopes {
    fn finite(&self) -> bool {
        let jacobian = self.jacobian.elements().iter().map(|(_, _, value)| value);
        self.gradient.iter().chain(jacobian).all(|value| value.is_finite())
    }
}

/// Multipliers of a least-squares problem above this say nothing.
const LARGE_MULTIPLIER: f64 = 1e3;

impl<P: Constrained + ?Sized> Barrier<'_, P> {
    fn here(&self, v: &[f64]) -> Here {
        Here { values: self.values(v), slopes: self.slopes(v) }
    }

    /// The same multiplier for every limit.
    fn first_duals(&self, size: f64) -> LimitDuals {
        let of = |limits: &[f64]| {
            let of = |(i, limit): (usize, &f64)| if limit.is_finite() && !self.fixed(i) { size } else { 0.0 };
            limits.iter().enumerate().map(of).collect()
        };
        LimitDuals { lower: of(&self.lower), upper: of(&self.upper) }
    }

    /// Multipliers that make the gradient of the Lagrangian smallest; `None` if they say nothing.
    fn least_squares(&self, slopes: &Slopes, s: &InteriorPointState) -> Option<Vec<f64>> {
        if self.slack.is_empty() {
            return Some(Vec::new());
        }
        let mut r_v = self.lagrangian(slopes, &vec![0.0; self.slack.len()], true);
        add_scaled(&mut r_v, -1.0, &s.z.lower);
        add_scaled(&mut r_v, 1.0, &s.z.upper);
        // Slacks count as variables do.
        let mut sigma = vec![0.0; self.lower.len()];
        sigma[self.n..].fill(1.0);
        let system = System::new(self, None, slopes, sigma, vec![0.0; self.slack.len()]);
        let factored = system.regularised(&mut Regularisation { last: 0.0 }, 0.0, 1.0)?;
        let (_, y) = factored.solve(&r_v, &vec![0.0; self.slack.len()]);
        (largest(&y) <= LARGE_MULTIPLIER).then_some(y)
    }
}

impl Iterate for InteriorPointState {
    fn x(&self) -> &[f64] {
        &self.v[..self.n]
    }

    fn multipliers(&self) -> Vec<f64> {
        self.y.iter().zip(&self.scale.constraints).map(|(y, s)| y * s / self.scale.objective).collect()
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
mod tests;
