//! AdamW: adaptive moments with decoupled weight decay.
//!
//! ```text
//! p ← p (1 − lr·wd)                                  where decay applies
//! m ← m + (1 − β₁)(g − m),   v ← β₂ v + (1 − β₂) g²
//! p ← p − lr/(1 − β₁ᵗ) · m / ( √v / √(1 − β₂ᵗ) + ε )
//! ```
//! Loshchilov and Hutter 2019, arXiv:1711.05101; the order of operations is `torch.optim.AdamW`'s. Scalars are
//! computed in `f64` and rounded once, everything per element is `f32`. Checked against an `f64` reference and
//! a trajectory of torch (`tests/golden/adamw.json`).

use std::ops::Range;

use rayon::prelude::*;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::decayed::{CHUNK, Decayed};
use crate::simd::vectorized;
use crate::{Error, Result};

/// Settings; names and defaults are those of transformers and torch.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct AdamWConfig {
    /// Decay of the first moment, in [0, 1).
    pub adam_beta1: f64,
    /// Decay of the second moment, in [0, 1).
    pub adam_beta2: f64,
    /// Added to the denominator, > 0.
    pub adam_epsilon: f64,
    /// Decoupled weight decay, on matrices only, >= 0.
    pub weight_decay: f64,
}

impl Default for AdamWConfig {
    fn default() -> Self {
        Self { adam_beta1: 0.9, adam_beta2: 0.999, adam_epsilon: 1e-8, weight_decay: 0.0 }
    }
}

/// The optimizer and its state, for one arena.
#[derive(Debug, Clone)]
pub struct AdamW {
    config: AdamWConfig,
    decayed: Decayed,
    step: u64,
    first: Vec<f32>,
    second: Vec<f32>,
}

impl AdamW {
    /// For `len` parameters, of which the (ascending, disjoint) ranges `decayed` have weight decay.
    ///
    /// # Errors
    /// A setting is outside its range.
    pub fn new(config: AdamWConfig, len: usize, decayed: Vec<Range<usize>>) -> Result<Self> {
        let d = AdamWConfig::default();
        Error::fraction("adam_beta1", config.adam_beta1, d.adam_beta1)?;
        Error::fraction("adam_beta2", config.adam_beta2, d.adam_beta2)?;
        if !(config.adam_epsilon > 0.0 && config.adam_epsilon.is_finite()) {
            return Err(Error::range("adam_epsilon", "> 0", config.adam_epsilon, d.adam_epsilon));
        }
        Error::not_negative("weight_decay", config.weight_decay, d.weight_decay)?;
        let decayed = Decayed::new(decayed, len);
        Ok(Self { config, decayed, step: 0, first: vec![0.0; len], second: vec![0.0; len] })
    }

    /// One update with learning rate `lr` from the gradients times `grad_scale` (the clipping factor).
    pub fn update(&mut self, params: &mut [f32], grads: &[f32], lr: f64, grad_scale: f64) {
        assert!(params.len() == self.first.len() && grads.len() == params.len(), "one gradient a parameter");
        self.step += 1;
        let t = self.step as f64;
        let c = &self.config;
        let kept = Element {
            grad_scale: grad_scale as f32,
            keep: 1.0,
            gain1: (1.0 - c.adam_beta1) as f32,
            beta2: c.adam_beta2 as f32,
            gain2: (1.0 - c.adam_beta2) as f32,
            correction2: (1.0 - c.adam_beta2.powf(t)).sqrt() as f32,
            eps: c.adam_epsilon as f32,
            step_size: (lr / (1.0 - c.adam_beta1.powf(t))) as f32,
        };
        let decayed = Element { keep: (1.0 - lr * c.weight_decay) as f32, ..kept };
        let ranges = &self.decayed;
        params
            .par_chunks_mut(CHUNK)
            .zip(grads.par_chunks(CHUNK))
            .zip(self.first.par_chunks_mut(CHUNK))
            .zip(self.second.par_chunks_mut(CHUNK))
            .enumerate()
            .for_each(|(i, (((p, g), m), v))| {
                for (part, decays) in ranges.split(i * CHUNK..i * CHUNK + p.len()) {
                    let rule = if decays { decayed } else { kept };
                    let (p, g) = (&mut p[part.clone()], &g[part.clone()]);
                    let (m, v) = (&mut m[part.clone()], &mut v[part]);
                    vectorized(
                        #[inline(always)]
                        || rule.apply(p, g, m, v),
                    );
                }
            });
    }

    /// Number of updates so far and the two moments, for a checkpoint.
    pub fn state(&self) -> (u64, &[f32], &[f32]) {
        (self.step, &self.first, &self.second)
    }

    /// Continues from a checkpoint.
    ///
    /// # Errors
    /// The moments are not of this arena's length; then nothing has changed.
    pub fn restore(&mut self, step: u64, first: &[f32], second: &[f32]) -> Result<()> {
        for (what, from) in [("first moment", first), ("second moment", second)] {
            if from.len() != self.first.len() {
                return Err(Error::Length { what, expected: self.first.len(), got: from.len() });
            }
        }
        self.step = step;
        self.first.copy_from_slice(first);
        self.second.copy_from_slice(second);
        Ok(())
    }
}

