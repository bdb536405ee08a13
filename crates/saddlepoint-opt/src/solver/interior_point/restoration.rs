//! Minimising the violation alone, where a filter takes no step.

use serde::{Deserialize, Serialize};

use super::barrier::Barrier;
use super::system::System;
use super::{Here, InteriorPoint, InteriorPointState, LARGE_MULTIPLIER, SPREAD};
use crate::kkt::infeasibility;
use crate::linalg::{add_scaled, dot, largest};
use crate::outcome::Status;
use crate::problem::{Constrained, Curved};
use crate::solver::Flow;

/// What is known of a restoration while it goes on.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(super) struct Restoration {
    /// The violation at which it may end.
    enough: f64,
    /// Its own barrier parameter.
    mu: f64,
    /// Whether violations count as they are, and not scaled: a certificate is about those.
    plain: bool,
}

/// Share of a slope that a step realises.
const ARMIJO: f64 = 1e-4;
/// Violations whose gradient is below this are stationary.
const STATIONARY: f64 = 1e-7;

impl Restoration {
    pub(super) fn begin<P: Constrained + ?Sized>(
        barrier: &Barrier<P>,
        s: &mut InteriorPointState,
        enough: f64,
    ) -> Self {
        s.balance(barrier, s.mu, SPREAD);
        s.short = 0;
        Self { enough, mu: s.mu, plain: false }
    }
}

impl InteriorPoint {
    /// A step on `½|c|² − μ Σ log(v − l) − μ Σ log(u − v)`.
    pub(super) fn restore<P: Curved + ?Sized>(
        &self,
        barrier: &Barrier<P>,
        s: &mut InteriorPointState,
        here: &Here,
        mut of: Restoration,
    ) -> Flow {
        let c = &here.values.c;
        let weights = barrier.weights(of.plain);
        let weighted = |c: &[f64]| -> Vec<f64> { c.iter().zip(&weights).map(|(c, w)| c / w).collect() };
        let y = weighted(c);
        let g = barrier.lagrangian(&here.slopes, &y, false);
        let none = vec![0.0; c.len()];
        while of.mu > 1e-3 * self.least_mu()
            && barrier.error(&g, &none, &s.v, &none, &s.z, of.mu) <= 10.0 * of.mu
        {
            of.mu *= self.kappa_mu;
        }
        s.restoration = Some(of);
        let stationary = |s: &InteriorPointState, least: f64| {
            let found = barrier.infeasibility(&s.v);
            found.is_some_and(|found| found.violation > self.stop.tolerance && found.gradient <= least)
        };
        if stationary(s, STATIONARY) {
            return Flow::Stop(Status::Infeasible);
        }
        let given_up = |s: &mut InteriorPointState| match (stationary(s, 1e-3), of.plain) {
            (true, _) => Flow::Stop(Status::Infeasible),
            (false, true) => Flow::Stop(Status::Stalled),
            (false, false) => {
                s.tiny = 0;
                s.restoration = Some(Restoration { plain: true, ..of });
                Flow::Continue
            }
        };
        let hessian = barrier.constraint_hessian(&s.v, &y);
        let sigma = barrier.sigma(&s.v, &s.z);
        let system = System::new(barrier, Some(&hessian), &here.slopes, sigma, weights.clone());
        let Some(factored) = system.regularised(&mut s.past, 0.0, of.mu) else { return given_up(s) };
        // The multiplier that is solved for is (c + J Δv) over the weights, not its change.
        let pull = barrier.pull(&s.v, of.mu);
        let (step, _) = factored.solve(&pull, c);
        let slope = dot(&g, &step) + dot(&pull, &step);
        let tau = self.tau.max(1.0 - of.mu);
        let value = |c: &[f64], v: &[f64]| barrier.objective(0.5 * dot(c, &weighted(c)), v, of.mu);
        let before = value(c, &s.v);
        let mut alpha = barrier.longest(&s.v, &step, tau);
        let rounding = 10.0 * f64::EPSILON * before.abs();
        loop {
            let mut v = s.v.clone();
            add_scaled(&mut v, alpha, &step);
            let values = barrier.values(&v);
            if values.finite() && value(&values.c, &v) <= before + ARMIJO * alpha * slope + rounding {
                let change =
                    step.iter().zip(&s.v).fold(0.0_f64, |most, (d, v)| most.max(d.abs() / (1.0 + v.abs())));
                s.tiny = if alpha * change <= 10.0 * f64::EPSILON { s.tiny + 1 } else { 0 };
                s.move_limits(barrier, &v, &step, of.mu, tau);
                s.v = v;
                s.tell("step", alpha);
                s.tell("regularisation", factored.delta_w);
                let violation = values.violation();
                let objective = barrier.objective(values.objective, &s.v, s.mu);
                let enough = violation <= of.enough && s.filter.allows(violation, objective);
                if enough || violation <= 1e-3 * self.stop.tolerance {
                    s.resume(barrier, violation, objective);
                } else if s.tiny > super::PATIENCE {
                    return given_up(s);
                }
                return Flow::Continue;
            }
            alpha *= 0.5;
            if alpha < 1e-14 || slope.is_nan() {
                return given_up(s);
            }
        }
    }
}

impl InteriorPointState {
    /// Multipliers of limits within a factor of `spread` of `mu` over the distance.
    fn balance<P: Constrained + ?Sized>(&mut self, barrier: &Barrier<P>, mu: f64, spread: f64) {
        for i in (0..self.v.len()).filter(|&i| !barrier.fixed(i)) {
            let (below, above) = barrier.gaps(&self.v, i);
            for (gap, z) in [(below, &mut self.z.lower[i]), (above, &mut self.z.upper[i])] {
                if gap.is_finite() {
                    *z = z.clamp(mu / (spread * gap), spread * mu / gap);
                }
            }
        }
    }

    /// Goes on with the problem itself from where the restoration ended.
    fn resume<P: Constrained + ?Sized>(&mut self, barrier: &Barrier<P>, violation: f64, objective: f64) {
        self.restoration = None;
        self.tiny = 0;
        if !self.filter.allows(violation, objective) {
            self.filter.clear();
        }
        self.balance(barrier, self.mu, 1.0);
        let slopes = barrier.slopes(&self.v);
        let limited = |z: &[f64]| largest(z) <= LARGE_MULTIPLIER;
        if !(limited(&self.z.lower) && limited(&self.z.upper)) {
            self.z = barrier.first_duals(1.0);
            self.balance(barrier, self.mu, SPREAD);
        }
        let finite = slopes.finite();
        let y = if finite { barrier.least_squares(&slopes, self) } else { None };
        self.y = y.unwrap_or_else(|| vec![0.0; barrier.slack.len()]);
    }
}

impl<P: Constrained + ?Sized> Barrier<'_, P> {
    /// What squares of violations are divided by.
    fn weights(&self, plain: bool) -> Vec<f64> {
        let of = |s: &f64| if plain { s * s } else { 1.0 };
        self.scale().constraints.iter().map(of).collect()
    }

    /// How nearly stationary the violation of the problem as it was given is.
    fn infeasibility(&self, v: &[f64]) -> Option<crate::kkt::Infeasibility> {
        infeasibility(self.problem(), &v[..self.n])
    }
}
