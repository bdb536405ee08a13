//! Stochastic gradient descent with momentum, by the formulas of `torch.optim.SGD` (with `dampening = 0`).
//!
//! ```text
//! g ← g + wd·p                                       where decay applies; coupled, unlike AdamW's
//! m ← μ m + g
//! p ← p − lr·m,   with Nesterov's momentum   p ← p − lr (g + μ m)
//! ```
//! Sutskever et al. 2013. The learning rate stands outside of the momentum, so a schedule acts at once.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Tensor;
use super::momentum::{Momentum, Rule};
use crate::{Error, Result};

/// Settings; names and defaults are torch's.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct SgdConfig {
    /// Share of the momentum that stays at each step, in [0, 1). 0: plain gradient descent.
    pub momentum: f64,
    /// Nesterov's momentum: the step is taken along the momentum of the next step. Needs `momentum > 0`.
    pub nesterov: bool,
    /// Weight decay, on matrices only, added to the gradient (an l2 penalty), >= 0.
    pub weight_decay: f64,
}

/// The optimizer and its state, for one arena.
#[derive(Debug, Clone)]
pub struct Sgd {
    config: SgdConfig,
    momentum: Momentum,
}

impl Sgd {
    /// For tensors that lie one after another.
    ///
    /// # Errors
    /// A setting is outside its range, or Nesterov's momentum is asked for without momentum.
    pub fn new(config: SgdConfig, tensors: &[Tensor]) -> Result<Self> {
        let d = SgdConfig::default();
        Error::fraction("momentum", config.momentum, d.momentum)?;
        Error::not_negative("weight_decay", config.weight_decay, d.weight_decay)?;
        if config.nesterov && config.momentum == 0.0 {
            let problem = "needs momentum > 0, got momentum = 0 (default false)".to_owned();
            return Err(Error::Setting { key: "nesterov", problem });
        }
        Ok(Self { config, momentum: Momentum::new(tensors) })
    }

    /// One update with learning rate `lr` from the gradients times `grad_scale` (the clipping factor).
    pub fn update(&mut self, params: &mut [f32], grads: &[f32], lr: f64, grad_scale: f64) {
        let SgdConfig { momentum, nesterov, weight_decay } = self.config;
        let kept = Step { grad_scale, lr, momentum, nesterov, weight_decay: 0.0 };
        self.momentum.update(params, grads, kept, Step { weight_decay, ..kept });
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
    nesterov: bool,
    weight_decay: f64,
}

impl Rule for Step {
    #[allow(clippy::inline_always, reason = "compiled once for each instruction set, inside the dispatch")]
    #[inline(always)]
    fn step(self, p: f64, g: f64, m: f64) -> (f64, f64) {
        let g = self.grad_scale * g + self.weight_decay * p;
        let m = self.momentum * m + g;
        let along = if self.nesterov { g + self.momentum * m } else { m };
        (p - self.lr * along, m)
    }
}

#[cfg(test)]
mod tests {
    use saddlepoint_core::test::assert_close;

    use super::*;

    const TENSORS: [Tensor; 2] =
        [Tensor { rows: 1, columns: 1, decays: true }, Tensor { rows: 1, columns: 1, decays: false }];

    fn config() -> SgdConfig {
        SgdConfig { momentum: 0.5, weight_decay: 0.2, ..SgdConfig::default() }
    }

    /// Two steps from 1 with gradient 1 (2 times a scale of ½), of which the first parameter decays.
    #[test]
    fn follows_torch_by_hand() {
        for (nesterov, expected) in [
            // m = 1.2, x = 0.88; m = 0.6 + 1.176. Without decay m = 1, 1.5.
            (false, [0.88 - 0.1776, 0.9 - 0.15]),
            // g = 1.2, m = 1.2, x = 1 − 0.1 (1.2 + 0.6) = 0.82; g = 1.164, m = 1.764.
            (true, [0.82 - 0.1 * (1.164 + 0.882), 0.85 - 0.1 * (1.0 + 0.75)]),
        ] {
            let mut sgd = Sgd::new(SgdConfig { nesterov, ..config() }, &TENSORS).expect("valid");
            let mut params = [1.0_f32; 2];
            for _ in 0..2 {
                sgd.update(&mut params, &[2.0; 2], 0.1, 0.5);
            }
            assert_close!(params, expected, rtol = 2e-7);
        }
    }

    #[test]
    fn without_momentum_it_is_gradient_descent() {
        let mut sgd = Sgd::new(SgdConfig::default(), &TENSORS).expect("valid");
        let mut params = [1.0_f32, -2.0];
        sgd.update(&mut params, &[1.0, 3.0], 0.25, 1.0);
        sgd.update(&mut params, &[1.0, -2.0], 0.25, 1.0);
        assert_close!(params, [0.5, -2.25], atol = 0.0);
    }

    #[test]
    fn restart_continues_exactly() {
        let (mut whole, mut parts) = ([1.0_f32; 2], [1.0_f32; 2]);
        let new = || Sgd::new(SgdConfig { nesterov: true, ..config() }, &TENSORS).expect("valid");
        let (mut sgd, mut before) = (new(), new());
        for t in 0..5_u8 {
            let g = [f32::from(t) / 7.0, 0.3];
            sgd.update(&mut whole, &g, 0.1, 1.0);
            let mut next = new();
            next.restore(before.state()).expect("same arena");
            next.update(&mut parts, &g, 0.1, 1.0);
            before = next;
        }
        assert_eq!(whole.map(f32::to_bits), parts.map(f32::to_bits));
        let message = sgd.restore(&[0.0]).expect_err("refused").to_string();
        assert!(message.starts_with("momentum: expected 2 elements, got 1"), "{message}");
    }

    #[test]
    fn settings_outside_their_range_are_refused() {
        let d = SgdConfig::default();
        for (config, message) in [
            (SgdConfig { momentum: 1.0, ..d }, "momentum: must be in [0, 1), got 1 (default 0)"),
            (SgdConfig { weight_decay: -1.0, ..d }, "weight_decay: must be >= 0, got -1 (default 0)"),
            (
                SgdConfig { nesterov: true, ..d },
                "nesterov: needs momentum > 0, got momentum = 0 (default false)",
            ),
        ] {
            assert_eq!(Sgd::new(config, &[]).expect_err("refused").to_string(), message);
        }
    }
}
