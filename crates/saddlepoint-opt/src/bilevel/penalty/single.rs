//! Algorithm 2: one step of each level, gradients with recursive momentum.

use serde::{Deserialize, Serialize};

use super::super::Bilevel;
use super::super::vector::blend;
use super::{Moved, PenaltyBilevel, PenaltyState};
use crate::linalg::add_scaled;

/// Estimates of gradients and the points at which they were last taken.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Memory {
    /// `∇_y F` and `∇_y f` at `(x, u)`, `∇_y f` at `(x, w)`.
    lower: [Vec<f64>; 3],
    /// `∇_x F` at `(x, u⁺)`, and `∇_x f` there less that at `(x, w⁺)`.
    pub(super) upper: [Vec<f64>; 2],
    /// `x`, `u`, `w` of the step before.
    x: Vec<f64>,
    u: Vec<f64>,
    w: Vec<f64>,
}

impl PenaltyBilevel {
    pub(super) fn single<P: Bilevel + ?Sized>(
        &self,
        problem: &P,
        s: &mut PenaltyState,
        sigma: f64,
        eta: Option<f64>,
    ) -> Moved {
        // With exact gradients the recursion gives back the gradient, whatever eta.
        let eta = match (self.sampled, eta) {
            (None, _) => 1.0,
            (_, Some(eta)) => eta,
            (_, None) => (8.0 * (s.k as f64 + 8.0).powf(-2.0 / 3.0)).min(1.0),
        };
        let before = s.memory.take();
        // The sample of a step is the same at both points, and in both terms that are divided by sigma.
        let mut lower = self.lower_gradients(problem, s.k, (&s.x, &s.u, &s.w));
        s.gradients += 6;
        if let Some(before) = &before {
            let at = self.lower_gradients(problem, s.k, (&before.x, &before.u, &before.w));
            s.gradients += 3;
            recur(&mut lower, &before.lower, &at, eta);
        }
        let [upper_u, lower_u, lower_w] = &lower;
        let (mut u, mut w) = (s.u.clone(), s.w.clone());
        let mut grad = lower_u.clone();
        add_scaled(&mut grad, sigma, upper_u);
        s.lower_step(problem, &mut u, &grad, &s.y);
        s.lower_step(problem, &mut w, lower_w, &s.z);

        let mut upper = self.upper_gradients(problem, s.k, (&s.x, &u, &w));
        if let Some(before) = &before {
            let at = self.upper_gradients(problem, s.k, (&before.x, &s.u, &s.w));
            s.gradients += 3;
            recur(&mut upper, &before.upper, &at, eta);
        }
        let mut direction = upper[0].clone();
        add_scaled(&mut direction, 1.0 / sigma, &upper[1]);
        let (mut y, mut z) = (s.y.clone(), s.z.clone());
        blend(&mut y, self.beta, &u);
        blend(&mut z, self.beta, &w);
        if self.sampled.is_some() {
            s.memory = Some(Memory { lower, upper, x: s.x.clone(), u: s.u.clone(), w: s.w.clone() });
        }
        Moved { u, w, y, z, direction }
    }

    fn lower_gradients<P: Bilevel + ?Sized>(
        &self,
        problem: &P,
        k: u64,
        (x, u, w): (&[f64], &[f64], &[f64]),
    ) -> [Vec<f64>; 3] {
        let (mut unused, zero) = (vec![0.0; x.len()], vec![0.0; u.len()]);
        let [mut upper_u, mut lower_u, mut lower_w] = [zero.clone(), zero.clone(), zero];
        self.oracle(problem, k, 0).upper(x, u, &mut unused, &mut upper_u);
        self.oracle(problem, k, 1).lower(x, u, &mut unused, &mut lower_u);
        self.oracle(problem, k, 2).lower(x, w, &mut unused, &mut lower_w);
        [upper_u, lower_u, lower_w]
    }

    fn upper_gradients<P: Bilevel + ?Sized>(
        &self,
        problem: &P,
        k: u64,
        (x, u, w): (&[f64], &[f64], &[f64]),
    ) -> [Vec<f64>; 2] {
        let (mut unused, zero) = (vec![0.0; u.len()], vec![0.0; x.len()]);
        let [mut upper, mut at_u, mut at_w] = [zero.clone(), zero.clone(), zero];
        self.oracle(problem, k, 3).upper(x, u, &mut upper, &mut unused);
        let same = self.oracle(problem, k, 4);
        same.lower(x, u, &mut at_u, &mut unused);
        same.lower(x, w, &mut at_w, &mut unused);
        add_scaled(&mut at_u, -1.0, &at_w);
        [upper, at_u]
    }
}

/// `G <- G + (1 − η) (G_before − G at the point before)`.
fn recur<const N: usize>(new: &mut [Vec<f64>; N], before: &[Vec<f64>; N], at: &[Vec<f64>; N], eta: f64) {
    for ((new, before), at) in new.iter_mut().zip(before).zip(at) {
        add_scaled(new, 1.0 - eta, before);
        add_scaled(new, eta - 1.0, at);
    }
}
