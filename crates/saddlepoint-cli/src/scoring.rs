//! Log-probabilities of the completions in a data file, pass by pass.

use std::path::Path;

use anyhow::Result;
use saddlepoint_core::progress::Progress;
use saddlepoint_lm::data::{Body, PrepareConfig, PrepareReport, Text, TrainOn, prepare, read_records};
use saddlepoint_lm::engine::{Forest, Stats, Want};
use saddlepoint_lm::reward::model::scores;

use crate::exit::Usage;
use crate::loaded::Opened;
use crate::output::note;

/// Tokens of one pass, unless a single sample has more.
const PASS: usize = 2048;

/// A prompt and its completions: one, or of a pair the chosen and the rejected one.
#[derive(Debug)]
pub(crate) struct Sample {
    /// Index of its record in the file.
    pub(crate) index: usize,
    prompt: Vec<u32>,
    completions: Vec<Vec<u32>>,
}

/// What a model says about one completion. Everything but `token_ids` is for the completion's tokens.
#[derive(Debug)]
pub(crate) struct Scored {
    /// Prompt and completion.
    pub(crate) token_ids: Vec<u32>,
    /// Log-probability of each token, in nats.
    pub(crate) logps: Vec<f64>,
    /// Divergence from the reference at each token, in nats; empty if it was not asked for.
    pub(crate) divergence: Vec<f64>,
    /// Whether each token is the most probable one.
    pub(crate) top1: Vec<bool>,
}

/// Reads and prepares a data file for the model; what is left out is said.
pub(crate) fn samples(opened: &Opened, path: &Path) -> Result<Vec<Sample>> {
    let (records, _) = read_records(path)?;
    let plain = |body: &Body| matches!(body, Body::Text(Text::Plain(_)));
    let train_on = if records.iter().any(|r| plain(&r.body)) { TrainOn::All } else { TrainOn::LastTurn };
    let config = PrepareConfig { max_length: None, train_on, ..PrepareConfig::default() };
    let first = records.first().map(|record| &record.body);
    let (samples, report): (Vec<Sample>, PrepareReport) = if let Some(Body::Unpaired { .. }) = first {
        let (items, report) = prepare::unpaired(&opened.codec, &records, &config)?;
        let sample = |(item, index): (_, &usize)| {
            let saddlepoint_lm::data::Labelled { prompt, completion, .. } = item;
            Sample { index: *index, prompt, completions: vec![completion] }
        };
        (items.into_iter().zip(&report.kept).map(sample).collect(), report)
    } else if let Some(Body::Preference { .. }) = first {
        let (items, report) = prepare::preference(&opened.codec, &records, &config)?;
        let sample = |(pair, index): (_, &usize)| {
            let saddlepoint_lm::data::Pair { prompt, chosen, rejected } = pair;
            Sample { index: *index, prompt, completions: vec![chosen, rejected] }
        };
        (items.into_iter().zip(&report.kept).map(sample).collect(), report)
    } else {
        let (items, report) = prepare::sft(&opened.codec, &records, &config)?;
        let sample = |(item, index): (saddlepoint_lm::data::Supervised, &usize)| {
            let first =
                item.supervised.iter().position(|on| *on).expect("a prepared sequence trains something");
            let last = item.supervised.iter().rposition(|on| *on).expect("as above");
            let completion = item.ids[first..=last].to_vec();
            Sample { index: *index, prompt: item.ids[..first].to_vec(), completions: vec![completion] }
        };
        (items.into_iter().zip(&report.kept).map(sample).collect(), report)
    };
    for (reason, (count, first)) in report.dropped_by_reason() {
        note(format!(
            "{}: left out: {count} x {} (first: line {})",
            path.display(),
            reason.text(),
            first.line
        ))?;
    }
    let context = opened.folder.shape.context;
    if let Some(long) = samples.iter().find(|sample| sample.longest() > context) {
        let (index, tokens) = (long.index, long.longest());
        let problem = format!(
            "{}: record {index} has {tokens} tokens, but the model's context is {context}; shorten it or leave it out",
            path.display()
        );
        return Err(Usage(problem).into());
    }
    Ok(samples)
}

