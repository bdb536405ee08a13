//! The clipped surrogate of policy gradients, which grpo and rloo share.

use super::pairs::refuse;
use super::{Per, Sums};
use crate::Result;

/// How far the ratio of new to old probability may go before a completion stops pulling.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Clip {
    low: f64,
    high: f64,
}

/// The surrogate at a ratio.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Clipped {
    /// `−min(w A, clip(w, 1 − ε, 1 + ε_high) A)`
    pub(super) value: f64,
    /// Its derivative by `ln w`.
    pub(super) slope: f64,
    /// Below `1 − ε` with a negative advantage, above `1 + ε_high` with a positive one.
    pub(super) at: [bool; 2],
}

impl Clip {
    /// Checks `epsilon` and `epsilon_high`, which is `epsilon` where it is not given.
    pub(super) fn new(epsilon: f64, high: Option<f64>) -> Result<Self> {
        if !(epsilon >= 0.0 && epsilon <= 1.0) {
            refuse("epsilon", format!("must be in [0, 1], got {epsilon} (default 0.2)"))?;
        }
        if let Some(high) = high.filter(|high| !(*high >= 0.0 && high.is_finite())) {
            refuse("epsilon_high", format!("must be >= 0, got {high} (default: as epsilon)"))?;
        }
        Ok(Self { low: epsilon, high: high.unwrap_or(epsilon) })
    }

    /// Of the logarithm of a ratio and an advantage.
    pub(super) fn at(self, log_ratio: f64, advantage: f64) -> Clipped {
        let ratio = log_ratio.exp();
        let clamped = ratio.clamp(1.0 - self.low, 1.0 + self.high);
        let at = [ratio < 1.0 - self.low && advantage < 0.0, ratio > 1.0 + self.high && advantage > 0.0];
        let slope = if at[0] || at[1] { 0.0 } else { -ratio * advantage };
        Clipped { value: -(ratio * advantage).min(clamped * advantage), slope, at }
    }
}

impl Clipped {
    /// Adds the shares of clipped ratios.
    pub(super) fn report(self, sums: &mut Sums, per: Per) {
        let [low, high] = self.at.map(f64::from);
        sums.add("clip_ratio/low_mean", low, per);
        sums.add("clip_ratio/high_mean", high, per);
        sums.add("clip_ratio/region_mean", low + high, per);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_would_go_further_is_held() {
        let clip = Clip::new(0.2, Some(0.28)).expect("valid");
        for (ratio, advantage, value, slope) in [
            (1.0, 2.0, -2.0, -2.0),
            (1.5, 2.0, -2.56, 0.0),
            (1.5, -2.0, 3.0, 3.0),
            (0.5, 2.0, -1.0, -1.0),
            (0.5, -2.0, 1.6, 0.0),
            (0.5, 0.0, 0.0, 0.0),
        ] {
            let got = clip.at(f64::ln(ratio), advantage);
            assert!(
                (got.value - value).abs() < 1e-12 && (got.slope - slope).abs() < 1e-12,
                "{ratio} {advantage}: {got:?}"
            );
        }
    }

    #[test]
    fn settings_outside_their_range_are_refused() {
        let told = |low, high| Clip::new(low, high).expect_err("refused").to_string();
        assert_eq!(told(1.5, None), "method.epsilon: must be in [0, 1], got 1.5 (default 0.2)");
        assert_eq!(told(0.2, Some(-1.0)), "method.epsilon_high: must be >= 0, got -1 (default: as epsilon)");
    }
}
