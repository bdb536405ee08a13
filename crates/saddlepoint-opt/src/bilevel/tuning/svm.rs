//! Weights of the examples of a linear support vector machine, chosen by the loss on held-out examples.
//!
//! # Objective
//! With log-weights `c`, margins `m_i = s_i (wᵀ z_i + b)` of labels `s_i = ±1`, and held-out margins `μ_j = m_j / |w|`
//! ```text
//! min_c  F = Σ_held-out leaky( 2 σ(−5 μ_j) − 1 )        leaky(t) = max(t, t/100),  σ the logistic function
//! where  (w, b) minimises   ½ |w|² + ½ Σ_i exp(c_i) max(0, 1 − m_i)²
//! ```
//! `F` does not change with the length of `w`; it counts errors, smoothly. Examples may share a weight. Two forms of the same problem:
//! [`Hinge`] as above; [`Slack`] with `ξ_i² ` in place of the hinge under `1 − ξ_i − m_i <= 0`, constraints that couple all examples.
//!
//! # Reference
//! Yao et al. 2024 (arXiv:2401.16164), §5, with `N` weights; the loss is their program's.

use crate::Result;
use crate::bilevel::conjugate::conjugate_gradients;
use crate::bilevel::{Bilevel, LowerCurvature, Sizes};
use crate::examples::{Examples, Whole};
use crate::linalg::{add_scaled, dot, norm};
use crate::problem::{Bounds, Simple};
use crate::simd::{self, vectorized};

/// Slope of the leaky part.
const LEAK: f64 = 0.01;

/// Training and held-out examples with labels ±1.
#[derive(Debug, Clone)]
pub struct Svm {
    train: Whole,
    held_out: Whole,
    /// Which weight each training example has; none where each has its own, in order.
    groups: Option<Vec<usize>>,
    bounds: Simple,
    pub(super) weights: usize,
}

impl Svm {
    /// With the weight of each training example by its number, and limits of the log-weights. Labels are ±1 and both data have the same
    /// features: [`Split`](super::Split) makes them so.
    pub fn new(train: Examples, held_out: Examples, groups: Vec<usize>, (least, most): (f64, f64)) -> Self {
        assert_eq!(train.len(), groups.len(), "one group an example");
        assert_eq!(train.features, held_out.features, "the same features");
        let weights = groups.iter().max().map_or(0, |last| last + 1);
        let bounds = Bounds::new(vec![least; weights], vec![most; weights]).into();
        let groups = Some(groups).filter(|groups| groups.iter().enumerate().any(|(i, group)| i != *group));
        Self { train: Whole::new(train), held_out: Whole::new(held_out), groups, bounds, weights }
    }

    /// The upper objective on some examples, and the share of them that is classified rightly.
    pub fn score(&self, examples: &Examples, y: &[f64]) -> (f64, f64) {
        let d = self.features();
        let decisions = (0..examples.len()).map(|i| examples.dot(i, &y[..d]) + y[d]);
        self.judged(&examples.labels, decisions, y)
    }

    /// The same of decisions that were made.
    fn judged(&self, labels: &[f64], decisions: impl Iterator<Item = f64>, y: &[f64]) -> (f64, f64) {
        let length = self.length(y);
        let margins: Vec<f64> = decisions.zip(labels).map(|(of, label)| label * of / length).collect();
        let loss = odds(&margins).into_iter().map(|odds| leaky(odds).0).sum();
        let right = margins.iter().filter(|margin| **margin > 0.0).count();
        (loss, right as f64 / labels.len().max(1) as f64)
    }

    fn upper(&self, y: &[f64]) -> f64 {
        let decisions = self.held_out.products(y);
        self.judged(&self.held_out.examples().labels, decisions.into_iter(), y).0
    }