impl Sample {
    fn longest(&self) -> usize {
        self.prompt.len() + self.completions.iter().map(Vec::len).max().unwrap_or(0)
    }

    fn stored(&self) -> usize {
        self.prompt.len() + self.completions.iter().map(|c| c.len() - 1).sum::<usize>()
    }

    fn rows(&self) -> usize {
        self.completions.iter().map(Vec::len).sum()
    }
}

/// Scores every sample in order and gives each with its completions to `take`.
pub(crate) fn score(
    opened: &Opened,
    reference: Option<&Path>,
    want: Want,
    samples: &[Sample],
    mut take: impl FnMut(&Sample, Vec<Scored>) -> Result<()>,
) -> Result<()> {
    let passes = passes(samples);
    let largest = |size: fn(&Sample) -> usize| {
        passes.iter().map(|pass| pass.iter().map(size).sum::<usize>()).max().unwrap_or(0)
    };
    let mut policy = opened.policy(reference, (largest(Sample::stored), largest(Sample::rows)))?;
    let bar = Progress::new(samples.len() as u64, "score", true);
    let mut done = 0;
    for pass in passes {
        let mut forest = Forest::default();
        let rows: Vec<Vec<_>> = pass
            .iter()
            .map(|sample| {
                let root = forest.root(&sample.prompt);
                sample.completions.iter().map(|completion| forest.completion(root, completion)).collect()
            })
            .collect();
        let stats = policy.evaluate(&forest, want)?;
        for (sample, rows) in pass.iter().zip(rows) {
            let scored = sample.completions.iter().zip(rows).map(|(completion, rows)| {
                let Stats { logp, divergence, top1, .. } = &stats;
                Scored {
                    token_ids: [&sample.prompt[..], completion].concat(),
                    logps: logp[rows.clone()].to_vec(),
                    divergence: divergence.get(rows.clone()).unwrap_or_default().to_vec(),
                    top1: top1[rows].to_vec(),
                }
            });
            take(sample, scored.collect())?;
        }
        done += pass.len() as u64;
        bar.set(done, "");
    }
    bar.finish();
    Ok(())
}

/// What a reward model says of every completion, sample by sample.
pub(crate) fn rewards(opened: &Opened, samples: &[Sample]) -> Result<Vec<Vec<f64>>> {
    let longest = samples.iter().map(Sample::longest).max().unwrap_or(0);
    let room = longest.max(PASS);
    let mut policy = opened.policy(None, (room, room))?;
    let pad = opened.folder.scoring_pad();
    let whole = |sample: &Sample| -> Vec<Vec<u32>> {
        sample.completions.iter().map(|completion| [&sample.prompt[..], completion].concat()).collect()
    };
    let sequences: Vec<Vec<u32>> = samples.iter().flat_map(whole).collect();
    let sequences: Vec<&[u32]> = sequences.iter().map(Vec::as_slice).collect();
    let mut scores = scores(&mut policy, &sequences, pad, room)?.into_iter();
    Ok(samples.iter().map(|sample| scores.by_ref().take(sample.completions.len()).collect()).collect())
}

/// Neighbouring samples that go through the model together.
fn passes(samples: &[Sample]) -> Vec<&[Sample]> {
    let mut passes = Vec::new();
    let (mut start, mut tokens) = (0, 0);
    for (i, sample) in samples.iter().enumerate() {
        if i > start && tokens + sample.stored() > PASS {
            passes.push(&samples[start..i]);
            (start, tokens) = (i, 0);
        }
        tokens += sample.stored();
    }
    if start < samples.len() {
        passes.push(&samples[start..]);
    }
    passes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passes_cover_the_samples_in_order_and_stay_small() {
        let sample = |index, length| Sample { index, prompt: vec![1; length], completions: vec![vec![2]] };
        let samples: Vec<Sample> =
            [1000, 1000, 500, 3000, 10].into_iter().enumerate().map(|(i, n)| sample(i, n)).collect();
        let indices: Vec<Vec<usize>> =
            passes(&samples).iter().map(|pass| pass.iter().map(|s| s.index).collect()).collect();
        assert_eq!(indices, [vec![0, 1], vec![2], vec![3], vec![4]]);
        assert!(passes(&[]).is_empty());
    }
}
