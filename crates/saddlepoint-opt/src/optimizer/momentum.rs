//! The state of the optimizers that have one momentum, and the pass over parameters, gradients and momentum.

use rayon::prelude::*;

use super::Tensor;
use super::decayed::{CHUNK, Decayed};
use crate::simd::vectorized;
use crate::{Error, Result};

/// What happens to one element, with everything that is the same for all of them.
pub(super) trait Rule: Copy + Send + Sync {
    /// The next parameter and the next momentum. Must be `#[inline(always)]`.
    fn step(self, p: f64, g: f64, m: f64) -> (f64, f64);
}

/// One `f32` an element, zero at first. 20 bytes a parameter move in an update; an element is computed in `f64` and
/// rounded once.
#[derive(Debug, Clone)]
pub(super) struct Momentum {
    pub(super) values: Vec<f32>,
    decayed: Decayed,
}

impl Momentum {
    /// For tensors that lie one after another.
    pub(super) fn new(tensors: &[Tensor]) -> Self {
        let len = tensors.iter().map(Tensor::len).sum();
        Self { values: vec![0.0; len], decayed: Decayed::new(Tensor::decayed(tensors), len) }
    }

    /// Applies `decayed` where weight decay applies and `kept` elsewhere.
    pub(super) fn update<R: Rule>(&mut self, params: &mut [f32], grads: &[f32], kept: R, decayed: R) {
        self.fits(params, grads);
        let ranges = &self.decayed;
        params
            .par_chunks_mut(CHUNK)
            .zip(grads.par_chunks(CHUNK))
            .zip(self.values.par_chunks_mut(CHUNK))
            .enumerate()
            .for_each(|(i, ((p, g), m))| {
                for (part, decays) in ranges.split(i * CHUNK..i * CHUNK + p.len()) {
                    let rule = if decays { decayed } else { kept };
                    let (p, g, m) = (&mut p[part.clone()], &g[part.clone()], &mut m[part]);
                    vectorized(
                        #[inline(always)]
                        || apply(rule, p, g, m),
                    );
                }
            });
    }

    pub(super) fn fits(&self, params: &[f32], grads: &[f32]) {
        let len = self.values.len();
        assert!(params.len() == len && grads.len() == len, "one gradient a parameter");
    }

    /// # Errors
    /// `values` are not of this arena's length; then nothing has changed.
    pub(super) fn restore(&mut self, values: &[f32]) -> Result<()> {
        if values.len() != self.values.len() {
            return Err(Error::Length { what: "momentum", expected: self.values.len(), got: values.len() });
        }
        self.values.copy_from_slice(values);
        Ok(())
    }
}

#[allow(clippy::inline_always, reason = "compiled once for each instruction set, inside the dispatch")]
#[inline(always)]
fn apply<R: Rule>(rule: R, params: &mut [f32], grads: &[f32], momentum: &mut [f32]) {
    let n = params.len();
    let (grads, momentum) = (&grads[..n], &mut momentum[..n]);
    for i in 0..n {
        let (p, m) = rule.step(f64::from(params[i]), f64::from(grads[i]), f64::from(momentum[i]));
        params[i] = p as f32;
        momentum[i] = m as f32;
    }
}
