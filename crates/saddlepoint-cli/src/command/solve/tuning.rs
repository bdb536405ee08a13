//! What the front ends of hyperparameters share: data and how they are divided, a run that is watched, what is told of it.

use std::path::PathBuf;

use anyhow::Result;
use clap::{Args, ValueEnum};
use saddlepoint_core::config;
use saddlepoint_core::progress::Progress;
use saddlepoint_opt::bilevel::tuning::{Method, Score, Scored, Split, Tuned};
use saddlepoint_opt::bilevel::{By, Hypergradient};
use saddlepoint_opt::examples::{self, Examples};
use saddlepoint_opt::outcome::Status;
use saddlepoint_opt::solver::{Control, Stop};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::limits::{Limits, line};
use crate::exit::Verdict;
use crate::output::{Output, duration, note, number, table, word};

/// Most rows of a table for people.
const SHOWN: usize = 20;

/// Features whose deviations differ by more than this make methods of first order slow.
const UNEVEN: f64 = 100.0;

/// Where examples come from and how they are divided.
#[derive(Debug, Args)]
pub(super) struct Data {
    /// Examples: a table FILE.csv whose first line names its columns, or under another name LIBSVM's format
    #[arg(long = "data", value_name = "FILE")]
    file: PathBuf,
    /// Column of the labels in a table [default: the last]
    #[arg(long, value_name = "NAME")]
    label: Option<String>,
    /// How many examples train the model [default: three fifths]
    #[arg(long, value_name = "N")]
    train: Option<usize>,
    /// How many examples choose the hyperparameters [default: a fifth]; the rest are for the test
    #[arg(long, value_name = "N")]
    held_out: Option<usize>,
    /// Seed of the order in which examples are taken
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// Take them in the order of the file
    #[arg(long, conflicts_with = "seed")]
    in_order: bool,
    /// Give each feature mean 0 and deviation 1 over the training examples
    #[arg(long)]
    standardise: bool,
}

impl Data {
    /// Reads and divides them, and says so.
    pub(super) fn split(
        &self,
        labels: impl FnOnce(Split) -> saddlepoint_opt::Result<Split>,
    ) -> Result<Split> {
        let all = examples::read(&self.file, self.label.as_deref())?;
        let train = self.train.unwrap_or(all.len() * 3 / 5);
        let held_out = self.held_out.unwrap_or(all.len() / 5);
        let seed = (!self.in_order).then_some(self.seed);
        let mut split = Split::new(&all, train, held_out, seed).and_then(labels)?;
        if self.standardise {
            split = split.standardised();
        }
        note(format!(
            "data    {}: {} examples of {} features; {train} train, {held_out} choose, {} judge\n",
            self.file.display(),
            all.len(),
            all.features,
            split.test.len()
        ))?;
        if let Some(ratio) = unevenness(&split.train) {
            note(format!(
                "note: deviations of the features differ by a factor of {}; --standardise makes them equal",
                number(ratio)
            ))?;
        }
        Ok(split)
    }
}

/// How much the deviations of features that vary differ, if by much.
fn unevenness(train: &Examples) -> Option<f64> {
    let deviations = train.moments().into_iter().map(|(_, deviation)| deviation).filter(|d| *d > 0.0);
    let (least, most) =
        deviations.fold((f64::INFINITY, 0.0_f64), |(least, most), d| (least.min(d), most.max(d)));
    Some(most / least).filter(|ratio| *ratio > UNEVEN)
}

/// How the problem is solved.
#[derive(Debug, Args)]
pub(super) struct Effort {
    /// How it is solved
    #[arg(long, value_enum, default_value_t)]
    pub(super) method: Name,
    /// Change a setting of the method, such as alpha=0.01 or stop.iterations=500; docs/solvers.md says where they are listed
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Largest projected hyper-gradient of a solution [default: the method's own]
    #[arg(long, value_name = "X")]
    tolerance: Option<f64>,
    #[command(flatten)]
    limits: Limits,
}

/// The methods by name.
#[derive(Debug, Clone, Copy, Default, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Name {
    /// One loop of gradient steps on a proximal Lagrangian
    LvHba,
    /// The lower level as a penalty on its value
    PenaltyBilevel,
    /// The same with a growing multiplier
    F2sa,
    /// Hyper-gradients by implicit differentiation
    #[default]
    Implicit,
    /// Hyper-gradients through unrolled steps
    Unrolled,
}

/// Settings of hyper-gradients by implicit differentiation.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
struct Implicit {
    tolerance: f64,
    stop: Stop,
}

impl Default for Implicit {
    fn default() -> Self {
        Self { tolerance: 1e-9, stop: Hypergradient::default().stop }
    }
}

/// Settings of hyper-gradients through unrolled steps.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
struct Unrolled {
    steps: u32,
    stop: Stop,
}

impl Default for Unrolled {
    fn default() -> Self {
        Self { steps: 100, stop: Hypergradient::default().stop }
    }
}

impl Effort {
    /// The method with its settings.
    fn method(&self) -> Result<Method> {
        let sets = &self.set;
        let mut method = match self.method {
            Name::LvHba => Method::LvHba(config::load(None, sets)?),
            Name::PenaltyBilevel => Method::PenaltyBilevel(config::load(None, sets)?),
            Name::F2sa => Method::F2sa(config::load(None, sets)?),
            Name::Implicit => {
                let Implicit { tolerance, stop } = config::load(None, sets)?;
                Method::Hypergradient(Hypergradient { by: By::Implicit { tolerance }, stop })
            }
            Name::Unrolled => {
                let Unrolled { steps, stop } = config::load(None, sets)?;
                Method::Hypergradient(Hypergradient { by: By::Unrolled { steps }, stop })
            }
        };
        let stop = method.stop();
        *stop = self.limits.stop(self.tolerance, *stop);
        Ok(method)
    }

