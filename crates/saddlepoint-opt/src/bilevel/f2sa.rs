//! F2SA: the fully first-order method whose multiplier of the lower level grows; the baseline of the penalty methods.
//!
//! # Objective
//! ```text
//! T times:   z <- z − γ_k ∇_y f(x, z)
//!            y <- y − α_k [∇_y F(x, y) + λ_k ∇_y f(x, y)]
//! x <- x − ξ α_k [∇_x F(x, y) + λ_k (∇_x f(x, y) − ∇_x f(x, z))]
//! ```
//! with `α_k = alpha (1 + k/k_0)^−a`, `γ_k = gamma (1 + k/k_0)^−c`. Either `λ_k = lambda + k delta`, or, where `delta` is not given,
//! `λ_k = γ_k/(2 α_k)`, which keeps `α_k λ_k` bounded.
//! # Parameters
//! | name | symbol | default | range | meaning |
//! |------|--------|---------|-------|---------|
//! | alpha, a | α, a | 0.1, 1/3 | > 0, >= 0 | step of `y` |
//! | gamma, c | γ, c | 0.2, 0 | > 0, >= 0 | step of `z` |
//! | k0 | k_0 | 100 | > 0 | when the steps begin to fall |
//! | xi | ξ | 1 | > 0 | step of `x` over that of `y` |
//! | inner | T | 1 | >= 1 | steps of the lower level a step of the upper one |
//! | lambda, delta | λ, δ | 1, none | > 0, >= 0 | a multiplier that grows by itself; with a constant `alpha` it ends in divergence, once `α λ_k` is above the inverse Lipschitz constant |
//! | sampled | | none | | seed of sampled gradients |
//!
//! The exponents of the paper are (a, c) = (1/3, 0) with exact gradients, (3/5, 2/5) with noise in `F`, (5/7, 4/7) with noise in both.
//! # Metrics
//! `lambda` · `stationarity` the length of the last step of `x` over `ξ α_k`
//! # Reference
//! Kwon, Kwon, Wright & Nowak 2023, ICML, arXiv:2301.10945.
//! # Differences
//! None in the update; `Y` is the whole space and the lower level strongly convex, as there. `X` may be a set.
//! # Checked against
//! Iterates to twelve digits.

use rand_chacha::rand_core::Rng as _;
use saddlepoint_core::metrics::Metrics;
use saddlepoint_core::seed::Seed;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::problem::check_start;
use super::vector::{distance, finite};
use super::{Bilevel, Iterate, Solver};
use crate::linalg::add_scaled;
use crate::outcome::Status;
use crate::problem::Simple;
use crate::solver::{Flow, Stop};
use crate::{Error, Result};

/// The method and its settings.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct F2sa {
    /// First step of `y`, > 0.
    pub alpha: f64,
    /// Exponent of its decay, >= 0.
    pub a: f64,
    /// First step of `z`, > 0.
    pub gamma: f64,
    /// Exponent of its decay, >= 0.
    pub c: f64,
    /// Steps after which the decay sets in, > 0.
    pub k0: f64,
    /// Step of `x` over that of `y`, > 0.
    pub xi: f64,
    /// Steps of the lower level a step of the upper one, >= 1.
    pub inner: u32,
    /// First multiplier, > 0; only with `delta`.
    pub lambda: f64,
    /// What it grows by in a step, >= 0.
    pub delta: Option<f64>,
    /// Seed of the samples on which gradients are taken; without it they are exact.
    pub sampled: Option<u64>,
    /// When it ends.
    pub stop: Stop,
}

impl Default for F2sa {
    fn default() -> Self {
        Self {
            alpha: 0.1,
            a: 1.0 / 3.0,
            gamma: 0.2,
            c: 0.0,
            k0: 100.0,
            xi: 1.0,
            inner: 1,
            lambda: 1.0,
            delta: None,
            sampled: None,
            stop: super::STOP,
        }
    }
}

/// Where it is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct F2saState {
    /// Upper variable.
    pub x: Vec<f64>,
    /// Follows the minimiser of `F + λ f`.
    pub y: Vec<f64>,
    /// Follows the minimiser of `f`.
    pub z: Vec<f64>,
    /// Steps done.
    pub k: u64,
    /// Of the last step.
    pub stationarity: Option<f64>,
    /// `λ` of the last step.
    pub lambda: Option<f64>,
}

impl F2sa {
    fn check<P: Bilevel + ?Sized>(&self, problem: &P) -> Result<()> {
        let d = Self::default();
        for (key, got, default) in [
            ("alpha", self.alpha, d.alpha),
            ("gamma", self.gamma, d.gamma),
            ("k0", self.k0, d.k0),
            ("xi", self.xi, d.xi),
            ("lambda", self.lambda, d.lambda),
        ] {
            super::positive(key, got, default)?;
        }
        Error::not_negative("a", self.a, d.a)?;
        Error::not_negative("c", self.c, d.c)?;
        Error::not_negative("delta", self.delta.unwrap_or(0.0), 0.0)?;
        if self.inner == 0 {
            return Err(Error::range("inner", ">= 1", 0.0, f64::from(d.inner)));
        }
        let problem = if problem.sizes().constraints > 0 || *problem.lower_set() != Simple::Free {
            "its lower level has a set or constraints, and this method needs it to have neither; use PenaltyBilevel or LvHba"
        } else if self.sampled.is_some() && !problem.stochastic() {
            "sampled gradients were asked for, and it has only exact ones; leave out `sampled`"
        } else {
            return self.stop.check();
        };
        Err(Error::Problem { problem: problem.to_owned() })
    }
}

