//! Shows a run while it runs.

use std::io::{self, IsTerminal as _};
use std::path::{Path, PathBuf};

use anyhow::Result;
use saddlepoint_core::metrics::Metrics;
use saddlepoint_core::progress::Progress;
use saddlepoint_core::{atomic, memory};
use saddlepoint_lm::tether::Measurement;
use saddlepoint_lm::trainer::{Event, Job};
use serde_json::{Map, json};

use crate::describe;
use crate::output::{Output, note, number, place};
use crate::{output, report};

/// Metrics that a line of progress shows, if they are there.
const SHOWN: [&str; 9] = [
    "loss",
    "eval_loss",
    "reward",
    "eval_reward",
    "completions/mean_length",
    "rewards/accuracies",
    "eval_rewards/accuracies",
    "tether/divergence",
    "tether/beta",
];

/// Listens to the trainer: a bar on a terminal, else a line for each line of metrics.
#[derive(Debug)]
pub(crate) struct Watch {
    output: Output,
    bar: Option<Progress>,
    /// Steps done.
    step: u64,
    /// The bar's latest measurement of the divergence.
    divergence: String,
    /// The run that goes on, with the memory planned for it.
    run: Option<(PathBuf, Map<String, serde_json::Value>)>,
    /// Trouble with showing, which is no reason to stop a run.
    trouble: Option<anyhow::Error>,
}

impl Watch {
    pub(crate) fn new(output: Output) -> Self {
        Watch { output, bar: None, step: 0, divergence: String::new(), run: None, trouble: None }
    }

    /// Whether a run goes on.
    pub(crate) fn going_on(&self) -> bool {
        self.run.is_some()
    }

    /// Takes an event of the trainer.
    pub(crate) fn see(&mut self, event: &Event<'_>) {
        if let Err(trouble) = self.show(event) {
            self.trouble.get_or_insert(trouble);
        }
    }

    /// Ends the display.
    pub(crate) fn finish(mut self) -> Result<()> {
        self.close()?;
        self.trouble.map_or(Ok(()), Err)
    }

    fn show(&mut self, event: &Event<'_>) -> Result<()> {
        match event {
            Event::Opened { job, run_dir, resumed } => self.open(job, run_dir, *resumed),
            Event::Reused { run_dir } => {
                note(format!("{} is complete and is used as it is\n", place(run_dir)))
            }
            Event::Precomputing { done, total } => {
                if let Some(bar) = &self.bar {
                    bar.set(self.step, format!("reference: {done} of {total} examples"));
                } else if done == total {
                    note(format!("reference: log-probabilities of {total} examples computed"))?;
                }
                Ok(())
            }
            Event::Sampling { prompts } => {
                if let Some(bar) = &self.bar {
                    bar.set(self.step, format!("sampling for {prompts} prompts"));
                }
                Ok(())
            }
            Event::Step { step, loss, .. } => {
                self.step = *step;
                if let Some(bar) = &self.bar {
                    bar.set(*step, format!("loss {}{}", number(*loss), self.divergence));
                }
                Ok(())
            }
            Event::Logged { step, metrics } => self.logged(*step, metrics),
            Event::Measured { measured, .. } => {
                self.divergence = format!(" · divergence {}", interval(measured));
                Ok(())
            }
            Event::Saved { .. } => Ok(()),
            Event::Ended => self.close(),
        }
    }

    fn open(&mut self, job: &Job, run_dir: &Path, resumed: Option<u64>) -> Result<()> {
        self.close()?;
        self.step = resumed.unwrap_or(0);
        let planned = describe::memory(&job.memory()?).into_iter().map(|(part, size)| (part, json!(size)));
        self.run = Some((run_dir.to_owned(), planned.collect()));
        let from = resumed.map_or(String::new(), |step| format!(", continued after step {step}"));
        self.output.say(format!("run     {}{from}", place(run_dir)))?;
        self.output.say(format!("{}\n", describe::job(job)?))?;
        self.bar = io::stderr().is_terminal().then(|| Progress::new(job.steps(), "train", true));
        Ok(())
    }

    fn logged(&self, step: u64, metrics: &Metrics) -> Result<()> {
        if self.bar.is_some() {
            return Ok(());
        }
        let shown = SHOWN.iter().filter_map(|name| Some(format!("{name} {}", number(metrics.get(name)?))));
        note(format!("step {step}: {}", shown.collect::<Vec<_>>().join(" · ")))
    }

    /// Ends the run that goes on: what it cost is written beside its other files, and its report if it is whole.
    fn close(&mut self) -> Result<()> {
        if let Some(bar) = self.bar.take() {
            bar.finish();
        }
        self.divergence.clear();
        if let Some((run_dir, planned)) = self.run.take() {
            let cost = json!({ "planned": planned, "peak": memory::peak() });
            atomic::write(&run_dir.join(report::COST), format!("{cost}\n").as_bytes())?;
            report::write(&run_dir)?;
        }
        Ok(())
    }
}

fn interval(measured: &Measurement) -> String {
    format!("{} {}", number(measured.mean), output::interval(measured.interval))
}
