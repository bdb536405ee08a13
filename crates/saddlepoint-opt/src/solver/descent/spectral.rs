//! The spectral projected gradient (Birgin, Martínez & Raydan 2000), with a proximal step in place of the projection: steps of
//! Barzilai and Borwein's length, accepted if they fall below the largest of the last values.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use super::{Point, Smooth, rounding};
use crate::linalg::{add_scaled, dot, largest};
use crate::problem::Simple;

/// Values that a step may be compared with.
const REMEMBERED: usize = 10;
const LENGTHS: (f64, f64) = (1e-10, 1e10);
/// Most halvings of a step.
const HALVINGS: u32 = 80;

/// What it remembers.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Spectral {
    length: Option<f64>,
    values: VecDeque<f64>,
}

impl Spectral {
    /// One step; `false` if none makes progress, which leaves the point as it was.
    pub(crate) fn step(&mut self, f: &impl Smooth, simple: &Simple, at: &mut Point) -> bool {
        let towards = |length: f64| {
            let mut target = at.x.clone();
            add_scaled(&mut target, -length, &at.grad);
            simple.prox(length, &mut target);
            let direction: Vec<f64> = target.iter().zip(&at.x).map(|(t, x)| t - x).collect();
            direction.iter().all(|d| d.is_finite()).then_some((target, direction))
        };
        // Where gradients are huge, a length that was right for the last step may overflow.
        let found = self.length.and_then(towards).or_else(|| towards(1.0 / largest(&at.grad).max(1.0)));
        let Some((target, direction)) = found else { return false };
        let here = simple.value(&at.x);
        if self.values.len() == REMEMBERED {
            self.values.pop_front();
        }
        self.values.push_back(at.value + here);
        let ceiling = self.values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let slope = dot(&at.grad, &direction) + simple.value(&target) - here;
        let mut t = 1.0;
        // A gradient that does not belong to the values would be followed through all powers of two.
        for _ in 0..HALVINGS {
            let mut x = at.x.clone();
            add_scaled(&mut x, t, &direction);
            if x == at.x {
                return false;
            }
            let next = Point::new(f, x);
            let most = ceiling + 1e-4 * t * slope + rounding(ceiling, at.x.len());
            if next.is_finite() && next.value + simple.value(&next.x) <= most {
                let step: Vec<f64> = next.x.iter().zip(&at.x).map(|(a, b)| a - b).collect();
                let change: Vec<f64> = next.grad.iter().zip(&at.grad).map(|(a, b)| a - b).collect();
                let curvature = dot(&step, &change);
                let longest = if curvature > 0.0 { dot(&step, &step) / curvature } else { LENGTHS.1 };
                self.length = Some(longest.clamp(LENGTHS.0, LENGTHS.1));
                *at = next;
                return true;
            }
            t *= 0.5;
        }
        false
    }
}
