//! Whether a graph satisfies the first-order conditions of `min F(W)` subject to having no cycle. Common code: no method grades itself.
//!
//! ```text
//! no cycle, and for all i ≠ j:   a directed path leads from j to i   ⇒  W_ij = 0, which follows from there being no cycle
//!                                none does                          ⇒  ∂F/∂W_ij = 0
//! ```
//! For convex `F` this is sufficient for a local minimum. A pair without a path whose slope is not 0 is an edge that could be added, or
//! a weight that could be changed, at a gain.
//!
//! # Reference
//! Wei, Gao & Yu 2020, *DAGs with no fears*, theorem 3; Deng et al. 2023, arXiv:2305.17277, §3.

use serde::Serialize;

use super::score::{Fit, Score, weights};

/// How far a graph is from the first-order conditions.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Kkt {
    /// Whether it has no cycle.
    pub acyclic: bool,
    /// The largest slope at a pair without a path back, in units of [`Score::unit`].
    pub residual: f64,
    /// Pairs whose slope is above the tolerance of the score.
    pub violations: usize,
    /// All ordered pairs.
    pub pairs: usize,
}

impl Kkt {
    /// Whether the conditions hold to the tolerance of the score.
    pub fn holds(&self) -> bool {
        self.acyclic && self.violations == 0
    }

    /// Of the fitted columns of a graph.
    pub fn of<S: Score + ?Sized>(score: &S, fits: &[Fit]) -> Self {
        let violations = violations(score, fits);
        let d = score.nodes();
        let residual = violations.all.iter().fold(0.0, |most: f64, pair| most.max(pair.2));
        Self {
            acyclic: violations.acyclic,
            residual,
            violations: violations.all.iter().filter(|pair| pair.2 > score.tolerance()).count(),
            pairs: d * d.saturating_sub(1),
        }
    }
}

/// Slopes of the pairs without a path back.
struct Slopes {
    acyclic: bool,
    /// `(i, j, relative slope)`.
    all: Vec<(usize, usize, f64)>,
}

fn violations<S: Score + ?Sized>(score: &S, fits: &[Fit]) -> Slopes {
    let w = weights(score, fits);
    let d = score.nodes();
    let reached = w.reached();
    let mut all = Vec::new();
    for (j, fit) in fits.iter().enumerate() {
        let slope = score.slope(j, fit);
        let free = (0..d).filter(|&i| i != j && !reached[j * d + i]);
        all.extend(free.map(|i| (i, j, slope[i].abs() / score.unit(i, j))));
    }
    Slopes { acyclic: w.order().is_some(), all }
}

/// The pair `(i, j)` with the largest slope above the tolerance: adding `i -> j` makes no cycle and lowers the score.
pub(super) fn worst<S: Score + ?Sized>(score: &S, fits: &[Fit]) -> Option<(usize, usize)> {
    let all = violations(score, fits).all;
    let above = all.into_iter().filter(|pair| pair.2 > score.tolerance());
    above.reduce(|most, pair| if pair.2 > most.2 { pair } else { most }).map(|(i, j, _)| (i, j))
}

#[cfg(test)]
mod tests {
    use saddlepoint_core::test::assert_close;

    use super::*;
    use crate::dag::Weights;
    use crate::dag::score::{LeastSquares, on_edges, on_order};

    /// A chain 0 -> 1 -> 2 with weights 1, unit noise.
    fn chain() -> LeastSquares {
        LeastSquares::from_gram(vec![1.0, 1.0, 1.0, 1.0, 2.0, 2.0, 1.0, 2.0, 3.0], 3).expect("moments")
    }

    #[test]
    fn the_true_graph_satisfies_them_and_a_missing_edge_does_not() {
        let score = chain();
        let fits = on_order(&score, &[0, 1, 2]).expect("solved");
        let kkt = Kkt::of(&score, &fits);
        assert!(kkt.holds() && kkt.pairs == 6, "{kkt:?}");
        assert_eq!(worst(&score, &fits), None);
        let missing = Weights::from_edges(3, &[(0, 1, 1.0)]).expect("a graph");
        let kkt = Kkt::of(&score, &on_edges(&score, &missing).expect("solved"));
        // 0 -> 2, 1 -> 2, 2 -> 0 and 2 -> 1 are free; the slopes are the moments.
        assert_eq!((kkt.acyclic, kkt.violations), (true, 4), "{kkt:?}");
        assert_close!(kkt.residual, 2.0 / 6.0_f64.sqrt(), rtol = 1e-12);
        assert_eq!(worst(&score, &on_edges(&score, &missing).expect("solved")), Some((1, 2)));
    }

    #[test]
    fn a_cycle_is_told() {
        let score = chain();
        let cycle = Weights::from_edges(3, &[(0, 1, 1.0), (1, 0, 1.0)]).expect("a graph");
        let kkt = Kkt::of(&score, &on_edges(&score, &cycle).expect("solved"));
        assert!(!kkt.acyclic && !kkt.holds());
    }
}
