//! `saddle solve ridge`.

use anyhow::Result;
use clap::Args;
use saddlepoint_opt::bilevel::tuning;

use super::tuning::{Data, Effort, tell};
use crate::exit::Verdict;
use crate::output::Output;

/// Choose the penalties of a ridge regression by the error on held-out examples
#[derive(Debug, Args)]
#[command(after_help = "Example: saddle solve ridge --data houses.csv --label price --standardise\n\n\
                        docs/solvers.md has the formulas and says what the figures mean. Exit code 1: the tolerance was not \
                        reached; what was found is printed all the same.")]
pub(crate) struct Arguments {
    #[command(flatten)]
    data: Data,
    #[command(flatten)]
    effort: Effort,
    /// One penalty for all features instead of one each
    #[arg(long)]
    shared: bool,
    /// Logarithm that the penalties start from, in [-12, 6]
    #[arg(long, value_name = "X", default_value_t = -2.0, allow_negative_numbers = true)]
    start: f64,
}

impl Arguments {
    pub(crate) fn run(self, output: Output) -> Result<Verdict> {
        let split = self.data.split(Ok)?;
        let tuned = self.effort.watched("ridge", |method, control| {
            tuning::ridge(&split, self.shared, self.start, method, control)
        })?;
        tell(self.effort.method, &split, &tuned, &serde_json::Map::new(), output)
    }
}
