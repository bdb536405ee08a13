//! The Newton system of a barrier problem,
//! ```text
//! [ W + Σ + δ_w   Jᵀ  ] [ Δv ]     [ r_v ]
//! [ J            −δ_c ] [ Δy ] = − [ r_c ]        v = (x, s),  J = (∇c, −1)
//! ```
//! with the slacks eliminated, factored with as much of `δ_w` and `δ_c` as the signs of its eigenvalues ask for.

use super::barrier::{Barrier, Slopes};
use crate::linalg::{Analysis, Inertia, SparseLdlt, Triplets, add_scaled, largest};
use crate::problem::Constrained;

/// What a system is made of, beside regularisation.
pub(super) struct System {
    n: usize,
    /// Lower triangle without its diagonal part that changes.
    elements: Triplets,
    analysis: Analysis,
    /// Of all variables, slacks last.
    sigma: Vec<f64>,
    slack: Vec<Option<usize>>,
    fixed: Vec<bool>,
    /// Minus what stands in the lower right corner before regularisation, one a constraint.
    corner: Vec<f64>,
}

/// A factored system.
pub(super) struct Factored<'a> {
    system: &'a System,
    matrix: Triplets,
    factor: SparseLdlt,
    /// What stabilised the upper left block.
    pub(super) delta_w: f64,
}

/// Regularisation as it was in earlier systems.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize, serde::Deserialize)]
pub(super) struct Regularisation {
    /// The last `δ_w` that was not 0; 0 if there was none.
    pub(super) last: f64,
}

const FIRST: f64 = 1e-4;
const LEAST: f64 = 1e-20;
const MOST: f64 = 1e40;
/// Residuals above this, relative to what they are made of, belong to a matrix that is singular to rounding.
const INACCURATE: f64 = 1e-5;

impl System {
    /// From the Hessian, of which `None` is the identity.
    pub(super) fn new<P: Constrained + ?Sized>(
        barrier: &Barrier<P>,
        hessian: Option<&Triplets>,
        slopes: &Slopes,
        sigma: Vec<f64>,
        corner: Vec<f64>,
    ) -> Self {
        let (n, m) = (barrier.n, barrier.slack.len());
        let fixed: Vec<bool> = (0..n).map(|i| barrier.fixed(i)).collect();
        let mut elements = Triplets::new(n + m, n + m);
        match hessian {
            None => (0..n).filter(|&i| !fixed[i]).for_each(|i| elements.push(i, i, 1.0)),
            Some(hessian) => {
                let free = hessian.elements().iter().filter(|(i, j, _)| !fixed[*i] && !fixed[*j]);
                free.for_each(|&(i, j, value)| elements.push(i, j, value));
            }
        }
        let free = slopes.jacobian.elements().iter().filter(|(_, j, _)| !fixed[*j]);
        free.for_each(|&(i, j, value)| elements.push(n + i, j, value));
        let analysis = Analysis::new(&with_diagonal(&elements, (0..n + m).map(|_| 1.0)));
        Self { n, elements, analysis, sigma, slack: barrier.slack.clone(), fixed, corner }
    }

