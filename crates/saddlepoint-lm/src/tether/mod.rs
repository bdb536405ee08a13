//! The tether: holds a policy to its reference, with a coefficient (`beta`) or within a budget (`budget`).
//!
//! # What is held
//! The divergence `D` of the policy from the reference in **nats per sequence, on the policy's own samples**:
//! for each prompt sequences are sampled at temperature 1, and the exact divergence of the two next-token
//! distributions is summed over the tokens of each (or averaged over them: `per = "token"`). For the reverse KL this is, in expectation, the KL of whole
//! sequences (chain rule), with less variance than the log-ratio of the samples. See [`Measurement`].
//!
//! # Form
//! `beta`: a constant coefficient. `budget`: `D <= budget` with the multiplier of [`saddlepoint_opt::dual`],
//! updated every `every` optimizer steps from a fresh measurement. Where the coefficient `β` acts depends on the
//! method. One without its own β gets the term `β · D` on the batch's own rows. One with its own `β₀` (DPO: `max E r − β KL`
//! solved for the policy) gets `β` in its place, and under a budget also the term `(β − β₀) · D`: a larger β alone asks for
//! smaller margins, but draws nothing back where the loss has no finite optimum (DPO without `label_smoothing`), or where
//! the divergence went elsewhere than into margins (f-DPO with Jensen-Shannon). A budget that does not bind adds nothing.
//!
//! # The controller
//! This is `dual = "nu_pi"`; the other rules are in [`dual`]. With `e = u / (0.93 budget) − 1`, where `u` is what the
//! upper end of the 95 % interval would be if as many prompts had been measured as will be at the end:
//! ```text
//! ln β = I + kp ξ + kd Δξ,   I ← I + ki e,   ξ: moving average of e (νPI, see `saddlepoint_opt::dual`)
//! ```
//! - *Logarithm*, because the right order of magnitude of β is not known, and `e` without unit, so that the
//!   gains mean the same for every budget.
//! - *Upper end*, because that is what the verdict at the end is about: few prompts make it careful. A controller
//!   ends on either side of its aim, hence the 0.93. The width of the interval is that of the verdict's, since a
//!   budget that is kept by fewer prompts than will judge it is not used.
//! - *Gains*. Near its optimum a policy has margins of the order of 1/β and `D` goes with their square, so
//!   `d ln D = −2 d ln β`: an integral gain of 1/2 would correct an error at once, if the policy followed at once. It
//!   needs some tens of steps (the momentum of the optimizer, the learning rate), and while it does, a controller
//!   that only sees how far it is overshoots. The derivative part sees how fast it comes: with `kd = 2 kp` the
//!   error is that of two measurements ahead. The integral is slow against that (`ki = kp/5`).
//! - `D` starts at 0 and grows, and what is learned beyond the budget has to be unlearned, so the budget is approached
//!   from below. Proportional and derivative part do this: they
//!   weaken β far below the budget and strengthen it on the way, before the budget is passed. `I` starts at
//!   `ln 1.5/√budget`: a divergence of `D` nats goes with margins of about `2√D` nats, and the sigmoid saturates
//!   where β times the margin is about 3. The integral corrects that guess.
//! - β never falls below the method's own: a budget that does not bind changes nothing.
//!
//! Under a budget, evaluations on held-out examples are made with the method's own β, not with the one that the
//! controller has arrived at, so that their losses and margins can be compared.
//!
//! # The end
//! The trainer keeps the latest iterate whose measurement was [`Verdict::Held`]. The last iterate is measured on
//! held-out prompts; unless it is held, the run ends with the kept one, measured afresh (never with the
//! measurement that selected it). With `rescale` the last iterate is moved first, on its line from the reference, to where
//! those prompts say that the budget is, and measured afresh.

pub mod dual;
pub mod gradient;
mod measure;
mod reference;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use saddlepoint_opt::dual::{Clamped, Duals, at_most};

pub use measure::{Estimates, Measurement, Sampled, Spread, Unit, Verdict};
pub use reference::{Ema, Ingredient, ReferenceConfig};

