//! How far a graph is from the true one, in the conventions of NOTEARS.

use serde::Serialize;

use super::graph::Weights;

/// Counts and shares over edges.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Metrics {
    /// Structural Hamming distance: edges too many, missing or reversed; a reversed one counts once.
    pub shd: usize,
    /// Share of the found edges that are reversed or too many; 0 if none was found.
    pub fdr: f64,
    /// Share of the true edges that were found with their direction; 1 if there is none.
    pub tpr: f64,
    /// Reversed or superfluous edges by the number of pairs without a true edge; 0 if there is no such pair.
    pub fpr: f64,
    /// Found edges.
    pub edges: usize,
}

/// Compares the edges of `found` with those of `truth`, graphs of the same nodes.
pub fn compare(found: &Weights, truth: &Weights) -> Metrics {
    let d = truth.nodes();
    assert_eq!(found.nodes(), d, "graphs of the same nodes");
    let (is, should) = (|i, j| found.get(i, j) != 0.0, |i, j| truth.get(i, j) != 0.0);
    let (mut right, mut reversed, mut extra, mut missing) = (0, 0, 0, 0);
    let (mut edges, mut true_edges, mut apart) = (0, 0, 0);
    for i in 0..d {
        for j in 0..d {
            edges += usize::from(is(i, j));
            true_edges += usize::from(should(i, j));
            right += usize::from(is(i, j) && should(i, j));
            reversed += usize::from(is(i, j) && !should(i, j) && should(j, i));
            extra += usize::from(is(i, j) && !should(i, j) && !should(j, i));
        }
        for j in 0..i {
            let (found, true_edge) = (is(i, j) || is(j, i), should(i, j) || should(j, i));
            missing += usize::from(true_edge && !found);
            // Both directions of a pair are one edge of the skeleton too many or reversed.
            apart += usize::from(found && !true_edge);
        }
    }
    // A pair found in both directions of which one is true is one reversal.
    let ratio = |part: usize, whole: usize, nothing: f64| {
        if whole == 0 { nothing } else { part as f64 / whole as f64 }
    };
    let pairs = (d * d.saturating_sub(1) / 2).saturating_sub(true_edges);
    Metrics {
        shd: apart + missing + reversed,
        fdr: ratio(reversed + extra, edges, 0.0),
        tpr: ratio(right, true_edges, 1.0),
        fpr: ratio(reversed + extra, pairs, 0.0),
        edges,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use saddlepoint_core::test::assert_close;

    use super::*;

    fn graph(edges: &[(usize, usize)]) -> Weights {
        let edges: Vec<_> = edges.iter().map(|&(i, j)| (i, j, 1.0)).collect();
        Weights::from_edges(4, &edges).expect("a graph")
    }

    #[test]
    fn each_kind_of_error_is_counted_by_hand() {
        let truth = graph(&[(0, 1), (1, 2), (2, 3)]);
        // 0 -> 1 is right, 2 -> 1 reversed, 2 -> 3 missing, 0 -> 3 too many.
        let m = compare(&graph(&[(0, 1), (2, 1), (0, 3)]), &truth);
        assert_eq!((m.shd, m.edges), (3, 3));
        assert_close!([m.fdr, m.tpr, m.fpr], [2.0 / 3.0, 1.0 / 3.0, 2.0 / 3.0], rtol = 1e-15);
        let m = compare(&truth, &truth);
        assert_eq!((m.shd, m.edges), (0, 3));
        assert_close!([m.fdr, m.tpr, m.fpr], [0.0, 1.0, 0.0], atol = 0.0);
        let m = compare(&graph(&[]), &truth);
        assert_eq!((m.shd, m.edges), (3, 0));
        assert_close!([m.fdr, m.tpr, m.fpr], [0.0; 3], atol = 0.0);
        assert_close!(compare(&graph(&[]), &graph(&[])).tpr, 1.0, atol = 0.0);
    }

    proptest! {
        #[test]
        fn the_distance_of_graphs_is_symmetric_and_zero_of_equals(a in 0_u32..4096, b in 0_u32..4096) {
            // Upper triangles of 4 nodes have 6 pairs, each absent, forward or backward.
            let of = |code: u32| {
                let mut edges = Vec::new();
                let mut rest = code;
                for i in 0..4 {
                    for j in 0..i {
                        match rest % 3 { 1 => edges.push((i, j)), 2 => edges.push((j, i)), _ => {} }
                        rest /= 3;
                    }
                }
                graph(&edges)
            };
            let (a, b) = (of(a), of(b));
            prop_assert_eq!(compare(&a, &b).shd, compare(&b, &a).shd);
            prop_assert_eq!(compare(&a, &a).shd, 0);
        }
    }
}
