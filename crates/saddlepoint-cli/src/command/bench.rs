//! `saddle bench`.

use anyhow::Result;
use clap::{Args, ValueEnum};
use saddlepoint_lm::bench::{self, Options, Report};

use crate::exit::Verdict;
use crate::loaded::Weights;
use crate::output::{Output, number, table};

/// Time the engine on this machine, as a share of what the machine can do
#[derive(Debug, Args)]
#[command(after_help = "Example: saddle bench step --json")]
pub(crate) struct Arguments {
    /// What is timed, on random weights of the shape of SmolLM2-135M
    #[arg(value_enum, value_name = "NAME")]
    name: Name,
    /// Repetitions, after one that is not counted
    #[arg(long, value_name = "N", default_value_t = 5)]
    runs: usize,
    /// Precision of the weights with which `generate` and `grpo` sample
    #[arg(long, value_enum, value_name = "TYPE", default_value = "f32")]
    weights: Weights,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Name {
    /// A full fine-tuning step on two sequences of 256 tokens
    Step,
    /// A DPO step with LoRA, prompts of 256 tokens and completions of 64
    Dpo,
    /// A GRPO step with LoRA: eight completions of 128 tokens, sampled and trained
    Grpo,
    /// Decoding eight completions from prompts of 64 tokens
    Generate,
    /// The head alone: log-probabilities and their gradient for 4,096 tokens
    Head,
    /// The matrix product alone: what the machine can do
    Gemm,
}

impl Arguments {
    pub(crate) fn run(self, output: Output) -> Result<Verdict> {
        let options = Options { runs: self.runs, weights: self.weights.into() };
        let report = match self.name {
            Name::Step => bench::step(&options),
            Name::Dpo => bench::dpo(&options),
            Name::Grpo => bench::grpo(&options),
            Name::Generate => bench::generate(&options),
            Name::Head => bench::head(&options),
            Name::Gemm => bench::gemm(&options),
        }?;
        output.object(&report)?;
        if !output.json() {
            output.say(table(["bench", &report.name], rows(&report)))?;
        }
        Ok(Verdict::Done)
    }
}

fn rows(report: &Report) -> Vec<[String; 2]> {
    let share = |value: Option<f64>| value.map(|value| format!("{:.0} %", 100.0 * value));
    [
        ("median", Some(format!("{} s of {} runs", number(report.median_s), report.runs))),
        ("fastest", Some(format!("{} s", number(report.min_s)))),
        ("tokens a second", report.tokens_per_s.map(number)),
        ("most memory", report.peak_rss_mb.map(|mb| format!("{mb:.0} MB"))),
        ("of the machine's matrix-product peak", share(report.gemm_fraction)),
        ("of the machine's memory bandwidth", share(report.bandwidth_fraction)),
        ("added by exact KL and entropy", share(report.exact_extra)),
        ("of the time in sampling", share(report.sampling_fraction)),
    ]
    .into_iter()
    .filter_map(|(name, value)| Some([name.to_owned(), value?]))
    .collect()
}