    fn factor(&self, delta_w: f64, delta_c: f64) -> Option<Factored<'_>> {
        let variables = (0..self.n).map(|i| if self.fixed[i] { 1.0 } else { self.sigma[i] + delta_w });
        let constraints = self.slack.iter().zip(&self.corner).map(|(slack, corner)| {
            -corner - delta_c - slack.map_or(0.0, |slack| 1.0 / (self.sigma[slack] + delta_w))
        });
        let matrix = with_diagonal(&self.elements, variables.chain(constraints));
        let factor = SparseLdlt::new(&self.analysis, &matrix)?;
        Some(Factored { system: self, matrix, factor, delta_w })
    }

    /// With the signs of a minimum, from `floor` on; `None` if no regularisation gives them.
    pub(super) fn regularised(&self, past: &mut Regularisation, floor: f64, mu: f64) -> Option<Factored<'_>> {
        let wanted = Inertia { positive: self.n, negative: self.slack.len(), zero: 0 };
        let (mut delta_w, mut delta_c, mut first) = (floor, 0.0, true);
        loop {
            let factored = self.factor(delta_w, delta_c)?;
            let inertia = factored.factor.inertia();
            if inertia == wanted && factored.accurate() {
                if delta_w > 0.0 {
                    past.last = delta_w;
                }
                return Some(factored);
            }
            let singular = inertia.zero > 0 || inertia == wanted;
            if singular && delta_c == 0.0 && self.corner.contains(&0.0) {
                // Too near to rounding it regularises nothing, and as 0 it would be asked for again without an end.
                delta_c = (1e-8 * mu.powf(0.25)).max(1e-12);
                continue;
            }
            delta_w = match (std::mem::take(&mut first), past.last) {
                (true, 0.0) => FIRST.max(8.0 * floor),
                (true, last) => (last / 3.0).max(LEAST).max(8.0 * floor),
                (false, 0.0) => 100.0 * delta_w,
                (false, _) => 8.0 * delta_w,
            };
            if delta_w > MOST {
                return None;
            }
        }
    }
}

fn with_diagonal(elements: &Triplets, diagonal: impl Iterator<Item = f64>) -> Triplets {
    let mut all = elements.clone();
    diagonal.enumerate().for_each(|(i, value)| all.push(i, i, value));
    all
}

impl Factored<'_> {
    /// Whether it solves a system at all.
    fn accurate(&self) -> bool {
        let size = self.matrix.columns();
        let b: Vec<f64> = (0..size).map(|i| if i % 2 == 0 { 1.0 } else { -1.0 }).collect();
        let mut x = self.factor.solve(&b);
        let (mut r, mut scale) = self.residual(&x, &b);
        if largest(&r) > INACCURATE * scale {
            add_scaled(&mut x, 1.0, &self.factor.solve(&r));
            (r, scale) = self.residual(&x, &b);
        }
        largest(&r) <= INACCURATE * scale
    }

    /// `b − A x`, and the size of the terms that cancel in it.
    fn residual(&self, x: &[f64], b: &[f64]) -> (Vec<f64>, f64) {
        let mut r = b.to_vec();
        let mut scale = largest(b);
        for &(i, j, a) in self.matrix.elements() {
            scale = scale.max((a * x[j]).abs());
            r[i] -= a * x[j];
            if i != j {
                scale = scale.max((a * x[i]).abs());
                r[j] -= a * x[i];
            }
        }
        (r, scale)
    }

    /// `(Δv, Δy)` for a right-hand side without its minus sign.
    pub(super) fn solve(&self, r_v: &[f64], r_c: &[f64]) -> (Vec<f64>, Vec<f64>) {
        let System { n, sigma, slack, fixed, .. } = self.system;
        let curved = |slack: usize| sigma[slack] + self.delta_w;
        let mut b: Vec<f64> = (0..*n).map(|i| if fixed[i] { 0.0 } else { -r_v[i] }).collect();
        b.extend(r_c.iter().zip(slack).map(|(c, slack)| -c - slack.map_or(0.0, |s| r_v[s] / curved(s))));
        let mut x = self.factor.solve(&b);
        let mut last = f64::INFINITY;
        for _ in 0..3 {
            let (r, scale) = self.residual(&x, &b);
            let error = largest(&r);
            if error <= 1e-15 * scale || error >= 0.5 * last {
                break;
            }
            last = error;
            add_scaled(&mut x, 1.0, &self.factor.solve(&r));
        }
        let y = x.split_off(*n);
        let mut v = x;
        v.resize(sigma.len(), 0.0);
        slack
            .iter()
            .zip(&y)
            .for_each(|(slack, y)| slack.iter().for_each(|&s| v[s] = (y - r_v[s]) / curved(s)));
        (v, y)
    }
}
