//! The `saddle` command: parse, build, run, print. No algorithm lives here.

mod arguments;
mod command;
mod describe;
mod documented;
mod exit;
mod loaded;
mod output;
mod report;
mod scoring;
mod stop;
mod watch;

use std::process::ExitCode;

use clap::Parser as _;

use crate::arguments::Arguments;
use crate::output::Output;

fn main() -> ExitCode {
    exit::guard(|| {
        let arguments = match Arguments::try_parse() {
            Ok(arguments) => arguments,
            Err(message) => return exit::of_parser(&message),
        };
        let output = Output::new(arguments.json);
        exit::of(arguments.run(output))
    })
}
