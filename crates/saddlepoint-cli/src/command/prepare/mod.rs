//! `saddle prepare`: training data that a model makes itself.

mod longpo;

use anyhow::Result;
use clap::{Args, Subcommand};

use crate::exit::Verdict;
use crate::output::Output;

/// Make training data with a model
#[derive(Debug, Args)]
#[command(
    after_help = "Example: saddle prepare longpo --model models/smollm2 --data documents --out pairs.jsonl\n\n\
                  `saddle prepare longpo --help` has the options."
)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    Longpo(longpo::Arguments),
}

impl Arguments {
    pub(crate) fn run(self, output: Output) -> Result<Verdict> {
        match self.what {
            What::Longpo(arguments) => arguments.run(output),
        }
    }
}
