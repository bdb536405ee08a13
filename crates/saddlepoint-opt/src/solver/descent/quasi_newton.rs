//! L-BFGS within bounds: Nocedal & Wright, algorithm 7.4, on the variables that no bound holds (Bertsekas 1982), with a search
//! along the projected ray.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use super::{Point, Smooth, rounding};
use crate::linalg::{add_scaled, dot, largest, norm, scale};
use crate::problem::Bounds;

/// Pairs of steps and changes of the gradient that are kept.
const PAIRS: usize = 20;
/// Share of the slope that a step has to realise (Armijo), and that may remain after it (Wolfe).
const SUFFICIENT: f64 = 1e-4;
const REMAINING: f64 = 0.9;

/// What it remembers.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct QuasiNewton {
    pairs: VecDeque<(Vec<f64>, Vec<f64>)>,
}

impl QuasiNewton {
    /// One step; `false` if none makes progress, which leaves the point as it was.
    pub(crate) fn step(&mut self, f: &impl Smooth, bounds: &Bounds, at: &mut Point) -> bool {
        let free = free(bounds, at);
        let mut direction = self.direction(&at.grad, &free);
        // Nearly orthogonal directions of a worn-out memory are worse than the gradient.
        let slope = dot(&at.grad, &direction);
        if slope.is_nan() || slope > -1e-12 * norm(&at.grad) * norm(&direction) {
            self.pairs.clear();
            direction = self.direction(&at.grad, &free);
        }
        let mut found = search(f, bounds, at, &direction, self.first_length(&direction));
        if found.is_none() && !self.pairs.is_empty() {
            self.pairs.clear();
            direction = self.direction(&at.grad, &free);
            found = search(f, bounds, at, &direction, self.first_length(&direction));
        }
        let Some(next) = found else { return false };
        let step: Vec<f64> = next.x.iter().zip(&at.x).map(|(a, b)| a - b).collect();
        let change: Vec<f64> = next.grad.iter().zip(&at.grad).map(|(a, b)| a - b).collect();
        if dot(&step, &change) > 1e-10 * norm(&step) * norm(&change) {
            if self.pairs.len() == PAIRS {
                self.pairs.pop_front();
            }
            self.pairs.push_back((step, change));
        }
        *at = next;
        true
    }

    /// The first trial of a search: a quasi-Newton step has its own length, a gradient has none.
    fn first_length(&self, direction: &[f64]) -> f64 {
        if self.pairs.is_empty() { 1.0 / largest(direction).max(1.0) } else { 1.0 }
    }

    /// `−H g` on the free variables, by the two loops.
    fn direction(&self, grad: &[f64], free: &[bool]) -> Vec<f64> {
        let masked = |v: &[f64]| -> Vec<f64> {
            v.iter().zip(free).map(|(v, free)| if *free { *v } else { 0.0 }).collect()
        };
        let mut q: Vec<f64> = masked(grad).iter().map(|g| -g).collect();
        let pairs: Vec<_> = self.pairs.iter().map(|(s, y)| (masked(s), masked(y))).collect();
        let pairs: Vec<_> = pairs.iter().filter(|(s, y)| dot(s, y) > 1e-12 * norm(s) * norm(y)).collect();
        let mut along = Vec::with_capacity(pairs.len());
        for (s, y) in pairs.iter().rev() {
            let a = dot(s, &q) / dot(s, y);
            add_scaled(&mut q, -a, y);
            along.push(a);
        }
        if let Some((s, y)) = pairs.last() {
            scale(&mut q, dot(s, y) / dot(y, y));
        }
        for ((s, y), a) in pairs.iter().zip(along.iter().rev()) {
            let b = dot(y, &q) / dot(s, y);
            add_scaled(&mut q, a - b, s);
        }
        q
    }
}

/// Variables that are not held at a bound by the gradient.
fn free(bounds: &Bounds, at: &Point) -> Vec<bool> {
    let held = |i: usize| {
        let (x, g) = (at.x[i], at.grad[i]);
        (x <= bounds.lower[i] && g >= 0.0) || (x >= bounds.upper[i] && g <= 0.0)
    };
    (0..at.x.len()).map(|i| !held(i)).collect()
}

/// A point along the projected ray with enough decrease and, where no bound cuts the ray, a slope that has risen enough: by
/// bisection and doubling (Lewis & Overton 2013). `None` if there is none.
fn search(f: &impl Smooth, bounds: &Bounds, at: &Point, direction: &[f64], first: f64) -> Option<Point> {
    let slope = dot(&at.grad, direction);
    if slope.is_nan() || slope >= 0.0 {
        return None;
    }
    let (mut low, mut high, mut t) = (0.0, f64::INFINITY, first);
    let mut best: Option<Point> = None;
    for _ in 0..80 {
        let mut x = at.x.clone();
        add_scaled(&mut x, t, direction);
        let straight = x.clone();
        bounds.project(&mut x);
        let cut = x != straight;
        let predicted: f64 = (0..x.len()).map(|i| at.grad[i] * (x[i] - at.x[i])).sum();
        let next = Point::new(f, x);
        // Where rounding hides the decrease, the slope has to fall instead (Hager & Zhang 2005).
        let falls = next.value <= at.value + SUFFICIENT * predicted;
        let settles = next.value <= at.value + rounding(at.value, at.x.len())
            && dot(&next.grad, direction) <= REMAINING * slope.abs();
        if !(next.is_finite() && (falls || settles)) {
            high = t;
        } else if !cut && dot(&next.grad, direction) < REMAINING * slope {
            low = t;
            best = Some(next);
        } else {
            return (next.x != at.x).then_some(next);
        }
        t = if high.is_finite() { 0.5 * (low + high) } else { 2.0 * t };
        if high.is_finite() && high - low <= f64::EPSILON * high {
            break;
        }
    }
    best.filter(|next| next.value < at.value)
}
