//! Logistic regression of columns of 0 and 1: `F_j = mean [log(1 + e^m) − x m] + λ |w|₁` with `m = X w`.
//!
//! # Method
//! Newton's method with the penalty kept as it is: each step minimises the second-order model plus the penalty by active sets, and is
//! shortened until the score falls enough (Lee, Sun & Saunders 2014).
//!
//! # Differences
//! The release minimises `C Σ loss + |w|₁` and scores `mean loss + |w|₁ / C`, which do not agree: the first is `λ = 1/(C n)`, the second
//! `λ = 1/C`. Here one `λ` does both; its default 0.01 is that of the release's regression with `C = 0.1` and 1,000 samples.

use saddlepoint_opt::linalg::add_scaled;

use super::{Fit, Score, active_set, least, spread};
use crate::dag::data::{Data, product};
use crate::{Error, Result};

/// Most Newton steps.
const MOST: usize = 100;
/// Residual, relative to the unit of each slope, at which a regression is solved, and the most that rounding may leave.
const FINE: f64 = 1e-10;
const ACCEPTED: f64 = 1e-7;

/// The logistic score.
#[derive(Debug, Clone)]
pub struct Logistic {
    columns: Vec<Vec<f64>>,
    /// Root mean squares of the columns.
    sizes: Vec<f64>,
    lambda: f64,
}

impl Logistic {
    /// The penalty where none is given.
    pub const LAMBDA: f64 = 0.01;

    /// Of samples of 0 and 1, with the penalty `lambda > 0`: without one, columns that separate another have no best weight.
    ///
    /// # Errors
    /// A penalty that is not; a value that is neither 0 nor 1.
    pub fn new(data: &Data, lambda: f64) -> Result<Self> {
        Error::not_negative("lambda", lambda, Self::LAMBDA)?;
        if lambda == 0.0 {
            return Err(Error::range("lambda", "> 0 for the logistic score", lambda, Self::LAMBDA));
        }
        for (name, column) in data.names().iter().zip(data.columns()) {
            #[allow(clippy::float_cmp, reason = "labels are exact")]
            if let Some(row) = column.iter().position(|x| *x != 0.0 && *x != 1.0) {
                let problem = format!(
                    "row {} of column `{name}` is {}; the logistic score takes columns of 0 and 1, not scaled",
                    row + 1,
                    column[row]
                );
                return Err(Error::data(problem));
            }
        }
        let n = data.rows() as f64;
        let columns = data.columns().to_vec();
        let sizes = columns.iter().map(|x| (product(x, x) / n).sqrt()).collect();
        Ok(Self { columns, sizes, lambda })
    }

    fn margins(&self, parents: &[usize], w: &[f64]) -> Vec<f64> {
        let mut m = vec![0.0; self.columns[0].len()];
        parents
            .iter()
            .zip(w)
            .filter(|(_, w)| **w != 0.0)
            .for_each(|(&i, &w)| add_scaled(&mut m, w, &self.columns[i]));
        m
    }

    /// The score of a column.
    fn value(&self, node: usize, m: &[f64], w: &[f64]) -> f64 {
        // log(1 + e^m) without overflow.
        let one = |(m, x): (&f64, &f64)| m.max(0.0) + (-m.abs()).exp().ln_1p() - x * m;
        let loss: f64 = m.iter().zip(&self.columns[node]).map(one).sum();
        loss / m.len() as f64 + self.lambda * w.iter().map(|w| w.abs()).sum::<f64>()
    }

    /// Probabilities less the labels, each divided by the number of samples.
    fn residuals(&self, node: usize, m: &[f64]) -> Vec<f64> {
        let n = m.len() as f64;
        m.iter().zip(&self.columns[node]).map(|(m, x)| (sigmoid(*m) - x) / n).collect()
    }

    /// One Newton step's target: the minimum of the second-order model with the penalty.
    fn target(
        &self,
        parents: &[usize],
        m: &[f64],
        g: &[f64],
        w: &[f64],
    ) -> Result<Vec<f64>, active_set::Unsolved> {
        let (p, n) = (parents.len(), m.len() as f64);
        let curvature: Vec<f64> = m.iter().map(|m| sigmoid(*m) * sigmoid(-*m) / n).collect();
        let mut h = vec![0.0; p * p];
        for i in 0..p {
            let weighted: Vec<f64> =
                self.columns[parents[i]].iter().zip(&curvature).map(|(x, c)| x * c).collect();
            for j in 0..=i {
                let sum = product(&weighted, &self.columns[parents[j]]);
                (h[i * p + j], h[j * p + i]) = (sum, sum);
            }
        }
        // Saturated probabilities have no curvature left.
        for i in 0..p {
            h[i * p + i] = h[i * p + i] * (1.0 + 1e-9) + 1e-12 * self.sizes[parents[i]].powi(2);
        }
        let b: Vec<f64> = (0..p).map(|i| (0..p).map(|j| h[i * p + j] * w[j]).sum::<f64>() - g[i]).collect();
        active_set::solve(&h, &b, &vec![self.lambda; p], w)
    }
}

pub(super) fn sigmoid(m: f64) -> f64 {
    if m >= 0.0 {
        1.0 / (1.0 + (-m).exp())
    } else {
        let e = m.exp();
        e / (1.0 + e)
    }
}

impl Score for Logistic {
    fn nodes(&self) -> usize {
        self.columns.len()
    }

