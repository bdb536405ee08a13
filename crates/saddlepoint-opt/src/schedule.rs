//! Learning-rate schedules: factors on the learning rate, by the formulas of transformers'
//! `get_*_schedule_with_warmup` (checked against them in `tests/golden/schedule.json`).
//!
//! With the step `t` counted from 0, the number of steps `T` and of warm-up steps `w`:
//! ```text
//! t < w      t / max(1, w)
//! constant   1
//! linear     max(0, (T − t) / max(1, T − w))
//! cosine     r + (1 − r) (1 + cos π q) / 2,   q = (t − w) / max(1, T − w),   r = min_lr_rate
//! ```

use std::f64::consts::PI;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// Shape of the schedule after the warm-up.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// The learning rate stays.
    #[serde(alias = "constant_with_warmup")]
    Constant,
    /// It falls to zero on a line.
    #[default]
    Linear,
    /// It falls on half a cosine, to zero or to `min_lr_rate` of itself.
    #[serde(alias = "cosine_with_min_lr")]
    Cosine,
}

/// A schedule over a known number of steps.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Schedule {
    kind: Kind,
    steps: u64,
    warmup: u64,
    min_lr_rate: f64,
}

/// Length of the warm-up.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Warmup {
    /// A number of steps.
    Steps(u64),
    /// A share of all steps, in `[0, 1]`, rounded up.
    Ratio(f64),
}

impl Schedule {
    /// A schedule over `steps` optimizer steps.
    ///
    /// # Errors
    /// A ratio is outside `[0, 1]`, or `min_lr_rate` is set for a schedule that is not a cosine.
    pub fn new(kind: Kind, steps: u64, warmup: Warmup, min_lr_rate: f64) -> Result<Self> {
        if !(0.0..=1.0).contains(&min_lr_rate) {
            return Err(Error::range("min_lr_rate", "in [0, 1]", min_lr_rate, 0.0));
        }
        if min_lr_rate > 0.0 && kind != Kind::Cosine {
            let problem = "needs lr_scheduler_type = \"cosine\"; remove it or change the type".to_owned();
            return Err(Error::Setting { key: "min_lr_rate", problem });
        }
        let warmup = match warmup {
            Warmup::Steps(steps) => steps,
            Warmup::Ratio(ratio) if (0.0..=1.0).contains(&ratio) => (ratio * steps as f64).ceil() as u64,
            Warmup::Ratio(ratio) => return Err(Error::range("warmup_ratio", "in [0, 1]", ratio, 0.0)),
        };
        Ok(Self { kind, steps, warmup, min_lr_rate })
    }

    /// Factor on the learning rate of optimizer step `step`, counted from 0.
    pub fn factor(&self, step: u64) -> f64 {
        let (t, w) = (step as f64, self.warmup as f64);
        let rest = self.steps.saturating_sub(self.warmup).max(1) as f64;
        if step < self.warmup {
            return t / w;
        }
        match self.kind {
            Kind::Constant => 1.0,
            Kind::Linear => ((self.steps as f64 - t) / rest).max(0.0),
            Kind::Cosine => {
                let factor = 0.5 * (1.0 + (PI * (t - w) / rest).cos());
                (factor * (1.0 - self.min_lr_rate) + self.min_lr_rate).max(0.0)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_are_exact() {
        let linear = Schedule::new(Kind::Linear, 10, Warmup::Steps(2), 0.0).expect("valid");
        let factors: Vec<f64> = (0..12).map(|t| linear.factor(t)).collect();
        assert_eq!(factors, [0.0, 0.5, 1.0, 0.875, 0.75, 0.625, 0.5, 0.375, 0.25, 0.125, 0.0, 0.0]);
        let cosine = Schedule::new(Kind::Cosine, 10, Warmup::Ratio(0.0), 0.1).expect("valid");
        assert!((cosine.factor(0) - 1.0).abs() < 1e-15 && (cosine.factor(10) - 0.1).abs() < 1e-15);
    }

    #[test]
    fn settings_outside_their_range_are_refused() {
        let refused =
            |kind, warmup, rate| Schedule::new(kind, 10, warmup, rate).expect_err("refused").to_string();
        assert_eq!(
            refused(Kind::Linear, Warmup::Ratio(1.5), 0.0),
            "warmup_ratio: must be in [0, 1], got 1.5 (default 0)"
        );
        assert_eq!(
            refused(Kind::Cosine, Warmup::Steps(0), -0.1),
            "min_lr_rate: must be in [0, 1], got -0.1 (default 0)"
        );
        assert_eq!(
            refused(Kind::Linear, Warmup::Steps(0), 0.1),
            "min_lr_rate: needs lr_scheduler_type = \"cosine\"; remove it or change the type"
        );
    }
}
