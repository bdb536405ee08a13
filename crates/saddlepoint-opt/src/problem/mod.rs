//! What is to be solved:
//! ```text
//! minimise  f(x) + h(x)   subject to   lower_i <= c_i(x) <= upper_i,   i = 1..m
//! ```
//! with smooth `f` and `c` and a [`Simple`] part `h` whose proximal step is known: bounds, a simplex, a ball, an affine space,
//! a norm. [`minimize`] states a problem by closures; a type of your own implements the traits. Each trait is a capability: the
//! bound of a solver says which it needs, and the compiler says which one is missing.
//!
//! | trait | gives |
//! |---|---|
//! | [`Objective`] | `f` and its gradient, the simple part `h` |
//! | [`Constrained`] | `c` and products with its transposed Jacobian |
//! | [`Curved`] | products with the Hessian of the Lagrangian |
//!
//! A function that is not defined at a point returns NaN there; solvers step back from it.

mod build;
mod counted;
mod sets;
mod simple;

pub use build::{Bare, Minimize, Problem, Restriction, between, eq, ge, le, minimize};
pub use counted::{Counted, Counts};
pub use sets::{Affine, Ball, Bounds, L1, Simplex};
pub use simple::Simple;

use serde::{Deserialize, Serialize};

use crate::linalg::Triplets;
use crate::{Error, Result};

/// A smooth function of `dim` variables, and the simple part of the objective.
pub trait Objective {
    /// The number of variables.
    fn dim(&self) -> usize;

    /// `f(x)`.
    fn value(&self, x: &[f64]) -> f64;

    /// Overwrites `g` with the gradient of `f` at `x`.
    fn grad(&self, x: &[f64], g: &mut [f64]);

    /// The simple part `h`.
    fn simple(&self) -> &Simple {
        &Simple::Free
    }

    /// Refuses a problem that contradicts itself. Solvers ask before they start.
    ///
    /// # Errors
    /// What the caller must fix.
    fn check(&self) -> Result<()> {
        self.simple().check(self.dim())
    }

    /// What whoever reads the outcome has to know, such as derivatives by finite differences.
    fn notes(&self) -> Vec<String> {
        Vec::new()
    }
}

/// A problem with constraints; the defaults are those of one without.
pub trait Constrained: Objective {
    /// Names and limits, in the order of every slice over constraints.
    fn constraints(&self) -> &[Constraint] {
        &[]
    }

    /// Overwrites `c` with the constraint functions at `x`.
    fn residuals(&self, x: &[f64], c: &mut [f64]) {
        let _ = (x, c);
    }

    /// `out += Jᵀ w` with the Jacobian `J` of the constraint functions: all that Lagrangian methods need.
    fn vjp(&self, x: &[f64], w: &[f64], out: &mut [f64]) {
        let _ = (x, w, out);
    }

    /// The Jacobian, a row a constraint. Made of one product a row unless the problem knows better.
    fn jacobian(&self, x: &[f64]) -> Triplets {
        let (m, n) = (self.constraints().len(), self.dim());
        let mut jacobian = Triplets::new(m, n);
        let mut w = vec![0.0; m];
        let mut row = vec![0.0; n];
        for i in 0..m {
            w[i] = 1.0;
            row.fill(0.0);
            self.vjp(x, &w, &mut row);
            w[i] = 0.0;
            row.iter().enumerate().filter(|(_, v)| **v != 0.0).for_each(|(j, v)| jacobian.push(i, j, *v));
        }
        jacobian
    }
}

/// A problem with second derivatives.
pub trait Curved: Constrained {
    /// Overwrites `out` with `(∇²f + Σ w_i ∇²c_i) v` at `x`.
    fn hess_vec(&self, x: &[f64], w: &[f64], v: &[f64], out: &mut [f64]);

    /// The lower triangle of `∇²f + Σ w_i ∇²c_i`. Made of one product a column unless the problem knows better.
    fn hessian(&self, x: &[f64], w: &[f64]) -> Triplets {
        let n = self.dim();
        let mut hessian = Triplets::new(n, n);
        let (mut v, mut column) = (vec![0.0; n], vec![0.0; n]);
        for j in 0..n {
            v[j] = 1.0;
            self.hess_vec(x, w, &v, &mut column);
            v[j] = 0.0;
            let below = column.iter().enumerate().skip(j).filter(|(_, v)| **v != 0.0);
            below.for_each(|(i, v)| hessian.push(i, j, *v));
        }
        hessian
    }

    /// Refuses a problem some of whose second derivatives are not there.
    ///
    /// # Errors
    /// Which function lacks them.
    fn check_curvature(&self) -> Result<()> {
        Ok(())
    }
}

/// Name and limits of a constraint function; equal limits are an equality, an infinite limit is none.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Constraint {
    /// Name, as reported.
    pub name: String,
    /// The least allowed value.
    pub lower: f64,
    /// The largest allowed value.
    pub upper: f64,
}

impl Constraint {
    /// Whether both limits are the same.
    #[allow(clippy::float_cmp, reason = "limits are equal only if they were given as equal")]
    pub fn is_equality(&self) -> bool {
        self.lower == self.upper
    }

    /// How far `value` is above the upper limit, or minus how far it is below the lower one; 0 where it is held.
    pub fn excess(&self, value: f64) -> f64 {
        if value < self.lower {
            value - self.lower
        } else if value > self.upper {
            value - self.upper
        } else {
            // What is not a number is not held.
            if value.is_nan() { value } else { 0.0 }
        }
    }

    fn check(&self) -> Result<()> {
        let Self { name, lower, upper } = self;
        let possible = lower <= upper && *lower < f64::INFINITY && *upper > f64::NEG_INFINITY;
        let problem = || format!("limits [{lower}, {upper}] of constraint `{name}` hold for no number");
        if possible { Ok(()) } else { Err(Error::Problem { problem: problem() }) }
    }
}

/// Refuses constraints that contradict themselves or share a name.
pub(crate) fn check_constraints(constraints: &[Constraint]) -> Result<()> {
    constraints.iter().try_for_each(Constraint::check)?;
    let mut names: Vec<&str> = constraints.iter().map(|c| c.name.as_str()).collect();
    names.sort_unstable();
    match names.windows(2).find(|pair| pair[0] == pair[1]) {
        None => Ok(()),
        Some(pair) => {
            let problem = format!("two constraints are named `{}`; multipliers are told by name", pair[0]);
            Err(Error::Problem { problem })
        }
    }
}

/// What every solver asks before it starts: a problem that is consistent and a start of its dimension.
///
/// # Errors
/// What the caller must fix.
pub fn check_start<P: Constrained + ?Sized>(problem: &P, x0: &[f64]) -> Result<()> {
    problem.check()?;
    check_constraints(problem.constraints())?;
    if x0.len() != problem.dim() {
        return Err(Error::Dimension { what: "starting point", expected: problem.dim(), got: x0.len() });
    }
    match x0.iter().position(|x| !x.is_finite()) {
        None => Ok(()),
        Some(i) => {
            let problem = format!("variable {i} of the starting point is {}; it must be finite", x0[i]);
            Err(Error::Problem { problem })
        }
    }
}
