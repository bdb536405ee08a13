//! What came out of a solve.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::kkt::{Infeasibility, Judgement, Kkt};

/// How a solve ended. Whatever it is, the outcome holds the last iterate and its residuals.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Status {
    /// The KKT residuals are within the tolerance.
    Optimal,
    /// The constraint violation is stationary above 0: locally no point satisfies the constraints. See
    /// [`Outcome::infeasibility`].
    Infeasible,
    /// The objective falls below `-1e15` at points that satisfy the constraints.
    Unbounded,
    /// No step makes progress, and the residuals are above the tolerance.
    Stalled,
    /// The iterations are used up.
    IterationLimit,
    /// The time is used up.
    TimeLimit,
    /// The gradients of the constraints are linearly dependent where the method needs them not to be.
    Singular,
    /// The problem is not finite at the start, or nowhere around the last iterate.
    NotFinite,
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Optimal => "optimal",
            Self::Infeasible => "infeasible: the constraint violation is stationary",
            Self::Unbounded => "unbounded: the objective falls without limit",
            Self::Stalled => "stalled: no step makes progress",
            Self::IterationLimit => "iteration limit",
            Self::TimeLimit => "time limit",
            Self::Singular => "singular: the gradients of the constraints are dependent",
            Self::NotFinite => "not finite: the problem is undefined around the last iterate",
        })
    }
}

/// The multiplier of a constraint: `λ` of the Lagrangian `f + Σ λ c`, `>= 0` where the upper limit binds. Raising the limit
/// that binds by a little changes the least objective by `−λ` times as much.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Dual {
    /// Name of the constraint.
    pub name: String,
    /// Its multiplier.
    pub value: f64,
}

/// What a solver found, judged by common code.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    /// How it ended.
    pub status: Status,
    /// The last iterate.
    pub x: Vec<f64>,
    /// `f(x) + h(x)`.
    pub objective: f64,
    /// Multipliers by name, in the order of the constraints.
    pub duals: Vec<Dual>,
    /// The gradient of the Lagrangian, one a variable: what bounds and other sets push back against.
    pub reduced: Vec<f64>,
    /// The residuals.
    pub kkt: Kkt,
    /// Certificate of [`Status::Infeasible`].
    pub infeasibility: Option<Infeasibility>,
    /// Steps of the solver.
    pub iterations: u64,
    /// How long it took.
    pub seconds: f64,
    /// What whoever reads this has to know.
    pub notes: Vec<String>,
}

impl Outcome {
    /// The multiplier of the constraint `name`.
    ///
    /// # Panics
    /// There is no such constraint.
    pub fn dual(&self, name: &str) -> f64 {
        let dual = self.duals.iter().find(|dual| dual.name == name);
        dual.unwrap_or_else(|| panic!("the problem has no constraint `{name}`")).value
    }

    /// From what a solver claims and what common code finds there. A claim that the residuals do not support is not repeated.
    pub(crate) fn judged(
        claim: Status,
        x: Vec<f64>,
        multipliers: &[f64],
        found: Judgement,
        tolerance: f64,
    ) -> Self {
        let Judgement { objective, kkt, reduced, names, infeasibility, mut notes } = found;
        let stationary =
            infeasibility.as_ref().is_some_and(|v| v.violation > tolerance && v.gradient <= 1e-3);
        let falls = objective <= UNBOUNDED && kkt.feasibility <= 1e-6 * crate::linalg::largest(&x).max(1.0);
        let status = match claim {
            // A gradient says nothing where there is no value.
            _ if kkt.error() <= tolerance && objective.is_finite() => Status::Optimal,
            Status::Optimal if !objective.is_finite() => Status::NotFinite,
            Status::Optimal => Status::Stalled,
            Status::Infeasible if !stationary => Status::Stalled,
            Status::Unbounded if !falls => Status::Stalled,
            Status::Stalled if falls => Status::Unbounded,
            claim => claim,
        };
        if status == Status::Stalled && claim != Status::Stalled {
            notes.push(format!(
                "the solver ended with {claim:?}, which the point that it found does not bear out"
            ));
        }
        let duals = names.into_iter().zip(multipliers).map(|(name, &value)| Dual { name, value });
        let infeasibility = infeasibility.filter(|_| status == Status::Infeasible);
        let duals = duals.collect();
        Self { status, x, objective, duals, reduced, kkt, infeasibility, iterations: 0, seconds: 0.0, notes }
    }
}

/// An objective below this counts as falling without limit.
pub(crate) const UNBOUNDED: f64 = -1e15;
