//! Least squares on the second moments alone: `F(W) = ½ tr((I − W)ᵀ S (I − W))`.
//!
//! # Method
//! With `S = L Lᵀ` in an order of the nodes, `F` of the best weights is half the sum of the squared pivots of `L`, and the weights are in
//! the inverse of `L`. If two nodes change places, `L` stays the same outside of the rows between them, and inside a permuted triangle
//! is made triangular again by plane rotations: a swap over `m` places costs `O(m²)` and no regression.
//!
//! # Differences
//! The release regresses each node on the samples anew. Where `S` is singular to rounding (fewer samples than nodes, collinear columns),
//! `1e-8 S_ii` is added to its diagonal and a note says so; the paper's code takes the solution of least norm.

use rayon::prelude::*;
use saddlepoint_opt::linalg::Cholesky;
use saddlepoint_opt::simd::vectorized;

use super::{Fit, Score, part, spread};
use crate::dag::data::Data;
use crate::dag::graph::{Swap, Weights};
use crate::{Error, Result};

/// The share of a variance that may be left of it, given the others, before `S` counts as singular.
const SINGULAR: f64 = 1e-10;
/// What is then added to the diagonal, as a share of it.
const RIDGE: f64 = 1e-8;

/// Least squares.
#[derive(Debug, Clone)]
pub struct LeastSquares {
    d: usize,
    /// With the ridge, if there is one.
    gram: Vec<f64>,
    ridge: bool,
}

impl LeastSquares {
    /// Of samples.
    ///
    /// # Errors
    /// Second moments that overflow or vanish.
    pub fn new(data: &Data) -> Result<Self> {
        Self::from_gram(data.gram()?, data.nodes())
    }

    /// Of second moments `S = XᵀX/n`, row-major: symmetric and positive semidefinite with a positive diagonal.
    ///
    /// # Errors
    /// Moments that are not.
    pub fn from_gram(mut gram: Vec<f64>, d: usize) -> Result<Self> {
        if gram.len() != d * d || d == 0 {
            return Err(Error::data(format!("{} second moments for {d} nodes", gram.len())));
        }
        if let Some(i) = (0..d).find(|i| !(gram[i * d + i] > 0.0 && gram[i * d + i].is_finite())) {
            return Err(Error::data(format!("the mean square of node {i} is {}", gram[i * d + i])));
        }
        let asymmetric = |at: usize| {
            let (i, j) = (at / d, at % d);
            // The product of two variances may leave the numbers, that of their roots does not.
            let bound = gram[i * d + i].sqrt() * gram[j * d + j].sqrt();
            let (a, b) = (gram[at], gram[j * d + i]);
            !((a - b).abs() <= 1e-10 * bound && a.abs() <= (1.0 + 1e-10) * bound)
        };
        if let Some(at) = (0..d * d).find(|&at| asymmetric(at)) {
            let (i, j) = (at / d, at % d);
            return Err(Error::data(format!("the product moment of nodes {i} and {j} is not one")));
        }
        let ridge = !regular(&gram, d);
        if ridge {
            (0..d).for_each(|i| gram[i * d + i] *= 1.0 + RIDGE);
        }
        Ok(Self { d, gram, ridge })
    }

    /// The columns of a graph as they are, without a regression.
    pub fn at(&self, graph: &Weights) -> Vec<Fit> {
        let column = |j: usize| -> Vec<f64> { (0..self.d).map(|i| graph.get(i, j)).collect() };
        let fit = |(j, weights): (usize, Vec<f64>)| Fit {
            loss: self.value(j, &weights),
            weights,
            parameters: Vec::new(),
        };
        (0..self.d).map(|j| fit((j, column(j)))).collect()
    }

    pub(crate) fn gram(&self) -> &[f64] {
        &self.gram
    }

    /// `−S (e_j − w)`.
    pub(crate) fn derivative(&self, node: usize, w: &[f64]) -> Vec<f64> {
        let row = |i: usize| {
            let row = &self.gram[i * self.d..(i + 1) * self.d];
            row.iter().zip(w).map(|(s, w)| s * w).sum::<f64>() - row[node]
        };
        (0..self.d).map(row).collect()
    }

    /// `½ (e_j − w)ᵀ S (e_j − w)`.
    pub(crate) fn value(&self, node: usize, w: &[f64]) -> f64 {
        let slope = self.derivative(node, w);
        let along: f64 = slope.iter().zip(w).map(|(g, w)| g * w).sum();
        0.5 * (along - slope[node])
    }

    /// The Cholesky factor of `S` with rows and columns in an order.
    fn factor(&self, order: &[usize]) -> Result<Vec<f64>> {
        let permuted = part(&self.gram, self.d, order, order);
        let found = Cholesky::new(&permuted, order.len());
        found.map(|factor| factor.lower()).ok_or_else(|| {
            Error::data(
                "the second moments are not positive definite; standardise the columns or leave some out",
            )
        })
    }
}

