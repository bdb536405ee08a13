//! What NOTEARS and DAGMA share: `½ tr((I − W)ᵀ S (I − W)) + λ |W|₁` and a penalty on cycles, minimised over matrices without a diagonal.
//!
//! `W = W⁺ − W⁻` with both parts at least 0 makes the norm smooth within bounds, for the L-BFGS of `saddlepoint_opt`.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use saddlepoint_opt::problem::{Bounds, minimize};
use saddlepoint_opt::solver::{AugmentedLagrangian, Solver as _, Stop};

use super::graph::Weights;
use crate::Result;

/// Second moments and the weight of the norm.
#[derive(Debug, Clone)]
pub(super) struct Fitted {
    pub(super) d: usize,
    pub(super) gram: Vec<f64>,
    pub(super) lambda: f64,
}

/// A function of the matrix with its gradient, or nothing outside of its domain.
pub(super) type Penalty<'a> = &'a (dyn Fn(&[f64]) -> Option<(f64, Vec<f64>)> + Sync);

/// What a minimisation came to.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Minimum {
    /// The matrix.
    pub(super) w: Vec<f64>,
    /// Whether it is stationary to the tolerance.
    pub(super) reached: bool,
    /// Matrices whose value and gradient were computed on the way.
    pub(super) evaluations: u64,
}

/// What the minimisations of a method took, one after the other.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Effort {
    pub(super) stages: usize,
    /// Those that did not reach their tolerance.
    pub(super) missed: usize,
    pub(super) evaluations: u64,
}

impl Effort {
    /// Counts one of them.
    pub(super) fn add(&mut self, minimum: &Minimum) {
        self.stages += 1;
        self.missed += usize::from(!minimum.reached);
        self.evaluations += minimum.evaluations;
    }
}

impl Fitted {
    /// `½ tr((I − W)ᵀ S (I − W))` and its gradient `−S (I − W)`.
    pub(super) fn squares(&self, w: &[f64]) -> (f64, Vec<f64>) {
        let d = self.d;
        let mut grad: Vec<f64> = self.gram.iter().map(|s| -s).collect();
        for i in 0..d {
            let row = &mut grad[i * d..(i + 1) * d];
            for k in 0..d {
                let s = self.gram[i * d + k];
                row.iter_mut().zip(&w[k * d..(k + 1) * d]).for_each(|(g, w)| *g += s * w);
            }
        }
        // tr((I − W)ᵀ S (I − W)) = Σ (W − I)_ij grad_ij
        let along: f64 = w.iter().zip(&grad).map(|(w, g)| w * g).sum();
        let diagonal: f64 = (0..d).map(|i| grad[i * d + i]).sum();
        (0.5 * (along - diagonal), grad)
    }

    /// Minimises `weight (squares + λ |W|₁) + penalty(W)` from `w`, to a stationarity in units of `weight` times the largest variance.
    pub(super) fn minimise(
        &self,
        w: &[f64],
        weight: f64,
        tolerance: f64,
        steps: u64,
        penalty: Penalty,
    ) -> Result<Minimum> {
        let (d, size) = (self.d, self.d * self.d);
        let unit = weight * (0..d).map(|i| self.gram[i * d + i]).fold(f64::MIN_POSITIVE, f64::max);
        let matrix = |x: &[f64]| -> Vec<f64> { (0..size).map(|k| x[k] - x[size + k]).collect() };
        let last: Mutex<(Vec<f64>, f64)> = Mutex::new((Vec::new(), 0.0));
        let evaluations = AtomicU64::new(0);
        let pass = |x: &[f64], g: &mut [f64]| -> f64 {
            evaluations.fetch_add(1, Ordering::Relaxed);
            let w = matrix(x);
            let value = match penalty(&w) {
                None => {
                    g.fill(f64::NAN);
                    f64::NAN
                }
                Some((h, dh)) => {
                    let (squares, ds) = self.squares(&w);
                    for k in 0..size {
                        let slope = weight * ds[k] + dh[k];
                        let norm = weight * self.lambda;
                        (g[k], g[size + k]) = ((slope + norm) / unit, (norm - slope) / unit);
                    }
                    (weight * (squares + self.lambda * x.iter().sum::<f64>()) + h) / unit
                }
            };
            *last.lock().expect("no pass panics") = (x.to_vec(), value);
            value
        };
        let value = |x: &[f64]| -> f64 {
            let known = last.lock().expect("no pass panics").clone();
            if known.0 == x { known.1 } else { pass(x, &mut vec![0.0; 2 * size]) }
        };
        let mut upper = vec![f64::INFINITY; 2 * size];
        (0..d).for_each(|i| (upper[i * d + i], upper[size + i * d + i]) = (0.0, 0.0));
        let problem = minimize(2 * size, value)
            .grad(|x, g| {
                pass(x, g);
            })
            .within(Bounds::new(vec![0.0; 2 * size], upper));
        let x0: Vec<f64> = w.iter().map(|w| w.max(0.0)).chain(w.iter().map(|w| (-w).max(0.0))).collect();
        let solver = AugmentedLagrangian {
            stop: Stop { tolerance, iterations: 6 },
            inner: steps,
            ..AugmentedLagrangian::default()
        };
        let outcome = solver.solve(&problem, &x0)?;
        let reached = outcome.kkt.error() <= tolerance;
        Ok(Minimum { w: matrix(&outcome.x), reached, evaluations: evaluations.load(Ordering::Relaxed) })
    }
}

