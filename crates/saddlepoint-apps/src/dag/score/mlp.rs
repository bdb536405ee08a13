//! A network a node: `F_j = mean (x − f(X))²/2 + λ₁ |A|₁ + (λ₂/2)(|A|² + |v|²)` with `f = Σ_h v_h σ(Σ_i A_hi x_i)`.
//!
//! The weight of the edge from `i` is the norm of what the network takes from it, `W_i = |A_·i|₂`; it has no sign.
//!
//! # Method
//! `A = A⁺ − A⁻` with both parts at least 0 makes the score smooth within bounds; it is minimised by the L-BFGS of
//! `saddlepoint_opt`'s augmented Lagrangian, which without constraints does nothing else. A fit starts from the one it is given, or from small
//! random layers. The score of a node is not convex: fits are local minima.
//!
//! # Reference
//! Zheng et al. 2020, *Learning sparse nonparametric DAGs*, arXiv:1909.13189, §4; TOPO's release for the sizes and penalties.

use std::sync::Mutex;

use rand_distr::{Distribution as _, Uniform};
use saddlepoint_core::seed::Seed;
use saddlepoint_opt::linalg::{add_scaled, largest, norm};
use saddlepoint_opt::outcome::Status;
use saddlepoint_opt::problem::{Bounds, minimize};
use saddlepoint_opt::simd::vectorized;
use saddlepoint_opt::solver::{AugmentedLagrangian, Solver as _, Stop};

use super::logistic::sigmoid;
use super::{Fit, Score, least};
use crate::dag::data::{Data, product};
use crate::{Error, Result};

/// Settings of the networks.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct MlpConfig {
    /// Hidden units a node, at least 1.
    pub hidden: usize,
    /// `λ₁ >= 0`.
    pub lambda1: f64,
    /// `λ₂ >= 0`.
    pub lambda2: f64,
    /// Stationarity of a fit, > 0, in units of the gradient.
    pub tolerance: f64,
    /// Most steps of a fit; one that has not reached its tolerance by then is kept, and noted.
    pub steps: u64,
    /// Seed of the layers that fits start from.
    pub seed: u64,
}

impl Default for MlpConfig {
    fn default() -> Self {
        Self { hidden: 40, lambda1: 0.01, lambda2: 0.01, tolerance: 1e-4, steps: 500, seed: 0 }
    }
}

/// The score of networks.
#[derive(Debug)]
pub struct Mlp {
    config: MlpConfig,
    columns: Vec<Vec<f64>>,
    sizes: Vec<f64>,
    /// The largest stationarity of a fit that ran out of steps.
    missed: Mutex<f64>,
}

impl Mlp {
    /// Of samples.
    ///
    /// # Errors
    /// A setting outside of its range.
    pub fn new(data: &Data, config: MlpConfig) -> Result<Self> {
        let default = MlpConfig::default();
        Error::not_negative("lambda1", config.lambda1, default.lambda1)?;
        Error::not_negative("lambda2", config.lambda2, default.lambda2)?;
        if config.hidden == 0 {
            return Err(Error::range("hidden", ">= 1", 0.0, default.hidden as f64));
        }
        Error::some_steps(config.steps, default.steps)?;
        Error::positive("tolerance", config.tolerance, default.tolerance)?;
        // The second moments must be finite.
        data.gram()?;
        let n = data.rows() as f64;
        let columns = data.columns().to_vec();
        let sizes = columns.iter().map(|x| (product(x, x) / n).sqrt()).collect();
        Ok(Self { config, columns, sizes, missed: Mutex::new(0.0) })
    }

    /// The smooth part `mean (x − f)²/2 + (λ₂/2)(|A|² + |v|²)` and its derivatives with respect to the layers: `a` holds a row of
    /// `parents` numbers a hidden unit, `v` a number a hidden unit.
    fn smooth(&self, node: usize, parents: &[usize], a: &[f64], v: &[f64]) -> (f64, Vec<f64>, Vec<f64>) {
        let (p, n, lambda2) = (parents.len(), self.columns[node].len(), self.config.lambda2);
        let mut activations = vec![0.0; v.len() * n];
        let mut residual: Vec<f64> = self.columns[node].iter().map(|x| -x).collect();
        for (h, s) in activations.chunks_exact_mut(n).enumerate() {
            vectorized(|| {
                for (k, &i) in parents.iter().enumerate().filter(|(k, _)| a[h * p + k] != 0.0) {
                    let weight = a[h * p + k];
                    s.iter_mut().zip(&self.columns[i]).for_each(|(s, x)| *s += weight * x);
                }
            });
            for s in s.iter_mut() {
                *s = sigmoid(*s);
            }
            add_scaled(&mut residual, v[h], s);
        }
        let squares = product(&residual, &residual) / n as f64 + lambda2 * (product(a, a) + product(v, v));
        let (mut da, mut dv) = (vec![0.0; a.len()], vec![0.0; v.len()]);
        let mut delta = vec![0.0; n];
        for (h, s) in activations.chunks_exact(n).enumerate() {
            dv[h] = product(&residual, s) / n as f64 + lambda2 * v[h];
            delta.iter_mut().zip(s).zip(&residual).for_each(|((d, s), r)| *d = r * v[h] * s * (1.0 - s));
            for (k, &i) in parents.iter().enumerate() {
                let sum = vectorized(|| product(&delta, &self.columns[i]));
                da[h * p + k] = sum / n as f64 + lambda2 * a[h * p + k];
            }
        }
        (0.5 * squares, da, dv)
    }

