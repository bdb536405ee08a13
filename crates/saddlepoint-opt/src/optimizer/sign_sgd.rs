//! signSGD and Signum: a step of the same size in every coordinate, along the sign of the momentum.
//!
//! ```text
//! p ← p (1 − lr·wd)                                  where decay applies
//! m ← μ m + (1 − μ) g
//! p ← p − lr·sign(m),   sign(0) = 0
//! ```
//! Bernstein et al. 2018, arXiv:1802.04434 (Signum is their algorithm 2; `μ = 0` is signSGD). It is
//! [Lion](super::lion) with `beta1 = beta2 = μ`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Tensor;
use super::momentum::{Momentum, Rule};
use crate::{Error, Result};

/// Settings.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct SignSgdConfig {
    /// Decay of the momentum, in [0, 1). 0: the sign of the gradient itself.
    pub momentum: f64,
    /// Decoupled weight decay, on matrices only, >= 0.
    pub weight_decay: f64,
}

impl Default for SignSgdConfig {
    fn default() -> Self {
        Self { momentum: 0.9, weight_decay: 0.0 }
    }
}

/// The optimizer and its state, for one arena.
#[derive(Debug, Clone)]
pub struct SignSgd {
    config: SignSgdConfig,
    momentum: Momentum,
}

impl SignSgd {
    /// For tensors that lie one after another.
    ///
    /// # Errors
    /// A setting is outside its range.
    pub fn new(config: SignSgdConfig, tensors: &[Tensor]) -> Result<Self> {
        let d = SignSgdConfig::default();
        Error::fraction("momentum", config.momentum, d.momentum)?;
        Error::not_negative("weight_decay", config.weight_decay, d.weight_decay)?;
        Ok(Self { config, momentum: Momentum::new(tensors) })
    }

    /// One update with learning rate `lr` from the gradients times `grad_scale` (the clipping factor).
    pub fn update(&mut self, params: &mut [f32], grads: &[f32], lr: f64, grad_scale: f64) {
        let SignSgdConfig { momentum, weight_decay } = self.config;
        let kept = Step { grad_scale, lr, momentum, keep: 1.0 };
        self.momentum.update(params, grads, kept, Step { keep: 1.0 - lr * weight_decay, ..kept });
    }

    /// The momentum, for a checkpoint.
    pub fn state(&self) -> &[f32] {
        &self.momentum.values
    }

    /// Continues from a checkpoint.
    ///
    /// # Errors
    /// The momentum is not of this arena's length; then nothing has changed.
    pub fn restore(&mut self, momentum: &[f32]) -> Result<()> {
        self.momentum.restore(momentum)
    }
}

#[derive(Debug, Clone, Copy)]
struct Step {
    grad_scale: f64,
    lr: f64,
    momentum: f64,
    keep: f64,
}

impl Rule for Step {
    #[allow(clippy::inline_always, reason = "compiled once for each instruction set, inside the dispatch")]
    #[inline(always)]
    fn step(self, p: f64, g: f64, m: f64) -> (f64, f64) {
        let m = self.momentum * m + (1.0 - self.momentum) * (self.grad_scale * g);
        (self.keep * p - self.lr * sign(m), m)
    }
}

/// `−1`, `0` or `1`.
#[allow(clippy::inline_always, reason = "compiled once for each instruction set, inside the dispatch")]
#[inline(always)]
pub(super) fn sign(z: f64) -> f64 {
    f64::from(u8::from(z > 0.0)) - f64::from(u8::from(z < 0.0))
}

#[cfg(test)]
mod tests {
    use saddlepoint_core::test::assert_close;

    use super::*;

    const TENSORS: [Tensor; 2] =
        [Tensor { rows: 1, columns: 2, decays: true }, Tensor { rows: 1, columns: 2, decays: false }];

    #[test]
    fn every_element_moves_as_far_except_at_zero() {
        let config = SignSgdConfig { momentum: 0.0, weight_decay: 0.5 };
        let mut sign_sgd = SignSgd::new(config, &TENSORS).expect("valid");
        let mut params = [1.0_f32, -2.0, 1.0, -2.0];
        sign_sgd.update(&mut params, &[1e-30, -0.0, -4.0, 1e30], 0.1, 1.0);
        assert_close!(params, [0.85, -1.9, 1.1, -2.1], rtol = 1e-7);
    }

    #[test]
    fn the_momentum_decides_and_comes_back() {
        let config = SignSgdConfig { momentum: 0.75, weight_decay: 0.0 };
        let mut sign_sgd = SignSgd::new(config, &TENSORS).expect("valid");
        let mut params = [0.0_f32; 4];
        sign_sgd.update(&mut params, &[4.0, -4.0, 4.0, -4.0], 0.5, 0.5);
        assert_close!(sign_sgd.state(), [0.5, -0.5, 0.5, -0.5], atol = 0.0);
        let mut again = SignSgd::new(config, &TENSORS).expect("valid");
        again.restore(sign_sgd.state()).expect("same arena");
        // Against the momentum, once too little and once enough.
        again.update(&mut params, &[-1.0, 1.0, -2.0, 2.0], 0.5, 1.0);
        assert_close!(params, [-1.0, 1.0, 0.0, 0.0], atol = 0.0);
    }

    #[test]
    fn settings_outside_their_range_are_refused() {
        let d = SignSgdConfig::default();
        for (config, message) in [
            (SignSgdConfig { momentum: -0.1, ..d }, "momentum: must be in [0, 1), got -0.1 (default 0.9)"),
            (
                SignSgdConfig { weight_decay: f64::NAN, ..d },
                "weight_decay: must be >= 0, got NaN (default 0)",
            ),
        ] {
            assert_eq!(SignSgd::new(config, &[]).expect_err("refused").to_string(), message);
        }
    }
}
