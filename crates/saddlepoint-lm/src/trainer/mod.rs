//! The trainer: runs a recipe from its first step to its summary, and continues it where it was interrupted.
//!
//! A run is a function of its recipe. A run that is killed at any moment and resumed ends with the bytes of the
//! uninterrupted one, in its weights and in `metrics.jsonl`: every random stream is derived from seed and step,
//! and the rest of the state is in the checkpoint (which holds everything logged up to its step). Only what a server was asked for ahead of
//! its round is asked for anew, by newer weights.
//!
//! Nothing is printed; an observer is told what happens ([`Event`]).

mod before;
mod best_of;
mod cached;
mod checkpoint;
mod evaluate;
mod example;
mod finish;
mod inspect;
mod job;
mod long;
mod memory;
mod mismatched;
mod on_policy;
mod order;
mod rescale;
mod sampling;
mod scale;
mod setup;
mod state;
mod steps;
mod summary;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use saddlepoint_core::config;
use saddlepoint_core::metrics::Metrics;
use saddlepoint_core::run::RunDir;

pub use best_of::BestOf;
pub(crate) use example::{Asked, Batch, Compared, Example, batch, last_token, with_samples};
pub use job::{Job, Part, codec, comparable};
pub(crate) use sampling::{Drawn, Sampling};
pub use summary::{Evaluation, SampleSummary, Summary};

use crate::recipe::Recipe;
use crate::tether::{Measurement, Verdict};
use crate::{Error, Result};

/// The resolved recipe of a run, in its folder.
const CONFIG: &str = "config.toml";
/// The trained model or adapter.
const MODEL: &str = "model";
/// The end of the run.
const SUMMARY: &str = "summary.json";
/// What the policy says before and after.
const SAMPLES: &str = "samples.jsonl";

/// Something that happened.
#[derive(Debug)]
pub enum Event<'a> {
    /// Model and data were opened; the run starts, or continues after a step.
    Opened {
        /// What was opened.
        job: &'a Job,
        /// Folder of the run.
        run_dir: &'a Path,
        /// The step after which it continues.
        resumed: Option<u64>,
    },
    /// The recipe that this one starts from has been run before; its result is used.
    Reused {
        /// Folder of that run.
        run_dir: &'a Path,
    },
    /// Log-probabilities of the reference are computed.
    Precomputing {
        /// Examples done.
        done: usize,
        /// Of so many.
        total: usize,
    },
    /// Samples are drawn.
    Sampling {
        /// Number of prompts.
        prompts: usize,
    },
    /// An optimizer step was done.
    Step {
        /// Its number, from 1.
        step: u64,
        /// How many there will be.
        total: u64,
        /// Its loss.
        loss: f64,
    },
    /// Metrics were recorded.
    Logged {
        /// After which step.
        step: u64,
        /// Names and values.
        metrics: &'a Metrics,
    },
    /// The divergence was measured.
    Measured {
        /// After which step.
        step: u64,
        /// Mean and interval.
        measured: &'a Measurement,
        /// What it says about the budget, if there is one.
        verdict: Option<Verdict>,
    },
    /// A checkpoint was written.
    Saved {
        /// Its folder.
        path: &'a Path,
    },
    /// The run is complete. Until the event was taken no other process works in its folder.
    Ended,
}

