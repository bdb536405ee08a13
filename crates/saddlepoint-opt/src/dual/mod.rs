//! Multipliers of constraints.
//!
//! For `min f(x)` subject to `c_i(x) <= b_i` (or `>=`, or `=`), the Lagrangian is `L(x, λ) = f(x) + Σ λ_i e_i(x)` with
//! the violation `e_i = c_i − b_i` (or `b_i − c_i`) and `λ_i >= 0`; of an equality `λ_i` has either sign. The parameters
//! descend on `L`, the multipliers ascend on it; [`Duals`] is the ascending half, for solvers and training loops alike.
//!
//! | rule | weight of a constraint's gradient | ends |
//! |---|---|---|
//! | [`NuPi`] | the multiplier: projected dual ascent with a PI step | at the constraint |
//! | [`AugmentedLagrangian`] | `max(0, λ + ρ e)`, with `λ ← max(0, λ + ρ e)` | at the constraint |
//! | [`SquaredHinge`] | `2 ρ max(0, e)` | outside by about `λ* / 2ρ`, if the constraint binds |
//!
//! For an equality there is no `max` and no limit at 0.
//!
//! ```
//! use saddlepoint_opt::dual::{Duals, NuPi, at_most};
//! let mut duals = Duals::new([at_most("kl", 0.05)], NuPi::default())?;
//! duals.update(&[0.08])?; // measured: above the bound
//! assert!(duals.weights()[0] > 0.0); // so its gradient now has a weight
//! # Ok::<(), saddlepoint_opt::Error>(())
//! ```

mod nu_pi;
mod penalty;

pub use nu_pi::{NuPi, Scale};
pub use penalty::{AugmentedLagrangian, Penalty, SquaredHinge};

use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// On which side of its bound a measured quantity has to stay.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Sense {
    /// `c <= bound`.
    AtMost,
    /// `c >= bound`.
    AtLeast,
    /// `c = bound`.
    Equal,
}

/// A named bound on a measured quantity.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Constraint {
    /// Name, as reported.
    pub name: String,
    /// Side of the bound.
    pub sense: Sense,
    /// The bound, in the unit of the quantity.
    pub bound: f64,
}

/// The constraint `c <= bound`.
pub fn at_most(name: impl Into<String>, bound: f64) -> Constraint {
    Constraint { name: name.into(), sense: Sense::AtMost, bound }
}

/// The constraint `c >= bound`.
pub fn at_least(name: impl Into<String>, bound: f64) -> Constraint {
    Constraint { name: name.into(), sense: Sense::AtLeast, bound }
}

/// The constraint `c = bound`.
pub fn equal(name: impl Into<String>, bound: f64) -> Constraint {
    Constraint { name: name.into(), sense: Sense::Equal, bound }
}

impl Constraint {
    /// The violation `e`: positive where the constraint is broken; of an equality `c − bound`, broken on either side of 0.
    pub fn violation(&self, measured: f64) -> f64 {
        self.sign() * (measured - self.bound)
    }

    /// Derivative of the violation with respect to the measured quantity.
    fn sign(&self) -> f64 {
        match self.sense {
            Sense::AtMost | Sense::Equal => 1.0,
            Sense::AtLeast => -1.0,
        }
    }

    /// Whether its multiplier may have either sign.
    fn two_sided(&self) -> bool {
        self.sense == Sense::Equal
    }
}

/// How multipliers follow from violations.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Rule {
    /// See [`NuPi`].
    NuPi(NuPi),
    /// See [`AugmentedLagrangian`].
    AugmentedLagrangian(AugmentedLagrangian),
    /// See [`SquaredHinge`].
    SquaredHinge(SquaredHinge),
}

impl From<NuPi> for Rule {
    fn from(rule: NuPi) -> Self {
        Self::NuPi(rule)
    }
}

impl From<AugmentedLagrangian> for Rule {
    fn from(rule: AugmentedLagrangian) -> Self {
        Self::AugmentedLagrangian(rule)
    }
}

impl From<SquaredHinge> for Rule {
    fn from(rule: SquaredHinge) -> Self {
        Self::SquaredHinge(rule)
    }
}

/// A rule and what it remembers of each constraint.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Ascent {
    NuPi { rule: NuPi, state: Vec<nu_pi::State> },
    AugmentedLagrangian { rule: AugmentedLagrangian, state: Vec<penalty::State> },
    SquaredHinge { rule: SquaredHinge, state: Vec<penalty::State> },
}

