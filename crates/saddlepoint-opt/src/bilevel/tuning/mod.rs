//! Hyperparameters and data cleaning as bilevel problems: from examples to a report.
//!
//! | problem | upper variable | lower level |
//! |---|---|---|
//! | [`Svm`] | log-weights of examples: one each, one a class or one for all | support vector machine with a squared hinge |
//! | [`Ridge`] | log-penalties of features: one each or one for all | ridge regression |
//!
//! Cleaning data is the first with a weight an example: an example whose label contradicts what helps on held-out examples loses
//! its weight.

mod ridge;
mod split;
mod svm;
#[cfg(test)]
mod tests;

pub use ridge::Ridge;
pub use split::Split;
pub use svm::{Hinge, Slack, Svm};

use serde::{Deserialize, Serialize};

use super::diagnosis::{diagnose, lower};
use super::{
    Bilevel as _, F2sa, Hypergradient, Iterate, LowerCurvature, LvHba, LvHbaState, Outcome, PenaltyBilevel,
    Solver,
};
use crate::examples::Examples;
use crate::outcome::Dual;
use crate::solver::{Control, Stop, drive};
use crate::{Error, Result};

/// Limits of log-weights and log-penalties.
const LIMITS: (f64, f64) = (-12.0, 6.0);

/// Which solver, with its settings.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Method {
    /// By a proximal Lagrangian value function.
    LvHba(LvHba),
    /// By a penalty on the value of the lower level.
    PenaltyBilevel(PenaltyBilevel),
    /// The same with a growing multiplier.
    F2sa(F2sa),
    /// By implicit differentiation, or through unrolled steps.
    Hypergradient(Hypergradient),
}

impl Method {
    /// Every one with the settings that it has by default, by name.
    pub fn all() -> [(&'static str, Method); 5] {
        [
            ("lv-hba", Method::LvHba(LvHba::default())),
            ("penalty-bilevel", Method::PenaltyBilevel(PenaltyBilevel::default())),
            ("f2sa", Method::F2sa(F2sa::default())),
            ("implicit", Method::Hypergradient(Hypergradient::default())),
            ("unrolled", Method::Hypergradient(Hypergradient::unrolled(100))),
        ]
    }

    /// When it ends.
    pub fn stop(&mut self) -> &mut Stop {
        match self {
            Method::LvHba(solver) => &mut solver.stop,
            Method::PenaltyBilevel(solver) => &mut solver.stop,
            Method::F2sa(solver) => &mut solver.stop,
            Method::Hypergradient(solver) => &mut solver.stop,
        }
    }

    /// Solves a problem whose lower level has no constraints.
    ///
    /// # Errors
    /// As the solver's.
    pub fn solve<P: LowerCurvature + ?Sized>(
        &self,
        problem: &P,
        from: (&[f64], &[f64]),
        control: &mut Control,
    ) -> Result<Outcome> {
        match self {
            Method::LvHba(solver) => run(solver, problem, from, control),
            Method::PenaltyBilevel(solver) => run(solver, problem, from, control),
            Method::F2sa(solver) => run(solver, problem, from, control),
            Method::Hypergradient(solver) => run(solver, problem, from, control),
        }
    }
}

fn run<P: LowerCurvature + ?Sized, S: Solver<P>>(
    solver: &S,
    problem: &P,
    (x, y): (&[f64], &[f64]),
    control: &mut Control,
) -> Result<Outcome> {
    solver.run(problem, &mut solver.init(problem, x, y)?, control)
}

/// Which examples share a weight.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Weights {
    /// None.
    Each,
    /// Those of a class.
    Class,
    /// All: the usual `C`.
    Shared,
}

impl Weights {
    fn groups(self, examples: &Examples) -> Vec<usize> {
        let group = |(i, label): (usize, &f64)| match self {
            Weights::Each => i,
            Weights::Class => usize::from(*label > 0.0),
            Weights::Shared => 0,
        };
        examples.labels.iter().enumerate().map(group).collect()
    }

    fn names(self, split: &Split) -> Vec<String> {
        match self {
            Weights::Each => split.example_names(),
            Weights::Class => split.classes.iter().map(|label| format!("class {label}")).collect(),
            Weights::Shared => vec!["all examples".to_owned()],
        }
    }
}

/// How a model does on examples.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Score {
    /// Mean loss: that of the upper objective for a classifier, the squared error for a regression.
    pub loss: f64,
    /// Share of examples that are classified rightly; none for a regression.
    pub accuracy: Option<f64>,
}

/// A model and its scores.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Scored {
    /// One a feature.
    pub w: Vec<f64>,
    /// Intercept.
    pub b: f64,
    /// On the examples that chose the hyperparameters.
    pub held_out: Score,
    /// On those that neither trained nor chose; none where there are none.
    pub test: Option<Score>,
}

/// Hyperparameters and what they are worth.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Tuned {
    /// What the elements of the upper variable belong to.
    pub names: Vec<String>,
    /// Multipliers of the constraints `1 − ξ_i − m_i <= 0` of a support vector machine, by training example, for the model trained to
    /// the end; those above 0 are its support vectors. A regression has none.
    pub duals: Vec<Dual>,
    /// The model trained with the hyperparameters of the start.
    pub start: Scored,
    /// The model that the method ended with.
    pub model: Scored,
    /// The model trained to the end with the hyperparameters that were found.
    pub retrained: Scored,
    /// What the solver found.
    pub outcome: Outcome,
}