    /// Runs under a bar on a terminal, and a log if one is asked for.
    pub(super) fn watched(
        &self,
        label: &str,
        run: impl FnOnce(&Method, &mut Control) -> saddlepoint_opt::Result<Tuned>,
    ) -> Result<Tuned> {
        let mut method = self.method()?;
        // A log takes the lines that a bar would be drawn over.
        let bar = Progress::new(method.stop().iterations, label, !self.limits.logs());
        let mut control = Control::default().watch(|iteration, measures| {
            bar.set(iteration, line(measures));
            self.limits.tell(iteration, measures);
        });
        control.seconds = self.limits.seconds;
        let tuned = run(&method, &mut control);
        drop(control);
        bar.finish();
        Ok(tuned?)
    }
}

/// Prints what was found, with `more` in the object for programs.
pub(super) fn tell(
    method: Name,
    split: &Split,
    tuned: &Tuned,
    more: &Map<String, Value>,
    output: Output,
) -> Result<Verdict> {
    if output.json() {
        output.object(&object(method, split, tuned, more))?;
    } else {
        print(method, tuned, output)?;
    }
    Ok(if tuned.outcome.status == Status::Optimal { Verdict::Done } else { Verdict::Missed })
}

fn object(method: Name, split: &Split, tuned: &Tuned, more: &Map<String, Value>) -> Value {
    let Tuned { names, duals, start, model, retrained, outcome } = tuned;
    let scores = |scored: &Scored| json!({ "held_out": scored.held_out, "test": scored.test });
    let named: Map<String, Value> =
        names.iter().zip(&outcome.x).map(|(name, x)| (name.clone(), json!(x))).collect();
    let duals: Map<String, Value> = duals.iter().map(|dual| (dual.name.clone(), json!(dual.value))).collect();
    let w: Map<String, Value> =
        retrained.w.iter().enumerate().map(|(j, w)| (split.train.name(j), json!(w))).collect();
    let mut object = json!({
        "status": outcome.status,
        "method": method,
        "upper": outcome.upper,
        "lower": outcome.lower,
        "hypergradient": outcome.diagnosis.stationarity,
        "kkt": outcome.diagnosis.lower,
        "gap": outcome.diagnosis.gap,
        "iterations": outcome.iterations,
        "seconds": outcome.seconds,
        "hyperparameters": named,
        "start": scores(start),
        "model": scores(model),
        "retrained": scores(retrained),
        "w": w,
        "b": retrained.b,
        "duals": duals,
        "notes": outcome.notes,
    });
    object.as_object_mut().expect("it is one").extend(more.clone());
    object
}

fn print(method: Name, tuned: &Tuned, output: Output) -> Result<()> {
    let Tuned { names, duals, start, model, retrained, outcome } = tuned;
    output.say(format!("{}\n", outcome.status))?;
    let (diagnosis, kkt) = (&outcome.diagnosis, &outcome.diagnosis.lower);
    let rows = [
        ("upper objective", format!("{:.6e}", outcome.upper)),
        ("projected hyper-gradient", format!("{:.1e}", diagnosis.stationarity)),
        ("lower level: gap", format!("{:.1e}", diagnosis.gap)),
        ("lower level: stationarity", format!("{:.1e}", kkt.stationarity)),
        ("lower level: feasibility", format!("{:.1e}", kkt.feasibility)),
        ("lower level: complementarity", format!("{:.1e}", kkt.complementarity)),
        ("iterations", outcome.iterations.to_string()),
        ("time", duration(outcome.seconds)),
    ];
    output.say(table([word(&method).as_str(), ">"], rows.map(|(name, value)| [name.to_owned(), value])))?;
    let rows = [("at the start", start), ("as the method ended", model), ("trained to the end", retrained)]
        .map(|(name, scored)| {
            let [loss, accuracy] = cells(Some(&scored.held_out));
            let [test_loss, test_accuracy] = cells(scored.test.as_ref());
            [name.to_owned(), loss, accuracy, test_loss, test_accuracy]
        });
    output.say(table(["model", ">held-out loss", ">accuracy", ">test loss", ">accuracy"], rows))?;
    let rows = names.iter().zip(&outcome.x).take(SHOWN);
    output.say(table(["hyperparameter", ">logarithm"], rows.map(|(name, x)| [name.clone(), number(*x)])))?;
    if !duals.is_empty() {
        let rows = duals.iter().take(SHOWN).map(|dual| [dual.name.clone(), number(dual.value)]);
        output.say(table(["constraint", ">multiplier"], rows))?;
    }
    let left = names.len().saturating_sub(SHOWN) + duals.len().saturating_sub(SHOWN);
    if left > 0 {
        output.say(format!("{left} more; --json prints all"))?;
    }
    for text in &outcome.notes {
        output.say(format!("note: {text}"))?;
    }
    Ok(())
}

fn cells(score: Option<&Score>) -> [String; 2] {
    let share = |accuracy: f64| format!("{:.1} %", 100.0 * accuracy);
    match score {
        Some(score) => [number(score.loss), score.accuracy.map_or_else(String::new, share)],
        None => [String::new(), String::new()],
    }
}
