//! What can be typed.

use std::num::NonZeroUsize;

use anyhow::{Context as _, Result};
use clap::Parser;

use crate::command::Command;
use crate::exit::Verdict;
use crate::output::Output;

/// Post-train language models under a divergence budget.
#[derive(Debug, Parser)]
#[command(
    name = "saddle",
    version,
    max_term_width = 100,
    disable_help_subcommand = true,
    after_help = "Exit codes: 0 done, 1 ran but did not reach what was asked, 2 usage, configuration or data, \
                  3 internal.\n\nExample: saddle train examples/quickstart.toml"
)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    command: Command,
    /// Print JSON, one object a line, on standard output and everything else on standard error
    #[arg(long, global = true, display_order = 100)]
    pub(crate) json: bool,
    /// Number of threads [default: one per core]; results do not depend on it
    #[arg(long, global = true, display_order = 101, value_name = "N")]
    threads: Option<NonZeroUsize>,
}

impl Arguments {
    /// Carries out the command.
    pub(crate) fn run(self, output: Output) -> Result<Verdict> {
        // This thread is one of the pool: the many short parallel sections of a decoding step then start
        // without handing work to another thread first.
        rayon::ThreadPoolBuilder::new()
            .num_threads(self.threads.map_or(0, NonZeroUsize::get))
            .use_current_thread()
            .build_global()
            .context("starting the threads")?;
        self.command.run(output)
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_definitions_are_consistent_and_every_command_shows_an_example() {
        let mut all = Arguments::command();
        all.build();
        all.clone().debug_assert();
        for command in all.get_subcommands() {
            let after = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            let example = format!("Example: saddle {}", command.get_name());
            assert!(after.contains(&example), "{} shows no example", command.get_name());
        }
    }
}
