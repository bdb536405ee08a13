//! What preparation did to the records.

use std::collections::BTreeMap;

use serde::Serialize;

use super::{Notes, Record};
use crate::Result;

/// Why a record was left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum DropReason {
    /// Nothing to learn: the text, the completion or every assistant turn is empty.
    EmptyCompletion,
    /// The conversation has no assistant turn.
    NoAssistantTurn,
    /// No token stands before the completion, so its first token cannot be predicted.
    EmptyPrompt,
    /// Longer than `max_length` under `truncation_mode = "drop"`, or so long that no cut leaves both sides of a pair.
    OverLong,
    /// After truncation no trained token was left.
    NothingTrained,
}

impl DropReason {
    /// For messages: `empty completion`.
    pub fn text(self) -> &'static str {
        match self {
            DropReason::EmptyCompletion => "empty completion",
            DropReason::NoAssistantTurn => "no assistant turn",
            DropReason::EmptyPrompt => "empty prompt",
            DropReason::OverLong => "longer than data.max_length",
            DropReason::NothingTrained => "no trained token left after truncation",
        }
    }
}

/// A record that was left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Dropped {
    /// Why.
    pub reason: DropReason,
    /// Its index among the records.
    pub record: usize,
    /// Its line in the file.
    pub line: usize,
}

/// Counts of one preparation.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct PrepareReport {
    /// Records given; a pair that is read as two completions counts twice.
    pub read: usize,
    /// Records kept.
    pub used: usize,
    /// Records left out, in order.
    pub dropped: Vec<Dropped>,
    /// Records cut to `max_length`.
    pub truncated: usize,
    /// Tokens cut off them.
    pub truncated_tokens: usize,
    /// Tokens kept.
    pub tokens: usize,
    /// Tokens that are trained; for pairs those of both completions, for prompts none.
    pub trained_tokens: usize,
    /// Longest kept sequence, in tokens.
    pub longest: usize,
    /// Records whose prompt is tokenised or rendered differently before its completion than alone; training
    /// starts where the two differ.
    pub prompt_changed: usize,
    /// End-of-turn tokens trained although the template's generation blocks leave them out.
    pub ends_added: usize,
    /// Pairs whose two completions are the same: kept, but nothing can be learned from them.
    pub identical: usize,
    /// For each kept item the index of its record. Too long for whoever reads the counts, so it is not among them.
    #[serde(skip)]
    pub kept: Vec<usize>,
}

impl PrepareReport {
    pub(super) fn keep(&mut self, index: usize, notes: Notes) {
        self.used += 1;
        self.kept.push(index);
        self.tokens += notes.tokens;
        self.trained_tokens += notes.trained;
        self.longest = self.longest.max(notes.longest);
        self.truncated += usize::from(notes.cut > 0);
        self.truncated_tokens += notes.cut;
        self.prompt_changed += usize::from(notes.prompt_changed);
        self.ends_added += notes.ends_added;
        self.identical += usize::from(notes.identical);
    }

    /// How many were left out for which reason, and the first of each.
    pub fn dropped_by_reason(&self) -> BTreeMap<DropReason, (usize, Dropped)> {
        let mut counts = BTreeMap::new();
        for dropped in &self.dropped {
            counts.entry(dropped.reason).or_insert((0, *dropped)).0 += 1;
        }
        counts
    }

    /// Refuses a set of which nothing is left.
    pub(super) fn check(&self, records: &[Record]) -> Result<()> {
        let Some(first) = records.first().filter(|_| self.used == 0) else { return Ok(()) };
        let reasons: Vec<String> = self
            .dropped_by_reason()
            .into_iter()
            .map(|(reason, (count, first))| format!("{count} {} (first: line {})", reason.text(), first.line))
            .collect();
        Err(first.source.error(format!(
            "none of the {} records can be used: {}; correct the data or raise `data.max_length`",
            self.read,
            reasons.join(", ")
        )))
    }
}
