//! `saddle report`.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use serde_json::json;

use crate::exit::Verdict;
use crate::output::{Output, place};
use crate::report;

/// Write report.html for a run again, also for one that is running or was interrupted
#[derive(Debug, Args)]
#[command(after_help = "Example: saddle report runs/quickstart")]
pub(crate) struct Arguments {
    /// Run directory
    run: PathBuf,
}

impl Arguments {
    pub(crate) fn run(self, output: Output) -> Result<Verdict> {
        let (path, _) = report::write(&self.run)?;
        output.object(&json!({ "report": path }))?;
        if !output.json() {
            output.say(format!("report  {}", place(&path)))?;
        }
        Ok(Verdict::Done)
    }
}