    fn upper_grad(&self, y: &[f64], dy: &mut [f64]) {
        let (d, length) = (self.features(), self.length(y));
        dy.fill(0.0);
        let labels = &self.held_out.examples().labels;
        let mut pulls = self.held_out.products(y);
        pulls.iter_mut().zip(labels).for_each(|(pull, label)| *pull *= label / length);
        let mut slopes = odds(&pulls);
        vectorized(
            #[inline(always)]
            || slopes.iter_mut().for_each(|of| *of = leaky(*of).1 / length),
        );
        let along = dot(&slopes, &pulls);
        slopes.iter_mut().zip(labels).for_each(|(slope, label)| *slope *= label);
        self.held_out.add_sum(&slopes, dy);
        // The margin is divided by the length of w.
        add_scaled(&mut dy[..d], -along / length, &y[..d]);
    }

    fn features(&self) -> usize {
        self.train.examples().features
    }

    fn labels(&self) -> &[f64] {
        &self.train.examples().labels
    }

    /// `|w|`, above 0.
    fn length(&self, y: &[f64]) -> f64 {
        norm(&y[..self.features()]).max(f64::MIN_POSITIVE)
    }

    /// `exp(c_i)` of the training examples.
    fn example_weights(&self, x: &[f64]) -> Vec<f64> {
        let mut of_groups = x.to_vec();
        simd::exp(&mut of_groups);
        match &self.groups {
            Some(groups) => groups.iter().map(|group| of_groups[*group]).collect(),
            None => of_groups,
        }
    }

    /// Writes the sums over the examples of each weight.
    fn sum_groups(&self, of_examples: &[f64], out: &mut [f64]) {
        let Some(groups) = &self.groups else { return out.copy_from_slice(of_examples) };
        out.fill(0.0);
        groups.iter().zip(of_examples).for_each(|(group, of)| out[*group] += of);
    }

    /// `1 − m_i` of the training examples.
    fn shortfalls(&self, y: &[f64]) -> Vec<f64> {
        let mut all = self.train.products(y);
        all.iter_mut().zip(self.labels()).for_each(|(of, label)| *of = 1.0 - label * *of);
        all
    }
}

/// `exp(5 μ)` of each.
fn odds(margins: &[f64]) -> Vec<f64> {
    let mut odds: Vec<f64> = margins.iter().map(|margin| 5.0 * margin).collect();
    simd::exp(&mut odds);
    odds
}

/// `leaky(2 σ(−5 μ) − 1)` and its derivative by `μ`, from `exp(5 μ)`.
#[allow(clippy::inline_always, reason = "compiled once for each instruction set, inside the dispatch")]
#[inline(always)]
fn leaky(odds: f64) -> (f64, f64) {
    let sigma = 1.0 / (1.0 + odds);
    let value = 2.0 * sigma - 1.0;
    let leak = if value > 0.0 { 1.0 } else { LEAK };
    (leak * value, leak * -10.0 * sigma * (1.0 - sigma))
}

/// Of shortfalls `1 − m` and weights `e^c` makes the derivatives of the losses by the decisions, and the losses `½ e^c max(0, 1 − m)²`.
#[allow(clippy::inline_always, reason = "compiled once for each instruction set, inside the dispatch")]
#[inline(always)]
fn hinges(shortfalls: &mut [f64], weights: &mut [f64], labels: &[f64]) {
    for ((short, weight), label) in shortfalls.iter_mut().zip(weights).zip(labels) {
        // Not a number goes on as such.
        let counts = *short > 0.0 || short.is_nan();
        let slope = *weight * *short;
        *weight = if counts { 0.5 * slope * *short } else { 0.0 };
        *short = if counts { -slope * label } else { 0.0 };
    }
}

/// The form without constraints; the lower variable is `(w, b)`.
#[derive(Debug, Clone, Copy)]
pub struct Hinge<'a>(pub &'a Svm);

