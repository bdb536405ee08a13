//! What looks wrong about model, template and data before a run starts.

mod finding;
mod pieces;
mod probe;

pub use finding::{Finding, Severity};
pub use pieces::{Piece, pieces};

use super::{Codec, Labelled, LongPair, Pair, PrepareReport, Prompt, Supervised};

/// What a method would train on.
#[derive(Debug, Clone, Copy)]
pub enum Samples<'a> {
    /// Sequences with masks.
    Supervised(&'a [Supervised]),
    /// Preference pairs.
    Pairs(&'a [Pair]),
    /// Preference pairs of which a score of the whole is learned, and no token.
    Compared(&'a [Pair]),
    /// Preference pairs about long documents.
    LongPairs(&'a [LongPair]),
    /// Completions with labels.
    Unpaired(&'a [Labelled]),
    /// Prompts whose completions are still to be sampled.
    Prompts(&'a [Prompt]),
}

/// Looks for the mistakes that let a run finish with a model that is worse than before: nothing trained, a stop
/// token never trained, a doubled BOS, text that the tokenizer does not know, template and tokenizer that disagree.
/// `vocab` is the model's number of embeddings. Most severe first.
pub fn inspect(codec: &Codec, vocab: usize, samples: Samples<'_>, report: &PrepareReport) -> Vec<Finding> {
    let mut findings = model(codec, vocab);
    findings.extend(training(codec, samples));
    findings.extend(unknown(codec, samples));
    findings.extend(preparation(report));
    findings.sort_by_key(Finding::severity);
    findings
}

/// Findings about the model's own files.
pub fn model(codec: &Codec, vocab: usize) -> Vec<Finding> {
    let mut findings = Vec::new();
    let name = |id: u32| codec.tokenizer.token(id).unwrap_or_default().to_owned();
    let beyond: Vec<u32> = (vocab..codec.tokenizer.vocab_size())
        .map(|id| id as u32)
        .filter(|&id| codec.tokenizer.token(id).is_some())
        .collect();
    if let Some(&first) = beyond.first() {
        findings.push(Finding::BeyondVocabulary {
            count: beyond.len(),
            first: name(first),
            id: first,
            vocab,
        });
    }
    if codec.eos.is_empty() {
        findings.push(Finding::NoStopToken);
    }
    for &id in &codec.eos {
        if codec.tokenizer.token(id).is_none() {
            findings.push(Finding::UnknownStopToken { id });
        }
    }
    if let Some(pad) = codec.pad.filter(|&pad| codec.stops(pad)) {
        findings.push(Finding::PadIsStop { token: name(pad) });
    }
    findings.extend(probe::template(codec));
    findings
}

/// Findings about the tokens that are trained.
fn training(codec: &Codec, samples: Samples<'_>) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut trained = 0;
    let mut stops = false;
    let mut doubled = 0;
    let mut see = |id: u32| {
        trained += 1;
        stops |= codec.stops(id);
    };
    let twice = |ids: &[u32]| codec.bos.is_some_and(|bos| ids.starts_with(&[bos, bos]));
    match samples {
        Samples::Supervised(items) => {
            for item in items {
                item.ids.iter().zip(&item.supervised).filter(|(_, s)| **s).for_each(|(&id, _)| see(id));
                doubled += usize::from(twice(&item.ids));
            }
        }
        Samples::Pairs(items) => {
            for item in items {
                item.chosen.iter().chain(&item.rejected).for_each(|&id| see(id));
                doubled += usize::from(twice(&item.prompt));
            }
        }
        Samples::LongPairs(items) => {
            for item in items {
                let sides = [&item.chosen, &item.rejected];
                let answers =
                    sides.iter().flat_map(|side| side.answers.iter().map(|at| &side.ids[at.clone()]));
                answers.flatten().for_each(|&id| see(id));
                doubled += item.short.iter().chain([&item.chosen.ids]).filter(|ids| twice(ids)).count();
            }
        }
        Samples::Unpaired(items) => {
            for item in items {
                item.completion.iter().for_each(|&id| see(id));
                doubled += usize::from(twice(&item.prompt));
            }
        }
        Samples::Compared(items) => doubled = items.iter().filter(|item| twice(&item.prompt)).count(),
        Samples::Prompts(items) => doubled = items.iter().filter(|item| twice(&item.ids)).count(),
    }
    if matches!(samples, Samples::Prompts(_) | Samples::Compared(_)) {
        // What is trained is sampled later, or no token.
    } else if trained == 0 {
        findings.push(Finding::NothingTrained);
    } else if !stops && !codec.eos.is_empty() {
        let tokens =
            codec.eos.iter().map(|&id| codec.tokenizer.token(id).unwrap_or_default().to_owned()).collect();
        findings.push(Finding::StopNeverTrained { tokens });
    }
    if doubled > 0 {
        findings.push(Finding::DoubleBos { count: doubled });
    }
    findings
}

/// Text that became the unknown token, trained or not.
fn unknown(codec: &Codec, samples: Samples<'_>) -> Option<Finding> {
    let id = codec.tokenizer.unknown()?;
    let within = |parts: &[&[u32]]| parts.iter().flat_map(|ids| ids.iter()).filter(|&&i| i == id).count();
    let counts: Vec<usize> = match samples {
        Samples::Supervised(items) => items.iter().map(|item| within(&[&item.ids])).collect(),
        Samples::Pairs(items) | Samples::Compared(items) => {
            items.iter().map(|item| within(&[&item.prompt, &item.chosen, &item.rejected])).collect()
        }
        Samples::LongPairs(items) => {
            items.iter().map(|item| within(&[&item.chosen.ids, &item.rejected.ids])).collect()
        }
        Samples::Unpaired(items) => {
            items.iter().map(|item| within(&[&item.prompt, &item.completion])).collect()
        }
        Samples::Prompts(items) => items.iter().map(|item| within(&[&item.ids])).collect(),
    };
    let count = counts.iter().sum();
    let token = codec.tokenizer.token(id).unwrap_or_default().to_owned();
    let samples = counts.iter().filter(|&&n| n > 0).count();
    (count > 0).then_some(Finding::UnknownText { token, count, samples })
}

/// Findings about what preparation had to do.
fn preparation(report: &PrepareReport) -> Vec<Finding> {
    let mut findings: Vec<Finding> = report
        .dropped_by_reason()
        .into_iter()
        .map(|(reason, (count, first))| Finding::Dropped { reason, count, first_line: first.line })
        .collect();
    let counted = [
        (report.truncated, Finding::Truncated { count: report.truncated, tokens: report.truncated_tokens }),
        (report.prompt_changed, Finding::PromptChanged { count: report.prompt_changed }),
        (report.ends_added, Finding::EndsAdded { count: report.ends_added }),
        (report.identical, Finding::Identical { count: report.identical }),
    ];
    findings.extend(counted.into_iter().filter(|(count, _)| *count > 0).map(|(_, finding)| finding));
    findings
}

#[cfg(test)]
mod tests;