    fn fit(&self, node: usize, parents: &[usize], from: Option<&Fit>) -> Result<Fit> {
        let unsolved =
            |residual: f64, what: String| Error::NotSolved { node, parents: parents.len(), residual, what };
        let mut w: Vec<f64> = parents.iter().map(|&i| from.map_or(0.0, |fit| fit.weights[i])).collect();
        let mut m = self.margins(parents, &w);
        let mut value = self.value(node, &m, &w);
        let mut residual = f64::INFINITY;
        for _ in 0..MOST {
            let errors = self.residuals(node, &m);
            let g: Vec<f64> = parents.iter().map(|&i| product(&errors, &self.columns[i])).collect();
            residual = (0..w.len())
                .map(|k| least(g[k], w[k], self.lambda).abs() / self.unit(parents[k], node))
                .fold(0.0, f64::max);
            if residual <= FINE {
                break;
            }
            let target = self.target(parents, &m, &g, &w).map_err(|u| unsolved(u.residual, u.what))?;
            let step: Vec<f64> = target.iter().zip(&w).map(|(t, w)| t - w).collect();
            let fall: f64 =
                (0..w.len()).map(|k| g[k] * step[k] + self.lambda * (target[k].abs() - w[k].abs())).sum();
            let mut t = 1.0;
            let found = loop {
                let next: Vec<f64> = if t < 1.0 {
                    w.iter().zip(&step).map(|(w, s)| w + t * s).collect()
                } else {
                    target.clone()
                };
                let margins = self.margins(parents, &next);
                let reached = self.value(node, &margins, &next);
                if reached < value && reached <= value + 1e-4 * t * fall {
                    break Some((next, margins, reached));
                }
                t *= 0.5;
                if t < 1e-10 {
                    break None;
                }
            };
            let Some((next, margins, reached)) = found else { break };
            (w, m, value) = (next, margins, reached);
        }
        if residual.is_nan() || residual > ACCEPTED {
            return Err(unsolved(residual, format!("after at most {MOST} Newton steps")));
        }
        Ok(Fit { loss: value, weights: spread(&w, parents, self.nodes()), parameters: Vec::new() })
    }

    fn slope(&self, node: usize, fit: &Fit) -> Vec<f64> {
        let all: Vec<usize> = (0..self.nodes()).collect();
        let errors = self.residuals(node, &self.margins(&all, &fit.weights));
        let one = |i: usize| least(product(&errors, &self.columns[i]), fit.weights[i], self.lambda);
        all.into_iter().map(one).collect()
    }

    /// At a label's standard deviation of a half.
    fn unit(&self, i: usize, _: usize) -> f64 {
        0.5 * self.sizes[i]
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use saddlepoint_core::test::assert_close;

    use super::*;

    #[test]
    fn one_regressor_that_is_always_on_gives_the_log_odds() {
        // x1 is 1 in 9 of 10 rows in which x2 is 1 six times; where x1 is 0 the margin is 0.
        let x1 = vec![1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 0.0];
        let x2 = vec![1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 0.0, 0.0, 0.0, 0.0];
        let data = Data::unnamed(vec![x1, x2]).expect("data");
        let score = Logistic::new(&data, 0.01).expect("labels");
        let fit = score.fit(1, &[0], None).expect("solved");
        // 9/10 σ(w) − 6/10 + λ = 0
        let p: f64 = (0.6 - 0.01) / 0.9;
        assert_close!(fit.weights[0], (p / (1.0 - p)).ln(), rtol = 1e-8);
        let none = score.fit(1, &[], None).expect("solved");
        assert_close!(none.loss, 2.0_f64.ln(), rtol = 1e-15);
        assert!(Logistic::new(&data, 0.0).is_err() && Logistic::new(&data, f64::NAN).is_err());
        let error =
            Logistic::new(&Data::unnamed(vec![vec![0.0, 2.0]]).expect("data"), 0.1).expect_err("refused");
        assert!(error.to_string().contains("row 2 of column `x1` is 2"), "{error}");
    }

    #[test]
    fn columns_that_separate_another_have_a_finite_weight_under_a_penalty() {
        let x = vec![1.0, 0.0, 1.0, 1.0, 0.0, 0.0, 1.0, 0.0];
        let data = Data::unnamed(vec![x.clone(), x]).expect("data");
        for lambda in [0.1, 1e-3, 1e-6] {
            let score = Logistic::new(&data, lambda).expect("labels");
            let fit = score.fit(1, &[0], None).expect("solved");
            assert!(fit.weights[0] > 0.5 && fit.weights[0] < 30.0, "{lambda} {:?}", fit.weights);
        }
    }

    proptest! {
        #[test]
        fn the_optimality_conditions_hold(bits in proptest::collection::vec(proptest::bool::ANY, 6 * 40), lambda in -4.0..0.0_f64) {
            let column = |j: usize| -> Vec<f64> { (0..40).map(|r| f64::from(u8::from(bits[j * 40 + r]))).collect() };
            let Ok(data) = Data::unnamed((0..6).map(column).collect()) else { return Ok(()) };
            let score = Logistic::new(&data, 10.0_f64.powf(lambda)).expect("labels");
            let parents = [0, 2, 3, 5];
            let fit = score.fit(1, &parents, None).expect("solved");
            let slope = score.slope(1, &fit);
            prop_assert!(parents.iter().all(|&i| slope[i].abs() < 1e-7), "{slope:?}");
            // No small move of a weight lowers the score.
            for &i in &parents {
                for step in [-1e-3, 1e-3] {
                    let mut w: Vec<f64> = parents.iter().map(|&i| fit.weights[i]).collect();
                    w[parents.iter().position(|&k| k == i).unwrap()] += step;
                    let moved = score.value(1, &score.margins(&parents, &w), &w);
                    prop_assert!(moved >= fit.loss - 1e-9);
                }
            }
        }
    }
}
