//! How problems are solved.
//!
//! | solver | problems | needs |
//! |---|---|---|
//! | [`AugmentedLagrangian`] | any constraints, any simple part | first derivatives |
//! | [`InteriorPoint`] | any constraints, bounds | second derivatives |
//! | [`SketchedNewton`] | equalities | second derivatives |
//! | [`ProjectedGradient`] | any simple part, no constraints | first derivatives |
//! | [`ProximalGradient`] | likewise; convex ones faster | first derivatives |
//! | [`DualAscent`] | strongly convex ones | first derivatives |
//!
//! A solver is its settings; what it remembers between two steps is a state, which can be written and read back. [`Solver::solve`]
//! runs it to its end; whoever wants to stand between the steps calls [`Solver::init`] and [`Solver::step`].

mod augmented_lagrangian;
mod descent;
mod dual_ascent;
mod interior_point;
mod projected_gradient;
mod proximal_gradient;
mod sketched_newton;

pub use augmented_lagrangian::{AugmentedLagrangian, AugmentedLagrangianState};
pub use dual_ascent::{DualAscent, DualAscentState};
pub use interior_point::{InteriorPoint, InteriorPointState};
pub use projected_gradient::{ProjectedGradient, ProjectedGradientState};
pub use proximal_gradient::{ProximalGradient, ProximalGradientState};
pub use sketched_newton::{SketchedNewton, SketchedNewtonState, Slope, System};

use std::fmt;

use saddlepoint_core::clock::Stopwatch;
use saddlepoint_core::metrics::Metrics;
use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::kkt::Judge;
use crate::outcome::{Outcome, Status};
use crate::problem::Constrained;
use crate::{Error, Result};

/// Refuses constraints, for a solver that knows none.
fn refuse_constraints<P: Constrained + ?Sized>(problem: &P, solver: &str) -> Result<()> {
    match problem.constraints().first() {
        None => Ok(()),
        Some(c) => {
            let problem = format!(
                "{solver} takes no constraints, and there is `{}`; use the augmented Lagrangian",
                c.name
            );
            Err(Error::Problem { problem })
        }
    }
}

/// When a solver ends by itself.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Stop {
    /// The largest KKT residual ([`Kkt::error`](crate::kkt::Kkt::error)) of a solution, > 0.
    pub tolerance: f64,
    /// The most steps.
    pub iterations: u64,
}

impl Default for Stop {
    fn default() -> Self {
        Self { tolerance: 1e-6, iterations: 1000 }
    }
}

impl Stop {
    /// Refuses a tolerance that is no positive number.
    ///
    /// # Errors
    /// As said.
    pub fn check(&self) -> Result<()> {
        let positive = self.tolerance > 0.0 && self.tolerance.is_finite();
        let default = Self::default().tolerance;
        if positive { Ok(()) } else { Err(Error::range("tolerance", "> 0", self.tolerance, default)) }
    }
}

/// What a step says about the next one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flow {
    /// There is more to do.
    Continue,
    /// There is not.
    Stop(Status),
}

/// What common code wants to know of a state.
pub trait Iterate {
    /// The point.
    fn x(&self) -> &[f64];

    /// One multiplier a constraint, in the convention of [`Dual`](crate::outcome::Dual).
    fn multipliers(&self) -> Vec<f64>;

    /// Steps taken so far.
    fn iteration(&self) -> u64;

    /// What the iteration log shows of the last step, such as `objective`, `feasibility`, `stationarity`.
    fn measures(&self) -> Metrics;
}

/// A method with its settings, for problems of type `P`.
pub trait Solver<P: Judge + ?Sized> {
    /// What it remembers between steps; written in a format that keeps every `f64`, it continues exactly.
    type State: Iterate + Serialize + DeserializeOwned;

    /// When it ends by itself.
    fn stop(&self) -> Stop;

    /// The state before the first step.
    ///
    /// # Errors
    /// What the caller must fix: a setting, a dimension, a problem that contradicts itself.
    fn init(&self, problem: &P, x0: &[f64]) -> Result<Self::State>;

    /// One step.
    ///
    /// # Errors
    /// What the caller must fix; that a problem is not solved is a [`Status`], not an error.
    fn step(&self, problem: &P, state: &mut Self::State) -> Result<Flow>;

    /// Runs from `x0` to the end.
    ///
    /// # Errors
    /// As [`Solver::init`] and [`Solver::step`].
    fn solve(&self, problem: &P, x0: &[f64]) -> Result<Outcome> {
        self.run(problem, &mut self.init(problem, x0)?, &mut Control::default())
    }

    /// Runs from a state to the end, under the eyes of a [`Control`]. The outcome is judged from the problem.
    ///
    /// # Errors
    /// As [`Solver::step`].
    fn run(&self, problem: &P, state: &mut Self::State, control: &mut Control) -> Result<Outcome> {
        let stop = self.stop();
        let (claim, seconds) = drive(
            state,
            stop,
            control,
            |state| self.step(problem, state),
            (Iterate::iteration, Iterate::measures),
        )?;
        let multipliers = state.multipliers();
        let found = problem.judge(state.x(), &multipliers);
        let mut outcome = Outcome::judged(claim, state.x().to_vec(), &multipliers, found, stop.tolerance);
        (outcome.iterations, outcome.seconds) = (state.iteration(), seconds);
        Ok(outcome)
    }
}

/// Steps until a step ends the run or a limit does: how it ended, and after how many seconds.
pub(crate) fn drive<S>(
    state: &mut S,
    stop: Stop,
    control: &mut Control,
    mut step: impl FnMut(&mut S) -> Result<Flow>,
    (iteration, measures): Seen<S>,
) -> Result<(Status, f64)> {
    let watch = Stopwatch::start();
    stop.check()?;
    let claim = loop {
        if iteration(state) >= stop.iterations {
            break Status::IterationLimit;
        }
        if control.seconds.is_some_and(|most| watch.seconds() >= most) {
            break Status::TimeLimit;
        }
        let flow = step(state)?;
        control.see(iteration(state), || measures(state));
        if let Flow::Stop(status) = flow {
            break status;
        }
    };
    Ok((claim, watch.seconds()))
}

/// What a loop reads of a state: the number of steps taken, and what a log shows of the last.
pub(crate) type Seen<S> = (fn(&S) -> u64, fn(&S) -> Metrics);

/// Looks on while a solver runs.
#[derive(Default)]
pub struct Control<'a> {
    /// The most seconds; without it there is no limit. Where one ends a run, that depends on the machine.
    pub seconds: Option<f64>,
    watch: Option<Watch<'a>>,
}

/// Is told of each step: its number and what was measured.
type Watch<'a> = Box<dyn FnMut(u64, &Metrics) + 'a>;

impl<'a> Control<'a> {
    /// Calls `watch` after every step with its number and what was measured: an iteration log, a recorder.
    #[must_use]
    pub fn watch(mut self, watch: impl FnMut(u64, &Metrics) + 'a) -> Self {
        self.watch = Some(Box::new(watch));
        self
    }

    /// Ends after so many seconds.
    #[must_use]
    pub fn seconds(mut self, most: f64) -> Self {
        self.seconds = Some(most);
        self
    }

    /// Tells the watcher of a step, if there is one.
    fn see(&mut self, iteration: u64, measures: impl FnOnce() -> Metrics) {
        if let Some(watch) = &mut self.watch {
            watch(iteration, &measures());
        }
    }
}

impl fmt::Debug for Control<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Control").field("seconds", &self.seconds).finish_non_exhaustive()
    }
}
