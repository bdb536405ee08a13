//! Lion and its family: sign momentum with two coefficients, and what it does with other functions than the l1 norm.
//!
//! ```text
//! c ← β₁ m + (1 − β₁) g
//! explicit   x ← (1 − lr·λ) x − lr ∂K(c)             where decay applies; λ = weight_decay
//! implicit   x ← (x − lr ∂K(c)) / (1 + lr·λ)         the explicit step with lr / (1 + lr·λ)
//! m ← β₂ m + (1 − β₂) g
//! ```
//! With [`K = ‖·‖₁`](Kappa) and explicit decay it is Lion (Chen et al. 2023, arXiv:2302.06675; order of operations and
//! the old momentum inside of `c` as in lion-pytorch). It minimises `f(x) + (1/λ) K*(λ x)` (Chen, Liu, Liang and Liu
//! 2024, arXiv:2310.05898): weight decay is not a penalty but sets a constraint. With the l1 norm every decayed `x` ends
//! in the box `|x| <= 1/λ`, in units of the parameters and whatever the learning rate; a schedule changes how fast it
//! gets there. Learning rates are usually 3 to 10 times smaller than AdamW's, weight decays as much larger.
//! `lr·λ <= 1` is needed for explicit decay to shrink. With a constant learning rate the iterates end in a
//! neighbourhood of size `lr` of the solution, not on it.
//!
//! The paper's momentum sums `−g`; ours, like lion-pytorch's, sums `g`. Every `∂K` is odd, so `x` is the same.
//! [`lyapunov`] has what decreases along a run. Checked against worked examples, the conjugates by Fenchel's equality.

mod kappa;
pub mod lyapunov;

use rayon::prelude::*;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use kappa::{Group, Kappa};

use kappa::{clip, smooth_sign, soft_threshold};

use super::Tensor;
use super::momentum::{Momentum, Rule};
use super::sign_sgd::sign;
use crate::{Error, Result};

/// Settings; the defaults are lion-pytorch's.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct LionConfig {
    /// Weight of the momentum in the direction of the step, in [0, 1).
    pub beta1: f64,
    /// Decay of the momentum, in [0, 1).
    pub beta2: f64,
    /// Decoupled weight decay, on matrices only, >= 0. It is a constraint: with `kappa.name = "l1"` their elements end in
    /// the box `|x| <= 1 / weight_decay`.
    pub weight_decay: f64,
    /// Whether the decay is of the parameters before the step or after it.
    pub decay: Decay,
    /// The function whose subgradient at the momentum is the step.
    pub kappa: Kappa,
}

/// How weight decay enters a step.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Decay {
    /// Of the parameters before the step, as in the usual implementations.
    #[default]
    Explicit,
    /// Of the parameters after the step, as in the paper's analysis of discrete time.
    Implicit,
}

impl Default for LionConfig {
    fn default() -> Self {
        Self { beta1: 0.9, beta2: 0.99, weight_decay: 0.0, decay: Decay::default(), kappa: Kappa::default() }
    }
}

impl LionConfig {
    /// Bytes beside the momentum: where `∂K` is of a whole tensor, that of the largest one and what it is made with.
    pub(super) fn scratch(&self, tensors: &[Tensor]) -> u64 {
        let copies = match self.kappa {
            Kappa::Lp { .. } | Kappa::L2 { .. } => 1,
            Kappa::TopK { .. } => 2,
            // Both factors, and the work of the decomposition.
            Kappa::Nuclear => 5,
            _ => 0,
        };
        copies * size_of::<f64>() as u64 * tensors.iter().map(Tensor::len).max().unwrap_or(0) as u64
    }
}

/// The optimizer and its state, for one arena.
#[derive(Debug, Clone)]
pub struct Lion {
    config: LionConfig,
    tensors: Vec<Tensor>,
    momentum: Momentum,
    /// `∂K` of one tensor at a time, where it is not elementwise.
    slopes: Vec<f64>,
}

impl Lion {
    /// For tensors that lie one after another.
    ///
    /// # Errors
    /// A setting is outside its range.
    pub fn new(config: LionConfig, tensors: &[Tensor]) -> Result<Self> {
        let d = LionConfig::default();
        Error::fraction("beta1", config.beta1, d.beta1)?;
        Error::fraction("beta2", config.beta2, d.beta2)?;
        Error::not_negative("weight_decay", config.weight_decay, d.weight_decay)?;
        config.kappa.check()?;
        let momentum = Momentum::new(tensors);
        Ok(Self { config, tensors: tensors.to_vec(), momentum, slopes: Vec::new() })
    }

