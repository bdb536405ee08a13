//! From the scores of several reward models to one, conservatively.
//!
//! ```text
//! mean                   R = mean_i R_i
//! worst_case             R = min_i R_i
//! uncertainty_weighted   R = mean_i R_i − λ V       V = variance of the R_i
//! ```
//! Coste et al. 2024, arXiv:2310.02743, eq. 3 to 5, where `V` is the population's variance (`k` in the divisor; their program for PPO
//! has `k − 1`). The last one punishes disagreement also where a single member is far above the others: it falls with `R_i` as soon as
//! `R_i` is more than `1/(2λ)` above the mean. `V` has squared units, so that scores which are multiplied by `c` need `λ/c`. With
//! one member `V` is 0.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::reward::aggregate::Variance;

/// How the scores of several reward models become one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Aggregate {
    /// Their mean.
    #[default]
    Mean,
    /// The lowest.
    WorstCase,
    /// Their mean less a multiple of their variance.
    UncertaintyWeighted,
}

impl Aggregate {
    /// One number from the scores of the members, which are not none. `coefficient` is λ.
    pub fn of(self, scores: &[f64], coefficient: f64, variance: Variance) -> f64 {
        let mean = || scores.iter().sum::<f64>() / scores.len() as f64;
        match self {
            Self::Mean => mean(),
            Self::WorstCase => scores.iter().copied().fold(f64::INFINITY, f64::min),
            Self::UncertaintyWeighted => mean() - coefficient * variance.of(scores),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use saddlepoint_core::test::assert_close;

    use super::Variance::{Population, Sample};
    use super::*;

    /// Five members, four answers.
    const SCORES: [[f64; 4]; 5] = [
        [1.2, -0.3, 0.8, 2.0],
        [0.9, 0.1, 1.1, -1.0],
        [1.5, -0.2, 0.2, 0.4],
        [0.7, 0.0, 0.9, 0.6],
        [1.1, -0.1, 1.0, 0.5],
    ];

    fn answers(of: impl Fn(&[f64]) -> f64) -> Vec<f64> {
        (0..4).map(|answer| of(&SCORES.map(|member| member[answer]))).collect()
    }

    #[test]
    fn values_of_five_members() {
        let of = |aggregate: Aggregate, coefficient, variance| {
            answers(|scores| aggregate.of(scores, coefficient, variance))
        };
        let uwo = |coefficient, variance| of(Aggregate::UncertaintyWeighted, coefficient, variance);
        for (got, expected) in [
            (of(Aggregate::Mean, 9.0, Population), [1.08, -0.1, 0.8, 0.5]),
            (of(Aggregate::WorstCase, 9.0, Population), [0.7, -0.3, 0.2, -1.0]),
            (answers(|scores| Population.of(scores)), [0.0736, 0.02, 0.1, 0.904]),
            (answers(|scores| Sample.of(scores)), [0.092, 0.025, 0.125, 1.13]),
            (uwo(0.1, Population), [1.07264, -0.102, 0.79, 0.4096]),
            (uwo(0.5, Population), [1.0432, -0.11, 0.75, 0.048]),
            (uwo(1.0, Population), [1.0064, -0.12, 0.7, -0.404]),
            (uwo(0.1, Sample), [1.0708, -0.1025, 0.7875, 0.387]),
            (uwo(0.5, Sample), [1.034, -0.1125, 0.7375, -0.065]),
        ] {
            assert_close!(got, expected, rtol = 1e-12);
        }
    }

    #[test]
    fn the_derivative_by_a_member_turns_negative_far_above_the_mean() {
        let scores = SCORES.map(|member| member[3]);
        let at = |member: usize, step: f64| {
            let mut moved = scores;
            moved[member] += step;
            Aggregate::UncertaintyWeighted.of(&moved, 0.5, Variance::Population)
        };
        let slopes: Vec<f64> = (0..5).map(|i| (at(i, 1e-4) - at(i, -1e-4)) / 2e-4).collect();
        assert_close!(slopes, [-0.1, 0.5, 0.22, 0.18, 0.2], rtol = 1e-9);
    }

    #[test]
    fn a_single_member_is_itself() {
        for variance in [Variance::Population, Variance::Sample] {
            for aggregate in [Aggregate::Mean, Aggregate::WorstCase, Aggregate::UncertaintyWeighted] {
                assert_eq!(aggregate.of(&[0.7], 0.5, variance).to_bits(), 0.7_f64.to_bits());
            }
        }
    }

    proptest! {
        #[test]
        fn weighing_uncertainty_never_adds_and_nothing_depends_on_the_order(
            scores in prop::collection::vec(-3.0..3.0_f64, 1..7), coefficient in 0.0..2.0_f64,
        ) {
            let turned: Vec<f64> = scores.iter().rev().copied().collect();
            let of = |aggregate: Aggregate, scores: &[f64]| aggregate.of(scores, coefficient, Variance::Population);
            let mean = of(Aggregate::Mean, &scores);
            prop_assert!(of(Aggregate::UncertaintyWeighted, &scores) <= mean);
            prop_assert!(of(Aggregate::WorstCase, &scores) <= mean + 1e-12);
            let unweighted = Aggregate::UncertaintyWeighted.of(&scores, 0.0, Variance::Population);
            prop_assert_eq!(unweighted.to_bits(), mean.to_bits());
            for aggregate in [Aggregate::Mean, Aggregate::WorstCase, Aggregate::UncertaintyWeighted] {
                prop_assert!((of(aggregate, &scores) - of(aggregate, &turned)).abs() < 1e-12);
            }
        }
    }
}
