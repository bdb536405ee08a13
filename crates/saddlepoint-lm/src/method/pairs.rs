//! What the methods on pairs share: sums over a pair's rows, the sigmoid loss and the metrics of implicit rewards.

use std::ops::Range;

use super::{Per, Sums, View};
use crate::engine::Stats;
use crate::{Error, Result};

/// A chosen and a rejected completion of one prompt.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pair<'a> {
    pub(super) chosen: &'a Range<usize>,
    pub(super) rejected: &'a Range<usize>,
}

impl View<'_> {
    /// The batch pair by pair.
    pub(super) fn pairs(&self) -> impl Iterator<Item = Pair<'_>> {
        self.sequences.chunks_exact(2).map(|pair| Pair { chosen: &pair[0], rejected: &pair[1] })
    }
}

impl Pair<'_> {
    /// Sums of a statistic over the rows of the chosen and of the rejected completion.
    pub(super) fn totals(self, values: &[f64]) -> [f64; 2] {
        [self.chosen, self.rejected].map(|rows| values[rows.clone()].iter().sum())
    }

    /// Tokens of both.
    pub(super) fn lengths(self) -> [f64; 2] {
        [self.chosen, self.rejected].map(|rows| rows.len() as f64)
    }

    /// `ln π(y|x) − ln π₀(y|x)` of both, nats.
    pub(super) fn log_ratios(self, stats: &Stats) -> [f64; 2] {
        let (policy, reference) = (self.totals(&stats.logp), self.totals(&stats.ref_logp));
        [policy[0] - reference[0], policy[1] - reference[1]]
    }

    /// Adds the derivatives by the two sums of a statistic to the cotangents of their rows.
    pub(super) fn spread(self, slopes: [f64; 2], cotangents: &mut [f64]) {
        for (rows, slope) in [self.chosen, self.rejected].into_iter().zip(slopes) {
            cotangents[rows.clone()].iter_mut().for_each(|c| *c += slope);
        }
    }

    /// The metrics that every method on pairs has.
    pub(super) fn report(self, stats: &Stats, loss: f64, rewards: [f64; 2], sums: &mut Sums) {
        let logps = self.totals(&stats.logp);
        let correct = stats.top1[self.chosen.clone()].iter().filter(|&&top1| top1).count();
        sums.add("loss", loss, Per::Pair);
        sums.add("rewards/chosen", rewards[0], Per::Pair);
        sums.add("rewards/rejected", rewards[1], Per::Pair);
        sums.add("rewards/margins", rewards[0] - rewards[1], Per::Pair);
        sums.add("rewards/accuracies", f64::from(rewards[0] > rewards[1]), Per::Pair);
        sums.add("logps/chosen", logps[0], Per::Pair);
        sums.add("logps/rejected", logps[1], Per::Pair);
        sums.add("mean_token_accuracy", correct as f64, Per::Count(self.chosen.len()));
    }
}

/// `−(1 − ε) ln σ(h) − ε ln σ(−h)` and its derivative with respect to `h`.
pub(crate) fn sigmoid_loss(h: f64, smoothing: f64) -> (f64, f64) {
    let value = -(1.0 - smoothing) * log_sigmoid(h) - smoothing * log_sigmoid(-h);
    (value, smoothing * log_sigmoid(h).exp() - (1.0 - smoothing) * log_sigmoid(-h).exp())
}

/// `ln(1 / (1 + e^-x))` without overflow.
pub(super) fn log_sigmoid(x: f64) -> f64 {
    x.min(0.0) - (-x.abs()).exp().ln_1p()
}

/// Refuses a setting that is not positive.
pub(super) fn positive(key: &str, value: f64, default: f64) -> Result<()> {
    if value > 0.0 && value.is_finite() {
        return Ok(());
    }
    refuse(key, format!("must be > 0, got {value} (default {default})"))
}

/// Refuses a share of wrong preferences that is not below a half.
pub(super) fn smoothing(value: f64, default: f64) -> Result<()> {
    if (0.0..0.5).contains(&value) {
        return Ok(());
    }
    refuse("label_smoothing", format!("must be in [0, 0.5), got {value} (default {default})"))
}

/// An error at a setting of the method.
pub(super) fn refuse(key: &str, problem: String) -> Result<()> {
    Err(Error::Config { key: format!("method.{key}"), problem })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn closed_forms_of_the_sigmoid_loss() {
        let (value, slope) = sigmoid_loss(0.0, 0.0);
        assert!((value - 2.0_f64.ln()).abs() < 1e-15 && (slope + 0.5).abs() < 1e-15);
        let (_, slope) = sigmoid_loss((0.9_f64 / 0.1).ln(), 0.1);
        assert!(slope.abs() < 1e-15, "smoothing e has its optimum at ln((1 - e)/e), slope {slope}");
        let (value, slope) = sigmoid_loss(-800.0, 0.0);
        assert!((value - 800.0).abs() < 1e-12 && (slope + 1.0).abs() < 1e-15, "no overflow");
        assert!(sigmoid_loss(800.0, 0.0).0.abs() < 1e-300);
    }
}