use self::dual::DualConfig;
use crate::engine::{Cotangent, Divergence, Want};
use crate::method::{Method, Per, Sums, View};
use crate::{Error, Result};

/// How far the policy may go from its reference. Exactly one of `beta` and `budget` is given.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(extend("default" = TetherConfig::default()))]
pub struct TetherConfig {
    /// The divergence, exact over the vocabulary.
    pub divergence: Divergence,
    /// What the policy is held to.
    pub reference: ReferenceConfig,
    /// Constant coefficient of the divergence, > 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub beta: Option<f64>,
    /// Largest divergence, in nats (see `per`) on the policy's own samples, > 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub budget: Option<f64>,
    /// What budget and divergence are counted over.
    pub per: Unit,
    /// Optimizer steps between two measurements (budget only).
    pub every: u64,
    /// Prompts of one measurement while training, at least 2; all there are if fewer.
    pub prompts: usize,
    /// Held-out prompts of the measurement at the end, at least 2; all there are if fewer.
    pub final_prompts: usize,
    /// At the end, scale the adapter's update by one factor, at most 1.25, so that the divergence meets the budget (docs/tether.md).
    pub rescale: bool,
    /// Samples a prompt.
    pub samples: usize,
    /// Longest sample, in tokens; the divergence counts up to there, and samples cut there are reported.
    pub max_completion_length: usize,
    /// The rule that moves the coefficient.
    #[serde(flatten)]
    pub dual: DualConfig,
}

impl Default for TetherConfig {
    fn default() -> Self {
        Self {
            divergence: Divergence::default(),
            reference: ReferenceConfig::default(),
            beta: None,
            budget: None,
            per: Unit::default(),
            every: 10,
            prompts: 32,
            final_prompts: 256,
            rescale: false,
            samples: 1,
            max_completion_length: 128,
            dual: DualConfig::default(),
        }
    }
}

/// Whether the coefficient is given or follows from a budget.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Form {
    /// Given.
    Penalty,
    /// Follows from a budget.
    Budget,
}

/// First coefficient for a method without its own beta.
const ADDED_BETA: f64 = 0.05;
/// Range of the coefficient around its first value.
const RANGE: f64 = 1e3;
/// Share of the budget that the controller aims at.
const AIM: f64 = 0.93;

/// The tether of a run.
#[derive(Debug, Clone)]
pub struct Tether {
    config: TetherConfig,
    /// The method's own coefficient, if it has one.
    own: Option<f64>,
    /// Whether the policy starts as its reference, at a divergence of 0.
    together: bool,
    /// What the weight of the duals is added to.
    base: f64,
    duals: Option<Duals>,
}

impl Tether {
    /// The tether of `config` on `method`.
    ///
    /// # Errors
    /// A setting is outside its range, or not exactly one of `beta` and `budget` is given.
    pub fn new(config: TetherConfig, method: &dyn Method) -> Result<Self> {
        let together = config.reference.starts_at_policy();
        Self::starting(config, method, together)
    }

