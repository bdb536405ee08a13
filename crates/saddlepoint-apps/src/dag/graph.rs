//! Weighted graphs and orders of their nodes.

use crate::{Error, Result};

/// A square matrix of weights: `w_ij` other than 0 is an edge from `i` to `j`, so that column `j` holds the parents of `j`.
#[derive(Debug, Clone, PartialEq)]
pub struct Weights {
    d: usize,
    values: Vec<f64>,
}

impl Weights {
    /// Of `d` nodes without an edge.
    pub fn none(d: usize) -> Self {
        Self { d, values: vec![0.0; d * d] }
    }

    /// From row-major numbers.
    ///
    /// # Errors
    /// Not `d * d` of them, one that is not finite, an edge from a node to itself.
    pub fn new(d: usize, values: Vec<f64>) -> Result<Self> {
        if values.len() != d * d {
            return Err(Error::graph(format!(
                "{} weights for {d} nodes; there must be {}",
                values.len(),
                d * d
            )));
        }
        if let Some(at) = values.iter().position(|w| !w.is_finite()) {
            return Err(Error::graph(format!("the weight of {} -> {} is {}", at / d, at % d, values[at])));
        }
        if let Some(i) = (0..d).find(|i| values[i * d + i] != 0.0) {
            return Err(Error::graph(format!("node {i} has an edge to itself")));
        }
        Ok(Self { d, values })
    }

    /// From edges `(from, to, weight)`.
    ///
    /// # Errors
    /// As [`Weights::new`]; a node that is not there.
    pub fn from_edges(d: usize, edges: &[(usize, usize, f64)]) -> Result<Self> {
        let mut values = vec![0.0; d * d];
        for &(i, j, w) in edges {
            if i >= d || j >= d {
                return Err(Error::graph(format!("edge {i} -> {j} in a graph of {d} nodes")));
            }
            values[i * d + j] = w;
        }
        Self::new(d, values)
    }

    /// The number of nodes.
    pub fn nodes(&self) -> usize {
        self.d
    }

    /// The weight of the edge from `i` to `j`; 0 if there is none.
    pub fn get(&self, i: usize, j: usize) -> f64 {
        self.values[i * self.d + j]
    }

    /// Row-major.
    pub fn values(&self) -> &[f64] {
        &self.values
    }

    pub(crate) fn set(&mut self, i: usize, j: usize, w: f64) {
        self.values[i * self.d + j] = w;
    }

    /// The edges `(from, to, weight)`, by rows.
    pub fn edges(&self) -> Vec<(usize, usize, f64)> {
        let d = self.d;
        let nonzero = self.values.iter().enumerate().filter(|(_, w)| **w != 0.0);
        nonzero.map(|(at, w)| (at / d, at % d, *w)).collect()
    }

    /// Without the edges whose weight is below `least` in absolute value.
    #[must_use]
    pub fn thresholded(&self, least: f64) -> Self {
        let values = self.values.iter().map(|w| if w.abs() < least { 0.0 } else { *w }).collect();
        Self { d: self.d, values }
    }

    /// Without the edges below `least`, and without the weakest of the rest until no cycle is left; and the threshold that it took.
    pub fn acyclic(&self, least: f64) -> (Self, f64) {
        let mut kept = self.thresholded(least);
        let mut threshold = least;
        let mut sizes: Vec<f64> = kept.edges().iter().map(|edge| edge.2.abs()).collect();
        sizes.sort_by(f64::total_cmp);
        for size in sizes {
            if kept.order().is_some() {
                break;
            }
            threshold = size.next_up();
            kept = kept.thresholded(threshold);
        }
        (kept, threshold)
    }

    /// A topological order, the node of least number first where there is a choice; `None` if there is a cycle.
    pub fn order(&self) -> Option<Vec<usize>> {
        let d = self.d;
        let mut parents: Vec<usize> =
            (0..d).map(|j| (0..d).filter(|i| self.get(*i, j) != 0.0).count()).collect();
        let mut left = vec![true; d];
        let mut order = Vec::with_capacity(d);
        while order.len() < d {
            let node = (0..d).find(|&j| left[j] && parents[j] == 0)?;
            left[node] = false;
            order.push(node);
            (0..d).filter(|&j| self.get(node, j) != 0.0).for_each(|j| parents[j] -= 1);
        }
        Some(order)
    }

