//! The νPI step (Sohrabi et al. 2024, arXiv:2406.04558): dual ascent as a proportional-integral controller.
//!
//! With the violation `e_t`, its moving average `ξ_t` and the integral `I_t`:
//! ```text
//! ξ_0 = e_0,   ξ_t = ν ξ_{t−1} + (1 − ν) e_t
//! I_t = Π[ I_{t−1} + k_i e_t ],   I_{−1} = θ_0
//! θ_{t+1} = Π[ I_t + k_p ξ_t + k_d (ξ_t − ξ_{t−1}) ]      Π: projection to [lower, upper]
//! ```
//! While no projection binds and `k_d = 0`, this is the paper's `θ_{t+1} = θ_0 + k_p ξ_t + k_i Σ e`. The paper
//! projects `θ` only; projecting `I` as well keeps the integral from winding up while the constraint is inactive.
//! With `k_p = k_d = 0` it is exactly projected dual ascent. `k_p` damps the oscillation that pure ascent has. The
//! derivative part, `k_d = h k_p`, is the proportional one on the violation foreseen `h` updates ahead: for a
//! quantity that follows its multiplier with a delay, as one does under an optimizer with momentum.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Clamped;
use crate::{Error, Result};

/// Settings of the step. Gains are per unit of violation and update.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct NuPi {
    /// Proportional gain, `>= 0`.
    pub kp: f64,
    /// Integral gain: the step size of dual ascent, `>= 0`.
    pub ki: f64,
    /// Derivative gain, `>= 0`.
    pub kd: f64,
    /// Weight of the past in the moving average that the proportional and the derivative part see, in `[0, 1)`.
    pub nu: f64,
    /// First multiplier, within the limits.
    pub initial: f64,
    /// Smallest multiplier, `>= 0`; that of an equality is minus the largest.
    pub lower: f64,
    /// Largest multiplier; without one there is no limit.
    pub upper: Option<f64>,
    /// Whether the step is taken on the multiplier or on its logarithm.
    pub scale: Scale,
}

/// The variable that the controller moves.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Scale {
    /// `θ = λ`: multipliers that are zero while their constraint is inactive.
    #[default]
    Linear,
    /// `θ = ln λ` (exponentiated ascent): multipliers that must stay positive and whose right order of
    /// magnitude is unknown. Needs `lower > 0`.
    Log,
}

impl Default for NuPi {
    fn default() -> Self {
        Self {
            kp: 0.0,
            ki: 0.01,
            kd: 0.0,
            nu: 0.0,
            initial: 0.0,
            lower: 0.0,
            upper: None,
            scale: Scale::Linear,
        }
    }
}

/// Of one multiplier.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(super) struct State {
    integral: f64,
    /// The moving average `ξ`; nothing before the first update.
    average: Option<f64>,
    pub(super) multiplier: f64,
    pub(super) clamped: Clamped,
}

impl NuPi {
    pub(super) fn check(&self) -> Result<()> {
        let d = Self::default();
        let range = |ok: bool, key, range: &str, got, default| {
            if ok { Ok(()) } else { Err(Error::range(key, range, got, default)) }
        };
        range(self.kp >= 0.0 && self.kp.is_finite(), "kp", ">= 0", self.kp, d.kp)?;
        range(self.ki >= 0.0 && self.ki.is_finite(), "ki", ">= 0", self.ki, d.ki)?;
        range(self.kd >= 0.0 && self.kd.is_finite(), "kd", ">= 0", self.kd, d.kd)?;
        range((0.0..1.0).contains(&self.nu), "nu", "in [0, 1)", self.nu, d.nu)?;
        let positive = self.scale == Scale::Linear || self.lower > 0.0;
        range(self.lower >= 0.0 && positive, "lower", ">= 0, and > 0 on the log scale", self.lower, d.lower)?;
        range(self.upper() >= self.lower, "upper", ">= lower", self.upper(), d.upper())?;
        let inside = self.initial.is_finite() && (self.lower..=self.upper()).contains(&self.initial);
        range(inside, "initial", "finite and between lower and upper", self.initial, d.initial)
    }

