//! `saddle solve svm-hyperparameters`.

use anyhow::Result;
use clap::{Args, ValueEnum};
use saddlepoint_opt::bilevel::tuning::{self, Split, Weights};

use super::tuning::{Data, Effort, tell};
use crate::exit::Verdict;
use crate::output::Output;

/// Choose the weights of a linear support vector machine's examples by the loss on held-out ones
#[derive(Debug, Args)]
#[command(
    after_help = "Example: saddle solve svm-hyperparameters --data diabetes.txt --weights class --json\n\n\
                        Labels are two different numbers. docs/solvers.md has the formulas and says what the figures mean. \
                        Exit code 1: the tolerance was not reached; what was found is printed all the same."
)]
pub(crate) struct Arguments {
    #[command(flatten)]
    data: Data,
    #[command(flatten)]
    effort: Effort,
    /// Which training examples share a weight
    #[arg(long, value_enum, default_value = "each")]
    weights: Sharing,
    /// Logarithm that the weights start from, in [-12, 6]
    #[arg(long, value_name = "X", default_value_t = -5.0, allow_negative_numbers = true)]
    start: f64,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Sharing {
    /// None: each has its own
    Each,
    /// Those of a class
    Class,
    /// All: the usual C
    All,
}

impl Arguments {
    pub(crate) fn run(self, output: Output) -> Result<Verdict> {
        let split = self.data.split(Split::classes)?;
        let weights = match self.weights {
            Sharing::Each => Weights::Each,
            Sharing::Class => Weights::Class,
            Sharing::All => Weights::Shared,
        };
        let tuned = self.effort.watched("svm-hyperparameters", |method, control| {
            tuning::svm(&split, weights, self.start, method, control)
        })?;
        tell(self.effort.method, &split, &tuned, &serde_json::Map::new(), output)
    }
}
