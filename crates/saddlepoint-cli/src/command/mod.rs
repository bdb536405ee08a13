//! The commands, one file each: parse, build, run, print.

mod config;
mod convert;
mod methods;
mod report;
mod train;

use anyhow::Result;
use clap::Subcommand;

use crate::exit::Verdict;
use crate::output::Output;

/// What `saddle` can do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Train(train::Arguments),
    Config(config::Arguments),
    Convert(convert::Arguments),
    Methods(methods::Arguments),
    Report(report::Arguments),
}

impl Command {
    /// Carries out the command.
    pub(crate) fn run(self, output: Output) -> Result<Verdict> {
        match self {
            Command::Train(arguments) => arguments.run(output),
            Command::Config(arguments) => arguments.run(output),
            Command::Convert(arguments) => arguments.run(output),
            Command::Methods(arguments) => arguments.run(output),
            Command::Report(arguments) => arguments.run(output),
        }
    }
}
