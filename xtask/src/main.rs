//! Chores of the workspace: `cargo xtask check | gen | ci`.
//!
//! - `check`: the rules that the compiler does not know (order of the crates, sizes, headings, fresh documents)
//! - `gen`: rewrites the generated parts of the documents
//! - `ci`: everything that must hold before a change is merged, cheapest first

mod ci;
mod crates;
mod generated;
mod readme;
mod sources;
mod workspace;

use std::process::ExitCode;

use anyhow::{Result, bail};

use workspace::Workspace;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match run(&arguments.iter().map(String::as_str).collect::<Vec<_>>()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &[&str]) -> Result<()> {
    let workspace = Workspace::read()?;
    match arguments {
        ["check"] => check(&workspace),
        ["gen"] => generated::write(&workspace),
        ["ci"] => ci::run(&workspace),
        _ => bail!("usage: cargo xtask check | gen | ci"),
    }
}

fn check(workspace: &Workspace) -> Result<()> {
    let mut problems = crates::problems(workspace);
    problems.extend(sources::problems(workspace)?);
    problems.extend(generated::problems(workspace)?);
    problems.extend(readme::problems(workspace)?);
    for problem in &problems {
        eprintln!("{problem}");
    }
    match problems.len() {
        0 => Ok(()),
        1 => bail!("1 rule is broken"),
        n => bail!("{n} rules are broken"),
    }
}