    /// One update with learning rate `lr` from the gradients times `grad_scale` (the clipping factor).
    ///
    /// # Errors
    /// With the nuclear norm, when a matrix has no singular value decomposition. Tensors before it have moved.
    pub fn update(&mut self, params: &mut [f32], grads: &[f32], lr: f64, grad_scale: f64) -> Result<()> {
        let kept = Step::new(&LionConfig { weight_decay: 0.0, ..self.config }, lr, grad_scale);
        let steps = [kept, Step::new(&self.config, lr, grad_scale)];
        // Written out, so that no loop over elements has to ask which function it is.
        match self.config.kappa {
            Kappa::L1 => self.stream(params, grads, steps, sign),
            Kappa::SoftThreshold { e } => self.stream(params, grads, steps, |z| soft_threshold(z, e)),
            Kappa::Huber { e } => self.stream(params, grads, steps, |z| clip(z, e)),
            Kappa::Sqrt { e } => self.stream(params, grads, steps, |z| smooth_sign(z, e)),
            Kappa::LogCosh => self.stream(params, grads, steps, f64::tanh),
            Kappa::HalfSquare => self.stream(params, grads, steps, |z| z),
            Kappa::Lp { .. } | Kappa::TopK { .. } | Kappa::L2 { .. } | Kappa::Nuclear => {
                self.by_tensor(params, grads, steps)?;
            }
        }
        Ok(())
    }

    /// The update where `∂K` is the function `slope` of each element.
    fn stream(
        &mut self,
        params: &mut [f32],
        grads: &[f32],
        [kept, decayed]: [Step; 2],
        slope: impl Fn(f64) -> f64 + Copy + Send + Sync,
    ) {
        let [kept, decayed] = [kept, decayed].map(|step| Along { step, slope });
        self.momentum.update(params, grads, kept, decayed);
    }

    /// The update where `∂K` is of a whole tensor.
    fn by_tensor(&mut self, params: &mut [f32], grads: &[f32], [kept, decayed]: [Step; 2]) -> Result<()> {
        self.momentum.fits(params, grads);
        let mut from = 0;
        for tensor in &self.tensors {
            let place = from..from + tensor.len();
            from = place.end;
            let (p, g) = (&mut params[place.clone()], &grads[place.clone()]);
            let m = &mut self.momentum.values[place];
            let step = if tensor.decays { decayed } else { kept };
            let wide = |(&g, &m): (&f32, &f32)| step.look(f64::from(g), f64::from(m));
            self.slopes.clear();
            self.slopes.par_extend(g.par_iter().zip(&*m).map(wide));
            self.config.kappa.subgradient(&mut self.slopes, tensor.columns)?;
            p.par_iter_mut().zip(m).zip(g).zip(&self.slopes).for_each(|(((p, m), &g), &slope)| {
                let (to, next) = step.along(slope, f64::from(*p), f64::from(g), f64::from(*m));
                (*p, *m) = (to as f32, next as f32);
            });
        }
        Ok(())
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

/// The update of one element, with everything that is the same for all of them.
#[derive(Debug, Clone, Copy)]
struct Step {
    beta1: f64,
    beta2: f64,
    grad_scale: f64,
    keep: f64,
    rate: f64,
}

impl Step {
    fn new(config: &LionConfig, lr: f64, grad_scale: f64) -> Self {
        let LionConfig { beta1, beta2, weight_decay, decay, .. } = *config;
        let rate = match decay {
            Decay::Explicit => lr,
            Decay::Implicit => lr / (1.0 + lr * weight_decay),
        };
        Self { beta1, beta2, grad_scale, keep: 1.0 - rate * weight_decay, rate }
    }

    /// Where `∂K` is taken.
    #[allow(clippy::inline_always, reason = "compiled once for each instruction set, inside the dispatch")]
    #[inline(always)]
    fn look(self, g: f64, m: f64) -> f64 {
        self.beta1 * m + (1.0 - self.beta1) * (self.grad_scale * g)
    }

    /// The next parameter and the next momentum.
    #[allow(clippy::inline_always, reason = "compiled once for each instruction set, inside the dispatch")]
    #[inline(always)]
    fn along(self, slope: f64, p: f64, g: f64, m: f64) -> (f64, f64) {
        let next = self.beta2 * m + (1.0 - self.beta2) * (self.grad_scale * g);
        (self.keep * p - self.rate * slope, next)
    }
}

/// The update where `∂K` is a function of each element.
#[derive(Debug, Clone, Copy)]
struct Along<S> {
    step: Step,
    slope: S,
}

impl<S: Fn(f64) -> f64 + Copy + Send + Sync> Rule for Along<S> {
    #[allow(clippy::inline_always, reason = "compiled once for each instruction set, inside the dispatch")]
    #[inline(always)]
    fn step(self, p: f64, g: f64, m: f64) -> (f64, f64) {
        self.step.along((self.slope)(self.step.look(g, m)), p, g, m)
    }
}

#[cfg(test)]
mod tests;
