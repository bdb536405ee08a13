//! What completions are worth relative to others: advantages, from the rewards of a round.
//!
//! ```text
//! group mean       A_i = r_i − mean_g(r)                     g: the completions of the same prompt
//! scaled           A_i / (std + 1e-4)                        std of the group or of the whole round, that of a sample (n − 1)
//! group scaled     A_i / (std + ε)                           std of the group, that of a sample or of a population (n)
//! leave one out    A_i = r_i − mean of the others in g
//! round mean       A_i = r_i − mean of the round
//! ```
//! A completion without a reward has no advantage and no part in means and deviations. In a group with a single reward the
//! advantage is 0: there is nothing to compare with. Formulas and the 1e-4 are those of TRL 1.16.

use std::ops::Range;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::reward::aggregate::{Spread, Variance};

/// By which standard deviation a centred reward is divided.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Scale {
    /// That of its group: every prompt counts the same, however little its rewards differ.
    #[default]
    Group,
    /// That of the round.
    Batch,
    /// None (Dr. GRPO).
    None,
}

/// Added to a standard deviation before it divides.
const EPSILON: f64 = 1e-4;

fn values(rewards: &[Option<f64>]) -> impl Iterator<Item = f64> + Clone {
    rewards.iter().flatten().copied()
}

/// Rewards less the mean of their group, divided as `scale` says.
pub fn group_mean(rewards: &[Option<f64>], groups: &[Range<usize>], scale: Scale) -> Vec<Option<f64>> {
    let whole = deviation(rewards);
    by_group(rewards, groups, |rewards| {
        let mean = Spread::of(values(rewards)).map_or(0.0, |spread| spread.mean);
        let divisor = match scale {
            Scale::Group => deviation(rewards) + EPSILON,
            Scale::Batch => whole + EPSILON,
            Scale::None => 1.0,
        };
        rewards.iter().map(|reward| reward.map(|r| (r - mean) / divisor)).collect()
    })
}

/// Rewards less the mean of their group, divided by its standard deviation and `epsilon`.
pub fn group_scaled(
    rewards: &[Option<f64>],
    groups: &[Range<usize>],
    std: Variance,
    epsilon: f64,
) -> Vec<Option<f64>> {
    by_group(rewards, groups, |rewards| {
        let count = values(rewards).count() as f64;
        let share = match std {
            Variance::Population => ((count - 1.0) / count).sqrt(),
            Variance::Sample => 1.0,
        };
        // Of no reward or one there is no deviation.
        let divisor = if count > 1.0 { share * deviation(rewards) } else { 0.0 } + epsilon;
        round_mean(rewards).into_iter().map(|centred| centred.map(|c| c / divisor)).collect()
    })
}

/// Rewards less the mean of the others of their group.
pub fn leave_one_out(rewards: &[Option<f64>], groups: &[Range<usize>]) -> Vec<Option<f64>> {
    by_group(rewards, groups, |rewards| {
        let others = values(rewards).count().saturating_sub(1);
        let sum: f64 = values(rewards).sum();
        let advantage = |r: f64| if others == 0 { 0.0 } else { r - (sum - r) / others as f64 };
        rewards.iter().map(|reward| reward.map(advantage)).collect()
    })
}

/// Rewards less their mean.
pub fn round_mean(rewards: &[Option<f64>]) -> Vec<Option<f64>> {
    let mean = Spread::of(values(rewards)).map_or(0.0, |spread| spread.mean);
    rewards.iter().map(|reward| reward.map(|r| r - mean)).collect()
}

/// Values less their mean, divided by their standard deviation.
pub fn normalized(values: &[Option<f64>]) -> Vec<Option<f64>> {
    let divisor = deviation(values) + EPSILON;
    round_mean(values).into_iter().map(|value| value.map(|v| v / divisor)).collect()
}

fn deviation(rewards: &[Option<f64>]) -> f64 {
    Spread::of(values(rewards)).and_then(|spread| spread.std).unwrap_or(0.0)
}

fn by_group(
    rewards: &[Option<f64>],
    groups: &[Range<usize>],
    of: impl Fn(&[Option<f64>]) -> Vec<Option<f64>>,
) -> Vec<Option<f64>> {
    let mut advantages = vec![None; rewards.len()];
    for group in groups {
        advantages[group.clone()].copy_from_slice(&of(&rewards[group.clone()]));
    }
    advantages
}

