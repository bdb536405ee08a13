//! A problem whose evaluations are timed.

use std::cell::Cell;

use saddlepoint_core::clock::Stopwatch;
use saddlepoint_opt::linalg::Triplets;
use saddlepoint_opt::problem::{Constrained, Constraint, Curved, Objective, Simple};
use saddlepoint_opt::problems::sif::Sif;

/// The same problem, under a clock.
pub(crate) struct Timed<'a> {
    problem: &'a Sif,
    seconds: Cell<f64>,
}

impl<'a> Timed<'a> {
    pub(crate) fn new(problem: &'a Sif) -> Self {
        Self { problem, seconds: Cell::new(0.0) }
    }

    /// Seconds of all evaluations.
    pub(crate) fn seconds(&self) -> f64 {
        self.seconds.get()
    }

    fn time<R>(&self, run: impl FnOnce(&Sif) -> R) -> R {
        let watch = Stopwatch::start();
        let result = run(self.problem);
        self.seconds.set(self.seconds.get() + watch.seconds());
        result
    }
}

impl Objective for Timed<'_> {
    fn dim(&self) -> usize {
        self.problem.dim()
    }

    fn value(&self, x: &[f64]) -> f64 {
        self.time(|problem| problem.value(x))
    }

    fn grad(&self, x: &[f64], g: &mut [f64]) {
        self.time(|problem| problem.grad(x, g));
    }

    fn simple(&self) -> &Simple {
        self.problem.simple()
    }
}

impl Constrained for Timed<'_> {
    fn constraints(&self) -> &[Constraint] {
        self.problem.constraints()
    }

    fn residuals(&self, x: &[f64], c: &mut [f64]) {
        self.time(|problem| problem.residuals(x, c));
    }

    fn vjp(&self, x: &[f64], w: &[f64], out: &mut [f64]) {
        self.time(|problem| problem.vjp(x, w, out));
    }

    fn jacobian(&self, x: &[f64]) -> Triplets {
        self.time(|problem| problem.jacobian(x))
    }
}

impl Curved for Timed<'_> {
    fn hess_vec(&self, x: &[f64], w: &[f64], v: &[f64], out: &mut [f64]) {
        self.time(|problem| problem.hess_vec(x, w, v, out));
    }

    fn hessian(&self, x: &[f64], w: &[f64]) -> Triplets {
        self.time(|problem| problem.hessian(x, w))
    }
}