impl<P: Bilevel + ?Sized> Solver<P> for F2sa {
    type State = F2saState;

    fn stop(&self) -> Stop {
        self.stop
    }

    fn init(&self, problem: &P, x: &[f64], y: &[f64]) -> Result<F2saState> {
        check_start(problem, x, y)?;
        self.check(problem)?;
        let mut x = x.to_vec();
        problem.upper_set().prox(1.0, &mut x);
        Ok(F2saState { x, y: y.to_vec(), z: y.to_vec(), k: 0, stationarity: None, lambda: None })
    }

    fn step(&self, problem: &P, s: &mut F2saState) -> Result<Flow> {
        let (n, m) = (s.x.len(), s.y.len());
        let age = 1.0 + s.k as f64 / self.k0;
        let (alpha, gamma) = (self.alpha * age.powf(-self.a), self.gamma * age.powf(-self.c));
        let lambda = self.delta.map_or(gamma / (2.0 * alpha), |delta| self.lambda + s.k as f64 * delta);
        let sample = |i: u64| self.sampled.map(|seed| Seed::new(seed).stream("f2sa", &[s.k, i]).next_u64());
        let upper = |i, x: &[f64], y: &[f64], dx: &mut [f64], dy: &mut [f64]| match sample(i) {
            Some(sample) => problem.upper_grad_on(sample, x, y, dx, dy),
            None => problem.upper_grad(x, y, dx, dy),
        };
        let lower = |i, x: &[f64], y: &[f64], dx: &mut [f64], dy: &mut [f64]| match sample(i) {
            Some(sample) => problem.lower_grad_on(sample, x, y, dx, dy),
            None => problem.lower_grad(x, y, dx, dy),
        };
        let (mut unused_x, mut unused_y) = (vec![0.0; n], vec![0.0; m]);
        let (mut y, mut z) = (s.y.clone(), s.z.clone());
        let (mut grad, mut more) = (vec![0.0; m], vec![0.0; m]);
        for t in 0..u64::from(self.inner) {
            lower(3 * t, &s.x, &z, &mut unused_x, &mut grad);
            add_scaled(&mut z, -gamma, &grad);
            upper(3 * t + 1, &s.x, &y, &mut unused_x, &mut grad);
            lower(3 * t + 2, &s.x, &y, &mut unused_x, &mut more);
            add_scaled(&mut grad, lambda, &more);
            add_scaled(&mut y, -alpha, &grad);
        }
        let last = 3 * u64::from(self.inner);
        let (mut direction, mut at_y, mut at_z) = (vec![0.0; n], vec![0.0; n], vec![0.0; n]);
        upper(last, &s.x, &y, &mut direction, &mut unused_y);
        lower(last + 1, &s.x, &y, &mut at_y, &mut unused_y);
        lower(last + 1, &s.x, &z, &mut at_z, &mut unused_y);
        add_scaled(&mut at_y, -1.0, &at_z);
        add_scaled(&mut direction, lambda, &at_y);
        let mut x = s.x.clone();
        add_scaled(&mut x, -self.xi * alpha, &direction);
        if !finite(&[&x, &y, &z]) {
            return Ok(Flow::Stop(Status::NotFinite));
        }
        problem.upper_set().prox(1.0, &mut x);
        let stationarity = distance(&x, &s.x) / (self.xi * alpha);
        *s = F2saState { x, y, z, k: s.k + 1, stationarity: Some(stationarity), lambda: Some(lambda) };
        Ok(Flow::Continue)
    }
}

impl Iterate for F2saState {
    fn x(&self) -> &[f64] {
        &self.x
    }

    fn y(&self) -> &[f64] {
        &self.y
    }

    fn iteration(&self) -> u64 {
        self.k
    }

    fn measures(&self) -> Metrics {
        let mut measures = Metrics::new();
        measures.set("lambda", self.lambda.unwrap_or(f64::NAN));
        measures.set("stationarity", self.stationarity.unwrap_or(f64::NAN));
        measures
    }
}

#[cfg(test)]
mod tests {
    use saddlepoint_core::test::assert_close;

    use super::super::toy;
    use super::*;

    #[test]
    fn iterates_are_those_of_the_formula() {
        let problem = toy::scalar(None);
        let solver = F2sa { alpha: 0.05, a: 0.0, gamma: 0.05, xi: 0.2, delta: Some(0.01), ..F2sa::default() };
        let mut state = solver.init(&problem, &[3.0], &[0.0]).expect("valid");
        for k in 1..=10 {
            assert_eq!(solver.step(&problem, &mut state).expect("steps"), Flow::Continue);
            let expected = match k {
                1 => [2.9975, 0.2, 0.15],
                2 => [2.995_400_377_375, 0.381_273_75, 0.292_375],
                10 => [2.983_703_347_039, 1.333_901_845_292, 1.200_246_827_301],
                _ => continue,
            };
            assert_close!([state.x[0], state.y[0], state.z[0]], expected, atol = 1e-12);
        }
        // lambda of the next step.
        assert_close!(solver.lambda + 10.0 * 0.01, 1.1, atol = 1e-15);
    }

    #[test]
    fn a_multiplier_that_outgrows_the_step_ends_the_run_with_the_last_finite_point() {
        let solver = F2sa { alpha: 0.05, a: 0.0, xi: 0.2, delta: Some(0.1), ..F2sa::default() };
        let out = solver.solve(&toy::scalar(None), &[3.0], &[0.0]).expect("runs");
        assert_eq!(out.status, Status::NotFinite);
        assert!(out.x[0].is_finite() && out.y[0].is_finite());
    }
}
