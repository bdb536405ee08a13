//! Quadratic penalties: the augmented Lagrangian, which ends at the constraint, and the squared hinge, which ends
//! beside it.
//!
//! With the violation `c` (the constraint holds where `c <= 0`) they add to the objective
//! ```text
//! augmented Lagrangian   (max(0, λ + ρ c)² − λ²) / 2ρ     weight of ∇c: max(0, λ + ρ c)
//!                        update: λ ← Π[ λ + ρ c ]          Π: projection to [0, upper]
//! squared hinge          ρ max(0, c)²                      weight of ∇c: 2 ρ max(0, c)
//! ```
//! The augmented Lagrangian is the method of multipliers for inequalities (Hestenes 1969, Powell 1969, Rockafellar 1973;
//! Nocedal & Wright, §17.4): each update brings `λ` nearer to the multiplier of the constrained problem, whatever `ρ`,
//! the faster the larger it is, so that the constraint holds in the limit. In a loop that updates after every measurement
//! it is a PI controller with `kp = ki = ρ`.
//!
//! The squared hinge has no memory. Where the constraint binds, a weight above 0 needs a violation above 0: its minimum
//! lies outside by `λ* / 2ρ` to first order, where `λ*` is the multiplier of the constrained problem. Other texts write
//! `(β/2) max(0, c)²`; that is `ρ = β/2`.
//!
//! After an update that leaves more than `share` of the violation `|max(c, −λ/ρ)|` that the last one left (if it left any), `ρ` is
//! multiplied by `growth` (Birgin & Martínez 2014, algorithm 4.1, here for each constraint by itself). Noisy measurements do
//! that by chance too; `growth = 1` keeps `ρ` constant.

use serde::{Deserialize, Serialize};

use super::Clamped;
use crate::{Error, Result};

/// The penalty `ρ`, a weight per unit of violation, and how it is raised.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Penalty {
    /// The first penalty, > 0.
    pub rho: f64,
    /// Factor where the violation does not fall, >= 1.
    pub growth: f64,
    /// Share of the last violation that may remain, in [0, 1].
    pub share: f64,
    /// The largest penalty.
    pub rho_max: f64,
}

impl Default for Penalty {
    fn default() -> Self {
        Self { rho: 1.0, growth: 1.0, share: 0.5, rho_max: 1e9 }
    }
}

/// The augmented Lagrangian.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AugmentedLagrangian {
    /// Its penalty.
    pub penalty: Penalty,
    /// First multiplier, >= 0 and at most `upper`.
    pub initial: f64,
    /// Largest multiplier; without one there is no limit.
    pub upper: Option<f64>,
}

/// The squared hinge.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SquaredHinge {
    /// Its penalty.
    pub penalty: Penalty,
}

/// Of one constraint.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(super) struct State {
    /// `λ`; always 0 for the squared hinge.
    pub(super) multiplier: f64,
    rho: f64,
    /// `c` at the last update; 0 before the first.
    pub(super) violation: f64,
    /// What the last update left of it; 0 before the first.
    remaining: f64,
    pub(super) clamped: Clamped,
}

impl Penalty {
    fn check(self) -> Result<()> {
        let d = Self::default();
        let range = |ok: bool, key, range: &str, got: f64, default| {
            if ok && got.is_finite() { Ok(()) } else { Err(Error::range(key, range, got, default)) }
        };
        range(self.rho > 0.0, "rho", "> 0", self.rho, d.rho)?;
        range(self.growth >= 1.0, "growth", ">= 1", self.growth, d.growth)?;
        range((0.0..=1.0).contains(&self.share), "share", "in [0, 1]", self.share, d.share)?;
        range(self.rho_max >= self.rho, "rho_max", "finite and >= rho", self.rho_max, d.rho_max)
    }

    fn start(self, multiplier: f64) -> State {
        State { multiplier, rho: self.rho, violation: 0.0, remaining: 0.0, clamped: Clamped::default() }
    }

    /// Multiplies the penalty up to its limit; whether it was below.
    pub(super) fn multiply(self, state: &mut State, factor: f64) -> bool {
        let below = state.rho < self.rho_max;
        state.rho = (state.rho * factor).min(self.rho_max);
        below
    }

    /// Ends an update that left `remaining`.
    fn raise(self, state: &mut State, remaining: f64) {
        let stays = state.remaining > 0.0 && remaining > self.share * state.remaining;
        state.remaining = remaining;
        if stays && self.growth > 1.0 {
            state.clamped.upper += u64::from(state.rho >= self.rho_max);
            state.rho = (state.rho * self.growth).min(self.rho_max);
        }
    }
}

