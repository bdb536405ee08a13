//! Scores of a graph that fall apart into one regression a node, `F(W) = Σ_j F_j(column j)`, and their regressions.
//!
//! | score | `F_j` | regression |
//! |---|---|---|
//! | [`LeastSquares`] | `½ (e_j − w)ᵀ S (e_j − w)` with `S = XᵀX/n` | Cholesky |
//! | [`Lasso`] | the same `+ λ |w|₁` | active sets |
//! | [`Logistic`] | `mean [log(1 + e^m) − x m] + λ |w|₁` with `m = X w` and `x` of 0 and 1 | Newton with active sets |
//! | [`Mlp`] | `mean (x − f(X))²/2 + λ₁ |A|₁ + (λ₂/2)(|A|² + |v|²)` with `f = Σ_h v_h σ(A_h X)` | L-BFGS |
//!
//! No regression has an intercept: centre the columns first where there are means.

mod active_set;
mod lasso;
mod least_squares;
mod logistic;
mod mlp;

pub use lasso::Lasso;
pub use least_squares::LeastSquares;
pub use logistic::Logistic;
pub use mlp::{Mlp, MlpConfig};

use rayon::prelude::*;

use super::graph::{Swap, Weights};
use crate::Result;

/// The regression of one node on others.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Fit {
    /// `F_j`.
    pub loss: f64,
    /// Column `j` of the weights: one a node, 0 for those that are no parents.
    pub weights: Vec<f64>,
    /// What the score has beyond the weights, such as the layers of a network.
    pub parameters: Vec<f64>,
}

/// A score that falls apart into one regression a node.
pub trait Score: Sync {
    /// The number of nodes.
    fn nodes(&self) -> usize;

    /// The best column of `node` with parents among `parents`, which ascend and do not hold `node`. `from` is a fit of the same node with
    /// perhaps other parents, to start from.
    ///
    /// # Errors
    /// A regression that was not solved.
    fn fit(&self, node: usize, parents: &[usize], from: Option<&Fit>) -> Result<Fit>;

    /// The derivative of `F` with respect to each weight of the column, or the subgradient of least size where there is none.
    fn slope(&self, node: usize, fit: &Fit) -> Vec<f64>;

    /// What slopes are measured in: the scale of the derivative with respect to the weight of `i -> j`, > 0, in the units of the data.
    fn unit(&self, i: usize, j: usize) -> f64;

    /// The size, in the units of the data, below which a weight is 0 to rounding.
    fn rounding(&self, i: usize, j: usize) -> f64 {
        let _ = (i, j);
        0.0
    }

    /// How far from 0, in its unit, a slope at a solved regression may be.
    fn tolerance(&self) -> f64 {
        1e-6
    }

    /// What whoever reads the result has to know.
    fn notes(&self) -> Vec<String> {
        Vec::new()
    }

    /// Fits the nodes at the places `first..=last` of an order to all that precede them; the others of `fits` stay.
    ///
    /// # Errors
    /// As [`Score::fit`].
    fn refit(&self, order: &[usize], first: usize, last: usize, fits: &mut [Fit]) -> Result<()> {
        let found: Vec<Result<Fit>> = (first..=last)
            .into_par_iter()
            .map(|place| {
                let (node, parents) = with_parents(order, place);
                self.fit(node, &parents, Some(&fits[node]))
            })
            .collect();
        for (place, fit) in (first..=last).zip(found) {
            fits[order[place]] = fit?;
        }
        Ok(())
    }

    /// The change of the score by each swap of two places `first < last`, where the fits are those of the order.
    ///
    /// # Errors
    /// As [`Score::fit`].
    fn changes(
        &self,
        order: &[usize],
        fits: &[Fit],
        swap: Swap,
        places: &[(usize, usize)],
    ) -> Result<Vec<f64>> {
        let one = |&(first, last): &(usize, usize)| -> Result<f64> {
            let mut moved = order.to_vec();
            swap.apply(&mut moved, first, last);
            let mut change = 0.0;
            for place in first..=last {
                let (node, parents) = with_parents(&moved, place);
                change += self.fit(node, &parents, Some(&fits[node]))?.loss - fits[node].loss;
            }
            Ok(change)
        };
        places.par_iter().map(one).collect()
    }
}

/// The node at a place of an order, and those before it, ascending.
fn with_parents(order: &[usize], place: usize) -> (usize, Vec<usize>) {
    let mut parents = order[..place].to_vec();
    parents.sort_unstable();
    (order[place], parents)
}

/// `F` of fits.
pub fn total(fits: &[Fit]) -> f64 {
    fits.iter().map(|fit| fit.loss).sum()
}

/// The weights of fits, with those that are 0 to rounding made 0.
pub fn weights<S: Score + ?Sized>(score: &S, fits: &[Fit]) -> Weights {
    let mut w = Weights::none(score.nodes());
    for (j, fit) in fits.iter().enumerate() {
        for (i, &value) in fit.weights.iter().enumerate() {
            if value.abs() > score.rounding(i, j) {
                w.set(i, j, value);
            }
        }
    }
    w
}

/// Fits of the graph's own edges: each node regressed on its parents.
///
/// # Errors
/// As [`Score::fit`].
pub fn on_edges<S: Score + ?Sized>(score: &S, graph: &Weights) -> Result<Vec<Fit>> {
    let d = graph.nodes();
    let one = |j: usize| {
        let parents: Vec<usize> = (0..d).filter(|&i| graph.get(i, j) != 0.0).collect();
        score.fit(j, &parents, None)
    };
    (0..d).into_par_iter().map(one).collect()
}

/// Fits of an order: each node regressed on all that precede it.
///
/// # Errors
/// As [`Score::fit`].
pub fn on_order<S: Score + ?Sized>(score: &S, order: &[usize]) -> Result<Vec<Fit>> {
    let empty = Fit { weights: vec![0.0; order.len()], ..Fit::default() };
    let mut fits = vec![empty; order.len()];
    if !order.is_empty() {
        score.refit(order, 0, order.len() - 1, &mut fits)?;
    }
    Ok(fits)
}

/// The part of a row-major matrix of `d` rows at some rows and columns.
fn part(a: &[f64], d: usize, rows: &[usize], columns: &[usize]) -> Vec<f64> {
    rows.iter().flat_map(|&i| columns.iter().map(move |&j| a[i * d + j])).collect()
}

/// Numbers at some places, zeros elsewhere.
fn spread(values: &[f64], places: &[usize], d: usize) -> Vec<f64> {
    let mut all = vec![0.0; d];
    places.iter().zip(values).for_each(|(&i, &v)| all[i] = v);
    all
}

/// The subgradient of least size of `g w + λ |w|` at `w`.
fn least(g: f64, w: f64, lambda: f64) -> f64 {
    if w == 0.0 { g.signum() * (g.abs() - lambda).max(0.0) } else { g + lambda * w.signum() }
}
