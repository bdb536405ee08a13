//! `saddle solve`: a problem from a file, or an application that makes one from data.

mod dag;
mod hyper_cleaning;
mod limits;
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
    disable_help_subcommand = true,
    subcommand_value_name = "APPLICATION",
    subcommand_help_heading = "Applications",
    override_usage = "saddle solve [OPTIONS] <FILE>\n       saddle solve <APPLICATION> [OPTIONS]",
    after_help = "Example: saddle solve examples/problems/budget.toml --method augmented-lagrangian\n         \
                  saddle solve svm-hyperparameters --data diabetes.txt\n\n\
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
    SvmHyperparameters(svm_hyperparameters::Arguments),
    Ridge(ridge::Arguments),
    HyperCleaning(hyper_cleaning::Arguments),
}

impl Arguments {
    pub(crate) fn run(self, output: Output) -> Result<Verdict> {
        // The parser could refuse these itself, and would take `--json` before an application for one of them.
        if self.application.is_some() && self.problem.any() {
            let problem =
                "options before the application are those of saddle solve FILE; put options after its name";
            return Err(Usage(problem.to_owned()).into());
        }
        match self.application {
            Some(Application::Dag(arguments)) => arguments.run(output),
            Some(Application::SvmHyperparameters(arguments)) => arguments.run(output),
            Some(Application::Ridge(arguments)) => arguments.run(output),
            Some(Application::HyperCleaning(arguments)) => arguments.run(output),
            None => self.problem.run(output),
        }
    }
}
