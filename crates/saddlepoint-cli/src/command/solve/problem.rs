//! A problem from a file: `saddle solve FILE`.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use clap::{Args, ValueEnum};
use saddlepoint_core::{atomic, config};
use saddlepoint_opt::outcome::{Outcome, Status};
use saddlepoint_opt::problem::{Counted, Curved, Objective as _};
use saddlepoint_opt::problems::formula::{Formula, Model};
use saddlepoint_opt::problems::sif::{self, Sif};
use saddlepoint_opt::solver::{
    AugmentedLagrangian, Control, DualAscent, InteriorPoint, ProjectedGradient, ProximalGradient,
    SketchedNewton, Solver, Stop,
};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::limits::Limits;
use crate::exit::{Usage, Verdict};
use crate::output::{Output, duration, number, table, word};

/// What can be typed.
#[derive(Debug, Args)]
#[group(skip)]
pub(crate) struct Arguments {
    /// A problem: FILE.toml with formulas, or FILE.SIF of CUTEst
    #[arg(required_unless_present = "list")]
    file: Option<PathBuf>,
    /// How it is solved
    #[arg(long, value_enum, default_value_t)]
    method: Method,
    /// Largest KKT residual of a solution [default: the method's own]
    #[arg(long, value_name = "X")]
    tolerance: Option<f64>,
    #[command(flatten)]
    limits: Limits,
    /// Write the problem's file name, the method and its state, from which --resume continues
    #[arg(long, value_name = "STATE.json")]
    save: Option<PathBuf>,
    /// Continue from a state that --save wrote
    #[arg(long, value_name = "STATE.json")]
    resume: Option<PathBuf>,
    /// Print the methods, and what they are for
    #[arg(long)]
    list: bool,
}

/// The methods by name.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Method {
    /// Any constraints and bounds, by first derivatives
    #[default]
    AugmentedLagrangian,
    /// Any constraints and bounds, by second derivatives: the fewest iterations
    InteriorPoint,
    /// Equalities alone, by second derivatives and sketched linear systems
    SketchedNewton,
    /// Bounds alone: gradient steps of spectral length
    ProjectedGradient,
    /// Bounds alone: accelerated gradient steps
    ProximalGradient,
    /// Strongly convex objectives: minimise the Lagrangian, move the multipliers
    DualAscent,
}

/// What `--save` writes.
#[derive(Debug, Serialize, Deserialize)]
struct Saved {
    problem: PathBuf,
    method: Method,
    state: serde_json::Value,
}

impl Arguments {
    /// Whether any of them was given.
    pub(crate) fn any(&self) -> bool {
        let Self { file, method, tolerance, limits, save, resume, list } = self;
        let numbers = tolerance.is_some() || limits.any();
        let files = file.is_some() || save.is_some() || resume.is_some();
        numbers || files || *list || *method != Method::default()
    }

