//! From several rewards to one.
//!
//! ```text
//! sum_then_normalize   r_i = Σ_k w_k r_ik                              normalised within the group by the method
//! normalize_then_sum   r_i = Σ_k w_k (r_ik − mean_k) / (std_k + 1e-4)  mean and std of reward k within the group
//! ```
//! The second is GDPO's (Liu et al. 2026, arXiv:2601.05242): normalised apart, a reward that hardly varies counts as much as
//! one that varies a lot, and two rewards cannot hide one another by adding up to the same sum. What comes out has mean 0
//! in a group; GDPO then divides by the standard deviation over the whole batch, which is the method's.
//!
//! A reward that does not apply to a case is left out of its sum, and out of mean and std of the group. Standard
//! deviations are those of a sample (`n − 1`); with one value in a group it is taken as 0. Names, formulas and the 1e-4
//! are those of TRL 1.8.

use std::ops::Range;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Part;

/// How several rewards become one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Aggregation {
    /// The weighted sum.
    #[default]
    SumThenNormalize,
    /// The weighted sum of rewards that were each normalised within the group first.
    NormalizeThenSum,
}

/// Added to a standard deviation before it divides.
const EPSILON: f64 = 1e-4;

/// The weighted sum of each case, from `parts[reward][case]`. `None` where a part failed or none applies.
pub fn sums(parts: &[Vec<Part>], weights: &[f64]) -> Vec<Option<f64>> {
    let cases = parts.first().map_or(0, Vec::len);
    let value = |reward: usize, case: usize| parts[reward][case];
    (0..cases).map(|case| sum(weights.iter().enumerate().map(|(k, w)| (*w, value(k, case))))).collect()
}

/// The same of rewards that were normalised within each group; the groups are ranges of cases.
pub fn normalized_sums(parts: &[Vec<Part>], weights: &[f64], groups: &[Range<usize>]) -> Vec<Option<f64>> {
    let normalized: Vec<Vec<Part>> = parts.iter().map(|of_cases| normalized(of_cases, groups)).collect();
    sums(&normalized, weights)
}

fn sum(parts: impl Iterator<Item = (f64, Part)>) -> Option<f64> {
    let mut sum = None;
    for (weight, part) in parts {
        match part {
            Part::Value(value) => sum = Some(sum.unwrap_or(0.0) + weight * value),
            Part::Absent => {}
            Part::Failed => return None,
        }
    }
    sum
}

fn normalized(parts: &[Part], groups: &[Range<usize>]) -> Vec<Part> {
    let mut normalized = parts.to_vec();
    for group in groups {
        let spread = Spread::of(parts[group.clone()].iter().filter_map(|part| part.value()));
        for part in &mut normalized[group.clone()] {
            if let (Part::Value(value), Some(Spread { mean, std })) = (&mut *part, spread) {
                *value = (*value - mean) / (std.unwrap_or(0.0) + EPSILON);
            }
        }
    }
    normalized
}

/// Mean and standard deviation of some values.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Spread {
    /// The mean.
    pub mean: f64,
    /// Standard deviation of a sample; none of a single value.
    pub std: Option<f64>,
}

impl Spread {
    /// None of no values.
    pub fn of(values: impl Iterator<Item = f64> + Clone) -> Option<Self> {
        let count = values.clone().count();
        if count == 0 {
            return None;
        }
        let mean = values.clone().sum::<f64>() / count as f64;
        let squares = values.map(|value| (value - mean).powi(2)).sum::<f64>();
        Some(Self { mean, std: (count > 1).then(|| (squares / (count - 1) as f64).sqrt()) })
    }
}

/// By what squares are divided in a variance.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Variance {
    /// The number of values.
    #[default]
    Population,
    /// One less, as of what they are a sample of; 0 of a single value.
    Sample,
}

impl Variance {
    /// The variance of some values, which are not none.
    pub fn of(self, values: &[f64]) -> f64 {
        let count = values.len() as f64;
        let mean = values.iter().sum::<f64>() / count;
        let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
        match self {
            Self::Population => squares / count,
            Self::Sample if values.len() > 1 => squares / (count - 1.0),
            Self::Sample => 0.0,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::slice::from_ref;

    use saddlepoint_core::test::assert_close;

    use super::*;

    fn values(values: &[f64]) -> Vec<Part> {
        values.iter().map(|&value| Part::Value(value)).collect()
    }

    #[test]
    fn absent_parts_are_left_out_and_failed_ones_leave_no_sum() {
        let parts = [
            vec![Part::Value(1.0), Part::Absent, Part::Absent, Part::Failed],
            vec![Part::Value(4.0), Part::Value(0.0), Part::Absent, Part::Value(1.0)],
        ];
        assert_eq!(sums(&parts, &[2.0, 0.5]), [Some(4.0), Some(0.0), None, None]);
    }

    #[test]
    fn normalised_sums_are_those_of_trl() {
        // Computed from TRL 1.8's formula by an independent program.
        let parts = [values(&[1.0, 0.0, 1.0, 1.0, 0.0, 0.0]), values(&[0.2, 0.9, 0.4, 5.0, 5.0, 5.0])];
        let sums = normalized_sums(&parts, &[1.0, 0.5], &[0..3, 3..6]);
        let sums: Vec<f64> = sums.into_iter().map(|sum| sum.expect("all apply")).collect();
        let golden = [
            0.161_340_491_960_536_18,
            -0.599_954_180_285_471,
            0.438_613_688_324_935_1,
            1.154_500_573_014_269,
            -0.577_250_286_507_134_4,
            -0.577_250_286_507_134_4,
        ];
        assert_close!(sums, golden, rtol = 1e-9);
    }

    #[test]
    fn what_adds_up_to_the_same_is_told_apart() {
        // Both completions have the sum 1; the second reward varies ten times less elsewhere in the group.
        let parts = [values(&[1.0, 0.0, 0.0]), values(&[0.0, 1.0, 0.9])];
        assert_eq!(sums(&parts, &[1.0, 1.0])[..2], [Some(1.0), Some(1.0)]);
        let apart = normalized_sums(&parts, &[1.0, 1.0], from_ref(&(0..3)));
        assert!(apart[0] != apart[1], "{apart:?}");
    }

    #[test]
    fn a_group_without_differences_and_a_single_value_give_no_signal() {
        let parts = [vec![Part::Value(3.0), Part::Value(3.0), Part::Value(7.0), Part::Absent]];
        assert_eq!(normalized_sums(&parts, &[1.0], &[0..2, 2..4]), [Some(0.0), Some(0.0), Some(0.0), None]);
    }
}
