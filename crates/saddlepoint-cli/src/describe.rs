//! What a run would do, in words: data, steps and memory.

use std::fmt::Write as _;

use anyhow::Result;
use saddlepoint_lm::engine::MemoryPlan;
use saddlepoint_lm::trainer::{Job, Part};

use crate::output::{bytes, place, table};

/// Model, data and memory of a job.
pub(crate) fn job(job: &Job) -> Result<String> {
    let model = job.model();
    let shape = &model.shape;
    let mut text = format!(
        "model   {}: {:.1} M parameters, {} layers, width {}, vocabulary {}\n",
        place(model.path()),
        shape.parameters() as f64 / 1e6,
        shape.layers,
        shape.hidden,
        shape.vocab,
    );
    let (train, eval) = (job.train(), job.eval());
    part(&mut text, "data", train, job.is_rewarded());
    match eval {
        // A share of one file: what was read and left out is that of the whole file, said above.
        Some(eval) if eval.read == train.read => {}
        Some(eval) => part(&mut text, "eval", eval, job.is_rewarded()),
        None => {}
    }
    let _ = writeln!(
        text,
        "steps   {} on {} examples; {} are held out\n",
        job.steps(),
        train.len(),
        eval.map_or(0, Part::len)
    );
    let rows = memory(&job.memory()?).into_iter().map(|(part, size)| [part, bytes(size)]);
    let _ = write!(text, "{}", table(["memory", ">"], rows));
    Ok(text)
}

/// Parts of the memory plan in bytes; the last is the total.
pub(crate) fn memory(plan: &MemoryPlan) -> Vec<(String, u64)> {
    plan.parts.iter().cloned().chain([("total".to_owned(), plan.bytes())]).collect()
}

/// What was read and what became of it; nothing that was left out or cut stays unsaid.
fn part(text: &mut String, name: &str, part: &Part, rewarded: bool) {
    let (read, prepared) = (&part.read, &part.prepared);
    let _ = writeln!(
        text,
        "{name:<7} {}: {} used of {} records ({}), {} tokens of which {} trained, longest {}",
        place(&read.path),
        prepared.used,
        read.records,
        read.body,
        prepared.tokens,
        prepared.trained_tokens,
        prepared.longest,
    );
    for (reason, (count, first)) in prepared.dropped_by_reason() {
        let _ = writeln!(text, "        left out: {count} x {} (first: line {})", reason.text(), first.line);
    }
    for (count, what) in [
        (prepared.truncated, "cut to data.max_length"),
        (prepared.prompt_changed, "tokenised differently after their prompt than alone"),
        (prepared.identical, "with the same chosen and rejected completion"),
        (read.blank_lines, "blank lines skipped"),
    ] {
        if count > 0 {
            let _ = writeln!(text, "        {count} {what}");
        }
    }
    if !read.extra_columns.is_empty() {
        let use_of = if rewarded { "columns for rewards" } else { "columns not used" };
        let _ = writeln!(text, "        {use_of}: {}", read.extra_columns.join(", "));
    }
}