    pub(crate) fn run(self, output: Output) -> Result<Verdict> {
        if self.list {
            return list(output);
        }
        let file = self.file.as_deref().expect("the parser asks for it");
        if file.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("toml")) {
            let model: Model = config::load(Some(file), &[])?;
            let problem = Formula::new(&model).with_context(|| file.display().to_string())?;
            self.solve(file, &problem, problem.start(), problem.variables(), output)
        } else {
            let text = fs::read_to_string(file).map_err(|source| {
                Usage(format!("cannot read {}: {source}; give a FILE.SIF or a FILE.toml", file.display()))
            })?;
            let problem: Sif = sif::read(&text).with_context(|| file.display().to_string())?;
            self.solve(file, &problem, problem.start(), problem.variables(), output)
        }
    }

    fn solve<P: Curved>(
        &self,
        file: &Path,
        problem: &P,
        x0: &[f64],
        names: &[String],
        output: Output,
    ) -> Result<Verdict> {
        let counted = Counted::new(problem);
        let outcome = match self.method {
            Method::AugmentedLagrangian => {
                let mut solver = AugmentedLagrangian::default();
                self.stop(&mut solver.stop);
                self.run_with(&solver, file, &counted, x0)
            }
            Method::InteriorPoint => {
                let mut solver = InteriorPoint::default();
                self.stop(&mut solver.stop);
                self.run_with(&solver, file, &counted, x0)
            }
            Method::SketchedNewton => {
                let mut solver = SketchedNewton::default();
                self.stop(&mut solver.stop);
                self.run_with(&solver, file, &counted, x0)
            }
            Method::ProjectedGradient => {
                let mut solver = ProjectedGradient::default();
                self.stop(&mut solver.stop);
                self.run_with(&solver, file, &counted, x0)
            }
            Method::ProximalGradient => {
                let mut solver = ProximalGradient::default();
                self.stop(&mut solver.stop);
                self.run_with(&solver, file, &counted, x0)
            }
            Method::DualAscent => {
                let mut solver = DualAscent::default();
                self.stop(&mut solver.stop);
                self.run_with(&solver, file, &counted, x0)
            }
        }
        .with_context(|| file.display().to_string())?;
        let duals: serde_json::Map<String, serde_json::Value> =
            outcome.duals.iter().map(|dual| (dual.name.clone(), json!(dual.value))).collect();
        output.object(&json!({
            "status": outcome.status,
            "objective": outcome.objective,
            "kkt": outcome.kkt,
            "iterations": outcome.iterations,
            "seconds": outcome.seconds,
            "x": outcome.x,
            "duals": duals,
            "variables": names,
            "infeasibility": outcome.infeasibility,
            "evaluations": counted.counts(),
            "notes": outcome.notes,
        }))?;
        if !output.json() {
            self.tell(&outcome, problem.dim(), names, output)?;
        }
        Ok(if outcome.status == Status::Optimal { Verdict::Done } else { Verdict::Missed })
    }

    fn stop(&self, stop: &mut Stop) {
        *stop = self.limits.stop(self.tolerance, *stop);
    }

    fn run_with<'p, P: Curved, S: Solver<Counted<'p, P>>>(
        &self,
        solver: &S,
        file: &Path,
        problem: &Counted<'p, P>,
        x0: &[f64],
    ) -> Result<Outcome> {
        let mut state = match &self.resume {
            None => solver.init(problem, x0)?,
            Some(path) => self.read::<S::State>(path, problem.dim())?,
        };
        let mut control = Control::default();
        control.seconds = self.limits.seconds;
        if self.limits.logs() {
            control = control.watch(|iteration, measures| self.limits.tell(iteration, measures));
        }
        let outcome = solver.run(problem, &mut state, &mut control)?;
        if let Some(path) = &self.save {
            let state = serde_json::to_value(&state).context("a state is JSON")?;
            let saved = Saved { problem: file.into(), method: self.method, state };
            atomic::write(path, serde_json::to_string(&saved).context("a state is JSON")?.as_bytes())?;
        }
        Ok(outcome)
    }

    /// A state, of this method and of a problem with as many variables.
    fn read<S: serde::de::DeserializeOwned + saddlepoint_opt::solver::Iterate>(
        &self,
        path: &Path,
        n: usize,
    ) -> Result<S> {
        let place = || path.display().to_string();
        let text = fs::read_to_string(path).with_context(place)?;
        let wrong = |problem: String| Usage(format!("{}: {problem}; save one with --save", path.display()));
        let saved: Saved =
            serde_json::from_str(&text).map_err(|error| wrong(format!("not a saved state: {error}")))?;
        if saved.method != self.method {
            let was = word(&saved.method);
            return Err(wrong(format!("a state of {was}: give --method {was}")).into());
        }
        let state: S =
            serde_json::from_value(saved.state).map_err(|error| wrong(format!("not a state: {error}")))?;
        if state.x().len() != n {
            return Err(
                wrong(format!("a state of {} variables, and the problem has {n}", state.x().len())).into()
            );
        }
        Ok(state)
    }

    fn tell(&self, outcome: &Outcome, n: usize, names: &[String], output: Output) -> Result<()> {
        let most = 20;
        output.say(format!("{}\n", outcome.status))?;
        let kkt = &outcome.kkt;
        let rows = [
            ("objective", format!("{:.10e}", outcome.objective)),
            ("stationarity", format!("{:.1e}", kkt.stationarity)),
            ("feasibility", format!("{:.1e}", kkt.feasibility)),
            ("complementarity", format!("{:.1e}", kkt.complementarity)),
            ("iterations", outcome.iterations.to_string()),
            ("time", duration(outcome.seconds)),
        ];
        output.say(table(
            [word(&self.method).as_str(), ">"],
            rows.map(|(name, value)| [name.to_owned(), value]),
        ))?;
        let rows = names.iter().zip(&outcome.x).take(most);
        output.say(table(["variable", ">value"], rows.map(|(name, x)| [name.clone(), number(*x)])))?;
        let duals = outcome.duals.iter().take(most);
        if !outcome.duals.is_empty() {
            output.say(table(
                ["constraint", ">multiplier"],
                duals.map(|dual| [dual.name.clone(), number(dual.value)]),
            ))?;
        }
        let left = n.saturating_sub(most) + outcome.duals.len().saturating_sub(most);
        if left > 0 {
            output.say(format!("{left} more; --json prints all"))?;
        }
        for text in &outcome.notes {
            output.say(format!("note: {text}"))?;
        }
        Ok(())
    }
}

fn list(output: Output) -> Result<Verdict> {
    let methods = Method::value_variants().iter().filter_map(ValueEnum::to_possible_value);
    let rows: Vec<[String; 2]> = methods
        .map(|value| {
            [value.get_name().to_owned(), value.get_help().map(ToString::to_string).unwrap_or_default()]
        })
        .collect();
    for [name, purpose] in &rows {
        output.object(&json!({ "name": name, "for": purpose }))?;
    }
    if !output.json() {
        output.say(table(["method", "for"], rows))?;
    }
    Ok(Verdict::Done)
}
