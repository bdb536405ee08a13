//! Which rule moves the coefficient under a budget.
//!
//! Every rule sees the violation `e = u / (0.93 budget) − 1` of the parent module.
//!
//! `nu_pi` moves `ln β` and is the default. The other two are penalties, whose weight is 0 while the budget is kept, and
//! add to the coefficient that the method has of itself (β₀; 0 for a method that has none):
//! ```text
//! augmented_lagrangian   β = β₀ + max(0, λ + rho e),   λ ← max(0, λ + rho e)
//! squared_hinge          β = β₀ + 2 rho max(0, e)
//! ```
//! `rho` is what a measurement at twice the aim adds to β (a hinge: half of it). For a method with its own β this is the
//! Lagrangian of `max E r − β₀ D` under `D <= budget`, in which β₀ and the multiplier add up; so both rules mean the same for
//! either kind of method.
//!
//! - `augmented_lagrangian` is a PI controller with equal gains on β itself. Its λ starts at the first coefficient less β₀. A
//!   gain on β has to fit its size, which is known only as well as the first guess: `rho` is by default a tenth of that.
//! - `squared_hinge` cannot bring `D` to the budget: where the budget binds, its β is above β₀ only while `e > 0`, so `D` rests
//!   above the aim by the share `(β* − β₀) / (2 rho)`, where β* is the coefficient that would hold it. The aim lies 7 % below
//!   the budget, so the budget holds from `rho` above about `7 (β* − β₀)`; but the larger it is, the more a measurement's
//!   noise moves β, up to switching it on and off. By default `rho` is ten times the first guess of β.
//!
//! With `growth > 1`, `rho` is multiplied by it after each measurement that leaves more than half of the violation that the
//! last one left, up to a thousand times its first value.

use saddlepoint_opt::dual::{AugmentedLagrangian, NuPi, Penalty, Rule, Scale, SquaredHinge};
use schemars::{JsonSchema, Schema};
use serde::{Deserialize, Serialize};

use super::{RANGE, setting};
use crate::Result;

/// The rule and its settings, chosen by `dual`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "dual", rename_all = "snake_case")]
#[schemars(transform = describe)]
pub enum DualConfig {
    /// A controller of `ln beta`.
    NuPi(Gains),
    /// A multiplier beside a quadratic penalty.
    AugmentedLagrangian(Augmented),
    /// A quadratic penalty alone.
    SquaredHinge(Hinge),
}

/// Gives the key that chooses the rule its meaning.
fn describe(schema: &mut Schema) {
    let kinds = schema.get_mut("oneOf").and_then(|kinds| kinds.as_array_mut());
    for kind in kinds.into_iter().flatten() {
        kind["properties"]["dual"]["description"] =
            "How the coefficient follows from the measurements (budget only).".into();
    }
}

/// Settings of `nu_pi`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Gains {
    /// First coefficient at the budget. Without it: `1.5 / sqrt(budget)`, but not below the method's beta; 0.05
    /// for a method that has none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub initial_beta: Option<f64>,
    /// Proportional gain on `ln beta`.
    pub kp: f64,
    /// Integral gain on `ln beta`, a measurement.
    pub ki: f64,
    /// Derivative gain on `ln beta`: `kd / kp` is how many measurements it looks ahead.
    pub kd: f64,
    /// Weight of the past in the average that the proportional and the derivative part see, in [0, 1).
    pub nu: f64,
}

impl Default for Gains {
    fn default() -> Self {
        Self { initial_beta: None, kp: 1.0, ki: 0.2, kd: 2.0, nu: 0.3 }
    }
}

/// Settings of `augmented_lagrangian`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Augmented {
    /// First coefficient at the budget. Without it as for `nu_pi`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub initial_beta: Option<f64>,
    /// Gain on `beta`, > 0. Without it a tenth of the first coefficient.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rho: Option<f64>,
    /// Factor of `rho` after a measurement that does not halve the violation, >= 1.
    pub growth: f64,
}

impl Default for Augmented {
    fn default() -> Self {
        Self { initial_beta: None, rho: None, growth: 1.0 }
    }
}

/// Settings of `squared_hinge`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Hinge {
    /// Penalty: half of the coefficient per violation, > 0. Without it ten times what `nu_pi` starts with.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rho: Option<f64>,
    /// Factor of `rho` after a measurement that does not halve the violation, >= 1.
    pub growth: f64,
}

impl Default for Hinge {
    fn default() -> Self {
        Self { rho: None, growth: 1.0 }
    }
}

impl Default for DualConfig {
    fn default() -> Self {
        Self::NuPi(Gains::default())
    }
}

impl DualConfig {
    /// The given first coefficient.
    pub(super) fn initial_beta(&self) -> Option<f64> {
        match self {
            Self::NuPi(Gains { initial_beta, .. })
            | Self::AugmentedLagrangian(Augmented { initial_beta, .. }) => *initial_beta,
            Self::SquaredHinge(_) => None,
        }
    }

    /// The rule for a method with this coefficient of its own, starting from `initial`; and the coefficient to which its
    /// weight is added.
    pub(super) fn rule(&self, own: Option<f64>, initial: f64) -> (Rule, f64) {
        let base = own.unwrap_or(0.0);
        let penalty = |rho: Option<f64>, share: f64, growth| {
            let rho = rho.unwrap_or(share * initial);
            Penalty { rho, growth, rho_max: rho * RANGE, ..Penalty::default() }
        };
        match *self {
            Self::NuPi(Gains { kp, ki, kd, nu, .. }) => {
                let rule = NuPi {
                    kp,
                    ki,
                    kd,
                    nu,
                    initial,
                    lower: own.unwrap_or(initial / RANGE),
                    upper: Some(initial * RANGE),
                    scale: Scale::Log,
                };
                (rule.into(), 0.0)
            }
            Self::AugmentedLagrangian(Augmented { rho, growth, .. }) => {
                let penalty = penalty(rho, 0.1, growth);
                let upper = Some(initial * RANGE);
                (AugmentedLagrangian { penalty, initial: initial - base, upper }.into(), base)
            }
            Self::SquaredHinge(Hinge { rho, growth }) => {
                (SquaredHinge { penalty: penalty(rho, 10.0, growth) }.into(), base)
            }
        }
    }

    pub(super) fn check(&self) -> Result<()> {
        let d = Gains::default();
        let below = |key, value: f64, below: f64, range, default: f64| {
            let problem = || format!("must be {range}, got {value} (default {default})");
            if (0.0..below).contains(&value) { Ok(()) } else { Err(setting(key, problem())) }
        };
        match *self {
            Self::NuPi(Gains { kp, ki, kd, nu, .. }) => {
                below("kp", kp, f64::INFINITY, ">= 0", d.kp)?;
                below("ki", ki, f64::INFINITY, ">= 0", d.ki)?;
                below("kd", kd, f64::INFINITY, ">= 0", d.kd)?;
                below("nu", nu, 1.0, "in [0, 1)", d.nu)
            }
            Self::AugmentedLagrangian(Augmented { rho, growth, .. })
            | Self::SquaredHinge(Hinge { rho, growth }) => {
                if let Some(rho) = rho.filter(|rho| !(*rho > 0.0 && rho.is_finite())) {
                    return Err(setting("rho", format!("must be > 0, got {rho}")));
                }
                if growth >= 1.0 && growth.is_finite() {
                    return Ok(());
                }
                Err(setting("growth", format!("must be >= 1, got {growth} (default 1)")))
            }
        }
    }
}
