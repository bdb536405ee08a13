//! `saddle solve`: a problem from a file, or from data by a front end.

mod hyper_cleaning;
mod problem;
mod ridge;
mod svm_hyperparameters;
mod tuning;

use anyhow::Result;
use clap::{Args, Subcommand};

use crate::exit::{Usage, Verdict};
use crate::output::Output;

/// Solve a constrained problem, given as a file or made from data
#[derive(Debug, Args)]
#[command(
    subcommand_negates_reqs = true,
    override_usage = "saddle solve [OPTIONS] <FILE>\n       saddle solve <COMMAND> [OPTIONS]",
    after_help = "Example: saddle solve examples/problems/budget.toml --method augmented-lagrangian\n         \
                  saddle solve svm-hyperparameters --data diabetes.txt\n\n\
                  docs/solvers.md says which method is for which problem. Exit code 1: not solved; what was found is \
                  printed all the same."
)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    front_end: Option<FrontEnd>,
    #[command(flatten)]
    problem: problem::Arguments,
}

/// What makes a problem from data.
#[derive(Debug, Subcommand)]
enum FrontEnd {
    SvmHyperparameters(svm_hyperparameters::Arguments),
    Ridge(ridge::Arguments),
    HyperCleaning(hyper_cleaning::Arguments),
}

impl Arguments {
    pub(crate) fn run(self, output: Output) -> Result<Verdict> {
        let Some(front_end) = self.front_end else { return self.problem.run(output) };
        if self.problem.any() {
            let problem = "options before the command are those of saddle solve FILE; put options of the command after its name";
            return Err(Usage(problem.to_owned()).into());
        }
        match front_end {
            FrontEnd::SvmHyperparameters(arguments) => arguments.run(output),
            FrontEnd::Ridge(arguments) => arguments.run(output),
            FrontEnd::HyperCleaning(arguments) => arguments.run(output),
        }
    }
}
