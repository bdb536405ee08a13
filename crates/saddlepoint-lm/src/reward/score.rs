//! The rewards of a recipe, applied to a batch: parts, sums, failures, metrics.

use std::ops::Range;
use std::sync::Arc;

use serde_json::{Map, Value};

use super::aggregate::{self, Aggregation, Spread};
use super::guard::Guarded;
use super::{Case, OnError, Reward};
use crate::{Error, Result};

/// What one reward says of one case.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Part {
    /// Its value, finite.
    Value(f64),
    /// It does not apply.
    Absent,
    /// It failed, and the policy is to count that.
    Failed,
}

impl Part {
    /// The value, if there is one.
    pub fn value(self) -> Option<f64> {
        if let Self::Value(value) = self { Some(value) } else { None }
    }
}

/// A reward that failed and was skipped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// Its name in metrics.
    pub reward: String,
    /// The case; none where the whole batch failed.
    pub case: Option<usize>,
    /// What happened.
    pub problem: String,
}

/// What a batch got.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Scores {
    /// By reward, then by case.
    pub parts: Vec<Vec<Part>>,
    /// The weighted sum of each case; `None` where a part failed or none applies, and then nothing is to be learned.
    pub sums: Vec<Option<f64>>,
    /// What advantages are made of: the sums, or with `normalize_then_sum` the sums of normalised rewards.
    pub signals: Vec<Option<f64>>,
    /// What was skipped.
    pub failures: Vec<Failure>,
}

impl Scores {
    /// Adds those of further cases.
    pub fn append(&mut self, other: Self) {
        if self.parts.is_empty() {
            *self = other;
            return;
        }
        let before = self.sums.len();
        self.parts.iter_mut().zip(other.parts).for_each(|(parts, more)| parts.extend(more));
        self.sums.extend(other.sums);
        self.signals.extend(other.signals);
        let moved = |failure: Failure| Failure { case: failure.case.map(|case| case + before), ..failure };
        self.failures.extend(other.failures.into_iter().map(moved));
    }

    /// Those of some cases; failures are those of all.
    #[must_use]
    pub fn only(&self, cases: &[usize]) -> Self {
        let of = |values: &[Option<f64>]| cases.iter().map(|&case| values[case]).collect();
        Self {
            parts: self.parts.iter().map(|parts| cases.iter().map(|&case| parts[case]).collect()).collect(),
            sums: of(&self.sums),
            signals: of(&self.signals),
            failures: self.failures.clone(),
        }
    }
}

#[derive(Debug)]
struct Weighted {
    name: String,
    weight: f64,
    reward: Guarded,
}

/// Rewards with weights, under a deadline and a policy for failures.
#[derive(Debug)]
pub struct Rewards {
    list: Vec<Weighted>,
    aggregation: Aggregation,
    on_error: OnError,
    deadline: f64,
}

impl Rewards {
    /// Without rewards yet. `deadline` is in seconds a batch, beside the allowance that a reward asks for.
    pub fn new(aggregation: Aggregation, on_error: OnError, deadline: f64) -> Self {
        Self { list: Vec::new(), aggregation, on_error, deadline }
    }

    /// Adds one, with its name in metrics (`rewards/{name}/mean`).
    #[must_use]
    pub fn with(mut self, name: &str, weight: f64, reward: Arc<dyn Reward>) -> Self {
        self.list.push(Weighted { name: name.to_owned(), weight, reward: Guarded::new(reward) });
        self
    }

    /// The names, in the order of [`Scores::parts`].
    pub fn names(&self) -> Vec<&str> {
        self.list.iter().map(|each| each.name.as_str()).collect()
    }

    /// How they are added up.
    pub fn aggregation(&self) -> Aggregation {
        self.aggregation
    }

    /// Bytes that they hold in this process from the first batch on ([`Reward::bytes`]).
    pub fn bytes(&self, cases: usize, longest: usize) -> u64 {
        self.list.iter().map(|each| each.reward.reward.bytes(cases, longest)).sum()
    }