    /// The layers that a fit starts from: `A` by rows of `parents` numbers, then `v`.
    fn start(&self, node: usize, parents: &[usize], from: Option<&Fit>) -> Vec<f64> {
        let (d, m) = (self.columns.len(), self.config.hidden);
        // One stream a node over all inputs, so that a layer does not depend on which others there are.
        let mut rng = Seed::new(self.config.seed).stream("dag/mlp", &[node as u64]);
        let uniform = Uniform::new(-1.0, 1.0).expect("an interval");
        let all: Vec<f64> = (0..m * (d + 1)).map(|_| uniform.sample(&mut rng)).collect();
        let known = from.filter(|fit| fit.parameters.len() == all.len());
        // Where both layers are 0 so are their derivatives, and nothing would ever be learned.
        let small = 0.1;
        let first = |h: usize, i: usize| {
            let fit = known.filter(|fit| fit.weights[i] > 0.0);
            fit.map_or(small * all[h * d + i] / self.sizes[i], |fit| fit.parameters[h * d + i])
        };
        let vanished = known.is_none_or(|fit| largest(&fit.parameters[m * d..]) < small * small);
        let second = |h: usize| {
            let random = small * all[m * d + h];
            known.filter(|_| !vanished).map_or(random, |fit| fit.parameters[m * d + h])
        };
        let first = &first;
        (0..m).flat_map(|h| parents.iter().map(move |&i| first(h, i))).chain((0..m).map(second)).collect()
    }
}

impl Score for Mlp {
    fn nodes(&self) -> usize {
        self.columns.len()
    }

    fn fit(&self, node: usize, parents: &[usize], from: Option<&Fit>) -> Result<Fit> {
        let MlpConfig { hidden: m, lambda1, tolerance, steps, .. } = self.config;
        let (d, p) = (self.nodes(), parents.len());
        let size = m * p;
        // Variables: A⁺, A⁻, v.
        let layers = |x: &[f64]| -> Vec<f64> { (0..size).map(|k| x[k] - x[size + k]).collect() };
        let start = self.start(node, parents, from);
        let x0: Vec<f64> = start[..size]
            .iter()
            .map(|a| a.max(0.0))
            .chain(start[..size].iter().map(|a| (-a).max(0.0)))
            .chain(start[size..].iter().copied())
            .collect();
        // The solver asks for gradient and value of the same point; both come from one pass.
        let last: Mutex<(Vec<f64>, f64)> = Mutex::new((Vec::new(), 0.0));
        let pass = |x: &[f64], g: &mut [f64]| -> f64 {
            let (smooth, da, dv) = self.smooth(node, parents, &layers(x), &x[2 * size..]);
            for k in 0..size {
                (g[k], g[size + k]) = (da[k] + lambda1, lambda1 - da[k]);
            }
            g[2 * size..].copy_from_slice(&dv);
            let value = smooth + lambda1 * x[..2 * size].iter().sum::<f64>();
            *last.lock().expect("no pass panics") = (x.to_vec(), value);
            value
        };
        let value = |x: &[f64]| -> f64 {
            let known = last.lock().expect("no pass panics").clone();
            if known.0 == x { known.1 } else { pass(x, &mut vec![0.0; x.len()]) }
        };
        let mut lower = vec![0.0; 2 * size + m];
        lower[2 * size..].fill(f64::NEG_INFINITY);
        let bounds = Bounds::new(lower, vec![f64::INFINITY; 2 * size + m]);
        let problem = minimize(2 * size + m, value)
            .grad(|x, g| {
                pass(x, g);
            })
            .within(bounds);
        // Stationarity is in the units of the gradient: of the variance of the node.
        let solver = AugmentedLagrangian {
            stop: Stop { tolerance: tolerance * self.sizes[node].powi(2).max(1e-12), iterations: 6 },
            inner: steps,
            ..AugmentedLagrangian::default()
        };
        let outcome = solver.solve(&problem, &x0)?;
        if outcome.status == Status::NotFinite || !outcome.objective.is_finite() {
            let what = "the score is not finite".to_owned();
            return Err(Error::NotSolved { node, parents: p, residual: f64::NAN, what });
        }
        if outcome.status != Status::Optimal {
            let mut missed = self.missed.lock().expect("nothing panics with it");
            *missed = missed.max(outcome.kkt.stationarity / self.sizes[node].powi(2));
        }
        let a = layers(&outcome.x);
        let mut parameters = vec![0.0; m * (d + 1)];
        let mut weights = vec![0.0; d];
        for (k, &i) in parents.iter().enumerate() {
            let column: Vec<f64> = (0..m).map(|h| a[h * p + k]).collect();
            weights[i] = norm(&column);
            (0..m).for_each(|h| parameters[h * d + i] = column[h]);
        }
        parameters[m * d..].copy_from_slice(&outcome.x[2 * size..]);
        // Both parts of an element may be above 0 before the end: the score is that of their difference.
        let smooth = self.smooth(node, parents, &a, &outcome.x[2 * size..]).0;
        let loss = smooth + lambda1 * a.iter().map(|a| a.abs()).sum::<f64>();
        Ok(Fit { loss, weights, parameters })
    }