#[cfg(test)]
mod tests {
    use saddlepoint_core::test::assert_close;

    use super::*;

    fn some(values: &[f64]) -> Vec<Option<f64>> {
        values.iter().copied().map(Some).collect()
    }

    fn plain(values: &[Option<f64>]) -> Vec<f64> {
        values.iter().map(|value| value.expect("a reward")).collect()
    }

    const GROUPS: [Range<usize>; 2] = [0..4, 4..8];

    #[test]
    fn closed_forms_for_right_and_wrong() {
        // k of G right: with the deviation of the population A+ = sqrt((G - k) / k); that of a sample is larger by
        // sqrt(G / (G - 1)).
        let rewards = some(&[1.0, 0.0, 0.0, 0.0, 1.0, 1.0, 1.0, 0.0]);
        let bessel = (3.0_f64 / 4.0).sqrt();
        let scaled = plain(&group_mean(&rewards, &GROUPS, Scale::Group));
        let right = [bessel * 3.0_f64.sqrt(), bessel * (1.0_f64 / 3.0).sqrt()];
        assert_close!([scaled[0], scaled[4]], right, rtol = 3e-4);
        let raw = plain(&group_mean(&rewards, &GROUPS, Scale::None));
        assert_close!(raw[..4], [0.75, -0.25, -0.25, -0.25], rtol = 1e-15);
        let out = plain(&leave_one_out(&rewards, &GROUPS));
        // Leaving one out is the mean times G / (G - 1).
        assert_close!(out, raw.iter().map(|a| a * 4.0 / 3.0).collect::<Vec<_>>(), rtol = 1e-14);
        for advantages in [&scaled, &raw, &out] {
            for group in GROUPS {
                assert!(advantages[group].iter().sum::<f64>().abs() < 1e-12);
            }
        }
        let batch = plain(&group_mean(&rewards, &GROUPS, Scale::Batch));
        let deviation = (8.0_f64 * 0.25 / 7.0).sqrt() + 1e-4;
        assert_close!(batch, raw.iter().map(|a| a / deviation).collect::<Vec<_>>(), rtol = 1e-14);
    }

    #[test]
    fn equal_rewards_are_worth_nothing() {
        let rewards = some(&[1.0, 1.0, 1.0, 1.0, 0.0, 0.0, 0.0, 0.0]);
        for advantages in [
            group_mean(&rewards, &GROUPS, Scale::Group),
            group_mean(&rewards, &GROUPS, Scale::None),
            leave_one_out(&rewards, &GROUPS),
        ] {
            assert_eq!(plain(&advantages), [0.0; 8]);
        }
        assert_close!(plain(&round_mean(&rewards)), [[0.5; 4], [-0.5; 4]].concat(), rtol = 1e-15);
    }

    #[test]
    fn what_has_no_reward_counts_nowhere() {
        let rewards = [Some(1.0), None, Some(0.0), Some(2.0), None, Some(7.0), None, None];
        let raw = group_mean(&rewards, &GROUPS, Scale::None);
        assert_eq!(raw, [Some(0.0), None, Some(-1.0), Some(1.0), None, Some(0.0), None, None]);
        assert_eq!(leave_one_out(&rewards, &GROUPS)[..4], [Some(0.0), None, Some(-1.5), Some(1.5)]);
        assert_eq!(leave_one_out(&rewards, &GROUPS)[5], Some(0.0), "nothing to compare with");
        assert_eq!(group_mean(&[None; 8], &GROUPS, Scale::Group), [None; 8]);
        assert_eq!(normalized(&[None, Some(3.0)]), [None, Some(0.0)]);
    }

    #[test]
    fn a_group_does_not_depend_on_the_order_of_its_completions() {
        let rewards = some(&[0.3, 0.9, 0.1, 0.5]);
        let turned = some(&[0.5, 0.1, 0.9, 0.3]);
        let one = std::slice::from_ref(&(0..4));
        for of in [
            |r: &[Option<f64>], g: &[Range<usize>]| group_mean(r, g, Scale::Group),
            |r: &[Option<f64>], g: &[Range<usize>]| leave_one_out(r, g),
        ] {
            let mut back = plain(&of(&turned, one));
            back.reverse();
            assert_close!(plain(&of(&rewards, one)), back, rtol = 1e-12);
        }
    }
}