    /// Whether `reached[i * d + j]`: a directed path leads from `i` to `j`; each node reaches itself.
    pub(crate) fn reached(&self) -> Vec<bool> {
        let d = self.d;
        let mut reached = vec![false; d * d];
        for start in 0..d {
            let mut todo = vec![start];
            while let Some(i) = todo.pop() {
                if !std::mem::replace(&mut reached[start * d + i], true) {
                    todo.extend((0..d).filter(|&j| self.get(i, j) != 0.0));
                }
            }
        }
        reached
    }
}

/// Refuses what is no permutation of the nodes.
///
/// # Errors
/// As said.
pub fn check_order(order: &[usize], d: usize) -> Result<()> {
    if order.len() != d {
        return Err(Error::graph(format!("an order of {} nodes, and there are {d}", order.len())));
    }
    let mut seen = vec![false; d];
    for &node in order {
        if node >= d || std::mem::replace(&mut seen[node], true) {
            return Err(Error::graph(format!("node {node} of the order is not there or occurs twice")));
        }
    }
    Ok(())
}

/// How two nodes `j` and `i`, the second of which is later, change places.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Swap {
    /// They exchange their places.
    #[default]
    Exchange,
    /// `j` moves to the place of `i`; those between move up.
    Back,
    /// `i` moves to the place of `j`; those between move down.
    Forward,
}

impl Swap {
    /// Changes the places `first < last` of an order.
    pub fn apply(self, order: &mut [usize], first: usize, last: usize) {
        match self {
            Swap::Exchange => order.swap(first, last),
            Swap::Back => order[first..=last].rotate_left(1),
            Swap::Forward => order[first..=last].rotate_right(1),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn orders_follow_the_edges_and_cycles_have_none() {
        let w = Weights::from_edges(4, &[(3, 1, 1.0), (1, 0, 2.0), (3, 2, -1.0)]).expect("a graph");
        assert_eq!(w.order(), Some(vec![3, 1, 0, 2]));
        let cycle = Weights::from_edges(3, &[(0, 1, 1.0), (1, 2, -0.2), (2, 0, 0.5)]).expect("a graph");
        assert_eq!(cycle.order(), None);
        let (kept, threshold) = cycle.acyclic(0.1);
        assert_eq!(kept.edges(), [(0, 1, 1.0), (2, 0, 0.5)]);
        assert!(threshold > 0.2 && threshold < 0.2 + 1e-15);
        assert_eq!(cycle.acyclic(0.3), (kept, 0.3));
        assert_eq!(Weights::none(0).order(), Some(vec![]));
    }

    #[test]
    fn what_is_no_graph_is_refused() {
        for (d, values, told) in [
            (2, vec![0.0; 3], "3 weights for 2 nodes; there must be 4"),
            (2, vec![0.0, f64::NAN, 0.0, 0.0], "the weight of 0 -> 1 is NaN"),
            (2, vec![0.0, 0.0, 0.0, 1.0], "node 1 has an edge to itself"),
        ] {
            assert_eq!(Weights::new(d, values).expect_err(told).to_string(), format!("the graph: {told}"));
        }
        assert!(Weights::from_edges(2, &[(0, 2, 1.0)]).is_err());
        for order in [&[0, 1][..], &[0, 1, 1], &[0, 1, 3]] {
            assert!(check_order(order, 3).is_err(), "{order:?}");
        }
        assert!(check_order(&[2, 0, 1], 3).is_ok());
    }

    #[test]
    fn nodes_change_places_in_three_ways() {
        for (swap, expected) in [
            (Swap::Exchange, [0, 3, 2, 1, 4]),
            (Swap::Back, [0, 2, 3, 1, 4]),
            (Swap::Forward, [0, 3, 1, 2, 4]),
        ] {
            let mut order = [0, 1, 2, 3, 4];
            swap.apply(&mut order, 1, 3);
            assert_eq!(order, expected, "{swap:?}");
        }
    }

    proptest! {
        #[test]
        fn a_graph_without_its_weakest_edges_has_an_order(values in proptest::collection::vec(-1.0..1.0_f64, 25)) {
            let mut w = Weights { d: 5, values };
            (0..5).for_each(|i| w.set(i, i, 0.0));
            let (kept, _) = w.acyclic(0.0);
            let order = kept.order().expect("no cycle is left");
            let place = |node| order.iter().position(|&other| other == node);
            prop_assert!(kept.edges().iter().all(|&(i, j, _)| place(i) < place(j)));
        }
    }
}