impl AugmentedLagrangian {
    pub(super) fn check(&self) -> Result<()> {
        self.penalty.check()?;
        let inside = self.initial.is_finite() && (0.0..=self.upper()).contains(&self.initial);
        let range = "finite and between 0 and upper";
        if inside { Ok(()) } else { Err(Error::range("initial", range, self.initial, 0.0)) }
    }

    pub(super) fn start(&self) -> State {
        self.penalty.start(self.initial)
    }

    pub(super) fn step(&self, state: &mut State, violation: f64, two_sided: bool) {
        let least = if two_sided { f64::NEG_INFINITY } else { -state.multiplier / state.rho };
        let remaining = violation.max(least).abs();
        let multiplier = state.multiplier + state.rho * violation;
        let lower = if two_sided { -self.upper() } else { 0.0 };
        state.clamped.lower += u64::from(multiplier <= lower);
        state.clamped.upper += u64::from(multiplier >= self.upper());
        state.multiplier = multiplier.clamp(lower, self.upper());
        state.violation = violation;
        self.penalty.raise(state, remaining);
    }

    pub(super) fn weight(state: &State, violation: f64, two_sided: bool) -> f64 {
        let weight = state.multiplier + state.rho * violation;
        if two_sided { weight } else { weight.max(0.0) }
    }

    pub(super) fn term(state: &State, violation: f64, two_sided: bool) -> f64 {
        let weight = Self::weight(state, violation, two_sided);
        // (w² − λ²) / 2ρ without its cancellation.
        (weight - state.multiplier) * (weight + state.multiplier) / (2.0 * state.rho)
    }

    fn upper(&self) -> f64 {
        self.upper.unwrap_or(f64::INFINITY)
    }
}

impl SquaredHinge {
    pub(super) fn check(&self) -> Result<()> {
        self.penalty.check()
    }

    pub(super) fn start(&self) -> State {
        self.penalty.start(0.0)
    }

    pub(super) fn step(&self, state: &mut State, violation: f64, two_sided: bool) {
        let broken = if two_sided { violation.abs() } else { violation.max(0.0) };
        state.clamped.lower += u64::from(broken <= 0.0);
        state.violation = violation;
        self.penalty.raise(state, broken);
    }

    pub(super) fn weight(state: &State, violation: f64, two_sided: bool) -> f64 {
        2.0 * state.rho * if two_sided { violation } else { violation.max(0.0) }
    }

    pub(super) fn term(state: &State, violation: f64, two_sided: bool) -> f64 {
        0.5 * Self::weight(state, violation, two_sided) * violation
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Duals, Rule, at_least, at_most};
    use super::*;

    fn duals(rule: impl Into<Rule>) -> Duals {
        Duals::new([at_least("x", 1.0)], rule).expect("valid")
    }

    /// Minimum of `x² + penalty` for `x >= 1`, where the weight of the violation `1 − x` is `m + s (1 − x)`.
    fn minimum(m: f64, s: f64) -> f64 {
        (m + s) / (2.0 + s)
    }

    #[test]
    fn the_augmented_lagrangian_reaches_the_multiplier_at_its_known_rate() {
        for rho in [0.5, 2.0, 30.0] {
            let rule =
                AugmentedLagrangian { penalty: Penalty { rho, ..Penalty::default() }, ..Default::default() };
            let (mut duals, mut error) = (duals(rule), 2.0);
            for _ in 0..400 {
                let x = minimum(duals.multipliers()[0], rho);
                // There the gradient of the augmented Lagrangian is 0.
                assert!((2.0 * x + duals.weights_at(&[x]).expect("finite")[0]).abs() < 1e-14);
                duals.update(&[x]).expect("finite");
                // λ⁺ = λ + ρ (1 − x) = 2x, so the distance to λ* = 2 falls by 2 / (2 + ρ).
                error *= 2.0 / (2.0 + rho);
                assert!((2.0 - duals.multipliers()[0] - error).abs() < 1e-13, "{rho}: {duals:?}");
            }
            assert!((minimum(duals.multipliers()[0], rho) - 1.0).abs() < 1e-14);
            assert_eq!(duals.clamped(), [Clamped::default()]);
        }
    }

    #[test]
    fn the_squared_hinge_ends_outside_by_what_its_penalty_says() {
        for rho in [0.5, 2.0, 1e6] {
            let mut duals = duals(SquaredHinge { penalty: Penalty { rho, ..Penalty::default() } });
            let x = minimum(0.0, 2.0 * rho);
            assert!((x - rho / (1.0 + rho)).abs() < 1e-15);
            duals.update(&[x]).expect("finite");
            // ∇(x²) = 2x is balanced by the weight, whose sign is that of a lower bound.
            assert!((2.0 * x + duals.weights()[0]).abs() < 1e-9, "{duals:?}");
            assert_eq!(duals.multipliers(), [0.0]);
            duals.update(&[1.5]).expect("finite");
            assert_eq!((duals.weights()[0].abs(), duals.clamped()[0].lower), (0.0, 1));
        }
    }

