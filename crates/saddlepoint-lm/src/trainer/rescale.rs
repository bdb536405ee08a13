//! What was learned, scaled to the budget.
//!
//! A controller leaves the divergence on either side of its aim: the policy follows β late and not smoothly. But all policies on the line
//! from the reference through the policy, `base + s Δ` with the adapter's update `Δ`, can be had without a step, and their divergence
//! `D(s)` grows with `s`, near the reference as `s²` (both its value and its slope are 0 there). So at the end `s` is chosen by
//! measurements, which follow `D = c s^p` from one to the next: `p = 2` at first, then as the last two say.

use super::Observer;
use super::example::Asked;
use super::setup::Run;
use crate::Result;
use crate::tether::TetherConfig;

/// Share of the budget that the upper end of the interval is to have.
const AIM: f64 = 0.97;
/// What is near enough to it: measurements are not more precise.
const NEAR: f64 = 0.03;
/// Most measurements.
const ROUNDS: u64 = 4;
/// Largest factor where the budget binds. Farther on the line the policy is another one than that which was trained.
const MOST: f64 = 1.25;

/// Where a policy is on its line.
#[derive(Debug, Clone, Copy)]
pub(super) struct Line {
    /// `s`, of 1 for the policy as it was trained.
    pub(super) scale: f64,
    /// The one before it, and its divergence.
    last: Option<(f64, f64)>,
    /// The divergence that is wanted.
    aim: f64,
    most: f64,
}

impl Line {
    fn new(budget: f64, binds: bool) -> Self {
        Self { scale: 1.0, last: None, aim: AIM * budget, most: if binds { MOST } else { 1.0 } }
    }

    /// Goes to where `D = c s^p` is what is wanted, from the divergence here and, for `p`, the one before it. The factor on the update.
    pub(super) fn follow(&mut self, divergence: f64) -> f64 {
        let before = self.scale;
        let power = self.last.map_or(2.0, |(s, d)| (divergence / d).ln() / (before / s).ln());
        // Noise may say anything of two points that are near to each other.
        let power = if power.is_nan() { 2.0 } else { power.clamp(1.0, 4.0) };
        let next = before * (self.aim / divergence.max(f64::MIN_POSITIVE)).powf(1.0 / power);
        (self.last, self.scale) = (Some((before, divergence)), next.min(self.most));
        self.scale / before
    }
}

impl Run<'_> {
    /// Moves the policy by measurements on `prompts` to where its budget is; nothing without a budget that asks for it.
    pub(super) fn rescale(
        &mut self,
        prompts: &[Asked<'_>],
        step: u64,
        observer: Observer,
    ) -> Result<Option<Line>> {
        let Some(tether) = &self.tether else { return Ok(None) };
        let TetherConfig { rescale: true, budget: Some(budget), .. } = *tether.config() else {
            return Ok(None);
        };
        let mut line = Line::new(budget, tether.binds());
        for _ in 0..ROUNDS {
            // The same draws each time: most samples of neighbours on the line are then the same, and what differs is the divergence.
            let (_, Some(measured)) = self.measure(prompts, "samples/rescale", step, observer)? else {
                break;
            };
            let here = line;
            let factor = line.follow(measured.interval[1]);
            if (factor - 1.0).abs() <= 0.5 * NEAR {
                return Ok(Some(here));
            }
            self.scale_adapter(factor);
        }
        Ok(Some(line))
    }

    /// Multiplies the adapter's update.
    pub(super) fn scale_adapter(&mut self, factor: f64) {
        let trainable = self.policy.trainable();
        for spec in trainable.tensors.iter().filter(|spec| spec.name.ends_with("lora_B.weight")) {
            trainable.params[spec.range()].iter_mut().for_each(|b| *b *= factor as f32);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_power_is_found_in_three_measurements() {
        for power in [1.2, 2.0, 3.5] {
            let divergence = |s: f64| 0.7 * s.powf(power);
            let mut line = Line::new(0.5 / AIM, true);
            let product = line.follow(divergence(1.0)) * line.follow(divergence(line.scale));
            assert!((product - line.scale).abs() < 1e-15);
            assert!((divergence(line.scale) - 0.5).abs() < 1e-12, "{power}: {line:?}");
        }
    }

    #[test]
    fn what_noise_says_of_the_power_is_bounded_and_so_is_the_way() {
        let mut line = Line { scale: 1.1, last: Some((1.0, 0.5)), aim: 0.5, most: 2.0 };
        line.follow(0.4);
        assert!(line.scale > 1.1 && line.scale < 1.4, "{line:?}");
        let mut none = Line::new(1.0, true);
        none.follow(0.0);
        assert!((none.scale - MOST).abs() < 1e-15, "{none:?}");
        let mut same = Line { scale: 1.0, last: Some((1.0, 0.5)), aim: 0.5, most: 1.0 };
        assert!((same.follow(0.5) - 1.0).abs() < 1e-15, "{same:?}");
        assert!((Line::new(1.0, false).follow(0.1) - 1.0).abs() < 1e-15, "it does not bind");
    }
}