/// Whether no node is a combination of the others to rounding.
fn regular(gram: &[f64], d: usize) -> bool {
    Cholesky::new(gram, d).is_some_and(|factor| {
        let lower = factor.lower();
        (0..d).all(|i| lower[i * d + i].powi(2) > SINGULAR * gram[i * d + i])
    })
}

impl Score for LeastSquares {
    fn nodes(&self) -> usize {
        self.d
    }

    fn fit(&self, node: usize, parents: &[usize], _: Option<&Fit>) -> Result<Fit> {
        let matrix = part(&self.gram, self.d, parents, parents);
        let right = part(&self.gram, self.d, parents, &[node]);
        let unsolved = || {
            let (parents, what) = (parents.len(), "their second moments are singular".to_owned());
            Error::NotSolved { node, parents, residual: 1.0, what }
        };
        let w = Cholesky::new(&matrix, parents.len()).ok_or_else(unsolved)?.solve(&right);
        let weights = spread(&w, parents, self.d);
        Ok(Fit { loss: self.value(node, &weights), weights, parameters: Vec::new() })
    }

    fn slope(&self, node: usize, fit: &Fit) -> Vec<f64> {
        self.derivative(node, &fit.weights)
    }

    fn unit(&self, i: usize, j: usize) -> f64 {
        self.gram[i * self.d + i].sqrt() * self.gram[j * self.d + j].sqrt()
    }

    fn rounding(&self, i: usize, j: usize) -> f64 {
        1e-12 * (self.gram[j * self.d + j] / self.gram[i * self.d + i]).sqrt()
    }

    fn notes(&self) -> Vec<String> {
        let note = "the columns are collinear, or fewer samples than columns: 1e-8 of each mean square was added to it";
        if self.ridge { vec![note.to_owned()] } else { Vec::new() }
    }

    /// From the factor of the whole order: `(I − W)ᵀ = diag(L) L^-1` in that order.
    fn refit(&self, order: &[usize], first: usize, last: usize, fits: &mut [Fit]) -> Result<()> {
        let d = self.d;
        let lower = self.factor(order)?;
        for place in first..=last {
            // w solves L_<ᵀ w = the row of L, over the places before.
            let row = &lower[place * d..place * d + place];
            let mut w = row.to_vec();
            for k in (0..place).rev() {
                w[k] /= lower[k * d + k];
                let known = w[k];
                let above = &lower[k * d..k * d + k];
                w[..k].iter_mut().zip(above).for_each(|(w, l)| *w -= known * l);
            }
            let loss = 0.5 * lower[place * d + place].powi(2);
            let weights = spread(&w, &order[..place], d);
            fits[order[place]] = Fit { loss, weights, parameters: Vec::new() };
        }
        Ok(())
    }

    fn changes(
        &self,
        order: &[usize],
        fits: &[Fit],
        swap: Swap,
        places: &[(usize, usize)],
    ) -> Result<Vec<f64>> {
        let lower = self.factor(order)?;
        let one = |&(first, last): &(usize, usize)| {
            let before: f64 = order[first..=last].iter().map(|&node| fits[node].loss).sum();
            vectorized(|| after(&lower, self.d, first, last, swap)) - before
        };
        Ok(places.par_iter().map(one).collect())
    }
}

/// Half the sum of the squared pivots at the places `first..=last` after a swap.
#[inline(always)]
#[allow(clippy::inline_always, reason = "what vectorized calls must be")]
fn after(lower: &[f64], d: usize, first: usize, last: usize, swap: Swap) -> f64 {
    let m = last - first + 1;
    // The rows of the triangle in their new order, as columns: a rotation changes two of them.
    let mut columns = vec![0.0; m * m];
    for place in 0..m {
        let source = match swap {
            Swap::Back => place,
            _ if place == 0 => m - 1,
            _ => place - 1,
        };
        for k in 0..=source {
            columns[k * m + place] = lower[(first + source) * d + first + k];
        }
    }
    let mut start = 0;
    if swap != Swap::Back {
        // The last row has come first and is full: its elements go to the left, one by one.
        for k in (0..m - 1).rev() {
            let (x, y) = (columns[k * m], columns[(k + 1) * m]);
            let size = x.hypot(y);
            if size > 0.0 {
                rotate(&mut columns, m, k, x / size, y / size, k + 1);
                (columns[k * m], columns[(k + 1) * m]) = (size, 0.0);
            }
        }
        start = 1;
    }
    if swap != Swap::Forward {
        // The row at `start` goes last, and those below it up by one, which gives each an element above the diagonal.
        for column in columns.chunks_exact_mut(m) {
            column[start..].rotate_left(1);
        }
        for k in start..m - 1 {
            let (x, y) = (columns[k * m + k], columns[(k + 1) * m + k]);
            let size = x.hypot(y);
            if size > 0.0 {
                rotate(&mut columns, m, k, x / size, y / size, k);
            }
        }
    }
    0.5 * (0..m).map(|k| columns[k * m + k].powi(2)).sum::<f64>()
}