    #[test]
    fn gradient_steps_with_an_update_each_meet_at_the_saddle_point() {
        let penalty = Penalty { rho: 0.5, ..Penalty::default() };
        let mut duals = duals(AugmentedLagrangian { penalty, ..Default::default() });
        let mut x = 0.0;
        for _ in 0..2_000 {
            x -= 0.05 * (2.0 * x + duals.weights()[0]);
            duals.update(&[x]).expect("finite");
        }
        assert!((x - 1.0).abs() < 1e-9 && (duals.multipliers()[0] - 2.0).abs() < 1e-9, "x = {x}, {duals:?}");
    }

    #[test]
    fn an_inactive_constraint_has_weight_zero_and_does_not_raise_its_penalty() {
        let penalty = Penalty { growth: 10.0, ..Penalty::default() };
        for rule in [
            Rule::from(AugmentedLagrangian { penalty, initial: 0.5, upper: None }),
            Rule::from(SquaredHinge { penalty }),
        ] {
            let mut duals = Duals::new([at_most("c", 1.0)], rule).expect("valid");
            (0..5).for_each(|_| duals.update(&[0.0]).expect("finite"));
            assert_eq!((duals.multipliers(), duals.weights()), (vec![0.0], vec![0.0]));
            assert_eq!(duals.clamped(), [Clamped { lower: 5, upper: 0 }]);
            // The penalty is still 1.
            duals.update(&[2.0]).expect("finite");
            assert!((duals.weights()[0] - 2.0).abs() < 1e-15, "{duals:?}");
        }
    }

    #[test]
    fn the_penalty_grows_while_the_violation_does_not_fall_and_its_limit_is_counted() {
        let penalty = Penalty { rho: 1.0, growth: 10.0, share: 0.5, rho_max: 100.0 };
        let mut duals = Duals::new([at_most("c", 0.0)], SquaredHinge { penalty }).expect("valid");
        // Halved: stays. More than half is left: ten times, twice, and then there is no more.
        for (violation, rho, upper) in
            [(1.0, 1.0, 0), (0.5, 1.0, 0), (0.4, 10.0, 0), (0.4, 100.0, 0), (0.4, 100.0, 1), (0.1, 100.0, 1)]
        {
            duals.update(&[violation]).expect("finite");
            assert!((duals.weights()[0] - 2.0 * rho * violation).abs() < 1e-12, "{duals:?}");
            assert_eq!(duals.clamped()[0].upper, upper);
        }
    }

    #[test]
    fn a_limit_of_the_multiplier_is_kept_and_counted() {
        let rule = AugmentedLagrangian { upper: Some(1.5), ..Default::default() };
        let mut duals = Duals::new([at_most("c", 0.0)], rule).expect("valid");
        for (violation, multiplier, upper) in [(1.0, 1.0, 0), (1.0, 1.5, 1), (1.0, 1.5, 2), (-0.5, 1.0, 2)] {
            duals.update(&[violation]).expect("finite");
            assert!((duals.multipliers()[0] - multiplier).abs() < 1e-15);
            assert_eq!(duals.clamped()[0].upper, upper);
        }
    }

    #[test]
    fn settings_outside_their_range_are_refused() {
        let d = Penalty::default();
        for (penalty, message) in [
            (Penalty { rho: 0.0, ..d }, "rho: must be > 0, got 0 (default 1)"),
            (Penalty { rho: f64::INFINITY, ..d }, "rho: must be > 0, got inf (default 1)"),
            (Penalty { growth: 0.5, ..d }, "growth: must be >= 1, got 0.5 (default 1)"),
            (Penalty { share: f64::NAN, ..d }, "share: must be in [0, 1], got NaN (default 0.5)"),
            (
                Penalty { rho_max: 0.1, ..d },
                "rho_max: must be finite and >= rho, got 0.1 (default 1000000000)",
            ),
        ] {
            let augmented = AugmentedLagrangian { penalty, ..Default::default() };
            assert_eq!(augmented.check().expect_err("refused").to_string(), message);
            assert_eq!(SquaredHinge { penalty }.check().expect_err("refused").to_string(), message);
        }
        for (initial, upper) in [(-1.0, None), (2.0, Some(1.0)), (0.0, Some(f64::NAN)), (0.0, Some(-1.0))] {
            let rule = AugmentedLagrangian { initial, upper, ..Default::default() };
            let message = rule.check().expect_err("refused").to_string();
            assert!(message.starts_with("initial: must be finite and between 0 and upper"), "{message}");
        }
    }
}