/// What a method of continuous optimisation found.
#[derive(Debug, Clone, PartialEq)]
pub struct Relaxed {
    /// The matrix as it came out: it may have weak cycles.
    pub raw: Weights,
    /// Without the weights below the threshold, and without the weakest of the rest until no cycle was left.
    pub weights: Weights,
    /// The threshold that it took.
    pub threshold: f64,
    /// The method's own measure of cycles at the end.
    pub h: f64,
    /// Problems solved on the way.
    pub stages: usize,
    /// Matrices whose value and gradient were computed, over all of them; each takes `O(d³)` operations.
    pub evaluations: u64,
    /// What the reader has to know.
    pub notes: Vec<String>,
}

impl Relaxed {
    /// From the last matrix.
    pub(super) fn new(d: usize, w: Vec<f64>, threshold: f64, h: f64, effort: Effort) -> Result<Self> {
        let Effort { stages, missed, evaluations } = effort;
        let raw = Weights::new(d, w)?;
        let (weights, needed) = raw.acyclic(threshold);
        let mut notes = Vec::new();
        if needed > threshold {
            notes.push(format!(
                "the threshold was raised from {threshold} to {needed:.4} to be without a cycle"
            ));
        }
        if missed > 0 {
            notes.push(format!("{missed} of {stages} problems were not solved to their tolerance"));
        }
        Ok(Self { raw, weights, threshold: needed, h, stages, evaluations, notes })
    }

    /// A topological order of the graph.
    pub fn order(&self) -> Vec<usize> {
        self.weights.order().expect("its cycles were removed")
    }
}

#[cfg(test)]
mod tests {
    use saddlepoint_core::test::assert_close;

    use super::*;

    #[test]
    fn without_a_penalty_on_cycles_it_is_a_lasso_of_each_node_on_all_others() {
        let fitted = Fitted { d: 2, gram: vec![2.0, 1.0, 1.0, 3.0], lambda: 0.4 };
        let nothing = |_: &[f64]| Some((0.0, vec![0.0; 4]));
        let Minimum { w, reached, evaluations } =
            fitted.minimise(&[0.0; 4], 1.0, 1e-9, 500, &nothing).expect("solves");
        assert!(reached && (1..500).contains(&evaluations), "{evaluations}");
        // Soft-thresholded moments by the variance of the regressor.
        assert_close!(w, [0.0, 0.6 / 2.0, 0.6 / 3.0, 0.0], atol = 1e-8);
        let (value, grad) = fitted.squares(&[0.0, 0.5, 0.0, 0.0]);
        assert_close!(value, 0.5 * (2.0 + 3.0 - 1.0 + 0.5), rtol = 1e-14);
        assert_close!(grad, [-2.0, 0.0, -1.0, -2.5], atol = 1e-15);
    }
}
