//! Which pairs of violation and objective a step may reach.

use serde::{Deserialize, Serialize};

/// Pairs of violation and barrier objective, below all of which in one of the two a step has to stay.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Filter {
    corners: Vec<(f64, f64)>,
    /// Violations above this are never accepted.
    pub(super) most: f64,
    /// Violations below this may be left to steps that lower the objective.
    pub(super) small: f64,
}

/// What a step promises: violation and objective where it starts, and the slope of the objective along it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Promise {
    pub(super) violation: f64,
    pub(super) objective: f64,
    pub(super) slope: f64,
}

/// Shares of the violation by which a step lowers it, or the objective.
const GAMMA_VIOLATION: f64 = 1e-5;
const GAMMA_OBJECTIVE: f64 = 1e-8;
/// Share of the slope that a step for the objective realises.
const ARMIJO: f64 = 1e-8;
const POWER_VIOLATION: f64 = 1.1;
const POWER_OBJECTIVE: f64 = 2.3;

/// How a step was accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// It lowers the objective as its slope promises.
    Objective,
    /// It lowers the violation or the objective.
    Either,
}

impl Filter {
    /// From the violation at the start.
    pub(super) fn new(violation: f64) -> Self {
        let scale = violation.max(1.0);
        Self { corners: Vec::new(), most: 1e4 * scale, small: 1e-4 * scale }
    }

    /// Forgets all corners.
    pub(super) fn clear(&mut self) {
        self.corners.clear();
    }

    /// Forbids what is no better than a point.
    pub(super) fn add(&mut self, violation: f64, objective: f64) {
        let corner = ((1.0 - GAMMA_VIOLATION) * violation, objective - GAMMA_OBJECTIVE * violation);
        self.corners.retain(|&(v, f)| v < corner.0 || f < corner.1);
        self.corners.push(corner);
    }

    /// Whether a point is below every corner.
    pub(super) fn allows(&self, violation: f64, objective: f64) -> bool {
        violation <= self.most && self.corners.iter().all(|&(v, f)| violation < v || objective < f)
    }

    /// Whether a part `alpha` of a step that ends at a violation and an objective is accepted.
    pub(super) fn accepts(&self, alpha: f64, from: Promise, violation: f64, objective: f64) -> Option<Kind> {
        if !(violation.is_finite() && objective.is_finite()) {
            return None;
        }
        // Differences below rounding are none.
        let rounding = 10.0 * f64::EPSILON * from.objective.abs().max(objective.abs());
        let objective = objective - rounding;
        if !self.allows(violation, objective) {
            return None;
        }
        let Promise { violation: v, objective: f, slope } = from;
        if v <= self.small && from.switches(alpha) {
            return (objective <= f + ARMIJO * alpha * slope).then_some(Kind::Objective);
        }
        let lower = violation <= (1.0 - GAMMA_VIOLATION) * v || objective <= f - GAMMA_OBJECTIVE * v;
        lower.then_some(Kind::Either)
    }

    /// The shortest part of a step that is worth trying.
    pub(super) fn shortest(&self, from: Promise) -> f64 {
        let Promise { violation: v, slope, .. } = from;
        let mut least = GAMMA_VIOLATION;
        if slope < 0.0 {
            least = least.min(GAMMA_OBJECTIVE * v / -slope);
            if v <= self.small {
                least = least.min(v.powf(POWER_VIOLATION) / (-slope).powf(POWER_OBJECTIVE));
            }
        }
        (0.05 * least).max(1e-13)
    }
}

impl Promise {
    /// Whether so much of the objective is promised that it alone decides.
    fn switches(self, alpha: f64) -> bool {
        self.slope < 0.0 && alpha * (-self.slope).powf(POWER_OBJECTIVE) > self.violation.powf(POWER_VIOLATION)
    }
}
