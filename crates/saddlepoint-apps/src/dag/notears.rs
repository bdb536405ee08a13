//! NOTEARS: the absence of cycles as one smooth constraint, `h(W) = tr e^{W∘W} − d = 0`.
//!
//! # Method
//! ```text
//! W ← argmin  ½ tr((I − W)ᵀ S (I − W)) + λ |W|₁ + (ρ/2) h² + α h;   if h fell to less than a quarter: α ← α + ρ h, else ρ ← 10 ρ, again
//! until h <= 1e-8 or ρ >= 1e16; then weights below the threshold are 0
//! ```
//!
//! # Reference
//! Zheng, Aragam, Ravikumar & Xing 2018, *DAGs with NO TEARS*, arXiv:1803.01422, algorithm 1.
//!
//! # Differences
//! The inner problems stop at a stationarity of 1e-4 of the largest variance, by the L-BFGS of this project. If the threshold leaves a
//! cycle, it is raised until none is left, and a note says so.

use super::Data;
use super::acyclicity::Acyclicity;
use super::continuous::{Effort, Fitted, Relaxed};
use crate::{Error, Result};

/// Settings of NOTEARS.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Notears {
    /// `λ >= 0`.
    pub lambda: f64,
    /// Weights below it are 0 at the end, >= 0.
    pub threshold: f64,
    /// `h` at which it ends, > 0.
    pub h: f64,
    /// `ρ` at which it ends, > 1.
    pub rho: f64,
    /// Most steps of an inner problem.
    pub steps: u64,
}

impl Default for Notears {
    fn default() -> Self {
        Self { lambda: 0.1, threshold: 0.3, h: 1e-8, rho: 1e16, steps: 1000 }
    }
}

impl Notears {
    /// The graph of samples.
    ///
    /// # Errors
    /// A setting out of range; second moments that are not finite.
    pub fn run(&self, data: &Data) -> Result<Relaxed> {
        let default = Self::default();
        Error::not_negative("threshold", self.threshold, default.threshold)?;
        Error::not_negative("lambda", self.lambda, default.lambda)?;
        Error::some_steps(self.steps, default.steps)?;
        Error::positive("h", self.h, default.h)?;
        if !(self.rho > 1.0 && self.rho.is_finite()) {
            return Err(Error::range("rho", "> 1", self.rho, default.rho));
        }
        let d = data.nodes();
        let fitted = Fitted { d, gram: data.gram()?, lambda: self.lambda };
        let (mut w, mut h) = (vec![0.0; d * d], f64::INFINITY);
        let (mut rho, mut alpha) = (1.0, 0.0);
        let mut effort = Effort::default();
        while h > self.h && rho < self.rho && effort.stages < 300 {
            let penalty = |w: &[f64]| {
                let (h, dh) = Acyclicity::Exponential.of_squares(w, d)?;
                let factor = alpha + rho * h;
                Some((0.5 * rho * h * h + alpha * h, dh.iter().map(|g| factor * g).collect()))
            };
            let found = fitted.minimise(&w, 1.0, 1e-4, self.steps, &penalty)?;
            effort.add(&found);
            let next = found.w;
            let next_h = Acyclicity::Exponential.of_squares(&next, d).map_or(f64::INFINITY, |found| found.0);
            if next_h > 0.25 * h && next_h > self.h {
                rho *= 10.0;
                continue;
            }
            (w, h) = (next, next_h);
            alpha += rho * h;
        }
        // Where ρ reached its end the last matrix with progress stays; it had the least cycles.
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
            let found = Notears::default().run(&data.scaled(Scaling::Centre).expect("scales")).expect("runs");
            assert!(found.h <= 1e-8, "{}", found.h);
            let metrics = compare(&found.weights, &truth);
            assert!(metrics.shd <= 3, "{metrics:?}");
            assert_eq!(found.order().len(), 8);
        }
    }

    #[test]
    fn settings_out_of_range_are_told() {
        let data = Data::unnamed(vec![vec![0.0, 1.0]]).expect("data");
        for bad in [
            Notears { lambda: -1.0, ..Notears::default() },
            Notears { threshold: f64::NAN, ..Notears::default() },
            Notears { h: 0.0, ..Notears::default() },
            Notears { h: f64::INFINITY, ..Notears::default() },
            Notears { rho: 1.0, ..Notears::default() },
            Notears { steps: 0, ..Notears::default() },
        ] {
            assert!(bad.run(&data).is_err());
        }
        assert!(Notears::default().run(&data).expect("one node").weights.edges().is_empty());
    }
}
