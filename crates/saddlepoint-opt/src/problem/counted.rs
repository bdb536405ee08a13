//! A problem that counts how often it is asked.

use std::cell::Cell;

use serde::Serialize;

use super::{Constrained, Constraint, Curved, Objective, Simple};
use crate::Result;
use crate::linalg::Triplets;

/// How often each part of a problem was evaluated.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// Of the objective.
    pub values: u64,
    /// Of its gradient.
    pub gradients: u64,
    /// Of all constraint functions together.
    pub residuals: u64,
    /// Products with the transposed Jacobian.
    pub vjps: u64,
    /// Jacobians.
    pub jacobians: u64,
    /// Products with the Hessian of the Lagrangian.
    pub hessian_products: u64,
    /// Hessians of the Lagrangian.
    pub hessians: u64,
}

/// The same problem, counting.
#[derive(Debug)]
pub struct Counted<'a, P: ?Sized> {
    problem: &'a P,
    counts: Cell<Counts>,
}

impl<'a, P: ?Sized> Counted<'a, P> {
    /// Nothing is counted yet.
    pub fn new(problem: &'a P) -> Self {
        Self { problem, counts: Cell::default() }
    }

    /// What was counted so far.
    pub fn counts(&self) -> Counts {
        self.counts.get()
    }

    fn count(&self, one: impl FnOnce(&mut Counts)) {
        let mut counts = self.counts.get();
        one(&mut counts);
        self.counts.set(counts);
    }
}

impl<P: Objective + ?Sized> Objective for Counted<'_, P> {
    fn dim(&self) -> usize {
        self.problem.dim()
    }

    fn value(&self, x: &[f64]) -> f64 {
        self.count(|c| c.values += 1);
        self.problem.value(x)
    }

    fn grad(&self, x: &[f64], g: &mut [f64]) {
        self.count(|c| c.gradients += 1);
        self.problem.grad(x, g);
    }

    fn simple(&self) -> &Simple {
        self.problem.simple()
    }

    fn check(&self) -> Result<()> {
        self.problem.check()
    }

    fn notes(&self) -> Vec<String> {
        self.problem.notes()
    }
}

impl<P: Constrained + ?Sized> Constrained for Counted<'_, P> {
    fn constraints(&self) -> &[Constraint] {
        self.problem.constraints()
    }

    fn residuals(&self, x: &[f64], c: &mut [f64]) {
        self.count(|c| c.residuals += 1);
        self.problem.residuals(x, c);
    }

    fn vjp(&self, x: &[f64], w: &[f64], out: &mut [f64]) {
        self.count(|c| c.vjps += 1);
        self.problem.vjp(x, w, out);
    }

    fn jacobian(&self, x: &[f64]) -> Triplets {
        self.count(|c| c.jacobians += 1);
        self.problem.jacobian(x)
    }
}

impl<P: Curved + ?Sized> Curved for Counted<'_, P> {
    fn hess_vec(&self, x: &[f64], w: &[f64], v: &[f64], out: &mut [f64]) {
        self.count(|c| c.hessian_products += 1);
        self.problem.hess_vec(x, w, v, out);
    }

    fn hessian(&self, x: &[f64], w: &[f64]) -> Triplets {
        self.count(|c| c.hessians += 1);
        self.problem.hessian(x, w)
    }

    fn check_curvature(&self) -> Result<()> {
        self.problem.check_curvature()
    }
}
