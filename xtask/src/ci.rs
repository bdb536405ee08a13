//! Everything that must hold before a change is merged, cheapest first.

use std::process::Command;

use anyhow::{Context, Result, ensure};
use saddlepoint_core::clock::Stopwatch;

use crate::readme;
use crate::workspace::Workspace;

pub(crate) fn run(workspace: &Workspace) -> Result<()> {
    step(workspace, "cargo fmt --all --check", &[])?;
    eprintln!("\n== cargo xtask check");
    crate::check(workspace)?;
    step(workspace, "cargo clippy --workspace --all-targets --locked -- -D warnings", &[])?;
    step(workspace, "cargo doc --workspace --no-deps --locked", &[("RUSTDOCFLAGS", "-D warnings")])?;
    step(workspace, &readme::tests(workspace)?, &[])
}

/// Runs a command line as the README's reader would.
fn step(workspace: &Workspace, line: &str, environment: &[(&str, &str)]) -> Result<()> {
    eprintln!("\n== {line}");
    let watch = Stopwatch::start();
    let mut shell = Command::new("sh");
    shell.arg("-c").arg(line).current_dir(&workspace.root).envs(environment.iter().copied());
    let status = shell.status().context("cannot run sh")?;
    ensure!(status.success(), "`{line}` failed");
    eprintln!("   {:.0} s", watch.seconds());
    Ok(())
}