/// Multipliers of constraints. Serialised in a format that keeps every `f64`, they continue exactly.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Duals {
    constraints: Vec<Constraint>,
    ascent: Ascent,
}

impl Duals {
    /// Multipliers at the start of `rule`.
    ///
    /// # Errors
    /// A setting of the rule or a bound is outside its range.
    pub fn new(constraints: impl IntoIterator<Item = Constraint>, rule: impl Into<Rule>) -> Result<Self> {
        let constraints: Vec<_> = constraints.into_iter().collect();
        if let Some(c) = constraints.iter().find(|c| !c.bound.is_finite()) {
            let problem = format!("of `{}` must be finite, got {}", c.name, c.bound);
            return Err(Error::Setting { key: "bound", problem });
        }
        let count = constraints.len();
        let ascent = match rule.into() {
            Rule::NuPi(rule) => {
                rule.check()?;
                if let Some(c) = constraints.iter().find(|c| c.two_sided() && rule.scale == Scale::Log) {
                    let problem = format!(
                        "must be linear for the equality `{}`: its multiplier may be negative",
                        c.name
                    );
                    return Err(Error::Setting { key: "scale", problem });
                }
                Ascent::NuPi { rule, state: vec![rule.start(); count] }
            }
            Rule::AugmentedLagrangian(rule) => {
                rule.check()?;
                Ascent::AugmentedLagrangian { rule, state: vec![rule.start(); count] }
            }
            Rule::SquaredHinge(rule) => {
                rule.check()?;
                Ascent::SquaredHinge { rule, state: vec![rule.start(); count] }
            }
        };
        Ok(Self { constraints, ascent })
    }

    /// The constraints, in the order of every slice here.
    pub fn constraints(&self) -> &[Constraint] {
        &self.constraints
    }

    /// The multipliers `λ_i`; a squared hinge has none, so there they are 0.
    pub fn multipliers(&self) -> Vec<f64> {
        match &self.ascent {
            Ascent::NuPi { state, .. } => state.iter().map(|s| s.multiplier).collect(),
            Ascent::AugmentedLagrangian { state, .. } | Ascent::SquaredHinge { state, .. } => {
                state.iter().map(|s| s.multiplier).collect()
            }
        }
    }

    /// Derivative of the Lagrangian (or of the penalties) with respect to each measured quantity, where the last update
    /// measured it: the weight for `<=`, minus it for `>=`. Multiply the gradient of each quantity by it.
    pub fn weights(&self) -> Vec<f64> {
        let weights: Vec<f64> = match &self.ascent {
            Ascent::NuPi { .. } => self.multipliers(),
            Ascent::AugmentedLagrangian { state, .. } => {
                self.each(state, |s, two| AugmentedLagrangian::weight(s, s.violation, two))
            }
            Ascent::SquaredHinge { state, .. } => {
                self.each(state, |s, two| SquaredHinge::weight(s, s.violation, two))
            }
        };
        self.signed(&weights)
    }

    /// The same where the quantities are `measured`, for loops that take several steps between two updates. The
    /// multipliers of [`NuPi`] do not depend on where it is.
    ///
    /// # Errors
    /// The number of values is wrong or one is not finite.
    pub fn weights_at(&self, measured: &[f64]) -> Result<Vec<f64>> {
        let violations = self.violations(measured)?;
        let weights: Vec<f64> = match &self.ascent {
            Ascent::NuPi { .. } => self.multipliers(),
            Ascent::AugmentedLagrangian { state, .. } => {
                let at = state.iter().zip(&violations);
                self.each(at, |(s, &e), two| AugmentedLagrangian::weight(s, e, two))
            }
            Ascent::SquaredHinge { state, .. } => {
                self.each(state.iter().zip(&violations), |(s, &e), two| SquaredHinge::weight(s, e, two))
            }
        };
        Ok(self.signed(&weights))
    }

    /// What the rule adds to the objective where the quantities are `measured`: `Σ λ e`, or the penalties. Its derivative with
    /// respect to the quantities are the weights of [`Duals::weights_at`].
    ///
    /// # Errors
    /// The number of values is wrong or one is not finite.
    pub fn term_at(&self, measured: &[f64]) -> Result<f64> {
        let violations = self.violations(measured)?;
        Ok(match &self.ascent {
            Ascent::NuPi { state, .. } => state.iter().zip(&violations).map(|(s, e)| s.multiplier * e).sum(),
            Ascent::AugmentedLagrangian { state, .. } => {
                let at = state.iter().zip(&violations);
                self.each(at, |(s, &e), two| AugmentedLagrangian::term(s, e, two)).iter().sum()
            }
            Ascent::SquaredHinge { state, .. } => {
                let at = state.iter().zip(&violations);
                self.each(at, |(s, &e), two| SquaredHinge::term(s, e, two)).iter().sum()
            }
        })
    }