impl Bilevel for Hinge<'_> {
    fn sizes(&self) -> Sizes {
        Sizes { upper: self.0.weights, lower: self.0.features() + 1, constraints: 0 }
    }

    fn upper(&self, _x: &[f64], y: &[f64]) -> f64 {
        self.0.upper(y)
    }

    fn upper_grad(&self, _x: &[f64], y: &[f64], dx: &mut [f64], dy: &mut [f64]) {
        dx.fill(0.0);
        self.0.upper_grad(y, dy);
    }

    fn lower(&self, x: &[f64], y: &[f64]) -> f64 {
        let w = &y[..self.0.features()];
        let losses = self.0.shortfalls(y).into_iter().map(|short| short.max(0.0).powi(2));
        let weighted = losses.zip(self.0.example_weights(x)).map(|(loss, weight)| weight * loss);
        0.5 * dot(w, w) + 0.5 * weighted.sum::<f64>()
    }

    fn lower_grad(&self, x: &[f64], y: &[f64], dx: &mut [f64], dy: &mut [f64]) {
        let d = self.0.features();
        dy[..d].copy_from_slice(&y[..d]);
        dy[d] = 0.0;
        let (mut pulls, mut losses) = (self.0.shortfalls(y), self.0.example_weights(x));
        vectorized(
            #[inline(always)]
            || hinges(&mut pulls, &mut losses, self.0.labels()),
        );
        self.0.sum_groups(&losses, dx);
        self.0.train.add_sum(&pulls, dy);
    }

    fn upper_set(&self) -> &Simple {
        &self.0.bounds
    }
}

impl LowerCurvature for Hinge<'_> {
    fn hess_yy(&self, x: &[f64], y: &[f64], v: &[f64], out: &mut [f64]) {
        let d = self.0.features();
        out[..d].copy_from_slice(&v[..d]);
        out[d] = 0.0;
        let mut along = self.0.train.products(v);
        let weights = self.0.example_weights(x);
        for ((along, short), weight) in along.iter_mut().zip(self.0.shortfalls(y)).zip(weights) {
            *along = if short > 0.0 { weight * *along } else { 0.0 };
        }
        self.0.train.add_sum(&along, out);
    }

    fn hess_xy(&self, x: &[f64], y: &[f64], v: &[f64], out: &mut [f64]) {
        let (along, weights) = (self.0.train.products(v), self.0.example_weights(x));
        let mut of_examples = self.0.shortfalls(y);
        for (i, of) in of_examples.iter_mut().enumerate() {
            *of = if *of > 0.0 { -weights[i] * *of * self.0.labels()[i] * along[i] } else { 0.0 };
        }
        self.0.sum_groups(&of_examples, out);
    }
}

/// The form with constraints; the lower variable is `(w, b, ξ)`.
#[derive(Debug, Clone, Copy)]
pub struct Slack<'a>(pub &'a Svm);

impl Slack<'_> {
    /// `(w, b)` with the `ξ` and the multipliers that go with it.
    pub fn lift(&self, x: &[f64], y: &[f64]) -> (Vec<f64>, Vec<f64>) {
        let slack: Vec<f64> = self.0.shortfalls(y).into_iter().map(|short| short.max(0.0)).collect();
        let weights = self.0.example_weights(x);
        let multipliers = slack.iter().zip(weights).map(|(slack, weight)| weight * slack).collect();
        ([y, &slack].concat(), multipliers)
    }
}

