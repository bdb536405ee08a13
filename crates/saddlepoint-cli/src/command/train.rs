//! `saddle train`.

use std::fmt::Write as _;
use std::path::PathBuf;

use anyhow::{Context as _, Result};
use clap::Args;
use saddlepoint_lm::Error;
use saddlepoint_lm::recipe::Recipe;
use saddlepoint_lm::tether::{Report, Verdict as Judgement};
use saddlepoint_lm::trainer::{self, Job, Summary};
use serde_json::{Value, json};

use crate::describe;
use crate::exit::{Diverged, Verdict};
use crate::output::{Output, duration, number, place, table};
use crate::report::{self, Measure};
use crate::watch::Watch;

/// Train a model by a recipe and measure how far it went
#[derive(Debug, Args)]
#[command(after_help = "Example: saddle train examples/quickstart.toml --set method.beta=0.2\n\n\
                        `saddle config METHOD` prints a recipe with every key.")]
pub(crate) struct Arguments {
    /// Recipe (TOML)
    recipe: PathBuf,
    /// Change a key of the recipe; may be given several times
    #[arg(long = "set", value_name = "KEY=VALUE")]
    sets: Vec<String>,
    /// Continue the run in its directory after its last checkpoint
    #[arg(long)]
    resume: bool,
    /// Show what would be trained and the memory that it needs, and stop
    #[arg(long, conflicts_with = "resume")]
    dry_run: bool,
}

impl Arguments {
    pub(crate) fn run(self, output: Output) -> Result<Verdict> {
        let recipe = Recipe::load(&self.recipe, &self.sets)?;
        if self.dry_run {
            return dry_run(&recipe, output);
        }
        let mut watch = Watch::new(output);
        let outcome = trainer::run(&recipe, self.resume, &mut |event| watch.see(event));
        let going_on = watch.going_on();
        let shown = watch.finish();
        // What stopped the run is said, not that its report could then not be written either.
        let summary = outcome.map_err(|error| match error {
            Error::NotFinite { .. } if going_on => anyhow::Error::new(Diverged(error.to_string())),
            error => error.into(),
        })?;
        shown?;
        let (path, measures) = report::write(&summary.run_dir).context("writing the report")?;
        let mut object = serde_json::to_value(&summary).context("the summary")?;
        object["tether"] = json!(summary.tether);
        object["report"] = json!(path);
        output.object(&object)?;
        if !output.json() {
            output.say(conclusion(&summary, &measures))?;
            output.say(format!("model   {}", place(&summary.run_dir.join("model"))))?;
            output.say(format!("report  {}", place(&path)))?;
        }
        Ok(if summary.reached() { Verdict::Done } else { Verdict::Missed })
    }
}

/// Opens everything that the run would, without writing anything.
fn dry_run(recipe: &Recipe, output: Output) -> Result<Verdict> {
    let resolved = trainer::resolved(recipe)?;
    if let (Some(first), Some(result)) = (&recipe.model.recipe, &resolved.model.path)
        && !result.exists()
    {
        output.say(format!("starts from {}, which is run first:\n", first.display()))?;
        return dry_run(&Recipe::load(first, &[])?, output);
    }
    let job = Job::open(&resolved)?;
    output.object(&object(&job)?)?;
    if !output.json() {
        output.say(describe::job(&job)?)?;
    }
    Ok(Verdict::Done)
}

fn object(job: &Job) -> Result<Value> {
    let part = |part: &trainer::Part| json!({ "read": part.read, "prepared": part.prepared });
    let memory: serde_json::Map<String, Value> =
        describe::memory(&job.memory()?).into_iter().map(|(part, size)| (part, json!(size))).collect();
    Ok(json!({
        "steps": job.steps(), "train": part(job.train()), "eval": job.eval().map(part), "memory": memory,
    }))
}

/// The table at the end of a run.
fn conclusion(summary: &Summary, measures: &[Measure]) -> String {
    let shown = |value: &Option<f64>| value.map_or(String::new(), number);
    let rows =
        measures.iter().map(|Measure { name, before, after }| [name.clone(), shown(before), shown(after)]);
    let mut text = String::new();
    if !measures.is_empty() {
        let _ = writeln!(text, "{}\n", table(["", ">before", ">after"], rows));
    }
    if let Some(tether) = &summary.tether {
        let _ = writeln!(text, "{}\n", judged(tether));
    }
    let weights = if summary.model_step == summary.steps {
        String::new()
    } else {
        format!("; the model is that of step {}", summary.model_step)
    };
    text + &format!("{} steps in {}{weights}", summary.steps, duration(summary.seconds))
}

fn judged(tether: &Report) -> String {
    let [low, high] = tether.interval.map(number);
    let measured = format!("{} (95 % interval {low} to {high})", number(tether.measured));
    let mut rows = vec![[
        format!("{} from the {} reference, {}", tether.divergence, tether.reference, tether.per),
        measured,
    ]];
    match tether.budget {
        Some(budget) => {
            let verdict = match tether.verdict {
                Some(Judgement::Held) => "held",
                Some(Judgement::Undecided) => "not shown to be held: it lies inside the interval",
                Some(Judgement::NotHeld) | None => "not held",
            };
            rows.push(["budget".into(), number(budget)]);
            rows.push(["verdict".into(), verdict.into()]);
            if let Some(clamped) = tether.clamped.filter(|clamped| clamped.upper > 0) {
                let times = format!("held at its largest value after {} measurements", clamped.upper);
                rows.push(["beta".into(), times]);
            }
        }
        None => rows.push(["beta".into(), number(tether.beta)]),
    }
    table(["divergence", ""], rows).to_string()
}
