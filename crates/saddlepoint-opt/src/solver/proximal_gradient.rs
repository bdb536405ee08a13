//! Projected and proximal gradient steps, accelerated.
//!
//! # Method
//! For `min f(x) + h(x)` with the simple part `h` (a projection, where it is a set):
//! ```text
//! x⁺ = prox_{h/L}( y − ∇f(y)/L )          L doubled until f(x⁺) <= f(y) + ∇f(y)ᵀ(x⁺ − y) + (L/2)|x⁺ − y|²
//! t⁺ = (1 + √(1 + 4t²)) / 2,  y⁺ = x⁺ + ((t − 1)/t⁺)(x⁺ − x)
//! ```
//! and `y = x`, `t = 1` again whenever `(y − x⁺)ᵀ(x⁺ − x) > 0`. Without acceleration `y = x` throughout.
//!
//! # Reference
//! Beck & Teboulle 2009 (FISTA); restarts: O'Donoghue & Candès 2015.
//!
//! # Differences
//! `L` falls by a tenth before each step, so that it follows the curvature downwards as well.

use saddlepoint_core::metrics::Metrics;
use serde::{Deserialize, Serialize};

use super::{Flow, Iterate, Solver, Stop, refuse_constraints};
use crate::Result;
use crate::kkt::stationarity;
use crate::linalg::{add_scaled, dot};
use crate::outcome::{Status, UNBOUNDED};
use crate::problem::{Constrained, check_start};

/// Settings.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ProximalGradient {
    /// When it ends.
    pub stop: Stop,
    /// Whether steps have momentum.
    pub accelerated: bool,
}

impl Default for ProximalGradient {
    fn default() -> Self {
        Self { stop: Stop { iterations: 100_000, ..Stop::default() }, accelerated: true }
    }
}

/// What it remembers between two steps.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ProximalGradientState {
    x: Vec<f64>,
    y: Vec<f64>,
    t: f64,
    /// The curvature `L`.
    curvature: f64,
    iteration: u64,
    objective: f64,
    stationarity: f64,
}

impl<P: Constrained + ?Sized> Solver<P> for ProximalGradient {
    type State = ProximalGradientState;

    fn stop(&self) -> Stop {
        self.stop
    }

    fn init(&self, problem: &P, x0: &[f64]) -> Result<Self::State> {
        check_start(problem, x0)?;
        refuse_constraints(problem, "proximal-gradient")?;
        self.stop.check()?;
        let mut x = x0.to_vec();
        problem.simple().project(&mut x);
        let y = x.clone();
        let nothing = f64::MAX;
        Ok(ProximalGradientState {
            x,
            y,
            t: 1.0,
            curvature: 1.0,
            iteration: 0,
            objective: nothing,
            stationarity: nothing,
        })
    }

    fn step(&self, problem: &P, s: &mut Self::State) -> Result<Flow> {
        s.iteration += 1;
        let (simple, n) = (problem.simple(), s.x.len());
        let mut g = vec![0.0; n];
        problem.grad(&s.y, &mut g);
        let value = problem.value(&s.y);
        if !value.is_finite() || g.iter().any(|g| !g.is_finite()) {
            // Momentum may have left the domain, from which the last iterate did not.
            if s.y == s.x {
                return Ok(Flow::Stop(Status::NotFinite));
            }
            (s.y, s.t) = (s.x.clone(), 1.0);
            return Ok(Flow::Continue);
        }
        s.curvature *= 0.9;
        let next = loop {
            let mut next = s.y.clone();
            add_scaled(&mut next, -1.0 / s.curvature, &g);
            simple.prox(1.0 / s.curvature, &mut next);
            let step: Vec<f64> = next.iter().zip(&s.y).map(|(a, b)| a - b).collect();
            let model = value + dot(&g, &step) + 0.5 * s.curvature * dot(&step, &step);
            let there = problem.value(&next);
            let finite = there.is_finite() && next.iter().all(|x| x.is_finite());
            if finite && there <= model + 1e-14 * value.abs() {
                break next;
            }
            s.curvature *= 2.0;
            if s.curvature > 1e30 {
                return Ok(Flow::Stop(Status::Stalled));
            }
        };
        let step: Vec<f64> = next.iter().zip(&s.x).map(|(a, b)| a - b).collect();
        let against: f64 = (0..n).map(|i| (s.y[i] - next[i]) * step[i]).sum();
        s.y.clone_from(&next);
        if !self.accelerated || against > 0.0 {
            s.t = 1.0;
        } else {
            let t = 0.5 * (1.0 + (1.0 + 4.0 * s.t * s.t).sqrt());
            add_scaled(&mut s.y, (s.t - 1.0) / t, &step);
            s.t = t;
        }
        s.x = next;
        problem.grad(&s.x, &mut g);
        s.stationarity = stationarity(problem, &s.x, &g);
        s.objective = problem.value(&s.x) + simple.value(&s.x);
        Ok(if s.stationarity <= self.stop.tolerance {
            Flow::Stop(Status::Optimal)
        } else if s.objective < UNBOUNDED {
            Flow::Stop(Status::Unbounded)
        } else {
            Flow::Continue
        })
    }
}

impl Iterate for ProximalGradientState {
    fn x(&self) -> &[f64] {
        &self.x
    }

    fn multipliers(&self) -> Vec<f64> {
        Vec::new()
    }

    fn iteration(&self) -> u64 {
        self.iteration
    }

    fn measures(&self) -> Metrics {
        let mut metrics = Metrics::new();
        metrics.set("objective", self.objective);
        metrics.set("stationarity", self.stationarity);
        metrics.set("curvature", self.curvature);
        metrics
    }
}
