//! What a program that states and solves a problem needs.

pub use crate::kkt::Kkt;
pub use crate::outcome::{Outcome, Status};
pub use crate::problem::{
    Affine, Ball, Bounds, Constrained, Curved, L1, Objective, Problem, Simple, Simplex, between, eq, ge, le,
    minimize,
};
pub use crate::solver::{
    AugmentedLagrangian, Control, DualAscent, Flow, InteriorPoint, Iterate, ProjectedGradient,
    ProximalGradient, SketchedNewton, Solver, Stop,
};
