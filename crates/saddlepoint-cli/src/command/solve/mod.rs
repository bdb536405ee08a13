//! `saddle solve`.

mod dag;
mod problem;

use anyhow::Result;
use clap::{Args, Subcommand};

use crate::exit::Verdict;
use crate::output::Output;

/// Solve a constrained problem
#[derive(Debug, Args)]
#[command(
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true,
    disable_help_subcommand = true,
    subcommand_value_name = "APPLICATION",
    subcommand_help_heading = "Applications",
    after_help = "Example: saddle solve examples/problems/budget.toml --method augmented-lagrangian\n\n\
                        docs/solvers.md says which method is for which problem. Exit code 1: not solved; what was found is \
                        printed all the same."
)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    application: Option<Application>,
    #[command(flatten)]
    problem: problem::Arguments,
}

/// Problems that are not written as such.
#[derive(Debug, Subcommand)]
enum Application {
    Dag(dag::Arguments),
}

impl Arguments {
    pub(crate) fn run(self, output: Output) -> Result<Verdict> {
        match self.application {
            Some(Application::Dag(arguments)) => arguments.run(output),
            None => self.problem.run(output),
        }
    }
}