/// The update of one element, with everything that is the same for all of them.
#[derive(Debug, Clone, Copy)]
struct Element {
    grad_scale: f32,
    keep: f32,
    gain1: f32,
    beta2: f32,
    gain2: f32,
    correction2: f32,
    eps: f32,
    step_size: f32,
}

impl Element {
    #[allow(clippy::inline_always, reason = "compiled once for each instruction set, inside the dispatch")]
    #[inline(always)]
    fn apply(self, params: &mut [f32], grads: &[f32], first: &mut [f32], second: &mut [f32]) {
        let n = params.len();
        let (grads, first, second) = (&grads[..n], &mut first[..n], &mut second[..n]);
        for i in 0..n {
            let g = grads[i] * self.grad_scale;
            let m = first[i] + self.gain1 * (g - first[i]);
            let v = self.beta2 * second[i] + self.gain2 * (g * g);
            let denominator = v.sqrt() / self.correction2 + self.eps;
            first[i] = m;
            second[i] = v;
            params[i] = self.keep * params[i] - self.step_size * (m / denominator);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEN: usize = 2 * CHUNK + 77;

    fn config() -> AdamWConfig {
        AdamWConfig { weight_decay: 0.1, ..AdamWConfig::default() }
    }

    fn decayed() -> Vec<Range<usize>> {
        vec![0..100, 100..5_000, CHUNK - 3..CHUNK + 5, LEN - 10..LEN]
    }

    fn start() -> Vec<f32> {
        (0..LEN).map(|i| ((i * 31 % 97) as f32 - 48.0) * 0.02).collect()
    }

    fn gradient(t: usize) -> Vec<f32> {
        (0..LEN).map(|i| (((i * 17 + t * 29) % 101) as f32 - 50.0) * 10_f32.powi(-((i % 5) as i32))).collect()
    }

    fn run(threads: usize) -> Vec<f32> {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("threads start");
        let mut optimizer = AdamW::new(config(), LEN, decayed()).expect("valid");
        let mut params = start();
        pool.install(|| (0..5).for_each(|t| optimizer.update(&mut params, &gradient(t), 1e-2, 0.5)));
        params
    }

    #[test]
    fn agrees_with_the_formula_in_double_precision() {
        let params = run(2);
        let c = config();
        for i in 0..LEN {
            let (mut p, mut m, mut v) = (f64::from(start()[i]), 0.0, 0.0);
            let decays = decayed().iter().any(|r| r.contains(&i));
            for t in 0..5 {
                let g = 0.5
                    * f64::from((((i * 17 + t * 29) % 101) as f32 - 50.0) * 10_f32.powi(-((i % 5) as i32)));
                m = c.adam_beta1 * m + (1.0 - c.adam_beta1) * g;
                v = c.adam_beta2 * v + (1.0 - c.adam_beta2) * g * g;
                let (m_hat, v_hat) = (
                    m / (1.0 - c.adam_beta1.powi(t as i32 + 1)),
                    v / (1.0 - c.adam_beta2.powi(t as i32 + 1)),
                );
                p *= if decays { 1.0 - 1e-2 * c.weight_decay } else { 1.0 };
                p -= 1e-2 * m_hat / (v_hat.sqrt() + c.adam_epsilon);
            }
            assert!((f64::from(params[i]) - p).abs() < 1e-6, "element {i}: {} against {p}", params[i]);
        }
    }

    #[test]
    fn threads_do_not_change_a_bit() {
        assert!(run(1).iter().zip(run(2)).all(|(a, b)| a.to_bits() == b.to_bits()));
    }

    #[test]
    fn restart_continues_exactly() {
        let mut params = start();
        let mut optimizer = AdamW::new(config(), LEN, decayed()).expect("valid");
        for t in 0..5 {
            let (step, first, second) = optimizer.state();
            let mut next = AdamW::new(config(), LEN, decayed()).expect("valid");
            next.restore(step, first, second).expect("same arena");
            next.update(&mut params, &gradient(t), 1e-2, 0.5);
            optimizer = next;
        }
        assert!(run(1).iter().zip(params).all(|(a, b)| a.to_bits() == b.to_bits()));
        let message = optimizer.restore(1, &[0.0], &[0.0]).expect_err("refused").to_string();
        assert_eq!(
            message,
            format!("first moment: expected {LEN} elements, got 1; the state belongs to another problem")
        );
    }

    #[test]
    fn settings_outside_their_range_are_refused() {
        let d = AdamWConfig::default();
        for (config, message) in [
            (AdamWConfig { adam_beta1: 1.0, ..d }, "adam_beta1: must be in [0, 1), got 1 (default 0.9)"),
            (
                AdamWConfig { adam_beta2: -0.1, ..d },
                "adam_beta2: must be in [0, 1), got -0.1 (default 0.999)",
            ),
            (AdamWConfig { adam_epsilon: 0.0, ..d }, "adam_epsilon: must be > 0, got 0 (default 0.00000001)"),
            (AdamWConfig { weight_decay: -1.0, ..d }, "weight_decay: must be >= 0, got -1 (default 0)"),
        ] {
            assert_eq!(AdamW::new(config, 1, Vec::new()).expect_err("refused").to_string(), message);
        }
    }
}