/// Rotates the columns `k` and `k + 1` from row `from` on.
#[inline(always)]
#[allow(clippy::inline_always, reason = "what vectorized calls must be")]
fn rotate(columns: &mut [f64], m: usize, k: usize, c: f64, s: f64, from: usize) {
    let (left, right) = columns[k * m..(k + 2) * m].split_at_mut(m);
    for (x, y) in left[from..].iter_mut().zip(&mut right[from..]) {
        (*x, *y) = (c * *x + s * *y, c * *y - s * *x);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use saddlepoint_core::test::assert_close;

    use super::*;
    use crate::dag::score::{on_order, total};

    /// `A Aᵀ + I/10` of random numbers: regular.
    fn gram(values: &[f64], d: usize) -> Vec<f64> {
        let mut gram: Vec<f64> = (0..d * d)
            .map(|at| (0..d).map(|k| values[at / d * d + k] * values[at % d * d + k]).sum::<f64>())
            .collect();
        (0..d).for_each(|i| gram[i * d + i] += 0.1);
        gram
    }

    #[test]
    fn collinear_columns_are_solved_with_a_note() {
        let x = vec![1.0, -2.0, 0.5, 0.5];
        let data = Data::unnamed(vec![x.clone(), x.iter().map(|x| 2.0 * x).collect()]).expect("data");
        let score = LeastSquares::new(&data).expect("moments");
        assert_eq!(score.notes().len(), 1);
        let fits = on_order(&score, &[0, 1]).expect("solved");
        assert_close!(fits[1].weights, [2.0, 0.0], rtol = 1e-7);
        assert!(LeastSquares::from_gram(vec![1.0, 0.0, 0.0, 2.0], 2).expect("moments").notes().is_empty());
        for bad in
            [vec![1.0, 0.0, 0.5, 1.0], vec![1.0, 2.0, 2.0, 1.0], vec![0.0, 0.0, 0.0, 1.0], vec![1.0; 3]]
        {
            assert!(LeastSquares::from_gram(bad, 2).is_err());
        }
        assert!(LeastSquares::from_gram(vec![], 0).is_err());
    }

    #[test]
    fn moments_of_any_unit_are_taken() {
        for unit in [1e-300, 1.0, 1e300] {
            let score =
                LeastSquares::from_gram([2.0, 1.0, 1.0, 3.0].map(|s| unit * s).to_vec(), 2).expect("moments");
            let fit = score.fit(1, &[0], None).expect("solved");
            assert_close!(fit.weights, [0.5, 0.0], rtol = 1e-12);
            assert_close!(score.unit(0, 1), unit * 6.0_f64.sqrt(), rtol = 1e-12);
        }
    }

    proptest! {
        #[test]
        fn swaps_by_rotation_give_the_scores_of_new_regressions(
            values in proptest::collection::vec(-1.0..1.0_f64, 49), first in 0_usize..6, length in 1_usize..7, turn in 0_usize..7,
        ) {
            let score = LeastSquares::from_gram(gram(&values, 7), 7).expect("moments");
            let order: Vec<usize> = (0..7).map(|k| (3 * k + turn) % 7).collect();
            let last = (first + length).min(6);
            let fits = on_order(&score, &order).expect("solved");
            // The whole order at once gives the regressions one by one.
            for place in 0..7 {
                let (node, parents) = super::super::with_parents(&order, place);
                let alone = score.fit(node, &parents, None).expect("solved");
                prop_assert!((alone.loss - fits[node].loss).abs() < 1e-10);
                prop_assert!(alone.weights.iter().zip(&fits[node].weights).all(|(a, b)| (a - b).abs() < 1e-8));
                // At the optimum the slope of each parent is 0.
                let slope = score.slope(node, &fits[node]);
                prop_assert!(parents.iter().all(|&i| slope[i].abs() < 1e-9));
            }
            for swap in [Swap::Exchange, Swap::Back, Swap::Forward] {
                let change = score.changes(&order, &fits, swap, &[(first, last)]).expect("solved")[0];
                let mut moved = order.clone();
                swap.apply(&mut moved, first, last);
                let anew = total(&on_order(&score, &moved).expect("solved")) - total(&fits);
                prop_assert!((change - anew).abs() < 1e-10, "{swap:?} {change} {anew}");
            }
        }
    }
}
