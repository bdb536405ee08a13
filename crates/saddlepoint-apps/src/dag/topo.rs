//! Topological swaps: for a fixed order of the nodes the best graph is a regression a node, and the search is over orders.
//!
//! # Method
//! ```text
//! fit W to the order;  repeat
//!   candidates: pairs (i, j), i after j, with the least total weight of walks from j to i, [∇h]_ij = [(I − |W|)^-1]_ji
//!   the score after each swap of a pair of the small set; without a gain, of the large set, at most `rescues` times
//!   of the swaps with a gain, best first, those whose windows of places do not overlap are made at once
//! until no swap has a gain;  then, while a pair violates the first-order conditions, its edge is put in and the search goes on
//! ```
//! Windows that do not overlap change disjoint sets of columns, so that the gains add up and the score never rises.
//!
//! # Parameters
//! | name | default | range | meaning |
//! |---|---|---|---|
//! | small | min(100, d(d−1)/8) | 1..d(d−1)/2 | pairs of the small set; ties are all taken |
//! | large | min(400, d(d−1)/2) | small..d(d−1)/2 | pairs of the large set |
//! | rescues | 1 | | how often the large set may lead on |
//! | swap | exchange | | how a pair changes places |
//! | choice | all that fit | | or the first with a gain, where trials are expensive |
//!
//! # Reference
//! Deng, Bello, Aragam & Ravikumar 2023, *Optimizing NOTEARS objectives via topological swaps*, arXiv:2305.17277, algorithms 1 and 2, and
//! the released code `Duntrain/TOPO`.
//!
//! # Differences
//! A gain is at least `1e-10 max(1, |F|)`, so that orders of equal score are not exchanged for ever. What still violates the conditions at
//! the end is repaired, so that the result satisfies them for all pairs; the release stops before. The release's order of search within
//! a set of equal losses depends on Python's hashes; here pairs are taken by rows.

use rand::seq::SliceRandom as _;
use saddlepoint_core::seed::Seed;

use super::acyclicity::walks;
use super::graph::{Swap, Weights, check_order};
use super::kkt::{Kkt, worst};
use super::score::{Fit, Score, on_order, total, weights};
use crate::{Error, Result};

/// Which swaps with a gain are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Choice {
    /// Best first, all whose windows do not overlap.
    #[default]
    Greedy,
    /// The first that is found, without trying the rest.
    First,
}

/// Settings of the search.
#[derive(Debug, Clone, PartialEq)]
pub struct Topo {
    /// Pairs of the small set; by default by the rule above.
    pub small: Option<usize>,
    /// Pairs of the large set; by default by the rule above.
    pub large: Option<usize>,
    /// How often the large set may lead on.
    pub rescues: usize,
    /// How a pair changes places.
    pub swap: Swap,
    /// Which swaps are made.
    pub choice: Choice,
    /// The least gain, relative to `max(1, |F|)`.
    pub gain: f64,
    /// Most steps; a search that is cut off says so.
    pub steps: usize,
}

impl Default for Topo {
    fn default() -> Self {
        Self {
            small: None,
            large: None,
            rescues: 1,
            swap: Swap::Exchange,
            choice: Choice::Greedy,
            gain: 1e-10,
            steps: 100_000,
        }
    }
}

/// What a search found.
#[derive(Debug, Clone, PartialEq)]
pub struct Found {
    /// The order.
    pub order: Vec<usize>,
    /// The weights that belong to it; many are small, and thresholded before edges are read from them.
    pub weights: Weights,
    /// One regression a node.
    pub fits: Vec<Fit>,
    /// The score at the start and after each step.
    pub scores: Vec<f64>,
    /// The first-order conditions.
    pub kkt: Kkt,
    /// Swaps whose score was computed.
    pub trials: u64,
    /// How often the large set led on.
    pub rescues: usize,
    /// How often a violated condition led on.
    pub repairs: usize,
    /// Whether it ended by itself and not by the limit of steps.
    pub finished: bool,
    /// What the reader has to know.
    pub notes: Vec<String>,
}

impl Found {
    /// The score.
    pub fn score(&self) -> f64 {
        total(&self.fits)
    }
}

/// A random order of the nodes.
pub fn random_order(d: usize, seed: u64, repetition: u64) -> Vec<usize> {
    let mut order: Vec<usize> = (0..d).collect();
    order.shuffle(&mut Seed::new(seed).stream("dag/order", &[repetition]));
    order
}

/// Candidates: pairs `(i, j)` with `i` after `j`, by rows.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Candidates {
    pub(super) small: Vec<(usize, usize)>,
    /// Those of the large set that are not in the small one.
    pub(super) rest: Vec<(usize, usize)>,
}

impl Topo {
    /// The sizes of both sets for `d` nodes.
    ///
    /// # Errors
    /// Sizes outside of their ranges.
    pub fn sizes(&self, d: usize) -> Result<(usize, usize)> {
        let pairs = d * d.saturating_sub(1) / 2;
        let large = self.large.unwrap_or(pairs.min(400));
        let small = self.small.unwrap_or((pairs / 4).clamp(1, 100).min(large.max(1)));
        if pairs == 0 {
            return Ok((0, 0));
        }
        if small == 0 || small > pairs {
            let problem = format!("must be in 1..={pairs} for {d} nodes, got {small}");
            return Err(Error::Setting { key: "small", problem });
        }
        if large < small || large > pairs {
            let problem = format!(
                "must be in {small}..={pairs}, from the small set to all pairs of {d} nodes, got {large}"
            );
            return Err(Error::Setting { key: "large", problem });
        }
        Ok((small, large))
    }