    fn each<T>(&self, states: impl IntoIterator<Item = T>, of: impl Fn(T, bool) -> f64) -> Vec<f64> {
        states.into_iter().zip(&self.constraints).map(|(state, c)| of(state, c.two_sided())).collect()
    }

    fn signed(&self, weights: &[f64]) -> Vec<f64> {
        self.constraints.iter().zip(weights).map(|(c, w)| c.sign() * w).collect()
    }

    fn violations(&self, measured: &[f64]) -> Result<Vec<f64>> {
        if measured.len() != self.constraints.len() {
            let (expected, got) = (self.constraints.len(), measured.len());
            return Err(Error::Length { what: "measured constraints", expected, got });
        }
        let pairs = self.constraints.iter().zip(measured);
        pairs
            .map(|(c, &value)| {
                let violation = c.violation(value);
                if violation.is_finite() {
                    Ok(violation)
                } else {
                    Err(Error::Measured { name: c.name.clone(), value })
                }
            })
            .collect()
    }

    /// One update from the measured quantities, which may be other estimates than the ones whose gradients are taken
    /// (a proxy constraint).
    ///
    /// # Errors
    /// The number of values is wrong, one is not finite, or a weight would not be; then nothing has changed.
    pub fn update(&mut self, measured: &[f64]) -> Result<()> {
        let violations = self.violations(measured)?;
        let mut next = self.clone();
        let violations = violations.into_iter().zip(self.constraints.iter().map(Constraint::two_sided));
        match &mut next.ascent {
            Ascent::NuPi { rule, state } => {
                state.iter_mut().zip(violations).for_each(|(s, (e, two))| rule.step(s, e, two));
            }
            Ascent::AugmentedLagrangian { rule, state } => {
                state.iter_mut().zip(violations).for_each(|(s, (e, two))| rule.step(s, e, two));
            }
            Ascent::SquaredHinge { rule, state } => {
                state.iter_mut().zip(violations).for_each(|(s, (e, two))| rule.step(s, e, two));
            }
        }
        let weights = next.weights();
        if let Some(i) = weights.iter().position(|weight| !weight.is_finite()) {
            let (name, value) = (self.constraints[i].name.clone(), measured[i]);
            return Err(Error::Weight { name, value, weight: weights[i] });
        }
        *self = next;
        Ok(())
    }

    /// Multiplies every penalty by `factor > 1`, for a solver that knows that they are too small; whether one was below its
    /// limit. Rules without a penalty are left alone.
    pub(crate) fn raise_penalties(&mut self, factor: f64) -> bool {
        match &mut self.ascent {
            Ascent::NuPi { .. } => false,
            Ascent::AugmentedLagrangian { rule: AugmentedLagrangian { penalty, .. }, state }
            | Ascent::SquaredHinge { rule: SquaredHinge { penalty }, state } => {
                let mut below = false;
                for s in state {
                    below |= penalty.multiply(s, factor);
                }
                below
            }
        }
    }

    /// How often each multiplier was held at its lower and at its upper limit. The lower limit is ordinary (an
    /// inactive constraint has multiplier 0); the upper one says that the constraint could not be enforced.
    pub fn clamped(&self) -> Vec<Clamped> {
        match &self.ascent {
            Ascent::NuPi { state, .. } => state.iter().map(|s| s.clamped).collect(),
            Ascent::AugmentedLagrangian { state, .. } | Ascent::SquaredHinge { state, .. } => {
                state.iter().map(|s| s.clamped).collect()
            }
        }
    }
}

