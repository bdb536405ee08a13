//! DAGMA: a central path along the log-determinant, `μ (½ tr((I − W)ᵀ S (I − W)) + λ |W|₁) − log det(s I − W∘W) + d log s`.
//!
//! # Method
//! From `W = 0`, for each stage with its `μ` and `s` the function is minimised from where the last stage ended; the log-determinant is
//! infinite where a cycle would close, so that every iterate stays inside. Then weights below the threshold are 0.
//!
//! # Reference
//! Bello, Aragam & Ravikumar 2022, *DAGMA*, arXiv:2209.08037, algorithm 1; sizes as in the released package.
//!
//! # Differences
//! Stages are minimised by the L-BFGS of this project in place of Adam's many small steps, to a
//! stationarity of 1e-3 of `μ` times the largest variance. Outside of the domain the function has no
//! value, and the line search steps back. A matrix that is outside of the domain of the next `s` has `s` raised by tenths. If the
//! threshold leaves a cycle, it is raised until none is left.

use super::Data;
use super::acyclicity::Acyclicity;
use super::continuous::{Effort, Fitted, Relaxed};
use crate::{Error, Result};

/// Settings of DAGMA.
#[derive(Debug, Clone, PartialEq)]
pub struct Dagma {
    /// `λ >= 0`.
    pub lambda: f64,
    /// Weights below it are 0 at the end, >= 0.
    pub threshold: f64,
    /// `μ` of the first stage, > 0; each stage has a tenth of the one before.
    pub mu: f64,
    /// `s` of each stage, > 0.
    pub s: Vec<f64>,
    /// Most steps of a stage.
    pub steps: u64,
}

impl Default for Dagma {
    fn default() -> Self {
        Self { lambda: 0.03, threshold: 0.3, mu: 1.0, s: vec![1.0, 0.9, 0.8, 0.7, 0.6], steps: 1000 }
    }
}

impl Dagma {
    /// The graph of samples.
    ///
    /// # Errors
    /// A setting out of range; second moments that are not finite.
    pub fn run(&self, data: &Data) -> Result<Relaxed> {
        let default = Self::default();
        Error::not_negative("threshold", self.threshold, default.threshold)?;
        Error::not_negative("lambda", self.lambda, default.lambda)?;
        Error::positive("mu", self.mu, default.mu)?;
        Error::some_steps(self.steps, default.steps)?;
        if self.s.is_empty() || self.s.iter().any(|s| !(*s > 0.0 && s.is_finite())) {
            let problem = format!("must be one number > 0 a stage, got {:?}", self.s);
            return Err(Error::Setting { key: "s", problem });
        }
        let d = data.nodes();
        let fitted = Fitted { d, gram: data.gram()?, lambda: self.lambda };
        let mut w = vec![0.0; d * d];
        let (mut mu, mut effort) = (self.mu, Effort::default());
        for &s in &self.s {
            let mut s = s;
            while Acyclicity::LogDet(s).of_squares(&w, d).is_none() {
                s += 0.1;
            }
            let penalty = |w: &[f64]| Acyclicity::LogDet(s).of_squares(w, d);
            let found = fitted.minimise(&w, mu, 1e-3, self.steps, &penalty)?;
            effort.add(&found);
            w = found.w;
            mu *= 0.1;
        }
        let h = Acyclicity::LogDet(1.0).of_squares(&w, d).map_or(f64::INFINITY, |found| found.0);
        Relaxed::new(d, w, self.threshold, h, effort)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dag::simulate::{self, Noise};
    use crate::dag::{Scaling, compare};

    #[test]
    fn a_simple_graph_is_recovered() {
        for seed in 0..3 {
            let truth = simulate::weighted(&simulate::erdos_renyi(8, 8, seed).expect("a graph"), seed);
            let data = simulate::linear(&truth, 1000, Noise::Gaussian, seed).expect("samples");
            let found = Dagma::default().run(&data.scaled(Scaling::Centre).expect("scales")).expect("runs");
            let metrics = compare(&found.weights, &truth);
            assert!(metrics.shd <= 3, "{metrics:?}");
        }
    }

    #[test]
    fn settings_out_of_range_are_told() {
        let data = Data::unnamed(vec![vec![0.0, 1.0]]).expect("data");
        for bad in [
            Dagma { lambda: f64::NAN, ..Dagma::default() },
            Dagma { mu: 0.0, ..Dagma::default() },
            Dagma { s: vec![], ..Dagma::default() },
            Dagma { s: vec![1.0, -1.0], ..Dagma::default() },
        ] {
            assert!(bad.run(&data).is_err());
        }
        let told = Dagma { steps: 0, ..Dagma::default() }.run(&data).expect_err("refused").to_string();
        assert_eq!(told, "steps: must be >= 1, got 0 (default 1000)");
        assert!(Dagma::default().run(&data).expect("one node").weights.edges().is_empty());
    }
}
