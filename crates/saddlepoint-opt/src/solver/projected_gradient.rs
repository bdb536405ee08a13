//! Gradient steps of spectral length, projected.
//!
//! # Method
//! ```text
//! d = prox_{σh}( x − σ∇f(x) ) − x,   σ = sᵀs / sᵀy of the last step s and the change y of the gradient
//! x⁺ = x + t d,   t = 1, 1/2, ... until the value is below the largest of the last ten by 1e-4 t times the slope
//! ```
//!
//! # Reference
//! Birgin, Martínez & Raydan 2000.

use saddlepoint_core::metrics::Metrics;
use serde::{Deserialize, Serialize};

use super::descent::spectral::Spectral;
use super::descent::{Point, Smooth};
use super::{Flow, Iterate, Solver, Stop, refuse_constraints};
use crate::Result;
use crate::kkt::stationarity;
use crate::outcome::{Status, UNBOUNDED};
use crate::problem::{Constrained, check_start};

/// Settings.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ProjectedGradient {
    /// When it ends.
    pub stop: Stop,
}

impl Default for ProjectedGradient {
    fn default() -> Self {
        Self { stop: Stop { iterations: 50_000, ..Stop::default() } }
    }
}

/// What it remembers between two steps.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ProjectedGradientState {
    point: Point,
    method: Spectral,
    iteration: u64,
    stationarity: f64,
}

/// The smooth part of a problem.
struct Alone<'a, P: ?Sized>(&'a P);

impl<P: Constrained + ?Sized> Smooth for Alone<'_, P> {
    fn value(&self, x: &[f64]) -> f64 {
        self.0.value(x)
    }

    fn grad(&self, x: &[f64], g: &mut [f64]) {
        self.0.grad(x, g);
    }
}

impl<P: Constrained + ?Sized> Solver<P> for ProjectedGradient {
    type State = ProjectedGradientState;

    fn stop(&self) -> Stop {
        self.stop
    }

    fn init(&self, problem: &P, x0: &[f64]) -> Result<Self::State> {
        check_start(problem, x0)?;
        refuse_constraints(problem, "projected-gradient")?;
        self.stop.check()?;
        let mut x = x0.to_vec();
        problem.simple().project(&mut x);
        let point = Point::new(&Alone(problem), x);
        let stationarity = stationarity(problem, &point.x, &point.grad);
        Ok(ProjectedGradientState { point, method: Spectral::default(), iteration: 0, stationarity })
    }

    fn step(&self, problem: &P, s: &mut Self::State) -> Result<Flow> {
        if !s.point.is_finite() {
            return Ok(Flow::Stop(Status::NotFinite));
        }
        if s.stationarity <= self.stop.tolerance {
            return Ok(Flow::Stop(Status::Optimal));
        }
        s.iteration += 1;
        if !s.method.step(&Alone(problem), problem.simple(), &mut s.point) {
            return Ok(Flow::Stop(Status::Stalled));
        }
        s.stationarity = stationarity(problem, &s.point.x, &s.point.grad);
        Ok(if s.stationarity <= self.stop.tolerance {
            Flow::Stop(Status::Optimal)
        } else if s.point.value < UNBOUNDED {
            Flow::Stop(Status::Unbounded)
        } else {
            Flow::Continue
        })
    }
}

impl Iterate for ProjectedGradientState {
    fn x(&self) -> &[f64] {
        &self.point.x
    }

    fn multipliers(&self) -> Vec<f64> {
        Vec::new()
    }

    fn iteration(&self) -> u64 {
        self.iteration
    }

    fn measures(&self) -> Metrics {
        let mut metrics = Metrics::new();
        metrics.set("objective", self.point.value);
        metrics.set("stationarity", self.stationarity);
        metrics
    }
}
