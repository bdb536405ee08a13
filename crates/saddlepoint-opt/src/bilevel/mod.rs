//! Bilevel problems: one optimisation inside another.
//! ```text
//! min_{x in X, y in Y}  F(x, y)     where     y in argmin_{y in Y} { f(x, y) : g(x, y) <= 0 }
//! ```
//! Hyperparameters are chosen that way (`x`: regularisation, `F`: validation loss, `y`: the trained model), data are cleaned (`x`:
//! weights of examples), leaders set prices for followers. [`Bilevel`] states a problem.
//!
//! | solver | lower level | needs | ends |
//! |---|---|---|---|
//! | [`LvHba`] | convex, constraints that couple both levels, many solutions | gradients, the joint projection | within the order of `1/c_k` |
//! | [`PenaltyBilevel`] | may be nonconvex, in a set | gradients, exact or sampled | within the order of `sigma` |
//! | [`F2sa`] | strongly convex, no set | gradients, exact or sampled | within the order of `1/lambda` |
//! | [`Hypergradient`] | strongly convex, whole space or box | [`LowerCurvature`]: products with second derivatives | at a stationary point |
//!
//! Methods that approximate do not grade themselves: [`Outcome::diagnosis`] is measured from the problem at the point that was
//! found, by the same code for every method, and [`Status::Optimal`] is only reported where it bears that out. Since `y` of such a
//! method solves the lower level only nearly, [`Outcome::response`] is the solution of the lower level beside it.
//!
//! ```
//! use saddlepoint_opt::bilevel::{LvHba, Solver, toy};
//! // min (x − 2)² + (y − 1)²  where y minimises (y − x)²/2 under x + y <= 1
//! let out = LvHba::default().solve(&toy::half_space(), &[0.0], &[0.0])?;
//! assert!((out.x[0] - 1.0).abs() < 1e-2 && out.y[0].abs() < 1e-2);
//! # Ok::<(), saddlepoint_opt::Error>(())
//! ```

mod conjugate;
mod diagnosis;
mod f2sa;
mod hypergradient;
mod inner;
mod lv_hba;
mod measure;
mod penalty;
mod problem;
mod quadratic;
pub mod toy;
pub mod tuning;
mod value;
mod vector;

pub use diagnosis::{Diagnosis, Response, diagnose};
pub use f2sa::{F2sa, F2saState};
pub use hypergradient::{By, Hypergradient, HypergradientState};
pub use lv_hba::{LvHba, LvHbaState};
pub use penalty::{Loops, PenaltyBilevel, PenaltyState};
pub use problem::{Bilevel, LowerCurvature, Sizes};
pub use quadratic::{Form, Quadratic};
pub use value::{Penalised, Proximal, ProximalValue, penalised, proximal_value};

use saddlepoint_core::metrics::Metrics;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::outcome::Status;
use crate::solver::{Control, Flow, Stop, drive};
use crate::{Error, Result};

/// The defaults of the solvers here. Methods of first order whose error falls with a penalty are not run to six digits.
const STOP: Stop = Stop { tolerance: 1e-3, iterations: 100_000 };

/// What common code wants to know of a state.
pub trait Iterate {
    /// Upper variable.
    fn x(&self) -> &[f64];

    /// Lower variable.
    fn y(&self) -> &[f64];

    /// Multipliers of the lower level; empty where it has no constraints.
    fn multipliers(&self) -> &[f64] {
        &[]
    }

    /// Steps taken so far.
    fn iteration(&self) -> u64;

    /// What an iteration log shows of the last step.
    fn measures(&self) -> Metrics;

    /// What whoever reads the outcome has to know.
    fn notes(&self) -> Vec<String> {
        Vec::new()
    }
}

/// A method with its settings, for problems of type `P`: [`solver::Solver`](crate::solver::Solver) with two variables.
pub trait Solver<P: Bilevel + ?Sized> {
    /// What it remembers between steps; written in a format that keeps every `f64`, it continues exactly.
    type State: Iterate + Serialize + DeserializeOwned;

    /// When it ends by itself.
    fn stop(&self) -> Stop;