/// Chooses the weights of a support vector machine's examples, from a start of their logarithms.
///
/// # Errors
/// As the solver's; the training examples must be of two classes ([`Split::classes`]).
pub fn svm(
    split: &Split,
    weights: Weights,
    start: f64,
    method: &Method,
    control: &mut Control,
) -> Result<Tuned> {
    start_in_limits(start)?;
    let problem = Svm::new(split.train.clone(), split.held_out.clone(), weights.groups(&split.train), LIMITS);
    let score = |y: &[f64], examples: &Examples| {
        let (loss, accuracy) = problem.score(examples, y);
        Score { loss: loss / examples.len().max(1) as f64, accuracy: Some(accuracy) }
    };
    let x = vec![start; problem.weights];
    let y = diagnose(&Hinge(&problem), &x, &vec![0.0; split.train.features + 1], &[]).1.y;
    let outcome = match method {
        Method::LvHba(solver) => by_slack(Slack(&problem), solver, (&x, &y), control)?,
        _ => method.solve(&Hinge(&problem), (&x, &y), control)?,
    };
    let multipliers = Slack(&problem).lift(&outcome.x, &outcome.response.y[..=split.train.features]).1;
    let dual = |(name, value)| Dual { name, value };
    let duals = split.example_names().into_iter().zip(multipliers).map(dual).collect();
    Ok(Tuned::new(split, weights.names(split), duals, &y, outcome, score))
}

/// Runs LV-HBA on the form with constraints from a solution of its lower level. The hyper-gradient is that of the form without, which
/// is the same function of `x`: its lower level is solved a hundred times faster.
fn by_slack(
    slack: Slack<'_>,
    solver: &LvHba,
    (x, y): (&[f64], &[f64]),
    control: &mut Control,
) -> Result<Outcome> {
    let (lifted, multipliers) = slack.lift(x, y);
    let mut state = solver.init(&slack, x, &lifted)?;
    (state.z, state.lambda) = (multipliers.clone(), multipliers);
    let step = |state: &mut LvHbaState| solver.step(&slack, state);
    let ended = drive(&mut state, solver.stop, control, step, (Iterate::iteration, Iterate::measures))?;
    let (mut diagnosis, mut response) = diagnose(&Hinge(slack.0), &state.x, &state.y[..y.len()], &[]);
    (response.y, response.multipliers) = slack.lift(&state.x, &response.y);
    diagnosis.lower = lower(&slack, &state.x, &state.y, &state.lambda);
    diagnosis.gap = slack.lower(&state.x, &state.y) - slack.lower(&state.x, &response.y);
    Ok(Outcome::judged(&slack, ended, &state, solver.stop.tolerance, (diagnosis, response)))
}

/// Chooses the penalties of a ridge regression, from a start of their logarithms.
///
/// # Errors
/// As the solver's.
pub fn ridge(
    split: &Split,
    shared: bool,
    start: f64,
    method: &Method,
    control: &mut Control,
) -> Result<Tuned> {
    start_in_limits(start)?;
    let problem = Ridge::new(split.train.clone(), split.held_out.clone(), shared, LIMITS);
    let score = |y: &[f64], examples: &Examples| Score { loss: problem.error(examples, y), accuracy: None };
    let x = vec![start; if shared { 1 } else { split.train.features }];
    let y = diagnose(&problem, &x, &vec![0.0; split.train.features + 1], &[]).1.y;
    let outcome = method.solve(&problem, (&x, &y), control)?;
    let name = |j| format!("feature {}", split.train.name(j));
    let names =
        if shared { vec!["all features".to_owned()] } else { (0..split.train.features).map(name).collect() };
    Ok(Tuned::new(split, names, Vec::new(), &y, outcome, score))
}

/// How well weights tell flipped examples from others: the share of pairs of one each in which the flipped one weighs less, equal
/// weights counting half. 1/2 says nothing; none where all or no examples are flipped.
pub fn separation(weights: &[f64], flipped: &[bool]) -> Option<f64> {
    let of = |which: bool| {
        weights.iter().zip(flipped).filter(move |(_, flipped)| **flipped == which).map(|(weight, _)| *weight)
    };
    let mut others: Vec<f64> = of(false).collect();
    others.sort_by(f64::total_cmp);
    let (mut won, mut pairs) = (0.0, 0.0);
    for weight in of(true) {
        let (below, upto) = (
            others.partition_point(|other| *other < weight),
            others.partition_point(|other| *other <= weight),
        );
        won += (others.len() - upto) as f64 + 0.5 * (upto - below) as f64;
        pairs += others.len() as f64;
    }
    (pairs > 0.0).then(|| won / pairs)
}

fn start_in_limits(start: f64) -> Result<()> {
    if (LIMITS.0..=LIMITS.1).contains(&start) {
        return Ok(());
    }
    let problem = format!("must be in [{}, {}], got {start}", LIMITS.0, LIMITS.1);
    Err(Error::Setting { key: "start", problem })
}

impl Tuned {
    fn new(
        split: &Split,
        names: Vec<String>,
        duals: Vec<Dual>,
        start: &[f64],
        outcome: Outcome,
        score: impl Fn(&[f64], &Examples) -> Score,
    ) -> Self {
        let d = split.train.features;
        let scored = |y: &[f64]| Scored {
            w: y[..d].to_vec(),
            b: y[d],
            held_out: score(y, &split.held_out),
            test: (!split.test.is_empty()).then(|| score(y, &split.test)),
        };
        Self {
            names,
            duals,
            start: scored(start),
            model: scored(&outcome.y),
            retrained: scored(&outcome.response.y),
            outcome,
        }
    }
}
