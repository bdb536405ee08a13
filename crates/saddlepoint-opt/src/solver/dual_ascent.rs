//! Dual ascent: minimise the Lagrangian, move the multipliers along the violations, repeat.
//!
//! # Method
//! ```text
//! x ← argmin f(x) + h(x) + λᵀ(c(x) − b),      λ ← Π[ λ + k_p Δe + k_i e ],   e the violations
//! ```
//! by the rule [`NuPi`] of [`dual`](crate::dual), which is plain ascent with step `k_i` where `k_p = 0`. It needs an objective whose
//! Lagrangian has a minimum for every multiplier, as a strongly convex one has, and a step below twice its modulus over `|J|²`. It
//! decomposes where the Lagrangian does; elsewhere the augmented Lagrangian is the better choice.
//!
//! # Parameters
//! | name | symbol | default | range | meaning |
//! |---|---|---|---|---|
//! | rule | | kp 0, ki 0.01 | | the step on the multipliers |
//! | inner | | 1000 | > 0 | most steps of an inner problem |
//!
//! # Reference
//! Arrow, Hurwicz & Uzawa 1958; Boyd et al. 2011, §2.1; the rule: Sohrabi et al. 2024.

use saddlepoint_core::metrics::Metrics;
use serde::{Deserialize, Serialize};

use super::augmented_lagrangian::{Lagrangian, Scale, begin, gathered, split};
use super::descent::{End, minimise};
use super::{Flow, Iterate, Solver, Stop};
use crate::Result;
use crate::dual::{Duals, NuPi};
use crate::kkt::{Kkt, residuals};
use crate::outcome::Status;
use crate::problem::Constrained;

/// Settings.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DualAscent {
    /// When it ends; an iteration is an update of the multipliers.
    pub stop: Stop,
    /// The step on the multipliers.
    pub rule: NuPi,
    /// Most steps of an inner problem.
    pub inner: u64,
}

impl Default for DualAscent {
    fn default() -> Self {
        let rule = NuPi { ki: 0.01, ..NuPi::default() };
        Self { stop: Stop { iterations: 10_000, ..Stop::default() }, rule, inner: 1000 }
    }
}

/// What it remembers between two updates of the multipliers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DualAscentState {
    x: Vec<f64>,
    duals: Duals,
    of: Vec<usize>,
    scale: Scale,
    iteration: u64,
    kkt: Option<Kkt>,
    objective: f64,
}

impl<P: Constrained + ?Sized> Solver<P> for DualAscent {
    type State = DualAscentState;

    fn stop(&self) -> Stop {
        self.stop
    }

    fn init(&self, problem: &P, x0: &[f64]) -> Result<Self::State> {
        let x = begin(problem, x0, self.stop, [self.inner, Self::default().inner])?;
        let scale = Scale::none(problem.constraints().len());
        let (constraints, of) = split(problem.constraints(), &scale.constraints);
        let duals = Duals::new(constraints, self.rule)?;
        let objective = problem.value(&x);
        Ok(DualAscentState { x, duals, of, scale, iteration: 0, kkt: None, objective })
    }

    fn step(&self, problem: &P, s: &mut Self::State) -> Result<Flow> {
        s.iteration += 1;
        let lagrangian = Lagrangian { problem, duals: &s.duals, of: &s.of, scale: &s.scale };
        let (point, end) =
            minimise(&lagrangian, problem.simple(), &s.x, 0.5 * self.stop.tolerance, self.inner);
        let measured = lagrangian.measured(&point.x);
        match end {
            End::NotFinite => return Ok(Flow::Stop(Status::NotFinite)),
            // The Lagrangian has no minimum: nothing is said about the problem.
            End::Unbounded => return Ok(Flow::Stop(Status::Stalled)),
            _ => s.x = point.x,
        }
        // The multipliers with which x minimises the Lagrangian are the ones that it is judged with.
        let (kkt, _) = residuals(problem, &s.x, &s.multipliers());
        s.objective = problem.value(&s.x) + problem.simple().value(&s.x);
        s.kkt = Some(kkt);
        if kkt.error() <= self.stop.tolerance {
            return Ok(Flow::Stop(Status::Optimal));
        }
        // A weight that is not finite belongs to constraints that nothing can satisfy.
        Ok(if s.duals.update(&measured).is_ok() { Flow::Continue } else { Flow::Stop(Status::Infeasible) })
    }
}

impl Iterate for DualAscentState {
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
        metrics.set("objective", self.objective);
        if let Some(kkt) = self.kkt {
            metrics.set("stationarity", kkt.stationarity);
            metrics.set("feasibility", kkt.feasibility);
            metrics.set("complementarity", kkt.complementarity);
        }
        metrics
    }
}