    /// The state before the first step, from a start of both levels.
    ///
    /// # Errors
    /// What the caller must fix: a setting, a dimension, a problem that lacks what the method needs.
    fn init(&self, problem: &P, x: &[f64], y: &[f64]) -> Result<Self::State>;

    /// One step. One that would leave the finite numbers is not taken, and ends the run.
    ///
    /// # Errors
    /// What the caller must fix; that a problem is not solved is a [`Status`], not an error.
    fn step(&self, problem: &P, state: &mut Self::State) -> Result<Flow>;

    /// Runs from a start to the end.
    ///
    /// # Errors
    /// As [`Solver::init`] and [`Solver::step`].
    fn solve(&self, problem: &P, x: &[f64], y: &[f64]) -> Result<Outcome> {
        self.run(problem, &mut self.init(problem, x, y)?, &mut Control::default())
    }

    /// Runs from a state to the end, under the eyes of a [`Control`]. The outcome is judged from the problem.
    ///
    /// # Errors
    /// As [`Solver::step`].
    fn run(&self, problem: &P, state: &mut Self::State, control: &mut Control) -> Result<Outcome> {
        let stop = self.stop();
        let step = |state: &mut Self::State| self.step(problem, state);
        let ended = drive(state, stop, control, step, (Iterate::iteration, Iterate::measures))?;
        let judged = diagnose(problem, state.x(), state.y(), state.multipliers());
        Ok(Outcome::judged(problem, ended, state, stop.tolerance, judged))
    }
}

/// What a solver found, judged by common code.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    /// How it ended. [`Status::Optimal`]: the projected hyper-gradient is within the tolerance.
    pub status: Status,
    /// Upper variable.
    pub x: Vec<f64>,
    /// Lower variable, as the method ended with it.
    pub y: Vec<f64>,
    /// Multipliers of the lower level, likewise, in the order of its constraints.
    pub multipliers: Vec<f64>,
    /// `F(x, y)`.
    pub upper: f64,
    /// `f(x, y)`.
    pub lower: f64,
    /// How good the point is.
    pub diagnosis: Diagnosis,
    /// The lower level solved at `x`, from `y`.
    pub response: Response,
    /// Steps of the solver.
    pub iterations: u64,
    /// How long it took, without the diagnosis.
    pub seconds: f64,
    /// What whoever reads this has to know.
    pub notes: Vec<String>,
}

impl Outcome {
    fn judged<P: Bilevel + ?Sized>(
        problem: &P,
        (claim, seconds): (Status, f64),
        state: &impl Iterate,
        tolerance: f64,
        (diagnosis, response): (Diagnosis, Response),
    ) -> Self {
        let (x, y, multipliers) = (state.x(), state.y(), state.multipliers());
        let (mut notes, error) = (state.notes(), diagnosis.error());
        let (upper, lower) = (problem.upper(x, y), problem.lower(x, y));
        let status = match claim {
            Status::NotFinite => claim,
            // Gradients say nothing where there is no value.
            _ if !(upper.is_finite() && lower.is_finite()) => Status::NotFinite,
            _ if error <= tolerance => Status::Optimal,
            Status::Optimal => {
                notes.push(format!(
                    "the method came to rest where the hyper-gradient is still {error:.1e}, above the tolerance \
                     {tolerance:.0e}: that is the bias of its penalty; make the last penalty stronger or the tolerance larger"
                ));
                Status::Stalled
            }
            claim => claim,
        };
        Self {
            status,
            upper,
            lower,
            x: x.to_vec(),
            y: y.to_vec(),
            multipliers: multipliers.to_vec(),
            diagnosis,
            response,
            iterations: state.iteration(),
            seconds,
            notes,
        }
    }
}

/// Refuses a setting that is not positive and finite.
fn positive(key: &'static str, got: f64, default: f64) -> Result<()> {
    if got > 0.0 && got.is_finite() { Ok(()) } else { Err(Error::range(key, "> 0", got, default)) }
}

/// The same for one that is measured where it is not given.
fn measured(key: &'static str, got: Option<f64>) -> Result<()> {
    match got {
        Some(got) if !(got > 0.0 && got.is_finite()) => {
            Err(Error::Setting { key, problem: format!("must be > 0, got {got} (default: measured)") })
        }
        _ => Ok(()),
    }
}
