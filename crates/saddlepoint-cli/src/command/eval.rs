//! `saddle eval`.

use std::path::{Path, PathBuf};

use anyhow::Result;
use clap::Args;
use saddlepoint_lm::engine::Want;
use saddlepoint_lm::recipe::Recipe;
use saddlepoint_lm::trainer::{self, Job};
use serde_json::{Map, Value, json};

use crate::exit::{Usage, Verdict};
use crate::loaded::ModelArguments;
use crate::output::{Output, number, table};
use crate::scoring;

/// Measure a model on data that it was not trained on
///
/// With a recipe: the method's metrics on its held-out examples, before training and, if the run is complete, after.
/// With --model and --data: loss, perplexity and accuracy of texts and completions, or how often the chosen completion
/// of a pair is the more probable one; of a reward model, how often it has the higher reward.
#[derive(Debug, Args)]
#[command(
    after_help = "Example: saddle eval --model runs/pairs/model --data test.jsonl\nExample: saddle eval \
                        examples/quickstart.toml"
)]
pub(crate) struct Arguments {
    /// Recipe (TOML)
    #[arg(required_unless_present = "model", conflicts_with_all = ["model", "adapter", "data"])]
    recipe: Option<PathBuf>,
    /// Change a key of the recipe; may be given several times
    #[arg(long = "set", value_name = "KEY=VALUE", requires = "recipe")]
    sets: Vec<String>,
    #[command(flatten)]
    model: Option<ModelArguments>,
    /// JSONL or JSON of texts, prompts and completions, conversations, or pairs
    #[arg(long, value_name = "FILE", requires = "model")]
    data: Option<PathBuf>,
}

impl Arguments {
    pub(crate) fn run(self, output: Output) -> Result<Verdict> {
        match (&self.recipe, &self.model, &self.data) {
            (Some(recipe), ..) => of_recipe(&Recipe::load(recipe, &self.sets)?, output)?,
            (None, Some(model), Some(data)) => of_data(model, data, output)?,
            _ => return Err(Usage("--model needs --data FILE".to_owned()).into()),
        }
        Ok(Verdict::Done)
    }
}

/// The method's metrics before training, and after it where there is a result.
fn of_recipe(recipe: &Recipe, output: Output) -> Result<()> {
    let job = Job::open(&trainer::resolved(recipe)?)?;
    let result = recipe.train.output_dir.join("model");
    let before = job.evaluate(None)?;
    let after = result.is_dir().then(|| job.evaluate(Some(&result))).transpose()?;
    let object = |metrics: &[(String, f64)]| -> Map<String, Value> {
        metrics.iter().map(|(name, value)| (name.clone(), json!(value))).collect()
    };
    output.object(&json!({ "before": object(&before), "after": after.as_deref().map(object) }))?;
    if !output.json() {
        let after =
            |name: &str| after.iter().flatten().find(|metric| metric.0 == name).map(|metric| metric.1);
        let rows = before
            .iter()
            .map(|(name, value)| [name.clone(), number(*value), after(name).map_or(String::new(), number)]);
        output.say(table(["held-out", ">before", ">after"], rows))?;
    }
    Ok(())
}

/// Means over a data file.
fn of_data(model: &ModelArguments, data: &Path, output: Output) -> Result<()> {
    let opened = model.open()?;
    let samples = scoring::samples(&opened, data)?;
    if opened.is_reward_model() {
        return of_rewards(&scoring::rewards(&opened, &samples)?, output);
    }
    let (mut tokens, mut right, mut logp) = (0, 0, 0.0);
    let (mut pairs, mut preferred, mut margin) = (0, 0, 0.0);
    scoring::score(&opened, None, Want::default(), &samples, |_, scored| {
        for scored in &scored {
            tokens += scored.logps.len();
            logp += scored.logps.iter().sum::<f64>();
            right += scored.top1.iter().filter(|top| **top).count();
        }
        if let [chosen, rejected] = &scored[..] {
            let [chosen, rejected] = [chosen, rejected].map(|scored| scored.logps.iter().sum::<f64>());
            pairs += 1;
            preferred += usize::from(chosen > rejected);
            margin += chosen - rejected;
        }
        Ok(())
    })?;
    let loss = -logp / tokens as f64;
    let mut metrics = vec![
        ("loss", loss),
        ("perplexity", loss.exp()),
        ("mean_token_accuracy", right as f64 / tokens as f64),
    ];
    if pairs > 0 {
        metrics.push(("pair_accuracy", preferred as f64 / pairs as f64));
        metrics.push(("pair_margin", margin / pairs as f64));
    }
    let object: Map<String, Value> =
        metrics.iter().map(|(name, value)| ((*name).to_owned(), json!(value))).collect();
    output.object(&json!({ "metrics": object, "samples": samples.len(), "tokens": tokens }))?;
    if !output.json() {
        let rows = metrics.iter().map(|(name, value)| [(*name).to_owned(), number(*value)]);
        output.say(table(["", ">"], rows))?;
        output.say(format!("{} samples, {tokens} tokens", samples.len()))?;
    }
    Ok(())
}

/// Means of what a reward model says of samples: of one completion each, or of the chosen and the rejected one.
fn of_rewards(rewards: &[Vec<f64>], output: Output) -> Result<()> {
    let all: Vec<f64> = rewards.concat();
    let mut metrics = vec![("mean_reward", all.iter().sum::<f64>() / all.len() as f64)];
    let pairs: Vec<[f64; 2]> = rewards.iter().filter_map(|rewards| rewards[..].try_into().ok()).collect();
    if !pairs.is_empty() {
        let mean = |of: &dyn Fn(&[f64; 2]) -> f64| pairs.iter().map(of).sum::<f64>() / pairs.len() as f64;
        metrics.push(("accuracy", mean(&|[chosen, rejected]| f64::from(chosen > rejected))));
        metrics.push(("margin", mean(&|[chosen, rejected]| chosen - rejected)));
    }
    let object: Map<String, Value> =
        metrics.iter().map(|(name, value)| ((*name).to_owned(), json!(value))).collect();
    output.object(&json!({ "metrics": object, "samples": rewards.len() }))?;
    if !output.json() {
        output.say(table(
            ["", ">"],
            metrics.iter().map(|(name, value)| [(*name).to_owned(), number(*value)]),
        ))?;
        output.say(format!("{} samples", rewards.len()))?;
    }
    Ok(())
}