    /// The norm, over the hidden units, of the subgradient of least size with respect to what is taken from each node.
    fn slope(&self, node: usize, fit: &Fit) -> Vec<f64> {
        let (d, m) = (self.nodes(), self.config.hidden);
        let others: Vec<usize> = (0..d).filter(|&i| i != node).collect();
        let a: Vec<f64> =
            (0..m).flat_map(|h| others.iter().map(move |&i| fit.parameters[h * d + i])).collect();
        let (_, da, _) = self.smooth(node, &others, &a, &fit.parameters[m * d..]);
        let p = others.len();
        let mut slope = vec![0.0; d];
        for (k, &i) in others.iter().enumerate() {
            let of = |h: usize| least(da[h * p + k], a[h * p + k], self.config.lambda1);
            slope[i] = norm(&(0..m).map(of).collect::<Vec<_>>());
        }
        slope
    }

    fn unit(&self, i: usize, j: usize) -> f64 {
        self.sizes[i] * self.sizes[j]
    }

    fn tolerance(&self) -> f64 {
        (self.config.hidden as f64).sqrt() * 10.0 * self.config.tolerance
    }

    fn notes(&self) -> Vec<String> {
        let missed = *self.missed.lock().expect("nothing panics with it");
        if missed == 0.0 {
            return Vec::new();
        }
        vec![format!(
            "some networks were not fitted to their tolerance {:e}; the largest stationarity left is {missed:.1e}",
            self.config.tolerance
        )]
    }
}

#[cfg(test)]
mod tests {
    use saddlepoint_core::test::assert_close;

    use super::*;

    fn data() -> Data {
        let x: Vec<f64> = (0..60).map(|r| f64::from(r) / 15.0 - 2.0).collect();
        let y = x.iter().map(|x| (2.0 * x).tanh()).collect();
        let z = (0..60).map(|r| f64::from(r * 37 % 60) / 30.0 - 1.0).collect();
        Data::unnamed(vec![x, y, z]).expect("data").scaled(crate::dag::Scaling::Centre).expect("scales")
    }

    fn config() -> MlpConfig {
        MlpConfig { hidden: 4, lambda1: 1e-3, lambda2: 1e-3, tolerance: 1e-5, steps: 5000, seed: 3 }
    }

    #[test]
    fn derivatives_are_those_of_finite_differences() {
        let score = Mlp::new(&data(), config()).expect("settings");
        let at: Vec<f64> = (0..12).map(|k| (f64::from(k) * 1.7).sin()).collect();
        let value = |x: &[f64]| score.smooth(1, &[0, 2], &x[..8], &x[8..]).0;
        let (_, da, dv) = score.smooth(1, &[0, 2], &at[..8], &at[8..]);
        for k in 0..12 {
            let moved = |by: f64| {
                let mut x = at.clone();
                x[k] += by;
                value(&x)
            };
            let slope = (moved(1e-6) - moved(-1e-6)) / 2e-6;
            assert_close!(if k < 8 { da[k] } else { dv[k - 8] }, slope, atol = 1e-8);
        }
    }

    #[test]
    fn a_curve_is_learned_and_noise_left_out() {
        let score = Mlp::new(&data(), config()).expect("settings");
        let none = score.fit(1, &[], None).expect("solved");
        let fit = score.fit(1, &[0, 2], None).expect("solved");
        assert!(fit.loss < 0.1 * none.loss, "{} {}", fit.loss, none.loss);
        assert!(fit.weights[0] > 1.0 && fit.weights[2] < 0.1 * fit.weights[0], "{:?}", fit.weights);
        // A solved regression has no slope along its parents, and from itself it stays.
        let slope = score.slope(1, &fit);
        assert!(slope[0] < 1e-3 && slope[2] < 1e-3, "{slope:?}");
        let again = score.fit(1, &[0, 2], Some(&fit)).expect("solved");
        assert!(again.loss <= fit.loss + 1e-6, "{} {}", again.loss, fit.loss);
        assert_eq!(score.notes(), Vec::<String>::new());
        // A fit without parents leaves both layers at 0; from there a curve is found all the same.
        let warm = score.fit(1, &[0, 2], Some(&none)).expect("solved");
        assert!(warm.loss < 0.1 * none.loss, "{} {}", warm.loss, none.loss);
        for bad in [MlpConfig { hidden: 0, ..config() }, MlpConfig { tolerance: 0.0, ..config() }] {
            assert!(Mlp::new(&data(), bad).is_err());
        }
    }
}
