//! `saddle solve`.

mod problem;

use anyhow::Result;
use clap::Args;

use crate::exit::Verdict;
use crate::output::Output;

/// Solve a constrained problem
#[derive(Debug, Args)]
#[command(
    after_help = "Example: saddle solve examples/problems/budget.toml --method augmented-lagrangian\n\n\
                        docs/solvers.md says which method is for which problem. Exit code 1: not solved; what was found is \
                        printed all the same."
)]
pub(crate) struct Arguments {
    #[command(flatten)]
    problem: problem::Arguments,
}

impl Arguments {
    pub(crate) fn run(self, output: Output) -> Result<Verdict> {
        self.problem.run(output)
    }
}
