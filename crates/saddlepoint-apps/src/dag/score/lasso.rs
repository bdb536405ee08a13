//! Least squares with a penalty on the absolute weights: `F(W) = ½ tr((I − W)ᵀ S (I − W)) + λ |W|₁`.
//!
//! The penalty counts in the units of the data: a column with a small scale pays for large weights. Standardise where that is not
//! wanted. Regressions are solved by active sets on the second moments, whatever the units, or not at all: a regression that misses its
//! optimality conditions is an error.

use super::active_set;
use super::{Fit, LeastSquares, Score, least, part, spread};
use crate::dag::data::Data;
use crate::dag::graph::Weights;
use crate::{Error, Result};

/// The lasso.
#[derive(Debug, Clone)]
pub struct Lasso {
    squares: LeastSquares,
    lambda: f64,
}

impl Lasso {
    /// The penalty where none is given.
    pub const LAMBDA: f64 = 0.1;

    /// Of samples, with the penalty `lambda >= 0`.
    ///
    /// # Errors
    /// A penalty that is not; second moments that overflow or vanish.
    pub fn new(data: &Data, lambda: f64) -> Result<Self> {
        Error::not_negative("lambda", lambda, Self::LAMBDA)?;
        Ok(Self { squares: LeastSquares::new(data)?, lambda })
    }

    /// Of second moments.
    ///
    /// # Errors
    /// As [`LeastSquares::from_gram`] and [`Lasso::new`].
    pub fn from_gram(gram: Vec<f64>, d: usize, lambda: f64) -> Result<Self> {
        Error::not_negative("lambda", lambda, Self::LAMBDA)?;
        Ok(Self { squares: LeastSquares::from_gram(gram, d)?, lambda })
    }

    /// The columns of a graph as they are, without a regression.
    pub fn at(&self, graph: &Weights) -> Vec<Fit> {
        let mut fits = self.squares.at(graph);
        for fit in &mut fits {
            fit.loss += self.lambda * fit.weights.iter().map(|w| w.abs()).sum::<f64>();
        }
        fits
    }
}

impl Score for Lasso {
    fn nodes(&self) -> usize {
        self.squares.nodes()
    }

    fn fit(&self, node: usize, parents: &[usize], from: Option<&Fit>) -> Result<Fit> {
        let d = self.nodes();
        let q = part(self.squares.gram(), d, parents, parents);
        let b = part(self.squares.gram(), d, parents, &[node]);
        let start: Vec<f64> = parents.iter().map(|&i| from.map_or(0.0, |fit| fit.weights[i])).collect();
        let w = active_set::solve(&q, &b, &vec![self.lambda; parents.len()], &start).map_err(|unsolved| {
            let (parents, residual, what) = (parents.len(), unsolved.residual, unsolved.what);
            Error::NotSolved { node, parents, residual, what }
        })?;
        let weights = spread(&w, parents, d);
        let size: f64 = w.iter().map(|w| w.abs()).sum();
        Ok(Fit {
            loss: self.squares.value(node, &weights) + self.lambda * size,
            weights,
            parameters: Vec::new(),
        })
    }

    fn slope(&self, node: usize, fit: &Fit) -> Vec<f64> {
        let mut slope = self.squares.derivative(node, &fit.weights);
        slope.iter_mut().zip(&fit.weights).for_each(|(g, w)| *g = least(*g, *w, self.lambda));
        slope
    }

    fn unit(&self, i: usize, j: usize) -> f64 {
        self.squares.unit(i, j)
    }

    fn notes(&self) -> Vec<String> {
        self.squares.notes()
    }
}

#[cfg(test)]
mod tests {
    use saddlepoint_core::test::assert_close;

    use super::*;

    #[test]
    fn one_regressor_is_soft_thresholding_and_no_penalty_is_least_squares() {
        let gram = vec![2.0, 1.0, 1.0, 3.0];
        let fit =
            Lasso::from_gram(gram.clone(), 2, 0.4).expect("moments").fit(1, &[0], None).expect("solved");
        assert_close!(fit.weights, [0.3, 0.0], rtol = 1e-14);
        // ½ (3 − 2·0.3 + 2·0.09) + 0.4·0.3
        assert_close!(fit.loss, 1.29 + 0.12, rtol = 1e-14);
        let squares = LeastSquares::from_gram(gram.clone(), 2).expect("moments");
        let free = Lasso::from_gram(gram, 2, 0.0).expect("moments").fit(1, &[0], None).expect("solved");
        assert_close!(free.weights, squares.fit(1, &[0], None).expect("solved").weights, rtol = 1e-13);
        assert!(Lasso::from_gram(vec![1.0], 1, -1.0).is_err());
    }

    #[test]
    fn wide_variances_are_solved_to_their_conditions() {
        // A chain whose variances go from 1 to some 5e4, where coordinate descent stopped short of the minimum.
        let d = 12;
        let (n, mut columns) = (200, Vec::<Vec<f64>>::new());
        let noise = |r: usize, j: usize| {
            ((r * 7919 + j * 104_729 + r * r * 31 * (j + 1)) % 1000) as f64 / 500.0 - 1.0
        };
        for j in 0..d {
            let parents: Vec<f64> = (0..n)
                .map(|r| {
                    noise(r, j) + columns.iter().rev().take(2).map(|c: &Vec<f64>| 1.3 * c[r]).sum::<f64>()
                })
                .collect();
            columns.push(parents);
        }
        let data = Data::unnamed(columns).expect("data").scaled(crate::dag::Scaling::Centre).expect("scales");
        let score = Lasso::new(&data, 0.1).expect("moments");
        let gram = data.gram().expect("finite");
        assert!(gram[d * d - 1] / gram[0] > 1e4, "{}", gram[d * d - 1] / gram[0]);
        for node in 0..d {
            let parents: Vec<usize> = (0..d).filter(|&i| i != node).collect();
            let fit = score.fit(node, &parents, None).expect("solved");
            let slope = score.slope(node, &fit);
            for &i in &parents {
                assert!(slope[i].abs() <= 1e-7 * score.unit(i, node), "{node} {i} {}", slope[i]);
            }
        }
    }
}