impl Bilevel for Slack<'_> {
    fn sizes(&self) -> Sizes {
        let examples = self.0.labels().len();
        Sizes { upper: self.0.weights, lower: self.0.features() + 1 + examples, constraints: examples }
    }

    fn upper(&self, _x: &[f64], y: &[f64]) -> f64 {
        self.0.upper(y)
    }

    fn upper_grad(&self, _x: &[f64], y: &[f64], dx: &mut [f64], dy: &mut [f64]) {
        let (model, slack) = dy.split_at_mut(self.0.features() + 1);
        dx.fill(0.0);
        slack.fill(0.0);
        self.0.upper_grad(y, model);
    }

    fn lower(&self, x: &[f64], y: &[f64]) -> f64 {
        let d = self.0.features();
        let weights = self.0.example_weights(x);
        let losses = y[d + 1..].iter().zip(weights).map(|(slack, weight)| weight * slack * slack);
        0.5 * dot(&y[..d], &y[..d]) + 0.5 * losses.sum::<f64>()
    }

    fn lower_grad(&self, x: &[f64], y: &[f64], dx: &mut [f64], dy: &mut [f64]) {
        let d = self.0.features();
        dy[..d].copy_from_slice(&y[..d]);
        dy[d] = 0.0;
        let mut of_examples = self.0.example_weights(x);
        for ((slack, of), dy) in y[d + 1..].iter().zip(&mut of_examples).zip(&mut dy[d + 1..]) {
            *dy = *of * slack;
            *of *= 0.5 * slack * slack;
        }
        self.0.sum_groups(&of_examples, dx);
    }

    fn constraints(&self, _x: &[f64], y: &[f64], g: &mut [f64]) {
        let d = self.0.features();
        let slack = &y[d + 1..];
        for ((g, short), slack) in g.iter_mut().zip(self.0.shortfalls(y)).zip(slack) {
            *g = short - slack;
        }
    }

    fn vjp(&self, _x: &[f64], _y: &[f64], w: &[f64], _dx: &mut [f64], dy: &mut [f64]) {
        let d = self.0.features();
        let (model, slack) = dy.split_at_mut(d + 1);
        add_scaled(slack, -1.0, w);
        let pulls: Vec<f64> = w.iter().zip(self.0.labels()).map(|(w, label)| -w * label).collect();
        self.0.train.add_sum(&pulls, model);
    }

    fn upper_set(&self) -> &Simple {
        &self.0.bounds
    }

    /// The nearest `ξ` to `ξ⁰` for given `v = (w, b)` is `max(ξ⁰, 1 − m)`, which leaves
    /// ```text
    /// min_v  ½ |v − v⁰|² + ½ Σ max(0, 1 − m_i(v) − ξ⁰_i)²
    /// ```
    /// a piecewise quadratic of `d + 1` variables: Newton's method with a line search, exact once the active set stands.
    fn project(&self, x: &mut [f64], y: &mut [f64]) -> Result<()> {
        self.0.bounds.prox(1.0, x);
        let d = self.0.features();
        let (model, slack) = y.split_at_mut(d + 1);
        let start = model.to_vec();
        let excess = |v: &[f64]| -> Vec<f64> {
            self.0.shortfalls(v).iter().zip(&*slack).map(|(short, slack)| (short - slack).max(0.0)).collect()
        };
        let cost = |v: &[f64], excess: &[f64]| {
            let away: f64 = v.iter().zip(&start).map(|(v, start)| (v - start).powi(2)).sum();
            0.5 * (away + dot(excess, excess))
        };
        let (mut v, mut over) = (start.clone(), excess(&start));
        for _ in 0..NEWTON_STEPS {
            // Minus the gradient.
            let mut down: Vec<f64> = start.iter().zip(&v).map(|(start, v)| start - v).collect();
            let pulls: Vec<f64> =
                over.iter().zip(self.0.labels()).map(|(over, label)| over * label).collect();
            self.0.train.add_sum(&pulls, &mut down);
            if norm(&down) <= 1e-13 * (1.0 + norm(&start) + norm(&over)) {
                break;
            }
            let step = conjugate_gradients(&down, 1e-14, |u, out| {
                out.copy_from_slice(u);
                let mut along = self.0.train.products(u);
                let off = along.iter_mut().zip(&over).filter(|(_, over)| **over <= 0.0);
                off.for_each(|(along, _)| *along = 0.0);
                self.0.train.add_sum(&along, out);
            });
            let (here, slope) = (cost(&v, &over), dot(&down, &step));
            let mut length = 1.0;
            let (next, then) = loop {
                let mut next = v.clone();
                add_scaled(&mut next, length, &step);
                let then = excess(&next);
                // At the end the gain is below rounding.
                if cost(&next, &then) <= here - 1e-4 * length * slope + 1e-14 * here || length < 1e-8 {
                    break (next, then);
                }
                length *= 0.5;
            };
            (v, over) = (next, then);
        }
        model.copy_from_slice(&v);
        slack.iter_mut().zip(&over).for_each(|(slack, over)| *slack += over);
        Ok(())
    }
}

/// Enough for any active set that was met: some ten are usual.
const NEWTON_STEPS: usize = 100;
