//! `saddle score`.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use saddlepoint_lm::engine::{Divergence, Want};
use serde::Serialize;

use crate::exit::Verdict;
use crate::loaded::{ModelArguments, Opened};
use crate::output::{Output, number, table};
use crate::scoring;

/// Log-probabilities of every token of the completions in a data file, in nats
///
/// Of a reward model, the reward of every completion.
#[derive(Debug, Args)]
#[command(
    after_help = "Example: saddle score --model runs/pairs/model --data test.jsonl --reference models/smollm2 \
                        --json"
)]
pub(crate) struct Arguments {
    #[command(flatten)]
    model: ModelArguments,
    /// JSONL or JSON of texts, prompts and completions, conversations, or pairs
    #[arg(long, value_name = "FILE")]
    data: PathBuf,
    /// Model from which to measure the divergence at each of these tokens
    #[arg(long, value_name = "MODEL")]
    reference: Option<PathBuf>,
    /// Which divergence, exact over the vocabulary: reverse_kl, forward_kl, jensen_shannon, alpha=A with A in (0, 1),
    /// jeffreys, total_variation, chi_squared or hellinger
    #[arg(long, value_name = "KIND", default_value = "reverse_kl", requires = "reference")]
    divergence: Divergence,
}

#[derive(Serialize)]
struct Line {
    index: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    part: Option<&'static str>,
    token_ids: Vec<u32>,
    logps: Vec<f64>,
    sum_logp: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    divergence: Option<Vec<f64>>,
}

#[derive(Serialize)]
struct RewardLine {
    index: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    part: Option<&'static str>,
    reward: f64,
}

impl Arguments {
    pub(crate) fn run(self, output: Output) -> Result<Verdict> {
        let opened = self.model.open()?;
        let samples = scoring::samples(&opened, &self.data)?;
        if opened.is_reward_model() {
            return rewards(&opened, &samples, output);
        }
        let divergence = self.reference.is_some().then_some(self.divergence);
        let want = Want { divergence, ..Want::default() };
        let mut rows = Vec::new();
        scoring::score(&opened, self.reference.as_deref(), want, &samples, |sample, scored| {
            let pair = scored.len() == 2;
            for (scored, part) in scored.into_iter().zip(["chosen", "rejected"]) {
                let line = Line {
                    index: sample.index,
                    part: pair.then_some(part),
                    token_ids: scored.token_ids,
                    sum_logp: scored.logps.iter().sum(),
                    logps: scored.logps,
                    divergence: divergence.map(|_| scored.divergence),
                };
                output.object(&line)?;
                if !output.json() {
                    rows.push(row(&line));
                }
            }
            Ok(())
        })?;
        if !output.json() {
            output
                .say(table(["record", "", ">tokens", ">log-probability", ">a token", ">divergence"], rows))?;
        }
        Ok(Verdict::Done)
    }
}

/// What a reward model says.
fn rewards(opened: &Opened, samples: &[scoring::Sample], output: Output) -> Result<Verdict> {
    let mut rows = Vec::new();
    for (sample, rewards) in samples.iter().zip(scoring::rewards(opened, samples)?) {
        let pair = rewards.len() == 2;
        for (reward, part) in rewards.into_iter().zip(["chosen", "rejected"]) {
            let part = pair.then_some(part);
            output.object(&RewardLine { index: sample.index, part, reward })?;
            rows.push([sample.index.to_string(), part.unwrap_or_default().to_owned(), number(reward)]);
        }
    }
    if !output.json() {
        output.say(table(["record", "", ">reward"], rows))?;
    }
    Ok(Verdict::Done)
}

fn row(line: &Line) -> [String; 6] {
    let tokens = line.logps.len();
    [
        line.index.to_string(),
        line.part.unwrap_or_default().to_owned(),
        tokens.to_string(),
        number(line.sum_logp),
        number(line.sum_logp / tokens as f64),
        line.divergence.as_ref().map_or(String::new(), |values| number(values.iter().sum())),
    ]
}
