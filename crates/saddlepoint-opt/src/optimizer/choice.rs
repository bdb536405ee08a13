//! The closed list of optimizers.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{AdamW, AdamWConfig, Lion, LionConfig, Sgd, SgdConfig, SignSgd, SignSgdConfig, Tensor};
use crate::{Error, Result};

/// Settings of an optimizer, chosen by `name`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "name", rename_all = "kebab-case")]
pub enum OptimizerConfig {
    /// Adam with decoupled weight decay.
    Adamw(AdamWConfig),
    /// Lion, and its family by `kappa`: weight decay as a constraint.
    Lion(LionConfig),
    /// Stochastic gradient descent with momentum.
    Sgd(SgdConfig),
    /// The sign of the gradient or of its momentum.
    SignSgd(SignSgdConfig),
}

impl Default for OptimizerConfig {
    fn default() -> Self {
        Self::Adamw(AdamWConfig::default())
    }
}

impl OptimizerConfig {
    /// Refuses a setting outside its range.
    ///
    /// # Errors
    /// As said.
    pub fn check(self) -> Result<()> {
        Optimizer::new(self, &[]).map(drop)
    }

    /// Bytes that the optimizer of these tensors takes.
    pub fn bytes(&self, tensors: &[Tensor]) -> u64 {
        let state = size_of::<f32>() as u64 * tensors.iter().map(|tensor| tensor.len() as u64).sum::<u64>();
        match self {
            Self::Adamw(_) => 2 * state,
            Self::Lion(config) => state + config.scratch(tensors),
            Self::Sgd(_) | Self::SignSgd(_) => state,
        }
    }
}

/// An optimizer and its state, for one arena.
#[derive(Debug, Clone)]
pub enum Optimizer {
    /// See [`AdamW`].
    Adamw(AdamW),
    /// See [`Lion`].
    Lion(Lion),
    /// See [`Sgd`].
    Sgd(Sgd),
    /// See [`SignSgd`].
    SignSgd(SignSgd),
}

impl Optimizer {
    /// For tensors that lie one after another.
    ///
    /// # Errors
    /// A setting is outside its range.
    pub fn new(config: OptimizerConfig, tensors: &[Tensor]) -> Result<Self> {
        Ok(match config {
            OptimizerConfig::Adamw(config) => {
                let len = tensors.iter().map(Tensor::len).sum();
                Self::Adamw(AdamW::new(config, len, Tensor::decayed(tensors))?)
            }
            OptimizerConfig::Lion(config) => Self::Lion(Lion::new(config, tensors)?),
            OptimizerConfig::Sgd(config) => Self::Sgd(Sgd::new(config, tensors)?),
            OptimizerConfig::SignSgd(config) => Self::SignSgd(SignSgd::new(config, tensors)?),
        })
    }

    /// One update with learning rate `lr` from the gradients times `grad_scale` (the clipping factor).
    ///
    /// # Errors
    /// As [`Lion::update`]; the others have none.
    pub fn update(&mut self, params: &mut [f32], grads: &[f32], lr: f64, grad_scale: f64) -> Result<()> {
        match self {
            Self::Adamw(adamw) => adamw.update(params, grads, lr, grad_scale),
            Self::Lion(lion) => lion.update(params, grads, lr, grad_scale)?,
            Self::Sgd(sgd) => sgd.update(params, grads, lr, grad_scale),
            Self::SignSgd(sign_sgd) => sign_sgd.update(params, grads, lr, grad_scale),
        }
        Ok(())
    }

    /// What a checkpoint holds beside the number of updates, by the names that torch and lion-pytorch give it.
    pub fn state(&self) -> Vec<(&'static str, &[f32])> {
        match self {
            Self::Adamw(adamw) => {
                let (_, first, second) = adamw.state();
                vec![("exp_avg", first), ("exp_avg_sq", second)]
            }
            Self::Lion(lion) => vec![("exp_avg", lion.state())],
            Self::Sgd(sgd) => vec![("momentum_buffer", sgd.state())],
            Self::SignSgd(sign_sgd) => vec![("momentum_buffer", sign_sgd.state())],
        }
    }