    pub(super) fn start(&self) -> State {
        State {
            integral: self.to_theta(self.initial),
            average: None,
            multiplier: self.initial,
            clamped: Clamped::default(),
        }
    }

    pub(super) fn step(&self, state: &mut State, violation: f64, two_sided: bool) {
        let average = state.average.map_or(violation, |past| self.nu * past + (1.0 - self.nu) * violation);
        let upper = self.to_theta(self.upper());
        let lower = if two_sided { -upper } else { self.to_theta(self.lower) };
        let change = average - state.average.unwrap_or(average);
        state.average = Some(average);
        state.integral = (state.integral + self.ki * violation).clamp(lower, upper);
        let theta = state.integral + self.kp * average + self.kd * change;
        state.clamped.lower += u64::from(theta <= lower);
        state.clamped.upper += u64::from(theta >= upper);
        state.multiplier = match self.scale {
            Scale::Linear => theta.clamp(lower, upper),
            // The limits themselves, not exp(ln(limit)).
            Scale::Log => theta.clamp(lower, upper).exp().clamp(self.lower, self.upper()),
        };
    }

    fn upper(&self) -> f64 {
        self.upper.unwrap_or(f64::INFINITY)
    }

    fn to_theta(self, multiplier: f64) -> f64 {
        match self.scale {
            Scale::Linear => multiplier,
            Scale::Log => multiplier.ln(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn matches_the_closed_form_while_no_limit_binds() {
        let rule = NuPi { kp: 0.5, ki: 0.2, kd: 0.3, nu: 0.6, initial: 3.0, ..NuPi::default() };
        let mut state = rule.start();
        let errors = [0.4, -0.3, 0.7, 0.1, -0.9];
        let (mut xi, mut sum) = (errors[0], 0.0);
        for (t, e) in errors.into_iter().enumerate() {
            let past = xi;
            xi = if t == 0 { e } else { 0.6 * xi + 0.4 * e };
            sum += e;
            rule.step(&mut state, e, false);
            assert!((state.multiplier - (3.0 + 0.5 * xi + 0.3 * (xi - past) + 0.2 * sum)).abs() < 1e-14);
        }
    }

    #[test]
    fn the_log_scale_multiplies() {
        let rule = NuPi {
            ki: 2.0_f64.ln(),
            initial: 0.1,
            lower: 0.01,
            upper: Some(1.0),
            scale: Scale::Log,
            ..NuPi::default()
        };
        let mut state = rule.start();
        rule.step(&mut state, 1.0, false);
        assert!((state.multiplier - 0.2).abs() < 1e-15);
        for _ in 0..10 {
            rule.step(&mut state, 1.0, false);
        }
        assert!(state.multiplier.to_bits() == 1.0_f64.to_bits() && state.clamped.upper == 8, "{state:?}");
    }

    #[test]
    fn settings_outside_their_range_are_refused() {
        let d = NuPi::default();
        for (rule, message) in [
            (NuPi { kp: -1.0, ..d }, "kp: must be >= 0, got -1 (default 0)"),
            (NuPi { ki: f64::NAN, ..d }, "ki: must be >= 0, got NaN (default 0.01)"),
            (NuPi { kd: -0.5, ..d }, "kd: must be >= 0, got -0.5 (default 0)"),
            (NuPi { nu: 1.0, ..d }, "nu: must be in [0, 1), got 1 (default 0)"),
            (
                NuPi { scale: Scale::Log, ..d },
                "lower: must be >= 0, and > 0 on the log scale, got 0 (default 0)",
            ),
            (NuPi { lower: 2.0, upper: Some(1.0), ..d }, "upper: must be >= lower, got 1 (default inf)"),
            (
                NuPi { upper: Some(1.0), initial: 2.0, ..d },
                "initial: must be finite and between lower and upper, got 2 (default 0)",
            ),
        ] {
            assert_eq!(rule.check().expect_err("refused").to_string(), message);
        }
    }
}
