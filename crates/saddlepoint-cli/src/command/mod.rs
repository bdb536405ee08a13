//! The commands, one file each: parse, build, run, print.

mod bench;
mod config;
mod convert;
mod doctor;
mod eval;
mod frontier;
mod generate;
mod methods;
mod prepare;
mod report;
mod reproduce;
mod reward;
mod score;
mod solve;
mod train;

use anyhow::Result;
use clap::Subcommand;

use crate::exit::Verdict;
use crate::output::Output;

/// What `saddle` can do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Train(train::Arguments),
    Generate(generate::Arguments),
    Score(score::Arguments),
    Eval(eval::Arguments),
    Reward(reward::Arguments),
    Doctor(doctor::Arguments),
    Convert(convert::Arguments),
    Prepare(prepare::Arguments),
    Methods(methods::Arguments),
    Config(config::Arguments),
    Report(report::Arguments),
    Frontier(frontier::Arguments),
    Solve(solve::Arguments),
    Reproduce(reproduce::Arguments),
    Bench(bench::Arguments),
}

impl Command {
    /// Carries out the command.
    pub(crate) fn run(self, output: Output) -> Result<Verdict> {
        match self {
            Command::Train(arguments) => arguments.run(output),
            Command::Generate(arguments) => arguments.run(output),
            Command::Score(arguments) => arguments.run(output),
            Command::Eval(arguments) => arguments.run(output),
            Command::Reward(arguments) => arguments.run(output),
            Command::Doctor(arguments) => arguments.run(output),
            Command::Convert(arguments) => arguments.run(output),
            Command::Prepare(arguments) => arguments.run(output),
            Command::Methods(arguments) => arguments.run(output),
            Command::Config(arguments) => arguments.run(output),
            Command::Report(arguments) => arguments.run(output),
            Command::Frontier(arguments) => arguments.run(output),
            Command::Solve(arguments) => arguments.run(output),
            Command::Reproduce(arguments) => arguments.run(output),
            Command::Bench(arguments) => arguments.run(output),
        }
    }
}