    /// Continues after `step` updates from what [`Optimizer::state`] gave, in its order.
    ///
    /// # Errors
    /// The state is not of this arena or not of this optimizer; then nothing has changed.
    pub fn restore(&mut self, step: u64, state: &[Vec<f32>]) -> Result<()> {
        match (self, state) {
            (Self::Adamw(adamw), [first, second]) => adamw.restore(step, first, second),
            (Self::Lion(lion), [momentum]) => lion.restore(momentum),
            (Self::Sgd(sgd), [momentum]) => sgd.restore(momentum),
            (Self::SignSgd(sign_sgd), [momentum]) => sign_sgd.restore(momentum),
            (own, state) => {
                let (expected, got) = (own.state().len(), state.len());
                Err(Error::Length { what: "parts of the optimizer's state", expected, got })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::optimizer::lion::{Group, Kappa};

    const TENSORS: [Tensor; 2] =
        [Tensor { rows: 2, columns: 3, decays: true }, Tensor { rows: 1, columns: 4, decays: false }];

    fn every() -> [OptimizerConfig; 5] {
        [
            OptimizerConfig::default(),
            OptimizerConfig::Lion(LionConfig::default()),
            OptimizerConfig::Lion(LionConfig {
                kappa: Kappa::L2 { group: Group::Row },
                ..LionConfig::default()
            }),
            OptimizerConfig::Sgd(SgdConfig { momentum: 0.9, ..SgdConfig::default() }),
            OptimizerConfig::SignSgd(SignSgdConfig::default()),
        ]
    }

    #[test]
    fn settings_read_back_by_name() {
        for (text, expected) in [
            (r#"{"name":"adamw","adam_beta1":0.8}"#, {
                OptimizerConfig::Adamw(AdamWConfig { adam_beta1: 0.8, ..AdamWConfig::default() })
            }),
            (r#"{"name":"lion","kappa":{"name":"lp","p":3}}"#, {
                OptimizerConfig::Lion(LionConfig { kappa: Kappa::Lp { p: 3.0 }, ..LionConfig::default() })
            }),
            (r#"{"name":"lion","kappa":{"name":"top-k","k":3}}"#, {
                OptimizerConfig::Lion(LionConfig { kappa: Kappa::TopK { k: 3 }, ..LionConfig::default() })
            }),
            (r#"{"name":"sgd"}"#, OptimizerConfig::Sgd(SgdConfig::default())),
            (r#"{"name":"sign-sgd"}"#, OptimizerConfig::SignSgd(SignSgdConfig::default())),
        ] {
            assert_eq!(serde_json::from_str::<OptimizerConfig>(text).expect("valid"), expected);
        }
        for config in every() {
            let text = serde_json::to_string(&config).expect("serialises");
            assert_eq!(serde_json::from_str::<OptimizerConfig>(&text).expect("parses"), config);
        }
    }

    #[test]
    fn every_optimizer_continues_exactly_from_its_state() {
        for config in every() {
            config.check().expect("valid");
            let new = || Optimizer::new(config, &TENSORS).expect("valid");
            let (mut whole, mut before) = (new(), new());
            let (mut a, mut b) = ([0.5_f32; 10], [0.5_f32; 10]);
            for t in 0..4_u8 {
                let g: Vec<f32> = (0..10_u8).map(|i| f32::from((i * 7 + t * 5) % 11) - 5.0).collect();
                whole.update(&mut a, &g, 0.1, 0.5).expect("finite");
                let state: Vec<Vec<f32>> = before.state().iter().map(|(_, part)| part.to_vec()).collect();
                let mut next = new();
                next.restore(u64::from(t), &state).expect("its own");
                next.update(&mut b, &g, 0.1, 0.5).expect("finite");
                before = next;
            }
            assert_eq!(a.map(f32::to_bits), b.map(f32::to_bits), "{config:?}");
            let bytes = 4 * whole.state().iter().map(|(_, part)| part.len() as u64).sum::<u64>();
            let scratch = if let OptimizerConfig::Lion(lion) = config { lion.scratch(&TENSORS) } else { 0 };
            assert_eq!(config.bytes(&TENSORS), bytes + scratch, "{config:?}");
            let message = whole.restore(1, &[]).expect_err("refused").to_string();
            assert!(message.starts_with("parts of the optimizer's state: expected"), "{message}");
        }
    }
}