/// Number of updates after which a multiplier (or a penalty that was to be raised) stood at a limit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Clamped {
    /// At the lower limit.
    pub lower: u64,
    /// At the upper limit.
    pub upper: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// min x² subject to x >= 1: the saddle point is x = 1 with 2x − λ = 0, so λ = 2.
    fn toy(rule: NuPi, steps: usize) -> (f64, Duals, Vec<f64>) {
        let mut duals = Duals::new([at_least("x", 1.0)], rule).expect("valid rule");
        let (mut x, mut path) = (0.0, Vec::new());
        for _ in 0..steps {
            x -= 0.05 * (2.0 * x + duals.weights()[0]);
            duals.update(&[x]).expect("finite");
            path.push(x);
        }
        (x, duals, path)
    }

    #[test]
    fn descent_and_ascent_meet_at_the_saddle_point() {
        let (x, duals, _) = toy(NuPi { kp: 1.0, ki: 0.1, ..NuPi::default() }, 2_000);
        assert!((x - 1.0).abs() < 1e-9, "x = {x}");
        assert!((duals.multipliers()[0] - 2.0).abs() < 1e-9, "{:?}", duals.multipliers());
        assert_eq!(duals.clamped()[0], Clamped::default());
    }

    #[test]
    fn an_inactive_constraint_has_multiplier_zero_and_recovers_at_once() {
        let mut duals = Duals::new([at_most("c", 1.0)], NuPi { ki: 0.1, ..NuPi::default() }).expect("valid");
        for _ in 0..100 {
            duals.update(&[0.0]).expect("finite");
        }
        assert_eq!(duals.multipliers(), [0.0]);
        assert_eq!(duals.clamped(), [Clamped { lower: 100, upper: 0 }]);
        duals.update(&[2.0]).expect("finite");
        assert!(duals.multipliers()[0] > 0.09, "the integral wound up: {:?}", duals.multipliers());
    }

    #[test]
    fn the_proportional_part_damps_the_oscillation() {
        let overshoot = |kp| {
            let (_, _, path) = toy(NuPi { kp, ki: 0.5, ..NuPi::default() }, 400);
            path.iter().copied().fold(f64::MIN, f64::max) - 1.0
        };
        let (pure_i, pi) = (overshoot(0.0), overshoot(8.0));
        assert!(pure_i > 0.3, "the integral alone overshoots: {pure_i}");
        assert!(pi < 0.2 * pure_i, "overshoot {pi} with P, {pure_i} without");
    }

    #[test]
    fn the_derivative_part_foresees_a_quantity_that_follows_with_a_delay() {
        // c follows 2 − λ with momentum; the constraint c <= 1 holds at λ = 1.
        let overshoot = |kd| {
            let rule = NuPi { kp: 1.0, ki: 0.1, kd, ..NuPi::default() };
            let mut duals = Duals::new([at_most("c", 1.0)], rule).expect("valid");
            let (mut c, mut v, mut most) = (0.0_f64, 0.0, 0.0_f64);
            for _ in 0..400 {
                v = 0.8 * v + 0.05 * (2.0 - duals.multipliers()[0] - c);
                c += v;
                most = most.max(c);
                duals.update(&[c]).expect("finite");
            }
            assert!((c - 1.0).abs() < 1e-3, "kd {kd}: c = {c}");
            most - 1.0
        };
        let (without, with) = (overshoot(0.0), overshoot(6.0));
        assert!(without > 0.8 && with < 0.55 * without, "overshoot {with} with D, {without} without");
    }

    #[test]
    fn without_p_the_step_is_projected_dual_ascent() {
        let rule = NuPi { kp: 0.0, ki: 0.3, upper: Some(1.0), ..NuPi::default() };
        let mut duals = Duals::new([at_most("c", 0.0)], rule).expect("valid");
        let mut lambda = 0.0_f64;
        for e in [1.0, 2.0, 3.0, -0.5, -4.0, 0.2] {
            lambda = (lambda + 0.3 * e).clamp(0.0, 1.0);
            duals.update(&[e]).expect("finite");
            assert!((duals.multipliers()[0] - lambda).abs() < 1e-15);
        }
    }

    /// One of each rule, with settings that matter.
    fn rules() -> [Rule; 3] {
        let penalty = Penalty { rho: 0.3, growth: 1.1, ..Penalty::default() };
        [
            NuPi { kp: 0.7, ki: 0.13, nu: 0.4, ..NuPi::default() }.into(),
            AugmentedLagrangian { penalty, initial: 0.2, upper: Some(3.0) }.into(),
            SquaredHinge { penalty }.into(),
        ]
    }

    #[test]
    fn restart_continues_exactly() {
        for rule in rules() {
            let mut whole = Duals::new([at_most("a", 0.3), at_least("b", 0.1)], rule).expect("valid");
            let measured = |t: u32| [0.3 + (f64::from(t) * 0.7).sin(), 0.1 + (f64::from(t) * 1.3).cos()];
            let mut parts = whole.clone();
            for t in 0..50 {
                whole.update(&measured(t)).expect("finite");
                let text = serde_json::to_string(&parts).expect("serialises");
                parts = serde_json::from_str(&text).expect("parses");
                parts.update(&measured(t)).expect("finite");
            }
            assert_eq!(whole, parts);
            let bits = |duals: &Duals| duals.weights().into_iter().map(f64::to_bits).collect::<Vec<_>>();
            assert_eq!(bits(&whole), bits(&parts));
        }
    }

    #[test]
    fn weights_are_the_derivative_of_the_term() {
        for rule in rules() {
            let constraints = || [at_most("a", 0.3), at_least("b", 0.1)].into_iter();
            let two_sided = !matches!(rule, Rule::NuPi(NuPi { scale: Scale::Log, .. }));
            let last = two_sided.then(|| equal("c", -0.2));
            let mut duals = Duals::new(constraints().chain(last), rule).expect("valid");
            let n = duals.constraints().len();
            for t in 0..6 {
                let at: Vec<f64> = (0..n).map(|i| (f64::from(t) * 1.7 + i as f64).sin()).collect();
                let weights = duals.weights_at(&at).expect("finite");
                for i in 0..n {
                    let term = |h: f64| {
                        let mut at = at.clone();
                        at[i] += h;
                        duals.term_at(&at).expect("finite")
                    };
                    let slope = (term(1e-6) - term(-1e-6)) / 2e-6;
                    assert!(
                        (slope - weights[i]).abs() < 1e-7 * (1.0 + slope.abs()),
                        "{rule:?}: {slope} {weights:?}"
                    );
                }
                duals.update(&at).expect("finite");
            }
        }
    }

    /// min x² subject to x = 1: 2x + λ = 0, so λ = −2, and that of x = −1 is 2.
    #[test]
    fn the_multiplier_of_an_equality_has_either_sign() {
        for (bound, expected) in [(1.0, -2.0), (-1.0, 2.0)] {
            let penalty = Penalty { rho: 0.5, ..Penalty::default() };
            for rule in [
                Rule::from(NuPi { kp: 1.0, ki: 0.1, ..NuPi::default() }),
                AugmentedLagrangian { penalty, ..Default::default() }.into(),
            ] {
                let mut duals = Duals::new([equal("x", bound)], rule).expect("valid");
                let mut x = 0.0;
                for _ in 0..2_000 {
                    x -= 0.05 * (2.0 * x + duals.weights()[0]);
                    duals.update(&[x]).expect("finite");
                }
                assert!((x - bound).abs() < 1e-9, "{rule:?}: {x}");
                assert!((duals.multipliers()[0] - expected).abs() < 1e-9, "{rule:?}: {duals:?}");
                assert_eq!(duals.clamped(), [Clamped::default()]);
            }
        }
        let log = NuPi { scale: Scale::Log, lower: 0.1, initial: 0.2, ..NuPi::default() };
        let message = Duals::new([equal("x", 1.0)], log).expect_err("refused").to_string();
        assert_eq!(message, "scale: must be linear for the equality `x`: its multiplier may be negative");
    }

    #[test]
    fn what_is_not_finite_changes_nothing() {
        for rule in rules() {
            let mut duals = Duals::new([at_most("kl", 0.1)], rule).expect("valid");
            let before = duals.clone();
            for (measured, told) in [
                (f64::NAN, "constraint `kl` was measured as NaN; nothing was updated"),
                (f64::NEG_INFINITY, "constraint `kl` was measured as -inf"),
            ] {
                let message = duals.update(&[measured]).expect_err("refused").to_string();
                assert!(message.starts_with(told), "{message}");
                let message = duals.weights_at(&[measured]).expect_err("refused").to_string();
                assert!(message.starts_with(told), "{message}");
            }
            let message = duals.update(&[]).expect_err("refused").to_string();
            assert!(message.contains("expected 1 elements, got 0"), "{message}");
            assert_eq!(duals, before);
        }
        let penalty = Penalty { rho: 1e9, ..Penalty::default() };
        let gains = NuPi { kp: 1e9, ..NuPi::default() };
        let rules: [Rule; 3] = [
            gains.into(),
            SquaredHinge { penalty }.into(),
            AugmentedLagrangian { penalty, ..Default::default() }.into(),
        ];
        for rule in rules {
            let mut duals = Duals::new([at_most("kl", 0.1)], rule).expect("valid");
            let before = duals.clone();
            let message = duals.update(&[1e300]).expect_err("refused").to_string();
            assert!(
                message.starts_with("the weight of constraint `kl` would be inf after a measurement"),
                "{message}"
            );
            assert_eq!(duals, before);
        }
    }
}
