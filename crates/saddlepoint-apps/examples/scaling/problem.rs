//! Smooth problems with equalities, drawn at any size.
//! ```text
//! f(x) = ½ xᵀ Q x − bᵀ x + ¼ Σ x_j⁴         c_i(x) = a_iᵀ x + ½ x_s(i)² − r_i = 0
//! ```
//! `Q` has its eigenvalues in a range that does not depend on the size, `s(i)` is `i` or, in a chain, `4i`, and `r` is that of a drawn point, so that every problem has a
//! solution.

use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution as _, StandardNormal, Uniform};
use saddlepoint_core::seed::Seed;
use saddlepoint_opt::linalg::{Triplets, dot};
use saddlepoint_opt::problem::{Constrained, Constraint, Curved, Objective};

/// What `Q` and the rows `a_i` are made of.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Shape {
    /// All elements of both: `Q = I + GGᵀ/n` and `a_i` of variance `1/n`, with normal elements.
    Dense,
    /// `Q` diagonal in [1, 5], all elements of the rows.
    DenseRows,
    /// `Q = tridiag(−1, 4, −1)`, and `a_i` the second difference at the place `4i`.
    Chain,
}

/// A problem.
pub(crate) struct Smooth {
    /// The lower triangle of `Q`.
    q: Triplets,
    b: Vec<f64>,
    a: Triplets,
    r: Vec<f64>,
    /// `s(i) / i`.
    stride: usize,
    constraints: Vec<Constraint>,
}

impl Smooth {
    /// `n` variables and `m <= n` constraints; a chain has `m <= n/4`.
    pub(crate) fn new(shape: Shape, n: usize, m: usize, seed: u64) -> Self {
        let mut rng = Seed::new(seed).stream("scaling", &[n as u64, m as u64]);
        let (mut q, mut a) = (Triplets::new(n, n), Triplets::new(m, n));
        match shape {
            Shape::Dense => {
                let g = normal(n * n, &mut rng);
                for i in 0..n {
                    for j in 0..=i {
                        let product = dot(&g[i * n..(i + 1) * n], &g[j * n..(j + 1) * n]) / n as f64;
                        q.push(i, j, if i == j { 1.0 + product } else { product });
                    }
                }
            }
            Shape::DenseRows => {
                let range = Uniform::new(1.0, 5.0).expect("an interval");
                (0..n).for_each(|i| q.push(i, i, range.sample(&mut rng)));
            }
            Shape::Chain => {
                (0..n).for_each(|i| q.push(i, i, 4.0));
                (1..n).for_each(|i| q.push(i, i - 1, -1.0));
            }
        }
        match shape {
            Shape::Dense | Shape::DenseRows => {
                let rows = normal(m * n, &mut rng);
                let size = (n as f64).sqrt();
                rows.iter().enumerate().for_each(|(at, value)| a.push(at / n, at % n, value / size));
            }
            Shape::Chain => {
                for i in 0..m {
                    for (k, value) in [(0, 1.0), (1, -2.0), (2, 1.0)] {
                        a.push(i, 4 * i + k, value);
                    }
                }
            }
        }
        let b = normal(n, &mut rng);
        let inside: Vec<f64> = normal(n, &mut rng).iter().map(|x| 0.5 * x).collect();
        let constraints =
            (0..m).map(|i| Constraint { name: format!("c{i}"), lower: 0.0, upper: 0.0 }).collect();
        let stride = if matches!(shape, Shape::Chain) { 4 } else { 1 };
        let mut problem = Self { q, b, a, r: vec![0.0; m], stride, constraints };
        let mut r = vec![0.0; m];
        problem.residuals(&inside, &mut r);
        problem.r = r;
        problem
    }

    /// What stands on the diagonal of the Hessian of the Lagrangian beside `Q`.
    fn curvature(&self, x: &[f64], w: &[f64]) -> Vec<f64> {
        let mut curvature: Vec<f64> = x.iter().map(|x| 3.0 * x * x).collect();
        w.iter().enumerate().for_each(|(i, w)| curvature[self.stride * i] += w);
        curvature
    }

    /// `out += Q v`.
    fn add_quadratic(&self, v: &[f64], out: &mut [f64]) {
        for &(i, j, q) in self.q.elements() {
            out[i] += q * v[j];
            if i != j {
                out[j] += q * v[i];
            }
        }
    }
}

fn normal(count: usize, rng: &mut ChaCha8Rng) -> Vec<f64> {
    (0..count).map(|_| StandardNormal.sample(rng)).collect()
}

impl Objective for Smooth {
    fn dim(&self) -> usize {
        self.b.len()
    }

    fn value(&self, x: &[f64]) -> f64 {
        let mut product = vec![0.0; x.len()];
        self.add_quadratic(x, &mut product);
        0.5 * dot(x, &product) - dot(&self.b, x) + 0.25 * x.iter().map(|x| x.powi(4)).sum::<f64>()
    }

    fn grad(&self, x: &[f64], g: &mut [f64]) {
        g.iter_mut().zip(x).zip(&self.b).for_each(|((g, x), b)| *g = x.powi(3) - b);
        self.add_quadratic(x, g);
    }
}

impl Constrained for Smooth {
    fn constraints(&self) -> &[Constraint] {
        &self.constraints
    }

    fn residuals(&self, x: &[f64], c: &mut [f64]) {
        c.iter_mut()
            .zip(&self.r)
            .enumerate()
            .for_each(|(i, (c, r))| *c = 0.5 * x[self.stride * i].powi(2) - r);
        self.a.add_product(x, c);
    }

    fn vjp(&self, x: &[f64], w: &[f64], out: &mut [f64]) {
        w.iter().enumerate().for_each(|(i, w)| out[self.stride * i] += x[self.stride * i] * w);
        self.a.add_transposed_product(w, out);
    }

    fn jacobian(&self, x: &[f64]) -> Triplets {
        let mut jacobian = self.a.clone();
        (0..self.r.len()).for_each(|i| jacobian.push(i, self.stride * i, x[self.stride * i]));
        jacobian
    }
}

impl Curved for Smooth {
    fn hess_vec(&self, x: &[f64], w: &[f64], v: &[f64], out: &mut [f64]) {
        out.iter_mut()
            .zip(self.curvature(x, w))
            .zip(v)
            .for_each(|((out, curvature), v)| *out = curvature * v);
        self.add_quadratic(v, out);
    }

    fn hessian(&self, x: &[f64], w: &[f64]) -> Triplets {
        let mut hessian = self.q.clone();
        self.curvature(x, w).into_iter().enumerate().for_each(|(j, value)| hessian.push(j, j, value));
        hessian
    }
}
