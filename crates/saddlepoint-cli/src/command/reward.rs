//! `saddle reward`.

use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Result;
use clap::Args;
use saddlepoint_lm::data::{Body, Record, Text, read_records};
use saddlepoint_lm::recipe::Recipe;
use saddlepoint_lm::reward::{Case, Part, Scores, best_of_n};
use serde_json::{Map, Value, json};

use crate::exit::{Usage, Verdict};
use crate::output::{Output, note, number, table};

/// Show what the rewards of a recipe say of completions
///
/// The data are records of prompt and completion, with the columns that the rewards read. Those of one prompt that follow
/// each other are a group. Lengths are in bytes here, since no tokenizer is read.
///
/// With --best-of, what the completion with the highest reward of n would be worth, by each of the rewards: the mean over all
/// choices of n completions of a group, and over groups. A reward of weight 0 has no part in the choice: give the reward that
/// counts in the end that weight, and see whether it follows.
#[derive(Debug, Args)]
#[command(after_help = "Example: saddle reward recipe.toml --data completions.jsonl")]
pub(crate) struct Arguments {
    /// Recipe (TOML) with a reward table; the rest of it is not read
    recipe: PathBuf,
    /// JSONL or JSON of prompts and completions
    #[arg(long, value_name = "FILE")]
    data: PathBuf,
    /// Show the best of 1, 2, 4, ... completions of each prompt, up to the smallest group
    #[arg(long)]
    best_of: bool,
    /// Change a key of the recipe; may be given several times
    #[arg(long = "set", value_name = "KEY=VALUE")]
    sets: Vec<String>,
}

impl Arguments {
    pub(crate) fn run(self, output: Output) -> Result<Verdict> {
        let rewards = Recipe::rewards(&self.recipe, &self.sets)?;
        let (records, _) = read_records(&self.data)?;
        let cases: Vec<Case> = records.into_iter().map(case).collect::<Result<_>>()?;
        rewards.check_columns(cases.iter().map(|case| &*case.columns))?;
        let mut groups: Vec<Range<usize>> = Vec::new();
        for (i, case) in cases.iter().enumerate() {
            match groups.last_mut() {
                Some(group) if case.prompt == cases[group.start].prompt => group.end = i + 1,
                _ => groups.push(i..i + 1),
            }
        }
        let completions: Vec<String> = cases.iter().map(|case| case.completion.clone()).collect();
        let scores = rewards.score(cases, &groups)?;
        let names = rewards.names();
        if self.best_of {
            return best_of(&names, &scores, &groups, output);
        }
        let mut rows = Vec::new();
        for (i, completion) in completions.iter().enumerate() {
            let parts = || names.iter().zip(&scores.parts).map(|(name, parts)| (*name, parts[i]));
            let object: Map<String, Value> =
                parts().map(|(name, part)| (name.to_owned(), json!(part.value()))).collect();
            let failed: Vec<&str> =
                parts().filter(|(_, part)| *part == Part::Failed).map(|(name, _)| name).collect();
            output.object(
                &json!({ "index": i, "reward": scores.sums[i], "rewards": object, "failed": failed }),
            )?;
            let shown = parts().map(|(name, part)| match part {
                Part::Value(value) => format!("{name} {}", number(value)),
                Part::Absent => format!("{name} none"),
                Part::Failed => format!("{name} failed"),
            });
            let sum = scores.sums[i].map_or_else(|| "none".to_owned(), number);
            rows.push([i.to_string(), excerpt(completion), shown.collect::<Vec<_>>().join("\n"), sum]);
        }
        if !output.json() {
            let metrics = rewards.metrics(&scores, &groups);
            output.say(table([">index", "completion", "rewards", ">reward"], rows))?;
            output
                .say(table(["", ">"], metrics.iter().map(|(name, value)| [name.clone(), number(*value)])))?;
        }
        Ok(Verdict::Done)
    }
}

/// What the best of n completions is worth.
fn best_of(names: &[&str], scores: &Scores, groups: &[Range<usize>], output: Output) -> Result<Verdict> {
    // A group in which something has no value cannot be sorted or averaged.
    let whole = |group: &&Range<usize>| {
        let judged = |parts: &Vec<Part>| parts[(*group).clone()].iter().all(|part| part.value().is_some());
        scores.sums[(*group).clone()].iter().all(Option::is_some) && scores.parts.iter().all(judged)
    };
    let kept: Vec<&Range<usize>> = groups.iter().filter(whole).collect();
    let Some(smallest) = kept.iter().map(|group| group.len()).min() else {
        let problem =
            "no prompt has completions that all rewards judge: there is nothing to choose from".to_owned();
        return Err(Usage(problem).into());
    };
    if kept.len() < groups.len() {
        let left = groups.len() - kept.len();
        note(format!("left out: {left} of {} prompts, of which a completion has no value", groups.len()))?;
    }
    let sums: Vec<f64> = scores.sums.iter().map(|sum| sum.unwrap_or(f64::NAN)).collect();
    let part = |parts: &Vec<Part>| -> Vec<f64> {
        parts.iter().map(|part| part.value().unwrap_or(f64::NAN)).collect()
    };
    let parts: Vec<Vec<f64>> = scores.parts.iter().map(part).collect();
    let mean = |values: &[f64], n: usize| {
        let of = |group: &&Range<usize>| {
            best_of_n::expected(&sums[(*group).clone()], &values[(*group).clone()], n)
        };
        kept.iter().filter_map(of).sum::<f64>() / kept.len() as f64
    };
    let mut rows = Vec::new();
    for n in best_of_n::sizes(smallest) {
        let each: Vec<f64> = parts.iter().map(|values| mean(values, n)).collect();
        let named: Map<String, Value> =
            names.iter().zip(&each).map(|(name, value)| ((*name).to_owned(), json!(value))).collect();
        let (reward, divergence) = (mean(&sums, n), best_of_n::divergence(n));
        output
            .object(&json!({ "n": n, "divergence_bound": divergence, "reward": reward, "rewards": named }))?;
        let shown: Vec<String> =
            names.iter().zip(&each).map(|(name, value)| format!("{name} {}", number(*value))).collect();
        rows.push([n.to_string(), number(divergence), shown.join("\n"), number(reward)]);
    }
    if !output.json() {
        output.say(table([">best of", ">KL, nats, at most", "rewards", ">reward"], rows))?;
        output.say(format!("{} prompts", kept.len()))?;
    }
    Ok(Verdict::Done)
}

/// The completion of a record.
fn case(record: Record) -> Result<Case> {
    let Body::Completion { prompt, completion } = &record.body else {
        let problem = record.source.error("a prompt and a completion are needed").to_string();
        return Err(Usage(problem).into());
    };
    let (prompt, completion) = (said(prompt), said(completion));
    let completion_ids = completion.bytes().map(u32::from).collect();
    Ok(Case { prompt, completion, completion_ids, finished: true, columns: Arc::new(record.extra) })
}

fn said(text: &Text) -> String {
    match text {
        Text::Plain(text) => text.clone(),
        Text::Chat(messages) => {
            let contents = messages.iter().filter_map(|message| message.get("content")?.as_str());
            contents.collect::<Vec<_>>().join("\n")
        }
    }
}

/// The end of a completion, where answers are.
fn excerpt(completion: &str) -> String {
    let line = completion.split_whitespace().collect::<Vec<_>>().join(" ");
    let start = line.char_indices().rev().nth(39).map_or(0, |(at, _)| at);
    if start > 0 { format!("…{}", &line[start..]) } else { line }
}
