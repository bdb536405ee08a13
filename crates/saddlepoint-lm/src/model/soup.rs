//! The weighted mean of several models' weights.

use super::ModelFolder;
use crate::Result;
use crate::engine::{TensorSpec, WeightSource};

/// A model soup: each tensor is the weighted mean of that tensor in several models, in the order given, summed in
/// double precision.
#[derive(Debug)]
pub struct Soup<'a> {
    /// Models and their shares, which sum to 1.
    parts: Vec<(&'a ModelFolder, f64)>,
}

impl<'a> Soup<'a> {
    /// From models of one shape and their weights, which are divided by their sum.
    ///
    /// # Panics
    /// Without a model.
    pub fn new(parts: Vec<(&'a ModelFolder, f64)>) -> Self {
        assert!(!parts.is_empty(), "a soup has an ingredient");
        let total: f64 = parts.iter().map(|(_, weight)| weight).sum();
        Self { parts: parts.into_iter().map(|(model, weight)| (model, weight / total)).collect() }
    }
}

impl WeightSource for Soup<'_> {
    fn read(&self, spec: &TensorSpec, out: &mut [f32]) -> Result<()> {
        let mut mean = vec![0.0_f64; out.len()];
        for (model, share) in &self.parts {
            model.source().read(spec, out)?;
            mean.iter_mut().zip(&*out).for_each(|(m, &v)| *m += share * f64::from(v));
        }
        out.iter_mut().zip(mean).for_each(|(o, m)| *o = m as f32);
        Ok(())
    }

    fn unused(&self, specs: &[TensorSpec]) -> Vec<String> {
        self.parts.iter().flat_map(|(model, _)| model.source().unused(specs)).collect()
    }
}