/// Who is told what happens.
pub type Observer<'a> = &'a mut (dyn FnMut(&Event<'_>) + Send);

/// Runs `recipe`, and before it the recipes that it starts from. With `resume`, continues the run in its folder;
/// a folder in which nothing was written yet is started in.
///
/// # Errors
/// Recipe, model or data cannot be used; a file cannot be written; a loss or gradient is not finite. What was
/// recorded before stays.
pub fn run(recipe: &Recipe, resume: bool, observer: Observer) -> Result<Summary> {
    match recipe.train.threads {
        None => stages(recipe, resume, observer),
        Some(threads) => {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().map_err(|error| {
                Error::Config { key: "train.threads".to_owned(), problem: format!("{threads}: {error}") }
            })?;
            pool.install(|| stages(recipe, resume, observer))
        }
    }
}

/// The folder of the model that `recipe` trains. It is run unless that has been done, and continued if it was begun; its
/// folder must hold nothing else.
///
/// # Errors
/// As [`run`].
pub fn once(recipe: &Recipe, observer: Observer) -> Result<PathBuf> {
    let dir = &recipe.train.output_dir;
    if dir.join(SUMMARY).is_file() {
        observer(&Event::Reused { run_dir: dir });
    } else {
        run(recipe, true, observer)?;
    }
    Ok(dir.join(MODEL))
}

/// `recipe` with `model.recipe` and `teacher.recipe` replaced by the folders of those recipes' results, which need not be there
/// yet.
///
/// # Errors
/// A file there is not a recipe that trains a whole model.
pub fn resolved(recipe: &Recipe) -> Result<Recipe> {
    let mut resolved = recipe.clone();
    let result = |key, file: &Path| Ok::<_, Error>(Some(first(key, file)?.train.output_dir.join(MODEL)));
    if let Some(file) = resolved.model.recipe.take() {
        resolved.model.path = result("model.recipe", &file)?;
    }
    if let Some(teacher) = &mut resolved.teacher
        && let Some(file) = teacher.recipe.take()
    {
        teacher.path = result("teacher.recipe", &file)?;
    }
    Ok(resolved)
}

/// The recipe in `file`, with which another starts; `key` names it there.
fn first(key: &str, file: &Path) -> Result<Recipe> {
    let recipe = Recipe::load(file, &[])?;
    if recipe.model.lora.is_some() {
        let path = key.replace("recipe", "path");
        let problem =
            format!("trains an adapter, which is no model: merge it with `saddle convert` and use {path}");
        return Err(unfit(key, file, &problem));
    }
    Ok(recipe)
}

fn unfit(key: &str, file: &Path, problem: &str) -> Error {
    Error::Config { key: key.to_owned(), problem: format!("{}: {problem}", file.display()) }
}

/// A recipe that has to be run first.
struct Earlier {
    /// By which it is named.
    key: &'static str,
    file: PathBuf,
    recipe: Recipe,
}

/// Adds what has to be run before `recipe` to `before`, in an order in which it can be run. `after` are the files that wait
/// for it.
fn lead_to(recipe: &Recipe, after: &mut Vec<PathBuf>, before: &mut Vec<Earlier>) -> Result<()> {
    for (key, file) in recipe.recipes() {
        if after.contains(file) {
            return Err(unfit(key, file, "starts from itself"));
        }
        if before.iter().any(|earlier| earlier.file == *file) {
            continue;
        }
        let recipe = first(key, file)?;
        after.push(file.clone());
        lead_to(&recipe, after, before)?;
        after.pop();
        before.push(Earlier { key, file: file.clone(), recipe });
    }
    Ok(())
}

/// Runs the recipes that lead to `recipe`, unless that has been done, and then `recipe`.
fn stages(recipe: &Recipe, resume: bool, observer: Observer) -> Result<Summary> {
    let mut before = Vec::new();
    lead_to(recipe, &mut Vec::new(), &mut before)?;
    if !resume {
        // Before the first stage, which may take long.
        RunDir::check_unused(&recipe.train.output_dir)?;
    }
    for Earlier { key, file, recipe } in &before {
        let dir = &recipe.train.output_dir;
        match fs::read_to_string(dir.join(CONFIG)) {
            Ok(known) if settings(&known) != settings(&text(recipe)) => {
                let dir = dir.display();
                let problem =
                    format!("{dir} holds a run with other settings; remove it or change train.output_dir");
                return Err(unfit(key, file, &problem));
            }
            Ok(_) if dir.join(SUMMARY).is_file() => {
                // Removes what a kill at its very end left half-written. A folder in use, without checkpoints or that
                // cannot be written to is used as it is.
                drop(RunDir::resume(dir));
                observer(&Event::Reused { run_dir: dir });
            }
            _ => drop(stage(recipe, true, observer)?),
        }
    }
    stage(recipe, resume, observer)
}

/// Runs `recipe` alone.
fn stage(recipe: &Recipe, resume: bool, observer: Observer) -> Result<Summary> {
    // The peak is to be that of this stage.
    saddlepoint_core::memory::forget_peak();
    let job = Job::open(&resolved(recipe)?)?;
    let (dir, latest) = setup::folder(recipe, resume)?;
    if let Some(summary) = finish::summary(dir.path())? {
        return Ok(summary);
    }
    let mut run = setup::Run::open(&job, (dir, latest), observer)?;
    run.look_before(observer)?;
    steps::train(&mut run, observer)?;
    let summary = finish::finish(&mut run, observer)?;
    observer(&Event::Ended);
    Ok(summary)
}

/// The content of `config.toml`.
fn text(recipe: &Recipe) -> String {
    config::to_toml(recipe)
}

/// The settings of a `config.toml` by their paths, without the number of threads, on which nothing depends; none if it
/// is not TOML.
fn settings(text: &str) -> BTreeMap<String, String> {
    let table = toml::from_str(text).unwrap_or_default();
    let leaves = config::leaves(&table).into_iter();
    leaves
        .filter(|(path, _)| !["train.threads", "train.output_dir"].contains(&path.as_str()))
        .map(|(path, value)| (path, value.to_string()))
        .collect()
}