    /// Searches from an order.
    ///
    /// # Errors
    /// A start that is no order, a setting out of range, a regression that was not solved.
    pub fn run<S: Score + ?Sized>(&self, score: &S, start: &[usize]) -> Result<Found> {
        let d = score.nodes();
        check_order(start, d)?;
        let sizes = self.sizes(d)?;
        if self.gain.is_nan() || self.gain < 0.0 {
            return Err(Error::range("gain", ">= 0", self.gain, Self::default().gain));
        }
        let mut state = State { order: start.to_vec(), fits: on_order(score, start)?, trials: 0 };
        let mut scores = vec![total(&state.fits)];
        let (mut rescues, mut repairs) = (0, 0);
        let mut finished = false;
        while scores.len() <= self.steps {
            let candidates = state.candidates(score, sizes);
            let moved = if state.improve(self, score, &candidates.small)? {
                true
            } else if rescues < self.rescues && state.improve(self, score, &candidates.rest)? {
                rescues += 1;
                true
            } else if state.repair(self, score)? {
                repairs += 1;
                true
            } else {
                false
            };
            if !moved {
                finished = true;
                break;
            }
            scores.push(total(&state.fits));
        }
        let mut notes = score.notes();
        if !finished {
            notes.push(format!("the search was cut off after {} steps", self.steps));
        }
        Ok(Found {
            weights: weights(score, &state.fits),
            kkt: Kkt::of(score, &state.fits),
            order: state.order,
            fits: state.fits,
            scores,
            trials: state.trials,
            rescues,
            repairs,
            finished,
            notes,
        })
    }
}

/// Where a search is.
struct State {
    order: Vec<usize>,
    fits: Vec<Fit>,
    trials: u64,
}

impl State {
    fn candidates<S: Score + ?Sized>(&self, score: &S, sizes: (usize, usize)) -> Candidates {
        candidates(&weights(score, &self.fits), &self.order, sizes)
    }

    /// The least gain that counts.
    fn least(&self, topo: &Topo) -> f64 {
        topo.gain * total(&self.fits).abs().max(1.0)
    }

    /// Makes the swaps with a gain; whether there were any.
    fn improve<S: Score + ?Sized>(
        &mut self,
        topo: &Topo,
        score: &S,
        pairs: &[(usize, usize)],
    ) -> Result<bool> {
        let places = places(&self.order);
        let windows: Vec<(usize, usize)> = pairs.iter().map(|&(i, j)| (places[j], places[i])).collect();
        let least = self.least(topo);
        let mut gains: Vec<(f64, (usize, usize))> = Vec::new();
        // One by one where the first will do, else all in one go.
        let at_once = if topo.choice == Choice::First { 1 } else { windows.len().max(1) };
        for some in windows.chunks(at_once) {
            self.trials += some.len() as u64;
            let changes = score.changes(&self.order, &self.fits, topo.swap, some)?;
            gains
                .extend(changes.into_iter().zip(some.iter().copied()).filter(|(change, _)| *change < -least));
            if topo.choice == Choice::First && !gains.is_empty() {
                break;
            }
        }
        // A stable sort: of equal gains the first by rows.
        gains.sort_by(|a, b| a.0.total_cmp(&b.0));
        let mut taken = vec![false; self.order.len()];
        for &(_, (first, last)) in &gains {
            if taken[first..=last].iter().any(|taken| *taken) {
                continue;
            }
            taken[first..=last].fill(true);
            let mut order = self.order.clone();
            topo.swap.apply(&mut order, first, last);
            self.order = order;
            score.refit(&self.order, first, last, &mut self.fits)?;
        }
        Ok(!gains.is_empty())
    }

    /// Puts the edge of the worst violated condition into the graph, and fits an order that has it; whether the score fell.
    fn repair<S: Score + ?Sized>(&mut self, topo: &Topo, score: &S) -> Result<bool> {
        let Some((i, j)) = worst(score, &self.fits) else { return Ok(false) };
        let mut graph = weights(score, &self.fits);
        if graph.get(i, j) == 0.0 {
            graph.set(i, j, 1.0);
        }
        let order = graph.order().expect("no path leads from j to i, so the edge makes no cycle");
        let mut fits = self.fits.clone();
        score.refit(&order, 0, order.len() - 1, &mut fits)?;
        if total(&fits) >= total(&self.fits) - self.least(topo) {
            return Ok(false);
        }
        (self.order, self.fits) = (order, fits);
        Ok(true)
    }
}

/// The place of each node.
fn places(order: &[usize]) -> Vec<usize> {
    let mut places = vec![0; order.len()];
    order.iter().enumerate().for_each(|(place, &node)| places[node] = place);
    places
}

/// The pairs with the least walks, and ties.
pub(super) fn candidates(w: &Weights, order: &[usize], (small, large): (usize, usize)) -> Candidates {
    let d = order.len();
    let (walks, places) = (walks(w, order), places(order));
    let slope = |i: usize, j: usize| walks[j * d + i];
    let all = || (0..d).flat_map(|i| (0..d).map(move |j| (i, j))).filter(|&(i, j)| places[i] > places[j]);
    let mut slopes: Vec<f64> = all().map(|(i, j)| slope(i, j)).collect();
    if slopes.is_empty() {
        return Candidates { small: Vec::new(), rest: Vec::new() };
    }
    slopes.sort_by(f64::total_cmp);
    let (at_small, at_large) = (slopes[small - 1], slopes[large - 1]);
    Candidates {
        small: all().filter(|&(i, j)| slope(i, j) <= at_small).collect(),
        rest: all().filter(|&(i, j)| slope(i, j) > at_small && slope(i, j) <= at_large).collect(),
    }
}

#[cfg(test)]
mod tests;
