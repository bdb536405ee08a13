//! Metrics as sums, so that parts of a batch add up to the batch.

use serde::{Deserialize, Serialize};

use super::Norm;

/// What a sum is divided by to become the metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Per {
    /// Number of predicted tokens.
    Token,
    /// Number of sequences.
    Sequence,
    /// Number of pairs.
    Pair,
    /// A count that the sum carries with it.
    Count(usize),
}

/// Named sums with their divisors.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Sums(Vec<(&'static str, f64, Per)>);

impl Sums {
    /// Adds `value` to the sum `name`.
    pub fn add(&mut self, name: &'static str, value: f64, per: Per) {
        if let Some((_, sum, divisor)) = self.0.iter_mut().find(|(known, ..)| *known == name) {
            *sum += value;
            if let (Per::Count(total), Per::Count(more)) = (divisor, per) {
                *total += more;
            }
        } else {
            self.0.push((name, value, per));
        }
    }

    /// Adds the sums of another part of the batch.
    pub fn merge(&mut self, other: &Sums) {
        for &(name, value, per) in &other.0 {
            self.add(name, value, per);
        }
    }

    /// The metrics, in the order in which they were first added. A mean over nothing is NaN.
    pub fn means(&self, norm: Norm) -> Vec<(&'static str, f64)> {
        let divide = |&(name, sum, per): &(&'static str, f64, Per)| {
            let count = match per {
                Per::Token => norm.tokens,
                Per::Sequence => norm.sequences,
                Per::Pair => norm.pairs,
                Per::Count(count) => count,
            };
            (name, sum / count as f64)
        };
        self.0.iter().map(divide).collect()
    }
}
