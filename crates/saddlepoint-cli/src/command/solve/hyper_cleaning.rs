//! `saddle solve hyper-cleaning`.

use anyhow::Result;
use clap::Args;
use saddlepoint_opt::bilevel::tuning::{self, Split, Tuned, Weights};
use serde_json::{Map, Value, json};

use super::tuning::{Data, Effort, tell};
use crate::exit::{Usage, Verdict};
use crate::output::{Output, number, table};

/// Most suspects that are shown to people.
const SHOWN: usize = 20;

/// Find training examples whose labels contradict held-out ones that are trusted
#[derive(Debug, Args)]
#[command(
    after_help = "Example: saddle solve hyper-cleaning --data breast-cancer.txt --flip 0.4 --flip-seed 1\n\n\
                        Each training example of a support vector machine gets a weight; those whose labels contradict what \
                        helps on the held-out examples lose it. --flip turns labels at random first, to see whether they are \
                        found. docs/solvers.md has the formulas. Exit code 1: the tolerance was not reached; what was found is \
                        printed all the same."
)]
pub(crate) struct Arguments {
    #[command(flatten)]
    data: Data,
    #[command(flatten)]
    effort: Effort,
    /// Turn the label of each training example with this probability before anything else
    #[arg(long, value_name = "P", default_value_t = 0.0)]
    flip: f64,
    /// Seed of what is turned
    #[arg(long, value_name = "N", default_value_t = 0)]
    flip_seed: u64,
    /// Logarithm that the weights start from, in [-12, 6]
    #[arg(long, value_name = "X", default_value_t = -5.0, allow_negative_numbers = true)]
    start: f64,
}

impl Arguments {
    pub(crate) fn run(self, output: Output) -> Result<Verdict> {
        if !(0.0..=1.0).contains(&self.flip) {
            return Err(Usage(format!("--flip must be a probability in [0, 1], got {}", self.flip)).into());
        }
        let mut split = self.data.split(Split::classes)?;
        let flipped = split.flip(self.flip, self.flip_seed);
        let tuned = self.effort.watched("hyper-cleaning", |method, control| {
            tuning::svm(&split, Weights::Each, self.start, method, control)
        })?;
        let separation = tuning::separation(&tuned.outcome.x, &flipped);
        let mut more = Map::new();
        more.insert("flipped".into(), named(&split, &flipped));
        more.insert("separation".into(), json!(separation));
        let verdict = tell(self.effort.method, &split, &tuned, &more, output)?;
        if !output.json() {
            suspects(&split, &tuned, &flipped, output)?;
            if let Some(share) = separation {
                let count = flipped.iter().filter(|flipped| **flipped).count();
                let text = "a turned one weighs less than one that was not turned in";
                output.say(format!("{count} labels were turned; {text} {} of pairs", number(share)))?;
            }
        }
        Ok(verdict)
    }
}

/// The names of the examples that were turned.
fn named(split: &Split, flipped: &[bool]) -> Value {
    split
        .example_names()
        .into_iter()
        .zip(flipped)
        .filter_map(|(name, flipped)| flipped.then_some(name))
        .collect()
}

/// The lightest examples.
fn suspects(split: &Split, tuned: &Tuned, flipped: &[bool], output: Output) -> Result<()> {
    let weights = &tuned.outcome.x;
    let mut order: Vec<usize> = (0..weights.len()).collect();
    order.sort_by(|a, b| weights[*a].total_cmp(&weights[*b]));
    let rows = order.into_iter().take(SHOWN).map(|i| {
        let label = split.classes[usize::from(split.train.labels[i] > 0.0)];
        let turned = if flipped[i] { "turned" } else { "" };
        [tuned.names[i].clone(), number(label), number(weights[i]), turned.to_owned()]
    });
    output.say(table(["lightest", ">label", ">log-weight", ""], rows))
}