    /// Judges cases; `groups` are the ranges of those that share a prompt. Rewards run at the same time, each in order.
    ///
    /// # Errors
    /// A reward failed, and failures are errors.
    pub fn score(&self, cases: Vec<Case>, groups: &[Range<usize>]) -> Result<Scores> {
        let cases: Arc<[Case]> = cases.into();
        let calls: Vec<_> = self.list.iter().map(|each| each.reward.start(&cases, self.deadline)).collect();
        let mut failures = Vec::new();
        let mut parts = Vec::with_capacity(self.list.len());
        for (each, call) in self.list.iter().zip(calls) {
            let mut fail = |case, problem| {
                failures.push(Failure { reward: each.name.clone(), case, problem });
                Part::Failed
            };
            parts.push(match call.wait() {
                Err(problem) => vec![fail(None, problem); cases.len()],
                Ok(values) => values
                    .into_iter()
                    .enumerate()
                    .map(|(case, value)| match value {
                        Ok(value) => value.map_or(Part::Absent, Part::Value),
                        Err(problem) => fail(Some(case), problem),
                    })
                    .collect(),
            });
        }
        if let (OnError::Error, Some(failure)) = (self.on_error, failures.first()) {
            return Err(failure.error(&cases));
        }
        let weights: Vec<f64> = self.list.iter().map(|each| each.weight).collect();
        let sums = aggregate::sums(&parts, &weights);
        let signals = match self.aggregation {
            Aggregation::SumThenNormalize => sums.clone(),
            Aggregation::NormalizeThenSum => aggregate::normalized_sums(&parts, &weights, groups),
        };
        Ok(Scores { parts, sums, signals, failures })
    }

    /// Refuses data that a reward can do nothing with: no record has one of its columns.
    ///
    /// # Errors
    /// As said.
    pub fn check_columns<'a, I>(&self, records: I) -> Result<()>
    where
        I: IntoIterator<Item = &'a Map<String, Value>>,
        I::IntoIter: Clone,
    {
        let records = records.into_iter();
        for each in &self.list {
            for column in each.reward.reward.columns() {
                if !records.clone().any(|columns| columns.get(column).is_some_and(|value| !value.is_null())) {
                    let known = records
                        .clone()
                        .next()
                        .map(|columns| columns.keys().map(String::as_str).collect::<Vec<_>>().join(", "));
                    let problem = format!(
                        "reads the column `{column}`, which no record has (columns beside the prompt: {}); correct the name, \
                         or rename with `data.columns`",
                        known.filter(|known| !known.is_empty()).unwrap_or_else(|| "none".to_owned())
                    );
                    return Err(Error::Reward { name: each.name.clone(), problem });
                }
            }
        }
        Ok(())
    }

    /// Metrics under TRL's names: `rewards/{name}/mean`, `rewards/{name}/std`, `reward`, `reward_std`,
    /// `frac_reward_zero_std` (share of cases in groups whose signals do not differ); and our own
    /// `rewards/{name}/failed` and `rewards/unjudged`, counts that are there only where they are not 0.
    pub fn metrics(&self, scores: &Scores, groups: &[Range<usize>]) -> Vec<(String, f64)> {
        let mut metrics = Vec::new();
        let mut spread = |mean: String, std: String, values: Vec<f64>| {
            let spread = Spread::of(values.into_iter());
            metrics.extend(spread.map(|spread| (mean, spread.mean)));
            metrics.extend(spread.and_then(|spread| spread.std).map(|value| (std, value)));
        };
        for (Weighted { name, .. }, parts) in self.list.iter().zip(&scores.parts) {
            let values = parts.iter().filter_map(|part| part.value()).collect();
            spread(format!("rewards/{name}/mean"), format!("rewards/{name}/std"), values);
        }
        let sums = scores.sums.iter().flatten().copied().collect();
        spread("reward".to_owned(), "reward_std".to_owned(), sums);
        let flat = |group: &Range<usize>| {
            let spread = Spread::of(scores.signals[group.clone()].iter().flatten().copied());
            spread.is_none_or(|spread| spread.std.is_none_or(|std| std < ZERO))
        };
        let cases = scores.sums.len();
        let without: usize = groups.iter().filter(|group| flat(group)).map(ExactSizeIterator::len).sum();
        metrics.push(("frac_reward_zero_std".to_owned(), without as f64 / cases.max(1) as f64));
        for (Weighted { name, .. }, parts) in self.list.iter().zip(&scores.parts) {
            let failed = parts.iter().filter(|part| **part == Part::Failed).count();
            metrics.extend((failed > 0).then(|| (format!("rewards/{name}/failed"), failed as f64)));
        }
        let unjudged = scores.sums.iter().filter(|sum| sum.is_none()).count();
        metrics.extend((unjudged > 0).then(|| ("rewards/unjudged".to_owned(), unjudged as f64)));
        metrics
    }
}

/// A standard deviation below it is that of equal values.
const ZERO: f64 = 1e-8;

impl Failure {
    fn error(&self, cases: &[Case]) -> Error {
        let place = match self.case {
            Some(case) => format!(" (completion {} of {}, {})", case + 1, cases.len(), cases[case].excerpt()),
            None => String::new(),
        };
        let problem = format!(
            "{}{place}; correct it, or count such completions and leave them out with reward.on_error = \"skip\"",
            self.problem
        );
        Error::Reward { name: self.reward.clone(), problem }
    }
}
