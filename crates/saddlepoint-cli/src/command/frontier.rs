//! `saddle frontier`.

use std::path::{Path, PathBuf};

use anyhow::Result;
use clap::Args;
use saddlepoint_lm::recipe::Recipe;
use saddlepoint_lm::tether::Unit;
use saddlepoint_lm::trainer::{self, BestOf, Job};
use serde_json::json;

use crate::exit::{Usage, Verdict};
use crate::output::{Output, interval, note, number, place, table};
use crate::report::{self, Frontier, Point};
use crate::watch::Watch;

/// Draw reward against divergence over several runs, with intervals
#[derive(Debug, Args)]
#[command(
    after_help = "Example: saddle frontier --recipe examples/quickstart.toml --sweep tether.budget=0.1,0.25,0.5 \
                        --best-of 16\n\nRuns that are already complete are read; a run that was interrupted continues."
)]
pub(crate) struct Arguments {
    /// Run directories, each with a `[tether]`
    runs: Vec<PathBuf>,
    /// Recipe of a sweep
    #[arg(long, value_name = "FILE", requires = "sweep")]
    recipe: Option<PathBuf>,
    /// A key of the recipe and the values that it takes, one run each, in OUTPUT/KEY=VALUE
    #[arg(long, value_name = "KEY=V1,V2,...", requires = "recipe")]
    sweep: Option<String>,
    /// Change a key of the recipe in every run; may be given several times
    #[arg(long = "set", value_name = "KEY=VALUE", requires = "recipe")]
    sets: Vec<String>,
    /// Draw the best of 1, 2, 4, ... N samples of the model before training, where the recipe's data says what is right
    #[arg(long, value_name = "N", requires = "recipe", value_parser = clap::value_parser!(u16).range(2..))]
    best_of: Option<u16>,
    /// Held-out metric in place of the share of right samples
    #[arg(long, value_name = "NAME")]
    metric: Option<String>,
    /// Folder of frontier.html and of the runs of a sweep
    #[arg(long, value_name = "DIR", default_value = "runs/frontier")]
    output: PathBuf,
}

impl Arguments {
    pub(crate) fn run(self, output: Output) -> Result<Verdict> {
        let mut runs = self.runs.clone();
        let mut best_of = Vec::new();
        if let (Some(recipe), Some(sweep)) = (&self.recipe, &self.sweep) {
            runs.extend(self.sweep(recipe, sweep, output)?);
            if let Some(samples) = self.best_of {
                best_of = self.best_of(recipe, samples)?;
            }
        }
        if runs.is_empty() {
            return Err(
                Usage("nothing to draw: give run directories, or --recipe with --sweep".into()).into()
            );
        }
        let points = runs.iter().map(|run| report::read_point(run, self.metric.as_deref()));
        let frontier = frontier(points.collect::<Result<_>>()?, best_of)?;
        let page = self.output.join("frontier.html");
        report::write_frontier(&page, &frontier)?;
        let mut object = json!(frontier);
        object["report"] = json!(page);
        output.object(&object)?;
        if !output.json() {
            output.say(described(&frontier))?;
            output.say(format!("report  {}", place(&page)))?;
        }
        Ok(Verdict::Done)
    }

    /// Runs the recipe with each value, and returns the folders.
    fn sweep(&self, recipe: &Path, sweep: &str, output: Output) -> Result<Vec<PathBuf>> {
        let Some((key, values)) = sweep.split_once('=') else {
            return Err(Usage(format!("--sweep {sweep}: write KEY=V1,V2,...")).into());
        };
        let mut runs = Vec::new();
        for value in values.split(',') {
            let set = format!("{key}={value}");
            let mut recipe = Recipe::load(recipe, &[&self.sets[..], std::slice::from_ref(&set)].concat())?;
            recipe.train.output_dir = self.output.join(&set);
            let mut watch = Watch::new(output);
            let outcome = trainer::run(&recipe, true, &mut |event| watch.see(event));
            let shown = watch.finish();
            let summary = outcome?;
            shown?;
            report::write(&summary.run_dir)?;
            note(format!("{set} is done\n"))?;
            runs.push(summary.run_dir);
        }
        Ok(runs)
    }

    fn best_of(&self, recipe: &Path, samples: u16) -> Result<Vec<BestOf>> {
        let recipe = trainer::resolved(&Recipe::load(recipe, &self.sets)?)?;
        if recipe.tether.as_ref().is_some_and(|tether| tether.per == Unit::Token) {
            let problem = "--best-of: the divergence of choosing is one of whole sequences; the recipe's is a mean over \
                           tokens (tether.per)";
            return Err(Usage(problem.into()).into());
        }
        note(format!("drawing {samples} samples a prompt of the model before training"))?;
        let refuse = || Usage("--best-of: the recipe's data has no rule that says what is right".into());
        Ok(Job::open(&recipe)?.best_of(samples.into())?.ok_or_else(refuse)?)
    }
}

/// There are six colours, and one is for the best of `N`.
const METHODS: usize = 5;

/// Runs that measure the same two things, by divergence.
fn frontier(mut points: Vec<Point>, best_of: Vec<BestOf>) -> Result<Frontier> {
    points.sort_by(|a, b| a.divergence.total_cmp(&b.divergence));
    let (first, rest) = points.split_first().expect("checked: there is a run");
    let same = |p: &&Point| p.of != first.of || p.rewarded != first.rewarded;
    if let Some(other) = rest.iter().find(same) {
        let problem = format!(
            "{} and {} cannot be drawn together: {} and {} against {} and {}",
            first.run.display(),
            other.run.display(),
            first.rewarded,
            other.rewarded,
            first.of,
            other.of
        );
        return Err(Usage(problem).into());
    }
    let methods: std::collections::BTreeSet<&str> =
        points.iter().map(|point| point.method.as_str()).collect();
    if methods.len() > METHODS {
        let problem = format!("draws at most {METHODS} methods together, there are {}", methods.len());
        return Err(Usage(problem).into());
    }
    let (reward, divergence) = (first.rewarded.clone(), first.of.clone());
    Ok(Frontier { reward, divergence, points, best_of })
}

fn described(frontier: &Frontier) -> String {
    let rows = frontier.points.iter().map(|point| {
        let shown = |value: Option<f64>| value.map_or(String::new(), number);
        let with = |value: f64, ends: Option<[f64; 2]>| match ends {
            Some(ends) => format!("{} {}", number(value), interval(ends)),
            None => number(value),
        };
        [
            point.run.display().to_string(),
            point.method.clone(),
            shown(point.budget),
            with(point.divergence, Some(point.divergence_interval)),
            with(point.reward, point.reward_interval),
        ]
    });
    let best = frontier.best_of.iter().map(|best| {
        let reward = format!("{} {}", number(best.reward), interval(best.interval));
        [String::new(), format!("best of {}", best.n), String::new(), number(best.divergence), reward]
    });
    let heads = ["run", "method", ">budget", ">divergence, nats", &format!(">{}", frontier.reward)];
    format!("{}: reward against divergence\n\n{}\n", frontier.divergence, table(heads, rows.chain(best)))
}