    /// As [`Self::new`] where the policy does not start as its reference although their weights are the same: they read
    /// different contexts, or have different angles of positions.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn apart(config: TetherConfig, method: &dyn Method) -> Result<Self> {
        Self::starting(config, method, false)
    }

    fn starting(config: TetherConfig, method: &dyn Method, together: bool) -> Result<Self> {
        config.check()?;
        let own = method.beta();
        let mut tether = Self { own, together, base: 0.0, duals: None, config };
        if let Some(budget) = tether.config.budget {
            let guess = own.map_or(ADDED_BETA, |beta| beta.max(1.5 / budget.sqrt()));
            let initial = tether.config.dual.initial_beta().unwrap_or(guess);
            let rule;
            (rule, tether.base) = tether.config.dual.rule(own, initial);
            let refuse = |e: saddlepoint_opt::Error| match e {
                saddlepoint_opt::Error::Setting { key: "initial", .. } => {
                    let least = own.unwrap_or_default();
                    setting("initial_beta", format!("must be at least method.beta = {least}, got {initial}"))
                }
                saddlepoint_opt::Error::Setting { key, problem } => setting(key, problem),
                other => other.into(),
            };
            let mut duals = Duals::new([at_most("divergence", 1.0)], rule).map_err(refuse)?;
            if together {
                // A measurement that needs no samples.
                duals.update(&[0.0])?;
            }
            tether.duals = Some(duals);
        }
        Ok(tether)
    }

    /// Its settings.
    pub fn config(&self) -> &TetherConfig {
        &self.config
    }

    /// Penalty or budget.
    pub fn form(&self) -> Form {
        if self.duals.is_some() { Form::Budget } else { Form::Penalty }
    }

    /// The coefficient of the divergence now.
    pub fn beta(&self) -> f64 {
        match &self.duals {
            Some(duals) => self.base + duals.weights()[0],
            None => self.config.beta.expect("checked: a beta where there is no budget"),
        }
    }

    /// The coefficient for [`View::beta`]: only of a method that has its own.
    pub fn method_beta(&self) -> Option<f64> {
        self.own.map(|_| self.beta())
    }

    /// The coefficient for [`View::beta`] in an evaluation: that of a penalty. What a budget moves would make
    /// evaluations after different steps differ by more than the policy, so there the method has its own.
    pub fn constant_beta(&self) -> Option<f64> {
        self.config.beta.filter(|_| self.own.is_some())
    }

    /// Whether it adds a term of its own to the loss.
    fn pulls(&self) -> bool {
        self.own.is_none() || self.duals.is_some()
    }

    /// Whether the coefficient is above the method's own: where it is not, the budget holds by itself.
    pub fn binds(&self) -> bool {
        // The limit is kept as a logarithm.
        self.beta() > self.own.unwrap_or(0.0) * (1.0 + 1e-9)
    }

    /// The statistics it reads of a training batch.
    pub fn want(&self) -> Want {
        Want { divergence: self.pulls().then_some(self.config.divergence), ..Want::default() }
    }

    /// Adds `β · D` of the batch's rows, a mean over sequences (or over tokens), to the cotangent (under a budget
    /// `(β − β₀) · D` where the method has a β₀, which a penalty replaces), and to `sums` the metric
    /// `tether/divergence_data`, in the same unit.
    pub fn penalize(&self, view: &View, out: &mut Cotangent, sums: &mut Sums) {
        if !self.pulls() {
            return;
        }
        let (per, count) = match self.config.per {
            Unit::Sequence => (Per::Sequence, view.norm.sequences),
            Unit::Token => (Per::Token, view.norm.tokens),
        };
        let weight = (self.beta() - self.own.unwrap_or(0.0)) / count as f64;
        out.divergence.resize(view.stats.divergence.len(), 0.0);
        for row in view.sequences.iter().cloned().flatten() {
            out.divergence[row] += weight;
            sums.add("tether/divergence_data", view.stats.divergence[row], per);
        }
    }

    /// Whether a measurement is due after optimizer step `step`, counted from 1; 0 is before the first, where the
    /// divergence of a policy that starts as its reference is known.
    pub fn due(&self, step: u64) -> bool {
        let known = step == 0 && self.together;
        self.duals.is_some() && step.is_multiple_of(self.config.every) && !known
    }

    /// Moves the coefficient after a measurement.
    ///
    /// # Errors
    /// The measurement is not finite.
    pub fn observe(&mut self, measured: &Measurement) -> Result<()> {
        if let (Some(duals), Some(budget)) = (&mut self.duals, self.config.budget) {
            let narrowed = (measured.prompts as f64 / self.config.final_prompts as f64).sqrt();
            let upper = measured.mean + narrowed * (measured.interval[1] - measured.mean);
            duals.update(&[upper / (AIM * budget)])?;
        }
        Ok(())
    }

    /// The verdict on a measurement; none without a budget.
    pub fn verdict(&self, measured: &Measurement) -> Option<Verdict> {
        self.config.budget.map(|budget| measured.verdict(budget))
    }

    /// How often the coefficient stood at a limit; none without a budget.
    pub fn clamped(&self) -> Option<Clamped> {
        self.duals.as_ref().map(|duals| duals.clamped()[0])
    }

    /// State of the multiplier, for a checkpoint.
    pub fn duals(&self) -> Option<&Duals> {
        self.duals.as_ref()
    }

    /// Continues from a checkpoint.
    pub fn restore(&mut self, duals: Option<Duals>) {
        self.duals = duals;
    }

    /// What the run reports at its end.
    pub fn report(&self, measured: &Measurement) -> Report {
        let verdict = self.verdict(measured);
        Report {
            divergence: self.config.divergence,
            reference: self.config.reference.clone(),
            form: self.form(),
            beta: self.beta(),
            budget: self.config.budget,
            per: self.config.per,
            measured: measured.mean,
            interval: measured.interval,
            held: verdict.map(|v| v == Verdict::Held),
            verdict,
            prompts: measured.prompts,
            samples: measured.samples,
            truncated: measured.truncated,
            clamped: self.clamped(),
            estimates: measured.estimates,
            scale: None,
        }
    }
}

/// The end of a tethered run. `budget`, `measured` and `interval` are nats, per sequence or per token.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// Which divergence.
    pub divergence: Divergence,
    /// From what.
    pub reference: ReferenceConfig,
    /// Penalty or budget.
    pub form: Form,
    /// The last coefficient.
    pub beta: f64,
    /// The budget, if there is one.
    pub budget: Option<f64>,
    /// What it is counted over.
    #[serde(default)]
    pub per: Unit,
    /// Mean over held-out prompts.
    pub measured: f64,
    /// Its 95 % confidence interval.
    pub interval: [f64; 2],
    /// Whether the whole interval is within the budget; nothing without a budget.
    pub held: Option<bool>,
    /// The same in three values.
    pub verdict: Option<Verdict>,
    /// Prompts measured.
    pub prompts: usize,
    /// Samples measured.
    pub samples: usize,
    /// Samples cut at `max_completion_length`.
    pub truncated: usize,
    /// Measurements after which the multiplier stood at a limit: at the lower one the budget did not bind, at the upper one
    /// it could not be enforced.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub clamped: Option<Clamped>,
    /// What other estimates of the reverse KL say of the same samples.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub estimates: Option<Estimates>,
    /// The factor on the adapter's update, with `rescale`; none where the run ended with an iterate that was kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scale: Option<f64>,
}

fn setting(key: &str, problem: String) -> Error {
    Error::Config { key: format!("tether.{key}"), problem }
}

impl TetherConfig {
    fn check(&self) -> Result<()> {
        let positive = |key, value: Option<f64>| match value {
            Some(v) if !(v > 0.0 && v.is_finite()) => Err(setting(key, format!("must be > 0, got {v}"))),
            _ => Ok(()),
        };
        match (self.beta, self.budget) {
            (None, None) => {
                let problem = "needs either `budget` (nats, see `per`) or `beta` (a coefficient)".to_owned();
                return Err(Error::Config { key: "tether".to_owned(), problem });
            }
            (Some(_), Some(_)) => {
                let problem = "takes `budget` or `beta`, not both; remove one".to_owned();
                return Err(Error::Config { key: "tether".to_owned(), problem });
            }
            _ => {}
        }
        self.divergence.check().map_err(|e| setting("divergence", e.to_string()))?;
        self.reference.check()?;
        positive("beta", self.beta)?;
        positive("budget", self.budget)?;
        positive("initial_beta", self.dual.initial_beta())?;
        let d = Self::default();
        for (key, value, least, default) in [
            ("every", self.every as usize, 1, d.every as usize),
            ("prompts", self.prompts, 2, d.prompts),
            ("final_prompts", self.final_prompts, 2, d.final_prompts),
            ("samples", self.samples, 1, d.samples),
            ("max_completion_length", self.max_completion_length, 1, d.max_completion_length),
        ] {
            if value < least {
                return Err(setting(
                    key,
                    format!("must be at least {least}, got {value} (default {default})"),
                ));
            }
        }
        self.dual.check()
    }
}

#[cfg(test)]
mod tests;
